//! Predicates over attributes. Absent never equals.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::attributes::{self, Atom, Attributes};
use crate::contract::Stream;
use crate::ids::AttributeId;
use crate::problem::Code;

/// Query parameters that are no attribute filters. Later ones will have a `_` in them, so that no attribute collides.
/// An attribute of such a name is filtered by `where.NAME=`.
pub const RESERVED_PARAMETERS: &[&str] =
    &["after", "snapshot", "limit", "wait", "overflow", "rate", "ticket"];

/// The most values of one attribute that a filter may name.
pub const VALUES_MAX: usize = 64;

/// The most bytes of one value in a filter.
pub const VALUE_BYTES_MAX: usize = 256;

/// A conjunction: for each attribute named, one of the event's values is among the wanted ones.
///
/// The empty predicate matches everything. Values of one attribute are sorted and distinct, so that equal predicates
/// are equal as data.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Predicate {
    terms: BTreeMap<AttributeId, Vec<Atom>>,
}

/// Why a filter is refused. `detail` names the parameter and the rule, never a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", code.name)]
pub struct BadFilter {
    /// What the client is told: [`Code::UNKNOWN_PARAMETER`] or [`Code::FILTER_INVALID`].
    pub code: Code,
    /// More, for people.
    pub detail: String,
}

impl Predicate {
    /// Reads a query string's decoded pairs: `patient=Patient/1&status=final,amended`.
    ///
    /// A comma separates values, any of which may match; `\,` is a literal comma and `\\` a literal backslash.
    /// `where.patient=` is the same as `patient=`, also for names that are reserved otherwise. Pairs of
    /// [`RESERVED_PARAMETERS`] are passed over.
    pub fn from_query<'a>(
        stream: &Stream,
        pairs: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, BadFilter> {
        let mut predicate = Self::default();
        for (key, text) in pairs {
            let name = match key.strip_prefix("where.") {
                Some(name) => name,
                None if RESERVED_PARAMETERS.contains(&key) => continue,
                None => key,
            };
            predicate.add(stream, name, split(text))?;
        }
        Ok(predicate)
    }

    /// Reads a JSON object: `{"patient":"Patient/1","status":["final","amended"]}`. Booleans and whole numbers stand for
    /// their text.
    pub fn from_json(stream: &Stream, value: &Value) -> Result<Self, BadFilter> {
        let Value::Object(members) = value else {
            return Err(invalid("a filter is an object of attributes".to_owned()));
        };
        let mut predicate = Self::default();
        for (name, value) in members {
            let values = match value {
                Value::Array(values) => values.iter().map(text).collect::<Option<Vec<_>>>(),
                value => text(value).map(|text| vec![text]),
            };
            let Some(values) = values else {
                known(stream, name)?;
                return Err(invalid(format!(
                    "{name}: a string or an array of strings is wanted"
                )));
            };
            predicate.add(stream, name, values)?;
        }
        Ok(predicate)
    }

    /// What [`Predicate::from_json`] reads back as this predicate.
    #[must_use]
    pub fn to_json(&self, stream: &Stream) -> Value {
        let name = |id: AttributeId| {
            stream
                .attributes
                .get(usize::from(id.0))
                .map(|attribute| attribute.name.to_string())
        };
        let member = |(id, values): (AttributeId, &[Atom])| {
            let values = values.iter().map(|value| Value::from(&**value));
            Some((name(id)?, Value::Array(values.collect())))
        };
        Value::Object(self.terms().filter_map(member).collect())
    }

    /// Both: each attribute narrows to the values that both allow, so the result never matches what one of them does not.
    /// (Of an attribute with several values in one event, both filters must be met by the same value.)
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        let mut both = self.clone();
        for (attribute, values) in &other.terms {
            both.require(*attribute, values.iter().cloned());
        }
        both
    }

    /// Adds a term; a second term on the same attribute narrows to the values that both allow.
    pub fn require(&mut self, attribute: AttributeId, values: impl IntoIterator<Item = Atom>) {
        let mut values: Vec<Atom> = values.into_iter().collect();
        values.sort();
        values.dedup();
        match self.terms.get_mut(&attribute) {
            None => {
                self.terms.insert(attribute, values);
            }
            Some(have) => have.retain(|value| values.binary_search(value).is_ok()),
        }
    }

    /// The terms, ordered by attribute.
    pub fn terms(&self) -> impl Iterator<Item = (AttributeId, &[Atom])> {
        self.terms.iter().map(|(id, values)| (*id, values.as_slice()))
    }

    /// Whether nothing is asked for: everything matches.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// Whether the event with these attributes matches.
    #[must_use]
    pub fn matches(&self, attributes: &Attributes) -> bool {
        self.terms.iter().all(|(id, wanted)| {
            attributes
                .get(*id)
                .any(|value| wanted.binary_search(value).is_ok())
        })
    }

    /// A predicate that can never match (an empty set of wanted values).
    #[must_use]
    pub fn is_never(&self) -> bool {
        self.terms.values().any(Vec::is_empty)
    }

    fn add(&mut self, stream: &Stream, name: &str, values: Vec<String>) -> Result<(), BadFilter> {
        let id = known(stream, name)?;
        if self.terms.contains_key(&id) {
            return Err(invalid(format!(
                "{name}: named twice; several values are separated by commas"
            )));
        }
        if values.is_empty() || values.iter().any(String::is_empty) {
            return Err(invalid(format!("{name}: a value is empty")));
        }
        if values.len() > VALUES_MAX {
            return Err(invalid(format!("{name}: more than {VALUES_MAX} values")));
        }
        if values.iter().any(|value| value.len() > VALUE_BYTES_MAX) {
            return Err(invalid(format!(
                "{name}: a value has more than {VALUE_BYTES_MAX} bytes"
            )));
        }
        let is_reference = stream
            .attributes
            .get(usize::from(id.0))
            .is_some_and(|attribute| attribute.reference);
        let atom = |text: String| {
            Atom::from(if is_reference {
                attributes::reference(&text)
            } else {
                &text
            })
        };
        self.require(id, values.into_iter().map(atom));
        Ok(())
    }
}

fn known(stream: &Stream, name: &str) -> Result<AttributeId, BadFilter> {
    stream.attribute(name).ok_or_else(|| BadFilter {
        code: Code::UNKNOWN_PARAMETER,
        // The name came from outside: cut, so that an answer stays small.
        detail: format!(
            "{:?} is no attribute of {}",
            name.chars().take(32).collect::<String>(),
            stream.name
        ),
    })
}

fn invalid(detail: String) -> BadFilter {
    BadFilter {
        code: Code::FILTER_INVALID,
        detail,
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Number(number) if number.is_i64() || number.is_u64() => Some(number.to_string()),
        _ => None,
    }
}

/// Splits at commas; `\,` is a comma and `\\` a backslash, any other backslash stands for itself.
fn split(text: &str) -> Vec<String> {
    let mut values = vec![String::new()];
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let c = match c {
            ',' => {
                // One more than the limit is enough to be refused.
                if values.len() > VALUES_MAX {
                    break;
                }
                values.push(String::new());
                continue;
            }
            '\\' => chars.next_if(|next| matches!(next, ',' | '\\')).unwrap_or('\\'),
            c => c,
        };
        if let Some(value) = values.last_mut() {
            value.push(c);
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;
    use smallvec::SmallVec;

    use super::*;
    use crate::fixture;

    fn query(pairs: &[(&str, &str)]) -> Result<Predicate, BadFilter> {
        Predicate::from_query(&fixture::clinical(), pairs.iter().copied())
    }

    fn wanted(predicate: &Predicate) -> Vec<(u16, Vec<&str>)> {
        predicate
            .terms()
            .map(|(id, values)| (id.0, values.iter().map(|value| &**value).collect()))
            .collect()
    }

    #[test]
    fn a_query_reads_as_any_of_its_values_and_all_of_its_attributes() {
        let predicate = query(&[
            ("status", "final,amended,final"),
            ("where.patient", "https://x/Patient/1"),
        ]);
        let predicate = predicate.expect("a good filter");
        assert_eq!(
            wanted(&predicate),
            [(0, vec!["Patient/1"]), (1, vec!["amended", "final"])]
        );
        assert!(query(&[]).expect("a good filter").is_empty());
    }

    #[test]
    fn a_comma_can_be_meant() {
        let predicate = query(&[("status", r"a\,b,c\\,d\e")]).expect("a good filter");
        assert_eq!(wanted(&predicate), [(1, vec!["a,b", r"c\", r"d\e"])]);
    }

    #[test]
    fn reserved_parameters_are_no_attributes() {
        assert!(
            query(&[("after", "x"), ("limit", "10"), ("ticket", "t")])
                .expect("passed over")
                .is_empty()
        );
        let refused = query(&[("where.limit", "10")]).expect_err("no such attribute");
        assert_eq!(refused.code, Code::UNKNOWN_PARAMETER);
        let stream = fixture::stream(vec![fixture::attribute("limit", "/limit")]);
        let pairs = [("where.limit", "10"), ("limit", "3")];
        let predicate = Predicate::from_query(&stream, pairs.into_iter()).expect("a good filter");
        assert_eq!(wanted(&predicate), [(0, vec!["10"])]);
    }

    #[test]
    fn bad_queries_are_told_apart() {
        let code = |pairs: &[(&str, &str)]| query(pairs).expect_err("refused").code;
        assert_eq!(code(&[("nurse", "x")]), Code::UNKNOWN_PARAMETER);
        assert_eq!(code(&[("", "x")]), Code::UNKNOWN_PARAMETER);
        assert_eq!(code(&[("where.", "x")]), Code::UNKNOWN_PARAMETER);
        for pairs in [
            &[("status", "")][..],
            &[("status", ",a")],
            &[("status", "a,")],
            &[("status", "a"), ("status", "b")],
            &[("status", "a"), ("where.status", "a")],
        ] {
            assert_eq!(code(pairs), Code::FILTER_INVALID, "{pairs:?}");
        }
        let many = |count: usize| (0..count).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
        assert!(query(&[("status", &many(VALUES_MAX))]).is_ok());
        assert_eq!(code(&[("status", &many(VALUES_MAX + 1))]), Code::FILTER_INVALID);
        assert!(query(&[("status", &"x".repeat(VALUE_BYTES_MAX))]).is_ok());
        assert_eq!(
            code(&[("status", &"x".repeat(VALUE_BYTES_MAX + 1))]),
            Code::FILTER_INVALID
        );
    }

    #[test]
    fn a_refusal_never_repeats_a_value() {
        let refused = query(&[("status", &"secret".repeat(100))]).expect_err("too long");
        assert!(!refused.to_string().contains("secret"));
    }

    #[test]
    fn json_says_the_same_as_a_query() {
        let stream = fixture::clinical();
        let from = |value: Value| Predicate::from_json(&stream, &value);
        let value = json!({"patient": "Patient/1/_history/3", "status": ["final", "amended"]});
        let pairs = [("patient", "Patient/1"), ("status", "amended,final")];
        assert_eq!(from(value), query(&pairs));
        assert_eq!(
            from(json!({"status": true, "code": [17]})),
            query(&[("status", "true"), ("code", "17")])
        );
        assert_eq!(from(json!({})), Ok(Predicate::default()));
        for bad in [
            json!(null),
            json!([]),
            json!("x"),
            json!({"status": null}),
            json!({"status": {}}),
            json!({"status": []}),
            json!({"status": [""]}),
            json!({"status": [["a"]]}),
            json!({"status": 1.5}),
        ] {
            assert_eq!(
                from(bad.clone()).expect_err("refused").code,
                Code::FILTER_INVALID,
                "{bad}"
            );
        }
        assert_eq!(
            from(json!({"nurse": null})).expect_err("refused").code,
            Code::UNKNOWN_PARAMETER
        );
    }

    #[test]
    fn both_is_the_narrower() {
        let one = query(&[("status", "a,b"), ("code", "x")]).expect("good");
        let other = query(&[("status", "b,c")]).expect("good");
        assert_eq!(
            one.and(&other),
            query(&[("status", "b"), ("code", "x")]).expect("good")
        );
        assert!(one.and(&query(&[("status", "z")]).expect("good")).is_never());
        assert_eq!(one.and(&Predicate::default()), one);
    }

    #[test]
    fn absent_never_equals() {
        let predicate = query(&[("status", "final")]).expect("good");
        assert!(!predicate.matches(&Attributes::default()));
        assert!(Predicate::default().matches(&Attributes::default()));
    }

    fn predicates() -> impl Strategy<Value = Predicate> {
        prop::collection::btree_map(0_u16..5, prop::collection::vec("[a-c,\\\\]{1,3}", 1..4), 0..4).prop_map(
            |terms| {
                let mut predicate = Predicate::default();
                for (id, values) in terms {
                    predicate.require(AttributeId(id), values.into_iter().map(Atom::from));
                }
                predicate
            },
        )
    }

    proptest! {
        #[test]
        fn json_round_trips(predicate in predicates()) {
            let stream = fixture::clinical();
            prop_assert_eq!(Predicate::from_json(&stream, &predicate.to_json(&stream)), Ok(predicate));
        }

        #[test]
        fn a_query_can_say_any_values(values in prop::collection::vec("[a-c,\\\\]{1,4}", 1..5)) {
            let escaped: Vec<String> = values.iter().map(|value| value.replace('\\', r"\\").replace(',', r"\,")).collect();
            let predicate = query(&[("status", &escaped.join(","))]).expect("a good filter");
            let mut want: Vec<&str> = values.iter().map(String::as_str).collect();
            want.sort_unstable();
            want.dedup();
            prop_assert_eq!(wanted(&predicate), [(1, want)]);
        }

        #[test]
        fn both_matches_what_each_matches(
            one in predicates(),
            other in predicates(),
            values in prop::collection::vec((0_u16..5, "[a-c]"), 0..6),
        ) {
            let values: SmallVec<[(AttributeId, Atom); 4]> =
                values.into_iter().map(|(id, value)| (AttributeId(id), Atom::from(value))).collect();
            let attributes = Attributes::new(values);
            let both = one.and(&other);
            // With several values of one attribute each filter may match by another value: both is narrower then.
            prop_assert!(!both.matches(&attributes) || (one.matches(&attributes) && other.matches(&attributes)));
            prop_assert!(!both.is_never() || !both.matches(&attributes));
        }
    }
}

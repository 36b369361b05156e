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
        Self::from_query_within(stream, &|_| true, pairs)
    }

    /// The same for a reader who may filter by some attributes only: the others look as if they did not exist, whatever
    /// is asked of them.
    pub fn from_query_within<'a>(
        stream: &Stream,
        filterable: &dyn Fn(AttributeId) -> bool,
        pairs: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, BadFilter> {
        let mut predicate = Self::default();
        for (key, text) in pairs {
            let name = match key.strip_prefix("where.") {
                Some(name) => name,
                None if RESERVED_PARAMETERS.contains(&key) => continue,
                None => key,
            };
            let id = known(stream, filterable, name)?;
            predicate.add(stream, id, name, split(text))?;
        }
        Ok(predicate)
    }

    /// Reads a JSON object: `{"patient":"Patient/1","status":["final","amended"]}`. Booleans and whole numbers stand for
    /// their text.
    pub fn from_json(stream: &Stream, value: &Value) -> Result<Self, BadFilter> {
        Self::from_json_within(stream, &|_| true, value)
    }

    /// The same for a reader who may filter by some attributes only: the others look as if they did not exist, whatever
    /// is asked of them.
    pub fn from_json_within(
        stream: &Stream,
        filterable: &dyn Fn(AttributeId) -> bool,
        value: &Value,
    ) -> Result<Self, BadFilter> {
        let Value::Object(members) = value else {
            return Err(invalid("a filter is an object of attributes".to_owned()));
        };
        let mut predicate = Self::default();
        for (name, value) in members {
            let id = known(stream, filterable, name)?;
            let values = match value {
                Value::Array(values) => values.iter().map(text).collect::<Option<Vec<_>>>(),
                value => text(value).map(|text| vec![text]),
            };
            let Some(values) = values else {
                return Err(invalid(format!(
                    "{name}: a string or an array of strings is wanted"
                )));
            };
            predicate.add(stream, id, name, values)?;
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

    fn add(
        &mut self,
        stream: &Stream,
        id: AttributeId,
        name: &str,
        values: Vec<String>,
    ) -> Result<(), BadFilter> {
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

fn known(
    stream: &Stream,
    filterable: &dyn Fn(AttributeId) -> bool,
    name: &str,
) -> Result<AttributeId, BadFilter> {
    let id = stream.attribute(name).filter(|id| filterable(*id));
    id.ok_or_else(|| BadFilter {
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
mod tests;

//! Scopes: SMART on FHIR v2 (and v1) resource scopes, and plain ones.
//!
//! One invariant: a scope that is not understood grants nothing by being close to one that is; it is a plain scope,
//! and plain scopes only ever equal themselves. Knows nothing of streams: what a restriction means for an attribute is
//! decided in [`crate::access`].
//!
//! Source of the rules: SMART App Launch 2.2, "Scopes and Launch Context".

use percent_encoding::percent_decode_str;

/// A scope, held in a token or named by an access rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// `patient/Observation.rs?category=laboratory` and its like.
    Smart(Smart),
    /// Everything else (`openid`, `launch/patient`, `orders:read`): equal only to the same text.
    Plain(String),
}

/// A SMART resource scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Smart {
    /// Whose view of the data.
    pub context: Context,
    /// `None`: every type (`*`).
    pub resource: Option<String>,
    /// Which interactions.
    pub permissions: Permissions,
    /// Parameters that all must hold, each with the values of which one suffices. Empty: not restricted.
    pub restriction: Vec<Parameter>,
}

/// The first part of a SMART scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Context {
    /// One patient's data.
    Patient,
    /// What the signed-in person may see.
    User,
    /// What a backend service may see.
    System,
}

/// A set of the interactions `c r u d s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permissions(u8);

/// One `name=value,value` of a restriction, percent-decoded.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Parameter {
    /// The search parameter's name, modifiers included.
    pub name: String,
    /// One of these must be among the event's values.
    pub values: Vec<String>,
}

/// How far the scopes of a token satisfy the scopes of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held<'a> {
    /// No scope does.
    No,
    /// One does without a restriction (which absorbs every restricted one).
    Whole,
    /// Only restricted ones do; each restriction is an alternative.
    Restricted(Vec<&'a [Parameter]>),
}

impl Permissions {
    const LETTERS: [char; 5] = ['c', 'r', 'u', 'd', 's'];

    /// `cruds` or a part of it in that order (v2), or `read`, `write`, `*` (v1).
    fn parse(text: &str) -> Option<Self> {
        match text {
            "" => return None,
            "read" => return Some(Self(0b1_0010)),
            "write" => return Some(Self(0b0_1101)),
            "*" => return Some(Self(0b1_1111)),
            _ => {}
        }
        let mut bits = 0;
        let mut letters = (0..).zip(Self::LETTERS);
        for wanted in text.chars() {
            // Each letter is looked for behind the one before it: the order is part of the syntax.
            let (place, _) = letters.find(|(_, letter)| *letter == wanted)?;
            bits |= 1 << place;
        }
        Some(Self(bits))
    }

    /// Whether all of `other` is in here.
    #[must_use]
    pub fn include(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl Scope {
    /// Reads a scope. Never fails: what is no SMART resource scope is a plain one.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        Smart::parse(text).map_or_else(|| Self::Plain(text.to_owned()), Self::Smart)
    }
}

impl Smart {
    fn parse(text: &str) -> Option<Self> {
        let (head, query) = match text.split_once('?') {
            Some((head, query)) => (head, Some(query)),
            None => (text, None),
        };
        let (context, rest) = head.split_once('/')?;
        let context = match context {
            "patient" => Context::Patient,
            "user" => Context::User,
            "system" => Context::System,
            _ => return None,
        };
        let (resource, permissions) = rest.split_once('.')?;
        let resource = match resource {
            "*" => None,
            name if is_type_name(name) => Some(name.to_owned()),
            _ => return None,
        };
        let permissions = Permissions::parse(permissions)?;
        let restriction = match query {
            None => Vec::new(),
            Some(query) => query.split('&').map(Parameter::parse).collect::<Option<_>>()?,
        };
        Some(Self {
            context,
            resource,
            permissions,
            restriction,
        })
    }

    /// Whether somebody who holds this scope satisfies `wanted`: the same context, the same type or all of them, and at
    /// least its permissions. The restriction of `self` is the caller's business.
    #[must_use]
    pub fn covers(&self, wanted: &Self) -> bool {
        self.context == wanted.context
            && (self.resource.is_none() || self.resource == wanted.resource)
            && self.permissions.include(wanted.permissions)
    }
}

impl Parameter {
    fn parse(text: &str) -> Option<Self> {
        let (name, value) = text.split_once('=')?;
        let name = decode(name)?;
        let values = split_values(&decode(value)?);
        if name.is_empty() || values.iter().any(String::is_empty) {
            return None;
        }
        Some(Self { name, values })
    }
}

/// How far `held` satisfies a rule that names `wanted`. A rule's own scope with a restriction is never satisfied:
/// restrictions belong into its rows.
#[must_use]
pub fn held<'a>(wanted: &[String], held: &'a [Scope]) -> Held<'a> {
    let mut restricted = Vec::new();
    for wanted in wanted.iter().map(|text| Scope::parse(text)) {
        for have in held {
            match (&wanted, have) {
                (Scope::Plain(wanted), Scope::Plain(have)) if wanted == have => return Held::Whole,
                (Scope::Smart(wanted), Scope::Smart(have))
                    if wanted.restriction.is_empty() && have.covers(wanted) =>
                {
                    if have.restriction.is_empty() {
                        return Held::Whole;
                    }
                    restricted.push(have.restriction.as_slice());
                }
                _ => {}
            }
        }
    }
    if restricted.is_empty() {
        Held::No
    } else {
        Held::Restricted(restricted)
    }
}

fn is_type_name(name: &str) -> bool {
    name.chars().next().is_some_and(|c| c.is_ascii_uppercase())
        && name.chars().all(|c| c.is_ascii_alphanumeric())
}

/// Strict: a `%` that is no escape, or bytes that are no UTF-8, are no value.
fn decode(text: &str) -> Option<String> {
    let mut rest = text;
    while let Some((_, behind)) = rest.split_once('%') {
        let mut digits = behind.chars();
        if !(0..2).all(|_| digits.next().is_some_and(|c| c.is_ascii_hexdigit())) {
            return None;
        }
        rest = digits.as_str();
    }
    percent_decode_str(text)
        .decode_utf8()
        .ok()
        .map(std::borrow::Cow::into_owned)
}

/// FHIR's "or": values are separated by commas, `\,` is a comma in a value (FHIR R4, 3.1.1.4.0).
fn split_values(text: &str) -> Vec<String> {
    let mut values = vec![String::new()];
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            ',' => values.push(String::new()),
            '\\' => values
                .last_mut()
                .into_iter()
                .for_each(|value| value.extend(chars.next())),
            _ => values.last_mut().into_iter().for_each(|value| value.push(c)),
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    fn smart(text: &str) -> Smart {
        match Scope::parse(text) {
            Scope::Smart(smart) => smart,
            Scope::Plain(text) => panic!("{text} is plain"),
        }
    }

    fn covers(have: &str, wanted: &str) -> bool {
        smart(have).covers(&smart(wanted))
    }

    #[test]
    fn a_held_scope_covers_its_type_and_permissions_in_its_own_context() {
        for have in [
            "patient/Observation.rs",
            "patient/Observation.cruds",
            "patient/Observation.crs",
            "patient/*.rs",
            "patient/*.cruds",
            "patient/Observation.read",
            "patient/*.read",
            "patient/*.*",
            "patient/Observation.*",
        ] {
            assert!(covers(have, "patient/Observation.rs"), "{have}");
        }
        for have in [
            "user/Observation.rs",
            "system/*.cruds",
            "patient/Observation.r",
            "patient/Observation.s",
            "patient/Observation.write",
            "patient/Encounter.rs",
            "patient/ObservationDefinition.rs",
        ] {
            assert!(!covers(have, "patient/Observation.rs"), "{have}");
        }
        assert!(
            !covers("system/Observation.rs", "system/*.rs"),
            "one type is not all of them"
        );
        assert!(covers("user/Observation.r", "user/Observation.r"));
    }

    #[test]
    fn what_is_no_smart_scope_is_plain() {
        for text in [
            "openid",
            "launch/patient",
            "orders:read",
            "patient/Observation",
            "patient/Observation.",
            "patient/Observation.sr",
            "patient/Observation.rr",
            "patient/Observation.rsx",
            "patient/observation.rs",
            "patient/.rs",
            "patient/Observation.rs?",
            "patient/Observation.rs?category",
            "patient/Observation.rs?=x",
            "patient/Observation.rs?category=",
            "patient/Observation.rs?category=a,",
            "patient/Observation.rs?category=%zz",
            "patient/Observation.rs?category=%f",
            "patient/Observation.rs?category=%ff",
            "Patient/Observation.rs",
            " patient/Observation.rs",
        ] {
            assert_eq!(Scope::parse(text), Scope::Plain(text.to_owned()));
        }
    }

    #[test]
    fn restrictions_are_decoded_once() {
        let scope = smart(r"patient/Observation.rs?category=lab%6Fratory,vital-signs&note=a%5C%2Cb%2525");
        assert_eq!(
            scope.restriction,
            [
                Parameter {
                    name: "category".into(),
                    values: vec!["laboratory".into(), "vital-signs".into()]
                },
                Parameter {
                    name: "note".into(),
                    values: vec!["a,b%25".into()]
                },
            ]
        );
    }

    #[test]
    fn an_unrestricted_scope_absorbs_restricted_ones() {
        let rule = ["patient/Observation.rs".to_owned()];
        let narrow = Scope::parse("patient/Observation.rs?status=final");
        let other = Scope::parse("patient/*.cruds?status=amended");
        let whole = Scope::parse("patient/*.read");
        let both = [narrow.clone(), other.clone()];
        match held(&rule, &both) {
            Held::Restricted(alternatives) => assert_eq!(alternatives.len(), 2),
            answer => panic!("{answer:?}"),
        }
        assert_eq!(held(&rule, &[narrow, whole, other]), Held::Whole);
        assert_eq!(
            held(&rule, &[Scope::parse("openid"), Scope::parse("launch/patient")]),
            Held::No
        );
    }

    #[test]
    fn plain_scopes_compare_exactly() {
        let rule = ["orders:read".to_owned()];
        assert_eq!(held(&rule, &[Scope::parse("orders:read")]), Held::Whole);
        for near in ["orders:Read", "orders:read ", "orders:*", "orders"] {
            assert_eq!(held(&rule, &[Scope::parse(near)]), Held::No);
        }
    }

    #[test]
    fn a_rule_with_a_restriction_of_its_own_is_never_satisfied() {
        let rule = ["user/Observation.rs?status=final".to_owned()];
        assert_eq!(
            held(&rule, &[Scope::parse("user/*.cruds"), Scope::parse(&rule[0])]),
            Held::No
        );
    }
}

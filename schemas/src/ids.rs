//! Names, parsed once at the door. Inside the house nobody checks a string again.

use std::fmt;
use std::sync::Arc;

/// A name that does not follow its rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {value:?} is not valid: {rule}")]
pub struct BadName {
    /// What kind of name it should have been.
    pub what: &'static str,
    /// The text that was given, cut to 64 characters.
    pub value: String,
    /// The rule that it breaks, in words.
    pub rule: &'static str,
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal, $rule:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $type(Arc<str>);

        impl $type {
            /// Parses the name, or says which rule it breaks.
            pub fn parse(text: &str) -> Result<Self, BadName> {
                let check: fn(&str) -> bool = $check;
                if check(text) {
                    Ok(Self(Arc::from(text)))
                } else {
                    Err(BadName { what: $what, value: text.chars().take(64).collect(), rule: $rule })
                }
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl std::borrow::Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name!(
    /// The name of a stream: `[a-z][a-z0-9_]{0,62}`.
    StreamName,
    "stream name",
    "a small letter, then up to 62 small letters, digits or underscores",
    |text| {
        let mut chars = text.chars();
        text.len() <= 63
            && chars.next().is_some_and(|c| c.is_ascii_lowercase())
            && chars.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    }
);

name!(
    /// A tenant: 1 to 128 characters of `[A-Za-z0-9._:@-]`. Whose data an event is.
    TenantId,
    "tenant",
    "1 to 128 letters, digits or . _ : @ -",
    |text| {
        (1..=128).contains(&text.len())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | ':' | '@' | '-'))
    }
);

name!(
    /// The name of an attribute, a CloudEvents extension attribute: `[a-z][a-z0-9]{0,19}`.
    AttributeName,
    "attribute name",
    "a small letter, then up to 19 small letters or digits (CloudEvents attribute naming)",
    |text| {
        let mut chars = text.chars();
        text.len() <= 20
            && chars.next().is_some_and(|c| c.is_ascii_lowercase())
            && chars.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
    }
);

/// The place of an attribute in its stream's declaration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AttributeId(pub u16);

/// One life of a topic: a digest of the id that the cluster gave it. A topic that was deleted and made again has
/// another incarnation, and offsets of one mean nothing in the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Incarnation(pub u64);

/// The number that a node gives to one partition of one incarnation of one topic of a stream. Dense, never reused
/// within the process, and meaningless outside of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub u32);

//! The values of a stream's declared attributes, read once from a record: the one vocabulary of filters, access rules,
//! GraphQL arguments and webhook filters, and what is indexed.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::ids::AttributeId;

/// One attribute value. Equality is equality of text.
pub type Atom = Arc<str>;

/// Names that no declared attribute and no producer's extension may take: the attributes of an event that are always
/// ours or the specification's (CloudEvents 1.0.2, section 3), and what is put beside them on the wire.
pub const RESERVED: &[&str] = &[
    "specversion",
    "id",
    "source",
    "type",
    "subject",
    "time",
    "datacontenttype",
    "dataschema",
    "data",
    "tenant",
    "cursor",
];

/// The values of one event's attributes, ordered by attribute. Absent attributes have no entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    values: SmallVec<[(AttributeId, Atom); 4]>,
}

impl Attributes {
    /// Takes values in any order; an attribute may have several (a `*` in its pointer).
    #[must_use]
    pub fn new(mut values: SmallVec<[(AttributeId, Atom); 4]>) -> Self {
        values.sort();
        values.dedup();
        Self { values }
    }

    /// All values, ordered by attribute.
    pub fn iter(&self) -> impl Iterator<Item = &(AttributeId, Atom)> {
        self.values.iter()
    }

    /// The values of one attribute.
    pub fn get(&self, id: AttributeId) -> impl Iterator<Item = &Atom> {
        self.values
            .iter()
            .filter(move |(have, _)| *have == id)
            .map(|(_, value)| value)
    }

    /// Bytes that the values hold, roughly.
    #[must_use]
    pub fn memory(&self) -> usize {
        // Two counters before the text, and the slot that points to it.
        const EACH: usize = 2 * size_of::<usize>() + size_of::<(AttributeId, Atom)>();
        self.values.iter().map(|(_, value)| value.len() + EACH).sum()
    }
}

/// The `reference` normaliser: an absolute URL or a relative reference is cut down to its last two path segments, a
/// trailing `_history/<version>` left out, so that `https://x/fhir/Patient/1/_history/2` equals `Patient/1`
/// (FHIR R4, 2.3.0.1 "Literal References").
///
/// Anything else stays as it is: URNs, fragments (`#contained`, `Patient/1#name`), queries (`Patient?identifier=1`),
/// text with white space, and paths of fewer than two segments.
#[must_use]
pub fn reference(text: &str) -> &str {
    if text.contains(|c: char| matches!(c, '#' | '?' | '\\') || c.is_whitespace() || c.is_control()) {
        return text;
    }
    let path = match text.split_once("://") {
        Some((scheme, rest))
            if scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()) && !scheme.is_empty() =>
        {
            match rest.split_once('/') {
                Some((_, path)) => path,
                None => return text,
            }
        }
        Some(_) => return text,
        // `urn:uuid:...`, `mailto:...`
        None if text.contains(':') => return text,
        None => text.strip_prefix('/').unwrap_or(text),
    };
    let path = match path.rsplit_once("/_history/") {
        Some((before, version)) if !version.is_empty() && !version.contains('/') => before,
        _ => path,
    };
    let mut from_the_end = path.rmatch_indices('/').map(|(at, _)| at);
    let Some(last) = from_the_end.next() else {
        return text;
    };
    let start = from_the_end.next().map_or(0, |slash| slash + 1);
    match (path.get(start..last), path.get(last + 1..), path.get(start..)) {
        (Some(kind), Some(id), Some(both))
            if !kind.is_empty() && !id.is_empty() && kind != "_history" && id != "_history" =>
        {
            both
        }
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn references_to_one_thing_are_equal() {
        for text in [
            "Patient/1",
            "/Patient/1",
            "Patient/1/_history/2",
            "https://x/Patient/1",
            "https://x.example:8443/fhir/r4/Patient/1/_history/2",
            "http://x/Patient/1",
            "fhir/Patient/1",
        ] {
            assert_eq!(reference(text), "Patient/1", "{text}");
        }
    }

    #[test]
    fn what_is_no_such_reference_stays_as_it_is() {
        for text in [
            "",
            "/",
            "Patient",
            "Patient/",
            "#contained",
            "Patient/1#name",
            "Patient?identifier=x/1",
            "urn:uuid:53fefa32-fcbb-4ff8-8a92-55ee120877b7",
            "urn:oid:1.2/3",
            "mailto:a/b",
            "https://x",
            "https://x/1",
            "://x/Patient/1",
            "Patient/1/_history",
            "Patient/_history/2",
            "with space/1",
            "https://x/Patient/1 ",
            "//",
            "a//",
        ] {
            assert_eq!(reference(text), text, "{text}");
        }
    }

    proptest! {
        #[test]
        fn normalising_again_changes_nothing(text in "(https?://)?[a-z./:#?_ ]{0,12}(/_history/[0-9/]{0,3})?") {
            let once = reference(&text);
            prop_assert!(text.contains(once));
            prop_assert_eq!(reference(once), once);
        }
    }
}

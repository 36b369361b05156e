//! The values of a stream's declared attributes, read once from a record: the one vocabulary of filters, access rules,
//! GraphQL arguments and webhook filters, and what is indexed.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::ids::AttributeId;

/// One attribute value. Equality is equality of text.
pub type Atom = Arc<str>;

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
        self.values.iter().filter(move |(have, _)| *have == id).map(|(_, value)| value)
    }
}

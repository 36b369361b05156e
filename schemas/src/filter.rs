//! Predicates over attributes. Absent never equals.

use std::collections::BTreeMap;

use crate::attributes::{Atom, Attributes};
use crate::ids::AttributeId;

/// A conjunction: for each attribute named, one of the event's values is among the wanted ones.
///
/// The empty predicate matches everything. Values of one attribute are sorted and distinct, so that equal predicates
/// are equal as data.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Predicate {
    terms: BTreeMap<AttributeId, Vec<Atom>>,
}

impl Predicate {
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

    /// Whether the event with these attributes matches.
    #[must_use]
    pub fn matches(&self, attributes: &Attributes) -> bool {
        self.terms.iter().all(|(id, wanted)| attributes.get(*id).any(|value| wanted.binary_search(value).is_ok()))
    }

    /// A predicate that can never match (an empty set of wanted values).
    #[must_use]
    pub fn is_never(&self) -> bool {
        self.terms.values().any(Vec::is_empty)
    }
}

//! Member names that are looked for together.

/// Distinct names, each with a slot; which slot a member's name has is answered without comparing it with each.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Names {
    names: Vec<Box<str>>,
    /// Open addressing: the slot and one, or 0. A power of two, at most half full.
    table: Vec<u16>,
}

impl Names {
    /// The most names.
    pub const MAX: usize = 1 << 14;

    /// No names yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The slot of a name; it is added if it is new. `None` if there are [`Names::MAX`] already.
    pub fn add(&mut self, name: &str) -> Option<usize> {
        if let Some(slot) = self.slot(name.as_bytes()) {
            return Some(slot);
        }
        let slot = self.names.len();
        if slot >= Self::MAX {
            return None;
        }
        self.names.push(name.into());
        self.table = vec![0; (self.names.len() * 2).next_power_of_two()];
        for (name, number) in self.names.iter().zip(1_u16..) {
            let free = probe(name.as_bytes(), self.table.len()).find(|at| self.table.get(*at) == Some(&0));
            if let Some(place) = free.and_then(|at| self.table.get_mut(at)) {
                *place = number;
            }
        }
        Some(slot)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The name in a slot.
    #[must_use]
    pub fn get(&self, slot: usize) -> Option<&str> {
        self.names.get(slot).map(|name| &**name)
    }

    /// The slot of a name.
    #[must_use]
    pub fn slot(&self, name: &[u8]) -> Option<usize> {
        for at in probe(name, self.table.len()) {
            let slot = usize::from(*self.table.get(at)?).checked_sub(1)?;
            if self.names.get(slot).is_some_and(|have| have.as_bytes() == name) {
                return Some(slot);
            }
        }
        None
    }
}

/// The places of a table in the order in which a name is looked for.
fn probe(name: &[u8], size: usize) -> impl Iterator<Item = usize> {
    // Length and ends tell most names of one object apart.
    let byte = |byte: Option<&u8>| usize::from(byte.copied().unwrap_or(0));
    let hash = name.len() ^ byte(name.first()).wrapping_mul(7) ^ byte(name.last()).wrapping_mul(31);
    let last = size.wrapping_sub(1);
    (0..size).map(move |step| hash.wrapping_add(step) & last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_slots_in_the_order_in_which_they_came() {
        let mut names = Names::new();
        assert_eq!(names.slot(b"id"), None);
        let words: Vec<String> = (0..300).map(|number| format!("n{}", number * 7)).collect();
        for (slot, word) in words.iter().enumerate() {
            assert_eq!(names.add(word), Some(slot));
        }
        for (slot, word) in words.iter().enumerate() {
            assert_eq!(names.add(word), Some(slot), "known already");
            assert_eq!(names.slot(word.as_bytes()), Some(slot));
            assert_eq!(names.get(slot), Some(word.as_str()));
        }
        assert_eq!(names.slot(b""), None);
        assert_eq!(names.slot(b"n1"), None);
        assert_eq!(names.len(), 300);
    }

    #[test]
    fn the_empty_name_is_a_name() {
        let mut names = Names::new();
        assert_eq!(names.add(""), Some(0));
        assert_eq!(names.slot(b""), Some(0));
    }
}

//! Things kept by name while they are used, bounded by number and by bytes.
//!
//! Two generations: what is asked for moves into the young one; when that has half of what may be kept, it becomes the
//! old one, and what nobody asked for meanwhile is gone. Every operation takes constant time.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

/// The cache.
pub(super) struct Cache<K, V> {
    generations: Mutex<Generations<K, V>>,
    entries_max: usize,
    bytes_max: usize,
}

struct Generations<K, V> {
    young: HashMap<K, (V, usize), ahash::RandomState>,
    young_bytes: usize,
    old: HashMap<K, (V, usize), ahash::RandomState>,
}

impl<K: Eq + Hash + Clone, V: Clone> Cache<K, V> {
    pub(super) fn new(entries_max: usize, bytes_max: usize) -> Self {
        Self {
            generations: Mutex::new(Generations {
                young: HashMap::default(),
                young_bytes: 0,
                old: HashMap::default(),
            }),
            entries_max,
            bytes_max,
        }
    }

    pub(super) fn get(&self, key: &K) -> Option<V> {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((value, _)) = generations.young.get(key) {
            return Some(value.clone());
        }
        let (value, bytes) = generations.old.remove(key)?;
        self.put(&mut generations, key.clone(), value.clone(), bytes);
        Some(value)
    }

    /// Keeps a value that holds so many bytes; one that is too large for its share is not kept.
    pub(super) fn insert(&self, key: K, value: V, bytes: usize) {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        generations.old.remove(&key);
        self.put(&mut generations, key, value, bytes);
    }

    fn put(&self, generations: &mut Generations<K, V>, key: K, value: V, bytes: usize) {
        if bytes > self.bytes_max / 2 || self.entries_max < 2 {
            return;
        }
        if let Some((_, replaced)) = generations.young.insert(key.clone(), (value.clone(), bytes)) {
            generations.young_bytes -= replaced;
        }
        generations.young_bytes += bytes;
        if generations.young.len() > self.entries_max / 2 || generations.young_bytes > self.bytes_max / 2 {
            generations.young.remove(&key);
            generations.old = std::mem::take(&mut generations.young);
            generations.young.insert(key, (value, bytes));
            generations.young_bytes = bytes;
        }
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> (usize, usize) {
        let generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        let old: usize = generations.old.values().map(|(_, bytes)| bytes).sum();
        (
            generations.young.len() + generations.old.len(),
            generations.young_bytes + old,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_stays_and_the_rest_goes() {
        let cache = Cache::new(10, 1000);
        cache.insert(0, "kept", 1);
        for key in 1..100 {
            cache.insert(key, "passing", 1);
            assert_eq!(cache.get(&0), Some("kept"));
            assert!(cache.held().0 <= 10, "{:?}", cache.held());
        }
        assert_eq!(cache.get(&1), None);
        assert_eq!(cache.get(&99), Some("passing"));
    }

    #[test]
    fn bytes_are_bounded_too() {
        let cache = Cache::new(1000, 100);
        for key in 0..50 {
            cache.insert(key, (), 30);
            assert!(cache.held().1 <= 100, "{:?}", cache.held());
        }
        cache.insert(99, (), 51);
        assert_eq!(cache.get(&99), None, "more than its share");
        cache.insert(1, (), 10);
        cache.insert(1, (), 20);
        assert!(cache.held().1 <= 100);
    }
}

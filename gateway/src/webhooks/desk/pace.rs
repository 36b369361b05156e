//! How often something may be done for one name: at a steady pace, and so many at once.
//!
//! Invariant: the names that are kept are those that were held back or could be soon; the others are forgotten. It counts
//! what this node is asked.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// From so many names on, those that have rested are forgotten at each call.
const NAMES_KEPT: usize = 1_000;

/// The generic cell rate algorithm: of each name the time from which on it would be as if nothing had been done.
pub(super) struct Pace<K> {
    interval: Duration,
    ahead_max: Duration,
    rested_at: Mutex<HashMap<K, Instant>>,
}

impl<K: Hash + Eq + Clone> Pace<K> {
    /// Once in every interval, `burst` (at least 1) at once.
    pub(super) fn new(interval: Duration, burst: u32) -> Self {
        Self {
            interval,
            ahead_max: interval * burst.saturating_sub(1),
            rested_at: Mutex::default(),
        }
    }

    /// Whether it may be done now; if so, it counts.
    pub(super) fn admits(&self, name: &K) -> bool {
        let now = Instant::now();
        let mut names = self.rested_at.lock().unwrap_or_else(PoisonError::into_inner);
        if names.len() >= NAMES_KEPT {
            names.retain(|_, rested_at| *rested_at > now);
        }
        let rested_at = names.get(name).copied().unwrap_or(now).max(now);
        if rested_at - now > self.ahead_max {
            return false;
        }
        names.insert(name.clone(), rested_at + self.interval);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn so_many_at_once_and_then_one_in_each_interval() {
        let pace = Pace::new(Duration::from_secs(1), 3);
        let admitted = |name: &str| (0..10).filter(|_| pace.admits(&name.to_owned())).count();
        assert_eq!(admitted("a"), 3);
        assert_eq!(admitted("b"), 3);
        tokio::time::advance(Duration::from_millis(1_001)).await;
        assert_eq!(admitted("a"), 1);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(admitted("a"), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn names_that_rested_are_forgotten() {
        let pace = Pace::new(Duration::from_secs(1), 1);
        for name in 0..NAMES_KEPT {
            assert!(pace.admits(&name));
        }
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(pace.admits(&NAMES_KEPT));
        assert_eq!(pace.rested_at.lock().expect("no panic").len(), 1);
    }
}

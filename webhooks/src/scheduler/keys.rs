//! The order of jobs that share a key: one is on its way, the others wait behind it. Pure.
//!
//! One invariant: once something of a key is parked, everything of it is parked until the store has nothing of it any more;
//! so what comes later never overtakes.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::Job;
use crate::delivery::EndpointId;
use crate::ledger::Partition;

type Key = (EndpointId, Vec<u8>);

/// The keys of fresh jobs.
#[derive(Debug, Default)]
pub(super) struct Keys {
    states: HashMap<Key, State>,
    blocks: u64,
}

#[derive(Debug, Default)]
struct State {
    is_active: bool,
    waiting: VecDeque<Arc<Job>>,
    /// It is parked; the number tells one blocking from the next.
    blocked: Option<u64>,
    /// Where its jobs come from.
    partition: Option<Partition>,
}

/// What a fresh job of a key does.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// Nothing is before it.
    Go,
    /// It waits behind another one, in memory.
    Waits,
    /// Others of its key are parked: so is it.
    Park,
    /// Too many wait: all of them have to be parked, and it after them.
    Full,
}

/// Keys that were blocked at one time, to be compared with what the store has.
#[derive(Debug, Default)]
pub(super) struct Blocked {
    keys: HashMap<EndpointId, Vec<(Vec<u8>, u64)>>,
}

impl Blocked {
    pub(super) fn endpoints(&self) -> impl Iterator<Item = &EndpointId> {
        self.keys.keys()
    }

    /// Leaves out those of an endpoint that the store still has.
    pub(super) fn keep_missing(&mut self, endpoint: &EndpointId, stored: Option<HashSet<Vec<u8>>>) {
        match stored {
            Some(stored) => {
                if let Some(keys) = self.keys.get_mut(endpoint) {
                    keys.retain(|(key, _)| !stored.contains(key));
                }
            }
            None => {
                self.keys.remove(endpoint);
            }
        }
    }
}

impl Keys {
    pub(super) fn arrive(&mut self, job: &Arc<Job>, waiting_max: usize) -> Arrival {
        let Some(key) = key(job) else {
            return Arrival::Go;
        };
        let state = self.states.entry(key).or_default();
        state.partition = job.receipt.as_ref().map(|receipt| receipt.partition().clone());
        if state.blocked.is_some() {
            Arrival::Park
        } else if !state.is_active {
            state.is_active = true;
            Arrival::Go
        } else if state.waiting.len() < waiting_max {
            state.waiting.push_back(Arc::clone(job));
            Arrival::Waits
        } else {
            Arrival::Full
        }
    }

    /// A job is over: the next one of its key.
    pub(super) fn finish(&mut self, job: &Job) -> Option<Arc<Job>> {
        let key = key(job)?;
        let state = self.states.get_mut(&key)?;
        if state.blocked.is_some() {
            return None;
        }
        let next = state.waiting.pop_front();
        if next.is_none() {
            self.states.remove(&key);
        }
        next
    }

    /// Something of the key is parked: what waits has to follow, in order.
    pub(super) fn block(&mut self, job: &Job) -> Vec<Arc<Job>> {
        let Some(key) = key(job) else {
            return Vec::new();
        };
        self.blocks += 1;
        let state = self.states.entry(key).or_default();
        state.blocked = Some(self.blocks);
        std::mem::take(&mut state.waiting).into()
    }

    /// The keys that are blocked now.
    pub(super) fn blocked(&self) -> Blocked {
        let mut blocked = Blocked::default();
        for ((endpoint, key), state) in &self.states {
            if let Some(number) = state.blocked {
                let keys = blocked.keys.entry(endpoint.clone()).or_default();
                keys.push((key.clone(), number));
            }
        }
        blocked
    }

    /// Lets keys go of which the store has nothing, unless they were blocked again in the meantime.
    pub(super) fn unblock(&mut self, missing: Blocked) {
        for (endpoint, keys) in missing.keys {
            for (key, number) in keys {
                let key = (endpoint.clone(), key);
                if self
                    .states
                    .get(&key)
                    .is_some_and(|state| state.blocked == Some(number))
                {
                    self.states.remove(&key);
                }
            }
        }
    }

    /// Forgets what came from a partition; what is parked of it stays blocked.
    pub(super) fn forget(&mut self, partition: &Partition) {
        self.states
            .retain(|_, state| state.blocked.is_some() || state.partition.as_ref() != Some(partition));
    }

    /// Blocks what another node, or this one before, has parked.
    pub(super) fn load(&mut self, endpoint: &EndpointId, keys: Vec<Vec<u8>>) {
        for key in keys {
            self.blocks += 1;
            let state = self.states.entry((endpoint.clone(), key)).or_default();
            state.blocked = Some(self.blocks);
        }
    }
}

fn key(job: &Job) -> Option<Key> {
    let key = job.order_key.as_ref().filter(|_| job.is_keyed())?;
    Some((job.target.endpoint.clone(), key.clone()))
}

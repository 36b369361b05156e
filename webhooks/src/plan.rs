//! Whose turn it is: bounded queues of endpoints, and a fair share for each tenant. Pure.
//!
//! Invariants: a queue never holds more than its bound (what does not fit is given back, to be parked); nothing starts
//! beyond an endpoint's concurrency, a tenant's bound or the node's total; the last quarter of the node is for tenants with
//! less than their share; and an attempt that takes long leaves its place on the node to others ([`Plan::slow`]), so that
//! receivers that never answer cannot fill it. Knows nothing of what waits, and of no clock: rates and breakers say
//! [`Plan::hold`].

use std::collections::VecDeque;
use std::hash::Hash;

use ahash::AHashMap;

/// The bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Deliveries that wait in one endpoint's queue.
    pub queue_max: usize,
    /// Attempts under way for one tenant.
    pub tenant_max: usize,
    /// Attempts under way on the node, those that take long aside.
    pub node_max: usize,
    /// Attempts under way on the node that take long.
    pub slow_max: usize,
}

impl Default for Bounds {
    /// At some 30 kB for a connection with TLS, 1,024 and 4,096 of them are 150 MB at worst.
    fn default() -> Self {
        Self {
            queue_max: 512,
            tenant_max: 256,
            node_max: 1024,
            slow_max: 4096,
        }
    }
}

/// Queues and turns. `T` names a tenant, `E` an endpoint; `D` is what waits.
#[derive(Debug)]
pub struct Plan<T, E, D> {
    bounds: Bounds,
    tenants: AHashMap<T, Tenant<E>>,
    endpoints: AHashMap<E, Lane<T, D>>,
    /// Tenants with something that may start, in the order of their turns.
    turns: VecDeque<T>,
    under_way: usize,
    slow: usize,
}

#[derive(Debug)]
struct Tenant<E> {
    /// All attempts, those that take long too.
    under_way: usize,
    slow: usize,
    /// Endpoints with something that may start, in the order of their turns.
    turns: VecDeque<E>,
    in_turns: bool,
}

#[derive(Debug)]
struct Lane<T, D> {
    tenant: T,
    waiting: VecDeque<D>,
    under_way: usize,
    concurrency_max: usize,
    held: bool,
    in_turns: bool,
}

impl<T: Clone + Eq + Hash, E: Clone + Eq + Hash, D> Plan<T, E, D> {
    /// No endpoints yet.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            tenants: AHashMap::new(),
            endpoints: AHashMap::new(),
            turns: VecDeque::new(),
            under_way: 0,
            slow: 0,
        }
    }

    /// Puts a delivery into its endpoint's queue; the endpoint comes to be with its first one. `Err` gives it back: the
    /// queue is full.
    pub fn push(&mut self, tenant: &T, endpoint: &E, concurrency_max: usize, delivery: D) -> Result<(), D> {
        let queue_max = self.bounds.queue_max;
        let lane = self.endpoints.entry(endpoint.clone()).or_insert_with(|| Lane {
            tenant: tenant.clone(),
            waiting: VecDeque::new(),
            under_way: 0,
            concurrency_max: 1,
            held: false,
            in_turns: false,
        });
        lane.concurrency_max = concurrency_max.max(1);
        if lane.waiting.len() >= queue_max {
            return Err(delivery);
        }
        lane.waiting.push_back(delivery);
        self.consider(endpoint);
        Ok(())
    }

    /// How many more the endpoint's queue would take.
    #[must_use]
    pub fn room(&self, endpoint: &E) -> usize {
        let waiting = self.endpoints.get(endpoint).map_or(0, |lane| lane.waiting.len());
        self.bounds.queue_max.saturating_sub(waiting)
    }

    /// Keeps an endpoint from starting anything: its breaker is open, its rate is used up.
    pub fn hold(&mut self, endpoint: &E) {
        if let Some(lane) = self.endpoints.get_mut(endpoint) {
            lane.held = true;
        }
    }

    /// Lets it start again.
    pub fn release(&mut self, endpoint: &E) {
        if let Some(lane) = self.endpoints.get_mut(endpoint) {
            lane.held = false;
        }
        self.consider(endpoint);
    }

    /// Takes everything that waits for an endpoint, in order.
    pub fn drain(&mut self, endpoint: &E) -> Vec<D> {
        let waiting = self
            .endpoints
            .get_mut(endpoint)
            .map(|lane| std::mem::take(&mut lane.waiting));
        self.forget(endpoint);
        waiting.unwrap_or_default().into()
    }

    /// Takes what waits for an endpoint and is picked, in order; the rest goes on waiting.
    pub fn take(&mut self, endpoint: &E, picked: impl Fn(&D) -> bool) -> Vec<D> {
        let Some(lane) = self.endpoints.get_mut(endpoint) else {
            return Vec::new();
        };
        let (taken, kept): (VecDeque<D>, VecDeque<D>) =
            std::mem::take(&mut lane.waiting).into_iter().partition(picked);
        lane.waiting = kept;
        self.forget(endpoint);
        taken.into()
    }

    /// The endpoints for which something waits.
    pub fn waiting_endpoints(&self) -> impl Iterator<Item = &E> {
        self.endpoints
            .iter()
            .filter(|(_, lane)| !lane.waiting.is_empty())
            .map(|(endpoint, _)| endpoint)
    }

    /// What is to start next, if anything may. It counts as under way until [`Plan::ended`] is told.
    pub fn start(&mut self) -> Option<(E, D)> {
        // A tenant that may not start now keeps its place; each is looked at once.
        for _ in 0..self.turns.len() {
            let tenant = self.turns.pop_front()?;
            if !self.has_share(&tenant) {
                self.turns.push_back(tenant);
                continue;
            }
            let started = self.start_of(&tenant);
            if let Some(state) = self.tenants.get_mut(&tenant) {
                if state.turns.is_empty() {
                    state.in_turns = false;
                } else {
                    self.turns.push_back(tenant);
                }
            }
            if started.is_some() {
                return started;
            }
        }
        None
    }

    /// Puts back what was just started and did not begin after all, in front of what waits.
    pub fn put_back(&mut self, endpoint: &E, delivery: D) {
        if let Some(lane) = self.endpoints.get_mut(endpoint) {
            lane.waiting.push_front(delivery);
        }
        self.ended(endpoint, false);
    }

    /// An attempt for the endpoint takes long: it goes on counting for its endpoint and its tenant, and leaves its place on
    /// the node. `false`: there are too many of its kind already, and it is to be called off (it still counts as one that
    /// does not take long).
    pub fn slow(&mut self, endpoint: &E) -> bool {
        let Some(lane) = self.endpoints.get(endpoint) else {
            return false;
        };
        let tenants = self.tenants.len();
        let Some(tenant) = self.tenants.get_mut(&lane.tenant) else {
            return false;
        };
        if !is_within_share(tenant.slow, self.slow, self.bounds.slow_max, tenants) {
            return false;
        }
        tenant.slow += 1;
        self.slow += 1;
        self.under_way = self.under_way.saturating_sub(1);
        true
    }

    /// One attempt for the endpoint has ended; `slow` says whether [`Plan::slow`] took it.
    pub fn ended(&mut self, endpoint: &E, slow: bool) {
        if let Some(lane) = self.endpoints.get_mut(endpoint) {
            debug_assert!(lane.under_way > 0, "plan: what ends has started");
            lane.under_way = lane.under_way.saturating_sub(1);
            let tenant = self.tenants.get_mut(&lane.tenant);
            if let Some(tenant) = tenant {
                tenant.under_way = tenant.under_way.saturating_sub(1);
                tenant.slow = tenant.slow.saturating_sub(usize::from(slow));
            }
            let pool = if slow { &mut self.slow } else { &mut self.under_way };
            *pool = pool.saturating_sub(1);
        }
        self.consider(endpoint);
        self.forget(endpoint);
    }

    /// Attempts under way, those that take long aside.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.under_way
    }

    /// Deliveries that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.endpoints.values().map(|lane| lane.waiting.len()).sum()
    }

    fn has_share(&self, tenant: &T) -> bool {
        let Some(state) = self.tenants.get(tenant) else {
            return false;
        };
        let fresh = state.under_way - state.slow;
        state.under_way < self.bounds.tenant_max
            && is_within_share(fresh, self.under_way, self.bounds.node_max, self.tenants.len())
    }

    fn start_of(&mut self, tenant: &T) -> Option<(E, D)> {
        let state = self.tenants.get_mut(tenant)?;
        while let Some(endpoint) = state.turns.pop_front() {
            let Some(lane) = self.endpoints.get_mut(&endpoint) else {
                continue;
            };
            lane.in_turns = false;
            if !lane.may_start() {
                continue;
            }
            let Some(delivery) = lane.waiting.pop_front() else {
                continue;
            };
            lane.under_way += 1;
            state.under_way += 1;
            self.under_way += 1;
            if lane.may_start() {
                lane.in_turns = true;
                state.turns.push_back(endpoint.clone());
            }
            return Some((endpoint, delivery));
        }
        None
    }

    /// Gives an endpoint that may start something its turn.
    fn consider(&mut self, endpoint: &E) {
        let Some(lane) = self.endpoints.get_mut(endpoint) else {
            return;
        };
        if !lane.may_start() || lane.in_turns {
            return;
        }
        lane.in_turns = true;
        let tenant = self.tenants.entry(lane.tenant.clone()).or_insert_with(|| Tenant {
            under_way: 0,
            slow: 0,
            turns: VecDeque::new(),
            in_turns: false,
        });
        tenant.turns.push_back(endpoint.clone());
        if !tenant.in_turns {
            tenant.in_turns = true;
            self.turns.push_back(lane.tenant.clone());
        }
    }

    /// Nothing is kept of endpoints and tenants that have nothing.
    fn forget(&mut self, endpoint: &E) {
        let Some(lane) = self.endpoints.get(endpoint) else {
            return;
        };
        if lane.under_way > 0 || !lane.waiting.is_empty() || lane.held {
            return;
        }
        let tenant = lane.tenant.clone();
        self.endpoints.remove(endpoint);
        if let Some(state) = self.tenants.get_mut(&tenant) {
            state.turns.retain(|other| other != endpoint);
            if state.under_way == 0 && state.turns.is_empty() {
                self.tenants.remove(&tenant);
                self.turns.retain(|other| *other != tenant);
            }
        }
    }
}

/// Whether a tenant that has `mine` of `taken` may take one more of `max`. The last quarter is for those with less than an
/// equal part, one more tenant than there are reckoned with, so that whoever comes next finds a place.
fn is_within_share(mine: usize, taken: usize, max: usize, tenants: usize) -> bool {
    let reserve_from = max - max / 4;
    taken < max && (taken < reserve_from || mine < (max / (tenants + 1)).max(1))
}

impl<T, D> Lane<T, D> {
    fn may_start(&self) -> bool {
        !self.held && !self.waiting.is_empty() && self.under_way < self.concurrency_max
    }
}

#[cfg(test)]
mod tests;

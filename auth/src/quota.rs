//! How many connections there may be: on this node, of a tenant, of a principal.
//!
//! One invariant: every count equals the permits that are alive, and a name without permits is not in the maps, so
//! that they hold at most as many names as the node has connections. The limits are per node. Knows nothing of sockets.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use schemas::ids::TenantId;
use schemas::problem::Code;

use crate::token::Principal;

/// The limits, in connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// On this node, those that have not said who they are included.
    pub node_max: usize,
    /// Of one tenant.
    pub tenant_max: usize,
    /// Of one principal (issuer, tenant and subject).
    pub principal_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            node_max: 20_000,
            tenant_max: 10_000,
            principal_max: 100,
        }
    }
}

/// Counts connections. Cheap to clone.
#[derive(Clone)]
pub struct Quotas {
    shared: Arc<Shared>,
}

/// The right to one connection; dropping it gives the place back.
#[must_use = "dropping the permit gives the place back"]
pub struct Permit {
    shared: Arc<Shared>,
    who: Option<Who>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Who {
    issuer: Arc<str>,
    tenant: TenantId,
    subject: Arc<str>,
}

struct Shared {
    limits: Limits,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    node: usize,
    tenants: HashMap<TenantId, usize>,
    principals: HashMap<Who, usize>,
}

impl Quotas {
    /// Nobody is connected yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            shared: Arc::new(Shared {
                limits,
                counts: Mutex::default(),
            }),
        }
    }

    /// A place for a principal's connection, or the code that says which limit is reached.
    pub fn admit(&self, principal: &Principal) -> Result<Permit, Code> {
        let mut permit = self.admit_unknown()?;
        permit.name(principal)?;
        Ok(permit)
    }

    /// A place for a connection that will say later who it is ([`Permit::name`]).
    pub fn admit_unknown(&self) -> Result<Permit, Code> {
        let mut counts = self.shared.counts();
        if counts.node >= self.shared.limits.node_max {
            return Err(Code::NODE_CONNECTIONS);
        }
        counts.node += 1;
        drop(counts);
        Ok(Permit {
            shared: Arc::clone(&self.shared),
            who: None,
        })
    }

    /// How many connections there are on this node.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.counts().node
    }

    /// How many tenants have a connection here.
    #[must_use]
    pub fn tenants(&self) -> usize {
        self.shared.counts().tenants.len()
    }
}

impl Permit {
    /// Says who is connected: the place now counts for the tenant and the principal too. Naming the same principal again
    /// changes nothing; naming another one moves the place. After a refusal the permit is as it was.
    pub fn name(&mut self, principal: &Principal) -> Result<(), Code> {
        let who = Who {
            issuer: Arc::clone(&principal.issuer),
            tenant: principal.tenant.clone(),
            subject: Arc::clone(&principal.subject),
        };
        if self.who.as_ref() == Some(&who) {
            return Ok(());
        }
        let limits = self.shared.limits;
        let mut counts = self.shared.counts();
        let same_tenant = self.who.as_ref().is_some_and(|have| have.tenant == who.tenant);
        if !same_tenant && counts.tenants.get(&who.tenant).copied().unwrap_or(0) >= limits.tenant_max {
            return Err(Code::TENANT_CONNECTIONS);
        }
        if counts.principals.get(&who).copied().unwrap_or(0) >= limits.principal_max {
            return Err(Code::PRINCIPAL_CONNECTIONS);
        }
        if let Some(had) = self.who.take() {
            counts.leave(&had);
        }
        *counts.tenants.entry(who.tenant.clone()).or_default() += 1;
        *counts.principals.entry(who.clone()).or_default() += 1;
        drop(counts);
        self.who = Some(who);
        Ok(())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = self.shared.counts();
        counts.node -= 1;
        if let Some(who) = &self.who {
            counts.leave(who);
        }
    }
}

impl Shared {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        // The counts are whole between any two statements that could panic: a poisoned lock is as good as another.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    fn leave(&mut self, who: &Who) {
        release(&mut self.tenants, &who.tenant);
        release(&mut self.principals, who);
    }
}

fn release<K: Eq + Hash>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
    // A crowd that has left gives its memory back.
    if counts.capacity() > 1024 && counts.len() < counts.capacity() / 8 {
        counts.shrink_to(counts.len() * 2);
    }
}

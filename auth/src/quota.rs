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
    /// Of the node's, those that have not said who they are: they leave room for those who have.
    pub unknown_max: usize,
    /// Of one tenant.
    pub tenant_max: usize,
    /// Of one principal (issuer, tenant and subject).
    pub principal_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            node_max: 20_000,
            unknown_max: 2_000,
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
    /// Whether it counts among those that have not said who they are.
    is_unknown: bool,
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
    unknown: usize,
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
        let mut permit = self.place(false)?;
        permit.name(principal)?;
        Ok(permit)
    }

    /// A place for a connection that will say later who it is ([`Permit::name`]).
    pub fn admit_unknown(&self) -> Result<Permit, Code> {
        self.place(true)
    }

    fn place(&self, is_unknown: bool) -> Result<Permit, Code> {
        let limits = self.shared.limits;
        let mut counts = self.shared.counts();
        if counts.node >= limits.node_max || (is_unknown && counts.unknown >= limits.unknown_max) {
            return Err(Code::NODE_CONNECTIONS);
        }
        counts.node += 1;
        counts.unknown += usize::from(is_unknown);
        drop(counts);
        Ok(Permit {
            shared: Arc::clone(&self.shared),
            is_unknown,
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
        counts.unknown -= usize::from(self.is_unknown);
        drop(counts);
        self.is_unknown = false;
        self.who = Some(who);
        Ok(())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = self.shared.counts();
        counts.node -= 1;
        counts.unknown -= usize::from(self.is_unknown);
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing;

    const LIMITS: Limits = Limits {
        node_max: 6,
        unknown_max: 2,
        tenant_max: 4,
        principal_max: 2,
    };

    fn principal(tenant: &str, subject: &str) -> Principal {
        Principal {
            tenant: testing::tenant(tenant),
            subject: subject.into(),
            ..testing::principal(&[], &[])
        }
    }

    fn code(answer: Result<Permit, Code>) -> Code {
        answer.err().expect("refused")
    }

    #[test]
    fn each_limit_has_its_code_and_a_permit_gives_its_place_back() {
        let quotas = Quotas::new(LIMITS);
        let (ann, bob, eve) = (
            principal("north", "ann"),
            principal("north", "bob"),
            principal("north", "eve"),
        );
        let admit = |who: &Principal| quotas.admit(who).expect("room");
        let mut permits = vec![admit(&ann), admit(&ann)];
        assert_eq!(code(quotas.admit(&ann)), Code::PRINCIPAL_CONNECTIONS);
        permits.extend([admit(&bob), admit(&bob)]);
        assert_eq!(code(quotas.admit(&eve)), Code::TENANT_CONNECTIONS);
        permits.extend([
            admit(&principal("south", "ann")),
            admit(&principal("south", "ann")),
        ]);
        assert_eq!(
            code(quotas.admit(&principal("west", "ann"))),
            Code::NODE_CONNECTIONS
        );
        assert_eq!((quotas.connections(), quotas.tenants()), (6, 2));
        drop(permits.remove(0));
        permits.push(admit(&eve));
        permits.clear();
        assert_eq!((quotas.connections(), quotas.tenants()), (0, 0));
    }

    #[test]
    fn a_refused_principal_holds_no_place() {
        let quotas = Quotas::new(LIMITS);
        let ann = principal("north", "ann");
        let _held = [quotas.admit(&ann), quotas.admit(&ann)];
        for _ in 0..10 {
            assert_eq!(code(quotas.admit(&ann)), Code::PRINCIPAL_CONNECTIONS);
        }
        assert_eq!(quotas.connections(), 2);
    }

    #[test]
    fn who_says_its_name_late_is_counted_from_then_on() {
        let quotas = Quotas::new(LIMITS);
        let ann = principal("north", "ann");
        let mut late = quotas.admit_unknown().expect("room");
        assert_eq!((quotas.connections(), quotas.tenants()), (1, 0));
        late.name(&ann).expect("room");
        late.name(&ann).expect("the same again");
        let _second = quotas.admit(&ann).expect("room");
        assert_eq!(code(quotas.admit(&ann)), Code::PRINCIPAL_CONNECTIONS);

        let mut other = quotas.admit_unknown().expect("room");
        assert_eq!(other.name(&ann), Err(Code::PRINCIPAL_CONNECTIONS));
        assert_eq!(quotas.connections(), 3, "it stays, unnamed");
        other.name(&principal("south", "ann")).expect("room");
        assert_eq!(quotas.tenants(), 2);
    }

    #[test]
    fn those_without_a_name_leave_room_for_the_others() {
        let quotas = Quotas::new(LIMITS);
        let mut unknown = [(); 2].map(|()| quotas.admit_unknown().expect("room"));
        assert_eq!(code(quotas.admit_unknown()), Code::NODE_CONNECTIONS);
        let _known = quotas.admit(&principal("north", "ann")).expect("room");
        // Who says its name makes room for the next one.
        unknown[0].name(&principal("south", "ann")).expect("room");
        let next = quotas.admit_unknown().expect("room");
        assert_eq!(code(quotas.admit_unknown()), Code::NODE_CONNECTIONS);
        drop(next);
        assert!(quotas.admit_unknown().is_ok());
    }

    #[test]
    fn memory_that_a_crowd_took_is_given_back() {
        let quotas = Quotas::new(Limits {
            node_max: 20_000,
            unknown_max: 0,
            tenant_max: 20_000,
            principal_max: 1,
        });
        let crowd: Vec<_> = (0..20_000)
            .map(|i| quotas.admit(&principal("north", &i.to_string())).expect("room"))
            .collect();
        drop(crowd);
        let counts = quotas.shared.counts();
        assert!(counts.principals.is_empty() && counts.principals.capacity() <= 2048);
    }

    proptest! {
        #[test]
        fn counts_equal_the_permits_that_are_alive(steps in prop::collection::vec((0..3_u8, 0..3_usize, 0..3_usize), 0..200)) {
            let quotas = Quotas::new(LIMITS);
            let mut alive: Vec<(Option<(usize, usize)>, Permit)> = Vec::new();
            for (step, tenant, subject) in steps {
                let who = principal(["north", "south", "west"][tenant], ["ann", "bob", "eve"][subject]);
                let of_tenant = alive.iter().filter(|(who, _)| who.is_some_and(|(of, _)| of == tenant)).count();
                let of_who = alive.iter().filter(|(have, _)| *have == Some((tenant, subject))).count();
                match step {
                    0 => {
                        let expected = if alive.len() >= LIMITS.node_max {
                            Some(Code::NODE_CONNECTIONS)
                        } else if of_tenant >= LIMITS.tenant_max {
                            Some(Code::TENANT_CONNECTIONS)
                        } else if of_who >= LIMITS.principal_max {
                            Some(Code::PRINCIPAL_CONNECTIONS)
                        } else {
                            None
                        };
                        match quotas.admit(&who) {
                            Ok(permit) => {
                                prop_assert_eq!(expected, None);
                                alive.push((Some((tenant, subject)), permit));
                            }
                            Err(code) => prop_assert_eq!(expected, Some(code)),
                        }
                    }
                    1 => alive.extend(quotas.admit_unknown().ok().map(|permit| (None, permit))),
                    _ if !alive.is_empty() => drop(alive.remove((tenant * 3 + subject) % alive.len())),
                    _ => {}
                }
                prop_assert_eq!(quotas.connections(), alive.len());
                let unknown = alive.iter().filter(|(who, _)| who.is_none()).count();
                prop_assert_eq!(quotas.shared.counts().unknown, unknown);
                prop_assert!(unknown <= LIMITS.unknown_max);
                let tenants: std::collections::BTreeSet<_> = alive.iter().filter_map(|(who, _)| who.map(|(of, _)| of)).collect();
                prop_assert_eq!(quotas.tenants(), tenants.len());
            }
        }
    }
}

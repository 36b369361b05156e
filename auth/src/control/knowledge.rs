//! All that is known, indexed: judging a principal looks at what names it, and not at all that there is.
//!
//! One invariant: the indexes say what the entries say, in whatever order they came. Knows no time but the one it is told.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

use schemas::ids::TenantId;

use super::entry::{Denial, Entry, Revocation};
use super::record::{Change, EntryId, EntryKind};
use crate::token::Principal;

/// What is known.
#[derive(Debug, Default)]
pub struct Knowledge {
    revocations: BTreeMap<EntryId, Arc<Revocation>>,
    /// Each revocation once, under the narrowest thing that it names.
    by_name: HashMap<Name, Vec<(EntryId, Arc<Revocation>)>>,
    denials: BTreeMap<EntryId, Denial>,
    by_tenant: HashMap<TenantId, OfTenant>,
}

#[derive(Debug, PartialEq, Eq, Hash)]
enum Name {
    Token(Arc<str>),
    Subject(Arc<str>),
    Tenant(TenantId),
    Issuer(Arc<str>),
}

/// The denials of one tenant's data.
#[derive(Debug, Default)]
struct OfTenant {
    for_all: BTreeMap<EntryId, Denial>,
    for_some: BTreeMap<EntryId, Denial>,
    /// Those for all, shared by all; made when somebody asks for them.
    shared: OnceLock<Arc<[Denial]>>,
}

impl Knowledge {
    /// Takes a change. `false`: nothing is other than before.
    pub fn apply(&mut self, change: Change) -> bool {
        match change {
            Change::Put(id, Entry::Revocation(revocation)) => {
                if self.revocations.get(&id).is_some_and(|have| **have == revocation) {
                    return false;
                }
                self.remove_revocation(&id);
                let revocation = Arc::new(revocation);
                let Some(name) = name(&revocation) else {
                    return false;
                };
                let entry = (id.clone(), Arc::clone(&revocation));
                self.by_name.entry(name).or_default().push(entry);
                self.revocations.insert(id, revocation);
                true
            }
            Change::Put(id, Entry::Denial(denial)) => {
                if self.denials.get(&id) == Some(&denial) {
                    return false;
                }
                self.remove_denial(&id);
                let of = self.by_tenant.entry(denial.tenant.clone()).or_default();
                of.shared = OnceLock::new();
                let index = if denial.is_for_all() {
                    &mut of.for_all
                } else {
                    &mut of.for_some
                };
                index.insert(id.clone(), denial.clone());
                self.denials.insert(id, denial);
                true
            }
            Change::Remove(EntryKind::Revocation, id) => self.remove_revocation(&id),
            Change::Remove(EntryKind::Denial, id) => self.remove_denial(&id),
        }
    }

    /// Forgets the revocations that are over. `false`: there were none.
    pub fn forget(&mut self, now_ms: i64) -> bool {
        let over: Vec<EntryId> = self
            .revocations
            .iter()
            .filter(|(_, revocation)| revocation.is_over(now_ms))
            .map(|(id, _)| id.clone())
            .collect();
        for id in &over {
            self.remove_revocation(id);
        }
        !over.is_empty()
    }

    /// Whether the principal is revoked.
    #[must_use]
    pub fn is_revoked(&self, principal: &Principal) -> bool {
        if self.revocations.is_empty() {
            return false;
        }
        let names = [
            principal.token_id.clone().map(Name::Token),
            Some(Name::Subject(Arc::clone(&principal.subject))),
            Some(Name::Tenant(principal.tenant.clone())),
            Some(Name::Issuer(Arc::clone(&principal.issuer))),
        ];
        names
            .iter()
            .flatten()
            .filter_map(|name| self.by_name.get(name))
            .flatten()
            .any(|(_, revocation)| revocation.concerns(principal))
    }

    /// The denials that concern the principal.
    #[must_use]
    pub fn denials_for(&self, principal: &Principal) -> Arc<[Denial]> {
        let Some(of) = self.by_tenant.get(&principal.tenant) else {
            return Arc::default();
        };
        let shared = of.shared.get_or_init(|| of.for_all.values().cloned().collect());
        let mut own = of
            .for_some
            .values()
            .filter(|denial| denial.concerns(principal))
            .peekable();
        if own.peek().is_none() {
            return Arc::clone(shared);
        }
        shared.iter().chain(own).cloned().collect()
    }

    /// The revocations, by their ids.
    pub fn revocations(&self) -> impl Iterator<Item = (&EntryId, &Revocation)> {
        self.revocations
            .iter()
            .map(|(id, revocation)| (id, &**revocation))
    }

    /// The denials, by their ids.
    pub fn denials(&self) -> impl Iterator<Item = (&EntryId, &Denial)> {
        self.denials.iter()
    }

    /// One revocation.
    #[must_use]
    pub fn revocation(&self, id: &EntryId) -> Option<&Revocation> {
        self.revocations.get(id).map(|revocation| &**revocation)
    }

    /// One denial.
    #[must_use]
    pub fn denial(&self, id: &EntryId) -> Option<&Denial> {
        self.denials.get(id)
    }

    /// How many entries of a kind there are.
    #[must_use]
    pub fn count(&self, kind: EntryKind) -> usize {
        match kind {
            EntryKind::Revocation => self.revocations.len(),
            EntryKind::Denial => self.denials.len(),
        }
    }

    /// How many denials there are of one tenant's data.
    #[must_use]
    pub fn denials_of(&self, tenant: &TenantId) -> usize {
        self.by_tenant
            .get(tenant)
            .map_or(0, |of| of.for_all.len() + of.for_some.len())
    }

    fn remove_revocation(&mut self, id: &EntryId) -> bool {
        let Some(gone) = self.revocations.remove(id) else {
            return false;
        };
        if let Some(name) = name(&gone)
            && let Some(entries) = self.by_name.get_mut(&name)
        {
            entries.retain(|(other, _)| other != id);
            if entries.is_empty() {
                self.by_name.remove(&name);
            }
        }
        true
    }

    fn remove_denial(&mut self, id: &EntryId) -> bool {
        let Some(gone) = self.denials.remove(id) else {
            return false;
        };
        if let Some(of) = self.by_tenant.get_mut(&gone.tenant) {
            of.for_all.remove(id);
            of.for_some.remove(id);
            of.shared = OnceLock::new();
            if of.for_all.is_empty() && of.for_some.is_empty() {
                self.by_tenant.remove(&gone.tenant);
            }
        }
        true
    }
}

/// The narrowest thing that a revocation names: it concerns nobody who is not that.
fn name(revocation: &Revocation) -> Option<Name> {
    if let Some(id) = &revocation.token_id {
        return Some(Name::Token(Arc::clone(id)));
    }
    if let Some(subject) = &revocation.subject {
        return Some(Name::Subject(Arc::clone(subject)));
    }
    if let Some(tenant) = &revocation.tenant {
        return Some(Name::Tenant(tenant.clone()));
    }
    revocation.issuer.clone().map(Name::Issuer)
}

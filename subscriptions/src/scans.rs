//! What replays read in vain: records that no filter of their readers wanted. One reader may read so much of them, and one
//! tenant so much within a while, so that nobody's searches through the past take the node from the others.
//!
//! Invariant: only a replay that finds nothing is ended, and not before it has read a page: whoever comes again with the
//! cursor that is told goes on. Counts are per node.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use schemas::ids::TenantId;
use tokio::time::Instant;

/// How long a tenant's account runs before it begins anew.
pub(crate) const WINDOW: Duration = Duration::from_secs(60);

/// Whose bound was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bound {
    /// The reader's own.
    Reader,
    /// That of all the tenant's replays.
    Tenant,
}

impl Bound {
    /// As metrics name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Tenant => "tenant",
        }
    }

    /// As the reader is told.
    pub(crate) fn detail(self) -> &'static str {
        match self {
            Self::Reader => "go on from the cursor",
            Self::Tenant => "the tenant's replays have read too much; go on from the cursor in a minute",
        }
    }
}

/// The accounts of all tenants, shared by the workers.
#[derive(Debug)]
pub(crate) struct Scans {
    reader_bytes_max: u64,
    tenant_bytes_max: u64,
    accounts: Mutex<Accounts>,
}

#[derive(Debug)]
struct Accounts {
    /// Since when, and how much.
    by_tenant: HashMap<TenantId, (Instant, u64)>,
    tidied_at: Instant,
}

impl Scans {
    pub(crate) fn new(reader_bytes_max: u64, tenant_bytes_max: u64) -> Self {
        Self {
            reader_bytes_max,
            tenant_bytes_max,
            accounts: Mutex::new(Accounts {
                by_tenant: HashMap::new(),
                tidied_at: Instant::now(),
            }),
        }
    }

    /// A replay wants to read on. It has read `reader_bytes` since it last found something, `fresh_bytes` of them since this
    /// was last asked. `Some`: it may not.
    pub(crate) fn charge(&self, tenant: &TenantId, reader_bytes: u64, fresh_bytes: u64) -> Option<Bound> {
        if reader_bytes == 0 {
            return None;
        }
        let tenant_bytes = self.account(tenant, fresh_bytes);
        if reader_bytes > self.reader_bytes_max {
            Some(Bound::Reader)
        } else if tenant_bytes > self.tenant_bytes_max {
            Some(Bound::Tenant)
        } else {
            None
        }
    }

    /// Adds to a tenant's account and tells what is on it.
    fn account(&self, tenant: &TenantId, bytes: u64) -> u64 {
        let now = Instant::now();
        let is_over = |since: Instant| now.saturating_duration_since(since) >= WINDOW;
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        if is_over(accounts.tidied_at) {
            accounts.tidied_at = now;
            accounts.by_tenant.retain(|_, (since, _)| !is_over(*since));
        }
        let account = accounts.by_tenant.entry(tenant.clone()).or_insert((now, 0));
        if is_over(account.0) {
            *account = (now, 0);
        }
        account.1 = account.1.saturating_add(bytes);
        account.1
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn tenant(name: &str) -> TenantId {
        TenantId::parse(name).expect("a tenant")
    }

    #[tokio::test(start_paused = true)]
    async fn a_tenants_readers_share_an_account_that_begins_anew_each_minute() {
        let scans = Scans::new(100, 150);
        assert_eq!(scans.charge(&tenant("north"), 80, 80), None);
        assert_eq!(
            scans.charge(&tenant("north"), 80, 80),
            Some(Bound::Tenant),
            "another reader of it"
        );
        assert_eq!(
            scans.charge(&tenant("north"), 0, 0),
            None,
            "who just found something"
        );
        assert_eq!(scans.charge(&tenant("south"), 80, 80), None, "another tenant");
        advance(WINDOW).await;
        assert_eq!(scans.charge(&tenant("north"), 90, 10), None);
        assert_eq!(scans.charge(&tenant("north"), 101, 11), Some(Bound::Reader));
    }

    #[tokio::test(start_paused = true)]
    async fn accounts_that_are_over_are_forgotten() {
        let scans = Scans::new(100, 150);
        for number in 0..1000 {
            scans.charge(&tenant(&format!("t{number}")), 1, 1);
        }
        advance(WINDOW).await;
        scans.charge(&tenant("north"), 1, 1);
        assert_eq!(scans.accounts.lock().expect("unpoisoned").by_tenant.len(), 1);
    }
}

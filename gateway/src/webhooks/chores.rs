//! What other nodes, and people, are told of how endpoints do: their breakers, and that one is not called any more.
//!
//! Invariants: the latest that is known of an endpoint is told, however long the store was gone; that an endpoint is to be
//! disabled is never forgotten. Bounded by the number of endpoints.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use auth::clock::Clock;
use serde_json::json;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use webhooks::breaker::Breaker;
use webhooks::delivery::EndpointId;
use webhooks::endpoint::{Disabled, Status};
use webhooks::store::{Store, StoreError};

use super::announcer::{Announcer, Notice};
use super::registry::Registry;

/// How long before what the store did not take is told again.
const AGAIN: Duration = Duration::from_secs(1);

/// Takes what is to be told. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Chores {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    came: Notify,
}

#[derive(Default)]
struct Waiting {
    health: HashMap<EndpointId, Health>,
    disable: HashMap<EndpointId, Disabled>,
}

#[derive(Debug, Clone, Copy)]
struct Health {
    failing_since_ms: Option<i64>,
    open_until_ms: Option<i64>,
}

/// Tells it.
pub(crate) struct Teller {
    pub(crate) chores: Chores,
    pub(crate) store: Arc<Store>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) announcer: Announcer,
    pub(crate) changed: watch::Sender<u64>,
    pub(crate) clock: Clock,
}

impl Chores {
    pub(crate) fn health(&self, endpoint: &EndpointId, breaker: &Breaker) {
        let health = Health {
            failing_since_ms: breaker.failing_since_ms(),
            open_until_ms: breaker.open_until_ms(),
        };
        self.waiting().health.insert(endpoint.clone(), health);
        self.shared.came.notify_one();
    }

    pub(crate) fn disable(&self, endpoint: &EndpointId, reason: Disabled) {
        self.waiting().disable.insert(endpoint.clone(), reason);
        self.shared.came.notify_one();
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Teller {
    pub(crate) async fn run(self, stop: CancellationToken) {
        // Of which it was told that they fail.
        let mut failing: HashSet<EndpointId> = HashSet::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.chores.shared.came.notified() => {}
            }
            let told = async {
                while self.disable_one().await? || self.health_one(&mut failing).await? {}
                Ok::<_, StoreError>(())
            };
            if let Err(error) = told.await {
                tracing::debug!(%error, "how an endpoint does was not told");
                tokio::time::sleep(AGAIN).await;
                self.chores.shared.came.notify_one();
            }
        }
    }

    async fn disable_one(&self) -> Result<bool, StoreError> {
        let next = self
            .chores
            .waiting()
            .disable
            .iter()
            .map(|(id, reason)| (id.clone(), *reason))
            .next();
        let Some((endpoint, reason)) = next else {
            return Ok(false);
        };
        let snapshot = self.registry.snapshot();
        if let Some(entry) = snapshot.entry(&endpoint)
            && let Some(mut kept) = self.store.endpoint(&entry.target.tenant, &endpoint).await?
            && kept.endpoint.status == Status::Active
        {
            kept.endpoint.status = Status::Disabled {
                reason,
                since_ms: self.clock.now_ms(),
            };
            if self
                .store
                .update_endpoint(&kept.endpoint, kept.revision)
                .await?
                .is_none()
            {
                // Somebody changed it in the meantime: it is looked at again.
                return Ok(true);
            }
            tracing::warn!(%endpoint, reason = reason.as_str(), "an endpoint is not called any more");
            let mut notice = Notice::new("endpoint.disabled", &endpoint);
            notice.detail = json!({ "reason": reason.as_str() });
            self.announcer.tell(&kept.endpoint.tenant, &notice);
            self.changed.send_modify(|number| *number += 1);
        }
        self.chores.waiting().disable.remove(&endpoint);
        Ok(true)
    }

    async fn health_one(&self, failing: &mut HashSet<EndpointId>) -> Result<bool, StoreError> {
        let next = self
            .chores
            .waiting()
            .health
            .iter()
            .map(|(id, health)| (id.clone(), *health))
            .next();
        let Some((endpoint, health)) = next else {
            return Ok(false);
        };
        self.store
            .report_health(&endpoint, health.failing_since_ms, health.open_until_ms)
            .await?;
        let snapshot = self.registry.snapshot();
        if health.open_until_ms.is_some() && failing.insert(endpoint.clone()) {
            tracing::warn!(%endpoint, "an endpoint fails; it is left alone and tried again");
            self.announcer
                .announce(&snapshot, &Notice::new("endpoint.failing", &endpoint));
        } else if health.failing_since_ms.is_none() && failing.remove(&endpoint) {
            tracing::info!(%endpoint, "an endpoint takes deliveries again");
            self.announcer
                .announce(&snapshot, &Notice::new("endpoint.recovered", &endpoint));
        }
        let mut waiting = self.chores.waiting();
        // What came while it was told is told next.
        if waiting.health.get(&endpoint).is_some_and(|now| {
            (now.failing_since_ms, now.open_until_ms) == (health.failing_since_ms, health.open_until_ms)
        }) {
            waiting.health.remove(&endpoint);
        }
        Ok(true)
    }
}

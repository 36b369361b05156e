//! What keeps the store tidy: what is too old goes, on record.
//!
//! Invariant: nothing is dropped sooner than the configuration says, and what is dropped is counted and told.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio_util::sync::CancellationToken;
use webhooks::store::{Store, StoreError};

use super::Metrics;
use super::announcer::{Announcer, Notice};
use super::clients::Clients;
use super::registry::Registry;

/// How often.
const EVERY: Duration = Duration::from_secs(60);
/// How long an idempotency key is remembered.
const IDEMPOTENCY: Duration = Duration::from_secs(24 * 3600);

pub(crate) struct Upkeep {
    pub(crate) store: Arc<Store>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) clients: Arc<Clients>,
    pub(crate) announcer: Announcer,
    pub(crate) parked_age_max: Duration,
    pub(crate) attempts_kept: Duration,
    pub(crate) metrics: Metrics,
}

impl Upkeep {
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut tick = tokio::time::interval(EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            let tidied = tokio::select! {
                () = stop.cancelled() => return,
                tidied = self.tidy() => tidied,
            };
            if let Err(error) = tidied {
                tracing::debug!(%error, "the store was not tidied");
            }
        }
    }

    async fn tidy(&self) -> Result<(), StoreError> {
        let snapshot = self.registry.snapshot();
        self.clients.keep(|endpoint| snapshot.entry(endpoint).is_some());
        for entry in snapshot.entries() {
            let endpoint = &entry.kept.endpoint;
            let dropped = self
                .store
                .expire_parked(&endpoint.id, self.parked_age_max)
                .await?;
            if dropped > 0 {
                self.metrics.expired.inc_by(dropped);
                tracing::warn!(endpoint = %endpoint.id, dropped, "what was parked for too long is dropped");
                let mut notice = Notice::new("deliveries.expired", &endpoint.id);
                notice.detail = json!({ "count": dropped });
                self.announcer.tell(&endpoint.tenant, &notice);
            }
        }
        self.metrics.backlog.set(self.store.waiting().await?);
        self.store.expire_attempts(self.attempts_kept).await?;
        self.store.expire_replays(self.attempts_kept).await?;
        self.store.expire_idempotency(IDEMPOTENCY).await?;
        Ok(())
    }
}

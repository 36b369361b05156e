//! How an endpoint does: figures of the last hour, what waits, and since when it fails.

use schemas::ids::TenantId;
use serde_json::{Value, json};
use webhooks::delivery::EndpointId;

use super::{Desk, Refusal, time};

/// What the figures are of.
const WINDOW_MS: i64 = 3_600_000;

impl Desk {
    /// How an endpoint does.
    pub(crate) async fn health(&self, tenant: &TenantId, id: &EndpointId) -> Result<Value, Refusal> {
        let kept = self.find(tenant, id).await?;
        let now_ms = self.clock.now_ms();
        let figures = self.store.figures(tenant, id, now_ms - WINDOW_MS).await?;
        let backlog = self.store.backlog(id).await?;
        #[expect(clippy::cast_precision_loss, reason = "at most 10,000 attempts are looked at")]
        let success_rate = (figures.attempts > 0).then(|| figures.delivered as f64 / figures.attempts as f64);
        let open_until_ms = kept.open_until_ms.filter(|until_ms| *until_ms > now_ms);
        Ok(json!({
            "status": kept.endpoint.status.as_str(),
            "success_rate": success_rate,
            "attempts": figures.attempts,
            "p50_ms": figures.p50_ms,
            "p95_ms": figures.p95_ms,
            "backlog": backlog.count,
            "next_attempt_at": backlog.next_ms.map(time),
            "failing_since": kept.failing_since_ms.map(time),
            "breaker_open_until": open_until_ms.map(time),
        }))
    }
}

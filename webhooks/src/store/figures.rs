//! What the log of attempts says of one endpoint: how many, how well, how fast.
//!
//! Invariant: looking costs the same however much was sent: of many attempts the latest count.

use schemas::ids::TenantId;

use super::{Store, StoreError, reading};
use crate::delivery::EndpointId;

/// The most attempts that are looked at.
const ATTEMPTS_MAX: i64 = 10_000;

/// How one endpoint did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    /// Attempts that were looked at.
    pub attempts: usize,
    /// Those of them that delivered.
    pub delivered: usize,
    /// The median of how long they took; `None` without attempts.
    pub p50_ms: Option<i64>,
    /// The time within which 95 of 100 ended.
    pub p95_ms: Option<i64>,
}

impl Figures {
    /// Of outcomes and latencies.
    fn of(rows: &[(String, i64)]) -> Self {
        let mut latencies: Vec<i64> = rows.iter().map(|(_, latency_ms)| *latency_ms).collect();
        latencies.sort_unstable();
        // The nearest rank: the smallest value that so many are not above.
        let rank = |percent: usize| {
            let place = (latencies.len() * percent).div_ceil(100).saturating_sub(1);
            latencies.get(place).copied()
        };
        Self {
            attempts: rows.len(),
            delivered: rows.iter().filter(|(outcome, _)| outcome == "delivered").count(),
            p50_ms: rank(50),
            p95_ms: rank(95),
        }
    }
}

impl Store {
    /// How an endpoint did since then, going by its latest 10,000 attempts.
    pub async fn figures(
        &self,
        tenant: &TenantId,
        endpoint: &EndpointId,
        since_ms: i64,
    ) -> Result<Figures, StoreError> {
        let sql = "SELECT outcome, latency_ms FROM webhook_attempts
             WHERE tenant = $1 AND endpoint = $2 AND at_ms >= $3 ORDER BY id DESC LIMIT $4";
        let rows: Vec<(String, i64)> = reading!(self, pool => {
            let query = sqlx::query_as(sql).bind(tenant.as_str()).bind(endpoint.as_str());
            query.bind(since_ms).bind(ATTEMPTS_MAX).fetch_all(pool).await
        })?;
        Ok(Figures::of(&rows))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_of_what_was_attempted() {
        assert_eq!(Figures::of(&[]), Figures::default());
        let rows: Vec<(String, i64)> = (1..=100)
            .map(|latency_ms| {
                let outcome = if latency_ms % 4 == 0 {
                    "timeout"
                } else {
                    "delivered"
                };
                (outcome.to_owned(), latency_ms)
            })
            .collect();
        let figures = Figures::of(&rows);
        assert_eq!((figures.attempts, figures.delivered), (100, 75));
        assert_eq!((figures.p50_ms, figures.p95_ms), (Some(50), Some(95)));
        assert_eq!(Figures::of(&rows[..1]).p95_ms, Some(1));
    }
}

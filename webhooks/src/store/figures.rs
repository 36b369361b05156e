//! What the log of attempts says of one endpoint: how many, how well, how fast.
//!
//! Invariant: looking costs the same however much was sent: of many attempts the latest count.

use std::ops::ControlFlow;

use schemas::ids::TenantId;

use super::attempts::AttemptFilter;
use super::{Store, StoreError};
use crate::delivery::EndpointId;

/// The most attempts that are looked at.
const ATTEMPTS_MAX: usize = 10_000;

/// How one endpoint did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    /// Attempts that were looked at.
    pub attempts: usize,
    /// Those of them that delivered.
    pub delivered: usize,
    /// The median of how long they took; `None` without attempts.
    pub p50_ms: Option<u32>,
    /// The time within which 95 of 100 ended.
    pub p95_ms: Option<u32>,
}

impl Figures {
    /// Of whether each attempt delivered, and how long it took.
    fn of(attempts: &[(bool, u32)]) -> Self {
        let mut latencies: Vec<u32> = attempts.iter().map(|(_, latency_ms)| *latency_ms).collect();
        latencies.sort_unstable();
        // The nearest rank: the smallest value that so many are not above.
        let rank = |percent: usize| {
            let place = (latencies.len() * percent).div_ceil(100).saturating_sub(1);
            latencies.get(place).copied()
        };
        Self {
            attempts: attempts.len(),
            delivered: attempts.iter().filter(|(delivered, _)| *delivered).count(),
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
        let filter = AttemptFilter {
            endpoint: Some(endpoint.clone()),
            since_ms: Some(since_ms),
            ..AttemptFilter::default()
        };
        let mut found = Vec::new();
        self.look_back(tenant, &filter, |_, attempts| {
            // The latest of a segment come last in it.
            let attempts = attempts.iter().rev().take(ATTEMPTS_MAX - found.len());
            found.extend(attempts.map(|attempt| (attempt.outcome == "delivered", attempt.latency_ms)));
            if found.len() < ATTEMPTS_MAX {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        })
        .await?;
        Ok(Figures::of(&found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_of_what_was_attempted() {
        assert_eq!(Figures::of(&[]), Figures::default());
        let rows: Vec<(bool, u32)> = (1..=100)
            .map(|latency_ms| (latency_ms % 4 != 0, latency_ms))
            .collect();
        let figures = Figures::of(&rows);
        assert_eq!((figures.attempts, figures.delivered), (100, 75));
        assert_eq!((figures.p50_ms, figures.p95_ms), (Some(50), Some(95)));
        assert_eq!(Figures::of(&rows[..1]).p95_ms, Some(1));
    }
}

//! Whether Kafka answers: its last sign of life, and what the streams were told of it.
//!
//! Invariant: the live thread alone tells the streams, between records and in their order. A record that comes is proof that
//! Kafka is back, so the next loss is told, too, however short the time in between was. It knows no streams.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// The last sign of life. Whoever hears of Kafka notes it: records, ends of partitions, answers to questions.
#[derive(Debug)]
pub(super) struct Alive {
    began: Instant,
    /// Milliseconds from `began` on.
    heard_ms: AtomicU64,
}

impl Alive {
    /// Heard of now: whoever begins is given the time to find Kafka.
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            heard_ms: AtomicU64::new(0),
        }
    }

    /// Something came from Kafka.
    pub(super) fn heard(&self) {
        self.heard_ms.fetch_max(self.age_ms(), Ordering::Relaxed);
    }

    /// How long nothing has come.
    pub(super) fn silence(&self) -> Duration {
        Duration::from_millis(
            self.age_ms()
                .saturating_sub(self.heard_ms.load(Ordering::Relaxed)),
        )
    }

    fn age_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// What was told last, and when that changes.
#[derive(Debug)]
pub(super) struct Freshness {
    stale_after: Duration,
    fresh: bool,
}

impl Freshness {
    /// Nothing was told yet, which means fresh.
    pub(super) fn new(stale_after: Duration) -> Self {
        Self {
            stale_after,
            fresh: true,
        }
    }

    /// What is to be told after such a silence, if that is news.
    pub(super) fn judge(&mut self, silence: Duration) -> Option<bool> {
        let fresh = silence < self.stale_after;
        (std::mem::replace(&mut self.fresh, fresh) != fresh).then_some(fresh)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const STALE_AFTER: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn a_second_loss_is_told_though_only_a_record_came_in_between() {
        let (alive, mut freshness) = (Alive::new(), Freshness::new(STALE_AFTER));
        assert_eq!(freshness.judge(alive.silence()), None);
        for _ in 0..2 {
            advance(STALE_AFTER - Duration::from_millis(1)).await;
            assert_eq!(freshness.judge(alive.silence()), None, "not yet");
            advance(Duration::from_millis(1)).await;
            assert_eq!(freshness.judge(alive.silence()), Some(false));
            advance(STALE_AFTER * 3).await;
            assert_eq!(freshness.judge(alive.silence()), None, "told once");
            alive.heard();
            assert_eq!(freshness.judge(alive.silence()), Some(true));
        }
    }
}

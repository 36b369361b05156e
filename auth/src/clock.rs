//! The time of day, as a value: tests of expiry pause it.

use std::time::{SystemTime, UNIX_EPOCH};

/// Where "now" comes from.
#[derive(Debug, Clone, Copy)]
pub enum Clock {
    /// The machine's clock.
    System,
    /// A fixed start plus tokio's time, which tests pause and advance.
    Tokio {
        /// The time of day at `start`, in milliseconds since the Unix epoch.
        base_ms: i64,
        /// When it was that time.
        start: tokio::time::Instant,
    },
}

impl Clock {
    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub fn now_ms(self) -> i64 {
        let since = |duration: std::time::Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        match self {
            Self::System => SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, since),
            Self::Tokio { base_ms, start } => base_ms.saturating_add(since(start.elapsed())),
        }
    }
}

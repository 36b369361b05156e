//! What the engine tells, as plain data: pages, refusals, and what operators look at.

use bytes::Bytes;
use schemas::problem::Code;
use serde::Serialize;

/// One page.
#[derive(Debug)]
pub struct PullPage {
    /// Each a CloudEvents JSON object with the extension attribute `cursor`.
    pub events: Vec<Bytes>,
    /// The cursor from which the next page goes on.
    pub next: String,
    /// What could not be given any more, as in the `gap` message.
    pub gap: Option<serde_json::Value>,
    /// Whether the page ends where one replay may not read further; the next one goes on from its cursor.
    pub limited: bool,
}

/// Why the engine refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", code.name)]
pub struct Failure {
    /// What the client is told.
    pub code: Code,
    /// More, without data.
    pub detail: String,
}

impl Failure {
    /// A failure with a detail.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
        }
    }
}

/// An open session, for operators.
#[derive(Debug, Clone, Serialize)]
pub struct SessionInfo {
    /// Its id (`ses_...`).
    pub id: String,
    /// `websocket` or `sse`. A request for a page is no session.
    pub protocol: &'static str,
    /// Whose data; none before `auth`.
    pub tenant: Option<String>,
    /// The token's issuer.
    pub issuer: Option<String>,
    /// When it began, in milliseconds since the Unix epoch.
    pub opened_at_ms: i64,
    /// Until when its grant holds.
    pub expires_at_ms: Option<i64>,
    /// Its subscriptions.
    pub subscriptions: Vec<SubscriptionInfo>,
    /// Bytes that its socket did not take yet.
    pub pending_bytes: usize,
}

/// One subscription of an open session.
#[derive(Debug, Clone, Serialize)]
pub struct SubscriptionInfo {
    /// The stream.
    pub stream: String,
    /// `live` or `replaying`.
    pub state: &'static str,
    /// Bytes that it lags behind its group.
    pub lag_bytes: usize,
}

/// One partition, for readiness.
#[derive(Debug, Clone, Serialize)]
pub struct PartitionInfo {
    /// The stream.
    pub stream: String,
    /// The topic.
    pub topic: String,
    /// Its number.
    pub partition: i32,
    /// The next offset, if it is known.
    pub position: Option<i64>,
}

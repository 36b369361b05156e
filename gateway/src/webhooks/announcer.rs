//! What happens to endpoints, told as events of the gateway's own stream `webhook_events`; and the dead letters of
//! deliveries.
//!
//! Invariants: an event says which endpoint and what, never what was delivered. Nothing that is told of this stream's own
//! deliveries is told on it again.

use std::sync::Arc;

use auth::clock::Clock;
use schemas::ids::TenantId;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use webhooks::delivery::EndpointId;

use super::Metrics;
use super::registry::Snapshot;
use crate::kafka::letters::{Letter, Letters};

/// The stream's name.
pub(crate) use schemas::contract::WEBHOOK_EVENTS as STREAM;

/// Notices that wait to be written: of some hundred bytes each.
const WAITING_MAX: usize = 4096;

/// Something that happened to an endpoint.
#[derive(Debug, Clone)]
pub(crate) struct Notice {
    event: &'static str,
    endpoint: EndpointId,
    /// More, without data of events.
    pub(crate) detail: Value,
}

impl Notice {
    pub(crate) fn new(event: &'static str, endpoint: &EndpointId) -> Self {
        Self {
            event,
            endpoint: endpoint.clone(),
            detail: json!({}),
        }
    }
}

/// Tells. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Announcer {
    letters: mpsc::Sender<Letter>,
    topic: Arc<str>,
    clock: Clock,
    metrics: Metrics,
}

/// Writes what is told.
pub(crate) struct Writer {
    waiting: mpsc::Receiver<Letter>,
    letters: Letters,
}

impl Announcer {
    pub(crate) fn new(topic: &str, letters: Letters, clock: Clock, metrics: Metrics) -> (Self, Writer) {
        let (sender, waiting) = mpsc::channel(WAITING_MAX);
        let announcer = Self {
            letters: sender,
            topic: Arc::from(topic),
            clock,
            metrics,
        };
        (announcer, Writer { waiting, letters })
    }

    /// Tells of an endpoint that this snapshot has.
    pub(crate) fn announce(&self, snapshot: &Snapshot, notice: &Notice) {
        if let Some(entry) = snapshot.entry(&notice.endpoint) {
            let tenant = entry.kept.endpoint.tenant.clone();
            self.tell(&tenant, notice);
        }
    }

    pub(crate) fn tell(&self, tenant: &TenantId, notice: &Notice) {
        let at =
            jiff::Timestamp::from_millisecond(self.clock.now_ms()).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        let value = json!({
            "event": notice.event,
            "endpoint": notice.endpoint.as_str(),
            "at": at.to_string(),
            "detail": notice.detail,
        });
        let letter = Letter {
            topic: Arc::clone(&self.topic),
            key: notice.endpoint.as_str().as_bytes().to_vec(),
            value: value.to_string().into_bytes(),
            headers: vec![("tenant".to_owned(), tenant.as_str().as_bytes().to_vec())],
        };
        self.metrics.notices.inc();
        if self.letters.try_send(letter).is_err() {
            self.metrics.notices_dropped.inc();
            tracing::error!(event = notice.event, endpoint = %notice.endpoint, "an operational event was not told");
        }
    }
}

impl Writer {
    /// Writes until it is told to stop, and then what has come by then.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        loop {
            let letter = tokio::select! {
                letter = self.waiting.recv() => letter,
                () = stop.cancelled(), if !self.waiting.is_closed() => {
                    self.waiting.close();
                    continue;
                }
            };
            let Some(letter) = letter else { return };
            // It is tried again by the producer for as long as that is configured; then it is lost and said so.
            if self.letters.send(letter).await.is_err() {
                tracing::error!("an operational event of webhooks was not written");
            }
        }
    }
}

//! Writes to the control topic: what an operator says counts when it is durable, and known here.
//!
//! Invariant: an answer means that all in-sync replicas have the record and that this node has applied it, in its place in the
//! topic. No answer means that nobody knows, and that saying it again does no harm.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::error::{KafkaError, KafkaResult};
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use super::super::acknowledged::{Acknowledged, Acknowledgement};
use super::super::settings::KafkaSettings;

/// How long the cluster may take to have it, and this node to read it back.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why nobody knows whether something was written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The cluster did not take it.
    #[error("the control topic was not written: {0}")]
    Kafka(#[source] KafkaError),
    /// The cluster did not answer in time.
    #[error("the control topic was not written in time")]
    Late,
    /// It is written, and this node has not read it back.
    #[error("the control topic is written, and was not read back in time")]
    NotApplied,
}

/// Writes. Cheap to clone.
#[derive(Clone)]
pub struct Writer {
    inner: Arc<Inner>,
}

struct Inner {
    settings: KafkaSettings,
    topic: Arc<str>,
    /// Made when it is first needed, and again when it has failed for good.
    producer: Mutex<Option<Arc<Acknowledged>>>,
    applied: watch::Receiver<BTreeMap<i32, i64>>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

impl Writer {
    pub(super) fn new(
        settings: &KafkaSettings,
        topic: &str,
        applied: watch::Receiver<BTreeMap<i32, i64>>,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                settings: settings.clone(),
                topic: Arc::from(topic),
                producer: Mutex::default(),
                applied,
            }),
        }
    }

    /// Writes a record, or removes it where there is no value. Cancel safe: a record that was sent may be written all the
    /// same.
    ///
    /// # Errors
    ///
    /// Nobody knows whether it is written.
    pub async fn write(&self, key: &str, value: Option<&[u8]>) -> Result<(), WriteError> {
        let acknowledged = self.send(key, value).map_err(WriteError::Kafka)?;
        let written = timeout(PATIENCE, acknowledged)
            .await
            .map_err(|_| WriteError::Late)?;
        let (partition, offset) = written
            .map_err(|_| WriteError::Late)?
            .map_err(WriteError::Kafka)?;
        let mut applied = self.inner.applied.clone();
        let known = applied.wait_for(|positions| {
            positions
                .get(&partition)
                .is_some_and(|position| *position > offset)
        });
        match timeout(PATIENCE, known).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(WriteError::NotApplied),
        }
    }

    /// Connects before somebody waits for it. Blocks.
    pub(super) fn prepare(&self) {
        let producer = self.producer();
        if let Err(error) = producer.and_then(|producer| producer.connect(&self.inner.topic)) {
            tracing::debug!(%error, "the control topic's producer is not connected yet");
        }
    }

    /// Removes a record that is of no use any more, some time.
    pub(super) fn remove(&self, key: &str) {
        if let Err(error) = self.send(key, None) {
            tracing::debug!(%error, "an entry that is over stays in the control topic for now");
        }
    }

    fn send(&self, key: &str, value: Option<&[u8]>) -> KafkaResult<oneshot::Receiver<Acknowledgement>> {
        self.producer()?
            .send(&self.inner.topic, key.as_bytes(), value, None)
    }

    fn producer(&self) -> KafkaResult<Arc<Acknowledged>> {
        let mut producer = self.inner.producer.lock().unwrap_or_else(PoisonError::into_inner);
        // An idempotent producer never recovers from a fatal error.
        if let Some(good) = producer.take().filter(|producer| !producer.has_failed()) {
            *producer = Some(Arc::clone(&good));
            return Ok(good);
        }
        let mut config = self.inner.settings.producer();
        // Whoever waits for longer asks again.
        config.set("message.timeout.ms", "8000").set("linger.ms", "0");
        let made = Arc::new(Acknowledged::new(&config)?);
        *producer = Some(Arc::clone(&made));
        Ok(made)
    }
}

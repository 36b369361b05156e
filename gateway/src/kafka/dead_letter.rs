//! Records that are no event of their stream, kept for whoever mends them: the original value, and headers that say why.
//!
//! Invariant: nothing here holds back who reads. Written by whoever reads a record when it is new: the live path while
//! somebody needs its stream, and the group of webhooks. The key makes a compacted topic keep one; replays would only repeat it.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use schemas::decode::Rejected;
use schemas::ids::StreamName;

use super::client::Context;
use super::compacted;
use super::metrics::{ByReason, SourceMetrics};
use super::raw::RawRecord;
use super::settings::KafkaSettings;

/// Dead letters that wait to be written; with records of at most a megabyte (Kafka's default) a gigabyte at the very
/// worst, usually a few megabytes.
const LETTERS_MAX: usize = 1024;
/// How long a failed letter waits before it is tried again, and how often delivery is looked at.
const TICK: Duration = Duration::from_millis(100);
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A record that was rejected, ready to be written.
#[derive(Debug)]
pub(super) struct Letter {
    stream: StreamName,
    record: RawRecord,
    reason: &'static str,
    detail: String,
}

/// Writes dead letters on a thread of its own. Dropping it gives what waits a moment to be written.
#[derive(Debug)]
pub(crate) struct DeadLetters {
    letters: Option<SyncSender<Letter>>,
    metrics: SourceMetrics,
    thread: Option<JoinHandle<()>>,
}

impl DeadLetters {
    pub(super) fn start(settings: &KafkaSettings, metrics: SourceMetrics) -> std::io::Result<Self> {
        let (letters, inbox) = sync_channel(LETTERS_MAX);
        let writer = Writer {
            settings: settings.clone(),
            metrics: metrics.clone(),
            failed: Arc::default(),
            producer: None,
        };
        let thread = std::thread::Builder::new()
            .name("kafka-dead-letters".to_owned())
            .spawn(move || writer.run(&inbox))?;
        Ok(Self {
            letters: Some(letters),
            metrics,
            thread: Some(thread),
        })
    }

    /// For tests: counted nowhere.
    #[cfg(test)]
    pub(crate) fn uncounted(settings: &KafkaSettings) -> Arc<Self> {
        Arc::new(Self::start(settings, SourceMetrics::default()).expect("a thread"))
    }

    /// Counts a rejected record, and takes it to be written; drops it, and counts that, if too many wait.
    pub(crate) fn offer(&self, stream: &StreamName, record: RawRecord, rejected: Rejected) {
        let label = ByReason {
            stream: stream.to_string(),
            reason: rejected.reason,
        };
        self.metrics.rejected.get_or_create(&label).inc();
        let letter = Letter {
            stream: stream.clone(),
            record,
            reason: rejected.reason,
            detail: rejected.detail,
        };
        let Some(letters) = &self.letters else { return };
        if let Err(TrySendError::Full(letter) | TrySendError::Disconnected(letter)) = letters.try_send(letter)
        {
            dropped(&self.metrics, &letter);
        }
    }
}

impl Drop for DeadLetters {
    fn drop(&mut self) {
        drop(self.letters.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn dropped(metrics: &SourceMetrics, letter: &Letter) {
    metrics.dead_letters_dropped.inc();
    tracing::error!(
        stream = %letter.stream,
        topic = &*letter.record.topic,
        partition = letter.record.partition,
        offset = letter.record.offset,
        reason = letter.reason,
        "a dead letter was given up: too many wait to be written"
    );
}

type Failed = Arc<Mutex<VecDeque<Letter>>>;

struct Writer {
    settings: KafkaSettings,
    metrics: SourceMetrics,
    /// Letters that came back.
    failed: Failed,
    producer: Option<BaseProducer<Delivery>>,
}

impl Writer {
    fn run(mut self, inbox: &Receiver<Letter>) {
        let mut retry_at = None;
        loop {
            match inbox.recv_timeout(TICK) {
                Ok(letter) => self.write(letter),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if let Some(producer) = &self.producer {
                producer.poll(Duration::ZERO);
                if producer.client().fatal_error().is_some() {
                    // An idempotent producer never recovers from these; its letters come back when it is purged.
                    producer.purge(rdkafka::producer::PurgeConfig::default().queue().inflight());
                    producer.poll(Duration::ZERO);
                    self.producer = None;
                }
            }
            let now = tokio::time::Instant::now();
            if lock(&self.failed).is_empty() {
                retry_at = None;
            } else if now >= *retry_at.get_or_insert(now + RETRY_AFTER) {
                retry_at = None;
                let again: Vec<Letter> = lock(&self.failed).drain(..).collect();
                again.into_iter().for_each(|letter| self.write(letter));
            }
        }
        if let Some(producer) = &self.producer {
            // What cannot be written in this time is lost with the process; it was counted as rejected.
            drop(producer.flush(Duration::from_secs(2)));
        }
    }

    fn write(&mut self, letter: Letter) {
        if self.producer.is_none() {
            self.producer = self
                .connect()
                .map_err(|error| tracing::error!(%error, "no producer for dead letters"))
                .ok();
        }
        let Some(producer) = &self.producer else {
            self.keep(letter);
            return;
        };
        let record = &letter.record;
        let (partition, offset) = (record.partition.to_string(), record.offset.to_string());
        let key = format!("{}:{partition}:{offset}", record.topic);
        let mut headers = OwnedHeaders::new_with_capacity(8 + record.headers.len())
            .insert(text("stream", letter.stream.as_str()))
            .insert(text("topic", &record.topic))
            .insert(text("partition", &partition))
            .insert(text("offset", &offset))
            .insert(text("reason", letter.reason))
            .insert(text("detail", &letter.detail));
        if let Some(key) = &record.key {
            headers = headers.insert(Header {
                key: "record.key",
                value: Some(&**key),
            });
        }
        if record.value.is_none() {
            headers = headers.insert(text("record.tombstone", "true"));
        }
        for (name, value) in &record.headers {
            let name = format!("record.header.{name}");
            headers = headers.insert(Header {
                key: &name,
                value: value.as_deref(),
            });
        }
        // A null value would delete the letter from its compacted topic.
        let value: Bytes = record.value.clone().unwrap_or_default();
        let message = BaseRecord::with_opaque_to(&self.settings.dead_letter_topic, Box::new(letter))
            .key(&key)
            .payload(&*value)
            .headers(headers);
        if let Err((error, message)) = producer.send(message) {
            self.metrics.dead_letters_failed.inc();
            tracing::debug!(%error, "a dead letter waits");
            self.keep(*message.delivery_opaque);
        }
    }

    fn keep(&self, letter: Letter) {
        let mut failed = lock(&self.failed);
        if failed.len() < LETTERS_MAX {
            failed.push_back(letter);
        } else {
            dropped(&self.metrics, &letter);
        }
    }

    fn connect(&self) -> KafkaResult<BaseProducer<Delivery>> {
        if let Err(error) = compacted::create(&self.settings, &self.settings.dead_letter_topic) {
            tracing::warn!(%error, topic = self.settings.dead_letter_topic, "the dead-letter topic was not made");
        }
        let delivery = Delivery {
            failed: Arc::clone(&self.failed),
            metrics: self.metrics.clone(),
        };
        self.settings.producer().create_with_context(delivery)
    }
}

fn text<'a>(key: &'a str, value: &'a str) -> Header<'a, &'a str> {
    Header {
        key,
        value: Some(value),
    }
}

/// Learns what became of each letter.
struct Delivery {
    failed: Failed,
    metrics: SourceMetrics,
}

impl ClientContext for Delivery {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        Context.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        Context.error(error, reason);
    }
}

impl ProducerContext for Delivery {
    type DeliveryOpaque = Box<Letter>;

    fn delivery(&self, result: &DeliveryResult<'_>, letter: Box<Letter>) {
        let Err((error, _)) = result else {
            self.metrics.dead_letters.inc();
            return;
        };
        self.metrics.dead_letters_failed.inc();
        tracing::warn!(%error, stream = %letter.stream, "a dead letter could not be written; it is tried again");
        let mut failed = lock(&self.failed);
        if failed.len() < LETTERS_MAX {
            failed.push_back(*letter);
        } else {
            dropped(&self.metrics, &letter);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! The control topic: read whole at the start, followed from then on, and written when an operator says something.
//!
//! Invariants: the knowledge is told to be read only when everything is applied that was in the topic when somebody last
//! looked; a topic that has to be read again takes the place of what was known in one step, and not before it is read. Two
//! threads: one reads and applies (`reading`), and never waits for an answer of the cluster; the other asks where the topic
//! ends and whether it is still the same one (`watch`). Knows nothing of sessions.

mod reading;
mod watch;
mod writer;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use auth::clock::Clock;
use auth::control::Control;
use prometheus_client::registry::Registry;
use rdkafka::error::KafkaError;
use tokio::time::Instant;

use self::reading::Reader;
use self::watch::Watch;
use super::metrics::ControlMetrics;
use super::raw::{Queue, Waker};
use super::settings::KafkaSettings;
use super::source::StartError;

pub use self::writer::{WriteError, Writer};

/// The control topic of a running gateway. Dropping it ends its threads.
#[derive(Debug)]
pub struct ControlTopic {
    writer: Writer,
    stop: Option<std::sync::mpsc::SyncSender<()>>,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// What the two threads tell each other.
struct Shared {
    told: Mutex<Told>,
    waker: Waker,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Told {
    /// The topic as it is now, where the reader has not begun with it.
    order: Option<Order>,
    /// Where it ended, when somebody asked last.
    ends: Option<Ends>,
    stop: bool,
}

/// What is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Order {
    /// The topic's id: another one is another topic.
    life: u128,
    partitions: i32,
}

/// Where a topic ended.
#[derive(Debug, Clone)]
struct Ends {
    of: Order,
    asked_at: Instant,
    by_partition: BTreeMap<i32, i64>,
}

impl ControlTopic {
    /// Begins to read the topic into the knowledge. Blocks for no answer of the cluster.
    ///
    /// # Errors
    ///
    /// librdkafka refuses a property, or the system gives no thread.
    pub fn start(
        settings: &KafkaSettings,
        topic: &str,
        control: &Control,
        clock: Clock,
        registry: &mut Registry,
    ) -> Result<Self, StartError> {
        let metrics = ControlMetrics::register(registry);
        let consumer = Arc::new(
            settings
                .control_consumer()
                .create_with_context(super::client::Context)?,
        );
        let queue = Queue::of(&consumer)
            .ok_or_else(|| KafkaError::ClientCreation("the consumer has no queue".to_owned()))?;
        let shared = Arc::new(Shared {
            told: Mutex::default(),
            waker: queue.waker(),
        });
        let (applied, positions) = tokio::sync::watch::channel(BTreeMap::new());
        let writer = Writer::new(settings, topic, positions);
        let reader = Reader::new(
            Arc::from(topic),
            consumer,
            queue,
            control.clone(),
            Arc::clone(&shared),
            applied,
            metrics.clone(),
        );
        let (stop, stopped) = std::sync::mpsc::sync_channel(1);
        let watch = Watch::new(
            settings,
            Arc::from(topic),
            control.clone(),
            clock,
            Arc::clone(&shared),
            writer.clone(),
            metrics,
        )?;
        let reading = spawn("kafka-control", move || reader.run())?;
        let mut started = Self {
            writer,
            stop: Some(stop),
            shared,
            threads: vec![reading],
        };
        let watching = spawn("kafka-control-watch", move || watch.run(&stopped))?;
        started.threads.push(watching);
        Ok(started)
    }

    /// What writes to it.
    #[must_use]
    pub fn writer(&self) -> Writer {
        self.writer.clone()
    }

    /// Ends the threads, and waits for them.
    pub async fn stop(self) {
        // A thread that panicked has nothing more to say here.
        drop(tokio::task::spawn_blocking(move || drop(self)).await);
    }
}

impl Drop for ControlTopic {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.shared.lock().stop = true;
        self.shared.waker.wake();
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StartError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
        .map_err(StartError::Thread)
}

/// How often the topic is looked at: several looks fail before the knowledge counts as stale.
fn interval(staleness_max: Duration) -> Duration {
    (staleness_max / 12).clamp(Duration::from_millis(50), Duration::from_secs(2))
}

#[cfg(test)]
mod tests;

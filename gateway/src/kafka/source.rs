//! The live side of Kafka: starts the live thread and its steward, stops them, and says where they stand.
//!
//! Invariant: no consumer group. Every node reads every partition of the streams that somebody needs there, from the end on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::registry::Registry;
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaError;
use schemas::contract::Contract;
use schemas::decode::Decoder;
use schemas::ids::StreamName;
use serde::Serialize;
use subscriptions::needs::Needs;
use subscriptions::sequencer::InputSender;

use super::alive::Alive;
use super::client::Context;
use super::dead_letter::DeadLetters;
use super::live::{Live, Parts};
use super::lookup::Lookup;
use super::metrics::SourceMetrics;
use super::orders::Standing;
use super::settings::KafkaSettings;
use super::steward::{Note, Steward, Table};
use super::topology::Wanted;
use super::witness::{self, Questions};

/// Commands for the live thread that may wait: a command a partition, and a layout of some thousand partitions.
const COMMANDS_MAX: usize = 4096;
/// Troubles that may wait; more are dropped, because a look at the topology follows anyway.
const TROUBLES_MAX: usize = 1024;

/// Why Kafka's side does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// librdkafka refuses the configuration.
    #[error("librdkafka refuses to start")]
    Kafka(#[from] KafkaError),
    /// The system gave no thread.
    #[error("no thread for kafka")]
    Thread(#[from] std::io::Error),
    /// A stream has nobody to feed.
    #[error("stream {0} has no sequencer")]
    NoInput(StreamName),
}

/// Where the live side stands.
#[derive(Debug, Clone, Serialize)]
pub struct SourceStatus {
    /// Whether Kafka answers.
    pub reachable: bool,
    /// Wanted topics that do not exist or cannot be described.
    pub missing_topics: Vec<Arc<str>>,
    /// Every partition that is known; those that nobody needs have no position.
    pub partitions: Vec<PartitionStatus>,
}

/// Where one partition stands.
#[derive(Debug, Clone, Serialize)]
pub struct PartitionStatus {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// The next offset, once it is known.
    pub position: Option<i64>,
    /// The end of the log as the last fetch saw it.
    pub end: Option<i64>,
    /// The offsets in between.
    pub lag: Option<i64>,
}

/// The running live side.
pub struct Source {
    notes: SyncSender<Note>,
    table: Arc<Table>,
    dead_letters: Arc<DeadLetters>,
    threads: Vec<JoinHandle<()>>,
}

impl Source {
    /// Reads the topics of the contract's streams into `inputs`, one for each stream, while somebody needs them.
    ///
    /// # Errors
    ///
    /// librdkafka refuses the settings, there are no threads, or a stream has no input. An unreachable Kafka is no error.
    pub fn start(
        settings: &KafkaSettings,
        contract: &Contract,
        inputs: impl Fn(&StreamName) -> Option<InputSender>,
        needs: &Arc<Needs>,
        registry: &mut Registry,
    ) -> Result<Self, StartError> {
        let metrics = SourceMetrics::register(registry);
        let mut streams = Vec::with_capacity(contract.streams.len());
        for stream in &contract.streams {
            let input = inputs(&stream.name).ok_or_else(|| StartError::NoInput(stream.name.clone()))?;
            streams.push((Decoder::new(Arc::clone(stream), &settings.id_secret), input));
        }
        let lookup = Lookup::start(settings)?;
        let consumer: Arc<BaseConsumer<Context>> =
            Arc::new(settings.live_consumer().create_with_context(Context)?);
        let dead_letters = Arc::new(DeadLetters::start(settings, metrics.clone())?);
        let (commands, commanded) = sync_channel(COMMANDS_MAX);
        let (troubles, troubled) = sync_channel(TROUBLES_MAX);
        let (notes, inbox) = sync_channel(COMMANDS_MAX);
        let questions = Arc::new(Questions::default());
        let alive = Arc::new(Alive::new());
        let table = Arc::new(Table {
            consumer: Arc::clone(&consumer),
            standings: Mutex::default(),
            missing: Mutex::default(),
            alive: Arc::clone(&alive),
            stale_after: settings.stale_after,
            looked: AtomicBool::new(false),
        });
        let live = Live::new(Parts {
            consumer,
            streams,
            commands: commanded,
            troubles,
            questions: Arc::clone(&questions),
            dead_letters: Arc::clone(&dead_letters),
            alive,
            stale_after: settings.stale_after,
            metrics: metrics.clone(),
        })
        .ok_or_else(|| KafkaError::ClientCreation("the consumer has no queue".to_owned()))?;
        let (witness, told, waker) = (Arc::clone(lookup.client()), commands.clone(), live.waker());
        let steward = Steward {
            lookup,
            wanted: Wanted::new(&contract.streams, settings.own_topics()),
            needs: Arc::clone(needs),
            idle_after: settings.idle_after,
            streams: contract.streams.len(),
            commands,
            waker: live.waker(),
            notes: notes.clone(),
            inbox,
            troubles: troubled,
            table: Arc::clone(&table),
            metrics,
            metadata_interval: settings.metadata_interval,
        };
        let wakes = notes.clone();
        // A full queue wakes the steward as well.
        needs.on_need(move || drop(wakes.try_send(Note::Needed)));
        let threads = vec![
            std::thread::Builder::new()
                .name("kafka-live".to_owned())
                .spawn(move || live.run())?,
            std::thread::Builder::new()
                .name("kafka-steward".to_owned())
                .spawn(move || steward.run())?,
            std::thread::Builder::new()
                .name("kafka-witness".to_owned())
                .spawn(move || witness::run(&witness, &questions, &told, &waker))?,
        ];
        Ok(Self {
            notes,
            table,
            dead_letters,
            threads,
        })
    }

    /// Where records go that are no event of their stream. Let go of it before [`Self::stop`], which waits for the last ones.
    #[must_use]
    pub(crate) fn dead_letters(&self) -> Arc<DeadLetters> {
        Arc::clone(&self.dead_letters)
    }

    /// Stops reading. Waits for the threads, for dead letters that are still to be written at most some seconds.
    pub async fn stop(self) {
        let Self {
            notes,
            table,
            dead_letters,
            threads,
        } = self;
        let stopped = tokio::task::spawn_blocking(move || {
            drop(notes.send(Note::Stop));
            for thread in threads {
                if thread.join().is_err() {
                    tracing::error!("a thread of the live path had panicked");
                }
            }
            // The consumer closes with its last handle.
            drop(table);
            drop(dead_letters);
        });
        if stopped.await.is_err() {
            tracing::error!("the live path could not be stopped");
        }
    }

    /// Where it stands, for readiness and operators. Asks nobody.
    #[must_use]
    pub fn status(&self) -> SourceStatus {
        let lock = |standings: &Mutex<_>| -> Vec<_> {
            Vec::clone(&standings.lock().unwrap_or_else(PoisonError::into_inner))
        };
        let mut partitions: Vec<PartitionStatus> = lock(&self.table.standings)
            .into_iter()
            .map(|standing: Arc<Standing>| PartitionStatus {
                topic: Arc::clone(&standing.place.topic),
                partition: standing.place.partition,
                position: standing
                    .resolved
                    .load(Ordering::Relaxed)
                    .then(|| standing.position.load(Ordering::Relaxed)),
                end: standing
                    .resolved
                    .load(Ordering::Relaxed)
                    .then(|| standing.end(&self.table.consumer))
                    .flatten(),
                lag: standing.lag(&self.table.consumer),
            })
            .collect();
        partitions.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
        SourceStatus {
            reachable: self.table.is_reachable(),
            missing_topics: self
                .table
                .missing
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
            partitions,
        }
    }
}

/// Milliseconds since the Unix epoch.
pub(super) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

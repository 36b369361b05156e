//! Questions to Kafka that are no fetches: which topics there are, where their logs end, which offset a time has.
//!
//! Invariant: nobody waits for another's partition. Each question has a time limit and is asked on a thread of a small
//! pool; a queue of them has a bound. Equal questions about a log's ends share one answer that is fresh for all of them.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};
use schemas::ids::Incarnation;
use subscriptions::history::{Bounds, OlderError};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::client::Context;
use super::raw::{self, Described};
use super::settings::KafkaSettings;

/// How long one question may take.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);
/// Threads that ask. Questions are mostly waits, and a dead leader holds one of them for [`TIMEOUT`].
const THREADS: usize = 4;
/// Questions that wait for a thread: 4,096 of them at a millisecond each are a second on four threads.
const QUESTIONS_MAX: usize = 4096;

/// The client's own events that are served at each look.
const EVENTS_MAX: usize = 256;

type Question = Box<dyn FnOnce(&Client) + Send>;
/// A topic and one of its partitions.
type Place = (Arc<str>, i32);
type BoundsAnswer = oneshot::Sender<Result<Bounds, OlderError>>;

/// The client and its threads. Cheap to clone; the threads end with the last clone.
#[derive(Clone)]
pub(super) struct Lookup {
    client: Arc<Client>,
    questions: SyncSender<Question>,
    bounds: Arc<Mutex<HashMap<Place, Vec<BoundsAnswer>>>>,
}

/// The blocking side.
pub(super) struct Client {
    consumer: BaseConsumer<Context>,
    /// Descriptions not older than what their users accept.
    described: Mutex<HashMap<Arc<str>, (Instant, Described)>>,
    /// Brokers that may be asked, the next one last.
    brokers: Mutex<Vec<i32>>,
    mock: Mutex<Option<bool>>,
}

impl Lookup {
    pub(super) fn start(settings: &KafkaSettings) -> KafkaResult<Self> {
        let consumer = settings.lookup_client().create_with_context(Context)?;
        let client = Arc::new(Client {
            consumer,
            described: Mutex::default(),
            brokers: Mutex::default(),
            mock: Mutex::new(None),
        });
        let (questions, inbox) = sync_channel::<Question>(QUESTIONS_MAX);
        let inbox = Arc::new(Mutex::new(inbox));
        for number in 0..THREADS {
            let (client, inbox) = (Arc::clone(&client), Arc::clone(&inbox));
            let spawned = std::thread::Builder::new()
                .name(format!("kafka-lookup-{number}"))
                .spawn(move || answer(&client, &inbox));
            if let Err(error) = spawned {
                return Err(KafkaError::ClientCreation(format!(
                    "no thread for look-ups: {error}"
                )));
            }
        }
        Ok(Self {
            client,
            questions,
            bounds: Arc::default(),
        })
    }

    /// The blocking side, for threads of their own.
    pub(super) fn client(&self) -> &Arc<Client> {
        &self.client
    }

    /// Has a question asked on a thread of the pool.
    pub(super) fn ask(&self, question: impl FnOnce(&Client) + Send + 'static) -> Result<(), OlderError> {
        self.questions
            .try_send(Box::new(question))
            .map_err(|error| match error {
                TrySendError::Full(_) => OlderError::Limited,
                TrySendError::Disconnected(_) => OlderError::Unavailable("look-ups have ended".to_owned()),
            })
    }

    /// The ends of a log, asked after this call began. Cancel safe.
    pub(super) async fn bounds(&self, topic: Arc<str>, partition: i32) -> Result<Bounds, OlderError> {
        let (answer, answered) = oneshot::channel();
        let place = (topic, partition);
        let first = {
            let mut waiting = lock(&self.bounds);
            let waiters = waiting.entry(place.clone()).or_default();
            waiters.push(answer);
            waiters.len() == 1
        };
        if first {
            let shared = Arc::clone(&self.bounds);
            let asked = place.clone();
            let refused = self.ask(move |client| {
                // Whoever comes from here on needs a fresher answer and asks again.
                let waiters = lock(&shared).remove(&asked).unwrap_or_default();
                if waiters.iter().all(oneshot::Sender::is_closed) {
                    return;
                }
                let result = client.bounds(&asked.0, asked.1, TIMEOUT);
                for waiter in waiters {
                    drop(waiter.send(result.clone()));
                }
            });
            if let Err(error) = refused {
                for waiter in lock(&self.bounds).remove(&place).unwrap_or_default() {
                    drop(waiter.send(Err(error.clone())));
                }
            }
        }
        answered.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Any other question. Cancel safe.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Client) -> Result<T, OlderError> + Send + 'static,
    ) -> Result<T, OlderError> {
        let (answer, answered) = oneshot::channel();
        self.ask(move |client| {
            if !answer.is_closed() {
                drop(answer.send(question(client)));
            }
        })?;
        answered.await.unwrap_or_else(|_| Err(gone()))
    }
}

fn answer(client: &Client, inbox: &Mutex<Receiver<Question>>) {
    loop {
        let next = lock(inbox).recv();
        let Ok(question) = next else { return };
        question(client);
    }
}

impl Client {
    /// Where the log begins, and the last stable offset: `ListOffsets` carries the client's isolation level.
    pub(super) fn bounds(
        &self,
        topic: &str,
        partition: i32,
        timeout: Duration,
    ) -> Result<Bounds, OlderError> {
        let (start, end) = self
            .consumer
            .fetch_watermarks(topic, partition, timeout)
            .map_err(|error| refused(&error))?;
        Ok(Bounds { start, end })
    }

    /// The first offset whose record is not older than that; `None` if there is none.
    pub(super) fn at_time(
        &self,
        topic: &str,
        partition: i32,
        time_ms: i64,
    ) -> Result<Option<i64>, OlderError> {
        if self.is_mock() {
            return Err(OlderError::NoTimes);
        }
        let mut times = TopicPartitionList::new();
        times
            .add_partition_offset(topic, partition, Offset::Offset(time_ms.max(0)))
            .map_err(|error| refused(&error))?;
        let answer = self
            .consumer
            .offsets_for_times(times, TIMEOUT)
            .map_err(|error| refused(&error))?;
        let found = answer.find_partition(topic, partition).ok_or_else(gone)?;
        found.error().map_err(|error| refused(&error))?;
        Ok(match found.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        })
    }

    /// librdkafka's mock cluster answers "end" for every time. It is known by the id that it gives itself.
    fn is_mock(&self) -> bool {
        let mut mock = lock(&self.mock);
        if let Some(known) = *mock {
            return known;
        }
        let id = self.consumer.client().fetch_cluster_id(TIMEOUT);
        *mock = id.as_ref().map(|id| id.starts_with("mockCluster"));
        mock.unwrap_or(false)
    }

    /// Describes these topics now.
    pub(super) fn describe(
        &self,
        topics: &[Arc<str>],
        timeout: Duration,
    ) -> Result<Vec<(Arc<str>, Described)>, RDKafkaErrorCode> {
        let asked_at = Instant::now();
        let Some(probe) = topics.first() else {
            return Ok(Vec::new());
        };
        let answer = self.broker(probe, timeout).and_then(|broker| {
            raw::describe(&self.consumer, broker, topics, timeout).inspect_err(|_| self.next_broker())
        });
        // Nobody else serves this client's own events: log lines, mostly.
        for _ in 0..EVENTS_MAX {
            drop(self.consumer.poll(Duration::ZERO));
        }
        let answer = answer?;
        let mut described = lock(&self.described);
        for (topic, state) in &answer {
            described.insert(Arc::clone(topic), (asked_at, state.clone()));
        }
        Ok(answer)
    }

    /// The broker to ask.
    fn broker(&self, topic: &str, timeout: Duration) -> Result<i32, RDKafkaErrorCode> {
        let mut brokers = lock(&self.brokers);
        if brokers.is_empty() {
            let metadata = self
                .consumer
                .fetch_metadata(Some(topic), timeout)
                .map_err(|error| error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail))?;
            brokers.extend(
                metadata
                    .brokers()
                    .iter()
                    .map(rdkafka::metadata::MetadataBroker::id),
            );
        }
        brokers.last().copied().ok_or(RDKafkaErrorCode::AllBrokersDown)
    }

    /// It did not answer: the next time another one is asked, and when all have failed, who they are.
    fn next_broker(&self) {
        lock(&self.brokers).pop();
    }

    /// Every topic's name.
    pub(super) fn topics(&self, timeout: Duration) -> KafkaResult<Vec<Arc<str>>> {
        let metadata = self.consumer.fetch_metadata(None, timeout)?;
        Ok(metadata
            .topics()
            .iter()
            .filter(|topic| topic.error().is_none())
            .map(|topic| topic.name().into())
            .collect())
    }

    /// Whether the topic is still what it was, asked at most so long ago.
    pub(super) fn verify(
        &self,
        topic: &Arc<str>,
        incarnation: Incarnation,
        age_max: Duration,
    ) -> Result<(), OlderError> {
        let known = lock(&self.described)
            .get(topic)
            .filter(|(at, _)| at.elapsed() <= age_max)
            .map(|(_, state)| state.clone());
        let state = match known {
            Some(state) => Some(state),
            None => self
                .describe(std::slice::from_ref(topic), TIMEOUT)
                .map_err(|code| OlderError::Unavailable(code.to_string()))?
                .pop()
                .map(|(_, state)| state),
        };
        match state {
            Some(Described::Topic { id, .. }) if super::topology::incarnation(topic, id) == incarnation => {
                Ok(())
            }
            Some(Described::Unclear(code)) => Err(OlderError::Unavailable(code.to_string())),
            _ => Err(OlderError::Gone),
        }
    }
}

pub(super) fn refused(error: &KafkaError) -> OlderError {
    match error.rdkafka_error_code() {
        Some(
            RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownPartition
            | RDKafkaErrorCode::UnknownTopicId,
        ) => OlderError::Gone,
        Some(code) => OlderError::Unavailable(code.to_string()),
        None => OlderError::Unavailable("the client failed".to_owned()),
    }
}

fn gone() -> OlderError {
    OlderError::Unavailable("the look-up was given up".to_owned())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

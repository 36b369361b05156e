//! Questions to Kafka that are no fetches: which topics there are, where their logs end, which offset a time has.
//!
//! Invariant: nobody waits for another's partition (see `desk`). Each question has a time limit. Equal questions about a
//! partition share one answer that is fresh for all of them.

use std::collections::HashMap;
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
use super::desk::{Asked, Desk, Lane, Place, Refused};
use super::raw::{self, Described};
use super::settings::KafkaSettings;

/// How long a question about no partition may take.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);
/// How long it may hold a thread that others wait for.
const PROMPT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a thread waits that has the time.
const PATIENT_TIMEOUT: Duration = Duration::from_secs(3);
/// Threads of each lane. Questions are mostly waits.
const THREADS: usize = 6;
/// Questions that wait for a thread: 4,096 of them at a millisecond each are a second on some threads.
const QUESTIONS_MAX: usize = 4096;

/// The client's own events that are served at each look.
const EVENTS_MAX: usize = 256;

/// Those who wait for equal questions.
type Waiters<K, T> = Arc<Mutex<HashMap<K, Vec<oneshot::Sender<Result<T, OlderError>>>>>>;

/// The client and its threads. Cheap to clone; the threads end with the last clone.
#[derive(Clone)]
pub(super) struct Lookup {
    client: Arc<Client>,
    desk: Arc<Open>,
    bounds: Waiters<Place, Bounds>,
    times: Waiters<(Place, i64), Option<i64>>,
}

/// The desk as long as somebody may ask.
struct Open(Arc<Desk<Client>>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.close();
    }
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
        let client = Arc::new(Client::new(settings)?);
        let desk = Open(Arc::new(Desk::new(QUESTIONS_MAX)));
        for (lane, name) in [(Lane::Prompt, "prompt"), (Lane::Patient, "patient")] {
            for number in 0..THREADS {
                let (client, desk) = (Arc::clone(&client), Arc::clone(&desk.0));
                let spawned = std::thread::Builder::new()
                    .name(format!("kafka-{name}-{number}"))
                    .spawn(move || desk.work(lane, &client));
                if let Err(error) = spawned {
                    return Err(KafkaError::ClientCreation(format!(
                        "no thread for look-ups: {error}"
                    )));
                }
            }
        }
        Ok(Self {
            client,
            desk: Arc::new(desk),
            bounds: Arc::default(),
            times: Arc::default(),
        })
    }

    /// The blocking side, for threads of their own.
    pub(super) fn client(&self) -> &Arc<Client> {
        &self.client
    }

    /// Has a question about a partition asked on a thread of the pool.
    pub(super) fn about(
        &self,
        topic: &Arc<str>,
        partition: i32,
        question: impl FnMut(&Client, Lane) -> Asked + Send + 'static,
    ) -> Result<(), OlderError> {
        self.desk
            .0
            .about((Arc::clone(topic), partition), question)
            .map_err(unasked)
    }

    /// The ends of a log, asked after this call began. Cancel safe.
    pub(super) async fn bounds(&self, topic: Arc<str>, partition: i32) -> Result<Bounds, OlderError> {
        let place = (topic, partition);
        let key = place.clone();
        self.share(&self.bounds, key, place, |client, (topic, partition), timeout| {
            client.bounds(topic, *partition, timeout)
        })
        .await
    }

    /// The first offset whose record is not older than that, asked after this call began; `None` if there is none. Cancel
    /// safe.
    pub(super) async fn at_time(
        &self,
        topic: Arc<str>,
        partition: i32,
        time_ms: i64,
    ) -> Result<Option<i64>, OlderError> {
        let place = (topic, partition);
        let key = (place.clone(), time_ms);
        self.share(
            &self.times,
            key,
            place,
            move |client, (topic, partition), timeout| client.at_time(topic, *partition, time_ms, timeout),
        )
        .await
    }

    async fn share<K, T>(
        &self,
        shared: &Waiters<K, T>,
        key: K,
        place: Place,
        question: impl Fn(&Client, &Place, Duration) -> Result<T, OlderError> + Send + 'static,
    ) -> Result<T, OlderError>
    where
        K: Clone + Eq + std::hash::Hash + Send + 'static,
        T: Clone + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let first = {
            let mut waiting = lock(shared);
            let waiters = waiting.entry(key.clone()).or_default();
            waiters.push(answer);
            waiters.len() == 1
        };
        if first {
            let (waiting, asked, wanted) = (Arc::clone(shared), place.clone(), key.clone());
            let mut waiters = Vec::new();
            let refused = self.about(&place.0, place.1, move |client, lane| {
                // Whoever comes from here on needs a fresher answer and asks again.
                waiters.append(&mut lock(&waiting).remove(&wanted).unwrap_or_default());
                waiters.retain(|waiter| !waiter.is_closed());
                if waiters.is_empty() {
                    return Asked::Nothing;
                }
                let result = question(client, &asked, time_for(lane));
                let came = asked_of(&result);
                if came == Asked::Silent && lane == Lane::Prompt {
                    return Asked::Again;
                }
                for waiter in waiters.drain(..) {
                    drop(waiter.send(result.clone()));
                }
                came
            });
            if let Err(error) = refused {
                for waiter in lock(shared).remove(&key).unwrap_or_default() {
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
        self.desk
            .0
            .put(move |client| {
                if !answer.is_closed() {
                    drop(answer.send(question(client)));
                }
            })
            .map_err(unasked)?;
        answered.await.unwrap_or_else(|_| Err(gone()))
    }
}

/// How long a question may take in this lane.
pub(super) fn time_for(lane: Lane) -> Duration {
    match lane {
        Lane::Prompt => PROMPT_TIMEOUT,
        Lane::Patient => PATIENT_TIMEOUT,
    }
}

/// What this answer says of a partition's leader.
pub(super) fn asked_of<T>(answer: &Result<T, OlderError>) -> Asked {
    match answer {
        Ok(_) | Err(OlderError::Gone | OlderError::NoTimes) => Asked::Answered,
        Err(OlderError::Unavailable(_) | OlderError::Limited) => Asked::Silent,
    }
}

fn unasked(refused: Refused) -> OlderError {
    match refused {
        Refused::Full => OlderError::Limited,
        Refused::Closed => OlderError::Unavailable("look-ups have ended".to_owned()),
    }
}

impl Client {
    pub(super) fn new(settings: &KafkaSettings) -> KafkaResult<Self> {
        Ok(Self {
            consumer: settings.lookup_client().create_with_context(Context)?,
            described: Mutex::default(),
            brokers: Mutex::default(),
            mock: Mutex::new(None),
        })
    }

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
        timeout: Duration,
    ) -> Result<Option<i64>, OlderError> {
        if self.is_mock(timeout) {
            return Err(OlderError::NoTimes);
        }
        let mut times = TopicPartitionList::new();
        times
            .add_partition_offset(topic, partition, Offset::Offset(time_ms.max(0)))
            .map_err(|error| refused(&error))?;
        let answer = self
            .consumer
            .offsets_for_times(times, timeout)
            .map_err(|error| refused(&error))?;
        let found = answer.find_partition(topic, partition).ok_or_else(gone)?;
        found.error().map_err(|error| refused(&error))?;
        Ok(match found.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        })
    }

    /// librdkafka's mock cluster answers "end" for every time. It is known by the id that it gives itself.
    fn is_mock(&self, timeout: Duration) -> bool {
        let mut mock = lock(&self.mock);
        if let Some(known) = *mock {
            return known;
        }
        let id = self.consumer.client().fetch_cluster_id(timeout);
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
            raw::describe(&self.consumer, broker, topics, timeout).inspect_err(|_| self.not_this(broker))
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
    fn not_this(&self, broker: i32) {
        lock(&self.brokers).retain(|other| *other != broker);
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

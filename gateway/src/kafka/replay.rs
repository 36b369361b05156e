//! What was before: pages of partitions, read again from Kafka and shared by the readers who ask for them.
//!
//! Invariant: a page's interval is complete and belongs to the incarnation that was asked for. At most `consumers_max`
//! passes read at a time; a pass is a thousand readers' if they are near each other. Futures may be dropped at any time.
//!
//! This file is the readers' side; `pass` is the consumers'.

use std::collections::{HashMap, VecDeque};
use std::pin::pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use prometheus_client::registry::Registry;
use schemas::contract::Contract;
use schemas::decode::Decoder;
use schemas::ids::{Slot, StreamName};
use subscriptions::history::{Bounds, Older, OlderError, Page, Partition};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::lookup::Lookup;
use super::metrics::{ByStream, ReplayMetrics};
use super::pages::{Pages, PassView, Plan};
use super::pass;
use super::settings::KafkaSettings;
use super::source::StartError;

/// Requests that arrive within this time share the lowest start. Far below what a reader notices, far above the time in
/// which a reconnect storm's requests come one after the other.
const GATHER: Duration = Duration::from_millis(5);
/// Passes that wait for a consumer, for each consumer; beyond it readers are told to come again.
const WAITING_PER_CONSUMER: usize = 64;
/// A pass that nobody has asked anything of for so long is over.
const SUSPENDED_MAX: Duration = Duration::from_secs(60);

/// A partition of a stream, by this node's numbering. Slots are never reused, so it names an incarnation, too.
pub(super) type Key = (StreamName, Slot);

/// Reads what is older than the rings. Implements [`Older`].
pub struct Replay {
    shared: Arc<Shared>,
}

/// What readers and consumers share.
pub(super) struct Shared {
    pub(super) settings: KafkaSettings,
    pub(super) lookup: Lookup,
    pub(super) decoders: HashMap<StreamName, Decoder>,
    pub(super) metrics: ReplayMetrics,
    state: Mutex<State>,
    /// Passes wait here for demand, threads for passes.
    pub(super) demand: Condvar,
}

/// See the fields.
pub(super) struct State {
    pub(super) pages: Pages<Key>,
    readers: HashMap<Key, Readers>,
    pub(super) passes: HashMap<u64, Pass>,
    /// Passes that wait for a consumer.
    pub(super) queue: VecDeque<u64>,
    /// Threads that live, and those of them that have nothing to do.
    pub(super) threads: usize,
    pub(super) idle: usize,
    pub(super) closed: bool,
    next_id: u64,
}

/// The readers of one partition.
#[derive(Default)]
struct Readers {
    /// So many, whether they wait or not.
    count: usize,
    changed: Arc<Notify>,
    waiting: HashMap<u64, Waiting>,
}

struct Waiting {
    from: i64,
    until: i64,
    /// The pass that is to come by.
    pass: Option<u64>,
    error: Option<OlderError>,
}

/// A pass over a part of a partition.
pub(super) struct Pass {
    pub(super) key: Key,
    pub(super) partition: Partition,
    pub(super) standing: Standing,
    /// Whether it has read anything yet.
    pub(super) begun: bool,
}

/// Who has a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It waits for a consumer, and is not to begin before this.
    Queued(Instant),
    /// A consumer reads it, or is ready to.
    Running,
    /// Nobody asks; it goes on where it stopped if somebody does.
    Suspended(Instant),
}

/// What readers of a pass want of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Demand {
    /// The furthest that anybody reads to.
    pub(super) until: i64,
}

impl Replay {
    /// Prepares to read again. Consumers are made when they are needed.
    ///
    /// # Errors
    ///
    /// librdkafka refuses the settings. An unreachable Kafka is no error.
    pub fn new(
        settings: &KafkaSettings,
        contract: &Contract,
        registry: &mut Registry,
    ) -> Result<Arc<Self>, StartError> {
        let decoders = contract
            .streams
            .iter()
            .map(|stream| {
                (
                    stream.name.clone(),
                    Decoder::new(Arc::clone(stream), &settings.id_secret),
                )
            })
            .collect();
        let shared = Shared {
            lookup: Lookup::start(settings)?,
            decoders,
            metrics: ReplayMetrics::register(registry),
            state: Mutex::new(State {
                pages: Pages::new(settings.replay.cache_bytes_max),
                readers: HashMap::new(),
                passes: HashMap::new(),
                queue: VecDeque::new(),
                threads: 0,
                idle: 0,
                closed: false,
                next_id: 0,
            }),
            demand: Condvar::new(),
            settings: settings.clone(),
        };
        Ok(Arc::new(Self {
            shared: Arc::new(shared),
        }))
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.demand.notify_all();
    }
}

impl Older for Replay {
    fn page(
        &self,
        partition: &Partition,
        from: i64,
        until: i64,
    ) -> BoxFuture<'static, Result<Page, OlderError>> {
        Box::pin(page(Arc::clone(&self.shared), partition.clone(), from, until))
    }

    fn bounds(&self, partition: &Partition) -> BoxFuture<'static, Result<Bounds, OlderError>> {
        let (shared, partition) = (Arc::clone(&self.shared), partition.clone());
        Box::pin(async move {
            let bounds = shared
                .lookup
                .bounds(Arc::clone(&partition.topic), partition.partition)
                .await?;
            still(&shared, &partition).await?;
            Ok(bounds)
        })
    }

    fn at_time(&self, partition: &Partition, time_ms: i64) -> BoxFuture<'static, Result<i64, OlderError>> {
        let (shared, partition) = (Arc::clone(&self.shared), partition.clone());
        Box::pin(async move {
            // The end first: what comes between the two answers is found by its time.
            let end = shared
                .lookup
                .bounds(Arc::clone(&partition.topic), partition.partition)
                .await?
                .end;
            let found = shared
                .lookup
                .at_time(Arc::clone(&partition.topic), partition.partition, time_ms)
                .await?;
            still(&shared, &partition).await?;
            Ok(found.unwrap_or(end))
        })
    }
}

/// Whether the topic is still the incarnation that is meant, asked after this call began: so what was answered before it
/// was of that incarnation. An older answer would let the end of a topic made again pass for the old one's.
async fn still(shared: &Shared, partition: &Partition) -> Result<(), OlderError> {
    let (topic, incarnation) = (Arc::clone(&partition.topic), partition.incarnation);
    let called_at = Instant::now();
    shared
        .lookup
        .run(move |client| client.verify(&topic, incarnation, called_at.elapsed()))
        .await
}

async fn page(shared: Arc<Shared>, partition: Partition, from: i64, until: i64) -> Result<Page, OlderError> {
    let key: Key = (partition.stream.clone(), partition.slot);
    let label = ByStream {
        stream: partition.stream.to_string(),
    };
    if !shared.decoders.contains_key(&partition.stream) {
        return Err(OlderError::Gone);
    }
    let (changed, id) = {
        let mut state = shared.lock();
        state.next_id += 1;
        let id = state.next_id;
        let readers = state.readers.entry(key.clone()).or_default();
        readers.count += 1;
        (Arc::clone(&readers.changed), id)
    };
    let place = WaitingPlace {
        shared: &shared,
        key: &key,
        id,
    };
    let mut waited = false;
    loop {
        let mut changed = pin!(changed.notified());
        changed.as_mut().enable();
        if let Some(result) = place.step(&partition, from, until) {
            shared.metrics.pages.get_or_create(&label).inc();
            if !waited {
                shared.metrics.hits.get_or_create(&label).inc();
            }
            return result;
        }
        waited = true;
        changed.await;
    }
}

/// A reader's entry among those who wait; gone with the reader.
struct WaitingPlace<'a> {
    shared: &'a Arc<Shared>,
    key: &'a Key,
    id: u64,
}

impl Drop for WaitingPlace<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        let Some(readers) = state.readers.get_mut(self.key) else {
            return;
        };
        readers.waiting.remove(&self.id);
        readers.count -= 1;
        if readers.count == 0 {
            // Slots are never reused: what is kept of a dead one would be kept for good.
            state.readers.remove(self.key);
            state.pages.tidy(self.key);
        }
    }
}

impl WaitingPlace<'_> {
    /// Gives the page if it is there; otherwise sees to it that somebody comes by.
    fn step(&self, partition: &Partition, from: i64, until: i64) -> Option<Result<Page, OlderError>> {
        let mut state = self.shared.lock();
        let state = &mut *state;
        if let Some(error) = state
            .waiting(self.key, self.id)
            .and_then(|waiting| waiting.error.take())
        {
            return Some(Err(error));
        }
        if let Some(page) = state.page(self.key, from, until) {
            return Some(Ok(page));
        }
        let nearby = self.shared.settings.replay.nearby_bytes_max;
        let log = state.pages.log(self.key);
        // Below the log's start nothing will ever come.
        let wanted = from.max(log.log_start);
        let pass = match log.plan(wanted, nearby) {
            Plan::Wait { pass } => {
                state.resume(pass);
                pass
            }
            Plan::Lower { pass, start } => {
                log.passes
                    .iter_mut()
                    .filter(|view| view.id == pass)
                    .for_each(|view| view.position = start);
                pass
            }
            Plan::Start { start, limit } => {
                let waiting_max = self.shared.settings.replay.consumers_max.max(1) * WAITING_PER_CONSUMER;
                if state.queue.len() >= waiting_max {
                    self.shared.metrics.limited.inc();
                    return Some(Err(OlderError::Limited));
                }
                state.start(self.key, partition, start, limit)
            }
        };
        let readers = state.readers.entry(self.key.clone()).or_default();
        readers.waiting.insert(
            self.id,
            Waiting {
                from: wanted,
                until,
                pass: Some(pass),
                error: None,
            },
        );
        pass::ensure_thread(self.shared, state);
        self.shared.measure(state);
        self.shared.demand.notify_all();
        None
    }
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn measure(&self, state: &State) {
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let running = state
            .passes
            .values()
            .filter(|pass| pass.standing == Standing::Running)
            .count();
        self.metrics.cache_bytes.set(gauge(state.pages.bytes()));
        self.metrics.waiting.set(gauge(state.queue.len()));
        self.metrics.under_way.set(gauge(running));
        self.metrics.consumers.set(gauge(state.threads));
    }
}

#[cfg(test)]
impl Replay {
    /// How many partitions anything is known of: by their readers, by their pages.
    pub(super) fn known(&self) -> (usize, usize) {
        let state = self.shared.lock();
        (state.readers.len(), state.pages.len())
    }
}

impl State {
    fn waiting(&mut self, key: &Key, id: u64) -> Option<&mut Waiting> {
        self.readers.get_mut(key)?.waiting.get_mut(&id)
    }

    /// The page, if it is in the cache or needs nothing of it.
    fn page(&mut self, key: &Key, from: i64, until: i64) -> Option<Page> {
        let log_start = self.pages.log(key).log_start;
        let begin = if self.pages.find(key, from).is_some() {
            from
        } else {
            from.max(log_start)
        };
        if begin >= until {
            return Some(Page {
                events: Arc::default(),
                next: begin,
                log_start,
                scanned_bytes: 0,
            });
        }
        let chunk = self.pages.find(key, begin)?;
        let (events, next, scanned_bytes) = chunk.part(begin, until);
        Some(Page {
            events,
            next,
            log_start: log_start.min(begin),
            scanned_bytes,
        })
    }

    fn start(&mut self, key: &Key, partition: &Partition, start: i64, limit: Option<i64>) -> u64 {
        self.forget_suspended();
        self.next_id += 1;
        let id = self.next_id;
        self.pages.log(key).passes.push(PassView {
            id,
            position: start,
            gathering: true,
            limit,
        });
        let pass = Pass {
            key: key.clone(),
            partition: partition.clone(),
            standing: Standing::Queued(Instant::now() + GATHER),
            begun: false,
        };
        self.passes.insert(id, pass);
        self.queue.push_back(id);
        id
    }

    fn forget_suspended(&mut self) {
        let old = |pass: &Pass| matches!(pass.standing, Standing::Suspended(since) if since.elapsed() > SUSPENDED_MAX);
        let ids: Vec<u64> = self
            .passes
            .iter()
            .filter(|(_, pass)| old(pass))
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            self.end(id);
        }
    }

    fn resume(&mut self, id: u64) {
        if let Some(pass) = self.passes.get_mut(&id)
            && matches!(pass.standing, Standing::Suspended(_))
        {
            pass.standing = Standing::Queued(Instant::now());
            self.queue.push_back(id);
        }
    }

    /// What readers want of a pass; `None` if nobody waits for it.
    pub(super) fn demand(&self, id: u64) -> Option<Demand> {
        let pass = self.passes.get(&id)?;
        let position = self
            .pages
            .peek(&pass.key)?
            .passes
            .iter()
            .find(|view| view.id == id)?
            .position;
        let readers = self.readers.get(&pass.key)?;
        // Who stands below has been told to look again.
        let waiting = readers
            .waiting
            .values()
            .filter(|waiting| waiting.pass == Some(id) && waiting.from >= position);
        waiting
            .map(|waiting| waiting.until)
            .max()
            .map(|until| Demand { until })
    }

    /// Tells a partition's readers to look again.
    pub(super) fn tell(&self, key: &Key) {
        if let Some(readers) = self.readers.get(key) {
            readers.changed.notify_waiters();
        }
    }

    /// A pass is over. Who still waits for it looks again.
    pub(super) fn end(&mut self, id: u64) {
        self.queue.retain(|queued| *queued != id);
        if let Some(pass) = self.passes.remove(&id) {
            self.pages.end_pass(&pass.key, id);
            self.tell(&pass.key);
        }
    }

    /// A pass failed. Who waits for it is told why.
    pub(super) fn fail(&mut self, id: u64, error: &OlderError) {
        if let Some(pass) = self.passes.get(&id)
            && let Some(readers) = self.readers.get_mut(&pass.key)
        {
            for waiting in readers
                .waiting
                .values_mut()
                .filter(|waiting| waiting.pass == Some(id))
            {
                waiting.error = Some(error.clone());
            }
        }
        self.end(id);
    }
}

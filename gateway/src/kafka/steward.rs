//! Keeps the live path's layout true: looks at the cluster, has new partitions found (`watch`), and what fell out of its log
//! mended; has read what somebody needs, and nothing else (`demand`).
//!
//! Invariant: nothing waits for one partition or one topic. A partition whose beginning cannot be found is announced as
//! "since now" and resolved later; a topic that is missing is told and picked up when it appears.

mod demand;
mod watch;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::consumer::BaseConsumer;
use schemas::cursor::Position;
use schemas::ids::Incarnation;
use subscriptions::history::{Bounds, OlderError};
use subscriptions::needs::{Need, Needs};
use subscriptions::sequencer::Gone;
use tokio::time::Instant;

use self::demand::Phase;
use self::watch::Watch;
use super::alive::Alive;
use super::client::Context;
use super::lookup::Lookup;
use super::metrics::{ByPartition, SourceMetrics};
use super::orders::{Command, Place, Standing, Trouble};
use super::raw::{self, Described, Waker};
use super::source::now_ms;
use super::topology::{Change, Topology, Wanted};

/// How soon what failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// How soon a look that left a doubt is repeated.
const DOUBT: Duration = Duration::from_millis(500);

/// What the steward hears.
pub(super) enum Note {
    /// The first answer about a partition.
    Found {
        place: Place,
        /// When it was asked: a later question has another answer.
        asked_at_ms: i64,
        bounds: Result<Bounds, OlderError>,
    },
    /// A later answer about an unresolved one.
    Resolved {
        place: Place,
        since_ms: i64,
        start: Result<i64, OlderError>,
    },
    /// Somebody needs a stream that rests.
    Needed,
    /// Where a log is that a position fell out of.
    Ends {
        place: Place,
        bounds: Result<Bounds, OlderError>,
    },
    /// Stop.
    Stop,
}

/// What the status is made of.
pub(super) struct Table {
    pub(super) consumer: Arc<BaseConsumer<Context>>,
    pub(super) standings: Mutex<Vec<Arc<Standing>>>,
    pub(super) missing: Mutex<Vec<Arc<str>>>,
    pub(super) alive: Arc<Alive>,
    pub(super) stale_after: Duration,
    /// The cluster was looked at.
    pub(super) looked: AtomicBool,
}

impl Table {
    /// Whether Kafka answers.
    pub(super) fn is_reachable(&self) -> bool {
        self.looked.load(Ordering::Relaxed) && self.alive.silence() < self.stale_after
    }
}

/// See the module.
pub(super) struct Steward {
    pub(super) lookup: Lookup,
    pub(super) wanted: Wanted,
    pub(super) needs: Arc<Needs>,
    /// A stream that nobody has needed for so long rests. `None`: everything is read all the time.
    pub(super) idle_after: Option<Duration>,
    pub(super) streams: usize,
    pub(super) commands: SyncSender<Command>,
    pub(super) waker: Waker,
    pub(super) notes: SyncSender<Note>,
    pub(super) inbox: Receiver<Note>,
    pub(super) troubles: Receiver<Trouble>,
    pub(super) table: Arc<Table>,
    pub(super) metrics: SourceMetrics,
    pub(super) metadata_interval: Duration,
}

/// What changes while it runs.
struct Work {
    topology: Topology,
    watches: HashMap<Place, Watch>,
    /// Where partitions were left whose topic was taken for gone.
    left: HashMap<Place, Position>,
    /// Partitions that had no leader at the last look: there is nobody to ask about them.
    leaderless: HashSet<(Arc<str>, i32)>,
    next_slot: Vec<u32>,
    phases: Vec<Phase>,
    looked: bool,
    look_failed: bool,
    looked_at: Option<Instant>,
    look_at: Instant,
    retry_at: Instant,
}

impl Work {
    fn has_no_leader(&self, place: &Place) -> bool {
        self.leaderless
            .contains(&(Arc::clone(&place.topic), place.partition))
    }
}

impl Steward {
    /// Runs until it is told to stop.
    pub(super) fn run(self) {
        let now = Instant::now();
        let mut work = Work {
            topology: Topology::default(),
            watches: HashMap::new(),
            left: HashMap::new(),
            leaderless: HashSet::new(),
            next_slot: vec![0; self.streams],
            phases: vec![Phase::default(); self.streams],
            looked: false,
            look_failed: false,
            looked_at: None,
            look_at: now,
            retry_at: now,
        };
        self.table.alive.heard();
        let _always: Vec<Need> = match self.idle_after {
            Some(_) => Vec::new(),
            None => (0..self.streams).map(|stream| self.needs.need(stream)).collect(),
        };
        loop {
            self.follow_needs(&mut work);
            // Before a look, which takes long while Kafka is gone.
            self.give_up(&mut work);
            self.complete(&mut work);
            let now = Instant::now();
            if now >= work.look_at {
                self.look(&mut work);
            }
            if now >= work.retry_at {
                self.ask_again(&mut work);
                work.retry_at = Instant::now() + AGAIN;
            }
            self.metrics.reachable.set(i64::from(self.table.is_reachable()));
            self.complete(&mut work);
            let wait = work
                .look_at
                .saturating_duration_since(Instant::now())
                .min(Duration::from_millis(200));
            match self.inbox.recv_timeout(wait) {
                Ok(Note::Stop) | Err(RecvTimeoutError::Disconnected) => {
                    self.tell(Command::Stop);
                    return;
                }
                Ok(note) => self.note(&mut work, note),
                Err(RecvTimeoutError::Timeout) => {}
            }
            while let Ok(trouble) = self.troubles.try_recv() {
                self.trouble(&mut work, &trouble);
            }
        }
    }

    fn look(&self, work: &mut Work) {
        // What one look misses counts when a second one does, some time later.
        if work.topology.is_in_doubt()
            && let Some(soonest) = work.looked_at.map(|at| at + DOUBT)
            && Instant::now() < soonest
        {
            work.look_at = soonest;
            return;
        }
        // Looks are the sign of life of a quiet cluster, so they come often enough for that, too.
        let interval = self
            .metadata_interval
            .min(self.table.stale_after / 3)
            .max(Duration::from_millis(100));
        let timeout = (self.table.stale_after / 3).clamp(Duration::from_millis(500), Duration::from_secs(5));
        let client = self.lookup.client();
        let described = if self.wanted.has_patterns() {
            client.topics(timeout).map_err(|error| error.to_string())
        } else {
            Ok(Vec::new())
        }
        .and_then(|existing| {
            client
                .describe(&self.wanted.topics(&existing), timeout)
                .map_err(|code| code.to_string())
        });
        match described {
            Ok(described) => {
                // An answer for no topics is made without asking anybody.
                if !described.is_empty() || self.wanted.has_patterns() {
                    self.table.alive.heard();
                }
                work.look_failed = false;
                work.leaderless = leaderless(&described);
                for change in work.topology.observe(&described) {
                    self.change(work, change);
                }
                work.looked = true;
                self.table.looked.store(true, Ordering::Relaxed);
                let missing: Vec<Arc<str>> = work.topology.missing_topics().cloned().collect();
                self.metrics
                    .topics_missing
                    .set(i64::try_from(missing.len()).unwrap_or(i64::MAX));
                *lock(&self.table.missing) = missing;
                self.measure();
            }
            Err(reason) => {
                if !work.look_failed {
                    tracing::warn!(reason, "kafka cannot be asked for its topics; trying on");
                }
                work.look_failed = true;
            }
        }
        let wait = if work.look_failed {
            AGAIN.min(interval)
        } else if work.topology.is_in_doubt() {
            DOUBT.min(interval)
        } else if !work.leaderless.is_empty() {
            AGAIN.min(interval)
        } else {
            interval
        };
        work.looked_at = Some(Instant::now());
        work.look_at = Instant::now() + wait;
    }

    fn change(&self, work: &mut Work, change: Change) {
        match change {
            Change::Missing { topic } => {
                tracing::warn!(
                    topic = &*topic,
                    "the topic does not exist; it is read when it appears"
                );
            }
            Change::Unclear { topic, reason } => {
                tracing::warn!(
                    topic = &*topic,
                    reason,
                    "the topic cannot be described; trying on"
                );
            }
            Change::Removed {
                topic,
                incarnation,
                gone,
            } => {
                tracing::warn!(topic = &*topic, "the topic was deleted or made again");
                self.remove(work, &topic, incarnation, None, gone);
            }
            Change::Appeared {
                topic,
                incarnation,
                partitions,
                begin,
            } => {
                tracing::info!(
                    topic = &*topic,
                    partitions = partitions.end,
                    ?begin,
                    "the topic is read"
                );
                for partition in partitions {
                    let place = Place {
                        topic: Arc::clone(&topic),
                        incarnation,
                        partition,
                    };
                    self.appear(work, &place, begin);
                }
            }
        }
    }

    fn remove(
        &self,
        work: &mut Work,
        topic: &Arc<str>,
        incarnation: Incarnation,
        partition: Option<i32>,
        gone: Gone,
    ) {
        let dead = |place: &Place| {
            place.topic == *topic
                && place.incarnation == incarnation
                && partition.is_none_or(|partition| place.partition == partition)
        };
        let places: Vec<Place> = work.watches.keys().filter(|place| dead(place)).cloned().collect();
        for place in places {
            if let Some(watch) = work.watches.remove(&place) {
                let left = if watch.standing.resolved.load(Ordering::Relaxed) {
                    Position::At(watch.standing.position.load(Ordering::Relaxed))
                } else {
                    Position::Since(now_ms())
                };
                work.left.insert(place.clone(), left);
                self.metrics.lag.remove(&label(&place));
            }
        }
        lock(&self.table.standings).retain(|standing| !dead(&standing.place));
        self.tell(Command::Remove {
            topic: Arc::clone(topic),
            incarnation,
            partition,
            gone,
        });
    }

    fn measure(&self) {
        for standing in lock(&self.table.standings).iter() {
            if let Some(lag) = standing.lag(&self.table.consumer) {
                self.metrics.lag.get_or_create(&label(&standing.place)).set(lag);
            }
        }
    }

    fn tell(&self, command: Command) {
        // The live thread ends only after us.
        drop(self.commands.send(command));
        self.waker.wake();
    }
}

impl Standing {
    /// The end of the log, as the last fetch saw it.
    pub(super) fn end(&self, consumer: &BaseConsumer<Context>) -> Option<i64> {
        raw::seen_end(consumer, &self.place.topic, self.place.partition)
    }

    pub(super) fn lag(&self, consumer: &BaseConsumer<Context>) -> Option<i64> {
        let position = self
            .resolved
            .load(Ordering::Relaxed)
            .then(|| self.position.load(Ordering::Relaxed))?;
        Some(self.end(consumer)?.saturating_sub(position).max(0))
    }
}

fn leaderless(described: &[(Arc<str>, Described)]) -> HashSet<(Arc<str>, i32)> {
    let mut places = HashSet::new();
    for (topic, state) in described {
        if let Described::Topic { leaderless, .. } = state {
            places.extend(leaderless.iter().map(|partition| (Arc::clone(topic), *partition)));
        }
    }
    places
}

fn label(place: &Place) -> ByPartition {
    ByPartition {
        topic: place.topic.to_string(),
        partition: place.partition,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

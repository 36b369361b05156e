//! Keeps the live path's layout true: looks at the cluster, finds where new partitions begin, and mends what fell out of its
//! log.
//!
//! Invariant: nothing waits for one partition or one topic. A partition whose beginning cannot be found is announced as
//! "since now" and resolved later; a topic that is missing is told and picked up when it appears.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::consumer::BaseConsumer;
use schemas::cursor::Position;
use schemas::ids::{Incarnation, Slot};
use subscriptions::history::{Bounds, OlderError};
use tokio::time::Instant;

use super::alive::Alive;
use super::client::Context;
use super::lookup::{Lookup, asked_of, time_for};
use super::metrics::{ByPartition, SourceMetrics};
use super::orders::{Command, Place, Route, Standing, Trouble};
use super::raw::{self, Described, Waker};
use super::source::now_ms;
use super::topology::{Begin, Change, Topology, Wanted};

/// How long it may take to find a partition's end, from the first question on, before readers are let in without it.
const FIRST_TIMEOUT: Duration = Duration::from_secs(2);
/// How soon what failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// How soon a look that left a doubt is repeated.
const DOUBT: Duration = Duration::from_millis(500);
/// So often a log may be shorter than we have read before it counts as truncated (a follower may lag behind).
const STRIKES_MAX: u8 = 3;

/// What the steward hears.
pub(super) enum Note {
    /// The first answer about a partition.
    Found {
        place: Place,
        bounds: Result<Bounds, OlderError>,
    },
    /// A later answer about an unresolved one.
    Resolved {
        place: Place,
        start: Result<i64, OlderError>,
    },
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

enum State {
    /// Not announced yet.
    Finding { asked_at: Instant, asked_at_ms: i64 },
    /// Announced as "since".
    Unresolved { since_ms: i64, asking: bool },
    /// Read live.
    Live,
    /// Its position is not in its log.
    Mending { asking: bool, strikes: u8 },
}

struct Watch {
    routes: Vec<Route>,
    standing: Arc<Standing>,
    state: State,
}

/// See the module.
pub(super) struct Steward {
    pub(super) lookup: Lookup,
    pub(super) wanted: Wanted,
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
    left: HashMap<Place, i64>,
    /// Partitions that had no leader at the last look: there is nobody to ask about them.
    leaderless: HashSet<(Arc<str>, i32)>,
    next_slot: Vec<u32>,
    complete: Vec<bool>,
    looked: bool,
    look_failed: bool,
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
            complete: vec![false; self.streams],
            looked: false,
            look_failed: false,
            look_at: now,
            retry_at: now,
        };
        self.table.alive.heard();
        loop {
            let now = Instant::now();
            if now >= work.look_at {
                self.look(&mut work);
            }
            if now >= work.retry_at {
                self.ask_again(&mut work);
                work.retry_at = Instant::now() + AGAIN;
            }
            self.metrics.reachable.set(i64::from(self.table.is_reachable()));
            self.give_up(&mut work);
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
            Change::Removed { topic, incarnation } => {
                tracing::warn!(topic = &*topic, "the topic was deleted or made again");
                self.remove(work, &topic, incarnation, None);
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

    fn remove(&self, work: &mut Work, topic: &Arc<str>, incarnation: Incarnation, partition: Option<i32>) {
        let dead = |place: &Place| {
            place.topic == *topic
                && place.incarnation == incarnation
                && partition.is_none_or(|partition| place.partition == partition)
        };
        let gone: Vec<Place> = work.watches.keys().filter(|place| dead(place)).cloned().collect();
        for place in gone {
            if let Some(watch) = work.watches.remove(&place) {
                if watch.standing.resolved.load(Ordering::Relaxed) {
                    work.left
                        .insert(place.clone(), watch.standing.position.load(Ordering::Relaxed));
                }
                self.metrics.lag.remove(&label(&place));
            }
        }
        lock(&self.table.standings).retain(|standing| !dead(&standing.place));
        self.tell(Command::Remove {
            topic: Arc::clone(topic),
            incarnation,
            partition,
        });
    }

    fn appear(&self, work: &mut Work, place: &Place, begin: Begin) {
        let mut routes = Vec::new();
        for (stream, tenant) in self.wanted.readers(&place.topic) {
            let Some(next) = work.next_slot.get_mut(stream) else {
                continue;
            };
            routes.push(Route {
                stream,
                slot: Slot(*next),
                tenant,
            });
            *next += 1;
        }
        let standing = Arc::new(Standing {
            place: place.clone(),
            position: AtomicI64::new(0),
            resolved: AtomicBool::new(false),
        });
        lock(&self.table.standings).push(Arc::clone(&standing));
        let left = work.left.remove(place);
        work.left
            .retain(|left, _| left.topic != place.topic || left.incarnation == place.incarnation);
        work.watches.insert(
            place.clone(),
            Watch {
                routes,
                standing,
                state: State::Finding {
                    asked_at: Instant::now(),
                    asked_at_ms: now_ms(),
                },
            },
        );
        match (begin, left) {
            (Begin::Zero, _) => self.announce(work, place, Position::At(0)),
            (Begin::Again, Some(offset)) => self.announce(work, place, Position::At(offset)),
            (Begin::End | Begin::Again, _) => self.find(work, place),
        }
    }

    fn find(&self, work: &mut Work, place: &Place) {
        if work.has_no_leader(place) {
            self.announce(work, place, Position::Since(now_ms()));
            return;
        }
        let (notes, asked) = (self.notes.clone(), place.clone());
        let refused = self
            .lookup
            .about(&place.topic, place.partition, move |client, lane| {
                let bounds = client.bounds(&asked.topic, asked.partition, time_for(lane));
                let answered = asked_of(&bounds);
                let place = asked.clone();
                drop(notes.send(Note::Found { place, bounds }));
                answered
            });
        if refused.is_err() {
            self.announce(work, place, Position::Since(now_ms()));
        }
    }

    /// What was not found in time begins at the time of the first question, and nobody waits for it.
    fn give_up(&self, work: &mut Work) {
        let late: Vec<(Place, i64)> = work
            .watches
            .iter()
            .filter_map(|(place, watch)| match watch.state {
                State::Finding {
                    asked_at,
                    asked_at_ms,
                } if asked_at.elapsed() >= FIRST_TIMEOUT => Some((place.clone(), asked_at_ms)),
                _ => None,
            })
            .collect();
        if !late.is_empty() {
            tracing::warn!(
                partitions = late.len(),
                "ends of partitions cannot be found in time; they begin now, and the others do not wait"
            );
        }
        for (place, since_ms) in late {
            self.announce(work, &place, Position::Since(since_ms));
        }
    }

    fn announce(&self, work: &mut Work, place: &Place, start: Position) {
        let Some(watch) = work.watches.get_mut(place) else {
            return;
        };
        watch.state = match start {
            Position::At(offset) => {
                watch.standing.position.store(offset, Ordering::Relaxed);
                watch.standing.resolved.store(true, Ordering::Relaxed);
                State::Live
            }
            Position::Since(since_ms) => State::Unresolved {
                since_ms,
                asking: false,
            },
            // Nothing is announced so.
            Position::Start => return,
        };
        let (routes, standing) = (watch.routes.clone(), Arc::clone(&watch.standing));
        self.tell(Command::Add {
            place: place.clone(),
            routes,
            start,
            standing,
        });
    }

    fn note(&self, work: &mut Work, note: Note) {
        match note {
            Note::Found { place, bounds } => {
                // It may have been given up, or removed and found again, meanwhile.
                let Some(State::Finding { asked_at_ms, .. }) =
                    work.watches.get(&place).map(|watch| &watch.state)
                else {
                    return;
                };
                let since_ms = *asked_at_ms;
                match bounds {
                    Ok(bounds) => {
                        self.table.alive.heard();
                        self.announce(work, &place, Position::At(bounds.end));
                    }
                    Err(error) => {
                        tracing::warn!(
                            topic = &*place.topic, partition = place.partition, %error,
                            "the partition's end cannot be found; it begins now, and the others do not wait"
                        );
                        self.announce(work, &place, Position::Since(since_ms));
                    }
                }
            }
            Note::Resolved { place, start } => {
                let Some(watch) = work.watches.get_mut(&place) else {
                    return;
                };
                let State::Unresolved { asking, .. } = &mut watch.state else {
                    return;
                };
                *asking = false;
                if let Ok(start) = start {
                    watch.state = State::Live;
                    self.tell(Command::Resolved { place, start });
                }
            }
            Note::Ends { place, bounds } => self.mend(work, place, bounds.ok()),
            Note::Stop => {}
        }
    }

    fn trouble(&self, work: &mut Work, trouble: &Trouble) {
        match trouble {
            Trouble::Topic => work.look_at = Instant::now(),
            Trouble::OutOfRange(place) => {
                if let Some(watch) = work.watches.get_mut(place)
                    && matches!(watch.state, State::Live)
                {
                    watch.state = State::Mending {
                        asking: false,
                        strikes: 0,
                    };
                    // The topic may have been made again.
                    work.look_at = Instant::now();
                    work.retry_at = Instant::now();
                }
            }
        }
    }

    /// A position fell out of its log: retention overtook it, or the log is shorter than it was.
    fn mend(&self, work: &mut Work, place: Place, bounds: Option<Bounds>) {
        let Some(watch) = work.watches.get_mut(&place) else {
            return;
        };
        let State::Mending { asking, strikes } = &mut watch.state else {
            return;
        };
        *asking = false;
        let Some(bounds) = bounds else { return };
        let position = watch.standing.position.load(Ordering::Relaxed);
        if position < bounds.start {
            watch.state = State::Live;
            self.tell(Command::Lost {
                place,
                next: bounds.start,
            });
        } else if position <= bounds.end {
            watch.state = State::Live;
            self.tell(Command::Retry { place });
        } else if *strikes < STRIKES_MAX {
            *strikes += 1;
        } else {
            tracing::error!(
                topic = &*place.topic,
                partition = place.partition,
                position,
                end = bounds.end,
                "the log is shorter than what was read of it; it is read on as a new partition"
            );
            self.remove(work, &place.topic, place.incarnation, Some(place.partition));
            work.left.insert(place.clone(), bounds.end);
            self.appear(work, &place, Begin::Again);
        }
    }

    fn ask_again(&self, work: &mut Work) {
        let leaderless = &work.leaderless;
        let led = |place: &Place| !leaderless.contains(&(Arc::clone(&place.topic), place.partition));
        for (place, watch) in work.watches.iter_mut().filter(|(place, _)| led(place)) {
            let (notes, asked) = (self.notes.clone(), place.clone());
            match &mut watch.state {
                State::Unresolved { since_ms, asking } if !*asking => {
                    let since_ms = *since_ms;
                    let refused = self
                        .lookup
                        .about(&place.topic, place.partition, move |client, lane| {
                            let (topic, partition, time) = (&asked.topic, asked.partition, time_for(lane));
                            // The end first: what comes between the two answers is found by its time.
                            let start = client
                                .bounds(topic, partition, time)
                                .and_then(|bounds| match client.at_time(topic, partition, since_ms, time) {
                                    Ok(found) => Ok(found.unwrap_or(bounds.end)),
                                    Err(OlderError::NoTimes) => Ok(bounds.end),
                                    Err(error) => Err(error),
                                });
                            let answered = asked_of(&start);
                            let place = asked.clone();
                            drop(notes.send(Note::Resolved { place, start }));
                            answered
                        });
                    *asking = refused.is_ok();
                }
                State::Mending { asking, .. } if !*asking => {
                    let refused = self
                        .lookup
                        .about(&place.topic, place.partition, move |client, lane| {
                            let bounds = client.bounds(&asked.topic, asked.partition, time_for(lane));
                            let answered = asked_of(&bounds);
                            let place = asked.clone();
                            drop(notes.send(Note::Ends { place, bounds }));
                            answered
                        });
                    *asking = refused.is_ok();
                }
                _ => {}
            }
        }
    }

    fn complete(&self, work: &mut Work) {
        if !work.looked {
            return;
        }
        for (stream, complete) in work.complete.iter_mut().enumerate() {
            let finding = |watch: &Watch| {
                matches!(watch.state, State::Finding { .. })
                    && watch.routes.iter().any(|route| route.stream == stream)
            };
            if !*complete && !work.watches.values().any(finding) {
                *complete = true;
                self.tell(Command::Complete { stream });
            }
        }
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

//! Partitions one by one: where each begins, and what brings one back that fell out of its log.
//!
//! Invariant: questions about a partition are asked of the desk, and their answers come as notes: nothing here waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use schemas::cursor::Position;
use schemas::ids::Slot;
use subscriptions::history::{Bounds, OlderError};
use subscriptions::sequencer::Gone;
use tokio::time::Instant;

use super::super::lookup::{asked_of, time_for};
use super::super::orders::{Command, Place, Route, Standing, Trouble};
use super::super::source::now_ms;
use super::super::topology::Begin;
use super::{Note, Steward, Work, lock};

/// How long it may take to find a partition's end, from the first question on, before readers are let in without it.
const FIRST_TIMEOUT: Duration = Duration::from_secs(2);
/// So often a log may be shorter than we have read before it counts as truncated (a follower may lag behind).
const STRIKES_MAX: u8 = 3;

/// How far one partition is.
pub(super) enum State {
    /// Announced, and nobody needs it.
    Resting,
    /// Its place is looked for; readers wait for it.
    Finding { asked_at: Instant, asked_at_ms: i64 },
    /// Announced as "since".
    Unresolved { since_ms: i64, asking: bool },
    /// Read live.
    Live,
    /// Its position is not in its log.
    Mending { asking: bool, strikes: u8 },
}

/// One partition that is watched.
pub(super) struct Watch {
    pub(super) routes: Vec<Route>,
    pub(super) standing: Arc<Standing>,
    pub(super) state: State,
    pub(super) announced: bool,
}

impl Steward {
    pub(super) fn appear(&self, work: &mut Work, place: &Place, begin: Begin) {
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
        let watch = Watch {
            routes,
            standing,
            state: State::Resting,
            announced: false,
        };
        let needed = work.is_needed(&watch);
        work.watches.insert(place.clone(), watch);
        match (begin, left) {
            _ if !needed => self.announce(work, place, Position::Since(now_ms())),
            (Begin::Zero, _) => self.announce(work, place, Position::At(0)),
            (Begin::Again, Some(left)) => self.announce(work, place, left),
            (Begin::End | Begin::Again, _) => self.find(work, place),
        }
    }

    /// Asks where a partition ends: there it begins to be read.
    pub(super) fn find(&self, work: &mut Work, place: &Place) {
        let asked_at_ms = now_ms();
        if let Some(watch) = work.watches.get_mut(place) {
            watch.state = State::Finding {
                asked_at: Instant::now(),
                asked_at_ms,
            };
        }
        // Nobody waits for who cannot be asked.
        if work.has_no_leader(place) || work.look_failed {
            self.announce(work, place, Position::Since(asked_at_ms));
            return;
        }
        let (notes, asked) = (self.notes.clone(), place.clone());
        let refused = self
            .lookup
            .about(&place.topic, place.partition, move |client, lane| {
                let bounds = client.bounds(&asked.topic, asked.partition, time_for(lane));
                let answered = asked_of(&bounds);
                let place = asked.clone();
                drop(notes.send(Note::Found {
                    place,
                    asked_at_ms,
                    bounds,
                }));
                answered
            });
        if refused.is_err() {
            self.announce(work, place, Position::Since(asked_at_ms));
        }
    }

    /// What was not found in time begins at the time of the first question, and nobody waits for it.
    pub(super) fn give_up(&self, work: &mut Work) {
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
        let Some(watch) = work.watches.get(place) else {
            return;
        };
        let needed = work.is_needed(watch);
        let Some(watch) = work.watches.get_mut(place) else {
            return;
        };
        watch.state = match start {
            Position::At(offset) => {
                watch.standing.position.store(offset, Ordering::Relaxed);
                watch.standing.resolved.store(true, Ordering::Relaxed);
                State::Live
            }
            Position::Since(_) if !needed => State::Resting,
            Position::Since(since_ms) => State::Unresolved {
                since_ms,
                asking: false,
            },
            // Nothing is announced so.
            Position::Start => return,
        };
        let (place, routes, standing) = (place.clone(), watch.routes.clone(), Arc::clone(&watch.standing));
        self.tell(match (watch.announced, start) {
            (true, Position::At(start)) => Command::Resolved { place, start },
            (true, Position::Since(since_ms)) => Command::Unresolved { place, since_ms },
            (false, _) | (true, Position::Start) => Command::Add {
                place,
                routes,
                start,
                standing,
            },
        });
        watch.announced = true;
    }

    pub(super) fn note(&self, work: &mut Work, note: Note) {
        match note {
            Note::Found {
                place,
                asked_at_ms: since_ms,
                bounds,
            } => {
                // It may have been given up, put to rest, or removed and found again, meanwhile.
                match work.watches.get(&place).map(|watch| &watch.state) {
                    Some(State::Finding { asked_at_ms, .. }) if *asked_at_ms == since_ms => {}
                    _ => return,
                }
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
            Note::Resolved {
                place,
                since_ms: asked_ms,
                start,
            } => {
                let Some(watch) = work.watches.get_mut(&place) else {
                    return;
                };
                let State::Unresolved { since_ms, asking } = &mut watch.state else {
                    return;
                };
                // It may have been put to rest and needed again since.
                if *since_ms != asked_ms {
                    return;
                }
                *asking = false;
                if let Ok(start) = start {
                    watch.state = State::Live;
                    self.tell(Command::Resolved { place, start });
                }
            }
            Note::Ends { place, bounds } => self.mend(work, place, bounds.ok()),
            // Looked at before anything else, in each turn.
            Note::Needed | Note::Stop => {}
        }
    }

    pub(super) fn trouble(&self, work: &mut Work, trouble: &Trouble) {
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
            let partition = Some(place.partition);
            self.remove(work, &place.topic, place.incarnation, partition, Gone::Recreated);
            work.left.insert(place.clone(), Position::At(bounds.end));
            self.appear(work, &place, Begin::Again);
        }
    }

    pub(super) fn ask_again(&self, work: &mut Work) {
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
                            drop(notes.send(Note::Resolved {
                                place,
                                since_ms,
                                start,
                            }));
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
}

//! Streams are read while somebody needs them, and rest when nobody has for a while.
//!
//! Invariant: a partition is read exactly while one of its streams is. A stream that rests keeps its partitions announced, at
//! no place in their logs; who needs it is let in when all of them have one again.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::super::orders::{Command, Place};
use super::super::source::now_ms;
use super::watch::{State, Watch};
use super::{Steward, Work, label};

/// How far one stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Phase {
    /// The cluster has not been looked at, and nobody needs it.
    #[default]
    Unknown,
    /// It is known, and nobody needs it.
    Resting,
    /// Somebody needs it; its partitions are being found.
    Finding,
    /// It is read.
    Read,
}

impl Phase {
    /// Whether its partitions are read, or will be.
    fn is_needed(self) -> bool {
        matches!(self, Self::Finding | Self::Read)
    }
}

impl Work {
    /// Whether a partition with these readers is to be read.
    pub(super) fn is_needed(&self, watch: &Watch) -> bool {
        let phase = |stream: usize| self.phases.get(stream).copied().unwrap_or_default();
        watch.routes.iter().any(|route| phase(route.stream).is_needed())
    }
}

impl Steward {
    /// Begins to read what is needed, and lets rest what is not.
    pub(super) fn follow_needs(&self, work: &mut Work) {
        let (mut begins, mut ends) = (false, false);
        for (stream, phase) in work.phases.iter_mut().enumerate() {
            if self.needs.rouse(stream) {
                *phase = Phase::Finding;
                begins = true;
            } else if *phase == Phase::Read
                && self
                    .idle_after
                    .is_some_and(|idle_after: Duration| self.needs.rest(stream, idle_after))
            {
                *phase = Phase::Resting;
                ends = true;
                self.tell(Command::Resting { stream });
            }
        }
        if begins && !work.look_failed {
            // What was found while nobody cared may be another topic by now. Not while Kafka is gone: that takes long.
            self.look(work);
        }
        if begins || ends {
            self.metrics.streams_read.set(
                i64::try_from(work.phases.iter().filter(|phase| phase.is_needed()).count())
                    .unwrap_or(i64::MAX),
            );
            self.follow(work);
        }
    }

    fn follow(&self, work: &mut Work) {
        let places: Vec<(Place, bool)> = work
            .watches
            .iter()
            .map(|(place, watch)| (place.clone(), work.is_needed(watch)))
            .collect();
        for (place, needed) in places {
            let Some(watch) = work.watches.get_mut(&place) else {
                continue;
            };
            match (&watch.state, needed) {
                (State::Resting, true) => self.find(work, &place),
                (State::Resting, false) | (_, true) => {}
                (_, false) => {
                    watch.state = State::Resting;
                    watch.standing.resolved.store(false, Ordering::Relaxed);
                    self.metrics.lag.remove(&label(&place));
                    let since_ms = now_ms();
                    self.tell(Command::Rest { place, since_ms });
                }
            }
        }
    }

    /// Tells streams that all of their partitions are announced, and read where they are needed.
    pub(super) fn complete(&self, work: &mut Work) {
        if !work.looked {
            return;
        }
        for (stream, phase) in work.phases.iter_mut().enumerate() {
            let finding = |watch: &Watch| {
                matches!(watch.state, State::Finding { .. })
                    && watch.routes.iter().any(|route| route.stream == stream)
            };
            match phase {
                Phase::Unknown => {
                    *phase = Phase::Resting;
                    self.tell(Command::Resting { stream });
                }
                Phase::Finding if !work.watches.values().any(finding) => {
                    *phase = Phase::Read;
                    let generation = self.needs.generation(stream);
                    self.tell(Command::Complete { stream, generation });
                }
                Phase::Finding | Phase::Resting | Phase::Read => {}
            }
        }
    }
}

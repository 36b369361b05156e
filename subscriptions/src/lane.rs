//! A reader that is not at the shared position: it resumed behind, or it came from a node that was ahead. It has its own
//! vector and private cursors, until it has been given everything below the shared vector and is not ahead of it.
//!
//! Invariant: `vector` stands exactly after the last frame of `queue`. What does not fit stays where it is (in the ring
//! or in Kafka): a lane that has no room takes nothing, so its reader is never too slow, only later.

mod gaps;

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use schemas::cursor::{Cursor, Position, topic_digest};
use schemas::event::Event;
use schemas::ids::{Slot, TenantId};
use schemas::problem::Code;
use serde_json::{Map, Value, json};
use smallvec::SmallVec;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::group::Share;
use crate::history::{Bounds, Page, Ring};
use crate::hub::Failure;
use crate::layout::{Carried, ISSUED_AT_SLACK_MS, Layout, Vector};
use crate::needs::Need;
use crate::protocol::{Frame, Kind};
use crate::scans::{Bound, Scans};
use crate::view::{View, Viewed};

pub(crate) use self::gaps::gap_partitions;

/// Who reads a lane.
#[derive(Debug, Clone)]
pub(crate) enum Owner {
    /// A subscription of a session.
    Session {
        /// The connection.
        connection: usize,
        /// The subscription.
        subscription: usize,
    },
    /// A request for one page; it is told when there is something to look at.
    Pull(Rc<Notify>),
}

/// What a lane needs from outside before it can go on with a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    /// Older events, up to where the ring begins.
    Page {
        /// The first offset wanted.
        from: i64,
        /// The first offset that is not wanted.
        until: i64,
    },
    /// The ends of the log, for a position beyond what this node has seen.
    Ends {
        /// Where the reader stands.
        beyond: i64,
    },
    /// Where the log begins.
    Start,
    /// The offset of a time.
    Time(i64),
}

impl Ask {
    /// The position that this is asked about. An answer says nothing about any other: a reader that went on meanwhile may
    /// well stand beyond an end that is older than its position.
    pub(crate) fn position(self) -> Position {
        match self {
            Self::Page { from, .. } => Position::At(from),
            Self::Ends { beyond } => Position::At(beyond),
            Self::Start => Position::Start,
            Self::Time(time) => Position::Since(time),
        }
    }
}

/// Seals a position for a tenant.
pub(crate) type Seal<'a> = dyn Fn(&TenantId, &Vector, &[Carried]) -> Arc<str> + 'a;

/// The stream as a lane sees it: where everybody stands, and what is remembered.
pub(crate) struct Surroundings<'a> {
    pub(crate) layout: &'a Layout,
    /// The worker's position.
    pub(crate) shared: &'a Vector,
    pub(crate) ring: &'a Ring,
    pub(crate) show_offsets: bool,
    /// Seals a cursor for this tenant.
    pub(crate) seal: &'a Seal<'a>,
    pub(crate) queue_bytes_max: usize,
    /// The time of day, in milliseconds since the Unix epoch.
    pub(crate) now_ms: i64,
}

/// One reader with a position of its own.
#[derive(Debug)]
pub(crate) struct Lane {
    /// While it is there its stream is read.
    _need: Need,
    /// Tells this lane from a later one at the same place.
    pub(crate) serial: u64,
    pub(crate) owner: Owner,
    pub(crate) share: Share,
    pub(crate) vector: Vector,
    pub(crate) carried: Vec<Carried>,
    /// Until then carried positions are kept for partitions that this node has not found yet.
    pub(crate) carried_until: Instant,
    pub(crate) queue: VecDeque<Frame>,
    queue_bytes: usize,
    pages: SmallVec<[(Slot, Loaded); 1]>,
    pub(crate) asking: SmallVec<[(Slot, AbortHandle); 1]>,
    /// Slots whose position beyond this node's is known to exist.
    ahead: SmallVec<[Slot; 1]>,
    /// The reader is owed a `live` when it has caught up.
    live_owed: bool,
    /// Bytes that were read since something was found for the reader, and how many of them were counted.
    scanned_bytes: u64,
    charged_bytes: u64,
    /// Why it cannot go on.
    pub(crate) failed: Option<Failure>,
    /// When the cursor was issued that it began with: since when something may be missing.
    since_ms: Option<i64>,
    turn: usize,
    /// It is on the worker's agenda.
    pub(crate) scheduled: bool,
    /// What was counted of the queue's bytes.
    pub(crate) counted: u64,
    /// Ends the patience with carried positions.
    pub(crate) timer: Option<AbortHandle>,
    /// The reader's position was last told at this.
    pub(crate) told: Option<Vector>,
    /// Gaps told, for a page's answer.
    pub(crate) gaps: Vec<Value>,
}

#[derive(Debug)]
struct Loaded {
    events: Arc<[Arc<Event>]>,
    place: usize,
    next: i64,
}

impl Drop for Lane {
    fn drop(&mut self) {
        for (_, asked) in &self.asking {
            asked.abort();
        }
        if let Some(timer) = &self.timer {
            timer.abort();
        }
    }
}

impl Lane {
    pub(crate) fn new(
        owner: Owner,
        share: Share,
        vector: Vector,
        carried_until: Instant,
        need: Need,
    ) -> Self {
        Self {
            _need: need,
            serial: 0,
            owner,
            share,
            vector,
            carried: Vec::new(),
            carried_until,
            queue: VecDeque::new(),
            queue_bytes: 0,
            pages: SmallVec::new(),
            asking: SmallVec::new(),
            ahead: SmallVec::new(),
            live_owed: false,
            scanned_bytes: 0,
            charged_bytes: 0,
            failed: None,
            since_ms: None,
            turn: 0,
            scheduled: false,
            counted: 0,
            timer: None,
            told: None,
            gaps: Vec::new(),
        }
    }

    /// Begins from a cursor: what it cannot be placed on is told as a gap.
    pub(crate) fn resume(&mut self, cursor: &Cursor, around: &Surroundings<'_>) {
        self.since_ms = Some(cursor.issued_at_ms);
        let placed = around.layout.place(&self.share.selection.tenant, cursor);
        self.vector = placed.vector;
        self.carried = placed.carried;
        if !placed.recreated.is_empty() {
            let slots: Vec<(Slot, Option<(i64, i64)>)> =
                placed.recreated.iter().map(|slot| (*slot, None)).collect();
            self.gap("recreated", &slots, around.layout, around);
        }
    }

    /// The reader wants to be told when the replay is over, if its view has a word for it.
    pub(crate) fn owe_live(&mut self) {
        self.live_owed = self.share.view == View::CloudEvents;
    }

    /// Whether there is room for more frames.
    fn has_room(&self, around: &Surroundings<'_>) -> bool {
        self.queue_bytes < around.queue_bytes_max
    }

    /// Whether the reader may take shared cursors: it has everything below the shared position, is not ahead of it, and
    /// everything it was given has been written.
    pub(crate) fn may_join(&self, around: &Surroundings<'_>) -> bool {
        self.queue.is_empty()
            && self.carried.is_empty()
            && self.failed.is_none()
            && self.stands(around, |have, shared| have == shared)
    }

    fn is_caught_up(&self, around: &Surroundings<'_>) -> bool {
        self.carried.is_empty() && self.stands(around, |have, shared| have >= shared)
    }

    /// Caught up, but for partitions of which nobody knows where they end: nothing of them is to be had now.
    fn has_what_there_is(&self, around: &Surroundings<'_>) -> bool {
        self.carried.is_empty()
            && around.layout.slots(&self.share.selection.tenant).all(|slot| {
                match (self.vector.get(slot), around.shared.get(slot)) {
                    (_, Some(Position::Since(_))) => true,
                    (Some(Position::At(have)), Some(Position::At(shared))) => have >= shared,
                    _ => false,
                }
            })
    }

    fn stands(&self, around: &Surroundings<'_>, holds: impl Fn(i64, i64) -> bool) -> bool {
        around.layout.slots(&self.share.selection.tenant).all(|slot| {
            match (self.vector.get(slot), around.shared.get(slot)) {
                (Some(Position::At(have)), Some(Position::At(shared))) => holds(have, shared),
                // Neither is resolved.
                (Some(Position::Since(have)), Some(Position::Since(shared))) => holds(have, shared),
                _ => false,
            }
        })
    }

    /// Takes what there is room for, and tells what is needed from outside.
    pub(crate) fn advance(&mut self, around: &Surroundings<'_>) -> SmallVec<[(Slot, Ask); 1]> {
        let mut asks = SmallVec::new();
        if self.failed.is_some() {
            return asks;
        }
        let tenant = self.share.selection.tenant.clone();
        let slots: SmallVec<[Slot; 8]> = around.layout.slots(&tenant).collect();
        self.turn = self.turn.wrapping_add(1);
        for step in 0..slots.len() {
            // Begin with another slot each time: a busy one must not starve the others.
            let slot = slots[(self.turn + step) % slots.len()];
            if !self.has_room(around) {
                return asks;
            }
            if let Some(ask) = self.advance_slot(slot, around)
                && !self.asking.iter().any(|(have, _)| *have == slot)
            {
                asks.push((slot, ask));
            }
        }
        if self.live_owed && self.failed.is_none() && self.has_room(around) && self.is_caught_up(around) {
            self.live_owed = false;
            let cursor = self.seal(around);
            self.push(Frame {
                cursor,
                kind: Kind::Live,
            });
        }
        asks
    }

    fn advance_slot(&mut self, slot: Slot, around: &Surroundings<'_>) -> Option<Ask> {
        loop {
            let shared = around.shared.get(slot)?;
            let from = match self.vector.get(slot) {
                // A partition that appeared after the reader began.
                None => {
                    self.vector.set(slot, shared);
                    return None;
                }
                Some(Position::At(from)) => from,
                Some(Position::Start) => return Some(Ask::Start),
                Some(Position::Since(time)) => match shared {
                    Position::Since(shared) if time >= shared => return None,
                    _ => return Some(Ask::Time(time)),
                },
            };
            let Position::At(until) = shared else { return None };
            if from > until {
                return (!self.ahead.contains(&slot)).then_some(Ask::Ends { beyond: from });
            }
            if from == until {
                self.pages.retain(|(have, _)| *have != slot);
                return None;
            }
            if let Some(place) = self.pages.iter().position(|(have, _)| *have == slot) {
                if self.take_page(place, around) {
                    continue;
                }
                return None;
            }
            let ring = around.ring;
            let Some(events) = ring.range(slot, from, until) else {
                let until = ring.covered_from(slot).unwrap_or(until).min(until);
                return Some(Ask::Page { from, until });
            };
            for event in events {
                self.take(&event.event, Some(event), around);
                if !self.has_room(around) {
                    return None;
                }
            }
            self.vector.set(slot, Position::At(until));
            return None;
        }
    }

    /// Takes from a loaded page. `true`: it is used up.
    fn take_page(&mut self, place: usize, around: &Surroundings<'_>) -> bool {
        let slot = self.pages[place].0;
        loop {
            let page = &mut self.pages[place].1;
            let Some(event) = page.events.get(page.place).cloned() else {
                let next = page.next;
                self.pages.remove(place);
                self.vector.set(slot, Position::At(next));
                return true;
            };
            page.place += 1;
            self.take(&event, None, around);
            if !self.has_room(around) {
                return false;
            }
        }
    }

    fn take(&mut self, event: &Arc<Event>, viewed: Option<&Arc<Viewed>>, around: &Surroundings<'_>) {
        let slot = event.slot;
        if self.vector.offset(slot).is_some_and(|have| event.offset < have) {
            return;
        }
        self.vector.set(slot, Position::At(event.offset + 1));
        let bits = self.share.selection.matching(event);
        if bits == 0 || !self.share.view.wants(event) {
            return;
        }
        (self.scanned_bytes, self.charged_bytes) = (0, 0);
        let mask = self.share.selection.mask(bits);
        let cursor = self.seal(around);
        let body = match viewed {
            Some(viewed) => viewed.body_of_one(&self.share.view, &mask, &cursor),
            None => self.share.view.encode(event, &mask, &cursor),
        };
        self.push(Frame {
            cursor,
            kind: Kind::Event {
                slot,
                offset: event.offset,
                body,
            },
        });
    }

    fn seal(&self, around: &Surroundings<'_>) -> Arc<str> {
        (around.seal)(&self.share.selection.tenant, &self.vector, &self.carried)
    }

    /// The cursor for where the reader stands.
    pub(crate) fn cursor(&self, around: &Surroundings<'_>) -> Arc<str> {
        self.seal(around)
    }

    fn push(&mut self, frame: Frame) {
        self.queue_bytes += frame.bytes();
        self.queue.push_back(frame);
        self.notify();
    }

    /// Tells a waiting request that there is something to look at.
    pub(crate) fn notify(&self) {
        if let Owner::Pull(waiting) = &self.owner {
            waiting.notify_one();
        }
    }

    /// Lets go of loaded pages: the vector stands where they were read to.
    pub(crate) fn forget_pages(&mut self) {
        self.pages.clear();
    }

    /// Takes everything that is queued; what it owed the reader beside events is owed again.
    pub(crate) fn take_queue(&mut self) -> VecDeque<Frame> {
        self.live_owed |= self.queue.iter().any(|frame| matches!(frame.kind, Kind::Live));
        self.queue_bytes = 0;
        std::mem::take(&mut self.queue)
    }

    /// Bytes that are queued.
    pub(crate) fn queue_bytes(&self) -> u64 {
        self.queue_bytes as u64
    }

    /// Lets go of frames that were written.
    pub(crate) fn written(&mut self, count: usize) {
        for frame in self.queue.drain(..count) {
            self.queue_bytes -= frame.bytes();
        }
    }

    /// A page came.
    pub(crate) fn loaded(
        &mut self,
        slot: Slot,
        from: i64,
        page: Page,
        around: &Surroundings<'_>,
    ) -> Option<&'static str> {
        self.scanned_bytes = self.scanned_bytes.saturating_add(page.scanned_bytes);
        let expired = page.log_start > from;
        if expired {
            self.vector.set(slot, Position::At(page.log_start));
            self.gap(
                "expired",
                &[(slot, Some((from, page.log_start)))],
                around.layout,
                around,
            );
        }
        self.pages.push((
            slot,
            Loaded {
                events: page.events,
                place: 0,
                next: page.next.max(from),
            },
        ));
        expired.then_some("expired")
    }

    /// Whether an answer to this still concerns the reader.
    pub(crate) fn awaits(&self, slot: Slot, ask: Ask) -> bool {
        self.vector.get(slot) == Some(ask.position())
    }

    /// It wants to read on, which is limited while nothing is found.
    pub(crate) fn charge(&mut self, scans: &Scans) -> Option<Bound> {
        let fresh = self.scanned_bytes - self.charged_bytes;
        self.charged_bytes = self.scanned_bytes;
        let bound = scans.charge(&self.share.selection.tenant, self.scanned_bytes, fresh)?;
        self.failed = Some(Failure::new(Code::REPLAY_LIMITED, bound.detail()));
        self.notify();
        Some(bound)
    }

    /// The ends of a log came, asked after the reader had come to where it stands.
    pub(crate) fn ends(&mut self, slot: Slot, bounds: Bounds) {
        match self.vector.get(slot) {
            Some(Position::At(have)) if have > bounds.end => {
                self.failed = Some(Failure::new(Code::CURSOR_AHEAD, ""));
                self.notify();
            }
            Some(Position::At(_)) => self.ahead.push(slot),
            _ => {}
        }
    }

    /// An unresolved position is known.
    pub(crate) fn resolved(&mut self, slot: Slot, offset: i64) {
        if matches!(self.vector.get(slot), Some(Position::Since(_) | Position::Start)) {
            self.vector.set(slot, Position::At(offset));
        }
    }

    /// Whether a request for one page should be answered now: there is something, or nothing is to be had without waiting.
    pub(crate) fn is_settled(&self, limit: usize, around: &Surroundings<'_>) -> bool {
        self.failed.is_some()
            || self.queue.iter().filter(|frame| frame.is_event()).count() >= limit
            || (self.asking.is_empty() && self.has_what_there_is(around))
            || !self.has_room(around)
    }
}

//! Readers with one compiled selection and one view share one short log of finished frames; each holds only its
//! position in it.
//!
//! Invariant: the log holds exactly the frames that some member has not been given. While nobody lags, it is empty
//! between rounds.

use std::collections::VecDeque;
use std::sync::Arc;

use auth::access::Selection;
use schemas::project::Mask;
use slab::Slab;
use smallvec::SmallVec;

use crate::connection::Connection;
use crate::needs::Need;
use crate::outlet::Rendered;
use crate::protocol::{Frame, Framing, Wire};
use crate::view::View;

/// How much is rendered before it is written: large enough that a burst is one write, small enough to stay in the cache.
const CHUNK_BYTES: usize = 256 << 10;

/// A burst may put everybody over the limit at once: a reader has a moment to take it, unless it is so many times over.
const BURST_FACTOR: u64 = 8;

/// One reader of a group.
#[derive(Debug)]
pub(crate) struct Member {
    /// Its connection.
    pub(crate) connection: usize,
    /// Its subscription there.
    pub(crate) subscription: usize,
    /// The first frame that it has not been given.
    pub(crate) next: u64,
}

/// What readers share who share a group: what they get, and how it is presented.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Share {
    pub(crate) selection: Arc<Selection>,
    pub(crate) view: View,
}

/// Readers of one stream who share what they get.
#[derive(Debug)]
pub(crate) struct Group {
    /// While it is there its stream is read.
    _need: Need,
    pub(crate) share: Share,
    pub(crate) members: Vec<Member>,
    /// The masks that came up, by the bits of the clauses that matched.
    masks: SmallVec<[(u8, Arc<Mask>); 1]>,
    log: VecDeque<Logged>,
    /// The number of the first frame in the log.
    base: u64,
    /// The bytes of all frames that ever were in the log.
    total: u64,
    /// The first frame of this round.
    fresh: u64,
    /// What was counted of the log's bytes.
    held: u64,
    /// The last round in which an event was offered: events that match by several index entries are offered once.
    pub(crate) stamp: u64,
}

#[derive(Debug)]
struct Logged {
    frame: Frame,
    /// The group's total before this frame: a lag is a difference of totals.
    before: u64,
}

/// What a flush leaves to be done.
#[derive(Debug, Default)]
pub(crate) struct Flushed {
    /// Connections that lag beyond the limit.
    pub(crate) slow: Vec<usize>,
    /// Events that were written.
    pub(crate) delivered: [u64; Framing::COUNT],
    /// Writes that were made.
    pub(crate) writes: u64,
    /// Bytes that were written.
    pub(crate) bytes: u64,
}

impl Flushed {
    /// Notes one write, of which the connection took so many frames.
    pub(crate) fn note(&mut self, framing: Framing, taken: usize, events: u64, bytes: usize) {
        if taken > 0 {
            self.writes += 1;
            self.bytes += bytes as u64;
            self.delivered[framing as usize] += events;
        }
    }
}

/// Frames rendered for one wire format and id, and where each ends.
#[derive(Debug, Default)]
pub(crate) struct Render {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    /// How many of the frames up to each end are events.
    events: Vec<u64>,
}

impl Render {
    /// Renders frames; what was there before is forgotten.
    pub(crate) fn frames<'a>(
        &mut self,
        wire: Wire,
        view: &View,
        id: &str,
        frames: impl Iterator<Item = &'a Frame>,
    ) {
        self.bytes.clear();
        self.ends.clear();
        self.events.clear();
        let mut events = 0;
        for frame in frames {
            wire.render(view, id, frame, &mut self.bytes);
            events += u64::from(frame.is_event());
            self.ends.push(self.bytes.len());
            self.events.push(events);
        }
    }

    /// Gives memory back after a burst.
    pub(crate) fn settle(&mut self) {
        if self.bytes.capacity() > 4 * CHUNK_BYTES {
            self.bytes = Vec::new();
        }
    }

    /// Writes what was rendered, and tells how many frames the connection has taken and how many of them are events.
    pub(crate) fn write(&self, rendered: &Rendered<'_>, connection: &mut Connection) -> (usize, u64) {
        let taken = connection.write_frames(rendered, &self.ends);
        (taken, taken.checked_sub(1).map_or(0, |last| self.events[last]))
    }

    /// The bytes.
    pub(crate) fn rendered(&self) -> Rendered<'_> {
        Rendered::new(&self.bytes)
    }
}

impl Group {
    pub(crate) fn new(share: Share, need: Need) -> Self {
        Self {
            _need: need,
            share,
            members: Vec::new(),
            masks: SmallVec::new(),
            log: VecDeque::new(),
            base: 0,
            total: 0,
            fresh: 0,
            held: 0,
            stamp: 0,
        }
    }

    /// The number of the frame that comes next.
    pub(crate) fn end(&self) -> u64 {
        self.base + self.log.len() as u64
    }

    /// The mask for an event that matched these clauses.
    pub(crate) fn mask(&mut self, bits: u8) -> Arc<Mask> {
        if let Some((_, mask)) = self.masks.iter().find(|(have, _)| *have == bits) {
            return Arc::clone(mask);
        }
        let mask = self.share.selection.mask(bits);
        self.masks.push((bits, Arc::clone(&mask)));
        mask
    }

    /// Whether a frame was added in this round.
    pub(crate) fn is_touched(&self) -> bool {
        self.fresh < self.end()
    }

    /// Adds a frame.
    pub(crate) fn push(&mut self, frame: Frame) {
        let before = self.total;
        self.total += frame.bytes() as u64;
        self.log.push_back(Logged { frame, before });
    }

    /// Bytes held for laggards.
    pub(crate) fn log_bytes(&self) -> u64 {
        self.log.front().map_or(0, |first| self.total - first.before)
    }

    /// The change of the bytes held since this was last asked.
    pub(crate) fn held_change(&mut self) -> i64 {
        let now = self.log_bytes();
        let before = std::mem::replace(&mut self.held, now);
        i64::try_from(now).unwrap_or(i64::MAX) - i64::try_from(before).unwrap_or(i64::MAX)
    }

    /// Lets go of everything: nobody is left to read it.
    pub(crate) fn forget(&mut self) {
        self.trim(self.end());
        self.fresh = self.end();
    }

    /// What a member lags behind, in bytes.
    pub(crate) fn lag(&self, next: u64) -> u64 {
        let place = usize::try_from(next.saturating_sub(self.base)).unwrap_or(usize::MAX);
        self.log.get(place).map_or(0, |logged| self.total - logged.before)
    }

    /// The frames that a member has not been given.
    pub(crate) fn unsent(&self, next: u64) -> impl Iterator<Item = &Frame> {
        let place = usize::try_from(next.saturating_sub(self.base))
            .unwrap_or(usize::MAX)
            .min(self.log.len());
        self.log.range(place..).map(|logged| &logged.frame)
    }

    /// Writes this round's frames to every member that has room. The others keep their place in the log.
    pub(crate) fn flush(
        &mut self,
        connections: &mut Slab<Connection>,
        render: &mut Render,
        lag_bytes_max: u64,
        flushed: &mut Flushed,
    ) {
        let end = self.end();
        let mut from = self.fresh;
        while from < end {
            let to = self.chunk(from);
            let mut rendered: Option<(Wire, Box<str>)> = None;
            let mut place = 0;
            // Members whose wire format and id are equal stand mostly side by side: they share the rendered bytes.
            while place < self.members.len() {
                let member = &self.members[place];
                let Some(connection) = connections.get(member.connection) else {
                    place += 1;
                    continue;
                };
                if member.next != from || !connection.has_room() {
                    place += 1;
                    continue;
                }
                let id = connection.subscription_id(member.subscription);
                if rendered
                    .as_ref()
                    .is_none_or(|(wire, have)| *wire != connection.wire() || **have != *id)
                {
                    let key = (connection.wire(), Box::from(id));
                    let start = usize::try_from(from - self.base).unwrap_or(0);
                    let stop = usize::try_from(to - self.base).unwrap_or(0);
                    render.frames(
                        key.0,
                        &self.share.view,
                        &key.1,
                        self.log.range(start..stop).map(|logged| &logged.frame),
                    );
                    rendered = Some(key);
                }
                place = self.write_run(place, from, to, connections, render, rendered.as_ref(), flushed);
            }
            from = to;
        }
        self.fresh = end;
        self.settle(connections, lag_bytes_max, flushed);
    }

    /// Writes one rendering to the run of members from `place` on for which it fits; returns the place after the run.
    #[allow(
        clippy::too_many_arguments,
        reason = "one loop, split from `flush` so that the rendering is borrowed once"
    )]
    fn write_run(
        &mut self,
        mut place: usize,
        from: u64,
        to: u64,
        connections: &mut Slab<Connection>,
        render: &Render,
        key: Option<&(Wire, Box<str>)>,
        flushed: &mut Flushed,
    ) -> usize {
        let bytes = render.rendered();
        while let Some(member) = self.members.get_mut(place) {
            if let Some(connection) = connections.get_mut(member.connection)
                && member.next == from
                && connection.has_room()
            {
                let id = connection.subscription_id(member.subscription);
                if key.is_none_or(|(wire, have)| *wire != connection.wire() || **have != *id) {
                    return place;
                }
                let (taken, events) = render.write(&bytes, connection);
                member.next = (from + taken as u64).min(to);
                flushed.note(connection.framing, taken, events, bytes.len());
            }
            place += 1;
        }
        place
    }

    /// The end of a chunk that begins at `from`.
    fn chunk(&self, from: u64) -> u64 {
        let start = usize::try_from(from - self.base).unwrap_or(0);
        let first = self.log[start].before;
        let fits = self
            .log
            .range(start..)
            .take_while(|logged| logged.before - first < CHUNK_BYTES as u64)
            .count();
        from + (fits.max(1)) as u64
    }

    /// Lets go of what all members have, and finds those that lag too far.
    fn settle(&mut self, connections: &Slab<Connection>, lag_bytes_max: u64, flushed: &mut Flushed) {
        let end = self.end();
        let mut behind = end;
        for member in &self.members {
            if member.next < end {
                let lag = self.lag(member.next);
                if lag > lag_bytes_max
                    && (lag > lag_bytes_max.saturating_mul(BURST_FACTOR)
                        || connections
                            .get(member.connection)
                            .is_some_and(Connection::is_long_full))
                {
                    flushed.slow.push(member.connection);
                }
                behind = behind.min(member.next);
            }
        }
        self.trim(behind);
    }

    fn trim(&mut self, to: u64) {
        let count = usize::try_from(to.saturating_sub(self.base))
            .unwrap_or(usize::MAX)
            .min(self.log.len());
        self.log.drain(..count);
        self.base += count as u64;
        if self.log.is_empty() && self.log.capacity() > 64 {
            self.log = VecDeque::new();
        }
    }

    /// Gives a laggard what its connection takes now.
    pub(crate) fn catch_up(
        &mut self,
        member: usize,
        connection: &mut Connection,
        render: &mut Render,
    ) -> Flushed {
        let mut flushed = Flushed::default();
        let end = self.end();
        while self.members[member].next < end && connection.has_room() {
            let from = self.members[member].next;
            let to = self.chunk(from);
            let start = usize::try_from(from - self.base).unwrap_or(0);
            let stop = usize::try_from(to - self.base).unwrap_or(0);
            let id: Box<str> = Box::from(connection.subscription_id(self.members[member].subscription));
            render.frames(
                connection.wire(),
                &self.share.view,
                &id,
                self.log.range(start..stop).map(|logged| &logged.frame),
            );
            let bytes = render.rendered();
            let (taken, events) = render.write(&bytes, connection);
            self.members[member].next = from + taken as u64;
            flushed.note(connection.framing, taken, events, bytes.len());
        }
        if self.members[member].next == end && self.members.iter().all(|member| member.next == end) {
            self.trim(end);
        }
        flushed
    }

    /// Adds a member that has everything up to here, and tells its place.
    pub(crate) fn join(&mut self, connection: usize, subscription: usize) -> usize {
        self.members.push(Member {
            connection,
            subscription,
            next: self.end(),
        });
        self.members.len() - 1
    }

    /// Removes a member. Another may have moved to its place: it is returned.
    pub(crate) fn leave(&mut self, member: usize) -> Option<&Member> {
        self.members.swap_remove(member);
        self.members.get(member)
    }
}

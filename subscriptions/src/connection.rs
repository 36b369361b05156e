//! One client connection on its worker: the outlet, what it has not taken yet, and its subscriptions.
//!
//! Invariant: while anything is pending, no frame is written: it stays in its group's log or its lane. So a slow reader
//! holds at most the rest of one frame and some control messages of its own; one whose body has just moved to its connection,
//! also the few chunks that the HTTP server had not taken.

use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use auth::quota::Permit;
use auth::token::Principal;
use bytes::Bytes;
use schemas::filter::Predicate;
use schemas::graph::Requires;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::group::Share;
use crate::outlet::{Outlet, Rendered};
use crate::pace::Pace;
use crate::protocol::{Framing, Wire, chunked, ws};
use crate::session::Session;

/// One connection.
pub(crate) struct Connection {
    /// Tells this connection from a later one at the same place.
    pub(crate) serial: u64,
    pub(crate) session: Session,
    pub(crate) framing: Framing,
    pub(crate) outlet: Outlet,
    /// It is a response's body that has moved to its connection: what is written are chunks.
    is_chunked: bool,
    /// Takes a WebSocket client's bytes apart.
    pub(crate) reader: Option<ws::Reader>,
    pub(crate) subscriptions: Vec<Option<Subscription>>,
    /// Subscriptions that wait for their stream to be ready, or for their token to be verified.
    pub(crate) waiting: Vec<Waiting>,
    /// The rest of a frame and control messages, from `written` on.
    pending: Vec<u8>,
    written: usize,
    /// How much of `pending` is the rest of a frame, which the control limit does not count.
    frame_rest: usize,
    /// Its task is writing: it looks for itself whether the outlet is full again.
    flushing: bool,
    /// Whether the outlet took anything in this flush.
    took: bool,
    /// Since when the outlet has been full.
    pub(crate) full_since: Option<Instant>,
    /// The outlet failed: the connection's task ends it.
    pub(crate) broken: bool,
    /// Its principal is revoked: it is closed as soon as what had begun is out.
    pub(crate) is_revoked: bool,
    /// It is being closed: what is pending goes out until then, nothing else does.
    pub(crate) closing: Option<Instant>,
    /// The connection's own task.
    pub(crate) waker: Option<Waker>,
    /// Wakes the task of a body, which has no socket to poll.
    pub(crate) room: Rc<Notify>,
    /// Its entry among the worker's timers.
    pub(crate) due: Instant,
    pub(crate) last_heard: Instant,
    /// How fast its client speaks.
    pub(crate) pace: Pace,
    /// Its client spoke too fast: until then nothing is heard.
    pub(crate) deaf_until: Option<Instant>,
    pub(crate) next_heartbeat: Instant,
    pub(crate) permit: Permit,
}

/// One stream within a session.
#[derive(Debug)]
pub(crate) struct Subscription {
    /// The client's id as a JSON string with its quotes; empty where a response carries one subscription.
    pub(crate) id: Box<str>,
    /// The stream, by its place in the contract.
    pub(crate) stream: usize,
    /// What the reader asked for.
    pub(crate) filter: Predicate,
    /// What it gets, and how it is presented.
    pub(crate) share: Share,
    /// Whose it is, where that is not the session's principal.
    pub(crate) delegate: Option<Arc<Principal>>,
    /// What the reader must hold beside its grant.
    pub(crate) requires: Option<Arc<[Requires]>>,
    /// Where its frames come from.
    pub(crate) place: Place,
    /// The stream's version when its cursor was last told.
    pub(crate) told: u64,
}

/// A subscription that has yet to begin. Its task ends with it.
#[derive(Debug)]
pub(crate) struct Waiting {
    /// A number of this worker's.
    pub(crate) number: u64,
    /// The client's id as JSON.
    pub(crate) id: Box<str>,
    /// What begins it.
    pub(crate) task: Option<AbortHandle>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// Where a subscription's frames come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// From a lane of its own, with private cursors.
    Lane(usize),
    /// From a group's log, with shared cursors.
    Group {
        /// The group.
        group: usize,
        /// Its place among the members.
        member: usize,
    },
}

impl Connection {
    pub(crate) fn new(
        session: Session,
        framing: Framing,
        outlet: Outlet,
        permit: Permit,
        now: Instant,
    ) -> Self {
        Self {
            serial: 0,
            session,
            framing,
            outlet,
            is_chunked: false,
            reader: None,
            subscriptions: Vec::new(),
            waiting: Vec::new(),
            pending: Vec::new(),
            written: 0,
            frame_rest: 0,
            flushing: false,
            took: false,
            full_since: None,
            broken: false,
            is_revoked: false,
            closing: None,
            waker: None,
            room: Rc::default(),
            due: now,
            last_heard: now,
            pace: Pace::new(now),
            deaf_until: None,
            next_heartbeat: now,
            permit,
        }
    }

    /// What is written looks so.
    pub(crate) fn wire(&self) -> Wire {
        Wire {
            framing: self.framing,
            is_chunked: self.is_chunked,
        }
    }

    /// Moves a response's body to its connection. What waits comes first: what the HTTP server has not taken out of the body,
    /// then the rest of a frame and what was said since.
    pub(crate) fn move_to(&mut self, outlet: Outlet, untaken: impl Iterator<Item = Bytes>) {
        let rest = std::mem::take(&mut self.pending).split_off(self.written);
        self.written = 0;
        let whole = untaken.chain(std::iter::once(rest.into()));
        for piece in whole {
            chunked::chunk(&mut self.pending, |out| out.extend_from_slice(&piece));
        }
        self.outlet = outlet;
        self.is_chunked = true;
        self.frame_rest = self.pending.len();
        if self.closing.is_some() {
            self.pending.extend_from_slice(chunked::LAST);
        }
        if !self.pending.is_empty() && self.full_since.is_none() {
            // The connection's task writes it.
            self.full_since = Some(Instant::now());
        }
        // The task of the body ends.
        self.wake();
    }

    /// Whether a frame may be written.
    pub(crate) fn has_room(&self) -> bool {
        self.pending.is_empty() && !self.broken && self.closing.is_none() && self.full_since.is_none()
    }

    /// Whether the outlet has been full for longer than a burst explains.
    pub(crate) fn is_long_full(&self) -> bool {
        self.full_since
            .is_some_and(|since| since.elapsed() >= Duration::from_secs(1))
    }

    /// Bytes that the outlet has not taken.
    pub(crate) fn pending_bytes(&self) -> usize {
        self.pending.len() - self.written
    }

    /// Whether something of its last grant is still on its way out.
    pub(crate) fn is_behind(&self) -> bool {
        self.pending_bytes() > 0 || self.full_since.is_some() || self.outlet.is_behind()
    }

    /// The id of a subscription as JSON.
    pub(crate) fn subscription_id(&self, subscription: usize) -> &str {
        self.subscriptions
            .get(subscription)
            .and_then(Option::as_ref)
            .map_or("", |subscription| &subscription.id)
    }

    /// The subscription with this JSON id.
    pub(crate) fn find(&self, id: &str) -> Option<usize> {
        self.subscriptions
            .iter()
            .position(|have| have.as_ref().is_some_and(|have| &*have.id == id))
    }

    /// Whether a subscription with this JSON id is there, or waits to begin.
    pub(crate) fn has(&self, id: &str) -> bool {
        self.find(id).is_some() || self.waiting.iter().any(|waiting| &*waiting.id == id)
    }

    /// A subscription waits to begin.
    pub(crate) fn wait(&mut self, number: u64, id: &str) {
        self.waiting.push(Waiting {
            number,
            id: Box::from(id),
            task: None,
        });
    }

    /// Names the task that will begin it.
    pub(crate) fn waits_for(&mut self, number: u64, task: AbortHandle) {
        if let Some(waiting) = self.waiting.iter_mut().find(|waiting| waiting.number == number) {
            waiting.task = Some(task);
        }
    }

    /// A subscription that waited goes on. `false`: it was ended meanwhile.
    pub(crate) fn waited(&mut self, number: u64) -> bool {
        let Some(place) = self.waiting.iter().position(|waiting| waiting.number == number) else {
            return false;
        };
        // Its task is the one that asks.
        self.waiting.swap_remove(place).task = None;
        true
    }

    /// Ends a subscription that waits to begin. `false`: there is none with this JSON id.
    pub(crate) fn give_up(&mut self, id: &str) -> bool {
        let before = self.waiting.len();
        self.waiting.retain(|waiting| &*waiting.id != id);
        self.waiting.len() < before
    }

    /// Those for whom there are subscriptions beside the session's own principal.
    pub(crate) fn delegates(&self) -> impl Iterator<Item = &Arc<Principal>> {
        self.subscriptions
            .iter()
            .flatten()
            .filter_map(|subscription| subscription.delegate.as_ref())
    }

    /// How many subscriptions there are.
    pub(crate) fn count(&self) -> usize {
        self.subscriptions.iter().flatten().count()
    }

    /// Keeps a subscription and tells its place.
    pub(crate) fn add(&mut self, subscription: Subscription) -> usize {
        if let Some(place) = self.subscriptions.iter().position(Option::is_none) {
            self.subscriptions[place] = Some(subscription);
            return place;
        }
        // One subscription is the usual number: no room is kept for more.
        self.subscriptions.reserve_exact(1);
        self.subscriptions.push(Some(subscription));
        self.subscriptions.len() - 1
    }

    /// Writes rendered frames, of which each ends at one of `ends`. Tells how many of them the connection has taken; the
    /// rest of the last one is kept here.
    pub(crate) fn write_frames(&mut self, rendered: &Rendered<'_>, ends: &[usize]) -> usize {
        let Ok(count) = self.outlet.write(rendered) else {
            self.fail();
            return ends.len();
        };
        self.took |= count > 0;
        if count == rendered.len() {
            return ends.len();
        }
        self.fill();
        let whole = ends.partition_point(|end| *end <= count);
        let start = if whole == 0 { 0 } else { ends[whole - 1] };
        if count == start {
            return whole;
        }
        self.pending.extend_from_slice(rendered.rest(count, ends[whole]));
        self.frame_rest = self.pending.len();
        whole + 1
    }

    /// Writes control bytes, or keeps them until there is room. `false`: there are too many of them.
    pub(crate) fn write_control(&mut self, bytes: &[u8], control_bytes_max: usize) -> bool {
        if self.broken || self.closing.is_some() || bytes.is_empty() {
            return true;
        }
        if !self.is_chunked {
            return self.write_whole(bytes, control_bytes_max);
        }
        let mut piece = Vec::with_capacity(bytes.len() + 16);
        chunked::chunk(&mut piece, |out| out.extend_from_slice(bytes));
        self.write_whole(&piece, control_bytes_max)
    }

    /// Writes bytes of which nothing is left out, or keeps them until there is room. `false`: there are too many of them.
    fn write_whole(&mut self, bytes: &[u8], control_bytes_max: usize) -> bool {
        if self.pending.is_empty() && self.full_since.is_none() {
            match self.outlet.write(&Rendered::new(bytes)) {
                Ok(count) if count == bytes.len() => return true,
                Ok(count) => {
                    self.pending.extend_from_slice(&bytes[count..]);
                    self.fill();
                    return true;
                }
                Err(_) => {
                    self.fail();
                    return true;
                }
            }
        }
        self.pending.extend_from_slice(bytes);
        let frame_rest = self.frame_rest.saturating_sub(self.written);
        self.pending_bytes().saturating_sub(frame_rest) <= control_bytes_max.saturating_add(bytes.len())
    }

    /// Writes an answer, which may be larger than control messages are: while nothing else waits, its rest counts as that
    /// of a frame. `false`: too much waits.
    pub(crate) fn write_answer(&mut self, bytes: &[u8], control_bytes_max: usize) -> bool {
        let alone = self.pending.is_empty();
        let fits = self.write_control(bytes, control_bytes_max);
        if alone {
            self.frame_rest = self.pending.len();
        }
        fits
    }

    /// Begins to write what waits. `false`: the outlet is still full.
    pub(crate) fn begin_flush(&mut self) -> bool {
        self.flushing = true;
        self.took = false;
        while self.written < self.pending.len() {
            match self.outlet.write(&Rendered::new(&self.pending[self.written..])) {
                Ok(0) => return false,
                Ok(count) => {
                    self.written += count;
                    self.took = true;
                }
                Err(_) => {
                    self.fail();
                    return false;
                }
            }
        }
        self.pending = Vec::new();
        self.written = 0;
        self.frame_rest = 0;
        true
    }

    /// Lets frames be written in this flush; tells since when the outlet had been full.
    pub(crate) fn reopen(&mut self) -> Option<Instant> {
        self.full_since.take()
    }

    /// Ends a flush. An outlet that took nothing has been full since before it.
    pub(crate) fn end_flush(&mut self, full_before: Option<Instant>) {
        self.flushing = false;
        if self.took {
            // It takes something: it is slow, not stuck.
            self.full_since = self.full_since.map(|_| Instant::now());
        } else if self.full_since.is_some() {
            self.full_since = full_before.or(self.full_since);
        }
    }

    /// The last bytes; nothing is written after them.
    pub(crate) fn close(&mut self, bytes: &[u8], until: Instant) {
        if self.closing.is_some() {
            return;
        }
        self.write_control(bytes, usize::MAX / 2);
        if self.is_chunked && !self.broken {
            self.write_whole(chunked::LAST, usize::MAX / 2);
        }
        self.closing = Some(until);
        self.wake();
    }

    /// Wakes the connection's own task.
    pub(crate) fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
        self.room.notify_one();
    }

    fn fill(&mut self) {
        if self.full_since.is_none() {
            self.full_since = Some(Instant::now());
        }
        if !self.flushing {
            self.wake();
        }
    }

    fn fail(&mut self) {
        self.broken = true;
        self.wake();
    }
}

//! What happens because time passes: heartbeats, silence, stalls, expiry, the end of a linger.

use std::time::Duration;

use schemas::problem::Code;
use tokio::time::Instant;

use super::state::State;
use crate::close::Close;
use crate::connection::{Place, Subscription};
use crate::hub::Failure;
use crate::protocol::Framing;
use crate::protocol::said::Said;
use crate::session::Input;
use crate::view::View;

/// The furthest that a timer is set: the time of day may be corrected meanwhile.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

impl State {
    /// When the next timer is due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// When the next timer is due, for the worker to wait for: it is woken if one is set before that.
    pub(super) fn await_due(&mut self) -> Option<Instant> {
        self.awaited = self.next_due();
        self.awaited
    }

    /// Looks after every connection whose time has come.
    pub(crate) fn timers(&mut self, now: Instant) {
        self.reap();
        while let Some((due, place)) = self.due.first().copied() {
            if due > now {
                return;
            }
            self.due.remove(&(due, place));
            self.look_after(place, now);
            self.reschedule(place);
        }
    }

    fn look_after(&mut self, place: usize, now: Instant) {
        let Some(connection) = self.connections.get(place) else {
            return;
        };
        if let Some(until) = connection.closing {
            if now >= until {
                self.end(place);
            }
            return;
        }
        if connection.deaf_until.is_some_and(|until| now >= until) && !self.hear_again(place) {
            return;
        }
        let Some(connection) = self.connections.get(place) else {
            return;
        };
        if connection
            .full_since
            .is_some_and(|since| now >= since + self.config.stall_max)
        {
            self.close_slow(place);
            return;
        }
        let websocket = connection.framing.is_websocket();
        if websocket && now >= connection.last_heard + self.config.silence_max {
            let failure = Failure::new(Code::IDLE, "not even a pong came");
            self.say(
                place,
                &Said::Error {
                    id: None,
                    failure: &failure,
                },
            );
            self.close(place, Close::SILENT);
            return;
        }
        let heartbeat = now >= connection.next_heartbeat;
        self.tell(place, Input::Tick);
        self.end_expired_delegates(place);
        if heartbeat {
            self.heartbeat(place, now);
        }
    }

    fn heartbeat(&mut self, place: usize, now: Instant) {
        let Some(connection) = self.connections.get_mut(place) else {
            return;
        };
        if connection.closing.is_some() {
            return;
        }
        connection.next_heartbeat = now + self.config.heartbeat_of(connection.framing);
        let mut told = false;
        for subscription in 0..connection.subscriptions.len() {
            told |= self.tell_progress(place, subscription);
        }
        let Some(connection) = self.connections.get(place) else {
            return;
        };
        let mut bytes = Vec::new();
        // On an event stream a cursor does what a comment would.
        if !(told && connection.framing == Framing::Sse) {
            connection.framing.keep_alive(&mut bytes);
        }
        self.write_control(place, &bytes);
    }

    /// Tells a reader that has everything how far that is, if it moved.
    pub(crate) fn tell_progress(&mut self, place: usize, subscription: usize) -> bool {
        let Some(connection) = self.connections.get(place) else {
            return false;
        };
        if !connection.has_room() {
            return false;
        }
        let Some(Some(reader)) = connection.subscriptions.get(subscription) else {
            return false;
        };
        let (stream, told) = (reader.stream, reader.told);
        let cursor = match reader.place {
            Place::Lane(lane) => self.lane_progress(stream, lane),
            Place::Group { group, member } => {
                let shard = &mut self.shards[stream];
                let behind = shard.groups[group].members[member].next < shard.groups[group].end();
                if behind || told == shard.version {
                    None
                } else {
                    let tenant = shard.groups[group].share.selection.tenant.clone();
                    Some(shard.shared_cursor(&tenant))
                }
            }
        };
        let Some(cursor) = cursor else { return false };
        let version = self.shards[stream].version;
        let Some(connection) = self.connections.get_mut(place) else {
            return false;
        };
        let id = connection.subscription_id(subscription).to_owned();
        let mut view = View::CloudEvents;
        if let Some(Some(reader)) = connection.subscriptions.get_mut(subscription) {
            reader.told = version;
            view = reader.share.view.clone();
        }
        self.tell_cursor(place, &id, &view, &cursor);
        true
    }

    /// Ends the subscriptions of principals, other than the session's own, whose time is over.
    fn end_expired_delegates(&mut self, place: usize) {
        let now_ms = self.services.clock.now_ms();
        let Some(connection) = self.connections.get(place) else {
            return;
        };
        let is_over = |reader: &Subscription| {
            let delegate = reader.delegate.as_ref();
            delegate.is_some_and(|delegate| delegate.expires_at_ms <= now_ms)
        };
        let over: Vec<usize> = (0..connection.subscriptions.len())
            .filter(|number| connection.subscriptions[*number].as_ref().is_some_and(is_over))
            .collect();
        let failure = Failure::new(Code::TOKEN_EXPIRED, "");
        for subscription in over {
            self.complete(place, subscription, &failure);
        }
    }

    /// Puts a connection's one timer where it is next needed.
    pub(crate) fn reschedule(&mut self, place: usize) {
        let now = Instant::now();
        let now_ms = self.services.clock.now_ms();
        let Some(connection) = self.connections.get_mut(place) else {
            return;
        };
        let due = match connection.closing {
            Some(until) => until,
            None => {
                let session_ms = connection
                    .session
                    .due_ms(self.times)
                    .saturating_sub(now_ms)
                    .max(0);
                let session = Duration::from_millis(u64::try_from(session_ms).unwrap_or(0)).min(LOOK_AGAIN);
                let mut due = connection.next_heartbeat.min(now + session);
                for delegate in connection.delegates() {
                    let left_ms = delegate.expires_at_ms.saturating_sub(now_ms).max(0);
                    let left = Duration::from_millis(u64::try_from(left_ms).unwrap_or(0));
                    due = due.min(now + left.min(LOOK_AGAIN));
                }
                if connection.framing.is_websocket() {
                    due = due.min(connection.last_heard + self.config.silence_max);
                }
                if let Some(since) = connection.full_since {
                    due = due.min(since + self.config.stall_max);
                }
                if let Some(until) = connection.deaf_until {
                    due = due.min(until);
                }
                due
            }
        };
        if due == connection.due && self.due.contains(&(due, place)) {
            return;
        }
        self.due.remove(&(connection.due, place));
        connection.due = due;
        self.due.insert((due, place));
        if self.awaited.is_none_or(|awaited| due < awaited) {
            self.awaited = Some(due);
            if let Some(worker) = self.this.upgrade() {
                worker.sooner.notify_one();
            }
        }
    }
}

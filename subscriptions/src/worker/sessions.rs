//! Sessions on a worker: how they begin, are given what they are owed, and end.

use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use auth::quota::Permit;
use auth::token::Principal;
use rand::Rng;
use serde_json::json;
use tokio::time::Instant;
use ulid::Ulid;

use super::operations::Opened;
use super::state::State;
use crate::close::Close;
use crate::connection::{Connection, Place, Subscription};
use crate::group::Share;
use crate::hub::{After, Failure, Protocol, Reading, Restriction, Sse, WebSocket};
use crate::outlet::{BODY_CHUNKS_MAX, Moving, Outlet};
use crate::protocol::graphql_ws::Dialect;
use crate::protocol::said::Said;
use crate::protocol::{Framing, sse, ws};
use crate::session::{Input, Session, Tongue};
use crate::view::View;

impl State {
    /// Takes over an upgraded connection; tells its place for its task.
    pub(crate) fn open_websocket(&mut self, socket: WebSocket) -> Option<(usize, u64)> {
        let WebSocket {
            transport,
            protocol,
            principal,
            restriction,
            permit,
        } = socket;
        let (outlet, read_ahead) = match Outlet::adopt(transport) {
            Ok(adopted) => adopted,
            Err(error) => {
                tracing::warn!(%error, "an upgraded connection could not be taken over");
                return None;
            }
        };
        // It may have been revoked while the connection was being upgraded.
        let admitted = principal.as_ref().map(|principal| self.admit(principal));
        let is_revoked = matches!(admitted, Some(Err(_)));
        let principal = admitted.and_then(Result::ok);
        let id = format!("ses_{}", Ulid::generate());
        let (framing, tongue) = match protocol {
            Protocol::TidewireV1 => (Framing::WebSocket, Tongue::v1()),
            Protocol::GraphqlTransportWs | Protocol::Unacceptable => {
                (Framing::GraphqlTransportWs, Tongue::graphql(Dialect::Transport))
            }
            Protocol::GraphqlWs => (Framing::GraphqlWs, Tongue::graphql(Dialect::Legacy)),
        };
        let now_ms = self.services.clock.now_ms();
        let session = Session::new(id, principal.clone(), restriction, tongue, now_ms);
        let mut connection = Connection::new(session, framing, outlet, permit, Instant::now());
        connection.reader = Some(ws::Reader::new(self.config.message_bytes_max));
        let (place, serial) = self.keep(connection);
        match protocol {
            _ if is_revoked => self.tell(place, Input::Revoked),
            Protocol::TidewireV1 => self.welcome(place, principal),
            Protocol::Unacceptable => self.close(place, Close::NOT_ACCEPTABLE),
            // The client speaks first.
            Protocol::GraphqlTransportWs | Protocol::GraphqlWs => {}
        }
        if self.draining {
            self.say_bye(place, serial, Duration::ZERO);
        } else if !read_ahead.is_empty() && !self.heard(place, &read_ahead) {
            self.end(place);
            return None;
        }
        Some((place, serial))
    }

    fn welcome(&mut self, place: usize, principal: Option<Arc<Principal>>) {
        let session = self.connections[place].session.id.clone();
        let limits = json!({
            "subscriptions_per_session": self.config.subscriptions_per_session_max,
            "message_bytes": self.config.message_bytes_max,
        });
        let heartbeat_ms = u64::try_from(self.config.heartbeat.as_millis()).unwrap_or(u64::MAX);
        self.say(
            place,
            &Said::Welcome {
                session: &session,
                heartbeat_ms,
                limits,
            },
        );
        if let Some(principal) = principal {
            self.authorized(place, &principal);
        }
    }

    /// Opens a server-sent event stream.
    pub(crate) fn open_sse(&mut self, sse: Sse) -> Result<Opened, Failure> {
        let Sse {
            reading,
            retry_ms,
            permit,
        } = sse;
        let Reading {
            stream,
            principal,
            filter,
            after,
        } = reading;
        let stream = self.stream(stream.name.as_str())?;
        let principal = self.admit(&principal)?;
        let selection = self.select(stream, &principal, &filter)?;
        let share = Share {
            selection,
            view: View::CloudEvents,
        };
        let (place, serial, receiver) = self.open_body(principal, None, Framing::Sse, permit);
        let after = (after != After::Latest).then_some(&after);
        let subscription = Subscription {
            id: Box::from(""),
            stream,
            filter,
            share,
            delegate: None,
            requires: None,
            place: Place::Lane(usize::MAX),
            told: 0,
        };
        let lane = self.begin_subscription(place, subscription, after);
        let mut head = Vec::new();
        if let Some(milliseconds) = retry_ms {
            sse::retry(milliseconds, &mut head);
        }
        // A gap that is to be told first has its own cursor; until it is read, the one that the reader brought is to come
        // back with.
        let cursor = match (after, self.connections[place].session.principal.as_ref()) {
            (Some(After::Cursor(brought)), Some(principal)) if self.owes_gap(stream, lane) => {
                let name = &self.contract.streams[stream].name;
                Some(Arc::from(self.services.sealer.seal(
                    name,
                    &principal.tenant,
                    brought,
                )))
            }
            _ => self.lane_cursor(stream, lane),
        };
        if let Some(cursor) = cursor {
            sse::quiet(&cursor, &mut head);
        }
        self.write_control(place, &head);
        self.say_if_stale(place, stream, "");
        self.run_lane(stream, lane);
        Ok((place, serial, receiver))
    }

    /// Opens a session that speaks through the body of a response.
    pub(super) fn open_body(
        &mut self,
        principal: Arc<Principal>,
        restriction: Option<Restriction>,
        framing: Framing,
        permit: Permit,
    ) -> Opened {
        let (outlet, body) = Outlet::body_of(BODY_CHUNKS_MAX);
        let id = format!("ses_{}", Ulid::generate());
        let now_ms = self.services.clock.now_ms();
        let session = Session::new(id, Some(principal), restriction, Tongue::Mute, now_ms);
        let connection = Connection::new(session, framing, outlet, permit, Instant::now());
        let (place, serial) = self.keep(connection);
        (place, serial, body)
    }

    /// Moves a session's body to its connection. What it gives back is of a session that is over.
    pub(super) fn move_body(&mut self, place: usize, serial: u64, moving: Moving) -> Result<(), Moving> {
        let Some(connection) = self.connection(place, serial) else {
            return Err(moving);
        };
        let Moving { transport, mut body } = moving;
        // What a client says behind its request is said to nobody.
        match Outlet::adopt(transport) {
            Ok((outlet, _)) => connection.move_to(outlet, body.untaken()),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be taken over");
                self.end(place);
            }
        }
        Ok(())
    }

    /// Keeps a connection and its first timer.
    fn keep(&mut self, mut connection: Connection) -> (usize, u64) {
        let now = Instant::now();
        let serial = self.serial();
        connection.serial = serial;
        // Heartbeats of sessions that began together are spread.
        let heartbeat = self.config.heartbeat_of(connection.framing);
        connection.next_heartbeat = now + heartbeat.mul_f64(rand::rng().random_range(0.5..1.0));
        connection.due = now;
        self.metrics.opened(connection.framing.name());
        let place = self.connections.insert(connection);
        self.due.insert((now, place));
        self.reschedule(place);
        (place, serial)
    }

    /// Gives a connection with room what it is owed.
    pub(crate) fn flush(&mut self, place: usize) {
        let Some(connection) = self.connections.get_mut(place) else {
            return;
        };
        let serial = connection.serial;
        let mut full_before = None;
        if connection.begin_flush() {
            full_before = connection.reopen();
            self.give(place);
        }
        if let Some(connection) = self.connection(place, serial) {
            connection.end_flush(full_before);
        }
        self.reschedule(place);
    }

    fn give(&mut self, place: usize) {
        let Some(connection) = self.connections.get(place) else {
            return;
        };
        for subscription in 0..connection.subscriptions.len() {
            let Some(connection) = self.connections.get(place) else {
                return;
            };
            if !connection.has_room() {
                return;
            }
            let Some(Some(reader)) = connection.subscriptions.get(subscription) else {
                continue;
            };
            let stream = reader.stream;
            match reader.place {
                Place::Lane(lane) => self.run_lane(stream, lane),
                Place::Group { group, member } => self.catch_up(stream, group, member, place),
            }
        }
    }

    fn catch_up(&mut self, stream: usize, group: usize, member: usize, place: usize) {
        let Some(group) = self.shards[stream].groups.get_mut(group) else {
            return;
        };
        let flushed = group.catch_up(member, &mut self.connections[place], &mut self.render);
        let change = group.held_change();
        self.hold(change);
        self.count(&flushed);
    }

    /// Shuts a closed connection down when its last bytes are out. `true`: it is over.
    pub(crate) fn shut_if_closed(&mut self, place: usize, context: &mut Context<'_>) -> bool {
        let Some(connection) = self.connections.get_mut(place) else {
            return true;
        };
        connection.closing.is_some() && connection.full_since.is_none() && connection.outlet.shut(context)
    }

    /// Removes a connection and everything that it held.
    pub(crate) fn end(&mut self, place: usize) {
        let Some(connection) = self.connections.get(place) else {
            return;
        };
        for subscription in 0..connection.subscriptions.len() {
            self.end_subscription(place, subscription);
        }
        let mut gone = self.connections.remove(place);
        self.due.remove(&(gone.due, place));
        self.metrics.ended(gone.framing.name());
        if gone.outlet.is_body() && gone.pending_bytes() > 0 {
            // What is left out may be the rest of a frame: the response must not end as if it were whole.
            gone.outlet.cut();
        }
        gone.outlet = Outlet::Gone;
        gone.wake();
    }
}

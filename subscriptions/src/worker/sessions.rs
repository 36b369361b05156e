//! Sessions on a worker: how they begin, what their clients ask, and how they end. Decisions are `Session`'s; here are the
//! deeds.

use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use auth::quota::Permit;
use auth::token::Principal;
use rand::Rng;
use schemas::problem::Code;
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
use crate::protocol::graphql_ws::{Dialect, Token};
use crate::protocol::said::Said;
use crate::protocol::{Framing, sse, ws};
use crate::session::{Effect, Input, Session, Tongue, rfc3339};
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

    /// Does what the client's bytes say. `false`: the connection is over.
    pub(crate) fn heard(&mut self, place: usize, bytes: &[u8]) -> bool {
        let speed = self.speed;
        let Some(connection) = self.connections.get_mut(place) else {
            return false;
        };
        connection.last_heard = Instant::now();
        if connection.closing.is_some() {
            return true;
        }
        // The reader is taken out while its messages are worked on; only this thread could ask for it meanwhile.
        let Some(mut reader) = connection.reader.take() else {
            // What is said on a response is heard by nobody, and not at any speed.
            if !bytes.is_empty() {
                connection.pace.heard(Instant::now(), speed);
                self.is_too_fast(place);
            }
            return true;
        };
        let serial = connection.serial;
        reader.feed(bytes);
        let go_on = self.messages(place, serial, &mut reader);
        if let Some(connection) = self.connection(place, serial) {
            connection.reader = Some(reader);
        }
        go_on
    }

    fn messages(&mut self, place: usize, serial: u64, reader: &mut ws::Reader) -> bool {
        let mut ping = None;
        let go_on = self.each_message(place, serial, reader, &mut ping);
        // Only the last of several pings needs an answer (RFC 6455, section 5.5.3): a flood of them costs one write.
        if let (true, Some(payload)) = (go_on, ping) {
            let mut bytes = Vec::new();
            ws::pong(&payload, &mut bytes);
            self.write_control(place, &bytes);
        }
        go_on
    }

    fn each_message(
        &mut self,
        place: usize,
        serial: u64,
        reader: &mut ws::Reader,
        ping: &mut Option<Vec<u8>>,
    ) -> bool {
        let speed = self.speed;
        loop {
            if reader.holds_some() && self.is_too_fast(place) {
                return true;
            }
            let incoming = reader.read();
            match self.connection(place, serial) {
                None => return false,
                Some(connection) if connection.closing.is_some() || connection.broken => return true,
                Some(connection) => {
                    if matches!(incoming, Ok(Some(ws::Incoming::Text(_) | ws::Incoming::Ping(_)))) {
                        connection.pace.heard(Instant::now(), speed);
                    }
                }
            }
            match incoming {
                Ok(None) => return true,
                Ok(Some(ws::Incoming::Text(text))) => self.tell(place, Input::Text(&text)),
                Ok(Some(ws::Incoming::Ping(payload))) => *ping = Some(payload),
                Ok(Some(ws::Incoming::Pong)) => {}
                Ok(Some(ws::Incoming::Close(_))) => {
                    self.close(place, Close::CLIENT);
                    return true;
                }
                Err(broken) => {
                    let (code, close) = match broken {
                        ws::Broken::TooLarge => (Code::MESSAGE_TOO_LARGE, Close::TOO_LARGE),
                        _ => (Code::MESSAGE_INVALID, Close::PROTOCOL),
                    };
                    let failure = Failure::new(code, broken.to_string());
                    self.say(
                        place,
                        &Said::Error {
                            id: None,
                            failure: &failure,
                        },
                    );
                    self.close(place, close);
                    return true;
                }
            }
        }
    }

    /// Whether a client has to wait before more of it is heard. The timer goes on with what it has said by then.
    fn is_too_fast(&mut self, place: usize) -> bool {
        let (now, speed) = (Instant::now(), self.speed);
        let Some(connection) = self.connections.get_mut(place) else {
            return false;
        };
        let Some(until) = connection.pace.wait(now, speed) else {
            return false;
        };
        connection.deaf_until = Some(until);
        self.metrics.paced.inc();
        self.reschedule(place);
        true
    }

    /// Hears what a client has said meanwhile. `false`: the connection is over.
    pub(super) fn hear_again(&mut self, place: usize) -> bool {
        let Some(connection) = self.connections.get_mut(place) else {
            return false;
        };
        connection.deaf_until = None;
        let serial = connection.serial;
        if !self.heard(place, &[]) {
            self.end(place);
            return false;
        }
        let Some(connection) = self.connection(place, serial) else {
            return false;
        };
        if connection.deaf_until.is_none() {
            // Its socket is read again.
            connection.wake();
        }
        true
    }

    /// Tells a session something, and does what follows.
    pub(crate) fn tell(&mut self, place: usize, input: Input<'_>) {
        let now_ms = self.services.clock.now_ms();
        let times = self.times;
        let Some(connection) = self.connections.get_mut(place) else {
            return;
        };
        for effect in connection.session.step(input, now_ms, times) {
            self.effect(place, effect);
        }
        self.reschedule(place);
    }

    fn effect(&mut self, place: usize, effect: Effect) {
        // An effect before this one may have ended the session.
        if self
            .connections
            .get(place)
            .is_none_or(|connection| connection.closing.is_some())
        {
            return;
        }
        match effect {
            Effect::Verify(token) => self.verify(place, token),
            Effect::Opened(principal) => {
                let named = self.connections[place].permit.name(&principal);
                if let Err(code) = named {
                    let failure = Failure::new(code, "");
                    self.say(
                        place,
                        &Said::Error {
                            id: None,
                            failure: &failure,
                        },
                    );
                    self.close(place, Close::LIMITED);
                    return;
                }
                self.authorized(place, &principal);
            }
            Effect::Renewed(principal) => self.renewed(place, &principal),
            Effect::Subscribe(subscribe, principal) => self.subscribe_v1(place, *subscribe, principal),
            Effect::Acknowledge => self.say(place, &Said::Acknowledged),
            Effect::Operate(operation, principal) => self.operate(place, *operation, principal, None),
            Effect::OperateFor(operation, token) => self.operate_for(place, *operation, token),
            Effect::Complete(id) => {
                let json_id = json!(id).to_string();
                self.connections[place].give_up(&json_id);
                if let Some(subscription) = self.connections[place].find(&json_id) {
                    self.end_subscription(place, subscription);
                }
            }
            Effect::Unsubscribe(id) => {
                let json_id = json!(id).to_string();
                if self.connections[place].give_up(&json_id) {
                    return self.say(place, &Said::Unsubscribed { id: &json_id });
                }
                match self.connections[place].find(&json_id) {
                    Some(subscription) => {
                        self.end_subscription(place, subscription);
                        self.say(place, &Said::Unsubscribed { id: &json_id });
                    }
                    None => {
                        let failure = Failure::new(Code::UNKNOWN_ID, "");
                        self.say(
                            place,
                            &Said::Error {
                                id: Some(&json_id),
                                failure: &failure,
                            },
                        );
                    }
                }
            }
            Effect::Pong(payload) => self.say(
                place,
                &Said::Pong {
                    payload: payload.as_deref(),
                },
            ),
            Effect::AuthRequired(expires_at_ms) => {
                let expires_at = rfc3339(expires_at_ms);
                self.say(
                    place,
                    &Said::AuthRequired {
                        expires_at: &expires_at,
                    },
                );
            }
            Effect::Refuse(id, failure) => {
                let id = id.map(|id| json!(id).to_string());
                self.say(
                    place,
                    &Said::Error {
                        id: id.as_deref(),
                        failure: &failure,
                    },
                );
            }
            Effect::Close(close) => self.close(place, close),
        }
    }

    fn verify(&mut self, place: usize, token: Token) {
        let (Some(worker), Some(connection)) = (self.this.upgrade(), self.connections.get(place)) else {
            return;
        };
        let serial = connection.serial;
        let services = Arc::clone(&self.services);
        self.tasks.spawn_local(async move {
            let verified = services
                .authenticator
                .verify(&token.0, services.clock.now_ms())
                .await;
            let mut state = worker.state.borrow_mut();
            if state
                .connection(place, serial)
                .is_some_and(|connection| connection.closing.is_none())
            {
                state.tell(place, Input::Verified(verified));
            }
        });
    }

    pub(super) fn authorized(&mut self, place: usize, principal: &Principal) {
        let expires_at = rfc3339(principal.expires_at_ms);
        self.say(
            place,
            &Said::Authorized {
                expires_at: &expires_at,
            },
        );
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

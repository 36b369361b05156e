//! Sessions on a worker: how they begin, what their clients ask, and how they end. Decisions are `Session`'s; here are the
//! deeds.

use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use auth::access::{Denied, Grant, within_ticket};
use auth::token::Principal;
use bytes::Bytes;
use rand::Rng;
use rand::seq::SliceRandom;
use schemas::filter::Predicate;
use schemas::problem::Code;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;
use ulid::Ulid;

use super::state::State;
use crate::close::Close;
use crate::connection::{Connection, Place, Subscription};
use crate::hub::{After, Failure, Reading, Sse, WebSocket};
use crate::lane::Owner;
use crate::outlet::{BODY_CHUNKS_MAX, Outlet};
use crate::protocol::v1::{ServerMessage, Subscribe, message};
use crate::protocol::{Framing, sse, ws};
use crate::session::{Effect, Input, Session, rfc3339};

/// How long a closing connection may take for its last bytes.
const LINGER: Duration = Duration::from_secs(5);

/// What `bye` proposes at most, whatever the drain's spread.
const RECONNECT_AFTER_MS_MAX: u64 = 5_000;

impl State {
    /// Takes over an upgraded connection; tells its place for its task.
    pub(crate) fn open_websocket(&mut self, socket: WebSocket) -> Option<(usize, u64)> {
        let WebSocket {
            transport,
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
        let id = format!("ses_{}", Ulid::generate());
        let session = Session::new(id, principal.clone(), restriction, self.services.clock.now_ms());
        let mut connection = Connection::new(session, Framing::WebSocket, outlet, permit, Instant::now());
        connection.reader = Some(ws::Reader::new(self.config.message_bytes_max));
        let (place, serial) = self.keep(connection);
        let session = self.connections[place].session.id.clone();
        let limits = json!({
            "subscriptions_per_session": self.config.subscriptions_per_session_max,
            "message_bytes": self.config.message_bytes_max,
        });
        let heartbeat_ms = u64::try_from(self.config.heartbeat.as_millis()).unwrap_or(u64::MAX);
        self.say(
            place,
            &ServerMessage::Welcome {
                session: &session,
                heartbeat_ms,
                limits,
            },
        );
        if let Some(principal) = principal {
            self.authorized(place, &principal);
        }
        if self.draining {
            self.say_bye(place, serial, Duration::ZERO);
        } else if !read_ahead.is_empty() && !self.heard(place, &read_ahead) {
            self.end(place);
            return None;
        }
        Some((place, serial))
    }

    /// Opens a server-sent event stream.
    pub(crate) fn open_sse(&mut self, sse: Sse) -> Result<(usize, u64, mpsc::Receiver<Bytes>), Failure> {
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
        let selection = self.select(stream, &principal, &filter)?;
        let (sender, receiver) = mpsc::channel(BODY_CHUNKS_MAX);
        let id = format!("ses_{}", Ulid::generate());
        let session = Session::new(id, Some(principal), None, self.services.clock.now_ms());
        let connection = Connection::new(
            session,
            Framing::Sse,
            Outlet::Body(sender),
            permit,
            Instant::now(),
        );
        let (place, serial) = self.keep(connection);
        let after = (after != After::Latest).then_some(&after);
        let lane = self.begin_subscription(place, Box::from(""), stream, filter, selection, after);
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

    /// Keeps a connection and its first timer.
    fn keep(&mut self, mut connection: Connection) -> (usize, u64) {
        let now = Instant::now();
        let serial = self.serial();
        connection.serial = serial;
        // Heartbeats of sessions that began together are spread.
        connection.next_heartbeat = now + self.config.heartbeat.mul_f64(rand::rng().random_range(0.5..1.0));
        connection.due = now;
        self.metrics.opened(connection.framing.name());
        let place = self.connections.insert(connection);
        self.due.insert((now, place));
        self.reschedule(place);
        (place, serial)
    }

    /// The stream that may be subscribed to, by its place.
    pub(crate) fn stream(&self, name: &str) -> Result<usize, Failure> {
        if self.draining {
            return Err(Failure::new(Code::DRAINING, ""));
        }
        self.contract
            .streams
            .iter()
            .position(|stream| stream.name.as_str() == name)
            .ok_or_else(|| Failure::new(Code::STREAM_FORBIDDEN, ""))
    }

    /// What this principal gets of a stream that is ready.
    pub(crate) fn select(
        &self,
        stream: usize,
        principal: &Principal,
        filter: &Predicate,
    ) -> Result<Arc<auth::access::Selection>, Failure> {
        let contract = &self.contract.streams[stream];
        let denied = |denied: Denied| Failure::new(denied.code, denied.detail);
        let grant = Grant::compile(contract, principal).map_err(denied)?;
        let selection = grant.select(contract, filter).map_err(denied)?;
        if !self.shards[stream].layout.complete {
            return Err(Failure::new(
                Code::STREAM_UNAVAILABLE,
                "kafka has not been reached yet",
            ));
        }
        // One copy per group, not per reader.
        Ok(self.shards[stream].share(selection))
    }

    /// Adds a subscription with a lane of its own; tells the lane.
    fn begin_subscription(
        &mut self,
        place: usize,
        id: Box<str>,
        stream: usize,
        filter: Predicate,
        selection: Arc<auth::access::Selection>,
        after: Option<&After>,
    ) -> usize {
        let subscription = Subscription {
            id,
            stream,
            filter,
            selection: Arc::clone(&selection),
            place: Place::Lane(usize::MAX),
            told: 0,
        };
        let subscription = self.connections[place].add(subscription);
        let owner = Owner::Session {
            connection: place,
            subscription,
        };
        let lane = self.begin_lane(stream, owner, selection, after);
        if let Some(Some(subscription)) = self.connections[place].subscriptions.get_mut(subscription) {
            subscription.place = Place::Lane(lane);
        }
        lane
    }

    /// Does what the client's bytes say. `false`: the connection is over.
    pub(crate) fn heard(&mut self, place: usize, bytes: &[u8]) -> bool {
        let Some(connection) = self.connections.get_mut(place) else {
            return false;
        };
        connection.last_heard = Instant::now();
        if connection.closing.is_some() {
            return true;
        }
        // The reader is taken out while its messages are worked on; only this thread could ask for it meanwhile.
        let Some(mut reader) = connection.reader.take() else {
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
        loop {
            let incoming = reader.read();
            match self.connection(place, serial) {
                None => return false,
                Some(connection) if connection.closing.is_some() || connection.broken => return true,
                Some(_) => {}
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
                        &ServerMessage::Error {
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
                        &ServerMessage::Error {
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
            Effect::Subscribe(subscribe, principal) if self.is_ready(&subscribe.stream) => {
                self.subscribe(place, *subscribe, &principal);
            }
            Effect::Subscribe(subscribe, principal) => {
                self.subscribe_when_ready(place, *subscribe, principal)
            }
            Effect::Unsubscribe(id) => {
                let json_id = json!(id).to_string();
                match self.connections[place].find(&json_id) {
                    Some(subscription) => {
                        self.end_subscription(place, subscription);
                        self.say(place, &ServerMessage::Unsubscribed { id: &json_id });
                    }
                    None => {
                        let failure = Failure::new(Code::UNKNOWN_ID, "");
                        self.say(
                            place,
                            &ServerMessage::Error {
                                id: Some(&json_id),
                                failure: &failure,
                            },
                        );
                    }
                }
            }
            Effect::Pong => self.say(place, &ServerMessage::Pong),
            Effect::AuthRequired(expires_at_ms) => {
                let expires_at = rfc3339(expires_at_ms);
                self.say(
                    place,
                    &ServerMessage::AuthRequired {
                        expires_at: &expires_at,
                    },
                );
            }
            Effect::Refuse(id, failure) => match self.connections[place].framing {
                Framing::WebSocket => {
                    let id = id.map(|id| json!(id).to_string());
                    self.say(
                        place,
                        &ServerMessage::Error {
                            id: id.as_deref(),
                            failure: &failure,
                        },
                    );
                }
                Framing::Sse => self.write_problem(place, &failure),
            },
            Effect::Close(close) => self.close(place, close),
        }
    }

    fn verify(&mut self, place: usize, token: String) {
        let (Some(worker), Some(connection)) = (self.this.upgrade(), self.connections.get(place)) else {
            return;
        };
        let serial = connection.serial;
        let services = Arc::clone(&self.services);
        self.tasks.spawn_local(async move {
            let verified = services
                .authenticator
                .verify(&token, services.clock.now_ms())
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

    fn authorized(&mut self, place: usize, principal: &Principal) {
        let expires_at = rfc3339(principal.expires_at_ms);
        self.say(
            place,
            &ServerMessage::Authorized {
                expires_at: &expires_at,
            },
        );
    }

    /// Compiles every subscription's grant anew. What waits unsent under another grant is dropped; the reader goes on from
    /// what was written last.
    fn renewed(&mut self, place: usize, principal: &Arc<Principal>) {
        self.authorized(place, principal);
        for subscription in 0..self.connections[place].subscriptions.len() {
            let Some(Some(reader)) = self.connections[place].subscriptions.get(subscription) else {
                continue;
            };
            let (stream, filter) = (reader.stream, reader.filter.clone());
            match self.select(stream, principal, &filter) {
                Ok(selection) => self.reselect(place, subscription, &selection),
                Err(failure) => {
                    let id = self.connections[place].subscription_id(subscription).to_owned();
                    self.end_subscription(place, subscription);
                    self.say(
                        place,
                        &ServerMessage::Completed {
                            id: &id,
                            reason: failure.code.name,
                        },
                    );
                }
            }
        }
    }

    /// Waits for the stream's partitions to be known. So many may wait as a session may have subscriptions.
    fn subscribe_when_ready(&mut self, place: usize, subscribe: Subscribe, principal: Arc<Principal>) {
        let (Some(worker), Some(connection)) = (self.this.upgrade(), self.connections.get_mut(place)) else {
            return;
        };
        if connection.waiting >= self.config.subscriptions_per_session_max {
            self.subscribe(place, subscribe, &principal);
            return;
        }
        connection.waiting += 1;
        let serial = connection.serial;
        self.tasks.spawn_local(async move {
            worker.ready(&subscribe.stream).await;
            let mut state = worker.state.borrow_mut();
            let Some(connection) = state.connection(place, serial) else {
                return;
            };
            connection.waiting -= 1;
            // The token may have been renewed meanwhile.
            let principal = connection.session.principal.clone().unwrap_or(principal);
            if connection.closing.is_none() {
                state.subscribe(place, subscribe, &principal);
            }
        });
    }

    fn subscribe(&mut self, place: usize, subscribe: Subscribe, principal: &Arc<Principal>) {
        let id = json!(subscribe.id).to_string();
        let after = subscribe.after.clone();
        match self.try_subscribe(place, &id, subscribe, principal) {
            Ok((stream, lane)) => {
                // A gap that is to be told first has its own cursor; until it is read, the old one is to come back with.
                let cursor = match after {
                    Some(after) if self.owes_gap(stream, lane) => Arc::from(after),
                    _ => self.lane_cursor(stream, lane).unwrap_or_else(|| Arc::from("")),
                };
                self.say(
                    place,
                    &ServerMessage::Subscribed {
                        id: &id,
                        cursor: &cursor,
                    },
                );
                self.say_if_stale(place, stream, &id);
                self.run_lane(stream, lane);
            }
            Err(failure) => {
                self.metrics.refused(failure.code.name);
                self.say(
                    place,
                    &ServerMessage::Error {
                        id: Some(&id),
                        failure: &failure,
                    },
                );
            }
        }
    }

    fn try_subscribe(
        &mut self,
        place: usize,
        id: &str,
        subscribe: Subscribe,
        principal: &Arc<Principal>,
    ) -> Result<(usize, usize), Failure> {
        let connection = &self.connections[place];
        if connection.find(id).is_some() {
            return Err(Failure::new(Code::DUPLICATE_ID, ""));
        }
        if connection.count() >= self.config.subscriptions_per_session_max {
            return Err(Failure::new(Code::SUBSCRIPTIONS, ""));
        }
        if subscribe.snapshot.is_some_and(|value| value != false) {
            return Err(Failure::new(Code::UNSUPPORTED, "snapshot"));
        }
        if subscribe.rate.is_some() {
            return Err(Failure::new(Code::UNSUPPORTED, "rate"));
        }
        if subscribe.overflow.is_some_and(|policy| policy != "close") {
            return Err(Failure::new(Code::UNSUPPORTED, "overflow other than close"));
        }
        let restriction = connection.session.restriction.clone();
        if restriction
            .as_ref()
            .is_some_and(|only| only.stream.as_str() != subscribe.stream)
        {
            return Err(Failure::new(Code::STREAM_FORBIDDEN, ""));
        }
        let stream = self.stream(&subscribe.stream)?;
        let contract = Arc::clone(&self.contract.streams[stream]);
        // Whoever has no grant learns nothing of the stream, not even which attributes it has.
        let refused = |denied: Denied| Failure::new(denied.code, denied.detail);
        let mut filter = Grant::compile(&contract, principal)
            .map_err(refused)?
            .filter_from_json(&contract, &serde_json::Value::Object(subscribe.filter))
            .map_err(|bad| Failure::new(bad.code, bad.detail))?;
        if let Some(only) = restriction {
            filter = within_ticket(&contract, &only.filter, &filter).map_err(refused)?;
        }
        let selection = self.select(stream, principal, &filter)?;
        let after = match subscribe.after.as_deref() {
            None => None,
            Some(text) => Some(After::parse(
                text,
                &contract.name,
                &principal.tenant,
                &self.services.sealer,
            )?),
        };
        let lane = self.begin_subscription(place, Box::from(id), stream, filter, selection, after.as_ref());
        Ok((stream, lane))
    }

    /// Removes a subscription and what it holds.
    pub(crate) fn end_subscription(&mut self, place: usize, subscription: usize) {
        let Some(connection) = self.connections.get_mut(place) else {
            return;
        };
        if let Some(gone) = connection
            .subscriptions
            .get_mut(subscription)
            .and_then(Option::take)
        {
            self.detach(gone.stream, gone.place);
        }
    }

    /// Says something to a WebSocket, or its equal to an event stream.
    pub(crate) fn say(&mut self, place: usize, said: &ServerMessage<'_>) {
        let Some(connection) = self.connections.get(place) else {
            return;
        };
        let mut bytes = Vec::new();
        match (connection.framing, said) {
            (Framing::WebSocket, said) => ws::text_frame(&said.to_json(), &mut bytes),
            (Framing::Sse, ServerMessage::AuthRequired { expires_at }) => {
                sse::named(
                    "auth_required",
                    None,
                    &json!({"expires_at": expires_at}).to_string(),
                    &mut bytes,
                );
            }
            (Framing::Sse, ServerMessage::Stale { .. }) => sse::named("stale", None, "{}", &mut bytes),
            (Framing::Sse, ServerMessage::Bye { reconnect_after_ms }) => {
                let data = json!({"reconnect_after_ms": reconnect_after_ms}).to_string();
                sse::retry(*reconnect_after_ms, &mut bytes);
                sse::named("bye", None, &data, &mut bytes);
            }
            (Framing::Sse, ServerMessage::Completed { reason, .. }) => {
                sse::named(
                    "completed",
                    None,
                    &json!({"reason": reason}).to_string(),
                    &mut bytes,
                );
            }
            (Framing::Sse, ServerMessage::Cursor { cursor, .. }) => sse::quiet(cursor, &mut bytes),
            // The rest has no place on an event stream: the response's head said it.
            (Framing::Sse, _) => return,
        }
        self.write_control(place, &bytes);
    }

    /// Tells quiet progress.
    pub(crate) fn tell_cursor(&mut self, place: usize, id: &str, cursor: &str) {
        self.say(place, &ServerMessage::Cursor { id, cursor });
    }

    pub(crate) fn write_control(&mut self, place: usize, bytes: &[u8]) {
        let control_bytes_max = self.config.control_bytes_max;
        let Some(connection) = self.connections.get_mut(place) else {
            return;
        };
        if !connection.write_control(bytes, control_bytes_max) {
            self.close_slow(place);
        } else if connection.full_since.is_some() {
            self.reschedule(place);
        }
    }

    fn write_problem(&mut self, place: usize, failure: &Failure) {
        let data = json!({
            "type": format!("urn:tidewire:problem:{}", failure.code.name),
            "title": failure.code.title,
            "status": failure.code.status,
            "code": failure.code.name,
            "detail": message(failure),
            "retry": failure.code.retry,
        });
        let mut bytes = Vec::new();
        sse::named("problem", None, &data.to_string(), &mut bytes);
        self.write_control(place, &bytes);
    }

    /// Ends an event stream with a problem.
    pub(crate) fn close_with_problem(&mut self, place: usize, failure: &Failure) {
        self.write_problem(place, failure);
        self.close(place, Close::LIMITED);
    }

    /// Closes a reader that does not take its events.
    pub(crate) fn close_slow(&mut self, place: usize) {
        let Some(connection) = self.connections.get(place) else {
            return;
        };
        if connection.closing.is_some() {
            return;
        }
        if connection.framing == Framing::Sse {
            self.write_problem(place, &Failure::new(Code::SLOW_READER, ""));
        }
        self.close(place, Close::SLOW_READER);
    }

    /// Ends a session: nothing that waits unsent is sent any more, the close frame is the last thing.
    pub(crate) fn close(&mut self, place: usize, close: Close) {
        let Some(connection) = self.connections.get(place) else {
            return;
        };
        if connection.closing.is_some() {
            return;
        }
        for subscription in 0..connection.subscriptions.len() {
            self.end_subscription(place, subscription);
        }
        if close != Close::CLIENT {
            self.metrics.closed(close.reason);
        }
        let mut bytes = Vec::new();
        let Some(connection) = self.connections.get_mut(place) else {
            return;
        };
        if connection.framing == Framing::WebSocket {
            ws::close(close.code, close.reason, &mut bytes);
        }
        connection.close(&bytes, Instant::now() + LINGER);
        self.reschedule(place);
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
        self.log_bytes += group.held_change();
        self.metrics.log_bytes.set(self.log_bytes);
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
        gone.outlet = Outlet::Gone;
        gone.wake();
    }

    /// A subscription that begins while Kafka cannot be reached is told so.
    fn say_if_stale(&mut self, place: usize, stream: usize, id: &str) {
        if !self.shards[stream].fresh {
            self.say(place, &ServerMessage::Stale { id });
        }
    }

    /// Whether a lane begins with a gap.
    fn owes_gap(&self, stream: usize, lane: usize) -> bool {
        self.shards[stream]
            .lanes
            .get(lane)
            .is_some_and(|lane| !lane.queue.is_empty())
    }

    /// Kafka was lost or came back: every reader of the stream is told.
    pub(crate) fn tell_freshness(&mut self, stream: usize, fresh: bool) {
        let readers: Vec<(usize, usize)> = self
            .connections
            .iter()
            .flat_map(|(place, connection)| {
                connection
                    .subscriptions
                    .iter()
                    .enumerate()
                    .filter_map(move |(number, subscription)| {
                        subscription
                            .as_ref()
                            .filter(|reader| reader.stream == stream)
                            .map(|_| (place, number))
                    })
            })
            .collect();
        for (place, subscription) in readers {
            if fresh {
                // Told even if nothing moved: it takes `stale` back.
                if let Some(Some(reader)) = self.connections[place].subscriptions.get_mut(subscription) {
                    reader.told = u64::MAX;
                }
                self.tell_progress(place, subscription);
            } else {
                let id = self.connections[place].subscription_id(subscription).to_owned();
                self.say(place, &ServerMessage::Stale { id: &id });
            }
        }
    }

    /// Nobody is let in any more; the sessions that there are, in random order.
    pub(crate) fn begin_drain(&mut self) -> Vec<(usize, u64)> {
        self.draining = true;
        let mut places: Vec<_> = self
            .connections
            .iter()
            .map(|(place, connection)| (place, connection.serial))
            .collect();
        places.shuffle(&mut rand::rng());
        places
    }

    /// Says goodbye to one session.
    pub(crate) fn say_bye(&mut self, place: usize, serial: u64, spread: Duration) {
        if self.connection(place, serial).is_none() {
            return;
        }
        let most = u64::try_from(spread.as_millis())
            .unwrap_or(u64::MAX)
            .clamp(100, RECONNECT_AFTER_MS_MAX);
        let reconnect_after_ms = rand::rng().random_range(0..=most);
        self.say(place, &ServerMessage::Bye { reconnect_after_ms });
        self.close(place, Close::DRAINING);
    }
}

//! What clients say: their bytes taken apart at a bounded speed, and what follows from each message. Decisions are `Session`'s;
//! here are the deeds.

use std::sync::Arc;

use auth::token::Principal;
use schemas::problem::Code;
use serde_json::json;
use tokio::time::Instant;

use super::state::State;
use crate::close::Close;
use crate::hub::Failure;
use crate::protocol::graphql_ws::Token;
use crate::protocol::said::Said;
use crate::protocol::ws;
use crate::session::{Effect, Input, rfc3339};

impl State {
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
}

//! What sessions are told beside frames, up to their last word: in the words of their protocol, under the control limit.

use std::time::Duration;

use rand::Rng;
use rand::seq::SliceRandom;
use schemas::problem::Code;
use serde_json::json;
use tokio::time::Instant;

use super::state::State;
use crate::close::Close;
use crate::hub::Failure;
use crate::protocol::v1::{ServerMessage, message};
use crate::protocol::{Framing, sse, ws};

/// How long a closing connection may take for its last bytes.
const LINGER: Duration = Duration::from_secs(5);

/// What `bye` proposes at most, whatever the drain's spread.
const RECONNECT_AFTER_MS_MAX: u64 = 5_000;

impl State {
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

    pub(super) fn write_problem(&mut self, place: usize, failure: &Failure) {
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

    /// A subscription that begins while Kafka cannot be reached is told so.
    pub(super) fn say_if_stale(&mut self, place: usize, stream: usize, id: &str) {
        if !self.shards[stream].fresh {
            self.say(place, &ServerMessage::Stale { id });
        }
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

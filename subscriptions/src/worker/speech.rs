//! What sessions are told beside frames, up to their last word: in the words of their protocol, under the control limit.

use std::time::Duration;

use rand::Rng;
use rand::seq::SliceRandom;
use schemas::problem::Code;
use tokio::time::Instant;

use super::state::State;
use crate::close::Close;
use crate::connection::Connection;
use crate::hub::Failure;
use crate::protocol::said::Said;
use crate::view::View;

/// How long a closing connection may take for its last bytes.
pub(super) const LINGER: Duration = Duration::from_secs(5);

/// What `bye` proposes at most, whatever the drain's spread.
const RECONNECT_AFTER_MS_MAX: u64 = 5_000;

impl State {
    /// Says something in the words of the session's wire format.
    pub(crate) fn say(&mut self, place: usize, said: &Said<'_>) {
        let Some(connection) = self.connections.get(place) else {
            return;
        };
        let mut bytes = Vec::new();
        connection.framing.say(said, &mut bytes);
        if matches!(said, Said::Answer { .. }) {
            self.write_answer(place, &bytes);
        } else {
            self.write_control(place, &bytes);
        }
    }

    /// Tells that a subscription began, and where.
    pub(super) fn tell_beginning(&mut self, place: usize, id: &str, view: &View, cursor: Option<&str>) {
        let cursor = cursor.unwrap_or_default();
        match view {
            View::Graphql(projection) if projection.wants_progress() => {
                self.tell_cursor(place, id, view, cursor);
            }
            _ => self.say(place, &Said::Subscribed { id, cursor }),
        }
    }

    /// Tells quiet progress: as an event, where the reader's view has one for it.
    pub(crate) fn tell_cursor(&mut self, place: usize, id: &str, view: &View, cursor: &str) {
        match view {
            View::Graphql(projection) if projection.wants_progress() => {
                let mut payload = Vec::new();
                projection.progress(cursor, self.services.clock.now_ms(), &mut payload);
                self.say_result(place, id, Some(cursor), &payload);
            }
            _ => self.say(place, &Said::Cursor { id, cursor }),
        }
    }

    /// Gives a GraphQL operation one result.
    pub(super) fn say_result(&mut self, place: usize, id: &str, cursor: Option<&str>, payload: &[u8]) {
        let Some(connection) = self.connections.get(place) else {
            return;
        };
        let mut bytes = Vec::new();
        connection.framing.payload(id, cursor, payload, &mut bytes);
        self.write_control(place, &bytes);
    }

    pub(crate) fn write_control(&mut self, place: usize, bytes: &[u8]) {
        self.write_by(place, bytes, Connection::write_control);
    }

    fn write_answer(&mut self, place: usize, bytes: &[u8]) {
        self.write_by(place, bytes, Connection::write_answer);
    }

    fn write_by(
        &mut self,
        place: usize,
        bytes: &[u8],
        write: impl FnOnce(&mut Connection, &[u8], usize) -> bool,
    ) {
        let control_bytes_max = self.config.control_bytes_max;
        let Some(connection) = self.connections.get_mut(place) else {
            return;
        };
        if !write(connection, bytes, control_bytes_max) {
            self.close_slow(place);
        } else if connection.full_since.is_some() {
            self.reschedule(place);
        }
    }

    /// A subscription that begins while Kafka cannot be reached is told so.
    pub(super) fn say_if_stale(&mut self, place: usize, stream: usize, id: &str) {
        if !self.shards[stream].fresh {
            self.say(place, &Said::Stale { id });
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
                self.say(place, &Said::Stale { id: &id });
            }
        }
    }

    /// Ends a subscription that cannot go on; a response that carries nothing else ends with it.
    pub(crate) fn fail_subscription(&mut self, place: usize, subscription: usize, failure: &Failure) {
        let Some(connection) = self.connections.get(place) else {
            return;
        };
        let id = connection.subscription_id(subscription).to_owned();
        let ends = connection.framing.ends_with_its_operation();
        self.end_subscription(place, subscription);
        self.say(
            place,
            &Said::Error {
                id: Some(&id),
                failure,
            },
        );
        if ends {
            self.close(place, Close::LIMITED);
        }
    }

    /// Ends a subscription that its principal may not have any more.
    pub(crate) fn complete(&mut self, place: usize, subscription: usize, failure: &Failure) {
        let Some(connection) = self.connections.get(place) else {
            return;
        };
        let id = connection.subscription_id(subscription).to_owned();
        self.end_subscription(place, subscription);
        self.say(place, &Said::Completed { id: &id, failure });
    }

    /// Closes a reader that does not take its events.
    pub(crate) fn close_slow(&mut self, place: usize) {
        let Some(connection) = self.connections.get(place) else {
            return;
        };
        if connection.closing.is_some() {
            return;
        }
        if connection.framing.ends_with_its_operation() {
            let failure = Failure::new(Code::SLOW_READER, "");
            self.say(
                place,
                &Said::Error {
                    id: None,
                    failure: &failure,
                },
            );
        }
        self.close(place, Close::SLOW_READER);
    }

    /// Ends a session: nothing that waits unsent is sent any more, the close frame is the last thing.
    pub(crate) fn close(&mut self, place: usize, close: Close) {
        let graphql = self
            .connections
            .get(place)
            .is_some_and(|connection| connection.framing.is_graphql());
        let reason = if graphql {
            close.graphql_reason()
        } else {
            close.reason
        };
        self.close_saying(place, close, reason);
    }

    /// The same with words of its own, which are ASCII and short.
    pub(crate) fn close_saying(&mut self, place: usize, close: Close, reason: &str) {
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
        connection.framing.close(close, reason, &mut bytes);
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
        self.say(place, &Said::Bye { reconnect_after_ms });
        self.close(place, Close::DRAINING);
    }
}

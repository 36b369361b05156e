//! Subscriptions of sessions: what a principal may have of a stream, how one begins, is renewed and ends.

use std::sync::Arc;

use auth::access::{Denied, Grant, within_ticket};
use auth::token::Principal;
use schemas::filter::Predicate;
use schemas::problem::Code;
use serde_json::json;

use super::state::State;
use crate::connection::{Place, Subscription};
use crate::hub::{After, Failure};
use crate::lane::Owner;
use crate::protocol::v1::{ServerMessage, Subscribe};

impl State {
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
    pub(super) fn begin_subscription(
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

    /// Compiles every subscription's grant anew. What waits unsent under another grant is dropped; the reader goes on from
    /// what was written last.
    pub(super) fn renewed(&mut self, place: usize, principal: &Arc<Principal>) {
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
    pub(super) fn subscribe_when_ready(
        &mut self,
        place: usize,
        subscribe: Subscribe,
        principal: Arc<Principal>,
    ) {
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

    pub(super) fn subscribe(&mut self, place: usize, subscribe: Subscribe, principal: &Arc<Principal>) {
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

    pub(super) fn try_subscribe(
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

    /// Whether a lane begins with a gap.
    pub(super) fn owes_gap(&self, stream: usize, lane: usize) -> bool {
        self.shards[stream]
            .lanes
            .get(lane)
            .is_some_and(|lane| !lane.queue.is_empty())
    }
}

//! Subscriptions of sessions: what a principal may have of a stream, how one begins, is renewed and ends.

use std::sync::Arc;

use auth::access::{Denied, Grant, within_ticket};
use auth::token::Principal;
use schemas::filter::Predicate;
use schemas::graph::Requires;
use schemas::problem::Code;
use serde_json::json;

use super::state::State;
use crate::connection::{Place, Subscription};
use crate::graphql::check_requires;
use crate::group::Share;
use crate::hub::{After, Failure};
use crate::lane::Owner;
use crate::needs::Need;
use crate::protocol::said::Said;
use crate::protocol::v1::Subscribe;
use crate::session::may_delegate;
use crate::view::View;

/// What a client wants, whatever it said it in.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    /// The client's id as a JSON string with its quotes; empty where a response carries one subscription.
    pub(crate) id: Box<str>,
    /// The stream's name.
    pub(crate) stream: String,
    /// Attribute filters.
    pub(crate) filter: serde_json::Map<String, serde_json::Value>,
    /// A cursor, `earliest`, `latest` or an RFC 3339 time.
    pub(crate) after: Option<String>,
    /// How events are presented.
    pub(crate) view: View,
    /// Whose it is, where that is not the session's principal.
    pub(crate) delegate: Option<Arc<Principal>>,
    /// What the reader must hold beside its grant.
    pub(crate) requires: Option<Arc<[Requires]>>,
}

/// A subscription that began.
pub(super) struct Begun {
    /// The stream, by its place in the contract.
    pub(super) stream: usize,
    /// Where its events come from.
    pub(super) lane: usize,
    /// Where it begins.
    pub(super) cursor: Option<Arc<str>>,
}

/// Whether a reader holds what the selected fields need.
fn holds(requires: Option<&[Requires]>, principal: &Principal) -> Result<(), Failure> {
    match requires {
        None => Ok(()),
        Some(requires) => {
            check_requires(requires, principal).map_err(|refused| Failure::new(refused.code, ""))
        }
    }
}

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

    /// Whoever may have something of a stream needs it.
    pub(super) fn need_of(&self, stream: &str, principal: &Principal) -> Option<Need> {
        let place = self.stream(stream).ok()?;
        Grant::compile(&self.contract.streams[place], principal).ok()?;
        Some(self.needs.need(place))
    }

    /// What this principal gets of a stream that is ready, by what is known of it now.
    pub(crate) fn select(
        &self,
        stream: usize,
        principal: &Arc<Principal>,
        filter: &Predicate,
    ) -> Result<Arc<auth::access::Selection>, Failure> {
        let principal = &*self.admit(principal)?;
        // It may have waited for the stream, or for a check.
        if principal.expires_at_ms <= self.services.clock.now_ms() {
            return Err(Failure::new(Code::TOKEN_EXPIRED, ""));
        }
        let contract = &self.contract.streams[stream];
        let denied = |denied: Denied| Failure::new(denied.code, denied.detail);
        let grant = Grant::compile(contract, principal).map_err(denied)?;
        let selection = grant.select(contract, filter).map_err(denied)?;
        if !self.is_read(stream) {
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
        subscription: Subscription,
        after: Option<&After>,
    ) -> usize {
        let (stream, share) = (subscription.stream, subscription.share.clone());
        let subscription = self.connections[place].add(subscription);
        let owner = Owner::Session {
            connection: place,
            subscription,
        };
        let lane = self.begin_lane(stream, owner, share, after);
        if let Some(Some(subscription)) = self.connections[place].subscriptions.get_mut(subscription) {
            subscription.place = Place::Lane(lane);
        }
        lane
    }

    /// Compiles every subscription's grant anew. What waits unsent under another grant is dropped; the reader goes on from
    /// what was written last.
    pub(super) fn renewed(&mut self, place: usize, principal: &Arc<Principal>) {
        self.authorized(place, principal);
        self.reselect(place, principal);
    }

    /// The same without a word: what is known of the principal has changed.
    pub(super) fn reselect(&mut self, place: usize, principal: &Arc<Principal>) {
        for subscription in 0..self.connections[place].subscriptions.len() {
            let Some(Some(reader)) = self.connections[place].subscriptions.get(subscription) else {
                continue;
            };
            // Others' subscriptions end with their own tokens, or when nobody may speak for them any more.
            if reader.delegate.is_some() {
                if !may_delegate(principal) {
                    let failure = Failure::new(
                        Code::UNAUTHENTICATED,
                        "this connection may not speak for others any more",
                    );
                    self.complete(place, subscription, &failure);
                }
                continue;
            }
            self.reselect_one(place, subscription, principal);
        }
    }

    /// Compiles one subscription's grant anew.
    pub(super) fn reselect_one(&mut self, place: usize, subscription: usize, principal: &Arc<Principal>) {
        let Some(Some(reader)) = self.connections[place].subscriptions.get(subscription) else {
            return;
        };
        let (stream, filter, view) = (reader.stream, reader.filter.clone(), reader.share.view.clone());
        let selected = holds(reader.requires.as_deref(), principal)
            .and_then(|()| self.select(stream, principal, &filter));
        match selected {
            Ok(selection) => self.reshare(place, subscription, Share { selection, view }),
            Err(failure) => self.complete(place, subscription, &failure),
        }
    }

    /// Begins a subscription of `tidewire.v1`.
    pub(super) fn subscribe_v1(&mut self, place: usize, subscribe: Subscribe, principal: Arc<Principal>) {
        let id = json!(subscribe.id).to_string();
        let later = [
            (subscribe.snapshot.is_some_and(|value| value != false), "snapshot"),
            (subscribe.rate.is_some(), "rate"),
            (
                subscribe.overflow.is_some_and(|policy| policy != "close"),
                "overflow other than close",
            ),
        ];
        if let Some((_, what)) = later.iter().find(|(asked, _)| *asked) {
            let failure = Failure::new(Code::UNSUPPORTED, *what);
            return self.refuse(place, &id, &failure);
        }
        let wanted = Wanted {
            id: Box::from(id),
            stream: subscribe.stream,
            filter: subscribe.filter,
            after: subscribe.after,
            view: View::CloudEvents,
            delegate: None,
            requires: None,
        };
        self.subscribe_when_ready(place, wanted, principal);
    }

    /// Waits for the stream to be read. So many may wait as a session may have subscriptions.
    pub(super) fn subscribe_when_ready(&mut self, place: usize, wanted: Wanted, principal: Arc<Principal>) {
        let (Some(worker), Some(connection)) = (self.this.upgrade(), self.connections.get(place)) else {
            return;
        };
        let has_room = connection.waiting.len() < self.config.subscriptions_per_session_max;
        // A stream that is not granted is not read for whoever asks.
        // Held until it has begun.
        let need = self.need_of(&wanted.stream, &principal);
        if !has_room || need.is_none() || self.is_ready(&wanted.stream) {
            self.subscribe(place, wanted, &principal);
            return;
        }
        let serial = connection.serial;
        let number = self.serial();
        self.connections[place].wait(number, &wanted.id);
        let task = self.tasks.spawn_local(async move {
            let _needed = (need, worker.ready(&wanted.stream, &principal).await);
            let mut state = worker.state.borrow_mut();
            let Some(connection) = state.connection(place, serial) else {
                return;
            };
            if !connection.waited(number) {
                return;
            }
            // The token may have been renewed meanwhile.
            let principal = match &wanted.delegate {
                Some(delegate) => Arc::clone(delegate),
                None => connection.session.principal.clone().unwrap_or(principal),
            };
            if connection.closing.is_none() {
                state.subscribe(place, wanted, &principal);
            }
        });
        self.connections[place].waits_for(number, task);
    }

    fn subscribe(&mut self, place: usize, wanted: Wanted, principal: &Arc<Principal>) {
        let (id, view) = (wanted.id.clone(), wanted.view.clone());
        match self.try_subscribe(place, wanted, principal) {
            Ok(begun) => {
                self.tell_beginning(place, &id, &view, begun.cursor.as_deref());
                self.say_if_stale(place, begun.stream, &id);
                self.run_lane(begun.stream, begun.lane);
            }
            Err(failure) => self.refuse(place, &id, &failure),
        }
        // Its token may end before anything else of the session is due.
        self.reschedule(place);
    }

    /// Refuses a subscription.
    pub(super) fn refuse(&mut self, place: usize, id: &str, failure: &Failure) {
        self.metrics.refused(failure.code.name);
        self.say(
            place,
            &Said::Error {
                id: Some(id),
                failure,
            },
        );
    }

    /// Begins what a client wants; its lane has not run yet.
    pub(super) fn try_subscribe(
        &mut self,
        place: usize,
        wanted: Wanted,
        principal: &Arc<Principal>,
    ) -> Result<Begun, Failure> {
        let Wanted {
            id,
            stream,
            filter,
            after,
            view,
            delegate,
            requires,
        } = wanted;
        holds(requires.as_deref(), principal)?;
        let connection = &self.connections[place];
        if connection.find(&id).is_some() {
            return Err(Failure::new(Code::DUPLICATE_ID, ""));
        }
        if connection.count() >= self.config.subscriptions_per_session_max {
            return Err(Failure::new(Code::SUBSCRIPTIONS, ""));
        }
        let restriction = connection.session.restriction.clone();
        if restriction
            .as_ref()
            .is_some_and(|only| only.stream.as_str() != stream)
        {
            return Err(Failure::new(Code::STREAM_FORBIDDEN, ""));
        }
        let stream = self.stream(&stream)?;
        let contract = Arc::clone(&self.contract.streams[stream]);
        // Whoever has no grant learns nothing of the stream, not even which attributes it has.
        let refused = |denied: Denied| Failure::new(denied.code, denied.detail);
        let mut filter = Grant::compile(&contract, principal)
            .map_err(refused)?
            .filter_from_json(&contract, &serde_json::Value::Object(filter))
            .map_err(|bad| Failure::new(bad.code, bad.detail))?;
        if let Some(only) = restriction {
            filter = within_ticket(&contract, &only.filter, &filter).map_err(refused)?;
        }
        let selection = self.select(stream, principal, &filter)?;
        let from = match after.as_deref() {
            None => None,
            Some(text) => Some(After::parse(
                text,
                &contract.name,
                &principal.tenant,
                &self.services.sealer,
            )?),
        };
        let subscription = Subscription {
            id,
            stream,
            filter,
            share: Share { selection, view },
            delegate,
            requires,
            place: Place::Lane(usize::MAX),
            told: 0,
        };
        let lane = self.begin_subscription(place, subscription, from.as_ref());
        // A gap that is to be told first has its own cursor; until it is read, the one that the reader brought is to come
        // back with.
        let cursor = match (from, after) {
            (Some(After::Cursor(_)), Some(brought)) if self.owes_gap(stream, lane) => {
                Some(Arc::from(brought))
            }
            _ => self.lane_cursor(stream, lane),
        };
        Ok(Begun { stream, lane, cursor })
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

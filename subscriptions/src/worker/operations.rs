//! GraphQL operations on a worker: compiled, answered or begun as subscriptions; and sessions that speak through the body
//! of a response, whose clients speak in other requests.

use std::rc::Rc;
use std::sync::Arc;

use auth::token::Principal;
use bytes::Bytes;
use schemas::problem::Code;
use serde_json::json;
use tokio::sync::oneshot;

use super::Worker;
use super::state::State;
use super::subscribing::Wanted;
use crate::close::Close;
use crate::graphql::{Bound, Prepared, Refused};
use crate::hub::{Failure, GraphqlFraming, GraphqlStream, GraphqlSubscribe};
use crate::outlet::Body;
use crate::protocol::graphql_ws::{Operation, Token};
use crate::protocol::said::Said;
use crate::protocol::{Framing, multipart};
use crate::session::may_delegate;
use crate::view::View;

/// What another request says to a session that speaks through the body of a response.
pub(crate) enum Order {
    /// Begin a subscription.
    Subscribe(GraphqlSubscribe),
    /// Give an operation its only result.
    Answer(String, Bytes),
    /// End an operation.
    Stop(String),
    /// Nothing: is it still there?
    Look,
}

/// A session whose response is open: where it is, its serial number, its bytes.
pub(crate) type Opened = (usize, u64, Body);

impl GraphqlSubscribe {
    fn wanted(self) -> Wanted {
        let Bound {
            stream,
            filter,
            after,
            projection,
            requires,
        } = *self.bound;
        let id = if self.id.is_empty() {
            Box::from("")
        } else {
            Box::from(json!(self.id).to_string())
        };
        Wanted {
            id,
            stream: stream.to_string(),
            filter,
            after,
            view: View::Graphql(projection),
            delegate: None,
            requires: (!requires.is_empty()).then_some(requires),
        }
    }
}

impl State {
    /// Begins an operation of a GraphQL socket.
    pub(super) fn operate(
        &mut self,
        place: usize,
        operation: Operation,
        principal: Arc<Principal>,
        delegate: Option<Arc<Principal>>,
    ) {
        let id = json!(operation.id).to_string();
        if self.connections[place].has(&id) {
            let reason = duplicate(&operation.id);
            return self.close_saying(place, Close::DUPLICATE, &reason);
        }
        let Some(graphql) = self.services.graphql.clone() else {
            return self.refuse(
                place,
                &id,
                &Failure::new(Code::UNSUPPORTED, "graphql is switched off"),
            );
        };
        let whose = delegate.as_ref().unwrap_or(&principal);
        match graphql.prepare(&operation.request, Some(whose)) {
            Err(refused) => self.refuse_operation(place, &id, &refused),
            Ok(Prepared::Answer(payload)) => self.say(
                place,
                &Said::Answer {
                    id: &id,
                    payload: &payload,
                },
            ),
            Ok(Prepared::Subscription(bound)) => {
                let subscribe = GraphqlSubscribe {
                    id: operation.id,
                    bound,
                };
                let mut wanted = subscribe.wanted();
                let principal = match delegate {
                    Some(delegate) => {
                        wanted.delegate = Some(Arc::clone(&delegate));
                        delegate
                    }
                    None => principal,
                };
                self.subscribe_when_ready(place, wanted, principal);
            }
        }
    }

    fn refuse_operation(&mut self, place: usize, id: &str, refused: &Refused) {
        self.metrics.refused(refused.code.name);
        self.say(
            place,
            &Said::Refused {
                id,
                errors: &refused.errors_json(),
            },
        );
    }

    /// Verifies whose operation it is, then begins it. So many may wait as a session may have subscriptions.
    pub(super) fn operate_for(&mut self, place: usize, operation: Operation, token: Token) {
        let Some(worker) = self.this.upgrade() else { return };
        let id = json!(operation.id).to_string();
        if self.connections[place].has(&id) {
            let reason = duplicate(&operation.id);
            return self.close_saying(place, Close::DUPLICATE, &reason);
        }
        if self.connections[place].waiting.len() >= self.config.subscriptions_per_session_max {
            return self.refuse(place, &id, &Failure::new(Code::SUBSCRIPTIONS, ""));
        }
        let number = self.serial();
        let connection = &mut self.connections[place];
        connection.wait(number, &id);
        let serial = connection.serial;
        let services = Arc::clone(&self.services);
        let task = self.tasks.spawn_local(async move {
            let now_ms = services.clock.now_ms();
            let verified = services.authenticator.verify(&token.0, now_ms).await;
            let mut state = worker.state.borrow_mut();
            let Some(connection) = state.connection(place, serial) else {
                return;
            };
            if !connection.waited(number) {
                return;
            }
            let Some(principal) = connection.session.principal.clone() else {
                return;
            };
            if connection.closing.is_some() {
                return;
            }
            match verified {
                // The connection's own token may have been renewed meanwhile.
                Ok(whose) if may_delegate(&principal) => {
                    state.operate(place, operation, principal, Some(whose));
                }
                Ok(_) => state.refuse(place, &id, &Failure::new(Code::UNAUTHENTICATED, "")),
                Err(bad) => state.refuse(place, &id, &Failure::new(bad.code, bad.detail)),
            }
        });
        self.connections[place].waits_for(number, task);
    }

    fn open_graphql(
        &mut self,
        stream: GraphqlStream,
        first: Option<GraphqlSubscribe>,
    ) -> Result<Opened, Failure> {
        if self.draining {
            return Err(Failure::new(Code::DRAINING, ""));
        }
        let GraphqlStream {
            framing,
            principal,
            restriction,
            permit,
        } = stream;
        let principal = self.admit(&principal)?;
        let framing = match framing {
            GraphqlFraming::SseDistinct => Framing::GraphqlSse,
            GraphqlFraming::SseSingle => Framing::GraphqlSseSingle,
            GraphqlFraming::Multipart => Framing::Multipart,
            GraphqlFraming::Lines => Framing::Lines,
        };
        let (place, serial, receiver) = self.open_body(Arc::clone(&principal), restriction, framing, permit);
        let mut head = Vec::new();
        match framing {
            Framing::Multipart => multipart::begin(&mut head),
            // A first byte opens the response for clients that wait for one.
            Framing::GraphqlSse | Framing::GraphqlSseSingle => framing.keep_alive(&mut head),
            _ => {}
        }
        self.write_control(place, &head);
        if let Some(first) = first
            && let Err(failure) = self.begin_ordered(place, first, &principal)
        {
            self.end(place);
            return Err(failure);
        }
        Ok((place, serial, receiver))
    }

    fn begin_ordered(
        &mut self,
        place: usize,
        subscribe: GraphqlSubscribe,
        principal: &Arc<Principal>,
    ) -> Result<(), Failure> {
        let wanted = subscribe.wanted();
        let (id, view) = (wanted.id.clone(), wanted.view.clone());
        let begun = self
            .try_subscribe(place, wanted, principal)
            .inspect_err(|failure| self.metrics.refused(failure.code.name))?;
        self.tell_beginning(place, &id, &view, begun.cursor.as_deref());
        self.say_if_stale(place, begun.stream, &id);
        self.run_lane(begun.stream, begun.lane);
        self.reschedule(place);
        Ok(())
    }

    /// A subscription of another request waits to begin. `Err(None)`: there is no such session.
    fn principal(&mut self, place: usize, serial: u64) -> Option<Arc<Principal>> {
        self.connection(place, serial)?.session.principal.clone()
    }

    fn hold_order(
        &mut self,
        place: usize,
        serial: u64,
        subscribe: &GraphqlSubscribe,
    ) -> Result<u64, Option<Failure>> {
        let most = self.config.subscriptions_per_session_max;
        let number = self.serial();
        let connection = self.connection(place, serial).ok_or(None)?;
        let id = json!(subscribe.id).to_string();
        if connection.has(&id) {
            return Err(Some(Failure::new(Code::DUPLICATE_ID, "")));
        }
        if connection.waiting.len() >= most {
            return Err(Some(Failure::new(Code::SUBSCRIPTIONS, "")));
        }
        connection.wait(number, &id);
        Ok(number)
    }

    /// What another request says. `false`: there is no such session or operation.
    fn order(&mut self, place: usize, serial: u64, order: Order) -> Result<bool, Failure> {
        let Some(connection) = self.connection(place, serial) else {
            return Ok(false);
        };
        if connection.closing.is_some() || connection.broken {
            return Ok(false);
        }
        let Some(principal) = connection.session.principal.clone() else {
            return Ok(false);
        };
        match order {
            Order::Look => {}
            Order::Subscribe(subscribe) => self.begin_ordered(place, subscribe, &principal)?,
            Order::Answer(id, payload) => {
                let id = json!(id).to_string();
                self.say(
                    place,
                    &Said::Answer {
                        id: &id,
                        payload: &payload,
                    },
                );
            }
            Order::Stop(id) => {
                let id = json!(id).to_string();
                if self.connections[place].give_up(&id) {
                    self.say(place, &Said::Unsubscribed { id: &id });
                    return Ok(true);
                }
                let Some(subscription) = self.connections[place].find(&id) else {
                    return Ok(false);
                };
                self.end_subscription(place, subscription);
                self.say(place, &Said::Unsubscribed { id: &id });
            }
        }
        Ok(true)
    }
}

/// The close reason of the reference server, cut to what a close frame may hold (RFC 6455, section 5.5).
fn duplicate(id: &str) -> String {
    let id: String = id.chars().filter(char::is_ascii_graphic).take(80).collect();
    format!("Subscriber for {id} already exists")
}

impl Worker {
    /// Opens a response that carries GraphQL results, when its stream is ready.
    pub(super) async fn open_graphql(
        self: Rc<Self>,
        stream: GraphqlStream,
        first: Option<GraphqlSubscribe>,
        reply: oneshot::Sender<Result<Opened, Failure>>,
    ) {
        let needed = match &first {
            Some(first) => self.ready(first.bound.stream.as_str(), &stream.principal).await,
            None => None,
        };
        let opened = self.state.borrow_mut().open_graphql(stream, first);
        drop(needed);
        let session = opened.as_ref().ok().map(|(place, serial, _)| (*place, *serial));
        // A request that was dropped meanwhile drops the receiver, which ends the session.
        let _dropped = reply.send(opened);
        if let Some((place, serial)) = session {
            self.drive_body(place, serial).await;
        }
    }

    /// Does what another request says.
    pub(super) async fn take_order(
        self: Rc<Self>,
        place: usize,
        serial: u64,
        order: Order,
        reply: oneshot::Sender<Result<bool, Failure>>,
    ) {
        let mut _needed = None;
        if let Order::Subscribe(subscribe) = &order {
            let number = match self.state.borrow_mut().hold_order(place, serial, subscribe) {
                Ok(number) => number,
                Err(failure) => {
                    let _dropped = reply.send(failure.map_or(Ok(false), Err));
                    return;
                }
            };
            let principal = self.state.borrow_mut().principal(place, serial);
            if let Some(principal) = principal {
                _needed = self.ready(subscribe.bound.stream.as_str(), &principal).await;
            }
            let mut state = self.state.borrow_mut();
            let goes_on = state
                .connection(place, serial)
                .is_some_and(|connection| connection.waited(number));
            // Ended by another request, or asked for by one that is gone.
            if !goes_on || reply.is_closed() {
                let _dropped = reply.send(Ok(goes_on));
                return;
            }
        }
        let done = self.state.borrow_mut().order(place, serial, order);
        let _dropped = reply.send(done);
    }
}

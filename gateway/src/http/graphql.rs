//! `/graphql` and its siblings: GraphQL for browsers and for routers, over every transport that they speak.
//!
//! The request is read here, its operation compiled by `subscriptions::graphql`, and events are the engine's. What is
//! decided here: who asks, in which form the answer is wanted, and with which status it is given. Nothing of a document,
//! its variables or its results is logged or counted.
//!
//! Without credentials a request is executed only where introspection is on: there the schema is public, and a query shows
//! nothing else. A subscription always needs somebody.

mod accept;
mod answer;
mod callback;
mod delegation;
mod host;
mod lines;
mod playground;
mod request;
mod reservations;
mod single;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::get as on_get;
use bytes::Bytes;
use http::header::UPGRADE;
use http::{HeaderMap, HeaderValue, Method};
use schemas::problem::Code;
use subscriptions::graphql::{self, Bound, OperationKind, Prepared, Refused, Schema};
use subscriptions::hub::{Failure, GraphqlFraming, GraphqlStream, GraphqlSubscribe};

pub(crate) use self::answer::with_charset;
pub use self::callback::{CallbackSettings, Callbacks};
pub use self::host::Host as CallbackHost;

use self::accept::{Accepted, Many, Single, Streamed};
use self::reservations::Reservations;
use super::credentials::Reader;
use super::problem::{Problem, method_not_allowed};
use super::{Gateway, streaming, websocket};

/// The methods of `/graphql`.
const METHODS: &str = "GET, POST";

/// What GraphQL over HTTP stands on.
pub struct Surface {
    /// Compiles operations.
    schema: Arc<Schema>,
    /// Whether the schema is public.
    introspection: bool,
    /// Whether browsers get GraphiQL.
    graphiql: bool,
    callbacks: Callbacks,
    reservations: Reservations,
}

impl Surface {
    /// Nobody subscribes yet.
    #[must_use]
    pub fn new(schema: Arc<Schema>, introspection: bool, graphiql: bool, callbacks: Callbacks) -> Self {
        Self {
            schema,
            introspection,
            graphiql,
            callbacks,
            reservations: Reservations::default(),
        }
    }
}

/// Why there is no result: told in GraphQL's way, or before GraphQL begins.
enum Unanswered {
    Refused(Refused),
    Problem(Problem),
}

impl From<Problem> for Unanswered {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl From<Refused> for Unanswered {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl From<Failure> for Unanswered {
    /// HTTP is told what a client should come back for; everything else is about the operation.
    fn from(failure: Failure) -> Self {
        if failure.code.retry {
            Self::Problem(failure.into())
        } else {
            Self::Refused(Refused::from_failure(&failure))
        }
    }
}

/// The routes, where GraphQL is served.
pub(crate) fn router(surface: &Surface) -> axum::Router<Arc<Gateway>> {
    let socket = || on_get(socket).fallback(|| async { method_not_allowed("GET") });
    let router = axum::Router::new()
        .route(
            "/graphql",
            on_get(get)
                .post(post)
                .fallback(|| async { wrong_method(METHODS) }),
        )
        .route(
            "/graphql/stream",
            on_get(single::get)
                .post(single::post)
                .put(single::put)
                .delete(single::delete)
                .fallback(|| async { wrong_method("GET, POST, PUT, DELETE") }),
        )
        .route("/graphql/ws", socket())
        // Where routers look for a subgraph's socket if nobody tells them.
        .route("/ws", socket());
    if surface.graphiql {
        router.merge(playground::router())
    } else {
        router
    }
}

/// `GET /graphql/ws`, and the path where routers expect it.
async fn socket(State(gateway): State<Arc<Gateway>>, request: Request) -> Result<Response, Problem> {
    gateway.graphql()?;
    websocket::upgrade_graphql(&gateway, request).await
}

/// `GET /graphql`.
pub(crate) async fn get(State(gateway): State<Arc<Gateway>>, request: Request) -> Response {
    let accepted = Accepted::of(request.headers());
    if request.headers().contains_key(UPGRADE) {
        let upgraded = websocket::upgrade_graphql(&gateway, request).await;
        return upgraded.unwrap_or_else(|problem| answer::problem(&accepted, problem));
    }
    if request.method() != Method::GET {
        return wrong_method(METHODS);
    }
    let is_bare = request
        .uri()
        .query()
        .is_none_or(|query| !query.contains("query="));
    if accepted.is_for_people() && is_bare && gateway.graphql.as_ref().is_some_and(|surface| surface.graphiql)
    {
        return playground::page(request.headers());
    }
    let read = request::from_query(request.uri().query());
    let headers = request.headers();
    let answered = match read {
        Ok((request, ticket)) => execute(&gateway, headers, &accepted, request, ticket, true).await,
        Err(problem) => Err(problem.into()),
    };
    finish(&gateway, &accepted, answered)
}

/// `POST /graphql`.
pub(crate) async fn post(State(gateway): State<Arc<Gateway>>, request: Request) -> Response {
    let accepted = Accepted::of(request.headers());
    let headers = request.headers().clone();
    let answered = async {
        let ticket = request::ticket(request.uri().query())?;
        let request = request::from_body(request, &gateway.limits).await?;
        execute(&gateway, &headers, &accepted, request, ticket, false).await
    };
    let answered = answered.await;
    finish(&gateway, &accepted, answered)
}

async fn execute(
    gateway: &Arc<Gateway>,
    headers: &HeaderMap,
    accepted: &Accepted,
    request: graphql::Request,
    ticket: Option<String>,
    is_get: bool,
) -> Result<Response, Unanswered> {
    let surface = gateway.graphql()?;
    gateway.admitting()?;
    let caller = gateway.origins.judge(headers);
    let sender = gateway.identify(headers, ticket.as_deref(), &caller).await?;
    if is_get && delegation::is_for_another(&request) {
        return Err(delegation::refused("extensions.authorization is for POST: addresses are logged").into());
    }
    let reader = gateway.spoken_for(&request, sender).await?;
    if reader.is_none() && !surface.introspection {
        return Err(nobody().into());
    }
    if is_get && surface.schema.kind(&request)? == OperationKind::Mutation {
        let problem = Problem::new(Code::METHOD_NOT_ALLOWED, "mutations are not executed by GET");
        return Err(problem
            .with(http::header::ALLOW, HeaderValue::from_static("POST"))
            .into());
    }
    let principal = reader.as_ref().map(|reader| &*reader.principal);
    let mut bound = match surface.schema.prepare(&request, principal)? {
        Prepared::Answer(result) => {
            let single = accepted.single().ok_or_else(not_acceptable)?;
            return Ok(answer::result(single, result));
        }
        Prepared::Subscription(bound) => bound,
    };
    let reader = reader.ok_or_else(nobody)?;
    let many = accepted.many().ok_or_else(subscription_not_acceptable)?;
    if let Some(cursor) = last_event_id(headers)? {
        bound.after = Some(cursor);
    }
    match many {
        Many::Streamed(streamed) => stream(gateway, reader, bound, streamed).await,
        Many::Callback => {
            let expiry = callback::Expiry {
                clock: gateway.clock,
                at_ms: reader.principal.expires_at_ms,
            };
            let router = surface.callbacks.router(&request.extensions, expiry)?;
            let control = gateway.authenticator.control().clone();
            let router = router.judged_by(control, Arc::clone(&reader.principal));
            call_back(gateway, surface, reader, bound, router).await
        }
    }
}

/// A subscription whose results are this answer's body.
async fn stream(
    gateway: &Gateway,
    reader: Reader,
    bound: Box<Bound>,
    streamed: Streamed,
) -> Result<Response, Unanswered> {
    let framing = match streamed {
        Streamed::Events => GraphqlFraming::SseDistinct,
        Streamed::Multipart => GraphqlFraming::Multipart,
    };
    let stream = admit(gateway, reader, framing)?;
    let body = open(gateway, stream, bound).await?;
    Ok(answer::over_time(streamed, streaming::response(body, ())))
}

/// A subscription whose results are posted to a router. It is asked only for who may subscribe, and holds their place.
async fn call_back(
    gateway: &Gateway,
    surface: &Surface,
    reader: Reader,
    bound: Box<Bound>,
    router: callback::Router,
) -> Result<Response, Unanswered> {
    gateway
        .stream(bound.stream.as_str(), &reader)
        .map_err(|problem| Failure::new(problem.code, problem.detail))?;
    let stream = admit(gateway, reader, GraphqlFraming::Lines)?;
    surface.callbacks.check(&router).await?;
    let chunks = open(gateway, stream, bound).await?;
    surface.callbacks.begin(router, chunks);
    let mut response = answer::result(Single::Json, Bytes::from_static(b"{\"data\":null}"));
    response
        .headers_mut()
        .insert(callback::PROTOCOL, callback::CALLBACK_1);
    Ok(response)
}

/// A place for a session of the reader's, with what its ticket leaves it.
fn admit(gateway: &Gateway, reader: Reader, framing: GraphqlFraming) -> Result<GraphqlStream, Problem> {
    let restriction = gateway.restriction(&reader)?;
    let permit = gateway
        .quotas
        .admit(&reader.principal)
        .map_err(|code| Problem::new(code, ""))?;
    Ok(GraphqlStream {
        framing,
        principal: reader.principal,
        restriction,
        permit,
    })
}

async fn open(
    gateway: &Gateway,
    stream: GraphqlStream,
    bound: Box<Bound>,
) -> Result<subscriptions::hub::Body, Unanswered> {
    let first = GraphqlSubscribe {
        id: String::new(),
        bound,
    };
    let (_handle, chunks) = gateway.hub.open_graphql(stream, Some(first)).await?;
    Ok(chunks)
}

/// Counts an answer, and gives what is none its form.
fn finish(gateway: &Gateway, accepted: &Accepted, answered: Result<Response, Unanswered>) -> Response {
    let transport = match (accepted.many(), accepted.single()) {
        (Some(Many::Callback), _) => "callback",
        (_, Some(Single::Streamed(Streamed::Events))) | (Some(Many::Streamed(Streamed::Events)), _) => "sse",
        (_, Some(Single::Streamed(Streamed::Multipart))) | (Some(Many::Streamed(Streamed::Multipart)), _) => {
            "multipart"
        }
        _ => "http",
    };
    let (outcome, response) = match answered {
        Ok(response) => ("ok", response),
        Err(Unanswered::Problem(problem)) => (problem.code.name, answer::problem(accepted, problem)),
        Err(Unanswered::Refused(refused)) => {
            let single = match accepted.many() {
                Some(Many::Streamed(streamed)) => Some(Single::Streamed(streamed)),
                _ => None,
            };
            // A document that cannot be read may have been anything: the form for one result is for all of them.
            let single = accepted.single().or(single).unwrap_or(Single::Json);
            (refused.code.name, answer::refused(single, &refused))
        }
    };
    gateway.metrics.graphql(transport, outcome);
    response
}

/// A browser's own reconnect beats what its address says.
fn last_event_id(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    match headers.get("last-event-id").map(HeaderValue::to_str) {
        None | Some(Ok("")) => Ok(None),
        Some(Ok(text)) => Ok(Some(text.to_owned())),
        Some(Err(_)) => Err(Problem::new(Code::CURSOR_INVALID, "Last-Event-ID is no cursor")),
    }
}

fn nobody() -> Problem {
    Problem::new(
        Code::UNAUTHENTICATED,
        "a bearer token, a ticket or the cookie is needed",
    )
}

fn not_acceptable() -> Problem {
    Problem::new(
        Code::NOT_ACCEPTABLE,
        "offered here: application/graphql-response+json, application/json, text/event-stream and multipart/mixed;subscriptionSpec=1.0",
    )
}

fn subscription_not_acceptable() -> Problem {
    Problem::new(
        Code::NOT_ACCEPTABLE,
        "a subscription is offered as text/event-stream, multipart/mixed;subscriptionSpec=1.0 or application/json;callbackSpec=1.0, and over WebSocket at /graphql/ws",
    )
}

fn wrong_method(allow: &'static str) -> Response {
    method_not_allowed(allow).into_graphql(accept::JSON)
}

impl Gateway {
    /// The GraphQL surface, where there is one.
    fn graphql(&self) -> Result<&Surface, Problem> {
        self.graphql.as_deref().ok_or_else(super::problem::not_found)
    }
}

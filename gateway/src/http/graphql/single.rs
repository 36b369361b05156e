//! `/graphql/stream`: single connection mode of GraphQL over SSE, for pages on HTTP/1.1, where six connections are all
//! that a browser opens. `PUT` reserves, `GET` opens, `POST` begins an operation, `DELETE` ends one.
//!
//! Without a token the path is `/graphql` under another name (distinct connections mode).

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode};
use schemas::problem::Code;
use subscriptions::graphql::{Prepared, Refused};
use subscriptions::hub::{Failure, GraphqlFraming, GraphqlStream, GraphqlSubscribe};

use super::accept::{Accepted, Streamed};
use super::reservations::{UNOPENED_MAX, Unusable};
use super::{answer, delegation, request};
use crate::http::problem::{Problem, method_not_allowed};
use crate::http::query::Parameters;
use crate::http::{Gateway, streaming};

const TOKEN: &str = "x-graphql-event-stream-token";
/// What a client may call an operation, in bytes.
const OPERATION_ID_BYTES_MAX: usize = 128;

/// The token is not one that the caller can use.
const RESERVATION_UNKNOWN: Code = Code {
    name: "reservation_unknown",
    status: 404,
    title: "the reservation does not exist or is over",
    retry: false,
};
/// The stream of the token is open, or is not open yet.
const RESERVATION_STATE: Code = Code {
    name: "reservation_state",
    status: 409,
    title: "the reservation's stream is not in the state for that",
    retry: false,
};

/// `PUT`: a token.
pub(crate) async fn put(State(gateway): State<Arc<Gateway>>, request: Request) -> Response {
    let (head, _) = request.into_parts();
    let answered = reserve(&gateway, &head).await;
    counted(&gateway, &head.headers, answered)
}

/// `GET`: the stream.
pub(crate) async fn get(State(gateway): State<Arc<Gateway>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let Some(token) = token(&head) else {
        return super::get(State(gateway), Request::from_parts(head, body)).await;
    };
    let answered = open(&gateway, &head, &token).await;
    counted(&gateway, &head.headers, answered)
}

/// `POST`: an operation.
pub(crate) async fn post(State(gateway): State<Arc<Gateway>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let found = token(&head);
    let headers = head.headers.clone();
    let request = Request::from_parts(head, body);
    let Some(token) = found else {
        return super::post(State(gateway), request).await;
    };
    let answered = operate(&gateway, request, &token).await;
    counted(&gateway, &headers, answered)
}

/// `DELETE`: the end of an operation.
pub(crate) async fn delete(State(gateway): State<Arc<Gateway>>, request: Request) -> Response {
    let (head, _) = request.into_parts();
    let answered = stop(&gateway, &head).await;
    counted(&gateway, &head.headers, answered)
}

async fn reserve(gateway: &Arc<Gateway>, head: &Parts) -> Result<Response, Problem> {
    let surface = gateway.graphql()?;
    gateway.admitting()?;
    Parameters::none(head.uri.query())?;
    let caller = gateway.origins.judge(&head.headers);
    let reader = gateway.reader(&head.headers, None).await?;
    let permit = gateway
        .quotas
        .admit(&reader.principal)
        .map_err(|code| Problem::new(code, ""))?;
    let token = surface.reservations.reserve(reader, caller, permit);
    let (owner, spent) = (Arc::clone(gateway), token.clone());
    gateway.upgrades.spawn(async move {
        let is_draining = owner.drain.clone();
        tokio::select! {
            () = tokio::time::sleep(UNOPENED_MAX) => {}
            () = is_draining.cancelled() => {}
        }
        if let Ok(surface) = owner.graphql() {
            surface.reservations.expire(&spent);
        }
    });
    let headers = [
        (
            CONTENT_TYPE,
            HeaderValue::from_static("text/plain; charset=utf-8"),
        ),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    Ok((StatusCode::CREATED, headers, token).into_response())
}

async fn open(gateway: &Arc<Gateway>, head: &Parts, token: &str) -> Result<Response, Problem> {
    let surface = gateway.graphql()?;
    if head.method == http::Method::HEAD {
        return Err(method_not_allowed("GET, POST, PUT, DELETE"));
    }
    gateway.admitting()?;
    let caller = gateway.origins.judge(&head.headers);
    let ticket = request::ticket(head.uri.query())?;
    // EventSource has no headers to say who it is: the token is its ticket then.
    let reader = gateway
        .identify(&head.headers, ticket.as_deref(), &caller)
        .await?;
    let (permit, reader) = surface
        .reservations
        .begin(token, reader.as_ref(), &caller)
        .map_err(unusable)?;
    // From here on the token ends with the stream, or with the attempt.
    let held = Held {
        gateway: Arc::clone(gateway),
        token: token.to_owned(),
    };
    let restriction = gateway.restriction(&reader)?;
    let stream = GraphqlStream {
        framing: GraphqlFraming::SseSingle,
        principal: reader.principal,
        restriction,
        permit,
    };
    let (handle, body) = gateway.hub.open_graphql(stream, None).await?;
    surface.reservations.opened(token, handle);
    Ok(answer::over_time(
        Streamed::Events,
        streaming::response(body, held),
    ))
}

async fn operate(gateway: &Arc<Gateway>, request: Request, token: &str) -> Result<Response, Problem> {
    let surface = gateway.graphql()?;
    gateway.admitting()?;
    // No ticket begins an operation. What the stream's own is restricted to, the engine asks of every operation on it.
    let reader = gateway.reader(request.headers(), None).await?;
    let (handle, owner) = surface
        .reservations
        .find(token, &reader.principal)
        .map_err(unusable)?;
    let request = request::from_body(request, &gateway.limits).await?;
    if delegation::is_for_another(&request) {
        return Err(delegation::refused(
            "a single connection speaks for its own principal only",
        ));
    }
    let id = request
        .extensions
        .get("operationId")
        .and_then(serde_json::Value::as_str)
        .filter(|id| !id.is_empty() && id.len() <= OPERATION_ID_BYTES_MAX)
        .ok_or_else(|| {
            let detail =
                format!("extensions.operationId is a string of at most {OPERATION_ID_BYTES_MAX} bytes");
            Problem::new(Code::BODY_INVALID, detail)
        })?
        .to_owned();
    // The stream's own principal: the engine asks no other.
    let refused = match surface.schema.prepare(&request, Some(&owner.principal)) {
        Ok(Prepared::Answer(payload)) => {
            if handle.answer(&id, payload).await {
                return Ok(StatusCode::ACCEPTED.into_response());
            }
            return Err(unusable(Unusable::Unknown));
        }
        Ok(Prepared::Subscription(bound)) => {
            let subscribe = GraphqlSubscribe {
                id: id.clone(),
                bound,
            };
            match handle.subscribe(subscribe).await {
                Ok(()) => return Ok(StatusCode::ACCEPTED.into_response()),
                Err(failure) if is_http(&failure) => return Err(failure.into()),
                Err(failure) => Refused::from_failure(&failure),
            }
        }
        Err(refused) => refused,
    };
    gateway.metrics.refused(refused.code.name);
    let payload = format!(r#"{{"errors":{}}}"#, refused.errors_json());
    if handle.answer(&id, Bytes::from(payload)).await {
        Ok(StatusCode::ACCEPTED.into_response())
    } else {
        Err(unusable(Unusable::Unknown))
    }
}

async fn stop(gateway: &Arc<Gateway>, head: &Parts) -> Result<Response, Problem> {
    let surface = gateway.graphql()?;
    let reader = gateway.reader(&head.headers, None).await?;
    let token = token(head).ok_or_else(|| unusable(Unusable::Unknown))?;
    let (handle, _) = surface
        .reservations
        .find(&token, &reader.principal)
        .map_err(unusable)?;
    let id = parameter(head, "operationId")
        .ok_or_else(|| Problem::new(Code::PARAMETER_INVALID, "operationId is missing"))?;
    // One that has ended by itself meanwhile is as well.
    let _was_there = handle.stop(&id).await;
    Ok(StatusCode::OK.into_response())
}

/// Told by a status, because the operation's id is not the operation's, or the client should come again.
fn is_http(failure: &Failure) -> bool {
    failure.code.retry
        || matches!(
            failure.code,
            Code::DUPLICATE_ID | Code::UNKNOWN_ID | Code::SUBSCRIPTIONS
        )
}

fn unusable(why: Unusable) -> Problem {
    match why {
        Unusable::Unknown => Problem::new(RESERVATION_UNKNOWN, ""),
        Unusable::Opened => Problem::new(RESERVATION_STATE, "its stream is open already"),
        Unusable::NotOpened => Problem::new(RESERVATION_STATE, "open its stream first"),
    }
}

fn token(head: &Parts) -> Option<String> {
    match head.headers.get(TOKEN) {
        Some(token) => token.to_str().ok().map(str::to_owned),
        None => parameter(head, "token"),
    }
}

fn parameter(head: &Parts, name: &str) -> Option<String> {
    url::form_urlencoded::parse(head.uri.query().unwrap_or_default().as_bytes())
        .find(|(have, _)| have == name)
        .map(|(_, value)| value.into_owned())
}

fn counted(gateway: &Gateway, headers: &HeaderMap, answered: Result<Response, Problem>) -> Response {
    let outcome = answered
        .as_ref()
        .map_or_else(|problem| problem.code.name, |_| "ok");
    gateway.metrics.graphql("sse_single", outcome);
    answered.unwrap_or_else(|problem| answer::problem(&Accepted::of(headers), problem))
}

/// What an open stream holds: its token, which is forgotten with it.
struct Held {
    gateway: Arc<Gateway>,
    token: String,
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(surface) = &self.gateway.graphql {
            surface.reservations.forget(&self.token);
        }
    }
}

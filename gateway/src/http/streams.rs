//! `/v1/streams/{stream}`: one resource, as server-sent events or as pages.
//!
//! The order of the checks is part of the promise: nothing about a stream is said to somebody without a grant on it.

use std::sync::Arc;

use auth::access::{Grant, within_ticket};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use http::{HeaderMap, Method};
use schemas::contract::Stream;
use schemas::filter::Predicate;
use schemas::problem::Code;
use serde_json::{Map, Value};
use subscriptions::hub::{After, Reading};

use super::credentials::Reader;
use super::problem::{Problem, method_not_allowed};
use super::query::{self, Parameters};
use super::{Gateway, accept, body, pull, sse};

/// `GET`: events or a page, by `Accept`.
pub(crate) async fn get(
    State(gateway): State<Arc<Gateway>>,
    name: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    gateway.admitting()?;
    let headers = request.headers();
    let form =
        accept::choose(headers, &[accept::BATCH, accept::JSON, accept::EVENT_STREAM]).ok_or_else(|| {
            not_acceptable("text/event-stream, application/cloudevents-batch+json and application/json")
        })?;
    let parameters = Parameters::parse(request.uri().query())?;
    let reader = gateway.reader(headers, parameters.ticket.as_deref()).await?;
    let stream = gateway.stream(&named(name)?, &reader)?;
    let pairs = parameters
        .filters
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    let filter = Grant::compile(&stream, &reader.principal)?.filter_from_query(&stream, pairs)?;
    if form != accept::EVENT_STREAM {
        let after = gateway.after(parameters.after.as_deref(), &stream, &reader)?;
        let reading = reading(stream, &reader, &filter, after)?;
        return pull::page(&gateway, headers, form, parameters, reading).await;
    }
    if request.method() == Method::HEAD {
        return Err(method_not_allowed("GET, POST"));
    }
    if parameters.limit.is_some() || parameters.wait.is_some() {
        return Err(Problem::new(
            Code::PARAMETER_INVALID,
            "limit and wait are for pages, not for server-sent events",
        ));
    }
    let after = gateway.resume(headers, parameters.after.as_deref(), &stream, &reader)?;
    sse::open(&gateway, reading(stream, &reader, &filter, after)?).await
}

/// `POST`: events, with a filter that must not be in a URL.
pub(crate) async fn post(
    State(gateway): State<Arc<Gateway>>,
    name: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    gateway.admitting()?;
    accept::choose(request.headers(), &[accept::EVENT_STREAM])
        .ok_or_else(|| not_acceptable(accept::EVENT_STREAM))?;
    let ticket = Parameters::ticket_only(request.uri().query())?;
    let headers = request.headers().clone();
    let reader = gateway.reader(&headers, ticket.as_deref()).await?;
    let stream = gateway.stream(&named(name)?, &reader)?;
    let mut members = body::object(request, &gateway.limits).await?;
    let after = body::text(&mut members, "after")?;
    let filter = match members.remove("where") {
        None => Predicate::default(),
        Some(filter) => Grant::compile(&stream, &reader.principal)?.filter_from_json(&stream, &filter)?,
    };
    refuse_later(&mut members)?;
    body::finish(&members)?;
    let after = gateway.resume(&headers, after.as_deref(), &stream, &reader)?;
    sse::open(&gateway, reading(stream, &reader, &filter, after)?).await
}

/// The stream's name in the path. What is not even text is no stream's.
fn named(name: Result<Path<String>, PathRejection>) -> Result<String, Problem> {
    name.map(|Path(name)| name)
        .map_err(|_| Problem::new(Code::STREAM_FORBIDDEN, ""))
}

impl Gateway {
    /// The stream, if the reader has a grant on it. An unknown one and a forbidden one look the same.
    pub(crate) fn stream(&self, name: &str, reader: &Reader) -> Result<Arc<Stream>, Problem> {
        let forbidden = || Problem::new(Code::STREAM_FORBIDDEN, "");
        let stream = self.hub.contract().stream(name).ok_or_else(forbidden)?;
        if reader.stream.as_ref().is_some_and(|only| *only != stream.name) {
            return Err(forbidden());
        }
        Grant::compile(stream, &reader.principal).map_err(|denied| {
            if denied.code == Code::STREAM_FORBIDDEN {
                forbidden()
            } else {
                denied.into()
            }
        })?;
        Ok(Arc::clone(stream))
    }

    /// Where a reader goes on: `Last-Event-ID` beats `after`, because a browser reconnects to the URL that it had.
    fn resume(
        &self,
        headers: &HeaderMap,
        after: Option<&str>,
        stream: &Stream,
        reader: &Reader,
    ) -> Result<After, Problem> {
        let last = match headers.get("last-event-id").map(http::HeaderValue::to_str) {
            None | Some(Ok("")) => None,
            Some(Ok(text)) => Some(text),
            Some(Err(_)) => return Err(Problem::new(Code::CURSOR_INVALID, "Last-Event-ID is no cursor")),
        };
        self.after(last.or(after), stream, reader)
    }

    fn after(&self, text: Option<&str>, stream: &Stream, reader: &Reader) -> Result<After, Problem> {
        let Some(text) = text else {
            return Ok(After::Latest);
        };
        Ok(After::parse(
            text,
            &stream.name,
            &reader.principal.tenant,
            &self.sealer,
        )?)
    }
}

/// What is read: the reader's own filter within the ticket's.
fn reading(
    stream: Arc<Stream>,
    reader: &Reader,
    filter: &Predicate,
    after: After,
) -> Result<Reading, Problem> {
    let filter = match &reader.filter {
        None => filter.clone(),
        Some(restriction) => within_ticket(&stream, &Predicate::from_json(&stream, restriction)?, filter)?,
    };
    Ok(Reading {
        stream,
        principal: Arc::clone(&reader.principal),
        filter,
        after,
    })
}

fn refuse_later(members: &mut Map<String, Value>) -> Result<(), Problem> {
    if let Some(policy) = body::text(members, "overflow")? {
        query::overflow(&policy)?;
    }
    for name in query::LATER {
        if members
            .remove(name)
            .is_some_and(|value| value != Value::Bool(false))
        {
            return Err(Problem::new(
                Code::UNSUPPORTED,
                format!("{name} comes with a later version"),
            ));
        }
    }
    Ok(())
}

fn not_acceptable(offers: &str) -> Problem {
    Problem::new(Code::NOT_ACCEPTABLE, format!("offered here: {offers}"))
}

//! `GET /v1/streams`: what the caller may read, and with which filters. A stream without a grant is not named.

use std::sync::Arc;

use auth::access::{self, Granted};
use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::header::CACHE_CONTROL;
use serde::Serialize;

use super::problem::Problem;
use super::query::Parameters;
use super::websocket::TIDEWIRE_V1;
use super::{Gateway, accept};

#[derive(Serialize)]
struct Catalogue {
    streams: Vec<Entry>,
}

#[derive(Serialize)]
struct Entry {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    schema: Option<String>,
    /// The event types begin so; `created`, `changed`, ... follow.
    event_type: String,
    /// What this caller may filter by.
    attributes: Vec<Filterable>,
    formats: [&'static str; 4],
    urls: Urls,
    /// Whether this node knows every partition that exists: readers are let in.
    complete: bool,
}

#[derive(Serialize)]
struct Filterable {
    name: String,
    /// Whether values are references: `https://x/Patient/1/_history/2` equals `Patient/1`.
    reference: bool,
}

#[derive(Serialize)]
struct Urls {
    events: String,
    websocket: &'static str,
}

/// Lists the streams.
pub(crate) async fn get(State(gateway): State<Arc<Gateway>>, request: Request) -> Result<Response, Problem> {
    let ticket = Parameters::ticket_only(request.uri().query())?;
    let reader = gateway.reader(request.headers(), ticket.as_deref()).await?;
    let entries = access::granted(gateway.hub.contract(), &reader.principal)
        .into_iter()
        .filter(|known| {
            reader
                .stream
                .as_ref()
                .is_none_or(|only| *only == known.stream.name)
        })
        .map(|known| entry(&known, gateway.hub.is_known(&known.stream.name)));
    let catalogue = Catalogue {
        streams: entries.collect(),
    };
    Ok(([(CACHE_CONTROL, "no-store")], Json(catalogue)).into_response())
}

fn entry(known: &Granted, complete: bool) -> Entry {
    let stream = &known.stream;
    let attributes = known
        .filterable
        .iter()
        .filter_map(|id| stream.attributes.get(usize::from(id.0)));
    Entry {
        name: stream.name.to_string(),
        description: stream.description.clone(),
        schema: stream.schema.clone(),
        event_type: format!("{}.{}", stream.type_prefix, stream.name),
        attributes: attributes
            .map(|attribute| Filterable {
                name: attribute.name.to_string(),
                reference: attribute.reference,
            })
            .collect(),
        formats: [accept::EVENT_STREAM, accept::BATCH, accept::JSON, TIDEWIRE_V1],
        urls: Urls {
            events: format!("/v1/streams/{}", stream.name),
            websocket: "/v1/ws",
        },
        complete,
    }
}

//! Replays of an endpoint: begun, listed and ended.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use http::header::LOCATION;
use http::{HeaderValue, StatusCode};
use schemas::docs::openapi::Operation;
use serde_json::json;

use super::super::problem::{Problem, not_found};
use super::super::query::Parameters;
use super::super::{Gateway, body};
use super::fields::Fields;
use super::{answer, endpoint_id};
use crate::webhooks::desk::Wish;

/// Begins one.
pub(crate) async fn begin(
    State(gateway): State<Arc<Gateway>>,
    id: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let partner = gateway.partner(request.headers(), Operation::BeginReplay).await?;
    Parameters::none(request.uri().query())?;
    let id = endpoint_id(id)?;
    let mut fields = Fields::new(body::object(request, &gateway.limits).await?);
    let wish = Wish {
        from: fields.needed("from"),
        until: fields.text("until"),
        stream: fields.text("stream"),
    };
    fields.finish()?;
    let replay = partner.desk.replay(partner.tenant(), &id, &wish).await?;
    Ok(begun(&replay, &format!("/v1/webhooks/endpoints/{id}/replays")))
}

/// Lists them.
pub(crate) async fn list(
    State(gateway): State<Arc<Gateway>>,
    id: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let partner = gateway.partner(request.headers(), Operation::ListReplays).await?;
    Parameters::none(request.uri().query())?;
    let replays = partner.desk.replays(partner.tenant(), &endpoint_id(id)?).await?;
    Ok(answer(StatusCode::OK, replays))
}

/// Ends one.
pub(crate) async fn cancel(
    State(gateway): State<Arc<Gateway>>,
    ids: Result<Path<(String, String)>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let partner = gateway
        .partner(request.headers(), Operation::CancelReplay)
        .await?;
    Parameters::none(request.uri().query())?;
    let Path((id, replay)) = ids.map_err(|_| not_found())?;
    let id = endpoint_id(Ok(Path(id)))?;
    partner.desk.cancel_replay(partner.tenant(), &id, &replay).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// The answer to something that has begun, and where it can be looked at.
pub(super) fn begun(replay: &str, location: &str) -> Response {
    let mut response = answer(StatusCode::ACCEPTED, json!({ "id": replay }));
    if let Ok(location) = HeaderValue::try_from(location) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

//! What is asked of one endpoint besides its own state: tests, handshakes, health, and the cursor.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use http::{HeaderValue, StatusCode};
use schemas::docs::openapi::Operation;
use serde_json::json;

use super::super::problem::Problem;
use super::super::pull::CURSOR;
use super::super::query::{self, Parameters};
use super::super::{Gateway, body};
use super::conditions::with_tag;
use super::fields::Fields;
use super::{answer, endpoint_id};

type Id = Result<Path<String>, PathRejection>;

/// Sends a test.
pub(crate) async fn test(
    State(gateway): State<Arc<Gateway>>,
    id: Id,
    request: Request,
) -> Result<Response, Problem> {
    let partner = gateway
        .partner(request.headers(), Operation::TestEndpoint)
        .await?;
    Parameters::none(request.uri().query())?;
    let id = endpoint_id(id)?;
    let mut fields = Fields::new(body::optional(request, &gateway.limits).await?);
    let stream = fields.text("stream");
    fields.finish()?;
    let result = partner
        .desk
        .test(partner.tenant(), &id, stream.as_deref())
        .await?;
    Ok(answer(StatusCode::OK, result))
}

/// Asks the receiver for its consent.
pub(crate) async fn handshake(
    State(gateway): State<Arc<Gateway>>,
    id: Id,
    request: Request,
) -> Result<Response, Problem> {
    let partner = gateway.partner(request.headers(), Operation::AskEndpoint).await?;
    Parameters::none(request.uri().query())?;
    let id = endpoint_id(id)?;
    Fields::new(body::optional(request, &gateway.limits).await?).finish()?;
    let asked = partner.desk.handshake(partner.tenant(), &id).await?;
    let result = json!({
        "outcome": asked.outcome, "status": asked.status, "endpoint": asked.endpoint.to_json(),
    });
    Ok(with_tag(answer(StatusCode::OK, result), &asked.endpoint.etag()))
}

/// How it does.
pub(crate) async fn health(
    State(gateway): State<Arc<Gateway>>,
    id: Id,
    request: Request,
) -> Result<Response, Problem> {
    let partner = gateway.partner(request.headers(), Operation::ReadHealth).await?;
    Parameters::none(request.uri().query())?;
    let health = partner.desk.health(partner.tenant(), &endpoint_id(id)?).await?;
    Ok(answer(StatusCode::OK, health))
}

/// From where on everything unsettled follows.
pub(crate) async fn cursor(
    State(gateway): State<Arc<Gateway>>,
    id: Id,
    request: Request,
) -> Result<Response, Problem> {
    let partner = gateway.partner(request.headers(), Operation::ReadCursor).await?;
    let parameters = query::only(request.uri().query(), &["stream"])?;
    let stream = parameters.first().map(|(_, stream)| stream.as_str());
    let id = endpoint_id(id)?;
    let (stream, cursor) = partner.desk.cursor(partner.tenant(), &id, stream).await?;
    let shown = json!({ "stream": stream.name.as_str(), "cursor": cursor });
    let mut response = answer(StatusCode::OK, shown);
    if let Ok(cursor) = HeaderValue::try_from(cursor) {
        response.headers_mut().insert(CURSOR, cursor);
    }
    Ok(response)
}

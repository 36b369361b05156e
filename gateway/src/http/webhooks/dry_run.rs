//! Dry runs: what would be sent, to an endpoint or to one that does not exist yet.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use http::StatusCode;
use schemas::docs::openapi::Operation;

use super::super::problem::Problem;
use super::super::query::Parameters;
use super::super::{Gateway, body};
use super::fields::Fields;
use super::{answer, endpoint_id};
use crate::webhooks::desk::DRY_RUN_EVENTS_MAX;

/// Of an endpoint.
pub(crate) async fn of_endpoint(
    State(gateway): State<Arc<Gateway>>,
    id: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let partner = gateway
        .partner(request.headers(), Operation::DryRunEndpoint)
        .await?;
    Parameters::none(request.uri().query())?;
    let id = endpoint_id(id)?;
    let mut fields = Fields::new(body::optional(request, &gateway.limits).await?);
    let (stream, events) = (fields.text("stream"), events(&mut fields));
    fields.finish()?;
    let result = partner
        .desk
        .dry_run(&partner.principal, &id, stream.as_deref(), events)
        .await?;
    Ok(answer(StatusCode::OK, result))
}

/// Of a specification.
pub(crate) async fn of_specification(
    State(gateway): State<Arc<Gateway>>,
    request: Request,
) -> Result<Response, Problem> {
    let partner = gateway
        .partner(request.headers(), Operation::DryRunSpecification)
        .await?;
    Parameters::none(request.uri().query())?;
    let mut fields = Fields::new(body::object(request, &gateway.limits).await?);
    let (stream, events) = (fields.text("stream"), events(&mut fields));
    let specification = fields.value("specification");
    fields.finish()?;
    let result = partner
        .desk
        .dry_run_of(&partner.principal, &specification, stream.as_deref(), events)
        .await?;
    Ok(answer(StatusCode::OK, result))
}

/// How many events are looked at: ten, where nothing is said.
fn events(fields: &mut Fields) -> usize {
    let events = fields.number("events", 1, DRY_RUN_EVENTS_MAX as u64);
    events.map_or(10, |events| usize::try_from(events).unwrap_or(DRY_RUN_EVENTS_MAX))
}

//! `/v1/webhooks/endpoints` and one of them: made, listed, read, changed, removed, switched and rotated.

use std::sync::Arc;
use std::time::Duration;

use ::webhooks::delivery::EndpointId;
use ::webhooks::endpoint::Endpoint;
use ::webhooks::store::Idempotency;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use http::header::LOCATION;
use http::{HeaderMap, HeaderValue, StatusCode};
use schemas::docs::openapi::Operation;
use schemas::problem::Code;
use serde_json::{Value, json};

use super::super::problem::Problem;
use super::super::query::{self, Parameters};
use super::super::{Gateway, body};
use super::conditions::{condition, required, tagged, with_tag};
use super::fields::Fields;
use super::{PAGE, PAGE_MAX, Partner, answer, endpoint_id, with_next};

/// The longest overlap of a rotation: a week.
const OVERLAP_SECONDS_MAX: u64 = 604_800;

const KEY_BYTES_MAX: usize = 255;

type Id = Result<Path<String>, PathRejection>;

/// Makes an endpoint.
pub(crate) async fn create(
    State(gateway): State<Arc<Gateway>>,
    request: Request,
) -> Result<Response, Problem> {
    let partner = gateway
        .partner(request.headers(), Operation::CreateEndpoint)
        .await?;
    Parameters::none(request.uri().query())?;
    let key = idempotency_key(request.headers())?;
    let (members, bytes) = body::typed(request, &gateway.limits, &["application/json"]).await?;
    let idempotency = key.map(|key| partner.idempotency(&key, &bytes));
    let made = partner
        .desk
        .create(&partner.principal, &Value::Object(members), idempotency.as_ref())
        .await?;
    let (status, shown) = if made.is_new {
        (StatusCode::CREATED, made.endpoint.to_json_with_secrets())
    } else {
        (StatusCode::OK, made.endpoint.to_json())
    };
    let mut response = with_tag(answer(status, shown), &made.endpoint.etag());
    if let Ok(location) = HeaderValue::try_from(format!("/v1/webhooks/endpoints/{}", made.endpoint.id)) {
        response.headers_mut().insert(LOCATION, location);
    }
    Ok(response)
}

/// A page of the tenant's endpoints.
pub(crate) async fn list(State(gateway): State<Arc<Gateway>>, request: Request) -> Result<Response, Problem> {
    let partner = gateway
        .partner(request.headers(), Operation::ListEndpoints)
        .await?;
    let (mut limit, mut after) = (PAGE, None);
    for (name, value) in query::only(request.uri().query(), &["limit", "after"])? {
        if name == "limit" {
            limit = query::number("limit", &value, 1, PAGE_MAX)?;
        } else {
            let id = EndpointId::parse(&value);
            after = Some(id.map_err(|_| Problem::new(Code::PARAMETER_INVALID, "after is an endpoint's id"))?);
        }
    }
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let (page, has_more) = partner.desk.list(partner.tenant(), after.as_ref(), limit).await?;
    let last = page
        .last()
        .filter(|_| has_more)
        .map(|kept| kept.endpoint.id.as_str());
    let next = last.map(|last| format!("/v1/webhooks/endpoints?limit={limit}&after={last}"));
    let endpoints: Vec<Value> = page.iter().map(|kept| kept.endpoint.to_json()).collect();
    let shown = json!({ "endpoints": endpoints, "next": last });
    Ok(with_next(answer(StatusCode::OK, shown), next.as_deref()))
}

/// One endpoint.
pub(crate) async fn read(
    State(gateway): State<Arc<Gateway>>,
    id: Id,
    request: Request,
) -> Result<Response, Problem> {
    let partner = gateway
        .partner(request.headers(), Operation::ReadEndpoint)
        .await?;
    Parameters::none(request.uri().query())?;
    let endpoint = partner
        .desk
        .find(partner.tenant(), &endpoint_id(id)?)
        .await?
        .endpoint;
    Ok(tagged(request.headers(), &endpoint.etag(), &endpoint.to_json()))
}

/// Applies a merge patch.
pub(crate) async fn change(
    State(gateway): State<Arc<Gateway>>,
    id: Id,
    request: Request,
) -> Result<Response, Problem> {
    let partner = gateway
        .partner(request.headers(), Operation::ChangeEndpoint)
        .await?;
    Parameters::none(request.uri().query())?;
    let id = endpoint_id(id)?;
    // Somebody else's looks as if it did not exist, whatever else is wrong.
    partner.desk.find(partner.tenant(), &id).await?;
    let condition = required(request.headers())?;
    let media_types = ["application/merge-patch+json", "application/json"];
    let (patch, _) = body::typed(request, &gateway.limits, &media_types).await?;
    let endpoint = partner
        .desk
        .patch(&partner.principal, &id, patch, &condition)
        .await?;
    Ok(shown(&endpoint))
}

/// Removes an endpoint.
pub(crate) async fn remove(
    State(gateway): State<Arc<Gateway>>,
    id: Id,
    request: Request,
) -> Result<Response, Problem> {
    let partner = gateway
        .partner(request.headers(), Operation::DeleteEndpoint)
        .await?;
    Parameters::none(request.uri().query())?;
    let condition = condition(request.headers())?;
    partner
        .desk
        .delete(partner.tenant(), &endpoint_id(id)?, &condition)
        .await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Makes new keys.
pub(crate) async fn rotate(
    State(gateway): State<Arc<Gateway>>,
    id: Id,
    request: Request,
) -> Result<Response, Problem> {
    let partner = gateway
        .partner(request.headers(), Operation::RotateSecrets)
        .await?;
    Parameters::none(request.uri().query())?;
    let id = endpoint_id(id)?;
    let condition = condition(request.headers())?;
    let mut fields = Fields::new(body::optional(request, &gateway.limits).await?);
    let overlap = fields.number("overlap_seconds", 0, OVERLAP_SECONDS_MAX);
    fields.finish()?;
    let endpoint = partner
        .desk
        .rotate(
            partner.tenant(),
            &id,
            overlap.map(Duration::from_secs),
            &condition,
        )
        .await?;
    let shown = answer(StatusCode::OK, endpoint.to_json_with_secrets());
    Ok(with_tag(shown, &endpoint.etag()))
}

/// Switches an endpoint off.
pub(crate) async fn pause(
    State(gateway): State<Arc<Gateway>>,
    id: Id,
    request: Request,
) -> Result<Response, Problem> {
    switch(&gateway, id, request, Operation::PauseEndpoint).await
}

/// Switches an endpoint on.
pub(crate) async fn resume(
    State(gateway): State<Arc<Gateway>>,
    id: Id,
    request: Request,
) -> Result<Response, Problem> {
    switch(&gateway, id, request, Operation::ResumeEndpoint).await
}

async fn switch(
    gateway: &Gateway,
    id: Id,
    request: Request,
    operation: Operation,
) -> Result<Response, Problem> {
    let partner = gateway.partner(request.headers(), operation).await?;
    Parameters::none(request.uri().query())?;
    let id = endpoint_id(id)?;
    let condition = condition(request.headers())?;
    Fields::new(body::optional(request, &gateway.limits).await?).finish()?;
    let enabled = operation == Operation::ResumeEndpoint;
    let endpoint = partner
        .desk
        .switch(partner.tenant(), &id, enabled, &condition)
        .await?;
    Ok(shown(&endpoint))
}

fn shown(endpoint: &Endpoint) -> Response {
    with_tag(answer(StatusCode::OK, endpoint.to_json()), &endpoint.etag())
}

impl Partner {
    /// A key is its caller's own: another one's key with the same text is another key.
    fn idempotency(&self, key: &str, body: &[u8]) -> Idempotency {
        let (issuer, subject) = (&self.principal.issuer, &self.principal.subject);
        Idempotency::new(&format!("{issuer}\n{subject}\n{key}"), body)
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let key = value.to_str().unwrap_or_default().trim();
    if key.is_empty() || key.len() > KEY_BYTES_MAX || values.next().is_some() {
        return Err(Problem::new(
            Code::PARAMETER_INVALID,
            "Idempotency-Key is one text of 1 to 255 visible ASCII characters",
        ));
    }
    Ok(Some(key.to_owned()))
}

//! `/v1/webhooks` and the keys beside it: thin handlers over [`Desk`].
//!
//! Invariants: a bearer token with the route's scope opens it; a ticket or a cookie never does. What is of another tenant
//! looks as if it did not exist. An answer has a secret in it only where it was just made.

pub(crate) mod conditions;
pub(crate) mod deliveries;
pub(crate) mod dry_run;
pub(crate) mod endpoints;
mod fields;
pub(crate) mod keys;
pub(crate) mod replays;
pub(crate) mod state;

use std::sync::Arc;

use ::webhooks::delivery::EndpointId;
use auth::token::Principal;
use axum::Json;
use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, LINK};
use http::{HeaderMap, HeaderValue, StatusCode};
use schemas::docs::openapi::{Access, Operation, WRITE_SCOPE};
use schemas::ids::TenantId;
use schemas::problem::Code;
use serde_json::Value;

use super::Gateway;
use super::credentials;
use super::problem::{Problem, not_found};
use crate::webhooks::desk::Desk;

/// Entries of a page when `limit` is not given, and the most that it may ask for.
const PAGE: u64 = 50;
const PAGE_MAX: u64 = 100;

/// Who calls, and whom.
pub(crate) struct Partner {
    desk: Arc<Desk>,
    principal: Arc<Principal>,
}

impl Partner {
    fn tenant(&self) -> &TenantId {
        &self.principal.tenant
    }
}

impl Gateway {
    /// Whose token it is; nothing but a token counts.
    pub(crate) async fn token_bearer(&self, headers: &HeaderMap) -> Result<Arc<Principal>, Problem> {
        let token = credentials::bearer(headers)?;
        Ok(self.authenticator.verify(token, self.clock.now_ms()).await?)
    }

    /// Lets in who may do this.
    async fn partner(&self, headers: &HeaderMap, operation: Operation) -> Result<Partner, Problem> {
        let desk = self.webhooks.as_ref().ok_or_else(not_found)?;
        let principal = self.token_bearer(headers).await?;
        if let Access::Scope(scope) = operation.route().access {
            if !principal.scopes.iter().any(|have| have == scope) {
                return Err(Problem::new(Code::SCOPE_MISSING, format!("{scope} is needed")));
            }
            self.admitting()?;
            if scope == WRITE_SCOPE {
                desk.admit_change(&principal.tenant)?;
            }
        }
        Ok(Partner {
            desk: Arc::clone(desk),
            principal,
        })
    }
}

/// The endpoint in a path. What is no id is none of ours.
fn endpoint_id(id: Result<Path<String>, PathRejection>) -> Result<EndpointId, Problem> {
    let Path(id) = id.map_err(|_| not_found())?;
    EndpointId::parse(&id).map_err(|_| not_found())
}

/// An answer that no cache keeps.
fn answer(status: StatusCode, body: Value) -> Response {
    (status, [(CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

/// With the place of the next page, where there is one.
fn with_next(mut response: Response, next: Option<&str>) -> Response {
    if let Some(next) = next.and_then(|next| HeaderValue::try_from(format!("<{next}>; rel=\"next\"")).ok()) {
        response.headers_mut().insert(LINK, next);
    }
    response
}

//! `/.well-known/webhook-keys.json`: the public keys that HTTP Message Signatures of deliveries are verified with.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};

use super::super::Gateway;
use super::super::problem::{Problem, not_found};
use super::super::query::Parameters;

/// Everybody may have them; a receiver that sees a new key id asks again.
pub(crate) async fn get(State(gateway): State<Arc<Gateway>>, request: Request) -> Result<Response, Problem> {
    let desk = gateway.webhooks.as_ref().ok_or_else(not_found)?;
    Parameters::none(request.uri().query())?;
    let keys = desk.signer.jwks(gateway.clock.now_ms());
    let headers = [
        (CONTENT_TYPE, "application/jwk-set+json"),
        (CACHE_CONTROL, "public, max-age=300"),
    ];
    Ok((headers, keys.to_string()).into_response())
}

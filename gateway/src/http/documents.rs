//! `GET /v1/docs/openapi.json`: the API as far as the caller may use it.
//!
//! Invariant: what is not granted is not named, neither a stream nor a route whose scope the token lacks.

use std::sync::Arc;

use auth::access;
use auth::token::Principal;
use aws_lc_rs::digest;
use axum::extract::{Request, State};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use schemas::docs::openapi::{Access, Document, ROUTES, Shown};
use serde_json::Value;

use super::Gateway;
use super::problem::Problem;
use super::query::Parameters;
use super::webhooks::conditions;

/// Answers with the document.
pub(crate) async fn openapi(
    State(gateway): State<Arc<Gateway>>,
    request: Request,
) -> Result<Response, Problem> {
    let principal = gateway.token_bearer(request.headers()).await?;
    Parameters::none(request.uri().query())?;
    let document = gateway.openapi(&principal);
    let hash = digest::digest(&digest::SHA256, document.to_string().as_bytes());
    let short = hash.as_ref().get(..16).unwrap_or_default();
    let tag = format!("\"{}\"", URL_SAFE_NO_PAD.encode(short));
    Ok(conditions::tagged(request.headers(), &tag, &document))
}

impl Gateway {
    fn openapi(&self, principal: &Principal) -> Value {
        let has_webhooks = self.webhooks.is_some();
        let granted = access::granted(self.hub.contract(), principal);
        let streams = granted.iter().map(|granted| {
            let attributes = granted
                .filterable
                .iter()
                .filter_map(|id| granted.stream.attributes.get(usize::from(id.0)));
            Shown {
                stream: &granted.stream,
                attributes: attributes.map(|attribute| attribute.name.as_str()).collect(),
            }
        });
        let routes = ROUTES.iter().filter(|route| {
            let may = match route.access {
                Access::Scope(scope) => principal.scopes.iter().any(|have| have == scope),
                Access::Public | Access::Reader | Access::Bearer => true,
            };
            may && (has_webhooks || !route.is_of_webhooks())
        });
        let document = Document {
            version: env!("CARGO_PKG_VERSION"),
            routes: routes.collect(),
            streams: streams.collect(),
            specification: webhooks::endpoint::schema(),
        };
        document.to_json()
    }
}

//! Around every request: a panic becomes an answer, and every answer is counted by route template and code.

use std::panic::AssertUnwindSafe;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use schemas::problem::Code;

use super::metrics::Metrics;
use super::problem::{Problem, Refused};

/// The outermost layer of both routers.
pub(crate) async fn layer(State(metrics): State<Metrics>, request: Request, next: Next) -> Response {
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("unmatched", MatchedPath::as_str)
        .to_owned();
    let method = request.method().clone();
    let answered = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    let response = answered.unwrap_or_else(|_| {
        // The panic hook has told the operator; the client learns that it was us.
        tracing::error!(route, "a handler panicked");
        Problem::new(Code::INTERNAL, "").into_response()
    });
    let status = response.status().as_u16();
    metrics.request(&route, &method, status);
    let code = response.extensions().get::<Refused>().map(|refused| refused.0);
    if let Some(code) = code {
        metrics.refused(code);
    }
    tracing::debug!(route, %method, status, code, "answered");
    response
}

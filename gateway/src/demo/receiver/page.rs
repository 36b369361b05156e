//! What the demo's page is shown of the receiver, and its switch. Served by the gateway, on its own origin, beside the
//! page's other endpoints: the receiver's listener gives nothing away.
//!
//! `GET /demo/receiver` answers `200 application/json`, `cache-control: no-store`; the latest delivery comes first:
//!
//! ```json
//! {"receiver": "http://127.0.0.1:41235",
//!  "failing": false,
//!  "endpoints": [{"tenant": "north", "content": "structured", "parked": 0}, {"tenant": "south", "content": "thin", "parked": 0}],
//!  "counts": {"taken": 41, "repeated": 0, "failed": 7, "refused": 1},
//!  "deliveries": [
//!    {"tenant": "north", "content": "structured", "at_ms": 1795452900123, "answer": 204, "verdict": "verified",
//!     "delivery": "msg_...", "event": "4f1a...", "type": "tidewire.observations.changed", "attempt": 1, "took_ms": 31, "repeated": 0},
//!    {"tenant": "south", "content": "thin", "at_ms": 1795452899870, "answer": 401, "verdict": "refused", "reason": "forged"}]}
//! ```
//!
//! `POST /demo/receiver` with `content-type: application/json` and `{"failing": true}`, or `false`, switches, and answers the
//! same. It is for the page itself and for tools, as tokens are.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::header::CACHE_CONTROL;
use serde::{Deserialize, Serialize};

use super::inbox::{Counts, Destination, Row};
use super::{Reception, lock};
use crate::demo::endpoints::{check_page, read};
use crate::http::{Problem, method_not_allowed};

#[derive(Debug, Serialize)]
struct Shown<'a> {
    receiver: String,
    failing: bool,
    endpoints: Vec<Endpoint>,
    counts: Counts,
    deliveries: Vec<&'a Row>,
}

#[derive(Debug, Serialize)]
struct Endpoint {
    #[serde(flatten)]
    to: Destination,
    parked: i64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Switch {
    failing: bool,
}

/// The routes.
pub fn router(reception: Arc<Reception>) -> Router {
    let methods = get(show)
        .post(switch)
        .fallback(|| async { method_not_allowed("GET, HEAD, POST") });
    Router::new()
        .route("/demo/receiver", methods)
        .with_state(reception)
}

async fn show(State(reception): State<Arc<Reception>>) -> Response {
    shown(&reception)
}

async fn switch(State(reception): State<Arc<Reception>>, request: Request) -> Result<Response, Problem> {
    check_page(request.headers())?;
    let switch: Switch = read(request).await?;
    reception.fail(switch.failing);
    Ok(shown(&reception))
}

fn shown(reception: &Reception) -> Response {
    let hooks = lock(&reception.hooks);
    let endpoints = hooks.values().map(|hook| Endpoint {
        to: hook.to.clone(),
        parked: hook.parked,
    });
    let endpoints = endpoints.collect();
    drop(hooks);
    let inbox = lock(&reception.inbox);
    let shown = Shown {
        receiver: reception.url(),
        failing: reception.is_failing(),
        endpoints,
        counts: inbox.counts(),
        deliveries: inbox.rows().iter().collect(),
    };
    ([(CACHE_CONTROL, "no-store")], Json(shown)).into_response()
}

//! The operations listener: `/healthz`, `/readyz`, `/metrics`, `/admin/sessions`, and what [`super::control`] adds.
//!
//! One invariant: with a token configured nothing but alive-or-not and ready-or-not is said without it; without one the
//! listener is on loopback, and a name that somebody pointed at it is refused.

use std::collections::BTreeMap;
use std::sync::Arc;

use auth::token::Authenticator;
use aws_lc_rs::constant_time;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};
use prometheus_client::registry::Registry;
use schemas::problem::Code;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde_json::json;
use subscriptions::hub::Hub;
use tokio_util::sync::CancellationToken;

use super::control::Desk;
use super::problem::{HOST_FORBIDDEN, Problem, method_not_allowed, not_found};
use super::{Metrics, control, credentials, origin, shield};

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What the operations listener stands on.
pub struct Operations {
    /// The engine.
    pub hub: Hub,
    /// Whether issuers' keys can be had.
    pub authenticator: Authenticator,
    /// Every metric of the process.
    pub registry: Arc<Registry>,
    /// What is counted about the listener itself.
    pub metrics: Metrics,
    /// Asked for with `Authorization: Bearer`; needed where the listener is not on loopback.
    pub token: Option<SecretString>,
    /// Cancelled when the node begins to drain.
    pub drain: CancellationToken,
    /// What the Kafka side knows, for `/readyz`.
    pub ingest: Arc<dyn Fn() -> IngestStatus + Send + Sync>,
    /// What operators say of readers.
    pub control: Desk,
    /// Partitions of a stream that cursors have room for: with more the node is not ready.
    pub partitions_max: usize,
}

/// What the Kafka side knows.
#[derive(Debug, Clone, Default, Serialize)]
pub struct IngestStatus {
    /// Each partition that is read.
    pub partitions: Vec<PartitionLag>,
    /// Literal topics of the contract that do not exist (yet).
    pub missing_topics: Vec<String>,
}

/// How far one partition has been read.
#[derive(Debug, Clone, Serialize)]
pub struct PartitionLag {
    /// The topic.
    pub topic: String,
    /// Its number.
    pub partition: i32,
    /// The next offset to read, if it is known.
    pub position: Option<i64>,
    /// The end of the log, if it is known.
    pub end: Option<i64>,
    /// Records between the two.
    pub lag: Option<i64>,
}

#[derive(Serialize)]
struct Readiness {
    ready: bool,
    draining: bool,
    streams: Vec<StreamReadiness>,
    issuers: Vec<IssuerReadiness>,
    control: ControlReadiness,
    #[serde(flatten)]
    ingest: IngestStatus,
}

#[derive(Serialize)]
struct StreamReadiness {
    stream: String,
    /// Whether every partition that exists is known. It is read when somebody needs it.
    complete: bool,
    /// Why it cannot be read, where that is not because it is not complete yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// Told, and not counted against readiness: without an issuer's keys open sessions go on, and no other node has them.
#[derive(Serialize)]
struct IssuerReadiness {
    issuer: String,
    keys: usize,
    usable: bool,
}

/// Whether it is known who is revoked. Without it nobody new is let in.
#[derive(Serialize)]
struct ControlReadiness {
    read: bool,
    current: bool,
    /// How long it has not been known that nothing newer is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    staleness_ms: Option<u64>,
}

/// The routes of the operations listener.
pub fn operations_router(operations: Arc<Operations>) -> Router {
    let guarded = Router::new()
        .route("/metrics", get(metrics))
        .route("/admin/sessions", get(sessions))
        .merge(control::routes())
        .layer(middleware::from_fn_with_state(Arc::clone(&operations), guard));
    let open = Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz));
    open.merge(guarded)
        .method_not_allowed_fallback(|| async { method_not_allowed("GET, HEAD") })
        .fallback(|| async { not_found() })
        .layer(middleware::from_fn_with_state(
            operations.metrics.clone(),
            shield::layer,
        ))
        .with_state(operations)
}

impl Operations {
    fn admits(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let Some(token) = &self.token else {
            let ours = origin::host(headers).is_some_and(origin::host_is_ours);
            return if ours {
                Ok(())
            } else {
                Err(Problem::new(HOST_FORBIDDEN, ""))
            };
        };
        let given = credentials::bearer(headers)?;
        constant_time::verify_slices_are_equal(given.as_bytes(), token.expose_secret().as_bytes())
            .map_err(|_| Problem::new(Code::TOKEN_INVALID, "the operations token is another one"))
    }

    fn readiness(&self) -> Readiness {
        let mut partitions = BTreeMap::<String, usize>::new();
        for partition in self.hub.partitions() {
            *partitions.entry(partition.stream).or_default() += 1;
        }
        let streams = self.hub.contract().streams.iter();
        let streams: Vec<_> = streams
            .map(|stream| StreamReadiness {
                stream: stream.name.to_string(),
                complete: self.hub.is_known(&stream.name),
                reason: too_many(
                    partitions.get(stream.name.as_str()).copied().unwrap_or(0),
                    self.partitions_max,
                ),
            })
            .collect();
        let draining = self.drain.is_cancelled();
        let is_ready = |stream: &StreamReadiness| stream.complete && stream.reason.is_none();
        let control = &self.control.control;
        let control = ControlReadiness {
            read: control.is_read(),
            current: control.ready().is_ok(),
            staleness_ms: control
                .staleness()
                .map(|staleness| u64::try_from(staleness.as_millis()).unwrap_or(u64::MAX)),
        };
        let ready = !draining && control.current && streams.iter().all(is_ready);
        let issuers = self
            .authenticator
            .status()
            .into_iter()
            .map(|issuer| IssuerReadiness {
                issuer: issuer.issuer.to_string(),
                keys: issuer.keys,
                usable: issuer.ready,
            });
        Readiness {
            ready,
            draining,
            streams,
            issuers: issuers.collect(),
            control,
            ingest: (self.ingest)(),
        }
    }
}

/// Its readers would get cursors that are too long to be taken back.
fn too_many(partitions: usize, partitions_max: usize) -> Option<String> {
    (partitions > partitions_max).then(|| {
        format!("{partitions} partitions, more than `limits.partitions_per_stream_max` ({partitions_max})")
    })
}

async fn guard(State(operations): State<Arc<Operations>>, request: Request, next: Next) -> Response {
    match operations.admits(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

/// Alive: the runtime answers.
async fn healthz() -> Response {
    ([(CACHE_CONTROL, "no-store")], Json(json!({ "status": "alive" }))).into_response()
}

/// Ready: not draining, it is known who is revoked, every partition that exists is being read, and cursors have room for all of them.
async fn readyz(State(operations): State<Arc<Operations>>, headers: HeaderMap) -> Response {
    let readiness = operations.readiness();
    let status = if readiness.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let body = if operations.admits(&headers).is_ok() {
        Json(readiness).into_response()
    } else {
        Json(json!({ "ready": readiness.ready, "draining": readiness.draining })).into_response()
    };
    (status, [(CACHE_CONTROL, "no-store")], body).into_response()
}

async fn metrics(State(operations): State<Arc<Operations>>) -> Result<Response, Problem> {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &operations.registry)
        .map_err(|_| Problem::new(Code::INTERNAL, ""))?;
    Ok(([(CONTENT_TYPE, OPEN_METRICS)], text).into_response())
}

async fn sessions(State(operations): State<Arc<Operations>>) -> Response {
    let sessions = operations.hub.sessions().await;
    (
        [(CACHE_CONTROL, "no-store")],
        Json(json!({ "sessions": sessions })),
    )
        .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_partitions_than_cursors_hold_are_a_reason() {
        assert_eq!(too_many(256, 256), None);
        let reason = too_many(257, 256).expect("a reason");
        assert!(reason.contains("257") && reason.contains("partitions_per_stream_max"));
    }
}

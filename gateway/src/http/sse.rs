//! Server-sent events: the engine writes the body, this file the head.

use axum::response::Response;
use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use subscriptions::hub::{Reading, Sse};

use super::accept::EVENT_STREAM;
use super::problem::Problem;
use super::{Gateway, streaming};

/// Opens the stream of events.
pub(crate) async fn open(gateway: &Gateway, reading: Reading) -> Result<Response, Problem> {
    let permit = gateway
        .quotas
        .admit(&reading.principal)
        .map_err(|code| Problem::new(code, ""))?;
    let retry_ms = u64::try_from(gateway.limits.sse_retry.as_millis()).ok();
    let body = gateway
        .hub
        .open_sse(Sse {
            reading,
            retry_ms,
            permit,
        })
        .await?;
    let mut response = streaming::response(body, ());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(EVENT_STREAM));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // nginx and those that copied it would collect the events into larger pieces.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

//! Request bodies: JSON objects, bounded in size and in time. And response bodies that come through a channel.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use http_body::Frame;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use schemas::problem::Code;
use serde_json::{Map, Value};
use tokio::sync::mpsc;

use super::HttpLimits;
use super::problem::{BODY_TIMEOUT, Problem};

/// Reads a JSON object.
pub(crate) async fn object(request: Request, limits: &HttpLimits) -> Result<Map<String, Value>, Problem> {
    if !is_json(request.headers()) {
        return Err(Problem::new(
            Code::UNSUPPORTED_MEDIA_TYPE,
            "the body's media type is application/json",
        ));
    }
    let bytes = whole(request.into_body(), limits.body_bytes_max, limits.body_timeout).await?;
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(members)) => Ok(members),
        Ok(_) => Err(Problem::new(Code::BODY_INVALID, "the body is not a JSON object")),
        Err(error) => Err(Problem::new(
            Code::BODY_INVALID,
            format!(
                "the body is not JSON: line {}, column {}",
                error.line(),
                error.column()
            ),
        )),
    }
}

async fn whole(body: Body, bytes_max: usize, timeout: Duration) -> Result<Bytes, Problem> {
    let read = tokio::time::timeout(timeout, Limited::new(body, bytes_max).collect());
    match read.await {
        Err(_) => Err(Problem::new(BODY_TIMEOUT, "")),
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Problem::new(
            Code::BODY_TOO_LARGE,
            format!("at most {bytes_max} bytes are read"),
        )),
        Ok(Err(_)) => Err(Problem::new(Code::BODY_INVALID, "the body ended early")),
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    kind.split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .eq_ignore_ascii_case("application/json")
}

/// A text member that may be absent; anything but a string is refused.
pub(crate) fn text(members: &mut Map<String, Value>, name: &str) -> Result<Option<String>, Problem> {
    match members.remove(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Problem::new(Code::BODY_INVALID, format!("{name} is a string"))),
    }
}

/// Refuses members that nobody took.
pub(crate) fn finish(members: &Map<String, Value>) -> Result<(), Problem> {
    if members.is_empty() {
        return Ok(());
    }
    Err(Problem::new(
        Code::UNKNOWN_PARAMETER,
        "the body has members that are not known here",
    ))
}

/// A response body whose chunks come through a channel; the channel's end is its end.
pub(crate) struct Chunks(pub(crate) mpsc::Receiver<Bytes>);

impl http_body::Body for Chunks {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        self.0
            .poll_recv(context)
            .map(|chunk| chunk.map(|bytes| Ok(Frame::data(bytes))))
    }
}

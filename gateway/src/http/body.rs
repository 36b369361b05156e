//! Request bodies: JSON objects, bounded in size and in time. And response bodies that are there already, which are given in small
//! pieces.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use schemas::problem::Code;
use serde_json::{Map, Value};

use super::HttpLimits;
use super::problem::{BODY_TIMEOUT, Problem};

/// The media type of JSON.
const JSON: &str = "application/json";

/// Reads a JSON object.
pub(crate) async fn object(request: Request, limits: &HttpLimits) -> Result<Map<String, Value>, Problem> {
    typed(request, limits, &[JSON]).await.map(|(members, _)| members)
}

/// Reads a JSON object of one of these media types; beside it, the bytes that it was read from.
pub(crate) async fn typed(
    request: Request,
    limits: &HttpLimits,
    media_types: &[&str],
) -> Result<(Map<String, Value>, Bytes), Problem> {
    if !is_one_of(request.headers(), media_types) {
        return Err(not_understood(media_types));
    }
    let bytes = whole(request.into_body(), limits.body_bytes_max, limits.body_timeout).await?;
    members(&bytes).map(|members| (members, bytes))
}

/// Reads a JSON object, or no body at all.
pub(crate) async fn optional(request: Request, limits: &HttpLimits) -> Result<Map<String, Value>, Problem> {
    let is_json = is_one_of(request.headers(), &[JSON]);
    let bytes = whole(request.into_body(), limits.body_bytes_max, limits.body_timeout).await?;
    match (bytes.is_empty(), is_json) {
        (true, _) => Ok(Map::new()),
        (false, true) => members(&bytes),
        (false, false) => Err(not_understood(&[JSON])),
    }
}

fn not_understood(media_types: &[&str]) -> Problem {
    Problem::new(
        Code::UNSUPPORTED_MEDIA_TYPE,
        format!("the body's media type is {}", media_types.join(" or ")),
    )
}

fn members(bytes: &[u8]) -> Result<Map<String, Value>, Problem> {
    match serde_json::from_slice(bytes) {
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

/// Reads a body to its end, bounded in size and in time.
pub(crate) async fn whole(body: Body, bytes_max: usize, timeout: Duration) -> Result<Bytes, Problem> {
    let too_large = || {
        Problem::new(
            Code::BODY_TOO_LARGE,
            format!("at most {bytes_max} bytes are read"),
        )
    };
    // A head that announces more is answered at once, not when so much has come.
    if HttpBody::size_hint(&body).lower() > bytes_max as u64 {
        return Err(too_large());
    }
    let read = tokio::time::timeout(timeout, Limited::new(body, bytes_max).collect());
    match read.await {
        Err(_) => Err(Problem::new(BODY_TIMEOUT, "")),
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(Problem::new(Code::BODY_INVALID, "the body ended early")),
    }
}

fn is_one_of(headers: &HeaderMap, media_types: &[&str]) -> bool {
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    media_types
        .iter()
        .any(|media_type| kind.eq_ignore_ascii_case(media_type))
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

/// What a body gives at once. HTTP/2 takes a piece whole as soon as the peer has room for one byte of it, and then it is
/// nobody's: pieces are small.
const PIECE_BYTES_MAX: usize = 16 << 10;

/// A response body that is there already, and what its reader holds until it has taken it.
///
/// The last byte is a piece of its own: it is asked for when the peer has room for all that was before it.
pub(crate) struct Pieces<H> {
    rest: Bytes,
    _held: H,
}

impl<H> Pieces<H> {
    pub(crate) fn new(body: Bytes, held: H) -> Self {
        Self {
            rest: body,
            _held: held,
        }
    }
}

impl<H: Unpin> http_body::Body for Pieces<H> {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let length = match self.rest.len() {
            0 => return Poll::Ready(None),
            1 => 1,
            more => (more - 1).min(PIECE_BYTES_MAX),
        };
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_page_is_given_in_small_pieces_and_its_last_byte_alone() {
        let page = Bytes::from(vec![7; 2 * PIECE_BYTES_MAX + 1]);
        let mut body = Pieces::new(page.clone(), ());
        let (mut lengths, mut given) = (Vec::new(), Vec::new());
        while let Some(frame) = body.frame().await {
            let data = frame.expect("infallible").into_data().expect("data");
            lengths.push(data.len());
            given.extend_from_slice(&data);
        }
        assert_eq!(lengths, [PIECE_BYTES_MAX, PIECE_BYTES_MAX, 1]);
        assert_eq!(given, page);
    }

    #[tokio::test]
    async fn what_a_reader_holds_is_given_back_with_the_last_byte() {
        let held = std::sync::Arc::new(());
        let mut body = Pieces::new(Bytes::from_static(b"[]"), std::sync::Arc::clone(&held));
        body.frame().await.expect("a frame").expect("infallible");
        assert!(!http_body::Body::is_end_stream(&body));
        body.frame().await.expect("a frame").expect("infallible");
        assert!(http_body::Body::is_end_stream(&body));
        assert_eq!(std::sync::Arc::strong_count(&held), 2);
        drop(body);
        assert_eq!(std::sync::Arc::strong_count(&held), 1);
    }
}

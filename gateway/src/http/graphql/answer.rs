//! GraphQL answers over HTTP: media types, statuses, and what a refusal looks like in each form.
//!
//! GraphQL over HTTP: `application/graphql-response+json` says by its status whether there is `data`; with
//! `application/json`, which proxies answer too, a GraphQL answer is 200. What is wrong before GraphQL begins (credentials,
//! methods, media types, limits) has its status in both.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use schemas::problem::Code;
use subscriptions::graphql::Refused;

use super::accept::{Accepted, EVENT_STREAM, JSON, MULTIPART, RESPONSE, Single, Streamed};
use crate::http::problem::{self, Problem};

/// A result that is there already.
pub(crate) fn result(single: Single, result: Bytes) -> Response {
    match single {
        Single::Response => whole(RESPONSE, StatusCode::OK, result.into()),
        Single::Json => whole(JSON, StatusCode::OK, result.into()),
        Single::Streamed(streamed) => at_once(streamed, &result),
    }
}

/// A refused operation.
pub(crate) fn refused(single: Single, refused: &Refused) -> Response {
    let body = format!(r#"{{"errors":{}}}"#, refused.errors_json());
    let mut response = match single {
        // Clients that send a document by its hash first look for this answer among those that worked.
        Single::Response if is_for_hash(refused) => whole(RESPONSE, StatusCode::OK, body.into()),
        Single::Response => whole(
            RESPONSE,
            status(refused.code, StatusCode::BAD_REQUEST),
            body.into(),
        ),
        Single::Json => whole(JSON, status(refused.code, StatusCode::OK), body.into()),
        Single::Streamed(streamed) => at_once(streamed, body.as_bytes()),
    };
    response
        .extensions_mut()
        .insert(problem::Refused(refused.code.name));
    response
}

fn is_for_hash(refused: &Refused) -> bool {
    let first = refused.errors.first();
    first.is_some_and(|error| {
        matches!(
            &*error.extensions.code,
            "PERSISTED_QUERY_NOT_FOUND" | "PERSISTED_QUERY_NOT_SUPPORTED"
        )
    })
}

/// What went wrong before GraphQL began.
pub(crate) fn problem(accepted: &Accepted, problem: Problem) -> Response {
    let media_type = match accepted.single() {
        Some(Single::Response) => RESPONSE,
        _ => JSON,
    };
    problem.into_graphql(media_type)
}

/// A response whose body comes over time.
pub(crate) fn over_time(streamed: Streamed, mut response: Response) -> Response {
    let media_type = match streamed {
        Streamed::Events => EVENT_STREAM,
        Streamed::Multipart => MULTIPART,
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // nginx and those that copied it would collect the results into larger pieces.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// One result in a form for many.
fn at_once(streamed: Streamed, result: &[u8]) -> Response {
    let (before, after): (&[u8], &[u8]) = match streamed {
        Streamed::Events => (b"event: next\ndata: ", b"\n\nevent: complete\ndata:\n\n"),
        Streamed::Multipart => (
            b"--graphql\r\nContent-Type: application/json\r\n\r\n{\"payload\":",
            b"}\r\n--graphql--\r\n",
        ),
    };
    let body = Body::from([before, result, after].concat());
    over_time(streamed, Response::new(body))
}

fn whole(media_type: &'static str, status: StatusCode, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(with_charset(media_type)));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The specification of both types asks for it.
pub(crate) fn with_charset(media_type: &'static str) -> &'static str {
    if media_type == RESPONSE {
        "application/graphql-response+json; charset=utf-8"
    } else {
        "application/json; charset=utf-8"
    }
}

/// Whose move it is decides: about credentials, limits and availability HTTP is told; everything else is about the document.
fn status(code: Code, otherwise: StatusCode) -> StatusCode {
    match code.status {
        401 | 403 | 429 | 500..=599 => StatusCode::from_u16(code.status).unwrap_or(otherwise),
        _ => otherwise,
    }
}

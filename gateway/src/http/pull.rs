//! Pages of events, with a long poll: a JSON batch of CloudEvents, and where the next page is.
//!
//! Every answer, an empty page and a 304 too, has `Link: <...>; rel="next"` and the same cursor in `Tidewire-Cursor`.
//! `Tidewire-Gap`, where it is, is the JSON of what could not be given any more (the `gap` message of `tidewire.v1`); of
//! many partitions it names the first and counts the others in `more`, because clients and proxies bound headers.
//! `Tidewire-Replay: limited` says that the page ends where as much was read as one replay may read: go on from the cursor.
//! The `ETag` is a hash of the events without their cursors: a cursor is sealed anew each time, and moves with what
//! others are sent. It is weak for that reason (RFC 9110, section 8.8.1).

use std::time::Duration;

use aws_lc_rs::digest;
use axum::body::Body;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, LINK, VARY};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use schemas::problem::Code;
use serde_json::Value;
use subscriptions::hub::{Pull, PullPage, Reading};

use super::body::Pieces;
use super::problem::Problem;
use super::query::{self, Parameters};
use super::{Gateway, HttpLimits};

/// The cursor from which the next page goes on.
pub(crate) const CURSOR: HeaderName = HeaderName::from_static("tidewire-cursor");
/// What could not be given any more.
pub(crate) const GAP: HeaderName = HeaderName::from_static("tidewire-gap");

/// Whether the page ends early.
pub(crate) const REPLAY: HeaderName = HeaderName::from_static("tidewire-replay");

/// Of `Tidewire-Gap`: with the cursor in it and the two beside it, the head stays below what Node takes (16 KiB).
const GAP_BYTES_MAX: usize = 2 << 10;

/// Answers with one page. Its reader holds its place until it has taken the body.
pub(crate) async fn page(
    gateway: &Gateway,
    headers: &HeaderMap,
    media_type: &'static str,
    parameters: Parameters,
    reading: Reading,
) -> Result<Response, Problem> {
    let limit = limit(parameters.limit.as_deref(), &gateway.limits)?;
    let wait = wait(parameters.wait.as_deref(), &gateway.limits)?;
    let path = format!("/v1/streams/{}", reading.stream.name);
    let permit = gateway
        .quotas
        .admit(&reading.principal)
        .map_err(|code| Problem::new(code, ""))?;
    let page = tokio::select! {
        page = gateway.hub.pull(Pull { reading, limit, wait }) => page?,
        // The reader still has its cursor, and another node answers it.
        () = gateway.drain.cancelled() => return Err(Problem::new(Code::DRAINING, "")),
    };
    Ok(answer(&page, headers, media_type, &path, &parameters, permit))
}

fn limit(text: Option<&str>, limits: &HttpLimits) -> Result<usize, Problem> {
    let Some(text) = text else {
        return Ok(HttpLimits::PAGE_EVENTS.min(limits.page_events_max));
    };
    let limit = query::number("limit", text, 1, limits.page_events_max as u64)?;
    Ok(usize::try_from(limit).unwrap_or(limits.page_events_max))
}

fn wait(text: Option<&str>, limits: &HttpLimits) -> Result<Duration, Problem> {
    let Some(text) = text else {
        return Ok(Duration::ZERO);
    };
    query::number("wait", text, 0, limits.wait_max.as_secs()).map(Duration::from_secs)
}

fn answer(
    page: &PullPage,
    request: &HeaderMap,
    media_type: &'static str,
    path: &str,
    parameters: &Parameters,
    held: impl Send + Unpin + 'static,
) -> Response {
    let tag = tag(&page.events);
    let unchanged = page.gap.is_none() && !page.limited && is_known(request, &tag);
    let mut response = if unchanged {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        let mut response = Response::new(Body::new(Pieces::new(batch(&page.events).into(), held)));
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        response
    };
    let next = format!("<{path}?{}>; rel=\"next\"", next_query(&page.next, parameters));
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(VARY, HeaderValue::from_static("Accept"));
    let mut say = |name: HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    say(LINK, &next);
    say(CURSOR, &page.next);
    say(ETAG, &tag);
    if let Some(gap) = &page.gap {
        say(GAP, &bounded(gap));
    }
    if page.limited {
        say(REPLAY, "limited");
    }
    response
}

/// The same request, but after this page. A ticket is spent: it is left out.
fn next_query(cursor: &str, parameters: &Parameters) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.append_pair("after", cursor);
    for (name, value) in [("limit", &parameters.limit), ("wait", &parameters.wait)] {
        if let Some(value) = value {
            query.append_pair(name, value);
        }
    }
    query.extend_pairs(&parameters.filters);
    query.finish()
}

fn batch(events: &[Bytes]) -> Vec<u8> {
    let mut body = Vec::with_capacity(events.iter().map(|event| event.len() + 1).sum::<usize>() + 2);
    body.push(b'[');
    for (place, event) in events.iter().enumerate() {
        if place > 0 {
            body.push(b',');
        }
        body.extend_from_slice(event);
    }
    body.push(b']');
    body
}

/// `W/"..."`.
fn tag(events: &[Bytes]) -> String {
    let mut hash = digest::Context::new(&digest::SHA256);
    for event in events {
        let event = without_cursor(event);
        hash.update(&(event.len() as u64).to_be_bytes());
        hash.update(event);
    }
    let hash = hash.finish();
    format!(
        "W/\"{}\"",
        URL_SAFE_NO_PAD.encode(hash.as_ref().get(..16).unwrap_or_default())
    )
}

/// The event from its `specversion` on, before which the engine puts the cursor.
fn without_cursor(event: &[u8]) -> &[u8] {
    let name = b"\"specversion\":";
    let begins = event.windows(name.len()).position(|window| window == name);
    begins.and_then(|begin| event.get(begin..)).unwrap_or(event)
}

/// RFC 9110, section 13.1.2: weak comparison.
fn is_known(request: &HeaderMap, tag: &str) -> bool {
    let opaque = tag.trim_start_matches("W/");
    request
        .get_all(IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','))
        .any(|candidate| candidate.trim().trim_start_matches("W/") == opaque)
}

/// The gap as a header, in at most [`GAP_BYTES_MAX`] beside its cursor.
fn bounded(gap: &Value) -> String {
    let mut gap = gap.clone();
    let partitions = gap.get_mut("partitions").and_then(Value::as_array_mut);
    let mut more = 0;
    if let Some(partitions) = partitions {
        let mut bytes = 0;
        let fitting = partitions
            .iter()
            .take_while(|partition| {
                bytes += ascii(&partition.to_string()).len() + 1;
                bytes <= GAP_BYTES_MAX
            })
            .count();
        more = partitions.len() - fitting;
        partitions.truncate(fitting);
    }
    if let (1.., Some(members)) = (more, gap.as_object_mut()) {
        members.insert("more".to_owned(), Value::from(more));
    }
    ascii(&gap.to_string())
}

/// JSON in a header: what is not ASCII is escaped.
fn ascii(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for character in json.chars() {
        if character.is_ascii() {
            out.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::accept;

    fn page(events: &[&'static str], gap: Option<Value>) -> PullPage {
        PullPage {
            events: events
                .iter()
                .map(|event| Bytes::from_static(event.as_bytes()))
                .collect(),
            next: "c2".into(),
            gap,
            limited: false,
        }
    }

    fn parameters() -> Parameters {
        Parameters::parse(Some("ticket=secret&after=c1&limit=5&patient=Patient%2F1%262")).expect("parameters")
    }

    fn answered(page: &PullPage, known: Option<&str>) -> Response {
        let mut request = HeaderMap::new();
        if let Some(known) = known {
            request.insert(IF_NONE_MATCH, known.parse().expect("tag"));
        }
        answer(
            page,
            &request,
            accept::BATCH,
            "/v1/streams/observations",
            &parameters(),
            (),
        )
    }

    #[tokio::test]
    async fn the_next_page_is_told_even_when_this_one_is_empty() {
        let response = answered(&page(&[], None), None);
        let headers = response.headers();
        assert_eq!(
            headers[LINK],
            "</v1/streams/observations?after=c2&limit=5&patient=Patient%2F1%262>; rel=\"next\""
        );
        assert_eq!(headers[CURSOR], "c2");
        assert_eq!(headers[CACHE_CONTROL], "no-store");
        assert_eq!(headers[CONTENT_TYPE], accept::BATCH);
        let body = axum::body::to_bytes(response.into_body(), 64)
            .await
            .expect("body");
        assert_eq!(&body[..], b"[]");
    }

    #[tokio::test]
    async fn the_events_are_one_json_array() {
        let response = answered(&page(&["{\"a\":1}", "{\"b\":2}"], None), None);
        let body = axum::body::to_bytes(response.into_body(), 64)
            .await
            .expect("body");
        assert_eq!(&body[..], b"[{\"a\":1},{\"b\":2}]");
    }

    #[test]
    fn a_page_with_other_cursors_is_the_same_page() {
        let one = answered(
            &page(&["{\"cursor\":\"x\",\"specversion\":\"1.0\",\"id\":\"1\"}"], None),
            None,
        );
        let tag = one.headers()[ETAG].to_str().expect("tag").to_owned();
        let again = page(&["{\"cursor\":\"y\",\"specversion\":\"1.0\",\"id\":\"1\"}"], None);
        let response = answered(&again, Some(&format!("\"other\", {tag}")));
        assert_eq!(response.status(), StatusCode::NOT_MODIFIED);
        assert_eq!(response.headers()[CURSOR], "c2");
        let other = page(&["{\"cursor\":\"x\",\"specversion\":\"1.0\",\"id\":\"2\"}"], None);
        assert_eq!(answered(&other, Some(&tag)).status(), StatusCode::OK);
    }

    #[test]
    fn a_gap_is_told_and_never_answered_as_unchanged() {
        let tag = answered(&page(&[], None), None).headers()[ETAG]
            .to_str()
            .expect("tag")
            .to_owned();
        let gap = serde_json::json!({"partitions": [{"partition": 0, "reason": "expired"}], "note": "é"});
        let response = answered(&page(&[], Some(gap)), Some(&tag));
        assert_eq!(response.status(), StatusCode::OK);
        let told = response.headers()[GAP].to_str().expect("ascii");
        assert!(told.contains("\"expired\"") && told.contains("\\u00e9"), "{told}");
    }

    #[test]
    fn a_gap_of_many_partitions_is_bounded_and_counts_the_others() {
        let partitions: Vec<_> = (0..256)
            .map(|partition| serde_json::json!({"partition": partition, "reason": "expired", "from": 1, "to": 900}))
            .collect();
        let gap = serde_json::json!({"cursor": "c", "partitions": partitions});
        let response = answered(&page(&[], Some(gap)), None);
        let told = response.headers()[GAP].to_str().expect("ascii");
        assert!(told.len() < GAP_BYTES_MAX + 100, "{}", told.len());
        let told: Value = serde_json::from_str(told).expect("JSON");
        let named = told["partitions"].as_array().expect("partitions").len();
        assert!(named > 10);
        assert_eq!(told["more"], 256 - named);
    }

    #[test]
    fn a_page_that_ends_early_says_so_and_is_never_unchanged() {
        let whole = page(&[], None);
        let tag = answered(&whole, None).headers()[ETAG]
            .to_str()
            .expect("tag")
            .to_owned();
        assert!(!answered(&whole, None).headers().contains_key(REPLAY));
        let limited = PullPage {
            limited: true,
            ..page(&[], None)
        };
        let response = answered(&limited, Some(&tag));
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()[REPLAY], "limited");
    }

    #[test]
    fn limit_and_wait_are_bounded() {
        let limits = HttpLimits::default();
        assert_eq!(limit(None, &limits).expect("limit"), HttpLimits::PAGE_EVENTS);
        assert!(limit(Some("0"), &limits).is_err());
        assert!(limit(Some("1001"), &limits).is_err());
        assert_eq!(wait(Some("60"), &limits).expect("wait"), Duration::from_secs(60));
        assert!(wait(Some("61"), &limits).is_err());
    }
}

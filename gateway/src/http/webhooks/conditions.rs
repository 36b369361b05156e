//! `If-Match`, `If-None-Match` and `ETag` (RFC 9110, section 13).

use axum::Json;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, ETAG, IF_MATCH, IF_NONE_MATCH};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use schemas::problem::Code;
use serde_json::Value;

use super::super::problem::Problem;
use crate::webhooks::desk::Condition;

/// The most tags that are looked at.
const TAGS_MAX: usize = 16;

/// The version that a change is for, if it says one.
pub(super) fn condition(headers: &HeaderMap) -> Result<Condition, Problem> {
    if !headers.contains_key(IF_MATCH) {
        return Ok(Condition::None);
    }
    match tags(headers, &IF_MATCH) {
        Some(tags) if tags == ["*"] => Ok(Condition::Any),
        // A weak tag stands for more than one version: it never matches here.
        Some(tags) => Ok(Condition::Tags(
            tags.into_iter()
                .filter(|tag| tag.starts_with('"'))
                .map(str::to_owned)
                .collect(),
        )),
        None => Err(Problem::new(
            Code::PARAMETER_INVALID,
            "If-Match is a list of ETags, or *",
        )),
    }
}

/// The version that a change is for; without one it is refused.
pub(super) fn required(headers: &HeaderMap) -> Result<Condition, Problem> {
    match condition(headers)? {
        Condition::None => Err(Problem::new(
            Code::PRECONDITION_REQUIRED,
            "If-Match with the ETag of the version that is meant",
        )),
        condition => Ok(condition),
    }
}

/// The representation with its tag, or 304 where the caller has it.
pub(crate) fn tagged(request: &HeaderMap, tag: &str, body: &Value) -> Response {
    let known = tags(request, &IF_NONE_MATCH).unwrap_or_default();
    let is_known = known
        .iter()
        .any(|have| *have == "*" || have.trim_start_matches("W/") == tag);
    let mut response = if is_known {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        Json(body).into_response()
    };
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    with_tag(response, tag)
}

/// With the tag of what was answered.
pub(super) fn with_tag(mut response: Response, tag: &str) -> Response {
    if let Ok(tag) = HeaderValue::try_from(tag) {
        response.headers_mut().insert(ETAG, tag);
    }
    response
}

/// The list in a header; `None` where it is no text, or too long.
fn tags<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Vec<&'a str>> {
    let mut tags = Vec::new();
    for value in headers.get_all(name) {
        // Ours have no comma in them.
        tags.extend(value.to_str().ok()?.split(',').map(str::trim));
    }
    (tags.len() <= TAGS_MAX).then_some(tags)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(IF_MATCH, value.parse().expect("a value"));
        }
        headers
    }

    #[test]
    fn strong_tags_and_the_star_are_conditions_and_weak_tags_never_match() {
        let read = |values: &[&str]| condition(&headers(values)).expect("a condition");
        assert_eq!(read(&[]), Condition::None);
        assert_eq!(read(&["*"]), Condition::Any);
        let tags = |tags: &[&str]| Condition::Tags(tags.iter().map(|tag| (*tag).to_owned()).collect());
        assert_eq!(
            read(&["\"a\", \"b\"", "\"c\""]),
            tags(&["\"a\"", "\"b\"", "\"c\""])
        );
        assert_eq!(read(&["W/\"a\""]), tags(&[]));
        assert_eq!(
            required(&headers(&[])).expect_err("needed").code,
            Code::PRECONDITION_REQUIRED
        );
        let many = vec!["\"a\""; TAGS_MAX + 1];
        assert_eq!(
            condition(&headers(&many)).expect_err("too many").code,
            Code::PARAMETER_INVALID
        );
    }
}

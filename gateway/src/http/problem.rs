//! Refusals as RFC 9457 problem documents. A document carries a stable code and says nothing of our insides.

use auth::access::Denied;
use auth::token::BadToken;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, StatusCode};
use schemas::filter::BadFilter;
use schemas::problem::Code;
use serde::Serialize;
use subscriptions::hub::Failure;
use webhooks::endpoint::Invalid;

use super::graphql::with_charset;
use crate::webhooks::desk::Refusal;

/// The media type of a problem document.
pub(crate) const MEDIA_TYPE: &str = "application/problem+json";

/// `/v1/ws` was asked for without an upgrade to WebSocket 13.
pub(crate) const UPGRADE_REQUIRED: Code = Code {
    name: "upgrade_required",
    status: 426,
    title: "this path speaks WebSocket only",
    retry: false,
};
/// The WebSocket handshake lacks something or offers no subprotocol of ours.
pub(crate) const HANDSHAKE_INVALID: Code = Code {
    name: "handshake_invalid",
    status: 400,
    title: "the WebSocket handshake is not acceptable",
    retry: false,
};
/// The `Host` is not one of ours (DNS rebinding).
pub(crate) const HOST_FORBIDDEN: Code = Code {
    name: "host_forbidden",
    status: 421,
    title: "this server does not answer for that host",
    retry: false,
};
/// What came is no HTTP/1.1 request.
pub(crate) const REQUEST_MALFORMED: Code = Code {
    name: "request_malformed",
    status: 400,
    title: "the request is malformed",
    retry: false,
};
/// The request's target alone is more than a parser takes.
pub(crate) const URI_TOO_LONG: Code = Code {
    name: "uri_too_long",
    status: 414,
    title: "the request's target is too long",
    retry: false,
};
/// The body did not come in time.
pub(crate) const BODY_TIMEOUT: Code = Code {
    name: "body_timeout",
    status: 408,
    title: "the body did not come in time",
    retry: true,
};

/// A refusal: what the client is told, and the headers that go with it.
#[derive(Debug, Clone)]
pub struct Problem {
    /// The stable code, with its status and title.
    pub code: Code,
    /// More for people, without data. Empty: nothing more is said.
    pub detail: String,
    /// The members of the body that are not acceptable, all of them.
    fields: Vec<Invalid>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// The document, in the order in which people read it.
#[derive(Serialize)]
struct Document<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    code: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    detail: &'a str,
    retry: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<String>,
    /// The first member that is not acceptable (RFC 6901).
    #[serde(skip_serializing_if = "Option::is_none")]
    pointer: Option<&'a str>,
    /// All of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FieldError<'a>>,
}

/// One member that is not acceptable.
#[derive(Serialize)]
struct FieldError<'a> {
    pointer: &'a str,
    code: &'static str,
    detail: &'a str,
}

/// The code of an answer, for the metrics: an extension of the response.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Refused(pub(crate) &'static str);

impl Problem {
    /// A refusal with a detail.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            fields: Vec::new(),
            headers: Vec::new(),
        }
    }

    /// With one more header.
    #[must_use]
    pub(crate) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Seconds after which the same request may succeed; only where it may.
    fn retry_after(&self) -> Option<HeaderValue> {
        // Another node answers at once; a limit or a missing issuer takes a moment.
        let seconds = if self.code == Code::DRAINING { "1" } else { "5" };
        (self.code.retry && matches!(self.code.status, 429 | 503)).then(|| HeaderValue::from_static(seconds))
    }

    /// RFC 6750, section 3: without credentials only the scheme is named.
    fn challenge(&self) -> Option<HeaderValue> {
        (self.code.status == 401).then(|| {
            HeaderValue::from_static(if self.code == Code::UNAUTHENTICATED {
                "Bearer realm=\"tidewire\""
            } else {
                "Bearer realm=\"tidewire\", error=\"invalid_token\""
            })
        })
    }

    /// As a GraphQL answer, for paths that speak GraphQL: the same status, the same headers, the same code.
    pub(crate) fn into_graphql(self, media_type: &'static str) -> Response {
        let instance = self.instance();
        let message = match self.detail.as_str() {
            "" => self.code.title.to_owned(),
            detail => format!("{}: {detail}", self.code.title),
        };
        let mut extensions = serde_json::json!({"code": self.code.name});
        if let Some(instance) = instance {
            extensions["instance"] = instance.into();
        }
        let errors = serde_json::json!({"errors": [{"message": message, "extensions": extensions}]});
        self.answer(with_charset(media_type), errors.to_string().into_bytes())
    }

    /// By which operators find our own failures in the logs.
    fn instance(&self) -> Option<String> {
        let instance = (self.code == Code::INTERNAL).then(|| format!("urn:ulid:{}", ulid::Ulid::generate()));
        if let Some(instance) = &instance {
            tracing::error!(instance, code = self.code.name, "a request failed");
        }
        instance
    }

    fn answer(self, media_type: &'static str, body: Vec<u8>) -> Response {
        let mut response = body.into_response();
        *response.status_mut() =
            StatusCode::from_u16(self.code.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let retry_after = self.retry_after();
        let challenge = self.challenge();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = retry_after {
            headers.insert(RETRY_AFTER, seconds);
        }
        if let Some(challenge) = challenge {
            headers.insert(WWW_AUTHENTICATE, challenge);
        }
        headers.extend(self.headers);
        response.extensions_mut().insert(Refused(self.code.name));
        response
    }

    /// The document alone, without what belongs to the head.
    pub(crate) fn document(&self) -> Vec<u8> {
        let instance = self.instance();
        let document = Document {
            r#type: format!("urn:tidewire:problem:{}", self.code.name),
            title: self.code.title,
            status: self.code.status,
            code: self.code.name,
            detail: &self.detail,
            retry: self.code.retry,
            instance,
            pointer: self.fields.first().map(|field| field.pointer.as_str()),
            errors: self
                .fields
                .iter()
                .map(|field| FieldError {
                    pointer: &field.pointer,
                    code: field.code.name,
                    detail: &field.detail,
                })
                .collect(),
        };
        serde_json::to_vec(&document).expect("problem: a document of strings and numbers can be written")
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = self.document();
        self.answer(MEDIA_TYPE, body)
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        // Our own failures keep their reasons to themselves.
        let detail = if failure.code == Code::INTERNAL {
            String::new()
        } else {
            failure.detail
        };
        Self::new(failure.code, detail)
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Self {
            fields: refusal.fields,
            ..Self::new(refusal.code, refusal.detail)
        }
    }
}

impl From<BadToken> for Problem {
    fn from(bad: BadToken) -> Self {
        Self::new(bad.code, bad.detail)
    }
}

impl From<Denied> for Problem {
    fn from(denied: Denied) -> Self {
        Self::new(denied.code, denied.detail)
    }
}

impl From<BadFilter> for Problem {
    fn from(bad: BadFilter) -> Self {
        Self::new(bad.code, bad.detail)
    }
}

/// An unknown path.
pub(crate) fn not_found() -> Problem {
    Problem::new(Code::NOT_FOUND, "")
}

/// A known path, another method. `allow` is the list of those that work.
pub(crate) fn method_not_allowed(allow: &str) -> Problem {
    let problem = Problem::new(Code::METHOD_NOT_ALLOWED, format!("allowed here: {allow}"));
    match HeaderValue::try_from(allow) {
        Ok(allow) => problem.with(http::header::ALLOW, allow),
        Err(_) => problem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_and_bad_credentials_are_challenged_differently() {
        let challenge = |code| Problem::new(code, "").into_response().headers()[WWW_AUTHENTICATE].clone();
        assert_eq!(challenge(Code::UNAUTHENTICATED), "Bearer realm=\"tidewire\"");
        assert_eq!(
            challenge(Code::TOKEN_EXPIRED),
            "Bearer realm=\"tidewire\", error=\"invalid_token\""
        );
    }

    #[test]
    fn only_what_may_succeed_later_has_a_retry_after() {
        for code in Code::ALL {
            let response = Problem::new(*code, "x").into_response();
            let told = response.headers().contains_key(RETRY_AFTER);
            assert_eq!(
                told,
                code.retry && matches!(code.status, 429 | 503),
                "{}",
                code.name
            );
        }
    }

    #[tokio::test]
    async fn internal_failures_say_nothing_of_our_insides() {
        let problem = Problem::from(Failure::new(Code::INTERNAL, "stack at src/secret.rs"));
        let body = axum::body::to_bytes(problem.into_response().into_body(), 4096)
            .await
            .expect("body");
        let text = String::from_utf8(body.to_vec()).expect("text");
        assert!(!text.contains("secret"), "{text}");
        assert!(text.contains("\"instance\":\"urn:ulid:"), "{text}");
    }
}

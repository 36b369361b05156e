//! One attempt: one POST, signed anew, under one deadline.
//!
//! One invariant: everything that goes out of us is set here, once: what a receiver sees is this list and the headers of the
//! connection. The answer is a status, at most a few bytes of it are read, and redirects are not followed.

use std::fmt;
use std::time::Duration;

use auth::clock::Clock;
use auth::egress::{Client, EgressError, Request, SendBounds};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use secrecy::ExposeSecret as _;
use tokio::time::Instant;

use crate::delivery::DeliveryId;
use crate::endpoint::{Credentials, Endpoint};
use crate::render::Rendered;
use crate::retry::{Outcome, retry_after_ms};
use crate::sign::{MessageSigner, Request as Signed, Scheme, content_digest};

/// The most of an answer's body that is read: enough for a connection to be used again after a usual answer.
const ANSWER_BYTES_MAX: usize = 16 * 1024;

/// How long an answer's body may take after its head. What drips is delivered, and its connection is given up.
const ANSWER_BODY: Duration = Duration::from_secs(1);

const ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");
const MESSAGE_INPUT: HeaderName = HeaderName::from_static("signature-input");
const MESSAGE_SIGNATURE: HeaderName = HeaderName::from_static("signature");
const ATTEMPT: HeaderName = HeaderName::from_static("tidewire-attempt");
const POSITION: HeaderName = HeaderName::from_static("tidewire-position");
const SKIPPED: HeaderName = HeaderName::from_static("tidewire-dead-lettered");

/// What is sent.
#[derive(Debug, Clone)]
pub struct Outgoing<'a> {
    /// To whom.
    pub endpoint: &'a Endpoint,
    /// The delivery.
    pub delivery: &'a DeliveryId,
    /// The how-manieth attempt of it, from 1.
    pub number: u32,
    /// The event.
    pub rendered: Rendered,
    /// Where it lies, sealed.
    pub position: Option<&'a HeaderValue>,
    /// A delivery before this one that was given up.
    pub dead_lettered: Option<&'a DeliveryId>,
    /// A bearer token that was fetched for the endpoint (OAuth 2).
    pub token: Option<&'a HeaderValue>,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What it means for what follows.
    pub outcome: Outcome,
    /// The answer's status, if there was one.
    pub status: Option<u16>,
    /// A stable word: `delivered`, `gone`, `throttled`, `status`, or the class of the failure.
    pub word: &'static str,
    /// How long it took.
    pub latency: Duration,
    /// What was answered, for nobody but who has switched on that it is kept: a partner who sees what answered could look
    /// around with it.
    pub answer: Option<Answered>,
}

/// The body of an answer.
#[derive(Clone, PartialEq, Eq)]
pub struct Answered {
    /// What was read of it.
    pub body: Vec<u8>,
    /// How long it is, where that is known: it was read as a whole, or its head says so.
    pub bytes: Option<u64>,
}

/// How long it is, and nothing of what it says.
impl fmt::Debug for Answered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Answered({} of {:?} bytes)", self.body.len(), self.bytes)
    }
}

/// The headers of an attempt at this time, and its body.
#[must_use]
pub fn headers(outgoing: Outgoing<'_>, signer: &MessageSigner, now_ms: i64) -> (HeaderMap, Bytes) {
    let Outgoing {
        endpoint, rendered, ..
    } = outgoing;
    let schemes = &endpoint.spec.signing;
    let is_message_signed = schemes.contains(&Scheme::Rfc9421);
    let content_type = rendered
        .headers
        .iter()
        .find(|(name, _)| is_message_signed && *name == header::CONTENT_TYPE)
        .map(|(_, value)| value.clone());
    let timestamp_s = now_ms.div_euclid(1000);
    let mut headers = HeaderMap::with_capacity(16 + rendered.headers.len());
    // The endpoint's own first: none of them can take the place of ours.
    for (name, value) in &endpoint.spec.headers {
        headers.insert(name.clone(), value.clone());
    }
    for (name, value) in rendered.headers {
        headers.insert(name, value);
    }
    if let Some(position) = outgoing.position {
        headers.insert(POSITION, position.clone());
    }
    let mut set = |name: HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    };
    set(ID, outgoing.delivery.as_str());
    set(TIMESTAMP, &timestamp_s.to_string());
    set(ATTEMPT, &outgoing.number.to_string());
    if let Some(dead_lettered) = outgoing.dead_lettered {
        set(SKIPPED, dead_lettered.as_str());
    }
    let id = outgoing.delivery.as_str();
    let standard = endpoint
        .keys
        .signature(schemes, id, timestamp_s, &rendered.body, now_ms);
    if let Some(signature) = standard {
        set(SIGNATURE, &signature);
    }
    if is_message_signed {
        let digest = content_digest(&rendered.body);
        let signed = Signed {
            target_uri: endpoint.spec.url.as_str(),
            content_digest: &digest,
            content_type: content_type.as_ref().and_then(|value| value.to_str().ok()),
            id,
            timestamp_s,
        };
        set(CONTENT_DIGEST, &digest);
        if let Some((input, signature)) = signer.sign(&signed, now_ms) {
            set(MESSAGE_INPUT, &input);
            set(MESSAGE_SIGNATURE, &signature);
        }
    }
    if let Some(mut value) = authorization(&endpoint.spec.credentials).or_else(|| outgoing.token.cloned()) {
        value.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, value);
    }
    (headers, rendered.body)
}

/// Sends a delivery. Cancel safe: the connection is given up, and the receiver may have got it.
pub async fn post(client: &Client, outgoing: Outgoing<'_>, signer: &MessageSigner, clock: Clock) -> Report {
    let start = Instant::now();
    let spec = &outgoing.endpoint.spec;
    let (headers, body) = headers(outgoing, signer, clock.now_ms());
    let request = Request {
        method: Method::POST,
        url: &spec.url,
        headers,
        body: body.into(),
    };
    let bounds = SendBounds {
        deadline: spec.timeout,
        body_deadline: ANSWER_BODY,
        body_bytes_max: ANSWER_BYTES_MAX,
    };
    let reply = client.send(request, bounds).await;
    let latency = start.elapsed();
    match reply {
        Ok(reply) => {
            let retry_after = reply
                .headers
                .get(header::RETRY_AFTER)
                .and_then(|value| value.to_str().ok());
            let retry_after_ms = retry_after.and_then(|text| retry_after_ms(text, clock.now_ms()));
            let outcome = Outcome::of_status(reply.status, retry_after_ms);
            let said = reply
                .headers
                .get(header::CONTENT_LENGTH)
                .and_then(|value| value.to_str().ok()?.parse().ok());
            let bytes = if reply.whole {
                u64::try_from(reply.body.len()).ok()
            } else {
                said
            };
            Report {
                outcome,
                status: Some(reply.status),
                word: match outcome {
                    Outcome::Delivered => "delivered",
                    Outcome::Gone => "gone",
                    Outcome::Throttled { .. } => "throttled",
                    Outcome::Failed => "status",
                },
                latency,
                answer: Some(Answered {
                    body: reply.body,
                    bytes,
                }),
            }
        }
        Err(error) => failed(&error, latency),
    }
}

fn failed(error: &EgressError, latency: Duration) -> Report {
    Report {
        outcome: Outcome::Failed,
        status: None,
        word: error.class(),
        latency,
        answer: None,
    }
}

fn authorization(credentials: &Credentials) -> Option<HeaderValue> {
    let text = match credentials {
        Credentials::Bearer { token } => format!("Bearer {}", token.expose_secret()),
        Credentials::Basic { username, password } => {
            let pair = format!("{username}:{}", password.expose_secret());
            format!("Basic {}", STANDARD.encode(pair))
        }
        Credentials::None | Credentials::OAuth2 { .. } | Credentials::Mtls { .. } => return None,
    };
    HeaderValue::try_from(text).ok()
}

#[cfg(test)]
mod tests;

//! Whether a delivery comes from who has the secret: the public library of Standard Webhooks decides. Pure, but for the
//! library's clock.
//!
//! Invariant: nothing is read of a body whose signature is not verified, and of one that is, only what the page shows.

use http::{HeaderMap, HeaderValue};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use standardwebhooks::{HEADER_WEBHOOK_ID, HEADER_WEBHOOK_TIMESTAMP, Webhook, WebhookError};

/// Counts from 1. It is not of the standard, and not signed: for people only.
const ATTEMPT: &str = "tidewire-attempt";
/// Digits of a time in seconds until the year 33658. The library reckons with whatever it can read, and would overflow.
const TIMESTAMP_DIGITS_MAX: usize = 12;
/// Longer ids and types are shown cut: the producer of an event may have written them.
const SHOWN_CHARS_MAX: usize = 200;

/// A delivery whose signature is good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The delivery: the same on each attempt.
    pub id: String,
    /// Which attempt it is.
    pub attempt: Option<u32>,
    /// The event's id.
    pub event: String,
    /// The event's type.
    pub kind: String,
    /// When the event happened: when its record was produced.
    pub produced_ms: Option<i64>,
}

/// Why a delivery is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Refused {
    /// One of the three headers is missing, or cannot be read.
    Unsigned,
    /// It was signed more than five minutes ago, or for later.
    Stale,
    /// No signature is one of the secret.
    Forged,
}

/// What of a `CloudEvent` is shown.
#[derive(Debug, Default, Deserialize)]
struct Event {
    #[serde(default)]
    id: String,
    #[serde(default, rename = "type")]
    kind: String,
    time: Option<String>,
}

/// Verifies a delivery and reads what is shown of it.
///
/// # Errors
///
/// It is not signed, or not with this secret, or not now.
pub fn verify(webhook: &Webhook, headers: &HeaderMap, body: &[u8]) -> Result<Verified, Refused> {
    let text = |name: &str| headers.get(name).map(HeaderValue::to_str).and_then(Result::ok);
    let (Some(id), Some(timestamp)) = (text(HEADER_WEBHOOK_ID), text(HEADER_WEBHOOK_TIMESTAMP)) else {
        return Err(Refused::Unsigned);
    };
    if timestamp.len() > TIMESTAMP_DIGITS_MAX {
        return Err(Refused::Unsigned);
    }
    webhook.verify(body, headers).map_err(|error| match error {
        WebhookError::InvalidTimestamp | WebhookError::InvalidHeader(_) | WebhookError::MissingHeader(_) => {
            Refused::Unsigned
        }
        WebhookError::TimestampTooOldError | WebhookError::FutureTimestampError => Refused::Stale,
        WebhookError::InvalidSecret(_) | WebhookError::InvalidSignature | WebhookError::InvalidPayload => {
            Refused::Forged
        }
    })?;
    let event: Event = serde_json::from_slice(body).unwrap_or_default();
    let produced: Option<Timestamp> = event.time.and_then(|time| time.parse().ok());
    let cut = |text: &str| text.chars().take(SHOWN_CHARS_MAX).collect();
    Ok(Verified {
        id: id.to_owned(),
        attempt: text(ATTEMPT).and_then(|number| number.parse().ok()),
        event: cut(&event.id),
        kind: cut(&event.kind),
        produced_ms: produced.map(Timestamp::as_millisecond),
    })
}

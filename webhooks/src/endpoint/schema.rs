//! The specification as JSON Schema, for documents: the limits are those that reading it goes by.
//!
//! Invariant: a member stands here if and only if [`super::Spec::parse`] takes it; a test compares the two.

use serde_json::{Value, json};

use super::header;
use super::spec::{
    CONCURRENCY, CONCURRENCY_MAX, DESCRIPTION_BYTES_MAX, METADATA_MAX, METADATA_NAME_BYTES_MAX,
    METADATA_VALUE_BYTES_MAX, RATE_MAX, STREAMS_MAX, TIMEOUT, TIMEOUT_MS_MAX, TIMEOUT_MS_MIN, TYPE_BYTES_MAX,
    TYPES_MAX, URL_BYTES_MAX,
};
use crate::render::ContentMode;
use crate::retry::{DELAY_MAX, DELAYS_MAX};
use crate::sign::Scheme;

/// The JSON Schema (2020-12) of what somebody writes of an endpoint.
#[must_use]
pub fn schema() -> Value {
    let content: Vec<&str> = ContentMode::ALL.iter().map(|mode| mode.as_str()).collect();
    let signing: Vec<&str> = Scheme::ALL.iter().map(|scheme| scheme.as_str()).collect();
    let timeout_ms = u64::try_from(TIMEOUT.as_millis()).unwrap_or(u64::MAX);
    json!({
        "type": "object",
        "required": ["url", "streams"],
        "additionalProperties": false,
        "properties": {
            "url": {
                "type": "string", "format": "uri", "maxLength": URL_BYTES_MAX,
                "description": "Where deliveries go: https, without credentials and fragment. Redirects are not followed.",
            },
            "streams": {
                "type": "array", "minItems": 1, "maxItems": STREAMS_MAX, "uniqueItems": true,
                "items": { "type": "string", "pattern": "^[a-z][a-z0-9_]{0,62}$" },
                "description": "The streams of which it is owed events.",
            },
            "types": {
                "type": "array", "maxItems": TYPES_MAX, "default": [],
                "items": { "type": "string", "minLength": 1, "maxLength": TYPE_BYTES_MAX },
                "description": "Event types, whole; none: all of them.",
            },
            "filter": {
                "description": "One dialect object of CloudEvents Subscriptions (exact, prefix, suffix, all, any, not) over \
                                `type` and declared attributes, or an array of them that must all hold.",
                "oneOf": [
                    { "$ref": "#/components/schemas/FilterExpression" },
                    { "type": "array", "items": { "$ref": "#/components/schemas/FilterExpression" } },
                ],
                "default": [],
            },
            "content": {
                "type": "string", "enum": content, "default": ContentMode::default().as_str(),
                "description": "thin: id, source, type and time only. structured: the whole CloudEvent as JSON. binary: the \
                                data, with attributes as ce- headers. raw: the data, with the type in tidewire-type.",
            },
            "headers": {
                "type": "object", "maxProperties": header::HEADERS_MAX, "default": {},
                "propertyNames": { "minLength": 1, "maxLength": header::NAME_BYTES_MAX },
                "additionalProperties": {
                    "type": "string", "minLength": 1, "maxLength": header::VALUE_BYTES_MAX,
                },
                "description": "Headers of its own. Those of the signature, the event, the body and the connection are not taken.",
            },
            "signing": {
                "type": "array", "minItems": 1, "uniqueItems": true, "default": [Scheme::V1.as_str()],
                "items": { "type": "string", "enum": signing },
                "description": "v1: HMAC-SHA256 (Standard Webhooks). v1a: Ed25519 with a key of the endpoint's own. rfc9421: \
                                HTTP Message Signatures with the gateway's key (/.well-known/webhook-keys.json).",
            },
            "credentials": {
                "oneOf": credentials(), "default": { "type": "none" },
                "description": "What the destination wants to be shown. Always given whole; secrets are never answered.",
            },
            "rate_per_second": {
                "type": ["integer", "null"], "minimum": 1, "maximum": RATE_MAX, "default": null,
                "description": "The most attempts a second.",
            },
            "concurrency": {
                "type": "integer", "minimum": 1, "maximum": CONCURRENCY_MAX, "default": CONCURRENCY,
                "description": "The most attempts at once.",
            },
            "timeout_ms": {
                "type": "integer", "minimum": TIMEOUT_MS_MIN, "maximum": TIMEOUT_MS_MAX, "default": timeout_ms,
                "description": "The deadline of one attempt, from the name's resolution to the answer's last byte.",
            },
            "retry_seconds": {
                "type": ["array", "null"], "maxItems": DELAYS_MAX, "default": null,
                "items": { "type": "integer", "minimum": 1, "maximum": DELAY_MAX.as_secs() },
                "description": "The delays before each further attempt; null: the gateway's schedule. After the last one a \
                                delivery is dead-lettered.",
            },
            "ordering": {
                "type": "string", "enum": ["none", "key"], "default": "none",
                "description": "key: deliveries with the same record key come in order, and later ones wait.",
            },
            "description": {
                "type": "string", "maxLength": DESCRIPTION_BYTES_MAX, "default": "",
                "description": "For people.",
            },
            "metadata": {
                "type": "object", "maxProperties": METADATA_MAX, "default": {},
                "propertyNames": { "minLength": 1, "maxLength": METADATA_NAME_BYTES_MAX },
                "additionalProperties": { "type": "string", "maxLength": METADATA_VALUE_BYTES_MAX },
                "description": "For programs.",
            },
            "enabled": {
                "type": "boolean", "default": true,
                "description": "Whether it is called. While it is not, what it is owed is parked.",
            },
            "handshake": {
                "type": "boolean", "default": false,
                "description": "Whether its receiver is asked for consent first (CloudEvents' abuse protection: OPTIONS).",
            },
        },
    })
}

fn credentials() -> Value {
    let secret = || json!({ "type": "string", "writeOnly": true });
    let kind = |name: &str, members: Value, required: &[&str]| {
        let mut properties = json!({ "type": { "const": name } });
        if let (Some(properties), Value::Object(members)) = (properties.as_object_mut(), members) {
            properties.extend(members);
        }
        let required: Vec<&str> = std::iter::once("type").chain(required.iter().copied()).collect();
        json!({
            "type": "object", "properties": properties, "required": required, "additionalProperties": false,
        })
    };
    let text = || json!({ "type": "string" });
    json!([
        kind("none", json!({}), &[]),
        kind("bearer", json!({ "token": secret() }), &["token"]),
        kind(
            "basic",
            json!({ "username": text(), "password": secret() }),
            &["username", "password"]
        ),
        kind(
            "oauth2",
            json!({
                "token_url": { "type": "string", "format": "uri" }, "client_id": text(), "client_secret": secret(),
                "scopes": { "type": "array", "maxItems": 32, "items": text() },
            }),
            &["token_url", "client_id", "client_secret"]
        ),
        kind(
            "mtls",
            json!({ "certificate": text(), "key": secret() }),
            &["certificate", "key"]
        ),
    ])
}

#[cfg(test)]
mod tests {
    use auth::egress::Reach;

    use super::*;
    use crate::endpoint::Spec;

    #[test]
    fn every_member_that_is_taken_is_described_and_every_default_is_the_one_that_is_used() {
        let body = json!({ "url": "https://partner.example/hooks", "streams": ["observations"] });
        let spec = Spec::parse(&body, Reach::default()).expect("the smallest request");
        let shown = spec.to_json();
        let shown = shown.as_object().expect("an object");
        let schema = schema();
        let described = schema["properties"].as_object().expect("an object");
        assert_eq!(
            shown.keys().collect::<Vec<_>>(),
            described.keys().collect::<Vec<_>>()
        );
        for (name, member) in described {
            if !["url", "streams"].contains(&name.as_str()) {
                assert_eq!(member["default"], shown[name], "{name}");
            }
        }
    }
}

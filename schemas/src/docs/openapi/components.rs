//! The shapes that routes take and give, as JSON Schema (2020-12).
//!
//! Invariant: what is said of an endpoint comes from the specification's own schema, so that no limit stands here twice.

use serde_json::{Map, Value, json};

/// The shapes by name. `specification` is that of what somebody writes of an endpoint.
pub(super) fn components(specification: &Value) -> Map<String, Value> {
    let text = || json!({ "type": "string" });
    let time = || json!({ "type": "string", "format": "date-time" });
    let time_or_null = || json!({ "type": ["string", "null"], "format": "date-time" });
    let count = || json!({ "type": "integer", "minimum": 0 });
    let stream = || json!({ "type": "string", "description": "One of the endpoint's streams." });
    let mut all = Map::new();
    let mut add = |name: &str, schema: Value| {
        all.insert(name.to_owned(), schema);
    };
    add("Problem", problem());
    add("EndpointSpecification", specification.clone());
    add("EndpointPatch", patch(specification));
    add("Endpoint", endpoint(specification));
    add(
        "EndpointWithSecrets",
        json!({
            "allOf": [
                { "$ref": "#/components/schemas/Endpoint" },
                object(json!({
                    "secret": { "type": "string", "description": "whsec_...: the current v1 secret, in this answer only." },
                    "public_key": { "type": "string", "description": "whpk_...: the current v1a public key." },
                }), &[]),
            ],
        }),
    );
    add("FilterExpression", filter());
    add("EndpointPage", page("endpoints", "Endpoint"));
    add("AttemptPage", page("attempts", "Attempt"));
    add(
        "Attempt",
        object(
            json!({
                "id": text(), "endpoint": text(), "delivery": text(),
                "attempt": { "type": "integer", "minimum": 1 }, "at": time(),
                "status": { "type": ["integer", "null"] },
                "outcome": { "type": "string", "description": "`delivered`, or a stable word for what went wrong." },
                "latency_ms": count(),
            }),
            &[
                "id",
                "endpoint",
                "delivery",
                "attempt",
                "at",
                "status",
                "outcome",
                "latency_ms",
            ],
        ),
    );
    add(
        "AttemptBody",
        object(
            json!({
                "bytes": { "type": ["integer", "null"], "minimum": 0, "description": "null: the rest was not read." },
                "cut": { "type": "boolean" },
                "text": { "type": "string", "description": "What is kept, where it is UTF-8." },
                "base64": { "type": "string", "description": "What is kept, where it is not." },
            }),
            &["bytes", "cut"],
        ),
    );
    add(
        "AttemptWithBodies",
        json!({
            "allOf": [
                { "$ref": "#/components/schemas/Attempt" },
                object(json!({
                    "bodies": {
                        "type": "string", "enum": ["kept", "withheld", "none"],
                        "description": "withheld: the token is granted less than the endpoint's owner.",
                    },
                    "request": { "$ref": "#/components/schemas/AttemptBody" },
                    "answer": { "oneOf": [{ "$ref": "#/components/schemas/AttemptBody" }, { "type": "null" }] },
                }), &["bodies"]),
            ],
        }),
    );
    add(
        "RotateRequest",
        closed(
            json!({ "overlap_seconds": { "type": "integer", "minimum": 0, "maximum": 604_800 } }),
            &[],
        ),
    );
    add("TestRequest", closed(json!({ "stream": stream() }), &[]));
    add(
        "TestResult",
        object(
            json!({
                "delivery": text(), "outcome": text(), "status": { "type": ["integer", "null"] }, "latency_ms": count(),
            }),
            &["delivery", "outcome", "status", "latency_ms"],
        ),
    );
    add(
        "HandshakeResult",
        object(
            json!({
                "outcome": {
                    "type": "string",
                    "description": "agreed, refused, rate_too_low (less than one a second), or the class of the failure.",
                },
                "status": { "type": ["integer", "null"] },
                "endpoint": { "$ref": "#/components/schemas/Endpoint" },
            }),
            &["outcome", "status", "endpoint"],
        ),
    );
    add(
        "Health",
        object(
            json!({
                "status": { "type": "string", "enum": ["active", "pending", "disabled"] },
                "success_rate": { "type": ["number", "null"], "minimum": 0, "maximum": 1 },
                "attempts": count(),
                "p50_ms": { "type": ["integer", "null"] }, "p95_ms": { "type": ["integer", "null"] },
                "backlog": count(), "next_attempt_at": time_or_null(), "failing_since": time_or_null(),
                "breaker_open_until": time_or_null(),
            }),
            &["status", "success_rate", "attempts", "backlog"],
        ),
    );
    add(
        "EndpointCursor",
        object(
            json!({ "stream": text(), "cursor": text() }),
            &["stream", "cursor"],
        ),
    );
    let events = || json!({ "type": "integer", "minimum": 1, "maximum": 100, "default": 10 });
    add(
        "DryRunRequest",
        closed(json!({ "stream": stream(), "events": events() }), &[]),
    );
    add(
        "DryRunSpecificationRequest",
        closed(
            json!({
                "specification": { "$ref": "#/components/schemas/EndpointSpecification" },
                "stream": stream(), "events": events(),
            }),
            &["specification"],
        ),
    );
    add(
        "DryRunResult",
        object(
            json!({
                "stream": text(),
                "events": { "type": "integer", "description": "Events that were looked at and that the owner may see." },
                "matched": count(),
                "deliveries": {
                    "type": "array",
                    "items": object(json!({
                        "headers": { "type": "object", "additionalProperties": { "type": "string" } },
                        "bytes": count(),
                        "body": {
                            "type": ["string", "null"],
                            "description": "null where it is no text, or where a megabyte is answered already.",
                        },
                    }), &["headers", "bytes", "body"]),
                },
            }),
            &["stream", "events", "matched", "deliveries"],
        ),
    );
    add(
        "ReplayRequest",
        closed(
            json!({
                "from": {
                    "type": "string",
                    "description": "An RFC 3339 time, a cursor, or `failed`: from what was given up or, if it fails now, since then.",
                },
                "until": { "type": "string", "description": "A time or a cursor; without it, all that there is by now." },
                "stream": stream(),
            }),
            &["from"],
        ),
    );
    add("Begun", object(json!({ "id": text() }), &["id"]));
    add(
        "Replays",
        object(
            json!({
                "replays": {
                    "type": "array",
                    "items": object(json!({
                        "id": text(), "kind": text(), "streams": { "type": "array", "items": text() },
                        "created_at": time(), "partitions": count(), "partitions_done": count(), "deliveries": count(),
                    }), &["id", "kind"]),
                },
            }),
            &["replays"],
        ),
    );
    add(
        "JwkSet",
        object(
            json!({ "keys": { "type": "array", "items": { "type": "object" } } }),
            &["keys"],
        ),
    );
    add("OpenApi", json!({ "type": "object" }));
    add(
        "Catalogue",
        object(
            json!({ "streams": { "type": "array", "items": { "type": "object", "required": ["name"] } } }),
            &["streams"],
        ),
    );
    add(
        "EventBatch",
        json!({ "type": "array", "items": { "$ref": "#/components/schemas/CloudEvent" } }),
    );
    add(
        "ServerSentEvents",
        json!({ "type": "string", "description": "Each message's data is an event; its id is the cursor after it." }),
    );
    add(
        "Subscription",
        closed(
            json!({
                "where": {
                    "type": "object",
                    "description": "A filter: an attribute's value, or a list of alternatives.",
                    "additionalProperties": {
                        "oneOf": [text(), { "type": "array", "items": text(), "minItems": 1 }],
                    },
                },
                "after": text(),
                "overflow": { "type": "string", "enum": ["close"] },
                "snapshot": { "const": false },
                "rate": { "const": false },
            }),
            &[],
        ),
    );
    add(
        "TicketRequest",
        closed(
            json!({
                "as": { "type": "string", "enum": ["ticket", "cookie"], "default": "ticket" },
                "stream": text(), "where": { "type": "object" },
            }),
            &[],
        ),
    );
    add(
        "Ticket",
        object(json!({ "ticket": text(), "expires_at": time() }), &["expires_at"]),
    );
    add("CloudEvent", cloud_event());
    all
}

/// What every event has (CloudEvents 1.0). Attributes of its stream stand beside these.
fn cloud_event() -> Value {
    let text = || json!({ "type": "string" });
    object(
        json!({
            "specversion": { "const": "1.0" }, "id": text(), "source": { "type": "string", "format": "uri-reference" },
            "type": text(), "subject": text(), "time": { "type": "string", "format": "date-time" },
            "tenant": text(), "cursor": text(), "datacontenttype": text(), "data": {}, "data_base64": text(),
        }),
        &["specversion", "id", "source", "type"],
    )
}

/// RFC 9457, with a stable code; members that are not acceptable are named, all of them.
fn problem() -> Value {
    let text = || json!({ "type": "string" });
    object(
        json!({
            "type": { "type": "string", "format": "uri" }, "title": text(), "status": { "type": "integer" },
            "code": text(), "detail": text(), "retry": { "type": "boolean" }, "instance": text(),
            "pointer": { "type": "string", "description": "The first member that is not acceptable (RFC 6901)." },
            "errors": {
                "type": "array",
                "items": object(
                    json!({ "pointer": text(), "code": text(), "detail": text() }),
                    &["pointer", "code", "detail"],
                ),
            },
        }),
        &["type", "title", "status", "code", "retry"],
    )
}

fn filter() -> Value {
    let compared = |dialect: &str| {
        closed(
            json!({
                dialect: {
                    "type": "object", "minProperties": 1,
                    "propertyNames": { "pattern": "^[a-z][a-z0-9]{0,19}$" },
                    "additionalProperties": { "type": "string", "minLength": 1 },
                },
            }),
            &[dialect],
        )
    };
    let expression = || json!({ "$ref": "#/components/schemas/FilterExpression" });
    let list = |dialect: &str| {
        closed(
            json!({ dialect: { "type": "array", "minItems": 1, "items": expression() } }),
            &[dialect],
        )
    };
    json!({
        "oneOf": [
            compared("exact"), compared("prefix"), compared("suffix"), list("all"), list("any"),
            closed(json!({ "not": expression() }), &["not"]),
        ],
    })
}

/// A merge patch: nothing is needed, `null` is the default again.
fn patch(specification: &Value) -> Value {
    let mut members = Map::new();
    for (name, schema) in properties(specification) {
        members.insert(name.clone(), json!({ "anyOf": [schema, { "type": "null" }] }));
    }
    let owner = json!({
        "const": "me",
        "description": "Whoever asks becomes the owner, on whose behalf the endpoint gets what it gets.",
    });
    members.insert("owner".to_owned(), owner);
    closed(Value::Object(members), &[])
}

/// An endpoint as it is shown.
fn endpoint(specification: &Value) -> Value {
    let text = || json!({ "type": "string" });
    let time = || json!({ "type": "string", "format": "date-time" });
    let until = || json!({ "type": ["string", "null"], "format": "date-time" });
    let mut members = Map::new();
    members.insert(
        "id".to_owned(),
        json!({ "type": "string", "pattern": "^ep_[0-9A-Z]{26}$" }),
    );
    members.extend(properties(specification).map(|(name, schema)| (name.clone(), schema.clone())));
    let shown = json!({
        "credentials": object(json!({ "type": text() }), &["type"]),
        "status": { "type": "string", "enum": ["active", "pending", "disabled"] },
        "disabled": object(
            json!({ "reason": { "type": "string", "enum": ["by_hand", "gone", "failing"] }, "since": time() }),
            &["reason", "since"],
        ),
        "secrets": { "type": "array", "items": object(json!({ "signs_until": until() }), &["signs_until"]) },
        "public_keys": {
            "type": "array",
            "items": object(json!({ "public_key": text(), "signs_until": until() }), &["public_key", "signs_until"]),
        },
        "authorized_until": until(),
        "created_at": time(),
        "updated_at": time(),
    });
    if let Value::Object(shown) = shown {
        members.extend(shown);
    }
    object(Value::Object(members), &["id", "url", "streams", "status"])
}

fn properties(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
}

fn page(name: &str, schema: &str) -> Value {
    let items = json!({ "type": "array", "items": { "$ref": format!("#/components/schemas/{schema}") } });
    object(
        json!({ name: items, "next": { "type": ["string", "null"], "description": "Give it as `after`." } }),
        &[name, "next"],
    )
}

/// An object that may have more members than these.
fn object(properties: Value, required: &[&str]) -> Value {
    let mut schema = json!({ "type": "object" });
    schema["properties"] = properties;
    schema["required"] = json!(required);
    schema
}

/// An object with these members and no others.
fn closed(properties: Value, required: &[&str]) -> Value {
    let mut schema = object(properties, required);
    schema["additionalProperties"] = json!(false);
    schema
}

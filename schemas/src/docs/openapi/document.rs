//! The document, put together from routes, shapes and streams.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::components::components;
use super::delivery::DELIVERY_HEADERS;
use super::operations::{Access, Of, Parameter, Place, Route};
use crate::contract::{Deletes, Stream};
use crate::event::Change;

/// A stream as its reader is shown it.
#[derive(Debug)]
pub struct Shown<'a> {
    /// Its declaration.
    pub stream: &'a Stream,
    /// The attributes by which the reader may filter.
    pub attributes: Vec<&'a str>,
}

/// What a document is made of.
#[derive(Debug)]
pub struct Document<'a> {
    /// The version of the program.
    pub version: &'a str,
    /// The routes that are shown.
    pub routes: Vec<&'a Route>,
    /// The streams that are shown.
    pub streams: Vec<Shown<'a>>,
    /// The JSON Schema of what somebody writes of an endpoint.
    pub specification: Value,
}

impl Document<'_> {
    /// OpenAPI 3.1, as JSON.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut schemas = components(&self.specification);
        for shown in &self.streams {
            schemas.insert(component(shown.stream), event(shown));
        }
        let mut document = Map::new();
        let mut set = |name: &str, value: Value| {
            document.insert(name.to_owned(), value);
        };
        set("openapi", json!("3.1.0"));
        set(
            "info",
            json!({
                "title": "Tidewire",
                "version": self.version,
                "description": "Streams of events, live and as webhooks. GraphQL has a document of its own: its SDL.",
            }),
        );
        set(
            "jsonSchemaDialect",
            json!("https://json-schema.org/draft/2020-12/schema"),
        );
        set("paths", self.paths());
        if self.routes.iter().any(|route| route.is_of_webhooks()) {
            set("webhooks", self.webhooks());
        }
        set(
            "components",
            json!({
                "schemas": schemas,
                "securitySchemes": {
                    "bearer": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT" },
                    "ticket": { "type": "apiKey", "in": "query", "name": "ticket" },
                    "cookie": { "type": "apiKey", "in": "cookie", "name": "__Host-tidewire" },
                },
            }),
        );
        Value::Object(document)
    }

    fn paths(&self) -> Value {
        let mut paths: Map<String, Value> = Map::new();
        for route in &self.routes {
            let path = paths.entry(route.path).or_insert_with(|| json!({}));
            path[route.method] = operation(route);
        }
        Value::Object(paths)
    }

    /// What is sent: one entry for each type of event.
    fn webhooks(&self) -> Value {
        let mut webhooks = Map::new();
        for shown in &self.streams {
            for kind in event_types(shown.stream) {
                webhooks.insert(kind.clone(), json!({ "post": delivery(shown.stream, &kind) }));
            }
        }
        Value::Object(webhooks)
    }
}

/// The types that a stream's events can have.
fn event_types(stream: &Stream) -> Vec<String> {
    let mut changes = vec![Change::Changed];
    if stream.deletes != Deletes::None {
        changes.push(Change::Deleted);
    }
    let kind = |change: Change| format!("{}.{}.{}", stream.type_prefix, stream.name, change.as_str());
    changes.into_iter().map(kind).collect()
}

fn component(stream: &Stream) -> String {
    format!("Event.{}", stream.name)
}

/// An event of one stream.
fn event(shown: &Shown<'_>) -> Value {
    let stream = shown.stream;
    let mut properties = Map::new();
    properties.insert("type".to_owned(), json!({ "enum": event_types(stream) }));
    for attribute in &shown.attributes {
        properties.insert((*attribute).to_owned(), json!({ "type": "string" }));
    }
    let data = match &stream.schema {
        Some(schema) => format!(
            "The record's value, a `{schema}` of the SDL, as its producer wrote it, without what is hidden from the owner."
        ),
        None => {
            "The record's value, as its producer wrote it, without what is hidden from the owner.".to_owned()
        }
    };
    properties.insert("data".to_owned(), json!({ "description": data }));
    let mut schema = json!({
        "allOf": [{ "$ref": "#/components/schemas/CloudEvent" }],
        "type": "object",
        "properties": properties,
    });
    if let Some(description) = &stream.description {
        schema["description"] = json!(description);
    }
    schema
}

/// One type of event, as it is sent.
fn delivery(stream: &Stream, kind: &str) -> Value {
    let headers: Vec<Value> = DELIVERY_HEADERS
        .iter()
        .map(|header| {
            json!({
                "name": header.name, "in": "header", "required": header.always,
                "description": header.description, "schema": { "type": "string" },
            })
        })
        .collect();
    let event = json!({ "$ref": format!("#/components/schemas/{}", component(stream)) });
    json!({
        "operationId": format!("deliver.{kind}"),
        "summary": stream.description.clone().unwrap_or_else(|| format!("An event of {}.", stream.name)),
        "tags": ["deliveries"],
        "parameters": headers,
        "requestBody": {
            "description": "By the endpoint's `content`: a structured event, `id`, `source`, `type` and `time` of it only \
                            (thin), or the data alone, with attributes as `ce-` headers (binary) or without (raw).",
            "content": {
                "application/cloudevents+json": { "schema": event },
                "application/json": { "schema": {} },
            },
        },
        "responses": {
            "2XX": { "description": "It is delivered." },
            "410": { "description": "Nothing is wanted any more: the endpoint is disabled." },
            "429": { "description": "Later, and slower; `Retry-After` is honoured." },
            "default": { "description": "It is tried again by the schedule. Redirects are not followed." },
        },
    })
}

fn operation(route: &Route) -> Value {
    let mut parameters: Vec<Value> = route
        .path_parameters()
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
        .collect();
    parameters.extend(route.parameters.iter().map(parameter));
    let mut operation = json!({
        "operationId": route.id,
        "tags": [route.tag],
        "summary": route.summary,
        "security": security(route.access),
        "parameters": parameters,
    });
    if let Access::Scope(scope) = route.access {
        operation["description"] = json!(format!("The token needs the scope `{scope}`."));
    }
    if let Some(body) = route.body {
        let schema = json!({ "schema": { "$ref": format!("#/components/schemas/{}", body.schema) } });
        let content: Map<String, Value> = body
            .media_types
            .iter()
            .map(|media_type| ((*media_type).to_owned(), schema.clone()))
            .collect();
        operation["requestBody"] = json!({ "required": body.required, "content": content });
    }
    operation["responses"] = responses(route);
    operation
}

fn parameter(parameter: &Parameter) -> Value {
    let schema = match parameter.of {
        Of::Text => json!({ "type": "string" }),
        Of::Time => json!({ "type": "string", "format": "date-time" }),
        Of::Number(min, max, default) => {
            json!({ "type": "integer", "minimum": min, "maximum": max, "default": default })
        }
    };
    json!({
        "name": parameter.name,
        "in": match parameter.place { Place::Query => "query", Place::Header => "header" },
        "required": parameter.required,
        "description": parameter.description,
        "schema": schema,
    })
}

fn security(access: Access) -> Value {
    match access {
        Access::Public => json!([]),
        Access::Bearer | Access::Scope(_) => json!([{ "bearer": [] }]),
        Access::Reader => json!([{ "bearer": [] }, { "ticket": [] }, { "cookie": [] }]),
    }
}

fn responses(route: &Route) -> Value {
    let mut responses = Map::new();
    for answer in route.answers {
        let headers: Map<String, Value> = answer
            .headers
            .iter()
            .map(|name| ((*name).to_owned(), json!({ "schema": { "type": "string" } })))
            .collect();
        let mut response = json!({ "description": answer.description });
        if !headers.is_empty() {
            response["headers"] = Value::Object(headers);
        }
        if !answer.content.is_empty() {
            let content: Map<String, Value> = answer
                .content
                .iter()
                .map(|(media_type, schema)| {
                    let schema = json!({ "$ref": format!("#/components/schemas/{schema}") });
                    ((*media_type).to_owned(), json!({ "schema": schema }))
                })
                .collect();
            response["content"] = Value::Object(content);
        }
        responses.insert(answer.status.to_string(), response);
    }
    let mut codes: BTreeMap<u16, BTreeSet<&str>> = BTreeMap::new();
    for code in route.all_codes() {
        codes.entry(code.status).or_default().insert(code.name);
    }
    for (status, names) in codes {
        let names: Vec<&str> = names.into_iter().collect();
        let schema = json!({
            "allOf": [{ "$ref": "#/components/schemas/Problem" }],
            "properties": { "code": { "enum": names } },
        });
        let response = json!({
            "description": format!("Refused: {}.", names.join(", ")),
            "content": { "application/problem+json": { "schema": schema } },
        });
        responses.insert(status.to_string(), response);
    }
    Value::Object(responses)
}

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::*;
use crate::contract::{Contract, clinical};

fn document(contract: &Contract) -> Value {
    let streams = contract.streams.iter().map(|stream| Shown {
        stream,
        attributes: stream
            .attributes
            .iter()
            .map(|attribute| attribute.name.as_str())
            .collect(),
    });
    let document = Document {
        version: "0.0.0",
        routes: ROUTES.iter().collect(),
        streams: streams.collect(),
        specification: json!({
            "type": "object", "required": ["url"],
            "properties": { "url": { "type": "string" }, "credentials": { "type": "object" } },
        }),
    };
    document.to_json()
}

fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(members) => {
            if let Some(reference) = members.get("$ref").and_then(Value::as_str) {
                found.push(reference);
            }
            members.values().for_each(|value| references(value, found));
        }
        Value::Array(list) => list.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[test]
fn the_document_is_what_it_was() {
    let text = serde_json::to_string_pretty(&document(&clinical())).expect("JSON");
    insta::assert_snapshot!(text);
}

#[test]
fn every_reference_has_its_target_and_every_shape_is_used() {
    let document = document(&clinical());
    let mut found = Vec::new();
    references(&document, &mut found);
    let mut used = BTreeSet::new();
    for reference in found {
        let pointer = reference
            .strip_prefix('#')
            .expect("a reference within the document");
        assert!(document.pointer(pointer).is_some(), "{reference}");
        used.insert(pointer.rsplit('/').next().expect("a name").to_owned());
    }
    let shapes = document["components"]["schemas"].as_object().expect("shapes");
    let declared: BTreeSet<String> = shapes.keys().cloned().collect();
    assert_eq!(used, declared);
}

#[test]
fn routes_are_distinct_and_their_parameters_are_declared() {
    let (mut ids, mut places, mut operations) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for route in ROUTES {
        assert!(ids.insert(route.id), "{}", route.id);
        assert!(places.insert((route.path, route.method)), "{}", route.path);
        assert!(operations.insert(format!("{:?}", route.operation)));
        assert_eq!(route.operation.route().id, route.id);
        assert!(
            route.summary.ends_with('.') && !route.answers.is_empty(),
            "{}",
            route.id
        );
        // What is looked at needs no more than looking; everything else is a change.
        if let Access::Scope(scope) = route.access {
            let expected = if route.method == "get" {
                READ_SCOPE
            } else {
                WRITE_SCOPE
            };
            assert_eq!(scope, expected, "{}", route.id);
        }
    }
    let document = document(&clinical());
    for route in ROUTES {
        let parameters = &document["paths"][route.path][route.method]["parameters"];
        let declared: Vec<&str> = parameters
            .as_array()
            .expect("a list")
            .iter()
            .filter(|parameter| parameter["in"] == "path")
            .filter_map(|parameter| parameter["name"].as_str())
            .collect();
        assert_eq!(declared, route.path_parameters().collect::<Vec<_>>());
    }
}

#[test]
fn every_event_type_of_a_stream_is_a_webhook_with_the_headers_of_a_delivery() {
    let contract = clinical();
    let document = document(&contract);
    let webhooks = document["webhooks"].as_object().expect("webhooks");
    for stream in &contract.streams {
        let kind = format!("{}.{}.changed", stream.type_prefix, stream.name);
        let parameters = webhooks[&kind]["post"]["parameters"].as_array().expect("headers");
        let names: Vec<&str> = parameters
            .iter()
            .filter_map(|parameter| parameter["name"].as_str())
            .collect();
        assert_eq!(
            names,
            DELIVERY_HEADERS
                .iter()
                .map(|header| header.name)
                .collect::<Vec<_>>()
        );
    }
}

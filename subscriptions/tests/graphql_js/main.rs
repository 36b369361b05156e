//! Projection is correct: what it shows of random documents under random masks, for random operations on random
//! contracts, is what graphql-js 16 answers to the same operation on the same masked data.

#![allow(clippy::unwrap_used, reason = "a test's data is what the test made")]

#[path = "../../../tests/src/leash.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the tests crate")]
mod leash;
#[path = "../../../tests/src/node.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the tests crate")]
mod node;
mod operation;
#[path = "../../../tests/src/volume.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the tests crate")]
mod volume;
#[path = "../../../tests/src/wait.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the tests crate")]
mod wait;
mod world;

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use rand::Rng;
use rand::rngs::StdRng;
use schemas::attributes::Attributes;
use schemas::contract::Contract;
use schemas::event::{Change, Data, Event};
use schemas::ids::{Slot, TenantId};
use schemas::project::{Document, Mask, Pointer};
use serde_json::{Map, Value, json};
use tidewire_subscriptions::graphql::{Options, Prepared, Request, Schema};

use node::Node;
use operation::Operation;
use world::World;

/// Operations that are tried on one contract.
const EACH: usize = 50;

const STREAMS: &str = r#"
[streams.things]
topics = ["things"]
format = "json"
schema = "O0"
tenant = { header = "tenant" }
[streams.things.attributes]
rkey = { key = true }
[[streams.things.access]]
scopes = ["things"]
rows = "tenant"
"#;

#[tokio::test]
async fn projections_are_what_graphql_js_answers() {
    let mut dice = volume::dice("projections_are_what_graphql_js_answers");
    let mut oracle = Node::start("oracle.mjs", &[]).await.expect("node");
    let wanted = volume::volume(300, 5_000);
    let (mut tried, mut refused, mut with_errors, mut with_data) = (0, 0, 0, 0);
    while tried < wanted {
        let world = World::random(&mut dice);
        let contract = contract(&world);
        let schema = Schema::new(&contract, Options::default()).expect("a schema");
        for _ in 0..EACH {
            let operation = Operation::random(&world, &mut dice);
            let (mask, hidden) = random_mask(&world, &mut dice);
            let text = world.document(&mut dice).to_string();
            let event = event(&contract, &text);
            let request = Request {
                query: Some(operation.text.clone()),
                variables: operation.variables.clone(),
                ..Request::default()
            };
            oracle
                .say(&asked(&world, &operation, &event, &mask))
                .expect("said");
            let want = oracle.hear().await.expect("an answer");
            let prepared = schema.prepare(&request, None);
            let about = || {
                format!(
                    "{}\n{}\n{:?}\n{text}\nhidden: {hidden:?}",
                    world.sdl, operation.text, operation.variables
                )
            };
            if want.get("invalid").is_some() {
                // What only differs deep below different types may be let in; it is answered as the specification says.
                refused += usize::from(prepared.is_err());
                continue;
            }
            let projection = match prepared {
                Ok(Prepared::Subscription(bound)) => bound.projection,
                Ok(Prepared::Answer(_)) => panic!("no subscription: {}", about()),
                Err(refused) => panic!("{}\n{}", refused.errors_json(), about()),
            };
            let mut out = Vec::new();
            projection.event(&event, &mask, "cursor", &mut out);
            let got: Value = serde_json::from_slice(&out)
                .unwrap_or_else(|error| panic!("{error}: {}\n{}", String::from_utf8_lossy(&out), about()));
            let errors: Vec<Value> = got["errors"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|error| error["path"].clone())
                .collect();
            assert_eq!(canonical(&got["data"]), canonical(&want["data"]), "{}", about());
            assert_eq!(Value::Array(errors.clone()), want["errors"], "{}", about());
            tried += 1;
            with_errors += usize::from(!errors.is_empty());
            with_data += usize::from(!got["data"]["x"]["data"].is_null());
        }
    }
    volume::say(&format!(
        "{tried} operations as graphql-js answers them ({with_data} with data, {with_errors} with errors); {refused} that it refuses were refused"
    ));
    assert!(
        with_errors > tried / 20 && with_data > tried / 4,
        "the dice say something"
    );
}

fn contract(world: &World) -> Arc<Contract> {
    let sources = vec![
        (PathBuf::from("things.graphql"), world.sdl.clone()),
        (PathBuf::from("streams.toml"), STREAMS.to_owned()),
    ];
    match Contract::from_sources(sources) {
        Ok(contract) => Arc::new(contract),
        Err(findings) => panic!("{findings:#?}\n{}", world.sdl),
    }
}

fn event(contract: &Contract, text: &str) -> Event {
    let document = Document::parse(Bytes::copy_from_slice(text.as_bytes())).expect("a document");
    Event {
        stream: Arc::clone(contract.stream("things").expect("the stream")),
        slot: Slot(0),
        offset: 1,
        tenant: TenantId::parse("a").expect("a tenant"),
        id: Arc::from("1"),
        own_id: None,
        source: Arc::from("/streams/things"),
        kind: Arc::from("tidewire.things.changed"),
        subject: None,
        time_ms: 0,
        content_type: Arc::from("application/json"),
        change: Change::Changed,
        key: Some(Bytes::from_static(b"k")),
        attributes: Attributes::default(),
        extensions: Vec::new(),
        data: Data::Json(document),
        bytes: text.len(),
    }
}

/// What graphql-js is asked: it sees the masked document as readers of the whole event get it.
fn asked(world: &World, operation: &Operation, event: &Event, mask: &Mask) -> Value {
    let Data::Json(document) = &event.data else {
        panic!("a document")
    };
    let mut masked = Vec::new();
    let data = if document.write(mask, &mut masked) {
        serde_json::from_slice(&masked).expect("JSON")
    } else {
        Value::Null
    };
    json!({
        "sdl": world.sdl,
        "query": operation.text,
        "variables": operation.variables,
        "event": {"kind": "CHANGED", "cursor": "cursor", "key": "k", "time": "1970-01-01T00:00:00.000Z", "data": data},
    })
}

fn random_mask(world: &World, dice: &mut StdRng) -> (Mask, Vec<String>) {
    if dice.random_bool(0.5) {
        return (Mask::nothing_hidden(), Vec::new());
    }
    let pointers: Vec<String> = (0..dice.random_range(1..4))
        .map(|_| world.pointer(dice))
        .collect();
    let parsed = pointers
        .iter()
        .map(|text| Pointer::parse(text).expect("a pointer"));
    let mask = if dice.random_bool(0.8) {
        Mask::hide(parsed)
    } else {
        Mask::show(parsed)
    };
    (mask, pointers)
}

/// Numbers by their value: `1.0` and `1` are one.
fn canonical(value: &Value) -> Value {
    match value {
        Value::Number(number) => json!(number.as_f64()),
        Value::Array(values) => values.iter().map(canonical).collect(),
        Value::Object(members) => {
            let members: Map<String, Value> = members
                .iter()
                .map(|(name, value)| (name.clone(), canonical(value)))
                .collect();
            Value::Object(members)
        }
        other => other.clone(),
    }
}

//! Projection is correct: what it shows of random documents under random masks, for random operations on random
//! contracts, is what graphql-js 16 answers to the same operation on the same masked data; also where many operations are
//! shown one event under several masks, and each finds what the others have finished of it.

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
use rand::seq::{IndexedRandom, SliceRandom};
use schemas::attributes::Attributes;
use schemas::contract::Contract;
use schemas::event::{Change, Data, Event};
use schemas::ids::{Slot, TenantId};
use schemas::project::{Document, Mask, Pointer};
use serde_json::{Map, Value, json};
use tidewire_subscriptions::graphql::{Finished, Options, Prepared, Projection, Request, Schema};

use node::Node;
use operation::Operation;
use world::World;

/// Events that are tried on one contract, and operations that are shown each.
const EVENTS: usize = 4;
const OPERATIONS: usize = 12;

/// Masks that one event is shown under: more than are kept apart at a time.
const MASKS: usize = 6;

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
        for _ in 0..EVENTS {
            let text = world.document(&mut dice).to_string();
            let event = event(&contract, &text);
            let masks: Vec<_> = (0..MASKS).map(|_| random_mask(&world, &mut dice)).collect();
            let mut cases = Vec::new();
            for _ in 0..OPERATIONS {
                let operation = Operation::random(&world, &mut dice);
                let request = Request {
                    query: Some(operation.text.clone()),
                    variables: operation.variables.clone(),
                    ..Request::default()
                };
                let prepared = schema.prepare(&request, None);
                for (mask, hidden) in masks.choose_multiple(&mut dice, 2) {
                    oracle
                        .say(&asked(&world, &operation, &event, mask))
                        .expect("said");
                    let want = oracle.hear().await.expect("an answer");
                    let about = format!(
                        "{}\n{}\n{:?}\n{text}\nhidden: {hidden:?}",
                        world.sdl, operation.text, operation.variables
                    );
                    if want.get("invalid").is_some() {
                        // What only differs deep below different types may be let in; it is answered as the specification says.
                        refused += usize::from(prepared.is_err());
                        continue;
                    }
                    let projection = match &prepared {
                        Ok(Prepared::Subscription(bound)) => Arc::clone(&bound.projection),
                        Ok(Prepared::Answer(_)) => panic!("no subscription: {about}"),
                        Err(refused) => panic!("{}\n{about}", refused.errors_json()),
                    };
                    cases.push(Case {
                        projection,
                        mask,
                        want,
                        about,
                    });
                }
            }
            // Each twice, whoever comes in between.
            let mut order: Vec<&Case<'_>> = cases.iter().chain(&cases).collect();
            order.shuffle(&mut dice);
            let mut finished = Finished::of(&event);
            for case in order {
                case.check(&mut finished);
            }
            for case in &cases {
                tried += 1;
                with_errors += usize::from(case.want["errors"] != json!([]));
                with_data += usize::from(!case.want["data"]["x"]["data"].is_null());
            }
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

/// An operation, under a mask.
struct Case<'m> {
    projection: Arc<Projection>,
    mask: &'m Mask,
    /// What graphql-js answers.
    want: Value,
    about: String,
}

impl Case<'_> {
    /// Projects alone, and with what others have finished.
    fn check(&self, finished: &mut Finished<'_>) {
        let Self { mask, about, .. } = self;
        let mut out = Vec::new();
        self.projection.finish(finished, mask, "cursor", &mut out);
        let mut alone = Vec::new();
        self.projection
            .event(finished.event(), mask, "cursor", &mut alone);
        let text = String::from_utf8_lossy(&out);
        assert_eq!(text, String::from_utf8_lossy(&alone), "{about}");
        let got: Value =
            serde_json::from_slice(&out).unwrap_or_else(|error| panic!("{error}: {text}\n{about}"));
        let errors: Vec<&Value> = got["errors"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|error| &error["path"])
            .collect();
        // As text: the order of members is a part of the answer.
        let written = |value: &Value| canonical(value).to_string();
        assert_eq!(written(&got["data"]), written(&self.want["data"]), "{about}");
        assert_eq!(json!(errors), self.want["errors"], "{about}");
    }
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

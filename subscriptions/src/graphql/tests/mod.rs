//! What GraphQL subscribers are promised, without connections.

mod bombs;
mod finished;
mod persisted;
mod prepare;
mod project;

use std::path::PathBuf;
use std::sync::Arc;

use auth::token::Principal;
use bytes::Bytes;
use schemas::attributes::Attributes;
use schemas::contract::Contract;
use schemas::event::{Change, Data, Event};
use schemas::ids::{Slot, TenantId};
use schemas::project::{Document, Mask, Pointer};
use serde_json::{Map, Value, json};

use super::*;

/// A small contract with everything in it.
const SDL: &str = r#"
type Subscription {
  things(patient: ID @attribute(name: "patient", prefix: "Patient/"), state: [State!],
         urgent: Boolean @attribute(name: "urgent"), level: Int = 3 @attribute(name: "level"),
         after: String, snapshot: Boolean = false, overflow: String, rate: Int): ThingEvent! @stream(name: "things")
  states(state: [State!]! @attribute(name: "state")): ThingEvent! @stream(name: "things", kinds: [CREATED, PROGRESS])
  named(id: [ID!] @attribute(name: "name")): ThingEvent! @stream(name: "things")
  thing: Thing @stream(name: "things", emit: ENTITY)
  locked: ThingEvent! @stream(name: "things") @requiresScopes(scopes: [["system/*.rs", "launch"], ["admin"]])
}
type ThingEvent @event { kind: ChangeKind! cursor: String! key: String time: DateTime! data: Thing }
enum State { NEW @jsonValue(is: "new") ENTERED_IN_ERROR @jsonValue(is: "entered-in-error") final }
scalar DateTime
scalar Long
scalar JSON
interface Part @discriminator(pointer: "/is") { name: String! part: Part }
type Bolt implements Part @discriminatorValue(is: "bolt") { name: String! part: Part size: Int! }
type Nut implements Part { name: String! part: Part size: Float sizes: [[Int!]] }
union Owner @discriminator(pointer: "/type") = Person | Company
type Person { name: String boss: Owner }
type Company { name: String! people: [Person!] }
type Patient @key(fields: "id", resolvable: false) { id: ID! @json(pointer: "/reference", stripPrefix: "Patient/") }
type Thing {
  id: ID!
  state: State
  count: Int
  total: Long
  ratio: Float
  urgent: Boolean
  level: Int
  at: DateTime
  free: JSON
  label: String
  code: String @json(pointer: "/code/coding/0/code")
  codes: [String]
  subject: Patient
  parts: [Part]
  must: [Bolt!]!
  owner: Owner
  secret: String @requiresScopes(scopes: [["secrets:read"]])
  known: String @authenticated
}
"#;

const STREAMS: &str = r#"
[streams.things]
topics = ["things"]
format = "json"
schema = "Thing"
tenant = { header = "tenant" }
[streams.things.attributes]
patient = { pointer = "/subject/reference", normalise = "reference" }
state = "/state"
urgent = "/urgent"
level = "/level"
name = "/label"
[[streams.things.access]]
scopes = ["things"]
rows = "tenant"
"#;

fn contract() -> Arc<Contract> {
    contract_of(SDL)
}

fn contract_of(sdl: &str) -> Arc<Contract> {
    let sources = vec![
        (PathBuf::from("things.graphql"), sdl.to_owned()),
        (PathBuf::from("streams.toml"), STREAMS.to_owned()),
    ];
    Arc::new(Contract::from_sources(sources).expect("a good contract"))
}

fn schema() -> Schema {
    schema_with(Options {
        introspection: true,
        ..Options::default()
    })
}

fn schema_with(options: Options) -> Schema {
    schema_of(SDL, options)
}

fn schema_of(sdl: &str, options: Options) -> Schema {
    Schema::new(&contract_of(sdl), options).expect("a schema")
}

fn request(query: &str) -> Request {
    Request {
        query: Some(query.to_owned()),
        ..Request::default()
    }
}

fn with_variables(query: &str, variables: Value) -> Request {
    let Value::Object(variables) = variables else {
        panic!("an object")
    };
    Request {
        variables,
        ..request(query)
    }
}

fn principal(scopes: &[&str]) -> Principal {
    Principal {
        issuer: Arc::from("https://issuer.example"),
        subject: Arc::from("somebody"),
        tenant: TenantId::parse("a").expect("a tenant"),
        scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
        claims: std::collections::BTreeMap::new(),
        token_id: None,
        issued_at_ms: None,
        expires_at_ms: 0,
        application: None,
        denials: Arc::default(),
    }
}

fn bound(schema: &Schema, request: &Request) -> Bound {
    match schema.prepare(request, None) {
        Ok(Prepared::Subscription(bound)) => *bound,
        Ok(Prepared::Answer(_)) => panic!("an answer"),
        Err(refused) => panic!("{}", refused.errors_json()),
    }
}

fn refused(schema: &Schema, request: &Request) -> Refused {
    match schema.prepare(request, None) {
        Err(refused) => {
            assert!(!refused.errors.is_empty());
            refused
        }
        Ok(_) => panic!("{:?} was not refused", request.query),
    }
}

/// The code and the first place.
fn told(refused: &Refused) -> (String, Option<(usize, usize)>) {
    let first = &refused.errors[0];
    let place = first.locations.first().map(|place| (place.line, place.column));
    (first.extensions.code.to_string(), place)
}

fn answer(schema: &Schema, request: &Request) -> Value {
    match schema.prepare(request, None) {
        Ok(Prepared::Answer(text)) => serde_json::from_slice(&text).expect("JSON"),
        Ok(Prepared::Subscription(_)) => panic!("a subscription"),
        Err(refused) => panic!("{}", refused.errors_json()),
    }
}

fn event(data: &str) -> Event {
    let contract = contract();
    let document = Document::parse(Bytes::copy_from_slice(data.as_bytes())).expect("a document");
    Event {
        stream: Arc::clone(contract.stream("things").expect("the stream")),
        slot: Slot(0),
        offset: 1,
        tenant: TenantId::parse("a").expect("a tenant"),
        id: Arc::from("1"),
        own_id: None,
        source: Arc::from("/streams/things"),
        kind: Arc::from("tidewire.things.updated"),
        subject: None,
        time_ms: 1_700_000_000_123,
        content_type: Arc::from("application/json"),
        change: Change::Updated,
        key: Some(Bytes::from_static(b"thing/1")),
        attributes: Attributes::default(),
        extensions: Vec::new(),
        data: Data::Json(document),
        bytes: data.len(),
    }
}

fn hide(pointers: &[&str]) -> Mask {
    Mask::hide(
        pointers
            .iter()
            .map(|text| Pointer::parse(text).expect("a pointer")),
    )
}

/// What the operation shows of an event with this data.
fn shown_of(projection: &Projection, event: &Event, mask: &Mask) -> Value {
    let mut out = b"before".to_vec();
    projection.event(event, mask, "c-1", &mut out);
    let text = String::from_utf8(out).expect("UTF-8");
    let text = text.strip_prefix("before").expect("appended");
    assert!(!text.contains('\n'));
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// What `{ things { data { SELECTION } } }` shows of this data: the data, and the errors.
fn data_of(selection: &str, data: &str) -> (Value, Value) {
    let query = format!("subscription {{ things {{ data {{ {selection} }} }} }}");
    let bound = bound(&schema(), &request(&query));
    let mut shown = shown_of(&bound.projection, &event(data), &Mask::nothing_hidden());
    assert_eq!(shown["extensions"], json!({"cursor": "c-1"}));
    (shown["data"]["things"]["data"].take(), shown["errors"].take())
}

fn map(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => panic!("an object"),
    }
}

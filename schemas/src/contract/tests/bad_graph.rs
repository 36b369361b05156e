//! SDL that could not be served to GraphQL clients: everything that is wrong with it, as people read it.

use super::*;

/// The findings of an SDL whose stream `observations` has the schema `Observation` and the attributes `patient`,
/// `status` and `code`.
fn report(sdl: &str) -> String {
    let streams = with_line(
        STREAMS,
        5,
        "attributes = { patient = '/subject/reference', status = '/status', code = '/codes/*' }",
    );
    let found = load(&streams, sdl).err().unwrap_or_default();
    let lines: Vec<_> = found.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

const DATA: &str = r#"
type Observation { id: ID! status: Status subject: Reference codes: [String!] }
enum Status { FINAL @jsonValue(is: "final") AMENDED @jsonValue(is: "amended") }
type Reference { reference: String }
"#;

#[test]
fn fields_that_bind_to_no_stream() {
    let sdl = r#"type Subscription @authenticated {
  observation: E
  some: E @stream(name: "observation")
  other: E @stream(name: "nothing")
  many: [E!] @stream(name: "observations")
  bare: Observation @stream(name: "observations")
  wrong: Reference @stream(name: "observations")
  entity: Reference @stream(name: "observations", emit: ENTITY)
  sure: Observation! @stream(name: "observations", emit: ENTITY)
  quiet: Observation @stream(name: "observations", emit: ENTITY, kinds: [CREATED, PROGRESS])
  never: E @stream(name: "observations", kinds: [])
  slip: E @stream(name: "observations", kinds: [CREATD])
  placed: E @stream(name: "observations") @json(pointer: "/x")
  twice: E @stream(name: "observations") @stream(name: "observations")
}
type Query { observations: [Observation!] _service: Int }
type Mutation { forget(id: ID!): Boolean }
type E @event { kind: ChangeKind! data: Observation }
"#;
    insta::assert_snapshot!(report(&format!("{sdl}{DATA}")));
}

#[test]
fn arguments_that_filter_by_nothing() {
    let sdl = r#"input In { x: Int }
type Subscription {
  a(pateint: ID, id: ID @attribute(name: "patiant"), subject: ID): E @stream(name: "observations")
  b(patient: ID, other: ID @attribute(name: "patient", prefix: "Patient/"), patient: ID): E @stream(name: "observations")
  c(patient: In, status: [[Status]], code: JSON, after: [String], snapshot: Int, rate: String, overflow: In): E
    @stream(name: "observations")
  d(status: [Status!] = [FINAL, LATE], patient: ID = 7, code: String! = null, after: String = FINAL): E
    @stream(name: "observations")
  e(patient: ID @attribute, code: ID @attribute(nmae: "code", name: 5)): E @stream(name: "observations")
}
type E @event { kind: ChangeKind! }
"#;
    insta::assert_snapshot!(report(&format!("{sdl}{DATA}")));
}

#[test]
fn events_that_are_no_events() {
    let sdl = r#"type Subscription { a: E @stream(name: "observations") b: F @stream(name: "observations") }
interface Named { key: String }
type E implements Named @event { kind: String! cursor: String key: String! time: Time dta: Observation data: Observation! }
type F @event { data: Wide @json(pointer: "/x") }
type Wide { inner: F }
enum ChangeKind { CREATED UPDATED }
scalar Time
type DateTime { x: Int }
enum Int { ONE }
scalar Float
"#;
    insta::assert_snapshot!(report(&format!("{sdl}{DATA}")));
}

#[test]
fn data_that_cannot_be_projected() {
    let sdl = r#"
type Observation {
  id: ID! @json(pointer: "/ids/*")
  status: Status
  subject: Reference
  codes(first: Int): [String!]
  input: In
  any: _Any
  value: Value
  node: Node
  nothing: Lonely
  prefixed: Int @json(pointer: "/n", stripPrefix: "n")
  slip: Int @jsn(pointer: "/n")
  slipped: Int @json(ponter: "/n")
  wrong: String @json(pointer: "/n", stripPrefix: 5) @discriminator(pointer: "/x")
  bound: Int @stream(name: "observations")
  __own: Int
  none: Empty
  root: Subscription
}
type Subscription { observations: Observation @stream(name: "observations", emit: ENTITY) }
type Empty
enum Status { FINAL @jsonValue(is: "final") LAST @jsonValue(is: "final") FINAL EMPTY @jsonValue(is: 1) }
type Reference { reference: String self: Reference @json(pointer: "") }
input In { x: Int }
union Value = Quantity | Status | Quantity | Text
type Quantity @discriminatorValue(is: "Text") { amount: Float }
type Text { text: String }
interface Node @discriminator(pointer: "/*/type") { id: ID! at: [String] by: String @json(pointer: "/who") }
type A implements Node & Node { id: ID at: [Int] by: String }
type B implements Node & Text { id: ID! at: [String!]! }
interface Lonely @discriminator { id: ID! }
"#;
    insta::assert_snapshot!(report(sdl));
}

#[test]
fn what_an_interface_asks_of_readers_is_asked_by_its_objects_too() {
    let scopes = |text: &str| format!("@requiresScopes(scopes: {text})");
    for (promised, own, is_good) in [
        (scopes(r#"[["phi"]]"#), String::new(), false),
        (scopes(r#"[["phi"]]"#), "@authenticated".to_owned(), false),
        (scopes(r#"[["phi"]]"#), scopes(r#"[["phi"], ["other"]]"#), false),
        (scopes(r#"[["phi"]]"#), scopes(r#"[["phi"]]"#), true),
        (
            scopes(r#"[["phi"], ["all"]]"#),
            scopes(r#"[["phi", "other"]]"#),
            true,
        ),
        ("@authenticated".to_owned(), String::new(), false),
        ("@authenticated".to_owned(), scopes(r#"[["phi"]]"#), true),
        (String::new(), scopes(r#"[["phi"]]"#), true),
    ] {
        let sdl = format!(
            "type Subscription {{ a: E! @stream(name: \"observations\") }}
             type E @event {{ data: Observation }}
             type Observation {{ id: ID status: String code: String subject: Reference who: Person }}
             type Reference {{ reference: String }}
             interface Person @discriminator(pointer: \"/type\") {{ ssn: String {promised} }}
             type Patient implements Person {{ ssn: String {own} }}"
        );
        let told = report(&sdl);
        assert_eq!(
            told.contains("may be selected by fewer readers"),
            !is_good,
            "{promised} {own}: {told}"
        );
    }
}

#[test]
fn words_of_federation_that_cannot_be_kept() {
    let sdl = r#"extend schema @link(url: "https://specs.apollo.dev/federation/v2.9", import: [{ name: "@key", as: "@primary" }])
type Observation @primary(fields: "idd subject { reference display }") @key(fields: "{") @key {
  id: ID! @external
  status: Status @requires(fields: "id")
  subject: Reference @provides(fields: "reference")
  codes: [String!] @federation__override(from: "other") @mine
  a: Int @requiresScopes(scopes: "x")
  b: Int @requiresScopes(scopes: [[]]) @authenticated(x: 1)
  c: Int @requiresScopes(scope: [["x"]]) @policy(policies: [["p"]])
  d: Int @requiresScopes(scopes: [["x"]]) @requiresScopes(scopes: [["y"]])
}
enum Status { FINAL @authenticated }
type Reference { reference: String }
type Query { _service: Int }
schema { query: Query subscription: Subs }
"#;
    insta::assert_snapshot!(report(sdl));
}

#[test]
fn event_types_that_would_be_generated_over_others() {
    let sdl = format!("{DATA}type ObservationEvent {{ x: Int }}");
    insta::assert_snapshot!(report(&sdl));
}

#[test]
fn streams_whose_data_is_no_data() {
    let sdl = "type Observation @event { kind: ChangeKind! }\n";
    insta::assert_snapshot!(report(sdl));
}

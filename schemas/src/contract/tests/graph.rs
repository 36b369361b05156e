//! What GraphQL clients are promised of a contract.

use super::*;
use crate::graph::{Emit, Kind, Kinds, Role};

#[test]
fn each_stream_has_a_field_where_the_sdl_has_none() {
    let contract = clinical();
    let graph = &contract.graph;
    let fields: Vec<_> = graph
        .fields
        .values()
        .map(|f| format!("{}: {}", f.name, f.ty))
        .collect();
    assert_eq!(
        fields,
        [
            "encounters: EncounterEvent!",
            "medication_requests: MedicationRequestEvent!",
            "observations: ObservationEvent!",
            "patients: PatientEvent!",
        ]
    );
    let observations = &graph.fields["observations"];
    assert_eq!(
        (observations.emit, observations.kinds),
        (Emit::Event, Kinds::USUAL)
    );
    let arguments: Vec<_> = observations
        .arguments
        .iter()
        .map(|one| format!("{}: {}", one.argument.name, one.argument.ty))
        .collect();
    assert_eq!(
        arguments,
        [
            "category: [String!]",
            "code: [String!]",
            "encounter: [String!]",
            "patient: [String!]",
            "status: [String!]",
            "after: String",
        ]
    );
    let stream = contract.stream("observations").expect("the stream");
    let patient = stream.attribute("patient").expect("the attribute");
    assert_eq!(
        observations.arguments[3].role,
        Role::Attribute {
            id: patient,
            prefix: None
        }
    );
    assert_eq!(observations.arguments[5].role, Role::After);
    let Kind::Object(event) = &graph.types["ObservationEvent"].kind else {
        panic!("an object")
    };
    let parts: Vec<_> = event
        .fields
        .iter()
        .map(|f| format!("{}: {}", f.name, f.ty))
        .collect();
    assert!(event.event);
    assert_eq!(
        parts,
        [
            "kind: ChangeKind!",
            "cursor: String!",
            "key: String",
            "time: DateTime!",
            "data: Observation"
        ]
    );
    let Kind::Enum(values) = &graph.types["ObservationStatus"].kind else {
        panic!("an enum")
    };
    let values: Vec<_> = values.iter().map(|v| (&*v.name, &*v.json)).collect();
    assert!(values.contains(&("ENTERED_IN_ERROR", "entered-in-error")));
}

#[test]
fn the_printed_sdl_is_sdl() {
    let contract = clinical();
    let sdl = &contract.graph.sdl;
    async_graphql_parser::parse_schema(sdl).expect("SDL");
}

/// Everything that the SDL can say, said well.
pub(super) const WHOLE: &str = r#"extend schema
  @link(url: "https://specs.apollo.dev/federation/v2.9", import: ["@key", { name: "@shareable", as: "@common" }, "@tag"])
directive @mine on OBJECT
type Subscription {
  "Of one patient."
  observations(
    "Whose \"patient\":\nby id."
    patient: ID! @attribute(name: "patient", prefix: "Patient/")
    status: [Status!] = [FINAL] @tag(name: "x")
    value: [String!] @attribute(name: "code") @deprecated
    after: String, snapshot: Boolean = false, overflow: String, rate: Int
  ): Change! @stream(name: "observations", kinds: [CREATED, DELETED, PROGRESS]) @requiresScopes(scopes: [["a", "b"], ["c"]])
  latest: Observation @stream(name: "observations", emit: ENTITY) @deprecated(reason: "Use observations")
}
type Change @event { cursor: String! data: Observation }
type Observation @mine @key(fields: "id") @key(fields: "subject { id }", resolvable: true) {
  id: ID! @common
  status: Status
  subject: Patient @json(pointer: "/subject")
  owner: Owner @json(pointer: "/ownerId")
  value: Value @authenticated
  part: Part
  amount: Long
  extra: JSON
  at: DateTime
  codes: [String!] @json(pointer: "/codings", stripPrefix: "urn:") @federation__inaccessible
}
enum Status @authenticated { FINAL @jsonValue(is: "final") AMENDED @deprecated }
type Patient @key(fields: "id", resolvable: false) { id: ID! @json(pointer: "/reference", stripPrefix: "Patient/") }
type Owner @key(fields: "id") { id: ID! @json(pointer: "") }
union Value @discriminator(pointer: "/type") = Number | Text
type Number @discriminatorValue(is: "number") { amount: Float! }
type Text { text: String! }
interface Part @discriminator(pointer: "/kind") { size: Int named: Named }
interface Named @discriminator(pointer: "/kind") { name: String! }
type Leg implements Part { size: Int! named: Arm }
type Arm implements Part & Named { size: Int named: Named name: String! }
type Nobody { x: Nothing }
scalar Nothing @specifiedBy(url: "https://example.org")
"#;

fn whole() -> Contract {
    load(&streams(), WHOLE).unwrap_or_else(|found| panic!("{found:#?}"))
}

/// Streams with the attributes that its arguments name.
pub(super) fn streams() -> String {
    let attributes =
        "attributes = { patient = '/subject/reference', status = '/status', code = '/codings/*' }";
    with_line(STREAMS, 5, attributes)
}

#[test]
fn what_the_sdl_says_of_subscriptions_is_what_is_served() {
    let contract = whole();
    let stream = contract.stream("observations").expect("the stream");
    let graph = &contract.graph;
    assert_eq!(
        graph.fields.keys().map(|name| &**name).collect::<Vec<_>>(),
        ["latest", "observations"]
    );
    let latest = &graph.fields["latest"];
    assert_eq!((latest.emit, latest.kinds), (Emit::Entity, Kinds::USUAL));
    assert_eq!(latest.deprecated.as_deref(), Some("Use observations"));
    let field = &graph.fields["observations"];
    assert_eq!(
        field.kinds,
        Kinds(Kinds::CREATED.0 | Kinds::DELETED.0 | Kinds::PROGRESS.0)
    );
    assert_eq!(field.description.as_deref(), Some("Of one patient."));
    let scopes: Vec<Vec<&str>> = field
        .requires
        .scopes
        .iter()
        .map(|all| all.iter().map(|one| &**one).collect())
        .collect();
    assert_eq!(scopes, [vec!["a", "b"], vec!["c"]]);
    let attribute = |name: &str, prefix: Option<&str>| Role::Attribute {
        id: stream.attribute(name).expect("the attribute"),
        prefix: prefix.map(Into::into),
    };
    let roles: Vec<_> = field.arguments.iter().map(|one| one.role.clone()).collect();
    assert_eq!(
        roles,
        [
            attribute("patient", Some("Patient/")),
            attribute("status", None),
            attribute("code", None),
            Role::After,
            Role::Snapshot,
            Role::Overflow,
            Role::Rate,
        ]
    );
    assert_eq!(field.arguments[1].argument.default.as_deref(), Some("[FINAL]"));
    assert!(graph.types["Status"].requires.authenticated);
    assert!(!graph.types.contains_key("Nobody") && !graph.types.contains_key("Nothing"));
}

#[test]
fn data_is_found_where_the_sdl_says() {
    let contract = whole();
    let types = &contract.graph.types;
    let Kind::Object(observation) = &types["Observation"].kind else {
        panic!("an object")
    };
    let field = |name: &str| {
        observation
            .fields
            .iter()
            .find(|field| &*field.name == name)
            .expect("the field")
    };
    assert_eq!(field("owner").pointer.to_string(), "/ownerId");
    assert_eq!(field("status").pointer.to_string(), "/status");
    assert_eq!(field("codes").strip_prefix.as_deref(), Some("urn:"));
    assert!(field("value").requires.authenticated);
    let Kind::Object(owner) = &types["Owner"].kind else {
        panic!("an object")
    };
    assert_eq!(owner.fields[0].pointer.depth(), 0, "the owner is made of its id");
    let Kind::Union(value) = &types["Value"].kind else {
        panic!("a union")
    };
    assert_eq!(value.discriminator.to_string(), "/type");
    let tells = |name: &str| match &types[name].kind {
        Kind::Object(object) => object.discriminator.to_string(),
        _ => panic!("an object"),
    };
    assert_eq!([tells("Number"), tells("Text")], ["number", "Text"]);
    let Kind::Interface(part) = &types["Part"].kind else {
        panic!("an interface")
    };
    assert_eq!(
        part.objects.iter().map(|name| &**name).collect::<Vec<_>>(),
        ["Arm", "Leg"]
    );
}

#[test]
fn the_printed_sdl_says_what_composition_reads_and_nothing_else() {
    let contract = whole();
    let sdl = &contract.graph.sdl;
    async_graphql_parser::parse_schema(sdl).expect("SDL");
    for ours in [
        "@stream",
        "@event",
        "@attribute",
        "@json",
        "@discriminator",
        "@mine",
        "Nobody",
        "Query",
    ] {
        assert!(!sdl.contains(ours), "{ours}");
    }
    insta::assert_snapshot!(sdl);
}

#[test]
fn two_streams_of_one_type_have_event_types_of_their_own() {
    let other = STREAMS.replace("streams.observations", "streams.old_ones");
    let bare = with_line(
        &with_line(&STREAMS.replace("streams.observations", "streams.bare"), 5, ""),
        3,
        "",
    );
    let contract = load(&format!("{STREAMS}{other}{bare}"), SDL).expect("a good contract");
    let types: Vec<_> = contract
        .graph
        .fields
        .values()
        .map(|field| field.ty.to_string())
        .collect();
    assert_eq!(
        types,
        [
            "BareEvent!",
            "ObservationsObservationEvent!",
            "OldOnesObservationEvent!"
        ]
    );
    let Kind::Object(bare) = &contract.graph.types["BareEvent"].kind else {
        panic!("an object")
    };
    assert_eq!(bare.fields[4].ty.to_string(), "JSON");
}

#[test]
fn every_binding_is_part_of_the_revision() {
    let revision = |sdl: &str| load(&streams(), sdl).expect("a good contract").revision;
    let first = revision(WHOLE);
    for (was, is) in [
        ("emit: ENTITY", "kinds: [CREATED], emit: ENTITY"),
        ("prefix: \"Patient/\"", "prefix: \"P/\""),
        ("is: \"final\"", "is: \"f\""),
        ("is: \"number\"", "is: \"n\""),
        ("pointer: \"/type\"", "pointer: \"/t\""),
        ("stripPrefix: \"urn:\"", "stripPrefix: \"u:\""),
        ("[[\"a\", \"b\"], [\"c\"]]", "[[\"a\", \"b\"]]"),
        ("= [FINAL]", "= [AMENDED]"),
        ("value: Value @authenticated", "value: Value"),
    ] {
        assert!(WHOLE.contains(was), "{was}");
        assert_ne!(revision(&WHOLE.replace(was, is)), first, "{was}");
    }
    let described = WHOLE.replace("\"Of one patient.\"", "\"Of somebody.\"");
    assert_eq!(revision(&described), first);
}

#[test]
fn a_non_null_field_is_seen_through_every_field_over_its_place() {
    let hide = |pointer: &str, sdl: &str| {
        let streams = with_line(&streams(), 8, &format!("rows = 'tenant'\nhide = ['{pointer}']"));
        brief(load(&streams, sdl))
    };
    let rest = "status: Int codings: [String] subject: Reference";
    let types = "type Reference { reference: String }";
    let stub = "type Patient { id: ID! @json(pointer: \"/reference\") }";
    let through =
        format!("type Observation {{ {rest} patient: Patient @json(pointer: \"/subject\") }} {types} {stub}");
    assert_eq!(hide("/subject/reference", &through), ["9:9 hidden_non_null"]);
    assert_eq!(hide("/subject", &through), Vec::<String>::new());
    let over = format!(
        "type Observation {{ {rest} patient: Patient @json(pointer: \"\") }} {types} type Patient {{ id: ID! @json(pointer: \"/subject/reference\") }}"
    );
    assert_eq!(hide("/subject", &over), ["9:9 hidden_non_null"]);
    let made_of = format!(
        "type Observation {{ {rest} owner: Owner owners: [Owner!] }} {types} type Owner {{ id: ID! @json(pointer: \"\") }}"
    );
    assert_eq!(hide("/owner", &made_of), Vec::<String>::new());
    let streams = with_line(
        &streams(),
        5,
        "attributes = { owner = '/owner', owners = '/owners/*' }",
    );
    assert_eq!(
        brief(load(&streams, &made_of)),
        Vec::<String>::new(),
        "the owner's value is its id"
    );
}

#[test]
fn what_tells_objects_apart_is_never_hidden() {
    let fields = |list: &str| {
        let streams = with_line(STREAMS, 8, &format!("rows = 'tenant'\n{list}"));
        brief(load(&streams, SDL))
    };
    assert_eq!(fields("hide = ['/value/kind']"), ["9:9 hidden_discriminator"]);
    assert_eq!(fields("hide = ['/value']"), Vec::<String>::new());
    let shown = "show = ['/id', '/status', '/code', '/links', '/value/amount']";
    assert_eq!(fields(shown), ["9:1 hidden_discriminator"]);
    assert_eq!(
        fields(&shown.replace("'/value/", "'/value/kind', '/value/")),
        Vec::<String>::new()
    );
}

#[test]
fn the_readmes_sdl_is_served() {
    let readme = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = std::fs::read_to_string(readme).expect("the README");
    let (_, rest) = readme
        .split_once("```graphql\ntype Subscription")
        .expect("the SDL begins");
    let (sdl, _) = rest.split_once("```").expect("the SDL ends");
    let sdl = format!("type Subscription{sdl}enum ObservationStatus {{ FINAL }}");
    let attributes = "attributes = { patient = '/subject/reference', status = '/status' }";
    let contract = load(&with_line(STREAMS, 5, attributes), &sdl).expect("a good contract");
    assert_eq!(contract.graph.fields.len(), 2);
}

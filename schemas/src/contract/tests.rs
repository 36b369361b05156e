//! What loading a contract promises. The tables of bad contracts are in the modules below.

mod bad_files;
mod bad_graph;
mod bad_sdl;
mod bad_streams;
mod graph;

use std::path::PathBuf;

use super::*;
use crate::attributes::Atom;
use crate::ids::TenantId;
use crate::project::Mask;

const SDL: &str = r#"extend schema @link(url: "https://specs.apollo.dev/federation/v2.9", import: ["@key"])
scalar JSON
type Observation @key(fields: "id") {
  id: ID!
  status: Status!
  subject: Reference
  code: CodeableConcept!
  performer: [Reference!]
  note: [Note]
  extra: JSON
  patientId: ID @json(pointer: "/links/patient/id")
  owner: ID! @json(pointer: "/links/owner/id")
  value: Value
  issued: String
}
enum Status { FINAL AMENDED }
type Reference { reference: String display: String }
type CodeableConcept { coding: [Coding!] text: String }
type Coding { code: String! display: String }
type Note { text: String! author: String }
union Value @discriminator(pointer: "/kind") = Quantity | Text
type Quantity { amount: Float! unit: String }
type Text { text: String }
"#;

const STREAMS: &str = r#"[streams.observations]
topics = ["fhir.observation"]
schema = "Observation"
tenant = { header = "tenant" }
attributes = { patient = "/subject/reference", code = "/code/coding/*/code" }
[[streams.observations.access]]
scopes = ["user/Observation.rs"]
rows = "tenant"
"#;

fn load(streams: &str, sdl: &str) -> Result<Contract, Vec<Finding>> {
    Contract::from_sources(vec![
        (PathBuf::from("streams.toml"), streams.to_owned()),
        (PathBuf::from("types.graphql"), sdl.to_owned()),
    ])
}

/// The findings as `line:column code`.
fn brief(result: Result<Contract, Vec<Finding>>) -> Vec<String> {
    let found = result.err().unwrap_or_default();
    found
        .iter()
        .map(|f| format!("{}:{} {}", f.place.line, f.place.column, f.code))
        .collect()
}

/// The good declaration with one line (counted from 1) written otherwise; no text removes the line.
fn with_line(text: &str, line: usize, instead: &str) -> String {
    let mut lines: Vec<&str> = text.lines().collect();
    if instead.is_empty() {
        lines.remove(line - 1);
    } else {
        lines[line - 1] = instead;
    }
    lines.join("\n") + "\n"
}

#[test]
fn what_is_written_is_what_is_loaded() {
    let streams = r#"
[streams.labs]
description = "Laboratory results"
schema = "Lab"
topics = ["labs.{tenant}", "more-labs.{tenant}"]
format = "cloudevents"
tenant = { topic = "{tenant}" }
deletes = "headers"
type_prefix = "org.example"
source = "https://example.org/labs"
show_offsets = true
attributes.patient = { pointer = "/subject/reference", normalise = "reference" }
attributes.device = { header = "device" }
attributes.order = "key"
attributes.lane = "header:lane"
[[streams.labs.access]]
scopes = ["labs:read", "system/*.read"]
rows = { patient = "Patient/{claims.patient}", order = "{subject}" }
show = ["/subject", "/code", "/subject/reference"]
"#;
    let sdl = "scalar JSON type Lab { subject: JSON code: JSON }";
    let contract = load(streams, sdl).expect("a good contract");
    let stream = contract.stream("labs").expect("the stream");
    assert_eq!(stream.revision, contract.revision);
    assert_eq!(stream.description.as_deref(), Some("Laboratory results"));
    let matched = stream.topics[1].matches("more-labs.north").expect("a match");
    assert_eq!(matched.tenant, TenantId::parse("north").ok());
    assert_eq!(
        (stream.format, stream.deletes),
        (Format::CloudEvents, Deletes::Headers)
    );
    assert_eq!(stream.tenant, TenantSource::Topic);
    assert_eq!(
        (stream.type_prefix.as_str(), stream.source.as_str()),
        ("org.example", "https://example.org/labs")
    );
    assert!(stream.show_offsets && stream.schema.as_deref() == Some("Lab"));
    let names: Vec<_> = stream
        .attributes
        .iter()
        .map(|a| (a.name.as_str(), a.reference))
        .collect();
    assert_eq!(
        names,
        [
            ("device", false),
            ("lane", false),
            ("order", false),
            ("patient", true)
        ]
    );
    assert_eq!(
        stream.attributes[1].source,
        AttributeSource::Header("lane".to_owned())
    );
    assert_eq!(stream.attributes[2].source, AttributeSource::Key);
    assert_eq!(stream.attribute("patient"), Some(AttributeId(3)));
    let rule = &stream.access[0];
    assert_eq!((rule.place.line, rule.place.column), (16, 1));
    assert_eq!(rule.scopes, ["labs:read", "system/*.read"]);
    let Rows::Match(terms) = &rule.rows else {
        panic!("rows are matched")
    };
    let filled: Vec<_> = terms
        .iter()
        .map(|(id, template)| {
            (
                id.0,
                template
                    .fill(|_| Some(Atom::from("7")), "me")
                    .expect("filled")
                    .to_string(),
            )
        })
        .collect();
    assert_eq!(filled, [(2, "me".to_owned()), (3, "Patient/7".to_owned())]);
    let pointers = ["/code", "/subject"].map(|text| Pointer::parse(text).expect("a pointer"));
    assert_eq!(*rule.mask, Mask::show(pointers));
}

#[test]
fn what_is_not_written_has_its_default() {
    let contract = load(STREAMS, SDL).expect("a good contract");
    let stream = contract.stream("observations").expect("the stream");
    assert_eq!((stream.format, stream.deletes), (Format::Json, Deletes::None));
    assert_eq!(
        (stream.type_prefix.as_str(), stream.source.as_str()),
        ("tidewire", "/streams/observations")
    );
    assert!(!stream.show_offsets && stream.description.is_none());
    assert!(stream.access[0].mask.hides_nothing());
}

#[test]
fn the_revision_follows_the_meaning_and_nothing_else() {
    let revision = |streams: &str, sdl: &str| load(streams, sdl).expect("a good contract").revision;
    let first = revision(STREAMS, SDL);
    let commented = format!("# about\n\n{STREAMS}").replace("\"tenant\" }", " 'tenant'   }");
    let described = SDL
        .replace("  id: ID!\n", "")
        .replace("{\n  status", "{\n \"What it is.\" id: ID!\n\n  status");
    assert_eq!(first, revision(&commented, &described));
    let described = with_line(STREAMS, 2, "description = 'x'\ntopics = [\"fhir.observation\"]");
    assert_eq!(first, revision(&described, SDL));
    for (line, instead) in [
        (2, "topics = ['fhir.observation', 'fhir.other']"),
        (4, "tenant = { header = 'who' }"),
        (
            5,
            "attributes = { patient = '/subject/reference', code = '/code/coding/0/code' }",
        ),
        (7, "scopes = ['user/Observation.r']"),
        (8, "rows = 'tenant'\nhide = ['/note']"),
        (2, "topics = ['fhir.observation']\nshow_offsets = true"),
    ] {
        assert_ne!(
            first,
            revision(&with_line(STREAMS, line, instead), SDL),
            "{instead}"
        );
    }
    assert_ne!(
        first,
        revision(STREAMS, &SDL.replace("issued: String", "issued: ID"))
    );
    assert_eq!(
        clinical().revision,
        0xcf99aa9b99e8efd4,
        "a change of the clinical contract is meant"
    );
}

#[test]
fn the_claims_that_rules_read_are_listed_with_their_places() {
    let rules = "rows = { patient = '{claims.patient}/{claims.realm}/{claims.patient}' }";
    let contract = load(&with_line(STREAMS, 8, rules), SDL).expect("a good contract");
    let used = contract.claims_used();
    assert_eq!(used.len(), 1);
    assert_eq!(used[0].claims, ["patient", "realm"]);
    assert_eq!(used[0].place.to_string(), "streams.toml:6:1");
    assert_eq!(load(STREAMS, SDL).expect("a good contract").claims_used(), []);
}

#[test]
fn the_clinical_contract_loads_clean() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("contracts/clinical");
    let loaded = Contract::load(&folder).expect("no findings");
    let contract = clinical();
    assert_eq!(
        loaded.revision, contract.revision,
        "the compiled-in files are those of the folder"
    );
    let topics: Vec<_> = contract
        .streams
        .iter()
        .map(|stream| {
            (
                stream.name.as_str(),
                stream.topics[0].as_str(),
                stream.attributes.len(),
            )
        })
        .collect();
    assert_eq!(
        topics,
        [
            ("encounters", "fhir.encounter", 6),
            ("medication_requests", "fhir.medication_request", 6),
            ("observations", "fhir.observation", 5),
            ("patients", "fhir.patient", 2),
        ]
    );
    for stream in &contract.streams {
        let [whole, own] = &stream.access[..] else {
            panic!("two rules")
        };
        assert_eq!(whole.rows, Rows::Tenant);
        assert!(whole.mask.hides_nothing());
        let Rows::Match(terms) = &own.rows else {
            panic!("rows are matched")
        };
        assert_eq!(terms.len(), 1);
        assert_eq!(Some(terms[0].0), stream.attribute("patient"));
        for (field, there) in [
            ("/performer", "s"),
            ("/note", "s"),
            ("/text", ""),
            ("/contained", ""),
        ] {
            let has = !matches!(stream.name.as_str(), "encounters" | "patients") || there.is_empty();
            let pointer = Pointer::parse(field).expect("a pointer");
            assert_eq!(own.mask.hides(&pointer), has, "{} {field}", stream.name);
        }
        assert!(!stream.show_offsets);
    }
}

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

//! A stream that has an attribute of every kind.

use schemas::contract::{Attribute, AttributeSource, Deletes, Format, Stream, TenantSource, TopicPattern};
use schemas::ids::{AttributeName, StreamName};
use schemas::project::Pointer;

pub fn clinical() -> Stream {
    let pointer = |text: &str| AttributeSource::Pointer(Pointer::parse(text).expect("a pointer"));
    let attribute = |name: &str, source| Attribute {
        name: AttributeName::parse(name).expect("a name"),
        source,
        reference: name == "patient",
    };
    Stream {
        name: StreamName::parse("observations").expect("a name"),
        revision: 7,
        description: None,
        topics: vec![TopicPattern::parse("fhir.{tenant}").expect("a pattern")],
        format: Format::Json,
        schema: None,
        tenant: TenantSource::Header("tenant".to_owned()),
        attributes: vec![
            attribute("patient", pointer("/subject/reference")),
            attribute("status", pointer("/status")),
            attribute("code", pointer("/code/*/code")),
            attribute("rkey", AttributeSource::Key),
            attribute("unit", AttributeSource::Header("unit".to_owned())),
            attribute("kind", AttributeSource::Header("ce_type".to_owned())),
        ],
        deletes: Deletes::Headers,
        access: Vec::new(),
        type_prefix: "tidewire".to_owned(),
        source: "/streams/observations".to_owned(),
        show_offsets: false,
    }
}

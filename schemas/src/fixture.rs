//! Streams and records for this crate's own tests.

use std::sync::Arc;

use bytes::Bytes;

use crate::contract::{Attribute, AttributeSource, Deletes, Format, Stream, TenantSource, TopicPattern};
use crate::decode::Record;
use crate::ids::{AttributeName, Incarnation, Slot, StreamName};
use crate::project::Pointer;

/// `observations` on `fhir.observation`, JSON, tenant in the header `tenant`.
pub(crate) fn stream(attributes: Vec<Attribute>) -> Stream {
    Stream {
        name: StreamName::parse("observations").expect("a name"),
        revision: 7,
        description: None,
        topics: vec![TopicPattern::parse("fhir.observation").expect("a topic")],
        format: Format::Json,
        schema: None,
        tenant: TenantSource::Header("tenant".to_owned()),
        attributes,
        deletes: Deletes::None,
        access: Vec::new(),
        type_prefix: "tidewire".to_owned(),
        source: "/streams/observations".to_owned(),
        show_offsets: false,
    }
}

/// An attribute: a pointer if `source` is empty or begins with `/`, `key`, or `header:NAME`.
pub(crate) fn attribute(name: &str, source: &str) -> Attribute {
    let from = match source.strip_prefix("header:") {
        Some(header) => AttributeSource::Header(header.to_owned()),
        None if source == "key" => AttributeSource::Key,
        None => AttributeSource::Pointer(pointer(source)),
    };
    Attribute {
        name: AttributeName::parse(name).expect("a name"),
        source: from,
        reference: name == "patient",
    }
}

/// `patient` (a reference), `status`, `code` (several values), `key` and `unit` (a header).
pub(crate) fn clinical() -> Stream {
    stream(vec![
        attribute("patient", "/subject/reference"),
        attribute("status", "/status"),
        attribute("code", "/code/coding/*/code"),
        attribute("rkey", "key"),
        attribute("unit", "header:unit"),
    ])
}

pub(crate) fn pointer(text: &str) -> Pointer {
    Pointer::parse(text).expect("a pointer")
}

/// A record at offset 42 of partition 3 with these headers; an empty `value` is a tombstone.
pub(crate) fn record(key: &str, value: &str, headers: &[(&str, &str)]) -> Record {
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    Record {
        topic: Arc::from("fhir.observation"),
        incarnation: Incarnation(99),
        slot: Slot(5),
        partition: 3,
        offset: 42,
        timestamp_ms: 1_700_000_000_123,
        key: (!key.is_empty()).then(|| bytes(key)),
        value: (!value.is_empty()).then(|| bytes(value)),
        headers: headers
            .iter()
            .map(|(name, value)| (Box::from(*name), Some(bytes(value))))
            .collect(),
    }
}

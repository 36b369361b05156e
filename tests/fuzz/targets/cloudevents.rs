//! Records as anybody may produce them, decoded and encoded again under masks.

#![no_main]

#[path = "stream.rs"]
mod stream;

use std::sync::Arc;

use bytes::Bytes;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use schemas::contract::{Format, TenantSource};
use schemas::decode::{Decoder, Record};
use schemas::ids::{Incarnation, Slot};
use schemas::project::{BadDocument, Document, Mask, Pointer};
use secrecy::SecretString;

#[derive(Debug, Arbitrary)]
struct Case<'a> {
    tenant: Tenant,
    is_json: bool,
    has_required: bool,
    is_structured: bool,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    headers: Vec<(Name<'a>, Option<&'a [u8]>)>,
    hide: Vec<Segments>,
    show: Option<Vec<Segments>>,
}

#[derive(Debug, Arbitrary)]
enum Tenant {
    Header,
    CloudEvent,
    Topic,
    Key,
    Pointer,
}

#[derive(Debug, Arbitrary)]
enum Name<'a> {
    Tenant,
    ContentType,
    Patient,
    Unit,
    SpecVersion,
    Id,
    Time,
    Other(&'a str),
}

#[derive(Debug, Arbitrary)]
struct Segments(Vec<Segment>);

#[derive(Debug, Arbitrary)]
enum Segment {
    Any,
    Subject,
    Reference,
    Status,
    Zero,
    Letter(char),
}

fuzz_target!(|case: Case<'_>| {
    let mut stream = stream::clinical();
    stream.format = if case.is_json {
        Format::Json
    } else {
        Format::CloudEvents
    };
    stream.tenant = match case.tenant {
        Tenant::Header => TenantSource::Header("tenant".to_owned()),
        Tenant::CloudEvent => TenantSource::Header("ce_hospital".to_owned()),
        Tenant::Topic => TenantSource::Topic,
        Tenant::Key => TenantSource::KeyPrefix { separator: ':' },
        Tenant::Pointer => TenantSource::Pointer(Pointer::parse("/tenant").expect("a pointer")),
    };
    let decoder = Decoder::new(Arc::new(stream), &SecretString::from("secret"));
    let Ok(Some(event)) = decoder.decode(record(&case)) else {
        return;
    };

    let hide = Mask::hide(case.hide.iter().map(Segments::pointer));
    let show = case
        .show
        .as_ref()
        .map(|show| Mask::show(show.iter().map(Segments::pointer)));
    let both = Mask::any_of([&hide].into_iter().chain(&show));
    let nothing = Mask::any_of(&[]);
    for mask in [&Mask::nothing_hidden(), &hide, &both, &nothing]
        .into_iter()
        .chain(&show)
    {
        let mut out = Vec::new();
        event.encode(mask, &mut out);
        assert!(out.starts_with(br#"{"specversion":"1.0""#));
        assert!(out.iter().all(|byte| *byte >= 0x20));
        match Document::parse(Bytes::from(out.clone())) {
            // The data is one level deeper than it was.
            Ok(_) | Err(BadDocument::TooDeep) => {}
            Err(bad) => panic!("{bad}: {}", String::from_utf8_lossy(&out)),
        }
        if *mask == nothing {
            assert!(
                !out.windows(7).any(|window| window == br#""data":"#),
                "{}",
                String::from_utf8_lossy(&out)
            );
        }
    }
});

fn record(case: &Case<'_>) -> Record {
    let mut headers: Vec<(Box<str>, Option<Bytes>)> = Vec::new();
    let mut add =
        |name: &str, value: &[u8]| headers.push((Box::from(name), Some(Bytes::copy_from_slice(value))));
    if case.has_required {
        add("tenant", b"north");
        add("ce_hospital", b"north");
        if case.is_structured {
            add("content-type", b"application/cloudevents+json");
        } else {
            for (name, value) in [
                ("ce_specversion", "1.0"),
                ("ce_id", "1"),
                ("ce_source", "s"),
                ("ce_type", "t"),
            ] {
                add(name, value.as_bytes());
            }
        }
    }
    for (name, value) in &case.headers {
        let name = match name {
            Name::Tenant => "tenant",
            Name::ContentType => "content-type",
            Name::Patient => "patient",
            Name::Unit => "unit",
            Name::SpecVersion => "ce_specversion",
            Name::Id => "ce_id",
            Name::Time => "ce_time",
            Name::Other(name) => name,
        };
        headers.push((Box::from(name), value.map(Bytes::copy_from_slice)));
    }
    Record {
        topic: Arc::from("fhir.north"),
        incarnation: Incarnation(1),
        slot: Slot(0),
        partition: 0,
        offset: 1,
        timestamp_ms: 1_700_000_000_000,
        key: case.key.map(Bytes::copy_from_slice),
        value: case.value.map(Bytes::copy_from_slice),
        headers,
    }
}

impl Segments {
    fn pointer(&self) -> Pointer {
        let segment = |segment: &Segment| match segment {
            Segment::Any => "/*".to_owned(),
            Segment::Subject => "/subject".to_owned(),
            Segment::Reference => "/reference".to_owned(),
            Segment::Status => "/status".to_owned(),
            Segment::Zero => "/0".to_owned(),
            Segment::Letter('~') => "/~0".to_owned(),
            Segment::Letter('/') => "/~1".to_owned(),
            Segment::Letter(letter) => format!("/{letter}"),
        };
        let text: String = self.0.iter().take(8).map(segment).collect();
        Pointer::parse(&text).expect("escaped")
    }
}

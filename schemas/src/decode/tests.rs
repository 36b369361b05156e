//! What becomes of records, good and bad.

mod cloudevents;

use self::cloudevents::cloudevents;
use super::*;
use crate::attributes::Attributes;
use crate::contract::TopicPattern;
use crate::fixture::{self, pointer, record};

fn decoder(stream: Stream) -> Decoder {
    Decoder::new(Arc::new(stream), &SecretString::from("id secret"))
}

fn decode(stream: Stream, record: Record) -> Result<Option<Event>, Rejected> {
    decoder(stream).decode(record)
}

fn event(stream: Stream, record: Record) -> Event {
    decode(stream, record)
        .expect("a good record")
        .expect("not passed over")
}

fn reason(stream: Stream, record: Record) -> &'static str {
    decode(stream, record).expect_err("a bad record").reason
}

fn values(attributes: &Attributes) -> Vec<(u16, &str)> {
    attributes.iter().map(|(id, value)| (id.0, &**value)).collect()
}

fn data(event: &Event) -> String {
    let Data::Json(document) = &event.data else {
        panic!("no JSON: {:?}", event.data)
    };
    let mut out = Vec::new();
    assert!(document.write(&crate::project::Mask::nothing_hidden(), &mut out));
    String::from_utf8(out).expect("UTF-8")
}

const NORTH: (&str, &str) = ("tenant", "north");
const BODY: &str = r#"{"subject":{"reference":"https://x/Patient/1"},"status":"final","code":{"coding":[{"code":"b"},{"code":"a"},{"code":"b"}]}}"#;

#[test]
fn a_json_record_takes_everything_else_from_the_stream() {
    let event = event(
        fixture::clinical(),
        record("Observation/9", BODY, &[NORTH, ("unit", "ICU")]),
    );
    assert_eq!(event.tenant.as_str(), "north");
    assert_eq!(&*event.kind, "tidewire.observations.changed");
    assert_eq!(&*event.source, "/streams/observations");
    assert_eq!(event.subject.as_deref(), Some("Observation/9"));
    assert_eq!(
        (event.time_ms, event.offset, event.slot),
        (1_700_000_000_123, 42, Slot(5))
    );
    assert_eq!(&*event.content_type, "application/json");
    assert_eq!(
        values(&event.attributes),
        [
            (0, "Patient/1"),
            (1, "final"),
            (2, "a"),
            (2, "b"),
            (3, "Observation/9"),
            (4, "ICU")
        ]
    );
    assert_eq!(data(&event), BODY);
}

#[test]
fn a_kind_of_json_keeps_its_media_type() {
    let kind = |media_type| {
        event(
            fixture::clinical(),
            record("k", "{}", &[NORTH, ("content-type", media_type)]),
        )
        .content_type
    };
    assert_eq!(
        &*kind("application/fhir+json; charset=utf-8"),
        "application/fhir+json; charset=utf-8"
    );
    for other in ["text/plain", "json", "+json", "application/jsonx", ""] {
        assert_eq!(&*kind(other), "application/json", "{other}");
    }
}

#[test]
fn the_default_id_is_stable_and_tells_nothing() {
    let id = |offset, secret: &str| {
        let decoder = Decoder::new(Arc::new(fixture::clinical()), &SecretString::from(secret));
        let record = Record {
            offset,
            ..record("k", "{}", &[NORTH])
        };
        decoder.decode(record).expect("good").expect("there").id
    };
    assert_eq!(id(1, "a"), id(1, "a"));
    assert_ne!(id(1, "a"), id(2, "a"));
    assert_ne!(id(1, "a"), id(1, "b"));
    assert_eq!(id(1, "a").len(), 22);
}

#[test]
fn a_record_without_one_good_tenant_is_nobodys() {
    let reject = |headers: &[(&str, &str)]| reason(fixture::clinical(), record("k", "{}", headers));
    assert_eq!(reject(&[]), "tenant_missing");
    assert_eq!(reject(&[("Tenant", "north")]), "tenant_missing");
    assert_eq!(reject(&[NORTH, NORTH]), "tenant_duplicate");
    assert_eq!(reject(&[NORTH, ("tenant", "south")]), "tenant_duplicate");
    for bad in ["", " north", "no/rth", "north\n", &"x".repeat(129)] {
        assert_eq!(reject(&[("tenant", bad)]), "tenant_invalid", "{bad:?}");
    }
    let mut record = record("k", "{}", &[]);
    record.headers.push(("tenant".into(), None));
    assert_eq!(reason(fixture::clinical(), record.clone()), "tenant_missing");
    record.headers[0].1 = Some(Bytes::from_static(b"\xff"));
    assert_eq!(reason(fixture::clinical(), record), "tenant_invalid");
}

#[test]
fn a_header_without_a_value_does_not_hide_a_second_one() {
    let mut record = record("k", "{}", &[NORTH]);
    record.headers.insert(0, ("tenant".into(), None));
    assert_eq!(reason(fixture::clinical(), record), "tenant_duplicate");
}

#[test]
fn the_tenant_may_be_in_the_topic() {
    let stream = || Stream {
        tenant: TenantSource::Topic,
        topics: vec![
            TopicPattern::parse("other").expect("a topic"),
            TopicPattern::parse("fhir.{tenant}.obs").expect("one"),
        ],
        ..fixture::clinical()
    };
    let on = |topic: &str| Record {
        topic: Arc::from(topic),
        ..record("k", "{}", &[("tenant", "south")])
    };
    assert_eq!(event(stream(), on("fhir.north.obs")).tenant.as_str(), "north");
    assert_eq!(reason(stream(), on("other")), "tenant_missing");
    assert_eq!(reason(stream(), on("fhir..obs")), "tenant_missing");
}

#[test]
fn the_tenant_may_be_the_front_of_the_key() {
    let stream = || Stream {
        tenant: TenantSource::KeyPrefix { separator: '|' },
        ..fixture::clinical()
    };
    assert_eq!(
        event(stream(), record("north|9|x", "{}", &[])).tenant.as_str(),
        "north"
    );
    assert_eq!(reason(stream(), record("north:9", "{}", &[])), "tenant_missing");
    assert_eq!(reason(stream(), record("", "{}", &[])), "tenant_missing");
    assert_eq!(reason(stream(), record("|9", "{}", &[])), "tenant_invalid");
    let record = Record {
        key: Some(Bytes::from_static(b"north|\xff")),
        ..record("", "{}", &[])
    };
    assert_eq!(reason(stream(), record), "tenant_missing");
}

#[test]
fn the_tenant_may_be_a_string_of_the_value() {
    let stream = || Stream {
        tenant: TenantSource::Pointer(pointer("/meta/tenant")),
        ..fixture::clinical()
    };
    let of = |value: &str| decode(stream(), record("k", value, &[]));
    let tenant = of(r#"{"meta":{"tenant":"n\u006frth"}}"#)
        .expect("good")
        .expect("there")
        .tenant;
    assert_eq!(tenant.as_str(), "north");
    for missing in [
        r#"{"meta":{"tenant":17}}"#,
        r#"{"meta":{"tenant":["north"]}}"#,
        r#"{"tenant":"north"}"#,
        "[]",
    ] {
        assert_eq!(
            of(missing).expect_err("bad").reason,
            "tenant_missing",
            "{missing}"
        );
    }
    assert_eq!(
        of(r#"{"meta":{"tenant":""}}"#).expect_err("bad").reason,
        "tenant_invalid"
    );
    let twice = r#"{"meta":{"tenant":"north","tenant":"south"}}"#;
    assert_eq!(of(twice).expect_err("bad").reason, "json_duplicate_member");
}

#[test]
fn bad_json_is_rejected_with_its_reason() {
    let reject = |value: &str| reason(fixture::clinical(), record("k", value, &[NORTH]));
    assert_eq!(reject("{"), "json_invalid");
    assert_eq!(reject(r#"{"a":1,"\u0061":2}"#), "json_duplicate_member");
    assert_eq!(reject(&"[".repeat(200)), "json_too_deep");
    let empty = Record {
        value: Some(Bytes::new()),
        ..record("k", "", &[NORTH])
    };
    assert_eq!(reason(fixture::clinical(), empty), "json_invalid");
}

#[test]
fn a_rejection_never_holds_data() {
    let secret = "Jane-Doe";
    for (value, tenant) in [
        (format!("{{\"{secret}\":1,\"{secret}\":2}}"), "north".to_owned()),
        (format!("{secret} {{"), "north".to_owned()),
        ("{}".to_owned(), format!("{secret}/1")),
    ] {
        let rejected = decode(
            fixture::clinical(),
            record(secret, &value, &[("tenant", &tenant)]),
        )
        .expect_err("bad");
        assert!(!format!("{rejected} {rejected:?}").contains(secret), "{rejected}");
    }
}

#[test]
fn an_attribute_header_that_stands_twice_is_no_value_to_choose_from() {
    let reject = |headers: &[(&str, &str)]| reason(fixture::clinical(), record("k", "{}", headers));
    assert_eq!(
        reject(&[NORTH, ("unit", "a"), ("unit", "b")]),
        "attribute_duplicate"
    );
    let event = event(fixture::clinical(), record("k", "{}", &[NORTH, ("unit", "")]));
    assert_eq!(values(&event.attributes), [(3, "k")], "an empty header is absent");
}

#[test]
fn tombstones_are_passed_over_where_the_stream_says_so() {
    assert!(
        decode(fixture::clinical(), record("k", "", &[NORTH]))
            .expect("no rejection")
            .is_none()
    );
    assert!(
        decode(cloudevents(), record("k", "", &[]))
            .expect("no rejection")
            .is_none()
    );
}

#[test]
fn tombstones_say_by_their_headers_whose_they_are() {
    let stream = || Stream {
        deletes: Deletes::Headers,
        ..fixture::clinical()
    };
    let headers = [
        NORTH,
        ("patient", "http://x/Patient/1"),
        ("code", "a"),
        ("code", "b"),
        ("unit", "ICU"),
    ];
    let event = event(stream(), record("Observation/9", "", &headers));
    assert_eq!(event.change, Change::Deleted);
    assert_eq!(&*event.kind, "tidewire.observations.deleted");
    assert!(matches!(event.data, Data::None));
    assert_eq!(
        values(&event.attributes),
        [
            (0, "Patient/1"),
            (2, "a"),
            (2, "b"),
            (3, "Observation/9"),
            (4, "ICU")
        ]
    );
    assert_eq!(reason(stream(), record("k", "", &[])), "tombstone_tenant_unknown");
    assert_eq!(
        reason(stream(), record("k", "", &[NORTH, NORTH])),
        "tenant_duplicate"
    );
    assert_eq!(
        reason(
            stream(),
            record("k", "", &[NORTH, ("status", "a"), ("status", "b")])
        ),
        "attribute_duplicate"
    );
    let in_value = Stream {
        tenant: TenantSource::Pointer(pointer("/t")),
        ..stream()
    };
    assert_eq!(
        reason(in_value, record("k", "", &[NORTH])),
        "tombstone_tenant_unknown"
    );
}

const BINARY: [(&str, &str); 5] = [
    NORTH,
    ("ce_specversion", "1.0"),
    ("ce_id", "e-1"),
    ("ce_source", "urn:lab"),
    ("ce_type", "org.hl7.obs"),
];

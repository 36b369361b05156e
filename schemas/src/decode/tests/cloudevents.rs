//! Records that are CloudEvents, in binary and in structured mode.

use super::*;

pub(super) fn cloudevents() -> Stream {
    Stream {
        format: Format::CloudEvents,
        ..fixture::clinical()
    }
}

fn binary(extra: &[(&str, &str)]) -> Vec<(&'static str, String)> {
    let mut headers: Vec<(&'static str, String)> = BINARY
        .iter()
        .map(|(name, value)| (*name, (*value).to_owned()))
        .collect();
    for (name, value) in extra {
        headers.push((
            Box::leak((*name).to_owned().into_boxed_str()),
            (*value).to_owned(),
        ));
    }
    headers
}

fn binary_record(value: &str, extra: &[(&str, &str)]) -> Record {
    let headers = binary(extra);
    let headers: Vec<(&str, &str)> = headers
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    record("Observation/9", value, &headers)
}

#[test]
fn a_binary_cloudevent_keeps_its_own_attributes() {
    let extra = [
        ("ce_subject", "Observation/10"),
        ("ce_time", "2026-01-02T03:04:05.678901+02:00"),
        ("ce_traceparent", "00-x"),
        ("ce_dataschema", "https://schema"),
        ("content-type", "application/fhir+json"),
    ];
    let event = event(cloudevents(), binary_record(BODY, &extra));
    assert_eq!((&*event.id, &*event.source), ("e-1", "urn:lab"));
    assert_eq!(
        &*event.kind, "tidewire.observations.changed",
        "the type is the stream's"
    );
    assert_eq!(event.subject.as_deref(), Some("Observation/10"));
    assert_eq!(event.time_ms, 1_767_315_845_678);
    assert_eq!(&*event.content_type, "application/fhir+json");
    let extensions: Vec<_> = event
        .extensions
        .iter()
        .map(|(name, value)| (&**name, &**value))
        .collect();
    assert_eq!(
        extensions,
        [("traceparent", "00-x"), ("dataschema", "https://schema")]
    );
    assert_eq!(data(&event), BODY);
    assert!(values(&event.attributes).contains(&(0, "Patient/1")));
}

#[test]
fn a_producer_never_overrides_what_is_declared_or_reserved() {
    let extra = [
        ("ce_tenant", "south"),
        ("ce_patient", "Patient/2"),
        ("ce_status", "amended"),
        ("ce_cursor", "x"),
        ("ce_data", "x"),
        ("ce_data_base64", "x"),
        ("ce_UPPER", "x"),
        ("ce_", "x"),
        ("ce_thisnameistoolongbyone", "x"),
    ];
    let event = event(cloudevents(), binary_record(BODY, &extra));
    assert_eq!(event.tenant.as_str(), "north");
    assert_eq!(event.extensions, []);
    assert!(values(&event.attributes).contains(&(1, "final")));
}

#[test]
fn broken_cloudevents_are_rejected() {
    for extra in [
        &[("ce_id", "again")][..],
        &[("ce_time", "yesterday")],
        &[("ce_traceparent", "a"), ("ce_traceparent", "b")],
        &[
            ("content-type", "application/json"),
            ("Content-Type", "text/plain"),
        ],
    ] {
        assert_eq!(
            reason(cloudevents(), binary_record(BODY, extra)),
            "cloudevent_invalid",
            "{extra:?}"
        );
    }
    for (name, value) in [
        ("ce_specversion", "0.3"),
        ("ce_id", ""),
        ("ce_source", ""),
        ("ce_type", ""),
        ("ce_specversion", ""),
    ] {
        let headers: Vec<_> = BINARY
            .iter()
            .map(|have| if have.0 == name { (name, value) } else { *have })
            .collect();
        assert_eq!(
            reason(cloudevents(), record("k", "{}", &headers)),
            "cloudevent_invalid",
            "{name}={value}"
        );
    }
}

#[test]
fn bytes_of_another_kind_are_carried_as_they_are() {
    let text = event(
        cloudevents(),
        binary_record("hello {", &[("content-type", "text/plain")]),
    );
    assert!(matches!(&text.data, Data::Binary(bytes) if bytes == "hello {"));
    let unsaid = event(cloudevents(), binary_record("hello {", &[]));
    assert!(matches!(&unsaid.data, Data::Binary(_)));
    assert_eq!(&*unsaid.content_type, "application/octet-stream");
    let json = event(cloudevents(), binary_record("{}", &[]));
    assert!(matches!(&json.data, Data::Json(_)));
    assert_eq!(
        reason(
            cloudevents(),
            binary_record("{", &[("content-type", "application/json")])
        ),
        "json_invalid"
    );
    assert_eq!(
        reason(cloudevents(), binary_record(r#"{"a":1,"a":2}"#, &[])),
        "json_duplicate_member"
    );
}

#[test]
fn a_record_that_is_no_cloudevent_takes_everything_from_the_stream() {
    let headers = [NORTH, ("ce_id", "e-1"), ("ce_traceparent", "x")];
    let event = event(cloudevents(), record("k", BODY, &headers));
    assert_eq!((event.id.len(), &*event.source), (22, "/streams/observations"));
    assert_eq!(event.extensions, []);
    assert_eq!(
        reason(cloudevents(), record("k", "hello", &[NORTH])),
        "json_invalid"
    );
    assert_eq!(
        reason(
            cloudevents(),
            record("k", "hello", &[NORTH, ("content-type", "text/plain")])
        ),
        "json_invalid"
    );
}

fn structured(envelope: &str) -> Record {
    let headers = [
        NORTH,
        ("content-type", "Application/CloudEvents+json; charset=utf-8"),
        ("ce_id", "not this"),
    ];
    record("Observation/9", envelope, &headers)
}

#[test]
fn a_structured_cloudevent_is_its_envelope() {
    let envelope = r#" {"specversion":"1.0","id":"e-2","source":"urn:lab","type":"theirs","subject":"s\u0031",
        "time":"2026-01-02T03:04:05Z","severity":3,"urgent":true,"gone":null,"odd":{"a":1},"Upper":"x",
        "tenant":"south","status":"amended","data" : { "status": "final", "value": 1.00 } } "#;
    let event = event(cloudevents(), structured(envelope));
    assert_eq!(
        (&*event.id, &*event.source, event.subject.as_deref()),
        ("e-2", "urn:lab", Some("s1"))
    );
    assert_eq!(event.time_ms, 1_767_323_045_000);
    assert_eq!(event.tenant.as_str(), "north");
    let extensions: Vec<_> = event
        .extensions
        .iter()
        .map(|(name, value)| (&**name, &**value))
        .collect();
    assert_eq!(extensions, [("severity", "3"), ("urgent", "true")]);
    assert_eq!(data(&event), r#"{"status":"final","value":1.00}"#);
    assert_eq!(values(&event.attributes), [(1, "final"), (3, "Observation/9")]);
}

#[test]
fn header_sources_read_cloudevents_attributes_in_either_mode() {
    let stream = || Stream {
        tenant: TenantSource::Header("ce_hospital".to_owned()),
        attributes: vec![fixture::attribute("kind", "header:ce_type")],
        ..cloudevents()
    };
    let envelope =
        r#"{"specversion":"1.0","id":"1","source":"s","type":"theirs","hospital":"south","data":{}}"#;
    let of_envelope = event(stream(), structured(envelope));
    assert_eq!(
        (of_envelope.tenant.as_str(), values(&of_envelope.attributes)),
        ("south", vec![(0, "theirs")])
    );
    let of_headers = event(stream(), binary_record("{}", &[("ce_hospital", "east")]));
    assert_eq!(
        (of_headers.tenant.as_str(), values(&of_headers.attributes)),
        ("east", vec![(0, "org.hl7.obs")])
    );
    // A structured event's tenant is not taken from a header beside it.
    let mut beside = structured(r#"{"specversion":"1.0","id":"1","source":"s","type":"t","data":{}}"#);
    beside
        .headers
        .push(("ce_hospital".into(), Some(Bytes::from_static(b"south"))));
    assert_eq!(reason(stream(), beside), "tenant_missing");
}

#[test]
fn base64_data_is_decoded() {
    let of = |rest: &str| {
        let text = format!(r#"{{"specversion":"1.0","id":"1","source":"s","type":"t",{rest}}}"#);
        decode(cloudevents(), structured(&text))
    };
    let event = of(r#""datacontenttype":"image/png","data_base64":"AAEC""#)
        .expect("good")
        .expect("there");
    assert!(matches!(&event.data, Data::Binary(bytes) if **bytes == [0, 1, 2]));
    // JSON in disguise is JSON: masks must reach it.
    let json = of(r#""data_base64":"eyJzdGF0dXMiOiJmaW5hbCJ9""#)
        .expect("good")
        .expect("there");
    assert_eq!(
        (data(&json).as_str(), values(&json.attributes)),
        (r#"{"status":"final"}"#, vec![(1, "final"), (3, "Observation/9")])
    );
    let none = of(r#""x":1"#).expect("good").expect("there");
    assert!(matches!(none.data, Data::None));
    let null = of(r#""data":null"#).expect("good").expect("there");
    assert_eq!(data(&null), "null");
    let text = of(r#""datacontenttype":"text/plain","data":"hello""#)
        .expect("good")
        .expect("there");
    assert_eq!(
        (data(&text).as_str(), &*text.content_type),
        (r#""hello""#, "text/plain")
    );
    for (bad, want) in [
        (r#""data":1,"data_base64":"AAEC""#, "cloudevent_invalid"),
        (r#""data_base64":"A?""#, "cloudevent_invalid"),
        (r#""data_base64":7"#, "cloudevent_invalid"),
        (
            r#""data_base64":"e30K","datacontenttype":7"#,
            "cloudevent_invalid",
        ),
        (r#""data_base64":"ew==""#, "json_invalid"),
        (r#""data":{"a":1,"a":2}"#, "json_duplicate_member"),
        (r#""id":"2","data":1"#, "json_duplicate_member"),
    ] {
        assert_eq!(of(bad).expect_err("bad").reason, want, "{bad}");
    }
}

#[test]
fn broken_envelopes_are_rejected() {
    for (envelope, want) in [
        ("[]", "cloudevent_invalid"),
        ("{}", "cloudevent_invalid"),
        (
            r#"{"specversion":"1.0","id":"","source":"s","type":"t"}"#,
            "cloudevent_invalid",
        ),
        (
            r#"{"specversion":"1.0","id":7,"source":"s","type":"t"}"#,
            "cloudevent_invalid",
        ),
        (
            r#"{"specversion":1.0,"id":"1","source":"s","type":"t"}"#,
            "cloudevent_invalid",
        ),
        (
            r#"{"specversion":"1.0","id":"1","source":"s"}"#,
            "cloudevent_invalid",
        ),
        (
            r#"{"specversion":"1.0","id":"1","source":"s","type":"t","time":"x"}"#,
            "cloudevent_invalid",
        ),
        ("{", "json_invalid"),
    ] {
        assert_eq!(reason(cloudevents(), structured(envelope)), want, "{envelope}");
    }
    for media_type in [
        "application/cloudevents-batch+json",
        "application/cloudevents+avro",
        "application/cloudevents",
    ] {
        let record = record("k", "{}", &[NORTH, ("content-type", media_type)]);
        assert_eq!(
            reason(cloudevents(), record),
            "cloudevent_invalid",
            "{media_type}"
        );
    }
}

#[test]
fn a_deleted_cloudevent_keeps_its_own_id() {
    let stream = Stream {
        deletes: Deletes::Headers,
        ..cloudevents()
    };
    let event = event(stream, binary_record("", &[("patient", "Patient/1")]));
    assert_eq!((&*event.id, event.change), ("e-1", Change::Deleted));
    assert_eq!(
        values(&event.attributes),
        [(0, "Patient/1"), (3, "Observation/9")]
    );
}

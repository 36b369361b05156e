//! What is said of an event under which mask.

use proptest::prelude::*;
use secrecy::SecretString;
use serde_json::{Value, json};

use super::*;
use crate::contract::{Deletes, Format, TenantSource};
use crate::decode::Decoder;
use crate::fixture::{self, pointer};

const RESOURCE: &str = r#"{ "id": "9", "subject": {"reference": "Patient/1"}, "status": "final",
    "code": {"coding": [{"code": "c1"}, {"code": "c2"}]}, "value": 1.00, "note": [{"text": "x"}] }"#;

fn event(stream: Stream, key: &str, value: &str, headers: &[(&str, &str)]) -> Event {
    let decoder = Decoder::new(Arc::new(stream), &SecretString::from("id secret"));
    let decoded = decoder.decode(fixture::record(key, value, headers));
    decoded.expect("a good record").expect("not passed over")
}

fn observation(key: &str) -> Event {
    event(
        fixture::clinical(),
        key,
        RESOURCE,
        &[("tenant", "north"), ("unit", "ICU")],
    )
}

fn encoded(event: &Event, mask: &Mask) -> (String, Value) {
    let mut out = Vec::new();
    event.encode(mask, &mut out);
    let text = String::from_utf8(out).expect("UTF-8");
    let value = serde_json::from_str(&text).expect("JSON");
    (text, value)
}

fn hide(pointers: &[&str]) -> Mask {
    Mask::hide(pointers.iter().map(|text| pointer(text)))
}

#[test]
fn an_event_is_one_line_of_cloudevents() {
    let (text, _) = encoded(&observation("Observation/9"), &Mask::nothing_hidden());
    insta::assert_snapshot!(text, @r#"{"specversion":"1.0","id":"OeSI2y1WlhKuSpZqtO8W4w","source":"/streams/observations","type":"tidewire.observations.changed","subject":"Observation/9","time":"2023-11-14T22:13:20.123Z","tenant":"north","patient":"Patient/1","status":"final","rkey":"Observation/9","unit":"ICU","datacontenttype":"application/json","data":{"id":"9","subject":{"reference":"Patient/1"},"status":"final","code":{"coding":[{"code":"c1"},{"code":"c2"}]},"value":1.00,"note":[{"text":"x"}]}}"#);
}

#[test]
fn hidden_attributes_are_neither_in_the_data_nor_beside_it() {
    let event = observation("Observation/9");
    for mask in [
        hide(&["/subject"]),
        hide(&["/subject/reference"]),
        hide(&["/subject/reference/below"]),
        hide(&["/subject/*"]),
        Mask::show([pointer("/status")]),
    ] {
        let (_, value) = encoded(&event, &mask);
        assert_eq!(value.get("patient"), None, "{mask:?}");
        assert_eq!(value["status"], json!("final"), "{mask:?}");
        assert_eq!(value["subject"], json!("Observation/9"), "{mask:?}");
    }
    let (_, value) = encoded(&event, &hide(&[""]));
    assert_eq!(
        (
            value.get("data"),
            value.get("datacontenttype"),
            value.get("status")
        ),
        (None, None, None)
    );
    assert_eq!(value["tenant"], json!("north"));
}

#[test]
fn attributes_with_a_star_are_for_filters_only() {
    let (_, value) = encoded(&observation("k"), &Mask::nothing_hidden());
    assert_eq!(value.get("code"), None);
}

#[test]
fn the_key_does_not_give_a_hidden_attribute_away() {
    for key in ["Patient/1", "north:Patient/1:9", "1", "1:9", "obs-1-9"] {
        let event = observation(key);
        let (_, open) = encoded(&event, &Mask::nothing_hidden());
        assert_eq!((&open["subject"], &open["rkey"]), (&json!(key), &json!(key)));
        let (text, masked) = encoded(&event, &hide(&["/subject"]));
        assert_eq!(
            (masked.get("subject"), masked.get("rkey")),
            (None, None),
            "{text}"
        );
        assert!(!text.contains("Patient/1"));
        // What is hidden has nothing to do with the key.
        let (_, other) = encoded(&event, &hide(&["/note"]));
        assert_eq!(other["subject"], json!(key));
    }
    let (_, masked) = encoded(&observation("Observation/21"), &hide(&["/subject"]));
    assert_eq!(masked["subject"], json!("Observation/21"), "1 is no word of 21");
    let event = event(
        fixture::clinical(),
        "k",
        RESOURCE,
        &[("tenant", "north"), ("unit", "of Patient/1")],
    );
    assert_eq!(encoded(&event, &hide(&["/subject"])).1.get("unit"), None);
}

#[test]
fn a_key_that_cannot_be_compared_with_what_is_hidden_is_not_told() {
    let tombstone = |headers: &[(&str, &str)]| {
        let stream = Stream {
            deletes: Deletes::Headers,
            ..fixture::clinical()
        };
        event(stream, "Patient/1", "", headers)
    };
    let lacking = event(
        fixture::clinical(),
        "Patient/1",
        r#"{"id": "9", "status": "final"}"#,
        &[("tenant", "north"), ("unit", "Patient/1")],
    );
    let bare = tombstone(&[("tenant", "north"), ("unit", "Patient/1"), ("status", "final")]);
    for event in [&lacking, &bare] {
        let (text, masked) = encoded(event, &hide(&["/subject"]));
        assert!(!text.contains("Patient/1"), "{text}");
        assert_eq!(
            (masked.get("subject"), masked.get("rkey"), masked.get("unit")),
            (None, None, None)
        );
        assert_eq!(event.key_text(&hide(&["/subject"])), None);
        // What is hidden is there, or is no attribute.
        for mask in [hide(&["/status"]), hide(&["/note"]), Mask::nothing_hidden()] {
            assert_eq!(encoded(event, &mask).1["subject"], json!("Patient/1"), "{mask:?}");
            assert_eq!(event.key_text(&mask), Some("Patient/1"));
        }
    }
    // Its headers say what it is.
    let telling = tombstone(&[("tenant", "north"), ("patient", "Patient/2"), ("status", "final")]);
    assert_eq!(telling.key_text(&hide(&["/subject"])), Some("Patient/1"));
}

#[test]
fn other_spellings_of_a_hidden_reference_are_recognised() {
    for (value, keys) in [
        (
            "https://x/fhir/Patient/17/_history/2",
            ["Patient/17", "17", "north:17"],
        ),
        ("urn:uuid:ab-c", ["Patient/ab-c", "ab-c", "urn:uuid:ab-c"]),
    ] {
        for (name, key) in ["patient", "who"]
            .into_iter()
            .flat_map(|name| keys.map(|key| (name, key)))
        {
            let stream = fixture::stream(vec![
                fixture::attribute(name, "/subject/reference"),
                fixture::attribute("rkey", "key"),
            ]);
            let body = json!({"subject": {"reference": value}}).to_string();
            let event = event(stream, key, &body, &[("tenant", "north")]);
            let (text, masked) = encoded(&event, &hide(&["/subject"]));
            assert_eq!(
                (masked.get("subject"), masked.get("rkey")),
                (None, None),
                "{value} {text}"
            );
        }
    }
}

#[test]
fn the_producers_own_words_do_not_give_a_hidden_attribute_away() {
    let with = |id: &str, source: &str, media_type: &str| {
        let mut stream = fixture::clinical();
        stream.format = Format::CloudEvents;
        let headers = [
            ("tenant", "north"),
            ("content-type", media_type),
            ("ce_specversion", "1.0"),
            ("ce_id", id),
            ("ce_source", source),
            ("ce_type", "theirs"),
        ];
        event(stream, "k", RESOURCE, &headers)
    };
    let telling = with(
        "Patient/1-17",
        "/ehr/Patient/1/vitals",
        "application/json; about=Patient/1",
    );
    let (_, open) = encoded(&telling, &Mask::nothing_hidden());
    assert_eq!(
        (&open["id"], &open["source"], &open["datacontenttype"]),
        (
            &json!("Patient/1-17"),
            &json!("/ehr/Patient/1/vitals"),
            &json!("application/json; about=Patient/1")
        )
    );
    let (text, masked) = encoded(&telling, &hide(&["/subject"]));
    assert!(!text.contains("Patient/1"), "{text}");
    let by_position = observation("k").id;
    assert_eq!(
        (&masked["id"], &masked["source"], &masked["datacontenttype"]),
        (
            &json!(&*by_position),
            &json!("/streams/observations"),
            &json!("application/json")
        )
    );
    // What is hidden is not told by these.
    for (event, mask) in [
        (&telling, hide(&["/note"])),
        (&with("e-21", "urn:lab", "application/json"), hide(&["/subject"])),
    ] {
        let (_, masked) = encoded(event, &mask);
        assert_eq!(
            (&masked["id"], &masked["source"]),
            (&json!(&*event.id), &json!(&*event.source))
        );
    }
}

#[test]
fn extensions_are_the_producers_and_shown_only_with_all_the_data() {
    let mut stream = fixture::clinical();
    stream.format = Format::CloudEvents;
    let headers = [
        ("tenant", "north"),
        ("ce_specversion", "1.0"),
        ("ce_id", "e\n1"),
        ("ce_source", "urn:lab"),
        ("ce_type", "theirs"),
        ("ce_traceparent", "00-x"),
    ];
    let event = event(stream, "k", RESOURCE, &headers);
    let (_, open) = encoded(&event, &Mask::nothing_hidden());
    assert_eq!(
        (&open["traceparent"], &open["id"], &open["source"]),
        (&json!("00-x"), &json!("e\n1"), &json!("urn:lab"))
    );
    assert_eq!(open["type"], json!("tidewire.observations.changed"));
    assert_eq!(encoded(&event, &hide(&["/note"])).1.get("traceparent"), None);
}

#[test]
fn bytes_are_given_whole_or_not_at_all() {
    let mut stream = fixture::clinical();
    stream.format = Format::CloudEvents;
    stream.tenant = TenantSource::Header("tenant".to_owned());
    let headers = [
        ("tenant", "north"),
        ("content-type", "text/plain"),
        ("ce_specversion", "1.0"),
        ("ce_id", "1"),
        ("ce_source", "s"),
        ("ce_type", "t"),
    ];
    let event = event(stream, "k", "hello", &headers);
    let (_, open) = encoded(&event, &Mask::nothing_hidden());
    assert_eq!(
        (&open["data_base64"], &open["datacontenttype"]),
        (&json!("aGVsbG8="), &json!("text/plain"))
    );
    let (text, _) = encoded(&event, &hide(&["/note"]));
    assert!(!text.contains("data"), "{text}");
}

#[test]
fn the_deepest_data_can_be_read_in_its_envelopes() {
    let deepest = Document::DEPTH_MAX;
    let body = "[".repeat(deepest) + &"]".repeat(deepest);
    let event = event(fixture::clinical(), "k", &body, &[("tenant", "north")]);
    let (text, _) = encoded(&event, &Mask::nothing_hidden());
    let wrapped = format!("{{\"page\":[{{\"event\":{text}}}]}}");
    assert!(serde_json::from_str::<Value>(&wrapped).is_ok());
}

#[test]
fn an_event_without_a_time_has_none() {
    let mut event = observation("k");
    event.time_ms = -1;
    assert_eq!(encoded(&event, &Mask::nothing_hidden()).1.get("time"), None);
}

#[test]
fn a_buffer_of_the_announced_size_does_not_grow() {
    let event = observation("Observation/9");
    let (text, _) = encoded(&event, &Mask::nothing_hidden());
    assert!(
        (text.len()..text.len() + 300).contains(&event.encoded_bytes_hint()),
        "{}",
        text.len()
    );
}

#[test]
fn memory_counts_what_is_held() {
    let small = observation("k");
    let large = observation(&"k".repeat(10_000));
    assert!(large.bytes > small.bytes + 10_000);
    assert!(small.bytes > RESOURCE.len());
}

/// A tree whose strings are all different: `t0z`, `t1z`, ...
fn tokens() -> impl Strategy<Value = Value> {
    let tree = Just(json!("")).prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec(("[abcd]", inner), 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    });
    tree.prop_map(|mut tree| {
        let mut count = 0;
        number(&mut tree, &mut count);
        tree
    })
}

fn number(tree: &mut Value, count: &mut usize) {
    match tree {
        Value::Object(members) => members.values_mut().for_each(|value| number(value, count)),
        Value::Array(values) => values.iter_mut().for_each(|value| number(value, count)),
        leaf => {
            *leaf = Value::from(format!("t{count}z"));
            *count += 1;
        }
    }
}

fn tokens_in(text: &str) -> Vec<&str> {
    text.split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| word.len() > 2 && word.starts_with('t') && word.ends_with('z'))
        .filter(|word| {
            word.trim_matches(['t', 'z'])
                .bytes()
                .all(|byte| byte.is_ascii_digit())
        })
        .collect()
}

fn masks() -> impl Strategy<Value = Mask> {
    let pointers = prop::collection::vec("(/[abcd01*]){0,4}", 0..4)
        .prop_map(|texts| texts.iter().map(|text| pointer(text)).collect::<Vec<_>>());
    let one = prop_oneof![
        pointers.clone().prop_map(Mask::hide),
        pointers.prop_map(Mask::show)
    ];
    prop::collection::vec(one, 1..4).prop_map(|masks| Mask::any_of(&masks))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn nothing_hidden_stands_anywhere_in_the_event(tree in tokens(), mask in masks(), in_key in 0..3_usize) {
        let pointers = ["/a/b", "/c", "/d/*/a"];
        let stream = fixture::stream(vec![
            fixture::attribute("one", pointers[0]),
            fixture::attribute("two", pointers[1]),
            fixture::attribute("three", pointers[2]),
            fixture::attribute("rkey", "key"),
        ]);
        let text = tree.to_string();
        let document = Document::parse(Bytes::from(text.clone())).expect("a document");
        // The key tells the value of one of the attributes.
        let told = document.strings_at(&pointer(pointers[in_key])).next().unwrap_or_default();
        let event = event(stream, &format!("k-{told}"), &text, &[("tenant", "north")]);
        let (written, _) = encoded(&event, &mask);
        let mut shown = Vec::new();
        document.write(&mask, &mut shown);
        let shown = String::from_utf8(shown).expect("UTF-8");
        for token in tokens_in(&written) {
            prop_assert!(tokens_in(&shown).contains(&token), "{} is hidden: {}", token, written);
        }
    }
}

use proptest::prelude::*;
use schemas::attributes::{Atom, Attributes};
use schemas::ids::AttributeId;
use serde_json::json;

use super::*;
use crate::fixture;

const KIND: &str = "tidewire.observations.created";

fn all_attributes() -> Vec<AttributeId> {
    (0..fixture::stream().attributes.len())
        .map(|place| AttributeId(u16::try_from(place).expect("few attributes")))
        .collect()
}

fn attributes(values: &[(&str, &str)]) -> Attributes {
    let stream = fixture::stream();
    let value = |(name, value): &(&str, &str)| {
        let id = stream.attribute(name).expect("a declared attribute");
        (id, Atom::from(*value))
    };
    Attributes::new(values.iter().map(value).collect())
}

fn matches(filter: &Value, values: &[(&str, &str)]) -> bool {
    let filter = Filter::parse(filter).expect("a filter");
    let compiled = filter
        .compile(&fixture::stream(), &all_attributes())
        .expect("known attributes");
    compiled.matches_parts(KIND, &attributes(values))
}

#[test]
fn each_dialect_does_what_the_specification_says() {
    let values = [
        ("patient", "Patient/1"),
        ("status", "final"),
        ("code", "a-1"),
        ("code", "b-2"),
    ];
    for (filter, expected) in [
        (json!([]), true),
        (json!({"exact": {"status": "final"}}), true),
        (json!({"exact": {"status": "Final"}}), false),
        (
            json!({"exact": {"status": "final", "patient": "Patient/1"}}),
            true,
        ),
        (
            json!({"exact": {"status": "final", "patient": "Patient/2"}}),
            false,
        ),
        (
            json!({"exact": {"patient": "https://x.example/fhir/Patient/1/_history/3"}}),
            true,
        ),
        (json!({"exact": {"type": KIND}}), true),
        (json!({"suffix": {"type": ".deleted"}}), false),
        (json!({"prefix": {"type": "tidewire.observations."}}), true),
        (json!({"prefix": {"patient": "Patient/"}}), true),
        (json!({"suffix": {"patient": "/1"}}), true),
        (json!({"exact": {"code": "b-2"}}), true),
        (json!({"prefix": {"code": "a-"}}), true),
        (json!({"not": {"exact": {"code": "b-2"}}}), false),
        (
            json!({"any": [{"exact": {"status": "x"}}, {"suffix": {"code": "-2"}}]}),
            true,
        ),
        (
            json!({"all": [{"exact": {"status": "final"}}, {"not": {"exact": {"status": "final"}}}]}),
            false,
        ),
        (
            json!([{"exact": {"status": "final"}}, {"exact": {"status": "x"}}]),
            false,
        ),
        (json!({"not": {"not": {"prefix": {"status": "fin"}}}}), true),
    ] {
        assert_eq!(matches(&filter, &values), expected, "{filter}");
    }
}

#[test]
fn absent_never_equals() {
    for dialect in ["exact", "prefix", "suffix"] {
        assert!(!matches(&json!({dialect: {"status": "final"}}), &[]));
        assert!(matches(&json!({"not": {dialect: {"status": "final"}}}), &[]));
    }
}

#[test]
fn bad_filters_are_refused_with_a_stable_code() {
    let mut deep = json!({"exact": {"status": "final"}});
    for _ in 0..DEPTH_MAX {
        deep = json!({ "not": deep });
    }
    let wide = json!({"any": vec![json!({"exact": {"status": "final"}}); EXPRESSIONS_MAX]});
    for filter in [
        json!("status=final"),
        json!(7),
        json!(null),
        json!({}),
        json!({"exact": {"status": "x"}, "prefix": {"status": "x"}}),
        json!({"sql": "status = 'final'"}),
        json!({"exact": {}}),
        json!({"exact": []}),
        json!({"exact": {"status": null}}),
        json!({"exact": {"status": 1.5}}),
        json!({"exact": {"status": ["final"]}}),
        json!({"exact": {"status": ""}}),
        json!({"exact": {"status": "x".repeat(257)}}),
        json!({"all": []}),
        json!({"any": {}}),
        json!({"not": []}),
        json!({"not": [{"exact": {"status": "x"}}]}),
        json!([[{"exact": {"status": "x"}}]]),
        deep,
        wide,
    ] {
        let error = Filter::parse(&filter).expect_err("a bad filter");
        assert_eq!(error.code, Code::FILTER_INVALID, "{filter}");
    }
    let error = Filter::parse(&json!({"exact": {"Not An Attribute": "x"}})).expect_err("no name");
    assert_eq!(error.code, Code::UNKNOWN_PARAMETER);
}

#[test]
fn what_is_undeclared_and_what_is_hidden_look_the_same() {
    let refused = |name: &str, filterable: &[AttributeId]| {
        let filter = Filter::parse(&json!({"not": {"exact": {name: "x"}}})).expect("a filter");
        let error = filter.compile(&fixture::stream(), filterable);
        error.expect_err("unknown").to_string().replace(name, "NAME")
    };
    assert_eq!(refused("nothing", &all_attributes()), refused("status", &[]));
    assert!(refused("nothing", &all_attributes()).starts_with("unknown_parameter"));
}

/// Filters over `status` and `code`, and what they mean, told again.
fn filter(depth: u32) -> impl Strategy<Value = Value> {
    let name = prop::sample::select(vec!["status", "code", "type"]);
    let dialect = prop::sample::select(vec!["exact", "prefix", "suffix"]);
    let leaf = (dialect, name, "[ab]{1,2}").prop_map(|(dialect, name, text)| json!({dialect: {name: text}}));
    leaf.prop_recursive(depth, 24, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 1..3).prop_map(|list| json!({ "all": list })),
            prop::collection::vec(inner.clone(), 1..3).prop_map(|list| json!({ "any": list })),
            inner.prop_map(|inner| json!({ "not": inner })),
        ]
    })
}

fn naive(filter: &Value, kind: &str, values: &[(String, String)]) -> bool {
    let (dialect, value) = filter
        .as_object()
        .and_then(|object| object.iter().next())
        .expect("one");
    let list = || value.as_array().into_iter().flatten();
    match dialect.as_str() {
        "all" => list().all(|inner| naive(inner, kind, values)),
        "any" => list().any(|inner| naive(inner, kind, values)),
        "not" => !naive(value, kind, values),
        _ => {
            let (name, text) = value
                .as_object()
                .and_then(|object| object.iter().next())
                .expect("one");
            let text = text.as_str().expect("a text");
            let test = |have: &str| match dialect.as_str() {
                "exact" => have == text,
                "prefix" => have.starts_with(text),
                _ => have.ends_with(text),
            };
            if name == "type" {
                test(kind)
            } else {
                values.iter().any(|(have, value)| have == name && test(value))
            }
        }
    }
}

proptest! {
    #[test]
    fn filters_say_what_they_say_and_are_written_as_they_are_read(
        written in filter(4),
        kind in "[ab]{0,3}",
        values in prop::collection::vec((prop::sample::select(vec!["status", "code"]), "[ab]{0,3}"), 0..4),
    ) {
        let parsed = Filter::parse(&written).expect("a filter");
        prop_assert_eq!(Filter::parse(&parsed.to_json()).expect("the same"), parsed.clone());
        let values: Vec<(String, String)> = values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let pairs: Vec<(&str, &str)> = values.iter().map(|(name, value)| (&**name, &**value)).collect();
        let compiled = parsed.compile(&fixture::stream(), &all_attributes()).expect("known");
        prop_assert_eq!(compiled.matches_parts(&kind, &attributes(&pairs)), naive(&written, &kind, &values));
    }

    #[test]
    fn no_text_makes_the_parser_stumble(text in r#"[{}\[\]":,a-z]{0,60}"#) {
        if let Ok(value) = serde_json::from_str(&text) {
            let _ = Filter::parse(&value);
        }
    }
}

//! What filters say, and which are refused.

use proptest::prelude::*;
use serde_json::json;
use smallvec::SmallVec;

use super::*;
use crate::fixture;

fn query(pairs: &[(&str, &str)]) -> Result<Predicate, BadFilter> {
    Predicate::from_query(&fixture::clinical(), pairs.iter().copied())
}

fn wanted(predicate: &Predicate) -> Vec<(u16, Vec<&str>)> {
    predicate
        .terms()
        .map(|(id, values)| (id.0, values.iter().map(|value| &**value).collect()))
        .collect()
}

#[test]
fn a_query_reads_as_any_of_its_values_and_all_of_its_attributes() {
    let predicate = query(&[
        ("status", "final,amended,final"),
        ("where.patient", "https://x/Patient/1"),
    ]);
    let predicate = predicate.expect("a good filter");
    assert_eq!(
        wanted(&predicate),
        [(0, vec!["Patient/1"]), (1, vec!["amended", "final"])]
    );
    assert!(query(&[]).expect("a good filter").is_empty());
}

#[test]
fn a_comma_can_be_meant() {
    let predicate = query(&[("status", r"a\,b,c\\,d\e")]).expect("a good filter");
    assert_eq!(wanted(&predicate), [(1, vec!["a,b", r"c\", r"d\e"])]);
}

#[test]
fn reserved_parameters_are_no_attributes() {
    assert!(
        query(&[("after", "x"), ("limit", "10"), ("ticket", "t")])
            .expect("passed over")
            .is_empty()
    );
    let refused = query(&[("where.limit", "10")]).expect_err("no such attribute");
    assert_eq!(refused.code, Code::UNKNOWN_PARAMETER);
    let stream = fixture::stream(vec![fixture::attribute("limit", "/limit")]);
    let pairs = [("where.limit", "10"), ("limit", "3")];
    let predicate = Predicate::from_query(&stream, pairs.into_iter()).expect("a good filter");
    assert_eq!(wanted(&predicate), [(0, vec!["10"])]);
}

#[test]
fn bad_queries_are_told_apart() {
    let code = |pairs: &[(&str, &str)]| query(pairs).expect_err("refused").code;
    assert_eq!(code(&[("nurse", "x")]), Code::UNKNOWN_PARAMETER);
    assert_eq!(code(&[("", "x")]), Code::UNKNOWN_PARAMETER);
    assert_eq!(code(&[("where.", "x")]), Code::UNKNOWN_PARAMETER);
    for pairs in [
        &[("status", "")][..],
        &[("status", ",a")],
        &[("status", "a,")],
        &[("status", "a"), ("status", "b")],
        &[("status", "a"), ("where.status", "a")],
    ] {
        assert_eq!(code(pairs), Code::FILTER_INVALID, "{pairs:?}");
    }
    let many = |count: usize| (0..count).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
    assert!(query(&[("status", &many(VALUES_MAX))]).is_ok());
    assert_eq!(code(&[("status", &many(VALUES_MAX + 1))]), Code::FILTER_INVALID);
    assert!(query(&[("status", &"x".repeat(VALUE_BYTES_MAX))]).is_ok());
    assert_eq!(
        code(&[("status", &"x".repeat(VALUE_BYTES_MAX + 1))]),
        Code::FILTER_INVALID
    );
}

#[test]
fn a_refusal_never_repeats_a_value() {
    let refused = query(&[("status", &"secret".repeat(100))]).expect_err("too long");
    assert!(!refused.to_string().contains("secret"));
}

#[test]
fn json_says_the_same_as_a_query() {
    let stream = fixture::clinical();
    let from = |value: Value| Predicate::from_json(&stream, &value);
    let value = json!({"patient": "Patient/1/_history/3", "status": ["final", "amended"]});
    let pairs = [("patient", "Patient/1"), ("status", "amended,final")];
    assert_eq!(from(value), query(&pairs));
    assert_eq!(
        from(json!({"status": true, "code": [17]})),
        query(&[("status", "true"), ("code", "17")])
    );
    assert_eq!(from(json!({})), Ok(Predicate::default()));
    for bad in [
        json!(null),
        json!([]),
        json!("x"),
        json!({"status": null}),
        json!({"status": {}}),
        json!({"status": []}),
        json!({"status": [""]}),
        json!({"status": [["a"]]}),
        json!({"status": 1.5}),
    ] {
        assert_eq!(
            from(bad.clone()).expect_err("refused").code,
            Code::FILTER_INVALID,
            "{bad}"
        );
    }
    assert_eq!(
        from(json!({"nurse": null})).expect_err("refused").code,
        Code::UNKNOWN_PARAMETER
    );
}

#[test]
fn both_is_the_narrower() {
    let one = query(&[("status", "a,b"), ("code", "x")]).expect("good");
    let other = query(&[("status", "b,c")]).expect("good");
    assert_eq!(
        one.and(&other),
        query(&[("status", "b"), ("code", "x")]).expect("good")
    );
    assert!(one.and(&query(&[("status", "z")]).expect("good")).is_never());
    assert_eq!(one.and(&Predicate::default()), one);
}

#[test]
fn absent_never_equals() {
    let predicate = query(&[("status", "final")]).expect("good");
    assert!(!predicate.matches(&Attributes::default()));
    assert!(Predicate::default().matches(&Attributes::default()));
}

fn predicates() -> impl Strategy<Value = Predicate> {
    prop::collection::btree_map(0_u16..5, prop::collection::vec("[a-c,\\\\]{1,3}", 1..4), 0..4).prop_map(
        |terms| {
            let mut predicate = Predicate::default();
            for (id, values) in terms {
                predicate.require(AttributeId(id), values.into_iter().map(Atom::from));
            }
            predicate
        },
    )
}

proptest! {
    #[test]
    fn json_round_trips(predicate in predicates()) {
        let stream = fixture::clinical();
        prop_assert_eq!(Predicate::from_json(&stream, &predicate.to_json(&stream)), Ok(predicate));
    }

    #[test]
    fn a_query_can_say_any_values(values in prop::collection::vec("[a-c,\\\\]{1,4}", 1..5)) {
        let escaped: Vec<String> = values.iter().map(|value| value.replace('\\', r"\\").replace(',', r"\,")).collect();
        let predicate = query(&[("status", &escaped.join(","))]).expect("a good filter");
        let mut want: Vec<&str> = values.iter().map(String::as_str).collect();
        want.sort_unstable();
        want.dedup();
        prop_assert_eq!(wanted(&predicate), [(1, want)]);
    }

    #[test]
    fn both_matches_what_each_matches(
        one in predicates(),
        other in predicates(),
        values in prop::collection::vec((0_u16..5, "[a-c]"), 0..6),
    ) {
        let values: SmallVec<[(AttributeId, Atom); 4]> =
            values.into_iter().map(|(id, value)| (AttributeId(id), Atom::from(value))).collect();
        let attributes = Attributes::new(values);
        let both = one.and(&other);
        // With several values of one attribute each filter may match by another value: both is narrower then.
        prop_assert!(!both.matches(&attributes) || (one.matches(&attributes) && other.matches(&attributes)));
        prop_assert!(!both.is_never() || !both.matches(&attributes));
    }
}

//! Grants against a naive restatement of the rules, and the sentences of the design one by one.

mod naive;
mod property;

use std::collections::BTreeSet;
use std::path::PathBuf;

use proptest::prelude::*;
use schemas::attributes::Attributes;
use schemas::contract::{Attribute, Deletes, Format, Place, TenantSource, TopicPattern};
use schemas::event::{Change, Data};
use schemas::ids::{AttributeName, Slot, StreamName};
use schemas::project::Pointer;
use serde_json::json;

use super::*;
use crate::control::Denial;
use crate::testing::{principal, tenant};

const PATIENT: AttributeId = AttributeId(0);
const STATUS: AttributeId = AttributeId(1);
const CODE: AttributeId = AttributeId(2);
const KEY: AttributeId = AttributeId(3);

fn pointer(text: &str) -> Pointer {
    Pointer::parse(text).expect("a pointer")
}

fn stream(access: Vec<AccessRule>) -> Stream {
    let attribute = |name: &str, source, reference| Attribute {
        name: AttributeName::parse(name).expect("a name"),
        source,
        reference,
    };
    Stream {
        name: StreamName::parse("observations").expect("a name"),
        revision: 1,
        description: None,
        topics: vec![TopicPattern::parse("fhir.observation").expect("a topic")],
        format: Format::Json,
        schema: None,
        tenant: TenantSource::Header("tenant".into()),
        attributes: vec![
            attribute(
                "patient",
                AttributeSource::Pointer(pointer("/subject/reference")),
                true,
            ),
            attribute("status", AttributeSource::Pointer(pointer("/status")), false),
            attribute(
                "code",
                AttributeSource::Pointer(pointer("/code/coding/*/code")),
                false,
            ),
            attribute("recordkey", AttributeSource::Key, false),
        ],
        deletes: Deletes::None,
        access,
        type_prefix: "tidewire".into(),
        source: "/streams/observations".into(),
        show_offsets: false,
    }
}

fn rule(scopes: &[&str], rows: &[(AttributeId, &str)], mask: Mask) -> AccessRule {
    AccessRule {
        place: Place {
            file: PathBuf::new(),
            line: 1,
            column: 1,
        },
        scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
        rows: if rows.is_empty() {
            Rows::Tenant
        } else {
            Rows::Match(rows.iter().map(|(id, text)| (*id, template(text))).collect())
        },
        mask: Arc::new(mask),
    }
}

/// `Patient/{claims.patient}`, `{subject}`, `final`.
fn template(text: &str) -> Template {
    let mut parts = Vec::new();
    for (place, piece) in text.split(['{', '}']).enumerate() {
        match (place % 2, piece.strip_prefix("claims.")) {
            (0, _) if piece.is_empty() => {}
            (0, _) => parts.push(TemplatePart::Text(piece.to_owned())),
            (_, Some(claim)) => parts.push(TemplatePart::Claim(claim.to_owned())),
            (_, None) => parts.push(TemplatePart::Subject),
        }
    }
    Template { parts }
}

fn hide(pointers: &[&str]) -> Mask {
    Mask::hide(pointers.iter().map(|text| pointer(text)))
}

fn show(pointers: &[&str]) -> Mask {
    Mask::show(pointers.iter().map(|text| pointer(text)))
}

fn event(of: &str, values: &[(AttributeId, &str)]) -> Event {
    Event {
        stream: Arc::new(stream(Vec::new())),
        slot: Slot(0),
        offset: 0,
        tenant: tenant(of),
        id: "1".into(),
        own_id: None,
        source: "/x".into(),
        kind: "x".into(),
        subject: None,
        time_ms: 0,
        content_type: "application/json".into(),
        change: Change::Changed,
        key: None,
        attributes: Attributes::new(
            values
                .iter()
                .map(|(id, value)| (*id, Atom::from(*value)))
                .collect(),
        ),
        extensions: Vec::new(),
        data: Data::None,
        bytes: 0,
    }
}

fn filter(terms: &[(AttributeId, &[&str])]) -> Predicate {
    let mut predicate = Predicate::default();
    for (id, values) in terms {
        predicate.require(*id, values.iter().map(|value| Atom::from(*value)));
    }
    predicate
}

fn code<T>(answer: Result<T, Denied>) -> Code {
    answer.err().expect("refused").code
}

const OBSERVATION: &str = "patient/Observation.rs";

fn patients_own() -> AccessRule {
    rule(
        &[OBSERVATION],
        &[(PATIENT, "Patient/{claims.patient}")],
        hide(&["/performer", "/note"]),
    )
}

fn all_of_the_tenant() -> AccessRule {
    rule(
        &["user/Observation.rs", "system/Observation.rs"],
        &[],
        Mask::nothing_hidden(),
    )
}

#[test]
fn a_grant_includes_another_if_it_shows_all_of_it() {
    let stream = stream(vec![patients_own(), all_of_the_tenant()]);
    let grant = |scopes: &[&str], patient: &str| {
        Grant::compile(&stream, &principal(scopes, &[("patient", patient)])).expect("a grant")
    };
    let (whole, one, two) = (
        grant(&["system/Observation.rs"], "1"),
        grant(&[OBSERVATION], "1"),
        grant(&[OBSERVATION], "2"),
    );
    assert!(whole.includes(&whole) && whole.includes(&one) && one.includes(&one));
    assert!(!one.includes(&whole) && !one.includes(&two));
    let mut less = whole.clone();
    less.exceptions = Exceptions([(PATIENT, Atom::from("Patient/1"))].into());
    assert!(whole.includes(&less) && less.includes(&less) && !less.includes(&whole));
    let mut elsewhere = whole.clone();
    elsewhere.tenant = tenant("south");
    assert!(!elsewhere.includes(&one) && !whole.includes(&elsewhere));
}

#[test]
fn without_a_rule_whose_scope_is_held_there_is_no_access() {
    let both = stream(vec![patients_own(), all_of_the_tenant()]);
    for scopes in [
        &[][..],
        &["openid", "launch/patient"],
        &["patient/Encounter.rs"],
        &["user/Observation.c"],
    ] {
        assert_eq!(
            code(Grant::compile(&both, &principal(scopes, &[("patient", "1")]))),
            Code::STREAM_FORBIDDEN
        );
    }
    assert_eq!(
        code(Grant::compile(
            &stream(Vec::new()),
            &principal(&["user/*.cruds"], &[])
        )),
        Code::STREAM_FORBIDDEN
    );
}

#[test]
fn a_claim_that_is_missing_or_empty_makes_its_clause_false() {
    let own = stream(vec![patients_own()]);
    for claims in [&[][..], &[("patient", "")], &[("Patient", "1")]] {
        assert_eq!(
            code(Grant::compile(&own, &principal(&[OBSERVATION], claims))),
            Code::STREAM_FORBIDDEN
        );
    }
    assert!(Grant::compile(&own, &principal(&[OBSERVATION], &[("patient", "1")])).is_ok());
}

#[test]
fn the_tenant_is_always_anded() {
    let stream = stream(vec![patients_own()]);
    let grant = Grant::compile(&stream, &principal(&[OBSERVATION], &[("patient", "1")])).expect("granted");
    let selection = grant.select(&stream, &Predicate::default()).expect("no filter");
    assert_eq!(selection.matching(&event("north", &[(PATIENT, "Patient/1")])), 1);
    assert_eq!(selection.matching(&event("south", &[(PATIENT, "Patient/1")])), 0);
    assert_eq!(selection.matching(&event("north", &[(PATIENT, "Patient/2")])), 0);
    assert_eq!(selection.matching(&event("north", &[])), 0, "absent never equals");
}

#[test]
fn a_claim_inside_of_a_template_cannot_choose_the_type() {
    let stream = stream(vec![patients_own()]);
    let principal = principal(&[OBSERVATION], &[("patient", "x/Group/1")]);
    let grant = Grant::compile(&stream, &principal).expect("granted");
    let selection = grant.select(&stream, &Predicate::default()).expect("no filter");
    assert_eq!(selection.matching(&event("north", &[(PATIENT, "Group/1")])), 0);
}

#[test]
fn a_claim_that_is_a_whole_reference_is_normalised_like_the_events() {
    let stream = stream(vec![rule(
        &[OBSERVATION],
        &[(PATIENT, "{claims.patient}")],
        Mask::nothing_hidden(),
    )]);
    let principal = principal(
        &[OBSERVATION],
        &[("patient", "https://fhir.example/Patient/1/_history/2")],
    );
    let grant = Grant::compile(&stream, &principal).expect("granted");
    let selection = grant.select(&stream, &Predicate::default()).expect("no filter");
    assert_eq!(selection.matching(&event("north", &[(PATIENT, "Patient/1")])), 1);
}

#[test]
fn readers_with_equal_compiled_grants_share_whatever_else_their_tokens_say() {
    let stream = stream(vec![patients_own(), all_of_the_tenant()]);
    let selection = |scopes: &[&str], claims: &[(&str, &str)]| {
        let grant = Grant::compile(&stream, &principal(scopes, claims)).expect("granted");
        grant.select(&stream, &Predicate::default()).expect("no filter")
    };
    let whole = selection(&["user/*.rs"], &[]);
    assert_eq!(
        whole,
        selection(&["openid", "system/Observation.cruds"], &[("patient", "1")])
    );
    assert_eq!(
        whole,
        selection(&["user/*.rs", "patient/*.rs"], &[("patient", "1")]),
        "its own rows are among all"
    );
    assert_ne!(
        selection(&["patient/*.rs"], &[("patient", "1")]),
        selection(&["patient/*.rs"], &[("patient", "2")])
    );
}

#[test]
fn what_is_hidden_is_what_every_matching_clause_hides() {
    let stream = stream(vec![
        rule(&["a"], &[(PATIENT, "Patient/1")], hide(&["/note", "/performer"])),
        rule(&["a"], &[(STATUS, "final")], hide(&["/note", "/text"])),
    ]);
    let grant = Grant::compile(&stream, &principal(&["a"], &[])).expect("granted");
    let selection = grant.select(&stream, &Predicate::default()).expect("no filter");
    let hidden = |values: &[(AttributeId, &str)]| {
        let mask = selection.mask(selection.matching(&event("north", values)));
        ["/note", "/performer", "/text"]
            .into_iter()
            .filter(|text| mask.hides(&pointer(text)))
            .collect::<Vec<_>>()
    };
    assert_eq!(hidden(&[(PATIENT, "Patient/1")]), ["/note", "/performer"]);
    assert_eq!(hidden(&[(STATUS, "final")]), ["/note", "/text"]);
    assert_eq!(hidden(&[(PATIENT, "Patient/1"), (STATUS, "final")]), ["/note"]);
    assert_eq!(
        hidden(&[]),
        ["/note", "/performer", "/text"],
        "of what nobody gets, everything is hidden"
    );
}

#[test]
fn a_clause_cannot_be_filtered_by_what_it_hides() {
    let stream = stream(vec![
        rule(&["a"], &[(STATUS, "final")], hide(&["/subject"])),
        rule(&["b"], &[(STATUS, "amended")], Mask::nothing_hidden()),
    ]);
    let by_patient = filter(&[(PATIENT, &["Patient/1"])]);
    let grant = |scopes: &[&str]| Grant::compile(&stream, &principal(scopes, &[])).expect("granted");
    let denied = grant(&["a"]).select(&stream, &by_patient).expect_err("hidden");
    assert_eq!(denied.code, Code::UNKNOWN_PARAMETER);
    assert!(denied.detail.contains("patient"), "{}", denied.detail);

    let both = grant(&["a", "b"])
        .select(&stream, &by_patient)
        .expect("one clause is left");
    assert_eq!(
        both.matching(&event("north", &[(PATIENT, "Patient/1"), (STATUS, "final")])),
        0
    );
    assert_eq!(
        both.matching(&event("north", &[(PATIENT, "Patient/1"), (STATUS, "amended")])),
        1
    );

    assert_eq!(
        grant(&["a"]).filterable(&stream),
        [STATUS, CODE],
        "the key may hold what is hidden"
    );
    let by_key = filter(&[(KEY, &["Patient/1"])]);
    let denied = grant(&["a"]).select(&stream, &by_key).expect_err("hidden");
    assert_eq!(denied.code, Code::UNKNOWN_PARAMETER);
    assert_eq!(
        grant(&["a", "b"]).filterable(&stream),
        [PATIENT, STATUS, CODE, KEY]
    );
}

#[test]
fn an_allow_list_hides_the_attributes_that_it_does_not_name() {
    let stream = stream(vec![rule(&["a"], &[], show(&["/status", "/code/coding"]))]);
    let grant = Grant::compile(&stream, &principal(&["a"], &[])).expect("granted");
    assert_eq!(grant.filterable(&stream), [STATUS, CODE]);
}

#[test]
fn the_key_is_for_filters_where_nothing_declared_is_hidden() {
    let stream = stream(vec![rule(&["a"], &[], hide(&["/note"]))]);
    let grant = Grant::compile(&stream, &principal(&["a"], &[])).expect("granted");
    assert_eq!(grant.filterable(&stream), [PATIENT, STATUS, CODE, KEY]);
}

#[test]
fn a_hidden_attribute_looks_like_one_that_does_not_exist() {
    let stream = stream(vec![rule(&["a"], &[], hide(&["/subject"]))]);
    let grant = Grant::compile(&stream, &principal(&["a"], &[])).expect("granted");
    let long = "x".repeat(1000);
    for value in ["", "Patient/1", &long] {
        let refused = |name: &str| {
            let bad = grant.filter_from_query(&stream, [(name, value)].into_iter());
            let bad = bad.expect_err("refused");
            (bad.code, bad.detail.replace(name, "NAME"))
        };
        assert_eq!(refused("patient"), refused("unheard"), "{value:?}");
    }
    for value in [json!(null), json!([]), json!({}), json!("Patient/1"), json!([""])] {
        let refused = |name: &str| {
            let bad = grant.filter_from_json(&stream, &json!({ name: value.clone() }));
            let bad = bad.expect_err("refused");
            (bad.code, bad.detail.replace(name, "NAME"))
        };
        assert_eq!(refused("patient"), refused("unheard"), "{value}");
    }
    let known = grant.filter_from_query(&stream, [("status", "")].into_iter());
    assert_eq!(known.expect_err("empty").code, Code::FILTER_INVALID);
}

#[test]
fn two_filters_on_several_values_are_one_only_where_that_is_exact() {
    let stream = stream(vec![all_of_the_tenant()]);
    let ticket = filter(&[(CODE, &["a", "b"]), (STATUS, &["final", "amended"])]);
    let within = |terms: &[(AttributeId, &[&str])]| within_ticket(&stream, &ticket, &filter(terms));
    assert_eq!(
        within(&[(CODE, &["b", "c"])]).expect_err("inexact").code,
        Code::FILTER_INVALID
    );
    assert_eq!(
        within(&[(CODE, &["b"]), (STATUS, &["amended", "draft"])]).expect("exact"),
        filter(&[(CODE, &["b"]), (STATUS, &["amended"])])
    );
    assert_eq!(within(&[]).expect("the ticket's own"), ticket);
}

#[test]
fn a_restriction_constrains_its_clause() {
    let stream = stream(vec![all_of_the_tenant()]);
    let selection = |scopes: &[&str]| {
        let grant = Grant::compile(&stream, &principal(scopes, &[]))?;
        grant.select(&stream, &Predicate::default())
    };
    let narrow = selection(&["user/Observation.rs?status=final,amended&code=a"]).expect("granted");
    assert_eq!(
        narrow.matching(&event("north", &[(STATUS, "final"), (CODE, "a"), (CODE, "b")])),
        1
    );
    assert_eq!(
        narrow.matching(&event("north", &[(STATUS, "final"), (CODE, "b")])),
        0
    );
    assert_eq!(
        narrow.matching(&event("north", &[(STATUS, "draft"), (CODE, "a")])),
        0
    );

    let reference =
        selection(&["user/Observation.rs?patient=https%3A%2F%2Fx%2FPatient%2F1"]).expect("granted");
    assert_eq!(reference.matching(&event("north", &[(PATIENT, "Patient/1")])), 1);

    let two = selection(&["user/Observation.rs?status=final", "user/*.rs?code=a"]).expect("granted");
    assert_eq!(two.clauses.len(), 2);

    let whole = selection(&["user/Observation.rs?status=final", "user/*.read"]).expect("granted");
    assert_eq!(whole, selection(&["user/*.rs"]).expect("granted"));
}

#[test]
fn a_restriction_that_cannot_be_kept_exactly_denies() {
    let stream = stream(vec![all_of_the_tenant()]);
    for scope in [
        "user/Observation.rs?category=laboratory",
        "user/Observation.rs?status:not=final",
        "user/Observation.rs?status=final&category=laboratory",
        "user/Observation.rs?status=final&status=amended",
        "user/Observation.rs?code=a,b&code=b,c",
    ] {
        assert_eq!(
            code(Grant::compile(&stream, &principal(&[scope], &[]))),
            Code::STREAM_FORBIDDEN,
            "{scope}"
        );
    }
}

#[test]
fn a_filter_that_leaves_no_row_is_no_refusal() {
    let stream = stream(vec![patients_own()]);
    let grant = Grant::compile(&stream, &principal(&[OBSERVATION], &[("patient", "1")])).expect("granted");
    let other = grant
        .select(&stream, &filter(&[(PATIENT, &["Patient/2"])]))
        .expect("no refusal");
    assert_eq!(other.clauses.len(), 1);
    for patient in ["Patient/1", "Patient/2"] {
        assert_eq!(other.matching(&event("north", &[(PATIENT, patient)])), 0);
    }
}

#[test]
fn a_filter_that_one_predicate_cannot_say_together_with_the_grant_is_refused() {
    let stream = stream(vec![all_of_the_tenant()]);
    let grant = Grant::compile(&stream, &principal(&["user/Observation.rs?code=a,b"], &[])).expect("granted");
    assert!(grant.select(&stream, &filter(&[(CODE, &["a"])])).is_ok());
    assert!(
        grant
            .select(&stream, &filter(&[(CODE, &["a", "b", "c"])]))
            .is_ok()
    );
    for values in [&["b", "c"][..], &["c"]] {
        assert_eq!(
            code(grant.select(&stream, &filter(&[(CODE, values)]))),
            Code::FILTER_INVALID
        );
    }
}

fn denied(denials: &[(&str, &str)], mut reader: Principal) -> Principal {
    let denial = |(name, value): &(&str, &str)| {
        let attribute = AttributeName::parse(name).expect("a name");
        Denial::new(reader.tenant.clone(), attribute, value)
    };
    let denials: Vec<Denial> = denials.iter().map(denial).collect();
    reader.denials = denials.into();
    reader
}

#[test]
fn rows_whose_consent_was_withdrawn_are_given_by_no_clause_whatever_is_asked_for() {
    let stream = stream(vec![
        rule(&["a"], &[(PATIENT, "Patient/1")], Mask::nothing_hidden()),
        rule(&["a"], &[], hide(&["/subject"])),
    ]);
    let reader = denied(
        &[("patient", "https://x/Patient/1/_history/3")],
        principal(&["a"], &[]),
    );
    let grant = Grant::compile(&stream, &reader).expect("granted");
    let one = event("north", &[(PATIENT, "Patient/1"), (STATUS, "final")]);
    let two = event("north", &[(PATIENT, "Patient/2"), (STATUS, "final")]);
    let nobody = event("north", &[(STATUS, "final")]);
    for filter in [Predicate::default(), filter(&[(STATUS, &["final"])])] {
        let selection = grant.select(&stream, &filter).expect("no refusal");
        assert_eq!(selection.matching(&one), 0, "also where the attribute is hidden");
        assert_ne!(selection.matching(&two), 0);
        assert_ne!(selection.matching(&nobody), 0, "absent never equals");
    }
    let shown = grant.showing(&stream, &[PATIENT]).expect("one clause shows it");
    assert_eq!(shown.matching(&one), 0);
    let several = denied(&[("code", "b")], principal(&["a"], &[]));
    let grant = Grant::compile(&stream, &several).expect("granted");
    let selection = grant.select(&stream, &Predicate::default()).expect("no filter");
    let coded = |codes: &[&str]| {
        let codes: Vec<_> = codes.iter().map(|code| (CODE, *code)).collect();
        selection.matching(&event("north", &codes))
    };
    assert_eq!(coded(&["a", "b"]), 0, "one of its values is enough");
    assert_ne!(coded(&["a", "c"]), 0);
}

#[test]
fn readers_share_only_with_those_of_whom_the_same_is_withheld() {
    let stream = stream(vec![all_of_the_tenant()]);
    let selection = |denials: &[(&str, &str)]| {
        let reader = denied(denials, principal(&["user/*.rs"], &[]));
        let grant = Grant::compile(&stream, &reader).expect("granted");
        grant.select(&stream, &Predicate::default()).expect("no filter")
    };
    let (one, two) = (("patient", "Patient/1"), ("patient", "Patient/2"));
    assert_ne!(selection(&[]), selection(&[one]));
    assert_ne!(selection(&[one]), selection(&[two]));
    assert_eq!(selection(&[one, two]), selection(&[two, one, one]));
    assert_eq!(
        selection(&[]),
        selection(&[("ward", "7")]),
        "a stream that does not declare the attribute is not concerned"
    );
}

#[test]
fn a_denial_of_another_tenants_data_is_none_of_the_readers() {
    let stream = stream(vec![all_of_the_tenant()]);
    let mut reader = principal(&["user/*.rs"], &[]);
    let attribute = AttributeName::parse("patient").expect("a name");
    reader.denials = vec![Denial::new(tenant("south"), attribute, "Patient/1")].into();
    let grant = Grant::compile(&stream, &reader).expect("granted");
    assert!(grant.exceptions.is_empty());
}

#[test]
fn more_than_eight_clauses_are_too_wide() {
    let rules = |count: usize| {
        let names: Vec<String> = (0..count).map(|place| format!("Patient/{place}")).collect();
        stream(
            names
                .iter()
                .map(|name| rule(&["a"], &[(PATIENT, name)], Mask::nothing_hidden()))
                .collect(),
        )
    };
    let reader = principal(&["a"], &[]);
    assert_eq!(
        Grant::compile(&rules(8), &reader).expect("eight").clauses.len(),
        8
    );
    assert_eq!(code(Grant::compile(&rules(9), &reader)), Code::GRANT_TOO_WIDE);
    assert_eq!(code(Grant::compile(&rules(300), &reader)), Code::GRANT_TOO_WIDE);
    let mut contained = rules(9);
    contained.access.push(rule(&["a"], &[], Mask::nothing_hidden()));
    assert_eq!(
        Grant::compile(&contained, &reader)
            .expect("one contains the others")
            .clauses
            .len(),
        1
    );
}

#[test]
fn a_principal_knows_the_streams_that_it_may_read() {
    let contract = schemas::contract::clinical();
    let known = |scopes: &[&str], claims: &[(&str, &str)]| {
        let granted = granted(&contract, &principal(scopes, claims));
        granted
            .into_iter()
            .map(|one| one.stream.name.as_str().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(known(&["user/*.rs"], &[]).len(), 4);
    assert_eq!(known(&["user/Observation.rs", "openid"], &[]), ["observations"]);
    assert_eq!(
        known(&["patient/Observation.rs"], &[("patient", "1")]),
        ["observations"]
    );
    assert!(known(&["patient/Observation.rs"], &[]).is_empty());
    assert!(known(&[], &[("patient", "1")]).is_empty());
}

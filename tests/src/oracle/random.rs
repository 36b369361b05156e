//! Streams, readers and records by dice: small alphabets, so that things often meet.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Map, Value, json};

use super::{Attribute, Fields, Filter, Model, Record, Rule, TenantFrom, Who};

const POINTERS: [&str; 12] = [
    "/kind",
    "/ref",
    "/ref/reference",
    "/ref/display",
    "/list",
    "/list/*",
    "/list/*/code",
    "/list/*/note",
    "/list/0",
    "/deep/b",
    "/deep/b/c",
    "/deep/*/d",
];

const SCOPES: [&str; 4] = [
    "user/Observation.rs",
    "system/Observation.rs",
    "patient/Observation.rs",
    "orders:read",
];

const HELD: [&str; 13] = [
    "user/Observation.rs",
    "user/*.cruds",
    "user/Observation.r",
    "user/Encounter.rs",
    "system/Observation.read",
    "patient/Observation.rs",
    "patient/*.*",
    "patient/Observation.rs?kind=x",
    "patient/Observation.cruds?kind=x,y",
    "user/Observation.rs?kind=z",
    "system/Observation.rs?undeclared=1",
    "orders:read",
    "openid",
];

/// A stream with random attributes and rules.
pub fn model(name: String, topic: String) -> impl Strategy<Value = Model> {
    let tenant = select(vec![
        TenantFrom::Header,
        TenantFrom::KeyPrefix,
        TenantFrom::Pointer,
    ]);
    let attributes = subsequence(
        vec![
            ("kind", "/kind", false),
            ("patient", "/ref/reference", true),
            ("code", "/list/*/code", false),
            ("deep", "/deep/b/c", false),
            ("number", "/deep/b/d", false),
            ("whole", "/list", false),
            ("thekey", "key", false),
            ("ward", "header:ward", false),
        ],
        1..=8,
    );
    (tenant, attributes, vec(rule(), 1..=3)).prop_map(move |(tenant, attributes, mut rules)| {
        let attributes: Vec<Attribute> = attributes
            .into_iter()
            .map(|(name, from, reference)| Attribute {
                name: name.to_owned(),
                from: from.to_owned(),
                reference,
            })
            .collect();
        for rule in &mut rules {
            // Rows speak of what is declared and has one value.
            rule.rows
                .retain(|(name, _)| attributes.iter().any(|attribute| attribute.name == *name));
        }
        Model {
            name: name.clone(),
            topic: topic.clone(),
            tenant,
            attributes,
            rules,
        }
    })
}

fn rule() -> impl Strategy<Value = Rule> {
    let rows = prop_oneof![
        2 => Just(vec![]),
        3 => Just(vec![("patient", "Patient/{claims.patient}")]),
        1 => Just(vec![("ward", "{claims.ward}")]),
        1 => Just(vec![("kind", "x")]),
        1 => Just(vec![("kind", "{subject}")]),
        1 => Just(vec![("patient", "Patient/{claims.patient}"), ("deep", "{claims.ward}")]),
    ];
    let pointers = || subsequence(POINTERS.to_vec(), 1..=4);
    let owned = |pointers: Vec<&str>| pointers.into_iter().map(str::to_owned).collect::<Vec<_>>();
    let fields = prop_oneof![
        1 => Just(Fields::All),
        2 => pointers().prop_map(move |pointers| Fields::Hide(owned(pointers))),
        2 => pointers().prop_map(move |pointers| Fields::Show(owned(pointers))),
    ];
    (subsequence(SCOPES.to_vec(), 1..=2), rows, fields).prop_map(move |(scopes, rows, fields)| Rule {
        scopes: owned(scopes),
        rows: rows
            .into_iter()
            .map(|(name, text)| (name.to_owned(), text.to_owned()))
            .collect(),
        fields,
    })
}

/// Somebody of this tenant.
pub fn who(tenant: String) -> impl Strategy<Value = Who> {
    let patient = prop_oneof![
        4 => Just(Some(json!("1"))),
        2 => Just(Some(json!("2"))),
        1 => Just(Some(json!(""))),
        1 => Just(Some(json!(1))),
        1 => Just(None),
    ];
    let ward = option::weighted(0.8, select(vec!["x", "w"]).prop_map(|ward| json!(ward)));
    (
        subsequence(HELD.to_vec(), 1..=4),
        patient,
        ward,
        select(vec!["x", "somebody"]),
    )
        .prop_map(move |(scopes, patient, ward, subject)| {
            let mut claims = Map::new();
            claims.extend(patient.map(|patient| ("patient".to_owned(), patient)));
            claims.extend(ward.map(|ward| ("ward".to_owned(), ward)));
            Who {
                tenant: tenant.clone(),
                subject: subject.to_owned(),
                scopes: scopes.into_iter().map(str::to_owned).collect(),
                claims,
            }
        })
}

/// A filter; now and then of an attribute that nobody declared.
pub fn filter() -> impl Strategy<Value = Filter> {
    let term = prop_oneof![
        3 => (Just("kind"), subsequence(vec!["x", "y", "17"], 1..=2)),
        3 => (Just("patient"), subsequence(vec!["Patient/1", "https://h/fhir/Patient/2", "urn:uuid:7"], 1..=2)),
        2 => (Just("code"), subsequence(vec!["c1", "c2", "c3"], 1..=2)),
        1 => (Just("deep"), Just(vec!["x"])),
        1 => (Just("ward"), Just(vec!["x", "w"])),
        1 => (Just("undeclared"), Just(vec!["x"])),
    ];
    let terms = prop_oneof![4 => Just(0_usize), 3 => Just(1), 1 => Just(2)];
    terms
        .prop_flat_map(move |count| vec(term.clone(), count))
        .prop_map(|terms| {
            let mut filter: Filter = Vec::new();
            for (name, values) in terms {
                if !filter.iter().any(|(have, _)| have == name) {
                    filter.push((name.to_owned(), values.into_iter().map(str::to_owned).collect()));
                }
            }
            filter
        })
}

/// A record of one of these tenants, or (seldom) of none. Each text that nothing compares is unlike every other, so that
/// a leak can be seen; `n` tells records apart.
pub fn record(model: &Model, tenants: Vec<String>, n: usize) -> impl Strategy<Value = Record> + use<> {
    let kind = prop_oneof![
        6 => select(vec!["x", "y", "z"]).prop_map(|kind| json!(kind)),
        1 => Just(json!(17)),
        1 => Just(Value::Null),
        1 => Just(json!({"x": "x"})),
        1 => Just(json!(["x"])),
    ];
    let reference = select(vec![
        "Patient/1",
        "https://h/fhir/Patient/1",
        "Patient/1/_history/3",
        "Patient/2",
        "https://h/Patient/2/_history/1",
        "urn:uuid:7",
        "Group/1",
    ]);
    let list = vec(option::weighted(0.9, select(vec!["c1", "c2", "c3"])), 0..=3);
    let deep = option::weighted(0.9, (select(vec!["x", "w", "v"]), 0..3));
    let tenant = (
        option::weighted(0.95, select(tenants)),
        option::weighted(0.8, select(vec!["x", "w", "other"])),
    );
    let from = model.tenant.clone();
    (
        option::weighted(0.9, kind),
        option::weighted(0.9, reference),
        list,
        deep,
        tenant,
    )
        .prop_map(move |(kind, reference, list, deep, (tenant, ward))| {
            let secret = |what: &str| format!("s{what}{n:06}");
            let mut value = json!({"n": n, "text": secret("text")});
            if let Some(kind) = kind {
                value["kind"] = kind;
            }
            if let Some(reference) = reference {
                value["ref"] = json!({"reference": reference, "display": secret("display")});
            }
            let list = list.into_iter().enumerate().map(|(at, code)| {
                let mut one = json!({"note": secret(&format!("note{at}x"))});
                if let Some(code) = code {
                    one["code"] = json!(code);
                }
                one
            });
            value["list"] = list.collect();
            if let Some((c, d)) = deep {
                value["deep"] = json!({"b": {"c": c, "d": d, "e": secret("e")}, "f": {"d": secret("d")}});
            }
            let mut record = Record {
                key: format!("k{n}"),
                headers: Vec::new(),
                value,
            };
            if let Some(tenant) = tenant {
                match from {
                    TenantFrom::Header => record.headers.push(("tenant".to_owned(), tenant)),
                    TenantFrom::KeyPrefix => record.key = format!("{tenant}:k{n}"),
                    TenantFrom::Pointer => record.value["owner"] = json!(tenant),
                }
            }
            record
                .headers
                .extend(ward.map(|ward| ("ward".to_owned(), ward.to_owned())));
            record
        })
}

//! What is finished of an event for one operation is there for the others, and for nobody who must not have it.

use super::*;
use crate::view::{View, Viewed};

/// What the operation selects of the document.
fn selecting(schema: &Schema, selection: &str) -> Arc<Projection> {
    let query = format!("subscription {{ things {{ kind data {{ {selection} }} }} }}");
    bound(schema, &request(&query)).projection
}

fn alone(projection: &Projection, event: &Event, mask: &Mask) -> Vec<u8> {
    let mut out = Vec::new();
    projection.event(event, mask, "c-1", &mut out);
    out
}

fn together(projection: &Projection, finished: &mut Finished<'_>, mask: &Mask) -> Vec<u8> {
    let mut out = Vec::new();
    projection.finish(finished, mask, "c-1", &mut out);
    out
}

fn shown(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).expect("JSON")
}

const DATA: &str = r#"{"id": 7, "state": "no state", "count": 1.5, "label": "secret", "codes": ["secret", 2, {}],
    "free": {"deep": "secret", "shallow": 1}, "subject": {"reference": "Patient/1"},
    "parts": [{"is": "bolt", "name": "x"}, {"is": "Nut", "name": "secret", "sizes": [[1], [null]]}, {}],
    "must": [{"name": "m", "size": 1}], "owner": {"type": "Person", "name": "secret"}}"#;

const SELECTIONS: [&str; 9] = [
    "id",
    "id label state",
    "a: label b: label c: state id",
    "must { name size }",
    "m: must { name size } id: label",
    "codes count parts { ... on Bolt { name size } ... on Nut { sizes name } }",
    "p: parts { ... on Bolt { name size } ... on Nut { sizes name } } free codes",
    "__typename free owner { __typename ... on Person { name } } subject { id }",
    "level total id label state codes free count",
];

#[test]
fn a_member_that_many_select_is_written_once() {
    let schema = schema();
    let event = event(DATA);
    let mut finished = Finished::of(&event);
    let nothing = Mask::nothing_hidden();
    let fields = ["id", "label", "codes", "free", "subject { id }", "state"];
    for bits in 1..1 << fields.len() {
        let chosen = (0..fields.len()).filter(|bit| bits >> bit & 1 == 1);
        let aliased: Vec<String> = chosen
            .map(|bit| format!("a{bits}x{bit}: {}", fields[bit]))
            .collect();
        let projection = selecting(&schema, &aliased.join(" "));
        assert_eq!(
            together(&projection, &mut finished, &nothing),
            alone(&projection, &event, &nothing)
        );
    }
    assert_eq!(
        finished.kept().0,
        fields.len(),
        "whatever it is called, and whatever stands beside it"
    );
}

#[test]
fn what_is_shared_is_what_is_shown_alone_under_any_masks_in_any_order() {
    let schema = schema();
    let event = event(DATA);
    // More than have a sheet, equal ones twice.
    let masks: Vec<Mask> = [
        &[][..],
        &["/label"],
        &["/label", "/codes/0"],
        &["/label"],
        &["/free/deep", "/parts/1", "/owner/name"],
        &["/must/0/size"],
        &["/owner/type", "/state"],
        &[""],
    ]
    .iter()
    .map(|pointers| hide(pointers))
    .chain([Mask::show([Pointer::parse("/label").expect("a pointer")])])
    .collect();
    let projections: Vec<_> = SELECTIONS.iter().map(|each| selecting(&schema, each)).collect();
    let mut finished = Finished::of(&event);
    let all = masks.len() * projections.len();
    for step in 0..4 * all {
        // Each pair four times, neighbours far from each other.
        let pair = step * 31 % all;
        let (mask, projection) = (&masks[pair % masks.len()], &projections[pair / masks.len()]);
        let got = together(projection, &mut finished, mask);
        assert_eq!(got, alone(projection, &event, mask), "{mask:?}");
        let text = String::from_utf8(got).expect("UTF-8");
        let Mask::Hide(hidden) = mask else { continue };
        if hidden.iter().any(|pointer| pointer.depth() == 0) {
            assert_eq!(shown(text.as_bytes())["data"]["things"]["data"], Value::Null);
        }
    }
}

#[test]
fn what_one_mask_shows_is_not_given_under_another() {
    let schema = schema();
    let event = event(DATA);
    let projection = selecting(
        &schema,
        "label codes free owner { ... on Person { name } } parts { name }",
    );
    let strict = hide(&["/label", "/codes/0", "/free/deep", "/owner/name", "/parts/1"]);
    let open = Mask::nothing_hidden();
    for first_open in [true, false] {
        let mut finished = Finished::of(&event);
        for round in 0..4 {
            let is_open = first_open == (round % 2 == 0);
            let mask = if is_open { &open } else { &strict };
            let text = String::from_utf8(together(&projection, &mut finished, mask)).expect("UTF-8");
            assert_eq!(text.contains("secret"), is_open, "{text}");
        }
        let parts = finished.kept().0;
        // An equal mask is the same mask, wherever it came from.
        let again = hide(&["/parts/1", "/owner/name", "/free/deep", "/codes/0", "/label"]);
        together(&projection, &mut finished, &again);
        assert_eq!(finished.kept().0, parts);
    }
}

#[test]
fn one_of_several_masks_is_another_than_each() {
    let event = event(DATA);
    let projection = selecting(&schema(), "label free");
    let (label, free) = (hide(&["/label"]), hide(&["/free"]));
    let either = Mask::any_of([&label, &free]);
    let mut finished = Finished::of(&event);
    for (mask, hidden) in [
        (&label, [true, false]),
        (&either, [false, false]),
        (&free, [false, true]),
    ] {
        let shown = shown(&together(&projection, &mut finished, mask));
        let data = &shown["data"]["things"]["data"];
        assert_eq!(
            [data["label"].is_null(), data["free"].is_null()],
            hidden,
            "{mask:?}"
        );
    }
}

#[test]
fn conditions_make_other_parts_and_filters_do_not() {
    let schema = schema();
    let event = event(DATA);
    let mut finished = Finished::of(&event);
    let nothing = Mask::nothing_hidden();
    let query = "subscription($deep: Boolean!, $who: ID) { things(patient: $who) { data {
        label @include(if: $deep) must { name size @skip(if: $deep) } id } } }";
    let bound_to = |deep: bool, who: &str| {
        let request = with_variables(query, json!({"deep": deep, "who": who}));
        bound(&schema, &request).projection
    };
    let (shallow, deep) = (bound_to(false, "1"), bound_to(true, "1"));
    assert_ne!(shallow, deep);
    assert_eq!(
        shallow,
        bound_to(false, "2"),
        "whose events they are is the filter's to say"
    );
    for _ in 0..2 {
        let data = shown(&together(&shallow, &mut finished, &nothing))["data"]["things"]["data"].take();
        assert_eq!(data, json!({"must": [{"name": "m", "size": 1}], "id": "7"}));
        let data = shown(&together(&deep, &mut finished, &nothing))["data"]["things"]["data"].take();
        assert_eq!(
            data,
            json!({"label": "secret", "must": [{"name": "m"}], "id": "7"})
        );
    }
    assert_eq!(finished.kept().0, 4, "label, id, and must in two forms");
}

#[test]
fn whoever_may_not_select_a_field_gets_no_projection_of_it() {
    let schema = schema();
    let event = event(r#"{"id": "1", "must": [], "secret": "hush"}"#);
    let mut finished = Finished::of(&event);
    let nothing = Mask::nothing_hidden();
    let secret = request("subscription { things { data { id secret } } }");
    let reader = principal(&["secrets:read"]);
    let Ok(Prepared::Subscription(allowed)) = schema.prepare(&secret, Some(&reader)) else {
        panic!("may be selected")
    };
    let told_to_reader = together(&allowed.projection, &mut finished, &nothing);
    assert!(String::from_utf8_lossy(&told_to_reader).contains("hush"));
    assert!(schema.prepare(&secret, Some(&principal(&[]))).is_err());
    let open = selecting(&schema, "id");
    let told = together(&open, &mut finished, &nothing);
    assert!(!String::from_utf8_lossy(&told).contains("hush"));
}

#[test]
fn mistakes_are_told_where_each_operation_has_the_member() {
    let schema = schema();
    let event =
        event(r#"{"id": "1", "state": 5, "must": [{"name": "x"}], "parts": [{"is": "bolt", "name": "n"}]}"#);
    let mut finished = Finished::of(&event);
    let nothing = Mask::nothing_hidden();
    let paths = |projection: &Projection, finished: &mut Finished<'_>| {
        let shown = shown(&together(projection, finished, &nothing));
        let errors = shown["errors"].as_array().cloned().unwrap_or_default();
        let paths: Vec<Value> = errors.into_iter().map(|mut error| error["path"].take()).collect();
        (shown["data"].clone(), paths)
    };
    let plain = selecting(&schema, "state parts { ... on Bolt { size } }");
    let query =
        "subscription { e: things { d: data { s: state t: state p: parts { ... on Bolt { size } } } } }";
    let aliased = bound(&schema, &request(query)).projection;
    for _ in 0..2 {
        let (data, told) = paths(&plain, &mut finished);
        assert_eq!(data["things"]["data"], json!({"state": null, "parts": [null]}));
        assert_eq!(
            told,
            [
                json!(["things", "data", "state"]),
                json!(["things", "data", "parts", 0, "size"])
            ]
        );
        let (data, told) = paths(&aliased, &mut finished);
        assert_eq!(data["e"]["d"], json!({"s": null, "t": null, "p": [null]}));
        assert_eq!(
            told,
            [
                json!(["e", "d", "s"]),
                json!(["e", "d", "t"]),
                json!(["e", "d", "p", 0, "size"])
            ]
        );
    }
    // What must not be null takes everything around it with it, and nothing after it is looked at.
    let query = "subscription { e: things { d: data { m: must { size } s: state } } }";
    let broken = bound(&schema, &request(query)).projection;
    for _ in 0..2 {
        let (data, told) = paths(&broken, &mut finished);
        assert_eq!(data, json!({"e": {"d": null}}));
        assert_eq!(told, [json!(["e", "d", "m", 0, "size"])]);
    }
}

#[test]
fn the_most_errors_are_those_of_a_payload_and_not_of_a_part() {
    let schema = schema();
    let event = event(&json!({"id": "1", "must": [], "codes": vec![json!([1]); 70]}).to_string());
    let mut finished = Finished::of(&event);
    let nothing = Mask::nothing_hidden();
    for selection in [
        "codes",
        "a: codes b: codes",
        "a: codes b: codes c: codes",
        "codes",
    ] {
        let projection = selecting(&schema, selection);
        let got = together(&projection, &mut finished, &nothing);
        assert_eq!(got, alone(&projection, &event, &nothing));
        let errors = shown(&got)["errors"].as_array().map_or(0, Vec::len);
        assert_eq!(errors, if selection == "codes" { 70 } else { 100 });
    }
}

#[test]
fn what_does_not_fit_is_written_again_and_what_is_kept_is_bounded() {
    let schema = schema();
    let long = "x".repeat(100_000);
    let free = json!({"a": long, "b": "y".repeat(300_000)});
    let event =
        event(&json!({"id": "1", "must": [], "label": long, "codes": [long], "free": free}).to_string());
    let mut finished = Finished::of(&event);
    let selections = [
        "free",
        "label codes free id",
        "f: free a: label b: codes",
        "id",
        "codes label id",
    ];
    for step in 0..5 * selections.len() {
        let projection = selecting(&schema, selections[step * 3 % selections.len()]);
        for mask in [hide(&[]), hide(&["/codes"]), hide(&["/label"])] {
            assert!(together(&projection, &mut finished, &mask) == alone(&projection, &event, &mask));
            let (_, bytes) = finished.kept();
            assert!(bytes <= 3 * (256 << 10), "{bytes}");
        }
    }
    // Aliases make as many parts as one likes.
    let mut finished = Finished::of(&event);
    for number in 0..6_000 {
        let projection = selecting(&schema, &format!("parts {{ a{number}: name }}"));
        together(&projection, &mut finished, &hide(&[]));
    }
    assert_eq!(finished.kept().0, 4_096);
}

#[test]
fn a_payload_that_is_too_large_is_so_for_whoever_comes_later_and_for_nobody_else() {
    let schema = schema_with(Options {
        limits: Limits {
            payload_bytes_max: 10_000,
            ..Limits::default()
        },
        ..Options::default()
    });
    let event = event(
        &json!({"id": "1", "must": [], "label": "x".repeat(4_000), "codes": vec!["y"; 5_000]}).to_string(),
    );
    let mut finished = Finished::of(&event);
    let nothing = Mask::nothing_hidden();
    for selection in [
        "a: label b: label",
        "a: label b: label c: label",
        "codes",
        "id codes",
        "label",
        "id",
    ] {
        let projection = selecting(&schema, selection);
        for _ in 0..2 {
            let got = together(&projection, &mut finished, &nothing);
            assert_eq!(got, alone(&projection, &event, &nothing), "{selection}");
            let too_large = selection.contains("codes") || selection.contains("c: label");
            assert_eq!(shown(&got)["data"].is_null(), too_large, "{selection}");
        }
    }
}

#[test]
fn every_worker_offers_each_view_its_own_body() {
    let schema = schema();
    let event = Arc::new(event(DATA));
    let viewed = Viewed::new(Arc::clone(&event));
    let projections = SELECTIONS.iter().map(|each| selecting(&schema, each));
    let views: Vec<View> = projections
        .map(View::Graphql)
        .chain([View::CloudEvents])
        .collect();
    let masks = [&[][..], &["/label"], &["/codes", "/free/deep"]].map(|pointers| Arc::new(hide(pointers)));
    for _ in 0..2 {
        let mut offers = [viewed.offer(), viewed.offer()];
        for (view, mask) in views
            .iter()
            .flat_map(|view| masks.iter().map(move |mask| (view, mask)))
        {
            let alone = view.encode(&event, mask, "c-1");
            for offer in &mut offers {
                assert_eq!(offer.body(view, mask, "c-1"), alone, "{mask:?}");
            }
        }
    }
}

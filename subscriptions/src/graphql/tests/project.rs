//! Events in, bytes out.

use super::*;

#[test]
fn events_tell_what_happened_and_where_one_is() {
    let schema = schema();
    let query = "subscription { e: things { __typename kind c: cursor key time data { id } } }";
    let projection = bound(&schema, &request(query)).projection;
    let mut event = event(r#"{"id": 7, "must": []}"#);
    let nothing = Mask::nothing_hidden();
    assert_eq!(
        shown_of(&projection, &event, &nothing),
        json!({"data": {"e": {"__typename": "ThingEvent", "kind": "UPDATED", "c": "c-1", "key": "thing/1",
            "time": "2023-11-14T22:13:20.123Z", "data": {"id": "7"}}}, "extensions": {"cursor": "c-1"}})
    );
    event.change = Change::Left;
    assert_eq!(
        shown_of(&projection, &event, &nothing)["data"]["e"]["data"],
        Value::Null,
        "not any more"
    );
    event.change = Change::Deleted;
    event.data = Data::None;
    event.key = Some(Bytes::from_static(b"\xFF"));
    event.time_ms = -1;
    let shown = shown_of(&projection, &event, &nothing);
    assert_eq!(shown["data"]["e"]["kind"], "DELETED");
    assert_eq!(shown["data"]["e"]["key"], Value::Null);
    assert_eq!(shown["data"]["e"]["time"], "1970-01-01T00:00:00.000Z");
    assert_eq!(shown.get("errors"), None);
    event.change = Change::Created;
    event.data = Data::Binary(Bytes::from_static(b"\x00"));
    assert_eq!(
        shown_of(&projection, &event, &nothing)["data"]["e"]["data"],
        Value::Null
    );
}

#[test]
fn gaps_and_progress_are_events_of_their_kinds() {
    let schema = schema();
    let written = |write: &dyn Fn(&mut Vec<u8>)| {
        let mut out = Vec::new();
        write(&mut out);
        serde_json::from_slice::<Value>(&out).expect("JSON")
    };
    let projection = bound(
        &schema,
        &request("subscription { states(state: NEW) { kind cursor key time data { id } } }"),
    )
    .projection;
    let gap = written(&|out| projection.gap(r#"[{"partition":1}]"#, "c\"2", 0, out));
    let told = json!({"kind": "GAP", "cursor": "c\"2", "key": null, "time": "1970-01-01T00:00:00.000Z", "data": null});
    assert_eq!(
        gap,
        json!({"data": {"states": told}, "extensions": {"cursor": "c\"2", "gap": {"partitions": [{"partition": 1}]}}})
    );
    let progress = written(&|out| projection.progress("c-3", 1, out));
    assert_eq!(progress["data"]["states"]["kind"], "PROGRESS");
    assert_eq!(progress["extensions"], json!({"cursor": "c-3"}));
    assert!(projection.wants(Change::Created) && !projection.wants(Change::Updated));
    assert!(projection.wants_progress() && !projection.wants_gap());
    let usual = bound(&schema, &request("subscription { things { kind } }")).projection;
    assert!(usual.wants(Change::Left) && usual.wants_gap() && !usual.wants_progress());

    let entity = bound(&schema, &request("subscription { x: thing { id } }")).projection;
    assert_eq!(
        written(&|out| entity.gap("[]", "c-4", 0, out)),
        json!({"data": {"x": null}, "errors": [{"message": "some events cannot be given any more", "path": ["x"],
            "extensions": {"code": "gap"}}], "extensions": {"cursor": "c-4", "gap": {"partitions": []}}})
    );
}

#[test]
fn an_entity_field_gives_the_data_alone() {
    let schema = schema();
    let projection = bound(&schema, &request("subscription { thing { id label } }")).projection;
    let mut event = event(r#"{"id": "a", "label": "b"}"#);
    let nothing = Mask::nothing_hidden();
    assert_eq!(
        shown_of(&projection, &event, &nothing)["data"],
        json!({"thing": {"id": "a", "label": "b"}})
    );
    event.change = Change::Deleted;
    assert_eq!(
        shown_of(&projection, &event, &nothing)["data"],
        json!({"thing": null})
    );
}

#[test]
fn leaves_are_given_as_their_types_say() {
    let data = r#"{"id": 12345678901234567890, "state": "entered-in-error", "count": 5.0, "total": 99999999999999999999,
        "ratio": 1.00, "urgent": true, "level": -0, "at": "2026-01-01T00:00:00Z", "free": {"a": [ 1, null ]},
        "label": 7.50, "code": {"coding": [{"code": "\u0041\"b"}]}, "codes": ["x", 1, true, null]}"#;
    let selection = "id state count total ratio urgent level at free label code codes";
    let query = format!("subscription {{ things {{ data {{ {selection} }} }} }}");
    let projection = bound(&schema(), &request(&query)).projection;
    let mut out = Vec::new();
    projection.event(&event(data), &Mask::nothing_hidden(), "c", &mut out);
    assert_eq!(
        String::from_utf8(out).expect("UTF-8"),
        concat!(
            r#"{"data":{"things":{"data":{"id":"12345678901234567890","state":"ENTERED_IN_ERROR","count":5,"#,
            r#""total":99999999999999999999,"ratio":1.00,"urgent":true,"level":0,"at":"2026-01-01T00:00:00Z","#,
            r#""free":{"a":[1,null]},"label":"7.50","code":"\u0041\"b","codes":["x","1","true",null]}}},"#,
            r#""extensions":{"cursor":"c"}}"#
        )
    );
}

#[test]
fn a_value_of_another_type_is_null_and_its_error_says_where_and_not_what() {
    let data = r#"{"id": "1", "state": "secret-state", "count": 1.5, "total": "secret", "ratio": 1e999, "urgent": 1,
        "at": 5, "label": {"secret": 1}, "codes": "secret", "level": 2147483648, "parts": [{"is": "secret"}, {}, 5],
        "owner": {"type": "Bolt"}}"#;
    let selection = "state count total ratio urgent at label codes level parts { name } owner { __typename }";
    let (shown, errors) = data_of(selection, data);
    let want = json!({"state": null, "count": null, "total": null, "ratio": null, "urgent": null, "at": null,
        "label": null, "codes": null, "level": null, "parts": [null, null, null], "owner": null});
    assert_eq!(shown, want);
    let errors = errors.as_array().expect("errors").clone();
    assert_eq!(errors.len(), 13);
    assert_eq!(errors[0]["path"], json!(["things", "data", "state"]));
    assert_eq!(errors[9]["path"], json!(["things", "data", "parts", 0]));
    assert!(
        errors
            .iter()
            .all(|error| error["extensions"]["code"] == "data_invalid")
    );
    assert!(!serde_json::to_string(&errors).expect("text").contains("secret"));
}

#[test]
fn null_propagates_to_what_may_be_null() {
    let (shown, errors) = data_of(
        "label must { name size }",
        r#"{"label": "a", "must": [{"name": "x", "size": 1}, {"name": "y"}]}"#,
    );
    assert_eq!(shown, Value::Null);
    let want = json!(["things", "data", "must", 1, "size"]);
    assert_eq!(errors[0]["path"], want);
    assert_eq!(errors.as_array().map(Vec::len), Some(1));
    let (shown, errors) = data_of(
        "parts { name ... on Bolt { size } }",
        r#"{"parts": [{"is": "bolt", "name": "x"}, {"is": "Nut", "name": "y"}, null]}"#,
    );
    assert_eq!(shown, json!({"parts": [null, {"name": "y"}, null]}));
    assert_eq!(errors[0]["path"], json!(["things", "data", "parts", 0, "size"]));
    let (shown, errors) = data_of(
        "parts { ... on Nut { sizes } }",
        r#"{"parts": [{"is": "Nut", "sizes": [[1, 2], [3, null], null, 4]}]}"#,
    );
    assert_eq!(shown, json!({"parts": [{"sizes": [[1, 2], null, null, null]}]}));
    assert_eq!(errors.as_array().map(Vec::len), Some(2));
}

#[test]
fn types_are_told_by_their_discriminators() {
    let data = r#"{"parts": [{"is": "bolt", "name": "a", "size": 1, "part": {"is": "Nut", "name": "b"}}, {"is": "Nut", "name": "c", "size": 1.5}],
        "owner": {"type": "Company", "name": "k", "people": [{"name": "p", "boss": {"type": "Person", "name": "q"}}]}}"#;
    let selection = "parts { __typename ...P ... on Bolt { b: size } ... on Nut { n: size } part { __typename ... on Nut { name } } }
        owner { __typename ... on Person { p: name } ... on Company { c: name people { name boss { ... on Person { name } } } } }";
    let query =
        format!("subscription {{ things {{ data {{ {selection} }} }} }} fragment P on Part {{ name }}");
    let projection = bound(&schema(), &request(&query)).projection;
    let shown = shown_of(&projection, &event(data), &Mask::nothing_hidden());
    let want = json!({"parts": [{"__typename": "Bolt", "name": "a", "b": 1, "part": {"__typename": "Nut", "name": "b"}},
            {"__typename": "Nut", "name": "c", "n": 1.5, "part": null}],
        "owner": {"__typename": "Company", "c": "k", "people": [{"name": "p", "boss": {"name": "q"}}]}});
    assert_eq!(shown["data"]["things"]["data"], want);
}

#[test]
fn a_prefix_is_cut_off_and_what_does_not_have_it_is_null() {
    for (reference, want) in [
        (r#""Patient/1""#, json!({"id": "1"})),
        (r#""Pati\u0065nt/\"1""#, json!({"id": "\"1"})),
        (r#""Group/1""#, Value::Null),
        ("17", Value::Null),
        ("null", Value::Null),
    ] {
        let (shown, errors) = data_of(
            "subject { id }",
            &format!(r#"{{"subject": {{"reference": {reference}}}}}"#),
        );
        assert_eq!(shown["subject"], want, "{reference}");
        assert_eq!(errors.is_null(), !want.is_null(), "{reference}");
    }
}

#[test]
fn what_is_hidden_reads_as_absent_under_every_alias() {
    let query = "subscription { things { key data { id a: label ...F code free owner { ... on Person { name } } parts { name } } } }
        fragment F on Thing { b: label codes }";
    let projection = bound(&schema(), &request(query)).projection;
    let data = r#"{"id": "1", "label": "secret", "codes": ["secret", "y"], "code": {"coding": [{"code": "secret"}, {"code": "z"}]},
        "free": {"deep": {"label": "secret"}, "a": 1}, "owner": {"type": "Person", "name": "secret"},
        "parts": [{"is": "Nut", "name": "secret"}, {"is": "Nut", "name": "n"}]}"#;
    let mask = hide(&[
        "/label",
        "/codes/0",
        "/code/coding/0",
        "/free/deep",
        "/owner/name",
        "/parts/0",
    ]);
    let shown = shown_of(&projection, &event(data), &mask);
    assert_eq!(
        shown["data"]["things"]["data"],
        json!({"id": "1", "a": null, "b": null, "codes": ["y"], "code": "z", "free": {"a": 1}, "owner": {"name": null},
            "parts": [{"name": "n"}]})
    );
    assert!(!shown.to_string().contains("secret"));
    let shown = shown_of(&projection, &event(data), &hide(&[""]));
    assert_eq!(shown["data"]["things"]["data"], Value::Null);
    let hidden_type = hide(&["/owner/type"]);
    let shown = shown_of(
        &projection,
        &event(r#"{"id": "1", "owner": {"type": "Person"}}"#),
        &hidden_type,
    );
    assert_eq!(shown["data"]["things"]["data"]["owner"], Value::Null);
}

#[test]
fn a_key_that_holds_a_hidden_value_is_not_told() {
    let query = "subscription { things { key } }";
    let projection = bound(&schema(), &request(query)).projection;
    let mut event = event("{}");
    let patient = event.stream.attribute("patient").expect("the attribute");
    event.attributes = Attributes::new(smallvec::smallvec![(patient, Arc::from("Patient/77"))]);
    event.key = Some(Bytes::from_static(b"thing/77"));
    let nothing = Mask::nothing_hidden();
    assert_eq!(
        shown_of(&projection, &event, &nothing)["data"]["things"]["key"],
        "thing/77"
    );
    let shown = shown_of(&projection, &event, &hide(&["/subject"]));
    assert_eq!(shown["data"]["things"]["key"], Value::Null);
}

#[test]
fn the_clinical_contract_is_served() {
    let contract = Arc::new(schemas::contract::clinical());
    let schema = Schema::new(&contract, Options::default()).expect("a schema");
    let query =
        "subscription($p: [String!]) { observations(patient: $p, status: \"final\") { kind cursor data {
        id status code { coding { code } } subject { reference } valueQuantity { value unit } } } }";
    let bound = bound(&schema, &with_variables(query, json!({"p": "Patient/1"})));
    assert_eq!(
        Value::Object(bound.filter),
        json!({"patient": ["Patient/1"], "status": ["final"]})
    );
    let data = r#"{"resourceType":"Observation","id":"o1","status":"final","code":{"coding":[{"system":"s","code":"8480-6"}]},
        "subject":{"reference":"Patient/1"},"valueQuantity":{"value":120.50,"unit":"mmHg"}}"#;
    let mut out = Vec::new();
    bound
        .projection
        .event(&event(data), &Mask::nothing_hidden(), "c", &mut out);
    assert_eq!(
        String::from_utf8(out).expect("UTF-8"),
        r#"{"data":{"observations":{"kind":"UPDATED","cursor":"c","data":{"id":"o1","status":"FINAL","code":{"coding":[{"code":"8480-6"}]},"subject":{"reference":"Patient/1"},"valueQuantity":{"value":120.50,"unit":"mmHg"}}}},"extensions":{"cursor":"c"}}"#
    );
}

#[test]
fn a_payload_that_aliases_make_too_large_is_an_error_and_no_data() {
    let schema = schema_with(Options {
        limits: Limits {
            payload_bytes_max: 10_000,
            ..Limits::default()
        },
        ..Options::default()
    });
    let payload = |selection: &str, data: &str| {
        let query = format!("subscription {{ things {{ {selection} }} }}");
        let projection = bound(&schema, &request(&query)).projection;
        let mut out = Vec::new();
        projection.event(&event(data), &Mask::nothing_hidden(), "c-1", &mut out);
        assert!(out.len() < 10_100, "{selection}: {}", out.len());
        serde_json::from_slice::<Value>(&out).expect("JSON")
    };
    let aliases = |count: usize, one: &str| -> String {
        (0..count).map(|number| format!("a{number}: {one} ")).collect()
    };
    let long = "x".repeat(100);
    let data = json!({"label": long, "free": {"a": [long]}, "must": [], "codes": vec![json!([1]); 90],
        "parts": vec![json!({"is": "Nut", "name": long}); 50]})
    .to_string();
    for selection in [
        format!("data {{ {} }}", aliases(150, "label")),
        format!("data {{ {} }}", aliases(150, "free")),
        format!("data {{ parts {{ {} }} }}", aliases(5, "name")),
        format!("data {{ parts {{ {}: name }} }}", "n".repeat(200)),
        format!("data {{ {}: codes }}", "n".repeat(500)),
        format!("{}: kind", "n".repeat(11_000)),
        format!("data {{ label }} {}: kind", "n".repeat(11_000)),
    ] {
        let shown = payload(&selection, &data);
        assert_eq!(shown["data"], Value::Null, "{selection}");
        assert_eq!(
            shown["errors"],
            json!([{"message": "what is selected of the event is too large", "path": ["things"],
                "extensions": {"code": "data_too_large"}}])
        );
        assert_eq!(shown["extensions"], json!({"cursor": "c-1"}));
    }
    let shown = payload(&format!("data {{ {} }}", aliases(80, "label")), &data);
    assert_eq!(shown["data"]["things"]["data"]["a79"], json!(long));
    assert_eq!(shown.get("errors"), None);
}

//! What is refused of endpoints, and who is.

use http::StatusCode;
use serde_json::{Value, json};

use super::house::{ALL, ENDPOINTS, House, smallest, with};

#[tokio::test]
async fn every_field_out_of_range_is_refused_with_its_code_and_its_pointer() {
    let house = House::new().await;
    let long = "x".repeat(3_000);
    let cases = [
        ("url", json!(7), "field_invalid"),
        ("url", json!("ftp://partner.example/"), "url_invalid"),
        ("url", json!("http://partner.example/"), "url_invalid"),
        ("url", json!("https://user:pw@partner.example/"), "url_invalid"),
        ("url", json!("https://10.0.0.1/"), "url_forbidden"),
        ("url", json!("https://169.254.169.254/"), "url_forbidden"),
        ("streams", json!([]), "field_invalid"),
        ("streams", json!(["Not A Stream"]), "field_invalid"),
        ("types", json!([7]), "field_invalid"),
        ("filter", json!({"sql": "1=1"}), "filter_invalid"),
        ("filter", json!({"exact": {"NOT": "x"}}), "unknown_parameter"),
        ("filter", json!({"exact": {"colour": "red"}}), "unknown_parameter"),
        ("content", json!("everything"), "field_invalid"),
        ("headers", json!({"a b": "x"}), "field_invalid"),
        ("headers", json!({"Host": "x"}), "header_forbidden"),
        ("signing", json!(["v2"]), "field_invalid"),
        ("credentials", json!({"type": "digest"}), "credentials_invalid"),
        ("rate_per_second", json!(0), "field_invalid"),
        ("concurrency", json!(65), "field_invalid"),
        ("timeout_ms", json!(99), "field_invalid"),
        ("retry_seconds", json!([0]), "field_invalid"),
        ("ordering", json!("strict"), "field_invalid"),
        ("description", json!(long), "field_invalid"),
        ("metadata", json!({"a": long}), "field_invalid"),
        ("enabled", json!("yes"), "field_invalid"),
        ("handshake", json!(1), "field_invalid"),
        ("id", json!("ep_1"), "field_unknown"),
        ("secret", json!("whsec_x"), "field_unknown"),
    ];
    let (_, path) = house.create(&smallest()).await;
    for (member, value, code) in cases {
        let made = house.ask("POST", ENDPOINTS, &with(member, value.clone())).await;
        let patched = house.patch(&path, "*", &json!({ member: value })).await;
        for refused in [made, patched] {
            assert_eq!(
                (refused.status.as_u16(), &*refused.code()),
                (400, code),
                "{member} = {value}"
            );
            let document = refused.json();
            let pointer = format!("/{member}");
            assert_eq!(document["pointer"], pointer, "{document}");
            assert_eq!(document["errors"][0]["pointer"], pointer, "{document}");
            assert_eq!(document["errors"][0]["code"], code, "{document}");
        }
    }
    // An event type is looked at with the streams.
    let refused = house
        .ask(
            "POST",
            ENDPOINTS,
            &with("types", json!(["tidewire.patients.changed"])),
        )
        .await;
    assert_eq!(
        (&*refused.code(), &refused.json()["pointer"]),
        ("event_type_unknown", &json!("/types/0"))
    );
}

#[tokio::test]
async fn all_that_is_wrong_is_told_at_once_and_no_value_is_repeated() {
    let house = House::new().await;
    let body = json!({
        "url": "http://hush-hush.example/", "streams": [], "timeout_ms": 0,
        "credentials": {"type": "bearer", "token": "hush hush"}, "nothing": "hush",
    });
    let refused = house.ask("POST", ENDPOINTS, &body).await;
    let document = refused.json();
    assert_eq!(document["errors"].as_array().map(Vec::len), Some(5), "{document}");
    assert!(!refused.text.contains("hush"), "{document}");
    for (body, code) in [
        ("[]", "body_invalid"),
        ("{", "body_invalid"),
        ("", "body_invalid"),
    ] {
        let bearer = house.bearer("north", ALL);
        let headers = [
            ("authorization", bearer.as_str()),
            ("content-type", "application/json"),
        ];
        assert_eq!(house.rig.post(ENDPOINTS, &headers, body).await.code(), code);
    }
    let bearer = house.bearer("north", ALL);
    let headers = [("authorization", bearer.as_str()), ("content-type", "text/plain")];
    assert_eq!(
        house.rig.post(ENDPOINTS, &headers, "{}").await.code(),
        "unsupported_media_type"
    );
}

#[tokio::test]
async fn unknown_and_forbidden_streams_look_the_same() {
    let house = House::new().await;
    let refused = async |name: &str| {
        let body = with("streams", json!([name]));
        let answer = house.ask("POST", ENDPOINTS, &body).await;
        (answer.status, answer.text.replace(name, "NAME"))
    };
    let forbidden = refused("patients").await;
    assert_eq!(forbidden.0, StatusCode::FORBIDDEN);
    assert_eq!(forbidden, refused("nothing").await);
    let (_, path) = house.create(&smallest()).await;
    let added = async |name: &str| {
        let answer = house
            .patch(&path, "*", &json!({"streams": ["observations", name]}))
            .await;
        (answer.status, answer.text.replace(name, "NAME"))
    };
    let forbidden = added("zatients").await;
    assert_eq!(forbidden.0, StatusCode::FORBIDDEN);
    // Names are in order: the same place for both.
    assert_eq!(added("patients").await, forbidden);
}

#[tokio::test]
async fn a_token_with_the_scope_is_needed_and_nothing_else_will_do() {
    let house = House::new().await;
    let (_, path) = house.create(&smallest()).await;
    let none = house.rig.get(&path, &[]).await;
    assert_eq!(
        (none.status, &*none.code()),
        (StatusCode::UNAUTHORIZED, "unauthenticated")
    );
    let bearer = house.bearer("north", ALL);
    let ticket = house
        .ask_as(&bearer, "POST", "/v1/tickets", &[], &json!({}))
        .await
        .json();
    let ticket = ticket["ticket"].as_str().expect("a ticket");
    let by_ticket = house.rig.get(&format!("{path}?ticket={ticket}"), &[]).await;
    assert_eq!(by_ticket.code(), "unauthenticated");
    let by_cookie = house.rig.get(
        &path,
        &[("cookie", "__Host-tidewire=x"), ("origin", "https://app.example")],
    );
    assert_eq!(by_cookie.await.code(), "unauthenticated");

    let reading = house.bearer("north", "webhooks:read system/Observation.rs");
    let writing = house.bearer("north", "webhooks:write system/Observation.rs");
    let neither = house.bearer("north", "system/Observation.rs webhooks:*");
    let tried = async |bearer: &str, method: &str| {
        let body = if method == "GET" { Value::Null } else { json!({}) };
        house
            .ask_as(bearer, method, &path, &[("if-match", "*")], &body)
            .await
            .status
            .as_u16()
    };
    assert_eq!(
        (tried(&reading, "GET").await, tried(&reading, "PATCH").await),
        (200, 403)
    );
    assert_eq!(
        (tried(&writing, "GET").await, tried(&writing, "PATCH").await),
        (403, 200)
    );
    assert_eq!(
        (tried(&neither, "GET").await, tried(&neither, "PATCH").await),
        (403, 403)
    );
    let refused = house.ask_as(&neither, "GET", &path, &[], &Value::Null).await;
    assert_eq!(refused.code(), "scope_missing");
}

#[tokio::test]
async fn what_is_of_another_tenant_does_not_exist() {
    let house = House::new().await;
    let (_, path) = house.create(&smallest()).await;
    let south = house.bearer("south", ALL);
    let missing = format!("{ENDPOINTS}/ep_01ARZ3NDEKTSV4RRFFQ69G5FAV");
    for (method, below, body) in [
        ("GET", "", Value::Null),
        ("PATCH", "", json!({"description": "x"})),
        ("DELETE", "", Value::Null),
        ("POST", "/rotate", json!({})),
        ("POST", "/pause", Value::Null),
        ("POST", "/resume", Value::Null),
        ("POST", "/test", json!({})),
        ("POST", "/handshake", Value::Null),
        ("POST", "/dry-run", json!({})),
        ("POST", "/replay", json!({"from": "failed"})),
        ("GET", "/replays", Value::Null),
        ("DELETE", "/replays/rp_1", Value::Null),
        ("GET", "/health", Value::Null),
        ("GET", "/cursor", Value::Null),
    ] {
        let asked = async |path: &str| {
            let uri = format!("{path}{below}");
            let answer = house
                .ask_as(&south, method, &uri, &[("if-match", "*")], &body)
                .await;
            (answer.status, answer.text)
        };
        let foreign = asked(&path).await;
        assert_eq!(foreign.0, StatusCode::NOT_FOUND, "{method} {below}");
        assert_eq!(foreign, asked(&missing).await, "{method} {below}");
        assert_eq!(
            foreign,
            asked(&format!("{ENDPOINTS}/nothing")).await,
            "{method} {below}"
        );
    }
    let list = house
        .ask_as(&south, "GET", ENDPOINTS, &[], &Value::Null)
        .await
        .json();
    assert_eq!(list["endpoints"], json!([]));
    assert_eq!(house.get(&path).await.status, StatusCode::OK);
}

#[tokio::test]
async fn who_steers_an_endpoint_must_be_granted_what_its_owner_is() {
    let house = House::new().await;
    let (_, path) = house.create(&smallest()).await;
    // A token of the same tenant that may see one patient's rows, and one that may see nothing.
    let patient = house.bearer("north", "webhooks:write patient/Observation.rs");
    let nothing = house.bearer("north", "webhooks:write");
    let any = [("if-match", "*")];
    for bearer in [&patient, &nothing] {
        for patch in [
            json!({"url": "https://evil.example/"}),
            json!({"content": "structured"}),
            json!({"filter": []}),
            json!({"headers": {"x-route": "elsewhere"}}),
            json!({"credentials": {"type": "none"}}),
            json!({"streams": ["observations"]}),
            json!({"types": []}),
        ] {
            let refused = house.ask_as(bearer, "PATCH", &path, &any, &patch).await;
            assert_eq!(
                (refused.status.as_u16(), &*refused.code()),
                (403, "stream_forbidden"),
                "{patch}"
            );
        }
        let shown = house
            .ask_as(bearer, "POST", &format!("{path}/dry-run"), &[], &json!({}))
            .await;
        assert_eq!(
            shown.code(),
            "stream_forbidden",
            "what would be sent is shown to no one who may not see it"
        );
        let harmless = house
            .ask_as(bearer, "PATCH", &path, &any, &json!({"timeout_ms": 500}))
            .await;
        assert_eq!(harmless.status, StatusCode::OK, "{}", harmless.text);
    }
    // Who takes it over brings its own grant.
    let body = json!({"owner": "me", "url": "https://patient.example/"});
    let taken = house.ask_as(&nothing, "PATCH", &path, &any, &body).await;
    assert_eq!(taken.code(), "stream_forbidden");
    let taken = house.ask_as(&patient, "PATCH", &path, &any, &body).await;
    assert_eq!(taken.status, StatusCode::OK, "{}", taken.text);
    assert!(
        taken.json()["authorized_until"].is_string(),
        "a person's authorization is short"
    );
    let other = house.patch(&path, "*", &json!({"owner": "somebody"})).await;
    assert_eq!(
        (&*other.code(), &other.json()["pointer"]),
        ("field_invalid", &json!("/owner"))
    );
}

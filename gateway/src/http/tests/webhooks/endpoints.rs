use http::StatusCode;
use serde_json::{Value, json};

use super::house::{ALL, ENDPOINTS, House, smallest, with};

#[tokio::test]
async fn the_smallest_request_makes_an_endpoint_and_its_secret_is_told_once() {
    let mut house = House::new().await;
    let answer = house.ask("POST", ENDPOINTS, &smallest()).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
    let shown = answer.json();
    let id = shown["id"].as_str().expect("an id");
    assert_eq!(answer.headers["location"], format!("{ENDPOINTS}/{id}"));
    assert_eq!(answer.headers["cache-control"], "no-store");
    assert!(
        shown["secret"]
            .as_str()
            .is_some_and(|secret| secret.starts_with("whsec_"))
    );
    assert!(shown.get("public_key").is_none());
    assert_eq!(
        (&shown["status"], &shown["content"], &shown["authorized_until"]),
        (&json!("active"), &json!("thin"), &Value::Null)
    );
    assert!(
        house.changed.has_changed().expect("open"),
        "the registry looks at once"
    );
    house.changed.mark_unchanged();

    let path = format!("{ENDPOINTS}/{id}");
    let read = house.get(&path).await;
    assert_eq!(read.headers["etag"], answer.headers["etag"]);
    assert!(read.json().get("secret").is_none());
    let bearer = house.bearer("north", ALL);
    let tag = read.headers["etag"].to_str().expect("text");
    let known = house
        .ask_as(&bearer, "GET", &path, &[("if-none-match", tag)], &Value::Null)
        .await;
    assert_eq!(
        (known.status, known.text.as_str()),
        (StatusCode::NOT_MODIFIED, "")
    );
    assert!(!house.changed.has_changed().expect("open"));
}

#[tokio::test]
async fn no_answer_but_those_that_made_it_has_a_secret() {
    let house = House::new().await;
    let mut body = with("signing", json!(["v1", "v1a", "rfc9421"]));
    body["credentials"] = json!({"type": "bearer", "token": "hush-hush"});
    let bearer = house.bearer("north", ALL);
    let key = [("idempotency-key", "once")];
    let made = house.ask_as(&bearer, "POST", ENDPOINTS, &key, &body).await;
    assert_eq!(made.status, StatusCode::CREATED);
    let secret = made.json()["secret"].as_str().expect("a secret").to_owned();
    let path = made.headers["location"].to_str().expect("text").to_owned();
    assert!(
        made.json()["public_key"]
            .as_str()
            .is_some_and(|key| key.starts_with("whpk_"))
    );
    let rotated = house
        .ask("POST", &format!("{path}/rotate"), &json!({"overlap_seconds": 60}))
        .await;
    let second = rotated.json()["secret"].as_str().expect("a secret").to_owned();
    assert_ne!(secret, second);
    assert!(!rotated.text.contains(&secret));

    let mut others = vec![
        house.ask_as(&bearer, "POST", ENDPOINTS, &key, &body).await,
        house.get(&path).await,
        house.get(ENDPOINTS).await,
        house.patch(&path, "*", &json!({"description": "x"})).await,
    ];
    for below in ["pause", "resume"] {
        others.push(house.ask("POST", &format!("{path}/{below}"), &Value::Null).await);
    }
    others.push(house.get(&format!("{path}/health")).await);
    others.push(house.get(&format!("{path}/replays")).await);
    others.push(house.ask("POST", &format!("{path}/dry-run"), &json!({})).await);
    others.push(made);
    let last = others.len() - 1;
    for (place, answer) in others.iter().enumerate() {
        assert!(answer.status.is_success(), "{}", answer.text);
        for hidden in ["whsk_", "hush-hush"] {
            assert!(!answer.text.contains(hidden), "{}", answer.text);
        }
        if place != last {
            assert!(!answer.text.contains("whsec_"), "{}", answer.text);
        }
    }
}

#[tokio::test]
async fn the_same_request_with_the_same_key_makes_one_endpoint() {
    let house = House::new().await;
    let bearer = house.bearer("north", ALL);
    let key = [("idempotency-key", "key-1")];
    let first = house.ask_as(&bearer, "POST", ENDPOINTS, &key, &smallest()).await;
    let again = house.ask_as(&bearer, "POST", ENDPOINTS, &key, &smallest()).await;
    assert_eq!(
        (first.status, again.status),
        (StatusCode::CREATED, StatusCode::OK)
    );
    assert_eq!(first.json()["id"], again.json()["id"]);
    assert_eq!(first.headers["location"], again.headers["location"]);
    let other = house
        .ask_as(&bearer, "POST", ENDPOINTS, &key, &with("timeout_ms", json!(500)))
        .await;
    assert_eq!(
        (other.status.as_u16(), &*other.code()),
        (422, "idempotency_key_reused")
    );
    let list = house.get(ENDPOINTS).await.json();
    assert_eq!(list["endpoints"].as_array().map(Vec::len), Some(1));
    // Another tenant's key with the same text is another key.
    let south = house.bearer("south", ALL);
    let foreign = house.ask_as(&south, "POST", ENDPOINTS, &key, &smallest()).await;
    assert_eq!(foreign.status, StatusCode::CREATED);
    for bad in ["", "\u{7f}", &"k".repeat(256)] {
        let Ok(value) = http::HeaderValue::from_str(bad) else {
            continue;
        };
        let key = [("idempotency-key", value.to_str().expect("text"))];
        let refused = house.ask_as(&bearer, "POST", ENDPOINTS, &key, &smallest()).await;
        assert_eq!(refused.code(), "parameter_invalid");
    }
}

#[tokio::test]
async fn a_change_is_for_one_version() {
    let house = House::new().await;
    let (_, path) = house.create(&smallest()).await;
    let bearer = house.bearer("north", ALL);
    let patch = json!({"description": "new"});
    let without = house.ask_as(&bearer, "PATCH", &path, &[], &patch).await;
    assert_eq!(
        (without.status.as_u16(), &*without.code()),
        (428, "precondition_required")
    );
    let tag = house.tag(&path).await;
    let done = house.patch(&path, &tag, &patch).await;
    assert_eq!(
        (done.status, &done.json()["description"]),
        (StatusCode::OK, &json!("new"))
    );
    let stale = house.patch(&path, &tag, &json!({"description": "newer"})).await;
    assert_eq!(
        (stale.status.as_u16(), &*stale.code()),
        (412, "precondition_failed")
    );
    let new_tag = done.headers["etag"].to_str().expect("text");
    let weak = house.patch(&path, &format!("W/{new_tag}"), &patch).await;
    assert_eq!(weak.code(), "precondition_failed");
    let listed = house
        .patch(&path, &format!("\"x\", {new_tag}"), &json!({"timeout_ms": 500}))
        .await;
    assert_eq!(listed.status, StatusCode::OK);
    let headers = [
        ("content-type", "application/merge-patch+json"),
        ("if-match", "*"),
        ("authorization", &*bearer),
    ];
    let merge = house
        .rig
        .ask(crate::http::tests::rig::request(
            "PATCH",
            &path,
            &headers,
            r#"{"timeout_ms":null}"#,
        ))
        .await;
    assert_eq!(merge.json()["timeout_ms"], 15_000);

    for below in ["", "/rotate", "/pause", "/resume"] {
        let method = if below.is_empty() { "DELETE" } else { "POST" };
        let uri = format!("{path}{below}");
        let stale = house
            .ask_as(&bearer, method, &uri, &[("if-match", &*tag)], &Value::Null)
            .await;
        assert_eq!(stale.code(), "precondition_failed", "{method} {below}");
    }
    let tag = house.tag(&path).await;
    let gone = house
        .ask_as(&bearer, "DELETE", &path, &[("if-match", &*tag)], &Value::Null)
        .await;
    assert_eq!((gone.status, gone.text.as_str()), (StatusCode::NO_CONTENT, ""));
    assert_eq!(house.get(&path).await.code(), "not_found");
    assert_eq!(house.ask("DELETE", &path, &Value::Null).await.code(), "not_found");
}

#[tokio::test]
async fn endpoints_come_in_pages_and_a_tenant_has_only_so_many() {
    let house = House::with(5).await;
    let mut made = Vec::new();
    for _ in 0..5 {
        made.push(house.create(&smallest()).await.0["id"].clone());
    }
    let refused = house.ask("POST", ENDPOINTS, &smallest()).await;
    assert_eq!(
        (refused.status.as_u16(), &*refused.code()),
        (429, "endpoints_exceeded")
    );
    let (mut found, mut uri) = (Vec::new(), format!("{ENDPOINTS}?limit=2"));
    loop {
        let page = house.get(&uri).await;
        let shown = page.json();
        let ids = shown["endpoints"].as_array().expect("a list").iter();
        found.extend(ids.map(|endpoint| endpoint["id"].clone()));
        let Some(link) = page.headers.get("link") else {
            assert_eq!(shown["next"], Value::Null);
            break;
        };
        let link = link.to_str().expect("text");
        uri = link
            .strip_prefix('<')
            .and_then(|link| link.split_once('>'))
            .expect("a link")
            .0
            .to_owned();
        assert!(link.ends_with("; rel=\"next\"") && uri.contains(shown["next"].as_str().expect("an id")));
    }
    assert_eq!(found, made);
    for (query, code) in [
        ("limit=0", "parameter_invalid"),
        ("limit=101", "parameter_invalid"),
        ("after=x", "parameter_invalid"),
        ("limit=1&limit=2", "parameter_invalid"),
        ("colour=red", "unknown_parameter"),
        ("token=x", "unknown_parameter"),
    ] {
        assert_eq!(
            house.get(&format!("{ENDPOINTS}?{query}")).await.code(),
            code,
            "{query}"
        );
    }
}

#[tokio::test]
async fn keys_are_rotated_and_it_is_told() {
    let house = House::new().await;
    let (_, path) = house.create(&smallest()).await;
    let rotate = format!("{path}/rotate");
    for body in [
        json!({"overlap_seconds": -1}),
        json!({"overlap_seconds": 604_801}),
        json!({"overlap_seconds": "1"}),
    ] {
        let refused = house.ask("POST", &rotate, &body).await;
        assert_eq!(
            (&*refused.code(), &refused.json()["pointer"]),
            ("field_invalid", &json!("/overlap_seconds"))
        );
    }
    assert_eq!(
        house.ask("POST", &rotate, &json!({"seconds": 1})).await.code(),
        "field_unknown"
    );
    for _ in 0..3 {
        let rotated = house.ask("POST", &rotate, &Value::Null).await;
        assert_eq!(rotated.status, StatusCode::OK);
    }
    let full = house.ask("POST", &rotate, &Value::Null).await;
    assert_eq!((full.status.as_u16(), &*full.code()), (409, "secrets_exceeded"));
    let at_once = house.ask("POST", &rotate, &json!({"overlap_seconds": 0})).await;
    assert_eq!(at_once.json()["secrets"], json!([{"signs_until": null}]));
    let told = house.told.lock().expect("no panic").clone();
    assert_eq!(told.len(), 4);
    assert!(
        path.ends_with(&told[0].0) && told[0].1 == "secret.rotated",
        "{told:?}"
    );
}

#[tokio::test]
async fn an_endpoint_is_paused_and_resumed_whatever_disabled_it() {
    let house = House::new().await;
    let (shown, path) = house.create(&smallest()).await;
    let paused = house
        .ask("POST", &format!("{path}/pause"), &Value::Null)
        .await
        .json();
    assert_eq!(
        (&paused["status"], &paused["enabled"]),
        (&json!("disabled"), &json!(false))
    );
    assert_eq!(paused["disabled"]["reason"], "by_hand");
    let resumed = house
        .ask("POST", &format!("{path}/resume"), &json!({}))
        .await
        .json();
    assert_eq!(
        (&resumed["status"], &resumed["enabled"]),
        (&json!("active"), &json!(true))
    );

    // It failed for five days: resumed, it is not disabled again by its next failure.
    let tenant = schemas::ids::TenantId::parse("north").expect("a tenant");
    let id = webhooks::delivery::EndpointId::parse(shown["id"].as_str().expect("an id")).expect("an id");
    let mut kept = house
        .store
        .endpoint(&tenant, &id)
        .await
        .expect("read")
        .expect("there");
    kept.endpoint.status = webhooks::endpoint::Status::Disabled {
        reason: webhooks::endpoint::Disabled::Failing,
        since_ms: 7,
    };
    house
        .store
        .update_endpoint(&kept.endpoint, kept.revision)
        .await
        .expect("kept");
    house
        .store
        .report_health(&id, Some(1), Some(i64::MAX))
        .await
        .expect("told");
    let harmless = house.patch(&path, "*", &json!({"description": "x"})).await.json();
    assert_eq!(harmless["disabled"]["reason"], "failing");
    let resumed = house
        .ask("POST", &format!("{path}/resume"), &Value::Null)
        .await
        .json();
    assert_eq!(resumed["status"], "active");
    let kept = house
        .store
        .endpoint(&tenant, &id)
        .await
        .expect("read")
        .expect("there");
    assert_eq!((kept.failing_since_ms, kept.open_until_ms), (None, None));
    assert_eq!(
        house
            .ask("POST", &format!("{path}/pause"), &json!({"x": 1}))
            .await
            .code(),
        "field_unknown"
    );
}

#[tokio::test]
async fn what_an_endpoint_is_owed_begins_where_the_logs_end_and_a_change_moves_none_of_it() {
    let house = House::new().await;
    house.observe("north", "1", "final");
    let scopes = format!("{ALL} system/Encounter.rs");
    let bearer = house.bearer("north", &scopes);
    let made = house
        .ask_as(&bearer, "POST", ENDPOINTS, &[], &smallest())
        .await
        .json();
    let tenant = schemas::ids::TenantId::parse("north").expect("a tenant");
    let id = webhooks::delivery::EndpointId::parse(made["id"].as_str().expect("an id")).expect("an id");
    let path = format!("{ENDPOINTS}/{id}");
    let start = async || {
        let kept = house
            .store
            .endpoint(&tenant, &id)
            .await
            .expect("read")
            .expect("there");
        let places = kept.endpoint.start.iter();
        places
            .map(|(topic, _, partition, offset)| (topic.to_string(), partition, offset))
            .collect::<Vec<_>>()
    };
    let observations = |first| {
        [
            (super::house::TOPIC.to_owned(), 0, first),
            (super::house::TOPIC.to_owned(), 1, 0),
        ]
    };
    assert_eq!(start().await, observations(1));
    house.observe("north", "1", "final");
    let patch = async |streams: Value| {
        let patch = json!({ "streams": streams });
        let answer = house
            .ask_as(&bearer, "PATCH", &path, &[("if-match", "*")], &patch)
            .await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    };
    patch(json!(["observations", "encounters"])).await;
    let both = start().await;
    assert_eq!((both.len(), &both[2..]), (4, &observations(1)[..]), "{both:?}");
    patch(json!(["encounters"])).await;
    assert_eq!(start().await.len(), 2);
    patch(json!(["encounters", "observations"])).await;
    assert_eq!(
        &start().await[2..],
        &observations(2)[..],
        "a stream that comes back begins now"
    );
}

//! What operators say over the operations listener, and what follows for those who read.

use http::StatusCode;
use serde_json::{Value, json};

use super::rig::{Answer, Rig, answer, request};

const JSON: (&str, &str) = ("content-type", "application/json");
const BATCH: (&str, &str) = ("accept", "application/cloudevents-batch+json");
const LOCAL: (&str, &str) = ("host", "127.0.0.1");
const OBSERVATIONS: &str = "/v1/streams/observations";

async fn admin(rig: &Rig, method: &str, path: &str, body: &Value) -> Answer {
    let text = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    answer(&rig.operations, request(method, path, &[LOCAL, JSON], &text)).await
}

#[tokio::test]
async fn whoever_is_revoked_is_refused_with_a_token_a_ticket_and_the_cookie_until_it_is_taken_back() {
    let rig = Rig::new();
    rig.complete().await;
    let bearer = rig.bearer();
    let auth = [("authorization", bearer.as_str()), JSON];
    let ticket = rig.post("/v1/tickets", &auth, "{}").await.json()["ticket"].clone();
    let ticket = format!("{OBSERVATIONS}?ticket={}", ticket.as_str().expect("a ticket"));
    let page = [auth[0], JSON, ("origin", super::rig::ORIGIN)];
    let cookie = rig.post("/v1/tickets", &page, r#"{"as":"cookie"}"#).await;
    let cookie = cookie.headers["set-cookie"]
        .to_str()
        .expect("a cookie")
        .to_owned();
    let cookie = cookie.split(';').next().expect("a pair").to_owned();
    let with_cookie = [("cookie", cookie.as_str()), ("origin", super::rig::ORIGIN)];

    let said = json!({"subject": "somebody", "tenant": "north", "reason": "left the house"});
    let made = admin(&rig, "POST", "/admin/revocations", &said).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    let id = made.json()["id"].as_str().expect("an id").to_owned();
    let again = admin(&rig, "POST", "/admin/revocations", &said).await;
    assert_eq!(
        (again.status, again.json()["id"].as_str()),
        (StatusCode::OK, Some(&*id))
    );

    let refused = rig.get(OBSERVATIONS, &auth[..1]).await;
    assert_eq!(
        (refused.status.as_u16(), refused.code()),
        (401, "token_revoked".to_owned())
    );
    assert_eq!(rig.get(&ticket, &[]).await.code(), "token_revoked");
    assert_eq!(rig.get(OBSERVATIONS, &with_cookie).await.code(), "token_revoked");
    assert_eq!(rig.post("/v1/tickets", &auth, "{}").await.code(), "token_revoked");
    let elsewhere = format!("Bearer {}", rig.token("south", "user/Observation.rs", ""));
    let other = rig.get(OBSERVATIONS, &[("authorization", &elsewhere)]).await;
    assert_eq!(other.status, StatusCode::OK, "the same subject of another tenant");

    let known = admin(&rig, "GET", "/admin/revocations", &Value::Null)
        .await
        .json();
    assert_eq!(known["revocations"].as_array().map(Vec::len), Some(1));
    assert_eq!(known["revocations"][0]["subject"], "somebody");
    let path = format!("/admin/revocations/{id}");
    assert_eq!(
        admin(&rig, "DELETE", &path, &Value::Null).await.status,
        StatusCode::NO_CONTENT
    );
    assert_eq!(
        admin(&rig, "DELETE", &path, &Value::Null).await.code(),
        "not_found"
    );
    assert_eq!(rig.get(OBSERVATIONS, &auth[..1]).await.status, StatusCode::OK);
    assert_eq!(rig.get(OBSERVATIONS, &with_cookie).await.status, StatusCode::OK);
}

#[tokio::test]
async fn withdrawn_consent_leaves_the_patients_rows_out_of_a_page() {
    let mut rig = Rig::new();
    rig.complete().await;
    let bearer = rig.bearer();
    let empty = rig.get(OBSERVATIONS, &[("authorization", &bearer), BATCH]).await;
    let link = empty.headers["link"].to_str().expect("a link").to_owned();
    let uri = link
        .trim_start_matches('<')
        .split('>')
        .next()
        .expect("a URL")
        .to_owned();
    rig.observe("1").await;
    rig.observe("2").await;
    let patients = async |rig: &Rig| {
        let page = rig
            .get(&format!("{uri}&wait=10"), &[("authorization", &bearer), BATCH])
            .await;
        page.json().as_array().map(Vec::len)
    };
    let said = json!({"tenant": "north", "attribute": "patient", "value": "https://x/Patient/1"});
    let made = admin(&rig, "POST", "/admin/denials", &said).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    assert!(!made.json()["id"].as_str().expect("an id").contains("Patient"));
    assert_eq!(patients(&rig).await, Some(1));
    let path = format!("/admin/denials/{}", made.json()["id"].as_str().expect("an id"));
    admin(&rig, "DELETE", &path, &Value::Null).await;
    assert_eq!(patients(&rig).await, Some(2));
}

#[tokio::test]
async fn bad_input_is_answered_by_its_code_and_changes_nothing() {
    let rig = Rig::new();
    for (method, path, body, code) in [
        ("POST", "/admin/revocations", json!({}), "field_invalid"),
        (
            "POST",
            "/admin/revocations",
            json!({"subject": 1}),
            "field_invalid",
        ),
        (
            "POST",
            "/admin/revocations",
            json!({"subject": "a", "until": "x"}),
            "field_unknown",
        ),
        ("POST", "/admin/revocations", json!([]), "body_invalid"),
        (
            "POST",
            "/admin/denials",
            json!({"tenant": "north"}),
            "field_invalid",
        ),
        ("DELETE", "/admin/revocations", Value::Null, "method_not_allowed"),
        ("DELETE", "/admin/denials/zz", Value::Null, "not_found"),
        ("DELETE", "/admin/denials/ab", Value::Null, "not_found"),
        ("PUT", "/admin/denials/ab", Value::Null, "method_not_allowed"),
        (
            "GET",
            "/admin/denials?before=ab",
            Value::Null,
            "unknown_parameter",
        ),
        (
            "GET",
            "/admin/denials?after=Patient",
            Value::Null,
            "parameter_invalid",
        ),
    ] {
        assert_eq!(
            admin(&rig, method, path, &body).await.code(),
            code,
            "{method} {path} {body}"
        );
    }
    let stranger = request(
        "POST",
        "/admin/revocations",
        &[("host", "evil.example"), JSON],
        "{}",
    );
    assert_eq!(answer(&rig.operations, stranger).await.code(), "host_forbidden");
    let known = admin(&rig, "GET", "/admin/denials", &Value::Null).await.json();
    assert_eq!(known, json!({"denials": [], "next": null}));
}

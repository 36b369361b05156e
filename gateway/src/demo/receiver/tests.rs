//! The receiver as a gateway, and as somebody who pretends to be one, meets it.

use axum::body::{Body, to_bytes};
use http::Method;
use schemas::ids::TenantId;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::*;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const BODY: &str = r#"{"specversion":"1.0","id":"e1","source":"/streams/observations","type":"tidewire.observations.changed","time":"2026-11-28T06:00:00.000Z","data":{"note":"of a patient"}}"#;

fn reception() -> Arc<Reception> {
    let reception = Arc::new(Reception::at(SocketAddr::from(([127, 0, 0, 1], 1))));
    let to = Destination {
        tenant: TenantId::parse("north").expect("a tenant"),
        content: "structured",
    };
    reception
        .know("north", to, &SecretString::from(SECRET))
        .expect("a secret");
    reception
}

fn now_s() -> i64 {
    Clock::System.now_ms() / 1000
}

/// A delivery that was signed with this secret so many seconds ago.
fn signed(secret: &str, id: &str, seconds_ago: i64) -> http::request::Builder {
    let timestamp = now_s() - seconds_ago;
    let webhook = Webhook::new(secret).expect("a secret");
    let signature = webhook.sign(id, timestamp, BODY.as_bytes()).expect("text");
    http::Request::post("/north")
        .header("webhook-id", id)
        .header("webhook-timestamp", timestamp.to_string())
        .header("webhook-signature", format!("v1a,AAAA {signature}"))
        .header("tidewire-attempt", "2")
}

async fn post(reception: &Arc<Reception>, request: http::request::Builder, body: &str) -> u16 {
    let request = request.body(Body::from(body.to_owned())).expect("a request");
    let answer = router(Arc::clone(reception)).oneshot(request).await;
    answer.expect("an answer").status().as_u16()
}

async fn ask(
    reception: &Arc<Reception>,
    method: Method,
    headers: &[(&str, &str)],
    body: &str,
) -> (u16, Value) {
    let mut request = http::Request::builder().method(method).uri("/demo/receiver");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::from(body.to_owned())).expect("a request");
    let answer = page::router(Arc::clone(reception)).oneshot(request).await;
    let answer = answer.expect("an answer");
    let status = answer.status().as_u16();
    let body = to_bytes(answer.into_body(), 1 << 20).await.expect("a body");
    (status, serde_json::from_slice(&body).expect("JSON"))
}

async fn shown(reception: &Arc<Reception>) -> Value {
    ask(reception, Method::GET, &[], "").await.1
}

#[tokio::test]
async fn what_is_signed_is_taken_once_and_counted_when_it_comes_again() {
    let reception = reception();
    for _ in 0..3 {
        assert_eq!(post(&reception, signed(SECRET, "msg_1", 0), BODY).await, 204);
    }
    let shown = shown(&reception).await;
    assert_eq!(
        shown["counts"],
        json!({"taken": 1, "repeated": 2, "failed": 0, "refused": 0})
    );
    let mut row = shown["deliveries"][0].clone();
    for time in ["at_ms", "took_ms"] {
        assert!(row[time].as_i64().is_some_and(|ms| ms > 0), "{row}");
        row[time] = Value::Null;
    }
    let wanted = json!({
        "tenant": "north", "content": "structured", "at_ms": null, "answer": 204, "verdict": "verified", "delivery": "msg_1",
        "event": "e1", "type": "tidewire.observations.changed", "attempt": 2, "took_ms": null, "repeated": 2,
    });
    assert_eq!(row, wanted);
    assert!(!shown.to_string().contains("of a patient"));
}

#[tokio::test]
async fn what_the_gateway_signs_the_public_library_verifies() {
    use ::webhooks::sign::{Held, Keys, Scheme, Secret};
    let secret = Secret::parse(&SecretString::from(SECRET)).expect("a secret");
    let keys = Keys {
        secrets: vec![Held {
            key: secret,
            until_ms: None,
        }],
        ..Keys::default()
    };
    let timestamp = now_s();
    let signature = keys.signature(
        &[Scheme::V1],
        "msg_1",
        timestamp,
        BODY.as_bytes(),
        timestamp * 1000,
    );
    let request = http::Request::post("/north")
        .header("webhook-id", "msg_1")
        .header("webhook-timestamp", timestamp.to_string())
        .header("webhook-signature", signature.expect("a signature"));
    assert_eq!(post(&reception(), request, BODY).await, 204);
}

#[tokio::test]
async fn what_is_forged_stale_or_not_signed_is_refused_and_nothing_of_it_is_believed() {
    let reception = reception();
    let foreign = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let with = |name: &str, value: &str| {
        let mut request = signed(SECRET, "msg_1", 0);
        let headers = request.headers_mut().expect("good so far");
        headers.insert(
            http::HeaderName::try_from(name).expect("a name"),
            value.parse().expect("a value"),
        );
        request
    };
    let without = |name: &str| {
        let mut request = signed(SECRET, "msg_1", 0);
        request.headers_mut().expect("good so far").remove(name);
        request
    };
    let table = [
        (signed(foreign, "msg_1", 0), BODY, "forged"),
        (signed(SECRET, "msg_1", 0), r#"{"id":"other"}"#, "forged"),
        (with("webhook-id", "msg_2"), BODY, "forged"),
        (with("webhook-signature", "v1,"), BODY, "forged"),
        (signed(SECRET, "msg_1", 302), BODY, "stale"),
        (signed(SECRET, "msg_1", -302), BODY, "stale"),
        (without("webhook-id"), BODY, "unsigned"),
        (without("webhook-timestamp"), BODY, "unsigned"),
        (without("webhook-signature"), BODY, "unsigned"),
        (with("webhook-timestamp", "yesterday"), BODY, "unsigned"),
        (
            with("webhook-timestamp", "-9223372036854775808"),
            BODY,
            "unsigned",
        ),
    ];
    let count = table.len();
    for (request, body, reason) in table {
        let headers = format!("{:?}", request.headers_ref());
        assert_eq!(post(&reception, request, body).await, 401, "{headers}");
        let shown = shown(&reception).await;
        let row = &shown["deliveries"][0];
        assert_eq!(
            (&row["verdict"], &row["reason"]),
            (&json!("refused"), &json!(reason)),
            "{headers}"
        );
        assert!(
            row.get("event").is_none() && row.get("delivery").is_none(),
            "{row}"
        );
    }
    let shown = shown(&reception).await;
    assert_eq!(
        (&shown["counts"]["refused"], &shown["counts"]["taken"]),
        (&json!(count), &json!(0))
    );
    // Almost too old is not.
    assert_eq!(post(&reception, signed(SECRET, "msg_1", 290), BODY).await, 204);
}

#[tokio::test]
async fn nobody_is_answered_at_a_path_whose_secret_is_not_known() {
    let reception = reception();
    let request = signed(SECRET, "msg_1", 0).uri("/south");
    assert_eq!(post(&reception, request, BODY).await, 404);
    assert_eq!(shown(&reception).await["deliveries"], json!([]));
}

#[tokio::test]
async fn while_it_is_switched_to_fail_it_answers_500_and_takes_what_comes_after() {
    let reception = reception();
    let own = ("origin", "http://127.0.0.1:8080");
    let common = [
        ("host", "127.0.0.1:8080"),
        ("content-type", "application/json"),
        own,
    ];
    let (status, shown_then) = ask(&reception, Method::POST, &common, r#"{"failing":true}"#).await;
    assert_eq!((status, &shown_then["failing"]), (200, &json!(true)));
    assert_eq!(post(&reception, signed(SECRET, "msg_1", 0), BODY).await, 500);
    let row = shown(&reception).await["deliveries"][0].clone();
    assert_eq!(
        (&row["verdict"], &row["answer"], &row["took_ms"]),
        (&json!("verified"), &json!(500), &Value::Null)
    );
    // What is not signed is refused then, too.
    assert_eq!(post(&reception, http::Request::post("/north"), BODY).await, 401);
    ask(&reception, Method::POST, &common, r#"{"failing":false}"#).await;
    assert_eq!(post(&reception, signed(SECRET, "msg_1", 0), BODY).await, 204);
    let counts = json!({"taken": 1, "repeated": 0, "failed": 1, "refused": 1});
    assert_eq!(shown(&reception).await["counts"], counts);
}

#[tokio::test]
async fn no_page_of_another_origin_reaches_the_switch() {
    let reception = reception();
    let json_body = ("content-type", "application/json");
    let foreign: [&[(&str, &str)]; 3] = [
        &[
            json_body,
            ("host", "127.0.0.1:8080"),
            ("origin", "https://evil.example"),
        ],
        &[json_body, ("sec-fetch-site", "cross-site")],
        &[("content-type", "text/plain")],
    ];
    for headers in foreign {
        let (status, _) = ask(&reception, Method::POST, headers, r#"{"failing":true}"#).await;
        assert!((400..500).contains(&status), "{headers:?}: {status}");
    }
    let (status, _) = ask(&reception, Method::POST, &[json_body], r#"{"failing":1}"#).await;
    assert_eq!(status, 400);
    assert_eq!(shown(&reception).await["failing"], false);
}

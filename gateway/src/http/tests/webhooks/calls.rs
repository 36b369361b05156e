//! What goes out because somebody asked: handshakes and tests, and the keys that signatures are verified with.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::house::{House, Receiver, with};

fn at(url: &str, more: &Value) -> Value {
    let mut body = with("url", json!(url));
    let members = body.as_object_mut().expect("an object");
    members.extend(more.as_object().expect("an object").clone());
    body
}

#[tokio::test]
async fn a_receiver_is_asked_before_it_is_called_and_its_rate_is_kept() {
    let house = House::new().await;
    let willing = Receiver::start(
        StatusCode::OK,
        &[
            ("webhook-allowed-origin", "gateway.example"),
            ("webhook-allowed-rate", "120"),
        ],
    )
    .await;
    let body = at(&willing.url, &json!({"handshake": true, "rate_per_second": 50}));
    let (shown, _) = house.create(&body).await;
    assert_eq!(
        (&shown["status"], &shown["rate_per_second"]),
        (&json!("active"), &json!(2))
    );
    let came = willing.came();
    assert_eq!(came.len(), 1);
    assert_eq!(came[0].method, Method::OPTIONS);
    assert_eq!(came[0].headers["webhook-request-origin"], "gateway.example");
    assert_eq!(came[0].headers["webhook-request-rate"], "3000");
}

#[tokio::test]
async fn without_consent_an_endpoint_stays_pending_and_is_sent_nothing() {
    let house = House::new().await;
    // A status alone is no consent.
    let silent = Receiver::start(StatusCode::OK, &[]).await;
    let (shown, path) = house.create(&at(&silent.url, &json!({"handshake": true}))).await;
    assert_eq!(shown["status"], "pending");
    assert!(shown["secret"].is_string());
    let test = house.ask("POST", &format!("{path}/test"), &Value::Null).await;
    assert_eq!((test.status.as_u16(), &*test.code()), (409, "endpoint_pending"));
    let asked = house
        .ask("POST", &format!("{path}/handshake"), &Value::Null)
        .await;
    assert_eq!(
        (asked.status, &asked.json()["outcome"]),
        (StatusCode::OK, &json!("refused"))
    );
    assert!(!asked.text.contains("firewall"));
    let soon = house
        .ask("POST", &format!("{path}/handshake"), &Value::Null)
        .await;
    assert_eq!((soon.status.as_u16(), &*soon.code()), (429, "rate_limited"));
    assert!(silent.came().iter().all(|came| came.method == Method::OPTIONS));
    // Switched off and on it is pending still; nothing but consent or no handshake makes it active.
    for below in ["pause", "resume"] {
        house.ask("POST", &format!("{path}/{below}"), &Value::Null).await;
    }
    assert_eq!(house.get(&path).await.json()["status"], "pending");
    let without = house.patch(&path, "*", &json!({"handshake": false})).await;
    assert_eq!(without.json()["status"], "active");
    let asked = house
        .ask("POST", &format!("{path}/handshake"), &Value::Null)
        .await;
    assert_eq!(
        (asked.status.as_u16(), &*asked.code()),
        (409, "handshake_not_pending")
    );
    let gone = house
        .create(&at("https://127.0.0.1:1/", &json!({"handshake": true})))
        .await;
    let asked = house
        .ask("POST", &format!("{}/handshake", gone.1), &Value::Null)
        .await
        .json();
    assert_eq!(
        (&asked["outcome"], &asked["status"]),
        (&json!("connect"), &Value::Null)
    );
}

#[tokio::test]
async fn a_test_is_signed_like_a_delivery_and_tells_nothing_of_the_answer_but_its_status() {
    let house = House::new().await;
    let receiver = Receiver::start(StatusCode::IM_A_TEAPOT, &[]).await;
    let body = at(
        &receiver.url,
        &json!({"content": "structured", "signing": ["v1", "rfc9421"], "headers": {"x-team": "a"}}),
    );
    let (shown, path) = house.create(&body).await;
    let test = format!("{path}/test");
    let result = house.ask("POST", &test, &json!({"stream": "observations"})).await;
    assert_eq!(result.status, StatusCode::OK, "{}", result.text);
    assert!(!result.text.contains("firewall"), "{}", result.text);
    let told = result.json();
    assert_eq!(
        (&told["outcome"], &told["status"]),
        (&json!("status"), &json!(418))
    );
    let came = receiver.came().pop().expect("a test");
    assert_eq!(
        came.headers["webhook-id"],
        told["delivery"].as_str().expect("an id")
    );
    assert_eq!(came.headers["x-team"], "a");
    let event: Value = serde_json::from_str(&came.body).expect("JSON");
    assert_eq!(
        (&event["type"], &event["data"]["test"]),
        (&json!("tidewire.test"), &json!(true))
    );
    // Verified by hand, as the standard says it.
    let secret = shown["secret"]
        .as_str()
        .and_then(|secret| secret.strip_prefix("whsec_"))
        .expect("a secret");
    let verified = {
        use base64::Engine as _;
        let base64 = base64::engine::general_purpose::STANDARD;
        let key = base64.decode(secret).expect("base64");
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &key);
        let text = |name: &str| came.headers[name].to_str().expect("text");
        let signed = format!(
            "{}.{}.{}",
            text("webhook-id"),
            text("webhook-timestamp"),
            came.body
        );
        let tag = aws_lc_rs::hmac::sign(&key, signed.as_bytes());
        text("webhook-signature") == format!("v1,{}", base64.encode(tag.as_ref()))
    };
    assert!(verified);
    // Every header that is set stands in the documents, and no key id is unknown.
    let keys = house.rig.get("/.well-known/webhook-keys.json", &[]).await;
    assert_eq!(keys.headers["content-type"], "application/jwk-set+json");
    assert_eq!(keys.headers["cache-control"], "public, max-age=300");
    let kid = keys.json()["keys"][0]["kid"]
        .as_str()
        .expect("a key id")
        .to_owned();
    assert!(
        came.headers["signature-input"]
            .to_str()
            .expect("text")
            .contains(&kid)
    );
    let described = schemas::docs::openapi::DELIVERY_HEADERS;
    for name in came.headers.keys() {
        let of_connection = [
            "host",
            "accept",
            "content-length",
            "content-type",
            "user-agent",
            "x-team",
        ];
        let is_known = described.iter().any(|header| *name == header.name);
        assert!(is_known || of_connection.contains(&name.as_str()), "{name}");
    }

    let soon = house.ask("POST", &test, &Value::Null).await;
    assert_eq!((soon.status.as_u16(), &*soon.code()), (429, "rate_limited"));
    let refused = house.ask("POST", &test, &json!({"stream": "patients"})).await;
    assert_eq!(
        (&*refused.code(), &refused.json()["pointer"]),
        ("stream_forbidden", &json!("/stream"))
    );
    assert_eq!(
        house.ask("POST", &test, &json!({"stream": 7})).await.code(),
        "field_invalid"
    );
    // Tests are no deliveries: the log and the figures are of those.
    assert_eq!(
        house.get("/v1/webhooks/deliveries").await.json()["attempts"],
        json!([])
    );
}

#[tokio::test]
async fn the_guard_stands_before_tests_and_handshakes_too() {
    let house = House::new().await;
    for url in [
        "https://10.0.0.1/",
        "https://[fd00::1]/",
        "https://0x0a000001/",
        "https://169.254.169.254/latest",
    ] {
        let refused = house
            .ask("POST", super::house::ENDPOINTS, &with("url", json!(url)))
            .await;
        assert_eq!(refused.code(), "url_forbidden", "{url}");
    }
    // A name is looked at when it is connected to.
    let (_, path) = house.create(&at("https://nothing.invalid/", &json!({}))).await;
    let told = house
        .ask("POST", &format!("{path}/test"), &Value::Null)
        .await
        .json();
    assert_eq!((&told["outcome"], &told["status"]), (&json!("dns"), &Value::Null));
    let redirecting = Receiver::start(StatusCode::FOUND, &[("location", "http://127.0.0.1:1/")]).await;
    let (_, path) = house.create(&at(&redirecting.url, &json!({}))).await;
    let told = house
        .ask("POST", &format!("{path}/test"), &Value::Null)
        .await
        .json();
    assert_eq!(
        (&told["outcome"], &told["status"]),
        (&json!("status"), &json!(302))
    );
    assert_eq!(redirecting.came().len(), 1);
}

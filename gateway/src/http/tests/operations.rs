//! The operations listener: readiness, metrics, and who may ask.

use http::StatusCode;
use serde_json::json;

use super::rig::{OPERATIONS_TOKEN, Rig, Unusual, answer, request};

#[tokio::test]
async fn readiness_says_what_is_missing() {
    let rig = Rig::new();
    let local = [("host", "localhost")];
    let asked =
        |path: &'static str| async { answer(&rig.operations, request("GET", path, &local, "")).await };
    assert_eq!(asked("/healthz").await.status, StatusCode::OK);
    let not_yet = asked("/readyz").await;
    assert_eq!(not_yet.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(not_yet.json()["streams"][0]["complete"], false);
    rig.complete().await;
    let ready = asked("/readyz").await;
    assert_eq!(
        (ready.status, &ready.json()["ready"]),
        (StatusCode::OK, &json!(true))
    );
    assert_eq!(asked("/admin/sessions").await.json(), json!({"sessions": []}));
    rig.drain.cancel();
    assert_eq!(asked("/readyz").await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(asked("/admin").await.code(), "not_found");
}

#[tokio::test]
async fn the_metrics_count_routes_and_codes_without_names() {
    let rig = Rig::new();
    rig.get("/v1/streams/observations?patient=Patient/secret", &[])
        .await;
    let metrics = answer(
        &rig.operations,
        request("GET", "/metrics", &[("host", "127.0.0.1:9090")], ""),
    )
    .await;
    assert!(
        metrics.headers["content-type"]
            .to_str()
            .expect("type")
            .starts_with("application/openmetrics-text")
    );
    assert!(metrics.text.ends_with("# EOF\n"));
    let line = "http_requests_total{route=\"/v1/streams/{stream}\",method=\"GET\",status=\"401\"} 1";
    assert!(metrics.text.contains(line), "{}", metrics.text);
    assert!(
        metrics
            .text
            .contains("http_refused_total{code=\"unauthenticated\"} 1"),
        "{}",
        metrics.text
    );
    assert!(!metrics.text.contains("secret"));
}

#[tokio::test]
async fn operations_ask_for_their_token_where_they_have_one() {
    let rig = Rig::with(Unusual {
        operations_token: Some(OPERATIONS_TOKEN),
        ..Unusual::default()
    });
    let asked = |path: &'static str, bearer: &'static str| {
        let router = rig.operations.clone();
        async move {
            let headers = [("host", "gateway.example"), ("authorization", bearer)];
            let headers = if bearer.is_empty() {
                &headers[..1]
            } else {
                &headers[..]
            };
            answer(&router, request("GET", path, headers, "")).await
        }
    };
    for path in ["/metrics", "/admin/sessions"] {
        assert_eq!(asked(path, "").await.code(), "unauthenticated");
        assert_eq!(asked(path, "Bearer wrong").await.code(), "token_invalid");
        assert_eq!(
            asked(path, "Bearer operations-token").await.status,
            StatusCode::OK
        );
    }
    assert_eq!(asked("/healthz", "").await.status, StatusCode::OK);
    assert_eq!(
        asked("/readyz", "").await.json(),
        json!({"ready": false, "draining": false})
    );
    assert!(asked("/readyz", "Bearer operations-token").await.json()["streams"].is_array());
}

#[tokio::test]
async fn operations_without_a_token_answer_to_this_machine_only() {
    let rig = Rig::new();
    for path in ["/metrics", "/admin/sessions"] {
        let refused = answer(
            &rig.operations,
            request("GET", path, &[("host", "evil.example")], ""),
        )
        .await;
        assert_eq!(refused.code(), "host_forbidden");
    }
}

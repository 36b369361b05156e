//! Requests against the routers: who is let in, what is answered, and in which order refusals come.

use axum::Router;
use axum::routing::get;
use http::StatusCode;
use schemas::problem::Code;
use serde_json::json;

use super::rig::{BATCH, JSON, Rig, Unusual, request};
use crate::http::{HttpLimits, Page};

const SSE: (&str, &str) = ("accept", "text/event-stream");

#[tokio::test]
async fn unknown_paths_and_methods_are_problems() {
    let rig = Rig::new();
    let unknown = rig.get("/v2/streams", &[]).await;
    assert_eq!(
        (unknown.status, unknown.code()),
        (StatusCode::NOT_FOUND, "not_found".to_owned())
    );
    for (uri, allow) in [
        ("/v1/streams", "GET, HEAD"),
        ("/v1/streams/observations", "GET, HEAD, POST"),
        ("/v1/tickets", "POST"),
        ("/v1/ws", "GET"),
    ] {
        let refused = rig.ask(request("DELETE", uri, &[], "")).await;
        assert_eq!(refused.code(), "method_not_allowed", "{uri}");
        assert_eq!(refused.headers["allow"], allow, "{uri}");
    }
}

#[tokio::test]
async fn without_credentials_nothing_is_said() {
    let rig = Rig::new();
    for uri in ["/v1/streams", "/v1/streams/observations", "/v1/streams/nothing"] {
        let refused = rig.get(uri, &[]).await;
        assert_eq!(
            (refused.status, refused.code()),
            (StatusCode::UNAUTHORIZED, "unauthenticated".to_owned())
        );
        assert_eq!(refused.headers["www-authenticate"], "Bearer realm=\"tidewire\"");
    }
    let bad = rig.get("/v1/streams", &[("authorization", "Bearer a.b.c")]).await;
    assert_eq!(bad.code(), "token_invalid");
    assert_eq!(
        bad.headers["www-authenticate"],
        "Bearer realm=\"tidewire\", error=\"invalid_token\""
    );
}

#[tokio::test]
async fn an_unknown_stream_and_a_forbidden_one_look_the_same() {
    let rig = Rig::new();
    let bearer = rig.bearer();
    let unknown = rig
        .get("/v1/streams/nothing?x=1", &[("authorization", &bearer)])
        .await;
    let forbidden = rig
        .get("/v1/streams/patients?x=1", &[("authorization", &bearer)])
        .await;
    assert_eq!(unknown.code(), "stream_forbidden");
    assert_eq!(unknown.status, forbidden.status);
    assert_eq!(unknown.text, forbidden.text);
    let no_text = rig.get("/v1/streams/%FF", &[("authorization", &bearer)]).await;
    assert_eq!(no_text.text, unknown.text);
    assert_eq!(rig.get("/v1/streams/%FF", &[]).await.code(), "unauthenticated");
}

#[tokio::test]
async fn parameters_that_are_not_known_are_refused() {
    let rig = Rig::new();
    rig.complete().await;
    let bearer = rig.bearer();
    for (query, code) in [
        ("colour=red", "unknown_parameter"),
        ("patient=", "filter_invalid"),
        ("status=final&status=amended", "filter_invalid"),
        ("snapshot=true", "unsupported"),
        ("rate=5", "unsupported"),
        ("overflow=conflate", "unsupported"),
        ("token=abc", "unknown_parameter"),
        ("access_token=abc", "unknown_parameter"),
        ("after=nonsense", "cursor_invalid"),
        ("after=a&after=b", "parameter_invalid"),
        ("limit=0", "parameter_invalid"),
        ("wait=3600", "parameter_invalid"),
    ] {
        let refused = rig
            .get(
                &format!("/v1/streams/observations?{query}"),
                &[("authorization", &bearer), BATCH],
            )
            .await;
        assert_eq!(refused.code(), code, "{query}");
    }
    let refused = rig
        .get(
            "/v1/streams/observations?limit=5",
            &[("authorization", &bearer), SSE],
        )
        .await;
    assert_eq!(refused.code(), "parameter_invalid");
    let refused = rig.get("/v1/streams?x=1", &[("authorization", &bearer)]).await;
    assert_eq!(refused.code(), "unknown_parameter");
}

#[tokio::test]
async fn what_is_not_offered_is_406() {
    let rig = Rig::new();
    let bearer = rig.bearer();
    let refused = rig
        .get(
            "/v1/streams/observations",
            &[("authorization", &bearer), ("accept", "application/xml")],
        )
        .await;
    assert_eq!(
        (refused.status, refused.code()),
        (StatusCode::NOT_ACCEPTABLE, "not_acceptable".to_owned())
    );
    let refused = rig
        .post(
            "/v1/streams/observations",
            &[("authorization", &bearer), BATCH, JSON],
            "{}",
        )
        .await;
    assert_eq!(refused.code(), "not_acceptable");
}

#[tokio::test]
async fn a_page_has_the_events_their_cursors_and_the_way_on() {
    let mut rig = Rig::new();
    rig.complete().await;
    let bearer = rig.bearer();
    let empty = rig
        .get(
            "/v1/streams/observations?status=final",
            &[("authorization", &bearer), BATCH],
        )
        .await;
    assert_eq!((empty.status, &*empty.text), (StatusCode::OK, "[]"));
    let link = empty.headers["link"].to_str().expect("link");
    let next = link
        .strip_prefix('<')
        .and_then(|rest| rest.split_once('>'))
        .expect("a link")
        .0
        .to_owned();
    assert!(
        link.ends_with("rel=\"next\"") && next.contains("status=final"),
        "{link}"
    );

    rig.observe("1").await;
    let page = rig
        .get(&format!("{next}&wait=10"), &[("authorization", &bearer), BATCH])
        .await;
    assert_eq!(page.headers["content-type"], "application/cloudevents-batch+json");
    assert_eq!(page.headers["cache-control"], "no-store");
    let events = page.json();
    assert_eq!(events[0]["subject"], "Observation/o0", "{events}");
    let cursor = events[0]["cursor"].as_str().expect("a cursor");
    let after = format!("/v1/streams/observations?after={cursor}");
    let rest = rig.get(&after, &[("authorization", &bearer), BATCH]).await;
    assert_eq!(
        (rest.status, &*rest.text),
        (StatusCode::OK, "[]"),
        "an event's cursor is after it"
    );
    // Another sealing of the same events is the same representation.
    let tag = page.headers["etag"].to_str().expect("tag");
    let again = rig
        .get(
            &next,
            &[("authorization", &bearer), BATCH, ("if-none-match", tag)],
        )
        .await;
    assert_eq!((again.status, &*again.text), (StatusCode::NOT_MODIFIED, ""));
    assert!(again.headers.contains_key("link"));
    let json = rig
        .get(
            &next,
            &[("authorization", &bearer), ("accept", "application/json")],
        )
        .await;
    assert_eq!(json.headers["content-type"], "application/json");
}

#[tokio::test]
async fn another_tenants_cursor_is_refused_as_foreign() {
    let rig = Rig::new();
    rig.complete().await;
    let page = rig
        .get(
            "/v1/streams/observations",
            &[("authorization", &rig.bearer()), BATCH],
        )
        .await;
    let cursor = page.headers["tidewire-cursor"].to_str().expect("cursor");
    let other = format!("Bearer {}", rig.token("south", "user/Observation.rs", ""));
    let refused = rig
        .get(
            &format!("/v1/streams/observations?after={cursor}"),
            &[("authorization", &other), BATCH],
        )
        .await;
    assert_eq!(refused.code(), "cursor_foreign");
}

#[tokio::test]
async fn last_event_id_beats_after() {
    let rig = Rig::new();
    rig.complete().await;
    let bearer = rig.bearer();
    let headers = [("authorization", &*bearer), SSE, ("last-event-id", "nonsense")];
    let refused = rig.get("/v1/streams/observations?after=latest", &headers).await;
    assert_eq!(refused.code(), "cursor_invalid");
}

#[tokio::test]
async fn a_post_takes_its_filter_from_the_body() {
    let rig = Rig::new();
    rig.complete().await;
    let bearer = rig.bearer();
    let headers = [("authorization", &*bearer), SSE, JSON];
    for (body, code) in [
        ("", "body_invalid"),
        ("[]", "body_invalid"),
        ("{", "body_invalid"),
        (r#"{"where":{"colour":"red"}}"#, "unknown_parameter"),
        (r#"{"after":7}"#, "body_invalid"),
        (r#"{"after":"nonsense"}"#, "cursor_invalid"),
        (r#"{"snapshot":true}"#, "unsupported"),
        (r#"{"rate":5}"#, "unsupported"),
        (r#"{"overflow":"drop_oldest"}"#, "unsupported"),
        (r#"{"patient":"Patient/1"}"#, "unknown_parameter"),
    ] {
        let refused = rig.post("/v1/streams/observations", &headers, body).await;
        assert_eq!(refused.code(), code, "{body}");
    }
    let text = [("authorization", &*bearer), SSE, ("content-type", "text/plain")];
    assert_eq!(
        rig.post("/v1/streams/observations", &text, "{}").await.code(),
        "unsupported_media_type"
    );
    assert_eq!(
        rig.post("/v1/streams/observations?patient=1", &headers, "{}")
            .await
            .code(),
        "unknown_parameter"
    );
}

#[tokio::test]
async fn a_large_body_is_refused() {
    let limits = HttpLimits {
        body_bytes_max: 100,
        ..HttpLimits::default()
    };
    let rig = Rig::with(Unusual {
        limits,
        ..Unusual::default()
    });
    let bearer = rig.bearer();
    let body = format!(r#"{{"after":"{}"}}"#, "x".repeat(200));
    let refused = rig
        .post(
            "/v1/streams/observations",
            &[("authorization", &bearer), SSE, JSON],
            &body,
        )
        .await;
    assert_eq!(
        (refused.status, refused.code()),
        (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large".to_owned())
    );
}

#[tokio::test]
async fn the_catalogue_names_what_is_granted_and_nothing_else() {
    let rig = Rig::new();
    rig.complete().await;
    let bearer = format!(
        "Bearer {}",
        rig.token("north", "patient/Observation.rs user/Encounter.rs", "1")
    );
    let listed = rig.get("/v1/streams", &[("authorization", &bearer)]).await.json();
    let names: Vec<_> = listed["streams"]
        .as_array()
        .expect("streams")
        .iter()
        .map(|stream| &stream["name"])
        .collect();
    assert_eq!(names, ["encounters", "observations"]);
    let observations = &listed["streams"][1];
    assert!(
        observations["attributes"]
            .as_array()
            .expect("attributes")
            .contains(&json!({"name": "patient", "reference": true}))
    );
    assert_eq!(observations["urls"]["events"], "/v1/streams/observations");
    assert_eq!(observations["complete"], true);
}

#[tokio::test]
async fn a_principal_has_a_bounded_number_of_sessions() {
    let rig = Rig::with(Unusual {
        principal_max: Some(0),
        ..Unusual::default()
    });
    let bearer = rig.bearer();
    for accept in [SSE, BATCH] {
        let refused = rig
            .get("/v1/streams/observations", &[("authorization", &bearer), accept])
            .await;
        assert_eq!(refused.code(), "principal_connections_exceeded");
        assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
        assert!(refused.headers.contains_key("retry-after"));
    }
}

#[tokio::test]
async fn a_draining_node_refuses_new_sessions_before_anything_else() {
    let rig = Rig::new();
    rig.drain.cancel();
    for uri in ["/v1/streams/observations", "/v1/ws"] {
        let refused = rig.get(uri, &[]).await;
        assert_eq!(
            (refused.status, refused.code()),
            (StatusCode::SERVICE_UNAVAILABLE, "draining".to_owned())
        );
        assert_eq!(refused.headers["retry-after"], "1");
    }
}

#[tokio::test]
async fn a_long_poll_ends_when_the_node_drains() {
    let rig = Rig::new();
    rig.complete().await;
    let bearer = rig.bearer();
    let headers = [("authorization", &*bearer), BATCH];
    let poll = rig.get("/v1/streams/observations?wait=60", &headers);
    // The poll is under way when it is first suspended: it waits for the engine.
    let drain = async { rig.drain.cancel() };
    let (refused, ()) = tokio::join!(poll, drain);
    assert_eq!(refused.code(), "draining");
}

fn rig_with_page(endpoints: Router) -> Rig {
    Rig::with(Unusual {
        page: Some(Page {
            endpoints,
            hosts: Vec::new(),
        }),
        ..Unusual::default()
    })
}

#[tokio::test]
async fn the_page_may_load_only_what_is_ours() {
    let rig = rig_with_page(Router::new());
    let local = [("host", "127.0.0.1:8080")];
    for path in [
        "/",
        "/app.js",
        "/tidewire.js",
        "/fhir.js",
        "/webhooks.js",
        "/style.css",
        "/favicon.svg",
    ] {
        let file = rig.get(path, &local).await;
        assert_eq!(file.status, StatusCode::OK, "{path}");
        assert!(!file.text.is_empty(), "{path}");
        let policy = file.headers["content-security-policy"].to_str().expect("policy");
        assert!(
            policy.starts_with("default-src 'none'; script-src 'self'; "),
            "{policy}"
        );
        assert!(
            policy.contains("connect-src 'self' ws://127.0.0.1:8080 "),
            "{policy}"
        );
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(file.headers["x-content-type-options"], "nosniff");
        assert!(
            !file.text.contains("innerHTML") && !file.text.contains("//cdn"),
            "{path}"
        );
    }
    assert_eq!(
        rig.ask(request("POST", "/", &local, "")).await.code(),
        "method_not_allowed"
    );
}

#[tokio::test]
async fn a_name_that_was_pointed_at_the_demo_is_refused() {
    let rig = rig_with_page(Router::new().route("/demo/readers", get(|| async { "readers" })));
    for path in ["/", "/demo/readers", "/v1/streams", "/nothing"] {
        let refused = rig.get(path, &[("host", "evil.example")]).await;
        assert_eq!(refused.code(), "host_forbidden", "{path}");
    }
    assert_eq!(
        rig.get("/demo/readers", &[("host", "localhost:8080")]).await.text,
        "readers"
    );
    let preflight = [
        ("access-control-request-method", "POST"),
        ("origin", "http://evil.example"),
        ("host", "evil.example"),
    ];
    assert_eq!(
        rig.ask(request("OPTIONS", "/demo/readers", &preflight, ""))
            .await
            .code(),
        "host_forbidden"
    );
}

#[tokio::test]
async fn a_panic_is_an_answer_without_our_insides() {
    async fn panics() -> &'static str {
        panic!("secret detail")
    }
    let rig = rig_with_page(Router::new().route("/demo/readers", get(panics)));
    let answered = rig.get("/demo/readers", &[("host", "localhost")]).await;
    assert_eq!(answered.code(), Code::INTERNAL.name);
    assert!(!answered.text.contains("secret"), "{}", answered.text);
}

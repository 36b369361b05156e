//! Requests against the routers: who is let in, what is answered, and in which order refusals come.

use axum::Router;
use axum::routing::get;
use http::StatusCode;
use schemas::problem::Code;
use serde_json::json;

use super::rig::{OPERATIONS_TOKEN, ORIGIN, Rig, Unusual, answer, request};
use crate::http::{HttpLimits, Page};

const SSE: (&str, &str) = ("accept", "text/event-stream");
const BATCH: (&str, &str) = ("accept", "application/cloudevents-batch+json");
const JSON: (&str, &str) = ("content-type", "application/json");

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
async fn a_ticket_opens_once_what_it_was_issued_for() {
    let rig = Rig::new();
    rig.complete().await;
    let bearer = rig.bearer();
    let issue = |body: &'static str| {
        let rig = &rig;
        let bearer = bearer.clone();
        async move {
            rig.post("/v1/tickets", &[("authorization", &bearer), JSON], body)
                .await
        }
    };
    let issued = issue(r#"{"stream":"observations","where":{"patient":"Patient/1"}}"#).await;
    assert_eq!(issued.status, StatusCode::CREATED);
    let ticket = issued.json()["ticket"].as_str().expect("a ticket").to_owned();
    let uri = format!("/v1/streams/observations?ticket={ticket}");
    let first = rig.get(&uri, &[BATCH]).await;
    assert_eq!(first.status, StatusCode::OK, "{}", first.text);
    assert!(!first.headers["link"].to_str().expect("link").contains("ticket"));
    let second = rig.get(&uri, &[BATCH]).await;
    assert_eq!(
        (second.status, second.code()),
        (StatusCode::UNAUTHORIZED, "ticket_invalid".to_owned())
    );

    let other = issue(r#"{"stream":"observations"}"#).await.json()["ticket"]
        .as_str()
        .expect("a ticket")
        .to_owned();
    assert_eq!(
        rig.get(&format!("/v1/streams/encounters?ticket={other}"), &[BATCH])
            .await
            .code(),
        "stream_forbidden"
    );

    assert_eq!(issue(r#"{"stream":"patients"}"#).await.code(), "stream_forbidden");
    assert_eq!(
        issue(r#"{"where":{"patient":"Patient/1"}}"#).await.code(),
        "body_invalid"
    );
    assert_eq!(
        issue(r#"{"stream":"observations","where":{"colour":"red"}}"#)
            .await
            .code(),
        "unknown_parameter"
    );
    assert_eq!(issue(r#"{"as":"header"}"#).await.code(), "body_invalid");
    assert_eq!(
        rig.post("/v1/tickets", &[JSON], "{}").await.code(),
        "unauthenticated"
    );
}

#[tokio::test]
async fn a_tickets_filter_and_the_readers_are_one_or_are_refused() {
    let rig = Rig::new();
    rig.complete().await;
    let bearer = rig.bearer();
    for (asked, code) in [("B,C", Some("filter_invalid")), ("B", None)] {
        let body = r#"{"stream":"observations","where":{"code":["A","B"]}}"#;
        let issued = rig
            .post("/v1/tickets", &[("authorization", &bearer), JSON], body)
            .await;
        let issued = issued.json();
        let ticket = issued["ticket"].as_str().expect("a ticket");
        let uri = format!("/v1/streams/observations?ticket={ticket}&code={asked}");
        let page = rig.get(&uri, &[BATCH]).await;
        match code {
            None => assert_eq!(page.status, StatusCode::OK, "{}", page.text),
            Some(code) => assert_eq!(page.code(), code),
        }
    }
}

#[tokio::test]
async fn a_ticket_stays_with_the_page_that_it_was_issued_to() {
    let rig = Rig::new();
    rig.complete().await;
    let bearer = rig.bearer();
    let issue = || async {
        let headers = [("authorization", &*bearer), JSON, ("origin", ORIGIN)];
        let issued = rig.post("/v1/tickets", &headers, "{}").await;
        format!(
            "/v1/streams/observations?ticket={}",
            issued.json()["ticket"].as_str().expect("a ticket")
        )
    };
    let elsewhere = rig.get(&issue().await, &[BATCH]).await;
    assert_eq!(elsewhere.code(), "ticket_invalid");
    let same = rig.get(&issue().await, &[BATCH, ("origin", ORIGIN)]).await;
    assert_eq!(same.status, StatusCode::OK);
    // A browser leaves Origin out of a GET to the page's own origin.
    let own = [BATCH, ("host", "app.example"), ("sec-fetch-site", "same-origin")];
    assert_eq!(rig.get(&issue().await, &own).await.status, StatusCode::OK);
    let foreign = [
        ("authorization", &*bearer),
        JSON,
        ("origin", "https://evil.example"),
    ];
    assert_eq!(
        rig.post("/v1/tickets", &foreign, "{}").await.code(),
        "origin_forbidden"
    );
}

#[tokio::test]
async fn the_cookie_counts_only_from_a_page_of_ours() {
    let rig = Rig::new();
    rig.complete().await;
    let issued = rig
        .post(
            "/v1/tickets",
            &[("authorization", &rig.bearer()), JSON],
            r#"{"as":"cookie"}"#,
        )
        .await;
    let set = issued.headers["set-cookie"].to_str().expect("cookie").to_owned();
    let many: String = (0..400).map(|place| format!(" user/Kind{place}.rs")).collect();
    let wordy = format!("Bearer {}", rig.token("north", &many, ""));
    let refused = rig
        .post(
            "/v1/tickets",
            &[("authorization", &wordy), JSON],
            r#"{"as":"cookie"}"#,
        )
        .await;
    assert_eq!(refused.code(), "token_invalid", "a browser would drop it");
    for attribute in [
        "__Host-tidewire=",
        "; Path=/",
        "; Secure",
        "; HttpOnly",
        "; SameSite=Strict",
        "; Max-Age=",
    ] {
        assert!(set.contains(attribute), "{set}");
    }
    let cookie = set.split(';').next().expect("a pair");
    let page = "/v1/streams/observations";
    for _ in 0..2 {
        let ours = rig
            .get(page, &[BATCH, ("cookie", cookie), ("origin", ORIGIN)])
            .await;
        assert_eq!(ours.status, StatusCode::OK, "{}", ours.text);
    }
    for headers in [
        [("cookie", cookie), ("accept", "*/*"), ("x-nothing", "")],
        [
            ("cookie", cookie),
            ("origin", "https://evil.example"),
            ("x-nothing", ""),
        ],
        [("cookie", cookie), ("origin", "null"), ("x-nothing", "")],
        [
            ("cookie", cookie),
            ("sec-fetch-site", "cross-site"),
            ("host", "app.example"),
        ],
    ] {
        assert_eq!(
            rig.get(page, &headers).await.code(),
            "origin_forbidden",
            "{headers:?}"
        );
    }
    let again = rig
        .post(
            "/v1/tickets",
            &[("cookie", cookie), ("origin", ORIGIN), JSON],
            "{}",
        )
        .await;
    assert_eq!(again.code(), "unauthenticated", "a cookie does not buy tickets");
}

#[tokio::test]
async fn only_listed_origins_may_read_answers() {
    let rig = Rig::new();
    let preflight = [("access-control-request-method", "POST"), ("origin", ORIGIN)];
    let allowed = rig
        .ask(request("OPTIONS", "/v1/streams/observations", &preflight, ""))
        .await;
    assert_eq!(allowed.status, StatusCode::NO_CONTENT);
    assert_eq!(allowed.headers["access-control-allow-origin"], ORIGIN);
    assert_eq!(allowed.headers["access-control-allow-credentials"], "true");
    assert!(
        allowed.headers["access-control-allow-headers"]
            .to_str()
            .expect("text")
            .contains("Authorization")
    );
    for foreign in ["https://evil.example", "null"] {
        let headers = [("access-control-request-method", "POST"), ("origin", foreign)];
        let refused = rig
            .ask(request("OPTIONS", "/v1/streams/observations", &headers, ""))
            .await;
        assert_eq!(refused.code(), "origin_forbidden");
        assert!(!refused.headers.contains_key("access-control-allow-origin"));
    }
    let refused = rig.get("/v1/streams", &[("origin", ORIGIN)]).await;
    assert_eq!(refused.code(), "unauthenticated");
    assert_eq!(
        refused.headers["access-control-allow-origin"], ORIGIN,
        "a page may read refusals"
    );
    let exposed = refused.headers["access-control-expose-headers"]
        .to_str()
        .expect("text");
    for name in [
        "Link",
        "ETag",
        "Retry-After",
        "Location",
        "Tidewire-Cursor",
        "Tidewire-Gap",
        "Tidewire-Replay",
    ] {
        assert!(exposed.contains(name), "{name}");
    }
    let foreign = rig
        .get("/v1/streams", &[("origin", "https://evil.example")])
        .await;
    assert!(!foreign.headers.contains_key("access-control-allow-origin"));
    assert!(
        foreign
            .headers
            .get_all("vary")
            .iter()
            .any(|vary| vary == "Origin")
    );
}

const HANDSHAKE: [(&str, &str); 5] = [
    ("connection", "Upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("sec-websocket-protocol", "tidewire.v1"),
];

#[tokio::test]
async fn a_websocket_needs_a_page_of_ours_or_credentials() {
    let rig = Rig::new();
    let bearer = rig.bearer();
    let asked = |more: Vec<(&'static str, String)>| {
        let more: Vec<_> = more;
        let rig = &rig;
        async move {
            let mut headers = HANDSHAKE.to_vec();
            headers.extend(more.iter().map(|(name, value)| (*name, value.as_str())));
            rig.get("/v1/ws", &headers).await
        }
    };
    assert_eq!(asked(vec![]).await.code(), "unauthenticated");
    assert_eq!(
        asked(vec![("origin", "null".into())]).await.code(),
        "origin_forbidden"
    );
    assert_eq!(
        asked(vec![("origin", "https://evil.example".into())])
            .await
            .code(),
        "origin_forbidden"
    );
    let foreign = vec![
        ("origin", "https://evil.example".into()),
        ("authorization", bearer.clone()),
    ];
    assert_eq!(asked(foreign).await.code(), "origin_forbidden");
    assert_eq!(
        asked(vec![("authorization", "Bearer a.b.c".into())]).await.code(),
        "token_invalid"
    );
    let upgraded = asked(vec![("authorization", bearer)]).await;
    assert_eq!(upgraded.status, StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(
        upgraded.headers["sec-websocket-accept"],
        "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    );
    assert_eq!(upgraded.headers["sec-websocket-protocol"], "tidewire.v1");
    assert_eq!(
        asked(vec![("origin", ORIGIN.into())]).await.status,
        StatusCode::SWITCHING_PROTOCOLS
    );
    assert_eq!(rig.get("/v1/ws", &[]).await.code(), "upgrade_required");
    let mut head = HANDSHAKE.to_vec();
    head.push(("origin", ORIGIN));
    let refused = rig.ask(request("HEAD", "/v1/ws", &head, "")).await;
    assert_eq!(refused.status, StatusCode::METHOD_NOT_ALLOWED);
    // A ticket stands in for the header where a page cannot set one, and nowhere else.
    let bought = rig
        .post(
            "/v1/tickets",
            &[
                ("authorization", &rig.bearer()),
                ("content-type", "application/json"),
            ],
            "{}",
        )
        .await
        .json();
    let with_ticket = format!("/v1/ws?ticket={}", bought["ticket"].as_str().expect("a ticket"));
    assert_eq!(rig.get(&with_ticket, &HANDSHAKE).await.code(), "unauthenticated");
    let mut wrong = HANDSHAKE.to_vec();
    wrong.push(("origin", ORIGIN));
    assert_eq!(
        rig.get("/v1/ws?token=abc", &wrong).await.code(),
        "unknown_parameter"
    );
    assert_eq!(
        rig.get("/v1/ws?stream=observations", &wrong).await.code(),
        "unknown_parameter"
    );
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

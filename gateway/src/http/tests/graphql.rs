//! GraphQL over HTTP, by what it promises: media types, statuses, credentials, and each form of a subscription.

mod streamed;

use std::time::Duration;

use http::StatusCode;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use self::streamed::Live;
use super::rig::{Answer, ORIGIN, Rig, Served, Unusual, request};
use crate::http::HttpLimits;
use crate::http::graphql::{CallbackHost, CallbackSettings};

const RESPONSE: &str = "application/graphql-response+json";
const SUBSCRIBE: &str = r#"{"query":"subscription ($patient: [String!]) { observations(patient: $patient) { kind cursor key data { id } } }"}"#;

fn public() -> Rig {
    Rig::with(Unusual {
        introspection: true,
        ..Unusual::default()
    })
}

async fn posted(rig: &Rig, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut all = vec![("content-type", "application/json")];
    all.extend_from_slice(headers);
    rig.post("/graphql", &all, body).await
}

fn code(answer: &Answer) -> String {
    let json = answer.json();
    json["errors"][0]["extensions"]["code"]
        .as_str()
        .unwrap_or_else(|| panic!("no code: {json}"))
        .to_owned()
}

#[tokio::test]
async fn a_query_is_answered_in_the_media_type_that_was_asked_for() {
    let rig = public();
    let body = r#"{"query": "{ __typename }"}"#;
    for (accept, wanted) in [
        (RESPONSE, "application/graphql-response+json; charset=utf-8"),
        ("application/json", "application/json; charset=utf-8"),
        ("*/*", "application/json; charset=utf-8"),
    ] {
        let answer = posted(&rig, &[("accept", accept)], body).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        assert_eq!(answer.headers["content-type"], wanted);
        assert_eq!(answer.json()["data"]["__typename"], "Query");
    }
    let events = posted(&rig, &[("accept", "text/event-stream")], body).await;
    assert_eq!(events.headers["content-type"], "text/event-stream");
    assert!(
        events.text.starts_with("event: next\ndata: {\"data\""),
        "{}",
        events.text
    );
    assert!(
        events.text.ends_with("\n\nevent: complete\ndata:\n\n"),
        "{}",
        events.text
    );
    let parts = posted(&rig, &[("accept", "multipart/mixed;subscriptionSpec=1.0")], body).await;
    assert!(parts.text.contains("{\"payload\":{\"data\""), "{}", parts.text);
    assert!(parts.text.ends_with("\r\n--graphql--\r\n"), "{}", parts.text);
}

#[tokio::test]
async fn the_status_of_a_refused_document_follows_the_media_type() {
    let rig = public();
    for body in [
        r#"{"query": "{"}"#,
        r#"{"query": "{ nothing }"}"#,
        r#"{"query": "query ($id: ID!) { __typename }", "variables": {"id": null}}"#,
    ] {
        let strict = posted(&rig, &[("accept", RESPONSE)], body).await;
        assert_eq!(strict.status, StatusCode::BAD_REQUEST, "{body}");
        assert!(strict.json().get("data").is_none());
        let lax = posted(&rig, &[("accept", "application/json")], body).await;
        assert_eq!(lax.status, StatusCode::OK, "{body}");
        assert!(!code(&lax).is_empty());
        let events = posted(&rig, &[("accept", "text/event-stream")], body).await;
        assert_eq!(events.status, StatusCode::OK);
        assert!(
            events.text.starts_with("event: next\ndata: {\"errors\""),
            "{}",
            events.text
        );
    }
}

#[tokio::test]
async fn a_hash_that_is_not_known_is_no_failure_of_http() {
    let hash = "ecf4edb46db40b5132295c0291d62fb65d6759a9eedfa4d5d612dd5ec54a6b38";
    let extensions = json!({"persistedQuery": {"version": 1, "sha256Hash": hash}});
    let body = json!({ "extensions": extensions }).to_string();
    let encoded: String = url::form_urlencoded::byte_serialize(extensions.to_string().as_bytes()).collect();
    for (automatic, wanted) in [
        (true, "PERSISTED_QUERY_NOT_FOUND"),
        (false, "PERSISTED_QUERY_NOT_SUPPORTED"),
    ] {
        let rig = Rig::with(Unusual {
            introspection: true,
            automatic,
            ..Unusual::default()
        });
        for accept in [RESPONSE, "application/json"] {
            let post = posted(&rig, &[("accept", accept)], &body).await;
            assert_eq!(
                (post.status.as_u16(), code(&post).as_str()),
                (200, wanted),
                "{accept}"
            );
            let uri = format!("/graphql?extensions={encoded}");
            let get = rig.get(&uri, &[("accept", accept)]).await;
            assert_eq!(
                (get.status.as_u16(), code(&get).as_str()),
                (200, wanted),
                "{accept}"
            );
        }
    }
}

#[tokio::test]
async fn a_bad_request_has_its_status_in_every_media_type() {
    let rig = public();
    for accept in [RESPONSE, "application/json", "text/event-stream"] {
        let bad = posted(&rig, &[("accept", accept)], "[]").await;
        assert_eq!((bad.status.as_u16(), code(&bad).as_str()), (400, "body_invalid"));
        let missing = posted(&rig, &[("accept", accept)], r#"{"qeury": "x"}"#).await;
        assert_eq!(missing.status.as_u16(), 400);
    }
    let form = rig
        .post("/graphql", &[("content-type", "text/plain")], "{}")
        .await;
    assert_eq!(
        (form.status.as_u16(), code(&form).as_str()),
        (415, "unsupported_media_type")
    );
    let large = posted(&rig, &[], &"x".repeat(70_000)).await;
    assert_eq!(
        (large.status.as_u16(), code(&large).as_str()),
        (413, "body_too_large")
    );
    let other = rig.ask(request("PATCH", "/graphql", &[], "")).await;
    assert_eq!(other.status.as_u16(), 405);
    assert_eq!(other.headers["allow"], "GET, POST");
}

#[tokio::test]
async fn get_executes_queries_and_never_mutations() {
    let rig = public();
    let query = rig
        .get("/graphql?query=%7B__typename%7D", &[("accept", RESPONSE)])
        .await;
    assert_eq!(query.status, StatusCode::OK, "{}", query.text);
    let mutation = rig
        .get(
            "/graphql?query=mutation%20%7B__typename%7D",
            &[("accept", RESPONSE)],
        )
        .await;
    assert_eq!(
        mutation.status,
        StatusCode::METHOD_NOT_ALLOWED,
        "{}",
        mutation.text
    );
    assert_eq!(mutation.headers["allow"], "POST");
}

#[tokio::test]
async fn without_credentials_only_a_public_schema_answers() {
    let body = r#"{"query": "{ __typename }"}"#;
    let closed = Rig::new();
    let nobody = posted(&closed, &[], body).await;
    assert_eq!(
        (nobody.status.as_u16(), code(&nobody).as_str()),
        (401, "unauthenticated")
    );
    assert!(nobody.headers.contains_key("www-authenticate"));
    let bearer = closed.bearer();
    let known = posted(&closed, &[("authorization", &bearer)], body).await;
    assert_eq!(known.status, StatusCode::OK);
    let wrong = posted(&public(), &[("authorization", "Bearer nonsense")], body).await;
    assert_eq!(wrong.status.as_u16(), 401);
    let subscription = posted(&public(), &[("accept", "text/event-stream")], SUBSCRIBE).await;
    assert_eq!(
        (subscription.status.as_u16(), code(&subscription).as_str()),
        (401, "unauthenticated")
    );
}

#[tokio::test]
async fn a_subscription_needs_a_form_for_many_results() {
    let rig = Rig::new();
    rig.complete().await;
    let bearer = rig.bearer();
    for accept in [RESPONSE, "application/json", "*/*"] {
        let headers = [("accept", accept), ("authorization", bearer.as_str())];
        let answer = posted(&rig, &headers, SUBSCRIBE).await;
        assert_eq!(
            (answer.status.as_u16(), code(&answer).as_str()),
            (406, "not_acceptable")
        );
    }
}

#[tokio::test]
async fn a_router_is_asked_only_for_who_may_subscribe() {
    let router = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    router.set_nonblocking(true).expect("set");
    let address = router.local_addr().expect("an address");
    let callback = CallbackSettings {
        hosts: vec![CallbackHost::parse(&address.to_string()).expect("a host")],
        post_timeout: Duration::from_millis(200),
        ..CallbackSettings::default()
    };
    let rig = Rig::with(Unusual {
        principal_max: Some(1),
        callback,
        ..Unusual::default()
    });
    rig.complete().await;
    let subscription = json!({
        "callbackUrl": format!("http://{address}/callback"),
        "subscriptionId": "1",
        "verifier": "v",
    });
    let body = json!({
        "query": "subscription { observations { key } }",
        "extensions": {"subscription": subscription},
    });
    let ask = async |bearer: &str| {
        let accept = ("accept", "application/json;callbackSpec=1.0");
        let answer = posted(&rig, &[accept, ("authorization", bearer)], &body.to_string()).await;
        code(&answer)
    };
    let bearer = rig.bearer();
    let other = format!("Bearer {}", rig.token("north", "user/Patient.rs", ""));
    assert_eq!(ask(&other).await, "stream_forbidden");
    let place = [("authorization", bearer.as_str())];
    let reserved = rig.ask(request("PUT", "/graphql/stream", &place, "")).await;
    assert_eq!(reserved.status, StatusCode::CREATED);
    assert_eq!(ask(&bearer).await, "principal_connections_exceeded");
    let asked = router.accept().map(|_| ()).expect_err("nobody");
    assert_eq!(asked.kind(), std::io::ErrorKind::WouldBlock);
    // For somebody else, who may.
    let third = format!("Bearer {}", rig.token("south", "user/Observation.rs", ""));
    assert_eq!(ask(&third).await, "callback_refused");
    assert!(router.accept().is_ok(), "asked, and silent");
}

#[tokio::test]
async fn an_operation_for_somebody_else_is_theirs_or_is_refused() {
    let mut rig = Rig::new();
    rig.complete().await;
    let router = format!(
        "Bearer {}",
        rig.token("north", "tidewire:delegate user/Observation.rs", "")
    );
    let whose = format!("Bearer {}", rig.token("north", "patient/Observation.rs", "2"));
    let body = |authorization: &serde_json::Value| {
        json!({
            "query": "subscription { observations { data { id } } }",
            "extensions": {"authorization": authorization, "operationId": "a"},
        })
        .to_string()
    };
    let accept = "accept: text/event-stream";
    let theirs = body(&json!(whose));
    let mut live = Live::open_as(&rig, &router, "POST /graphql", accept, &theirs, 200).await;
    rig.observe("1").await;
    rig.observe("2").await;
    let text = live.until("\"id\":\"o1\"").await;
    assert!(
        !text.contains("\"id\":\"o0\""),
        "what only the router may see: {text}"
    );

    let may_not = rig.bearer();
    for (sender, authorization, wanted) in [
        (&may_not, json!(whose), "unauthenticated"),
        (&router, json!("Basic YTpi"), "unauthenticated"),
        (&router, json!(null), "unauthenticated"),
        (&router, json!("Bearer nonsense"), "token_invalid"),
    ] {
        for accept in [
            "text/event-stream",
            "multipart/mixed;subscriptionSpec=1.0",
            "application/json;callbackSpec=1.0",
        ] {
            let headers = [("accept", accept), ("authorization", sender.as_str())];
            let answer = posted(&rig, &headers, &body(&authorization)).await;
            assert_eq!(
                (answer.status.as_u16(), code(&answer).as_str()),
                (401, wanted),
                "{accept}"
            );
        }
    }
    let get = rig
        .get(
            "/graphql?query=%7B__typename%7D&extensions=%7B%22authorization%22%3A%22x%22%7D",
            &[("authorization", &router)],
        )
        .await;
    assert_eq!(
        (get.status.as_u16(), code(&get).as_str()),
        (401, "unauthenticated")
    );

    let headers = [
        ("authorization", router.as_str()),
        ("content-type", "application/json"),
    ];
    let token = rig
        .ask(request("PUT", "/graphql/stream", &headers, ""))
        .await
        .text;
    let open = format!("GET /graphql/stream?token={token}");
    let _single = Live::open_as(&rig, &router, &open, accept, "", 200).await;
    let uri = format!("/graphql/stream?token={token}");
    let single = rig.post(&uri, &headers, &theirs).await;
    assert_eq!(
        (single.status.as_u16(), code(&single).as_str()),
        (401, "unauthenticated")
    );
}

#[tokio::test]
async fn sockets_are_opened_for_pages_on_the_list_and_for_routers() {
    let rig = Rig::new();
    let handshake = "upgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-version: 13\r\n\
                     sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-protocol: ";
    let upgrade = async |path: &str, protocols: &str, origin: Option<&str>| {
        let served = rig.serve(&HttpLimits::default(), None);
        let mut socket = served.connect().await;
        let origin = origin.map_or_else(String::new, |origin| format!("origin: {origin}\r\n"));
        let text =
            format!("GET {path} HTTP/1.1\r\nhost: gateway.example\r\n{origin}{handshake}{protocols}\r\n\r\n");
        socket.write_all(text.as_bytes()).await.expect("written");
        let mut found = Vec::new();
        while !found.windows(4).any(|end| end == b"\r\n\r\n") {
            assert_ne!(socket.read_buf(&mut found).await.expect("read"), 0);
        }
        String::from_utf8_lossy(&found).into_owned()
    };
    for path in ["/graphql/ws", "/graphql", "/ws"] {
        let answer = upgrade(path, "graphql-ws, graphql-transport-ws", None).await;
        assert!(answer.starts_with("HTTP/1.1 101"), "{path}: {answer}");
        assert!(
            answer.contains("sec-websocket-protocol: graphql-transport-ws\r\n"),
            "{answer}"
        );
    }
    let legacy = upgrade("/graphql/ws", "graphql-ws", Some(ORIGIN)).await;
    assert!(
        legacy.contains("sec-websocket-protocol: graphql-ws\r\n"),
        "{legacy}"
    );
    let foreign = upgrade("/graphql/ws", "graphql-ws", Some("https://evil.example")).await;
    assert!(foreign.starts_with("HTTP/1.1 403"), "{foreign}");
    let other = upgrade("/graphql/ws", "tidewire.v1", None).await;
    assert!(
        other.starts_with("HTTP/1.1 101") && !other.contains("sec-websocket-protocol"),
        "{other}"
    );
    let ours = upgrade("/v1/ws", "graphql-transport-ws", Some(ORIGIN)).await;
    assert!(ours.starts_with("HTTP/1.1 400"), "{ours}");
}

#[tokio::test]
async fn a_browser_gets_graphiql_where_it_is_switched_on_and_nothing_of_it_elsewhere() {
    let html = [("accept", "text/html,application/xhtml+xml,*/*;q=0.8")];
    let open = public();
    let page = open.get("/graphql", &html).await;
    assert_eq!(page.headers["content-type"], "text/html; charset=utf-8");
    assert!(page.headers.contains_key("content-security-policy"));
    let files = page.text.split('"').filter(|text| text.starts_with("/graphiql/"));
    for file in files {
        let Ok(response) =
            tower::ServiceExt::oneshot(open.public.clone(), request("GET", file, &[], "")).await;
        assert_eq!(response.status(), StatusCode::OK, "{file}");
    }
    assert!(!page.text.contains("//"), "no other host");
    let closed = Rig::new();
    assert_eq!(
        closed.get("/graphql", &html).await.status,
        StatusCode::BAD_REQUEST
    );
    assert_eq!(
        closed.get("/graphiql/start.js", &[]).await.status,
        StatusCode::NOT_FOUND
    );
}

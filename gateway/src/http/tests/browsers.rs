//! Browsers: tickets, the cookie, and which pages may ask and read.

use http::StatusCode;

use super::rig::{BATCH, JSON, ORIGIN, Rig, request};

const HANDSHAKE: [(&str, &str); 5] = [
    ("connection", "Upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("sec-websocket-protocol", "tidewire.v1"),
];

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

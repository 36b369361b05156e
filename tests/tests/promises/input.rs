//! Bad input is answered by its code or a timeout, and costs nothing that stays.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tidewire_tests::http::{self, bearer};
use tidewire_tests::plan;
use tidewire_tests::process;
use tidewire_tests::raw::{Raw, frame};
use tidewire_tests::reader::{Reader, Surface, Want};
use tidewire_tests::volume::{dice, volume};
use tidewire_tests::wait;
use tidewire_tests::ws::{Said, Ws};

use crate::support::World;

const TEXT: u8 = 0x81;

#[tokio::test(flavor = "multi_thread")]
async fn garbage_frames_end_the_session_with_their_code() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("frames", 1).await?;
    let gateway = world
        .setup(&[&topic])
        .limit("message_bytes_max", 4096)
        .start()
        .await?;
    let token = world.user("north");
    let ping = br#"{"type":"ping"}"#;
    let mut huge = vec![TEXT, 0x80 | 127];
    huge.extend(u64::MAX.to_be_bytes());
    huge.extend([0; 4]);
    let mut gigabyte = vec![TEXT, 0x80 | 127];
    gigabyte.extend((1_u64 << 30).to_be_bytes());
    gigabyte.extend([0; 4]);
    let mut fragments = frame(0x01, &[b'x'; 3000], true);
    fragments.extend(frame(0x80, &[b'x'; 3000], true));
    let mut endless = frame(0x01, b"x", true);
    for _ in 0..5000 {
        endless.extend(frame(0x00, b"x", true));
    }
    let two_texts = [frame(0x01, b"{", true), frame(TEXT, ping, true)].concat();
    let cases: Vec<(&str, Vec<u8>, &[u16])> = vec![
        ("an unmasked frame", frame(TEXT, ping, false), &[4300, 1002]),
        ("a reserved bit", frame(0xC1, ping, true), &[4300, 1002]),
        ("an unknown opcode", frame(0x83, ping, true), &[4300, 1002]),
        ("an unknown control opcode", frame(0x8B, b"", true), &[4300, 1002]),
        ("a fragmented ping", frame(0x09, b"", true), &[4300, 1002]),
        ("a ping of 126 bytes", frame(0x89, &[0; 126], true), &[4300, 1002]),
        (
            "a continuation of nothing",
            frame(0x80, ping, true),
            &[4300, 1002],
        ),
        ("a text within a text", two_texts, &[4300, 1002]),
        (
            "a close frame of one byte",
            frame(0x88, &[3], true),
            &[4300, 1002],
        ),
        (
            "a close frame with a code that must not be sent",
            frame(0x88, &1005_u16.to_be_bytes(), true),
            &[4300, 1002, 1000],
        ),
        (
            "a text that is no UTF-8",
            frame(TEXT, &[0xff, 0xfe], true),
            &[4300, 1007],
        ),
        ("a binary message", frame(0x82, ping, true), &[4300, 1003]),
        (
            "a message of 5,000 bytes",
            frame(TEXT, &[b' '; 5000], true),
            &[4301, 1009],
        ),
        ("a message of 2^64 bytes", huge, &[4301, 1009, 4300, 1002]),
        ("a message of a gigabyte", gigabyte, &[4301, 1009]),
        ("a message too large in two fragments", fragments, &[4301, 1009]),
        ("a message in endless fragments", endless, &[4301, 1009]),
    ];
    let before = process::resident_bytes(gateway.pid())?;
    let mut wrong = Vec::new();
    for (what, bytes, codes) in &cases {
        let mut raw = Raw::upgrade(gateway.address(), &token).await?;
        raw.send(bytes).await?;
        let code = raw
            .to_end()
            .await
            .with_context(|| (*what).to_owned())?
            .close_code();
        if !code.is_some_and(|code| codes.contains(&code)) {
            wrong.push(format!("{what}: closed with {code:?}, not one of {codes:?}"));
        }
    }
    // Random bytes: whatever they mean, the session ends, by a code or because we close our half.
    let mut dice = dice("garbage");
    for _ in 0..volume(200, 2000) {
        let mut bytes = vec![0; rand::Rng::random_range(&mut dice, 1..300)];
        rand::RngCore::fill_bytes(&mut dice, &mut bytes);
        let mut raw = Raw::upgrade(gateway.address(), &token).await?;
        raw.send(&bytes).await?;
        raw.finish().await?;
        raw.to_end().await?;
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    // The gateway is well: a good reader reads, no session is left over, memory is flat.
    wait::until("the bad sessions to be gone", || async {
        gateway.sessions().await.ok()?.is_empty().then_some(())
    })
    .await?;
    let plan = plan::plan(&mut dice, 1, 20);
    let mut reader = Reader::open(
        Surface::WebSocket,
        gateway.address(),
        Want::new("observations", &token),
    )
    .await?;
    world.producer.send_all(&plan::records(&plan, &topic)).await?;
    crate::delivery::take_all(
        &mut reader,
        &mut plan::owed(&plan, |planned| planned.tenant == "north"),
    )
    .await?;
    let grown = process::resident_bytes(gateway.pid())?.saturating_sub(before);
    ensure!(grown < 16 << 20, "memory grew by {grown} bytes");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_messages_are_answered_with_a_code_and_the_session_goes_on() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("messages", 1).await?;
    let gateway = world
        .setup(&[&topic])
        .limit("subscriptions_per_session_max", 3)
        .start()
        .await?;
    let mut ws = Ws::open(gateway.address(), &world.user("north")).await?;
    ws.until("welcome").await?;
    ws.until("authorized").await?;
    let subscribed = ws
        .subscribe(&json!({"id": "s", "stream": "observations"}))
        .await?;
    ensure!(subscribed["type"] == "subscribed", "{subscribed}");
    let subscribe = |more: Value| {
        let mut message = json!({"type": "subscribe", "id": "t", "stream": "observations"});
        if let (Some(message), Some(more)) = (message.as_object_mut(), more.as_object()) {
            message.extend(more.clone());
        }
        message
    };
    let cases = vec![
        (json!({"type": "dance"}), "message_invalid"),
        (json!({"no": "type"}), "message_invalid"),
        (json!({"type": 1}), "message_invalid"),
        (json!({"type": "subscribe"}), "message_invalid"),
        (
            json!({"type": "subscribe", "id": 1, "stream": "observations"}),
            "message_invalid",
        ),
        (subscribe(json!({"id": ""})), "message_invalid"),
        (subscribe(json!({"id": "s"})), "duplicate_id"),
        (subscribe(json!({"stream": "nothing"})), "stream_forbidden"),
        (subscribe(json!({"stream": "Not A Name"})), "stream_forbidden"),
        (subscribe(json!({"where": {"nothing": "1"}})), "unknown_parameter"),
        (subscribe(json!({"where": {"status": []}})), "filter_invalid"),
        (subscribe(json!({"where": "status=final"})), "message_invalid"),
        (
            subscribe(json!({"where": {"status": {"not": "final"}}})),
            "filter_invalid",
        ),
        (subscribe(json!({"after": "no cursor"})), "cursor_invalid"),
        (subscribe(json!({"after": 7})), "message_invalid"),
        (subscribe(json!({"snapshot": true})), "unsupported"),
        (subscribe(json!({"overflow": "conflate"})), "unsupported"),
        (json!({"type": "unsubscribe", "id": "nobody"}), "unknown_id"),
        (json!({"type": "auth"}), "message_invalid"),
    ];
    for (message, code) in cases {
        ws.say(&message).await?;
        let error = ws.until("error").await.with_context(|| message.to_string())?;
        ensure!(error["code"] == code, "{message}: {error} instead of {code}");
        ensure!(
            error["message"].is_string() && error["retry"].is_boolean(),
            "{error}"
        );
    }
    for id in ["t", "u"] {
        let answer = ws.subscribe(&json!({"id": id, "stream": "observations"})).await?;
        ensure!(answer["type"] == "subscribed", "{answer}");
    }
    let answer = ws
        .subscribe(&json!({"id": "v", "stream": "observations"}))
        .await?;
    ensure!(answer["code"] == "subscriptions_exceeded", "{answer}");
    ws.say(&json!({"type": "unsubscribe", "id": "u"})).await?;
    ensure!(ws.until("unsubscribed").await?["id"] == "u", "unsubscribed");
    // Members that are not known are ignored, as they will be by clients.
    let answer = ws
        .subscribe(&json!({"id": "u", "stream": "observations", "colour": "blue"}))
        .await?;
    ensure!(answer["type"] == "subscribed", "{answer}");
    // The session is well: an event comes to each of its three subscriptions.
    let mut plan = plan::plan(&mut dice("messages"), 1, 1);
    plan[0].tenant = "north";
    world.producer.send_all(&plan::records(&plan, &topic)).await?;
    let mut ids = Vec::new();
    while ids.len() < 3 {
        ids.push(
            ws.until("event").await?["id"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
        );
    }
    ids.sort();
    ensure!(ids == ["s", "t", "u"], "{ids:?}");
    // A token that is not acceptable is told, and ends the session: its bearer may not be who it was.
    ws.say(&json!({"type": "auth", "token": "no token"})).await?;
    ensure!(
        ws.until("error").await?["code"] == "token_invalid",
        "token_invalid"
    );
    ensure!(
        ws.end().await? == Some((4201, "unauthenticated".to_owned())),
        "unauthenticated"
    );
    // Text that is no JSON is no message; nor is an array.
    for text in ["{", "[]", "\"ping\"", "", "{\"type\":\"ping\",\"type\":\"ping\"}"] {
        let mut ws = Ws::open(gateway.address(), &world.user("north")).await?;
        ws.until("authorized").await?;
        ws.send(tokio_tungstenite::tungstenite::Message::text(text))
            .await?;
        match ws.hear().await? {
            Said::Message(message) => ensure!(message["code"] == "message_invalid", "{text:?}: {message}"),
            Said::Closed { code, reason } => ensure!(code == 4300, "{text:?}: {code} {reason}"),
            Said::Gone => anyhow::bail!("{text:?}: cut off without a word"),
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_are_answered_with_a_code() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("requests", 1).await?;
    let gateway = world.setup(&[&topic]).start().await?;
    let authorization = bearer(&world.user("north"));
    let page = "application/cloudevents-batch+json";
    let cases: Vec<(&str, &str, u16, &str)> = vec![
        ("/v1/streams/nothing", page, 403, "stream_forbidden"),
        (
            "/v1/streams/observations?nothing=1",
            page,
            400,
            "unknown_parameter",
        ),
        ("/v1/streams/observations?status=", page, 400, "filter_invalid"),
        (
            "/v1/streams/observations?status=final&status=amended",
            page,
            400,
            "filter_invalid",
        ),
        ("/v1/streams/observations?after=x", page, 400, "cursor_invalid"),
        (
            "/v1/streams/observations?after=latest&after=earliest",
            page,
            400,
            "parameter_invalid",
        ),
        ("/v1/streams/observations?limit=0", page, 400, "parameter_invalid"),
        (
            "/v1/streams/observations?limit=many",
            page,
            400,
            "parameter_invalid",
        ),
        ("/v1/streams/observations?wait=-1", page, 400, "parameter_invalid"),
        (
            "/v1/streams/observations?access_token=x",
            page,
            400,
            "unknown_parameter",
        ),
        ("/v1/streams/observations?snapshot=true", page, 422, "unsupported"),
        (
            "/v1/streams/observations?overflow=conflate",
            page,
            422,
            "unsupported",
        ),
        ("/v1/streams/observations", "image/png", 406, "not_acceptable"),
        ("/v1/nothing", page, 404, "not_found"),
        ("/", "*/*", 404, "not_found"),
    ];
    for (path, accept, status, code) in cases {
        let headers = [("accept", accept), ("authorization", authorization.as_str())];
        let answer = http::get(gateway.address(), path, &headers).await?;
        ensure!(
            (answer.status, answer.code().as_str()) == (status, code),
            "{path}: {} {}",
            answer.status,
            answer.text()
        );
        ensure!(
            answer
                .header("content-type")
                .starts_with("application/problem+json"),
            "{path}"
        );
        ensure!(
            answer.json()?["status"] == status && answer.json()?["title"].is_string(),
            "{}",
            answer.text()
        );
    }
    let delete = http::request(
        reqwest::Method::DELETE,
        gateway.address(),
        "/v1/streams/observations",
        &[],
        None,
    )
    .await?;
    ensure!(
        (delete.status, delete.code().as_str()) == (405, "method_not_allowed"),
        "{}",
        delete.text()
    );
    let large = vec![b' '; 200 << 10];
    let headers = [
        ("authorization", authorization.as_str()),
        ("content-type", "application/json"),
    ];
    let answer = http::request(
        reqwest::Method::POST,
        gateway.address(),
        "/v1/tickets",
        &headers,
        Some(large),
    )
    .await?;
    ensure!(
        (answer.status, answer.code().as_str()) == (413, "body_too_large"),
        "{}",
        answer.text()
    );
    let headers = [
        ("authorization", authorization.as_str()),
        ("content-type", "text/plain"),
    ];
    let answer = http::request(
        reqwest::Method::POST,
        gateway.address(),
        "/v1/tickets",
        &headers,
        Some(b"{}".to_vec()),
    )
    .await?;
    ensure!(
        (answer.status, answer.code().as_str()) == (415, "unsupported_media_type"),
        "{}",
        answer.text()
    );

    // What no HTTP library would send.
    let host = gateway.address().to_string();
    let long = "x".repeat(40 << 10);
    let many = "X-H: y\r\n".repeat(500);
    let raw: Vec<(&str, String, &[u16])> = vec![
        (
            "a head of 40 KiB",
            format!("GET / HTTP/1.1\r\nHost: {host}\r\nX-Long: {long}\r\n\r\n"),
            &[431, 400],
        ),
        (
            "500 header fields",
            format!("GET / HTTP/1.1\r\nHost: {host}\r\n{many}\r\n"),
            &[431],
        ),
        (
            "a path of 40 KiB",
            format!("GET /{long} HTTP/1.1\r\nHost: {host}\r\n\r\n"),
            &[414, 431, 400],
        ),
        (
            "no HTTP at all",
            "\u{16}\u{3}\u{1}\u{2}hello\r\n\r\n".to_owned(),
            &[400, 0],
        ),
        (
            "a bad version",
            format!("GET / HTTP/9.9\r\nHost: {host}\r\n\r\n"),
            &[400, 505, 0],
        ),
        (
            "a bad header",
            format!("GET / HTTP/1.1\r\nHost: {host}\r\nno colon\r\n\r\n"),
            &[400],
        ),
        (
            "two lengths",
            format!(
                "POST /v1/tickets HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"
            ),
            &[400],
        ),
    ];
    for (what, bytes, statuses) in raw {
        let mut raw = Raw::connect(gateway.address()).await?;
        raw.send(bytes.as_bytes()).await?;
        raw.finish().await?;
        let heard = raw.to_end().await.with_context(|| what.to_owned())?;
        ensure!(
            statuses.contains(&heard.status()),
            "{what}: {}",
            String::from_utf8_lossy(&heard.bytes)
        );
        let code = heard.problem();
        ensure!(
            heard.status() == 0
                || ["request_malformed", "uri_too_long", "headers_too_large"].contains(&code.as_str()),
            "{what}: {code}"
        );
    }
    Ok(())
}

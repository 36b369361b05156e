//! `graphql-transport-ws` frame by frame: every row of the table of close codes, the order of messages, credentials
//! wherever clients and routers put them.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tidewire_tests::contract;
use tidewire_tests::graphql::{EVENTS, LEGACY, Wire, operation};
use tidewire_tests::plan::Planned;
use tidewire_tests::raw::Raw;
use tidewire_tests::reader::{Reader, Surface, Want};
use tidewire_tests::ws::{Dial, Said, Ws};
use tokio_tungstenite::tungstenite::{Bytes, Message};

use crate::support::World;

/// One event of a tenant about a patient.
fn planned(tenant: &'static str, patient: u32, n: i64) -> Planned {
    Planned {
        tenant,
        patient,
        status: "final",
        partition: 0,
        n,
        padding: 0,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_row_of_the_close_codes_is_told() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("frames", 1).await?;
    let gateway = world.graphql(&[&topic]).start().await?;
    let address = gateway.address();
    let token = world.user("north");
    let subscribe = json!({"type": "subscribe", "id": "1", "payload": operation(EVENTS, &json!({}))});

    // 4400: invalid messages, before the acknowledgement and after it.
    let invalid: Vec<Message> = [
        "",
        "not JSON",
        "null",
        "[]",
        "{}",
        r#"{"type":17}"#,
        r#"{"type":"start","id":"1","payload":{"query":"{__typename}"}}"#,
        r#"{"type":"subscribe","payload":{"query":"{__typename}"}}"#,
        r#"{"type":"subscribe","id":"","payload":{"query":"{__typename}"}}"#,
        r#"{"type":"subscribe","id":7,"payload":{"query":"{__typename}"}}"#,
        r#"{"type":"subscribe","id":"1"}"#,
        r#"{"type":"subscribe","id":"1","payload":{"query":{}}}"#,
        r#"{"type":"subscribe","id":"1","payload":{"query":"{__typename}","variables":[]}}"#,
        r#"{"type":"complete"}"#,
        r#"{"type":"connection_init","payload":"x"}"#,
        r#"{"type":"ping","payload":[]}"#,
        r#"{"type":"connection_ack"}"#,
        r#"{"type":"next","id":"1","payload":{"data":null}}"#,
        r#"{"type":"connection_init"}{"type":"connection_init"}"#,
    ]
    .into_iter()
    .map(Message::text)
    .chain([Message::binary(Bytes::from_static(br#"{"type":"ping"}"#))])
    .collect();
    for message in invalid {
        for acknowledged in [false, true] {
            let mut wire = if acknowledged {
                Wire::open(address, &token).await?
            } else {
                Wire::dial(address).await?
            };
            wire.ws.send(message.clone()).await?;
            let (code, reason) = wire.end().await.with_context(|| format!("{message:?}"))?;
            ensure!(code == 4400, "{message:?}: {code} {reason}");
            ensure!(!reason.is_empty(), "{message:?}");
        }
    }

    // 4401: an operation before the acknowledgement.
    let mut wire = Wire::dial(address).await?;
    wire.say(&subscribe).await?;
    let (code, reason) = wire.end().await?;
    ensure!(
        (code, reason.as_str()) == (4401, "Unauthorized"),
        "{code} {reason}"
    );

    // 4403: the initialisation is refused.
    let expired = world
        .issuer
        .token("north")
        .scopes(contract::USER)
        .good_for(-5)
        .sign();
    for payload in [
        json!(null),
        json!({}),
        json!({"token": "nonsense"}),
        json!({"token": expired}),
        json!({"token": 17}),
    ] {
        let mut wire = Wire::dial(address).await?;
        wire.say(&json!({"type": "connection_init", "payload": payload}))
            .await?;
        let (code, reason) = wire.end().await?;
        ensure!(
            (code, reason.as_str()) == (4403, "Forbidden"),
            "{payload}: {code} {reason}"
        );
    }

    // 4406: no subprotocol that is spoken here.
    for offered in [
        "",
        "Sec-WebSocket-Protocol: mqtt\r\n",
        "Sec-WebSocket-Protocol: tidewire.v1\r\n",
    ] {
        let mut raw = Raw::upgrade_to(address, "/graphql/ws", offered).await?;
        let heard = raw.to_end().await?;
        ensure!(heard.close_code() == Some(4406), "{offered:?}: {heard:?}");
    }

    // 4409: an id that is in use; what its own operation gave before is not disturbed by an error message.
    let mut wire = Wire::open(address, &token).await?;
    wire.subscribe("1", &operation(EVENTS, &json!({}))).await?;
    wire.say(&subscribe).await?;
    let (code, reason) = wire.end().await?;
    ensure!(
        (code, reason.as_str()) == (4409, "Subscriber for 1 already exists"),
        "{code} {reason}"
    );

    // 4429: a second initialisation, after the first was acknowledged and while it is looked at.
    let init = json!({"type": "connection_init", "payload": {"token": token}});
    for acknowledged in [true, false] {
        let mut wire = Wire::dial(address).await?;
        wire.say(&init).await?;
        if acknowledged {
            wire.ws.until("connection_ack").await?;
        }
        wire.say(&init).await?;
        let (code, reason) = wire.end().await?;
        ensure!(
            (code, reason.as_str()) == (4429, "Too many initialisation requests"),
            "{code} {reason}"
        );
    }
    // 4500, an internal error, is for our own mistakes: nothing that a client says leads there.
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_without_initialisation_is_closed_in_time_with_4408() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("init", 1).await?;
    let gateway = world
        .graphql(&[&topic])
        .limit("auth_timeout_ms", 300)
        .start()
        .await?;
    // Also with credentials in the upgrade: they are no initialisation. Pings are answered, and are none either.
    for token in [None, Some(world.user("north"))] {
        let dial = Dial {
            token,
            ..Dial::default()
        };
        let mut wire = Wire::dial_with(gateway.address(), &dial).await?;
        wire.say(&json!({"type": "ping"})).await?;
        let (code, reason) = wire.end().await?;
        ensure!(
            (code, reason.as_str()) == (4408, "Connection initialisation timeout"),
            "{code} {reason}"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_come_in_the_order_of_the_protocol() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("order", 1).await?;
    let gateway = world.graphql(&[&topic]).start().await?;
    let token = world.user("north");

    // Pings are answered before the acknowledgement, with what they brought; an answer nobody asked for is fine.
    let mut wire = Wire::dial(gateway.address()).await?;
    wire.say(&json!({"type": "ping", "payload": {"x": [1, {"y": null}]}}))
        .await?;
    let pong = wire.ws.until("pong").await?;
    ensure!(pong["payload"] == json!({"x": [1, {"y": null}]}), "{pong}");
    wire.say(&json!({"type": "pong"})).await?;
    wire.ws.send(Message::Ping(Bytes::from_static(b"frame"))).await?;
    wire.say(&json!({"type": "ping"})).await?;
    let pong = wire.ws.until("pong").await?;
    ensure!(pong.get("payload").is_none_or(Value::is_null), "{pong}");

    // The acknowledgement is the first message but for pings.
    wire.say(
        &json!({"type": "connection_init", "payload": {"token": token, "unknown": {"a": 1}}, "more": 1}),
    )
    .await?;
    let Said::Message(first) = wire.ws.hear().await? else {
        anyhow::bail!("it ended")
    };
    ensure!(first["type"] == "connection_ack", "{first}");

    // A query: next, then complete; its id is free again.
    for _ in 0..2 {
        wire.start("q", &operation("query { __typename }", &json!({})))
            .await?;
        let next = wire.ws.until("next").await?;
        ensure!(
            next["id"] == "q" && next["payload"]["data"]["__typename"].is_string(),
            "{next}"
        );
        let Said::Message(complete) = wire.ws.hear().await? else {
            anyhow::bail!("it ended")
        };
        ensure!(complete == json!({"id": "q", "type": "complete"}), "{complete}");
    }

    // A refused operation: one error with a list of errors, and no complete behind it; the id is free again.
    for query in ["subscription { nothing }", "subscription {", "{ a b c }"] {
        wire.start("e", &operation(query, &json!({}))).await?;
        let error = wire.ws.until("error").await?;
        let errors = error["payload"].as_array().context("a list of errors")?;
        ensure!(error["id"] == "e" && !errors.is_empty(), "{error}");
        ensure!(errors.iter().all(|error| error["message"].is_string()), "{error}");
        wire.say(&json!({"type": "ping", "payload": {"mark": query}}))
            .await?;
        let Said::Message(next) = wire.ws.hear().await? else {
            anyhow::bail!("it ended")
        };
        ensure!(
            next["type"] == "pong" && next["payload"]["mark"] == query,
            "{next} behind {error}"
        );
    }

    // Two subscriptions on one socket; the client's complete is not echoed, ends that one alone, and frees its id.
    let events = operation(EVENTS, &json!({}));
    wire.subscribe("a", &events).await?;
    wire.subscribe("b", &events).await?;
    world
        .producer
        .send(&planned("north", 1, 0).record(&topic))
        .await?;
    let mut first = vec![wire.ws.until("next").await?, wire.ws.until("next").await?];
    first.sort_by_key(|next| next["id"].to_string());
    ensure!(first[0]["id"] == "a" && first[1]["id"] == "b", "{first:?}");
    ensure!(first[0]["payload"] == first[1]["payload"], "{first:?}");
    wire.say(&json!({"type": "complete", "id": "a"})).await?;
    // A complete for what is not there is nothing.
    wire.say(&json!({"type": "complete", "id": "never"})).await?;
    wire.say(&json!({"type": "ping", "payload": {"mark": 1}})).await?;
    wire.ws.until("pong").await?;
    world
        .producer
        .send(&planned("north", 1, 1).record(&topic))
        .await?;
    let next = loop {
        match wire.ws.hear().await? {
            Said::Message(message) if message["type"] == "ping" => {}
            Said::Message(message) => break message,
            other => anyhow::bail!("{other:?}"),
        }
    };
    ensure!(next["id"] == "b" && next["type"] == "next", "{next}");
    wire.subscribe("a", &events).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_taken_wherever_clients_and_routers_put_them() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("places", 1).await?;
    let gateway = world.graphql(&[&topic]).start().await?;
    let north = world.user("north");
    let south = world.user("south");
    let bearer = |token: &str| format!("Bearer {token}");
    // The upgrade's header, the payload, and whose events then come. Where two are given, the order of the table counts.
    let places: Vec<(Option<&String>, Value, &'static str)> = vec![
        (Some(&north), json!(null), "north"),
        (Some(&north), json!({}), "north"),
        (Some(&north), json!({"token": south}), "north"),
        (None, json!({"Authorization": bearer(&north)}), "north"),
        (None, json!({"authorization": bearer(&south)}), "south"),
        (
            None,
            json!({"AUTHORIZATION": bearer(&north), "token": south}),
            "north",
        ),
        (None, json!({"token": north}), "north"),
        (None, json!({"token": bearer(&south)}), "south"),
        (
            None,
            json!({"token": north, "connectionParams": {"token": south}}),
            "north",
        ),
        (None, json!({"connectionParams": {"token": south}}), "south"),
        (
            None,
            json!({"connectionParams": {"Authorization": bearer(&north)}}),
            "north",
        ),
        (
            None,
            json!({"headers": {"authorization": bearer(&south)}}),
            "south",
        ),
        (
            None,
            json!({"headers": {"Authorization": bearer(&north), "x-other": "1"}}),
            "north",
        ),
    ];
    let mut wires = Vec::new();
    for (header, payload, tenant) in places {
        let dial = Dial {
            token: header.cloned(),
            ..Dial::default()
        };
        let mut wire = Wire::dial_with(gateway.address(), &dial).await?;
        wire.init(&payload).await.with_context(|| payload.to_string())?;
        wire.subscribe("1", &operation(EVENTS, &json!({}))).await?;
        wires.push((wire, payload, tenant));
    }
    for (n, tenant) in [(0, "north"), (1, "south"), (2, "north"), (3, "south")] {
        world.producer.send(&planned(tenant, 1, n).record(&topic)).await?;
    }
    for (mut wire, payload, tenant) in wires {
        let owed = if tenant == "north" { [0, 2] } else { [1, 3] };
        for n in owed {
            let event = wire.event("1").await?;
            ensure!(event["data"]["n"] == n, "{payload}: {event}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ping_with_a_token_renews_and_without_one_the_session_ends_with_4403() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("renewal", 1).await?;
    let gateway = world.graphql(&[&topic]).start().await?;
    let short = || {
        world
            .issuer
            .token("north")
            .scopes(contract::USER)
            .good_for(4)
            .sign()
    };
    let mut renewed = Wire::open(gateway.address(), &short()).await?;
    let mut expiring = Wire::open(gateway.address(), &short()).await?;
    let mut changing = Wire::open(gateway.address(), &short()).await?;
    for wire in [&mut renewed, &mut expiring, &mut changing] {
        wire.subscribe("1", &operation(EVENTS, &json!({}))).await?;
    }
    renewed
        .say(&json!({"type": "ping", "payload": {"token": world.user("north")}}))
        .await?;
    // The answer does not say the token again.
    let pong = renewed.ws.until("pong").await?;
    ensure!(!pong.to_string().contains("ey"), "the token came back");
    changing
        .say(&json!({"type": "ping", "payload": {"token": world.user("south")}}))
        .await?;
    let (code, reason) = changing.end().await?;
    ensure!(code == 4403, "another tenant's token: {code} {reason}");
    let (code, reason) = expiring.end().await?;
    ensure!(code == 4403, "at expiry: {code} {reason}");
    world
        .producer
        .send(&planned("north", 1, 0).record(&topic))
        .await?;
    let event = renewed.event("1").await?;
    ensure!(event["data"]["n"] == 0, "{event}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn quiet_progress_comes_in_pings_and_resumes() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("quiet", 1).await?;
    let gateway = world
        .graphql(&[&topic])
        .limit("heartbeat_ms", 200)
        .start()
        .await?;
    let token = world.user("north");
    let mut wire = Wire::open(gateway.address(), &token).await?;
    let mine = operation(EVENTS, &json!({"patient": "1"}));
    let begun = wire.subscribe("mine", &mine).await?;
    // Only others' events: no result comes, but the cursor moves.
    let others: Vec<_> = (0..20).map(|n| planned("north", 2, n).record(&topic)).collect();
    world.producer.send_all(&others).await?;
    let whole = Want::new("observations", &token).after("earliest");
    Reader::open(Surface::Pull, gateway.address(), whole)
        .await?
        .until_live()
        .await?;
    let mut cursor = begun.clone();
    for _ in 0..50 {
        let ping = wire.ws.until("ping").await?;
        let Some(now) = ping["payload"]["cursors"]["mine"].as_str() else {
            continue;
        };
        now.clone_into(&mut cursor);
        let rest = Reader::open(
            Surface::Pull,
            gateway.address(),
            Want::new("observations", &token).after(now),
        );
        if rest.await?.until_live().await?.is_empty() {
            break;
        }
    }
    ensure!(cursor != begun, "the cursor did not move");
    drop(wire);
    world
        .producer
        .send(&planned("north", 2, 20).record(&topic))
        .await?;
    world
        .producer
        .send(&planned("north", 1, 21).record(&topic))
        .await?;
    // From there on: as the argument, and as an extension.
    let mut wire = Wire::open(gateway.address(), &token).await?;
    let all = operation(EVENTS, &json!({"after": cursor}));
    wire.start("argument", &all).await?;
    for n in [20, 21] {
        let event = wire.event("argument").await?;
        ensure!(event["data"]["n"] == n, "{event}");
    }
    let mut extended = operation(EVENTS, &json!({}));
    extended["extensions"] = json!({"after": cursor});
    wire.start("extension", &extended).await?;
    for n in [20, 21] {
        let event = wire.event("extension").await?;
        ensure!(event["data"]["n"] == n, "{event}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_may_delegate_gives_each_operation_its_own_reader() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("delegate", 1).await?;
    let gateway = world.graphql(&[&topic]).start().await?;
    let router = world
        .issuer
        .token("north")
        .subject("router")
        .scopes("tidewire:delegate user/Observation.rs")
        .sign();
    let asked_by = |token: &str| {
        let mut operation = operation(EVENTS, &json!({}));
        operation["extensions"] = json!({"authorization": format!("Bearer {token}")});
        operation
    };
    let mut wire = Wire::open(gateway.address(), &router).await?;
    wire.subscribe("one", &asked_by(&world.patient("north", "1")))
        .await?;
    wire.subscribe("two", &asked_by(&world.patient("north", "2")))
        .await?;
    wire.subscribe("south", &asked_by(&world.user("south"))).await?;
    for bad in [
        "nonsense".to_owned(),
        world.issuer.token("north").good_for(-5).sign(),
        String::new(),
    ] {
        wire.start("bad", &asked_by(&bad)).await?;
        let error = wire.ws.until("error").await?;
        ensure!(
            error["id"] == "bad" && error["payload"][0]["extensions"]["code"].is_string(),
            "{error}"
        );
    }
    // Who may not delegate is refused: the answer would be what the connection sees.
    let mut alone = Wire::open(gateway.address(), &world.user("north")).await?;
    alone.start("bad", &asked_by(&world.user("south"))).await?;
    alone.ws.until("error").await?;

    for (n, (tenant, patient)) in (0..).zip([
        ("north", 1),
        ("south", 1),
        ("north", 2),
        ("north", 1),
        ("south", 2),
    ]) {
        world
            .producer
            .send(&planned(tenant, patient, n).record(&topic))
            .await?;
    }
    let mut got: Vec<(String, i64)> = Vec::new();
    while got.len() < 5 {
        let next = wire.ws.until("next").await?;
        let n = next["payload"]["data"]["observations"]["data"]["n"]
            .as_i64()
            .context("n")?;
        got.push((next["id"].as_str().unwrap_or_default().to_owned(), n));
    }
    let of = |id: &str| -> Vec<i64> {
        got.iter()
            .filter(|(have, _)| have == id)
            .map(|(_, n)| *n)
            .collect()
    };
    ensure!(
        of("one") == [0, 3] && of("two") == [2] && of("south") == [1, 4],
        "{got:?}"
    );
    // An expired reader's operation ends; the connection and the others go on.
    let short = world
        .issuer
        .token("north")
        .scopes(contract::USER)
        .good_for(2)
        .sign();
    wire.subscribe("short", &asked_by(&short)).await?;
    let error = wire.ws.until("error").await?;
    ensure!(error["id"] == "short", "{error}");
    world
        .producer
        .send(&planned("north", 2, 5).record(&topic))
        .await?;
    let event = wire.event("two").await?;
    ensure!(event["data"]["n"] == 5, "{event}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_legacy_subprotocol_is_still_spoken() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("legacy", 1).await?;
    let gateway = world
        .graphql(&[&topic])
        .limit("heartbeat_ms", 200)
        .start()
        .await?;
    let token = world.user("north");
    let dial = Dial {
        tongue: Some(LEGACY),
        ..Dial::default()
    };
    let dial = async || -> Result<Ws> {
        Ws::dial(gateway.address(), &dial)
            .await?
            .map_err(|refused| anyhow::anyhow!("{refused:?}"))
    };
    let mut ws = dial().await?;
    ws.say(&json!({"type": "connection_init", "payload": {"Authorization": format!("Bearer {token}")}}))
        .await?;
    ws.until("connection_ack").await?;
    ws.until("ka").await?;
    ws.say(&json!({"type": "start", "id": "1", "payload": operation(EVENTS, &json!({"after": "earliest"}))}))
        .await?;
    world
        .producer
        .send(&planned("north", 1, 0).record(&topic))
        .await?;
    let data = ws.until("data").await?;
    ensure!(
        data["id"] == "1" && data["payload"]["data"]["observations"]["data"]["n"] == 0,
        "{data}"
    );
    // Quiet: keep-alives go on.
    ws.until("ka").await?;
    ws.say(&json!({"type": "stop", "id": "1"})).await?;
    ws.say(&json!({"type": "start", "id": "q", "payload": {"query": "{ __typename }"}}))
        .await?;
    let answer = ws.until("data").await?;
    ensure!(answer["id"] == "q", "{answer}");
    let complete = ws.until("complete").await?;
    ensure!(complete["id"] == "q", "{complete}");
    ws.say(&json!({"type": "connection_terminate"})).await?;
    ws.end().await?;

    let mut ws = dial().await?;
    ws.say(&json!({"type": "connection_init", "payload": {"Authorization": "Bearer nonsense"}}))
        .await?;
    ws.until("connection_error").await?;
    ws.end().await?;
    Ok(())
}

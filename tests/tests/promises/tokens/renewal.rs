//! The end of a token in mid-stream: the warning, renewal in band, and grants that are withdrawn.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tidewire_tests::contract;
use tidewire_tests::plan;
use tidewire_tests::producer::Record;
use tidewire_tests::reader::{Item, Reader, Surface, Want};
use tidewire_tests::volume::{dice, say};
use tidewire_tests::wait;
use tidewire_tests::ws::{Dial, Said, Ws};

use crate::support::World;

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_expires_in_mid_stream_ends_the_session_after_a_warning() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("expiry", 1).await?;
    let gateway = world
        .setup(&[&topic])
        .limit("auth_warning_ms", 2000)
        .start()
        .await?;
    let short = world
        .issuer
        .token("north")
        .scopes(contract::USER)
        .good_for(4)
        .sign();
    let mut ws = Reader::open(
        Surface::WebSocket,
        gateway.address(),
        Want::new("observations", &short),
    )
    .await?;
    let mut sse = Reader::open(Surface::Sse, gateway.address(), Want::new("observations", &short)).await?;
    let event = Record::json(&topic, &json!({"partition": 0, "n": 0}))
        .on(0)
        .header("tenant", "north");
    world.producer.send(&event).await?;
    ws.event().await?;
    sse.event().await?;
    for (surface, reader, code) in [
        (Surface::WebSocket, &mut ws, "4200 token_expired"),
        (Surface::Sse, &mut sse, "token_expired"),
    ] {
        let mut warned = false;
        loop {
            match reader.next().await? {
                Item::Other(kind, message) if kind == "auth_required" => {
                    ensure!(message["expires_at"].is_string(), "{message}");
                    warned = true;
                }
                Item::Ended(ended) => {
                    ensure!(
                        warned && ended == code,
                        "{surface:?} ended with {ended:?}, warned: {warned}"
                    );
                    break;
                }
                Item::Live | Item::Quiet | Item::Other(..) => {}
                other => anyhow::bail!("{surface:?}: {other:?}"),
            }
        }
    }
    // What was produced afterwards is there for the same cursor and a fresh token.
    let later = Record::json(&topic, &json!({"partition": 0, "n": 1}))
        .on(0)
        .header("tenant", "north");
    world.producer.send(&later).await?;
    let mut want = ws.want_more();
    want.token = world.user("north");
    let event = Reader::open(Surface::WebSocket, gateway.address(), want)
        .await?
        .event()
        .await?;
    ensure!(event["data"]["n"] == 1, "{event}");
    Ok(())
}

fn renewal(token: &str) -> Value {
    json!({"type": "auth", "token": token})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_renewed_in_band_keeps_the_session_and_its_place() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("renewal", 2).await?;
    let gateway = world
        .setup(&[&topic])
        .limit("auth_warning_ms", 2000)
        .start()
        .await?;
    let user = |seconds: i64| {
        world
            .issuer
            .token("north")
            .scopes(contract::USER)
            .good_for(seconds)
            .sign()
    };
    let mut ws = Ws::open(gateway.address(), &user(5)).await?;
    ws.subscribe(&json!({"id": "s", "stream": "observations"}))
        .await?;
    let plan = plan::plan(&mut dice("renewal"), 2, 300);
    let mut owed = plan::owed(&plan, |planned| planned.tenant == "north");
    let records = plan::records(&plan, &topic);
    world.producer.send_all(&records[..100]).await?;
    // Events before the warning are read over here; what is owed begins anew behind them.
    ws.until("auth_required").await?;
    ws.say(&renewal(&user(3600))).await?;
    let authorized = ws.until("authorized").await?;
    ensure!(authorized["expires_at"].is_string(), "{authorized}");
    world.producer.send_all(&records[100..]).await?;
    for planned in plan[..100].iter().filter(|planned| planned.tenant == "north") {
        owed.forgive(i64::from(planned.partition), planned.n + 1);
    }
    while !owed.is_done() {
        match ws.hear().await? {
            Said::Message(message) if message["type"] == "event" => owed.take(&message["event"])?,
            Said::Message(message) => ensure!(message["type"] != "error", "{message}"),
            other => anyhow::bail!("{other:?}"),
        }
    }
    // Another subject or tenant is another principal: that ends the session.
    for token in [
        world
            .issuer
            .token("north")
            .subject("somebody-else")
            .scopes(contract::USER)
            .sign(),
        world.issuer.token("south").scopes(contract::USER).sign(),
    ] {
        let mut ws = Ws::open(gateway.address(), &user(3600)).await?;
        ws.subscribe(&json!({"id": "s", "stream": "observations"}))
            .await?;
        ws.say(&renewal(&token)).await?;
        ensure!(
            ws.end().await? == Some((4203, "principal_changed".to_owned())),
            "principal_changed"
        );
    }
    let mut ws = Ws::open(gateway.address(), &user(3600)).await?;
    ws.say(&renewal("not.a.token")).await?;
    let error = ws.until("error").await?;
    ensure!(error["code"] == "token_invalid", "{error}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_queued_under_a_withdrawn_grant_are_never_sent() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("withdrawn", 1).await?;
    let setup = world
        .setup(&[&topic])
        .limit("session_lag_bytes_max", 64 << 20)
        .limit("group_log_bytes_max", 128 << 20)
        .limit("stall_max_ms", 60_000);
    let gateway = setup.start().await?;
    let wide = world.user("north");
    let narrow = world.patient("north", "1");
    let dial = Dial {
        token: Some(wide),
        receive_bytes: Some(4096),
        ..Dial::default()
    };
    let mut ws = Ws::dial(gateway.address(), &dial)
        .await?
        .map_err(|refused| anyhow::anyhow!("{refused:?}"))?;
    ws.subscribe(&json!({"id": "s", "stream": "observations"}))
        .await?;
    let mut plan = plan::plan(&mut dice("withdrawn"), 1, 3000);
    plan.iter_mut()
        .for_each(|planned| (planned.tenant, planned.padding) = ("north", 4000));
    world.producer.send_all(&plan::records(&plan, &topic)).await?;
    // The reader takes nothing, so most of 12 MB wait in the gateway. Then the grant is narrowed.
    wait::until("the reader to lag", || async {
        let sessions = gateway.sessions().await.ok()?;
        let lag = |session: &Value| session["subscriptions"][0]["lag_bytes"].as_u64().unwrap_or(0);
        sessions
            .iter()
            .any(|session| lag(session) > 1 << 20)
            .then_some(())
    })
    .await?;
    ws.say(&renewal(&narrow)).await?;
    let mut owed = plan::owed(&plan, |_| true);
    let mut narrowed = false;
    let mut under_the_old = 0;
    while !owed.is_done() {
        match ws.hear().await? {
            Said::Message(message) if message["type"] == "authorized" => {
                narrowed = true;
                // From here on only the patient's rows are owed, from where the reader stands.
                let stands = plan.len() - owed.left();
                let mut rest = plan::owed(&plan, |planned| planned.patient == 1);
                rest.forgive(0, i64::try_from(stands)?);
                owed = rest;
            }
            Said::Message(message) if message["type"] == "event" => {
                let event = &message["event"];
                owed.take(event)?;
                if narrowed {
                    ensure!(
                        event["patient"] == "Patient/1",
                        "another patient's row after the grant was narrowed"
                    );
                    ensure!(
                        event["data"].get("note").is_none(),
                        "a hidden field after the grant was narrowed"
                    );
                } else {
                    under_the_old += 1;
                }
            }
            Said::Message(_) => {}
            other => anyhow::bail!("{other:?}"),
        }
    }
    ensure!(narrowed, "the new grant was told");
    ensure!(
        under_the_old < plan.len() / 2,
        "{under_the_old} events were given before the new grant"
    );
    say(&format!(
        "tokens: {under_the_old} of {} events were on their way, none of the rest was sent",
        plan.len()
    ));

    // A grant that is gone altogether: the subscription is completed, the session stays.
    ws.say(&renewal(&world.issuer.token("north").scopes("openid").sign()))
        .await?;
    let completed = ws.until("completed").await?;
    ensure!(completed["id"] == "s", "{completed}");
    ws.say(&json!({"type": "ping"})).await?;
    ws.until("pong").await?;
    Ok(())
}

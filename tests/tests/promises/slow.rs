//! A slow reader costs the others nothing.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tidewire_tests::gateway::Gateway;
use tidewire_tests::process;
use tidewire_tests::producer::Record;
use tidewire_tests::reader::{Reader, Surface, Want};
use tidewire_tests::volume::{say, volume};
use tidewire_tests::wait;
use tidewire_tests::ws::{self, Dial, Said, Ws};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::support::{World, alone};

/// What each session may lag behind, and what a group may hold for laggards.
const LAG_BYTES: u64 = 1 << 20;
const LOG_BYTES: u64 = 4 << 20;

async fn dial(gateway: &Gateway, token: &str, receive_bytes: Option<usize>) -> Result<Ws> {
    let dial = Dial {
        token: Some(token.to_owned()),
        receive_bytes,
        ..Dial::default()
    };
    let mut ws = Ws::dial(gateway.address(), &dial)
        .await?
        .map_err(|refused| anyhow::anyhow!("{refused:?}"))?;
    ws.subscribe(&json!({"id": "s", "stream": "observations"}))
        .await?;
    Ok(ws)
}

/// Waits until the gateway has given up so many slow readers.
async fn given_up(gateway: &Gateway, count: f64) -> Result<()> {
    wait::until("slow readers to be closed", || async {
        let closed = gateway
            .metric("hub_sessions_closed_total", &["slow_reader"])
            .await
            .ok()?;
        (closed >= count).then_some(())
    })
    .await
}

/// Takes nothing until the gateway gives it up; what it then finds must end with the code. How many events that is.
async fn take_nothing(gateway: Arc<Gateway>, mut slow: Ws) -> Result<usize> {
    given_up(&gateway, 1.0).await?;
    let mut got = 0;
    loop {
        match slow.hear().await? {
            Said::Message(message) => got += usize::from(message["type"] == "event"),
            Said::Closed { code, reason } => {
                ensure!(
                    (code, reason.as_str()) == (4002, "slow_reader"),
                    "{code} {reason}"
                );
                return Ok(got);
            }
            Said::Gone => anyhow::bail!("it was cut off after {got} events without its code"),
        }
    }
}

/// One run: twenty good readers, with or without a slow one beside them. The median latency of the good ones.
async fn run(world: &World, with_slow: bool) -> Result<Duration> {
    let topic = world.topic("slow", 1).await?;
    let mut setup = world.setup(&[&topic]);
    setup = setup
        .limit("session_lag_bytes_max", LAG_BYTES)
        .limit("group_log_bytes_max", LOG_BYTES);
    setup = setup.limit("send_buffer_bytes", 16 << 10);
    let gateway = Arc::new(setup.start().await?);
    let token = world.user("north");
    let events = volume(500, 1500);
    let mut slow = JoinSet::new();
    if with_slow {
        let ws = dial(&gateway, &token, Some(4096)).await?;
        slow.spawn(take_nothing(Arc::clone(&gateway), ws));
    }
    let begun = Instant::now();
    let mut reading = JoinSet::new();
    for _ in 0..20 {
        let mut ws = dial(&gateway, &token, None).await?;
        reading.spawn(async move {
            let mut latencies = Vec::with_capacity(events);
            while latencies.len() < events {
                match ws.hear().await? {
                    Said::Message(message) if message["type"] == "event" => {
                        let sent = message["event"]["data"]["sent_us"].as_u64().context("a time")?;
                        latencies.push(begun.elapsed().saturating_sub(Duration::from_micros(sent)));
                    }
                    Said::Message(_) => {}
                    other => anyhow::bail!("a good reader was ended: {other:?}"),
                }
            }
            Ok(latencies)
        });
    }
    let before = process::resident_bytes(gateway.pid())?;
    let mut pace = tokio::time::interval(Duration::from_millis(5));
    for n in 0..events {
        pace.tick().await;
        let sent_us = u64::try_from(begun.elapsed().as_micros())?;
        let value = json!({"partition": 0, "n": n, "sent_us": sent_us, "padding": "x".repeat(4000)});
        drop(
            world
                .producer
                .hand_over(&Record::json(&topic, &value).on(0).header("tenant", "north"))
                .await?,
        );
    }
    let mut latencies = Vec::new();
    while let Some(reader) = reading.join_next().await {
        latencies.extend(reader??);
    }
    while let Some(got) = slow.join_next().await {
        ensure!(got?? < events, "it was closed before it had everything");
        let grown = process::resident_bytes(gateway.pid())?.saturating_sub(before);
        // The log's bound, the ring of the same events, and room for the allocator.
        let ring = u64::try_from(events)? * 6000;
        ensure!(
            grown < LOG_BYTES + ring + (16 << 20),
            "memory grew by {grown} bytes"
        );
    }
    latencies.sort_unstable();
    Ok(latencies[latencies.len() / 2])
}

fn median(mut runs: Vec<Duration>) -> Duration {
    runs.sort_unstable();
    runs[runs.len() / 2]
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_reader_is_closed_with_its_code_and_the_others_do_not_notice() -> Result<()> {
    let _alone = alone().await;
    let world = World::alone().await?;
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..volume(3, 5) {
        without.push(run(&world, false).await?);
        with.push(run(&world, true).await?);
    }
    let (without, with) = (median(without), median(with));
    let allowed = (without / 10).max(Duration::from_millis(2));
    say(&format!(
        "slow reader: p50 of the others {with:?} beside it, {without:?} without it"
    ));
    ensure!(
        with <= without + allowed,
        "p50 {with:?} beside a slow reader, {without:?} without"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_bounded_whatever_the_number_of_slow_readers() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("many-slow", 1).await?;
    let mut setup = world.setup(&[&topic]).limit("ring_bytes_max", 4 << 20);
    setup = setup
        .limit("session_lag_bytes_max", LAG_BYTES)
        .limit("group_log_bytes_max", LOG_BYTES);
    setup = setup
        .limit("connections_per_principal_max", 1000)
        .limit("connections_per_tenant_max", 1000);
    let gateway = setup.limit("send_buffer_bytes", 16 << 10).start().await?;
    let token = world.user("north");
    let padding = "x".repeat(4000);
    let produce = async |from: usize, to: usize| {
        let records: Vec<_> = (from..to)
            .map(|n| {
                let value = json!({"partition": 0, "n": n, "padding": padding});
                Record::json(&topic, &value).on(0).header("tenant", "north")
            })
            .collect();
        world.producer.send_all(&records).await
    };
    // One slow reader and 40 MB first: what the ring, Kafka's client and the allocator keep is there before it is measured.
    let mut slow = vec![dial(&gateway, &token, Some(4096)).await?];
    produce(0, 10_000).await?;
    given_up(&gateway, 1.0).await?;
    let count = volume(50, 300);
    for _ in 0..count {
        slow.push(dial(&gateway, &token, Some(4096)).await?);
    }
    let before = process::resident_bytes(gateway.pid())?;
    produce(10_000, 20_000).await?;
    given_up(&gateway, f64::from(count) + 1.0).await?;
    let grown = process::resident_bytes(gateway.pid())?.saturating_sub(before);
    say(&format!(
        "slow readers: {count} of them, 40 MB of events, memory grew by {} KiB",
        grown / 1024
    ));
    // The group's log is shared: its bound does not depend on how many lag behind. The rest is for the allocator.
    ensure!(grown < LOG_BYTES + (24 << 20), "memory grew by {grown} bytes");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_of_an_event_stream_is_told_and_ended_and_resumes() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("slow-stream", 1).await?;
    let mut setup = world.setup(&[&topic]);
    setup = setup
        .limit("session_lag_bytes_max", LAG_BYTES)
        .limit("group_log_bytes_max", LOG_BYTES)
        .limit("send_buffer_bytes", 16 << 10);
    let gateway = setup.start().await?;
    let token = world.user("north");
    let mut slow = ws::connect(gateway.address(), Some(4096)).await?;
    let ask = format!(
        "GET /v1/streams/observations HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    slow.write_all(ask.as_bytes()).await?;
    let mut said = Vec::new();
    while !String::from_utf8_lossy(&said).contains("\nid: ") {
        ensure!(slow.read_buf(&mut said).await? > 0, "it ended before it began");
    }
    let padding = "x".repeat(4000);
    let plan: Vec<Record> = (0..2000)
        .map(|n| {
            let value = json!({"partition": 0, "n": n, "padding": padding});
            Record::json(&topic, &value).on(0).header("tenant", "north")
        })
        .collect();
    world.producer.send_all(&plan).await?;
    given_up(&gateway, 1.0).await?;
    slow.read_to_end(&mut said).await?;
    let text = String::from_utf8_lossy(&said);
    ensure!(
        text.ends_with("\r\n0\r\n\r\n") && text.contains("event: problem\n") && text.contains("slow_reader"),
        "it ends with {:?}",
        text.chars().rev().take(300).collect::<String>()
    );
    // From the last id that it got it goes on exactly.
    let got = text.matches("\"n\":").count();
    ensure!(got < 2000, "it got everything");
    let last = text
        .rsplit("\nid: ")
        .next()
        .and_then(|rest| rest.split('\n').next())
        .context("an id")?;
    let want = Want::new("observations", &token).after(last);
    let mut reader = Reader::open(Surface::Sse, gateway.address(), want).await?;
    for n in got..2000 {
        let event = reader.event().await?;
        ensure!(event["data"]["n"] == n, "{} instead of {n}", event["data"]["n"]);
    }
    Ok(())
}

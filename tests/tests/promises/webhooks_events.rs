//! What the gateway has to say of endpoints is a stream like any other; and a partner whose receiver is down goes on there.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tidewire_tests::reader::{Reader, Surface, Want};
use tidewire_tests::receiver::{Answer, Behaviour};
use tidewire_tests::wait;

use crate::webhooks_retries::Line;

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_to_endpoints_is_told_on_a_stream_of_the_gateway() -> Result<()> {
    let behaviour = Behaviour::by(|asked| {
        // The last one ends it.
        if asked.count > 5 {
            Answer::Status(410)
        } else {
            Answer::Status(500)
        }
    });
    let more = json!({"retry_seconds": [1], "concurrency": 1});
    let settings = [("breaker_failures", 2)];
    let mut line = Line::new("told", behaviour, more, &settings).await?;
    // Subscribed to like any other: by an endpoint too.
    let other = line.receiver.hook("events", Behaviour::good());
    other.keep(50);
    line.partner
        .hook(&other, &["webhook_events"], json!({"content": "structured"}))
        .await?;
    let want = Want::new("webhook_events", &line.partner.token).after("earliest");
    let mut reader = Reader::open(Surface::Sse, line.gateway.address(), want).await?;
    line.partner
        .tell(&line.made.id, "rotate", Some(&json!({"overlap_seconds": 60})))
        .await?;
    line.produce(3).await?;
    let mut wanted: BTreeSet<&str> = [
        "secret.rotated",
        "endpoint.failing",
        "delivery.dead_lettered",
        "endpoint.disabled",
    ]
    .into();
    let mut heard: Vec<Value> = Vec::new();
    while !wanted.is_empty() {
        let event = reader.event().await.with_context(|| {
            format!(
                "{wanted:?} are missing after {heard:?}\n{}",
                line.gateway.log_tail()
            )
        })?;
        let text = event.to_string();
        wanted.retain(|kind| !text.contains(*kind));
        ensure!(text.contains(&line.made.id), "{event}");
        ensure!(!text.contains("whsec_"), "a secret in {event}");
        heard.push(event);
    }
    wait::until_true("the endpoint of events to have them too", || {
        let bodies: String = other
            .kept()
            .iter()
            .map(|request| String::from_utf8_lossy(&request.body).into_owned())
            .collect();
        ["secret.rotated", "delivery.dead_lettered", "endpoint.disabled"]
            .iter()
            .all(|kind| bodies.contains(kind))
    })
    .await
    .with_context(|| line.gateway.log_tail())
}

/// The number of the first event after a cursor.
async fn first_after(line: &Line, cursor: &str) -> Result<i64> {
    let want = Want::new("observations", &line.partner.token).after(cursor);
    let mut reader = Reader::open(Surface::Pull, line.gateway.address(), want).await?;
    reader.event().await?["data"]["n"].as_i64().context("n")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partner_whose_receiver_is_down_goes_on_over_sse_from_the_endpoints_cursor() -> Result<()> {
    let mut line = Line::new("cursor", Behaviour::good(), json!({"retry_seconds": [600]}), &[]).await?;
    line.produce(20).await?;
    line.taken(20).await?;
    line.committed().await?;
    line.hook.behave(Behaviour::always(Answer::Status(503)));
    line.produce(10).await?;
    line.count(21).await?;
    line.committed().await?;
    // What is settled is known a little later; until then the cursor lies further back, and never further on.
    let cursor = wait::until("the cursor to stand at what is unsettled", || async {
        let said = line
            .partner
            .read(&line.made.id, "/cursor?stream=observations")
            .await
            .ok()?;
        let cursor = said["cursor"].as_str()?.to_owned();
        let first = first_after(&line, &cursor).await.ok()?;
        assert!(first <= 20, "{first} is behind what is unsettled");
        (first == 20).then_some(cursor)
    })
    .await?;
    for surface in [Surface::Sse, Surface::Pull, Surface::WebSocket] {
        let want = Want::new("observations", &line.partner.token).after(&cursor);
        let mut reader = Reader::open(surface, line.gateway.address(), want).await?;
        let mut missing: BTreeSet<i64> = (20..30).collect();
        let mut count = 0;
        while !missing.is_empty() {
            let event = reader
                .event()
                .await
                .with_context(|| format!("{surface:?}: {missing:?} are missing"))?;
            missing.remove(&event["data"]["n"].as_i64().context("n")?);
            count += 1;
        }
        ensure!(count == 10, "{surface:?}: {count} events for 10");
    }
    Ok(())
}

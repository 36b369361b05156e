//! Several nodes share the work through PostgreSQL: one dies and is taken over, another one comes.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tidewire_tests::gateway::Gateway;
use tidewire_tests::plan;
use tidewire_tests::postgres::Postgres;
use tidewire_tests::receiver::{Behaviour, Event};
use tidewire_tests::volume::{say, volume};
use tidewire_tests::wait;
use tokio::time::Instant;

use crate::support::beside;
use crate::webhooks_delivery::Field;

/// What Kafka needs to give a dead node up, and what the others may add to it.
const SESSION: Duration = Duration::from_secs(3);
const A_FEW_SECONDS: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_dies_is_taken_over_and_one_that_comes_shares_the_work() -> Result<()> {
    let _turn = beside().await;
    let postgres = Postgres::start().await?;
    let promise = "webhooks on two nodes";
    let store = postgres.database().await?;
    let mut field = Field::new(promise, Some(store), volume(600, 20_000)).await?;
    let first = field.setup.start().await?;
    let mut second = field.setup.start().await?;
    field.endpoints(promise, &first).await?;
    // The other node has learnt of them, and a witness that never fails shows how soon it takes over.
    let witness = field.receiver.hook("witness", Behaviour::good());
    let partner = tidewire_tests::partner::Partner::new(
        second.address(),
        &field
            .issuer
            .token("witness")
            .scopes(&format!(
                "system/Observation.rs {}",
                tidewire_tests::partner::SCOPES
            ))
            .sign(),
    );
    partner
        .hook(&witness, &["observations"], serde_json::json!({"content": "raw"}))
        .await?;

    // The group has formed: what is killed has something to be taken over.
    for node in [&first, &second] {
        has_partitions(node).await?;
    }
    let plan = std::mem::take(&mut field.plan);
    let mut parts = plan.chunks(plan.len().div_ceil(3));
    let produced = field.produce(parts.next()).await?;
    field.until((produced / 2) * 1000 / plan.len()).await?;
    let from = Instant::now();
    second.kill()?;
    let over = taken_over(&field, &witness, plan.len()).await?;
    // It is over when everything that was under way has arrived, from Kafka or from the store.
    field.all_of(&plan[..produced]).await?;
    field.trouble("kill", from);
    say(&format!(
        "webhooks on two nodes: one killed, all partitions are delivered again after {:.1} s (session timeout {} s)",
        over.as_secs_f64(),
        SESSION.as_secs()
    ));

    let produced = produced + field.produce(parts.next()).await?;
    field
        .until((produced - plan.len() / 6) * 1000 / plan.len())
        .await?;
    let from = Instant::now();
    let third = field.setup.start().await?;
    let (one, two) = parts
        .next()
        .map_or((&[][..], &[][..]), |part| part.split_at(part.len() / 2));
    field.produce(Some(one)).await?;
    has_partitions(&third).await?;
    let arrived = field.all_of(&plan[..produced + one.len()]).await;
    if arrived.is_err() {
        for node in [&first, &third] {
            say(&standing(node).await);
        }
    }
    arrived?;
    field.trouble("join", from);
    field.produce(Some(two)).await?;
    let all = field.until(1000).await;
    let tally = field
        .judge()
        .with_context(|| format!("{}\n{}", first.log_tail(), third.log_tail()))?;
    all?;
    say(&format!(
        "webhooks on two nodes: {} deliveries, 0 missing, 0 foreign, taken again {:?}, {} without an excuse",
        tally.owed, tally.duplicates, tally.unexplained
    ));
    ensure!(tally.unexplained == 0, "taken again without an excuse: {tally:?}");
    ensure!(over <= SESSION + A_FEW_SECONDS, "taken over after {over:?}");
    Ok(())
}

/// What a node says of its part, for whoever looks for what does not arrive.
async fn standing(node: &Gateway) -> String {
    let mut standing = String::new();
    for name in [
        "partitions",
        "open_offsets",
        "records_total",
        "held_back_total",
        "store_errors_total",
    ] {
        let metric = format!("tidewire_webhooks_{name}");
        standing.push_str(&format!("{name} {:?}; ", node.metric(&metric, &[]).await.ok()));
    }
    format!("{standing}\n{}", node.log_tail())
}

/// Waits until the group has given a node its part.
async fn has_partitions(node: &Gateway) -> Result<()> {
    wait::until("the node to have partitions", || async {
        let partitions = node.metric("tidewire_webhooks_partitions", &[]).await.ok()?;
        (partitions > 0.0).then_some(())
    })
    .await
}

/// Produces an event to each partition: how long until all of them have arrived.
async fn taken_over(
    field: &Field,
    witness: &tidewire_tests::receiver::Hook,
    first_n: usize,
) -> Result<Duration> {
    let killed = Instant::now();
    let first_n = i64::try_from(first_n)?;
    let records: Vec<_> = (0..crate::webhooks_delivery::PARTITIONS)
        .map(|partition| {
            let planned = plan::Planned {
                tenant: "witness",
                patient: 1,
                status: "final",
                partition,
                n: first_n,
                padding: 0,
            };
            planned.record(crate::webhooks_delivery::TOPIC)
        })
        .collect();
    field.producer.send_all(&records).await?;
    let all = || {
        let arrivals = witness.arrivals();
        (0..crate::webhooks_delivery::PARTITIONS).all(|partition| {
            let event = Event {
                partition,
                n: first_n,
            };
            arrivals.iter().any(|arrival| arrival.event == Some(event))
        })
    };
    wait::until_true("the other node to take over", all).await?;
    Ok(killed.elapsed())
}

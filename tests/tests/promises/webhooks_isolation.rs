//! The test that stops a known sender: one tenant's receivers drip, sleep, never accept and flood, and another tenant does
//! not notice.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tidewire_tests::gateway::Gateway;
use tidewire_tests::producer::Record;
use tidewire_tests::receiver::{Answer, Behaviour, Deaf, Event, Receiver};
use tidewire_tests::volume::say;
use tidewire_tests::wait;
use tokio::time::Instant;

use crate::support::{World, alone};

/// The issue's own number: each run's healthy tenant gets this many, and all of them.
const EVENTS: i64 = 500;

/// Runs of each kind, in turn.
const RUNS: usize = 5;

/// Between two events of each tenant.
const PACE: Duration = Duration::from_millis(8);

struct Run {
    p50: Duration,
    p99: Duration,
}

/// The endpoints of the other tenant: every way to be slow.
async fn bad(world: &World, gateway: &Gateway, receiver: &Receiver, deaf: &Deaf) -> Result<()> {
    let partner = world.partner(gateway, "south");
    for (name, answer) in [
        ("drip", Answer::Drip),
        ("slow", Answer::Slow(Duration::from_secs(20))),
        ("flood", Answer::Flood(100_000_000)),
        ("hang", Answer::Hang),
        ("reset", Answer::Reset),
    ] {
        let hook = receiver.hook(name, Behaviour::always(answer));
        partner
            .hook(&hook, &["observations"], json!({"content": "structured"}))
            .await?;
    }
    let body = json!({"url": deaf.url(), "streams": ["observations"]});
    partner.make(&body).await.context("the deaf one")?;
    Ok(())
}

async fn run(world: &World, with_bad: bool) -> Result<Run> {
    let topic = world.topic("isolated", 1).await?;
    // As it is by default: nothing is made easier for it.
    let mut webhooks = world.webhooks().await?;
    webhooks
        .settings
        .retain(|(name, _)| ["session_timeout_ms", "registry_interval_ms"].contains(name));
    let gateway = world.setup(&[&topic]).webhooks(&webhooks).start().await?;
    let receiver = Receiver::start().await?;
    let others = Receiver::start().await?;
    let deaf = Deaf::start().await?;
    if with_bad {
        bad(world, &gateway, &others, &deaf).await?;
    }
    let hook = receiver.hook("healthy", Behaviour::good());
    let partner = world.partner(&gateway, "north");
    partner
        .hook(&hook, &["observations"], json!({"content": "structured"}))
        .await?;
    let begun = Instant::now();
    let mut sent = Vec::new();
    let mut pace = tokio::time::interval(PACE);
    // The first ones open connections and are not measured.
    let warm = 50;
    for n in 0..warm + EVENTS {
        pace.tick().await;
        if n == warm {
            wait::until_true("the warm ones", || hook.taken() >= 50).await?;
            pace.reset();
        }
        sent.push(begun.elapsed());
        // The same for both tenants, whether somebody gets it or not: producing costs the same in each run.
        for tenant in ["south", "north"] {
            let value = json!({"partition": 0, "n": n, "status": "final", "note": "x".repeat(200)});
            let record = Record::json(&topic, &value).on(0).header("tenant", tenant);
            drop(world.producer.hand_over(&record).await?);
        }
    }
    let all = usize::try_from(warm + EVENTS)?;
    wait::until_count("events of the healthy tenant", all, || hook.taken())
        .await
        .with_context(|| gateway.log_tail())?;
    ensure!(hook.faults().is_empty(), "{:?}", hook.faults());
    let arrivals = hook.arrivals();
    ensure!(arrivals.len() == all, "{} came for {all}", arrivals.len());
    let mut latencies = Vec::new();
    for arrival in &arrivals {
        let Some(Event { n, .. }) = arrival.event else {
            anyhow::bail!("{arrival:?}");
        };
        if n >= warm {
            let at = arrival.at.duration_since(begun);
            latencies.push(at.saturating_sub(sent[usize::try_from(n)?]));
        }
    }
    latencies.sort();
    ensure!(latencies.len() == 500, "500 of 500");
    Ok(Run {
        p50: latencies[latencies.len() / 2],
        p99: latencies[latencies.len() * 99 / 100],
    })
}

fn median(mut values: Vec<Duration>) -> Duration {
    values.sort();
    values[values.len() / 2]
}

#[tokio::test(flavor = "multi_thread")]
async fn receivers_that_drip_sleep_flood_and_never_accept_cost_another_tenant_nothing() -> Result<()> {
    let _turn = alone().await;
    let world = World::alone().await?;
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        without.push(run(&world, false).await?);
        with.push(run(&world, true).await?);
    }
    let of = |runs: &[Run], which: fn(&Run) -> Duration| median(runs.iter().map(which).collect());
    let (p50, p50_with) = (of(&without, |run| run.p50), of(&with, |run| run.p50));
    let (p99, p99_with) = (of(&without, |run| run.p99), of(&with, |run| run.p99));
    say(&format!(
        "webhooks beside slow receivers, medians of {RUNS}: p50 {:.1} ms, {:.1} ms with them; p99 {:.1} ms, {:.1} ms with \
         them; {EVENTS} of {EVENTS} in each",
        ms(p50),
        ms(p50_with),
        ms(p99),
        ms(p99_with)
    ));
    let within = |have: Duration, base: Duration, part: u32, least: u64| {
        have <= base + (base / part).max(Duration::from_millis(least))
    };
    ensure!(
        within(p50_with, p50, 10, 2),
        "p50: {p50:?}, with them {p50_with:?}"
    );
    ensure!(
        within(p99_with, p99, 4, 20),
        "p99: {p99:?}, with them {p99_with:?}"
    );
    Ok(())
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

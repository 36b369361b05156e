//! What webhooks cost: deliveries beside a bare loop of the same HTTP client, how late they are, what a million parked ones
//! weigh, and what a storm of retries costs the sick and the healthy.

mod field;
pub mod posts;
pub mod sink;

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::field::{Field, quantiles};
use self::posts::Posts;
use super::source::BareConsumer;
use crate::process;
use crate::volume::say;

/// Gateway and bare loop take turns so many times; the table has the medians.
const ROUNDS: usize = 3;

/// Runs everything, or what has this in its name, and gives the tables as Markdown. `scale` shortens or lengthens the runs.
pub async fn table(scale: f64, only: Option<&str>) -> Result<String> {
    let wanted = |name: &str| only.is_none_or(|only| name.contains(only));
    let mut text = String::new();
    if wanted("fan-out") {
        text.push_str(
            "| endpoints | deliveries | missing, twice, parked | per second | bare loop | per CPU second | bare loop | \
             share | p50 / p99 / p99.9 ms at half load | bare consumer p50 / p99 ms |\n|---|---|---|---|---|---|---|---|---|---|\n",
        );
        for (endpoints, concurrency, events) in [(1, 64, 90_000), (10, 8, 12_000), (100, 8, 1_200)] {
            let line = match fan_out(endpoints, concurrency, scaled(events, scale), scale).await {
                Ok(line) => line,
                // The other rows are worth having all the same.
                Err(error) => format!("| {endpoints} | failed: {error:#} |"),
            };
            say(&line);
            writeln!(text, "{line}")?;
        }
    }
    if wanted("backlog") {
        text.push_str(&backlog(scaled(20_000, scale)).await?);
    }
    if wanted("parked") {
        text.push_str(&parked(scaled(10_000, scale)).await?);
    }
    if wanted("storm") {
        text.push_str(&storm(scaled(20_000, scale), scale).await?);
    }
    Ok(text)
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a count of events"
)]
fn scaled(events: u64, scale: f64) -> u64 {
    (events as f64 * scale).max(1.0) as u64
}

/// What a stretch of deliveries took.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    per_second: f64,
    per_cpu_second: f64,
}

/// Healthy endpoints, never more under way than their queues hold: nothing is parked.
async fn fan_out(endpoints: usize, concurrency: u64, events: u64, scale: f64) -> Result<String> {
    let field = Field::start(&[("north", "hook", endpoints, concurrency)]).await?;
    let tally = &field.sink.tally;
    let mut source = field.source("north")?;
    let each = endpoints as u64;
    // The queues of the endpoints hold 512 each, the way to them 4,096 in all.
    let room = (2048 / each).clamp(16, 256);
    let has_room = |produced: u64| tally.taken.load(Ordering::Relaxed) + room * each > produced * each;
    source.while_room(events.min(500), has_room).await?;
    field.taken(&tally.taken, source.produced() * each).await?;

    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let cpu = process::cpu_seconds(field.gateway.pid())?;
        let begun = Instant::now();
        source.while_room(events, has_room).await?;
        field.taken(&tally.taken, source.produced() * each).await?;
        let seconds = begun.elapsed().as_secs_f64();
        let cpu = process::cpu_seconds(field.gateway.pid())? - cpu;
        let deliveries = (events * each) as f64;
        ours.push(Stretch {
            per_second: deliveries / seconds,
            per_cpu_second: deliveries / cpu,
        });
        let posts = Posts {
            urls: (0..endpoints)
                .map(|number| field.sink.url("bare", number))
                .collect(),
            count: events * each,
            concurrency: (concurrency * each).min(256),
        };
        let cost = posts::measure(posts, field.sink.sample()).await?;
        bare.push(Stretch {
            per_second: cost.per_second,
            per_cpu_second: cost.per_cpu_second,
        });
    }
    let (ours, bare) = (median(&ours), median(&bare));

    let consumer = BareConsumer::start(field.bootstrap(), &field.topic)?;
    let rate = ours.per_second / 2.0 / each as f64;
    source.at_rate(rate, Duration::from_secs(2)).await?;
    field.taken(&tally.taken, source.produced() * each).await?;
    tally.measuring.store(true, Ordering::Relaxed);
    consumer.measure();
    source
        .at_rate(rate, Duration::from_secs_f64(10.0 * scale))
        .await?;
    field.taken(&tally.taken, source.produced() * each).await?;
    let (late, consumed) = (field.sink.latencies()?, consumer.finish()?);

    let owed = source.produced() * each;
    let missing = owed.saturating_sub(tally.taken.load(Ordering::Relaxed));
    let again = tally.again.load(Ordering::Relaxed);
    let line = format!(
        "| {endpoints} | {owed} | {missing}, {again}, {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0}% (aim 60%) | {} | {} |",
        field.parked().await?,
        ours.per_second,
        bare.per_second,
        ours.per_cpu_second,
        bare.per_cpu_second,
        100.0 * ours.per_cpu_second / bare.per_cpu_second,
        quantiles(&late, &[0.5, 0.99, 0.999]),
        quantiles(&consumed, &[0.5, 0.99]),
    );
    field.finish()?;
    Ok(line)
}

fn median(stretches: &[Stretch]) -> Stretch {
    let of = |value: fn(&Stretch) -> f64| {
        let mut values: Vec<f64> = stretches.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or_default()
    };
    Stretch {
        per_second: of(|stretch| stretch.per_second),
        per_cpu_second: of(|stretch| stretch.per_cpu_second),
    }
}

/// Everything that was produced while the gateway stood still, to ten endpoints.
async fn backlog(events: u64) -> Result<String> {
    const ENDPOINTS: u64 = 10;
    let field = Field::start(&[("north", "hook", 10, 8)]).await?;
    let tally = &field.sink.tally;
    let mut source = field.source("north")?;
    source.burst(100).await?;
    field.taken(&tally.taken, source.produced() * ENDPOINTS).await?;
    let pid = field.gateway.pid();
    process::signal(pid, "STOP")?;
    let produced = source.burst(events).await;
    let cpu = process::cpu_seconds(pid)?;
    process::signal(pid, "CONT")?;
    produced?;
    let begun = Instant::now();
    field.taken(&tally.taken, source.produced() * ENDPOINTS).await?;
    let seconds = begun.elapsed().as_secs_f64();
    let cpu = process::cpu_seconds(pid)? - cpu;
    let deliveries = (events * ENDPOINTS) as f64;
    let line = format!(
        "\nA backlog of {events} events to {ENDPOINTS} endpoints: {:.0} deliveries a second, {:.0} per CPU second; {:.0} of {} were \
         parked on the way, {} came twice.\n",
        deliveries / seconds,
        deliveries / cpu,
        field.parked().await?,
        events * ENDPOINTS,
        tally.again.load(Ordering::Relaxed),
    );
    say(&line);
    field.finish()?;
    Ok(line)
}

/// A hundred endpoints that are paused.
async fn parked(events: u64) -> Result<String> {
    const ENDPOINTS: usize = 100;
    let field = Field::start(&[("north", "hook", ENDPOINTS, 8)]).await?;
    field.pause("north").await?;
    let mut source = field.source("north")?;
    source.burst(10).await?;
    field.parked_are(10.0 * ENDPOINTS as f64).await?;
    let pid = field.gateway.pid();
    let (bytes, cpu) = (process::resident_bytes(pid)?, process::cpu_seconds(pid)?);
    let begun = Instant::now();
    source.burst(events).await?;
    let count = (events * ENDPOINTS as u64) as f64;
    field.parked_are(10.0 * ENDPOINTS as f64 + count).await?;
    let seconds = begun.elapsed().as_secs_f64();
    let cpu = process::cpu_seconds(pid)? - cpu;
    let most = process::resident_bytes(pid)?;
    let line = format!(
        "\n{count:.0} deliveries parked in SQLite: {:.0} s, {:.0} a second, {:.0} us of CPU each; the gateway's resident memory was \
         {:.0} MiB before and {:.0} MiB after, the store has {:.0} MiB ({:.0} bytes each).\n",
        seconds,
        count / seconds,
        1e6 * cpu / count,
        mib(bytes),
        mib(most),
        mib(field.store_bytes()?),
        field.store_bytes()? as f64 / count,
    );
    say(&line);
    ensure!(
        field.sink.tally.taken.load(Ordering::Relaxed) == 0,
        "a paused endpoint was called"
    );
    field.finish()?;
    Ok(line)
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// One tenant's endpoint fails for a while, and recovers with all of it parked, beside a healthy tenant's.
async fn storm(events: u64, scale: f64) -> Result<String> {
    let field = Field::start(&[("north", "hook", 1, 8), ("south", "sick", 1, 64)]).await?;
    let tally = &field.sink.tally;
    let pid = field.gateway.pid();
    let mut sick = field.source("south")?;
    let mut source = field.source("north")?;
    let over = Arc::new(AtomicBool::new(false));
    let ends = Arc::clone(&over);
    let mut healthy = JoinSet::new();
    healthy.spawn(async move {
        while !ends.load(Ordering::Relaxed) {
            source.at_rate(200.0, Duration::from_millis(500)).await?;
        }
        Ok::<_, anyhow::Error>(source.produced())
    });
    let warm = Duration::from_secs(2);
    tokio::time::sleep(warm).await;

    tally.measuring.store(true, Ordering::Relaxed);
    let (cpu, begun) = (process::cpu_seconds(pid)?, Instant::now());
    tokio::time::sleep(Duration::from_secs_f64(10.0 * scale)).await;
    let idle = (process::cpu_seconds(pid)? - cpu) / begun.elapsed().as_secs_f64();
    let alone = field.sink.latencies()?;

    tally.sick.store(500, Ordering::Relaxed);
    let (cpu, begun) = (process::cpu_seconds(pid)?, Instant::now());
    sick.burst(events).await?;
    field.parked_are(events as f64).await?;
    let seconds = begun.elapsed().as_secs_f64();
    let failing = process::cpu_seconds(pid)? - cpu - idle * seconds;
    let refused = tally.refused.load(Ordering::Relaxed);
    let beside_failing = field.sink.latencies()?;

    tally.sick.store(200, Ordering::Relaxed);
    let (cpu, begun) = (process::cpu_seconds(pid)?, Instant::now());
    field.taken(&tally.recovered, sick.produced()).await?;
    let seconds = begun.elapsed().as_secs_f64();
    let recovering = process::cpu_seconds(pid)? - cpu - idle * seconds;
    let beside_storm = field.sink.latencies()?;

    over.store(true, Ordering::Relaxed);
    let produced = healthy.join_next().await.context("a source")???;
    field.taken(&tally.taken, produced).await?;
    let again = tally.again.load(Ordering::Relaxed);
    let (count, at) = (events as f64, |late: &Histogram<u64>| {
        quantiles(late, &[0.5, 0.99, 0.999])
    });
    let line = format!(
        "\nA storm of retries: a receiver answers 500 while {events} events come ({refused} attempts were made until its breaker kept \
         the rest back; {:.0} us of CPU an event, parked), then recovers: {events} deliveries in {seconds:.1} s, {:.0} a second, \
         {:.0} us of CPU each, {again} twice. Another tenant's p50 / p99 / p99.9, 200 events a second: {} ms before, {} ms while it \
         failed, {} ms while it recovered; {produced} of {produced} arrived.\n",
        1e6 * failing / count,
        count / seconds,
        1e6 * recovering / count,
        at(&alone),
        at(&beside_failing),
        at(&beside_storm),
    );
    say(&line);
    field.finish()?;
    Ok(line)
}

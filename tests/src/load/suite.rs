//! The table of `BENCHMARKS.md`: a Kafka and a gateway of its own, each scenario with its reference points.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, Result};

use super::bare::{self, Bare};
use super::cores::Cores;
use super::readers::Protocol;
use super::scenario::{self, Flow, Outcome, Target};
use crate::contract;
use crate::gateway::{Gateway, Setup};
use crate::issuer::Issuer;
use crate::kafka::Kafka;
use crate::topics::Topics;
use crate::volume::say;

/// What the suite runs.
struct Row {
    name: &'static str,
    protocol: Protocol,
    readers: usize,
    flow: Flow,
    /// What the bare loop writes at once.
    bare_batch: usize,
    /// The share of the bare loop's deliveries per CPU second that is aimed at.
    aim: Option<f64>,
    /// The rate is half of what the machine can do, and what counts is how late events come.
    is_half: bool,
}

/// How much later than the bare consumer 99 of 100 events may come, in milliseconds, at half load.
const LATER_MS_MAX: f64 = 10.0;
/// What a connection may cost, idle, in KiB; where there are enough of them for the process's own memory not to count.
const IDLE_KIB_MAX: f64 = 8.0;

fn rows(scale: f64) -> Vec<Row> {
    let run = Duration::from_secs_f64(10.0 * scale);
    let ws = Protocol::Websocket;
    let row = |name, protocol, readers, flow, bare_batch, aim| Row {
        name,
        protocol,
        readers,
        flow,
        bare_batch,
        aim,
        is_half: false,
    };
    let half = |row| Row { is_half: true, ..row };
    vec![
        row(
            "sparse, 1 event / 20 ms",
            ws,
            1000,
            Flow::Rate(50.0, run),
            1,
            Some(0.75),
        ),
        row(
            "sparse, 1 event / 250 ms",
            ws,
            10_000,
            Flow::Rate(4.0, run),
            1,
            Some(0.75),
        ),
        row(
            "sparse, 1 event / 20 ms",
            Protocol::Sse,
            1000,
            Flow::Rate(50.0, run),
            1,
            Some(0.75),
        ),
        row(
            "sparse, 1 event / 250 ms",
            Protocol::Sse,
            10_000,
            Flow::Rate(4.0, run),
            1,
            Some(0.75),
        ),
        half(row("half load", ws, 1000, Flow::Rate(0.0, run), 1, None)),
        half(row(
            "half load",
            Protocol::Sse,
            1000,
            Flow::Rate(0.0, run),
            1,
            None,
        )),
        row("dense, 1 event / 5 ms", ws, 1000, Flow::Rate(200.0, run), 1, None),
        row("backlog of 1,000", ws, 1000, Flow::Backlog(1000), 100, Some(0.5)),
        row(
            "backlog of 1,000",
            Protocol::Sse,
            1000,
            Flow::Backlog(1000),
            100,
            Some(0.5),
        ),
        row("backlog of 100", ws, 10_000, Flow::Backlog(100), 100, None),
    ]
}

/// Runs everything, or the rows with this in their name, and gives the table as Markdown. `scale` shortens or lengthens
/// the runs. Servers are moved to the cores that are for them.
pub async fn table(scale: f64, only: Option<&str>, cores: Option<&Cores>) -> Result<String> {
    let kafka = Kafka::shared().await;
    let issuer = Issuer::start().await?;
    let mut text = String::from(
        "| scenario | readers | deliveries | gaps, twice | p50 / p99 / p99.9 ms | bare consumer p50 / p99 ms | \
         deliveries per CPU second | bare loop | share | KiB per idle / loaded connection |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
    );
    say(&match cores.map(Cores::counts) {
        Some((server, others)) => format!("cores: {server} for the server, {others} for all else"),
        None => "one core, which all share".to_owned(),
    });
    for row in rows(scale)
        .into_iter()
        .filter(|row| only.is_none_or(|only| row.name.contains(only)))
    {
        let line = match rounds(kafka, &issuer, &row, cores).await {
            Ok(rounds) => line(&row, &rounds),
            // The other rows are worth having all the same.
            Err(error) => format!(
                "| {}, {:?} | {} | failed: {error:#} |",
                row.name, row.protocol, row.readers
            ),
        };
        say(&line);
        writeln!(text, "{line}")?;
    }
    Ok(text)
}

/// What a row came to, and the bare loop beside it.
type Round = (Outcome, f64);

/// Where something is aimed at, gateway and bare loop take turns three times. Ordered by what is aimed at; the middle one counts.
async fn rounds(kafka: &Kafka, issuer: &Issuer, row: &Row, cores: Option<&Cores>) -> Result<Vec<Round>> {
    let count = if row.aim.is_some() || row.is_half { 3 } else { 1 };
    let mut rounds = Vec::with_capacity(count);
    for _ in 0..count {
        rounds.push(one(kafka, issuer, row, cores).await?);
    }
    if row.is_half {
        rounds.sort_by(|(a, _), (b, _)| later(a).total_cmp(&later(b)));
    } else {
        rounds.sort_by(|a, b| share(a).total_cmp(&share(b)));
    }
    Ok(rounds)
}

/// How much later than the bare consumer 99 of 100 events came, in milliseconds.
fn later(outcome: &Outcome) -> f64 {
    let at = |latencies: &hdrhistogram::Histogram<u64>| latencies.value_at_quantile(0.99) as f64 / 1000.0;
    at(&outcome.latencies) - at(&outcome.bare_latencies)
}

fn share((outcome, bare): &Round) -> f64 {
    100.0 * outcome.deliveries_per_cpu_second() / bare
}

async fn one(kafka: &Kafka, issuer: &Issuer, row: &Row, cores: Option<&Cores>) -> Result<Round> {
    let flow = match row.flow {
        Flow::Rate(_, how_long) if row.is_half => Flow::Rate(half_rate(row, cores).await?, how_long),
        flow => flow,
    };
    let topic = format!("load-{:08x}", rand::random::<u32>());
    Topics::new(kafka.bootstrap())?.create(&topic, 1, &[]).await?;
    let gateway = gateway(kafka, issuer, &topic).await?;
    if let Some(cores) = cores {
        cores.give(gateway.pid())?;
    }
    let target = Target {
        address: gateway.address(),
        pid: gateway.pid(),
        bootstrap: kafka.bootstrap().to_owned(),
        streams: vec![("observations".to_owned(), topic)],
        token: issuer.token("north").scopes(contract::USER).sign(),
        operations: Vec::new(),
    };
    let outcome = scenario::run(&target, row.protocol, row.readers, flow)
        .await
        .with_context(|| gateway.log_tail())?;
    drop(gateway);
    let (events, interval_us) = match flow {
        Flow::Rate(per_second, how_long) => {
            let events = (per_second * how_long.as_secs_f64()).round();
            (events, Duration::from_secs_f64(1.0 / per_second).as_micros())
        }
        Flow::Backlog(count) => (count as f64, 0),
    };
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a count of events"
    )]
    let events = events as usize;
    let bare = Bare {
        readers: row.readers,
        frame_bytes: outcome.frame_bytes,
        events,
        interval_us: u64::try_from(interval_us)?,
        batch: row.bare_batch,
    };
    Ok((outcome, bare::measure(&bare, cores).await?))
}

/// Half of the events a second with which a bare loop, one write an event, would fill the core that it has.
async fn half_rate(row: &Row, cores: Option<&Cores>) -> Result<f64> {
    let bare = Bare {
        readers: row.readers,
        // About what an event of the suite is on the wire.
        frame_bytes: 700,
        events: 500,
        interval_us: 0,
        batch: 1,
    };
    let deliveries = bare::measure(&bare, cores).await?;
    Ok((deliveries / row.readers as f64 / 2.0).round())
}

async fn gateway(kafka: &Kafka, issuer: &Issuer, topic: &str) -> Result<Gateway> {
    let mut setup = Setup::new(kafka.bootstrap(), issuer, contract::observations(&[topic]));
    for limit in [
        "connections_max",
        "connections_per_tenant_max",
        "connections_per_principal_max",
    ] {
        setup = setup.limit(limit, 15_000);
    }
    setup.start().await
}

fn line(row: &Row, rounds: &[Round]) -> String {
    let Some(middle) = rounds.get(rounds.len() / 2) else {
        return String::new();
    };
    let (outcome, bare) = middle;
    let ms = |us: u64| format!("{:.1}", us as f64 / 1000.0);
    let at = |share: f64| ms(outcome.latencies.value_at_quantile(share));
    let bare_at = |share: f64| ms(outcome.bare_latencies.value_at_quantile(share));
    let ours = outcome.deliveries_per_cpu_second();
    let shares: Vec<String> = rounds
        .iter()
        .map(|round| format!("{:.0}%", share(round)))
        .collect();
    let aim = row.aim.map_or(String::new(), |aim| {
        format!(" of {} (aim {:.0}%)", shares.join(", "), aim * 100.0)
    });
    let (later, idle) = (later(outcome), outcome.idle_bytes / 1024.0);
    let later = if row.is_half {
        let rate = outcome.deliveries as f64 / outcome.readers as f64 / outcome.seconds;
        format!(" (p99 {later:.1} ms later at {rate:.0} a second, aim {LATER_MS_MAX:.0})")
    } else {
        String::new()
    };
    // What the process itself takes counts for little among ten thousand.
    let kib = if row.readers >= 10_000 {
        format!(" (aim {IDLE_KIB_MAX:.0})")
    } else {
        String::new()
    };
    format!(
        "| {}, {:?} | {} | {} | {}, {} | {} / {} / {} | {} / {}{later} | {:.0} | {bare:.0} | {:.0}%{aim} | {idle:.1} / {:.1}{kib} |",
        row.name,
        row.protocol,
        outcome.readers,
        outcome.deliveries,
        outcome.gaps,
        outcome.duplicates,
        at(0.5),
        at(0.99),
        at(0.999),
        bare_at(0.5),
        bare_at(0.99),
        ours,
        share(middle),
        outcome.loaded_bytes / 1024.0,
    )
}

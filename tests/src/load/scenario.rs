//! One measured run: readers on a gateway, events at a rate or as a backlog, and what that cost.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;

use super::readers::{Crowd, Plan, Protocol, Tally};
use super::source::{BareConsumer, Source};
use crate::{process, wait};

/// How events come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Flow {
    /// So many a second, for so long.
    Rate(f64, Duration),
    /// All at once: the gateway stands still until Kafka has them.
    Backlog(u64),
}

/// Where a gateway is, and how it is read.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its public address.
    pub address: SocketAddr,
    /// Its process, on this machine.
    pub pid: u32,
    /// Its Kafka.
    pub bootstrap: String,
    /// The streams, and the topic that each reads.
    pub streams: Vec<(String, String)>,
    /// A token that gives all rows of the tenant `north`.
    pub token: String,
    /// GraphQL: the payloads of `subscribe`.
    pub operations: Vec<String>,
}

/// What a run showed.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Readers.
    pub readers: usize,
    /// Events taken by all of them.
    pub deliveries: u64,
    /// Bytes of one event on the wire, on average.
    pub frame_bytes: usize,
    /// Events that some reader missed.
    pub gaps: u64,
    /// Events that some reader got twice.
    pub duplicates: u64,
    /// From produce to receipt, in microseconds.
    pub latencies: Histogram<u64>,
    /// The same for a consumer without a gateway.
    pub bare_latencies: Histogram<u64>,
    /// The gateway's user and system time while it delivered.
    pub cpu_seconds: f64,
    /// Seconds from the first event to the last delivery.
    pub seconds: f64,
    /// Resident memory that each idle connection added.
    pub idle_bytes: f64,
    /// And each connection under load, over the gateway without any.
    pub loaded_bytes: f64,
}

impl Outcome {
    /// Deliveries per CPU second of the gateway.
    #[must_use]
    pub fn deliveries_per_cpu_second(&self) -> f64 {
        self.deliveries as f64 / self.cpu_seconds
    }
}

/// Runs it.
pub async fn run(target: &Target, protocol: Protocol, readers: usize, flow: Flow) -> Result<Outcome> {
    let topics: Vec<String> = target.streams.iter().map(|(_, topic)| topic.clone()).collect();
    let mut source = Source::new(&target.bootstrap, topics.clone())?;
    let before = process::resident_bytes(target.pid)?;
    let crowd = Crowd::start(Plan {
        address: target.address,
        protocol,
        count: readers,
        token: target.token.clone(),
        streams: target.streams.iter().map(|(name, _)| name.clone()).collect(),
        operations: target.operations.clone(),
        silent: false,
    });
    let tally = &crowd.tally;
    let open = wait::until_true("the readers to be subscribed", || {
        tally.open.load(Ordering::Relaxed) == readers
    });
    if let Err(error) = open.await {
        let how_many = tally.open.load(Ordering::Relaxed);
        let why = crowd.finish().err();
        return Err(error).with_context(|| format!("{how_many} of {readers} are: {why:?}"));
    }
    let idle = process::resident_bytes(target.pid)?;
    let bare = BareConsumer::start(&target.bootstrap, topics.first().context("a topic")?)?;

    // Warm: every path has been taken once, every socket has been written to, the consumer has its position.
    source.at_rate(5.0, Duration::from_secs(2)).await?;
    let warm = settle(tally).await?;
    let bytes_before = tally.bytes.load(Ordering::Relaxed);
    tally.measuring.store(true, Ordering::Relaxed);
    bare.measure();
    let cpu_before = process::cpu_seconds(target.pid)?;
    let begun = tokio::time::Instant::now();
    let events = match flow {
        Flow::Rate(per_second, how_long) => source.at_rate(per_second, how_long).await?,
        Flow::Backlog(count) => {
            process::signal(target.pid, "STOP")?;
            let produced = source.burst(count).await;
            process::signal(target.pid, "CONT")?;
            produced?;
            count
        }
    };
    let owed = warm + events * readers as u64;
    let all = wait::until_true("every delivery", || {
        tally.deliveries.load(Ordering::Relaxed) >= owed || tally.ended.load(Ordering::Relaxed) > 0
    });
    let all = all.await.map(|()| tally.ended.load(Ordering::Relaxed));
    let seconds = begun.elapsed().as_secs_f64();
    let cpu_seconds = process::cpu_seconds(target.pid)? - cpu_before;
    let loaded = process::resident_bytes(target.pid)?;
    let deliveries = tally.deliveries.load(Ordering::Relaxed) - warm;
    let bytes = tally.bytes.load(Ordering::Relaxed) - bytes_before;
    let (gaps, duplicates) = (
        tally.gaps.load(Ordering::Relaxed),
        tally.duplicates.load(Ordering::Relaxed),
    );
    let latencies = crowd.finish()?;
    let bare_latencies = bare.finish()?;
    let ended =
        all.with_context(|| format!("{deliveries} of {} came, {gaps} gaps", events * readers as u64))?;
    ensure!(ended == 0, "{ended} readers were closed");
    let each = |now: u64| now.saturating_sub(before) as f64 / readers as f64;
    Ok(Outcome {
        readers,
        deliveries,
        frame_bytes: usize::try_from(bytes / deliveries.max(1))?,
        gaps,
        duplicates,
        latencies,
        bare_latencies,
        cpu_seconds,
        seconds,
        idle_bytes: each(idle),
        loaded_bytes: each(loaded),
    })
}

/// Waits until no delivery is under way: how many there were.
async fn settle(tally: &Tally) -> Result<u64> {
    let mut last = (0, tokio::time::Instant::now());
    wait::until("the deliveries to settle", || {
        let now = tally.deliveries.load(Ordering::Relaxed);
        if now != last.0 {
            last = (now, tokio::time::Instant::now());
        }
        let quiet = now > 0 && last.1.elapsed() > Duration::from_secs(1);
        std::future::ready(quiet.then_some(now))
    })
    .await
}

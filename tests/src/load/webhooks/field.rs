//! A gateway with endpoints, and receivers that count.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};
use hdrhistogram::Histogram;
use serde_json::json;
use tokio::time::Instant;

use super::sink::Sink;
use crate::contract;
use crate::gateway::{Gateway, Setup, Webhooks};
use crate::issuer::Issuer;
use crate::kafka::Kafka;
use crate::leash;
use crate::load::source::Source;
use crate::partner::{Partner, SCOPES};
use crate::topics::Topics;
use crate::wait;

/// The size of an event's data.
const BYTES: usize = 1000;

pub(super) struct Field {
    pub(super) sink: Sink,
    pub(super) gateway: Gateway,
    pub(super) topic: String,
    kafka: &'static Kafka,
    /// Tenant, its partner, the endpoint's id.
    endpoints: Vec<(&'static str, Partner, String)>,
    store: PathBuf,
    _issuer: Issuer,
}

impl Field {
    /// Starts a gateway with endpoints: tenant, kind of receiver, how many, attempts at once.
    pub(super) async fn start(wanted: &[(&'static str, &str, usize, u64)]) -> Result<Self> {
        let kafka = Kafka::shared().await;
        let issuer = Issuer::start().await?;
        let topics = Topics::new(kafka.bootstrap())?;
        let run = format!("{:08x}", rand::random::<u32>());
        let named = |name: &str| format!("load-{name}-{run}");
        for name in ["events", "dead-letters", "webhook-events"] {
            topics.create(&named(name), 1, &[]).await?;
        }
        let folder = tempfile::Builder::new()
            .prefix("tidewire-store-")
            .tempdir()?
            .keep();
        leash::sweep(&folder);
        let store = folder.join("webhooks.db");
        let webhooks = Webhooks {
            store: format!("sqlite:{}", store.display()),
            group: named("group"),
            dead_letters: named("dead-letters"),
            events: named("webhook-events"),
            control: named("control"),
            allow_loopback: true,
            settings: Vec::new(),
        };
        let topic = named("events");
        let streams = contract::observations(&[&topic]);
        let gateway = Setup::new(kafka.bootstrap(), &issuer, streams)
            .webhooks(&webhooks)
            .start()
            .await?;
        let sink = Sink::start()?;
        let mut endpoints = Vec::new();
        for (tenant, kind, count, concurrency) in wanted {
            let scopes = format!("{} {SCOPES}", contract::USER);
            let partner = Partner::new(gateway.address(), &issuer.token(tenant).scopes(&scopes).sign());
            for number in 0..*count {
                let body = json!({
                    "url": sink.url(kind, number), "streams": ["observations"], "content": "binary",
                    "concurrency": concurrency, "retry_seconds": [5, 5, 5, 5, 5, 5, 5, 5, 5],
                });
                endpoints.push((*tenant, partner.clone(), partner.make(&body).await?.id));
            }
        }
        wait::until("the node to have the partition", || async {
            let partitions = gateway.metric("tidewire_webhooks_partitions", &[]).await.ok()?;
            (partitions > 0.0).then_some(())
        })
        .await?;
        Ok(Self {
            sink,
            gateway,
            topic,
            kafka,
            endpoints,
            store,
            _issuer: issuer,
        })
    }

    pub(super) fn bootstrap(&self) -> &str {
        self.kafka.bootstrap()
    }

    /// Events of a tenant.
    pub(super) fn source(&self, tenant: &'static str) -> Result<Source> {
        Ok(Source::new(self.bootstrap(), vec![self.topic.clone()])?
            .of(BYTES)
            .tenant(tenant))
    }

    /// Pauses a tenant's endpoints.
    pub(super) async fn pause(&self, tenant: &str) -> Result<()> {
        for (_, partner, id) in self.endpoints.iter().filter(|(whose, ..)| *whose == tenant) {
            partner.tell(id, "pause", None).await?;
        }
        Ok(())
    }

    /// Waits until a count is what is wanted, for as long as it grows.
    pub(super) async fn taken(&self, count: &AtomicU64, wanted: u64) -> Result<()> {
        let wanted = usize::try_from(wanted)?;
        let count = || usize::try_from(count.load(Ordering::Relaxed)).unwrap_or(usize::MAX);
        wait::until_count("deliveries", wanted, count).await
    }

    /// Deliveries that were parked so far.
    pub(super) async fn parked(&self) -> Result<f64> {
        self.gateway.metric("tidewire_webhooks_parked_total", &[]).await
    }

    /// Waits until so many are parked, for as long as it becomes more.
    pub(super) async fn parked_are(&self, wanted: f64) -> Result<()> {
        let mut last = (self.parked().await?, Instant::now());
        while last.0 < wanted {
            if last.1.elapsed() > wait::DEADLINE {
                bail!("{} of {wanted} were parked, and no more for a while", last.0);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            let now = self.parked().await?;
            if now > last.0 {
                last = (now, Instant::now());
            }
        }
        Ok(())
    }

    /// What the store takes on the disk.
    pub(super) fn store_bytes(&self) -> Result<u64> {
        let mut bytes = 0;
        for end in ["", "-wal", "-shm"] {
            let path = PathBuf::from(format!("{}{end}", self.store.display()));
            if path.exists() {
                bytes += path.metadata()?.len();
            }
        }
        Ok(bytes)
    }

    /// Ends everything.
    pub(super) fn finish(self) -> Result<()> {
        let Self {
            gateway, sink, store, ..
        } = self;
        drop(gateway);
        sink.finish()?;
        if let Some(folder) = store.parent() {
            std::fs::remove_dir_all(folder)?;
        }
        Ok(())
    }
}

/// Milliseconds at these shares, beside each other.
pub(super) fn quantiles(latencies: &Histogram<u64>, shares: &[f64]) -> String {
    let at = shares
        .iter()
        .map(|share| format!("{:.1}", latencies.value_at_quantile(*share) as f64 / 1000.0));
    at.collect::<Vec<_>>().join(" / ")
}

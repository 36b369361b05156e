//! What is counted about webhooks. Labels are words of ours: never endpoints, tenants or ids.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// The counters; cheap to clone, clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    attempts: Family<ByOutcome, Counter>,
    latency: Histogram,
    pub(crate) age: Histogram,
    pub(crate) records: Counter,
    pub(crate) parked: Counter,
    pub(crate) dead_letters: Counter,
    pub(crate) replayed: Counter,
    pub(crate) expired: Counter,
    pub(crate) lost: Counter,
    pub(crate) backlog: Gauge,
    pub(crate) notices: Counter,
    pub(crate) notices_dropped: Counter,
    pub(crate) attempts_unlogged: Counter,
    pub(crate) bodies_unlogged: Counter,
    pub(crate) store_errors: Counter,
    pub(crate) partitions: Gauge,
    pub(crate) open_offsets: Gauge,
    pub(crate) held_back: Counter,
    pub(crate) commits: Counter,
    pub(crate) commits_failed: Counter,
    pub(crate) readers_busy: Counter,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByOutcome {
    outcome: &'static str,
}

impl Metrics {
    /// Registers the counters, under `webhooks_`.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            attempts: Family::default(),
            // A millisecond to half a minute.
            latency: Histogram::new(exponential_buckets(0.001, 2.0, 16)),
            age: Histogram::new(exponential_buckets(0.001, 2.0, 18)),
            records: Counter::default(),
            parked: Counter::default(),
            dead_letters: Counter::default(),
            replayed: Counter::default(),
            expired: Counter::default(),
            lost: Counter::default(),
            backlog: Gauge::default(),
            notices: Counter::default(),
            notices_dropped: Counter::default(),
            attempts_unlogged: Counter::default(),
            bodies_unlogged: Counter::default(),
            store_errors: Counter::default(),
            partitions: Gauge::default(),
            open_offsets: Gauge::default(),
            held_back: Counter::default(),
            commits: Counter::default(),
            commits_failed: Counter::default(),
            readers_busy: Counter::default(),
        };
        let ours = registry.sub_registry_with_prefix("webhooks");
        ours.register("attempts", "Attempts, by outcome", metrics.attempts.clone());
        ours.register(
            "attempt_seconds",
            "How long attempts took",
            metrics.latency.clone(),
        );
        ours.register(
            "delivery_age_seconds",
            "From a record's own time to its delivery, of those that were never parked",
            metrics.age.clone(),
        );
        let counters: [(&str, &str, &Counter); 15] = [
            ("records", "Records that were planned", &metrics.records),
            ("parked", "Deliveries that were parked", &metrics.parked),
            (
                "dead_letters",
                "Deliveries that were given up",
                &metrics.dead_letters,
            ),
            (
                "replayed",
                "Deliveries that were found by replays and catch-ups",
                &metrics.replayed,
            ),
            (
                "expired",
                "Parked deliveries that were dropped for their age",
                &metrics.expired,
            ),
            (
                "lost",
                "Times that a partition began behind what was owed: Kafka had it no more",
                &metrics.lost,
            ),
            ("notices", "Operational events", &metrics.notices),
            (
                "notices_dropped",
                "Operational events that were not told",
                &metrics.notices_dropped,
            ),
            (
                "attempts_unlogged",
                "Attempts that were not logged",
                &metrics.attempts_unlogged,
            ),
            (
                "bodies_unlogged",
                "Attempts that were logged without their bodies: too many waited to be written",
                &metrics.bodies_unlogged,
            ),
            (
                "store_errors",
                "Calls to the store that failed",
                &metrics.store_errors,
            ),
            (
                "held_back",
                "Times that partitions were paused: more is read than is settled",
                &metrics.held_back,
            ),
            ("commits", "Commits of offsets", &metrics.commits),
            (
                "commits_failed",
                "Commits that Kafka refused",
                &metrics.commits_failed,
            ),
            (
                "readers_busy",
                "Requests that were told to come again because others had Kafka read for them",
                &metrics.readers_busy,
            ),
        ];
        for (name, help, counter) in counters {
            ours.register(name, help, counter.clone());
        }
        ours.register(
            "backlog",
            "Deliveries that are parked in the store, on all nodes that share it; looked at once a minute",
            metrics.backlog.clone(),
        );
        ours.register(
            "partitions",
            "Partitions that this node delivers",
            metrics.partitions.clone(),
        );
        ours.register(
            "open_offsets",
            "Offsets that wait for a delivery to be over or parked",
            metrics.open_offsets.clone(),
        );
        metrics
    }

    pub(crate) fn attempt(&self, outcome: &'static str, latency: Duration) {
        self.attempts.get_or_create(&ByOutcome { outcome }).inc();
        self.latency.observe(latency.as_secs_f64());
    }
}

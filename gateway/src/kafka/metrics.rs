//! What is counted on Kafka's side. Labels are names from contracts and stable words, never data.

use auth::control::{EntryKind, Knowledge};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ByStream {
    pub(super) stream: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ByReason {
    pub(super) stream: String,
    pub(super) reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ByPartition {
    pub(super) topic: String,
    pub(super) partition: i32,
}

/// The live path's.
#[derive(Debug, Clone, Default)]
pub(super) struct SourceMetrics {
    pub(super) records: Family<ByStream, Counter>,
    pub(super) bytes: Family<ByStream, Counter>,
    pub(super) rejected: Family<ByReason, Counter>,
    pub(super) lost: Family<ByStream, Counter>,
    pub(super) held_back: Family<ByStream, Counter>,
    pub(super) lag: Family<ByPartition, Gauge>,
    pub(super) topics_missing: Gauge,
    pub(super) streams_read: Gauge,
    pub(super) reachable: Gauge,
    pub(super) dead_letters: Counter,
    pub(super) dead_letters_failed: Counter,
    pub(super) dead_letters_dropped: Counter,
}

impl SourceMetrics {
    /// `registry` gives the prefix.
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register("source_records", "Records read live", metrics.records.clone());
        registry.register(
            "source_bytes",
            "Bytes of records read live",
            metrics.bytes.clone(),
        );
        registry.register(
            "source_rejected",
            "Records that are no event of their stream, for each reader of new records: live, and webhooks",
            metrics.rejected.clone(),
        );
        registry.register(
            "source_lost",
            "Times that Kafka deleted records before they were read",
            metrics.lost.clone(),
        );
        registry.register(
            "source_held_back",
            "Times that a stream's partitions were paused because its sequencer was behind",
            metrics.held_back.clone(),
        );
        registry.register(
            "source_lag",
            "Offsets between the live position and the log's end",
            metrics.lag.clone(),
        );
        registry.register(
            "source_topics_missing",
            "Wanted topics that do not exist",
            metrics.topics_missing.clone(),
        );
        registry.register(
            "source_streams_read",
            "Streams whose topics are read live, because somebody reads them or did so a moment ago",
            metrics.streams_read.clone(),
        );
        registry.register(
            "source_reachable",
            "1 while Kafka answers",
            metrics.reachable.clone(),
        );
        registry.register(
            "dead_letters",
            "Dead letters written",
            metrics.dead_letters.clone(),
        );
        registry.register(
            "dead_letters_failed",
            "Attempts to write a dead letter that failed; each is tried again",
            metrics.dead_letters_failed.clone(),
        );
        registry.register(
            "dead_letters_dropped",
            "Dead letters given up because too many waited",
            metrics.dead_letters_dropped.clone(),
        );
        metrics
    }
}

/// The control topic's.
#[derive(Debug, Clone, Default)]
pub(super) struct ControlMetrics {
    records: Family<ByOutcome, Counter>,
    entries: Family<ByKind, Gauge>,
    pub(super) readings: Counter,
    pub(super) staleness_ms: Gauge,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByOutcome {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByKind {
    kind: &'static str,
}

impl ControlMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "control_records",
            "Records of the control topic, by what became of them (applied, unknown, malformed)",
            metrics.records.clone(),
        );
        registry.register(
            "control_entries",
            "What is known, by kind",
            metrics.entries.clone(),
        );
        registry.register(
            "control_readings",
            "Times that the control topic was read from its beginning",
            metrics.readings.clone(),
        );
        registry.register(
            "control_staleness_milliseconds",
            "How long it has not been known that nothing newer is in the control topic",
            metrics.staleness_ms.clone(),
        );
        for kind in [EntryKind::Revocation, EntryKind::Denial] {
            drop(metrics.entries.get_or_create(&ByKind { kind: kind.as_str() }));
        }
        for outcome in ["applied", "unknown", "malformed"] {
            drop(metrics.records.get_or_create(&ByOutcome { outcome }));
        }
        metrics
    }

    pub(super) fn record(&self, outcome: &'static str) {
        self.records.get_or_create(&ByOutcome { outcome }).inc();
    }

    pub(super) fn entries(&self, knowledge: &Knowledge) {
        for kind in [EntryKind::Revocation, EntryKind::Denial] {
            let count = i64::try_from(knowledge.count(kind)).unwrap_or(i64::MAX);
            self.entries
                .get_or_create(&ByKind { kind: kind.as_str() })
                .set(count);
        }
    }
}

/// The replays'.
#[derive(Debug, Clone, Default)]
pub(super) struct ReplayMetrics {
    pub(super) passes: Family<ByStream, Counter>,
    pub(super) pages: Family<ByStream, Counter>,
    pub(super) hits: Family<ByStream, Counter>,
    pub(super) bytes: Family<ByStream, Counter>,
    pub(super) limited: Counter,
    pub(super) cache_bytes: Gauge,
    pub(super) under_way: Gauge,
    pub(super) waiting: Gauge,
    pub(super) consumers: Gauge,
}

impl ReplayMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "replay_passes",
            "Times that a part of a partition was read again",
            metrics.passes.clone(),
        );
        registry.register("replay_pages", "Pages given to readers", metrics.pages.clone());
        registry.register(
            "replay_cache_hits",
            "Pages given at once from the cache",
            metrics.hits.clone(),
        );
        registry.register(
            "replay_bytes",
            "Bytes of records read again",
            metrics.bytes.clone(),
        );
        registry.register(
            "replay_limited",
            "Pages refused because too many passes waited",
            metrics.limited.clone(),
        );
        registry.register(
            "replay_cache_bytes",
            "Bytes of events in the page cache",
            metrics.cache_bytes.clone(),
        );
        registry.register(
            "replay_under_way",
            "Passes that have a consumer",
            metrics.under_way.clone(),
        );
        registry.register(
            "replay_waiting",
            "Passes that wait for a consumer",
            metrics.waiting.clone(),
        );
        registry.register(
            "replay_consumers",
            "Consumers of the replay pool",
            metrics.consumers.clone(),
        );
        metrics
    }
}

//! What the engine counts. Labels are streams, protocols and reasons: never tenants, subjects or ids.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use schemas::ids::StreamName;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StreamLabel {
    stream: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProtocolLabel {
    protocol: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

/// The engine's metrics.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    events: Family<StreamLabel, Counter>,
    ring_bytes: Family<StreamLabel, Gauge>,
    deliveries: Family<ProtocolLabel, Counter>,
    sessions: Family<ProtocolLabel, Gauge>,
    closed: Family<ReasonLabel, Counter>,
    gaps: Family<ReasonLabel, Counter>,
    refused: Family<ReasonLabel, Counter>,
    limited: Family<ReasonLabel, Counter>,
    /// Readers that are not at the shared position: replaying, or ahead of this node.
    pub(crate) lanes: Gauge,
    /// Groups over all workers and streams.
    pub(crate) groups: Gauge,
    /// Bytes that groups hold for laggards.
    pub(crate) log_bytes: Gauge,
    /// Socket writes of events: deliveries per write is what makes fan-out cheap.
    pub(crate) writes: Counter,
    /// Pages of older events that were asked for.
    pub(crate) pages: Counter,
    /// How often a client's messages had to wait because it speaks too fast.
    pub(crate) paced: Counter,
    /// Bytes written to sockets.
    pub(crate) bytes_written: Counter<u64, AtomicU64>,
}

impl Metrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("hub");
        registry.register(
            "events",
            "Events that entered the hub, by stream",
            self.events.clone(),
        );
        registry.register(
            "ring_bytes",
            "Bytes of recent events kept, by stream",
            self.ring_bytes.clone(),
        );
        registry.register(
            "deliveries",
            "Events written to readers, by protocol",
            self.deliveries.clone(),
        );
        registry.register("sessions", "Open sessions, by protocol", self.sessions.clone());
        registry.register(
            "sessions_closed",
            "Sessions that the node ended, by reason",
            self.closed.clone(),
        );
        registry.register(
            "gaps",
            "Gaps that readers were told, by reason",
            self.gaps.clone(),
        );
        registry.register("refused", "Subscriptions refused, by code", self.refused.clone());
        registry.register(
            "replays_limited",
            "Replays ended because they read much and found nothing, by whose bound (reader, tenant)",
            self.limited.clone(),
        );
        registry.register(
            "lanes",
            "Readers not at the shared position (replaying or ahead)",
            self.lanes.clone(),
        );
        registry.register(
            "groups",
            "Groups of readers with equal grants and filters",
            self.groups.clone(),
        );
        registry.register(
            "log_bytes",
            "Bytes that groups hold for laggards",
            self.log_bytes.clone(),
        );
        registry.register("writes", "Socket writes that carried events", self.writes.clone());
        registry.register("pages", "Pages of older events asked for", self.pages.clone());
        registry.register(
            "sessions_paced",
            "Times that a client's messages waited because it speaks too fast",
            self.paced.clone(),
        );
        registry.register(
            "written_bytes",
            "Bytes written to readers",
            self.bytes_written.clone(),
        );
    }

    pub(crate) fn events(&self, stream: &StreamName, count: usize) {
        self.events
            .get_or_create(&StreamLabel {
                stream: stream.to_string(),
            })
            .inc_by(count as u64);
    }

    pub(crate) fn ring_bytes(&self, stream: &StreamName, bytes: usize) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.ring_bytes
            .get_or_create(&StreamLabel {
                stream: stream.to_string(),
            })
            .set(bytes);
    }

    pub(crate) fn delivered(&self, protocol: &'static str, count: u64) {
        self.deliveries
            .get_or_create(&ProtocolLabel { protocol })
            .inc_by(count);
    }

    pub(crate) fn opened(&self, protocol: &'static str) {
        self.sessions.get_or_create(&ProtocolLabel { protocol }).inc();
    }

    pub(crate) fn ended(&self, protocol: &'static str) {
        self.sessions.get_or_create(&ProtocolLabel { protocol }).dec();
    }

    pub(crate) fn closed(&self, reason: &'static str) {
        self.closed.get_or_create(&ReasonLabel { reason }).inc();
    }

    pub(crate) fn gap(&self, reason: &'static str) {
        self.gaps.get_or_create(&ReasonLabel { reason }).inc();
    }

    pub(crate) fn limited(&self, reason: &'static str) {
        self.limited.get_or_create(&ReasonLabel { reason }).inc();
    }

    pub(crate) fn refused(&self, code: &'static str) {
        self.refused.get_or_create(&ReasonLabel { reason: code }).inc();
    }
}

//! `[limits]`: everything that is bounded, with its range.
//!
//! The engine's limits are its own type; here are those of the listeners and of the drain, too.

use std::time::Duration;

use auth::quota;
use schemas::cursor::CURSOR_BYTES_MAX;
use subscriptions::hub::HubConfig;

use super::section::Section;
use crate::http::HttpLimits;

/// Everything that is bounded.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The engine's.
    pub hub: HubConfig,
    /// The listeners'.
    pub http: HttpLimits,
    /// Connections: of the node, a tenant, a principal.
    pub connections: quota::Limits,
    /// The largest cursor as text, in bytes.
    pub cursor_bytes_max: usize,
    /// The most partitions that one stream may read, over all its topics: with it the cursor's size is checked.
    pub partitions_per_stream_max: usize,
    /// SIGTERM: everything must have ended after so long.
    pub drain_timeout: Duration,
    /// Sessions are told `bye` spread over so long, so that they do not all come back at once.
    pub drain_spread: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            hub: HubConfig::default(),
            http: HttpLimits::default(),
            connections: quota::Limits::default(),
            cursor_bytes_max: CURSOR_BYTES_MAX,
            partitions_per_stream_max: 256,
            drain_timeout: Duration::from_secs(25),
            drain_spread: Duration::from_secs(5),
        }
    }
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// A day, for durations that have no better bound.
const DAY_MS: u64 = 86_400_000;

pub(super) fn read(root: &Section) -> Limits {
    let mut limits = Limits::default();
    let Some(section) = root.below("limits") else {
        return limits;
    };
    read_hub(&section, &mut limits.hub);
    read_http(&section, &mut limits.http);
    limits.http.dead_after = dead_after(&limits);
    let connections = &mut limits.connections;
    connections.node_max = section.size("connections_max", connections.node_max, 1..=10_000_000);
    connections.unknown_max = section.size(
        "connections_unknown_max",
        (connections.node_max / 10).max(1),
        1..=10_000_000,
    );
    connections.tenant_max = section.size(
        "connections_per_tenant_max",
        connections.tenant_max,
        1..=10_000_000,
    );
    connections.principal_max = section.size(
        "connections_per_principal_max",
        connections.principal_max,
        1..=10_000_000,
    );
    let cursor_max = u64::try_from(CURSOR_BYTES_MAX).unwrap_or(u64::MAX);
    limits.cursor_bytes_max = section.size("cursor_bytes_max", limits.cursor_bytes_max, 256..=cursor_max);
    limits.partitions_per_stream_max = section.size(
        "partitions_per_stream_max",
        limits.partitions_per_stream_max,
        1..=100_000,
    );
    limits.drain_timeout = section.millis("drain_timeout_ms", limits.drain_timeout, 1..=DAY_MS);
    limits.drain_spread = section.millis("drain_spread_ms", limits.drain_spread, 0..=DAY_MS);
    agree(&section, &limits);
    section.table.finish();
    limits
}

/// WebSockets are given up after this silence. Slow ones are judged, and told, before the kernel gives them up.
fn dead_after(limits: &Limits) -> Duration {
    let slow = limits.hub.stall_max.max(limits.http.write_stall_max);
    limits.hub.silence_max.max(slow + Duration::from_secs(10))
}

fn read_hub(section: &Section, hub: &mut HubConfig) {
    hub.workers = section.size("workers", hub.workers, 1..=1024);
    hub.ring_bytes_max = section.size("ring_bytes_max", hub.ring_bytes_max, 64 * KIB..=64 * GIB);
    hub.session_lag_bytes_max =
        section.size("session_lag_bytes_max", hub.session_lag_bytes_max, 4 * KIB..=GIB);
    hub.group_log_bytes_max =
        section.size("group_log_bytes_max", hub.group_log_bytes_max, 4 * KIB..=16 * GIB);
    hub.lane_bytes_max = section.size("lane_bytes_max", hub.lane_bytes_max, 4 * KIB..=GIB);
    hub.control_bytes_max = section.size("control_bytes_max", hub.control_bytes_max, KIB..=64 * MIB);
    hub.subscriptions_per_session_max = section.size(
        "subscriptions_per_session_max",
        hub.subscriptions_per_session_max,
        1..=10_000,
    );
    hub.message_bytes_max = section.size("message_bytes_max", hub.message_bytes_max, KIB..=16 * MIB);
    if let Some(messages) = section.table.unsigned("messages_per_second_max", 1..=1_000_000) {
        hub.messages_per_second_max = u32::try_from(messages.value).unwrap_or(u32::MAX);
    }
    hub.heartbeat = section.millis("heartbeat_ms", hub.heartbeat, 100..=DAY_MS);
    hub.silence_max = section.millis("silence_max_ms", hub.silence_max, 200..=DAY_MS);
    hub.stall_max = section.millis("stall_max_ms", hub.stall_max, 100..=DAY_MS);
    hub.auth_timeout = section.millis("auth_timeout_ms", hub.auth_timeout, 100..=DAY_MS);
    hub.auth_warning = section.millis("auth_warning_ms", hub.auth_warning, 0..=DAY_MS);
    hub.gather_max = section.millis("gather_max_ms", hub.gather_max, 0..=1000);
    if let Some(bytes) = section.table.unsigned("scan_bytes_max", MIB..=1024 * GIB) {
        hub.scan_bytes_max = bytes.value;
    }
    if let Some(bytes) = section
        .table
        .unsigned("tenant_scan_bytes_max", MIB..=1024 * 1024 * GIB)
    {
        hub.tenant_scan_bytes_max = bytes.value;
    }
    hub.layout_grace = section.millis("layout_grace_ms", hub.layout_grace, 0..=DAY_MS);
}

fn read_http(section: &Section, http: &mut HttpLimits) {
    http.connections_max = section.size("sockets_max", http.connections_max, 1..=10_000_000);
    http.head_bytes_max = section.size("head_bytes_max", http.head_bytes_max, 8 * KIB..=MIB);
    http.head_fields_max = section.size("head_fields_max", http.head_fields_max, 16..=1000);
    http.header_timeout = section.millis("header_timeout_ms", http.header_timeout, 100..=DAY_MS);
    http.tls_timeout = section.millis("tls_timeout_ms", http.tls_timeout, 100..=DAY_MS);
    http.idle_timeout = section.millis("idle_timeout_ms", http.idle_timeout, 100..=DAY_MS);
    http.body_bytes_max = section.size("body_bytes_max", http.body_bytes_max, KIB..=16 * MIB);
    http.body_timeout = section.millis("body_timeout_ms", http.body_timeout, 100..=DAY_MS);
    http.write_stall_max = section.millis("write_stall_max_ms", http.write_stall_max, 100..=DAY_MS);
    http.send_buffer_bytes = section.size("send_buffer_bytes", http.send_buffer_bytes, 0..=64 * MIB);
    if let Some(streams) = section.table.unsigned("h2_streams_max", 1..=10_000) {
        http.h2_streams_max = u32::try_from(streams.value).unwrap_or(u32::MAX);
    }
    http.page_events_max = section.size("page_events_max", http.page_events_max, 1..=100_000);
    http.wait_max = section.millis("wait_max_ms", http.wait_max, 0..=DAY_MS);
    http.sse_retry = section.millis("sse_retry_ms", http.sse_retry, 0..=DAY_MS);
}

/// Limits that make no sense beside each other.
fn agree(section: &Section, limits: &Limits) {
    let conflict = |key: &str, message: String, mend: &str| {
        section.report(section.table.place_of(key), "limits_conflict", message, mend);
    };
    if limits.hub.silence_max <= limits.hub.heartbeat {
        conflict(
            "silence_max_ms",
            "`limits.silence_max_ms` is not longer than `limits.heartbeat_ms`: quiet sessions would all be closed".to_owned(),
            "make it at least twice the heartbeat",
        );
    }
    if limits.hub.scan_bytes_max > limits.hub.tenant_scan_bytes_max {
        conflict(
            "scan_bytes_max",
            "`limits.scan_bytes_max` is above `limits.tenant_scan_bytes_max`: no reader could use it"
                .to_owned(),
            "raise the tenant's limit, or lower the reader's",
        );
    }
    if limits.hub.session_lag_bytes_max > limits.hub.group_log_bytes_max {
        conflict(
            "session_lag_bytes_max",
            "`limits.session_lag_bytes_max` is above `limits.group_log_bytes_max`: no reader could use it"
                .to_owned(),
            "raise the group's limit, or lower the session's",
        );
    }
    if limits.drain_spread >= limits.drain_timeout {
        conflict(
            "drain_spread_ms",
            "`limits.drain_spread_ms` is not shorter than `limits.drain_timeout_ms`".to_owned(),
            "leave time for the sessions to end after the last was told",
        );
    }
}

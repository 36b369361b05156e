//! The engine's limits and times.

use std::time::Duration;

use crate::pace::Speed;
use crate::protocol::Framing;

/// The engine's limits. Each has a reaction, which is said with it.
#[derive(Debug, Clone)]
pub struct HubConfig {
    /// Threads that own sessions; one for every two cores.
    pub workers: usize,
    /// Recent events kept per stream, in bytes; older ones are read from Kafka.
    pub ring_bytes_max: usize,
    /// What a live reader may lag behind its group, in bytes; beyond it is closed as a slow reader.
    pub session_lag_bytes_max: usize,
    /// What the groups' logs of one worker may hold for laggards, in bytes; beyond it a group's laggards are closed when
    /// its next event comes. The same again for what replaying readers have queued; beyond it what they do not take is
    /// read again later.
    pub group_log_bytes_max: usize,
    /// What a replaying reader may have queued, in bytes; beyond it the replay waits for the reader.
    pub lane_bytes_max: usize,
    /// Control messages queued for a session, in bytes; beyond it is closed as a slow reader.
    pub control_bytes_max: usize,
    /// Subscriptions of one session; beyond it `subscriptions_exceeded`.
    pub subscriptions_per_session_max: usize,
    /// A client's message, in bytes; beyond it the session is closed.
    pub message_bytes_max: usize,
    /// Messages and pings that a WebSocket client may send in a second; beyond it they are read later, and the client's socket
    /// fills. Four times as many as a session may have subscriptions may come at once.
    pub messages_per_second_max: u32,
    /// How often quiet sessions are told their cursor and pinged.
    pub heartbeat: Duration,
    /// How often a quiet GraphQL event stream is given a comment.
    pub graphql_sse_heartbeat: Duration,
    /// How often a quiet multipart response is given a heartbeat.
    pub graphql_multipart_heartbeat: Duration,
    /// A session from which nothing came for so long, not even a pong, is closed.
    pub silence_max: Duration,
    /// A session whose socket takes nothing for so long is closed as a slow reader.
    pub stall_max: Duration,
    /// A WebSocket without credentials must send `auth` within this time, and a GraphQL one `connection_init`.
    pub auth_timeout: Duration,
    /// `auth_required` is told so long before the grant ends.
    pub auth_warning: Duration,
    /// Under load, how long a worker may wait to gather more events into one write. Never when idle.
    pub gather_max: Duration,
    /// What one reader's replay may read without finding anything for it, in bytes; beyond it `replay_limited`.
    pub scan_bytes_max: u64,
    /// What all replays of one tenant may read within a minute without finding anything for their readers, in bytes, on this
    /// node; beyond it `replay_limited` for those that find nothing.
    pub tenant_scan_bytes_max: u64,
    /// How long a cursor's topic may be unknown to this node before it counts as deleted.
    pub layout_grace: Duration,
}

impl Default for HubConfig {
    fn default() -> Self {
        Self {
            // The other half is for the kernel's work for the sockets, for Kafka's threads and for HTTP: on two cores, one worker
            // delivers a backlog sooner than two do, at two thirds of the CPU time.
            workers: std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).max(1)),
            ring_bytes_max: 64 << 20,
            session_lag_bytes_max: 1 << 20,
            group_log_bytes_max: 8 << 20,
            lane_bytes_max: 64 << 10,
            control_bytes_max: 64 << 10,
            subscriptions_per_session_max: 64,
            message_bytes_max: 64 << 10,
            messages_per_second_max: 100,
            heartbeat: Duration::from_secs(25),
            graphql_sse_heartbeat: Duration::from_secs(12),
            graphql_multipart_heartbeat: Duration::from_secs(5),
            silence_max: Duration::from_secs(60),
            stall_max: Duration::from_secs(30),
            auth_timeout: Duration::from_secs(10),
            auth_warning: Duration::from_secs(30),
            gather_max: Duration::from_millis(4),
            scan_bytes_max: 1 << 30,
            // 64 GiB are a core or two of nothing but matching: no crowd that comes back after an outage reads so much in
            // vain, and one tenant's searches leave the others their share.
            tenant_scan_bytes_max: 64 << 30,
            layout_grace: Duration::from_secs(30),
        }
    }
}

impl HubConfig {
    /// How fast a client may speak.
    pub(crate) fn speed(&self) -> Speed {
        let at_once = u32::try_from(self.subscriptions_per_session_max.saturating_mul(4)).unwrap_or(u32::MAX);
        Speed::new(self.messages_per_second_max, at_once)
    }

    /// How often a quiet session of this wire format is told something.
    pub(crate) fn heartbeat_of(&self, framing: Framing) -> Duration {
        match framing {
            Framing::GraphqlSse | Framing::GraphqlSseSingle => self.graphql_sse_heartbeat,
            Framing::Multipart => self.graphql_multipart_heartbeat,
            Framing::WebSocket
            | Framing::Sse
            | Framing::GraphqlTransportWs
            | Framing::GraphqlWs
            | Framing::Lines => self.heartbeat,
        }
    }
}

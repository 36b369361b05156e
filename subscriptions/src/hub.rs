//! The engine's front door: what a server calls. Knows nothing of HTTP; a server hands over sockets and requests that
//! it has already authenticated.

use std::sync::Arc;
use std::time::Duration;

use auth::clock::Clock;
use auth::quota::Permit;
use auth::token::{Authenticator, Principal};
use bytes::Bytes;
use schemas::contract::{Contract, Stream};
use schemas::cursor::{Cursor, Sealer};
use schemas::filter::Predicate;
use schemas::ids::{StreamName, TenantId};
use schemas::problem::Code;
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::history::Older;
use crate::sequencer::InputSender;

/// The engine's limits. Each has a reaction, which is said with it.
#[derive(Debug, Clone)]
pub struct HubConfig {
    /// Threads that own sessions; one per core.
    pub workers: usize,
    /// Recent events kept per stream, in bytes; older ones are read from Kafka.
    pub ring_bytes_max: usize,
    /// What a live reader may lag behind its group, in bytes; beyond it is closed as a slow reader.
    pub session_lag_bytes_max: usize,
    /// What the groups' logs of one worker may hold for laggards, in bytes; beyond it a group's laggards are closed when
    /// its next event comes.
    pub group_log_bytes_max: usize,
    /// What a replaying reader may have queued, in bytes; beyond it the replay waits for the reader.
    pub lane_bytes_max: usize,
    /// Control messages queued for a session, in bytes; beyond it is closed as a slow reader.
    pub control_bytes_max: usize,
    /// Subscriptions of one session; beyond it `subscriptions_exceeded`.
    pub subscriptions_per_session_max: usize,
    /// A client's message, in bytes; beyond it the session is closed.
    pub message_bytes_max: usize,
    /// How often quiet sessions are told their cursor and pinged.
    pub heartbeat: Duration,
    /// A session from which nothing came for so long, not even a pong, is closed.
    pub silence_max: Duration,
    /// A session whose socket takes nothing for so long is closed as a slow reader.
    pub stall_max: Duration,
    /// A WebSocket without credentials must send `auth` within this time.
    pub auth_timeout: Duration,
    /// `auth_required` is told so long before the grant ends.
    pub auth_warning: Duration,
    /// Under load, how long a worker may wait to gather more events into one write. Never when idle.
    pub gather_max: Duration,
    /// What one reader's replay may read without finding anything for it, in bytes; beyond it `replay_limited`.
    pub scan_bytes_max: u64,
    /// How long a cursor's topic may be unknown to this node before it counts as deleted.
    pub layout_grace: Duration,
}

impl Default for HubConfig {
    fn default() -> Self {
        Self {
            workers: std::thread::available_parallelism().map_or(2, usize::from),
            ring_bytes_max: 64 << 20,
            session_lag_bytes_max: 1 << 20,
            group_log_bytes_max: 8 << 20,
            lane_bytes_max: 256 << 10,
            control_bytes_max: 64 << 10,
            subscriptions_per_session_max: 64,
            message_bytes_max: 64 << 10,
            heartbeat: Duration::from_secs(25),
            silence_max: Duration::from_secs(60),
            stall_max: Duration::from_secs(30),
            auth_timeout: Duration::from_secs(10),
            auth_warning: Duration::from_secs(30),
            gather_max: Duration::from_millis(4),
            scan_bytes_max: 1 << 30,
            layout_grace: Duration::from_secs(30),
        }
    }
}

/// What the engine calls on.
pub struct Services {
    /// Reads what is older than the rings.
    pub older: Arc<dyn Older>,
    /// Seals cursors.
    pub sealer: Sealer,
    /// Verifies tokens that are renewed in band.
    pub authenticator: Authenticator,
    /// The time of day.
    pub clock: Clock,
}

/// Something that can be read and written, for connections that are no plain TCP socket.
pub trait AsyncIo: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> AsyncIo for T {}

/// A connection after its WebSocket upgrade.
pub enum Transport {
    /// A plain socket, written to directly. Must be non-blocking.
    Tcp {
        /// The socket.
        stream: std::net::TcpStream,
        /// Bytes that were read with the request.
        read_ahead: Bytes,
    },
    /// Anything else: TLS.
    Other {
        /// The connection.
        io: Box<dyn AsyncIo>,
        /// Bytes that were read with the request.
        read_ahead: Bytes,
    },
}

/// What a ticket restricts a session to.
#[derive(Debug, Clone)]
pub struct Restriction {
    /// The only stream.
    pub stream: StreamName,
    /// ANDed to every subscription's filter.
    pub filter: Predicate,
}

/// An upgraded connection that speaks `tidewire.v1`.
pub struct WebSocket {
    /// The connection.
    pub transport: Transport,
    /// Who; `None`: the first message must be `auth`.
    pub principal: Option<Arc<Principal>>,
    /// What a ticket restricts the session to.
    pub restriction: Option<Restriction>,
    /// What the session holds of the quotas; named when the first `auth` says who it is.
    pub permit: Permit,
}

/// From where a reader wants events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum After {
    /// Only what comes.
    Latest,
    /// All that Kafka still has.
    Earliest,
    /// From this time on, in milliseconds since the Unix epoch.
    Time(i64),
    /// Exactly after this cursor.
    Cursor(Box<Cursor>),
}

/// What one reader wants of one stream.
pub struct Reading {
    /// The stream.
    pub stream: Arc<Stream>,
    /// Who reads; the grant is compiled from it.
    pub principal: Arc<Principal>,
    /// Which events.
    pub filter: Predicate,
    /// From where.
    pub after: After,
}

/// A server-sent event stream.
pub struct Sse {
    /// What is read.
    pub reading: Reading,
    /// Told to the client as `retry:`.
    pub retry_ms: Option<u64>,
    /// What the session holds of the quotas; named when the first `auth` says who it is.
    pub permit: Permit,
}

/// One page, asked for.
pub struct Pull {
    /// What is read.
    pub reading: Reading,
    /// At most so many events.
    pub limit: usize,
    /// How long to wait for the first one.
    pub wait: Duration,
}

/// One page.
#[derive(Debug)]
pub struct PullPage {
    /// Each a CloudEvents JSON object with the extension attribute `cursor`.
    pub events: Vec<Bytes>,
    /// The cursor from which the next page goes on.
    pub next: String,
    /// What could not be given any more, as in the `gap` message.
    pub gap: Option<serde_json::Value>,
}

/// Why the engine refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", code.name)]
pub struct Failure {
    /// What the client is told.
    pub code: Code,
    /// More, without data.
    pub detail: String,
}

impl Failure {
    /// A failure with a detail.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into() }
    }
}

/// An open session, for operators.
#[derive(Debug, Clone, Serialize)]
pub struct SessionInfo {
    /// Its id (`ses_...`).
    pub id: String,
    /// `websocket`, `sse` or `pull`.
    pub protocol: &'static str,
    /// Whose data; none before `auth`.
    pub tenant: Option<String>,
    /// The token's issuer.
    pub issuer: Option<String>,
    /// When it began, in milliseconds since the Unix epoch.
    pub opened_at_ms: i64,
    /// Until when its grant holds.
    pub expires_at_ms: Option<i64>,
    /// Its subscriptions.
    pub subscriptions: Vec<SubscriptionInfo>,
    /// Bytes that its socket did not take yet.
    pub pending_bytes: usize,
}

/// One subscription of an open session.
#[derive(Debug, Clone, Serialize)]
pub struct SubscriptionInfo {
    /// The stream.
    pub stream: String,
    /// `live` or `replaying`.
    pub state: &'static str,
    /// Bytes that it lags behind its group.
    pub lag_bytes: usize,
}

/// One partition, for readiness.
#[derive(Debug, Clone, Serialize)]
pub struct PartitionInfo {
    /// The stream.
    pub stream: String,
    /// The topic.
    pub topic: String,
    /// Its number.
    pub partition: i32,
    /// The next offset, if it is known.
    pub position: Option<i64>,
}

/// The engine. Cheap to clone.
#[derive(Clone)]
pub struct Hub {
    contract: Arc<Contract>,
}

impl Hub {
    /// Starts the sequencers and the worker threads. Call it inside a tokio runtime.
    pub fn start(
        config: HubConfig,
        contract: Arc<Contract>,
        services: Services,
        registry: &mut prometheus_client::registry::Registry,
    ) -> std::io::Result<Self> {
        let _ = (config, services, registry);
        Ok(Self { contract })
    }

    /// Where a source sends what it reads for a stream.
    #[must_use]
    pub fn input(&self, stream: &StreamName) -> Option<InputSender> {
        todo!("{stream}")
    }

    /// The contract that is served.
    #[must_use]
    pub fn contract(&self) -> &Arc<Contract> {
        &self.contract
    }

    /// Takes over an upgraded connection.
    pub fn open_websocket(&self, socket: WebSocket) {
        let _ = socket;
        todo!()
    }

    /// Opens a server-sent event stream: the chunks of its body. The channel's end is the response's end; dropping the
    /// receiver ends the session.
    pub async fn open_sse(&self, sse: Sse) -> Result<tokio::sync::mpsc::Receiver<Bytes>, Failure> {
        let _ = sse;
        todo!()
    }

    /// Reads one page.
    pub async fn pull(&self, pull: Pull) -> Result<PullPage, Failure> {
        let _ = pull;
        todo!()
    }

    /// The open sessions.
    pub async fn sessions(&self) -> Vec<SessionInfo> {
        todo!()
    }

    /// The partitions that are known.
    #[must_use]
    pub fn partitions(&self) -> Vec<PartitionInfo> {
        todo!()
    }

    /// Whether every partition of the stream that exists has been announced.
    #[must_use]
    pub fn is_complete(&self, stream: &StreamName) -> bool {
        todo!("{stream}")
    }

    /// Says `bye` to all sessions, spread over this time, and closes them.
    pub async fn drain(&self, spread: Duration) {
        let _ = spread;
        todo!()
    }
}

impl After {
    /// Parses `after`: a cursor of this stream and tenant, `earliest`, `latest` or an RFC 3339 time.
    pub fn parse(text: &str, stream: &StreamName, tenant: &TenantId, sealer: &Sealer) -> Result<Self, Failure> {
        let _ = (text, stream, tenant, sealer);
        todo!()
    }
}

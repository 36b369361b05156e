//! The engine's front door: what a server calls. Knows nothing of HTTP; a server hands over sockets and requests that
//! it has already authenticated.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use auth::clock::Clock;
use auth::quota::Permit;
use auth::token::{Authenticator, Principal};
use bytes::Bytes;
use schemas::contract::{Contract, Stream};
use schemas::cursor::{BadCursor, Cursor, Sealer};
use schemas::filter::Predicate;
use schemas::ids::{StreamName, TenantId};
use schemas::problem::Code;
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::graphql;
use crate::history::{Older, Ring};
use crate::metrics::Metrics;
use crate::needs::Needs;
pub use crate::outlet::Body;
use crate::outlet::Home;
use crate::protocol::Framing;
use crate::scans::Scans;
use crate::sequencer::{InputSender, Past, Sequencer};
use crate::worker::{Order, Setup, Wake, Worker};

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
    /// Compiles GraphQL operations, where GraphQL is served.
    pub graphql: Option<Arc<graphql::Schema>>,
}

/// Something that can be read and written, for connections that are no plain TCP socket.
pub trait AsyncIo: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> AsyncIo for T {}

/// A connection that has left HTTP: after its WebSocket upgrade, or behind the head of a response.
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

/// What is spoken on an upgraded connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// `tidewire.v1`.
    TidewireV1,
    /// `graphql-transport-ws`.
    GraphqlTransportWs,
    /// `graphql-ws`, the legacy protocol of `subscriptions-transport-ws`.
    GraphqlWs,
    /// A GraphQL client that offers neither: it is told so by a close code, since browsers cannot read a refused upgrade.
    Unacceptable,
}

/// An upgraded connection.
pub struct WebSocket {
    /// The connection.
    pub transport: Transport,
    /// What is spoken on it.
    pub protocol: Protocol,
    /// Who; `None`: the first message must be `auth`, or `connection_init` with a token.
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

/// A response that carries GraphQL results.
pub struct GraphqlStream {
    /// How.
    pub framing: GraphqlFraming,
    /// Whose it is.
    pub principal: Arc<Principal>,
    /// What a ticket restricts the session to.
    pub restriction: Option<Restriction>,
    /// What the session holds of the quotas.
    pub permit: Permit,
}

/// How a response carries GraphQL results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GraphqlFraming {
    /// Server-sent events of one operation.
    SseDistinct,
    /// Server-sent events of many operations.
    SseSingle,
    /// `multipart/mixed;subscriptionSpec=1.0`.
    Multipart,
    /// One result a line, for a callback; the last line may be `{"complete":true}`, with `errors` where it failed.
    Lines,
}

/// A GraphQL subscription to begin.
#[derive(Debug)]
pub struct GraphqlSubscribe {
    /// Its id within the session; empty where the response carries one operation.
    pub id: String,
    /// What it gives.
    pub bound: Box<graphql::Bound>,
}

/// A session that speaks through a response, for requests that have something to say to it. It does not keep it open.
#[derive(Debug, Clone)]
pub struct GraphqlHandle {
    worker: mpsc::Sender<Wake>,
    place: usize,
    serial: u64,
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
    /// Whether the page ends where one replay may not read further; the next one goes on from its cursor.
    pub limited: bool,
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
        Self {
            code,
            detail: detail.into(),
        }
    }
}

/// An open session, for operators.
#[derive(Debug, Clone, Serialize)]
pub struct SessionInfo {
    /// Its id (`ses_...`).
    pub id: String,
    /// `websocket` or `sse`. A request for a page is no session.
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
    inner: Arc<Inner>,
}

struct Inner {
    contract: Arc<Contract>,
    inputs: Vec<InputSender>,
    pasts: Vec<Arc<Past>>,
    workers: Vec<mpsc::Sender<Wake>>,
    next_worker: AtomicUsize,
    needs: Arc<Needs>,
    /// Ended with the hub.
    _sequencers: JoinSet<()>,
}

/// A worker that panicked would leave its readers in silence: the process ends, and they come back elsewhere.
struct Fatal;

impl Drop for Fatal {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("a worker thread failed; the process ends");
            std::process::abort();
        }
    }
}

/// How many inputs may wait for a sequencer; each is a batch of one partition's records. Beyond it the source waits.
const INPUTS_MAX: usize = 256;

/// How many wakes may wait for a worker. Beyond it the sequencers wait.
const WAKES_MAX: usize = 256;

impl Hub {
    /// Starts the sequencers and the worker threads. Call it inside a tokio runtime.
    pub fn start(
        config: HubConfig,
        contract: Arc<Contract>,
        services: Services,
        registry: &mut prometheus_client::registry::Registry,
    ) -> std::io::Result<Self> {
        let metrics = Arc::new(Metrics::default());
        metrics.register(registry);
        let config = Arc::new(config);
        let services = Arc::new(services);
        let past = |_: &Arc<Stream>| {
            Arc::new(Past {
                ring: RwLock::new(Ring::new(config.ring_bytes_max)),
                standing: Mutex::default(),
            })
        };
        let pasts: Vec<Arc<Past>> = contract.streams.iter().map(past).collect();
        let scans = Arc::new(Scans::new(config.scan_bytes_max, config.tenant_scan_bytes_max));
        let needs = Arc::new(Needs::new(contract.streams.len()));
        let mut workers = Vec::new();
        for number in 0..config.workers.max(1) {
            let (sender, inbox) = mpsc::channel(WAKES_MAX);
            workers.push(sender);
            let setup = Setup {
                config: Arc::clone(&config),
                contract: Arc::clone(&contract),
                services: Arc::clone(&services),
                pasts: pasts.clone(),
                metrics: Arc::clone(&metrics),
                scans: Arc::clone(&scans),
                needs: Arc::clone(&needs),
            };
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            std::thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(move || {
                    let _fatal = Fatal;
                    runtime.block_on(Worker::run(setup, inbox));
                })?;
        }
        let mut inputs = Vec::new();
        let mut sequencers = JoinSet::new();
        for (number, stream) in contract.streams.iter().enumerate() {
            let (sender, receiver) = mpsc::channel(INPUTS_MAX);
            inputs.push(sender);
            let past = Arc::clone(&pasts[number]);
            let sequencer = Sequencer::new(number, stream.name.clone(), past, Arc::clone(&metrics));
            sequencers.spawn(sequencer.run(receiver, workers.clone()));
        }
        let next_worker = AtomicUsize::new(0);
        let inner = Inner {
            contract,
            inputs,
            pasts,
            workers,
            next_worker,
            needs,
            _sequencers: sequencers,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Where a source sends what it reads for a stream.
    #[must_use]
    pub fn input(&self, stream: &StreamName) -> Option<InputSender> {
        self.place(stream).map(|place| self.inner.inputs[place].clone())
    }

    /// Which streams somebody reads.
    #[must_use]
    pub fn needs(&self) -> &Arc<Needs> {
        &self.inner.needs
    }

    /// The contract that is served.
    #[must_use]
    pub fn contract(&self) -> &Arc<Contract> {
        &self.inner.contract
    }

    /// Takes over an upgraded connection. If the worker has no room for it, the connection is dropped: the client sees it
    /// closed and comes back.
    pub fn open_websocket(&self, socket: WebSocket) {
        if self.worker().try_send(Wake::WebSocket(Box::new(socket))).is_err() {
            tracing::warn!("a worker has no room for another connection; it was dropped");
        }
    }

    /// Opens a server-sent event stream: the chunks of its body. The channel's end is the response's end; dropping the
    /// receiver ends the session.
    pub async fn open_sse(&self, sse: Sse) -> Result<Body, Failure> {
        let worker = self.worker().clone();
        let (reply, answer) = oneshot::channel();
        let ended = || Failure::new(Code::DRAINING, "");
        let wake = Wake::Sse(Box::new(sse), reply);
        worker.send(wake).await.map_err(|_| ended())?;
        let (place, serial, body) = answer.await.map_err(|_| ended())??;
        Ok(body.of(Home {
            worker,
            place,
            serial,
        }))
    }

    /// Opens a response that carries GraphQL results, with its first subscription where there is one already. The
    /// channel's end is the response's end; dropping the receiver ends the session.
    pub async fn open_graphql(
        &self,
        stream: GraphqlStream,
        first: Option<GraphqlSubscribe>,
    ) -> Result<(GraphqlHandle, Body), Failure> {
        let worker = self.worker().clone();
        let (reply, answer) = oneshot::channel();
        let ended = || Failure::new(Code::DRAINING, "");
        let wake = Wake::Graphql(Box::new(stream), first, reply);
        worker.send(wake).await.map_err(|_| ended())?;
        let (place, serial, body) = answer.await.map_err(|_| ended())??;
        let body = body.of(Home {
            worker: worker.clone(),
            place,
            serial,
        });
        let handle = GraphqlHandle {
            worker,
            place,
            serial,
        };
        Ok((handle, body))
    }

    /// Reads one page.
    pub async fn pull(&self, pull: Pull) -> Result<PullPage, Failure> {
        self.ask(|reply| Wake::Pull(Box::new(pull), reply)).await?
    }

    /// The open sessions.
    pub async fn sessions(&self) -> Vec<SessionInfo> {
        let mut all = Vec::new();
        for worker in &self.inner.workers {
            let (reply, answer) = oneshot::channel();
            if worker.send(Wake::Inspect(reply)).await.is_ok()
                && let Ok(mut some) = answer.await
            {
                all.append(&mut some);
            }
        }
        all
    }

    /// The partitions that are known.
    #[must_use]
    pub fn partitions(&self) -> Vec<PartitionInfo> {
        let mut all = Vec::new();
        for (stream, past) in self.inner.contract.streams.iter().zip(&self.inner.pasts) {
            let standing = past
                .standing
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            all.extend(standing.layout.entries().map(|entry| PartitionInfo {
                stream: stream.name.to_string(),
                topic: entry.partition.topic.to_string(),
                partition: entry.partition.partition,
                position: standing.vector.offset(entry.partition.slot),
            }));
        }
        all
    }

    /// Whether every partition of the stream that exists has been announced.
    #[must_use]
    pub fn is_known(&self, stream: &StreamName) -> bool {
        self.place(stream).is_some_and(|place| {
            self.inner.pasts[place]
                .standing
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .layout
                .known
        })
    }

    /// Says `bye` to all sessions, spread over this time, and closes them. Returns when all are closed.
    pub async fn drain(&self, spread: Duration) {
        let mut drained = Vec::new();
        for worker in &self.inner.workers {
            let (done, is_done) = oneshot::channel();
            if worker.send(Wake::Drain(spread, done)).await.is_ok() {
                drained.push(is_done);
            }
        }
        for is_done in drained {
            // A worker that is gone has no sessions.
            let _gone = is_done.await;
        }
    }

    fn place(&self, stream: &StreamName) -> Option<usize> {
        self.inner
            .contract
            .streams
            .iter()
            .position(|have| have.name == *stream)
    }

    /// Workers take turns.
    fn worker(&self) -> &mpsc::Sender<Wake> {
        let turn = self.inner.next_worker.fetch_add(1, Ordering::Relaxed);
        &self.inner.workers[turn % self.inner.workers.len()]
    }

    async fn ask<T>(&self, wake: impl FnOnce(oneshot::Sender<T>) -> Wake) -> Result<T, Failure> {
        let (reply, answer) = oneshot::channel();
        let ended = || Failure::new(Code::DRAINING, "");
        self.worker().send(wake(reply)).await.map_err(|_| ended())?;
        answer.await.map_err(|_| ended())
    }
}

impl GraphqlHandle {
    /// Begins a subscription.
    pub async fn subscribe(&self, subscribe: GraphqlSubscribe) -> Result<(), Failure> {
        if self.order(Order::Subscribe(subscribe)).await? {
            Ok(())
        } else {
            Err(Failure::new(Code::UNKNOWN_ID, "the response is closed"))
        }
    }

    /// Gives an operation its only result. `false`: the response is closed.
    pub async fn answer(&self, id: &str, payload: Bytes) -> bool {
        let order = Order::Answer(id.to_owned(), payload);
        self.order(order).await.unwrap_or(false)
    }

    /// Ends an operation. `false`: it is not known, or the response is closed.
    pub async fn stop(&self, id: &str) -> bool {
        self.order(Order::Stop(id.to_owned())).await.unwrap_or(false)
    }

    /// Whether the response is open.
    pub async fn is_open(&self) -> bool {
        self.order(Order::Look).await.unwrap_or(false)
    }

    async fn order(&self, order: Order) -> Result<bool, Failure> {
        let (reply, answer) = oneshot::channel();
        let wake = Wake::Order(self.place, self.serial, order, reply);
        if self.worker.send(wake).await.is_err() {
            return Ok(false);
        }
        answer.await.unwrap_or(Ok(false))
    }
}

impl After {
    /// Parses `after`: a cursor of this stream and tenant, `earliest`, `latest` or an RFC 3339 time.
    pub fn parse(
        text: &str,
        stream: &StreamName,
        tenant: &TenantId,
        sealer: &Sealer,
    ) -> Result<Self, Failure> {
        match text {
            "latest" => return Ok(Self::Latest),
            "earliest" => return Ok(Self::Earliest),
            _ => {}
        }
        // No cursor has a colon, and every time has.
        if text.contains(':') {
            let time: jiff::Timestamp = text
                .parse()
                .map_err(|_| Failure::new(Code::PARAMETER_INVALID, "after is no RFC 3339 time"))?;
            return Ok(Self::Time(time.as_millisecond()));
        }
        match sealer.open(stream, tenant, text) {
            Ok(cursor) => Ok(Self::Cursor(Box::new(cursor))),
            Err(BadCursor::Invalid) => Err(Failure::new(Code::CURSOR_INVALID, "")),
            Err(BadCursor::Foreign) => Err(Failure::new(Code::CURSOR_FOREIGN, "")),
        }
    }
}

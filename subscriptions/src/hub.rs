//! The engine's front door: what a server calls. Knows nothing of HTTP; a server hands over sockets and requests that
//! it has already authenticated.

mod asked;
mod config;
mod told;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use auth::clock::Clock;
use auth::token::Authenticator;
use bytes::Bytes;
use schemas::contract::{Contract, Stream};
use schemas::cursor::Sealer;
use schemas::ids::StreamName;
use schemas::problem::Code;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::graphql;
use crate::history::{Older, Ring};
use crate::metrics::Metrics;
use crate::needs::Needs;
use crate::outlet::Home;
use crate::scans::Scans;
use crate::sequencer::{InputSender, Past, Sequencer};
use crate::worker::{Order, Setup, Wake, Worker};

pub use self::asked::{
    After, AsyncIo, GraphqlFraming, GraphqlStream, GraphqlSubscribe, Protocol, Pull, Reading, Restriction,
    Sse, Transport, WebSocket,
};
pub use self::config::HubConfig;
pub use self::told::{Failure, PartitionInfo, PullPage, SessionInfo, SubscriptionInfo};
pub use crate::outlet::Body;

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

/// A session that speaks through a response, for requests that have something to say to it. It does not keep it open.
#[derive(Debug, Clone)]
pub struct GraphqlHandle {
    worker: mpsc::Sender<Wake>,
    place: usize,
    serial: u64,
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

    /// Takes over an upgraded connection, as soon as its worker has room for it. How many may wait is the quotas' business: each
    /// holds its permit.
    pub async fn open_websocket(&self, socket: WebSocket) {
        // A worker that is gone drops the connection: the client sees it closed and comes back elsewhere.
        let _gone = self.worker().send(Wake::WebSocket(Box::new(socket))).await;
    }

    /// Opens a server-sent event stream: its body.
    pub async fn open_sse(&self, sse: Sse) -> Result<Body, Failure> {
        let worker = self.worker().clone();
        let (reply, answer) = oneshot::channel();
        let ended = || Failure::new(Code::DRAINING, "");
        let wake = Wake::Sse(Box::new(sse), reply);
        worker.send(wake).await.map_err(|_| ended())?;
        let (place, serial, body) = answer.await.map_err(|_| ended())??;
        Ok(body.of(Home {
            worker: worker.downgrade(),
            place,
            serial,
        }))
    }

    /// Opens a response that carries GraphQL results, with its first subscription where there is one already: what says something
    /// to it, and its body.
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
            worker: worker.downgrade(),
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

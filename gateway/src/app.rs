//! The parts, put together: `build` binds and starts what reads, `serve` lets readers in, `failed` waits for what must not
//! happen, `drain` ends.
//!
//! One invariant: every task and thread has its owner here, and `drain` ends all of them under one deadline. Knows no
//! file, no argument and no signal.

mod build;

use std::mem::ManuallyDrop;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use auth::control::Control;
use auth::token::Authenticator;
use axum::Router;
use subscriptions::hub::Hub;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::http::listener::Listener;
use crate::kafka::embedded::Broker;
use crate::kafka::{ControlTopic, Source};
use crate::webhooks::{self, Webhooks};

pub use self::build::{Setup, StartError, build, open_store};

/// Partitions of a topic on the embedded broker.
pub const EMBEDDED_PARTITIONS: i32 = 4;
/// How long the first readers wait for what operators know to be read, and how often is looked.
const SETTLE_MAX: Duration = Duration::from_secs(5);
const SETTLE_LOOK: Duration = Duration::from_millis(10);
/// How often the number of partitions is compared with what cursors can hold.
const PARTITIONS_LOOK: Duration = Duration::from_secs(30);

/// A part that ended although nobody asked it to.
#[derive(Debug, thiserror::Error)]
#[error("{part} ended unexpectedly")]
pub struct Failed {
    /// Which one.
    pub part: &'static str,
}

/// A gateway that is bound.
pub struct App {
    hub: Hub,
    source: SharedSource,
    /// The control topic, until the drain takes it.
    control: Option<ControlTopic>,
    authenticator: Authenticator,
    /// Not served yet.
    doors: Option<Doors>,
    addresses: Addresses,
    /// What must not end by itself.
    parts: JoinSet<&'static str>,
    /// Those of the parts that end when they are told to; the others are cut off.
    listeners: TaskTracker,
    upgrades: TaskTracker,
    /// What is posted to routers: the end of each subscription, too.
    callbacks: TaskTracker,
    draining: CancellationToken,
    stop_public: CancellationToken,
    stop_operations: CancellationToken,
    partitions_max: usize,
    drain_timeout: Duration,
    drain_spread: Duration,
    webhooks: Option<Webhooks>,
    /// What operators know.
    known: Control,
    /// Ends with the process: a client that is still open would only complain that its broker is gone.
    _broker: ManuallyDrop<Option<Broker>>,
}

/// Real addresses.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// The public listener.
    pub public: SocketAddr,
    /// Whether it speaks TLS.
    pub is_tls: bool,
    /// The operations listener.
    pub operations: SocketAddr,
    /// Kafka's.
    pub kafka: String,
}

struct Doors {
    public: (Listener, Router),
    operations: (Listener, Router),
}

/// The live side, until the drain takes it.
type SharedSource = Arc<Mutex<Option<Source>>>;

impl App {
    /// Where it can be reached.
    #[must_use]
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// What the REST API of webhooks asks, where they are served.
    pub(crate) fn desk(&self) -> Option<Arc<webhooks::desk::Desk>> {
        self.webhooks.as_ref().map(Webhooks::desk)
    }

    /// Lets readers in.
    pub fn serve(&mut self) {
        let Some(doors) = self.doors.take() else { return };
        let (listener, router) = doors.public;
        let (stop, known) = (self.stop_public.clone(), self.known.clone());
        self.parts.spawn(self.listeners.track_future(async move {
            // Who comes first waits a moment in the socket's queue, and is not sent away.
            tokio::select! {
                () = stop.cancelled() => {}
                () = settle(&known) => {}
            }
            listener.serve(router, stop).await;
            "the public listener"
        }));
        let (listener, router) = doors.operations;
        let stop = self.stop_operations.clone();
        self.parts.spawn(self.listeners.track_future(async move {
            listener.serve(router, stop).await;
            "the operations listener"
        }));
        let authenticator = self.authenticator.clone();
        self.parts.spawn(async move {
            authenticator.run().await;
            "the refresh of issuers' keys"
        });
        let (hub, partitions_max) = (self.hub.clone(), self.partitions_max);
        self.parts.spawn(async move {
            watch_partitions(&hub, partitions_max).await;
            "the watch over partitions"
        });
    }

    /// Waits until a part ends that should not. Cancel safe.
    pub async fn failed(&mut self) -> Failed {
        let webhooks = async {
            match &mut self.webhooks {
                Some(webhooks) => webhooks.failed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            ended = self.parts.join_next(), if !self.parts.is_empty() => match ended {
                Some(Ok(part)) => Failed { part },
                _ => Failed {
                    part: "a task that panicked",
                },
            },
            part = webhooks => Failed { part },
        }
    }

    /// Ends: not ready, nobody new, sessions told to go, Kafka let go, listeners closed. Whether all of it was done
    /// before the deadline.
    pub async fn drain(mut self) -> bool {
        let deadline = self.drain_timeout;
        let is_done = tokio::time::timeout(deadline, self.wind_down()).await.is_ok();
        if !is_done {
            tracing::warn!(
                timeout_ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX),
                "the drain took too long"
            );
        }
        self.parts.shutdown().await;
        is_done
    }

    async fn wind_down(&mut self) {
        self.draining.cancel();
        self.stop_public.cancel();
        // Beside each other: what is under way to receivers has its own time.
        let webhooks = self.webhooks.take();
        let settle = async {
            if let Some(webhooks) = webhooks {
                webhooks.drain().await;
            }
        };
        tokio::join!(self.hub.drain(self.drain_spread), settle);
        self.upgrades.close();
        self.upgrades.wait().await;
        self.callbacks.close();
        self.callbacks.wait().await;
        let source = self.source.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(source) = source {
            source.stop().await;
        }
        if let Some(control) = self.control.take() {
            control.stop().await;
        }
        // Only now: until here operators could look at what goes on.
        self.stop_operations.cancel();
        self.listeners.close();
        self.listeners.wait().await;
    }
}

/// Waits until what operators know was read, without which nobody is let in; not for long.
async fn settle(known: &Control) {
    let read = async {
        while !known.is_read() {
            tokio::time::sleep(SETTLE_LOOK).await;
        }
    };
    drop(tokio::time::timeout(SETTLE_MAX, read).await);
}

/// Cursors are bounded, so partitions are: says so when there are more than `check` counted with.
async fn watch_partitions(hub: &Hub, partitions_max: usize) {
    let mut interval = tokio::time::interval(PARTITIONS_LOOK);
    let mut told = Vec::new();
    loop {
        interval.tick().await;
        let mut counts = std::collections::BTreeMap::<String, usize>::new();
        for partition in hub.partitions() {
            *counts.entry(partition.stream).or_default() += 1;
        }
        for (stream, partitions) in counts {
            if partitions > partitions_max && !told.contains(&stream) {
                tracing::error!(
                    stream,
                    partitions,
                    partitions_max,
                    "not ready: more partitions than `limits.partitions_per_stream_max`: cursors may become too long to be taken back"
                );
                told.push(stream);
            }
        }
    }
}

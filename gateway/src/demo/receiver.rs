//! A partner's receiver, for the demo: deliveries come in on a listener of its own, are verified with a public library, and
//! the page shows what came.
//!
//! Invariants: nothing of a delivery is believed before its signature is verified, by code that shares nothing with what
//! signs. Of what came ids, types and times are kept, never a body. It is bound to loopback, and everything is bounded:
//! connections, bodies, and what is remembered ([`inbox`]). It knows no endpoint but by its path, and nothing of Kafka.
//!
//! It answers as a partner should: 204 to what is verified, however often it comes, 401 to everything else. And 500 to what
//! is verified, while somebody has switched that on.

pub mod inbox;
pub mod page;
pub mod verify;

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use auth::clock::Clock;
use axum::Router;
use axum::extract::{Path, Request, State};
use axum::routing::post;
use http::{HeaderMap, StatusCode};
use prometheus_client::registry::Registry;
use secrecy::{ExposeSecret, SecretString};
use standardwebhooks::{Webhook, WebhookError};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::inbox::{Arrival, Destination, Inbox};
use crate::http::listener::Listener;
use crate::http::{HttpLimits, Metrics, Problem, whole};

/// The gateway is the only caller, with a few attempts at once.
const CONNECTIONS_MAX: usize = 256;
/// Kafka's largest message by default is a megabyte; an event has its attributes beside it.
const BODY_BYTES_MAX: usize = 2 << 20;
/// It must be there within this time.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// A running receiver. It ends when it is dropped.
#[derive(Debug)]
pub struct Receiver {
    reception: Arc<Reception>,
    _server: JoinSet<()>,
}

/// What those who take deliveries, those who make endpoints and those who look have in common.
#[derive(Debug)]
pub struct Reception {
    address: SocketAddr,
    hooks: Mutex<BTreeMap<String, Hook>>,
    inbox: Mutex<Inbox>,
    is_failing: AtomicBool,
}

/// An endpoint as its receiver knows it.
#[derive(Clone)]
struct Hook {
    to: Destination,
    webhook: Arc<Webhook>,
    /// What waits for it in the gateway's store.
    parked: i64,
}

/// Without its secret.
impl std::fmt::Debug for Hook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hook")
            .field("to", &self.to)
            .field("parked", &self.parked)
            .finish_non_exhaustive()
    }
}

impl Receiver {
    /// Listens on a free port of loopback. Call it inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// There is no port.
    pub fn start() -> io::Result<Self> {
        let limits = HttpLimits {
            connections_max: CONNECTIONS_MAX,
            ..HttpLimits::default()
        };
        // A partner's server is not counted with the gateway's.
        let metrics = Metrics::new(&mut Registry::default());
        let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listener = Listener::bind(any_port, None, "receiver", &limits, &metrics)?;
        let reception = Arc::new(Reception::at(listener.local_address()));
        let mut server = JoinSet::new();
        server.spawn(listener.serve(router(Arc::clone(&reception)), CancellationToken::new()));
        Ok(Self {
            reception,
            _server: server,
        })
    }

    /// What it knows.
    #[must_use]
    pub fn reception(&self) -> Arc<Reception> {
        Arc::clone(&self.reception)
    }
}

impl Reception {
    fn at(address: SocketAddr) -> Self {
        Self {
            address,
            hooks: Mutex::default(),
            inbox: Mutex::default(),
            is_failing: AtomicBool::new(false),
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Takes deliveries at `/path` from now on.
    ///
    /// # Errors
    ///
    /// The secret is none.
    pub fn know(&self, path: &str, to: Destination, secret: &SecretString) -> Result<(), WebhookError> {
        let hook = Hook {
            to,
            webhook: Arc::new(Webhook::new(secret.expose_secret())?),
            parked: 0,
        };
        lock(&self.hooks).insert(path.to_owned(), hook);
        Ok(())
    }

    /// How many deliveries are parked in the gateway's store, as it says.
    pub fn tell_parked(&self, path: &str, count: i64) {
        if let Some(hook) = lock(&self.hooks).get_mut(path) {
            hook.parked = count;
        }
    }

    /// Whether it answers 500 from now on.
    pub fn fail(&self, is_failing: bool) {
        self.is_failing.store(is_failing, Ordering::Relaxed);
    }

    fn is_failing(&self) -> bool {
        self.is_failing.load(Ordering::Relaxed)
    }

    fn hook(&self, path: &str) -> Option<Hook> {
        lock(&self.hooks).get(path).cloned()
    }

    /// Judges what came at a path, remembers it, and says how it is answered.
    fn take(&self, path: &str, headers: &HeaderMap, body: &[u8], now_ms: i64) -> StatusCode {
        // Made a moment ago, its secret not here yet: it comes again.
        let Some(hook) = self.hook(path) else {
            return StatusCode::NOT_FOUND;
        };
        match verify::verify(&hook.webhook, headers, body) {
            Ok(verified) => {
                let arrival = Arrival {
                    to: hook.to,
                    verified,
                    at_ms: now_ms,
                };
                if lock(&self.inbox).take(arrival, self.is_failing()) {
                    StatusCode::NO_CONTENT
                } else {
                    StatusCode::INTERNAL_SERVER_ERROR
                }
            }
            Err(refused) => {
                lock(&self.inbox).refuse(hook.to, refused, now_ms);
                StatusCode::UNAUTHORIZED
            }
        }
    }
}

fn router(reception: Arc<Reception>) -> Router {
    Router::new()
        .route("/{path}", post(deliver))
        .with_state(reception)
}

async fn deliver(
    State(reception): State<Arc<Reception>>,
    Path(path): Path<String>,
    request: Request,
) -> Result<StatusCode, Problem> {
    let (head, body) = request.into_parts();
    let body = whole(body, BODY_BYTES_MAX, BODY_TIMEOUT).await?;
    Ok(reception.take(&path, &head.headers, &body, Clock::System.now_ms()))
}

/// Nothing that is held is in a state between two.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;

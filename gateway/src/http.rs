//! The public surface and the operations listener, over HTTP: thin handlers over plain structs; decisions are pure
//! functions beside them, and everything about events is the engine's.
//!
//! Every refusal is a problem document with a stable code. Nothing here logs or counts anything but route templates and
//! codes: no ids, filters, cursors or tokens.
//!
//! How the parts are put together (this module knows nothing of configuration files):
//!
//! ```text
//! let metrics  = http::Metrics::new(&mut registry);          // before the registry is shared
//! let gateway  = Arc::new(http::Gateway { hub, authenticator, ..., metrics: metrics.clone(), drain: token.clone() });
//! let public   = Listener::bind(address, tls, "public", &limits, &metrics)?;   // port 0: see `local_address`
//! let admin    = Listener::bind(admin_address, None, "operations", &limits, &metrics)?;
//! tasks.spawn(public.serve(http::public_router(gateway), stop_accepting.clone()));
//! tasks.spawn(admin.serve(http::operations_router(operations), stop_operations.clone()));
//! ```
//!
//! `drain` is cancelled first: not ready, new sessions refused. The token given to `serve` stops accepting and lets open
//! requests finish; `serve` ends with the last connection (sessions end through `Hub::drain`).

mod accept;
mod api;
mod body;
mod catalogue;
pub mod control;
mod cors;
mod credentials;
mod documents;
pub mod graphql;
mod limits;
pub mod listener;
mod metrics;
mod operations;
mod origin;
mod page;
mod problem;
mod pull;
mod query;
mod shield;
mod sse;
mod streaming;
mod streams;
#[cfg(test)]
mod tests;
mod tickets;
mod webhooks;
mod websocket;

use std::sync::Arc;

use auth::clock::Clock;
use auth::quota::Quotas;
use auth::ticket::Tickets;
use auth::token::Authenticator;
use axum::Router;
use axum::middleware;
use schemas::cursor::Sealer;
use subscriptions::hub::Hub;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) use self::body::whole;
pub use self::limits::HttpLimits;
pub use self::metrics::Metrics;
pub use self::operations::{IngestStatus, Operations, PartitionLag, operations_router};
pub use self::origin::{BadOrigin, Origins};
pub use self::page::Page;
pub use self::problem::Problem;
pub(crate) use self::problem::method_not_allowed;
use crate::webhooks::desk::Desk;

/// What the public surface stands on.
pub struct Gateway {
    /// The engine.
    pub hub: Hub,
    /// Verifies bearer tokens.
    pub authenticator: Authenticator,
    /// Seals and redeems tickets and cookies.
    pub tickets: Tickets,
    /// Counts the sessions of tenants and principals.
    pub quotas: Quotas,
    /// Opens cursors.
    pub sealer: Sealer,
    /// The time of day.
    pub clock: Clock,
    /// The origins whose pages may call.
    pub origins: Origins,
    /// Sizes and times.
    pub limits: HttpLimits,
    /// What is counted.
    pub metrics: Metrics,
    /// Cancelled when the node begins to drain: from then on new sessions are refused.
    pub drain: CancellationToken,
    /// The tasks that wait for upgrades; they end within a few seconds.
    pub upgrades: TaskTracker,
    /// The demo's page, where there is one.
    pub page: Option<Page>,
    /// GraphQL, where it is served.
    pub graphql: Option<Arc<graphql::Surface>>,
    /// Webhooks, where they are sent.
    pub(crate) webhooks: Option<Arc<Desk>>,
}

/// The routes of the public listener, the demo's included.
pub fn public_router(gateway: Arc<Gateway>) -> Router {
    let api = api::router(gateway.webhooks.is_some());
    let api = match &gateway.graphql {
        Some(surface) => api.merge(graphql::router(surface)),
        None => api,
    };
    let router = match &gateway.page {
        Some(page) => api.merge(page.router()),
        None => api,
    };
    let metrics = gateway.metrics.clone();
    router
        .fallback(|| async { problem::not_found() })
        .layer(middleware::from_fn_with_state(Arc::clone(&gateway), cors::layer))
        .layer(middleware::from_fn_with_state(
            Arc::clone(&gateway),
            page::check_host,
        ))
        .layer(middleware::from_fn_with_state(metrics, shield::layer))
        .with_state(gateway)
}

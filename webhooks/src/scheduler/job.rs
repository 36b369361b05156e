//! One delivery under way, and what of its endpoint the scheduler needs to know.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use schemas::decode::Record;
use schemas::ids::{StreamName, TenantId};
use tokio::time::Instant;

use crate::delivery::{DeliveryId, EndpointId};
use crate::endpoint::Ordering;
use crate::ledger::{Partition, Receipt};
use crate::render::Prepared;
use crate::retry::{Past, Schedule};

/// An endpoint as the scheduler sees it.
#[derive(Debug, Clone)]
pub struct Target {
    /// Which.
    pub endpoint: EndpointId,
    /// Whose.
    pub tenant: TenantId,
    /// Grows with each change: the latest one counts.
    pub revision: i64,
    /// Whether it is called at all.
    pub callable: bool,
    /// Attempts at once.
    pub concurrency: usize,
    /// Attempts a second on this node.
    pub rate_per_second: Option<u32>,
    /// The deadline of one attempt.
    pub timeout: Duration,
    /// When to try again.
    pub schedule: Arc<Schedule>,
    /// In which order.
    pub ordering: Ordering,
    /// Since when nothing has succeeded, as the other nodes and the time before know it.
    pub failing_since_ms: Option<i64>,
    /// Until when nobody calls it, as they know it.
    pub open_until_ms: Option<i64>,
}

/// A delivery that is owed.
#[derive(Debug, Clone)]
pub struct Job {
    /// To whom.
    pub target: Arc<Target>,
    /// Its id.
    pub delivery: DeliveryId,
    /// Of which stream.
    pub stream: StreamName,
    /// The record.
    pub record: Arc<Record>,
    /// The record as it was decoded, where it was just now. What is parked is decoded again.
    pub event: Option<Arc<Prepared>>,
    /// What keeps it in order with others: a keyed hash of the record's key.
    pub order_key: Option<Vec<u8>>,
    /// Attempts before this one.
    pub attempts: u32,
    /// When the first attempt was, in milliseconds since the Unix epoch. `None`: this is the first.
    pub first_ms: Option<i64>,
    /// What the ledger waits for. `None`: it came from the store.
    pub receipt: Option<Receipt>,
    /// When it came to the scheduler.
    pub arrived: Instant,
    /// Until when the store holds it for us.
    pub leased_until: Option<Instant>,
}

impl Job {
    /// Whether the scheduler keeps its order. What comes from the store is kept in order there.
    pub(super) fn is_keyed(&self) -> bool {
        self.receipt.is_some() && self.target.ordering == Ordering::Key && self.order_key.is_some()
    }

    /// Whether it is fresh and of this partition.
    #[must_use]
    pub fn is_of(&self, partition: &Partition) -> bool {
        self.receipt
            .as_ref()
            .is_some_and(|receipt| receipt.partition() == partition)
    }

    pub(super) fn has_key_of(&self, other: &Self) -> bool {
        self.is_keyed() && self.target.endpoint == other.target.endpoint && self.order_key == other.order_key
    }

    /// The same job after an attempt.
    pub(super) fn tried(&self, past: Past) -> Self {
        Self {
            attempts: past.attempts,
            first_ms: Some(past.first_ms),
            ..self.clone()
        }
    }

    /// A number that differs between deliveries and attempts, and is the same when it is asked again.
    pub(super) fn luck(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.delivery.as_str(), self.attempts).hash(&mut hasher);
        hasher.finish()
    }
}

//! What the scheduler does its deeds through: receivers, the store, the dead-letter topic, the ledger.

use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::Job;
use crate::breaker::Breaker;
use crate::delivery::{DeliveryId, EndpointId};
use crate::endpoint::Disabled;
use crate::ledger::Receipt;
use crate::retry::{Death, Outcome};
use crate::store::Settled;

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It was made.
    Answered(Outcome),
    /// It was not, and may be later: the endpoint is not called at the moment, which is news to the scheduler.
    Held,
    /// It was not: its owner may not have the event any more, or the endpoint is gone. That is on record.
    Dropped,
}

/// What a job is parked with: how long it waits, and for how long it is leased to us, if it is under way.
#[derive(Debug, Clone)]
pub struct Parking {
    /// The job.
    pub job: Arc<Job>,
    /// From now.
    pub due_in: Duration,
    /// From now.
    pub lease: Option<Duration>,
}

/// Something outside failed; trying again may help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it could not be done now")]
pub struct Failed;

/// The world outside of the scheduler. Nothing here may panic, and every future may be dropped.
pub trait World: Send + Sync + 'static {
    /// Judges a job under the grant of now, and attempts it if it may be; writes down what came of it. Ends within the
    /// endpoint's deadline.
    fn attempt(
        &self,
        job: Arc<Job>,
        dead_lettered: Option<DeliveryId>,
    ) -> impl Future<Output = Verdict> + Send;

    /// Parks jobs durably, all of them or none.
    fn park(&self, parked: &[Parking]) -> impl Future<Output = Result<(), Failed>> + Send;

    /// Tells the store what became of jobs that it has.
    fn settle(&self, settled: &[Settled]) -> impl Future<Output = Result<(), Failed>> + Send;

    /// Writes a delivery to the dead-letter topic.
    fn dead_letter(&self, job: &Job, death: Death) -> impl Future<Output = Result<(), Failed>> + Send;

    /// The endpoints that are called and have something due.
    fn due(&self) -> impl Future<Output = Result<Vec<EndpointId>, Failed>> + Send;

    /// Leases up to `limit` jobs of an endpoint.
    fn claim(
        &self,
        endpoint: &EndpointId,
        limit: usize,
        lease: Duration,
    ) -> impl Future<Output = Result<Vec<Job>, Failed>> + Send;

    /// The order keys of an endpoint of which something is parked.
    fn blocked(&self, endpoint: &EndpointId)
    -> impl Future<Output = Result<HashSet<Vec<u8>>, Failed>> + Send;

    /// A fresh job is delivered, parked durably, dead-lettered or dropped.
    fn settled(&self, receipt: &Receipt, delivery: &DeliveryId);

    /// How an endpoint does has changed.
    fn health(&self, endpoint: &EndpointId, breaker: &Breaker);

    /// An endpoint is not to be called any more.
    fn disable(&self, endpoint: &EndpointId, reason: Disabled);
}

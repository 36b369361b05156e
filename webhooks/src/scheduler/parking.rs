//! What cannot be over soon is parked: in the store it holds no partition, and others can take it over.

use std::sync::Arc;
use std::time::Duration;

use super::storage::Op;
use super::world::Parking;
use super::{Job, Running, Scheduler, World};
use crate::delivery::EndpointId;
use crate::store::Settled;

impl<W: World> Scheduler<W> {
    /// Parks a job and, where it has a key, what waits behind it; a claimed one is given back.
    pub(super) fn park_job(&mut self, job: &Arc<Job>, due_in: Duration) {
        if job.receipt.is_none() {
            self.storage.push(Op::Settle(Settled::Again {
                delivery: job.delivery.clone(),
                due_in,
                attempts: job.attempts,
            }));
            return;
        }
        self.park_now(job, due_in);
        for behind in self.keys.block(job) {
            self.park_now(&behind, Duration::ZERO);
        }
    }

    pub(super) fn park_now(&mut self, job: &Arc<Job>, due_in: Duration) {
        self.storage.push(Op::Park(Parking {
            job: Arc::clone(job),
            due_in,
            lease: None,
        }));
    }

    /// Parks the job of this key that is under way, leased to us, and what waits behind it.
    pub(super) fn park_key(&mut self, like: &Arc<Job>) {
        let same = |running: &&mut Running| running.job.has_key_of(like) && running.job.receipt.is_some();
        if let Some(running) = self.running.values_mut().find(same)
            && !running.is_parked
        {
            running.is_parked = true;
            self.storage.push(Op::Park(Parking {
                job: Arc::clone(&running.job),
                due_in: Duration::ZERO,
                lease: Some(self.bounds.lease),
            }));
        }
        // One that waits in the plan is taken out of it.
        let endpoint = &like.target.endpoint;
        for job in self.plan.take(endpoint, |job| job.has_key_of(like)) {
            self.park_now(&job, Duration::ZERO);
        }
        for behind in self.keys.block(like) {
            self.park_now(&behind, Duration::ZERO);
        }
    }

    pub(super) fn park_queue(&mut self, endpoint: &EndpointId) {
        let wait = self
            .lanes
            .get(endpoint)
            .and_then(|lane| lane.refuses(self.now_ms))
            .unwrap_or_default();
        for job in self.plan.take(endpoint, |_| true) {
            self.park_job(&job, wait);
        }
    }

    /// What takes long is parked while it runs and leaves its place to others; what waits for long is parked.
    pub(super) fn mark_slow(&mut self) {
        let now = self.now;
        let mut parked = Vec::new();
        for (number, running) in &mut self.running {
            if running.is_slow || now < running.since + self.bounds.slow_after {
                continue;
            }
            if self.plan.slow(&running.job.target.endpoint) {
                running.is_slow = true;
            } else {
                running.abort.abort();
            }
            if running.job.receipt.is_some() && !running.is_parked && !running.is_forgotten {
                parked.push((*number, Arc::clone(&running.job)));
            }
        }
        for (number, job) in parked {
            if job.is_keyed() {
                self.park_key(&job);
            } else if let Some(running) = self.running.get_mut(&number) {
                // By its number: what another node had parked of it may be under way beside it.
                running.is_parked = true;
                self.storage.push(Op::Park(Parking {
                    job,
                    due_in: Duration::ZERO,
                    lease: Some(self.bounds.lease),
                }));
            }
        }
        let waiting: Vec<EndpointId> = self.plan.waiting_endpoints().cloned().collect();
        for endpoint in waiting {
            let slow_after = self.bounds.slow_after;
            let is_old = |job: &Arc<Job>| job.receipt.is_some() && now >= job.arrived + slow_after;
            for job in self.plan.take(&endpoint, is_old) {
                self.park_job(&job, Duration::ZERO);
            }
        }
    }
}

//! What the store gives back when it is due, as far as there is room for it.

use std::collections::HashMap;
use std::sync::Arc;

use super::keys::Blocked;
use super::storage::Op;
use super::{Job, Scheduler, World, lane_of};
use crate::delivery::EndpointId;
use crate::store::Settled;

/// What the store gave.
#[derive(Default)]
pub(super) struct Claims {
    jobs: Vec<Job>,
    unblocked: Blocked,
}

impl<W: World> Scheduler<W> {
    pub(super) fn claim(&mut self) {
        let mut rooms: HashMap<EndpointId, usize> = HashMap::new();
        for (endpoint, lane) in &mut self.lanes {
            let room = match lane.refuses(self.now_ms) {
                // The store gives nothing of an endpoint that is not called: what it gives says that it is called again.
                Some(_) if lane.is_disabled() => 1,
                Some(_) => 0,
                None if lane.is_on_trial() => 1,
                None => self.plan.room(endpoint).min(lane.claims(self.bounds.claim_max)),
            };
            rooms.insert(endpoint.clone(), room);
        }
        // A key may go on only when what was to be parked of it is parked and gone again.
        let mut blocked = if self.storage.is_idle() {
            self.keys.blocked()
        } else {
            Blocked::default()
        };
        let (world, most, lease) = (Arc::clone(&self.world), self.bounds.claim_max, self.bounds.lease);
        self.claims.spawn(async move {
            let mut jobs = Vec::new();
            for endpoint in world.due().await.unwrap_or_default() {
                let room = rooms.get(&endpoint).copied().unwrap_or(most);
                if room > 0 {
                    jobs.extend(world.claim(&endpoint, room, lease).await.unwrap_or_default());
                }
            }
            let endpoints: Vec<EndpointId> = blocked.endpoints().cloned().collect();
            for endpoint in endpoints {
                let stored = world.blocked(&endpoint).await;
                blocked.keep_missing(&endpoint, stored.ok());
            }
            Claims {
                jobs,
                unblocked: blocked,
            }
        });
    }

    pub(super) fn claimed(&mut self, claims: Claims) {
        self.keys.unblock(claims.unblocked);
        for job in claims.jobs.into_iter().map(Arc::new) {
            let lane = lane_of(&mut self.lanes, &job);
            let target = &job.target;
            let refused = lane.refuses(self.now_ms).is_some()
                || self
                    .plan
                    .push(
                        &target.tenant,
                        &target.endpoint,
                        target.concurrency,
                        Arc::clone(&job),
                    )
                    .is_err();
            if refused {
                self.storage
                    .push(Op::Settle(Settled::Released(job.delivery.clone())));
            }
        }
    }
}

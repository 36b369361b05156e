//! What follows from an attempt: it is over, or comes again, or its endpoint is not called for a while or any more.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinError;

use super::storage::Op;
use super::{Job, Running, Scheduler, Verdict, World, lane_of};
use crate::breaker;
use crate::endpoint::Disabled;
use crate::retry::{Next, Outcome, Past};
use crate::store::Settled;

impl<W: World> Scheduler<W> {
    pub(super) fn attempt_ended(&mut self, ended: Result<(u64, Verdict), JoinError>) {
        let (number, verdict) = match ended {
            Ok((number, verdict)) => (Some(number), Some(verdict)),
            // Called off, or our own fault: it is not under way any more.
            Err(error) => {
                let mut running = self.running.iter();
                let found = running.find(|(_, running)| running.abort.id() == error.id());
                (found.map(|(number, _)| *number), None)
            }
        };
        if let Some(running) = number.and_then(|number| self.running.remove(&number)) {
            self.ended(&running, verdict);
        }
    }

    /// What follows from an attempt. `None`: it was called off.
    pub(super) fn ended(&mut self, running: &Running, verdict: Option<Verdict>) {
        let job = &running.job;
        let endpoint = &job.target.endpoint;
        let now_ms = self.now_ms;
        let lane = lane_of(&mut self.lanes, job);
        lane.under_way = lane.under_way.saturating_sub(1);
        self.claim_soon |= job.receipt.is_none();
        self.plan.ended(endpoint, running.is_slow);
        if running.is_forgotten {
            lane.ended(
                breaker::Ended::Abandoned,
                running.is_probe,
                now_ms,
                &self.bounds.breaker,
            );
            return;
        }
        let outcome = match verdict {
            None => Outcome::Failed,
            Some(Verdict::Answered(outcome)) => outcome,
            Some(Verdict::Held) => {
                lane.ended(
                    breaker::Ended::Abandoned,
                    running.is_probe,
                    now_ms,
                    &self.bounds.breaker,
                );
                lane.disable();
                lane.hold();
                self.is_any_held = true;
                self.plan.hold(endpoint);
                if job.receipt.is_some() && !running.is_parked {
                    self.park_job(job, Duration::ZERO);
                } else {
                    self.storage
                        .push(Op::Settle(Settled::Released(job.delivery.clone())));
                }
                self.park_queue(endpoint);
                return;
            }
            Some(Verdict::Dropped) => {
                // It says nothing of the receiver.
                lane.ended(
                    breaker::Ended::Abandoned,
                    running.is_probe,
                    now_ms,
                    &self.bounds.breaker,
                );
                self.over(running);
                return;
            }
        };
        let ended = match outcome {
            Outcome::Delivered => breaker::Ended::Success,
            Outcome::Throttled { retry_after_ms } => breaker::Ended::Throttled { retry_after_ms },
            Outcome::Failed | Outcome::Gone => breaker::Ended::Failure,
        };
        if lane.ended(ended, running.is_probe, now_ms, &self.bounds.breaker) {
            self.world.health(endpoint, lane.breaker());
        }
        let is_hopeless = lane.breaker().is_hopeless(now_ms, &self.bounds.breaker);
        let is_open = lane.breaker().open_until_ms().is_some();
        let past = Past {
            attempts: job.attempts.saturating_add(1),
            first_ms: job.first_ms.unwrap_or(now_ms),
        };
        match job.target.schedule.next(past, outcome, now_ms, job.luck()) {
            Next::Settled => self.over(running),
            Next::Retry { at_ms } => self.again(running, past, wait(at_ms, now_ms)),
            Next::Disable => {
                lane_of(&mut self.lanes, job).disable();
                self.world.disable(endpoint, Disabled::Gone);
                self.again(running, past, Duration::ZERO);
            }
            Next::Dead(death) => {
                lane_of(&mut self.lanes, job).dead_lettered = Some(job.delivery.clone());
                let is_parked = running.is_parked || job.receipt.is_none();
                self.storage.push(Op::DeadLetter {
                    job: Arc::clone(job),
                    death,
                    is_parked,
                });
                if is_parked {
                    self.storage.push(Op::Settle(Settled::Over(job.delivery.clone())));
                }
                self.next_of_key(job);
            }
        }
        if is_hopeless {
            lane_of(&mut self.lanes, job).disable();
            self.world.disable(endpoint, Disabled::Failing);
        }
        if is_open || is_hopeless || outcome == Outcome::Gone {
            lane_of(&mut self.lanes, job).hold();
            self.is_any_held = true;
            self.plan.hold(endpoint);
            self.park_queue(endpoint);
        }
    }

    /// A job is over for good: what was parked of it goes, its receipt is given back, the next one of its key comes.
    pub(super) fn over(&mut self, running: &Running) {
        let job = &running.job;
        match &job.receipt {
            Some(receipt) if !running.is_parked => self.world.settled(receipt, &job.delivery),
            _ => self.storage.push(Op::Settle(Settled::Over(job.delivery.clone()))),
        }
        self.next_of_key(job);
    }

    pub(super) fn again(&mut self, running: &Running, past: Past, due_in: Duration) {
        let job = &running.job;
        if job.receipt.is_some() && !running.is_parked {
            let tried = Arc::new(job.tried(past));
            self.park_job(&tried, due_in);
        } else {
            self.storage.push(Op::Settle(Settled::Again {
                delivery: job.delivery.clone(),
                due_in,
                attempts: past.attempts,
            }));
        }
    }

    pub(super) fn next_of_key(&mut self, job: &Arc<Job>) {
        if job.receipt.is_some()
            && let Some(next) = self.keys.finish(job)
        {
            self.enqueue(&next);
        }
    }
}

fn wait(at_ms: i64, now_ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(at_ms.saturating_sub(now_ms)).unwrap_or(0))
}

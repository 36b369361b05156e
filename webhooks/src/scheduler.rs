//! When each delivery is attempted, and what is done about what came of it.
//!
//! Invariants: each job ends in exactly one of delivered, parked, dead-lettered or dropped on record, and only then is its
//! receipt given back. A job that is not under way or over after [`Bounds::slow_after`] is parked, so that no receiver holds
//! a partition. Jobs with one order key are attempted one after the other. What the store could not do is done again, in
//! order, before anything that follows from it. Knows nothing of Kafka, HTTP and grants: those are the [`World`]'s.

mod claiming;
mod ending;
mod job;
mod keys;
mod lane;
mod parking;
mod storage;
mod world;

pub use job::{Job, Target};
pub use world::{Failed, Parking, Verdict, World};

use std::sync::Arc;
use std::time::Duration;

use ahash::AHashMap;
use auth::clock::Clock;
use schemas::ids::TenantId;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::breaker;
use crate::delivery::EndpointId;
use crate::ledger::Partition;
use crate::plan::{self, Plan};
use crate::store::Settled;
use keys::Keys;
use lane::Lane;
use storage::{Op, Storage};

/// The bounds.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Queues and places.
    pub plan: plan::Bounds,
    /// When an endpoint is not called.
    pub breaker: breaker::Policy,
    /// After this time what is not over is parked, under way or not.
    pub slow_after: Duration,
    /// How often the store is asked for what is due.
    pub claim_every: Duration,
    /// How many deliveries of one endpoint are claimed at once; more where it takes more, as many as its queue holds.
    pub claim_max: usize,
    /// How long a delivery is leased: it has to last in the queue and through an attempt.
    pub lease: Duration,
    /// How long everything may take when the scheduler is told to stop: attempts three quarters of it, the store the rest.
    pub drain: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            plan: plan::Bounds::default(),
            breaker: breaker::Policy::default(),
            slow_after: Duration::from_secs(2),
            claim_every: Duration::from_millis(500),
            claim_max: 64,
            lease: Duration::from_secs(90),
            drain: Duration::from_secs(10),
        }
    }
}

/// What the scheduler is told.
#[derive(Debug)]
pub enum Input {
    /// Something is owed.
    Job(Box<Job>),
    /// What is parked for an endpoint of these order keys, told before the first job of a partition that was assigned: what
    /// comes for them is parked behind it.
    Blocked(EndpointId, Vec<Vec<u8>>),
    /// A partition is another node's: what is under way of it and not parked is called off, what waits is forgotten.
    Revoked(Partition),
}

/// Owns queues, breakers and attempts. One for each node; [`Scheduler::run`] is its task.
pub struct Scheduler<W: World> {
    world: Arc<W>,
    clock: Clock,
    bounds: Bounds,
    plan: Plan<TenantId, EndpointId, Arc<Job>>,
    lanes: AHashMap<EndpointId, Lane>,
    keys: Keys,
    running: AHashMap<u64, Running>,
    attempts: JoinSet<(u64, Verdict)>,
    storage: Storage<W>,
    claims: JoinSet<claiming::Claims>,
    /// Something that was claimed has ended: what waits behind it may be due.
    claim_soon: bool,
    started: u64,
    /// A lane may be held.
    is_any_held: bool,
    /// When it woke: everything that it does until it waits again happens then.
    now: Instant,
    now_ms: i64,
}

/// What woke it.
enum Woken {
    Input(Input),
    Ended(Result<(u64, Verdict), JoinError>),
    Claimed(claiming::Claims),
    Tick,
    /// Something else may go on: the store, an endpoint, a claim.
    Else,
}

/// The shortest time between two looks into the store. Of one order key one delivery is given out at a time, so this bounds
/// how fast a key's backlog goes: a hundred a second.
const CLAIM_AGAIN: Duration = Duration::from_millis(10);

/// The most of each kind that is taken at once.
const READY_MAX: usize = 64;

struct Running {
    job: Arc<Job>,
    since: Instant,
    is_probe: bool,
    /// It took a place among those that take long.
    is_slow: bool,
    /// It is parked while it runs.
    is_parked: bool,
    /// Its partition is another node's: nothing follows from it.
    is_forgotten: bool,
    abort: AbortHandle,
}

impl<W: World> Scheduler<W> {
    /// A scheduler that does its deeds through `world`.
    #[must_use]
    pub fn new(world: Arc<W>, clock: Clock, bounds: Bounds) -> Self {
        Self {
            storage: Storage::new(Arc::clone(&world)),
            world,
            clock,
            bounds,
            plan: Plan::new(bounds.plan),
            lanes: AHashMap::new(),
            keys: Keys::default(),
            running: AHashMap::new(),
            attempts: JoinSet::new(),
            claims: JoinSet::new(),
            claim_soon: false,
            started: 0,
            is_any_held: false,
            now: Instant::now(),
            now_ms: clock.now_ms(),
        }
    }

    /// Works until it is told to stop, then lets what is under way end, and gives the rest back: fresh jobs to Kafka (their
    /// receipts are never given), claimed ones to the store. `inbox` is where fresh jobs come from; while it is not read
    /// nothing is lost, the consumer waits.
    pub async fn run(mut self, mut inbox: mpsc::Receiver<Input>, stop: CancellationToken) {
        let mut tick = tokio::time::interval(self.bounds.claim_every.min(self.bounds.slow_after / 4));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut next_claim, mut soonest_claim) = (self.now, self.now);
        loop {
            let is_claim_due = self.claim_soon && self.claims.is_empty() && self.storage.is_idle();
            let wake = self.wakes();
            // Every branch may be dropped: they wait for what is kept elsewhere.
            let woken = tokio::select! {
                () = stop.cancelled() => break,
                Some(input) = inbox.recv() => Woken::Input(input),
                Some(ended) = self.attempts.join_next() => Woken::Ended(ended),
                () = self.storage.progress() => Woken::Else,
                Some(claimed) = self.claims.join_next() => Woken::Claimed(claimed.unwrap_or_default()),
                () = sleep_until(wake) => Woken::Else,
                () = tokio::time::sleep_until(soonest_claim), if is_claim_due => Woken::Else,
                _ = tick.tick() => Woken::Tick,
            };
            self.look_at_clock();
            match woken {
                Woken::Input(input) => self.take(input),
                Woken::Ended(ended) => self.attempt_ended(ended),
                Woken::Claimed(claims) => self.claimed(claims),
                Woken::Tick => {
                    self.mark_slow();
                    self.forget_lanes();
                }
                Woken::Else => {}
            }
            self.take_ready(&mut inbox);
            self.wake_lanes();
            self.start();
            self.storage.flush();
            // What has just ended is to be told first: until then the store would give nothing of its key.
            let is_soon = self.claim_soon && self.now >= soonest_claim && self.storage.is_idle();
            if (is_soon || self.now >= next_claim) && self.claims.is_empty() {
                next_claim = self.now + self.bounds.claim_every;
                soonest_claim = self.now + CLAIM_AGAIN;
                self.claim_soon = false;
                self.claim();
            }
        }
        self.drain().await;
    }

    async fn drain(&mut self) {
        self.claims.shutdown().await;
        self.look_at_clock();
        let end = self.now + self.bounds.drain;
        let attempts_end = end - self.bounds.drain / 4;
        while !self.attempts.is_empty() {
            let Ok(Some(ended)) = tokio::time::timeout_at(attempts_end, self.attempts.join_next()).await
            else {
                break;
            };
            self.look_at_clock();
            self.attempt_ended(ended);
            self.storage.flush();
        }
        self.attempts.shutdown().await;
        // What was claimed and not begun, and what was called off just now, others may have at once.
        let waiting: Vec<EndpointId> = self.plan.waiting_endpoints().cloned().collect();
        let waiting = waiting.iter().flat_map(|endpoint| self.plan.drain(endpoint));
        let mut left: Vec<Arc<Job>> = waiting.filter(|job| job.receipt.is_none()).collect();
        let called_off = self.running.drain().map(|(_, running)| running);
        left.extend(
            called_off
                .filter(|running| running.is_parked || running.job.receipt.is_none())
                .map(|running| running.job),
        );
        for job in left {
            self.storage
                .push(Op::Settle(Settled::Released(job.delivery.clone())));
        }
        self.storage.finish(end).await;
    }

    /// Takes what has come beside what woke us: looking at every endpoint is worth more than one event.
    fn take_ready(&mut self, inbox: &mut mpsc::Receiver<Input>) {
        for _ in 0..READY_MAX {
            let ended = self.attempts.try_join_next();
            let input = inbox.try_recv().ok();
            if ended.is_none() && input.is_none() {
                return;
            }
            if let Some(ended) = ended {
                self.attempt_ended(ended);
            }
            if let Some(input) = input {
                self.take(input);
            }
            // What may start leaves its queue before the next one comes to it.
            self.start();
        }
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Job(job) => self.accept(&Arc::from(job)),
            Input::Blocked(endpoint, keys) => self.keys.load(&endpoint, keys),
            Input::Revoked(partition) => self.revoke(&partition),
        }
    }

    fn revoke(&mut self, partition: &Partition) {
        for running in self.running.values_mut() {
            if running.job.is_of(partition) && !running.is_parked {
                running.is_forgotten = true;
                running.abort.abort();
            }
        }
        let waiting: Vec<EndpointId> = self.plan.waiting_endpoints().cloned().collect();
        for endpoint in waiting {
            // Dropped: their receipts are void, and whoever has the partition now owes them.
            self.plan.take(&endpoint, |job| job.is_of(partition));
        }
        self.keys.forget(partition);
    }

    /// Takes a fresh job.
    fn accept(&mut self, job: &Arc<Job>) {
        if job.is_keyed() {
            match self.keys.arrive(job, self.bounds.plan.queue_max) {
                keys::Arrival::Go => {}
                keys::Arrival::Waits => return,
                keys::Arrival::Park => {
                    self.park_now(job, Duration::ZERO);
                    return;
                }
                keys::Arrival::Full => {
                    self.park_key(job);
                    self.park_now(job, Duration::ZERO);
                    return;
                }
            }
        }
        self.enqueue(job);
    }

    /// Queues a job whose turn has come, or parks it.
    fn enqueue(&mut self, job: &Arc<Job>) {
        let lane = lane_of(&mut self.lanes, job);
        if let Some(wait) = lane.refuses(self.now_ms) {
            self.park_job(job, wait);
            return;
        }
        let target = &job.target;
        let pushed = self.plan.push(
            &target.tenant,
            &target.endpoint,
            target.concurrency,
            Arc::clone(job),
        );
        if let Err(job) = pushed {
            self.park_job(&job, Duration::ZERO);
        }
    }

    fn start(&mut self) {
        while let Some((endpoint, job)) = self.plan.start() {
            let now_ms = self.now_ms;
            let lane = lane_of(&mut self.lanes, &job);
            // It was held when the plan had nothing of it.
            if lane.is_held() {
                self.plan.hold(&endpoint);
                self.plan.put_back(&endpoint, job);
                continue;
            }
            // A lease that would end during the attempt is another node's.
            let too_late = job
                .leased_until
                .is_some_and(|until| self.now + job.target.timeout > until);
            if too_late {
                self.plan.ended(&endpoint, false);
                self.storage
                    .push(Op::Settle(Settled::Released(job.delivery.clone())));
                continue;
            }
            let is_probe = match lane.admit(now_ms) {
                breaker::Admission::Yes => false,
                breaker::Admission::Probe => true,
                breaker::Admission::No(_) => {
                    let wait = lane.refuses(now_ms).unwrap_or_default();
                    lane.hold();
                    self.is_any_held = true;
                    self.plan.hold(&endpoint);
                    self.plan.ended(&endpoint, false);
                    self.park_job(&job, wait);
                    continue;
                }
            };
            let has_more = lane.take_token(self.now);
            if is_probe || !has_more {
                lane.hold();
                self.is_any_held = true;
                self.plan.hold(&endpoint);
            }
            let dead_lettered = lane.dead_lettered.take();
            lane.under_way += 1;
            self.started += 1;
            let (number, world, attempted) = (self.started, Arc::clone(&self.world), Arc::clone(&job));
            // Boxed: it is large, and on its way to its task it would be copied again and again.
            let attempt = Box::pin(async move { (number, world.attempt(attempted, dead_lettered).await) });
            let abort = self.attempts.spawn(attempt);
            let running = Running {
                job,
                since: self.now,
                is_probe,
                is_slow: false,
                is_parked: false,
                is_forgotten: false,
                abort,
            };
            self.running.insert(number, running);
        }
    }

    /// When the first of the endpoints that are held may go on.
    fn wakes(&self) -> Option<Instant> {
        if !self.is_any_held {
            return None;
        }
        let lanes = self.lanes.values();
        lanes.filter_map(|lane| lane.wakes(self.now, self.now_ms)).min()
    }

    /// Lets endpoints go on whose time has come.
    fn wake_lanes(&mut self) {
        if !self.is_any_held {
            return;
        }
        self.is_any_held = false;
        for (endpoint, lane) in &mut self.lanes {
            if lane.awakes(self.now, self.now_ms) {
                self.plan.release(endpoint);
            }
            self.is_any_held |= lane.is_held();
        }
    }

    /// Forgets endpoints that have nothing to remember.
    fn forget_lanes(&mut self) {
        self.lanes.retain(|_, lane| !lane.is_idle(self.now));
    }

    fn look_at_clock(&mut self) {
        (self.now, self.now_ms) = (Instant::now(), self.clock.now_ms());
    }
}

fn lane_of<'a>(lanes: &'a mut AHashMap<EndpointId, Lane>, job: &Job) -> &'a mut Lane {
    let lane = lanes
        .entry(job.target.endpoint.clone())
        .or_insert_with(|| Lane::new(&job.target));
    lane.update(&job.target);
    lane
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;

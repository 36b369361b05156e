//! A world in memory: receivers that answer as they are told to, a store that can be down, and a record of everything.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use auth::clock::Clock;
use schemas::ids::{Incarnation, StreamName};
use secrecy::SecretString;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::super::*;
use crate::breaker::Breaker;
use crate::delivery::{DeliveryId, DeliveryIds};
use crate::endpoint::{Disabled, Ordering};
use crate::fixture;
use crate::ledger::{Ledger, Receipt};
use crate::retry::{Death, Outcome, Schedule};

/// What a receiver answers to this job, the how-manieth call it is from 0, and after how long.
pub(super) type Answer = dyn Fn(&Job, usize) -> (Duration, Verdict) + Send + Sync;

pub(super) struct Memory {
    answer: Box<Answer>,
    state: Mutex<State>,
}

#[derive(Default)]
pub(super) struct State {
    /// Endpoint, offset and time of each call.
    pub(super) calls: Vec<(EndpointId, i64, Instant)>,
    /// Offsets that were answered well, in that order.
    pub(super) delivered: Vec<(EndpointId, i64, Instant)>,
    pub(super) told: Vec<(i64, DeliveryId)>,
    pub(super) parked: BTreeMap<DeliveryId, Row>,
    pub(super) parkings: usize,
    pub(super) receipts: Vec<(Receipt, Instant)>,
    pub(super) dead: Vec<(i64, Death)>,
    pub(super) disabled: Vec<Disabled>,
    pub(super) is_down: bool,
    /// A later version of the only endpoint.
    pub(super) changed: Option<Arc<Target>>,
}

pub(super) struct Row {
    job: Job,
    due: Instant,
    pub(super) leased_until: Instant,
}

impl Memory {
    pub(super) fn new(
        answer: impl Fn(&Job, usize) -> (Duration, Verdict) + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            answer: Box::new(answer),
            state: Mutex::new(State::default()),
        })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic")
    }

    fn up(&self) -> Result<MutexGuard<'_, State>, Failed> {
        let state = self.state();
        if state.is_down { Err(Failed) } else { Ok(state) }
    }
}

impl World for Memory {
    async fn attempt(&self, job: Arc<Job>, dead_lettered: Option<DeliveryId>) -> Verdict {
        let endpoint = &job.target.endpoint;
        let (wait, verdict) = {
            let mut state = self.state();
            let before = state.calls.iter().filter(|(to, _, _)| to == endpoint).count();
            state
                .calls
                .push((endpoint.clone(), job.record.offset, Instant::now()));
            if let Some(dead) = dead_lettered {
                state.told.push((job.record.offset, dead));
            }
            (self.answer)(&job, before)
        };
        tokio::time::sleep(wait).await;
        if verdict == Verdict::Answered(Outcome::Delivered) {
            self.state()
                .delivered
                .push((endpoint.clone(), job.record.offset, Instant::now()));
        }
        verdict
    }

    async fn park(&self, parked: &[Parking]) -> Result<(), Failed> {
        let mut state = self.up()?;
        for parking in parked {
            state.parkings += 1;
            let now = Instant::now();
            let row = Row {
                job: Job {
                    first_ms: parking.job.first_ms.or(Some(0)),
                    ..(*parking.job).clone()
                },
                due: now + parking.due_in,
                leased_until: parking.lease.map_or(now, |lease| now + lease),
            };
            state.parked.entry(parking.job.delivery.clone()).or_insert(row);
        }
        Ok(())
    }

    async fn settle(&self, settled: &[Settled]) -> Result<(), Failed> {
        let mut state = self.up()?;
        let now = Instant::now();
        for settled in settled {
            match settled {
                Settled::Over(delivery) => {
                    state.parked.remove(delivery);
                }
                Settled::Again {
                    delivery,
                    due_in,
                    attempts,
                } => {
                    if let Some(row) = state.parked.get_mut(delivery) {
                        (row.due, row.leased_until, row.job.attempts) = (now + *due_in, now, *attempts);
                    }
                }
                Settled::Released(delivery) => {
                    if let Some(row) = state.parked.get_mut(delivery) {
                        row.leased_until = now;
                    }
                }
            }
        }
        Ok(())
    }

    async fn dead_letter(&self, job: &Job, death: Death) -> Result<(), Failed> {
        self.up()?.dead.push((job.record.offset, death));
        Ok(())
    }

    async fn due(&self) -> Result<Vec<EndpointId>, Failed> {
        let state = self.up()?;
        let now = Instant::now();
        let due = state
            .parked
            .values()
            .filter(|row| row.due <= now && row.leased_until <= now);
        let mut endpoints: Vec<EndpointId> = due.map(|row| row.job.target.endpoint.clone()).collect();
        endpoints.sort();
        endpoints.dedup();
        let gone = !state.disabled.is_empty();
        Ok(if gone { Vec::new() } else { endpoints })
    }

    async fn claim(&self, endpoint: &EndpointId, limit: usize, lease: Duration) -> Result<Vec<Job>, Failed> {
        let mut state = self.up()?;
        let now = Instant::now();
        let mut rows: Vec<(i64, DeliveryId)> = state
            .parked
            .iter()
            .filter(|(_, row)| {
                row.job.target.endpoint == *endpoint && row.due <= now && row.leased_until <= now
            })
            .filter(|(_, row)| {
                row.job.order_key.is_none()
                    || !state.parked.values().any(|other| {
                        other.job.order_key == row.job.order_key
                            && other.job.target.endpoint == *endpoint
                            && other.job.record.offset < row.job.record.offset
                    })
            })
            .map(|(delivery, row)| (row.job.record.offset, delivery.clone()))
            .collect();
        rows.sort();
        rows.truncate(limit);
        let changed = state.changed.clone();
        let mut jobs = Vec::new();
        for (_, delivery) in rows {
            let row = state.parked.get_mut(&delivery).expect("found above");
            row.leased_until = now + lease;
            jobs.push(Job {
                receipt: None,
                arrived: now,
                leased_until: Some(now + lease),
                target: changed.clone().unwrap_or_else(|| Arc::clone(&row.job.target)),
                ..row.job.clone()
            });
        }
        Ok(jobs)
    }

    async fn blocked(&self, endpoint: &EndpointId) -> Result<HashSet<Vec<u8>>, Failed> {
        let state = self.up()?;
        let here = state
            .parked
            .values()
            .filter(|row| row.job.target.endpoint == *endpoint);
        Ok(here.filter_map(|row| row.job.order_key.clone()).collect())
    }

    fn settled(&self, receipt: &Receipt, _: &DeliveryId) {
        self.state().receipts.push((receipt.clone(), Instant::now()));
    }

    fn health(&self, _: &EndpointId, _: &Breaker) {}

    fn disable(&self, _: &EndpointId, reason: Disabled) {
        self.state().disabled.push(reason);
    }
}

/// A scheduler at work, and a ledger that gives the receipts.
pub(super) struct House {
    pub(super) world: Arc<Memory>,
    pub(super) inbox: mpsc::Sender<Input>,
    pub(super) stop: CancellationToken,
    pub(super) task: JoinSet<()>,
    pub(super) ledger: Ledger,
    pub(super) start: Instant,
    next: i64,
}

pub(super) const PARTITION: i32 = 0;

pub(super) fn partition() -> Partition {
    Partition {
        topic: Arc::from("fhir.observation"),
        number: PARTITION,
    }
}

pub(super) fn target(tenant: &str) -> Target {
    Target {
        endpoint: EndpointId::generate(),
        tenant: fixture::tenant(tenant),
        revision: 1,
        callable: true,
        concurrency: 8,
        rate_per_second: None,
        timeout: Duration::from_secs(15),
        schedule: Arc::new(
            Schedule::new([5_000, 20_000, 60_000].map(Duration::from_millis).to_vec()).expect("a schedule"),
        ),
        ordering: Ordering::None,
        failing_since_ms: None,
        open_until_ms: None,
    }
}

impl House {
    pub(super) fn new(world: Arc<Memory>, bounds: Bounds) -> Self {
        let start = Instant::now();
        let clock = Clock::Tokio { base_ms: 0, start };
        let (inbox, jobs) = mpsc::channel(64);
        let stop = CancellationToken::new();
        let mut task = JoinSet::new();
        task.spawn(Scheduler::new(Arc::clone(&world), clock, bounds).run(jobs, stop.clone()));
        let mut ledger = Ledger::new(100_000);
        ledger.assign(partition(), Incarnation(99), 0);
        Self {
            world,
            inbox,
            stop,
            task,
            ledger,
            start,
            next: 0,
        }
    }

    /// One more record, owed to this endpoint.
    pub(super) async fn offer(&mut self, target: &Arc<Target>, key: Option<&str>) -> i64 {
        let offset = self.next;
        self.next += 1;
        let position = fixture::position(PARTITION, offset);
        let stream = StreamName::parse("observations").expect("a name");
        let ids = DeliveryIds::new(&SecretString::from("a secret of the tests, long enough"));
        let job = Job {
            delivery: ids.of(&target.endpoint, &stream, &position),
            target: Arc::clone(target),
            stream,
            record: Arc::new(fixture::record(target.tenant.as_str(), &position, "k", "{}")),
            event: None,
            order_key: key.map(|key| key.as_bytes().to_vec()),
            attempts: 0,
            first_ms: None,
            receipt: self.ledger.register(&partition(), offset, 1),
            arrived: Instant::now(),
            leased_until: None,
        };
        self.inbox
            .send(Input::Job(Box::new(job)))
            .await
            .expect("the scheduler runs");
        offset
    }

    /// Gives the ledger the receipts that came; what may be committed then.
    pub(super) fn committed(&mut self) -> i64 {
        let receipts: Vec<_> = std::mem::take(&mut self.world.state().receipts);
        for (receipt, _) in &receipts {
            self.ledger.settle(receipt);
        }
        self.ledger.watermarks().next().expect("one partition").offset
    }

    /// Waits, in paused time, until this holds.
    pub(super) async fn until(&self, limit: Duration, holds: impl Fn(&State) -> bool) {
        let end = Instant::now() + limit;
        while !holds(&self.world.state()) {
            assert!(Instant::now() < end, "it holds within {limit:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(super) async fn finish(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.task.join_next().await {
            ended.expect("the scheduler does not panic");
        }
    }
}

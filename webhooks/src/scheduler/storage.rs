//! What the store and the dead-letter topic are told, in order, one batch at a time, until it is done.
//!
//! Invariant: nothing is told before what was pushed before it is done, so that a job that was parked and then delivered is
//! not parked for good. Bounded by what there is to tell of: the ledger's windows and what was claimed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::world::{Failed, Parking};
use super::{Job, World};
use crate::retry::Death;
use crate::store::Settled;

/// The most of one kind that is told at once.
const BATCH_MAX: usize = 256;

/// How long to wait after a failure: at first, and at most.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Something to be told.
#[derive(Debug)]
pub(super) enum Op {
    /// Park a job; a fresh one's receipt is given back then.
    Park(Parking),
    /// A job that the store has.
    Settle(Settled),
    /// Give a job up. `is_parked`: the store has it, and its receipt was given back before.
    DeadLetter {
        job: Arc<Job>,
        death: Death,
        is_parked: bool,
    },
}

#[derive(Debug)]
enum Batch {
    Park(Vec<Parking>),
    Settle(Vec<Settled>),
    DeadLetter(Arc<Job>, Death, bool),
}

pub(super) struct Storage<W: World> {
    world: Arc<W>,
    ops: VecDeque<Op>,
    working: JoinSet<(Batch, Result<(), Failed>)>,
    /// After a failure: not before.
    resume: Option<Instant>,
    pause: Duration,
}

impl<W: World> Storage<W> {
    pub(super) fn new(world: Arc<W>) -> Self {
        Self {
            world,
            ops: VecDeque::new(),
            working: JoinSet::new(),
            resume: None,
            pause: PAUSE_MIN,
        }
    }

    pub(super) fn push(&mut self, op: Op) {
        self.ops.push_back(op);
    }

    /// Whether everything has been told.
    pub(super) fn is_idle(&self) -> bool {
        self.ops.is_empty() && self.working.is_empty()
    }

    /// Begins with the next batch, if none is under way.
    pub(super) fn flush(&mut self) {
        if !self.working.is_empty() || self.resume.is_some_and(|resume| Instant::now() < resume) {
            return;
        }
        self.resume = None;
        let Some(batch) = self.next_batch() else {
            return;
        };
        let world = Arc::clone(&self.world);
        self.working.spawn(async move {
            let result = match &batch {
                Batch::Park(parked) => world.park(parked).await,
                Batch::Settle(settled) => world.settle(settled).await,
                Batch::DeadLetter(job, death, _) => world.dead_letter(job, *death).await,
            };
            (batch, result)
        });
    }

    /// Waits until there may be something to flush. Cancel safe.
    pub(super) async fn progress(&mut self) {
        if let Some(done) = self.working.join_next().await {
            // A panic in the world is our own bug: what was under way is lost, its receipts are never given back, and so
            // Kafka gives it again.
            if let Ok((batch, result)) = done {
                self.done(batch, result);
            }
            return;
        }
        match self.resume {
            Some(resume) if !self.ops.is_empty() => {
                tokio::time::sleep_until(resume).await;
            }
            _ => std::future::pending().await,
        }
    }

    /// Tells everything, or as much as can be told until then.
    pub(super) async fn finish(&mut self, end: Instant) {
        self.flush();
        while !self.is_idle() {
            if tokio::time::timeout_at(end, self.progress()).await.is_err() {
                break;
            }
            self.flush();
        }
        self.working.shutdown().await;
    }

    fn next_batch(&mut self) -> Option<Batch> {
        match self.ops.pop_front()? {
            Op::DeadLetter {
                job,
                death,
                is_parked,
            } => Some(Batch::DeadLetter(job, death, is_parked)),
            Op::Park(first) => {
                let mut parked = vec![first];
                while parked.len() < BATCH_MAX
                    && let Some(Op::Park(next)) = self.ops.pop_front_if(|op| matches!(op, Op::Park(_)))
                {
                    parked.push(next);
                }
                Some(Batch::Park(parked))
            }
            Op::Settle(first) => {
                let mut settled = vec![first];
                while settled.len() < BATCH_MAX
                    && let Some(Op::Settle(next)) = self.ops.pop_front_if(|op| matches!(op, Op::Settle(_)))
                {
                    settled.push(next);
                }
                Some(Batch::Settle(settled))
            }
        }
    }

    fn done(&mut self, batch: Batch, result: Result<(), Failed>) {
        if result.is_err() {
            self.resume = Some(Instant::now() + self.pause);
            self.pause = (self.pause * 2).min(PAUSE_MAX);
            let again: Vec<Op> = match batch {
                Batch::Park(parked) => parked.into_iter().map(Op::Park).collect(),
                Batch::Settle(settled) => settled.into_iter().map(Op::Settle).collect(),
                Batch::DeadLetter(job, death, is_parked) => vec![Op::DeadLetter {
                    job,
                    death,
                    is_parked,
                }],
            };
            for op in again.into_iter().rev() {
                self.ops.push_front(op);
            }
            return;
        }
        self.pause = PAUSE_MIN;
        let settled = |job: &Job| {
            if let Some(receipt) = &job.receipt {
                self.world.settled(receipt, &job.delivery);
            }
        };
        match batch {
            Batch::Park(parked) => parked.iter().for_each(|parking| settled(&parking.job)),
            Batch::DeadLetter(job, _, false) => settled(&job),
            Batch::DeadLetter(_, _, true) | Batch::Settle(_) => {}
        }
    }
}

//! The log of attempts, written in batches: no attempt waits for it.
//!
//! Invariant: bounded. What does not fit while the store is gone is counted and left out; deliveries are kept elsewhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use webhooks::store::{Attempt, Bodies, Store};

use super::Metrics;

/// Attempts that wait to be written: some 200 bytes each, 3 MB.
const WAITING_MAX: usize = 16 * 1024;
/// Attempts that are written at once: what comes in a fifth of a second where much comes, since each batch is flushed to the
/// disk.
const BATCH_MAX: usize = 4096;
/// Bytes of bodies that wait to be written, or are being written; beyond it an attempt is logged without.
const BODIES_WAITING_MAX: usize = 32 * 1024 * 1024;
/// Bytes of bodies that are written at once; more than two attempts' are.
const BODIES_BATCH_MAX: usize = 4 * 1024 * 1024;
/// How long a batch is gathered.
const GATHER: Duration = Duration::from_millis(200);
/// How long before a batch that failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// Takes attempts. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Journal {
    attempts: mpsc::Sender<(Attempt, Option<Bodies>)>,
    /// Bytes of bodies that wait.
    waiting: Arc<AtomicUsize>,
    metrics: Metrics,
}

/// Writes them.
pub(crate) struct Writer {
    store: Arc<Store>,
    attempts: mpsc::Receiver<(Attempt, Option<Bodies>)>,
    waiting: Arc<AtomicUsize>,
    metrics: Metrics,
}

impl Journal {
    pub(crate) fn new(store: Arc<Store>, metrics: Metrics) -> (Self, Writer) {
        let (sender, attempts) = mpsc::channel(WAITING_MAX);
        let waiting = Arc::new(AtomicUsize::new(0));
        let journal = Self {
            attempts: sender,
            waiting: Arc::clone(&waiting),
            metrics: metrics.clone(),
        };
        let writer = Writer {
            store,
            attempts,
            waiting,
            metrics,
        };
        (journal, writer)
    }

    pub(crate) fn write(&self, attempt: Attempt, mut bodies: Option<Bodies>) {
        let weight = bodies.as_ref().map_or(0, Bodies::weight);
        if weight > 0 && self.waiting.fetch_add(weight, Ordering::Relaxed) + weight > BODIES_WAITING_MAX {
            self.waiting.fetch_sub(weight, Ordering::Relaxed);
            self.metrics.bodies_unlogged.inc();
            bodies = None;
        }
        let is_kept = bodies.is_some();
        if self.attempts.try_send((attempt, bodies)).is_err() {
            self.metrics.attempts_unlogged.inc();
            if is_kept {
                self.waiting.fetch_sub(weight, Ordering::Relaxed);
            }
        }
    }
}

impl Writer {
    /// Writes a batch, however often it takes; bodies as many at once as are written fast, since parking waits meanwhile.
    async fn keep(&self, attempts: &[Attempt], bodies: &[Bodies], stop: &CancellationToken) {
        let (mut attempts, mut bodies) = (attempts, bodies);
        loop {
            let mut weight = 0;
            let fits = bodies.iter().take_while(|one| {
                weight += one.weight();
                weight <= BODIES_BATCH_MAX
            });
            let (now, later) = bodies.split_at(fits.count());
            while let Err(error) = self.store.log(attempts, now).await {
                tracing::debug!(%error, "attempts were not logged");
                if stop.is_cancelled() {
                    // A drain does not wait for a store that is gone.
                    self.metrics.attempts_unlogged.inc_by(attempts.len() as u64);
                    return;
                }
                tokio::time::sleep(AGAIN).await;
            }
            if later.is_empty() {
                return;
            }
            (attempts, bodies) = (&[], later);
        }
    }

    /// Writes until it is told to stop, and then what has come by then.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        loop {
            tokio::select! {
                count = self.attempts.recv_many(&mut batch, BATCH_MAX) => if count == 0 { return },
                () = stop.cancelled(), if !self.attempts.is_closed() => self.attempts.close(),
            }
            let end = tokio::time::Instant::now() + GATHER;
            while batch.len() < BATCH_MAX && !self.attempts.is_closed() && !stop.is_cancelled() {
                let room = BATCH_MAX - batch.len();
                match tokio::time::timeout_at(end, self.attempts.recv_many(&mut batch, room)).await {
                    Ok(1..) => {}
                    Ok(0) | Err(_) => break,
                }
            }
            if batch.is_empty() {
                continue;
            }
            let (attempts, bodies): (Vec<Attempt>, Vec<Option<Bodies>>) = batch.drain(..).unzip();
            let bodies: Vec<Bodies> = bodies.into_iter().flatten().collect();
            self.keep(&attempts, &bodies, &stop).await;
            let weight = bodies.iter().map(Bodies::weight).sum();
            self.waiting.fetch_sub(weight, Ordering::Relaxed);
        }
    }
}

//! Asks the cluster about the control topic: whether it is there, whether it is still the same one, where it ends.
//!
//! Invariant: an answer counts from when it was asked for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use auth::clock::Clock;
use auth::control::{Control, EntryId, EntryKind, key_of};
use rdkafka::error::KafkaResult;
use tokio::time::Instant;

use super::super::compacted;
use super::super::lookup::Client;
use super::super::metrics::ControlMetrics;
use super::super::raw::Described;
use super::super::settings::KafkaSettings;
use super::{Ends, Order, Shared, Writer, interval};

/// How long one question may take.
const TIMEOUT: Duration = Duration::from_secs(1);
/// How often it is looked whether something is over.
const FORGET: Duration = Duration::from_secs(60);
/// How many entries that are over are taken out of the topic at each look.
const REMOVED_MAX: usize = 100;

/// The watching thread.
pub(super) struct Watch {
    settings: KafkaSettings,
    topic: Arc<str>,
    client: Client,
    control: Control,
    clock: Clock,
    shared: Arc<Shared>,
    writer: Writer,
    metrics: ControlMetrics,
    order: Option<Order>,
    /// Whether the writer is connected, so that the first revocation does not wait for it.
    is_prepared: bool,
}

impl Watch {
    pub(super) fn new(
        settings: &KafkaSettings,
        topic: Arc<str>,
        control: Control,
        clock: Clock,
        shared: Arc<Shared>,
        writer: Writer,
        metrics: ControlMetrics,
    ) -> KafkaResult<Self> {
        Ok(Self {
            client: Client::new(settings)?,
            settings: settings.clone(),
            topic,
            control,
            clock,
            shared,
            writer,
            metrics,
            order: None,
            is_prepared: false,
        })
    }

    /// Looks again and again until the other side of `stopped` is gone.
    pub(super) fn run(mut self, stopped: &Receiver<()>) {
        let interval = interval(self.settings.control_staleness_max);
        let mut forget_at = Instant::now() + FORGET;
        loop {
            self.look();
            if Instant::now() >= forget_at {
                forget_at = Instant::now() + FORGET;
                self.forget();
            }
            let staleness = self.control.staleness().unwrap_or_default();
            let stale_ms = i64::try_from(staleness.as_millis()).unwrap_or(i64::MAX);
            self.metrics.staleness_ms.set(stale_ms);
            // Until it is read everybody waits for it.
            let pause = if self.control.is_read() {
                interval
            } else {
                Duration::from_millis(50)
            };
            match stopped.recv_timeout(pause) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn look(&mut self) {
        let asked_at = Instant::now();
        let described = match self.client.describe(std::slice::from_ref(&self.topic), TIMEOUT) {
            Ok(described) => described.into_iter().next(),
            Err(code) => {
                tracing::debug!(%code, "the control topic cannot be asked about");
                return;
            }
        };
        match described {
            Some((_, Described::Topic { id, partitions, .. })) => {
                let order = Order { life: id, partitions };
                if self.order != Some(order) {
                    if self.order.is_some() {
                        tracing::warn!("the control topic is another one than before; it is read anew");
                    }
                    self.order = Some(order);
                    let mut told = self.shared.lock();
                    told.order = Some(order);
                    told.ends = None;
                    drop(told);
                    self.shared.waker.wake();
                }
                self.ask_ends(order, asked_at);
                if !std::mem::replace(&mut self.is_prepared, true) {
                    self.writer.prepare();
                }
            }
            Some((_, Described::Missing)) => {
                // One that is deleted takes with it what it said only when another one is there.
                if let Err(error) = compacted::create(&self.settings, &self.topic) {
                    tracing::warn!(%error, topic = &*self.topic, "the control topic is missing and was not made");
                }
            }
            Some((_, Described::Unclear(code))) => {
                tracing::warn!(%code, topic = &*self.topic, "the control topic is not described");
            }
            None => {}
        }
    }

    fn ask_ends(&self, of: Order, asked_at: Instant) {
        let mut by_partition = BTreeMap::new();
        for partition in 0..of.partitions {
            match self.client.bounds(&self.topic, partition, TIMEOUT) {
                Ok(bounds) => by_partition.insert(partition, bounds.end),
                Err(error) => {
                    tracing::debug!(%error, partition, "the control topic's end is not known");
                    return;
                }
            };
        }
        self.shared.lock().ends = Some(Ends {
            of,
            asked_at,
            by_partition,
        });
        self.shared.waker.wake();
    }

    /// Takes out of the topic what is over, and forgets it. Its id names when it is over: an entry that was made to stand
    /// longer has another one, which this does not touch.
    fn forget(&self) {
        let now_ms = self.clock.now_ms();
        let over: Vec<EntryId> = self.control.read(|knowledge| {
            let over = knowledge
                .revocations()
                .filter(|(_, revocation)| revocation.is_over(now_ms));
            over.map(|(id, _)| id.clone()).take(REMOVED_MAX).collect()
        });
        for id in over {
            self.writer.remove(&key_of(EntryKind::Revocation, &id));
        }
        self.control.forget(now_ms);
    }
}

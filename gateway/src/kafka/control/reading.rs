//! Reads the control topic and applies it.
//!
//! Invariant: a partition's position is told only after everything before it was applied.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use auth::control::{Change, Control, EntryKind, Knowledge, Passed};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::watch;

use super::super::client::Context;
use super::super::metrics::ControlMetrics;
use super::super::raw::{Polled, Queue, RawRecord};
use super::{Order, Shared};

/// How long a poll waits. It is woken for everything that must not wait so long.
const POLL: Duration = Duration::from_secs(1);
/// Records that are applied at once.
const RECORDS_MAX: usize = 1024;

/// The reading thread.
pub(super) struct Reader {
    topic: Arc<str>,
    consumer: Arc<BaseConsumer<Context>>,
    queue: Queue,
    control: Control,
    shared: Arc<Shared>,
    /// Tells the positions up to which everything is applied.
    applied: watch::Sender<BTreeMap<i32, i64>>,
    metrics: ControlMetrics,
    /// What is being read.
    order: Option<Order>,
    positions: BTreeMap<i32, i64>,
    /// What was read of a topic that is not read to its end yet.
    fresh: Option<Knowledge>,
}

impl Reader {
    pub(super) fn new(
        topic: Arc<str>,
        consumer: Arc<BaseConsumer<Context>>,
        queue: Queue,
        control: Control,
        shared: Arc<Shared>,
        applied: watch::Sender<BTreeMap<i32, i64>>,
        metrics: ControlMetrics,
    ) -> Self {
        Self {
            topic,
            consumer,
            queue,
            control,
            shared,
            applied,
            metrics,
            order: None,
            positions: BTreeMap::new(),
            fresh: None,
        }
    }

    /// Reads until it is told to stop.
    pub(super) fn run(mut self) {
        let mut polled = Vec::new();
        loop {
            self.queue.poll(POLL, RECORDS_MAX, &mut polled);
            let (stop, order, ends) = {
                let mut told = self.shared.lock();
                (told.stop, told.order.take(), told.ends.take())
            };
            if stop {
                return;
            }
            if let Some(order) = order {
                // What was polled is of the topic as it was before.
                polled.clear();
                self.begin(order);
            }
            self.take(&mut polled);
            if let Some(ends) = ends.filter(|ends| Some(ends.of) == self.order) {
                let reached = |(partition, end): (&i32, &i64)| {
                    self.positions
                        .get(partition)
                        .is_some_and(|position| position >= end)
                };
                if ends.by_partition.iter().all(reached) {
                    self.is_whole();
                    self.control.has_read(ends.asked_at);
                } else {
                    // Once more when the records are here that it saw the end of, unless somebody asks again meanwhile.
                    self.shared.lock().ends.get_or_insert(ends);
                }
            }
        }
    }

    /// Reads a topic from its beginning; what is known stays in force until it is read.
    fn begin(&mut self, order: Order) {
        self.order = Some(order);
        self.read_anew();
    }

    fn read_anew(&mut self) {
        let Some(order) = self.order else { return };
        self.positions.clear();
        self.applied.send_replace(BTreeMap::new());
        self.fresh = Some(Knowledge::default());
        self.metrics.readings.inc();
        let mut partitions = TopicPartitionList::new();
        for partition in 0..order.partitions {
            let added = partitions.add_partition_offset(&self.topic, partition, Offset::Beginning);
            if let Err(error) = added {
                tracing::error!(%error, "the control topic cannot be read");
            }
        }
        // Without this the fetches of before would go on at their offsets.
        if let Err(error) = self
            .consumer
            .unassign()
            .and_then(|()| self.consumer.assign(&partitions))
        {
            tracing::error!(%error, "the control topic cannot be read");
        }
    }

    fn take(&mut self, polled: &mut Vec<Polled>) {
        let mut changes = Vec::new();
        let mut lost = false;
        let before = self.positions.clone();
        for item in polled.drain(..) {
            match item {
                Polled::Record(record) => {
                    self.positions.insert(record.partition, record.offset + 1);
                    changes.extend(self.decode(&record));
                }
                Polled::End {
                    partition, offset, ..
                } => {
                    self.positions.insert(partition, offset);
                }
                Polled::Partition {
                    code: RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange,
                    ..
                } => lost = true,
                Polled::Partition { code, partition, .. } => {
                    tracing::warn!(%code, partition, "the control topic is not read at the moment");
                }
                Polled::Client(code) => tracing::debug!(%code, "the control topic's consumer"),
                // No group is ever joined here.
                Polled::Rebalance { .. } | Polled::Uncommitted(_) => {}
            }
        }
        match &mut self.fresh {
            Some(fresh) => {
                for change in changes {
                    fresh.apply(change);
                }
            }
            None => {
                if self.control.apply(changes) {
                    self.count();
                }
            }
        }
        if lost {
            tracing::error!(
                "the control topic has lost what was not read yet: is it compacted? it is read anew from its beginning"
            );
            self.read_anew();
        } else if self.fresh.is_none() && before != self.positions {
            self.applied.send_replace(self.positions.clone());
        }
    }

    fn decode(&self, record: &RawRecord) -> Option<Change> {
        match Change::decode(record.key.as_deref(), record.value.as_deref()) {
            Ok(change) => {
                self.metrics.record("applied");
                Some(change)
            }
            Err(Passed::Unknown) => {
                self.metrics.record("unknown");
                None
            }
            Err(Passed::Malformed(why)) => {
                self.metrics.record("malformed");
                tracing::error!(
                    partition = record.partition,
                    offset = record.offset,
                    why,
                    "a record of the control topic is malformed; it is passed over"
                );
                None
            }
        }
    }

    /// A topic that is read to its end takes the place of what was known.
    fn is_whole(&mut self) {
        let Some(fresh) = self.fresh.take() else { return };
        let count = |knowledge: &Knowledge| {
            (
                knowledge.count(EntryKind::Revocation),
                knowledge.count(EntryKind::Denial),
            )
        };
        let (known, read) = (self.control.read(count), count(&fresh));
        self.control.replace(fresh);
        self.count();
        self.applied.send_replace(self.positions.clone());
        tracing::info!(
            revocations = read.0,
            denials = read.1,
            "the control topic is read"
        );
        if read.0 < known.0 || read.1 < known.1 {
            tracing::error!(
                revocations = known.0,
                denials = known.1,
                "the control topic was made again or cut, and says less than before: what it does not say is not in force any more"
            );
        }
    }

    fn count(&self) {
        self.control.read(|knowledge| self.metrics.entries(knowledge));
    }
}

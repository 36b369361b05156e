//! A part of a partition, read once more for one endpoint.
//!
//! Invariant: what is given is in order and complete up to the offset that is said; nothing is given twice. It belongs to
//! whoever waits for it: every call blocks, for a bounded time.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};
use tokio::time::Instant;
use webhooks::delivery::Position;

use super::client::Context;
use super::raw::{Polled, Queue, RawRecord};
use super::settings::KafkaSettings;

/// How long one batch may take; what came by then is given.
const BATCH_TIME: Duration = Duration::from_secs(5);
/// How long nothing may come before it counts as no answer.
const SILENCE: Duration = Duration::from_secs(20);

/// A consumer of its own at one partition.
pub(crate) struct Reread {
    consumer: Arc<BaseConsumer<Context>>,
    queue: Queue,
    topic: Arc<str>,
    partition: i32,
    next: i64,
    until: i64,
}

/// What was read.
#[derive(Debug)]
pub(crate) struct Batch {
    /// In order.
    pub(crate) records: Vec<RawRecord>,
    /// Everything below this that exists was given.
    pub(crate) next: i64,
}

/// Why it does not go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RereadError {
    /// Trying again later may help.
    #[error("kafka does not answer")]
    Unavailable(#[from] KafkaError),
    /// The log begins later by now, or was deleted.
    #[error("the records are gone")]
    Gone,
}

impl Reread {
    /// Begins at a position; what is read ends before `until`.
    pub(crate) fn open(settings: &KafkaSettings, from: &Position, until: i64) -> KafkaResult<Self> {
        let consumer: BaseConsumer<Context> = settings.replay_consumer().create_with_context(Context)?;
        let consumer = Arc::new(consumer);
        let no_queue = || KafkaError::ClientCreation("the consumer has no queue".to_owned());
        let queue = Queue::of(&consumer).ok_or_else(no_queue)?;
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&from.topic, from.partition, Offset::Offset(from.offset))?;
        consumer.incremental_assign(&list)?;
        Ok(Self {
            consumer,
            queue,
            topic: Arc::clone(&from.topic),
            partition: from.partition,
            next: from.offset,
            until,
        })
    }

    /// Everything from a position until an offset.
    pub(crate) fn all(
        settings: &KafkaSettings,
        from: &Position,
        until: i64,
    ) -> Result<Vec<RawRecord>, RereadError> {
        let mut reread = Self::open(settings, from, until)?;
        let mut records = Vec::new();
        while reread.next < until {
            records.extend(reread.batch(1024)?.records);
        }
        Ok(records)
    }

    /// Reads on, up to so many records. An empty batch that does not go on is none: then there was no answer yet.
    pub(crate) fn batch(&mut self, records_max: usize) -> Result<Batch, RereadError> {
        let start = Instant::now();
        let mut records = Vec::new();
        let mut polled = Vec::new();
        while self.next < self.until && records.len() < records_max {
            if start.elapsed() > if records.is_empty() { SILENCE } else { BATCH_TIME } {
                break;
            }
            self.queue.poll(
                Duration::from_millis(100),
                records_max - records.len(),
                &mut polled,
            );
            let came = !polled.is_empty();
            for item in polled.drain(..) {
                match item {
                    Polled::Record(record)
                        if record.offset >= self.next && self.is_ours(&record.topic, record.partition) =>
                    {
                        self.next = record.offset + 1;
                        if record.offset < self.until {
                            records.push(record);
                        }
                    }
                    Polled::End {
                        topic,
                        partition,
                        offset,
                    } if self.is_ours(&topic, partition) => self.next = self.next.max(offset),
                    Polled::Partition {
                        topic,
                        partition,
                        code,
                        ..
                    } if self.is_ours(&topic, partition) => match code {
                        RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange => {
                            self.skip_what_is_gone()?;
                        }
                        RDKafkaErrorCode::UnknownTopicOrPartition
                        | RDKafkaErrorCode::UnknownTopic
                        | RDKafkaErrorCode::UnknownTopicId
                        | RDKafkaErrorCode::UnknownPartition => return Err(RereadError::Gone),
                        _ => {}
                    },
                    _ => {}
                }
            }
            // What has come is not kept waiting for more.
            if !came && !records.is_empty() {
                break;
            }
        }
        if records.is_empty() && self.next < self.until && start.elapsed() > SILENCE {
            return Err(RereadError::Unavailable(KafkaError::MessageConsumption(
                RDKafkaErrorCode::OperationTimedOut,
            )));
        }
        Ok(Batch {
            records,
            next: self.next.min(self.until),
        })
    }

    fn is_ours(&self, topic: &Arc<str>, partition: i32) -> bool {
        *topic == self.topic && partition == self.partition
    }

    fn skip_what_is_gone(&mut self) -> Result<(), RereadError> {
        let (start, end) =
            self.consumer
                .fetch_watermarks(&self.topic, self.partition, Duration::from_secs(5))?;
        if start <= self.next {
            // Beyond the end: the log is shorter than it was.
            self.next = if end < self.next { self.until } else { self.next };
            return Ok(());
        }
        self.next = start;
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.topic, self.partition);
        self.consumer.incremental_unassign(&list)?;
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.topic, self.partition, Offset::Offset(start))?;
        self.consumer.incremental_assign(&list)?;
        Ok(())
    }
}

//! Events into Kafka at a rate, and a bare consumer beside the gateway: what Kafka alone costs in time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};
use hdrhistogram::Histogram;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use tokio::time::{Instant, MissedTickBehavior};

use super::payload::{self, Finder};
use super::readers::latencies;
use crate::producer::{Producer, Record};

/// How often it is asked whether there is room.
const ROOM: Duration = Duration::from_millis(1);

/// Produces numbered events, the same to every topic.
pub struct Source {
    producer: Producer,
    topics: Vec<String>,
    next: u64,
    patients: usize,
    bytes: usize,
    tenant: &'static str,
}

impl Source {
    /// A source for these topics, whose first partition is used.
    pub fn new(bootstrap: &str, topics: Vec<String>) -> Result<Self> {
        Ok(Self {
            producer: Producer::new(bootstrap)?,
            topics,
            next: 0,
            patients: 0,
            bytes: payload::BYTES,
            tenant: "north",
        })
    }

    /// Each event is about one of so many patients, in turn, and numbered among those of its patient.
    #[must_use]
    pub fn about(mut self, patients: usize) -> Self {
        self.patients = patients;
        self
    }

    /// Each event has so many bytes of data.
    #[must_use]
    pub fn of(mut self, bytes: usize) -> Self {
        self.bytes = bytes;
        self
    }

    /// The events are another tenant's.
    #[must_use]
    pub fn tenant(mut self, tenant: &'static str) -> Self {
        self.tenant = tenant;
        self
    }

    /// How many events each topic got so far.
    #[must_use]
    pub fn produced(&self) -> u64 {
        self.next
    }

    fn record(&mut self, topic: usize) -> Option<Record> {
        let topic = self.topics.get(topic)?.clone();
        let value = match u64::try_from(self.patients).ok().filter(|patients| *patients > 0) {
            None => payload::write(self.next, self.bytes),
            Some(patients) => {
                let patient = usize::try_from(self.next % patients).unwrap_or(0);
                payload::write_about(self.next / patients, patient)
            }
        };
        let record = Record {
            topic,
            value: Some(value),
            ..Record::default()
        };
        Some(record.on(0).header("tenant", self.tenant))
    }

    /// Produces at a rate for a while; how many events each topic got.
    pub async fn at_rate(&mut self, per_second: f64, how_long: Duration) -> Result<u64> {
        let mut pace = tokio::time::interval(Duration::from_secs_f64(1.0 / per_second));
        pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let until = Instant::now() + how_long;
        let mut count = 0;
        while pace.tick().await < until {
            self.one_each().await?;
            count += 1;
        }
        Ok(count)
    }

    /// Produces as fast as Kafka takes them, and waits until it has all.
    pub async fn burst(&mut self, count: u64) -> Result<()> {
        let mut answers = Vec::new();
        for _ in 0..count {
            for topic in 0..self.topics.len() {
                if let Some(record) = self.record(topic) {
                    answers.push(self.producer.hand_over(&record).await?);
                }
            }
            self.next += 1;
        }
        for answer in answers {
            answer.await??;
        }
        Ok(())
    }

    /// Produces so many events, and each only when there is room for it: never more under way than is wanted.
    pub async fn while_room(&mut self, count: u64, has_room: impl Fn(u64) -> bool) -> Result<()> {
        let end = self.next + count;
        while self.next < end {
            if has_room(self.next) {
                self.one_each().await?;
            } else {
                tokio::time::sleep(ROOM).await;
            }
        }
        Ok(())
    }

    async fn one_each(&mut self) -> Result<()> {
        for topic in 0..self.topics.len() {
            if let Some(record) = self.record(topic) {
                drop(self.producer.hand_over(&record).await?);
            }
        }
        self.next += 1;
        Ok(())
    }
}

/// A consumer that does nothing but look at the time.
pub struct BareConsumer {
    over: Arc<AtomicBool>,
    measuring: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Result<Histogram<u64>>>,
}

impl BareConsumer {
    /// Begins at the end of a topic's first partition.
    pub fn start(bootstrap: &str, topic: &str) -> Result<Self> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("group.id", "load")
            .set("log_level", "0")
            .set("isolation.level", "read_committed")
            .create()?;
        let mut from = TopicPartitionList::new();
        from.add_partition_offset(topic, 0, Offset::End)?;
        consumer.assign(&from)?;
        let (over, measuring) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (ends, measures) = (Arc::clone(&over), Arc::clone(&measuring));
        let thread = std::thread::spawn(move || {
            let mut latencies = latencies()?;
            while !ends.load(Ordering::Relaxed) {
                let Some(message) = consumer.poll(Duration::from_millis(100)) else {
                    continue;
                };
                let message = message?;
                let now = payload::now_us();
                if let (true, Some(data)) = (measures.load(Ordering::Relaxed), message.payload()) {
                    Finder::default().feed(data, |_, time| {
                        latencies.saturating_record(now.saturating_sub(time).max(1))
                    });
                }
            }
            Ok(latencies)
        });
        Ok(Self {
            over,
            measuring,
            thread,
        })
    }

    /// From now on latencies are recorded.
    pub fn measure(&self) {
        self.measuring.store(true, Ordering::Relaxed);
    }

    /// The latencies, in microseconds.
    pub fn finish(self) -> Result<Histogram<u64>> {
        self.over.store(true, Ordering::Relaxed);
        match self.thread.join() {
            Ok(histogram) => histogram,
            Err(_) => bail!("the consumer's thread panicked"),
        }
    }
}

//! The live path: one consumer, one thread, every partition. Records are decoded here and handed to their streams.
//!
//! Invariant: the thread never waits for anything but the consumer's queue. It knows no topology: it is told which
//! partitions to read and from where, and tells what goes wrong with one. It says when Kafka is gone, and when it is back.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaResult, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};
use schemas::cursor::Position;
use schemas::decode::{Decoder, Record};
use schemas::ids::{Incarnation, Slot};
use subscriptions::history::Partition;
use subscriptions::sequencer::{Gone, Input, InputSender};
use tokio::time::Instant;

use super::alive::{Alive, Freshness};
use super::client::Context;
use super::dead_letter::DeadLetters;
use super::metrics::{ByStream, SourceMetrics};
use super::orders::{Command, Place, Route, Standing, Trouble};
use super::outbox::Outbox;
use super::raw::{Polled, Queue, RawRecord, Waker};
use super::reading::{Reading, Readings, find, touch};
use super::witness::{Answer, Questions};

/// Items taken from librdkafka before they are handed on: small enough that a burst is passed on while it arrives.
const BATCH_MAX: usize = 512;
/// How long the thread sleeps when nothing happens. Commands and records wake it.
const IDLE: Duration = Duration::from_millis(500);
/// How long it sleeps while a sequencer is behind (its channel cannot wake us).
const HELD_BACK: Duration = Duration::from_millis(2);

struct Stream {
    decoder: Decoder,
    outbox: Outbox,
    label: ByStream,
    records: Counter,
    bytes: Counter,
    held_back: bool,
}

/// The thread's state.
pub(super) struct Live {
    consumer: Arc<BaseConsumer<Context>>,
    queue: Queue,
    streams: Vec<Stream>,
    readings: Readings,
    touched: Vec<(Arc<str>, i32)>,
    any_held: bool,
    commands: Receiver<Command>,
    troubles: SyncSender<Trouble>,
    questions: Arc<Questions>,
    ticket: u64,
    polled_at: Instant,
    dead_letters: Arc<DeadLetters>,
    alive: Arc<Alive>,
    freshness: Freshness,
    metrics: SourceMetrics,
}

/// What the live thread works with.
pub(super) struct Parts {
    pub(super) consumer: Arc<BaseConsumer<Context>>,
    pub(super) streams: Vec<(Decoder, InputSender)>,
    pub(super) commands: Receiver<Command>,
    pub(super) troubles: SyncSender<Trouble>,
    pub(super) questions: Arc<Questions>,
    pub(super) dead_letters: Arc<DeadLetters>,
    pub(super) alive: Arc<Alive>,
    pub(super) stale_after: Duration,
    pub(super) metrics: SourceMetrics,
}

impl Live {
    /// `None` if the consumer has no queue.
    pub(super) fn new(parts: Parts) -> Option<Self> {
        let queue = Queue::of(&parts.consumer)?;
        let streams = parts.streams.into_iter().map(|(decoder, sender)| {
            let label = ByStream {
                stream: decoder.stream().name.to_string(),
            };
            Stream {
                records: parts.metrics.records.get_or_create_owned(&label),
                bytes: parts.metrics.bytes.get_or_create_owned(&label),
                label,
                decoder,
                outbox: Outbox::new(sender),
                held_back: false,
            }
        });
        Some(Self {
            queue,
            streams: streams.collect(),
            consumer: parts.consumer,
            readings: HashMap::new(),
            touched: Vec::new(),
            any_held: false,
            commands: parts.commands,
            troubles: parts.troubles,
            questions: parts.questions,
            ticket: 0,
            polled_at: Instant::now(),
            dead_letters: parts.dead_letters,
            alive: parts.alive,
            freshness: Freshness::new(parts.stale_after),
            metrics: parts.metrics,
        })
    }

    pub(super) fn waker(&self) -> Waker {
        self.queue.waker()
    }

    /// Runs until it is told to stop.
    pub(super) fn run(mut self) {
        let mut polled = Vec::with_capacity(BATCH_MAX);
        loop {
            loop {
                match self.commands.try_recv() {
                    Ok(Command::Stop) | Err(TryRecvError::Disconnected) => return,
                    Ok(command) => self.obey(command),
                    Err(TryRecvError::Empty) => break,
                }
            }
            self.judge();
            // What was polled last, and what a witness has just let go.
            self.hand_over();
            self.hold_back();
            let waiting = self.streams.iter().any(|stream| !stream.outbox.is_empty());
            self.queue
                .poll(if waiting { HELD_BACK } else { IDLE }, BATCH_MAX, &mut polled);
            self.polled_at = Instant::now();
            for item in polled.drain(..) {
                self.take(item);
            }
        }
    }

    /// Tells the streams when Kafka has been silent for too long, and when it is back.
    fn judge(&mut self) {
        let silence = self.alive.silence();
        let Some(fresh) = self.freshness.judge(silence) else {
            return;
        };
        if fresh {
            tracing::info!("kafka answers again");
        } else {
            tracing::error!(
                silent_ms = silence.as_millis(),
                "kafka does not answer; sessions stay and go on when it is back"
            );
        }
        for stream in &mut self.streams {
            stream.outbox.push(Input::Fresh(fresh));
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Add {
                place,
                routes,
                start,
                standing,
            } => self.add(&place, routes, start, standing),
            Command::Resolved { place, start } => {
                let Some(reading) = self.reading(&place) else {
                    return;
                };
                reading.go_on(start);
                for route in reading.routes.clone() {
                    self.tell(
                        route.stream,
                        Input::Resolved {
                            slot: route.slot,
                            start,
                        },
                    );
                }
                self.assign(&place, start);
            }
            Command::Unresolved { place, since_ms } => self.unresolved(&place, since_ms),
            Command::Rest { place, since_ms } => {
                if let Some(reading) = self.reading(&place) {
                    reading.rest();
                    self.unassign(&place);
                    self.unresolved(&place, since_ms);
                }
            }
            Command::Lost { place, next } => {
                // What is in no doubt was read before the loss.
                self.hand_over();
                let Some(reading) = self.reading(&place) else {
                    return;
                };
                reading.go_on(next);
                for route in reading.routes.clone() {
                    if let Some(stream) = self.streams.get(route.stream) {
                        self.metrics.lost.get_or_create(&stream.label).inc();
                    }
                    self.tell(
                        route.stream,
                        Input::Lost {
                            slot: route.slot,
                            next,
                        },
                    );
                }
                self.unassign(&place);
                self.assign(&place, next);
            }
            Command::Retry { place } => {
                if let Some(next) = self.reading(&place).and_then(|reading| reading.next) {
                    self.unassign(&place);
                    self.assign(&place, next);
                }
            }
            Command::Remove {
                topic,
                incarnation,
                partition,
                gone,
            } => self.remove(&topic, incarnation, partition, gone),
            Command::Witnessed(answers) => self.witnessed(&answers),
            Command::Stop => {}
            Command::Complete { stream, generation } => self.tell(stream, Input::Complete { generation }),
            Command::Resting { stream } => self.tell(stream, Input::Resting),
        }
    }

    fn unresolved(&mut self, place: &Place, since_ms: i64) {
        let Some(reading) = self.reading(place) else {
            return;
        };
        for route in reading.routes.clone() {
            self.tell(
                route.stream,
                Input::Unresolved {
                    slot: route.slot,
                    since_ms,
                },
            );
        }
    }

    fn add(&mut self, place: &Place, routes: Vec<Route>, start: Position, standing: Arc<Standing>) {
        for route in &routes {
            let Some(stream) = self.streams.get_mut(route.stream) else {
                continue;
            };
            let partition = Partition {
                stream: stream.decoder.stream().name.clone(),
                slot: route.slot,
                topic: Arc::clone(&place.topic),
                incarnation: place.incarnation,
                partition: place.partition,
            };
            stream.outbox.push(Input::Partition {
                partition,
                tenant: route.tenant.clone(),
                start,
            });
        }
        let next = match start {
            Position::At(offset) => Some(offset),
            Position::Since(_) | Position::Start => None,
        };
        let Ok(index) = usize::try_from(place.partition) else {
            return;
        };
        let partitions = self.readings.entry(Arc::clone(&place.topic)).or_default();
        if partitions.len() <= index {
            partitions.resize_with(index + 1, || None);
        }
        partitions[index] = Some(Reading::new(place, routes, next, standing));
        if let Some(next) = next {
            self.assign(place, next);
        }
    }

    fn remove(&mut self, topic: &Arc<str>, incarnation: Incarnation, partition: Option<i32>, why: Gone) {
        let Some(partitions) = self.readings.get_mut(topic) else {
            return;
        };
        let mut gone: Vec<(Place, Vec<Route>)> = Vec::new();
        for entry in partitions.iter_mut() {
            let dead = |place: &Place| {
                place.incarnation == incarnation
                    && partition.is_none_or(|partition| place.partition == partition)
            };
            if entry.as_ref().is_some_and(|reading| dead(&reading.place))
                && let Some(reading) = entry.take()
            {
                gone.push((reading.place, reading.routes));
            }
        }
        if partitions.iter().all(Option::is_none) {
            self.readings.remove(topic);
            self.questions.forget(topic);
        }
        let mut slots: HashMap<usize, Vec<Slot>> = HashMap::new();
        for (place, routes) in gone {
            self.unassign(&place);
            for route in routes {
                slots.entry(route.stream).or_default().push(route.slot);
            }
        }
        for (stream, slots) in slots {
            self.tell(stream, Input::Removed { slots, gone: why });
        }
    }

    fn take(&mut self, item: Polled) {
        match item {
            Polled::Record(record) => {
                self.alive.heard();
                self.record(&record);
            }
            Polled::End {
                topic,
                partition,
                offset,
            } => {
                self.alive.heard();
                if let Some(reading) = find(&mut self.readings, &topic, partition)
                    && let Some(next) = reading.next
                    && offset > next
                {
                    self.ticket += 1;
                    if reading.hear(self.polled_at, self.ticket) {
                        self.questions.ask(&reading.place.topic, self.ticket);
                    }
                    reading.gather(offset, 0);
                    touch(reading, &mut self.touched);
                }
            }
            Polled::Partition {
                topic,
                partition,
                offset,
                code,
            } => self.trouble(&topic, partition, offset, code),
            Polled::Client(code) => tracing::debug!(%code, "the live consumer reports"),
            // No group is ever joined here.
            Polled::Rebalance { .. } | Polled::Uncommitted(_) => {}
        }
    }

    fn record(&mut self, record: &RawRecord) {
        let Some(reading) = find(&mut self.readings, &record.topic, record.partition) else {
            return;
        };
        // After a pause or a second assignment an offset may come again.
        if reading.next.is_none_or(|next| record.offset < next) {
            return;
        }
        self.ticket += 1;
        if reading.hear(self.polled_at, self.ticket) {
            self.questions.ask(&reading.place.topic, self.ticket);
        }
        reading.gather(record.offset + 1, record.bytes);
        for (route, pending) in reading.routes.iter().zip(&mut reading.pending) {
            let Some(stream) = self.streams.get(route.stream) else {
                continue;
            };
            stream.records.inc();
            stream.bytes.inc_by(record.bytes as u64);
            match stream
                .decoder
                .decode(to_decode(record, reading.place.incarnation, route.slot))
            {
                Ok(Some(event)) => pending.push(event),
                Ok(None) => {}
                Err(rejected) => {
                    self.dead_letters
                        .offer(&stream.decoder.stream().name, record.clone(), rejected);
                }
            }
        }
        touch(reading, &mut self.touched);
    }

    fn trouble(&mut self, topic: &Arc<str>, partition: i32, offset: i64, code: RDKafkaErrorCode) {
        let Some(reading) = find(&mut self.readings, topic, partition) else {
            return;
        };
        let trouble = match code {
            RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange => {
                Trouble::OutOfRange(reading.place.clone())
            }
            RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownTopicId
            | RDKafkaErrorCode::UnknownPartition => Trouble::Topic,
            code => {
                tracing::warn!(topic = &**topic, partition, offset, %code, "a partition cannot be read now");
                return;
            }
        };
        // If the queue is full, the next look at the topology comes anyway.
        drop(self.troubles.try_send(trouble));
    }

    /// Hands what was gathered to the streams.
    fn hand_over(&mut self) {
        let mut waiting = Vec::new();
        for (topic, partition) in std::mem::take(&mut self.touched) {
            let Some(reading) = find(&mut self.readings, &topic, partition) else {
                continue;
            };
            if let Some(free) = reading.take() {
                for (route, events) in reading.routes.iter().zip(free.events) {
                    if let Some(stream) = self.streams.get_mut(route.stream) {
                        stream.outbox.push(Input::Records {
                            slot: route.slot,
                            events,
                            next: free.next,
                        });
                    }
                }
            }
            reading.touched = reading.is_in_doubt();
            if reading.touched {
                waiting.push((topic, partition));
            }
        }
        self.touched = waiting;
        for stream in &mut self.streams {
            stream.outbox.flush();
        }
    }

    /// Topics are still what they were, or are not: then what was gathered waits until the topic is removed.
    fn witnessed(&mut self, answers: &[Answer]) {
        let mut another_life = false;
        for answer in answers {
            let mut unlike = false;
            let readings = self.readings.get_mut(&answer.topic);
            for reading in readings.into_iter().flatten().flatten() {
                if answer.incarnation == reading.place.incarnation {
                    reading.witnessed(answer.ticket, answer.asked_at);
                } else {
                    unlike |= reading.is_in_doubt();
                }
            }
            if unlike {
                // Whoever looks at the topology may see it otherwise: then this is asked again.
                self.questions.ask_later(&answer.topic, answer.ticket);
            }
            another_life |= unlike;
        }
        if another_life {
            drop(self.troubles.try_send(Trouble::Topic));
        }
    }

    /// Pauses the partitions of streams that are behind, and resumes those whose streams have caught up.
    fn hold_back(&mut self) {
        // Only what waits for a witness can be over, and what was is looked at until it is not.
        let mut changed = (self.any_held || !self.touched.is_empty())
            && self
                .readings
                .values()
                .flatten()
                .flatten()
                .any(|reading| reading.is_over() != reading.held);
        for stream in &mut self.streams {
            let held_back = if stream.held_back {
                !stream.outbox.is_empty()
            } else {
                stream.outbox.is_over()
            };
            if held_back && !stream.held_back {
                self.metrics.held_back.get_or_create(&stream.label).inc();
            }
            changed |= held_back != stream.held_back;
            stream.held_back = held_back;
        }
        if !changed {
            return;
        }
        self.any_held = false;
        let (mut pause, mut resume) = (TopicPartitionList::new(), TopicPartitionList::new());
        for reading in self
            .readings
            .values_mut()
            .flatten()
            .flatten()
            .filter(|reading| reading.next.is_some())
        {
            reading.held = reading.is_over();
            self.any_held |= reading.held;
            let wanted = reading.held || is_held_back(&reading.routes, &self.streams);
            if wanted != reading.paused {
                reading.paused = wanted;
                let list = if wanted { &mut pause } else { &mut resume };
                list.add_partition(&reading.place.topic, reading.place.partition);
            }
        }
        report("pause", self.consumer.pause(&pause));
        report("resume", self.consumer.resume(&resume));
    }

    fn assign(&mut self, place: &Place, offset: i64) {
        let mut list = TopicPartitionList::new();
        let added = list.add_partition_offset(&place.topic, place.partition, Offset::Offset(offset));
        report(
            "assign",
            added.and_then(|()| self.consumer.incremental_assign(&list)),
        );
        let Some(reading) = find(&mut self.readings, &place.topic, place.partition) else {
            return;
        };
        // Nothing may change for its streams for a while, so nobody else would pause it; and librdkafka remembers a pause
        // beyond the assignment.
        reading.paused = reading.held || is_held_back(&reading.routes, &self.streams);
        if reading.paused {
            report("pause", self.consumer.pause(&list));
        } else {
            report("resume", self.consumer.resume(&list));
        }
    }

    fn unassign(&self, place: &Place) {
        let mut list = TopicPartitionList::new();
        list.add_partition(&place.topic, place.partition);
        if let Err(error) = self.consumer.incremental_unassign(&list) {
            // A partition that never was resolved is not assigned.
            tracing::debug!(topic = &*place.topic, partition = place.partition, %error, "was not assigned");
        }
    }

    fn reading(&mut self, place: &Place) -> Option<&mut Reading> {
        find(&mut self.readings, &place.topic, place.partition)
            .filter(|reading| reading.place.incarnation == place.incarnation)
    }

    fn tell(&mut self, stream: usize, input: Input) {
        // Order: what was gathered before is told before.
        self.hand_over();
        if let Some(stream) = self.streams.get_mut(stream) {
            stream.outbox.push(input);
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        // However it ends: nobody is to wait for the witness's thread.
        self.questions.close();
    }
}

/// Whether one of the streams is behind.
fn is_held_back(routes: &[Route], streams: &[Stream]) -> bool {
    routes
        .iter()
        .filter_map(|route| streams.get(route.stream))
        .any(|stream| stream.held_back)
}

/// The record as a decoder takes it; payloads are shared.
pub(crate) fn to_decode(record: &RawRecord, incarnation: Incarnation, slot: Slot) -> Record {
    Record {
        topic: Arc::clone(&record.topic),
        incarnation,
        slot,
        partition: record.partition,
        offset: record.offset,
        timestamp_ms: record.timestamp_ms,
        key: record.key.clone(),
        value: record.value.clone(),
        headers: record.headers.clone(),
    }
}

fn report(deed: &'static str, result: KafkaResult<()>) {
    if let Err(error) = result {
        tracing::error!(%error, deed, "librdkafka refused");
    }
}

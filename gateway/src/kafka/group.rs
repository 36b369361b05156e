//! The consumer group that shares the partitions among nodes, for what has to be delivered: webhooks.
//!
//! Invariants: an offset is committed only when everything owed for it and for what is before it is settled (the ledger
//! says so), and never for a partition that was taken away. A record is planned in the order of its partition. The thread
//! waits for nothing but the consumer's queue: what needs the store or a broker's answer is asked of a [`resolver`], and
//! what the scheduler does not take yet waits here, with the partitions paused.
//!
//! It knows no endpoint and no receiver: what a record owes is the [`Planner`]'s to say.

mod begin;
mod notes;
mod rebalance;
pub(crate) mod resolver;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use ahash::AHashMap;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};
use schemas::ids::{Incarnation, StreamName};
use tokio::sync::mpsc;
use tokio::time::Instant;
use webhooks::delivery::{DeliveryId, EndpointId};
use webhooks::ledger::{Commit, Ledger, Partition, Receipt};
use webhooks::scheduler::{Input, Job};
use webhooks::store::Note;

use super::client::Context;
use super::raw::{Polled, Queue, RawRecord, Waker};
use crate::webhooks::Metrics;
use crate::webhooks::planner::Planner;
use notes::Notes;

/// Items taken from librdkafka at once.
const BATCH_MAX: usize = 512;
/// A record that waits is there as it came, and decoded; each delivery of it costs about so much besides.
const RECORD_COPIES: usize = 2;
const JOB_BYTES: usize = 1024;
/// How long the thread sleeps when nothing happens.
const IDLE: Duration = Duration::from_millis(50);
/// How long while something waits for the scheduler, or a partition for what is to be settled: neither can wake us.
const HELD_BACK: Duration = Duration::from_millis(2);
/// How often is committed.
const COMMIT_EVERY: Duration = Duration::from_millis(200);
/// How often what was committed is committed again, in case it was not taken.
const COMMIT_AGAIN: Duration = Duration::from_secs(5);
/// Jobs that wait for the scheduler before partitions are paused, and below which they go on.
const WAITING_MAX: usize = 2048;
const WAITING_LOW: usize = 256;
/// What the thread is told and asks; far more than partitions are given at once.
const MESSAGES_MAX: usize = 4096;

/// An endpoint's interest in a stream.
pub(crate) type Interested = (EndpointId, StreamName);

/// What the thread is told.
#[derive(Debug)]
pub(crate) enum Command {
    /// Read these topics.
    Subscribe(Vec<Arc<str>>),
    /// Where the partitions of one rebalance, or one that was lost, begin.
    Begin(u64, Vec<Beginning>),
    /// The topic is another one now.
    Recreated(Arc<str>, Incarnation),
    /// An endpoint has caught up with a partition; these of its order keys are parked.
    CaughtUp(Interested, Partition, Vec<Vec<u8>>),
    /// Commit and end.
    Stop,
    /// End without a word.
    #[cfg(test)]
    Abandon,
}

/// Where a partition begins.
#[derive(Debug)]
pub(crate) struct Beginning {
    pub(crate) partition: Partition,
    pub(crate) incarnation: Incarnation,
    pub(crate) offset: i64,
    /// Whose catching up is arranged for.
    pub(crate) covered: HashSet<Interested>,
    /// Those of them that keep an order and have not caught up yet.
    pub(crate) catching_up: Vec<Interested>,
    /// Order keys of which something is parked.
    pub(crate) blocked: Vec<(EndpointId, Vec<Vec<u8>>)>,
    /// What is parked from here on, or was noted as settled: a node before this one had read further than it could commit.
    pub(crate) settled: HashSet<DeliveryId>,
}

/// What the thread asks of the [`resolver`].
#[derive(Debug)]
pub(crate) enum Ask {
    /// Where do these begin? The number comes back with the answer.
    Begin(u64, Vec<Partition>),
    /// These endpoints are new to the reader of a partition, which has read it up to here.
    Learnt(Vec<Learnt>),
    /// So far is settled: keep it in the store, too.
    Settled(Vec<Commit>),
    /// These are settled, although something before them is not.
    Noted(Vec<Note>),
}

/// An endpoint that is new to the reader of a partition.
#[derive(Debug, Clone)]
pub(crate) struct Learnt {
    pub(crate) interested: Interested,
    pub(crate) partition: Partition,
    pub(crate) incarnation: Incarnation,
    /// What was owed from here on ...
    pub(crate) from: i64,
    /// ... was planned without it up to here.
    pub(crate) until: i64,
}

/// Receipts that come back from the scheduler, which must not wait.
#[derive(Debug, Default)]
pub(crate) struct Receipts {
    /// Bounded by the ledger's windows.
    back: Mutex<Vec<(Receipt, DeliveryId)>>,
}

impl Receipts {
    pub(crate) fn give_back(&self, receipt: &Receipt, delivery: &DeliveryId) {
        let mut back = self.back.lock().unwrap_or_else(PoisonError::into_inner);
        back.push((receipt.clone(), delivery.clone()));
    }

    fn take(&self) -> Vec<(Receipt, DeliveryId)> {
        std::mem::take(&mut *self.back.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What the thread works with.
pub(crate) struct Parts {
    pub(crate) consumer: Arc<BaseConsumer<Context>>,
    pub(crate) planner: Planner,
    pub(crate) scheduler: mpsc::Sender<Input>,
    pub(crate) asks: mpsc::Sender<Ask>,
    pub(crate) receipts: Arc<Receipts>,
    pub(crate) open_offsets_max: usize,
    pub(crate) open_bytes_max: usize,
    pub(crate) metrics: Metrics,
}

/// The running thread.
pub(crate) struct Group {
    commands: SyncSender<Command>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

/// Tells the thread something.
#[derive(Clone)]
pub(crate) struct Commands {
    commands: SyncSender<Command>,
    waker: Waker,
}

impl Commands {
    /// `false`: it is gone. Blocks where thousands wait already.
    pub(crate) fn tell(&self, command: Command) -> bool {
        let told = self.commands.send(command).is_ok();
        self.waker.wake();
        told
    }
}

impl Group {
    /// Starts the thread. Nothing is read before [`Command::Subscribe`].
    pub(crate) fn start(parts: Parts) -> KafkaResult<Self> {
        let no_queue = || KafkaError::ClientCreation("the consumer has no queue".to_owned());
        let queue = Queue::of(&parts.consumer).ok_or_else(no_queue)?;
        let waker = queue.waker();
        let (commands, commanded) = sync_channel(MESSAGES_MAX);
        let work = Work {
            consumer: parts.consumer,
            queue,
            planner: parts.planner,
            ledger: Ledger::new(parts.open_offsets_max).bounded(parts.open_bytes_max),
            notes: Notes::default(),
            scheduler: parts.scheduler,
            asks: parts.asks,
            receipts: parts.receipts,
            commands: commanded,
            metrics: parts.metrics,
            reading: AHashMap::new(),
            giving: None,
            questions: 0,
            catching_up: HashMap::new(),
            waiting: VecDeque::new(),
            unasked: VecDeque::new(),
            is_paused: false,
            commit_at: Instant::now(),
            again_at: Instant::now(),
        };
        let thread = std::thread::Builder::new()
            .name("kafka-webhooks".to_owned())
            .spawn(move || work.run())
            .map_err(|error| KafkaError::ClientCreation(format!("no thread: {error}")))?;
        Ok(Self {
            commands,
            waker,
            thread: Some(thread),
        })
    }

    pub(crate) fn commands(&self) -> Commands {
        Commands {
            commands: self.commands.clone(),
            waker: self.waker.clone(),
        }
    }

    #[cfg(test)]
    pub(crate) fn abandon(&self) {
        self.commands().tell(Command::Abandon);
    }

    /// Commits what is settled, leaves the group and ends. Call it when the scheduler has ended.
    pub(crate) async fn stop(&mut self) {
        self.commands().tell(Command::Stop);
        let Some(thread) = self.thread.take() else { return };
        let joined = tokio::task::spawn_blocking(move || thread.join()).await;
        if !matches!(joined, Ok(Ok(()))) {
            tracing::error!("the thread of the consumer group had panicked");
        }
    }
}

struct Reading {
    covered: HashSet<Interested>,
    /// Deliveries that were settled before the partition was ours.
    settled: HashSet<DeliveryId>,
    paused: bool,
}

/// Partitions that the group gives and that wait for where they begin.
struct Giving {
    question: u64,
    partitions: HashSet<Partition>,
}

struct Work {
    consumer: Arc<BaseConsumer<Context>>,
    queue: Queue,
    planner: Planner,
    ledger: Ledger,
    notes: Notes,
    scheduler: mpsc::Sender<Input>,
    asks: mpsc::Sender<Ask>,
    receipts: Arc<Receipts>,
    commands: Receiver<Command>,
    metrics: Metrics,
    reading: AHashMap<Partition, Reading>,
    giving: Option<Giving>,
    questions: u64,
    /// Jobs of endpoints that keep an order and have not caught up with a partition yet. Bounded by the ledger's windows.
    catching_up: HashMap<(Interested, Partition), Vec<Job>>,
    /// What the scheduler has not taken yet, in order.
    waiting: VecDeque<Input>,
    /// What the resolver has not taken yet, in order.
    unasked: VecDeque<Ask>,
    is_paused: bool,
    commit_at: Instant,
    again_at: Instant,
}

impl Work {
    fn run(mut self) {
        let mut polled = Vec::with_capacity(BATCH_MAX);
        loop {
            loop {
                match self.commands.try_recv() {
                    Ok(Command::Stop) | Err(TryRecvError::Disconnected) => {
                        self.end();
                        return;
                    }
                    #[cfg(test)]
                    Ok(Command::Abandon) => return,
                    Ok(command) => self.obey(command),
                    Err(TryRecvError::Empty) => break,
                }
            }
            self.settle();
            self.learn();
            self.flush();
            self.hold_back();
            self.commit();
            let is_held = !self.waiting.is_empty() || self.reading.values().any(|reading| reading.paused);
            let timeout = if is_held { HELD_BACK } else { IDLE };
            self.queue.poll(timeout, BATCH_MAX, &mut polled);
            for item in polled.drain(..) {
                self.take(item);
            }
        }
    }

    fn end(&mut self) {
        self.settle();
        let partitions: Vec<Partition> = self.ledger.partitions().cloned().collect();
        let notes: Vec<Note> = partitions
            .iter()
            .filter_map(|partition| self.notes.take(partition, self.ledger.watermark(partition)?))
            .collect();
        if !notes.is_empty() {
            self.ask(Ask::Noted(notes));
        }
        let commits = self.ledger.commits();
        if !commits.is_empty() && !self.consumer.assignment_lost() {
            report("commit", self.consumer.commit(&list(&commits), CommitMode::Sync));
        }
        // The group is left when the consumer goes.
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Subscribe(topics) => {
                let names: Vec<&str> = topics.iter().map(|topic| &**topic).collect();
                if names.is_empty() {
                    self.consumer.unsubscribe();
                } else {
                    report("subscribe", self.consumer.subscribe(&names));
                }
            }
            Command::Begin(question, beginnings) => self.begin(question, beginnings),
            Command::Recreated(topic, incarnation) => self.recreated(&topic, incarnation),
            Command::CaughtUp(interested, partition, keys) => {
                let Some(held) = self.catching_up.remove(&(interested.clone(), partition)) else {
                    return;
                };
                self.waiting.push_back(Input::Blocked(interested.0, keys));
                self.waiting
                    .extend(held.into_iter().map(|job| Input::Job(Box::new(job))));
            }
            Command::Stop => {}
            #[cfg(test)]
            Command::Abandon => {}
        }
    }

    fn take(&mut self, item: Polled) {
        match item {
            Polled::Record(record) => self.record(&record),
            Polled::Rebalance { given, partitions } => self.rebalance(given, partitions),
            Polled::Partition {
                topic,
                partition,
                offset,
                code,
            } => self.trouble(topic, partition, offset, code),
            Polled::Uncommitted(code) => {
                // It is committed again soon, if the partition is ours still.
                self.metrics.commits_failed.inc();
                tracing::debug!(%code, "offsets of webhooks were not committed");
            }
            Polled::Client(code) => tracing::debug!(%code, "the consumer of webhooks reports"),
            Polled::End { .. } => {}
        }
    }

    fn record(&mut self, record: &RawRecord) {
        let partition = Partition {
            topic: Arc::clone(&record.topic),
            number: record.partition,
        };
        let Some(incarnation) = self.ledger.incarnation(&partition) else {
            return;
        };
        // After a pause or a second assignment an offset may come again.
        if self
            .ledger
            .next(&partition)
            .is_none_or(|next| record.offset < next)
        {
            return;
        }
        let mut owed = self.planner.owed(record, incarnation);
        if let Some(reading) = self.reading.get_mut(&partition)
            && !reading.settled.is_empty()
        {
            owed.retain(|job| !reading.settled.remove(&job.delivery));
        }
        let bytes = RECORD_COPIES * record.bytes + JOB_BYTES * owed.len();
        let Some(receipt) = self
            .ledger
            .register_sized(&partition, record.offset, owed.len(), bytes)
        else {
            return;
        };
        self.metrics.records.inc();
        for mut job in owed {
            job.receipt = Some(receipt.clone());
            if !self.catching_up.is_empty() {
                let interested = (job.target.endpoint.clone(), job.stream.clone());
                if let Some(held) = self.catching_up.get_mut(&(interested, partition.clone())) {
                    held.push(job);
                    continue;
                }
            }
            self.waiting.push_back(Input::Job(Box::new(job)));
        }
        if self.waiting.len() >= BATCH_MAX {
            self.flush();
        }
    }

    fn settle(&mut self) {
        for (receipt, delivery) in self.receipts.take() {
            let (partition, is_above) = (receipt.partition(), self.ledger.settle(&receipt));
            if is_above && let Some(incarnation) = self.ledger.incarnation(partition) {
                self.notes
                    .settled(partition, incarnation, receipt.offset(), delivery);
            }
        }
    }

    /// Endpoints that came to be: from here on they are owed what comes, and what was before is read for them again.
    fn learn(&mut self) {
        if !self.planner.refresh() {
            return;
        }
        let mut learnt = Vec::new();
        for (partition, reading) in &mut self.reading {
            let (Some(next), Some(incarnation)) =
                (self.ledger.next(partition), self.ledger.incarnation(partition))
            else {
                continue;
            };
            let interested = self.planner.interested(partition, incarnation);
            // Who does not want it any more and comes back is learnt of anew.
            let wanted: HashSet<&Interested> = interested.iter().map(|(who, ..)| who).collect();
            reading.covered.retain(|known| wanted.contains(known));
            for (interested, start, keeps_order) in interested {
                if !reading.covered.insert(interested.clone()) {
                    continue;
                }
                if keeps_order && start < next {
                    self.catching_up
                        .entry((interested.clone(), partition.clone()))
                        .or_default();
                }
                learnt.push(Learnt {
                    interested,
                    partition: partition.clone(),
                    incarnation,
                    from: start,
                    until: next,
                });
            }
        }
        if !learnt.is_empty() {
            self.ask(Ask::Learnt(learnt));
        }
    }

    fn ask(&mut self, ask: Ask) {
        self.unasked.push_back(ask);
        self.flush();
    }

    /// Hands on what the others take now.
    fn flush(&mut self) {
        while let Some(ask) = self.unasked.pop_front() {
            if let Err(mpsc::error::TrySendError::Full(ask)) = self.asks.try_send(ask) {
                self.unasked.push_front(ask);
                break;
            }
        }
        while let Some(input) = self.waiting.pop_front() {
            if let Err(mpsc::error::TrySendError::Full(input)) = self.scheduler.try_send(input) {
                self.waiting.push_front(input);
                break;
            }
        }
    }

    /// Pauses what is read faster than it is settled, and lets it go on.
    fn hold_back(&mut self) {
        let limit = if self.is_paused { WAITING_LOW } else { WAITING_MAX };
        self.is_paused = self.waiting.len() > limit;
        let (mut pause, mut resume) = (TopicPartitionList::new(), TopicPartitionList::new());
        for (partition, reading) in &mut self.reading {
            let is_full = if reading.paused {
                !self.ledger.has_room(partition)
            } else {
                self.ledger.is_full(partition)
            };
            let wanted = self.is_paused || is_full;
            if reading.paused != wanted && self.ledger.next(partition).is_some() {
                reading.paused = wanted;
                let list = if wanted { &mut pause } else { &mut resume };
                list.add_partition(&partition.topic, partition.number);
            }
        }
        if pause.count() > 0 {
            self.metrics.held_back.inc();
            report("pause", self.consumer.pause(&pause));
        }
        if resume.count() > 0 {
            report("resume", self.consumer.resume(&resume));
        }
    }

    fn commit(&mut self) {
        let now = Instant::now();
        if now < self.commit_at {
            return;
        }
        self.commit_at = now + COMMIT_EVERY;
        self.metrics.open_offsets.set(count(self.ledger.open()));
        // While the store is gone it is kept here.
        let notes = self.notes.due(!self.unasked.is_empty(), |partition| {
            self.ledger.watermark(partition)
        });
        if !notes.is_empty() {
            self.ask(Ask::Noted(notes));
        }
        let mut commits = self.ledger.commits();
        if now >= self.again_at {
            self.again_at = now + COMMIT_AGAIN;
            commits = self.ledger.watermarks().collect();
            // While the store is gone this would only pile up: the next one says it all.
            if !commits.is_empty() && self.unasked.is_empty() {
                self.ask(Ask::Settled(commits.clone()));
            }
        }
        if commits.is_empty() || self.consumer.assignment_lost() {
            return;
        }
        report("commit", self.consumer.commit(&list(&commits), CommitMode::Async));
        self.metrics.commits.inc();
    }
}

/// Commits as librdkafka takes them; each names the life of its topic.
fn list(commits: &[Commit]) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for commit in commits {
        let (topic, number) = (&*commit.partition.topic, commit.partition.number);
        let added = list.add_partition_offset(topic, number, Offset::Offset(commit.offset));
        report("commit", added);
        if let Some(mut place) = list.find_partition(topic, number) {
            place.set_metadata(begin::metadata(commit.incarnation));
        }
    }
    list
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn report(deed: &'static str, result: KafkaResult<()>) {
    match result {
        Ok(()) => {}
        // Nothing was settled since, or nothing is assigned: no news.
        Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::NoOffset)) => {}
        Err(error) => tracing::warn!(%error, deed, "librdkafka refused"),
    }
}

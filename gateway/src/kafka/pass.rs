//! A pass: one consumer reads a part of a partition again, as far and as fast as readers ask.
//!
//! Invariant: what it publishes is complete and was read from the incarnation that was asked for (checked while it reads,
//! because librdkafka goes on at the old offset of a topic that was made again).

use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use schemas::decode::Decoder;
use schemas::event::Event;
use subscriptions::history::{OlderError, Partition};
use tokio::time::Instant;

use super::client::Context;
use super::live::to_decode;
use super::lookup;
use super::metrics::ByStream;
use super::pages::Chunk;
use super::raw::{Polled, Queue};
use super::replay::{Key, Shared, Standing, State};
use super::witness;

/// How long an answer about a topic's id is good.
pub(super) const VERIFY_EVERY: Duration = Duration::from_secs(1);
/// Items taken from librdkafka at a time.
const BATCH_MAX: usize = 512;
/// What was read is given out when nothing more came for so long.
const LINGER: Duration = Duration::from_millis(20);
/// A consumer keeps a pass that nobody asks anything of for so long, then it may have another.
const PARKED_MAX: Duration = Duration::from_secs(1);
/// While others wait for a consumer, a pass gives it back after so long and queues up again.
const TURN: Duration = Duration::from_secs(1);
/// Kafka gave nothing for so long although somebody waits.
const STALLED: Duration = Duration::from_secs(10);
/// A consumer that has had no pass for so long is closed.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// Starts another thread if passes wait and none is free.
pub(super) fn ensure_thread(shared: &Arc<Shared>, state: &mut State) {
    if state.queue.len() <= state.idle || state.threads >= shared.settings.replay.consumers_max.max(1) {
        return;
    }
    let worker = Arc::clone(shared);
    let spawned = std::thread::Builder::new()
        .name("kafka-replay".to_owned())
        .spawn(move || run(&worker));
    match spawned {
        Ok(_) => state.threads += 1,
        Err(error) => {
            tracing::error!(%error, "no thread for a replay");
            if state.threads == 0 {
                let waiting: Vec<u64> = state.queue.iter().copied().collect();
                for id in waiting {
                    state.fail(id, &OlderError::Unavailable("no thread for a replay".to_owned()));
                }
            }
        }
    }
}

fn run(shared: &Arc<Shared>) {
    let mut reader = None;
    while let Some(id) = next_pass(shared) {
        if reader.is_none() {
            match Reader::new(shared) {
                Ok(made) => reader = Some(made),
                Err(error) => {
                    shared.lock().fail(id, &error);
                    continue;
                }
            }
        }
        if let Some(reader) = &mut reader {
            reader.read(shared, id);
        }
    }
}

/// Waits for a pass to read. `None`: the thread has been idle for long, or all is over; it was counted out.
fn next_pass(shared: &Shared) -> Option<u64> {
    let mut state = shared.lock();
    let idle_until = Instant::now() + IDLE_MAX;
    loop {
        let now = Instant::now();
        let mut wait = idle_until.saturating_duration_since(now);
        if let Some(id) = state.queue.front().copied() {
            let ready_at = match state.passes.get(&id).map(|pass| pass.standing) {
                Some(Standing::Queued(ready_at)) => ready_at,
                _ => now,
            };
            if ready_at <= now {
                state.queue.pop_front();
                if let Some(pass) = state.passes.get_mut(&id) {
                    pass.standing = Standing::Running;
                    shared.measure(&state);
                    return Some(id);
                }
                continue;
            }
            wait = ready_at.saturating_duration_since(now);
        } else if wait.is_zero() || state.closed {
            state.threads -= 1;
            shared.measure(&state);
            return None;
        }
        if state.closed {
            state.threads -= 1;
            return None;
        }
        state.idle += 1;
        state = shared
            .demand
            .wait_timeout(state, wait)
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .0;
        state.idle -= 1;
    }
}

/// How a pass stops being read.
enum Stop {
    /// It is over.
    End,
    /// It goes on later.
    Suspend,
    /// It goes on after others.
    Requeue,
    /// It failed.
    Fail(OlderError),
}

/// What was read and not given out yet.
struct Gathered {
    from: i64,
    next: i64,
    events: Vec<Event>,
    bytes: u64,
}

impl Gathered {
    fn at(offset: i64) -> Self {
        Self {
            from: offset,
            next: offset,
            events: Vec::new(),
            bytes: 0,
        }
    }
}

struct Reader {
    consumer: Arc<BaseConsumer<Context>>,
    queue: Queue,
    polled: Vec<Polled>,
}

impl Reader {
    fn new(shared: &Shared) -> Result<Self, OlderError> {
        let unavailable = |reason: String| OlderError::Unavailable(reason);
        let consumer: BaseConsumer<Context> = shared
            .settings
            .replay_consumer()
            .create_with_context(Context)
            .map_err(|error| unavailable(error.to_string()))?;
        let consumer = Arc::new(consumer);
        let queue =
            Queue::of(&consumer).ok_or_else(|| unavailable("the consumer has no queue".to_owned()))?;
        Ok(Self {
            consumer,
            queue,
            polled: Vec::with_capacity(BATCH_MAX),
        })
    }

    fn read(&mut self, shared: &Shared, id: u64) {
        let Some((key, partition)) = shared
            .lock()
            .passes
            .get(&id)
            .map(|pass| (pass.key.clone(), pass.partition.clone()))
        else {
            return;
        };
        let stop = self
            .follow(shared, id, &key, &partition)
            .unwrap_or_else(Stop::Fail);
        if let Err(error) = self.consumer.unassign() {
            tracing::error!(%error, "librdkafka refused to unassign");
        }
        let mut state = shared.lock();
        match stop {
            Stop::End => state.end(id),
            Stop::Fail(error) => {
                tracing::debug!(topic = &*partition.topic, partition = partition.partition, %error, "a pass failed");
                if error == OlderError::Gone {
                    state.pages.forget(&key);
                }
                state.fail(id, &error);
            }
            Stop::Suspend | Stop::Requeue => {
                let wanted = state.demand(id).is_some();
                if let Some(pass) = state.passes.get_mut(&id) {
                    // Somebody may have come while we let go.
                    if wanted || matches!(stop, Stop::Requeue) {
                        pass.standing = Standing::Queued(Instant::now());
                        state.queue.push_back(id);
                        shared.demand.notify_all();
                    } else {
                        pass.standing = Standing::Suspended(Instant::now());
                    }
                }
            }
        }
        shared.measure(&state);
    }

    fn follow(
        &mut self,
        shared: &Shared,
        id: u64,
        key: &Key,
        partition: &Partition,
    ) -> Result<Stop, OlderError> {
        let client = shared.lookup.client();
        client.verify(&partition.topic, partition.incarnation, VERIFY_EVERY)?;
        let log_start = client
            .bounds(&partition.topic, partition.partition, lookup::TIMEOUT)?
            .start;
        let mut verified_at = Instant::now();
        let Some(start) = begin(shared, id, key, log_start) else {
            return Ok(Stop::End);
        };
        self.assign(partition, start)?;
        let decoder = shared.decoders.get(&partition.stream).ok_or(OlderError::Gone)?;
        let label = ByStream {
            stream: partition.stream.to_string(),
        };
        let page_bytes = shared.settings.replay.page_bytes_max as u64;
        let turn_over = Instant::now() + TURN;
        let mut gathered = Gathered::at(start);
        let mut heard_at = Instant::now();
        // What comes first, and what comes after a silence, may be of another life of the topic: see `witness`.
        let mut in_doubt = true;
        // One page more than was asked for is read, so that the next request finds it.
        let mut ahead = true;
        loop {
            let (demand, limit, others_wait) = {
                let state = shared.lock();
                if state.closed {
                    return Ok(Stop::End);
                }
                let limit = limit_of(&state, id);
                (state.demand(id), limit, state.queue.len() > state.idle)
            };
            if demand.is_none() && !ahead {
                if others_wait || !self.park(shared, id) {
                    return Ok(Stop::Suspend);
                }
                heard_at = Instant::now();
                continue;
            }
            let wait = if gathered.next > gathered.from {
                LINGER
            } else {
                LINGER * 5
            };
            self.queue.poll(wait, BATCH_MAX, &mut self.polled);
            let silent = self.polled.is_empty();
            in_doubt |= !silent && heard_at.elapsed() > witness::GAP;
            let mut ended = false;
            let mut polled = std::mem::take(&mut self.polled);
            for item in polled.drain(..) {
                match take(item, partition, decoder, &mut gathered, limit) {
                    Taken::Nothing => {}
                    Taken::Progress => heard_at = Instant::now(),
                    Taken::End => {
                        heard_at = Instant::now();
                        ended = true;
                    }
                    Taken::OutOfRange => {
                        publish(shared, id, key, &label, &mut gathered);
                        self.skip(shared, key, partition, &mut gathered)?;
                        heard_at = Instant::now();
                    }
                    Taken::Doubt => client.verify(&partition.topic, partition.incarnation, Duration::ZERO)?,
                }
            }
            self.polled = polled;
            let at_limit = limit.is_some_and(|limit| gathered.next >= limit);
            let satisfied = demand.is_some_and(|demand| gathered.next >= demand.until);
            let full = gathered.bytes >= page_bytes;
            if full || at_limit || ended || satisfied || (silent && gathered.next > gathered.from) {
                if in_doubt || verified_at.elapsed() > VERIFY_EVERY {
                    let age_max = if in_doubt { Duration::ZERO } else { VERIFY_EVERY };
                    client.verify(&partition.topic, partition.incarnation, age_max)?;
                    (verified_at, in_doubt) = (Instant::now(), false);
                }
                // Only a full page was read ahead of anybody; what is there at the end is there.
                ahead = demand.is_some() && full;
                let covered = publish(shared, id, key, &label, &mut gathered);
                if at_limit || covered {
                    return Ok(Stop::End);
                }
                if others_wait && Instant::now() > turn_over {
                    return Ok(Stop::Requeue);
                }
            } else if silent && demand.is_none() {
                ahead = false;
            }
            if demand.is_some() && heard_at.elapsed() > STALLED {
                return Err(OlderError::Unavailable("nothing came in time".to_owned()));
            }
        }
    }

    /// Waits for demand. False: nobody came, or others need the consumer.
    fn park(&mut self, shared: &Shared, id: u64) -> bool {
        let until = Instant::now() + PARKED_MAX;
        let mut state = shared.lock();
        loop {
            if state.demand(id).is_some() {
                return true;
            }
            let wait = until.saturating_duration_since(Instant::now());
            if wait.is_zero() || state.closed || state.queue.len() > state.idle {
                return false;
            }
            state = shared
                .demand
                .wait_timeout(state, wait)
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .0;
        }
    }

    /// The next offset is not in the log: go on where the log begins now.
    fn skip(
        &mut self,
        shared: &Shared,
        key: &Key,
        partition: &Partition,
        gathered: &mut Gathered,
    ) -> Result<(), OlderError> {
        let client = shared.lookup.client();
        client.verify(&partition.topic, partition.incarnation, Duration::ZERO)?;
        let bounds = client.bounds(&partition.topic, partition.partition, lookup::TIMEOUT)?;
        if gathered.next > bounds.end {
            return Err(OlderError::Unavailable(
                "the log ends before what was asked for".to_owned(),
            ));
        }
        let mut state = shared.lock();
        let log = state.pages.log(key);
        log.log_start = log.log_start.max(bounds.start);
        *gathered = Gathered::at(gathered.next.max(bounds.start));
        state.tell(key);
        drop(state);
        self.assign(partition, gathered.next)
    }

    fn assign(&self, partition: &Partition, offset: i64) -> Result<(), OlderError> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&partition.topic, partition.partition, Offset::Offset(offset))
            .and_then(|()| self.consumer.assign(&list))
            .map_err(|error| OlderError::Unavailable(error.to_string()))
    }
}

/// Where the pass reads from: it may have been lowered until now, and is not from here on.
fn begin(shared: &Shared, id: u64, key: &Key, log_start: i64) -> Option<i64> {
    let mut state = shared.lock();
    let log = state.pages.log(key);
    log.log_start = log.log_start.max(log_start);
    let log_start = log.log_start;
    let view = log.passes.iter_mut().find(|view| view.id == id)?;
    view.gathering = false;
    view.position = view.position.max(log_start);
    let position = view.position;
    if let Some(pass) = state.passes.get_mut(&id)
        && !pass.begun
    {
        pass.begun = true;
        shared
            .metrics
            .passes
            .get_or_create(&ByStream {
                stream: key.0.to_string(),
            })
            .inc();
    }
    // Readers below the log's start need not wait.
    state.tell(key);
    Some(position)
}

fn limit_of(state: &State, id: u64) -> Option<i64> {
    let pass = state.passes.get(&id)?;
    state
        .pages
        .peek(&pass.key)?
        .passes
        .iter()
        .find(|view| view.id == id)?
        .limit
}

/// Gives out what was gathered. True if others have read on from there.
fn publish(shared: &Shared, id: u64, key: &Key, label: &ByStream, gathered: &mut Gathered) -> bool {
    let read = std::mem::replace(gathered, Gathered::at(gathered.next));
    let mut state = shared.lock();
    let log = state.pages.log(key);
    if let Some(view) = log.passes.iter_mut().find(|view| view.id == id) {
        view.position = read.next;
    }
    let covered = log.is_covered(read.next);
    if read.next > read.from {
        shared.metrics.bytes.get_or_create(label).inc_by(read.bytes);
        state
            .pages
            .add(key, Chunk::new(read.from, read.next, read.events, read.bytes));
    }
    state.tell(key);
    shared.measure(&state);
    covered
}

enum Taken {
    Nothing,
    Progress,
    End,
    OutOfRange,
    /// The topic may be gone.
    Doubt,
}

fn take(
    item: Polled,
    wanted: &Partition,
    decoder: &Decoder,
    gathered: &mut Gathered,
    limit: Option<i64>,
) -> Taken {
    let ours = |topic: &str, partition: i32| *topic == *wanted.topic && partition == wanted.partition;
    match item {
        Polled::Record(record) => {
            if !ours(&record.topic, record.partition) || record.offset < gathered.next {
                return Taken::Nothing;
            }
            if let Some(limit) = limit.filter(|limit| record.offset >= *limit) {
                gathered.next = gathered.next.max(limit);
                return Taken::Progress;
            }
            gathered.next = record.offset + 1;
            gathered.bytes += record.bytes as u64 + 16;
            // What is rejected became a dead letter when it was new, if somebody read it then.
            if let Ok(Some(event)) = decoder.decode(to_decode(&record, wanted.incarnation, wanted.slot)) {
                gathered.events.push(event);
            }
            Taken::Progress
        }
        Polled::End {
            topic,
            partition,
            offset,
        } if ours(&topic, partition) => {
            gathered.next = gathered.next.max(limit.map_or(offset, |limit| offset.min(limit)));
            Taken::End
        }
        Polled::Partition {
            topic,
            partition,
            code,
            ..
        } if ours(&topic, partition) => match code {
            RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange => Taken::OutOfRange,
            RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownTopicId
            | RDKafkaErrorCode::UnknownPartition => Taken::Doubt,
            _ => Taken::Nothing,
        },
        Polled::End { .. }
        | Polled::Partition { .. }
        | Polled::Client(_)
        | Polled::Rebalance { .. }
        | Polled::Uncommitted(_) => Taken::Nothing,
    }
}

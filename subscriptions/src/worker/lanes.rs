//! Lanes going on: what they take, what they ask for, what is written of them, and when they join.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use schemas::cursor::Position;
use schemas::ids::Slot;
use schemas::problem::Code;
use tokio::time::{Instant, sleep, sleep_until};

use super::Worker;
use super::state::State;
use crate::connection::{Connection, Place};
use crate::group::{Flushed, Share};
use crate::history::{Bounds, OlderError, Page, Partition};
use crate::hub::{After, Failure};
use crate::lane::{Ask, Lane, Owner};
use crate::layout::Vector;
use crate::protocol::{Frame, Kind};
use crate::shard::Shard;

/// How often a lane may fill and drain before the others have their turn.
const LANE_TURNS_MAX: usize = 2;

/// How long lanes may work before new events have their turn.
const AGENDA_SLICE: Duration = Duration::from_millis(4);

/// How many frames of a lane go into one write.
const FRAMES_PER_WRITE_MAX: usize = 512;

/// First and last pause before something is asked for again.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_LAST: Duration = Duration::from_secs(5);

/// How long a replay waits for room among the others before its reader is told.
const LIMITED_PATIENCE: Duration = Duration::from_secs(30);

/// What was asked for came.
enum Answer {
    Page { from: i64, page: Page },
    Ends(Bounds),
    Offset(i64),
    Failed(Failure),
}

impl State {
    /// Makes a lane for a reader that begins here.
    pub(crate) fn begin_lane(
        &mut self,
        stream: usize,
        owner: Owner,
        share: Share,
        after: Option<&After>,
    ) -> usize {
        let carried_until = Instant::now() + self.config.layout_grace;
        let now_ms = self.services.clock.now_ms();
        let queue_bytes_max = self.config.lane_bytes_max;
        let serial = self.serial();
        let shard = &mut self.shards[stream];
        let need = self.needs.need(stream);
        let mut lane = Lane::new(owner, share, Vector::default(), carried_until, need);
        lane.serial = serial;
        let tenant = lane.share.selection.tenant.clone();
        for slot in shard.layout.slots(&tenant) {
            let position = match after {
                None | Some(After::Latest) => match shard.vector.get(slot) {
                    Some(Position::At(offset)) => Position::At(offset),
                    _ => Position::Since(now_ms),
                },
                Some(After::Earliest) => Position::Start,
                Some(After::Time(time)) => Position::Since(*time),
                Some(After::Cursor(_)) => break,
            };
            lane.vector.set(slot, position);
        }
        let place = shard.lanes.insert(lane);
        self.metrics.lanes.inc();
        let gaps = shard.with_lane(place, queue_bytes_max, |lane, around| {
            if let Some(After::Cursor(cursor)) = after {
                lane.resume(cursor, around);
            }
            if after.is_some() {
                lane.owe_live();
            }
            lane.gaps.len()
        });
        if gaps.is_some_and(|gaps| gaps > 0) {
            self.metrics.gap("recreated");
        }
        self.await_carried(stream, place, serial, carried_until);
        place
    }

    /// Positions in topics that this node does not know yet wait for them, for a while.
    fn await_carried(&mut self, stream: usize, place: usize, serial: u64, until: Instant) {
        let carries = |shard: &Shard| {
            shard
                .lanes
                .get(place)
                .is_some_and(|lane| !lane.carried.is_empty())
        };
        let Some(worker) = self.this.upgrade() else { return };
        if !carries(&self.shards[stream]) {
            return;
        }
        let timer = self.tasks.spawn_local(async move {
            sleep_until(until).await;
            let mut state = worker.state.borrow_mut();
            let queue_bytes_max = state.config.lane_bytes_max;
            let expired = state.shards[stream].with_lane(place, queue_bytes_max, |lane, around| {
                lane.serial == serial && lane.expire_carried(Instant::now(), around)
            });
            if expired == Some(true) {
                state.metrics.gap("deleted");
                state.run_lane(stream, place);
            }
        });
        if let Some(lane) = self.shards[stream].lanes.get_mut(place) {
            lane.timer = Some(timer);
        }
    }

    /// Lets a lane go on: it takes what there is room for, and joins when it has caught up.
    pub(crate) fn run_lane(&mut self, stream: usize, place: usize) {
        self.step_lane(stream, place);
        let Some(lane) = self.shards[stream].lanes.get_mut(place) else {
            return;
        };
        let now = lane.queue_bytes();
        let before = std::mem::replace(&mut lane.counted, now);
        self.lanes_bytes = (self.lanes_bytes + lane.counted).saturating_sub(before);
        if lane.counted > 0 && self.lanes_bytes > self.config.group_log_bytes_max as u64 {
            self.give_back(stream, place);
        }
    }

    fn step_lane(&mut self, stream: usize, place: usize) {
        let queue_bytes_max = self.config.lane_bytes_max;
        for _ in 0..LANE_TURNS_MAX {
            let Some(lane) = self.shards[stream].lanes.get_mut(place) else {
                return;
            };
            if let Owner::Session { connection, .. } = lane.owner
                && !self.connections.get(connection).is_some_and(Connection::has_room)
            {
                // A slow reader holds no page: it is asked for again, most likely from the cache.
                lane.forget_pages();
                return;
            }
            let queued = lane.queue.len();
            let advanced =
                self.shards[stream].with_lane(place, queue_bytes_max, |lane, around| lane.advance(around));
            let Some(asks) = advanced else { return };
            let asked = !asks.is_empty();
            for (slot, ask) in asks {
                self.ask(stream, place, slot, ask);
            }
            let Some(lane) = self.shards[stream].lanes.get(place) else {
                return;
            };
            let Owner::Session {
                connection,
                subscription,
            } = lane.owner
            else {
                if lane.queue.len() != queued || lane.failed.is_some() {
                    lane.notify();
                }
                return;
            };
            let written = self.drain_lane(stream, place, connection);
            let Some(lane) = self.shards[stream].lanes.get(place) else {
                return;
            };
            if let Some(failure) = lane.failed.clone() {
                if lane.queue.is_empty() || failure.code == Code::CURSOR_AHEAD {
                    self.fail_lane(stream, place, connection, subscription, &failure);
                }
                return;
            }
            if !lane.queue.is_empty() {
                return;
            }
            let joins =
                self.shards[stream].with_lane(place, queue_bytes_max, |lane, around| lane.may_join(around));
            if joins == Some(true) {
                self.join(stream, place, connection, subscription);
                return;
            }
            if written == 0 || asked {
                return;
            }
        }
        self.schedule_lane(stream, place);
    }

    /// Too much is queued over all lanes: what this one's reader does not take now is read again when it does.
    fn give_back(&mut self, stream: usize, place: usize) {
        let queue_bytes_max = self.config.lane_bytes_max;
        let Some(lane) = self.shards[stream].lanes.get_mut(place) else {
            return;
        };
        if !matches!(lane.owner, Owner::Session { .. }) {
            return;
        }
        self.lanes_bytes = self.lanes_bytes.saturating_sub(lane.counted);
        lane.counted = 0;
        let queue = lane.take_queue();
        // What is read again is before where a page was read to.
        lane.forget_pages();
        let mut gaps = Vec::new();
        rewind(&mut lane.vector, queue.iter(), &mut gaps);
        self.shards[stream].with_lane(place, queue_bytes_max, |lane, around| {
            for partitions in gaps {
                lane.repeat_gap(partitions, around);
            }
        });
    }

    /// Puts a lane on the agenda.
    fn schedule_lane(&mut self, stream: usize, place: usize) {
        let Some(lane) = self.shards[stream].lanes.get_mut(place) else {
            return;
        };
        if !std::mem::replace(&mut lane.scheduled, true) {
            self.agenda.push_back((stream, place));
        }
        if let Some(worker) = self.this.upgrade() {
            worker.agenda.notify_one();
        }
    }

    /// The shared position moved: every lane of the stream may have more to do.
    pub(crate) fn schedule_lanes(&mut self, stream: usize) {
        let lanes: Vec<usize> = self.shards[stream]
            .lanes
            .iter()
            .filter(|(_, lane)| !lane.scheduled)
            .map(|(place, _)| place)
            .collect();
        for place in lanes {
            self.schedule_lane(stream, place);
        }
    }

    /// Lanes that have more to do, for a slice of time: live readers must not wait for a storm of replays.
    pub(crate) fn work_agenda(&mut self) {
        let started = Instant::now();
        while let Some((stream, place)) = self.agenda.pop_front() {
            if let Some(lane) = self.shards[stream].lanes.get_mut(place) {
                lane.scheduled = false;
                self.run_lane(stream, place);
            }
            if started.elapsed() >= AGENDA_SLICE {
                break;
            }
        }
        if !self.agenda.is_empty()
            && let Some(worker) = self.this.upgrade()
        {
            worker.agenda.notify_one();
        }
    }

    /// Writes what a lane has queued; tells how many frames were taken.
    fn drain_lane(&mut self, stream: usize, place: usize, connection: usize) -> usize {
        let Some(lane) = self.shards[stream].lanes.get_mut(place) else {
            return 0;
        };
        let Some(connection) = self.connections.get_mut(connection) else {
            return 0;
        };
        let Owner::Session { subscription, .. } = lane.owner else {
            return 0;
        };
        let id: Box<str> = Box::from(connection.subscription_id(subscription));
        let mut flushed = Flushed::default();
        let mut total = 0;
        while !lane.queue.is_empty() && connection.has_room() {
            let frames = lane.queue.iter().take(FRAMES_PER_WRITE_MAX);
            self.render
                .frames(connection.wire(), &lane.share.view, &id, frames);
            let rendered = self.render.rendered();
            let (taken, events) = self.render.write(&rendered, connection);
            lane.written(taken);
            total += taken;
            flushed.writes += 1;
            flushed.bytes += rendered.len() as u64;
            flushed.delivered[connection.framing as usize] += events;
        }
        self.count(&flushed);
        total
    }

    fn join(&mut self, stream: usize, place: usize, connection: usize, subscription: usize) {
        let shard = &mut self.shards[stream];
        let lane = shard.lanes.remove(place);
        self.lanes_bytes = self.lanes_bytes.saturating_sub(lane.counted);
        self.metrics.lanes.dec();
        let group = shard.group(&lane.share);
        let member = shard.groups[group].join(connection, subscription);
        let version = shard.version;
        if let Some(connection) = self.connections.get_mut(connection)
            && let Some(Some(subscription)) = connection.subscriptions.get_mut(subscription)
        {
            subscription.place = Place::Group { group, member };
            subscription.told = version;
        }
    }

    /// A lane that cannot go on ends its subscription.
    fn fail_lane(&mut self, stream: usize, place: usize, at: usize, subscription: usize, failure: &Failure) {
        let queue_bytes_max = self.config.lane_bytes_max;
        let cursor =
            self.shards[stream].with_lane(place, queue_bytes_max, |lane, around| lane.cursor(around));
        let Some(connection) = self.connections.get(at) else {
            return;
        };
        self.metrics.refused(failure.code.name);
        if failure.code == Code::REPLAY_LIMITED
            && let Some(cursor) = cursor
            && let Some(Some(reader)) = connection.subscriptions.get(subscription)
        {
            let (id, view) = (reader.id.clone(), reader.share.view.clone());
            self.tell_cursor(at, &id, &view, &cursor);
        }
        self.fail_subscription(at, subscription, failure);
    }

    /// Asks for what a lane needs, as a task that ends with the lane.
    fn ask(&mut self, stream: usize, place: usize, slot: Slot, ask: Ask) {
        let Some(entry) = self.shards[stream].layout.entry(slot) else {
            return;
        };
        let partition = entry.partition.clone();
        let Some(worker) = self.this.upgrade() else { return };
        let Some(lane) = self.shards[stream].lanes.get_mut(place) else {
            return;
        };
        if matches!(ask, Ask::Page { .. }) {
            if let Some(bound) = lane.charge(&self.scans) {
                self.metrics.limited(bound.name());
                return;
            }
            self.metrics.pages.inc();
        }
        let serial = lane.serial;
        let services = Arc::clone(&self.services);
        let task = self.tasks.spawn_local(async move {
            let answer = answer(&*services.older, &partition, ask).await;
            worker
                .state
                .borrow_mut()
                .answered(stream, place, serial, slot, ask, answer);
        });
        if let Some(lane) = self.shards[stream].lanes.get_mut(place) {
            lane.asking.push((slot, task));
        }
    }

    fn answered(&mut self, stream: usize, place: usize, serial: u64, slot: Slot, ask: Ask, answer: Answer) {
        let queue_bytes_max = self.config.lane_bytes_max;
        let metrics = Arc::clone(&self.metrics);
        let known = self.shards[stream].with_lane(place, queue_bytes_max, |lane, around| {
            if lane.serial != serial {
                return false;
            }
            lane.asking.retain(|(have, _)| *have != slot);
            if !lane.awaits(slot, ask) {
                // The reader went on meanwhile. What it needs now is asked for when it is run.
                return true;
            }
            match answer {
                Answer::Page { from, page } => {
                    if let Some(gap) = lane.loaded(slot, from, page, around) {
                        metrics.gap(gap);
                    }
                }
                Answer::Ends(bounds) => lane.ends(slot, bounds),
                Answer::Offset(offset) => lane.resolved(slot, offset),
                Answer::Failed(failure) => lane.failed = Some(failure),
            }
            true
        });
        if known == Some(true) {
            self.run_lane(stream, place);
            if let Some(lane) = self.shards[stream].lanes.get(place) {
                lane.notify();
            }
        }
    }

    /// Puts a reader under another selection: what waits unsent is dropped, and it goes on from what was written last.
    pub(crate) fn reshare(&mut self, at: usize, subscription: usize, share: Share) {
        let Some(connection) = self.connections.get_mut(at) else {
            return;
        };
        let Some(Some(reader)) = connection.subscriptions.get_mut(subscription) else {
            return;
        };
        if reader.share == share {
            return;
        }
        let (stream, place) = (reader.stream, reader.place);
        reader.share = share.clone();
        let owner = Owner::Session {
            connection: at,
            subscription,
        };
        let Some(new) = self.relane(stream, place, owner, share) else {
            return;
        };
        if let Some(connection) = self.connections.get_mut(at)
            && let Some(Some(reader)) = connection.subscriptions.get_mut(subscription)
        {
            reader.place = Place::Lane(new);
        }
        self.run_lane(stream, new);
    }

    /// A new lane, from what was written last at this place, which it takes the place of. Not run yet.
    pub(crate) fn relane(
        &mut self,
        stream: usize,
        place: Place,
        owner: Owner,
        share: Share,
    ) -> Option<usize> {
        let carried_until = Instant::now() + self.config.layout_grace;
        let serial = self.serial();
        let shard = &mut self.shards[stream];
        let need = self.needs.need(stream);
        let mut lane = Lane::new(owner, share, Vector::default(), carried_until, need);
        lane.serial = serial;
        let mut gaps: Vec<Arc<str>> = Vec::new();
        match place {
            Place::Group { group, member } => {
                lane.vector = shard.vector.clone();
                let group = &shard.groups[group];
                rewind(
                    &mut lane.vector,
                    group.unsent(group.members[member].next),
                    &mut gaps,
                );
            }
            Place::Lane(before) => {
                let before = shard.lanes.get_mut(before)?;
                lane.vector = std::mem::take(&mut before.vector);
                lane.carried = std::mem::take(&mut before.carried);
                lane.inherit(before);
                let queue = std::mem::take(&mut before.queue);
                rewind(&mut lane.vector, queue.iter(), &mut gaps);
            }
        }
        self.detach(stream, place);
        let shard = &mut self.shards[stream];
        let new = shard.lanes.insert(lane);
        self.metrics.lanes.inc();
        let queue_bytes_max = self.config.lane_bytes_max;
        shard.with_lane(new, queue_bytes_max, |lane, around| {
            for partitions in gaps {
                lane.repeat_gap(partitions, around);
            }
        });
        let until = self.shards[stream].lanes[new].carried_until;
        self.await_carried(stream, new, serial, until);
        Some(new)
    }

    /// The frames that a request for one page takes from its lane, and the cursor after them.
    pub(crate) fn take_page(
        &mut self,
        stream: usize,
        place: usize,
        limit: usize,
    ) -> Option<(VecDeque<Frame>, Arc<str>)> {
        let queue_bytes_max = self.config.lane_bytes_max;
        self.shards[stream].with_lane(place, queue_bytes_max, |lane, around| {
            let mut taken = VecDeque::new();
            let mut events = 0;
            while let Some(frame) = lane.queue.front() {
                if events == limit && frame.is_event() {
                    break;
                }
                events += usize::from(frame.is_event());
                taken.extend(lane.queue.pop_front());
            }
            let cursor = match (lane.queue.is_empty(), taken.back()) {
                (false, Some(last)) => Arc::clone(&last.cursor),
                _ => lane.cursor(around),
            };
            (taken, cursor)
        })
    }

    /// The tenant's slots have moved: the reader of a lane is told its position with the heartbeat.
    pub(crate) fn lane_progress(&mut self, stream: usize, place: usize) -> Option<Arc<str>> {
        let queue_bytes_max = self.config.lane_bytes_max;
        self.shards[stream]
            .with_lane(place, queue_bytes_max, |lane, around| {
                if !lane.queue.is_empty() || lane.told.as_ref() == Some(&lane.vector) {
                    return None;
                }
                lane.told = Some(lane.vector.clone());
                Some(lane.cursor(around))
            })
            .flatten()
    }

    /// The cursor at which a lane stands.
    pub(crate) fn lane_cursor(&mut self, stream: usize, place: usize) -> Option<Arc<str>> {
        let queue_bytes_max = self.config.lane_bytes_max;
        self.shards[stream].with_lane(place, queue_bytes_max, |lane, around| lane.cursor(around))
    }

    /// Whether a stream is read. One that does not exist is refused at once.
    pub(crate) fn is_ready(&self, stream: &str) -> bool {
        self.stream(stream).map_or(true, |stream| self.is_read(stream))
    }

    /// Whether a stream is read for those who need it now. Hold a need of it while it matters.
    pub(crate) fn is_read(&self, stream: usize) -> bool {
        self.shards[stream].layout.read == Some(self.needs.generation(stream))
    }
}

/// Takes a vector back to before the first of these frames, partition by partition; keeps what gaps said.
fn rewind<'a>(vector: &mut Vector, unsent: impl Iterator<Item = &'a Frame>, gaps: &mut Vec<Arc<str>>) {
    for frame in unsent {
        match &frame.kind {
            Kind::Event { slot, offset, .. } => {
                if vector.offset(*slot).is_some_and(|have| have > *offset) {
                    vector.set(*slot, Position::At(*offset));
                }
            }
            Kind::Gap { partitions, .. } => gaps.push(Arc::clone(partitions)),
            Kind::Live => {}
        }
    }
}

/// Asks until there is an answer. Pauses grow, with jitter: a thousand lanes must not ask in step.
async fn answer(older: &dyn crate::history::Older, partition: &Partition, ask: Ask) -> Answer {
    let started = Instant::now();
    let mut pause = RETRY_FIRST;
    loop {
        let result = match ask {
            Ask::Page { from, until } => older
                .page(partition, from, until)
                .await
                .map(|page| Answer::Page { from, page }),
            Ask::Ends { .. } => older.bounds(partition).await.map(Answer::Ends),
            Ask::Start => older
                .bounds(partition)
                .await
                .map(|bounds| Answer::Offset(bounds.start)),
            Ask::Time(time) => older.at_time(partition, time).await.map(Answer::Offset),
        };
        match result {
            Ok(Answer::Page { from, page }) if page.next <= from && page.log_start <= from => {
                tracing::debug!(
                    partition = partition.partition,
                    "an empty page was asked for again"
                );
            }
            Ok(answer) => return answer,
            Err(OlderError::NoTimes) => return Answer::Failed(Failure::new(Code::TIME_UNAVAILABLE, "")),
            Err(OlderError::Limited) if started.elapsed() > LIMITED_PATIENCE => {
                return Answer::Failed(Failure::new(
                    Code::REPLAY_LIMITED,
                    "too many replays are under way",
                ));
            }
            // A topic that is gone is announced by the source, which ends the question with the slot.
            Err(error @ (OlderError::Limited | OlderError::Unavailable(_) | OlderError::Gone)) => {
                tracing::debug!(stream = %partition.stream, %error, "older events are not to be had now");
            }
        }
        sleep(pause.mul_f64(rand::rng().random_range(0.5..1.5))).await;
        pause = (pause * 2).min(RETRY_LAST);
    }
}

impl Worker {
    /// Lets a lane go on from outside of a round.
    pub(crate) fn run_lane(&self, stream: usize, place: usize) {
        self.state.borrow_mut().run_lane(stream, place);
    }
}

//! What happened before: the ring of recent events, and the trait that reads older ones.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use schemas::event::Event;
use schemas::ids::{Incarnation, Slot, StreamName};

use crate::view::Viewed;

/// One partition, as both sides name it.
#[derive(Debug, Clone)]
pub struct Partition {
    /// The stream that reads it.
    pub stream: StreamName,
    /// The node's number for it.
    pub slot: Slot,
    /// The topic.
    pub topic: Arc<str>,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// Its number in the topic.
    pub partition: i32,
}

/// A run of one partition's events, older than what the ring covers.
#[derive(Debug, Clone)]
pub struct Page {
    /// In offset order, all in `from..next`. Shared: readers at nearby positions get the same pages.
    pub events: Arc<[Arc<Event>]>,
    /// Everything in `from..next` that still exists and is an event of the stream is in `events`. Never beyond the
    /// `until` that was asked for, except over a hole.
    pub next: i64,
    /// Where Kafka's log begins now. Above the `from` that was asked for: everything below it is gone, and the page
    /// begins there.
    pub log_start: i64,
    /// Bytes of records read for this page, matching or not.
    pub scanned_bytes: u64,
}

/// The ends of a partition's log, fresh from Kafka.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The first offset that exists.
    pub start: i64,
    /// The offset after the last one that a `read_committed` reader may see.
    pub end: i64,
}

/// Why older events cannot be had now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OlderError {
    /// Kafka does not answer; ask again.
    #[error("kafka does not answer: {0}")]
    Unavailable(String),
    /// Too many replays are under way; ask again.
    #[error("too many replays are under way")]
    Limited,
    /// The topic or this incarnation of it is gone.
    #[error("the topic is gone")]
    Gone,
    /// The broker cannot look offsets up by time.
    #[error("the broker cannot look offsets up by time")]
    NoTimes,
}

/// Reads what is older than the ring. Futures may be dropped at any time.
pub trait Older: Send + Sync + 'static {
    /// A page of `from..until`, `until > from`. Waits for room among the replays under way.
    fn page(
        &self,
        partition: &Partition,
        from: i64,
        until: i64,
    ) -> BoxFuture<'static, Result<Page, OlderError>>;

    /// The ends of the log now.
    fn bounds(&self, partition: &Partition) -> BoxFuture<'static, Result<Bounds, OlderError>>;

    /// The first offset whose record is not older than this time; the end of the log if there is none.
    fn at_time(&self, partition: &Partition, time_ms: i64) -> BoxFuture<'static, Result<i64, OlderError>>;
}

/// The recent events of one stream, by partition. Bounded in bytes; the oldest go first.
///
/// Invariant: for each slot, every event of the stream in `covered_from..` up to the slot's live position is here. Holes
/// (compaction, transaction markers, rejected records) are inside of that interval: it is kept, never inferred from the
/// records that are present.
#[derive(Debug, Default)]
pub struct Ring {
    slots: Vec<Option<RingSlot>>,
    /// The slot of each event, in the order of arrival.
    order: VecDeque<Slot>,
    bytes: usize,
    bytes_max: usize,
}

#[derive(Debug)]
struct RingSlot {
    covered_from: i64,
    events: VecDeque<Arc<Viewed>>,
}

impl Ring {
    /// An empty ring.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            ..Self::default()
        }
    }

    /// Begins to cover a slot, from this offset on. What was covered before is forgotten.
    pub fn begin(&mut self, slot: Slot, covered_from: i64) {
        self.end(slot);
        let place = slot.0 as usize;
        if self.slots.len() <= place {
            self.slots.resize_with(place + 1, || None);
        }
        self.slots[place] = Some(RingSlot {
            covered_from,
            events: VecDeque::new(),
        });
    }

    /// Forgets a slot.
    pub fn end(&mut self, slot: Slot) {
        if let Some(gone) = self.slots.get_mut(slot.0 as usize).and_then(Option::take) {
            self.bytes -= gone.events.iter().map(|event| event.bytes()).sum::<usize>();
            self.order.retain(|have| *have != slot);
        }
    }

    /// Adds the next event of its slot and lets go of the oldest where there is no room.
    pub fn push(&mut self, event: Arc<Viewed>) {
        let slot = event.event.slot;
        let Some(Some(ring)) = self.slots.get_mut(slot.0 as usize) else {
            return;
        };
        self.bytes += event.bytes();
        ring.events.push_back(event);
        self.order.push_back(slot);
        while self.bytes > self.bytes_max {
            let Some(oldest) = self.order.pop_front() else {
                break;
            };
            if let Some(Some(ring)) = self.slots.get_mut(oldest.0 as usize)
                && let Some(gone) = ring.events.pop_front()
            {
                ring.covered_from = gone.event.offset + 1;
                self.bytes -= gone.bytes();
            }
        }
    }

    /// Where the ring's knowledge of a slot begins.
    #[must_use]
    pub fn covered_from(&self, slot: Slot) -> Option<i64> {
        self.slots
            .get(slot.0 as usize)?
            .as_ref()
            .map(|ring| ring.covered_from)
    }

    /// The events of a slot in `from..until`, if the ring covers `from`.
    #[must_use]
    pub fn range(&self, slot: Slot, from: i64, until: i64) -> Option<impl Iterator<Item = &Arc<Viewed>>> {
        let ring = self.slots.get(slot.0 as usize)?.as_ref()?;
        if from < ring.covered_from {
            return None;
        }
        let start = ring.events.partition_point(|event| event.event.offset < from);
        Some(
            ring.events
                .range(start..)
                .take_while(move |event| event.event.offset < until),
        )
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

//! The one order of a stream's events on this node, and its position vector.

use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockWriteGuard};

use schemas::cursor::Position;
use schemas::event::Event;
use schemas::ids::{Slot, StreamName, TenantId};
use tokio::sync::mpsc;

use crate::history::{Partition, Ring};
use crate::layout::{Layout, Vector};
use crate::metrics::Metrics;
use crate::view::Viewed;
use crate::worker::Wake;

/// Why partitions are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gone {
    /// Their topic is.
    Deleted,
    /// Another topic has its name, or their log is not what it was.
    Recreated,
}

impl Gone {
    /// What readers are told.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Deleted => "deleted",
            Self::Recreated => "recreated",
        }
    }
}

/// What a source tells a stream's sequencer. Sent through a bounded channel: a full one holds the source back.
#[derive(Debug)]
pub enum Input {
    /// A partition exists. `start` is where live consumption of it begins (the end of the log for what existed when the
    /// source began, 0 for what was made later), or `Since(now)` while that could not be resolved.
    Partition {
        /// Which; its slot is new.
        partition: Partition,
        /// The tenant that the topic's name captures, if it does.
        tenant: Option<TenantId>,
        /// Where live consumption begins.
        start: Position,
    },
    /// An unresolved start is now known.
    Resolved {
        /// Which partition.
        slot: Slot,
        /// Where live consumption begins.
        start: i64,
    },
    /// It is not known any more where a partition is: nobody reads it, or its end could not be found. What comes then comes
    /// after this time.
    Unresolved {
        /// Which partition.
        slot: Slot,
        /// When, in milliseconds since the Unix epoch.
        since_ms: i64,
    },
    /// Every partition that exists has been announced and is read: subscriptions of this generation may begin.
    Complete {
        /// As [`Needs::generation`](crate::needs::Needs::generation) gives it.
        generation: u64,
    },
    /// Every partition that exists has been announced, and nothing is read until somebody needs it.
    Resting,
    /// Events of one partition in offset order, and the position after them (it passes rejected records, holes and
    /// transaction markers). `events` may be empty.
    Records {
        /// Which partition.
        slot: Slot,
        /// The events.
        events: Vec<Event>,
        /// The next offset.
        next: i64,
    },
    /// Kafka no longer has what comes next on this partition (retention overtook the node): live goes on at `next`.
    Lost {
        /// Which partition.
        slot: Slot,
        /// Where it goes on.
        next: i64,
    },
    /// The topic was deleted or made again; these slots are dead. New partitions are announced afterwards.
    Removed {
        /// Dead partitions.
        slots: Vec<Slot>,
        /// Why they are.
        gone: Gone,
    },
    /// Whether Kafka can be reached; `false` only after the stale threshold.
    Fresh(bool),
}

/// A handle to feed a stream.
pub type InputSender = mpsc::Sender<Input>;

/// One step of the order, as the workers see it.
#[derive(Debug)]
pub(crate) enum Item {
    /// A partition exists; live consumption begins there.
    Added {
        slot: Slot,
        start: Position,
        layout: Arc<Layout>,
    },
    /// An unresolved start is known.
    Resolved { slot: Slot, start: i64 },
    /// It is not known where a partition is.
    Unresolved { slot: Slot, since_ms: i64 },
    /// Whether subscriptions may begin has changed.
    Readable { layout: Arc<Layout> },
    /// The next events of a partition, and the position after them.
    Records {
        slot: Slot,
        events: Vec<Arc<Viewed>>,
        next: i64,
    },
    /// Everything from the old position up to `next` is gone.
    Lost { slot: Slot, next: i64 },
    /// These partitions are gone for good.
    Removed {
        slots: Vec<Slot>,
        gone: Gone,
        layout: Arc<Layout>,
    },
    /// Whether Kafka can be reached.
    Fresh(bool),
}

/// What one wake of a worker brings of one stream.
#[derive(Debug)]
pub(crate) struct Batch {
    /// The stream, by its place in the contract.
    pub(crate) stream: usize,
    /// In order.
    pub(crate) items: Vec<Item>,
}

/// What is known of a stream outside of the workers: the ring, and where it stands.
#[derive(Debug)]
pub(crate) struct Past {
    /// Recent events.
    pub(crate) ring: RwLock<Ring>,
    /// For readiness and operators.
    pub(crate) standing: Mutex<Standing>,
}

/// Where a stream stands on this node.
#[derive(Debug, Default, Clone)]
pub(crate) struct Standing {
    pub(crate) layout: Arc<Layout>,
    pub(crate) vector: Vector,
}

/// Gives the stream's events their one order on this node and owns its position vector.
pub(crate) struct Sequencer {
    stream: usize,
    name: StreamName,
    layout: Arc<Layout>,
    vector: Vector,
    past: Arc<Past>,
    metrics: Arc<Metrics>,
}

/// How many inputs go into one batch: enough to gather a burst, few enough that a worker's round stays short.
const INPUTS_PER_BATCH_MAX: usize = 64;

impl Sequencer {
    pub(crate) fn new(stream: usize, name: StreamName, past: Arc<Past>, metrics: Arc<Metrics>) -> Self {
        Self {
            stream,
            name,
            layout: Arc::default(),
            vector: Vector::default(),
            past,
            metrics,
        }
    }

    /// Runs until the source's side of the channel is dropped. A worker that is behind holds the sequencer back, and so the
    /// source, and so Kafka's fetches: nothing piles up.
    pub(crate) async fn run(mut self, mut inputs: mpsc::Receiver<Input>, workers: Vec<mpsc::Sender<Wake>>) {
        let mut gathered = Vec::with_capacity(INPUTS_PER_BATCH_MAX);
        while inputs.recv_many(&mut gathered, INPUTS_PER_BATCH_MAX).await > 0 {
            let items: Vec<Item> = gathered.drain(..).filter_map(|input| self.step(input)).collect();
            self.publish();
            let batch = Arc::new(Batch {
                stream: self.stream,
                items,
            });
            for worker in &workers {
                // A worker that is gone has ended with the process.
                let _gone = worker.send(Wake::Batch(Arc::clone(&batch))).await;
            }
        }
    }

    fn step(&mut self, input: Input) -> Option<Item> {
        match input {
            Input::Partition {
                partition,
                tenant,
                start,
            } => {
                let slot = partition.slot;
                Arc::make_mut(&mut self.layout).add(partition, tenant);
                self.vector.set(slot, start);
                if let Position::At(offset) = start {
                    self.ring().begin(slot, offset);
                }
                Some(Item::Added {
                    slot,
                    start,
                    layout: Arc::clone(&self.layout),
                })
            }
            Input::Resolved { slot, start } => {
                self.layout.entry(slot)?;
                self.vector.set(slot, Position::At(start));
                self.ring().begin(slot, start);
                Some(Item::Resolved { slot, start })
            }
            Input::Unresolved { slot, since_ms } => {
                self.layout.entry(slot)?;
                self.vector.set(slot, Position::Since(since_ms));
                let mut ring = self.ring();
                ring.end(slot);
                self.metrics.ring_bytes(&self.name, ring.bytes());
                drop(ring);
                Some(Item::Unresolved { slot, since_ms })
            }
            Input::Complete { generation } => Some(self.readable(Some(generation))),
            Input::Resting => Some(self.readable(None)),
            Input::Records { slot, events, next } => self.records(slot, events, next),
            Input::Lost { slot, next } => {
                self.layout.entry(slot)?;
                self.vector.set(slot, Position::At(next));
                self.ring().begin(slot, next);
                tracing::warn!(stream = %self.name, slot = slot.0, next, "kafka deleted records before they were read");
                Some(Item::Lost { slot, next })
            }
            Input::Removed { slots, gone } => {
                let slots: Vec<Slot> = slots
                    .into_iter()
                    .filter(|slot| self.layout.entry(*slot).is_some())
                    .collect();
                let layout = Arc::make_mut(&mut self.layout);
                let mut ring = self.past.ring.write().unwrap_or_else(PoisonError::into_inner);
                for slot in &slots {
                    layout.remove(*slot);
                    self.vector.remove(*slot);
                    ring.end(*slot);
                }
                drop(ring);
                Some(Item::Removed {
                    slots,
                    gone,
                    layout: Arc::clone(&self.layout),
                })
            }
            Input::Fresh(fresh) => Some(Item::Fresh(fresh)),
        }
    }

    fn readable(&mut self, read: Option<u64>) -> Item {
        let layout = Arc::make_mut(&mut self.layout);
        layout.known = true;
        layout.read = read;
        Item::Readable {
            layout: Arc::clone(&self.layout),
        }
    }

    fn records(&mut self, slot: Slot, events: Vec<Event>, next: i64) -> Option<Item> {
        let Some(Position::At(position)) = self.vector.get(slot) else {
            tracing::error!(stream = %self.name, slot = slot.0, "records of a partition without a position were dropped");
            return None;
        };
        let events: Vec<Arc<Viewed>> = events
            .into_iter()
            .filter(|event| event.offset >= position)
            .map(|event| Arc::new(Viewed::new(Arc::new(event))))
            .collect();
        self.metrics.events(&self.name, events.len());
        let mut ring = self.ring();
        for event in &events {
            ring.push(Arc::clone(event));
        }
        self.metrics.ring_bytes(&self.name, ring.bytes());
        drop(ring);
        let next = next.max(position);
        self.vector.set(slot, Position::At(next));
        Some(Item::Records { slot, events, next })
    }

    fn ring(&self) -> RwLockWriteGuard<'_, Ring> {
        self.past.ring.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self) {
        let mut standing = self.past.standing.lock().unwrap_or_else(PoisonError::into_inner);
        standing.layout = Arc::clone(&self.layout);
        standing.vector.clone_from(&self.vector);
    }
}

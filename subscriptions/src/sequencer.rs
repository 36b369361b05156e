//! The one order of a stream's events on this node, and its position vector.

use std::sync::Arc;

use schemas::cursor::Position;
use schemas::event::Event;
use schemas::ids::{Slot, TenantId};

use crate::history::Partition;

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
    /// Every partition that exists has been announced at least once: subscriptions may begin.
    Complete,
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
    },
    /// Whether Kafka can be reached; `false` only after the stale threshold.
    Fresh(bool),
}

/// A handle to feed a stream.
pub type InputSender = tokio::sync::mpsc::Sender<Input>;

#[allow(dead_code, reason = "skeleton")]
type Shared = Arc<Event>;

//! What the live thread is told and tells, and the names that both sides use. Plain data.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64};

use schemas::cursor::Position;
use schemas::ids::{Incarnation, Slot, TenantId};
use subscriptions::sequencer::Gone;

use super::witness::Answer;

/// One stream's interest in a partition.
#[derive(Debug, Clone)]
pub(super) struct Route {
    /// The stream's place in the contract.
    pub(super) stream: usize,
    pub(super) slot: Slot,
    pub(super) tenant: Option<TenantId>,
}

/// A partition of one incarnation of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) topic: Arc<str>,
    pub(super) incarnation: Incarnation,
    pub(super) partition: i32,
}

/// What the live thread is told.
#[derive(Debug)]
pub(super) enum Command {
    /// A partition exists; read it from `start` if that is an offset.
    Add {
        place: Place,
        routes: Vec<Route>,
        start: Position,
        standing: Arc<Standing>,
    },
    /// Where an unresolved partition begins is known.
    Resolved { place: Place, start: i64 },
    /// Where a partition is is not known: what comes then comes after this time.
    Unresolved { place: Place, since_ms: i64 },
    /// Nobody needs a partition: read no more of it until it is resolved again.
    Rest { place: Place, since_ms: i64 },
    /// What came next is gone; go on there.
    Lost { place: Place, next: i64 },
    /// The same log again at an offset that it should still have.
    Retry { place: Place },
    /// An incarnation is gone, or one partition of it cannot go on as what it was.
    Remove {
        topic: Arc<str>,
        incarnation: Incarnation,
        partition: Option<i32>,
        gone: Gone,
    },
    /// All partitions of a stream have been announced and are read, for this generation of its readers.
    Complete { stream: usize, generation: u64 },
    /// All partitions of a stream have been announced, and nobody needs it.
    Resting { stream: usize },
    /// What topics are, asked after the records of these tickets had come.
    Witnessed(Vec<Answer>),
    /// It is over.
    Stop,
}

/// What goes wrong with one partition.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The next offset is not in the log.
    OutOfRange(Place),
    /// The topic may be gone.
    Topic,
}

/// Where a partition stands, for status and look-ups. Written by the live thread.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) place: Place,
    pub(super) position: AtomicI64,
    pub(super) resolved: AtomicBool,
}

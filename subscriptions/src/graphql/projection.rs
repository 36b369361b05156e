//! What of an event a subscription shows.

use schemas::event::{Change, Event};
use schemas::graph::{Emit, Kinds};
use schemas::project::Mask;

/// What of an event a subscription shows. Equal projections are equal as data, whatever documents they came from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Projection {
    kinds: Kinds,
    emit: Emit,
}

impl Projection {
    /// Appends the payload of an event without line breaks: `{"data":{...},"errors":[...]?,"extensions":{"cursor":"..."}}`.
    /// What the mask hides reads as absent.
    pub fn event(&self, event: &Event, mask: &Mask, cursor: &str, out: &mut Vec<u8>) {
        let _ = (event, mask, cursor, out, self.emit);
    }

    /// Appends the payload of a gap; `partitions` is a JSON array without line breaks.
    pub fn gap(&self, partitions: &str, cursor: &str, at_ms: i64, out: &mut Vec<u8>) {
        let _ = (partitions, cursor, at_ms, out);
    }

    /// Appends the payload that tells a cursor and nothing else.
    pub fn progress(&self, cursor: &str, at_ms: i64, out: &mut Vec<u8>) {
        let _ = (cursor, at_ms, out);
    }

    /// Whether events of this change are given.
    #[must_use]
    pub fn wants(&self, change: Change) -> bool {
        self.kinds.has(match change {
            Change::Created => Kinds::CREATED,
            Change::Updated => Kinds::UPDATED,
            Change::Left => Kinds::LEFT,
            Change::Deleted => Kinds::DELETED,
            Change::Changed => Kinds::CHANGED,
        })
    }

    /// Whether quiet progress is told.
    #[must_use]
    pub fn wants_progress(&self) -> bool {
        self.kinds.has(Kinds::PROGRESS)
    }

    /// Whether gaps are told.
    #[must_use]
    pub fn wants_gap(&self) -> bool {
        self.kinds.has(Kinds::GAP)
    }
}

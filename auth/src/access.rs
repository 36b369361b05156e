//! What one principal may get of one stream. Default deny.
//!
//! The same [`Grant`] decides on every path: live, replay, pull. Readers share work when their compiled
//! [`Selection`]s are equal, never because some claims are equal.

use std::sync::Arc;

use schemas::contract::Stream;
use schemas::event::Event;
use schemas::filter::Predicate;
use schemas::ids::TenantId;
use schemas::problem::Code;
use schemas::project::Mask;
use smallvec::SmallVec;

use crate::token::Principal;

/// The most clauses that a grant may have: their matches are one byte of bits.
pub const CLAUSES_MAX: usize = 8;

/// Rows, and what of them is shown.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Clause {
    /// Which rows of the tenant.
    pub rows: Predicate,
    /// Which fields of them.
    pub mask: Arc<Mask>,
}

/// What one principal may get of one stream. Clauses are sorted and distinct.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Always ANDed; no rule can take it away.
    pub tenant: TenantId,
    /// At least one.
    pub clauses: SmallVec<[Clause; 1]>,
    /// Until when, in milliseconds since the Unix epoch.
    pub expires_at_ms: i64,
}

/// A grant narrowed by a filter: what decides, event by event. The key by which readers share a group.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Selection {
    /// Always ANDed.
    pub tenant: TenantId,
    /// At least one.
    pub clauses: SmallVec<[Clause; 1]>,
}

/// Why there is no grant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", code.name)]
pub struct Denied {
    /// What the client is told.
    pub code: Code,
    /// More, without data.
    pub detail: String,
}

impl Grant {
    /// Compiles the stream's rules for a principal: every rule of which a scope is held gives a clause.
    pub fn compile(stream: &Stream, principal: &Principal) -> Result<Self, Denied> {
        todo!("{} {}", stream.name, principal.tenant)
    }

    /// Narrows the grant by a reader's filter. A clause that hides an attribute cannot be filtered by it: it is dropped,
    /// and if none is left the answer is a refusal.
    pub fn select(&self, stream: &Stream, filter: &Predicate) -> Result<Selection, Denied> {
        todo!("{} {filter:?}", stream.name)
    }
}

impl Selection {
    /// The clauses that this event matches, one bit each. Zero: the reader does not get it.
    #[must_use]
    pub fn matching(&self, event: &Event) -> u8 {
        if event.tenant != self.tenant {
            return 0;
        }
        self.clauses
            .iter()
            .enumerate()
            .filter(|(_, clause)| clause.rows.matches(&event.attributes))
            .fold(0, |bits, (place, _)| bits | (1 << place))
    }

    /// What is shown of an event that matches these clauses: hidden is what all of them hide.
    #[must_use]
    pub fn mask(&self, bits: u8) -> Arc<Mask> {
        todo!("{bits}")
    }
}

//! One record of a stream, presented as a CloudEvents 1.0 event. Immutable once decoded, shared by `Arc`.

use std::sync::Arc;

use bytes::Bytes;

use crate::attributes::Attributes;
use crate::contract::Stream;
use crate::ids::{Slot, TenantId};
use crate::project::{Document, Mask};

/// What happened to the thing that the event speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Change {
    /// It is new.
    Created,
    /// It has another value.
    Updated,
    /// It moved out of the reader's filter.
    Left,
    /// It is gone.
    Deleted,
    /// It was written; whether it is new is not known.
    Changed,
}

impl Change {
    /// The last segment of the event's type.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Left => "left",
            Self::Deleted => "deleted",
            Self::Changed => "changed",
        }
    }
}

/// The body of an event.
#[derive(Debug, Clone)]
pub enum Data {
    /// A JSON document, checked and indexed: field masks and projections work on it.
    Json(Document),
    /// Bytes of another media type; carried as `data_base64`, and only where nothing of the data is hidden.
    Binary(Bytes),
    /// No body (a tombstone).
    None,
}

/// One event.
#[derive(Debug, Clone)]
pub struct Event {
    /// The stream's declaration.
    pub stream: Arc<Stream>,
    /// The partition that it came from, by this node's numbering.
    pub slot: Slot,
    /// Its offset in that partition.
    pub offset: i64,
    /// Whose it is.
    pub tenant: TenantId,
    /// CloudEvents `id`.
    pub id: Arc<str>,
    /// CloudEvents `source`.
    pub source: Arc<str>,
    /// CloudEvents `type`: `<type_prefix>.<stream>.<change>`.
    pub kind: Arc<str>,
    /// CloudEvents `subject`.
    pub subject: Option<Arc<str>>,
    /// CloudEvents `time`, in milliseconds since the Unix epoch.
    pub time_ms: i64,
    /// CloudEvents `datacontenttype`.
    pub content_type: Arc<str>,
    /// What happened.
    pub change: Change,
    /// The record's key.
    pub key: Option<Bytes>,
    /// The declared attributes' values.
    pub attributes: Attributes,
    /// The producer's own CloudEvents extension attributes, where they collide with no declared or reserved name.
    /// Emitted only under a mask that hides nothing (see [`Event::encode`]).
    pub extensions: Vec<(Arc<str>, Arc<str>)>,
    /// The body.
    pub data: Data,
    /// What it costs in memory, roughly, for the bounds of rings and caches.
    pub bytes: usize,
}

impl Event {
    /// Appends the event as one CloudEvents JSON object without line breaks, hidden fields removed.
    ///
    /// The object starts with `{"specversion":"1.0"`, so that a caller can put a member in front of it.
    pub fn encode(&self, mask: &Mask, out: &mut Vec<u8>) {
        todo!("{mask:?} {}", out.len())
    }
}

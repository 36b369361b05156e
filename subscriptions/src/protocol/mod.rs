//! How frames and control messages look on the wire. Pure codecs: no sockets, no clocks.

pub mod sse;
pub mod v1;
pub mod ws;

use std::sync::Arc;

use bytes::Bytes;
use schemas::ids::Slot;

/// Something that a subscription is owed, finished but for what differs between connections.
#[derive(Debug, Clone)]
pub struct Frame {
    /// The cursor after it.
    pub cursor: Arc<str>,
    /// What it is.
    pub kind: Kind,
}

/// What a frame is.
#[derive(Debug, Clone)]
pub enum Kind {
    /// An event: where it stands, and its CloudEvents JSON.
    Event {
        /// Its partition.
        slot: Slot,
        /// Its offset.
        offset: i64,
        /// Its body, shared by all readers of the view.
        body: Bytes,
    },
    /// Something could not be given any more: the `partitions` member as JSON.
    Gap(Arc<str>),
    /// The replay is over.
    Live,
}

/// The wire format of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// `tidewire.v1` in WebSocket text frames.
    WebSocket,
    /// Server-sent events.
    Sse,
}

impl Frame {
    /// What it costs on the wire, roughly: what bounds count.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let body = match &self.kind {
            Kind::Event { body, .. } => body.len(),
            Kind::Gap(partitions) => partitions.len(),
            Kind::Live => 0,
        };
        body + self.cursor.len() + 64
    }

    /// Whether it is an event.
    #[must_use]
    pub fn is_event(&self) -> bool {
        matches!(self.kind, Kind::Event { .. })
    }
}

impl Framing {
    /// Appends a frame for the subscription whose id is `id`, a JSON string with its quotes.
    pub fn render(self, id: &str, frame: &Frame, out: &mut Vec<u8>) {
        match self {
            Self::WebSocket => v1::render(id, frame, out),
            Self::Sse => sse::render(frame, out),
        }
    }

    /// The metric label and the operator's word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::Sse => "sse",
        }
    }
}

//! An event and its finished views. A view (what of the event is shown) is encoded at most once per node while it is
//! recent, and shared by every reader of it. Knows nothing of protocols: a body goes into any of them.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use schemas::event::Event;
use schemas::project::Mask;
use smallvec::SmallVec;

use crate::graphql::{Finished, Projection};

/// How many views of one event are kept, and no more than fit into the event's own size. Others are encoded again by each
/// group that wants them: a bound on what an event can cost, since [`Viewed::bytes`] counts on it.
const VIEWS_KEPT_MAX: usize = 4;

/// How an event is presented: with a mask, the unit of encoding.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum View {
    /// As CloudEvents JSON.
    CloudEvents,
    /// As the result of a GraphQL operation.
    Graphql(Arc<Projection>),
}

/// A view and what was encoded of it.
#[derive(Debug)]
struct Body {
    view: View,
    mask: Arc<Mask>,
    bytes: Bytes,
}

/// An event, the bodies encoded of it, and the cursor that stands after it for readers that have joined.
#[derive(Debug)]
pub struct Viewed {
    /// The event.
    pub event: Arc<Event>,
    bodies: Mutex<SmallVec<[Body; 1]>>,
    cursor: OnceLock<Arc<str>>,
}

impl Viewed {
    /// An event of which nothing has been encoded.
    #[must_use]
    pub fn new(event: Arc<Event>) -> Self {
        Self {
            event,
            bodies: Mutex::new(SmallVec::new()),
            cursor: OnceLock::new(),
        }
    }

    /// What it may cost in memory: the event, and finished bodies up to its size.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.event.bytes.saturating_mul(2)
    }

    /// The event, to be encoded for many.
    #[must_use]
    pub fn offer(&self) -> Offer<'_> {
        Offer {
            viewed: self,
            finished: Finished::of(&self.event),
        }
    }

    /// The event's body for one reader, with a cursor of its own.
    #[must_use]
    pub fn body_of_one(&self, view: &View, mask: &Arc<Mask>, cursor: &str) -> Bytes {
        match view {
            // The cursor stands beside it.
            View::CloudEvents => self.offer().body(view, mask, cursor),
            View::Graphql(_) => view.encode(&self.event, mask, cursor),
        }
    }

    /// The shared cursor after this event; sealed by the first worker that needs it. Every worker processes the same
    /// order, so all would seal the same position.
    pub fn shared_cursor(&self, seal: impl FnOnce() -> Arc<str>) -> Arc<str> {
        Arc::clone(self.cursor.get_or_init(seal))
    }
}

/// An event in the hands of a worker that encodes it for its readers: what different GraphQL selections have in common is
/// written once. It is let go of before the next event, so its own bounds are all that it costs.
pub struct Offer<'v> {
    viewed: &'v Viewed,
    finished: Finished<'v>,
}

impl Offer<'_> {
    /// The event's body for readers that have joined, for whom `cursor` is the one after it.
    #[must_use]
    pub fn body(&mut self, view: &View, mask: &Arc<Mask>, cursor: &str) -> Bytes {
        let viewed = self.viewed;
        let mut bodies = viewed.bodies.lock().unwrap_or_else(PoisonError::into_inner);
        let same =
            |body: &&Body| (Arc::ptr_eq(&body.mask, mask) || body.mask == *mask) && body.view.is_same(view);
        if let Some(body) = bodies.iter().find(same) {
            return body.bytes.clone();
        }
        if bodies.len() >= VIEWS_KEPT_MAX {
            // Not to be kept, so other workers need not wait for it.
            drop(bodies);
            return view.finish(&mut self.finished, mask, cursor);
        }
        let bytes = view.finish(&mut self.finished, mask, cursor);
        // A view may be many times the event (aliases): what is kept stays within what `bytes` says.
        let kept: usize = bodies.iter().map(|body| body.bytes.len()).sum();
        if kept + bytes.len() <= viewed.event.bytes {
            bodies.push(Body {
                view: view.clone(),
                mask: Arc::clone(mask),
                bytes: bytes.clone(),
            });
        }
        bytes
    }
}

impl View {
    /// Encodes an event without keeping the result.
    #[must_use]
    pub fn encode(&self, event: &Event, mask: &Mask, cursor: &str) -> Bytes {
        self.finish(&mut Finished::of(event), mask, cursor)
    }

    /// The same, with what is finished of the event already.
    fn finish(&self, finished: &mut Finished<'_>, mask: &Mask, cursor: &str) -> Bytes {
        let mut out = Vec::with_capacity(finished.event().encoded_bytes_hint());
        match self {
            Self::CloudEvents => finished.event().encode(mask, &mut out),
            Self::Graphql(projection) => projection.finish(finished, mask, cursor, &mut out),
        }
        Bytes::from(out)
    }

    /// Whether events of this kind are presented at all.
    #[must_use]
    pub fn wants(&self, event: &Event) -> bool {
        match self {
            Self::CloudEvents => true,
            Self::Graphql(projection) => projection.wants(event.change),
        }
    }

    /// Equality that is cheap where it is likely.
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::CloudEvents, Self::CloudEvents) => true,
            (Self::Graphql(mine), Self::Graphql(theirs)) => Arc::ptr_eq(mine, theirs) || mine == theirs,
            _ => false,
        }
    }
}

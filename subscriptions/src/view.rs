//! An event and its finished views. A view (what of the event is shown) is encoded at most once per node while it is
//! recent, and shared by every reader of it. Knows nothing of protocols: a body goes into any of them.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use schemas::event::Event;
use schemas::project::Mask;
use smallvec::SmallVec;

/// How many views of one event are kept. More are encoded again by each group that wants them: a bound on what an event
/// can cost, since [`Viewed::bytes`] counts on it.
const VIEWS_KEPT_MAX: usize = 4;

/// A view and what was encoded of it.
type Body = (Arc<Mask>, Bytes);

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

    /// What it may cost in memory: the event and one body of about its size.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.event.bytes.saturating_mul(2)
    }

    /// The event as CloudEvents JSON under this mask.
    #[must_use]
    pub fn body(&self, mask: &Arc<Mask>) -> Bytes {
        let mut bodies = self.bodies.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, body)) = bodies
            .iter()
            .find(|(have, _)| Arc::ptr_eq(have, mask) || have == mask)
        {
            return body.clone();
        }
        let body = encode(&self.event, mask);
        if bodies.len() < VIEWS_KEPT_MAX {
            bodies.push((Arc::clone(mask), body.clone()));
        }
        body
    }

    /// The shared cursor after this event; sealed by the first worker that needs it. Every worker processes the same
    /// order, so all would seal the same position.
    pub fn shared_cursor(&self, seal: impl FnOnce() -> Arc<str>) -> Arc<str> {
        Arc::clone(self.cursor.get_or_init(seal))
    }
}

/// Encodes an event without keeping the result.
#[must_use]
pub fn encode(event: &Event, mask: &Mask) -> Bytes {
    let mut out = Vec::with_capacity(event.encoded_bytes_hint());
    event.encode(mask, &mut out);
    Bytes::from(out)
}

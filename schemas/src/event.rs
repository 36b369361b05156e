//! One record of a stream, presented as a CloudEvents 1.0 event. Immutable once decoded, shared by `Arc`.

pub mod json;
mod told;

pub use told::{Shown, Structured, Told};

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::attributes::{self, Attributes};
use crate::contract::{AttributeSource, Stream};
use crate::ids::{AttributeId, Slot, TenantId};
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
#[derive(Clone)]
pub enum Data {
    /// A JSON document, checked and indexed: field masks and projections work on it.
    Json(Document),
    /// Bytes of another media type; carried as `data_base64`, and only where nothing of the data is hidden.
    Binary(Bytes),
    /// No body (a tombstone).
    None,
}

/// One event.
#[derive(Clone)]
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
    /// The id that its position gives it, where `id` is the producer's.
    pub own_id: Option<Arc<str>>,
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
    /// The object starts with `{"specversion":"1.0"`, so that a caller can put a member in front of it. Then come `id`,
    /// `source`, `type`, `subject`, `time`, `tenant`, the declared attributes, the producer's extensions,
    /// `datacontenttype` and `data` (or `data_base64`). What of that a mask takes away:
    ///
    /// - of the data, what it hides; all of it if it is not JSON and the mask hides anything;
    /// - an attribute whose pointer is at, above or below something hidden. One with a `*` is never emitted;
    /// - `subject`, and attributes from the key or a header, where their text holds the value of an attribute that is
    ///   hidden (a hidden `patient` is not given away by the key), or where the event has no value for one that is (a
    ///   tombstone whose headers do not repeat it, data that lacks it): then nobody knows what the text holds. Hidden
    ///   fields that are no attributes are not looked for: whoever puts them into keys or CloudEvents attributes
    ///   publishes them;
    /// - the producer's `id` and `source`, and parameters of `datacontenttype`, by the same rule: in their
    ///   place stand the id of the position, the stream's `source` and the bare media type. The mask decides, so that
    ///   a reader with the same grant always sees the same id of an event;
    /// - the producer's extensions, all of them, if the mask hides anything: nobody declared what they hold.
    pub fn encode(&self, mask: &Mask, out: &mut Vec<u8>) {
        out.reserve(self.encoded_bytes_hint());
        let mut told = Structured::begin(out);
        self.tell(mask, &mut told);
        told.end();
    }

    /// Tells what is shown of the event, in the order and by the rules of [`Event::encode`].
    pub fn tell(&self, mask: &Mask, to: &mut impl Told) {
        let open = mask.hides_nothing();
        let secrets = self.secrets(mask);
        let told = |text: &str| secrets.are_kept_by(text);

        let id = match &self.own_id {
            Some(own) if !told(&self.id) => own,
            _ => &self.id,
        };
        to.attribute("id", id);
        let source = if told(&self.source) {
            &*self.source
        } else {
            &*self.stream.source
        };
        to.attribute("source", source);
        to.attribute("type", &self.kind);
        if let Some(subject) = self.subject.as_deref().filter(|subject| told(subject)) {
            to.attribute("subject", subject);
        }
        if let Some(time) = json::time(self.time_ms) {
            to.attribute("time", time.as_str());
        }
        to.attribute("tenant", self.tenant.as_str());
        for (id, value) in self.attributes.iter() {
            let Some(attribute) = self.stream.attributes.get(usize::from(id.0)) else {
                continue;
            };
            let shown = match &attribute.source {
                AttributeSource::Pointer(pointer) => {
                    !pointer.has_wildcard() && (open || !mask.hides(pointer))
                }
                AttributeSource::Key | AttributeSource::Header(_) => told(value),
            };
            if shown {
                to.attribute(attribute.name.as_str(), value);
            }
        }
        if open {
            for (name, value) in &self.extensions {
                to.attribute(name, value);
            }
        }
        let content_type = if told(&self.content_type) {
            &*self.content_type
        } else {
            bare(&self.content_type)
        };
        match &self.data {
            Data::Json(document) => to.data(content_type, Shown::Json(document, mask)),
            Data::Binary(bytes) if open => to.data(content_type, Shown::Binary(bytes)),
            Data::Binary(_) | Data::None => {}
        }
    }

    /// The record's key as text: `None` if there is none, if it is no UTF-8, or if it holds, or could hold, the value of an
    /// attribute that the mask hides (the rule of `subject` in [`Event::encode`]).
    #[must_use]
    pub fn key_text(&self, mask: &Mask) -> Option<&str> {
        let key = std::str::from_utf8(self.key.as_ref()?).ok()?;
        self.secrets(mask).are_kept_by(key).then_some(key)
    }

    /// About how many bytes [`Event::encode`] appends when nothing is hidden; a little more rather than less, so that a
    /// buffer of this capacity does not grow (it can where text needs escapes).
    #[must_use]
    pub fn encoded_bytes_hint(&self) -> usize {
        // Member names, quotes and the time.
        const FIXED: usize = 200;
        const EACH: usize = 8;
        let data = match &self.data {
            Data::Json(document) => document.len(),
            Data::Binary(bytes) => bytes.len().div_ceil(3) * 4,
            Data::None => 0,
        };
        let attribute = |id: AttributeId| self.stream.attributes.get(usize::from(id.0));
        let attributes: usize = self
            .attributes
            .iter()
            .map(|(id, value)| {
                attribute(*id).map_or(0, |attribute| attribute.name.as_str().len()) + value.len() + EACH
            })
            .sum();
        let extensions: usize = self
            .extensions
            .iter()
            .map(|(name, value)| name.len() + value.len() + EACH)
            .sum();
        let texts = [&self.id, &self.source, &self.kind, &self.content_type].map(|text| text.len());
        let subject = self.subject.as_deref().map_or(0, str::len);
        FIXED
            + texts.iter().sum::<usize>()
            + subject
            + self.tenant.as_str().len()
            + attributes
            + extensions
            + data
    }

    /// What the event holds in memory, roughly: its own size, and what its pointers own.
    pub(crate) fn memory(&self) -> usize {
        let data = match &self.data {
            Data::Json(document) => document.memory(),
            Data::Binary(bytes) => bytes.len(),
            Data::None => 0,
        };
        let extensions: usize = self
            .extensions
            .iter()
            .map(|(name, value)| name.len() + value.len() + 64)
            .sum();
        let own_id = self.own_id.as_deref().map_or(0, |id| id.len() + 16);
        let texts =
            self.id.len() + own_id + self.source.len() + self.subject.as_deref().map_or(0, str::len) + 48;
        let key = self.key.as_ref().map_or(0, Bytes::len);
        size_of::<Self>() + data + extensions + texts + key + self.attributes.memory()
    }

    /// What the mask hides of the attributes.
    fn secrets(&self, mask: &Mask) -> Secrets<'_> {
        let mut secrets = Secrets {
            values: SmallVec::new(),
            unknown: false,
        };
        if mask.hides_nothing() {
            return secrets;
        }
        for (attribute, id) in self.stream.attributes.iter().zip(0..) {
            let AttributeSource::Pointer(pointer) = &attribute.source else {
                continue;
            };
            if !mask.hides(pointer) {
                continue;
            }
            let before = secrets.values.len();
            let own = self.attributes.iter().filter(|(have, _)| have.0 == id);
            secrets.values.extend(own.map(|(_, value)| &**value));
            secrets.unknown |= secrets.values.len() == before;
        }
        secrets
    }
}

/// The values of the attributes that a mask hides.
struct Secrets<'a> {
    values: SmallVec<[&'a str; 4]>,
    /// One of them has no value in this event: what stands beside the data may hold it.
    unknown: bool,
}

impl Secrets<'_> {
    /// Whether a text that stands beside the data gives none of them away.
    fn are_kept_by(&self, text: &str) -> bool {
        !self.unknown && !self.values.iter().any(|secret| holds(text, secret))
    }
}

/// Never the payload: what is written for debugging ends up in logs.
impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json(document) => document.fmt(f),
            Self::Binary(bytes) => write!(f, "Binary({} bytes)", bytes.len()),
            Self::None => f.write_str("None"),
        }
    }
}

/// Where it came from and what happened; never the payload, the key or attributes.
impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("stream", &self.stream.name)
            .field("slot", &self.slot)
            .field("offset", &self.offset)
            .field("change", &self.change)
            .field("data", &self.data)
            .finish_non_exhaustive()
    }
}

/// A media type without its parameters (RFC 9110, section 8.3.1).
fn bare(media_type: &str) -> &str {
    let bare = media_type.split_once(';').map_or(media_type, |(bare, _)| bare);
    bare.trim_end()
}

/// Whether a text gives a hidden value away: it holds the whole of it, or the id of a reference as a word of its own (`1`
/// of `Patient/1` and of `https://x/Patient/1/_history/2`, `abc` of `urn:uuid:abc`).
fn holds(text: &str, secret: &str) -> bool {
    if secret.is_empty() {
        return false;
    }
    let reference = attributes::reference(secret);
    let id = reference
        .rsplit_once('/')
        .or_else(|| reference.rsplit_once(':'))
        .map(|(_, id)| id)
        .filter(|id| !id.is_empty());
    let is_word = |at: usize, length: usize| {
        let outside = |byte: Option<&u8>| byte.is_none_or(|byte| !byte.is_ascii_alphanumeric());
        let bytes = text.as_bytes();
        outside(at.checked_sub(1).and_then(|before| bytes.get(before))) && outside(bytes.get(at + length))
    };
    text.contains(secret) || id.is_some_and(|id| text.match_indices(id).any(|(at, id)| is_word(at, id.len())))
}

#[cfg(test)]
mod tests;

//! Views of a body: a checked JSON document over its own bytes, and the field masks that decide what of it is shown.
//!
//! A [`Document`] keeps the producer's bytes (numbers and strings stay as they were written, `1.00` stays `1.00`) and
//! an index over them. Emitting copies slices and drops white space, so the output never has a line break.

use std::sync::Arc;

use bytes::Bytes;

/// A JSON document that was checked once: valid UTF-8, valid JSON, no duplicate member names after unescaping, bounded
/// depth.
#[derive(Debug, Clone)]
pub struct Document {
    bytes: Bytes,
}

/// Why bytes are no acceptable document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadDocument {
    /// Not JSON, or not UTF-8.
    #[error("not valid JSON at byte {at}")]
    Syntax {
        /// Where.
        at: usize,
    },
    /// One object names a member twice. Never says which: it may be somebody's data.
    #[error("an object has the same member twice, at byte {at}")]
    DuplicateMember {
        /// Where.
        at: usize,
    },
    /// Nested deeper than [`Document::DEPTH_MAX`].
    #[error("nested deeper than {}", Document::DEPTH_MAX)]
    TooDeep,
}

/// A JSON pointer (RFC 6901) in which a segment `*` stands for each element of an array or each member of an object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pointer {
    segments: Arc<[Box<str>]>,
}

/// Which fields are shown: a deny-list, an allow-list, or what at least one of several masks shows.
///
/// Equal masks are equal as data; views are shared by it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mask {
    /// Everything but these (and what is below them). An empty list hides nothing.
    Hide(Arc<[Pointer]>),
    /// Only these (and what is below them).
    Show(Arc<[Pointer]>),
    /// A field is hidden if every one of these hides it.
    All(Arc<[Mask]>),
}

impl Document {
    /// The deepest nesting that is accepted.
    pub const DEPTH_MAX: usize = 128;
}

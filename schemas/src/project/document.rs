//! A checked JSON document over the producer's own bytes. Nothing is copied when it is parsed and nothing is
//! reformatted when it is written; it does not know whose it is.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use super::mask::{Mask, State, Verdict, Walk};
use super::pointer::{self, Pointer};
use super::scan::{self, Node};

/// A JSON document that was checked once: valid UTF-8, valid JSON, no duplicate member names after unescaping, no half
/// surrogate pairs, bounded depth.
#[derive(Clone)]
pub struct Document {
    bytes: Bytes,
    nodes: Arc<[Node]>,
}

/// Never the text: what is written for debugging ends up in logs.
impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Document({} bytes)", self.bytes.len())
    }
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
    /// Longer than [`Document::BYTES_MAX`].
    #[error("longer than {} bytes", Document::BYTES_MAX)]
    TooLarge,
}

impl Document {
    /// The root's place in the index.
    pub(super) const ROOT: usize = 0;

    /// The deepest nesting that is accepted: an event in its envelope, and that in a message or a page, stays within the
    /// 128 levels that common parsers read.
    pub const DEPTH_MAX: usize = 120;

    /// The longest text that is accepted: positions and places in the index share words with flags.
    pub const BYTES_MAX: usize = (1 << 30) - 1;

    /// Checks and indexes the text. White space around it is allowed; anything else after the value is not.
    pub fn parse(bytes: Bytes) -> Result<Self, BadDocument> {
        let nodes = scan::scan(&bytes)?;
        Ok(Self {
            bytes,
            nodes: nodes.into(),
        })
    }

    /// Bytes of the text as it was given.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Never: no JSON value is empty text.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Bytes that the document holds, with its index.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.bytes.len() + self.nodes.len() * size_of::<Node>()
    }

    /// The strings, numbers and booleans at the places that the pointer selects, as text: strings unescaped, numbers as
    /// they were written. Nulls, objects and arrays give nothing.
    pub fn strings_at(&self, pointer: &Pointer) -> impl Iterator<Item = Cow<'_, str>> {
        self.places(pointer)
            .into_iter()
            .filter_map(|place| self.text(place))
    }

    /// The string at a place that the pointer selects, if it selects exactly one place and that holds a string.
    #[must_use]
    pub fn string_at(&self, pointer: &Pointer) -> Option<Cow<'_, str>> {
        match self.places(pointer)[..] {
            [place] if self.first_byte(place) == b'"' => self.text(place),
            _ => None,
        }
    }

    /// The part at a pointer without wildcards, as a document of its own over the same bytes.
    #[must_use]
    pub fn part(&self, pointer: &Pointer) -> Option<Self> {
        let [place] = self.places(pointer)[..] else {
            return None;
        };
        Some(self.subtree(place))
    }

    /// The root object's members; `None` if the root is no object.
    #[must_use]
    pub fn members(&self) -> Option<Vec<(Cow<'_, str>, Self)>> {
        if self.first_byte(Self::ROOT) != b'{' {
            return None;
        }
        let name = |place: usize| self.text(place).unwrap_or_default();
        Some(
            self.children(Self::ROOT)
                .map(|(place, value)| (name(place), self.subtree(value)))
                .collect(),
        )
    }

    /// The text of a root that is a string, a number or a boolean.
    #[must_use]
    pub fn as_text(&self) -> Option<Cow<'_, str>> {
        self.text(Self::ROOT)
    }

    /// The text of a root that is a string.
    #[must_use]
    pub fn as_string(&self) -> Option<Cow<'_, str>> {
        if self.first_byte(Self::ROOT) == b'"' {
            self.text(Self::ROOT)
        } else {
            None
        }
    }

    /// Whether the root is `null`.
    #[must_use]
    pub fn is_null(&self) -> bool {
        self.first_byte(Self::ROOT) == b'n'
    }

    /// Appends what the mask shows, compact: no white space between tokens, so no line breaks. Numbers and strings stay as
    /// they were written. Hidden members are left out, and hidden elements are removed from their arrays.
    ///
    /// `false`, and nothing is appended, if the whole document is hidden.
    pub fn write(&self, mask: &Mask, out: &mut Vec<u8>) -> bool {
        if mask.hides_nothing() {
            self.copy(Self::ROOT, out);
            return true;
        }
        let walk = Walk::new(mask);
        match walk.start() {
            Verdict::Show => self.copy(Self::ROOT, out),
            Verdict::Hide => return false,
            Verdict::Partly(state) if self.is_container(Self::ROOT) => {
                self.write_partly(Self::ROOT, &walk, &state, 0, out)
            }
            Verdict::Partly(state) if walk.shows_scalar(&state) => self.copy(Self::ROOT, out),
            Verdict::Partly(_) => return false,
        }
        true
    }

    pub(super) fn write_partly(
        &self,
        container: usize,
        walk: &Walk<'_>,
        state: &State,
        depth: usize,
        out: &mut Vec<u8>,
    ) {
        let is_object = self.first_byte(container) == b'{';
        out.push(if is_object { b'{' } else { b'[' });
        let mut first = true;
        if is_object {
            for (name, value) in self.children(container) {
                let decoded = self.name(name);
                let verdict = walk.step(state, depth, |segment| segment.as_bytes() == &*decoded);
                self.write_child(Some(name), value, walk, verdict, depth, &mut first, out);
            }
        } else {
            for (place, value) in self.elements(container).enumerate() {
                let verdict = walk.step(state, depth, |segment| pointer::index(segment) == Some(place));
                self.write_child(None, value, walk, verdict, depth, &mut first, out);
            }
        }
        out.push(if is_object { b'}' } else { b']' });
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "the loop body of write_partly, shared by objects and arrays"
    )]
    fn write_child(
        &self,
        name: Option<usize>,
        value: usize,
        walk: &Walk<'_>,
        verdict: Verdict,
        depth: usize,
        first: &mut bool,
        out: &mut Vec<u8>,
    ) {
        let state = match verdict {
            Verdict::Hide => return,
            Verdict::Show => None,
            Verdict::Partly(state) if self.is_container(value) => Some(state),
            Verdict::Partly(state) if walk.shows_scalar(&state) => None,
            Verdict::Partly(_) => return,
        };
        if !std::mem::take(first) {
            out.push(b',');
        }
        if let Some(name) = name {
            out.extend_from_slice(&self.bytes[self.nodes[name].span()]);
            out.push(b':');
        }
        match state {
            None => self.copy(value, out),
            Some(state) => self.write_partly(value, walk, &state, depth + 1, out),
        }
    }

    pub(super) fn copy(&self, place: usize, out: &mut Vec<u8>) {
        let node = self.nodes[place];
        if !node.is_spaced() {
            out.extend_from_slice(&self.bytes[node.span()]);
            return;
        }
        // A container with white space in it. What has none below it is copied whole.
        let is_object = self.first_byte(place) == b'{';
        out.push(if is_object { b'{' } else { b'[' });
        let mut first = true;
        let mut at = place + 1;
        while at < node.next() {
            if !std::mem::take(&mut first) {
                out.push(b',');
            }
            if is_object {
                out.extend_from_slice(&self.bytes[self.nodes[at].span()]);
                out.push(b':');
                at += 1;
            }
            self.copy(at, out);
            at = self.nodes[at].next();
        }
        out.push(if is_object { b'}' } else { b']' });
    }

    /// The places that a pointer selects, in document order.
    fn places(&self, pointer: &Pointer) -> SmallVec<[usize; 4]> {
        let mut places = SmallVec::from_slice(&[Self::ROOT]);
        for segment in pointer.segments() {
            let mut below = SmallVec::new();
            for &place in &places {
                self.below(place, segment, &mut below);
            }
            places = below;
            if places.is_empty() {
                break;
            }
        }
        places
    }

    fn below(&self, place: usize, segment: &str, found: &mut SmallVec<[usize; 4]>) {
        let any = pointer::is_wildcard(segment);
        match self.first_byte(place) {
            b'{' if any => found.extend(self.children(place).map(|(_, value)| value)),
            b'{' => found.extend(self.member(place, segment)),
            b'[' if any => found.extend(self.elements(place)),
            b'[' => found.extend(pointer::index(segment).and_then(|index| self.elements(place).nth(index))),
            _ => {}
        }
    }

    /// The place of an object's member.
    pub(super) fn member(&self, object: usize, name: &str) -> Option<usize> {
        self.children(object)
            .find(|(place, _)| *self.name(*place) == *name.as_bytes())
            .map(|(_, value)| value)
    }

    /// A member's name, unescaped.
    pub(super) fn name(&self, place: usize) -> Cow<'_, [u8]> {
        scan::decoded(&self.bytes, self.nodes[place])
    }

    /// The text of a value as it was written.
    pub(super) fn span(&self, place: usize) -> &[u8] {
        &self.bytes[self.nodes[place].span()]
    }

    /// An object's members: the places of name and value.
    pub(super) fn children(&self, object: usize) -> impl Iterator<Item = (usize, usize)> {
        let end = self.nodes[object].next();
        let mut at = object + 1;
        std::iter::from_fn(move || {
            let name = at;
            (name < end).then(|| {
                at = self.nodes[name + 1].next();
                (name, name + 1)
            })
        })
    }

    /// An array's elements.
    pub(super) fn elements(&self, array: usize) -> impl Iterator<Item = usize> {
        let end = self.nodes[array].next();
        let mut at = array + 1;
        std::iter::from_fn(move || {
            let element = at;
            (element < end).then(|| {
                at = self.nodes[element].next();
                element
            })
        })
    }

    fn subtree(&self, place: usize) -> Self {
        let root = self.nodes[place];
        let first = u32::try_from(place).unwrap_or(u32::MAX);
        let nodes = self.nodes[place..root.next()]
            .iter()
            .map(|node| node.shifted(root.start, first))
            .collect();
        Self {
            bytes: self.bytes.slice(root.span()),
            nodes,
        }
    }

    pub(super) fn text(&self, place: usize) -> Option<Cow<'_, str>> {
        let node = self.nodes[place];
        let bytes = match self.first_byte(place) {
            b'"' => scan::decoded(&self.bytes, node),
            b'{' | b'[' | b'n' => return None,
            _ => Cow::Borrowed(&self.bytes[node.span()]),
        };
        // The text was checked as a whole, and tokens begin and end at ASCII characters.
        match bytes {
            Cow::Borrowed(bytes) => std::str::from_utf8(bytes).ok().map(Cow::Borrowed),
            Cow::Owned(bytes) => String::from_utf8(bytes).ok().map(Cow::Owned),
        }
    }

    pub(super) fn is_container(&self, place: usize) -> bool {
        matches!(self.first_byte(place), b'{' | b'[')
    }

    pub(super) fn first_byte(&self, place: usize) -> u8 {
        self.bytes[self.nodes[place].start as usize]
    }
}

#[cfg(test)]
mod tests;

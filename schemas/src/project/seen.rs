//! A document as somebody sees it: what a mask hides cannot be reached from a [`Seen`].
//!
//! Invariant: navigating what is seen equals navigating the text that [`Document::write`] makes under the same mask. An
//! element that is hidden is not counted, as it is not there in that text.

use std::borrow::Cow;

use smallvec::SmallVec;

use super::document::Document;
use super::mask::{Mask, State, Verdict, Walk};
use super::names::Names;
use super::pointer::{self, Pointer};

/// A mask, ready to be carried down documents.
pub struct Sight<'m>(Option<Walk<'m>>);

impl<'m> Sight<'m> {
    /// What this mask shows.
    #[must_use]
    pub fn new(mask: &'m Mask) -> Self {
        Self((!mask.hides_nothing()).then(|| Walk::new(mask)))
    }
}

/// A value of a document, of which something is shown.
#[derive(Clone)]
pub struct Seen<'a> {
    document: &'a Document,
    place: usize,
    below: Below<'a>,
}

/// What of the values below is shown.
#[derive(Clone)]
enum Below<'a> {
    All,
    /// Boxed: most masks hide nothing, and what is seen is handed on for every field.
    Partly(Box<Partly<'a>>),
}

#[derive(Clone)]
struct Partly<'a> {
    walk: &'a Walk<'a>,
    state: State,
    depth: usize,
}

/// What a JSON value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// `{}`
    Object,
    /// `[]`
    Array,
    /// `""`
    String,
    /// `0`
    Number,
    /// `true` or `false`
    Boolean,
    /// `null`
    Null,
}

impl Document {
    /// The document as it is seen; `None` if all of it is hidden.
    #[must_use]
    pub fn seen<'a>(&'a self, sight: &'a Sight<'_>) -> Option<Seen<'a>> {
        match &sight.0 {
            Some(walk) => Seen::of(self, Self::ROOT, walk, walk.start(), 0),
            None => Some(Seen {
                document: self,
                place: Self::ROOT,
                below: Below::All,
            }),
        }
    }
}

impl<'a> Seen<'a> {
    fn of(
        document: &'a Document,
        place: usize,
        walk: &'a Walk<'a>,
        verdict: Verdict,
        depth: usize,
    ) -> Option<Self> {
        let below = match verdict {
            Verdict::Show => Below::All,
            Verdict::Hide => return None,
            Verdict::Partly(state) if document.is_container(place) => {
                Below::Partly(Box::new(Partly { walk, state, depth }))
            }
            Verdict::Partly(state) if walk.shows_scalar(&state) => Below::All,
            Verdict::Partly(_) => return None,
        };
        Some(Self {
            document,
            place,
            below,
        })
    }

    /// What the value is.
    #[must_use]
    pub fn shape(&self) -> Shape {
        match self.document.first_byte(self.place) {
            b'{' => Shape::Object,
            b'[' => Shape::Array,
            b'"' => Shape::String,
            b't' | b'f' => Shape::Boolean,
            b'n' => Shape::Null,
            _ => Shape::Number,
        }
    }

    /// A scalar as it was written: a string with its quotes and escapes. `None` for objects and arrays.
    #[must_use]
    pub fn token(&self) -> Option<&'a [u8]> {
        (!self.document.is_container(self.place)).then(|| self.document.span(self.place))
    }

    /// A string unescaped, a number or boolean as it was written; `None` for everything else.
    #[must_use]
    pub fn text(&self) -> Option<Cow<'a, str>> {
        self.document.text(self.place)
    }

    /// The member of this name, or the element of this number; `None` if there is none that is shown.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<Self> {
        match self.shape() {
            Shape::Object => {
                let place = self.document.member(self.place, name)?;
                self.child(place, |segment| segment == name)
            }
            Shape::Array => self.elements().nth(pointer::index(name)?),
            _ => None,
        }
    }

    /// What a pointer without wildcards leads to.
    #[must_use]
    pub fn at(&self, pointer: &Pointer) -> Option<Self> {
        let mut segments = pointer.segments();
        let Some(first) = segments.next() else {
            return Some(self.clone());
        };
        segments.try_fold(self.member(first)?, |here, segment| here.member(segment))
    }

    /// An array's elements that are shown; of everything else, none.
    pub fn elements(&self) -> impl Iterator<Item = Self> + '_ {
        let is_array = self.shape() == Shape::Array;
        let places = is_array.then(|| self.document.elements(self.place));
        places
            .into_iter()
            .flatten()
            .enumerate()
            .filter_map(|(index, place)| self.child(place, |segment| pointer::index(segment) == Some(index)))
    }

    /// The members of these names, found in one pass.
    #[must_use]
    pub fn pick<'n>(&self, names: &'n Names) -> Picked<'a, '_, 'n> {
        let mut places: SmallVec<[u32; 24]> = SmallVec::from_elem(0, names.len());
        let shape = self.shape();
        if shape == Shape::Object {
            let mut wanted = names.len();
            let mut members = self.document.children(self.place);
            while wanted > 0
                && let Some((name, value)) = members.next()
            {
                let slot = names.slot(&self.document.name(name));
                if let Some(place) = slot.and_then(|slot| places.get_mut(slot)) {
                    *place = u32::try_from(value).unwrap_or(0);
                    wanted -= 1;
                }
            }
        }
        Picked {
            from: self,
            names,
            places,
        }
    }

    /// Appends what is shown, as [`Document::write`] does.
    pub fn write(&self, out: &mut Vec<u8>) {
        match &self.below {
            Below::All => self.document.copy(self.place, out),
            Below::Partly(partly) => {
                let Partly { walk, state, depth } = &**partly;
                self.document.write_partly(self.place, walk, state, *depth, out);
            }
        }
    }

    fn child(&self, place: usize, is: impl Fn(&str) -> bool) -> Option<Self> {
        match &self.below {
            Below::All => Some(Self {
                document: self.document,
                place,
                below: Below::All,
            }),
            Below::Partly(partly) => {
                let Partly { walk, state, depth } = &**partly;
                let verdict = walk.step(state, *depth, is);
                Self::of(self.document, place, walk, verdict, *depth + 1)
            }
        }
    }
}

/// Members of one object, by the slots of their [`Names`].
pub struct Picked<'a, 's, 'n> {
    from: &'s Seen<'a>,
    names: &'n Names,
    /// Of the values; 0, the root, is nobody's value.
    places: SmallVec<[u32; 24]>,
}

impl<'a> Picked<'a, '_, '_> {
    /// The member in this slot, if it is there and shown.
    #[must_use]
    pub fn get(&self, slot: usize) -> Option<Seen<'a>> {
        let name = self.names.get(slot)?;
        match self.places.get(slot) {
            // Not there, or in an array.
            None | Some(0) if self.from.shape() == Shape::Array => self.from.member(name),
            None | Some(0) => None,
            Some(place) => self.from.child(*place as usize, |segment| segment == name),
        }
    }
}

#[cfg(test)]
mod tests;

//! Which fields of a document are shown. Default deny stands elsewhere; here, what is not sure to be shown is hidden. A
//! mask knows nothing of readers.

use std::sync::Arc;

use smallvec::SmallVec;

use super::pointer::{self, Pointer};

/// Which fields are shown: a deny-list, an allow-list, or what at least one of several masks shows.
///
/// Equal masks are equal as data; views are shared by it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mask {
    /// Everything but these (and what is below them). An empty list hides nothing.
    Hide(Arc<[Pointer]>),
    /// Only these (and what is below them). Containers on the way to them are kept, everything else is left out.
    Show(Arc<[Pointer]>),
    /// A field is hidden if every one of these hides it.
    All(Arc<[Mask]>),
}

impl Mask {
    /// Everything is shown.
    #[must_use]
    pub fn nothing_hidden() -> Self {
        Self::Hide(Arc::from([]))
    }

    /// A deny-list; sorted, and what another pointer covers is left out.
    #[must_use]
    pub fn hide(pointers: impl IntoIterator<Item = Pointer>) -> Self {
        Self::Hide(least(pointers))
    }

    /// An allow-list; sorted, and what another pointer covers is left out.
    #[must_use]
    pub fn show(pointers: impl IntoIterator<Item = Pointer>) -> Self {
        Self::Show(least(pointers))
    }

    /// What at least one of the masks shows: flattened, sorted, distinct, and a single mask where that says the same. Of
    /// no masks at all, everything is hidden.
    #[must_use]
    pub fn any_of<'a>(masks: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut flat = Vec::new();
        for mask in masks {
            mask.flatten(&mut flat);
        }
        if flat.iter().any(Self::hides_nothing) {
            return Self::nothing_hidden();
        }
        flat.sort();
        flat.dedup();
        match <[Self; 1]>::try_from(flat) {
            Ok([only]) => only,
            Err(several) => Self::All(several.into()),
        }
    }

    fn flatten(&self, flat: &mut Vec<Self>) {
        match self {
            Self::All(masks) => masks.iter().for_each(|mask| mask.flatten(flat)),
            mask => flat.push(mask.clone()),
        }
    }

    /// Whether everything is shown, whatever the document.
    #[must_use]
    pub fn hides_nothing(&self) -> bool {
        match self {
            Self::Hide(pointers) => pointers.is_empty(),
            Self::Show(pointers) => pointers.iter().any(|pointer| pointer.depth() == 0),
            Self::All(masks) => masks.iter().any(Self::hides_nothing),
        }
    }

    /// Whether something at, above or below a place that the pointer selects may be hidden.
    ///
    /// Of several masks: whether each of them hides such a place, even if they hide different ones.
    #[must_use]
    pub fn hides(&self, pointer: &Pointer) -> bool {
        match self {
            Self::Hide(hidden) => hidden.iter().any(|hidden| hidden.overlaps(pointer)),
            Self::Show(shown) => !shown.iter().any(|shown| shown.covers(pointer)),
            Self::All(masks) => masks.iter().all(|mask| mask.hides(pointer)),
        }
    }
}

/// Sorted, distinct, without those that another one covers.
fn least(pointers: impl IntoIterator<Item = Pointer>) -> Arc<[Pointer]> {
    let mut all: Vec<Pointer> = pointers.into_iter().collect();
    all.sort();
    all.dedup();
    all.iter()
        .filter(|pointer| !all.iter().any(|other| other != *pointer && other.covers(pointer)))
        .cloned()
        .collect()
}

/// What a mask says of one place of a document.
pub(super) enum Verdict {
    /// It and all below it is shown.
    Show,
    /// It is left out.
    Hide,
    /// It depends on what is below.
    Partly(State),
}

/// The pointers that may still decide below a place: (leaf, pointer), ordered by leaf. A leaf that has none here hides
/// the place as a whole.
pub(super) type State = SmallVec<[(u32, u32); 8]>;

/// A mask on its way down a document.
pub(super) struct Walk<'a> {
    /// (No small vector: those are invariant, and a walk is borrowed for shorter than its mask.)
    leaves: Vec<Leaf<'a>>,
}

#[derive(Clone, Copy)]
struct Leaf<'a> {
    pointers: &'a [Pointer],
    shows: bool,
}

impl<'a> Walk<'a> {
    pub(super) fn new(mask: &'a Mask) -> Self {
        let mut walk = Self { leaves: Vec::new() };
        walk.add(mask);
        walk
    }

    fn add(&mut self, mask: &'a Mask) {
        match mask {
            Mask::Hide(pointers) => self.leaves.push(Leaf {
                pointers,
                shows: false,
            }),
            Mask::Show(pointers) => self.leaves.push(Leaf {
                pointers,
                shows: true,
            }),
            Mask::All(masks) => masks.iter().for_each(|mask| self.add(mask)),
        }
    }

    /// The verdict on the root.
    pub(super) fn start(&self) -> Verdict {
        let all = self.leaves.iter().zip(0_u32..).map(|(leaf, place)| {
            let pointers = (0_u32..).zip(leaf.pointers).map(|(number, _)| number);
            (place, *leaf, pointers.collect::<SmallVec<[u32; 8]>>())
        });
        decide(all, 0)
    }

    /// The verdict on a child of a container at `depth`, of which `is` tells whether a segment names it.
    pub(super) fn step(&self, state: &State, depth: usize, is: impl Fn(&str) -> bool) -> Verdict {
        let groups = state.chunk_by(|(a, _), (b, _)| a == b).filter_map(|group| {
            let (place, _) = *group.first()?;
            let leaf = *self.leaves.get(place as usize)?;
            let named = group.iter().map(|(_, number)| *number).filter(|number| {
                let segment = leaf
                    .pointers
                    .get(*number as usize)
                    .and_then(|pointer| pointer.segment(depth));
                segment.is_some_and(|segment| pointer::is_wildcard(segment) || is(segment))
            });
            Some((place, leaf, named.collect::<SmallVec<[u32; 8]>>()))
        });
        decide(groups, depth + 1)
    }

    /// Whether a string, number, boolean or null is shown at a place where the verdict was [`Verdict::Partly`]: what a
    /// deny-list names is below it and so not there; what an allow-list names is not there either.
    pub(super) fn shows_scalar(&self, state: &State) -> bool {
        state
            .iter()
            .any(|(leaf, _)| self.leaves.get(*leaf as usize).is_some_and(|leaf| !leaf.shows))
    }
}

/// From the leaves that are undecided above a place, each with its pointers that select the place or pass through it.
fn decide<'a>(leaves: impl Iterator<Item = (u32, Leaf<'a>, SmallVec<[u32; 8]>)>, depth: usize) -> Verdict {
    let mut state = State::new();
    for (place, leaf, pointers) in leaves {
        let mut ends = false;
        let before = state.len();
        for number in pointers {
            match leaf.pointers.get(number as usize) {
                Some(pointer) if pointer.depth() == depth => ends = true,
                Some(_) => state.push((place, number)),
                None => {}
            }
        }
        let open = state.len() > before;
        match (leaf.shows, ends, open) {
            // One mask shows all of it: that is enough.
            (true, true, _) | (false, false, false) => return Verdict::Show,
            // This mask hides all of it.
            (true, false, false) => {}
            (false, true, _) => state.truncate(before),
            // Undecided.
            (_, false, true) => {}
        }
    }
    if state.is_empty() {
        Verdict::Hide
    } else {
        Verdict::Partly(state)
    }
}

#[cfg(test)]
pub(super) mod tests;

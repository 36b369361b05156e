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
    leaves: SmallVec<[Leaf<'a>; 4]>,
}

#[derive(Clone, Copy)]
struct Leaf<'a> {
    pointers: &'a [Pointer],
    shows: bool,
}

impl<'a> Walk<'a> {
    pub(super) fn new(mask: &'a Mask) -> Self {
        let mut walk = Self {
            leaves: SmallVec::new(),
        };
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
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::project::Document;

    fn pointer(text: &str) -> Pointer {
        Pointer::parse(text).expect("a good pointer")
    }

    fn hide(pointers: &[&str]) -> Mask {
        Mask::hide(pointers.iter().map(|text| pointer(text)))
    }

    fn show(pointers: &[&str]) -> Mask {
        Mask::show(pointers.iter().map(|text| pointer(text)))
    }

    fn written(mask: &Mask, text: &str) -> Option<String> {
        let mut out = Vec::new();
        let document = Document::parse(Bytes::copy_from_slice(text.as_bytes())).expect("a good document");
        let shown = document.write(mask, &mut out);
        assert_eq!(shown, !out.is_empty());
        shown.then(|| String::from_utf8(out).expect("UTF-8"))
    }

    const RESOURCE: &str = r#"{"id":"1","note":[{"text":"x"}],"performer":{"a":1},"code":{"coding":[{"code":"c","display":"d"},{"code":"e"}]},"n":1.00}"#;

    #[test]
    fn a_deny_list_takes_away_what_it_names_and_all_below() {
        let mask = hide(&["/performer", "/note/*/text", "/code/coding/0"]);
        let want = r#"{"id":"1","note":[{}],"code":{"coding":[{"code":"e"}]},"n":1.00}"#;
        assert_eq!(written(&mask, RESOURCE).as_deref(), Some(want));
        assert_eq!(written(&hide(&["/*"]), RESOURCE).as_deref(), Some("{}"));
        assert_eq!(written(&hide(&[""]), RESOURCE), None);
        assert_eq!(
            written(&hide(&["/id/x", "/zzz"]), RESOURCE).as_deref(),
            Some(RESOURCE)
        );
    }

    #[test]
    fn an_allow_list_keeps_only_what_it_names() {
        let mask = show(&["/id", "/code/coding/*/code", "/note/0/text/deeper", "/n/below"]);
        let want = r#"{"id":"1","note":[{}],"code":{"coding":[{"code":"c"},{"code":"e"}]}}"#;
        assert_eq!(written(&mask, RESOURCE).as_deref(), Some(want));
        assert_eq!(written(&show(&[]), RESOURCE), None);
        assert_eq!(written(&show(&["/zzz"]), RESOURCE).as_deref(), Some("{}"));
        assert_eq!(written(&show(&[""]), RESOURCE).as_deref(), Some(RESOURCE));
        assert_eq!(written(&show(&["/a"]), "17"), None);
    }

    #[test]
    fn a_hidden_name_is_hidden_in_disguise_too() {
        assert_eq!(
            written(&hide(&["/note"]), r#"{"no\u0074e":1,"a":2}"#).as_deref(),
            Some(r#"{"a":2}"#)
        );
        assert_eq!(written(&hide(&["/a~1b"]), r#"{"a\/b":1}"#).as_deref(), Some("{}"));
    }

    #[test]
    fn hidden_elements_are_removed() {
        assert_eq!(written(&hide(&["/1"]), "[0, 1, 2]").as_deref(), Some("[0,2]"));
        assert_eq!(written(&hide(&["/*"]), "[0, 1, 2]").as_deref(), Some("[]"));
        assert_eq!(written(&show(&["/1"]), "[0, 1, 2]").as_deref(), Some("[1]"));
    }

    #[test]
    fn of_several_masks_only_what_all_hide_is_hidden() {
        let mask = Mask::any_of(&[hide(&["/note", "/performer"]), hide(&["/note", "/id"])]);
        assert!(matches!(mask, Mask::All(_)));
        assert_eq!(
            written(&mask, r#"{"id":1,"note":2,"performer":3}"#).as_deref(),
            Some(r#"{"id":1,"performer":3}"#)
        );
        let mask = Mask::any_of(&[hide(&["/a"]), show(&["/a/b"])]);
        assert_eq!(
            written(&mask, r#"{"a":{"b":1,"c":2},"d":3}"#).as_deref(),
            Some(r#"{"a":{"b":1},"d":3}"#)
        );
    }

    #[test]
    fn unions_collapse_to_what_says_the_same() {
        let one = hide(&["/a"]);
        assert_eq!(Mask::any_of([&one, &one]), one);
        assert_eq!(
            Mask::any_of([&one, &Mask::nothing_hidden()]),
            Mask::nothing_hidden()
        );
        assert_eq!(Mask::any_of([&one, &show(&[""])]), Mask::nothing_hidden());
        let (two, three) = (hide(&["/b"]), show(&["/c"]));
        let nested = Mask::any_of([&Mask::any_of([&two, &one]), &three]);
        assert_eq!(nested, Mask::any_of([&three, &two, &one]));
        assert_eq!(
            written(&Mask::any_of(&[]), "{}"),
            None,
            "no mask at all shows nothing"
        );
        assert_eq!(hide(&["/b", "/a/c", "/a", "/b"]), hide(&["/a", "/b"]));
    }

    #[test]
    fn hides_tells_of_anything_at_above_or_below() {
        let mask = hide(&["/a/b"]);
        for hit in ["/a/b", "/a", "/a/b/c", "", "/*/b", "/a/*/c"] {
            assert!(mask.hides(&pointer(hit)), "{hit}");
        }
        assert!(!mask.hides(&pointer("/a/c")));
        let mask = show(&["/a/b", "/c/*"]);
        for hit in ["/a", "", "/d", "/c", "/a/*"] {
            assert!(mask.hides(&pointer(hit)), "{hit}");
        }
        for shown in ["/a/b", "/a/b/c", "/c/0", "/c/*/d"] {
            assert!(!mask.hides(&pointer(shown)), "{shown}");
        }
        let both = Mask::any_of([&hide(&["/a"]), &hide(&["/b"])]);
        assert!(!both.hides(&pointer("/a")));
        assert!(!Mask::nothing_hidden().hides(&pointer("")));
    }

    /// The rules once more, over a tree and without cleverness: is this path hidden?
    fn naive_hides(mask: &Mask, path: &[String], is_container: bool) -> bool {
        let matches = |pointer: &Pointer, path: &[String]| {
            let segments: Vec<&str> = pointer.segments().collect();
            segments.len() == path.len()
                && segments
                    .iter()
                    .zip(path)
                    .all(|(want, have)| *want == "*" || want == have)
        };
        // Whether the pointer selects the place or something above it.
        let selects = |pointer: &Pointer| (0..=path.len()).any(|length| matches(pointer, &path[..length]));
        match mask {
            Mask::Hide(pointers) => pointers.iter().any(selects),
            Mask::Show(pointers) => {
                let leads_on = |pointer: &Pointer| {
                    let segments: Vec<&str> = pointer.segments().collect();
                    is_container
                        && segments.len() > path.len()
                        && segments
                            .iter()
                            .zip(path)
                            .all(|(want, have)| *want == "*" || want == have)
                };
                !pointers
                    .iter()
                    .any(|pointer| selects(pointer) || leads_on(pointer))
            }
            Mask::All(masks) => masks.iter().all(|mask| naive_hides(mask, path, is_container)),
        }
    }

    fn naive(mask: &Mask, value: &Value, path: &mut Vec<String>) -> Option<Value> {
        if naive_hides(mask, path, value.is_array() || value.is_object()) {
            return None;
        }
        let mut below = |name: String, value: &Value| {
            path.push(name);
            let kept = naive(mask, value, path);
            path.pop();
            kept
        };
        Some(match value {
            Value::Object(members) => Value::Object(
                members
                    .iter()
                    .filter_map(|(name, value)| Some((name.clone(), below(name.clone(), value)?)))
                    .collect(),
            ),
            Value::Array(values) => values
                .iter()
                .enumerate()
                .filter_map(|(place, value)| below(place.to_string(), value))
                .collect(),
            other => other.clone(),
        })
    }

    fn tree() -> impl Strategy<Value = Value> {
        prop_oneof![Just(json!(1)), Just(json!("x")), Just(Value::Null)].prop_recursive(4, 40, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec(("[abc0]", inner), 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    fn any_mask() -> impl Strategy<Value = Mask> {
        let pointers = || {
            prop::collection::vec("(/[abc01*]){0,4}", 0..4)
                .prop_map(|texts| texts.iter().map(|text| pointer(text)).collect::<Vec<_>>())
        };
        let one = prop_oneof![pointers().prop_map(Mask::hide), pointers().prop_map(Mask::show)].boxed();
        prop_oneof![
            one.clone(),
            prop::collection::vec(one, 0..4).prop_map(|masks| Mask::any_of(&masks))
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn masks_show_what_the_naive_reading_shows(mask in any_mask(), tree in tree()) {
            let want = naive(&mask, &tree, &mut Vec::new());
            let got = written(&mask, &serde_json::to_string_pretty(&tree).expect("text"));
            prop_assert_eq!(got, want.map(|value| value.to_string()));
        }

        #[test]
        fn what_a_mask_does_not_hide_is_there(mask in any_mask(), tree in tree(), at in "(/[abc01]){1,4}") {
            let at = pointer(&at);
            let document = |text: &str| Document::parse(Bytes::copy_from_slice(text.as_bytes())).expect("a document");
            let whole = document(&tree.to_string());
            let before: Vec<String> = whole.strings_at(&at).map(Into::into).collect();
            // Elements move up where others are removed, so only paths through objects can be compared.
            let through_arrays = naive_path_has_array(&tree, &at);
            if !mask.hides(&at) && !through_arrays {
                let after = written(&mask, &tree.to_string()).map(|text| {
                    document(&text).strings_at(&at).map(Into::into).collect::<Vec<String>>()
                });
                prop_assert_eq!(after.unwrap_or_default(), before);
            }
        }
    }

    fn naive_path_has_array(tree: &Value, at: &Pointer) -> bool {
        let mut here = tree;
        for segment in at.segments() {
            match here {
                Value::Array(_) => return true,
                Value::Object(members) => match members.get(segment) {
                    Some(value) => here = value,
                    None => return false,
                },
                _ => return false,
            }
        }
        false
    }
}

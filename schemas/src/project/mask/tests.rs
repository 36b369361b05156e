//! Masks against a naive reading of the same rules.

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

pub(in crate::project) fn tree() -> impl Strategy<Value = Value> {
    prop_oneof![Just(json!(1)), Just(json!("x")), Just(Value::Null)].prop_recursive(4, 40, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec(("[abc0]", inner), 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

pub(in crate::project) fn any_mask() -> impl Strategy<Value = Mask> {
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

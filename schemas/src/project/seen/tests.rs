//! What is seen against what is written under the same mask.

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::project::mask::tests::{any_mask, tree};

/// Every name that the trees and masks have, and one that they do not.
const NAMES: [&str; 8] = ["a", "b", "c", "0", "1", "*", "2", "z"];

fn document(text: &str) -> Document {
    Document::parse(Bytes::copy_from_slice(text.as_bytes())).expect("a good document")
}

fn check(seen: Option<&Seen<'_>>, want: Option<&Value>) {
    let (Some(seen), Some(want)) = (seen, want) else {
        assert_eq!(seen.is_some(), want.is_some(), "{want:?}");
        return;
    };
    let mut out = Vec::new();
    seen.write(&mut out);
    assert_eq!(&serde_json::from_slice::<Value>(&out).expect("JSON"), want);
    let mut names = Names::new();
    let slots: Vec<usize> = NAMES
        .iter()
        .map(|name| names.add(name).expect("few names"))
        .collect();
    let picked = seen.pick(&names);
    for (name, slot) in NAMES.iter().zip(slots) {
        let wanted = match want {
            Value::Object(members) => members.get(*name),
            Value::Array(values) => name.parse().ok().and_then(|index: usize| values.get(index)),
            _ => None,
        };
        check(seen.member(name).as_ref(), wanted);
        check(picked.get(slot).as_ref(), wanted);
        let pointer = Pointer::parse(&format!("/{name}")).expect("a pointer");
        assert_eq!(seen.at(&pointer).is_some(), wanted.is_some());
    }
    let elements: Vec<Seen<'_>> = seen.elements().collect();
    match want {
        Value::Array(values) => {
            assert_eq!(seen.shape(), Shape::Array);
            assert_eq!(elements.len(), values.len());
            for (element, value) in elements.iter().zip(values) {
                check(Some(element), Some(value));
            }
        }
        Value::Object(_) => assert_eq!((seen.shape(), elements.len()), (Shape::Object, 0)),
        Value::String(text) => {
            assert_eq!(seen.shape(), Shape::String);
            assert_eq!(seen.text().as_deref(), Some(text.as_str()));
        }
        Value::Number(number) => {
            assert_eq!(seen.shape(), Shape::Number);
            assert_eq!(seen.token(), Some(number.to_string().as_bytes()));
        }
        Value::Bool(_) => assert_eq!(seen.shape(), Shape::Boolean),
        Value::Null => assert_eq!(seen.shape(), Shape::Null),
    }
}

#[test]
fn hidden_elements_are_not_counted() {
    let mask = Mask::hide([Pointer::parse("/a/0").expect("a pointer")]);
    let document = document(r#"{"a":[1,2],"\u0061b":3}"#);
    let sight = Sight::new(&mask);
    let seen = document.seen(&sight).expect("something is shown");
    let first = Pointer::parse("/a/0").expect("a pointer");
    assert_eq!(
        seen.at(&first).and_then(|value| value.token()),
        Some(b"2".as_slice())
    );
    let escaped = seen.member("ab").and_then(|value| value.token());
    assert_eq!(escaped, Some(b"3".as_slice()), "a name in disguise is that name");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn what_is_seen_is_what_is_written(mask in any_mask(), tree in tree()) {
        let document = document(&serde_json::to_string_pretty(&tree).expect("text"));
        let mut out = Vec::new();
        let shown = document.write(&mask, &mut out);
        let want = shown.then(|| serde_json::from_slice::<Value>(&out).expect("JSON"));
        let sight = Sight::new(&mask);
        check(document.seen(&sight).as_ref(), want.as_ref());
    }
}

//! What is a document, and what comes out of it.

use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn parse(text: &str) -> Result<Document, BadDocument> {
    Document::parse(Bytes::copy_from_slice(text.as_bytes()))
}

fn document(text: &str) -> Document {
    parse(text).expect("a good document")
}

fn pointer(text: &str) -> Pointer {
    Pointer::parse(text).expect("a good pointer")
}

fn written(document: &Document) -> String {
    let mut out = Vec::new();
    assert!(document.write(&Mask::nothing_hidden(), &mut out));
    String::from_utf8(out).expect("UTF-8")
}

fn strings(text: &str, at: &str) -> Vec<String> {
    document(text)
        .strings_at(&pointer(at))
        .map(Cow::into_owned)
        .collect()
}

#[test]
fn numbers_and_strings_stay_as_they_were_written() {
    let text = "{ \"a\" : 1.00 ,\n\"b\":[ 1e+2,\t-0 ],\r\n\"c\":\"\\u00e9\\/ x\", \"d\" : { } , \"e\":[ ] }";
    let want = r#"{"a":1.00,"b":[1e+2,-0],"c":"\u00e9\/ x","d":{},"e":[]}"#;
    assert_eq!(written(&document(text)), want);
    assert_eq!(written(&document(want)), want);
    assert_eq!(written(&document(" \n 1.50 \r\n")), "1.50");
}

#[test]
fn a_member_named_twice_is_refused_also_in_disguise() {
    for text in [
        r#"{"note":1,"note":2}"#,
        r#"{"note":1,"no\u0074e":2}"#,
        r#"{"a\/b":1,"a/b":2}"#,
        r#"{"\ud83d\ude00":1,"😀":2}"#,
        r#"{"x":[{"y":{"a":1,"b":2,"a":3}}]}"#,
        r#"{"":1,"":1}"#,
    ] {
        assert!(
            matches!(parse(text), Err(BadDocument::DuplicateMember { .. })),
            "{text}"
        );
    }
    // Many members, the last one a repetition of the first.
    let many: Vec<String> = (0..100).map(|n| format!("\"m{n}\":{n}")).collect();
    assert!(parse(&format!("{{{}}}", many.join(","))).is_ok());
    let twice = format!("{{{},\"\\u006d0\":0}}", many.join(","));
    assert!(matches!(parse(&twice), Err(BadDocument::DuplicateMember { .. })));
    // The same name in different objects is no repetition.
    assert!(parse(r#"{"a":{"a":{"a":[{"a":1},{"a":2}]}}}"#).is_ok());
}

#[test]
fn what_readers_disagree_about_is_refused() {
    for text in [
        "",
        " ",
        "{",
        "}",
        "[",
        "]",
        "{]",
        "[}",
        "[1,]",
        "[,1]",
        "[1 2]",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{,\"a\":1}",
        "{a:1}",
        "{'a':1}",
        "{\"a\" 1}",
        "{1:1}",
        "01",
        "1.",
        ".1",
        "+1",
        "-",
        "1e",
        "1e+",
        "0x1",
        "NaN",
        "Infinity",
        "tru",
        "nul",
        "True",
        "\"",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\u12g4\"",
        "\"\n\"",
        "\"\t\"",
        "\"\\ud800\"",
        "\"\\udc00\"",
        "\"\\ud800\\u0041\"",
        "\"\\ud800x\"",
        "1 2",
        "{}{}",
        "[]]",
        "//x\n1",
        "\u{feff}1",
        "\u{a0}1",
        "[1],",
        ",",
        ":",
        "{\"a\":1:2}",
        "[\"a\":1]",
        "{\"a\",1}",
    ] {
        assert!(matches!(parse(text), Err(BadDocument::Syntax { .. })), "{text:?}");
    }
    assert!(matches!(
        Document::parse(Bytes::from_static(b"\"\xff\"")),
        Err(BadDocument::Syntax { at: 1 })
    ));
    assert!(matches!(
        Document::parse(Bytes::from_static(b"\"\xed\xa0\x80\"")),
        Err(BadDocument::Syntax { .. })
    ));
}

#[test]
fn depth_is_bounded() {
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert!(parse(&nested(Document::DEPTH_MAX)).is_ok());
    assert_eq!(
        parse(&nested(Document::DEPTH_MAX + 1)).expect_err("too deep"),
        BadDocument::TooDeep
    );
    assert_eq!(
        parse(&"[".repeat(100_000)).expect_err("too deep"),
        BadDocument::TooDeep
    );
    let spaced = "[ ".repeat(Document::DEPTH_MAX) + &"]".repeat(Document::DEPTH_MAX);
    assert_eq!(written(&document(&spaced)), nested(Document::DEPTH_MAX));
}

#[test]
fn values_are_found_by_pointer() {
    let text = r#"{"a":{"b/c":[10,{"d":"x"},{"d":"\u0079"},null,true]},"":"empty","0":"zero"}"#;
    assert_eq!(strings(text, "/a/b~1c/0"), ["10"]);
    assert_eq!(strings(text, "/a/b~1c/*/d"), ["x", "y"]);
    assert_eq!(strings(text, "/a/b~1c/*"), ["10", "true"]);
    assert_eq!(strings(text, "/"), ["empty"]);
    assert_eq!(strings(text, "/0"), ["zero"]);
    assert_eq!(strings(text, "/*"), ["empty", "zero"]);
    for nothing in ["", "/a", "/b", "/a/b~1c/00", "/a/b~1c/9", "/a/b~1c/-", "/0/0"] {
        assert!(strings(text, nothing).is_empty(), "{nothing}");
    }
    assert_eq!(strings("17.0", ""), ["17.0"]);
}

#[test]
fn one_string_is_one_string() {
    let text = document(r#"{"t":"north","n":1,"many":["a"]}"#);
    assert_eq!(text.string_at(&pointer("/t")).as_deref(), Some("north"));
    assert_eq!(text.string_at(&pointer("/n")), None);
    assert_eq!(text.string_at(&pointer("/many")), None);
}

#[test]
fn a_part_is_a_document_of_its_own() {
    let whole = document(r#" {"x": 1, "data" : { "a" : [ 1, {"b":"c"} ], "d":"e" }, "y":2}"#);
    let part = whole.part(&pointer("/data")).expect("is there");
    assert_eq!(written(&part), r#"{"a":[1,{"b":"c"}],"d":"e"}"#);
    assert_eq!(part.strings_at(&pointer("/a/1/b")).collect::<Vec<_>>(), ["c"]);
    let members = whole.members().expect("an object");
    assert_eq!(
        members.iter().map(|(name, _)| &**name).collect::<Vec<_>>(),
        ["x", "data", "y"]
    );
    assert_eq!(members[2].1.as_text().as_deref(), Some("2"));
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "[a-z\"\\\\\n\u{e9}\u{1f600}]{0,20}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            prop::collection::vec((".{0,6}", inner), 0..20)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn documents_come_out_as_they_went_in(value in json()) {
        let (compact, pretty) = (value.to_string(), serde_json::to_string_pretty(&value).expect("text"));
        prop_assert_eq!(written(&document(&compact)), &*compact);
        prop_assert_eq!(written(&document(&pretty)), &*compact);
    }

    #[test]
    fn whatever_is_accepted_is_json(text in "[\\[\\]{},:\"\\\\u0 1.eE+\\-atrufnl\n]{0,24}") {
        // serde_json refuses numbers that no float holds, and takes repeated members and half surrogate pairs where
        // nothing is built of them.
        let theirs = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
        match parse(&text) {
            Ok(document) => {
                prop_assert!(theirs, "accepted: {}", text);
                let out = written(&document);
                prop_assert!(!out.contains('\n'));
                prop_assert_eq!(written(&parse(&out).expect("again")), out);
            }
            Err(BadDocument::Syntax { .. }) => {
                prop_assert!(!theirs || text.contains("\\ud") || text.contains("\\uD"), "refused: {}", text);
            }
            Err(_) => prop_assert!(theirs),
        }
    }

    #[test]
    fn a_broken_byte_never_panics(value in json(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = value.to_string().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(document) = Document::parse(Bytes::from(bytes)) {
            let mut out = Vec::new();
            document.write(&Mask::nothing_hidden(), &mut out);
            prop_assert!(serde_json::from_slice::<serde::de::IgnoredAny>(&out).is_ok());
        }
    }
}

//! What the lenient reader promises.

use super::*;

fn read(text: &str, look: impl FnOnce(&Table)) -> Vec<String> {
    let findings = Findings::new();
    let root = Settings::read(Path::new("f.toml"), text, &findings);
    look(&root);
    root.finish();
    findings.take().iter().map(ToString::to_string).collect()
}

#[test]
fn values_come_with_their_places() {
    let found = read("a = 'x'\n[b]\nc = 0x10\nd = [ 'é', 'z' ]\n", |root| {
        assert_eq!(
            root.str("a").map(|a| (a.value, a.place.column)),
            Some(("x".to_owned(), 5))
        );
        let below = root.table("b").expect("a table");
        assert_eq!((below.place().line, below.place().column), (2, 1));
        assert_eq!(below.integer("c", 0..=20).map(|c| c.value), Some(16));
        let strings = below.strings("d").expect("strings");
        assert_eq!(strings[1].place.column, 12, "columns count characters, not bytes");
        below.finish();
    });
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn every_problem_is_told_at_once() {
    let found = read(
        "prot = 8080\nname = 3\n[limits]\nmax = 70000\nzzz = 1\nlist = 'x'\n",
        |root| {
            assert_eq!(root.integer("port", 0..=65535), None);
            assert_eq!(root.required_str("name"), None);
            assert_eq!(root.required_str("user"), None);
            let limits = root.table("limits").expect("a table");
            assert_eq!(limits.integer("max", 1..=65535), None);
            assert_eq!(limits.strings("list"), None);
            limits.finish();
        },
    );
    assert_eq!(
        found,
        [
            "f.toml:1:1: missing_key: `user` is missing\n  mend: add `user`, a string",
            "f.toml:1:1: unknown_key: unknown key `prot`\n  mend: did you mean `port`?",
            "f.toml:2:8: wrong_type: `name` must be a string, and it is an integer\n  mend: write it in quotes",
            "f.toml:4:7: out_of_range: `limits.max` is 70000, which is out of range\n  mend: write an integer from 1 to 65535",
            "f.toml:5:1: unknown_key: unknown key `limits.zzz`\n  mend: remove it; known here: `list`, `max`",
            "f.toml:6:8: wrong_type: `limits.list` must be an array of strings, and it is a string\n  mend: put it in brackets: [\"...\"]",
        ]
    );
}

#[test]
fn numbers_beyond_64_bits_are_out_of_range() {
    let found = read("n = 99999999999999999999\n", |root| {
        assert_eq!(root.unsigned("n", 0..=u64::MAX), None);
    });
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with("f.toml:1:5: out_of_range"), "{found:?}");
}

#[test]
fn broken_syntax_hides_nothing_but_what_seems_missing() {
    let found = read("a = \nbee = 1\nc = 1\nc = 2\n", |root| {
        assert_eq!(root.required_str("needed"), None);
        let _ = (
            root.integer("a", 0..=9),
            root.integer("c", 0..=9),
            root.value("be"),
        );
    });
    let codes: Vec<_> = found
        .iter()
        .map(|line| line.lines().next().unwrap_or_default())
        .collect();
    assert!(
        codes
            .iter()
            .any(|code| code.starts_with("f.toml:1:5: toml_syntax")),
        "{codes:?}"
    );
    assert!(
        codes
            .iter()
            .any(|code| code.starts_with("f.toml:4:1: toml_syntax")),
        "{codes:?}"
    );
    assert!(
        codes
            .iter()
            .any(|code| code.starts_with("f.toml:2:1: unknown_key")),
        "{codes:?}"
    );
    assert_eq!(codes.len(), 3, "{codes:?}");
}

#[test]
fn tables_of_the_users_own_names_are_walked() {
    let found = read(
        "[s.one]\nx = 1\n[s.two]\n[p]\n'a.b' = 'c'\nd = 5\ne = true\nf = []\n",
        |root| {
            let streams = root.table("s").expect("a table").named_tables();
            let names: Vec<_> = streams
                .iter()
                .map(|(name, _)| (name.value.as_str(), name.place.line))
                .collect();
            assert_eq!(names, [("one", 1), ("two", 3)]);
            let texts = root.table("p").expect("a table").texts();
            let texts: Vec<_> = texts
                .iter()
                .map(|(k, v)| (k.value.as_str(), v.value.as_str()))
                .collect();
            assert_eq!(texts, [("a.b", "c"), ("d", "5"), ("e", "true")]);
        },
    );
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with("f.toml:8:5: wrong_type: `p.f`"), "{found:?}");
}

#[test]
fn a_value_is_never_repeated_in_what_is_logged() {
    let found = read("keys = 'hunter2-hunter2'\nport = 'hunter2'\n", |root| {
        assert_eq!((root.strings("keys"), root.integer("port", 0..=9)), (None, None));
        assert!(!format!("{root:?}").contains("hunter2"), "{root:?}");
    });
    assert_eq!(found.len(), 2);
    assert!(!found.concat().contains("hunter2"), "{found:?}");
}

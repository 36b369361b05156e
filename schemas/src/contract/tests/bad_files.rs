//! Bad folders and files, and the report as people read it.

use std::fs;
use std::path::Path;

use proptest::prelude::*;

use super::*;

fn found_in(folder: &Path) -> Vec<String> {
    let found = Contract::load(folder).expect_err("refused");
    found
        .iter()
        .map(|finding| {
            let file = finding
                .place
                .file
                .strip_prefix(folder)
                .expect("a file of the folder");
            format!(
                "{}:{}:{} {}",
                file.display(),
                finding.place.line,
                finding.place.column,
                finding.code
            )
        })
        .collect()
}

#[test]
fn a_folder_that_is_not_there_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let missing = folder.path().join("nowhere");
    assert_eq!(found_in(&missing), [":1:1 folder_unreadable"]);
}

#[test]
fn a_folder_without_streams_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("types.graphql"), SDL).expect("written");
    assert_eq!(found_in(folder.path()), ["streams.toml:1:1 file_missing"]);
    fs::write(folder.path().join("streams.toml"), "# nothing yet\n").expect("written");
    assert_eq!(found_in(folder.path()), ["streams.toml:1:1 no_streams"]);
    fs::write(folder.path().join("streams.toml"), "[stream.x]\n").expect("written");
    assert_eq!(
        found_in(folder.path()),
        ["streams.toml:1:1 no_streams", "streams.toml:1:2 unknown_key"]
    );
}

#[test]
fn bytes_that_are_not_utf_8_are_told_with_their_place() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("streams.toml"), STREAMS).expect("written");
    fs::write(
        folder.path().join("types.graphql"),
        b"type A {\n  \xc3\xa9 \xff: Int\n}",
    )
    .expect("written");
    assert_eq!(found_in(folder.path()), ["types.graphql:2:5 not_utf8"]);
    fs::remove_file(folder.path().join("types.graphql")).expect("removed");
    fs::create_dir(folder.path().join("types.graphql")).expect("made");
    assert_eq!(found_in(folder.path()), ["types.graphql:1:1 file_unreadable"]);
}

#[test]
fn other_files_of_the_folder_are_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in [
        ("streams.toml", STREAMS),
        ("types.graphql", SDL),
        ("other.toml", "x ="),
        ("README.md", "# about"),
    ] {
        fs::write(folder.path().join(name), text).expect("written");
    }
    let loaded = Contract::load(folder.path()).expect("a good contract");
    assert_eq!(
        loaded.revision,
        load(STREAMS, SDL).expect("a good contract").revision
    );
}

#[test]
fn sources_need_names_that_say_what_they_are() {
    let found = Contract::from_sources(vec![(PathBuf::from("x.txt"), String::new())]).expect_err("refused");
    let codes: Vec<_> = found.iter().map(|finding| finding.code).collect();
    assert_eq!(codes, ["file_missing", "file_unknown"]);
}

#[test]
fn a_stream_that_is_declared_twice_is_told() {
    let files = ["a.toml", "b.toml"].map(|name| (PathBuf::from(name), with_line(STREAMS, 3, "")));
    let found = Contract::from_sources(files.into()).expect_err("refused");
    assert_eq!(found.len(), 1);
    assert_eq!(
        found[0].to_string().lines().next(),
        Some("b.toml:1:10: duplicate: stream `observations` is declared twice; first at a.toml:1:10")
    );
}

#[test]
fn the_report_names_every_problem_at_once() {
    let streams = r#"[streams.observations]
topic      = ["fhir.observation"]
format     = "avro"
schema     = "Observation"
tenant     = { topic = "{tenant}" }
attributes = { patient = "/subject/refrence", subject = "/status", code_system = "/code/coding/*/code" }
state      = "compacted"

[[streams.observations.access]]
scopes = ["patient/Observation.sr"]
rows   = { patient = "Patient/{claim.patient}", wards = "{subject}" }
hide   = ["/performer", "/nots", "/status"]
show   = ["/id"]

[[streams.observations.access]]
scopes = "user/Observation.rs"
rows   = "all"
hide   = ["/status", "/nots"]

[streams.Beds]
topics = ["beds.{tenant}", "_beds"]
tenant = { header = "tenant" }
"#;
    let sdl = SDL
        .replace("note: [Note]", "note: [Not]")
        .replace("type Text {", "type Note {");
    let found = load(streams, &sdl).expect_err("refused");
    let report: Vec<_> = found.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(report.join("\n"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever is typed into a file, the answer is a contract or findings that stand inside the file.
    #[test]
    fn a_slip_anywhere_is_a_finding_or_nothing(
        in_sdl in any::<bool>(),
        bound in any::<bool>(),
        at in any::<prop::sample::Index>(),
        removed in 0_usize..12,
        typed in prop_oneof!["[\\[\\]{}\"'=.,*/#!@:\\n é-]{0,3}", "[a-z_]{0,6}", ".{0,3}"],
    ) {
        let (sdl, streams) = if bound { (graph::WHOLE, graph::streams()) } else { (SDL, STREAMS.to_owned()) };
        let streams = streams.as_str();
        let good = if in_sdl { sdl } else { streams };
        let mut letters: Vec<char> = good.chars().collect();
        let start = at.index(letters.len());
        let end = letters.len().min(start + removed);
        letters.splice(start..end, typed.chars());
        let text: String = letters.into_iter().collect();
        let loaded = if in_sdl { load(streams, &text) } else { load(&text, sdl) };
        if let Err(found) = loaded {
            prop_assert!(!found.is_empty());
            for finding in found {
                let own = finding.place.file == Path::new("types.graphql");
                let lines: Vec<&str> = if own == in_sdl { &text } else if own { sdl } else { streams }.split('\n').collect();
                let line = lines.get(finding.place.line - 1);
                prop_assert!(line.is_some_and(|line| finding.place.column <= line.chars().count() + 1), "{}", finding);
                prop_assert!(!finding.message.is_empty() && !finding.mend.is_empty(), "{}", finding);
            }
        }
    }
}

//! A folder of contract files, loaded and checked as a whole.
//!
//! Invariant: a contract comes out only if nothing was found; otherwise everything that was found comes out, ordered by
//! place. It does not know how the files are used.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::finding::{Finding, Findings, Place};
use super::sdl::Sdl;
use super::settings::Settings;
use super::stream::Declared;
use super::{Contract, TopicPattern, check, graph, revision};
use crate::graph::Graph;

const STREAMS: &str = "streams.toml";

/// The stream of what happens to webhook endpoints.
pub const WEBHOOK_EVENTS: &str = "webhook_events";

/// Its declaration.
const OURS: &str = include_str!("../../contracts/webhooks/streams.toml");

impl Contract {
    /// Loads a folder: every `*.graphql` and the `streams.toml` in it. Reports all findings at once.
    pub fn load(folder: &Path) -> Result<Self, Vec<Finding>> {
        Self::load_with(folder, None)
    }

    /// The same with the stream [`WEBHOOK_EVENTS`], which the gateway writes to the topic that is given.
    pub fn load_with(folder: &Path, webhook_events: Option<&str>) -> Result<Self, Vec<Finding>> {
        let findings = Findings::new();
        let sources = read_folder(folder, &findings);
        Self::read(&sources, webhook_events, &findings)
    }

    /// The same of files that were read already, by name: `*.graphql` is SDL, `*.toml` declares streams.
    pub fn from_sources(sources: Vec<(PathBuf, String)>) -> Result<Self, Vec<Finding>> {
        Self::from_sources_with(sources, None)
    }

    /// The same with the stream [`WEBHOOK_EVENTS`].
    pub fn from_sources_with(
        mut sources: Vec<(PathBuf, String)>,
        webhook_events: Option<&str>,
    ) -> Result<Self, Vec<Finding>> {
        let findings = Findings::new();
        for (file, _) in sources.iter().filter(|(file, _)| !is_sdl(file) && !is_toml(file)) {
            let message = "neither SDL nor a declaration of streams";
            findings.report(
                &start(file),
                "file_unknown",
                message,
                "name it *.graphql or streams.toml",
            );
        }
        sources.sort();
        if !sources.iter().any(|(file, _)| is_toml(file)) {
            report_missing_streams(Path::new(STREAMS), &findings);
        }
        Self::read(&sources, webhook_events, &findings)
    }

    fn read(
        sources: &[(PathBuf, String)],
        webhook_events: Option<&str>,
        findings: &Findings,
    ) -> Result<Self, Vec<Finding>> {
        let mut sdl = Sdl::default();
        for (file, text) in sources.iter().filter(|(file, _)| is_sdl(file)) {
            sdl.read(file, text, findings);
        }
        // With a file that could not be read or parsed, types only seem to be missing.
        let sdl_is_whole = !["sdl_syntax", "not_utf8", "file_unreadable"]
            .iter()
            .any(|code| findings.has(code));
        sdl.settle();
        if sdl_is_whole {
            sdl.check(findings);
            sdl.check_words(findings);
        }
        let declared = read_streams(sources, webhook_events, findings);
        let mut graph = Graph::default();
        if sdl_is_whole {
            // Through objects that lie in their own place no pointer could be followed to its end.
            if sdl.check_places(findings) {
                declared
                    .iter()
                    .for_each(|stream| check::stream(stream, &sdl, findings));
            }
            graph = graph::build(&sdl, &declared, findings);
        }
        if !findings.is_empty() {
            return Err(findings.take());
        }
        let mut streams: Vec<_> = declared
            .into_iter()
            .filter_map(|declared| declared.stream)
            .collect();
        streams.sort_by(|a, b| a.name.cmp(&b.name));
        let revision = revision::digest(&sdl.canonical(), &streams);
        for stream in &mut streams {
            stream.revision = revision;
        }
        Ok(Self {
            revision,
            streams: streams.into_iter().map(Arc::new).collect(),
            graph: Arc::new(graph),
        })
    }
}

fn read_folder(folder: &Path, findings: &Findings) -> Vec<(PathBuf, String)> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => {
            let message = format!("the folder of contracts cannot be read: {error}");
            let mend = "name a folder with a streams.toml and *.graphql files";
            findings.report(&start(folder), "folder_unreadable", message, mend);
            return Vec::new();
        }
    };
    let mut files = Vec::new();
    for entry in entries {
        match entry {
            Ok(entry) => files.push(entry.path()),
            Err(error) => {
                let message = format!("the folder of contracts cannot be read: {error}");
                findings.report(
                    &start(folder),
                    "folder_unreadable",
                    message,
                    "look at its permissions",
                );
            }
        }
    }
    files.retain(|file| is_sdl(file) || file.file_name() == Some(OsStr::new(STREAMS)));
    files.sort();
    if !files.iter().any(|file| is_toml(file)) {
        report_missing_streams(&folder.join(STREAMS), findings);
    }
    files
        .into_iter()
        .filter_map(|file| read_file(&file, findings).map(|text| (file, text)))
        .collect()
}

fn read_file(file: &Path, findings: &Findings) -> Option<String> {
    let bytes = match std::fs::read(file) {
        Ok(bytes) => bytes,
        Err(error) => {
            let mend = "look at the file and its permissions";
            findings.report(
                &start(file),
                "file_unreadable",
                format!("cannot be read: {error}"),
                mend,
            );
            return None;
        }
    };
    match String::from_utf8(bytes) {
        Ok(text) => Some(text),
        Err(error) => {
            let before = error
                .as_bytes()
                .get(..error.utf8_error().valid_up_to())
                .unwrap_or_default();
            let text = String::from_utf8_lossy(before);
            let line = text.matches('\n').count() + 1;
            let column = text.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
            let place = Place {
                file: file.to_path_buf(),
                line,
                column,
            };
            findings.report(
                &place,
                "not_utf8",
                "a byte here is not UTF-8",
                "save the file as UTF-8",
            );
            None
        }
    }
}

fn read_streams(
    sources: &[(PathBuf, String)],
    webhook_events: Option<&str>,
    findings: &Findings,
) -> Vec<Declared> {
    let mut streams = Vec::new();
    let mut known: BTreeMap<String, Place> = BTreeMap::new();
    let ours = (PathBuf::from("webhooks").join(STREAMS), OURS.to_owned());
    let ours = webhook_events.map(|_| &ours);
    // Ours first: a stream of the same name is found where somebody can rename it.
    for (file, text) in ours.into_iter().chain(sources).filter(|(file, _)| is_toml(file)) {
        let root = Settings::read(file, text, findings);
        let tables = root
            .table("streams")
            .map(|table| table.named_tables())
            .unwrap_or_default();
        if tables.is_empty() && root.is_whole() && !root.keys().any(|key| key.value == "streams") {
            let message = "no stream is declared";
            root.report(root.place(), "no_streams", message, "declare one: [streams.NAME]");
        }
        for (name, table) in tables {
            if let Some(first) = known.get(&name.value) {
                let message = format!("stream `{}` is declared twice; first at {first}", name.value);
                root.report(&name.place, "duplicate", message, "rename one of them");
            }
            known.insert(name.value.clone(), name.place.clone());
            streams.push(Declared::read(&name, &table));
        }
        root.finish();
    }
    if let Some(topic) = webhook_events
        && let Some(stream) = streams.first_mut().and_then(|declared| declared.stream.as_mut())
    {
        stream.topics = vec![TopicPattern::ours(topic)];
    }
    streams
}

fn report_missing_streams(file: &Path, findings: &Findings) {
    let message = "there is no streams.toml";
    findings.report(
        &start(file),
        "file_missing",
        message,
        "write one, with a [streams.NAME] table for each stream",
    );
}

fn is_sdl(file: &Path) -> bool {
    file.extension() == Some(OsStr::new("graphql"))
}

fn is_toml(file: &Path) -> bool {
    file.extension() == Some(OsStr::new("toml"))
}

fn start(file: &Path) -> Place {
    Place {
        file: file.to_path_buf(),
        line: 1,
        column: 1,
    }
}

//! A lenient reader of TOML that keeps every place: it never stops at the first problem, it collects them all.
//!
//! Invariant: a key that nobody asked for is reported by [`Table::finish`], with the nearest key that somebody did ask
//! for. Wrong types, missing keys and numbers out of range are reported when they are asked for, and the answer is then
//! `None`: the caller goes on. It does not know what the settings mean.
//!
//! How to use it:
//!
//! ```
//! use std::path::Path;
//! # use tidewire_schemas as schemas;
//! use schemas::contract::settings::{Findings, Settings};
//!
//! let findings = Findings::new();
//! let root = Settings::read(Path::new("tidewire.toml"), "[listen]\nadress = \"127.0.0.1:0\"\n", &findings);
//! if let Some(listen) = root.table("listen") {
//!     let _address = listen.str("address"); // Option<Placed<String>>: .value and .place
//!     listen.finish();
//! }
//! root.finish();
//! let found = findings.take(); // sorted by place
//! assert_eq!(found[0].to_string().lines().next(), Some("tidewire.toml:2:1: unknown_key: unknown key `listen.adress`"));
//! ```

mod table;
mod value;

use std::path::Path;

use toml::de::DeTable;

pub use super::finding::{Finding, Findings, Place};
pub use super::nearest::nearest;
pub use table::Table;
use value::Source;
pub use value::Value;

/// A value and where it stands in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed<T> {
    /// The value.
    pub value: T,
    /// Its place.
    pub place: Place,
}

impl<T> Placed<T> {
    /// The same place, another value.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Placed<U> {
        Placed {
            value: f(self.value),
            place: self.place,
        }
    }
}

/// One file of settings.
#[derive(Debug)]
pub struct Settings;

impl Settings {
    /// Reads a file's text. Syntax errors are findings too (`toml_syntax`), and reading goes on with what can be made
    /// of the rest; missing keys are then not reported, since they may stand where the syntax is broken.
    #[must_use]
    pub fn read(file: &Path, text: &str, findings: &Findings) -> Table {
        let (root, errors) = DeTable::parse_recoverable(text);
        let mut source = Source {
            file: Box::from(file),
            text: Box::from(text),
            broken: Vec::new(),
        };
        let mut told: Option<usize> = None;
        let placed = errors.iter().map(|error| {
            (
                source.place(error.span().map_or(text.len(), |span| span.start)),
                error.message().trim(),
            )
        });
        let mut errors: Vec<_> = placed.collect();
        errors.sort();
        for (place, message) in errors {
            // An open bracket breaks every line after it: of lines that follow each other, the first is told.
            if told.is_none_or(|line| place.line > line + 1) {
                let mend = "write it as TOML 1.1 (https://toml.io)";
                findings.report(&place, "toml_syntax", message, mend);
            }
            told = Some(place.line);
            source.broken.push(place);
        }
        let entries = source.entries(root.into_inner());
        Table::root(source, entries, findings.clone())
    }
}

#[cfg(test)]
mod tests;

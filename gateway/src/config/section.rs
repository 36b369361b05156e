//! One table of the configuration file, its texts expanded.
//!
//! Like the reader below it, it never stops: what is wrong is reported, and the default is used to go on. Messages name
//! keys, never expanded values, since those may be secrets.

use std::ops::RangeInclusive;
use std::rc::Rc;
use std::time::Duration;

use schemas::contract::settings::{Place, Placed, Table};
use secrecy::SecretString;

use super::expand::Surroundings;

/// A table with the means to expand its texts.
#[derive(Clone)]
pub(super) struct Section {
    /// The table itself, for what needs no expansion.
    pub(super) table: Table,
    /// Variables and files.
    pub(super) around: Rc<Surroundings>,
}

impl Section {
    pub(super) fn below(&self, key: &str) -> Option<Self> {
        self.table.table(key).map(|table| Self {
            table,
            around: Rc::clone(&self.around),
        })
    }

    pub(super) fn required_below(&self, key: &str) -> Option<Self> {
        self.table.required_table(key).map(|table| Self {
            table,
            around: Rc::clone(&self.around),
        })
    }

    pub(super) fn all_below(&self, key: &str) -> Vec<Self> {
        let section = |table| Self {
            table,
            around: Rc::clone(&self.around),
        };
        self.table.tables(key).into_iter().map(section).collect()
    }

    /// Reports at a key's place.
    pub(super) fn report(&self, place: &Place, code: &'static str, message: String, mend: &str) {
        self.table.report(place, code, message, mend);
    }

    pub(super) fn expand(&self, text: Placed<String>) -> Option<Placed<String>> {
        match self.around.expand(&text.value) {
            Ok(value) => Some(Placed {
                value,
                place: text.place,
            }),
            Err(unexpanded) => {
                let (code, message, mend) = unexpanded.finding();
                self.table.report(&text.place, code, message, mend);
                None
            }
        }
    }

    pub(super) fn text(&self, key: &str) -> Option<Placed<String>> {
        self.table.str(key).and_then(|text| self.expand(text))
    }

    pub(super) fn required_text(&self, key: &str) -> Option<Placed<String>> {
        self.table.required_str(key).and_then(|text| self.expand(text))
    }

    pub(super) fn texts(&self, key: &str) -> Option<Vec<Placed<String>>> {
        Some(
            self.table
                .strings(key)?
                .into_iter()
                .filter_map(|text| self.expand(text))
                .collect(),
        )
    }

    pub(super) fn secret(&self, key: &str) -> Option<Placed<SecretString>> {
        self.text(key).map(|text| text.map(SecretString::from))
    }

    pub(super) fn flag(&self, key: &str) -> bool {
        self.table.boolean(key).is_some_and(|flag| flag.value)
    }

    /// A flag whose default may be either.
    pub(super) fn switch(&self, key: &str, default: bool) -> bool {
        self.table.boolean(key).map_or(default, |flag| flag.value)
    }

    /// A duration in milliseconds.
    pub(super) fn millis(&self, key: &str, default: Duration, range_ms: RangeInclusive<u64>) -> Duration {
        self.table
            .unsigned(key, range_ms)
            .map_or(default, |ms| Duration::from_millis(ms.value))
    }

    /// A count or a size.
    pub(super) fn size(&self, key: &str, default: usize, range: RangeInclusive<u64>) -> usize {
        let size = self.table.unsigned(key, range);
        size.map_or(default, |size| usize::try_from(size.value).unwrap_or(usize::MAX))
    }
}

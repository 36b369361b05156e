//! A table of a file of settings, asked key by key.
//!
//! Invariant: whatever is asked for and is not as it was asked for is reported once, and the answer is `None`. It does not
//! know which keys there could be until they are asked for.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::rc::Rc;

use super::super::finding::{Findings, Place};
use super::super::nearest::nearest;
use super::Placed;
use super::value::{Kind, Source, Value};

/// A table of the file: its keys are asked for by name, then [`Table::finish`] reports those that nobody asked for.
#[derive(Debug, Clone)]
pub struct Table {
    /// Where the syntax is broken: what was made of it there is a guess, and not reported on.
    broken: Rc<[Place]>,
    findings: Findings,
    /// The way to it: `listen`, `streams.observations`; empty at the root.
    path: String,
    place: Place,
    entries: Rc<BTreeMap<String, Value>>,
    asked: Rc<RefCell<BTreeSet<String>>>,
}

impl Table {
    /// The whole file.
    pub(super) fn root(source: Source, entries: BTreeMap<String, Value>, findings: Findings) -> Self {
        let place = Place {
            file: source.file.into(),
            line: 1,
            column: 1,
        };
        Self {
            broken: source.broken.into(),
            findings,
            path: String::new(),
            place,
            entries: Rc::new(entries),
            asked: Rc::default(),
        }
    }

    /// Where the table starts.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The way to it: `streams.observations`; empty at the root.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether the file had no syntax error. If it had, what seems to be missing may only be hidden by it.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.broken.is_empty()
    }

    /// Where the key stands if it is there, else where the table starts.
    #[must_use]
    pub fn place_of(&self, key: &str) -> &Place {
        self.entries.get(key).map_or(&self.place, |value| &value.key)
    }

    /// Whether the key is there (this counts as asking for it).
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.value(key).is_some()
    }

    /// The keys, as they stand in the file, in alphabetical order (this asks for none of them).
    pub fn keys(&self) -> impl Iterator<Item = Placed<&str>> {
        self.entries.iter().map(|(key, value)| Placed {
            value: key.as_str(),
            place: value.key.clone(),
        })
    }

    /// Adds a finding.
    pub fn report(
        &self,
        place: &Place,
        code: &'static str,
        message: impl Into<String>,
        mend: impl Into<String>,
    ) {
        self.findings.report(place, code, message, mend);
    }

    /// The collector.
    #[must_use]
    pub fn findings(&self) -> &Findings {
        &self.findings
    }

    /// The value of any type.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&Value> {
        self.asked.borrow_mut().insert(key.to_owned());
        self.entries.get(key)
    }

    /// A string.
    #[must_use]
    pub fn str(&self, key: &str) -> Option<Placed<String>> {
        let value = self.value(key)?;
        let Kind::Text(text) = &value.kind else {
            return self.wrong(key, value, "a string");
        };
        Some(Placed {
            value: text.clone(),
            place: value.place.clone(),
        })
    }

    /// A string that must be there.
    #[must_use]
    pub fn required_str(&self, key: &str) -> Option<Placed<String>> {
        self.require(key, "a string")?;
        self.str(key)
    }

    /// One of these words.
    #[must_use]
    pub fn choice(&self, key: &str, known: &[&'static str]) -> Option<Placed<&'static str>> {
        let text = self.str(key)?;
        if let Some(word) = known.iter().find(|word| **word == text.value) {
            return Some(Placed {
                value: word,
                place: text.place,
            });
        }
        let all = known
            .iter()
            .map(|word| format!("{word:?}"))
            .collect::<Vec<_>>()
            .join(", ");
        let mend = match nearest(&text.value, known.iter().copied()) {
            Some(word) => format!("did you mean {word:?}? Known are {all}"),
            None => format!("write one of {all}"),
        };
        let message = format!("`{}` does not know {:?}", self.name(key), text.value);
        self.report(&text.place, "unknown_value", message, mend);
        None
    }

    /// A boolean.
    #[must_use]
    pub fn boolean(&self, key: &str) -> Option<Placed<bool>> {
        let value = self.value(key)?;
        let Kind::Boolean(flag) = value.kind else {
            return self.wrong(key, value, "true or false");
        };
        Some(Placed {
            value: flag,
            place: value.place.clone(),
        })
    }

    /// An integer within the range.
    #[must_use]
    pub fn integer(&self, key: &str, range: RangeInclusive<i64>) -> Option<Placed<i64>> {
        let value = self.value(key)?;
        let Kind::Integer(number, written) = &value.kind else {
            return self.wrong(key, value, "an integer");
        };
        match number.filter(|number| range.contains(number)) {
            Some(number) => Some(Placed {
                value: number,
                place: value.place.clone(),
            }),
            None => {
                let message = format!("`{}` is {written}, which is out of range", self.name(key));
                let mend = format!("write an integer from {} to {}", range.start(), range.end());
                self.report(&value.place, "out_of_range", message, mend);
                None
            }
        }
    }

    /// A count, a size or a duration: an integer within the range, not negative.
    #[must_use]
    pub fn unsigned(&self, key: &str, range: RangeInclusive<u64>) -> Option<Placed<u64>> {
        let bound = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let found = self.integer(key, bound(*range.start())..=bound(*range.end()))?;
        Some(found.map(i64::unsigned_abs))
    }

    /// A number within the range; integers are numbers too.
    #[must_use]
    pub fn number(&self, key: &str, range: RangeInclusive<f64>) -> Option<Placed<f64>> {
        let value = self.value(key)?;
        let (number, written) = match &value.kind {
            Kind::Float(number, written) => (*number, written),
            Kind::Integer(_, written) => (written.parse().unwrap_or(f64::NAN), written),
            _ => return self.wrong(key, value, "a number"),
        };
        if range.contains(&number) {
            return Some(Placed {
                value: number,
                place: value.place.clone(),
            });
        }
        let message = format!("`{}` is {written}, which is out of range", self.name(key));
        let mend = format!("write a number from {} to {}", range.start(), range.end());
        self.report(&value.place, "out_of_range", message, mend);
        None
    }

    /// An array of strings. Elements of another type are reported and left out.
    #[must_use]
    pub fn strings(&self, key: &str) -> Option<Vec<Placed<String>>> {
        let value = self.value(key)?;
        let Kind::Array(items) = &value.kind else {
            return self.wrong(key, value, "an array of strings");
        };
        let text = |item: &Value| match &item.kind {
            Kind::Text(text) => Some(Placed {
                value: text.clone(),
                place: item.place.clone(),
            }),
            _ => self.wrong(key, item, "an array of strings"),
        };
        Some(items.iter().filter_map(text).collect())
    }

    /// An array of whole numbers that are not negative. Elements of another type are reported and left out.
    #[must_use]
    pub fn numbers(&self, key: &str) -> Option<Placed<Vec<u64>>> {
        let value = self.value(key)?;
        let Kind::Array(items) = &value.kind else {
            return self.wrong(key, value, "an array of whole numbers");
        };
        let number = |item: &Value| match &item.kind {
            Kind::Integer(Some(number), _) => u64::try_from(*number)
                .ok()
                .or_else(|| self.wrong(key, item, "an array of whole numbers")),
            _ => self.wrong(key, item, "an array of whole numbers"),
        };
        Some(Placed {
            value: items.iter().filter_map(number).collect(),
            place: value.place.clone(),
        })
    }

    /// An array of strings that must be there.
    #[must_use]
    pub fn required_strings(&self, key: &str) -> Option<Vec<Placed<String>>> {
        self.require(key, "an array of strings")?;
        self.strings(key)
    }

    /// A table below this one.
    #[must_use]
    pub fn table(&self, key: &str) -> Option<Table> {
        let value = self.value(key)?;
        let Kind::Table(entries) = &value.kind else {
            return self.wrong(key, value, "a table");
        };
        Some(self.below(self.name(key), value, entries))
    }

    /// A table that must be there.
    #[must_use]
    pub fn required_table(&self, key: &str) -> Option<Table> {
        self.require(key, "a table")?;
        self.table(key)
    }

    /// An array of tables (`[[key]]`); empty if it is not there.
    #[must_use]
    pub fn tables(&self, key: &str) -> Vec<Table> {
        let Some(value) = self.value(key) else {
            return Vec::new();
        };
        let Kind::Array(items) = &value.kind else {
            let _: Option<()> = self.wrong(key, value, "an array of tables");
            return Vec::new();
        };
        let name = self.name(key);
        let table = |item: &Value| match &item.kind {
            Kind::Table(entries) => Some(self.below(name.clone(), item, entries)),
            _ => self.wrong(key, item, "an array of tables"),
        };
        items.iter().filter_map(table).collect()
    }

    /// Every key of this table with the table below it, for tables whose keys are the user's own names
    /// (`[streams.NAME]`). All keys count as asked for.
    #[must_use]
    pub fn named_tables(&self) -> Vec<(Placed<String>, Table)> {
        let named = |key: &String| {
            let table = self.table(key)?;
            Some((
                Placed {
                    value: key.clone(),
                    place: self.place_of(key).clone(),
                },
                table,
            ))
        };
        self.entries.keys().filter_map(named).collect()
    }

    /// Every key of this table with its value as text, for tables whose keys are not ours (`[kafka.properties]`):
    /// strings, numbers and booleans. All keys count as asked for.
    #[must_use]
    pub fn texts(&self) -> Vec<(Placed<String>, Placed<String>)> {
        let mut texts = Vec::new();
        for key in self.entries.keys() {
            let Some(value) = self.value(key) else { continue };
            let Some(text) = value.to_text() else {
                let _: Option<()> = self.wrong(key, value, "a string, a number or a boolean");
                continue;
            };
            let name = Placed {
                value: key.clone(),
                place: value.key.clone(),
            };
            texts.push((
                name,
                Placed {
                    value: text,
                    place: value.place.clone(),
                },
            ));
        }
        texts
    }

    /// The key's full name, as messages name it.
    #[must_use]
    pub fn name(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    /// Reports every key that nobody asked for.
    pub fn finish(&self) {
        let asked = self.asked.borrow();
        for (key, value) in self.entries.iter().filter(|(key, _)| !asked.contains(*key)) {
            let free = asked
                .iter()
                .map(String::as_str)
                .filter(|known| !self.entries.contains_key(*known));
            let mend = match nearest(key, free) {
                Some(known) => format!("did you mean `{known}`?"),
                None if asked.is_empty() => "remove it".to_owned(),
                None => {
                    let all = asked
                        .iter()
                        .map(|known| format!("`{known}`"))
                        .collect::<Vec<_>>()
                        .join(", ");
                    format!("remove it; known here: {all}")
                }
            };
            let message = format!("unknown key `{}`", self.name(key));
            self.report(&value.key, "unknown_key", message, mend);
        }
    }

    /// Reports that a key is of the wrong type, and answers `None`.
    pub fn wrong<T>(&self, key: &str, value: &Value, wanted: &str) -> Option<T> {
        let message = format!(
            "`{}` must be {wanted}, and it is {}",
            self.name(key),
            value.type_name()
        );
        // The value itself is never repeated: it may be a secret in the wrong place.
        let mend = match &value.kind {
            Kind::Text(_) if wanted == "an array of strings" => "put it in brackets: [\"...\"]".to_owned(),
            Kind::Text(text) if text.parse::<f64>().is_ok() && !wanted.contains("string") => {
                "write it without quotes".to_owned()
            }
            Kind::Integer(..) | Kind::Float(..) if wanted == "a string" => "write it in quotes".to_owned(),
            Kind::Table(_) if wanted == "an array of tables" => {
                format!("write [[{}]] with two brackets", self.name(key))
            }
            _ => format!("write {wanted}"),
        };
        if !self.broken.contains(&value.place) {
            self.report(&value.place, "wrong_type", message, mend);
        }
        None
    }

    /// Reports that a key is missing.
    pub fn missing(&self, key: &str, wanted: &str) {
        if self.is_whole() {
            let message = format!("`{}` is missing", self.name(key));
            self.report(
                &self.place,
                "missing_key",
                message,
                format!("add `{key}`, {wanted}"),
            );
        }
    }

    fn require(&self, key: &str, wanted: &str) -> Option<&Value> {
        let value = self.value(key);
        if value.is_none() {
            self.missing(key, wanted);
        }
        value
    }

    fn below(&self, path: String, value: &Value, entries: &Rc<BTreeMap<String, Value>>) -> Table {
        Table {
            broken: Rc::clone(&self.broken),
            findings: self.findings.clone(),
            path,
            place: value.place.clone(),
            entries: Rc::clone(entries),
            asked: Rc::default(),
        }
    }
}

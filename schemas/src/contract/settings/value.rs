//! The values of a TOML file with their places: what the parser gave, owned.
//!
//! Invariant: every key and value knows the line and column where it was written. It does not know what is allowed.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::rc::Rc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::super::finding::Place;

/// The file's name, its text, and where it is no TOML. Gone once the values are read.
pub(super) struct Source {
    pub(super) file: Box<Path>,
    pub(super) text: Box<str>,
    /// Where the syntax is broken: what was made of it there is a guess, and not reported on.
    pub(super) broken: Vec<Place>,
}

/// One value of any type, for settings that may be written in more than one way.
#[derive(Clone)]
pub struct Value {
    pub(super) key: Place,
    pub(super) place: Place,
    pub(super) kind: Kind,
}

#[derive(Clone)]
pub(super) enum Kind {
    Text(String),
    /// `None`: it does not fit into 64 bits.
    Integer(Option<i64>, String),
    Float(f64, String),
    Boolean(bool),
    Datetime,
    Array(Vec<Value>),
    Table(Rc<BTreeMap<String, Value>>),
}

/// Says the type and the place, never the value: it may be a secret.
impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.type_name(), self.place)
    }
}

impl Source {
    pub(super) fn place(&self, at: usize) -> Place {
        let before = self.text.get(..at).unwrap_or(&self.text);
        let line = before.matches('\n').count() + 1;
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let column = before.chars().count() - before.get(..start).map_or(0, |head| head.chars().count()) + 1;
        Place {
            file: self.file.to_path_buf(),
            line,
            column,
        }
    }

    pub(super) fn entries(&self, table: DeTable<'_>) -> BTreeMap<String, Value> {
        let mut entries = BTreeMap::new();
        for (key, value) in table {
            let at = key.span();
            entries.insert(key.into_inner().into_owned(), self.value(&at, value));
        }
        entries
    }

    fn value(&self, key: &Range<usize>, value: Spanned<DeValue<'_>>) -> Value {
        let at = value.span();
        let kind = match value.into_inner() {
            DeValue::String(text) => Kind::Text(text.into_owned()),
            DeValue::Integer(number) => {
                let parsed = i64::from_str_radix(number.as_str(), number.radix()).ok();
                Kind::Integer(parsed, number.to_string())
            }
            DeValue::Float(number) => {
                Kind::Float(number.as_str().parse().unwrap_or(f64::NAN), number.to_string())
            }
            DeValue::Boolean(flag) => Kind::Boolean(flag),
            DeValue::Datetime(_) => Kind::Datetime,
            DeValue::Array(array) => Kind::Array(
                array
                    .into_iter()
                    .map(|item| self.value(&item.span(), item))
                    .collect(),
            ),
            DeValue::Table(table) => Kind::Table(Rc::new(self.entries(table))),
        };
        Value {
            key: self.place(key.start),
            place: self.place(at.start),
            kind,
        }
    }
}

impl Value {
    /// Where it stands.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The text, if it is a string.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        if let Kind::Text(text) = &self.kind {
            Some(text)
        } else {
            None
        }
    }

    /// What it is, in words.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match &self.kind {
            Kind::Text(_) => "a string",
            Kind::Integer(..) => "an integer",
            Kind::Float(..) => "a number",
            Kind::Boolean(_) => "a boolean",
            Kind::Datetime => "a date or time",
            Kind::Array(_) => "an array",
            Kind::Table(_) => "a table",
        }
    }

    /// Whether it is a table.
    #[must_use]
    pub fn is_table(&self) -> bool {
        matches!(self.kind, Kind::Table(_))
    }

    /// Strings, numbers and booleans as text; nothing for arrays, tables and times.
    #[must_use]
    pub fn to_text(&self) -> Option<String> {
        match &self.kind {
            Kind::Text(text) | Kind::Integer(_, text) | Kind::Float(_, text) => Some(text.clone()),
            Kind::Boolean(flag) => Some(flag.to_string()),
            Kind::Datetime | Kind::Array(_) | Kind::Table(_) => None,
        }
    }
}

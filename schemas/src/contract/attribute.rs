//! The declared attributes of a stream: `attributes = { patient = "/subject/reference" }` and its longer forms.
//!
//! Invariant: a name that is declared is a CloudEvents attribute name, is not one of CloudEvents' own, and can stand in a
//! query string beside our parameters. It does not know the records that have the values.

use std::collections::BTreeSet;

use crate::ids::AttributeName;
use crate::project::Pointer;

use super::finding::Place;
use super::nearest::nearest;
use super::settings::{Placed, Table, Value};

/// A declared attribute.
#[derive(Debug, Clone)]
pub struct Attribute {
    /// Its name.
    pub name: AttributeName,
    /// Where its value is found.
    pub source: AttributeSource,
    /// Whether `https://x/Patient/1/_history/2` is made equal to `Patient/1`.
    pub reference: bool,
}

/// Where an attribute's value is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttributeSource {
    /// In the data; a `*` gives several values, which are for filters only: they are not emitted.
    Pointer(Pointer),
    /// The record's key as text.
    Key,
    /// A record header.
    Header(String),
}

/// CloudEvents' own context attributes and members, and what our events add to them.
pub const RESERVED_BY_EVENTS: [&str; 11] = [
    "id",
    "source",
    "specversion",
    "type",
    "time",
    "subject",
    "datacontenttype",
    "dataschema",
    "data",
    "tenant",
    "cursor",
];

/// Our parameters in a query string, and those that are refused there because a token must not be in a URL.
pub const RESERVED_BY_QUERIES: [&str; 10] = [
    "after",
    "snapshot",
    "limit",
    "wait",
    "overflow",
    "rate",
    "ticket",
    "token",
    "jwt",
    "authorization",
];

/// The most attributes of one stream; each is looked up in every record and may cost an index entry.
pub const ATTRIBUTES_MAX: usize = 64;

/// The attributes that one stream declares.
#[derive(Debug, Default)]
pub(super) struct Declared {
    /// Those that are acceptable, ordered by name.
    pub(super) attributes: Vec<Attribute>,
    /// Where their pointers stand.
    pub(super) pointers: Vec<Placed<Pointer>>,
    /// All names that were written, acceptable or not, so that one mistake is told once.
    pub(super) written: BTreeSet<String>,
}

impl Declared {
    /// Reads the `attributes` table.
    pub(super) fn read(table: &Table) -> Self {
        let mut declared = Self::default();
        for key in table.keys() {
            declared.written.insert(key.value.to_owned());
            let Some(value) = table.value(key.value) else {
                continue;
            };
            let name = read_name(table, &key);
            let source = read_source(table, key.value, value);
            let Some((source, reference, place)) = source else {
                continue;
            };
            if let AttributeSource::Pointer(pointer) = &source {
                declared.pointers.push(Placed {
                    value: pointer.clone(),
                    place,
                });
            }
            if let Some(name) = name {
                declared.attributes.push(Attribute {
                    name,
                    source,
                    reference,
                });
            }
        }
        if declared.written.len() > ATTRIBUTES_MAX {
            let message = format!("{} attributes are declared", declared.written.len());
            let mend = format!("declare at most {ATTRIBUTES_MAX}: those by which readers filter");
            table.report(table.place(), "too_many_attributes", message, mend);
        }
        declared
    }
}

fn read_name(table: &Table, key: &Placed<&str>) -> Option<AttributeName> {
    let mut free = key.value.to_ascii_lowercase();
    free.retain(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let name = match AttributeName::parse(key.value) {
        Ok(name) => name,
        Err(bad) => {
            let mend = match AttributeName::parse(&free) {
                Ok(_) if !is_reserved(&free) => format!("write `{free}`"),
                _ => "choose a short name of small letters and digits".to_owned(),
            };
            table.report(&key.place, "attribute_name_invalid", bad.to_string(), mend);
            return None;
        }
    };
    let owner = if RESERVED_BY_EVENTS.contains(&key.value) {
        "every event has a member of that name"
    } else if RESERVED_BY_QUERIES.contains(&key.value) {
        "it is a parameter in query strings"
    } else {
        return Some(name);
    };
    let message = format!("the attribute name `{name}` is reserved: {owner}");
    let mend = format!("choose another name, such as `the{name}`");
    table.report(&key.place, "attribute_name_reserved", message, mend);
    None
}

fn is_reserved(name: &str) -> bool {
    RESERVED_BY_EVENTS.contains(&name) || RESERVED_BY_QUERIES.contains(&name)
}

/// The source, whether it is a reference, and where the source stands.
fn read_source(table: &Table, key: &str, value: &Value) -> Option<(AttributeSource, bool, Place)> {
    if let Some(text) = value.as_str() {
        let place = value.place();
        let source = match text.strip_prefix("header:") {
            Some(header) => AttributeSource::Header(read_header(table, place, header)?),
            None if text == "key" => AttributeSource::Key,
            None => AttributeSource::Pointer(read_pointer(table, place, text)?),
        };
        return Some((source, false, place.clone()));
    }
    if !value.is_table() {
        return table.wrong(
            key,
            value,
            "a string (\"/pointer\", \"key\", \"header:NAME\") or a table",
        );
    }
    let table = table.table(key)?;
    let source = read_long_source(&table);
    let normalise = table.choice("normalise", &["reference"]);
    table.finish();
    source.map(|(source, place)| (source, normalise.is_some(), place))
}

fn read_long_source(table: &Table) -> Option<(AttributeSource, Place)> {
    let written = ["pointer", "key", "header"].map(|key| table.has(key));
    match written {
        [true, false, false] => {
            let text = table.str("pointer")?;
            let pointer = read_pointer(table, &text.place, &text.value)?;
            Some((AttributeSource::Pointer(pointer), text.place))
        }
        [false, true, false] => {
            let flag = table.boolean("key")?;
            if !flag.value {
                let mend = "write key = true, or name another source";
                table.report(
                    &flag.place,
                    "attribute_source_invalid",
                    "`key = false` is no source",
                    mend,
                );
                return None;
            }
            Some((AttributeSource::Key, flag.place))
        }
        [false, false, true] => {
            let text = table.str("header")?;
            let header = read_header(table, &text.place, &text.value)?;
            Some((AttributeSource::Header(header), text.place))
        }
        _ => {
            let message = format!("`{}` needs exactly one source", table.path());
            let mend = "write one of pointer = \"/a/b\", key = true, header = \"name\"";
            table.report(table.place(), "attribute_source_invalid", message, mend);
            None
        }
    }
}

/// A pointer to something below the document itself.
pub(super) fn read_pointer(table: &Table, place: &Place, text: &str) -> Option<Pointer> {
    let bad = match Pointer::parse(text) {
        Ok(pointer) if pointer.depth() > 0 => return Some(pointer),
        Ok(_) => "an empty pointer is the whole document".to_owned(),
        Err(bad) => bad.to_string(),
    };
    let mend = match nearest(text, ["key", "header:"]) {
        Some(word) => format!("did you mean \"{word}\"? A JSON pointer starts with `/`"),
        None if text.is_empty() => "name a field: \"/a/b\"".to_owned(),
        None => format!(
            "write a JSON pointer, such as \"/{}\"",
            text.trim_matches('/').replace('.', "/")
        ),
    };
    table.report(place, "pointer_invalid", bad, mend);
    None
}

/// The name of a record header.
pub(super) fn read_header(table: &Table, place: &Place, text: &str) -> Option<String> {
    if !text.is_empty() && !text.chars().any(char::is_control) && text.trim() == text {
        return Some(text.to_owned());
    }
    let message = format!("{text:?} is no name of a header");
    table.report(
        place,
        "header_invalid",
        message,
        "write the header's name, without spaces around it",
    );
    None
}

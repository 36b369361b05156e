//! The access rules once more, restated over plain JSON values, slowly and without any of the product's code.
//!
//! Invariant: it decides event by event and reader by reader; nothing is compiled, shared or indexed. Where the product
//! and this page differ, one of them is wrong.

pub mod random;
pub mod selection;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Map, Value};

/// A stream as it is declared.
#[derive(Debug, Clone)]
pub struct Model {
    /// Its name.
    pub name: String,
    /// Its topic.
    pub topic: String,
    /// Where the tenant is found.
    pub tenant: TenantFrom,
    /// What is routable.
    pub attributes: Vec<Attribute>,
    /// Who may read.
    pub rules: Vec<Rule>,
}

/// Where a record's tenant is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TenantFrom {
    /// In the header `tenant`.
    Header,
    /// Before the first `:` of the key.
    KeyPrefix,
    /// In the value, at `/owner`.
    Pointer,
}

/// An attribute.
#[derive(Debug, Clone)]
pub struct Attribute {
    /// Its name.
    pub name: String,
    /// `key`, `header:NAME` or a JSON pointer.
    pub from: String,
    /// Whether references are made equal.
    pub reference: bool,
}

/// An access rule.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Any of these suffices.
    pub scopes: Vec<String>,
    /// Attributes and what they must equal; none: the tenant's rows.
    pub rows: Vec<(String, String)>,
    /// Which fields.
    pub fields: Fields,
}

/// Which fields a rule shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fields {
    /// All.
    All,
    /// All but these.
    Hide(Vec<String>),
    /// Only these.
    Show(Vec<String>),
}

/// Who reads.
#[derive(Debug, Clone)]
pub struct Who {
    /// Whose data.
    pub tenant: String,
    /// The token's subject.
    pub subject: String,
    /// What the token says.
    pub scopes: Vec<String>,
    /// Its other claims.
    pub claims: Map<String, Value>,
}

/// A record.
#[derive(Debug, Clone)]
pub struct Record {
    /// Its key.
    pub key: String,
    /// Its headers.
    pub headers: Vec<(String, String)>,
    /// Its value.
    pub value: Value,
}

/// A filter: attributes and the values of which they must have one.
pub type Filter = Vec<(String, Vec<String>)>;

/// What a reader sees of an event.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// The data.
    pub data: Value,
    /// The attributes from the data that are emitted.
    pub attributes: BTreeMap<String, String>,
    /// Nothing is hidden, so that attributes from the key and from headers are emitted too.
    pub whole: bool,
    /// An attribute is hidden that the record does not have: what the key and the headers tell cannot be compared with
    /// it, so that they are not told.
    pub silent: bool,
}

/// One way in which a rule applies to a reader: the rule, and a scope's own restriction.
struct Way<'a> {
    rule: &'a Rule,
    restriction: Vec<(String, Vec<String>)>,
}

impl Model {
    /// The stream as `streams.toml` has it; its type is in [`crate::contract::SDL`].
    #[must_use]
    pub fn toml(&self) -> String {
        let mut text = String::new();
        let tenant = match self.tenant {
            TenantFrom::Header => "{ header = \"tenant\" }",
            TenantFrom::KeyPrefix => "{ key = \"prefix\" }",
            TenantFrom::Pointer => "{ pointer = \"/owner\" }",
        };
        let mut say = |line: String| writeln!(text, "{line}").expect("text can be written");
        say(format!(
            "[streams.{}]\ntopics = [{:?}]\nformat = \"json\"\nschema = \"Random\"\ntenant = {tenant}",
            self.name, self.topic
        ));
        say(format!("[streams.{}.attributes]", self.name));
        for attribute in &self.attributes {
            if attribute.reference {
                say(format!(
                    "{} = {{ pointer = {:?}, normalise = \"reference\" }}",
                    attribute.name, attribute.from
                ));
            } else {
                say(format!("{} = {:?}", attribute.name, attribute.from));
            }
        }
        for rule in &self.rules {
            say(format!(
                "[[streams.{}.access]]\nscopes = {:?}",
                self.name, rule.scopes
            ));
            if rule.rows.is_empty() {
                say("rows = \"tenant\"".to_owned());
            } else {
                let terms: Vec<_> = rule
                    .rows
                    .iter()
                    .map(|(name, text)| format!("{name} = {text:?}"))
                    .collect();
                say(format!("rows = {{ {} }}", terms.join(", ")));
            }
            match &rule.fields {
                Fields::All => {}
                Fields::Hide(pointers) => say(format!("hide = {pointers:?}")),
                Fields::Show(pointers) => say(format!("show = {pointers:?}")),
            }
        }
        text
    }

    /// Why a reader with this filter is refused: the code; `None` where it is let in.
    #[must_use]
    pub fn refusal(&self, who: &Who, filter: &Filter) -> Option<&'static str> {
        if self.ways(who).is_empty() {
            return Some("stream_forbidden");
        }
        if filter.iter().any(|(name, _)| self.attribute(name).is_none())
            || self.ways_of(who, filter).is_empty()
        {
            return Some("unknown_parameter");
        }
        None
    }

    /// What a reader with this filter sees of a record; `None`: nothing.
    #[must_use]
    pub fn sees(&self, who: &Who, filter: &Filter, record: &Record) -> Option<Seen> {
        if self.tenant_of(record)? != who.tenant {
            return None;
        }
        let passes = |name: &str, wanted: &[String]| {
            let Some(attribute) = self.attribute(name) else {
                return false;
            };
            let wanted: Vec<_> = wanted.iter().map(|value| attribute.normal(value)).collect();
            attribute
                .values(record)
                .iter()
                .any(|value| wanted.contains(value))
        };
        if !filter.iter().all(|(name, wanted)| passes(name, wanted)) {
            return None;
        }
        let fields: Vec<&Fields> = self
            .ways_of(who, filter)
            .into_iter()
            .filter(|way| way.restriction.iter().all(|(name, wanted)| passes(name, wanted)))
            .filter(|way| {
                way.rule.rows.iter().all(|(name, template)| {
                    let values = self
                        .attribute(name)
                        .map(|attribute| attribute.values(record))
                        .unwrap_or_default();
                    fill(template, who).is_some_and(|wanted| values.contains(&wanted))
                })
            })
            .map(|way| &way.rule.fields)
            .collect();
        if fields.is_empty() {
            return None;
        }
        let attributes = self
            .attributes
            .iter()
            .filter(|attribute| attribute.is_single_from_data())
            .filter(|attribute| fields.iter().any(|fields| !fields.touches(&attribute.from)))
            .filter_map(|attribute| {
                Some((
                    attribute.name.clone(),
                    attribute.values(record).into_iter().next()?,
                ))
            })
            .collect();
        let whole = fields.iter().any(|fields| **fields == Fields::All);
        let silent = self
            .attributes
            .iter()
            .filter(|attribute| attribute.is_single_from_data())
            .any(|attribute| {
                fields.iter().all(|fields| fields.touches(&attribute.from))
                    && attribute.values(record).is_empty()
            });
        Some(Seen {
            data: shown(&fields, &mut Vec::new(), &record.value)?,
            attributes,
            whole,
            silent,
        })
    }

    /// The ways that are left when the filter names something that a way's rule hides. The key and the headers may say
    /// again what is in a hidden attribute, so a filter by them counts as one by any that is hidden.
    fn ways_of<'a>(&'a self, who: &Who, filter: &Filter) -> Vec<Way<'a>> {
        let mut ways = self.ways(who);
        ways.retain(|way| {
            filter.iter().all(|(name, _)| {
                let hides = |attribute: &Attribute| {
                    attribute.from.starts_with('/') && way.rule.fields.touches(&attribute.from)
                };
                self.attribute(name).is_some_and(|attribute| {
                    if attribute.from.starts_with('/') {
                        !hides(attribute)
                    } else {
                        !self.attributes.iter().any(hides)
                    }
                })
            })
        });
        ways
    }

    fn ways<'a>(&'a self, who: &Who) -> Vec<Way<'a>> {
        let mut ways = Vec::new();
        for rule in &self.rules {
            if rule
                .rows
                .iter()
                .any(|(_, template)| fill(template, who).is_none())
            {
                continue;
            }
            for (wanted, held) in rule
                .scopes
                .iter()
                .flat_map(|wanted| who.scopes.iter().map(move |held| (wanted, held)))
            {
                let (held, restriction) = held.split_once('?').unwrap_or((held, ""));
                if !satisfies(held, wanted) {
                    continue;
                }
                let restriction: Vec<(String, Vec<String>)> = restriction
                    .split('&')
                    .filter_map(|term| term.split_once('='))
                    .map(|(name, values)| (name.to_owned(), values.split(',').map(str::to_owned).collect()))
                    .collect();
                // A restriction by something undeclared denies, and one that contradicts the rule's rows gives none.
                let possible = restriction.iter().all(|(name, wanted)| {
                    self.attribute(name).is_some()
                        && rule
                            .rows
                            .iter()
                            .filter(|(row, _)| row == name)
                            .all(|(_, template)| {
                                fill(template, who).is_some_and(|value| wanted.contains(&value))
                            })
                });
                if possible {
                    ways.push(Way { rule, restriction });
                }
            }
        }
        ways
    }

    fn attribute(&self, name: &str) -> Option<&Attribute> {
        self.attributes.iter().find(|attribute| attribute.name == name)
    }

    fn tenant_of(&self, record: &Record) -> Option<String> {
        match self.tenant {
            TenantFrom::Header => header(record, "tenant"),
            TenantFrom::KeyPrefix => record.key.split_once(':').map(|(tenant, _)| tenant.to_owned()),
            TenantFrom::Pointer => record.value["owner"].as_str().map(str::to_owned),
        }
    }
}

impl Attribute {
    /// The values in a record, as text.
    fn values(&self, record: &Record) -> Vec<String> {
        let found = match (self.from.as_str(), self.from.strip_prefix("header:")) {
            ("key", _) => vec![record.key.clone()],
            (_, Some(name)) => header(record, name).into_iter().collect(),
            _ => {
                let segments: Vec<&str> = self.from.split('/').skip(1).collect();
                let mut places = Vec::new();
                select(&record.value, &segments, &mut places);
                places.into_iter().filter_map(text).collect()
            }
        };
        found.iter().map(|value| self.normal(value)).collect()
    }

    /// `https://x/Patient/1/_history/2` is `Patient/1`.
    fn normal(&self, value: &str) -> String {
        if !self.reference || value.starts_with("urn:") {
            return value.to_owned();
        }
        let path = value.split("/_history/").next().unwrap_or(value);
        let mut segments: Vec<&str> = path.rsplit('/').take(2).collect();
        segments.reverse();
        segments.join("/")
    }

    fn is_single_from_data(&self) -> bool {
        self.from.starts_with('/') && !self.from.split('/').any(|segment| segment == "*")
    }
}

impl Fields {
    /// Whether something at, above or below a place is hidden.
    fn touches(&self, pointer: &str) -> bool {
        let place: Vec<&str> = pointer.split('/').skip(1).collect();
        match self {
            Self::All => false,
            Self::Hide(hidden) => hidden.iter().any(|hidden| {
                let hidden: Vec<&str> = hidden.split('/').skip(1).collect();
                hidden.iter().zip(&place).all(|(one, other)| alike(one, other))
            }),
            Self::Show(shown) => !shown.iter().any(|shown| {
                let shown: Vec<&str> = shown.split('/').skip(1).collect();
                shown.len() <= place.len()
                    && shown
                        .iter()
                        .zip(&place)
                        .all(|(one, other)| *one == "*" || one == other)
            }),
        }
    }

    /// Whether a place of a document is there for the reader.
    fn shows(&self, path: &[String], value: &Value) -> bool {
        let names = |pointer: &str, whole: bool| {
            let segments: Vec<&str> = pointer.split('/').skip(1).collect();
            let long_enough = if whole {
                segments.len() <= path.len()
            } else {
                segments.len() > path.len()
            };
            long_enough
                && segments
                    .iter()
                    .zip(path)
                    .all(|(segment, name)| *segment == "*" || *segment == name.as_str())
        };
        match self {
            Self::All => true,
            Self::Hide(hidden) => !hidden.iter().any(|hidden| names(hidden, true)),
            // A container on the way to something that is shown is kept.
            Self::Show(shown) => shown.iter().any(|shown| {
                names(shown, true) || ((value.is_object() || value.is_array()) && names(shown, false))
            }),
        }
    }
}

/// What at least one of the rules shows of a value at a place.
fn shown(fields: &[&Fields], path: &mut Vec<String>, value: &Value) -> Option<Value> {
    if !fields.iter().any(|fields| fields.shows(path, value)) {
        return None;
    }
    let mut below = |name: String, value: &Value| {
        path.push(name);
        let shown = shown(fields, path, value);
        path.pop();
        shown
    };
    Some(match value {
        Value::Object(members) => Value::Object(
            members
                .iter()
                .filter_map(|(name, value)| Some((name.clone(), below(name.clone(), value)?)))
                .collect(),
        ),
        Value::Array(elements) => Value::Array(
            elements
                .iter()
                .enumerate()
                .filter_map(|(at, value)| below(at.to_string(), value))
                .collect(),
        ),
        scalar => scalar.clone(),
    })
}

/// Whether a scope that is held (without its restriction) satisfies a scope that a rule wants.
fn satisfies(held: &str, wanted: &str) -> bool {
    let parts = |scope: &str| {
        let (context, rest) = scope.split_once('/')?;
        let (resource, permissions) = rest.split_once('.')?;
        let permissions = match permissions {
            "read" => "rs",
            "write" => "cud",
            "*" => "cruds",
            letters => letters,
        };
        Some((context.to_owned(), resource.to_owned(), permissions.to_owned()))
    };
    match (parts(held), parts(wanted)) {
        (Some(held), Some(wanted)) => {
            held.0 == wanted.0
                && (held.1 == "*" || held.1 == wanted.1)
                && wanted.2.chars().all(|letter| held.2.contains(letter))
        }
        _ => held == wanted,
    }
}

/// Fills claims into a template; `None` where one is missing, empty or no string.
fn fill(template: &str, who: &Who) -> Option<String> {
    let mut text = template.replace("{subject}", &who.subject);
    while let Some((before, rest)) = text.clone().split_once("{claims.") {
        let (name, after) = rest.split_once('}')?;
        let value = who.claims.get(name)?.as_str().filter(|value| !value.is_empty())?;
        text = format!("{before}{value}{after}");
    }
    Some(text)
}

fn header(record: &Record, name: &str) -> Option<String> {
    record
        .headers
        .iter()
        .find(|(have, _)| have == name)
        .map(|(_, value)| value.clone())
}

/// The values at the places that a pointer names.
fn select<'a>(value: &'a Value, segments: &[&str], places: &mut Vec<&'a Value>) {
    let Some((first, rest)) = segments.split_first() else {
        places.push(value);
        return;
    };
    match value {
        Value::Object(members) => {
            members
                .iter()
                .filter(|(name, _)| alike(first, name))
                .for_each(|(_, value)| select(value, rest, places));
        }
        Value::Array(elements) => elements
            .iter()
            .enumerate()
            .filter(|(at, _)| alike(first, &at.to_string()))
            .for_each(|(_, value)| select(value, rest, places)),
        _ => {}
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn alike(one: &str, other: &str) -> bool {
    one == "*" || other == "*" || one == other
}

/// Every text and number in a value, for finding what leaked.
pub fn leaves(value: &Value, out: &mut Vec<String>) {
    match value {
        Value::Object(members) => members.values().for_each(|value| leaves(value, out)),
        Value::Array(elements) => elements.iter().for_each(|value| leaves(value, out)),
        other => out.extend(text(other)),
    }
}

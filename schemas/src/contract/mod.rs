//! Streams as they are declared: `*.graphql` and `streams.toml`, loaded and checked as a whole.

mod finding;
mod nearest;
pub mod settings;
mod topic;

use std::path::Path;
use std::sync::Arc;

use crate::attributes::Atom;
use crate::ids::{AttributeId, AttributeName, StreamName};
use crate::project::{Mask, Pointer};

pub use finding::{Finding, Place};
pub use topic::{TopicMatch, TopicPattern};

/// A contract that was checked.
#[derive(Debug)]
pub struct Contract {
    /// A digest of all that it declares: equal on every node that loaded the same files.
    pub revision: u64,
    /// By name.
    pub streams: Vec<Arc<Stream>>,
}

/// One stream.
#[derive(Debug)]
pub struct Stream {
    /// Its name.
    pub name: StreamName,
    /// The contract's revision.
    pub revision: u64,
    /// A sentence for people (`description`), if any.
    pub description: Option<String>,
    /// The topics that it reads.
    pub topics: Vec<TopicPattern>,
    /// How values are encoded.
    pub format: Format,
    /// The SDL type of its data.
    pub schema: Option<String>,
    /// Whose an event is.
    pub tenant: TenantSource,
    /// What is routable; an [`AttributeId`] is an index here.
    pub attributes: Vec<Attribute>,
    /// What a tombstone means.
    pub deletes: Deletes,
    /// Who may read.
    pub access: Vec<AccessRule>,
    /// The first segments of the event type (`type_prefix`, default `tidewire`).
    pub type_prefix: String,
    /// CloudEvents `source` (default `/streams/<name>`).
    pub source: String,
    /// Whether gaps tell offsets.
    pub show_offsets: bool,
}

/// How values are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// The value is the JSON document.
    Json,
    /// CloudEvents over Kafka, binary or structured by the content type.
    CloudEvents,
}

/// Where the tenant of a record is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TenantSource {
    /// A record header; a duplicate, an empty or an invalid one rejects the record.
    Header(String),
    /// The `{tenant}` capture of the topic's name.
    Topic,
    /// The key up to the first separator.
    KeyPrefix {
        /// The separator (default `:`).
        separator: char,
    },
    /// A string in the value.
    Pointer(Pointer),
}

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

/// What a tombstone means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Deletes {
    /// Attributes and tenant are those of the value before (needs state: a later version).
    Previous,
    /// Attributes and tenant are in the tombstone's headers.
    Headers,
    /// Tombstones are passed over.
    None,
}

/// One access rule: whoever holds one of the scopes gets a clause.
#[derive(Debug, Clone)]
pub struct AccessRule {
    /// Where it was declared.
    pub place: Place,
    /// Any of these suffices.
    pub scopes: Vec<String>,
    /// Which rows; the tenant is always ANDed.
    pub rows: Rows,
    /// Which fields.
    pub mask: Arc<Mask>,
}

/// Which rows a rule gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rows {
    /// All of the tenant's.
    Tenant,
    /// Those whose attributes equal these templates.
    Match(Vec<(AttributeId, Template)>),
}

/// Text with `{claims.NAME}` and `{subject}` in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// In order.
    pub parts: Vec<TemplatePart>,
}

/// A piece of a [`Template`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TemplatePart {
    /// As it stands.
    Text(String),
    /// The claim of that name; a claim that is missing or no string makes the clause false.
    Claim(String),
    /// The token's subject.
    Subject,
}

impl Contract {
    /// Loads a folder: every `*.graphql` and every `streams.toml` in it. Reports all findings at once.
    pub fn load(folder: &Path) -> Result<Self, Vec<Finding>> {
        todo!("{}", folder.display())
    }

    /// The stream of that name.
    #[must_use]
    pub fn stream(&self, name: &str) -> Option<&Arc<Stream>> {
        self.streams.iter().find(|stream| stream.name.as_str() == name)
    }
}

impl Stream {
    /// The attribute of that name.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<AttributeId> {
        let place = self.attributes.iter().position(|attribute| attribute.name.as_str() == name)?;
        u16::try_from(place).ok().map(AttributeId)
    }
}

impl Template {
    /// Fills the template in. `None` where a claim is missing.
    pub fn fill(&self, claim: impl Fn(&str) -> Option<Atom>, subject: &str) -> Option<Atom> {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                TemplatePart::Text(piece) => text.push_str(piece),
                TemplatePart::Claim(name) => text.push_str(&claim(name)?),
                TemplatePart::Subject => text.push_str(subject),
            }
        }
        Some(Atom::from(text))
    }
}

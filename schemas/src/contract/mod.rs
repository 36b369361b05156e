//! Streams as they are declared: `*.graphql` and `streams.toml`, loaded and checked as a whole.
//!
//! Invariant: a [`Contract`] in hand was checked; nothing in it needs to be checked again. It does not know Kafka, tokens
//! or connections: it is data.

mod access;
mod attribute;
mod check;
mod claims;
mod clinical;
mod finding;
mod graph;
mod load;
mod nearest;
mod revision;
mod sdl;
pub mod settings;
mod stream;
mod template;
mod topic;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::graph::Graph;
use crate::ids::{AttributeId, StreamName};
use crate::project::Pointer;

pub use access::{AccessRule, RULES_MAX, Rows};
pub use attribute::{ATTRIBUTES_MAX, Attribute, AttributeSource, RESERVED_BY_EVENTS, RESERVED_BY_QUERIES};
pub use claims::ClaimsUsed;
pub use clinical::{CLINICAL_FILES, clinical, clinical_with};
pub use finding::{Finding, Findings, Place};
pub use load::WEBHOOK_EVENTS;
pub use template::{BadTemplate, Template, TemplatePart};
pub use topic::{TopicMatch, TopicPattern};

/// A contract that was checked.
#[derive(Debug)]
pub struct Contract {
    /// A digest of all that it declares: equal on every node that loaded the same files.
    pub revision: u64,
    /// By name.
    pub streams: Vec<Arc<Stream>>,
    /// What GraphQL clients see of it.
    pub graph: Arc<Graph>,
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

impl Contract {
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
        let place = self
            .attributes
            .iter()
            .position(|attribute| attribute.name.as_str() == name)?;
        u16::try_from(place).ok().map(AttributeId)
    }
}

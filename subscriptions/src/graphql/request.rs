//! What comes in, and what it becomes.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use schemas::graph::Requires;
use schemas::ids::StreamName;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::projection::Projection;

/// A GraphQL request, as every transport carries it: `{"query", "operationName", "variables", "extensions"}`.
#[derive(Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// The document. None: a persisted one is meant.
    #[serde(default)]
    pub query: Option<String>,
    /// Which of the document's operations.
    #[serde(default)]
    pub operation_name: Option<String>,
    /// The variables' values.
    #[serde(default, deserialize_with = "map_or_null")]
    pub variables: Map<String, Value>,
    /// `after` (a cursor), `persistedQuery`, and whatever else clients and routers send; that is passed over.
    #[serde(default, deserialize_with = "map_or_null")]
    pub extensions: Map<String, Value>,
    /// The name of a trusted document.
    #[serde(default)]
    pub document_id: Option<String>,
}

/// `null` stands for nothing.
fn map_or_null<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Map<String, Value>, D::Error> {
    Ok(Option::<Map<String, Value>>::deserialize(deserializer)?.unwrap_or_default())
}

/// Never values: they may name a patient.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("query_bytes", &self.query.as_ref().map(String::len))
            .field("variables", &self.variables.len())
            .finish_non_exhaustive()
    }
}

/// What the operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperationKind {
    /// `query`.
    Query,
    /// `mutation`.
    Mutation,
    /// `subscription`.
    Subscription,
}

/// An operation that may run.
#[derive(Debug)]
pub enum Prepared {
    /// A query: the whole response as JSON text, `{"data":...}`, with `errors` where execution had some.
    Answer(Bytes),
    /// A subscription.
    Subscription(Box<Bound>),
}

/// A subscription with its variables bound.
#[derive(Clone)]
pub struct Bound {
    /// The stream.
    pub stream: StreamName,
    /// Attribute filters as the `where` of `tidewire.v1`: `{"patient": ["Patient/1"]}`. Whether they may be asked for is
    /// the grant's to say.
    pub filter: Map<String, Value>,
    /// From where: `extensions.after`, else the argument `after`.
    pub after: Option<String>,
    /// What of each event is shown.
    pub projection: Arc<Projection>,
    /// What its reader must hold to be shown that, now and after each renewal.
    pub requires: Arc<[Requires]>,
}

/// Never the filter's values.
impl fmt::Debug for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bound")
            .field("stream", &self.stream)
            .finish_non_exhaustive()
    }
}

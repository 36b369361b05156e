//! What an operation may cost. Each limit has a reaction: the operation is refused, with a code.

use std::collections::HashMap;
use std::sync::Arc;

/// How GraphQL is served.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Whether `__schema` and `__type` are answered. `__typename` always is.
    pub introspection: bool,
    /// What an operation may cost.
    pub limits: Limits,
    /// Documents that are known by name.
    pub persisted: Persisted,
}

/// What an operation may cost; beyond each it is refused with `operation_too_large`, but for `payload_bytes_max`.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The longest document, in bytes.
    pub document_bytes_max: usize,
    /// The most tokens (names, values and punctuation) in a document.
    pub tokens_max: usize,
    /// How deep selections may be nested, fragments spread.
    pub depth_max: usize,
    /// The most fields of an operation, fragments spread.
    pub complexity_max: usize,
    /// The most aliases of an operation, fragments spread.
    pub aliases_max: usize,
    /// The most directives of an operation, fragments spread.
    pub directives_max: usize,
    /// What variables may take, in bytes of JSON.
    pub variables_bytes_max: usize,
    /// The longest payload of one event, in bytes, roughly: aliases multiply what an event holds. Beyond it nothing of the
    /// event is given, and an error `data_too_large` says so.
    pub payload_bytes_max: usize,
    /// The most compiled operations that are kept.
    pub cached_operations_max: usize,
    /// What compiled operations may hold, in bytes, roughly. Beyond it those that were not asked for lately are dropped.
    pub cached_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            document_bytes_max: 64 << 10,
            tokens_max: 10_000,
            depth_max: 24,
            complexity_max: 1_000,
            aliases_max: 200,
            directives_max: 100,
            variables_bytes_max: 64 << 10,
            payload_bytes_max: 4 << 20,
            cached_operations_max: 2_000,
            cached_bytes_max: 32 << 20,
        }
    }
}

/// Documents that are known by name.
#[derive(Debug, Clone, Default)]
pub struct Persisted {
    /// Automatic persisted queries: a client may name a document by its SHA-256 once somebody has sent both.
    pub automatic: bool,
    /// Documents that the operator trusts, by name or SHA-256 (hexadecimal).
    pub trusted: Arc<HashMap<String, Arc<str>>>,
    /// Only trusted documents are run.
    pub only_trusted: bool,
}

//! Why an operation is refused, as GraphQL says it.

use std::borrow::Cow;
use std::fmt;

use schemas::problem::Code;
use serde::Serialize;

use crate::hub::Failure;

/// The most errors that one answer tells.
pub(super) const ERRORS_MAX: usize = 10;

/// The longest message, in bytes.
const MESSAGE_BYTES_MAX: usize = 300;

/// One entry of `errors`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GraphqlError {
    /// For people. Never data.
    pub message: String,
    /// Where in the document.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub locations: Vec<Location>,
    /// For programs.
    pub extensions: Extensions,
}

/// A place in a document, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Location {
    /// The line.
    pub line: usize,
    /// The character in the line.
    pub column: usize,
}

/// What programs read of an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Extensions {
    /// A stable code.
    pub code: Cow<'static, str>,
}

impl GraphqlError {
    /// An error without a place.
    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            message: cut(message.into()),
            locations: Vec::new(),
            extensions: Extensions {
                code: Cow::Borrowed(code),
            },
        }
    }

    /// The same at a place of the document.
    pub(super) fn at(mut self, place: async_graphql_parser::Pos) -> Self {
        self.locations.push(Location {
            line: place.line,
            column: place.column,
        });
        self
    }
}

/// A message that quotes a request stays small.
fn cut(mut message: String) -> String {
    if message.len() > MESSAGE_BYTES_MAX {
        let end = (0..=MESSAGE_BYTES_MAX)
            .rev()
            .find(|end| message.is_char_boundary(*end));
        message.truncate(end.unwrap_or(0));
        message.push_str("...");
    }
    message
}

/// A refused operation: nothing of it ran.
///
/// What GraphQL servers have a code for is told by that (`GRAPHQL_PARSE_FAILED`, `GRAPHQL_VALIDATION_FAILED`,
/// `BAD_USER_INPUT`, `PERSISTED_QUERY_NOT_FOUND`, ...); everything else by the code of [`schemas::problem`].
#[derive(Clone, PartialEq, Eq)]
pub struct Refused {
    /// At least one.
    pub errors: Vec<GraphqlError>,
    /// What the first is, among the codes of all surfaces.
    pub code: Code,
}

impl Refused {
    /// Refused for one reason.
    pub(super) fn new(code: Code, error: GraphqlError) -> Self {
        Self {
            errors: vec![error],
            code,
        }
    }

    /// Refused with a code of ours.
    pub(super) fn ours(code: Code, message: impl Into<String>) -> Self {
        Self::new(code, GraphqlError::new(code.name, message))
    }

    /// What the engine refuses, as GraphQL says it.
    #[must_use]
    pub fn from_failure(failure: &Failure) -> Self {
        // Details of our own failures are for operators.
        let message = if failure.detail.is_empty() || failure.code == Code::INTERNAL {
            failure.code.title.to_owned()
        } else {
            format!("{}: {}", failure.code.title, failure.detail)
        };
        Self::ours(failure.code, message)
    }

    /// What it holds in memory, roughly.
    pub(super) fn memory(&self) -> usize {
        let error = |error: &GraphqlError| size_of::<GraphqlError>() + error.message.len();
        size_of::<Self>() + self.errors.iter().map(error).sum::<usize>()
    }

    /// The value of `errors`, without line breaks.
    #[must_use]
    pub fn errors_json(&self) -> String {
        serde_json::to_string(&self.errors).unwrap_or_else(|_| "[]".to_owned())
    }
}

/// Codes only: messages may quote the request.
impl fmt::Debug for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let codes: Vec<&str> = self.errors.iter().map(|error| &*error.extensions.code).collect();
        f.debug_struct("Refused").field("codes", &codes).finish()
    }
}

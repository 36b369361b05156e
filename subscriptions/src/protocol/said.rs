//! What a server says beside frames, whatever the wire format.

use serde_json::Value;

use crate::graphql::Refused;
use crate::hub::Failure;

/// What a server says. `id` is a JSON string with its quotes.
#[derive(Debug, Clone, PartialEq)]
pub enum Said<'a> {
    /// The first message.
    Welcome {
        /// The session's id.
        session: &'a str,
        /// How often quiet progress is told.
        heartbeat_ms: u64,
        /// The limits that concern the client.
        limits: Value,
    },
    /// Credentials were accepted.
    Authorized {
        /// Until when.
        expires_at: &'a str,
    },
    /// A GraphQL connection may begin operations.
    Acknowledged,
    /// A subscription began.
    Subscribed {
        /// Which.
        id: &'a str,
        /// Where it begins.
        cursor: &'a str,
    },
    /// Quiet progress.
    Cursor {
        /// Which.
        id: &'a str,
        /// How far everything was given.
        cursor: &'a str,
    },
    /// A finished result of a GraphQL operation, after which it is complete.
    Answer {
        /// Which.
        id: &'a str,
        /// The result as JSON.
        payload: &'a [u8],
    },
    /// A GraphQL operation was refused, or cannot go on.
    Refused {
        /// Which.
        id: &'a str,
        /// GraphQL errors as a JSON array.
        errors: &'a str,
    },
    /// Kafka has not been reached for a while.
    Stale {
        /// Which.
        id: &'a str,
    },
    /// A subscription ended as asked.
    Unsubscribed {
        /// Which.
        id: &'a str,
    },
    /// A subscription ended.
    Completed {
        /// Which.
        id: &'a str,
        /// Why.
        failure: &'a Failure,
    },
    /// Something was refused.
    Error {
        /// Of which subscription.
        id: Option<&'a str>,
        /// What.
        failure: &'a Failure,
    },
    /// New credentials are needed.
    AuthRequired {
        /// By when.
        expires_at: &'a str,
    },
    /// The answer to `ping`.
    Pong {
        /// What the ping brought, as JSON.
        payload: Option<&'a str>,
    },
    /// The node goes away.
    Bye {
        /// When to come back.
        reconnect_after_ms: u64,
    },
}

/// What people are told of a failure.
#[must_use]
pub fn message(failure: &Failure) -> String {
    if failure.detail.is_empty() {
        failure.code.title.to_owned()
    } else {
        format!("{}: {}", failure.code.title, failure.detail)
    }
}

/// A failure as GraphQL errors: a JSON array of one.
#[must_use]
pub fn errors(failure: &Failure) -> String {
    Refused::from_failure(failure).errors_json()
}

//! GraphQL over server-sent events (the protocol of the npm package `graphql-sse`): `next` and `complete`, in distinct
//! connections mode with a bare result as data, in single connection mode with the operation's id around it.
//!
//! The cursor is the event's `id:`, so that `Last-Event-ID` resumes. `complete` keeps its empty `data:`: browsers drop
//! events without one.

use super::said::{self, Said};

/// Appends a result in distinct connections mode.
pub(super) fn next(cursor: Option<&str>, payload: &[u8], out: &mut Vec<u8>) {
    if let Some(cursor) = cursor {
        out.extend_from_slice(b"id: ");
        out.extend_from_slice(cursor.as_bytes());
        out.push(b'\n');
    }
    out.extend_from_slice(b"event: next\ndata: ");
    out.extend_from_slice(payload);
    out.extend_from_slice(b"\n\n");
}

/// Appends a result in single connection mode.
pub(super) fn next_of(id: &str, payload: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"event: next\ndata: {\"id\":");
    out.extend_from_slice(id.as_bytes());
    out.extend_from_slice(b",\"payload\":");
    out.extend_from_slice(payload);
    out.extend_from_slice(b"}\n\n");
}

/// Appends what is said in distinct connections mode.
pub(super) fn say(said: &Said<'_>, out: &mut Vec<u8>) {
    let errors = |errors: &str, out: &mut Vec<u8>| {
        next(None, format!(r#"{{"errors":{errors}}}"#).as_bytes(), out);
        out.extend_from_slice(b"event: complete\ndata:\n\n");
    };
    match said {
        // An id without data fires no event; whoever reads with EventSource keeps it.
        Said::Subscribed { cursor, .. } | Said::Cursor { cursor, .. } => {
            out.extend_from_slice(b"id: ");
            out.extend_from_slice(cursor.as_bytes());
            out.extend_from_slice(b"\n\n");
        }
        Said::Answer { payload, .. } => {
            next(None, payload, out);
            out.extend_from_slice(b"event: complete\ndata:\n\n");
        }
        Said::Refused { errors: text, .. } => errors(text, out),
        Said::Completed { failure, .. } | Said::Error { failure, .. } => errors(&said::errors(failure), out),
        // A response that ends without `complete` is asked for again: so ends a drain.
        Said::Bye { .. }
        | Said::Welcome { .. }
        | Said::Authorized { .. }
        | Said::Acknowledged
        | Said::Stale { .. }
        | Said::Unsubscribed { .. }
        | Said::AuthRequired { .. }
        | Said::Pong { .. } => {}
    }
}

/// Appends what is said in single connection mode.
pub(super) fn say_of(said: &Said<'_>, out: &mut Vec<u8>) {
    let complete = |id: &str, out: &mut Vec<u8>| {
        out.extend_from_slice(b"event: complete\ndata: {\"id\":");
        out.extend_from_slice(id.as_bytes());
        out.extend_from_slice(b"}\n\n");
    };
    let errors = |id: &str, errors: &str, out: &mut Vec<u8>| {
        next_of(id, format!(r#"{{"errors":{errors}}}"#).as_bytes(), out);
        complete(id, out);
    };
    match said {
        Said::Answer { id, payload } => {
            next_of(id, payload, out);
            complete(id, out);
        }
        Said::Refused { id, errors: text } => errors(id, text, out),
        Said::Completed { id, failure }
        | Said::Error {
            id: Some(id),
            failure,
        } => {
            errors(id, &said::errors(failure), out);
        }
        Said::Unsubscribed { id } => complete(id, out),
        Said::Welcome { .. }
        | Said::Authorized { .. }
        | Said::Acknowledged
        | Said::Subscribed { .. }
        | Said::Cursor { .. }
        | Said::Stale { .. }
        | Said::AuthRequired { .. }
        | Said::Error { id: None, .. }
        | Said::Pong { .. }
        | Said::Bye { .. } => {}
    }
}

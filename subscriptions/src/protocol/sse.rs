//! Server-sent events (WHATWG HTML, section 9.2). An event is the default `message` type; everything else is named.
//!
//! Bodies never have line breaks, so one `data:` line carries each.

use serde_json::json;

use super::said::{Said, message};
use super::{Frame, Kind};
use crate::hub::Failure;

/// Appends a frame.
pub fn render(frame: &Frame, out: &mut Vec<u8>) {
    match &frame.kind {
        Kind::Event { body, .. } => {
            out.extend_from_slice(b"id: ");
            out.extend_from_slice(frame.cursor.as_bytes());
            out.extend_from_slice(b"\ndata: ");
            out.extend_from_slice(body);
            out.extend_from_slice(b"\n\n");
        }
        Kind::Gap { partitions, .. } => {
            let data = format!(r#"{{"cursor":"{}","partitions":{partitions}}}"#, frame.cursor);
            named("gap", Some(&frame.cursor), &data, out);
        }
        Kind::Live => {
            named(
                "live",
                Some(&frame.cursor),
                &format!(r#"{{"cursor":"{}"}}"#, frame.cursor),
                out,
            );
        }
    }
}

/// Appends what is said.
pub(super) fn say(said: &Said<'_>, out: &mut Vec<u8>) {
    match said {
        Said::AuthRequired { expires_at } => {
            named(
                "auth_required",
                None,
                &json!({"expires_at": expires_at}).to_string(),
                out,
            );
        }
        Said::Stale { .. } => named("stale", None, "{}", out),
        Said::Bye { reconnect_after_ms } => {
            let data = json!({"reconnect_after_ms": reconnect_after_ms}).to_string();
            retry(*reconnect_after_ms, out);
            named("bye", None, &data, out);
        }
        Said::Completed { failure, .. } => {
            named(
                "completed",
                None,
                &json!({"reason": failure.code.name}).to_string(),
                out,
            );
        }
        Said::Subscribed { cursor, .. } | Said::Cursor { cursor, .. } => quiet(cursor, out),
        Said::Error { failure, .. } => problem(failure, out),
        // The rest has no place on an event stream: the response's head said it.
        Said::Welcome { .. }
        | Said::Authorized { .. }
        | Said::Acknowledged
        | Said::Answer { .. }
        | Said::Refused { .. }
        | Said::Unsubscribed { .. }
        | Said::Pong { .. } => {}
    }
}

/// Appends a problem, after which the response ends. (`error` is a name that EventSource keeps for itself.)
fn problem(failure: &Failure, out: &mut Vec<u8>) {
    let data = json!({
        "type": format!("urn:tidewire:problem:{}", failure.code.name),
        "title": failure.code.title,
        "status": failure.code.status,
        "code": failure.code.name,
        "detail": message(failure),
        "retry": failure.code.retry,
    });
    named("problem", None, &data.to_string(), out);
}

/// Appends a named event. `data` is JSON without line breaks.
pub fn named(event: &str, cursor: Option<&str>, data: &str, out: &mut Vec<u8>) {
    if let Some(cursor) = cursor {
        out.extend_from_slice(b"id: ");
        out.extend_from_slice(cursor.as_bytes());
        out.push(b'\n');
    }
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(event.as_bytes());
    out.extend_from_slice(b"\ndata: ");
    out.extend_from_slice(data.as_bytes());
    out.extend_from_slice(b"\n\n");
}

/// Appends quiet progress: the browser keeps the id although no event fires.
pub fn quiet(cursor: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"id: ");
    out.extend_from_slice(cursor.as_bytes());
    out.extend_from_slice(b"\n\n");
}

/// Appends a comment, which keeps intermediaries from closing a quiet connection.
pub fn comment(out: &mut Vec<u8>) {
    out.extend_from_slice(b":\n\n");
}

/// Appends the reconnection time.
pub fn retry(milliseconds: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("retry: {milliseconds}\n\n").as_bytes());
}

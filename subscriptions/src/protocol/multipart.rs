//! GraphQL in a multipart response (`multipart/mixed;boundary="graphql";subscriptionSpec=1.0`).
//!
//! Invariant: the bytes so far always end with a boundary: clients take a part when they see the boundary after it, so
//! one that came late would hold every result until the next.

use super::said::{self, Said};

/// The boundary of every response.
pub const BOUNDARY: &str = "graphql";

/// What a response begins with.
pub(crate) fn begin(out: &mut Vec<u8>) {
    out.extend_from_slice(b"--graphql");
}

/// Appends a result.
pub(super) fn part(payload: &[u8], out: &mut Vec<u8>) {
    raw(&[b"{\"payload\":", payload, b"}"], out);
}

/// Appends a heartbeat.
pub(super) fn heartbeat(out: &mut Vec<u8>) {
    raw(&[b"{}"], out);
}

/// Appends what is said.
pub(super) fn say(said: &Said<'_>, out: &mut Vec<u8>) {
    match said {
        Said::Answer { payload, .. } => {
            part(payload, out);
            end(out);
        }
        // Errors of the operation are a result; errors of the transport stand beside it.
        Said::Refused { errors, .. } => {
            part(format!(r#"{{"errors":{errors}}}"#).as_bytes(), out);
            end(out);
        }
        Said::Completed { failure, .. } | Said::Error { failure, .. } => fatal(&said::errors(failure), out),
        Said::Bye { .. } => {
            let failure = crate::hub::Failure::new(schemas::problem::Code::DRAINING, "");
            fatal(&said::errors(&failure), out);
        }
        Said::Welcome { .. }
        | Said::Authorized { .. }
        | Said::Acknowledged
        | Said::Subscribed { .. }
        | Said::Cursor { .. }
        | Said::Stale { .. }
        | Said::Unsubscribed { .. }
        | Said::AuthRequired { .. }
        | Said::Pong { .. } => {}
    }
}

fn fatal(errors: &str, out: &mut Vec<u8>) {
    raw(&[b"{\"payload\":null,\"errors\":", errors.as_bytes(), b"}"], out);
    end(out);
}

fn raw(body: &[&[u8]], out: &mut Vec<u8>) {
    out.extend_from_slice(b"\r\nContent-Type: application/json\r\n\r\n");
    for piece in body {
        out.extend_from_slice(piece);
    }
    out.extend_from_slice(b"\r\n--graphql");
}

fn end(out: &mut Vec<u8>) {
    out.extend_from_slice(b"--\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_is_followed_by_its_boundary_at_once() {
        let mut out = Vec::new();
        begin(&mut out);
        part(br#"{"data":{"a":1}}"#, &mut out);
        assert!(out.ends_with(b"}\r\n--graphql"));
        heartbeat(&mut out);
        let failure = crate::hub::Failure::new(schemas::problem::Code::TOKEN_EXPIRED, "");
        say(
            &Said::Error {
                id: None,
                failure: &failure,
            },
            &mut out,
        );
        let text = String::from_utf8(out).unwrap();
        let parts: Vec<&str> = text.split("--graphql").collect();
        assert_eq!(parts.len(), 5, "{text}");
        assert!(parts[1].contains(r#"{"payload":{"data":{"a":1}}}"#));
        assert!(parts[2].ends_with("{}\r\n"));
        assert!(parts[3].contains(r#"{"payload":null,"errors":[{"#));
        assert_eq!(parts[4], "--\r\n");
    }
}

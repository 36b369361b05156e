//! Results line by line, for the task that posts them to a router's callback: each line is a result, and the last one
//! may be `{"complete":true}`, with `errors` where the operation failed. Results never have line breaks.

use super::said::{self, Said};

/// Appends a result.
pub(super) fn line(payload: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(payload);
    out.push(b'\n');
}

/// Appends what is said.
pub(super) fn say(said: &Said<'_>, out: &mut Vec<u8>) {
    let complete = |errors: &str, out: &mut Vec<u8>| {
        line(
            format!(r#"{{"complete":true,"errors":{errors}}}"#).as_bytes(),
            out,
        );
    };
    match said {
        Said::Answer { payload, .. } => {
            line(payload, out);
            line(br#"{"complete":true}"#, out);
        }
        Said::Refused { errors, .. } => complete(errors, out),
        Said::Completed { failure, .. } | Said::Error { failure, .. } => {
            complete(&said::errors(failure), out);
        }
        Said::Bye { .. } => {
            let failure = crate::hub::Failure::new(schemas::problem::Code::DRAINING, "");
            complete(&said::errors(&failure), out);
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

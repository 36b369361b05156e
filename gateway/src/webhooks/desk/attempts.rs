//! The log of attempts, as partners look at it.
//!
//! Invariant: bodies are shown only where they were kept, and only to who is shown at least as much by its own token as the
//! endpoint's owner is: the request's body is the event.

use auth::token::Principal;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schemas::ids::TenantId;
use schemas::problem::Code;
use serde_json::{Value, json};
use ulid::Ulid;
use webhooks::store::{Attempt, AttemptFilter, Body};

use super::{Desk, Refusal};

/// The bodies of one attempt.
#[derive(Debug)]
pub(crate) enum Shown {
    /// They are on record.
    Kept {
        request: Value,
        /// `null`: there was no answer.
        answer: Value,
    },
    /// They are on record, and not for this token.
    Withheld,
    /// They are not.
    None,
}

impl Desk {
    /// A page of the log of attempts, the latest first, and whether more follow.
    pub(crate) async fn attempts(
        &self,
        tenant: &TenantId,
        filter: &AttemptFilter,
        limit: usize,
    ) -> Result<(Vec<Attempt>, bool), Refusal> {
        let mut page = self.store.attempts(tenant, filter, limit + 1).await?;
        let has_more = page.len() > limit;
        page.truncate(limit);
        Ok((page, has_more))
    }

    /// One attempt, with what it sent and what was answered where that was kept.
    pub(crate) async fn attempt(&self, principal: &Principal, id: Ulid) -> Result<(Attempt, Shown), Refusal> {
        let tenant = &principal.tenant;
        let not_found = || Refusal::new(Code::NOT_FOUND, "");
        let attempt = self.store.attempt(tenant, id).await?.ok_or_else(not_found)?;
        let Some((request, answer)) = self.store.bodies(tenant, &attempt.endpoint, id).await? else {
            return Ok((attempt, Shown::None));
        };
        // Who owned an endpoint that is gone nobody knows any more.
        let owner = self.store.endpoint(tenant, &attempt.endpoint).await?;
        let may = match (&owner, &attempt.place) {
            (Some(kept), Some((stream, _))) => self
                .covers(principal, &kept.endpoint.owner, std::slice::from_ref(stream))
                .is_ok(),
            _ => false,
        };
        if !may {
            return Ok((attempt, Shown::Withheld));
        }
        let shown = Shown::Kept {
            request: body(&request),
            answer: answer.as_ref().map_or(Value::Null, body),
        };
        Ok((attempt, shown))
    }
}

/// A body as text, or in base64 where it is none.
fn body(body: &Body) -> Value {
    let mut shown = json!({ "bytes": body.bytes, "cut": body.is_cut() });
    // A text may have been cut within a character.
    let text = match std::str::from_utf8(&body.kept) {
        Ok(text) => Some(text),
        Err(error) if error.error_len().is_none() && body.is_cut() => body
            .kept
            .get(..error.valid_up_to())
            .and_then(|whole| std::str::from_utf8(whole).ok()),
        Err(_) => None,
    };
    match text {
        Some(text) => shown["text"] = json!(text),
        None => shown["base64"] = json!(STANDARD.encode(&body.kept)),
    }
    shown
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_body_is_text_where_it_can_be_and_says_what_is_missing() {
        let of =
            |bytes: &'static [u8], kept_max| body(&Body::beginning(&Bytes::from_static(bytes), kept_max));
        assert_eq!(of(b"{}", 9), json!({"bytes": 2, "cut": false, "text": "{}"}));
        assert_eq!(
            of("a\u{e9}b".as_bytes(), 2),
            json!({"bytes": 4, "cut": true, "text": "a"})
        );
        assert_eq!(
            of(b"\xff\x00", 9),
            json!({"bytes": 2, "cut": false, "base64": "/wA="})
        );
        let unread = Body {
            kept: Bytes::from_static(b"ok"),
            bytes: None,
        };
        assert_eq!(body(&unread), json!({"bytes": null, "cut": true, "text": "ok"}));
    }
}

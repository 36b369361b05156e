//! The log of attempts, as partners look at it.
//!
//! Invariant: of what was sent only that is shown which the token would be sent now, byte for byte. The event is read again
//! from Kafka and rendered under the grant of whoever asks: what consent, contract or scopes hide by now is withheld, and so
//! is what cannot be judged any more. What was answered is shown to nobody else.

use auth::token::Principal;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schemas::ids::TenantId;
use schemas::problem::Code;
use serde_json::{Value, json};
use ulid::Ulid;
use webhooks::matching::{Interest, Start, Wanted};
use webhooks::render::{ContentMode, render};
use webhooks::store::{Attempt, AttemptFilter, Body};

use super::{Desk, Refusal};

/// The bodies of one attempt.
pub(crate) enum Shown {
    /// They are on record, and the token may see them.
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
        // What was kept while it was switched on is not shown any more once it is switched off.
        if self.settings.attempt_body_bytes_max == 0 {
            return Ok((attempt, Shown::None));
        }
        let Some((request, answer)) = self.store.bodies(tenant, &attempt.endpoint, id).await? else {
            return Ok((attempt, Shown::None));
        };
        if !self.would_be_sent_now(principal, &attempt, &request).await? {
            return Ok((attempt, Shown::Withheld));
        }
        tracing::info!(
            target: "tidewire::audit", action = "bodies_read", endpoint = %attempt.endpoint, %tenant,
            "the bodies of an attempt were read"
        );
        let shown = Shown::Kept {
            request: body(&request),
            answer: answer.as_ref().map_or(Value::Null, body),
        };
        Ok((attempt, shown))
    }

    /// Whether a body is what this token would be sent of the event now, in some form.
    async fn would_be_sent_now(
        &self,
        principal: &Principal,
        attempt: &Attempt,
        sent: &Body,
    ) -> Result<bool, Refusal> {
        let Some((name, position)) = &attempt.place else {
            return Ok(false);
        };
        let (Some(stream), Ok(principal)) =
            (self.contract.stream(name.as_str()), self.control.admit(principal))
        else {
            return Ok(false);
        };
        let everything = Wanted::default();
        let interest = Interest::compile(
            &attempt.endpoint,
            &everything,
            Start::default(),
            stream,
            &principal,
        );
        let (Ok(interest), Some(event)) = (interest, self.logs.event(stream, position).await?) else {
            return Ok(false);
        };
        let Some(mask) = interest.shows(&event, self.clock.now_ms()) else {
            return Ok(false);
        };
        Ok(ContentMode::ALL.into_iter().any(|mode| {
            let now = render(&event, &mask, mode).body;
            u64::try_from(now.len()).ok() == sent.bytes && now.starts_with(&sent.kept)
        }))
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
        let of = |bytes: &'static [u8], kept_max| body(&Body::beginning(bytes, kept_max));
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

//! Whether a receiver agrees to be called: CloudEvents' abuse protection (HTTP 1.1 Web Hooks for Event Delivery, section 4).
//!
//! Invariant: a status alone is no consent; only `WebHook-Allowed-Origin` that names us or everybody is. What is agreed is
//! for one URL.

use std::time::Duration;

use auth::egress::{EgressError, Request, SendBounds};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use schemas::ids::TenantId;
use schemas::problem::Code;
use webhooks::delivery::EndpointId;
use webhooks::endpoint::{Endpoint, Status};

use super::{Condition, Desk, Refusal};

const REQUEST_ORIGIN: HeaderName = HeaderName::from_static("webhook-request-origin");
const REQUEST_RATE: HeaderName = HeaderName::from_static("webhook-request-rate");
const ALLOWED_ORIGIN: HeaderName = HeaderName::from_static("webhook-allowed-origin");
const ALLOWED_RATE: HeaderName = HeaderName::from_static("webhook-allowed-rate");

/// Somebody waits for the answer to a request of their own: not longer than that, whatever the endpoint's timeout is.
const DEADLINE_MAX: Duration = Duration::from_secs(10);

/// What came of it.
#[derive(Debug)]
pub(crate) struct Asked {
    /// The endpoint, as it is now.
    pub(crate) endpoint: Endpoint,
    /// `agreed`, `refused`, `rate_too_low`, or the class of the failure.
    pub(crate) outcome: &'static str,
    /// The answer's status, if there was one.
    pub(crate) status: Option<u16>,
}

impl Desk {
    /// Asks an endpoint's receiver once more.
    pub(crate) async fn handshake(&self, tenant: &TenantId, id: &EndpointId) -> Result<Asked, Refusal> {
        let kept = self.find(tenant, id).await?;
        if kept.endpoint.status != Status::Pending {
            return Err(Refusal::new(
                Code::HANDSHAKE_NOT_PENDING,
                format!("it is {}", kept.endpoint.status.as_str()),
            ));
        }
        self.admit_call(id)?;
        self.ask(kept.endpoint).await
    }

    /// Asks the receiver of an endpoint that waits for its consent.
    pub(super) async fn ask(&self, endpoint: Endpoint) -> Result<Asked, Refusal> {
        let reply = self.options(&endpoint).await;
        let (outcome, status) = match reply {
            Ok((status, headers)) => (agreed(status, &headers, &self.settings.origin), Some(status)),
            Err(error) => (Err(error.class()), None),
        };
        let rate = match outcome {
            Ok(rate) => rate,
            Err(outcome) => {
                return Ok(Asked {
                    endpoint,
                    outcome,
                    status,
                });
            }
        };
        let now_ms = self.clock.now_ms();
        let agree = |current: &mut Endpoint| {
            // It was asked for the URL of then.
            if current.spec.url != endpoint.spec.url {
                return Err(Refusal::new(Code::PRECONDITION_FAILED, ""));
            }
            current.agree(rate, now_ms);
            Ok(())
        };
        let (tenant, id) = (&endpoint.tenant, &endpoint.id);
        let (endpoint, ()) = self.change(tenant, id, &Condition::None, agree).await?;
        self.record("agreed", &endpoint.tenant, &endpoint.id).await;
        Ok(Asked {
            endpoint,
            outcome: "agreed",
            status,
        })
    }

    async fn options(&self, endpoint: &Endpoint) -> Result<(u16, HeaderMap), EgressError> {
        let client = self.clients.of(endpoint)?;
        let mut headers = HeaderMap::new();
        if let Ok(origin) = HeaderValue::try_from(&self.settings.origin) {
            headers.insert(REQUEST_ORIGIN, origin);
        }
        if let Some(rate) = endpoint.spec.rate_per_second {
            headers.insert(REQUEST_RATE, HeaderValue::from(u64::from(rate) * 60));
        }
        let request = Request {
            method: Method::OPTIONS,
            url: &endpoint.spec.url,
            headers,
            body: "".into(),
        };
        let bounds = SendBounds {
            deadline: endpoint.spec.timeout.min(DEADLINE_MAX),
            body_deadline: Duration::from_secs(1),
            body_bytes_max: 1024,
        };
        let reply = client.send(request, bounds).await?;
        Ok((reply.status, reply.headers))
    }
}

/// The rate that a receiver allows, in attempts a second (`None`: any), or the word for why that is no consent.
fn agreed(status: u16, headers: &HeaderMap, origin: &str) -> Result<Option<u32>, &'static str> {
    let text = |name: &HeaderName| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .map(str::trim)
    };
    let is_allowed =
        text(&ALLOWED_ORIGIN).is_some_and(|allowed| allowed == "*" || allowed.eq_ignore_ascii_case(origin));
    if !(200..300).contains(&status) || !is_allowed {
        return Err("refused");
    }
    match text(&ALLOWED_RATE) {
        // The specification wants it where a rate was asked for; who does not say one agrees to ours.
        None | Some("*") => Ok(None),
        Some(rate) => match rate.parse::<u32>() {
            // Requests a minute. Less than one a second is nothing that we can keep to.
            Ok(a_minute @ 60..) => Ok(Some(a_minute / 60)),
            Ok(_) => Err("rate_too_low"),
            Err(_) => Err("refused"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_names_us_or_everybody_agrees() {
        let answer = |status: u16, origin: &str, rate: &str| {
            let mut headers = HeaderMap::new();
            for (name, value) in [(ALLOWED_ORIGIN, origin), (ALLOWED_RATE, rate)] {
                if !value.is_empty() {
                    headers.insert(name, value.parse().expect("a value"));
                }
            }
            agreed(status, &headers, "gateway.example")
        };
        assert_eq!(answer(200, "gateway.example", ""), Ok(None));
        assert_eq!(answer(204, "*", "*"), Ok(None));
        assert_eq!(answer(200, "*", "150"), Ok(Some(2)));
        assert_eq!(answer(200, "*", "59"), Err("rate_too_low"));
        assert_eq!(answer(200, "*", "many"), Err("refused"));
        for (status, origin) in [
            (200, ""),
            (200, "other.example"),
            (301, "*"),
            (405, "*"),
            (500, "gateway.example"),
        ] {
            assert_eq!(answer(status, origin, "*"), Err("refused"), "{status} {origin}");
        }
    }
}

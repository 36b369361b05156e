//! A test that somebody asks for: one POST of an event that says that it is none.
//!
//! Invariant: it goes the way of a delivery (the same guard, signatures, headers and deadline), and of the answer nothing is
//! told but its status: the body would be a way to read what is behind a firewall.

use schemas::ids::TenantId;
use schemas::problem::Code;
use serde_json::{Value, json};
use webhooks::attempt::{self, Outgoing};
use webhooks::delivery::{DeliveryId, EndpointId};
use webhooks::endpoint::Status;
use webhooks::render;

use super::{Desk, Refusal};

impl Desk {
    /// Sends a test to an endpoint, disabled or not. One that has not agreed to be called is not.
    pub(crate) async fn test(
        &self,
        tenant: &TenantId,
        id: &EndpointId,
        stream: Option<&str>,
    ) -> Result<Value, Refusal> {
        let endpoint = self.find(tenant, id).await?.endpoint;
        if let Some(name) = stream {
            self.stream_of(&endpoint, name, "/stream")?;
        }
        if endpoint.status == Status::Pending || endpoint.must_ask() {
            return Err(Refusal::new(Code::ENDPOINT_PENDING, ""));
        }
        self.admit_call(id)?;
        let delivery = DeliveryId::test();
        let answer = |outcome: &str, status: Option<u16>, latency_ms: u128| {
            json!({
                "delivery": delivery.as_str(), "outcome": outcome, "status": status, "latency_ms": latency_ms,
            })
        };
        let client = match self.clients.of(&endpoint) {
            Ok(client) => client,
            Err(error) => return Ok(answer(error.class(), None, 0)),
        };
        let Ok(token) = self.clients.token(&endpoint).await else {
            return Ok(answer("credentials", None, 0));
        };
        let source = format!("/v1/webhooks/endpoints/{id}");
        let now_ms = self.clock.now_ms();
        let rendered = render::test(delivery.as_str(), &source, now_ms, stream, endpoint.spec.content);
        let outgoing = Outgoing {
            endpoint: &endpoint,
            delivery: &delivery,
            number: 1,
            rendered,
            position: None,
            dead_lettered: None,
            token: token.as_ref(),
        };
        let report = attempt::post(&client, outgoing, &self.signer, self.clock).await;
        tracing::info!(target: "tidewire::audit", action = "tested", endpoint = %id, %tenant, "an endpoint was called");
        Ok(answer(report.word, report.status, report.latency.as_millis()))
    }
}

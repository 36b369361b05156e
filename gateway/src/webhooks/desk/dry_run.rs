//! A dry run: which of the last events would be sent to an endpoint, and what.
//!
//! Invariant: whoever asks is shown by its own token all that the dry run shows. Of other tenants' events nothing is told,
//! not even how many there are. Nothing is sent and nothing is signed.

use auth::token::Principal;
use schemas::problem::Code;
use serde_json::{Map, Value, json};
use webhooks::delivery::EndpointId;
use webhooks::endpoint::{Owner, Spec};
use webhooks::matching::{Interest, Start, Wanted};
use webhooks::render::{Rendered, render};

use super::endpoints::under;
use super::{Desk, Refusal, forbidden};

/// The most events that are looked at.
pub(crate) const DRY_RUN_EVENTS_MAX: usize = 100;

/// The most bytes of bodies that are answered; of further deliveries only the headers are.
const BODIES_BYTES_MAX: usize = 1 << 20;

impl Desk {
    /// What would be sent to an endpoint of these many latest events of one of its streams.
    pub(crate) async fn dry_run(
        &self,
        principal: &Principal,
        id: &EndpointId,
        stream: Option<&str>,
        events: usize,
    ) -> Result<Value, Refusal> {
        let endpoint = self.find(&principal.tenant, id).await?.endpoint;
        let stream = self.named_or_only(&endpoint, stream, "/stream")?;
        self.covers(principal, &endpoint.owner, std::slice::from_ref(&stream.name))?;
        self.would_be_sent(id, &endpoint.spec, &endpoint.owner, stream.name.as_str(), events)
            .await
    }

    /// The same for an endpoint that does not exist, on behalf of whoever asks.
    pub(crate) async fn dry_run_of(
        &self,
        principal: &Principal,
        specification: &Value,
        stream: Option<&str>,
        events: usize,
    ) -> Result<Value, Refusal> {
        const PREFIX: &str = "/specification";
        let id = EndpointId::generate();
        let spec = Spec::parse(specification, self.reach(&principal.tenant));
        let spec = spec.map_err(|fields| under(PREFIX, fields))?;
        let owner = self.owner(principal);
        spec.interests(&id, &Start::default(), &self.contract, &owner)
            .map_err(|field| under(PREFIX, vec![field]))?;
        let name = match (stream, spec.streams.as_slice()) {
            (Some(name), names) if names.iter().any(|have| have.as_str() == name) => name.to_owned(),
            (None, [only]) => only.to_string(),
            _ => {
                let detail = "one of the specification's streams is wanted";
                return Err(Refusal::field(Code::FIELD_INVALID, "/stream", detail));
            }
        };
        self.would_be_sent(&id, &spec, &owner, &name, events).await
    }

    async fn would_be_sent(
        &self,
        id: &EndpointId,
        spec: &Spec,
        owner: &Owner,
        stream: &str,
        events: usize,
    ) -> Result<Value, Refusal> {
        let stream = self.contract.stream(stream);
        let stream = stream.ok_or_else(|| Refusal::field(Code::STREAM_FORBIDDEN, "/stream", ""))?;
        // Consent that was withdrawn hides here what it hides there.
        let principal = self.control.admit(&owner.principal()).map_err(|bad| {
            Refusal::new(
                Code::STREAM_FORBIDDEN,
                format!("its owner may have nothing: {}", bad.detail),
            )
        })?;
        let compile = |wanted: &Wanted| {
            // Events from before it was made are looked at as well.
            let interest = Interest::compile(id, wanted, Start::default(), stream, &principal);
            interest.map_err(|bad| match bad.code {
                Code::STREAM_FORBIDDEN => forbidden(&stream.name, "/stream"),
                code => Refusal::new(code, bad.detail),
            })
        };
        let everything = compile(&Wanted::default())?;
        let wanted = compile(&Wanted {
            types: spec.types.clone(),
            filter: spec.filter.clone(),
        })?;
        let now_ms = self.clock.now_ms();
        let (mut shown, mut room) = (0_usize, BODIES_BYTES_MAX);
        let mut deliveries = Vec::new();
        for (event, position) in self.logs.last(stream, &owner.tenant, events).await? {
            if everything.shows(&event, now_ms).is_some() {
                shown += 1;
            }
            if let Some(mask) = wanted.shows(&event, now_ms) {
                let rendered = render(&event, &mask, spec.content);
                let body = room >= rendered.body.len();
                room -= if body { rendered.body.len() } else { 0 };
                let delivery = self.ids.of(id, &stream.name, &position);
                deliveries.push(shown_delivery(delivery.as_str(), spec, &rendered, body));
            }
        }
        Ok(json!({
            "stream": stream.name.as_str(),
            "events": shown,
            "matched": deliveries.len(),
            "deliveries": deliveries,
        }))
    }
}

/// What would be sent: the headers but for the time, signatures and credentials, and the body.
fn shown_delivery(delivery: &str, spec: &Spec, rendered: &Rendered, has_body: bool) -> Value {
    let mut headers = Map::new();
    let all = spec.headers.iter().chain(&rendered.headers);
    for (name, value) in all {
        headers.insert(
            name.as_str().to_owned(),
            json!(value.to_str().unwrap_or_default()),
        );
    }
    headers.insert("webhook-id".to_owned(), json!(delivery));
    let body = std::str::from_utf8(&rendered.body).ok();
    json!({
        "headers": headers,
        "bytes": rendered.body.len(),
        "body": body.filter(|_| has_body),
    })
}

//! The demo's partner: makes the endpoints at which its receiver is called, at the desk that the REST API asks, on behalf of
//! a system that may read the stream.
//!
//! Invariant: each hospital has one endpoint of the demo's at most. What earlier runs left in the store, known by its
//! metadata, is removed first, and with it what was parked: its port is somebody else's now, and its secret was told once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use auth::clock::Clock;
use auth::dev::ISSUER;
use auth::token::Principal;
use schemas::contract::{Rows, Stream};
use schemas::ids::TenantId;
use secrecy::SecretString;
use serde_json::{Value, json};
use webhooks::delivery::EndpointId;

use super::receiver::Reception;
use super::receiver::inbox::Destination;
use super::script::TENANTS;
use crate::webhooks::desk::{Condition, Desk, Refusal};

/// What is sent to the receiver of each hospital: one of each, so that a person sees both.
const CONTENT: [&str; 2] = ["structured", "thin"];
/// By this member of its metadata an endpoint of the demo's is known.
const MARK: (&str, &str) = ("tidewire-demo", "receiver");
/// Short at first, for people who watch; five minutes in all before a delivery is given up.
const RETRY_SECONDS: [u64; 16] = [1, 1, 2, 2, 3, 3, 5, 5, 10, 10, 20, 30, 45, 60, 60, 60];
/// Endpoints of a page, when earlier ones are looked for.
const PAGE: usize = 100;
/// How long to wait for Kafka between two tries.
const TRY_AGAIN: Duration = Duration::from_millis(250);
/// How often is looked at what is parked.
const LOOK: Duration = Duration::from_millis(500);

/// Makes the endpoints as soon as Kafka answers, tells the receiver their secrets, and then, without end, what is parked
/// for them.
pub(crate) async fn run(desk: Arc<Desk>, stream: Arc<Stream>, reception: Arc<Reception>) {
    let mut made = Vec::new();
    for (name, content) in TENANTS.iter().zip(CONTENT) {
        let tenant = TenantId::parse(name).expect("demo: a tenant's name is valid");
        let endpoint = make(&desk, &stream, &reception, &tenant, content).await;
        made.extend(endpoint.map(|id| (tenant, id)));
    }
    let mut looks = tokio::time::interval(LOOK);
    loop {
        looks.tick().await;
        for (tenant, id) in &made {
            if let Ok(backlog) = desk.store.backlog(id).await {
                reception.tell_parked(tenant.as_str(), backlog.count);
            }
        }
    }
}

/// Makes a hospital's endpoint, again until it works; `None` where that is of no use.
async fn make(
    desk: &Desk,
    stream: &Stream,
    reception: &Reception,
    tenant: &TenantId,
    content: &'static str,
) -> Option<EndpointId> {
    let principal = principal(tenant, stream);
    let wanted = json!({
        "url": format!("{}/{tenant}", reception.url()),
        "streams": [stream.name.as_str()],
        "content": content,
        "retry_seconds": RETRY_SECONDS,
        "description": "the demo's own receiver; made anew at each start",
        "metadata": { MARK.0: MARK.1 },
    });
    let endpoint = loop {
        match replace(desk, &principal, &wanted).await {
            Ok(endpoint) => break endpoint,
            Err(refusal) if refusal.code.retry => tokio::time::sleep(TRY_AGAIN).await,
            Err(refusal) => {
                let (code, detail) = (refusal.code.name, refusal.detail);
                tracing::warn!(%tenant, code, detail, "the demo's receiver has no endpoint");
                return None;
            }
        }
    };
    let to = Destination {
        tenant: tenant.clone(),
        content,
    };
    let secret = endpoint.shown["secret"].as_str().unwrap_or_default();
    if let Err(error) = reception.know(tenant.as_str(), to, &SecretString::from(secret)) {
        tracing::warn!(%tenant, %error, "the demo's receiver has no secret");
    }
    Some(endpoint.id)
}

struct Made {
    id: EndpointId,
    /// As whoever made it is told, this once.
    shown: Value,
}

/// Removes what earlier runs left, and makes an endpoint.
async fn replace(desk: &Desk, principal: &Principal, wanted: &Value) -> Result<Made, Refusal> {
    let tenant = &principal.tenant;
    let mut after = None;
    loop {
        let (page, has_more) = desk.list(tenant, after.as_ref(), PAGE).await?;
        for kept in &page {
            let mark = kept.endpoint.spec.metadata.get(MARK.0);
            if mark.is_some_and(|mark| mark == MARK.1) {
                desk.delete(tenant, &kept.endpoint.id, &Condition::None).await?;
            }
        }
        after = page.last().map(|kept| kept.endpoint.id.clone());
        if !has_more {
            break;
        }
    }
    let made = desk.create(principal, wanted, None).await?.endpoint;
    Ok(Made {
        shown: made.to_json_with_secrets(),
        id: made.id,
    })
}

/// A system of the hospital's, with the scopes that give it the whole stream: those of people are left aside where there are
/// others, since a person's endpoint ends one day.
fn principal(tenant: &TenantId, stream: &Stream) -> Principal {
    let rules = stream.access.iter().filter(|rule| rule.rows == Rows::Tenant);
    let scopes: Vec<String> = rules.flat_map(|rule| rule.scopes.clone()).collect();
    let (people, systems): (Vec<String>, Vec<String>) =
        scopes.into_iter().partition(|scope| scope.starts_with("user/"));
    let now_ms = Clock::System.now_ms();
    Principal {
        issuer: Arc::from(ISSUER),
        subject: Arc::from("demo-partner"),
        tenant: tenant.clone(),
        scopes: if systems.is_empty() { people } else { systems },
        claims: BTreeMap::new(),
        token_id: None,
        issued_at_ms: Some(now_ms),
        expires_at_ms: i64::MAX,
        application: None,
        denials: Arc::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_partner_is_a_system_that_may_have_the_stream() {
        let contract = schemas::contract::clinical();
        let stream = contract.stream("observations").expect("the stream");
        let tenant = TenantId::parse("north").expect("a tenant");
        let principal = principal(&tenant, stream);
        assert_eq!(principal.scopes, ["system/Observation.rs"]);
        assert!(auth::access::Grant::compile(stream, &principal).is_ok());
    }
}

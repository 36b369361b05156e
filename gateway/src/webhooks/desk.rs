//! What the REST API of webhooks asks: everything about endpoints, deliveries and replays that is not HTTP.
//!
//! Invariants: an endpoint is only ever reached through its tenant. A secret is in an answer only where it was just made.
//! Every change is on record (an audit line with action, endpoint and tenant), and the registries are poked to look at it.
//! Who decides where an endpoint's deliveries go, or what goes out, is shown at least as much by its own token.

pub(crate) mod attempts;
mod cursor;
mod dry_run;
mod endpoints;
mod handshake;
mod health;
mod pace;
mod replays;
mod test_event;

use std::sync::Arc;
use std::time::Duration;

use auth::access::Grant;
use auth::clock::Clock;
use auth::control::Control;
use auth::egress::Reach;
use auth::token::Principal;
use schemas::contract::{Contract, Stream};
use schemas::cursor::Sealer;
use schemas::ids::{StreamName, TenantId};
use schemas::problem::Code;
use serde_json::Value;
use tokio::sync::watch;
use webhooks::delivery::{DeliveryIds, EndpointId};
use webhooks::endpoint::{Endpoint, Invalid, Owner};
use webhooks::sign::MessageSigner;
use webhooks::store::{Kept, Store, StoreError};

use super::clients::Clients;
use super::registry::Registry;
use crate::kafka::{Logs, Unavailable};

pub(crate) use dry_run::DRY_RUN_EVENTS_MAX;
pub(crate) use replays::Wish;

/// How often a change is tried again where somebody else was quicker.
const CHANGES_MAX: usize = 4;

/// What the API stands on.
pub(crate) struct Desk {
    /// Endpoints, what is parked, and the log of attempts.
    pub(crate) store: Arc<Store>,
    /// The streams.
    pub(crate) contract: Arc<Contract>,
    /// What Kafka has.
    pub(crate) logs: Arc<Logs>,
    /// The gateway's own keys.
    pub(crate) signer: Arc<MessageSigner>,
    /// The ways out.
    pub(crate) clients: Arc<Clients>,
    /// Who is revoked, and whose consent was withdrawn.
    pub(crate) control: Control,
    /// Makes the ids of deliveries.
    pub(crate) ids: Arc<DeliveryIds>,
    /// Seals and opens cursors.
    pub(crate) sealer: Sealer,
    /// The time of day.
    pub(crate) clock: Clock,
    /// Limits and defaults.
    pub(crate) settings: DeskSettings,
    /// Counts changes: this node's registry looks at once.
    pub(crate) changed: watch::Sender<u64>,
    /// What this node knows of endpoints, where it delivers.
    pub(crate) registry: Option<Arc<Registry>>,
    /// Tells operational events.
    pub(crate) announce: Announce,
    /// How often what may be asked for.
    pub(crate) paces: Paces,
}

/// Limits and defaults.
pub(crate) struct DeskSettings {
    /// The most endpoints of one tenant.
    pub(crate) endpoints_per_tenant_max: i64,
    /// How long an old secret signs beside a new one, where nobody says otherwise.
    pub(crate) secret_overlap: Duration,
    /// How long an endpoint is kept on behalf of a person without an application.
    pub(crate) personal_max_ms: i64,
    /// Who asks, in a handshake (`WebHook-Request-Origin`).
    pub(crate) origin: String,
    /// How much of each body is kept with its attempt; 0: none is shown either.
    pub(crate) attempt_body_bytes_max: usize,
    /// The consumer whose watermarks tell how far partitions are settled.
    pub(crate) consumer: String,
}

/// Tells operational events, where somebody listens.
#[derive(Default)]
pub(crate) struct Announce {
    #[expect(clippy::type_complexity, reason = "named once, here")]
    pub(crate) tell: Option<Box<dyn Fn(&TenantId, &EndpointId, &'static str, Value) + Send + Sync>>,
}

/// How often what may be asked for, on this node.
pub(crate) struct Paces {
    /// Changes of a tenant.
    changes: pace::Pace<TenantId>,
    /// Calls to an endpoint that somebody asks for: tests and handshakes.
    calls: pace::Pace<EndpointId>,
}

impl Default for Paces {
    fn default() -> Self {
        Self {
            // Scripts make endpoints by the dozen; nobody needs a thousand a minute.
            changes: pace::Pace::new(Duration::from_millis(100), 100),
            calls: pace::Pace::new(Duration::from_secs(1), 1),
        }
    }
}

/// Why something is not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// What the client is told.
    pub(crate) code: Code,
    /// More, for people, without data.
    pub(crate) detail: String,
    /// The fields that are not acceptable, all of them.
    pub(crate) fields: Vec<Invalid>,
}

/// Which version of an endpoint a change is for (RFC 9110, section 13.1.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Condition {
    /// Whichever it is by then.
    None,
    /// Any, as long as it exists.
    Any,
    /// One of these.
    Tags(Vec<String>),
}

impl Condition {
    fn holds(&self, endpoint: &Endpoint) -> Result<(), Refusal> {
        match self {
            Self::Tags(tags) if !tags.contains(&endpoint.etag()) => {
                Err(Refusal::new(Code::PRECONDITION_FAILED, ""))
            }
            _ => Ok(()),
        }
    }
}

impl Refusal {
    pub(crate) fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            fields: Vec::new(),
        }
    }

    /// One field.
    pub(crate) fn field(code: Code, pointer: &str, detail: impl Into<String>) -> Self {
        Self::from(Invalid {
            code,
            pointer: pointer.to_owned(),
            detail: detail.into(),
        })
    }
}

impl From<Invalid> for Refusal {
    fn from(invalid: Invalid) -> Self {
        Self::from(vec![invalid])
    }
}

impl From<Vec<Invalid>> for Refusal {
    fn from(fields: Vec<Invalid>) -> Self {
        let code = fields.first().map_or(Code::BODY_INVALID, |first| first.code);
        let detail = fields.first().map(|first| first.detail.clone());
        Self {
            code,
            detail: detail.unwrap_or_default(),
            fields,
        }
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        let code = match error {
            StoreError::Database(_) => Code::STORE_UNAVAILABLE,
            _ => Code::INTERNAL,
        };
        // A statement's parameters are not in it, a column's name may be.
        tracing::warn!(%error, cause = ?std::error::Error::source(&error), "the store of webhooks failed");
        Self::new(code, "")
    }
}

impl From<Unavailable> for Refusal {
    fn from(unavailable: Unavailable) -> Self {
        Self::new(Code::STREAM_UNAVAILABLE, unavailable.to_string())
    }
}

impl Desk {
    /// One endpoint of a tenant.
    pub(crate) async fn find(&self, tenant: &TenantId, id: &EndpointId) -> Result<Kept, Refusal> {
        let kept = self.store.endpoint(tenant, id).await?;
        kept.ok_or_else(|| Refusal::new(Code::NOT_FOUND, ""))
    }

    /// Holds a tenant back that changes too much at once.
    pub(crate) fn admit_change(&self, tenant: &TenantId) -> Result<(), Refusal> {
        if self.paces.changes.admits(tenant) {
            Ok(())
        } else {
            Err(Refusal::new(
                Code::RATE_LIMITED,
                "at most ten changes a second of one tenant",
            ))
        }
    }

    fn admit_call(&self, id: &EndpointId) -> Result<(), Refusal> {
        if self.paces.calls.admits(id) {
            Ok(())
        } else {
            Err(Refusal::new(
                Code::RATE_LIMITED,
                "an endpoint is called once a second on demand",
            ))
        }
    }

    /// Changes an endpoint; again where somebody else was quicker, as long as the condition holds.
    async fn change<T>(
        &self,
        tenant: &TenantId,
        id: &EndpointId,
        condition: &Condition,
        change: impl Fn(&mut Endpoint) -> Result<T, Refusal>,
    ) -> Result<(Endpoint, T), Refusal> {
        for _ in 0..CHANGES_MAX {
            let mut kept = self.find(tenant, id).await?;
            condition.holds(&kept.endpoint)?;
            let made = change(&mut kept.endpoint)?;
            let updated = self.store.update_endpoint(&kept.endpoint, kept.revision).await?;
            if updated.is_some() {
                return Ok((kept.endpoint, made));
            }
        }
        Err(Refusal::new(Code::PRECONDITION_FAILED, ""))
    }

    /// A change is on record, and this node's registry has seen it before anybody is told of it.
    async fn record(&self, action: &'static str, tenant: &TenantId, id: &EndpointId) {
        tracing::info!(target: "tidewire::audit", action, endpoint = %id, %tenant, "an endpoint was changed");
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
        if let Some(registry) = &self.registry
            && let Err(error) = registry.look().await
        {
            tracing::debug!(%error, "a change is seen later");
        }
    }

    fn tell(&self, tenant: &TenantId, id: &EndpointId, kind: &'static str, data: Value) {
        if let Some(tell) = &self.announce.tell {
            tell(tenant, id, kind, data);
        }
    }

    fn reach(&self, tenant: &TenantId) -> Reach {
        self.clients.reach(tenant)
    }

    /// Refuses who is shown less than what goes out on the owner's behalf, or might. What the owner may have of a stream that
    /// it is not granted now nobody knows: there only the owner itself steers.
    fn covers(&self, principal: &Principal, owner: &Owner, streams: &[StreamName]) -> Result<(), Refusal> {
        let is_owner = principal.issuer == owner.issuer && principal.subject == owner.subject;
        // A revocation may be forgotten one day: until then its owner is looked at as if there were none.
        let kept = owner.principal();
        let owner = self.control.admit(&kept).unwrap_or(kept);
        for (place, name) in streams.iter().enumerate() {
            let grants = self.contract.stream(name.as_str()).map(|stream| {
                let theirs = Grant::compile(stream, &owner).ok();
                (theirs, Grant::compile(stream, principal).ok())
            });
            let may = match grants {
                Some((Some(theirs), mine)) => mine.is_some_and(|mine| mine.includes(&theirs)),
                Some((None, _)) | None => is_owner,
            };
            if !may {
                return Err(forbidden(name, &format!("/streams/{place}")));
            }
        }
        Ok(())
    }

    /// A stream of an endpoint.
    fn stream_of(&self, endpoint: &Endpoint, name: &str, pointer: &str) -> Result<Arc<Stream>, Refusal> {
        let is_its = endpoint.spec.streams.iter().find(|have| have.as_str() == name);
        let stream = is_its.and_then(|name| self.contract.stream(name.as_str()));
        stream.cloned().ok_or_else(|| {
            let detail = "that is none of the endpoint's streams";
            Refusal::field(Code::STREAM_FORBIDDEN, pointer, detail)
        })
    }
}

/// What does not exist, what is not granted and what is granted to a lesser extent look the same.
fn forbidden(name: &StreamName, pointer: &str) -> Refusal {
    Refusal::field(
        Code::STREAM_FORBIDDEN,
        pointer,
        format!("{name} does not exist or is not granted"),
    )
}

/// RFC 3339 in UTC.
fn time(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |time| time.to_string())
}

//! Endpoints: made, changed, switched, rotated and removed.
//!
//! Invariant: what an endpoint is owed begins at the ends of the logs when it is made, or when a stream is added; a change
//! never moves what is owed already.

use std::sync::Arc;
use std::time::Duration;

use auth::token::Principal;
use schemas::ids::{StreamName, TenantId};
use schemas::problem::Code;
use serde_json::{Map, Value, json};
use webhooks::delivery::EndpointId;
use webhooks::endpoint::{BadRotation, Endpoint, Invalid, KEYS_MAX, Owner, Spec, Status};
use webhooks::matching::Start;
use webhooks::sign::BadSecret;
use webhooks::store::{Created, Idempotency, Kept};

use super::{CHANGES_MAX, Condition, Desk, Refusal};

/// The claims that name an application, in the order in which they are looked for. They count where the issuer's
/// configuration passes them through.
const APPLICATION_CLAIMS: [&str; 2] = ["client_id", "azp"];

/// The members that decide where deliveries go and what goes out.
const STEERING: [&str; 7] = [
    "url",
    "streams",
    "types",
    "filter",
    "content",
    "headers",
    "credentials",
];

/// What is wanted of streams: the members that the owner's grant is asked about.
const WANTED: [&str; 3] = ["streams", "types", "filter"];

/// An endpoint that was asked for.
#[derive(Debug)]
pub(crate) struct Made {
    /// It.
    pub(crate) endpoint: Endpoint,
    /// Whether it was made just now, so that its secrets are shown.
    pub(crate) is_new: bool,
}

impl Desk {
    /// Makes an endpoint on behalf of whoever asks.
    pub(crate) async fn create(
        &self,
        principal: &Principal,
        body: &Value,
        idempotency: Option<&Idempotency>,
    ) -> Result<Made, Refusal> {
        let tenant = &principal.tenant;
        let spec = Spec::parse(body, self.reach(tenant))?;
        let owner = self.owner(principal);
        // Nothing is said of Kafka before the streams are granted.
        spec.interests(&EndpointId::generate(), &Start::default(), &self.contract, &owner)?;
        let mut start = Start::default();
        self.extend(&mut start, &spec.streams, tenant).await?;
        let now_ms = self.clock.now_ms();
        let endpoint = Endpoint::create(spec, owner, start, now_ms).map_err(no_keys)?;
        let created = self
            .store
            .create_endpoint(&endpoint, self.settings.endpoints_per_tenant_max, idempotency)
            .await?;
        match created {
            Created::New => {
                self.record("created", tenant, &endpoint.id).await;
                let endpoint = match endpoint.status {
                    Status::Pending => self.ask(endpoint).await?.endpoint,
                    _ => endpoint,
                };
                Ok(Made {
                    endpoint,
                    is_new: true,
                })
            }
            Created::Before(id) => Ok(Made {
                endpoint: self.find(tenant, &id).await?.endpoint,
                is_new: false,
            }),
            Created::KeyReused => Err(Refusal::new(Code::IDEMPOTENCY_KEY_REUSED, "")),
            Created::TooMany => Err(Refusal::new(
                Code::ENDPOINTS,
                format!("a tenant has at most {}", self.settings.endpoints_per_tenant_max),
            )),
        }
    }

    /// A page of a tenant's endpoints, and whether more follow.
    pub(crate) async fn list(
        &self,
        tenant: &TenantId,
        after: Option<&EndpointId>,
        limit: usize,
    ) -> Result<(Vec<Kept>, bool), Refusal> {
        let asked = i64::try_from(limit + 1).unwrap_or(i64::MAX);
        let mut page = self.store.endpoints(tenant, after, asked).await?;
        let has_more = page.len() > limit;
        page.truncate(limit);
        Ok((page, has_more))
    }

    /// Applies a merge patch. `"owner": "me"` puts whoever asks in the place of the owner.
    pub(crate) async fn patch(
        &self,
        principal: &Principal,
        id: &EndpointId,
        mut patch: Map<String, Value>,
        condition: &Condition,
    ) -> Result<Endpoint, Refusal> {
        let is_taken_over = match patch.remove("owner") {
            None => false,
            Some(Value::String(me)) if me == "me" => true,
            Some(_) => return Err(Refusal::field(Code::FIELD_INVALID, "/owner", "`me` is wanted")),
        };
        let patch = Value::Object(patch);
        for _ in 0..CHANGES_MAX {
            let kept = self.find(&principal.tenant, id).await?;
            condition.holds(&kept.endpoint)?;
            let before = kept.endpoint.clone();
            let endpoint = self
                .patched(principal, kept.endpoint, &patch, is_taken_over)
                .await?;
            let updated = self.store.update_endpoint(&endpoint, kept.revision).await?;
            if updated.is_none() {
                continue;
            }
            let is_gone = |name: &&StreamName| !endpoint.spec.streams.contains(name);
            for removed in before.spec.streams.iter().filter(is_gone) {
                self.store.forget_catch_ups(id, removed).await?;
            }
            if endpoint.status == Status::Active && before.status != Status::Active {
                self.store.report_health(id, None, None).await?;
            }
            self.record("changed", &principal.tenant, id).await;
            return match endpoint.status {
                Status::Pending => Ok(self.ask(endpoint).await?.endpoint),
                _ => Ok(endpoint),
            };
        }
        Err(Refusal::new(Code::PRECONDITION_FAILED, ""))
    }

    async fn patched(
        &self,
        principal: &Principal,
        mut endpoint: Endpoint,
        patch: &Value,
        is_taken_over: bool,
    ) -> Result<Endpoint, Refusal> {
        let tenant = &principal.tenant;
        let spec = endpoint.spec.patched(patch, self.reach(tenant))?;
        let names = |members: &[&str]| members.iter().any(|member| patch.get(*member).is_some());
        if is_taken_over {
            endpoint.owner = self.owner(principal);
        }
        if is_taken_over || names(&WANTED) {
            spec.interests(id_of(&endpoint), &endpoint.start, &self.contract, &endpoint.owner)?;
        }
        if names(&STEERING) {
            self.covers(principal, &endpoint.owner, &spec.streams)?;
        }
        let is_new = |name: &&StreamName| !endpoint.spec.streams.contains(name);
        let added: Vec<StreamName> = spec.streams.iter().filter(is_new).cloned().collect();
        self.forget(&mut endpoint.start, &endpoint.spec.streams, &spec.streams);
        self.extend(&mut endpoint.start, &added, tenant).await?;
        endpoint.change(spec, self.clock.now_ms()).map_err(no_keys)?;
        Ok(endpoint)
    }

    /// Removes an endpoint, and what is parked for it.
    pub(crate) async fn delete(
        &self,
        tenant: &TenantId,
        id: &EndpointId,
        condition: &Condition,
    ) -> Result<(), Refusal> {
        let kept = self.find(tenant, id).await?;
        condition.holds(&kept.endpoint)?;
        if !self.store.delete_endpoint(tenant, id).await? {
            return Err(Refusal::new(Code::NOT_FOUND, ""));
        }
        self.record("deleted", tenant, id).await;
        Ok(())
    }

    /// Makes new keys; those before sign beside them for a while.
    pub(crate) async fn rotate(
        &self,
        tenant: &TenantId,
        id: &EndpointId,
        overlap: Option<Duration>,
        condition: &Condition,
    ) -> Result<Endpoint, Refusal> {
        let overlap = overlap.unwrap_or(self.settings.secret_overlap);
        let now_ms = self.clock.now_ms();
        let rotate = |endpoint: &mut Endpoint| match endpoint.rotate(overlap, now_ms) {
            Ok(()) => Ok(()),
            Err(BadRotation::TooMany) => Err(Refusal::new(
                Code::SECRETS,
                format!("{KEYS_MAX} sign already; overlap_seconds 0 ends them now"),
            )),
            Err(BadRotation::Key(bad)) => Err(no_keys(bad)),
        };
        let (endpoint, ()) = self.change(tenant, id, condition, rotate).await?;
        self.record("rotated", tenant, id).await;
        let until = super::time(now_ms.saturating_add(i64::try_from(overlap.as_millis()).unwrap_or(0)));
        self.tell(tenant, id, "secret.rotated", json!({ "old_signs_until": until }));
        Ok(endpoint)
    }

    /// Switches an endpoint off or on, whatever disabled it.
    pub(crate) async fn switch(
        &self,
        tenant: &TenantId,
        id: &EndpointId,
        enabled: bool,
        condition: &Condition,
    ) -> Result<Endpoint, Refusal> {
        let now_ms = self.clock.now_ms();
        let switch = |endpoint: &mut Endpoint| {
            if enabled {
                endpoint.resume(now_ms);
            } else {
                endpoint.pause(now_ms);
            }
            Ok(())
        };
        let (endpoint, ()) = self.change(tenant, id, condition, switch).await?;
        if enabled {
            // What failed before is over: otherwise it would be disabled again at its next failure.
            self.store.report_health(id, None, None).await?;
        }
        self.record(if enabled { "resumed" } else { "paused" }, tenant, id)
            .await;
        match endpoint.status {
            Status::Pending if enabled => Ok(self.ask(endpoint).await?.endpoint),
            _ => Ok(endpoint),
        }
    }

    /// Whoever asks, as an owner.
    pub(super) fn owner(&self, principal: &Principal) -> Owner {
        let application = APPLICATION_CLAIMS
            .iter()
            .find_map(|claim| principal.claims.get(*claim));
        Owner::of(
            principal,
            application.map(Arc::clone),
            self.clock.now_ms(),
            self.settings.personal_max_ms,
        )
    }

    /// Where streams begin that have no beginning yet: at the ends of their logs.
    async fn extend(
        &self,
        start: &mut Start,
        streams: &[StreamName],
        tenant: &TenantId,
    ) -> Result<(), Refusal> {
        for name in streams {
            if let Some(stream) = self.contract.stream(name.as_str()) {
                start.extend(self.logs.ends(stream, tenant).await?);
            }
        }
        Ok(())
    }

    /// Forgets where topics begin that only removed streams read.
    fn forget(&self, start: &mut Start, before: &[StreamName], after: &[StreamName]) {
        if before.iter().all(|name| after.contains(name)) {
            return;
        }
        start.retain(|topic| {
            let mut streams = after
                .iter()
                .filter_map(|name| self.contract.stream(name.as_str()));
            streams.any(|stream| {
                stream
                    .topics
                    .iter()
                    .any(|pattern| pattern.matches(topic).is_some())
            })
        });
    }
}

fn id_of(endpoint: &Endpoint) -> &EndpointId {
    &endpoint.id
}

fn no_keys(bad: BadSecret) -> Refusal {
    tracing::error!(%bad, "no keys can be made");
    Refusal::new(Code::INTERNAL, "")
}

/// The member in front of every pointer.
pub(super) fn under(prefix: &str, fields: Vec<Invalid>) -> Refusal {
    let fields = fields.into_iter().map(|field| Invalid {
        pointer: format!("{prefix}{}", field.pointer),
        ..field
    });
    Refusal::from(fields.collect::<Vec<_>>())
}

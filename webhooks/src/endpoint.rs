//! A webhook endpoint: where deliveries go, what of, how, and on whose behalf.
//!
//! One invariant: what is shown of an endpoint has no secret in it. What is stored has all of it, in one text that the store
//! seals; the only other ways out of a secret are the request that it signs and the answer that made it.

mod credentials;
mod header;
mod keys;
mod owner;
mod schema;
mod spec;
mod stored;

pub use credentials::Credentials;
pub use keys::{BadRotation, KEYS_MAX};
pub use owner::Owner;
pub use schema::schema;
pub use spec::{Invalid, Ordering, Spec};

use schemas::ids::TenantId;
use schemas::problem::Code;
use serde_json::{Map, Value, json};
use url::Url;

use crate::delivery::EndpointId;
use crate::matching::{Interest, Start, Wanted};
use crate::sign::Keys;
use schemas::contract::Contract;
use schemas::event::Change;

/// An endpoint.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Its id.
    pub id: EndpointId,
    /// Whose it is.
    pub tenant: TenantId,
    /// What somebody wrote.
    pub spec: Spec,
    /// What signs.
    pub keys: Keys,
    /// On whose behalf.
    pub owner: Owner,
    /// From where on it is owed events.
    pub start: Start,
    /// Whether it gets them now.
    pub status: Status,
    /// What its receiver agreed to, if it was asked.
    pub agreed: Option<Agreed>,
    /// When it was made, in milliseconds since the Unix epoch.
    pub created_ms: i64,
    /// When it was last changed by somebody.
    pub updated_ms: i64,
}

/// Whether an endpoint is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It is.
    Active,
    /// It has not agreed to be called yet (CloudEvents' abuse protection).
    Pending,
    /// It is not; what it is owed is parked.
    Disabled {
        /// Why.
        reason: Disabled,
        /// Since when.
        since_ms: i64,
    },
}

/// Why an endpoint is not called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disabled {
    /// Somebody switched it off.
    ByHand,
    /// It answered 410.
    Gone,
    /// It failed for too long.
    Failing,
}

/// What a receiver agreed to (CloudEvents' abuse protection).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agreed {
    /// Deliveries to this URL, and to no other.
    pub url: Url,
    /// At most so many attempts a second.
    pub rate_per_second: Option<u32>,
}

impl Disabled {
    /// A stable word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ByHand => "by_hand",
            Self::Gone => "gone",
            Self::Failing => "failing",
        }
    }
}

impl Status {
    /// A stable word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Pending => "pending",
            Self::Disabled { .. } => "disabled",
        }
    }
}

impl Endpoint {
    /// A new endpoint with keys of its own for the schemes that it asks for.
    pub fn create(
        spec: Spec,
        owner: Owner,
        start: Start,
        now_ms: i64,
    ) -> Result<Self, crate::sign::BadSecret> {
        let mut endpoint = Self {
            id: EndpointId::generate(),
            tenant: owner.tenant.clone(),
            keys: Keys::default(),
            status: Status::Active,
            agreed: None,
            created_ms: now_ms,
            updated_ms: now_ms,
            spec,
            owner,
            start,
        };
        endpoint.complete_keys()?;
        endpoint.settle_status(now_ms);
        Ok(endpoint)
    }

    /// Takes a changed specification. What was disabled by itself stays so until it is switched on again.
    pub fn change(&mut self, spec: Spec, now_ms: i64) -> Result<(), crate::sign::BadSecret> {
        let switched_on = spec.enabled && !self.spec.enabled;
        self.spec = spec;
        self.updated_ms = now_ms;
        if switched_on {
            self.status = Status::Active;
        }
        self.complete_keys()?;
        self.settle_status(now_ms);
        Ok(())
    }

    /// Switches it off by hand; what it is owed is parked.
    pub fn pause(&mut self, now_ms: i64) {
        self.spec.enabled = false;
        self.updated_ms = now_ms;
        self.settle_status(now_ms);
    }

    /// Switches it on, whatever disabled it. From where on it is owed events stays: what was parked meanwhile is owed.
    pub fn resume(&mut self, now_ms: i64) {
        self.spec.enabled = true;
        self.updated_ms = now_ms;
        self.status = Status::Active;
        self.settle_status(now_ms);
    }

    /// The receiver agreed to be called, at most so often.
    pub fn agree(&mut self, rate_per_second: Option<u32>, now_ms: i64) {
        self.agreed = Some(Agreed {
            url: self.spec.url.clone(),
            rate_per_second,
        });
        self.updated_ms = now_ms;
        self.settle_status(now_ms);
    }

    /// Whether its receiver has to be asked before it is called: it is to be, and has not agreed for this URL.
    #[must_use]
    pub fn must_ask(&self) -> bool {
        self.spec.handshake && self.agreement().is_none()
    }

    /// What is shown of it: every member of the specification, credentials without secrets.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut shown = Map::new();
        shown.insert("id".to_owned(), json!(self.id.as_str()));
        if let Value::Object(spec) = self.spec.to_json() {
            shown.extend(spec);
        }
        shown.insert("status".to_owned(), json!(self.status.as_str()));
        if let Status::Disabled { reason, since_ms } = self.status {
            shown.insert(
                "disabled".to_owned(),
                json!({ "reason": reason.as_str(), "since": time(since_ms) }),
            );
        }
        let ends = |until_ms: &Option<i64>| until_ms.map_or(Value::Null, |until_ms| json!(time(until_ms)));
        let secrets = self
            .keys
            .secrets
            .iter()
            .map(|held| json!({ "signs_until": ends(&held.until_ms) }));
        let public =
            self.keys.pairs.iter().map(
                |held| json!({ "public_key": held.key.public_text(), "signs_until": ends(&held.until_ms) }),
            );
        shown.insert("secrets".to_owned(), secrets.collect());
        shown.insert("public_keys".to_owned(), public.collect());
        shown.insert(
            "authorized_until".to_owned(),
            self.owner
                .authorized_until_ms
                .map_or(Value::Null, |until_ms| json!(time(until_ms))),
        );
        shown.insert("created_at".to_owned(), json!(time(self.created_ms)));
        shown.insert("updated_at".to_owned(), json!(time(self.updated_ms)));
        Value::Object(shown)
    }

    /// The tag of what is shown: a hash of it, so that it changes when that does and never otherwise.
    #[must_use]
    pub fn etag(&self) -> String {
        use base64::Engine as _;
        let body = self.to_json().to_string();
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, body.as_bytes());
        let short = digest.as_ref().get(..16).unwrap_or_default();
        format!(
            "\"{}\"",
            base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(short)
        )
    }

    /// What it wants of its streams, compiled under the grant of its owner: one interest for each stream.
    pub fn interests(&self, contract: &Contract) -> Result<Vec<Interest>, Invalid> {
        self.spec.interests(&self.id, &self.start, contract, &self.owner)
    }

    /// What it wants of those of its streams that this principal, its owner as it is judged now, may have still.
    #[must_use]
    pub fn granted(&self, contract: &Contract, owner: &auth::token::Principal) -> Vec<Interest> {
        let wanted = Wanted {
            types: self.spec.types.clone(),
            filter: self.spec.filter.clone(),
        };
        let streams = self.spec.streams.iter();
        streams
            .filter_map(|name| contract.stream(name.as_str()))
            .filter_map(|stream| Interest::compile(&self.id, &wanted, self.start.clone(), stream, owner).ok())
            .collect()
    }

    fn agreement(&self) -> Option<&Agreed> {
        self.agreed.as_ref().filter(|agreed| agreed.url == self.spec.url)
    }

    fn settle_status(&mut self, now_ms: i64) {
        let agreed = self.agreement().filter(|_| self.spec.handshake);
        if let Some(rate_max) = agreed.and_then(|agreed| agreed.rate_per_second) {
            let rate = self.spec.rate_per_second.unwrap_or(rate_max);
            self.spec.rate_per_second = Some(rate.min(rate_max));
        }
        self.status = match (self.spec.enabled, self.status) {
            (_, disabled @ Status::Disabled { .. }) => disabled,
            (false, _) => Status::Disabled {
                reason: Disabled::ByHand,
                since_ms: now_ms,
            },
            (true, _) if self.must_ask() => Status::Pending,
            (true, _) => Status::Active,
        };
    }
}

impl Spec {
    /// Compiles what is wanted of each stream, under the grant of the owner. The first thing that is wrong is told.
    pub fn interests(
        &self,
        id: &EndpointId,
        start: &Start,
        contract: &Contract,
        owner: &Owner,
    ) -> Result<Vec<Interest>, Invalid> {
        let principal = owner.principal();
        let mut interests = Vec::with_capacity(self.streams.len());
        let mut types: Vec<String> = Vec::new();
        for (place, name) in self.streams.iter().enumerate() {
            let pointer = format!("/streams/{place}");
            // What does not exist and what is not granted look the same.
            let unknown = || Invalid {
                code: Code::STREAM_FORBIDDEN,
                pointer: pointer.clone(),
                detail: format!("{name} does not exist or is not granted"),
            };
            let stream = contract.stream(name.as_str()).ok_or_else(unknown)?;
            let wanted = Wanted {
                types: self.types.clone(),
                filter: self.filter.clone(),
            };
            let interest = Interest::compile(id, &wanted, start.clone(), stream, &principal);
            let interest = interest.map_err(|unentitled| match unentitled.code {
                Code::STREAM_FORBIDDEN => unknown(),
                Code::GRANT_TOO_WIDE => Invalid {
                    code: unentitled.code,
                    pointer: pointer.clone(),
                    detail: unentitled.detail,
                },
                code => Invalid {
                    code,
                    pointer: "/filter".to_owned(),
                    detail: unentitled.detail,
                },
            })?;
            interests.push(interest);
            let changes = [
                Change::Created,
                Change::Updated,
                Change::Left,
                Change::Deleted,
                Change::Changed,
            ];
            types.extend(
                changes.map(|change| format!("{}.{}.{}", stream.type_prefix, stream.name, change.as_str())),
            );
        }
        match self.types.iter().position(|kind| !types.contains(kind)) {
            None => Ok(interests),
            Some(place) => Err(Invalid {
                code: Code::EVENT_TYPE_UNKNOWN,
                pointer: format!("/types/{place}"),
                detail: "types are <type_prefix>.<stream>.<created|updated|left|deleted|changed>".to_owned(),
            }),
        }
    }
}

/// RFC 3339 in UTC.
fn time(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |time| time.to_string())
}

#[cfg(test)]
mod tests;

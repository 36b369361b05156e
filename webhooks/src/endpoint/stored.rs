//! An endpoint as one text, secrets and all: what the store seals.
//!
//! Invariant: what was written is read back the same, and the text is wiped when it is dropped.

use std::collections::BTreeMap;
use std::sync::Arc;

use auth::egress::Reach;
use schemas::ids::{Incarnation, TenantId};
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::Url;

use super::{Agreed, Disabled, Endpoint, Owner, Spec, Status};
use crate::delivery::EndpointId;
use crate::matching::Start;
use crate::sign::{Ed25519, Held, Keys, Secret};

/// A stored endpoint that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the stored endpoint cannot be read: {0}")]
pub(crate) struct Unreadable(&'static str);

#[derive(Serialize, Deserialize)]
struct Stored {
    id: String,
    tenant: String,
    spec: Value,
    secrets: Vec<(String, Option<i64>)>,
    pairs: Vec<(String, Option<i64>)>,
    issuer: Arc<str>,
    subject: Arc<str>,
    application: Option<Arc<str>>,
    scopes: Vec<String>,
    claims: BTreeMap<String, Arc<str>>,
    #[serde(default)]
    authorized_at_ms: Option<i64>,
    authorized_until_ms: Option<i64>,
    start: Vec<(Arc<str>, u64, i32, i64)>,
    pending: bool,
    disabled: Option<(String, i64)>,
    #[serde(default)]
    agreed: Option<(String, Option<u32>)>,
    created_ms: i64,
    updated_ms: i64,
}

/// What could be checked was checked when it was written; what may be connected to is asked at each connection.
const ANY: Reach = Reach {
    loopback: true,
    private: true,
    plain: false,
};

impl Endpoint {
    /// The whole of it, to be sealed.
    #[must_use]
    pub(crate) fn to_stored(&self) -> Zeroizing<Vec<u8>> {
        let mut spec = self.spec.to_json();
        if let Some(spec) = spec.as_object_mut() {
            spec.insert("credentials".to_owned(), self.spec.credentials.to_private_json());
        }
        let stored = Stored {
            id: self.id.as_str().to_owned(),
            tenant: self.tenant.as_str().to_owned(),
            spec,
            secrets: held(&self.keys.secrets, Secret::text),
            pairs: held(&self.keys.pairs, Ed25519::text),
            issuer: Arc::clone(&self.owner.issuer),
            subject: Arc::clone(&self.owner.subject),
            application: self.owner.application.clone(),
            scopes: self.owner.scopes.clone(),
            claims: self.owner.claims.clone(),
            authorized_at_ms: self.owner.authorized_at_ms,
            authorized_until_ms: self.owner.authorized_until_ms,
            start: self
                .start
                .iter()
                .map(|(topic, incarnation, partition, offset)| {
                    (Arc::clone(topic), incarnation.0, partition, offset)
                })
                .collect(),
            pending: self.status == Status::Pending,
            disabled: match self.status {
                Status::Disabled { reason, since_ms } => Some((reason.as_str().to_owned(), since_ms)),
                Status::Active | Status::Pending => None,
            },
            agreed: self
                .agreed
                .as_ref()
                .map(|agreed| (agreed.url.as_str().to_owned(), agreed.rate_per_second)),
            created_ms: self.created_ms,
            updated_ms: self.updated_ms,
        };
        Zeroizing::new(serde_json::to_vec(&stored).expect("stored: every map has texts as keys"))
    }

    /// Reads it back.
    pub(crate) fn from_stored(text: &[u8]) -> Result<Self, Unreadable> {
        let stored: Stored = serde_json::from_slice(text).map_err(|_| Unreadable("its shape"))?;
        let tenant = TenantId::parse(&stored.tenant).map_err(|_| Unreadable("its tenant"))?;
        let mut start = Start::default();
        for (topic, incarnation, partition, offset) in stored.start {
            start.set(topic, Incarnation(incarnation), partition, offset);
        }
        let status = match stored.disabled {
            None if stored.pending => Status::Pending,
            None => Status::Active,
            Some((reason, since_ms)) => Status::Disabled {
                reason: [Disabled::ByHand, Disabled::Gone, Disabled::Failing]
                    .into_iter()
                    .find(|known| known.as_str() == reason)
                    .ok_or(Unreadable("its status"))?,
                since_ms,
            },
        };
        let agreed = |(url, rate_per_second): (String, Option<u32>)| {
            let url = Url::parse(&url).map_err(|_| Unreadable("its agreement"))?;
            Ok::<_, Unreadable>(Agreed { url, rate_per_second })
        };
        Ok(Self {
            id: EndpointId::parse(&stored.id).map_err(|_| Unreadable("its id"))?,
            spec: Spec::parse(&stored.spec, ANY).map_err(|_| Unreadable("its specification"))?,
            keys: Keys {
                secrets: unheld(stored.secrets, Secret::parse)?,
                pairs: unheld(stored.pairs, Ed25519::parse)?,
            },
            owner: Owner {
                issuer: stored.issuer,
                subject: stored.subject,
                application: stored.application,
                tenant: tenant.clone(),
                scopes: stored.scopes,
                claims: stored.claims,
                authorized_at_ms: stored.authorized_at_ms.or(Some(stored.created_ms)),
                authorized_until_ms: stored.authorized_until_ms,
            },
            tenant,
            start,
            status,
            agreed: stored.agreed.map(agreed).transpose()?,
            created_ms: stored.created_ms,
            updated_ms: stored.updated_ms,
        })
    }
}

fn held<K>(keys: &[Held<K>], text: impl Fn(&K) -> &SecretString) -> Vec<(String, Option<i64>)> {
    keys.iter()
        .map(|held| (text(&held.key).expose_secret().to_owned(), held.until_ms))
        .collect()
}

fn unheld<K, E>(
    keys: Vec<(String, Option<i64>)>,
    parse: impl Fn(&SecretString) -> Result<K, E>,
) -> Result<Vec<Held<K>>, Unreadable> {
    keys.into_iter()
        .map(|(text, until_ms)| {
            let key = parse(&SecretString::from(text)).map_err(|_| Unreadable("its keys"))?;
            Ok(Held { key, until_ms })
        })
        .collect()
}

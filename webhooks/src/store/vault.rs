//! Envelope encryption: each tenant's data has a key of its own, which the gateway's keys wrap.
//!
//! Invariants: what is sealed for one purpose (tenant, kind, ids) opens for no other. A tenant's key is made once, whichever
//! node needs it first. Deleting its row makes everything of the tenant unreadable.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use auth::seal::{BadKey, SINGLE_BYTES, Seal};
use aws_lc_rs::rand;
use schemas::ids::TenantId;
use secrecy::SecretString;
use secrecy::zeroize::Zeroizing;
use sqlx::Row as _;

use super::{Store, StoreError, on};

/// The wrapping keys, and the tenants' keys that were unwrapped.
pub(super) struct Vault {
    master: Seal,
    /// One small entry for each tenant that was seen; bounded by the tenants that have endpoints.
    tenants: Mutex<HashMap<TenantId, Arc<Seal>>>,
}

impl Vault {
    pub(super) fn new(keys: &[SecretString]) -> Result<Self, BadKey> {
        Ok(Self {
            master: Seal::new(keys)?,
            tenants: Mutex::new(HashMap::new()),
        })
    }

    fn cached(&self, tenant: &TenantId) -> Option<Arc<Seal>> {
        let tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        tenants.get(tenant).cloned()
    }

    fn unwrap(&self, tenant: &TenantId, wrapped: &[u8]) -> Result<Arc<Seal>, StoreError> {
        let unreadable = StoreError::Unreadable("a tenant's key");
        let Some(bytes) = self
            .master
            .open_bytes(&purpose("key", &[tenant.as_str()]), wrapped)
        else {
            return Err(unreadable);
        };
        let bytes = Zeroizing::new(bytes);
        let Ok(bytes) = <&[u8; SINGLE_BYTES]>::try_from(bytes.as_slice()) else {
            return Err(unreadable);
        };
        let seal = Arc::new(Seal::single(bytes));
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Arc::clone(tenants.entry(tenant.clone()).or_insert(seal)))
    }
}

impl Store {
    /// The tenant's key, made if there is none.
    pub(super) async fn tenant_seal(&self, tenant: &TenantId) -> Result<Arc<Seal>, StoreError> {
        if let Some(seal) = self.vault.cached(tenant) {
            return Ok(seal);
        }
        let find = "SELECT wrapped FROM webhook_tenant_keys WHERE tenant = $1";
        let find = || async {
            let wrapped: Option<Vec<u8>> = on!(self, pool => {
                let row = sqlx::query(find).bind(tenant.as_str()).fetch_optional(pool).await?;
                row.map(|row| row.try_get("wrapped")).transpose()?
            });
            Ok::<_, StoreError>(wrapped)
        };
        if let Some(wrapped) = find().await? {
            return self.vault.unwrap(tenant, &wrapped);
        }
        let mut key = Zeroizing::new([0; SINGLE_BYTES]);
        rand::fill(key.as_mut_slice())
            .expect("vault: the source of random numbers does not fail once it is open");
        let wrapped = self
            .vault
            .master
            .seal_bytes(&purpose("key", &[tenant.as_str()]), key.as_slice());
        let insert = self.sql(
            "INSERT INTO webhook_tenant_keys (tenant, wrapped, created_ms) VALUES ($1, $2, {now})
             ON CONFLICT (tenant) DO NOTHING",
        );
        on!(self, pool => {
            sqlx::query(insert).bind(tenant.as_str()).bind(wrapped).execute(pool).await.map(drop)
        })?;
        // Another node may have been first: what is there counts.
        match find().await? {
            Some(wrapped) => self.vault.unwrap(tenant, &wrapped),
            None => Err(StoreError::Unreadable("a tenant's key")),
        }
    }
}

/// What something is sealed for. Names have no zero byte in them.
pub(super) fn purpose(kind: &str, names: &[&str]) -> Vec<u8> {
    let mut purpose = format!("tidewire.webhooks.{kind}").into_bytes();
    for name in names {
        purpose.push(0);
        purpose.extend_from_slice(name.as_bytes());
    }
    purpose
}

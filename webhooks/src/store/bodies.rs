//! What was sent and what was answered, for who has switched that on: beside the log of attempts, sealed.
//!
//! Invariants: bodies open with their tenant's key only, and only as those of their own attempt. They are written with their
//! attempt and go with it.

use std::fmt;

use bytes::Bytes;
use schemas::ids::TenantId;
use ulid::Ulid;

use super::vault::purpose;
use super::{Store, StoreError, on, reading};
use crate::codec::{BadBytes, Input, some};
use crate::delivery::EndpointId;

/// The format's version.
const VERSION: u8 = 1;

/// What an unknown length is written as.
const UNKNOWN: u64 = u64::MAX;

/// A body, or its beginning.
#[derive(Clone, PartialEq, Eq)]
pub struct Body {
    /// As many bytes as are kept.
    pub kept: Bytes,
    /// How many there were; `None` where nobody knows.
    pub bytes: Option<u64>,
}

/// The bodies of one attempt.
#[derive(Debug, Clone)]
pub struct Bodies {
    /// Which attempt.
    pub attempt: Ulid,
    /// Whose.
    pub tenant: TenantId,
    /// To whom.
    pub endpoint: EndpointId,
    /// When it began, in milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// What was sent.
    pub request: Body,
    /// What was answered, if there was an answer.
    pub answer: Option<Body>,
}

/// How long it is, and nothing of what it says.
impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Body({} of {:?} bytes)", self.kept.len(), self.bytes)
    }
}

impl Body {
    /// The beginning of a body that is known as a whole. It is copied: the rest is not held in memory by it.
    #[must_use]
    pub fn beginning(whole: &[u8], kept_max: usize) -> Self {
        let kept = whole.get(..kept_max).unwrap_or(whole);
        Self {
            kept: Bytes::copy_from_slice(kept),
            bytes: u64::try_from(whole.len()).ok(),
        }
    }

    /// Whether something is missing.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        u64::try_from(self.kept.len()).ok() != self.bytes
    }
}

impl Bodies {
    /// What they take while they wait to be written.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.request.kept.len() + self.answer.as_ref().map_or(0, |answer| answer.kept.len())
    }

    fn purpose(tenant: &TenantId, endpoint: &EndpointId, attempt: Ulid) -> Vec<u8> {
        purpose(
            "bodies",
            &[tenant.as_str(), endpoint.as_str(), &attempt.to_string()],
        )
    }

    fn write(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.weight() + 64);
        out.push(VERSION);
        for body in [Some(&self.request), self.answer.as_ref()] {
            let bytes = body.and_then(|body| body.bytes).unwrap_or(UNKNOWN);
            out.extend_from_slice(&bytes.to_be_bytes());
            some(body.map(|body| &*body.kept), &mut out);
        }
        out
    }
}

/// The request's and the answer's.
fn read(bytes: Vec<u8>) -> Result<(Body, Option<Body>), BadBytes> {
    let mut input = Input::new(Bytes::from(bytes));
    if input.array::<1>()? != [VERSION] {
        return Err(BadBytes);
    }
    let mut body = || -> Result<Option<Body>, BadBytes> {
        let bytes = Some(u64::from_be_bytes(input.array()?)).filter(|bytes| *bytes != UNKNOWN);
        Ok(input.some()?.map(|kept| Body { kept, bytes }))
    };
    Ok((body()?.ok_or(BadBytes)?, body()?))
}

/// Inserts bodies, sealed before, in a transaction of either engine.
macro_rules! insert_bodies {
    ($transaction:ident, $bodies:expr, $sealed:expr) => {
        for (bodies, sealed) in $bodies.iter().zip(&$sealed) {
            sqlx::query($crate::store::bodies::INSERT)
                .bind(bodies.tenant.as_str())
                .bind(bodies.attempt.to_string())
                .bind(bodies.at_ms)
                .bind(sealed.as_slice())
                .execute(&mut *$transaction)
                .await?;
        }
    };
}

pub(super) use insert_bodies;

pub(super) const INSERT: &str =
    "INSERT INTO webhook_bodies (tenant, attempt, at_ms, sealed) VALUES ($1, $2, $3, $4)
     ON CONFLICT (tenant, attempt) DO NOTHING";

impl Store {
    pub(super) async fn seal_bodies(&self, bodies: &[Bodies]) -> Result<Vec<Vec<u8>>, StoreError> {
        let mut sealed = Vec::with_capacity(bodies.len());
        for one in bodies {
            let seal = self.tenant_seal(&one.tenant).await?;
            let purpose = Bodies::purpose(&one.tenant, &one.endpoint, one.attempt);
            sealed.push(seal.seal_bytes(&purpose, &one.write()));
        }
        Ok(sealed)
    }

    /// What an attempt sent and what was answered, where that was kept.
    pub async fn bodies(
        &self,
        tenant: &TenantId,
        endpoint: &EndpointId,
        attempt: Ulid,
    ) -> Result<Option<(Body, Option<Body>)>, StoreError> {
        let sql = "SELECT sealed FROM webhook_bodies WHERE tenant = $1 AND attempt = $2";
        let row: Option<(Vec<u8>,)> = reading!(self, pool => {
            let query = sqlx::query_as(sql).bind(tenant.as_str()).bind(attempt.to_string());
            query.fetch_optional(pool).await
        })?;
        let Some((sealed,)) = row else {
            return Ok(None);
        };
        let unreadable = || StoreError::Unreadable("the bodies of an attempt");
        let seal = self.tenant_seal(tenant).await?;
        let opened = seal
            .open_bytes(&Bodies::purpose(tenant, endpoint, attempt), &sealed)
            .ok_or_else(unreadable)?;
        read(opened).map(Some).map_err(|_| unreadable())
    }

    /// Forgets bodies that are older than this.
    pub(super) async fn expire_bodies(&self, age_ms: i64) -> Result<(), StoreError> {
        let sql = self.sql("DELETE FROM webhook_bodies WHERE at_ms <= {now} - $1");
        on!(self, pool => sqlx::query(sql).bind(age_ms).execute(pool).await.map(drop))?;
        Ok(())
    }
}

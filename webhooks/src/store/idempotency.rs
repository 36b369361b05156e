//! Requests that are answered once, however often they are sent (`Idempotency-Key`).
//!
//! Invariant: what is kept is which endpoint the first request made and digests of key and request, never an answer: what is
//! told again is what is shown of the endpoint, and that has no secret in it.

use std::time::Duration;

use aws_lc_rs::digest;

use super::{Store, StoreError, on};

/// A key and the request that came with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    pub(super) key_hash: Vec<u8>,
    pub(super) request_hash: Vec<u8>,
}

impl Idempotency {
    /// The key as the client sent it, and the request's body.
    #[must_use]
    pub fn new(key: &str, request: &[u8]) -> Self {
        let hash = |bytes: &[u8]| digest::digest(&digest::SHA256, bytes).as_ref().to_vec();
        Self {
            key_hash: hash(key.as_bytes()),
            request_hash: hash(request),
        }
    }
}

impl Store {
    /// Forgets keys that are older than this. Answers how many.
    pub async fn expire_idempotency(&self, age: Duration) -> Result<u64, StoreError> {
        let age_ms = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        let sql = self.sql("DELETE FROM webhook_idempotency WHERE created_ms <= {now} - $1");
        let deleted = on!(self, pool => {
            sqlx::query(sql).bind(age_ms).execute(pool).await.map(|done| done.rows_affected())
        })?;
        Ok(deleted)
    }
}

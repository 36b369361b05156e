//! The keys of an endpoint: made where a scheme needs one, and rotated.
//!
//! Invariant: of each kind at most [`KEYS_MAX`] sign at once, so that the header of signatures stays small. A secret leaves in
//! the answer that made it, and in no other.

use std::time::Duration;

use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use super::Endpoint;
use crate::sign::{BadSecret, Ed25519, Held, Scheme, Secret};

/// The most keys of one kind that sign at once: the current one, and those whose overlap is not over.
pub const KEYS_MAX: usize = 4;

/// Why keys are not rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadRotation {
    /// So many sign already. With no overlap it is possible.
    #[error("{KEYS_MAX} keys sign already")]
    TooMany,
    /// There are no new ones.
    #[error(transparent)]
    Key(#[from] BadSecret),
}

impl Endpoint {
    /// What is shown once, in the answer that made the keys: what is always shown, the current secret and the current
    /// public key, as far as its schemes use them.
    #[must_use]
    pub fn to_json_with_secrets(&self) -> Value {
        let mut shown = self.to_json();
        if let (true, Some(held)) = (self.signs_with(Scheme::V1), self.keys.secrets.first()) {
            shown["secret"] = json!(held.key.text().expose_secret());
        }
        if let (true, Some(held)) = (self.signs_with(Scheme::V1a), self.keys.pairs.first()) {
            shown["public_key"] = json!(held.key.public_text());
        }
        shown
    }

    /// New keys for its schemes; the ones before sign for so long beside them.
    pub fn rotate(&mut self, overlap: Duration, now_ms: i64) -> Result<(), BadRotation> {
        let until_ms = now_ms.saturating_add(i64::try_from(overlap.as_millis()).unwrap_or(i64::MAX));
        let (v1, v1a) = (self.signs_with(Scheme::V1), self.signs_with(Scheme::V1a));
        let signing = |until_ms: &[Option<i64>]| {
            let signs = until_ms
                .iter()
                .filter(|until_ms| until_ms.is_none_or(|end_ms| now_ms < end_ms));
            signs.count()
        };
        let secrets: Vec<_> = self.keys.secrets.iter().map(|held| held.until_ms).collect();
        let pairs: Vec<_> = self.keys.pairs.iter().map(|held| held.until_ms).collect();
        let is_full = (v1 && signing(&secrets) >= KEYS_MAX) || (v1a && signing(&pairs) >= KEYS_MAX);
        if is_full && !overlap.is_zero() {
            return Err(BadRotation::TooMany);
        }
        // Both are made before one is taken: a rotation is whole or it is none.
        let secret = v1.then(Secret::generate).transpose()?;
        let pair = v1a.then(Ed25519::generate).transpose()?;
        if let Some(secret) = secret {
            self.keys.rotate(secret, now_ms, until_ms);
        }
        if let Some(pair) = pair {
            self.keys.rotate_pair(pair, now_ms, until_ms);
        }
        self.updated_ms = now_ms;
        Ok(())
    }

    /// Makes what its schemes need and it does not have.
    pub(super) fn complete_keys(&mut self) -> Result<(), BadSecret> {
        if self.signs_with(Scheme::V1) && self.keys.secrets.is_empty() {
            let key = Secret::generate()?;
            self.keys.secrets.push(Held { key, until_ms: None });
        }
        if self.signs_with(Scheme::V1a) && self.keys.pairs.is_empty() {
            let key = Ed25519::generate()?;
            self.keys.pairs.push(Held { key, until_ms: None });
        }
        Ok(())
    }

    fn signs_with(&self, scheme: Scheme) -> bool {
        self.spec.signing.contains(&scheme)
    }
}

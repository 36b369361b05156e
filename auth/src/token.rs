//! A JWT in, a principal or a refusal out.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemas::ids::TenantId;
use schemas::problem::Code;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The token's issuer.
    pub issuer: Arc<str>,
    /// The token's subject.
    pub subject: Arc<str>,
    /// The tenant that the issuer asserts, and may assert.
    pub tenant: TenantId,
    /// The scopes, as they stand in the token.
    pub scopes: Vec<String>,
    /// The claims whose values are strings.
    pub claims: BTreeMap<String, Arc<str>>,
    /// `jti`.
    pub token_id: Option<Arc<str>>,
    /// `exp`, in milliseconds since the Unix epoch.
    pub expires_at_ms: i64,
}

/// Why a token is refused. `detail` names the rule, never the token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", code.name)]
pub struct BadToken {
    /// What the client is told.
    pub code: Code,
    /// The rule that it breaks: `alg_none`, `alg_not_allowed`, `kid_unknown`, `aud_mismatch`, ...
    pub detail: &'static str,
}

/// Verifies tokens of the configured issuers. Cheap to clone.
#[derive(Clone)]
pub struct Authenticator {
    inner: Arc<()>,
}

impl Authenticator {
    /// Verifies a compact JWS. Waits only where an unknown `kid` makes it fetch keys.
    pub async fn verify(&self, token: &str, now_ms: i64) -> Result<Arc<Principal>, BadToken> {
        todo!("{} {now_ms}", token.len())
    }
}

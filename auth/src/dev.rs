//! The built-in issuer of the demo: one Ed25519 key in a file of its user's.
//!
//! One invariant: the key file is made whole, readable by its owner only, and never made twice, however many processes
//! start at once. Refusing it in production is the configuration's business.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use schemas::ids::TenantId;

use crate::token::Issuer;

/// The `iss` of its tokens.
pub const ISSUER: &str = "urn:tidewire:development";

/// The `aud` of its tokens.
pub const AUDIENCE: &str = "tidewire";

/// Signs tokens for development. Cheap to clone.
#[derive(Clone)]
pub struct DevelopmentIssuer {}

impl DevelopmentIssuer {
    /// Reads the key, or makes one (with the folders above it) where there is none.
    pub fn open(path: &Path) -> io::Result<Self> {
        todo!("{}", path.display())
    }

    /// An issuer whose key lives no longer than itself.
    pub fn ephemeral() -> io::Result<Self> {
        todo!()
    }

    /// Its public key as a JWK set.
    #[must_use]
    pub fn jwks(&self) -> String {
        todo!()
    }

    /// How an [`crate::token::Authenticator`] trusts it: any tenant, and these claims are passed through.
    #[must_use]
    pub fn trusted(&self, claims: &[&str]) -> Issuer {
        todo!("{claims:?}")
    }

    /// A signed token. `scopes` as in a token, separated by spaces.
    #[must_use]
    pub fn mint(
        &self,
        tenant: &TenantId,
        subject: &str,
        scopes: &str,
        claims: &BTreeMap<String, String>,
        ttl: Duration,
        now_ms: i64,
    ) -> String {
        todo!("{tenant} {subject} {scopes} {claims:?} {ttl:?} {now_ms}")
    }
}

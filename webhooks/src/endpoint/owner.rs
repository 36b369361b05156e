//! On whose behalf an endpoint gets what it gets: a principal as it was, kept.

use std::collections::BTreeMap;
use std::sync::Arc;

use auth::token::Principal;
use schemas::ids::TenantId;

/// Who made an endpoint, with the claims as they were. Each attempt compiles the grant of this principal anew.
#[derive(Clone, PartialEq, Eq)]
pub struct Owner {
    /// The token's issuer.
    pub issuer: Arc<str>,
    /// The token's subject.
    pub subject: Arc<str>,
    /// The application on whose behalf it was made, if any.
    pub application: Option<Arc<str>>,
    /// The tenant.
    pub tenant: TenantId,
    /// The scopes.
    pub scopes: Vec<String>,
    /// The claims that access rules use.
    pub claims: BTreeMap<String, Arc<str>>,
    /// Since when, in milliseconds since the Unix epoch: revocations until then concern it. `None`: all do.
    pub authorized_at_ms: Option<i64>,
    /// Until when, in milliseconds since the Unix epoch. `None`: until somebody revokes it.
    pub authorized_until_ms: Option<i64>,
}

impl Owner {
    /// Keeps a principal. One that stands for a person (a scope that begins with `user/` or `patient/`) and has no
    /// application is kept for `personal_max_ms` only: nobody renews a person's consent for an endpoint.
    #[must_use]
    pub fn of(
        principal: &Principal,
        application: Option<Arc<str>>,
        now_ms: i64,
        personal_max_ms: i64,
    ) -> Self {
        let is_personal = principal
            .scopes
            .iter()
            .any(|scope| scope.starts_with("user/") || scope.starts_with("patient/"));
        let is_short = is_personal && application.is_none();
        Self {
            issuer: Arc::clone(&principal.issuer),
            subject: Arc::clone(&principal.subject),
            application,
            tenant: principal.tenant.clone(),
            scopes: principal.scopes.clone(),
            claims: principal.claims.clone(),
            authorized_at_ms: Some(now_ms),
            authorized_until_ms: is_short.then(|| now_ms.saturating_add(personal_max_ms)),
        }
    }

    /// The principal, as long as it is authorized. Whether it is revoked and which consent was withdrawn is asked of
    /// `auth::control::Control::admit`, at each attempt.
    #[must_use]
    pub fn principal(&self) -> Principal {
        Principal {
            issuer: Arc::clone(&self.issuer),
            subject: Arc::clone(&self.subject),
            tenant: self.tenant.clone(),
            scopes: self.scopes.clone(),
            claims: self.claims.clone(),
            token_id: None,
            issued_at_ms: self.authorized_at_ms,
            expires_at_ms: self.authorized_until_ms.unwrap_or(i64::MAX),
            application: self.application.clone(),
            denials: Arc::default(),
        }
    }
}

/// Subject, scopes and claims may name a person.
impl std::fmt::Debug for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Owner")
            .field("issuer", &self.issuer)
            .field("tenant", &self.tenant)
            .field("authorized_until_ms", &self.authorized_until_ms)
            .finish_non_exhaustive()
    }
}

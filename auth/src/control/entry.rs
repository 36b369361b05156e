//! What can be known: that somebody is revoked, and that consent was withdrawn.
//!
//! One invariant: what is not known of a principal never helps it. Knows nothing of how entries are written.

use std::fmt;
use std::sync::Arc;

use schemas::ids::{AttributeName, TenantId};

use crate::token::Principal;

/// The longest name in an entry, in bytes: that of a token's subject.
pub(super) const NAME_BYTES_MAX: usize = 1024;

/// One thing that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// Somebody is revoked.
    Revocation(Revocation),
    /// Consent was withdrawn.
    Denial(Denial),
}

/// Principals that are revoked: those who are everything that is named here. At least one thing is named.
#[derive(Clone, PartialEq, Eq)]
pub struct Revocation {
    /// Tokens of this issuer.
    pub issuer: Option<Arc<str>>,
    /// Principals of this tenant.
    pub tenant: Option<TenantId>,
    /// Principals with this subject.
    pub subject: Option<Arc<str>>,
    /// The token with this id (`jti`).
    pub token_id: Option<Arc<str>>,
    /// Tokens that may have been issued up to this moment, in milliseconds since the Unix epoch: somebody who is let in again
    /// gets a new token. A token that does not say when it was issued is concerned for as long as this stands; one that
    /// is named by its id is, whenever it was issued.
    pub issued_until_ms: i64,
    /// From when on this may be forgotten, because no such token is good any more. `None`: when somebody says so.
    pub expires_at_ms: Option<i64>,
    /// Why, for operators.
    pub reason: Option<Arc<str>>,
}

/// Consent that was withdrawn: no event of this tenant with this value of this attribute goes to this audience.
///
/// A stream that does not declare the attribute is not concerned.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Denial {
    /// Whose data.
    pub tenant: TenantId,
    /// Which attribute.
    pub attribute: AttributeName,
    /// Which of its values; compared as the stream compares them (a reference is cut down to `Patient/1` on both sides).
    pub value: Arc<str>,
    /// Only readers with this subject.
    pub subject: Option<Arc<str>>,
    /// Only readers who come through this application. Whose application is not known is concerned.
    pub application: Option<Arc<str>>,
    /// Only readers with tokens of this issuer.
    pub issuer: Option<Arc<str>>,
    /// Why, for operators.
    pub reason: Option<Arc<str>>,
}

/// An entry that says nothing, or more than one may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{member}: {rule}")]
pub struct BadEntry {
    /// Which member, as it is written.
    pub member: &'static str,
    /// What it must be.
    pub rule: &'static str,
}

impl Revocation {
    /// Everybody, until something is named.
    #[must_use]
    pub fn new(issued_until_ms: i64) -> Self {
        Self {
            issuer: None,
            tenant: None,
            subject: None,
            token_id: None,
            issued_until_ms,
            expires_at_ms: None,
            reason: None,
        }
    }

    /// Whether the principal is one of those.
    #[must_use]
    pub fn concerns(&self, principal: &Principal) -> bool {
        let names = |wanted: &Option<Arc<str>>, have: &str| wanted.as_deref().is_none_or(|name| name == have);
        if !names(&self.issuer, &principal.issuer) || !names(&self.subject, &principal.subject) {
            return false;
        }
        if self
            .tenant
            .as_ref()
            .is_some_and(|tenant| *tenant != principal.tenant)
        {
            return false;
        }
        match &self.token_id {
            Some(id) => principal.token_id.as_ref() == Some(id),
            None => principal
                .issued_at_ms
                .is_none_or(|issued_at_ms| issued_at_ms <= self.issued_until_ms),
        }
    }

    /// Whether it is not needed any more.
    #[must_use]
    pub fn is_over(&self, now_ms: i64) -> bool {
        self.expires_at_ms
            .is_some_and(|expires_at_ms| expires_at_ms <= now_ms)
    }

    /// Says what is wrong with it, if something is.
    ///
    /// # Errors
    ///
    /// Nothing is named, or a name is empty or longer than 1024 bytes.
    pub fn check(&self) -> Result<(), BadEntry> {
        if self.issuer.is_none() && self.tenant.is_none() && self.subject.is_none() && self.token_id.is_none()
        {
            return Err(BadEntry {
                member: "",
                rule: "one of token_id, subject, tenant and issuer is needed",
            });
        }
        check_name("issuer", self.issuer.as_ref())?;
        check_name("subject", self.subject.as_ref())?;
        check_name("token_id", self.token_id.as_ref())?;
        check_name("reason", self.reason.as_ref())
    }
}

impl Denial {
    /// Withdrawn from everybody of the tenant.
    #[must_use]
    pub fn new(tenant: TenantId, attribute: AttributeName, value: &str) -> Self {
        Self {
            tenant,
            attribute,
            value: Arc::from(value),
            subject: None,
            application: None,
            issuer: None,
            reason: None,
        }
    }

    /// Whether the principal is of its audience.
    #[must_use]
    pub fn concerns(&self, principal: &Principal) -> bool {
        let names = |wanted: &Option<Arc<str>>, have: &str| wanted.as_deref().is_none_or(|name| name == have);
        let through =
            |application: &Arc<str>| principal.application.as_ref().is_none_or(|of| of == application);
        self.tenant == principal.tenant
            && names(&self.subject, &principal.subject)
            && names(&self.issuer, &principal.issuer)
            && self.application.as_ref().is_none_or(through)
    }

    /// Whether it concerns everybody of the tenant.
    pub(super) fn is_for_all(&self) -> bool {
        self.subject.is_none() && self.application.is_none() && self.issuer.is_none()
    }

    /// Says what is wrong with it, if something is.
    ///
    /// # Errors
    ///
    /// A name is empty or longer than 1024 bytes.
    pub fn check(&self) -> Result<(), BadEntry> {
        check_name("value", Some(&self.value))?;
        check_name("subject", self.subject.as_ref())?;
        check_name("application", self.application.as_ref())?;
        check_name("issuer", self.issuer.as_ref())?;
        check_name("reason", self.reason.as_ref())
    }
}

fn check_name(member: &'static str, name: Option<&Arc<str>>) -> Result<(), BadEntry> {
    match name {
        Some(name) if name.is_empty() || name.len() > NAME_BYTES_MAX => Err(BadEntry {
            member,
            rule: "1 to 1024 bytes are wanted",
        }),
        _ => Ok(()),
    }
}

/// Subjects and token ids may name a person: they are not printed.
impl fmt::Debug for Revocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Revocation")
            .field("issuer", &self.issuer)
            .field("tenant", &self.tenant)
            .field("by_subject", &self.subject.is_some())
            .field("by_token", &self.token_id.is_some())
            .field("issued_until_ms", &self.issued_until_ms)
            .field("expires_at_ms", &self.expires_at_ms)
            .finish_non_exhaustive()
    }
}

/// The value may name a patient, the subject a person: they are not printed.
impl fmt::Debug for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Denial")
            .field("tenant", &self.tenant)
            .field("attribute", &self.attribute)
            .finish_non_exhaustive()
    }
}

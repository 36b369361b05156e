//! A JWT in, a principal or a refusal out.
//!
//! One invariant: nothing of a token is believed before its signature is checked with a key of the issuer that it names,
//! under an algorithm that this issuer is configured for. Knows nothing of streams.
//!
//! Sources of the rules: RFC 7515, RFC 7519, RFC 8725 (best current practices), RFC 9068 (`at+jwt`).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use futures_util::future;
use schemas::ids::TenantId;
use schemas::problem::Code;
use serde_json::{Map, Value};
use url::Url;

use crate::claims;
use crate::control::{Control, Denial};
use crate::egress::Client;
use crate::header::Header;
use crate::keyring::{Keyring, Place};
use crate::keys::KeySet;
use crate::reason;
use crate::strict::{self, BadObject};

pub use crate::issuer::{Algorithm, Issuer, KeySource, Tenants};

/// The longest token that is looked at, in bytes.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// Who asks.
#[derive(Clone, PartialEq, Eq)]
pub struct Principal {
    /// The token's issuer.
    pub issuer: Arc<str>,
    /// The token's subject.
    pub subject: Arc<str>,
    /// The tenant that the issuer asserts, and may assert.
    pub tenant: TenantId,
    /// The scopes, as they stand in the token.
    pub scopes: Vec<String>,
    /// The claims that the issuer's configuration passes through and whose values are strings.
    pub claims: BTreeMap<String, Arc<str>>,
    /// `jti`.
    pub token_id: Option<Arc<str>>,
    /// When it was issued at the earliest, by our clock, in milliseconds since the Unix epoch: `iat` less the issuer's leeway.
    /// `None`: nobody knows, so that it counts as issued before every revocation.
    pub issued_at_ms: Option<i64>,
    /// `exp`, in milliseconds since the Unix epoch.
    pub expires_at_ms: i64,
    /// The application that it came through (`client_id`, or `azp`). `None`: nobody knows, so that every denial for an
    /// application concerns it.
    pub application: Option<Arc<str>>,
    /// Consent that was withdrawn, as far as it concerns it: filled in by [`Control::admit`].
    pub denials: Arc<[Denial]>,
}

/// Subject, scopes and claims may name a patient: they are not printed.
impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Principal")
            .field("issuer", &self.issuer)
            .field("tenant", &self.tenant)
            .field("expires_at_ms", &self.expires_at_ms)
            .finish_non_exhaustive()
    }
}

impl Principal {
    /// Whether a renewed token may take the place of this one: the same issuer, subject and tenant.
    #[must_use]
    pub fn is_same(&self, renewed: &Self) -> bool {
        self.issuer == renewed.issuer && self.subject == renewed.subject && self.tenant == renewed.tenant
    }
}

/// Why a token is refused. `detail` names the rule, never the token; [`crate::reason`] has them all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", code.name)]
pub struct BadToken {
    /// What the client is told.
    pub code: Code,
    /// The rule that it breaks: `alg_none`, `alg_not_allowed`, `kid_unknown`, `aud_mismatch`, ...
    pub detail: &'static str,
}

/// An issuer that cannot be trusted as it is configured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("issuer {issuer:?}: {problem}")]
pub struct BadIssuer {
    /// Which one.
    pub issuer: String,
    /// What is wrong: a sentence without a full stop.
    pub problem: String,
}

/// Whether an issuer's tokens can be verified now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerStatus {
    /// Which one.
    pub issuer: Arc<str>,
    /// Whether it has keys that are not past their age.
    pub ready: bool,
    /// How many usable keys it has.
    pub keys: usize,
}

/// Verifies tokens of the configured issuers. Cheap to clone.
#[derive(Clone)]
pub struct Authenticator {
    trusted: Arc<[Trusted]>,
    control: Control,
}

struct Trusted {
    issuer: Issuer,
    name: Arc<str>,
    keyring: Keyring,
}

impl Authenticator {
    /// Takes the issuers; inline keys are read at once, others when [`Authenticator::run`] or a token asks for them.
    /// Reports the first problem that it finds; [`Issuer::problems`] has all that need no keys.
    pub fn new(issuers: Vec<Issuer>) -> Result<Self, BadIssuer> {
        let mut trusted: Vec<Trusted> = Vec::with_capacity(issuers.len());
        for issuer in issuers {
            let bad = |problem: String| BadIssuer {
                issuer: issuer.issuer.clone(),
                problem,
            };
            if let Some(problem) = issuer.problems().into_iter().next() {
                return Err(bad(problem));
            }
            if trusted.iter().any(|other| other.issuer.issuer == issuer.issuer) {
                return Err(bad("it is configured twice".to_owned()));
            }
            let name: Arc<str> = Arc::from(issuer.issuer.as_str());
            let keyring = keyring(&issuer, Arc::clone(&name)).map_err(bad)?;
            trusted.push(Trusted {
                issuer,
                name,
                keyring,
            });
        }
        Ok(Self {
            trusted: trusted.into(),
            control: Control::none(),
        })
    }

    /// Refuses what this knowledge says is revoked.
    #[must_use]
    pub fn with_control(mut self, control: Control) -> Self {
        self.control = control;
        self
    }

    /// What is known of readers beside their tokens.
    #[must_use]
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// Verifies a compact JWS. Waits only where keys are not there or an unknown `kid` makes it fetch them. Cancel safe.
    pub async fn verify(&self, token: &str, now_ms: i64) -> Result<Arc<Principal>, BadToken> {
        let parts = Parts::split(token)?;
        let header = Header::read(parts.header)?;
        let claims = read_claims(parts.claims)?;
        let name = claims
            .get("iss")
            .and_then(Value::as_str)
            .ok_or(reason::ISS_MISSING)?;
        let trusted = self
            .trusted
            .iter()
            .find(|trusted| &*trusted.name == name)
            .ok_or(reason::ISS_UNKNOWN)?;
        if !trusted.issuer.algorithms.contains(&header.algorithm) {
            return Err(reason::ALG_NOT_ALLOWED);
        }
        trusted.check_signature(&header, &parts).await?;
        let principal = claims::principal(&trusted.issuer, &trusted.name, &claims, now_ms)?;
        self.control.ready()?;
        self.control.admit(&principal).map(Arc::new)
    }

    /// Whether every issuer has keys that are not past their age.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.status().iter().all(|issuer| issuer.ready)
    }

    /// Each issuer's state, in the configured order.
    #[must_use]
    pub fn status(&self) -> Vec<IssuerStatus> {
        let status = |trusted: &Trusted| {
            let current = trusted.keyring.current();
            let keys = current.as_ref().map_or(0, |current| current.set.usable());
            IssuerStatus {
                issuer: Arc::clone(&trusted.name),
                ready: current.is_some(),
                keys,
            }
        };
        self.trusted.iter().map(status).collect()
    }

    /// Fetches keys at once and then ahead of their age, so that no reader waits for it. Never returns: the caller owns
    /// the task and drops it. Without it keys are fetched when a token needs them.
    pub async fn run(self) {
        future::join_all(self.trusted.iter().map(|trusted| trusted.keyring.keep_fresh())).await;
        future::pending().await
    }

    /// Every reason for which a token may be refused: for documentation and tests.
    #[must_use]
    pub fn reasons() -> &'static [BadToken] {
        reason::ALL
    }
}

impl Trusted {
    /// Looks for the key among those that are there; if that fails because of the key, once more among newer ones.
    async fn check_signature(&self, header: &Header, parts: &Parts<'_>) -> Result<(), BadToken> {
        let current = self.keyring.ready().await.ok_or(reason::KEYS_UNAVAILABLE)?;
        let Err(refused) = parts.check(header, &current.set) else {
            return Ok(());
        };
        // Without a `kid` a rotated key shows only in that nothing fits.
        let rotated = refused == reason::KID_UNKNOWN
            || (header.kid.is_none() && (refused == reason::KID_REQUIRED || refused == reason::SIGNATURE));
        if !rotated {
            return Err(refused);
        }
        match self.keyring.newer(&current).await {
            Some(newer) => parts.check(header, &newer.set),
            None => Err(refused),
        }
    }
}

/// The three parts of a compact JWS, still as base64url.
struct Parts<'a> {
    header: &'a str,
    claims: &'a str,
    signature: &'a str,
    /// What is signed: `header.claims`.
    message: &'a str,
}

impl<'a> Parts<'a> {
    fn split(token: &'a str) -> Result<Self, BadToken> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(reason::TOO_LARGE);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(reason::MALFORMED)?;
        let (header, claims) = message.split_once('.').ok_or(reason::MALFORMED)?;
        if claims.contains('.') {
            return Err(reason::MALFORMED);
        }
        Ok(Self {
            header,
            claims,
            signature,
            message,
        })
    }

    fn check(&self, header: &Header, keys: &KeySet) -> Result<(), BadToken> {
        let key = keys.find(header.kid.as_deref(), header.algorithm)?;
        key.verify(header.algorithm, self.message.as_bytes(), self.signature)
    }
}

fn read_claims(part: &str) -> Result<Map<String, Value>, BadToken> {
    let bytes = strict::base64(part).ok_or(reason::MALFORMED)?;
    strict::object(&bytes).map_err(|bad| match bad {
        BadObject::Syntax => reason::CLAIMS_JSON,
        BadObject::Duplicate => reason::CLAIMS_DUPLICATE,
    })
}

fn keyring(issuer: &Issuer, name: Arc<str>) -> Result<Keyring, String> {
    let place = match &issuer.keys {
        KeySource::Jwks(text) => {
            let set = KeySet::parse(text.as_bytes()).map_err(|error| error.to_string())?;
            return Ok(Keyring::inline(name, set));
        }
        KeySource::Url(url) => Place::Set(url.clone()),
        KeySource::Discovery => {
            let base = issuer.issuer.strip_suffix('/').unwrap_or(&issuer.issuer);
            let url = Url::parse(&format!("{base}/.well-known/openid-configuration"))
                .map_err(|error| format!("its name is no URL, so its keys cannot be discovered: {error}"))?;
            Place::Discovery(url)
        }
    };
    let (Place::Set(url) | Place::Discovery(url)) = &place;
    issuer
        .reach
        .check(url)
        .map_err(|error| format!("its keys cannot be fetched: {error}"))?;
    let http = Client::new(issuer.reach).map_err(|error| error.to_string())?;
    Ok(Keyring::remote(name, place, http))
}

#[cfg(test)]
mod tests;

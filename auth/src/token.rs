//! A JWT in, a principal or a refusal out.
//!
//! One invariant: nothing of a token is believed before its signature is checked with a key of the issuer that it names,
//! under an algorithm that this issuer is configured for. Knows nothing of streams.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use schemas::ids::TenantId;
use schemas::problem::Code;
use url::Url;

use crate::egress::Reach;

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
    /// `exp`, in milliseconds since the Unix epoch.
    pub expires_at_ms: i64,
}

/// Subject and claims may name a patient: they are not printed.
impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Principal")
            .field("issuer", &self.issuer)
            .field("tenant", &self.tenant)
            .field("expires_at_ms", &self.expires_at_ms)
            .finish_non_exhaustive()
    }
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

/// A signature algorithm. There is no symmetric one, and no `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "named by RFC 7518 and RFC 8037")]
pub enum Algorithm {
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    ES512,
    EdDSA,
}

impl Algorithm {
    /// All of them.
    pub const ALL: &'static [Self] = &[
        Self::RS256,
        Self::RS384,
        Self::RS512,
        Self::PS256,
        Self::PS384,
        Self::PS512,
        Self::ES256,
        Self::ES384,
        Self::ES512,
        Self::EdDSA,
    ];

    /// The name in a token's header.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RS256 => "RS256",
            Self::RS384 => "RS384",
            Self::RS512 => "RS512",
            Self::PS256 => "PS256",
            Self::PS384 => "PS384",
            Self::PS512 => "PS512",
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::ES512 => "ES512",
            Self::EdDSA => "EdDSA",
        }
    }

    /// The algorithm of that name. `None` for all others, `none` and the symmetric ones included.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|algorithm| algorithm.as_str() == name)
    }
}

/// Where an issuer's keys come from.
#[derive(Debug, Clone)]
pub enum KeySource {
    /// A JWK set, as text.
    Jwks(String),
    /// The address of a JWK set.
    Url(Url),
    /// OpenID Connect discovery: `<issuer>/.well-known/openid-configuration`.
    Discovery,
}

/// The tenants that an issuer may assert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tenants {
    /// Any.
    Any,
    /// These.
    List(Vec<TenantId>),
}

/// An issuer that is trusted, and how far.
#[derive(Debug, Clone)]
pub struct Issuer {
    /// `iss`, compared exactly.
    pub issuer: String,
    /// Its keys.
    pub keys: KeySource,
    /// Besides global addresses, where its keys may be fetched from.
    pub reach: Reach,
    /// One of these must be in `aud`.
    pub audiences: Vec<String>,
    /// Its tokens are signed with one of these.
    pub algorithms: Vec<Algorithm>,
    /// The claim that names the tenant; a JSON pointer where it starts with `/`.
    pub tenant_claim: String,
    /// The tenants that it may assert.
    pub tenants: Tenants,
    /// The claims that reach [`Principal::claims`], where they are strings.
    pub claims: Vec<String>,
    /// The claims that may hold the scopes; the first that a token has counts.
    pub scope_claims: Vec<String>,
    /// How far `nbf` and `iat` may lie ahead of our clock. `exp` has no leeway: a session ends with its token.
    pub leeway: Duration,
}

impl Issuer {
    /// An issuer with the defaults: RS256, PS256, ES256 and EdDSA, the tenant in `tenant`, no tenants, no claims, scopes in
    /// `scope` or `scp`, 30 s of leeway, keys from global addresses only.
    #[must_use]
    pub fn new(issuer: &str, keys: KeySource, audiences: Vec<String>) -> Self {
        Self {
            issuer: issuer.to_owned(),
            keys,
            reach: Reach::default(),
            audiences,
            algorithms: vec![
                Algorithm::RS256,
                Algorithm::PS256,
                Algorithm::ES256,
                Algorithm::EdDSA,
            ],
            tenant_claim: "tenant".to_owned(),
            tenants: Tenants::List(Vec::new()),
            claims: Vec::new(),
            scope_claims: vec!["scope".to_owned(), "scp".to_owned()],
            leeway: Duration::from_secs(30),
        }
    }
}

/// An issuer that cannot be trusted as it is configured.
#[derive(Debug, thiserror::Error)]
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
    inner: Arc<()>,
}

impl Authenticator {
    /// Takes the issuers; inline keys are read at once, others when [`Authenticator::run`] or a token asks for them.
    pub fn new(issuers: Vec<Issuer>) -> Result<Self, BadIssuer> {
        todo!("{}", issuers.len())
    }

    /// Verifies a compact JWS. Waits only where an unknown `kid` makes it fetch keys. Cancel safe.
    #[expect(clippy::unused_async, reason = "written in the next commit")]
    pub async fn verify(&self, token: &str, now_ms: i64) -> Result<Arc<Principal>, BadToken> {
        todo!("{} {now_ms} {:?}", token.len(), self.inner)
    }

    /// Whether every issuer has keys that are not past their age.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.status().iter().all(|issuer| issuer.ready)
    }

    /// Each issuer's state, in the configured order.
    #[must_use]
    pub fn status(&self) -> Vec<IssuerStatus> {
        todo!()
    }

    /// Fetches keys at once and then ahead of their age, so that no reader waits for it. Never returns: the caller owns
    /// the task and drops it. Without it keys are fetched when a token needs them.
    #[expect(clippy::unused_async, reason = "written in the next commit")]
    pub async fn run(self) {
        todo!()
    }

    /// Every `detail` that a [`BadToken`] may have, with its code: for documentation and tests.
    #[must_use]
    pub fn reasons() -> &'static [(&'static str, Code)] {
        todo!()
    }
}

//! The issuers that are trusted, and how far: configuration as values.
//!
//! One invariant: what an issuer may assert (algorithms, audiences, tenants, claims) is listed; nothing is implied by
//! a good signature. Knows nothing of tokens.

use std::fmt;
use std::time::Duration;

use schemas::ids::TenantId;
use url::Url;

use crate::egress::Reach;

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

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
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

impl Tenants {
    /// Whether the issuer may assert this one.
    #[must_use]
    pub fn allow(&self, tenant: &TenantId) -> bool {
        match self {
            Self::Any => true,
            Self::List(tenants) => tenants.contains(tenant),
        }
    }
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
    /// The claims that reach [`crate::token::Principal::claims`], where they are strings.
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

    /// What is wrong with the configuration, one sentence each; keys are not looked at.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut wrong = |is: bool, problem: &str| {
            if is {
                problems.push(problem.to_owned());
            }
        };
        wrong(self.issuer.is_empty(), "the issuer has no name");
        wrong(
            self.audiences.is_empty(),
            "no audience is listed, so no token would be accepted",
        );
        wrong(
            self.audiences.iter().any(String::is_empty),
            "an audience is empty",
        );
        wrong(
            self.algorithms.is_empty(),
            "no algorithm is listed, so no token would be accepted",
        );
        wrong(self.tenant_claim.is_empty(), "the tenant claim has no name");
        wrong(
            matches!(&self.tenants, Tenants::List(tenants) if tenants.is_empty()),
            "no tenant is listed, so no token would be accepted",
        );
        wrong(self.scope_claims.is_empty(), "no scope claim is named");
        wrong(
            self.leeway > Duration::from_secs(300),
            "the leeway is longer than five minutes",
        );
        problems
    }
}

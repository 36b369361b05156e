//! Whom deliveries are sent with: one client for each reach and certificate, and the tokens of destinations that want one.
//!
//! Invariant: every request goes through a client whose connector refuses what its tenant may not reach. Clients are kept,
//! so that connections are; a changed certificate makes another one.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use auth::egress::{Client, EgressError, Identity, Reach, Request, SendBounds};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue, Method, header};
use schemas::ids::TenantId;
use secrecy::ExposeSecret as _;
use serde::Deserialize;
use tokio::time::Instant;
use webhooks::delivery::EndpointId;
use webhooks::endpoint::{Credentials, Endpoint};

/// The largest answer of a token endpoint.
const TOKEN_BYTES_MAX: usize = 32 * 1024;
/// How long a token endpoint may take.
const TOKEN_DEADLINE: Duration = Duration::from_secs(10);
/// How long a token is used at most, and how much earlier than it says it is fetched again.
const TOKEN_AGE_MAX: Duration = Duration::from_secs(3600);
const TOKEN_MARGIN: Duration = Duration::from_secs(30);
/// How long a token is used that does not say for how long it is good.
const TOKEN_AGE: Duration = Duration::from_secs(300);

/// Which addresses tenants' receivers may be at, besides global ones.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reaches {
    /// On this machine, for every tenant: development only.
    pub(crate) loopback: bool,
    /// Tenants whose receivers may be in private networks.
    pub(crate) private: Vec<TenantId>,
}

impl Reaches {
    pub(crate) fn of(&self, tenant: &TenantId) -> Reach {
        Reach {
            loopback: self.loopback,
            private: self.private.contains(tenant),
            plain: false,
        }
    }
}

/// The clients.
pub(crate) struct Clients {
    reaches: Reaches,
    global: Client,
    private: Client,
    /// By endpoint, with the time of the change that the certificate is of. Bounded by the endpoints that show one.
    certified: Mutex<HashMap<EndpointId, (i64, Client)>>,
    tokens: Mutex<HashMap<EndpointId, Token>>,
}

struct Token {
    changed_ms: i64,
    value: HeaderValue,
    until: Instant,
}

impl Clients {
    pub(crate) fn new(reaches: Reaches) -> Result<Self, EgressError> {
        let reach = |private| Reach {
            loopback: reaches.loopback,
            private,
            plain: false,
        };
        Ok(Self {
            global: Client::for_deliveries(reach(false), None)?,
            private: Client::for_deliveries(reach(true), None)?,
            reaches,
            certified: Mutex::default(),
            tokens: Mutex::default(),
        })
    }

    pub(crate) fn reach(&self, tenant: &TenantId) -> Reach {
        self.reaches.of(tenant)
    }

    /// The client for what is sent to an endpoint.
    pub(crate) fn of(&self, endpoint: &Endpoint) -> Result<Client, EgressError> {
        let reach = self.reach(&endpoint.tenant);
        let Credentials::Mtls { certificate, key } = &endpoint.spec.credentials else {
            return Ok(self.plain(reach));
        };
        let mut certified = self.certified.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, client)) = certified.get(&endpoint.id)
            && *known == endpoint.updated_ms
        {
            return Ok(client.clone());
        }
        let client = Client::for_deliveries(reach, Some(&Identity::new(certificate, key)))?;
        certified.insert(endpoint.id.clone(), (endpoint.updated_ms, client.clone()));
        Ok(client)
    }

    fn plain(&self, reach: Reach) -> Client {
        if reach.private {
            &self.private
        } else {
            &self.global
        }
        .clone()
    }

    /// The bearer token for a destination that wants one by OAuth 2, fetched if there is none that is good.
    pub(crate) async fn token(&self, endpoint: &Endpoint) -> Result<Option<HeaderValue>, EgressError> {
        let Credentials::OAuth2 {
            token_url,
            client_id,
            client_secret,
            scopes,
        } = &endpoint.spec.credentials
        else {
            return Ok(None);
        };
        if let Some(token) = self.tokens().get(&endpoint.id)
            && token.changed_ms == endpoint.updated_ms
            && Instant::now() < token.until
        {
            return Ok(Some(token.value.clone()));
        }
        // RFC 6749, section 2.3.1: both are form-encoded before they are joined.
        let encoded = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let pair = format!(
            "{}:{}",
            encoded(client_id),
            encoded(client_secret.expose_secret())
        );
        let mut headers = HeaderMap::new();
        let mut basic = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(pair)))
            .map_err(|_| EgressError::Identity)?;
        basic.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, basic);
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/x-www-form-urlencoded"),
        );
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        let request = Request {
            method: Method::POST,
            url: token_url,
            headers,
            body: form(scopes).into(),
        };
        let bounds = SendBounds {
            deadline: TOKEN_DEADLINE,
            body_deadline: TOKEN_DEADLINE,
            body_bytes_max: TOKEN_BYTES_MAX,
        };
        let client = self.plain(self.reach(&endpoint.tenant));
        let reply = client.send(request, bounds).await?;
        let answer: Answer = match serde_json::from_slice(&reply.body) {
            Ok(answer) if reply.status == 200 => answer,
            _ => return Err(EgressError::Identity),
        };
        let mut value = HeaderValue::try_from(format!("Bearer {}", answer.access_token))
            .map_err(|_| EgressError::Identity)?;
        value.set_sensitive(true);
        let age = answer.expires_in.map_or(TOKEN_AGE, |seconds| {
            Duration::from_secs(seconds).saturating_sub(TOKEN_MARGIN)
        });
        let token = Token {
            changed_ms: endpoint.updated_ms,
            value: value.clone(),
            until: Instant::now() + age.min(TOKEN_AGE_MAX),
        };
        self.tokens().insert(endpoint.id.clone(), token);
        Ok(Some(value))
    }

    /// The destination did not take it: the next one is fetched.
    pub(crate) fn forget_token(&self, endpoint: &EndpointId) {
        self.tokens().remove(endpoint);
    }

    /// Forgets what belongs to endpoints that are gone.
    pub(crate) fn keep(&self, is_there: impl Fn(&EndpointId) -> bool) {
        self.tokens().retain(|endpoint, _| is_there(endpoint));
        let mut certified = self.certified.lock().unwrap_or_else(PoisonError::into_inner);
        certified.retain(|endpoint, _| is_there(endpoint));
    }

    fn tokens(&self) -> std::sync::MutexGuard<'_, HashMap<EndpointId, Token>> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The request's body (RFC 6749, section 4.4.2).
fn form(scopes: &[String]) -> String {
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.append_pair("grant_type", "client_credentials");
    if !scopes.is_empty() {
        form.append_pair("scope", &scopes.join(" "));
    }
    form.finish()
}

#[derive(Deserialize)]
struct Answer {
    access_token: String,
    expires_in: Option<u64>,
}

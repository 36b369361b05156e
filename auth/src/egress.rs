//! The one way out: an HTTP client that goes only where it may.
//!
//! One invariant: no connection is opened to an address that [`Reach`] does not allow, whether the URL names it, DNS
//! gives it, or an IPv6 address wraps it. No redirects, no proxies of the environment, one deadline for everything, bodies
//! bounded while they stream. Knows nothing of what is fetched and sent.

mod resolver;
mod send;
#[cfg(test)]
mod tests;

pub use send::{Identity, Reply, Request, SendBounds};

use std::error::Error as _;
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use reqwest::RequestBuilder;
use reqwest::header::{CACHE_CONTROL, HeaderMap};
use url::{Host, Url};

use crate::address::Kind;
use resolver::{Forbidden, Guard, Unresolved};

/// Which addresses besides the global ones may be connected to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reach {
    /// `127.0.0.0/8` and `::1`; plain `http` is allowed to these. For development.
    pub loopback: bool,
    /// The private networks of RFC 1918 and RFC 4193: an identity provider inside of the house.
    pub private: bool,
    /// Plain `http` to every address that may be connected to, for hosts that an operator has named one by one.
    pub plain: bool,
}

impl Reach {
    /// Of a client that asks only hosts that an operator has named: they may be inside of the house.
    pub const NAMED_HOSTS: Self = Self {
        loopback: true,
        private: true,
        plain: true,
    };
}

/// What one fetch may cost.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// From the call until the last byte.
    pub deadline: Duration,
    /// The largest body.
    pub body_bytes_max: usize,
}

/// Fetches. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    reach: Reach,
    http: reqwest::Client,
}

/// An answer, whole.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status; redirects are answers like others.
    pub status: u16,
    /// `Cache-Control`, if there is one.
    pub cache_control: Option<String>,
    /// The body.
    pub body: Vec<u8>,
}

/// Why a fetch failed.
#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    /// The URL is none that is fetched: another scheme, no host, credentials in it, plain `http` beyond loopback.
    #[error("the URL is not acceptable: {0}")]
    Url(&'static str),
    /// The address is not allowed.
    #[error("the address is not allowed")]
    Address,
    /// The deadline passed.
    #[error("no answer within the deadline")]
    Deadline,
    /// The body is larger than allowed.
    #[error("the body is larger than {0} bytes")]
    TooLarge(usize),
    /// The name has no address.
    #[error("the name cannot be resolved")]
    Resolve,
    /// A certificate or a key that cannot be used.
    #[error("the client certificate is not acceptable")]
    Identity,
    /// No connection.
    #[error("the connection failed")]
    Connect(#[source] reqwest::Error),
    /// No TLS on the connection: a bad certificate, or a server that speaks something else.
    #[error("the TLS handshake failed")]
    Tls(#[source] reqwest::Error),
    /// The exchange failed on an open connection.
    #[error("the exchange failed")]
    Exchange(#[source] reqwest::Error),
}

impl EgressError {
    /// A stable word for logs and metrics.
    #[must_use]
    pub fn class(&self) -> &'static str {
        match self {
            Self::Url(_) => "url",
            Self::Address => "address",
            Self::Deadline => "timeout",
            Self::TooLarge(_) => "too_large",
            Self::Resolve => "dns",
            Self::Identity => "identity",
            Self::Connect(_) => "connect",
            Self::Tls(_) => "tls",
            Self::Exchange(_) => "exchange",
        }
    }
}

impl Reach {
    /// Whether an address may be connected to.
    #[must_use]
    pub fn allows(self, address: IpAddr) -> bool {
        match Kind::of(address) {
            Kind::Global => true,
            Kind::Loopback => self.loopback,
            Kind::Private => self.private,
            Kind::Never => false,
        }
    }

    /// Whether a URL may be asked for at all. Names are looked at again when they are resolved.
    pub fn check(self, url: &Url) -> Result<(), EgressError> {
        if !url.username().is_empty() || url.password().is_some() {
            return Err(EgressError::Url("it has credentials in it"));
        }
        let host = url.host().ok_or(EgressError::Url("it has no host"))?;
        let literal = match host {
            Host::Ipv4(address) => Some(IpAddr::V4(address)),
            Host::Ipv6(address) => Some(IpAddr::V6(address)),
            Host::Domain(_) => None,
        };
        if literal.is_some_and(|address| !self.allows(address)) {
            return Err(EgressError::Address);
        }
        match url.scheme() {
            "https" => Ok(()),
            "http" => {
                let loopback = match literal {
                    Some(address) => Kind::of(address) == Kind::Loopback,
                    None => url.host_str() == Some("localhost"),
                };
                if self.plain || (loopback && self.loopback) {
                    Ok(())
                } else {
                    Err(EgressError::Url("plain http is for loopback only"))
                }
            }
            _ => Err(EgressError::Url("it is neither https nor http")),
        }
    }
}

/// What no client of ours does without.
fn builder(guard: Guard) -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .dns_resolver(guard)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .user_agent(concat!("tidewire/", env!("CARGO_PKG_VERSION")))
}

impl Client {
    /// A client that goes to global addresses and those that `reach` adds.
    pub fn new(reach: Reach) -> Result<Self, EgressError> {
        let http = builder(Guard::system(reach))
            .connect_timeout(Duration::from_secs(5))
            .pool_max_idle_per_host(2)
            .pool_idle_timeout(Duration::from_secs(30))
            .build()
            .map_err(EgressError::Exchange)?;
        Ok(Self { reach, http })
    }

    /// Fetches a URL with GET. Cancel safe.
    pub async fn get(&self, url: &Url, bounds: Bounds) -> Result<Answer, EgressError> {
        self.ask(url, bounds, self.http.get(url.clone())).await
    }

    /// Sends a body with POST. Cancel safe: what was not sent by then is not sent any more, and what was, may have arrived.
    pub async fn post(
        &self,
        url: &Url,
        headers: HeaderMap,
        body: Bytes,
        bounds: Bounds,
    ) -> Result<Answer, EgressError> {
        let request = self.http.post(url.clone()).headers(headers).body(body);
        self.ask(url, bounds, request).await
    }

    async fn ask(&self, url: &Url, bounds: Bounds, request: RequestBuilder) -> Result<Answer, EgressError> {
        self.reach.check(url)?;
        tokio::time::timeout(bounds.deadline, exchange(request, bounds))
            .await
            .unwrap_or(Err(EgressError::Deadline))
    }
}

async fn exchange(request: RequestBuilder, bounds: Bounds) -> Result<Answer, EgressError> {
    let mut response = request.send().await.map_err(failed)?;
    let cache_control = response
        .headers()
        .get(CACHE_CONTROL)
        .and_then(|value| value.to_str().ok())
        .map(str::to_owned);
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        if body.len() + chunk.len() > bounds.body_bytes_max {
            return Err(EgressError::TooLarge(bounds.body_bytes_max));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Answer {
        status: response.status().as_u16(),
        cache_control,
        body,
    })
}

fn failed(error: reqwest::Error) -> EgressError {
    let is_connect = error.is_connect();
    let mut is_tls = false;
    let mut cause = error.source();
    while let Some(inner) = cause {
        if inner.is::<Forbidden>() {
            return EgressError::Address;
        }
        if inner.is::<Unresolved>() {
            return EgressError::Resolve;
        }
        // What rustls has to say comes as data that is not valid, in one or two wrappings.
        let mut io = inner.downcast_ref::<std::io::Error>();
        while let Some(error) = io {
            is_tls |= error.kind() == std::io::ErrorKind::InvalidData;
            io = error.get_ref().and_then(|inner| inner.downcast_ref());
        }
        cause = inner.source();
    }
    // The operator knows the URL; its query may be nobody's business.
    let error = error.without_url();
    match (is_connect, is_tls) {
        (true, true) => EgressError::Tls(error),
        (true, false) => EgressError::Connect(error),
        (false, _) => EgressError::Exchange(error),
    }
}

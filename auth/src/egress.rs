//! The one way out: an HTTP client that goes only where it may.
//!
//! One invariant: no connection is opened to an address that [`Reach`] does not allow, whether the URL names it, DNS
//! gives it, or an IPv6 address wraps it. No redirects, one deadline for everything, bodies bounded while they stream.
//! Knows nothing of what is fetched.

use std::time::Duration;

use url::Url;

/// Which addresses besides the global ones may be connected to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reach {
    /// `127.0.0.0/8` and `::1`; plain `http` is allowed to these. For development.
    pub loopback: bool,
    /// The private networks of RFC 1918 and RFC 4193: an identity provider inside of the house.
    pub private: bool,
}

/// What one fetch may cost.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// From the call until the last byte.
    pub deadline: Duration,
    /// The largest body, decoded.
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
    /// The connection or the exchange failed.
    #[error("the exchange failed")]
    Exchange(#[source] reqwest::Error),
}

impl Client {
    /// A client that goes to global addresses and those that `reach` adds.
    pub fn new(reach: Reach) -> Result<Self, EgressError> {
        todo!("{reach:?}")
    }

    /// Fetches a URL with GET. Cancel safe.
    #[expect(clippy::unused_async, reason = "written in the next commit")]
    pub async fn get(&self, url: &Url, bounds: Bounds) -> Result<Answer, EgressError> {
        todo!("{url} {bounds:?} {:?} {:?}", self.reach, self.http)
    }
}

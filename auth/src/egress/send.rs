//! Requests with a body, and answers of which mostly the status counts.
//!
//! Invariant: one deadline covers names, connection, TLS, head and body, and a status that came counts whatever the body
//! does: one that is too long or drips is left, with its connection.

use std::time::Duration;

use reqwest::Method;
use reqwest::header::HeaderMap;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::{Instant, sleep_until, timeout_at};
use url::Url;

use super::resolver::Guard;
use super::{Client, EgressError, Reach, builder, failed};

/// One request.
#[derive(Debug)]
pub struct Request<'a> {
    /// The method.
    pub method: Method,
    /// The URL.
    pub url: &'a Url,
    /// All headers but those of the connection.
    pub headers: HeaderMap,
    /// The body.
    pub body: reqwest::Body,
}

/// What one request may cost.
#[derive(Debug, Clone, Copy)]
pub struct SendBounds {
    /// From the call until the last byte that is read.
    pub deadline: Duration,
    /// How long the body may take after the head; within the deadline.
    pub body_deadline: Duration,
    /// How much of the body is read.
    pub body_bytes_max: usize,
}

/// An answer.
#[derive(Debug)]
pub struct Reply {
    /// The HTTP status; redirects are answers like others.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, or its beginning.
    pub body: Vec<u8>,
    /// Whether that is all of it; otherwise the connection was given up.
    pub whole: bool,
}

/// A client certificate, and the key to it.
#[derive(Clone)]
pub struct Identity {
    pem: SecretString,
}

impl Identity {
    /// A chain and a key, both in PEM.
    #[must_use]
    pub fn new(certificate: &str, key: &SecretString) -> Self {
        Self {
            pem: SecretString::from(format!("{certificate}\n{}", key.expose_secret())),
        }
    }
}

/// Nothing of the key.
impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identity")
    }
}

impl Client {
    /// A client for many requests to a few receivers: it keeps more connections, and can show a certificate.
    pub fn for_deliveries(reach: Reach, identity: Option<&Identity>) -> Result<Self, EgressError> {
        Self::deliveries(reach, Guard::system(reach), identity)
    }

    pub(super) fn deliveries(
        reach: Reach,
        guard: Guard,
        identity: Option<&Identity>,
    ) -> Result<Self, EgressError> {
        let mut http = builder(guard)
            // As many as one tenant may have under way: partners put many endpoints on one host.
            .pool_max_idle_per_host(256)
            .pool_idle_timeout(Duration::from_secs(60))
            .tcp_nodelay(true);
        if let Some(identity) = identity {
            let pem = identity.pem.expose_secret().as_bytes();
            http = http.identity(reqwest::Identity::from_pem(pem).map_err(|_| EgressError::Identity)?);
        }
        let http = http.build().map_err(EgressError::Exchange)?;
        Ok(Self { reach, http })
    }

    /// Sends a request. Cancel safe: the connection is given up.
    pub async fn send(&self, request: Request<'_>, bounds: SendBounds) -> Result<Reply, EgressError> {
        self.reach.check(request.url)?;
        let end = Instant::now() + bounds.deadline;
        let mut sent = reqwest::Request::new(request.method, request.url.clone());
        *sent.headers_mut() = request.headers;
        *sent.body_mut() = Some(request.body);
        let Ok(answer) = timeout_at(end, self.http.execute(sent)).await else {
            return Err(EgressError::Deadline);
        };
        let mut response = answer.map_err(failed)?;
        let (status, headers) = (response.status().as_u16(), std::mem::take(response.headers_mut()));
        let body_end = sleep_until(end.min(Instant::now() + bounds.body_deadline));
        tokio::pin!(body_end);
        let mut body = Vec::new();
        let whole = loop {
            let chunk = tokio::select! {
                // A body that is there is read, whatever the time.
                biased;
                chunk = response.chunk() => chunk,
                () = &mut body_end => break false,
            };
            match chunk {
                Ok(Some(chunk)) => {
                    let room = bounds.body_bytes_max - body.len();
                    body.extend_from_slice(chunk.get(..room).unwrap_or(&chunk));
                    if chunk.len() > room {
                        break false;
                    }
                }
                Ok(None) => break true,
                Err(_) => break false,
            }
        };
        Ok(Reply {
            status,
            headers,
            body,
            whole,
        })
    }
}

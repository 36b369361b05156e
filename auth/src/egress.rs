//! The one way out: an HTTP client that goes only where it may.
//!
//! One invariant: no connection is opened to an address that [`Reach`] does not allow, whether the URL names it, DNS
//! gives it, or an IPv6 address wraps it. No redirects, no proxies of the environment, one deadline for everything, bodies
//! bounded while they stream. Knows nothing of what is fetched.

use std::error::Error as _;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use reqwest::RequestBuilder;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{CACHE_CONTROL, HeaderMap};
use url::{Host, Url};

use crate::address::Kind;

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
    /// The connection or the exchange failed.
    #[error("the exchange failed")]
    Exchange(#[source] reqwest::Error),
}

/// The address is not allowed: what the resolver tells through the client's layers.
#[derive(Debug, thiserror::Error)]
#[error("the name has an address that is not allowed")]
struct Forbidden;

#[derive(Debug)]
struct Guard {
    reach: Reach,
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

impl Client {
    /// A client that goes to global addresses and those that `reach` adds.
    pub fn new(reach: Reach) -> Result<Self, EgressError> {
        let http = reqwest::Client::builder()
            .dns_resolver(Guard { reach })
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .user_agent(concat!("tidewire/", env!("CARGO_PKG_VERSION")))
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
    let mut cause = error.source();
    while let Some(inner) = cause {
        if inner.is::<Forbidden>() {
            return EgressError::Address;
        }
        cause = inner.source();
    }
    // The operator knows the URL; its query may be nobody's business.
    EgressError::Exchange(error.without_url())
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let reach = self.reach;
        Box::pin(async move {
            let addresses: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            // One forbidden address among good ones is how a rebinding name looks: none of them is used.
            if addresses.iter().any(|address| !reach.allows(address.ip())) {
                return Err(Forbidden.into());
            }
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    const BOUNDS: Bounds = Bounds {
        deadline: Duration::from_secs(5),
        body_bytes_max: 1000,
    };
    const LOOPBACK: Reach = Reach {
        loopback: true,
        private: false,
        plain: false,
    };

    fn url(text: &str) -> Url {
        Url::parse(text).expect("a URL")
    }

    #[test]
    fn urls_are_checked_before_anything_is_resolved() {
        let refused = |reach: Reach, text: &str| reach.check(&url(text)).is_err();
        for text in [
            "http://id.example/",
            "ftp://id.example/",
            "file:///etc/passwd",
            "https://user@id.example/",
            "https://user:secret@id.example/",
            "https://127.0.0.1/",
            "https://2130706433/",
            "https://0x7f.1/",
            "https://[::1]/",
            "https://[::ffff:127.0.0.1]/",
            "https://169.254.169.254/latest/meta-data",
            "http://127.0.0.1/",
            "http://localhost/",
        ] {
            assert!(refused(Reach::default(), text), "{text}");
        }
        assert!(!refused(Reach::default(), "https://id.example/jwks?x=1"));
        for text in [
            "http://127.0.0.1:1/",
            "http://localhost/",
            "http://[::1]/",
            "https://localhost/",
        ] {
            assert!(!refused(LOOPBACK, text), "{text}");
        }
        assert!(refused(LOOPBACK, "http://localhost.example/"));
        let private = Reach {
            private: true,
            ..Reach::default()
        };
        assert!(refused(private, "http://10.0.0.1/"));
    }

    #[test]
    fn named_hosts_may_be_inside_and_speak_plain_http_and_metadata_services_stay_out_of_reach() {
        for text in [
            "http://router.internal:4000/",
            "http://10.0.0.1/",
            "https://127.0.0.1/",
        ] {
            assert!(Reach::NAMED_HOSTS.check(&url(text)).is_ok(), "{text}");
        }
        for text in ["http://169.254.169.254/", "http://user:secret@router.internal/"] {
            assert!(Reach::NAMED_HOSTS.check(&url(text)).is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn a_post_brings_its_headers_and_its_body() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let server = async {
            let (mut socket, _) = listener.accept().await.expect("a connection");
            let mut request = Vec::new();
            while !request.ends_with(b"{\"a\":1}") {
                assert_ne!(socket.read_buf(&mut request).await.expect("a request"), 0);
            }
            socket
                .write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
                .await
                .expect("a write");
            String::from_utf8(request).expect("text")
        };
        let client = Client::new(LOOPBACK).expect("a client");
        let address = url(&format!("http://127.0.0.1:{port}/callback"));
        let mut headers = HeaderMap::new();
        headers.insert("content-type", "application/json".parse().expect("a value"));
        let body = Bytes::from_static(b"{\"a\":1}");
        let (answer, request) = tokio::join!(client.post(&address, headers, body, BOUNDS), server);
        assert_eq!(answer.expect("an answer").status, 204);
        assert!(request.starts_with("POST /callback HTTP/1.1\r\n"), "{request}");
        assert!(
            request.contains("content-type: application/json\r\n"),
            "{request}"
        );
    }

    #[tokio::test]
    async fn a_name_that_resolves_to_a_forbidden_address_is_refused() {
        let client = Client::new(Reach::default()).expect("a client");
        let error = client
            .get(&url("https://localhost/"), BOUNDS)
            .await
            .expect_err("loopback");
        assert!(matches!(error, EgressError::Address), "{error:?}");
    }

    /// Answers one request on a free port with these bytes, then holds the connection open.
    async fn answer(response: Vec<u8>) -> (Url, tokio::task::JoinSet<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move {
            let (mut socket, _) = listener.accept().await.expect("a connection");
            let mut request = [0; 4096];
            let _length = socket.read(&mut request).await.expect("a request");
            socket.write_all(&response).await.expect("a write");
            std::future::pending::<()>().await;
        });
        (url(&format!("http://127.0.0.1:{port}/")), tasks)
    }

    #[tokio::test]
    async fn https_begins_with_a_tls_handshake_and_ends_with_it_where_there_is_none() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let client = Client::new(LOOPBACK).expect("a client");
        let server = async {
            let (mut socket, _) = listener.accept().await.expect("a connection");
            let mut hello = [0; 3];
            socket.read_exact(&mut hello).await.expect("a record");
            socket
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                .await
                .expect("a write");
            hello
        };
        let address = url(&format!("https://127.0.0.1:{port}/"));
        let (answer, hello) = tokio::join!(client.get(&address, BOUNDS), server);
        assert!(matches!(answer, Err(EgressError::Exchange(_))), "{answer:?}");
        assert_eq!(hello, [22, 3, 1], "a handshake record (RFC 8446, section 5.1)");
    }

    #[tokio::test]
    async fn redirects_are_answers_and_not_followed() {
        let response = b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n";
        let (url, _server) = answer(response.to_vec()).await;
        let answer = Client::new(LOOPBACK)
            .expect("a client")
            .get(&url, BOUNDS)
            .await
            .expect("an answer");
        assert_eq!((answer.status, answer.body.len()), (302, 0));
    }

    #[tokio::test]
    async fn a_body_beyond_the_bound_is_not_read_to_its_end() {
        let mut response = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
        for _ in 0..3 {
            response.extend_from_slice(format!("1f4\r\n{}\r\n", "x".repeat(500)).as_bytes());
        }
        // The body never ends: only the bound can.
        let (url, _server) = answer(response).await;
        let error = Client::new(LOOPBACK)
            .expect("a client")
            .get(&url, BOUNDS)
            .await
            .expect_err("too large");
        assert!(matches!(error, EgressError::TooLarge(1000)), "{error:?}");
    }

    #[tokio::test]
    async fn the_deadline_covers_the_body() {
        let (url, _server) = answer(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc".to_vec()).await;
        let bounds = Bounds {
            deadline: Duration::from_millis(200),
            ..BOUNDS
        };
        let error = Client::new(LOOPBACK)
            .expect("a client")
            .get(&url, bounds)
            .await
            .expect_err("no end");
        assert!(matches!(error, EgressError::Deadline), "{error:?}");
    }
}

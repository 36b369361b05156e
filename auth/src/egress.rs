//! The one way out: an HTTP client that goes only where it may.
//!
//! One invariant: no connection is opened to an address that [`Reach`] does not allow, whether the URL names it, DNS
//! gives it, or an IPv6 address wraps it. No redirects, no proxies of the environment, one deadline for everything, bodies
//! bounded while they stream. Knows nothing of what is fetched.

use std::error::Error as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::CACHE_CONTROL;
use url::{Host, Url};

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

/// What an address is for. Whatever is not plainly global is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Global,
    Loopback,
    Private,
    /// Link-local (cloud metadata lives there), shared, multicast, documentation, reserved, translated, unspecified.
    Never,
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
                if loopback && self.loopback {
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
        self.reach.check(url)?;
        tokio::time::timeout(bounds.deadline, self.exchange(url, bounds))
            .await
            .unwrap_or(Err(EgressError::Deadline))
    }

    async fn exchange(&self, url: &Url, bounds: Bounds) -> Result<Answer, EgressError> {
        let mut response = self.http.get(url.clone()).send().await.map_err(failed)?;
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

impl Kind {
    fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::of_v4(address),
            IpAddr::V6(address) => Self::of_v6(address),
        }
    }

    /// The IANA IPv4 Special-Purpose Address Registry; what it does not call globally reachable is not.
    fn of_v4(address: Ipv4Addr) -> Self {
        match address.octets() {
            [127, ..] => Self::Loopback,
            [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Self::Private,
            [0, ..]
            | [100, 64..=127, ..]
            | [169, 254, ..]
            | [192, 0, 0 | 2, _]
            | [192, 88, 99, _]
            | [198, 18 | 19, ..]
            | [198, 51, 100, _]
            | [203, 0, 113, _]
            | [224..=255, ..] => Self::Never,
            _ => Self::Global,
        }
    }

    /// Of IPv6 only `2000::/3` is global unicast, and of that not what the registry takes out again. Addresses that wrap
    /// an IPv4 address are what they wrap, at best: a translator on the way would go there.
    fn of_v6(address: Ipv6Addr) -> Self {
        if address == Ipv6Addr::LOCALHOST {
            return Self::Loopback;
        }
        if let Some(mapped) = address.to_ipv4_mapped() {
            return Self::of_v4(mapped);
        }
        let wraps = |high: u16, low: u16| {
            let [[a, b], [c, d]] = [high.to_be_bytes(), low.to_be_bytes()];
            match Self::of_v4(Ipv4Addr::new(a, b, c, d)) {
                Self::Global => Self::Global,
                _ => Self::Never,
            }
        };
        match address.segments() {
            // NAT64 (RFC 6052) and 6to4 (RFC 3056).
            [0x64, 0xff9b, 0, 0, 0, 0, high, low] => wraps(high, low),
            [0x2002, high, low, ..] => wraps(high, low),
            // Teredo, benchmarking, ORCHID and the other protocol assignments of 2001::/23; documentation.
            [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Self::Never,
            [0xfc00..=0xfdff, ..] => Self::Private,
            [0x2000..=0x3fff, ..] => Self::Global,
            _ => Self::Never,
        }
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
    };

    fn url(text: &str) -> Url {
        Url::parse(text).expect("a URL")
    }

    #[test]
    fn only_global_addresses_are_allowed() {
        let allowed = |text: &str| Reach::default().allows(text.parse().expect("an address"));
        for address in [
            "1.1.1.1",
            "93.184.216.34",
            "172.32.0.1",
            "100.128.0.1",
            "2606:4700::1111",
            "::ffff:1.1.1.1",
        ] {
            assert!(allowed(address), "{address}");
        }
        for address in [
            "127.0.0.1",
            "127.8.9.10",
            "0.0.0.0",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "100.127.255.255",
            "192.0.0.192",
            "192.0.2.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::127.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2002:a9fe:a9fe::1",
            "2001::1",
            "2001:db8::1",
            "3fff::1",
            "fe80::1",
            "fec0::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "100::1",
        ] {
            assert!(!allowed(address), "{address}");
        }
    }

    #[test]
    fn reach_adds_loopback_and_private_networks_and_nothing_else() {
        let allowed = |reach: Reach, text: &str| reach.allows(text.parse().expect("an address"));
        let private = Reach {
            private: true,
            loopback: false,
        };
        for address in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            assert!(
                allowed(LOOPBACK, address) && !allowed(private, address),
                "{address}"
            );
        }
        for address in ["10.1.2.3", "192.168.0.1", "fd12::1"] {
            assert!(
                !allowed(LOOPBACK, address) && allowed(private, address),
                "{address}"
            );
        }
        let both = Reach {
            private: true,
            loopback: true,
        };
        for address in [
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "::",
            "64:ff9b::10.0.0.1",
            "fe80::1",
        ] {
            assert!(!allowed(both, address), "{address}");
        }
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
        assert!(refused(
            Reach {
                private: true,
                loopback: false
            },
            "http://10.0.0.1/"
        ));
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

//! A host that an operator has named: a name or an address, and perhaps a port.

use url::Url;

/// A host with or without a port. Without one it stands for the port of the URL's scheme.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// As URLs normalise it.
    name: String,
    port: Option<u16>,
}

impl Host {
    /// Parses `router.internal:4000`. No patterns, no scheme, no path.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let authority: http::uri::Authority = text.parse().ok()?;
        let name = authority.host();
        let rest = text.strip_prefix(name)?;
        let port = match rest.strip_prefix(':') {
            Some(port) => Some(port.parse().ok().filter(|port| *port != 0)?),
            None if rest.is_empty() => None,
            None => return None,
        };
        if name.is_empty() || name.contains('*') {
            return None;
        }
        let name = Url::parse(&format!("http://{name}/"))
            .ok()?
            .host_str()?
            .to_owned();
        Some(Self { name, port })
    }

    /// Whether a URL goes there.
    #[must_use]
    pub fn covers(&self, url: &Url) -> bool {
        let default = match url.scheme() {
            "https" => 443,
            "http" => 80,
            _ => return false,
        };
        url.host_str() == Some(&self.name)
            && url.port_or_known_default() == Some(self.port.unwrap_or(default))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_and_perhaps_a_port() {
        for good in ["router", "Router.Internal:4000", "10.0.0.1:80", "[::1]:4000"] {
            assert!(Host::parse(good).is_some(), "{good}");
        }
        for bad in [
            "",
            "*",
            "*.internal",
            "http://router",
            "router:x",
            "router:",
            "router:0",
            "router/callback",
            "user@router",
            "a b",
        ] {
            assert!(Host::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn only_its_own_urls_are_covered() {
        let covers = |host: &str, url: &str| {
            let host = Host::parse(host).expect("a host");
            host.covers(&Url::parse(url).expect("a URL"))
        };
        for (host, url) in [
            ("router:4000", "http://router:4000/callback/1?x=2"),
            ("ROUTER:4000", "https://Router:4000/"),
            ("router", "http://router/"),
            ("router", "https://router:443/"),
            ("router:80", "http://router/"),
            ("127.0.0.1:1", "http://127.1:1/"),
        ] {
            assert!(covers(host, url), "{host} {url}");
        }
        for (host, url) in [
            ("router:4000", "http://router:4001/"),
            ("router:4000", "http://router/"),
            ("router", "http://router:443/"),
            ("router", "http://router.evil/"),
            ("router", "http://evil/router"),
            ("router", "http://router@evil/"),
            ("router", "ftp://router/"),
        ] {
            assert!(!covers(host, url), "{host} {url}");
        }
    }
}

//! Which pages may call: the allow-list, and what a request says of the page that sent it.
//!
//! One invariant: `null` and anything that is not on the list is never treated as a page of ours. Knows nothing of
//! credentials.

use std::collections::BTreeSet;

use http::HeaderMap;
use http::header::{HOST, ORIGIN};

/// The origins whose pages may call.
#[derive(Debug, Clone, Default)]
pub struct Origins {
    allowed: BTreeSet<String>,
    own_host: bool,
}

/// A text that is no origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no origin: a scheme and a host are needed, such as https://app.example")]
pub struct BadOrigin {
    /// The text that was given.
    pub text: String,
}

/// What a request says of the page that sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Caller {
    /// No page: no `Origin`, and nothing else that a browser adds.
    NoPage,
    /// A page of ours: of an allowed origin, by name.
    Page(String),
    /// A page of an origin that is not on the list, or an opaque one.
    Foreign,
}

impl Origins {
    /// The list. Each is `http` or `https`, a host and perhaps a port, and nothing else.
    pub fn parse<T: AsRef<str>>(list: impl IntoIterator<Item = T>) -> Result<Self, BadOrigin> {
        let allowed = list
            .into_iter()
            .map(|text| parse(text.as_ref()))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            allowed,
            own_host: false,
        })
    }

    /// Allows pages whose origin is the request's `Host` too. Only for a server that checks `Host` (the demo): a name that
    /// an attacker points at us would be its own host.
    #[must_use]
    pub fn with_own_host(mut self) -> Self {
        self.own_host = true;
        self
    }

    /// Who sent the request.
    pub(crate) fn judge(&self, headers: &HeaderMap) -> Caller {
        let mut origins = headers.get_all(ORIGIN).iter();
        let Some(origin) = origins.next() else {
            return self.without_origin(headers);
        };
        if origins.next().is_some() {
            return Caller::Foreign;
        }
        let Ok(origin) = origin.to_str() else {
            return Caller::Foreign;
        };
        if self.allows(origin, host(headers)) {
            Caller::Page(origin.to_owned())
        } else {
            Caller::Foreign
        }
    }

    fn allows(&self, origin: &str, host: Option<&str>) -> bool {
        if self.allowed.contains(origin) {
            return true;
        }
        let authority = origin
            .strip_prefix("http://")
            .or_else(|| origin.strip_prefix("https://"));
        self.own_host && authority.is_some() && authority == host
    }

    /// Browsers leave `Origin` out of a GET to the page's own origin, and say `Sec-Fetch-Site: same-origin` instead.
    fn without_origin(&self, headers: &HeaderMap) -> Caller {
        match headers.get("sec-fetch-site").map(http::HeaderValue::as_bytes) {
            Some(b"same-origin") => {}
            // `none`: the person typed the address or a tool says so; no page is behind it.
            None | Some(b"none") => return Caller::NoPage,
            Some(_) => return Caller::Foreign,
        }
        let Some(host) = host(headers) else {
            return Caller::Foreign;
        };
        let own = ["https://", "http://"].map(|scheme| format!("{scheme}{host}"));
        own.into_iter()
            .find(|origin| self.allowed.contains(origin))
            .map_or_else(
                || {
                    if self.own_host {
                        Caller::Page(format!("http://{host}"))
                    } else {
                        Caller::Foreign
                    }
                },
                Caller::Page,
            )
    }
}

/// The `Host` of a request (`:authority` is put there by the connection).
pub(crate) fn host(headers: &HeaderMap) -> Option<&str> {
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next()?.to_str().ok()?;
    hosts.next().is_none().then_some(host)
}

/// Whether a `Host` cannot be a name that somebody else pointed at us (DNS rebinding): an address, or this machine.
pub(crate) fn host_is_ours(host: &str) -> bool {
    let Ok(authority) = host.parse::<http::uri::Authority>() else {
        return false;
    };
    let name = authority.host();
    let bare = name
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(name);
    let local = bare.eq_ignore_ascii_case("localhost") || bare.to_ascii_lowercase().ends_with(".localhost");
    local || bare.parse::<std::net::IpAddr>().is_ok()
}

fn parse(text: &str) -> Result<String, BadOrigin> {
    let bad = || BadOrigin {
        text: text.to_owned(),
    };
    let url = url::Url::parse(text).map_err(|_| bad())?;
    let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    let named = url.has_host() && url.username().is_empty() && url.password().is_none();
    if !matches!(url.scheme(), "http" | "https") || !bare || !named {
        return Err(bad());
    }
    Ok(url.origin().ascii_serialization())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| ((*name).parse().expect("name"), value.parse().expect("value")))
            .collect()
    }

    fn list() -> Origins {
        Origins::parse(["https://app.example", "http://localhost:3000/"]).expect("origins")
    }

    #[test]
    fn an_origin_is_a_scheme_and_a_host() {
        for bad in [
            "*",
            "null",
            "app.example",
            "https://",
            "ftp://x",
            "https://a/b",
            "https://u@a",
            "https://a?x",
            "",
        ] {
            assert!(Origins::parse([bad]).is_err(), "{bad}");
        }
        let same = Origins::parse(["HTTPS://App.Example:443"]).expect("origin");
        assert_eq!(
            same.judge(&headers(&[("origin", "https://app.example")])),
            Caller::Page("https://app.example".into())
        );
    }

    #[test]
    fn a_null_origin_is_foreign() {
        assert_eq!(list().judge(&headers(&[("origin", "null")])), Caller::Foreign);
        assert_eq!(
            list()
                .with_own_host()
                .judge(&headers(&[("origin", "null"), ("host", "null")])),
            Caller::Foreign
        );
    }

    #[test]
    fn only_listed_origins_are_pages_of_ours() {
        for foreign in [
            "https://app.example.evil",
            "http://app.example",
            "https://app.example:8443",
            "https://x",
        ] {
            let said = headers(&[("host", "app.example"), ("origin", foreign)]);
            assert_eq!(list().judge(&said), Caller::Foreign, "{foreign}");
        }
        assert_eq!(
            list().judge(&headers(&[
                ("origin", "https://app.example"),
                ("origin", "https://app.example")
            ])),
            Caller::Foreign
        );
    }

    #[test]
    fn a_get_from_the_own_page_has_the_origin_of_its_host() {
        let said = headers(&[("host", "app.example"), ("sec-fetch-site", "same-origin")]);
        assert_eq!(list().judge(&said), Caller::Page("https://app.example".into()));
        let elsewhere = headers(&[("host", "other.example"), ("sec-fetch-site", "same-origin")]);
        assert_eq!(list().judge(&elsewhere), Caller::Foreign);
        let cross = headers(&[("host", "app.example"), ("sec-fetch-site", "cross-site")]);
        assert_eq!(list().judge(&cross), Caller::Foreign);
        assert_eq!(list().judge(&headers(&[("host", "app.example")])), Caller::NoPage);
    }

    #[test]
    fn a_demo_allows_its_own_host_whatever_the_port() {
        let demo = Origins::default().with_own_host();
        let said = headers(&[("host", "127.0.0.1:41001"), ("origin", "http://127.0.0.1:41001")]);
        assert_eq!(demo.judge(&said), Caller::Page("http://127.0.0.1:41001".into()));
        let other = headers(&[("host", "127.0.0.1:41001"), ("origin", "http://127.0.0.1:41002")]);
        assert_eq!(demo.judge(&other), Caller::Foreign);
    }

    #[test]
    fn a_name_that_was_pointed_at_us_is_not_our_host() {
        for ours in [
            "localhost",
            "localhost:80",
            "127.0.0.1:8080",
            "[::1]:8080",
            "10.0.0.7",
            "demo.localhost:1",
        ] {
            assert!(host_is_ours(ours), "{ours}");
        }
        for theirs in [
            "evil.example",
            "localhost.evil.example:80",
            "127.0.0.1.evil.example",
            "",
            "user@localhost/",
        ] {
            assert!(!host_is_ours(theirs), "{theirs}");
        }
    }
}

//! Who asks: a bearer token, a ticket or the cookie, in this order; never more than one of them.
//!
//! One invariant: a credential that a browser sends by itself (the cookie) counts only where the page that sent the
//! request is one of ours. A header that is there and wrong is refused, not passed over.

use std::sync::Arc;

use auth::token::Principal;
use http::HeaderMap;
use http::header::{AUTHORIZATION, COOKIE};
use schemas::ids::StreamName;
use schemas::problem::Code;

use super::Gateway;
use super::origin::Caller;
use super::problem::Problem;

/// The cookie's name. `__Host-`: secure, for this host only, for every path.
pub(crate) const COOKIE_NAME: &str = "__Host-tidewire";

/// Who reads, and what a ticket restricts the reader to.
#[derive(Debug, Clone)]
pub(crate) struct Reader {
    pub(crate) principal: Arc<Principal>,
    pub(crate) stream: Option<StreamName>,
    pub(crate) filter: Option<serde_json::Value>,
}

/// What a request brings.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Credential<'a> {
    /// `Authorization: Bearer`.
    Bearer(&'a str),
    /// `?ticket=`.
    Ticket(&'a str),
    /// The cookie.
    Cookie(&'a str),
    /// Nothing.
    None,
}

impl<'a> Credential<'a> {
    /// Looks for credentials.
    pub(crate) fn of(headers: &'a HeaderMap, ticket: Option<&'a str>) -> Result<Self, Problem> {
        if headers.contains_key(AUTHORIZATION) {
            return bearer(headers).map(Self::Bearer);
        }
        if let Some(ticket) = ticket {
            return Ok(Self::Ticket(ticket));
        }
        Ok(cookie(headers)?.map_or(Self::None, Self::Cookie))
    }
}

/// The token of the `Authorization` header.
pub(crate) fn bearer(headers: &HeaderMap) -> Result<&str, Problem> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values
        .next()
        .ok_or_else(|| Problem::new(Code::UNAUTHENTICATED, "a bearer token is needed"))?;
    if values.next().is_some() {
        return Err(Problem::new(
            Code::TOKEN_INVALID,
            "more than one Authorization header",
        ));
    }
    let (scheme, token) = value
        .to_str()
        .ok()
        .and_then(|text| text.split_once(' '))
        .unwrap_or_default();
    let token = token.trim();
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() {
        return Err(Problem::new(
            Code::UNAUTHENTICATED,
            "the Authorization header is not of the form Bearer <token>",
        ));
    }
    Ok(token)
}

fn cookie(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let mut found = headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(name, _)| *name == COOKIE_NAME)
        .map(|(_, value)| value);
    let cookie = found.next();
    if found.next().is_some() {
        return Err(Problem::new(Code::TICKET_INVALID, "the cookie is given twice"));
    }
    Ok(cookie)
}

impl Gateway {
    /// Whose request it is; `None` where it brings no credentials.
    pub(crate) async fn identify(
        &self,
        headers: &HeaderMap,
        ticket: Option<&str>,
        caller: &Caller,
    ) -> Result<Option<Reader>, Problem> {
        let now_ms = self.clock.now_ms();
        match Credential::of(headers, ticket)? {
            Credential::None => Ok(None),
            Credential::Bearer(token) => {
                let principal = self.authenticator.verify(token, now_ms).await?;
                Ok(Some(Reader {
                    principal,
                    stream: None,
                    filter: None,
                }))
            }
            Credential::Ticket(text) => {
                let origin = match caller {
                    Caller::NoPage => None,
                    Caller::Page(origin) => Some(origin.as_str()),
                    Caller::Foreign => return Err(foreign()),
                };
                let ticket = self
                    .tickets
                    .redeem(text, origin, now_ms)
                    .map_err(|bad| Problem::new(bad.code, bad.detail))?;
                Ok(Some(Reader {
                    principal: self.admitted(&ticket.principal)?,
                    stream: ticket.stream,
                    filter: ticket.filter,
                }))
            }
            Credential::Cookie(text) => {
                if !matches!(caller, Caller::Page(_)) {
                    return Err(foreign());
                }
                let principal = self
                    .tickets
                    .open_cookie(text, now_ms)
                    .map_err(|bad| Problem::new(bad.code, bad.detail))?;
                Ok(Some(Reader {
                    principal: self.admitted(&principal)?,
                    stream: None,
                    filter: None,
                }))
            }
        }
    }

    /// What was sealed earlier counts only as far as it would be sealed now: whoever was revoked since is refused, and the
    /// denials are those of now.
    fn admitted(&self, principal: &Principal) -> Result<Arc<Principal>, Problem> {
        let control = self.authenticator.control();
        let admitted = control.ready().and_then(|()| control.admit(principal));
        admitted
            .map(Arc::new)
            .map_err(|bad| Problem::new(bad.code, bad.detail))
    }

    /// Whose request it is, where somebody must be.
    pub(crate) async fn reader(&self, headers: &HeaderMap, ticket: Option<&str>) -> Result<Reader, Problem> {
        let caller = self.origins.judge(headers);
        let found = self.identify(headers, ticket, &caller).await?;
        found.ok_or_else(|| {
            Problem::new(
                Code::UNAUTHENTICATED,
                "a bearer token, a ticket or the cookie is needed",
            )
        })
    }

    /// Refuses while the node drains: another one answers.
    pub(crate) fn admitting(&self) -> Result<(), Problem> {
        if self.drain.is_cancelled() {
            Err(Problem::new(Code::DRAINING, ""))
        } else {
            Ok(())
        }
    }
}

/// The page that sent the request is not on the list.
pub(crate) fn foreign() -> Problem {
    Problem::new(Code::ORIGIN_FORBIDDEN, "the page's origin is not on the list")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, http::HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn the_header_comes_before_the_ticket_and_the_ticket_before_the_cookie() {
        let all = headers(&[
            ("authorization", "Bearer a.b.c"),
            ("cookie", "x=1; __Host-tidewire=k"),
        ]);
        assert_eq!(
            Credential::of(&all, Some("t")).expect("found"),
            Credential::Bearer("a.b.c")
        );
        let cookie = headers(&[("cookie", "x=1; __Host-tidewire=k")]);
        assert_eq!(
            Credential::of(&cookie, Some("t")).expect("found"),
            Credential::Ticket("t")
        );
        assert_eq!(
            Credential::of(&cookie, None).expect("found"),
            Credential::Cookie("k")
        );
        assert_eq!(
            Credential::of(&headers(&[("cookie", "tidewire=k")]), None).expect("found"),
            Credential::None
        );
    }

    #[test]
    fn a_header_that_is_there_and_wrong_is_refused() {
        for bad in ["", "Bearer", "Bearer ", "Basic YTpi", "a.b.c"] {
            let found = headers(&[("authorization", bad), ("cookie", "__Host-tidewire=k")]);
            assert_eq!(
                Credential::of(&found, Some("t")).expect_err(bad).code,
                Code::UNAUTHENTICATED,
                "{bad}"
            );
        }
        let twice = headers(&[("authorization", "Bearer a"), ("authorization", "Bearer b")]);
        assert_eq!(
            Credential::of(&twice, None).expect_err("twice").code,
            Code::TOKEN_INVALID
        );
    }

    #[test]
    fn two_cookies_of_ours_are_refused() {
        let twice = headers(&[("cookie", "__Host-tidewire=a"), ("cookie", "__Host-tidewire=b")]);
        assert_eq!(
            Credential::of(&twice, None).expect_err("twice").code,
            Code::TICKET_INVALID
        );
    }
}

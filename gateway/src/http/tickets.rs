//! `POST /v1/tickets`: a stand-in for a bearer token, for `EventSource` and browser WebSockets, which cannot set headers.
//!
//! Only a bearer token buys one: a ticket never makes another, and a cookie cannot be used to outlive itself.

use std::sync::Arc;

use auth::access::Grant;
use auth::ticket::TICKET_TTL_MS;
use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::header::{AUTHORIZATION, CACHE_CONTROL, SET_COOKIE};
use http::{HeaderValue, StatusCode};
use schemas::problem::Code;
use serde_json::{Value, json};

use super::credentials::{COOKIE_NAME, Reader, foreign};
use super::origin::Caller;
use super::problem::Problem;
use super::query::Parameters;
use super::{Gateway, body};

/// Browsers keep cookies of 4096 bytes, the name and (some of them) the attributes included.
const COOKIE_BYTES_MAX: usize = 3900;

/// Issues a ticket, or sets the cookie.
pub(crate) async fn post(State(gateway): State<Arc<Gateway>>, request: Request) -> Result<Response, Problem> {
    Parameters::none(request.uri().query())?;
    let headers = request.headers();
    if !headers.contains_key(AUTHORIZATION) {
        return Err(Problem::new(
            Code::UNAUTHENTICATED,
            "a bearer token in the Authorization header is needed",
        ));
    }
    let caller = gateway.origins.judge(headers);
    let origin = match &caller {
        Caller::NoPage => None,
        Caller::Page(origin) => Some(origin.clone()),
        Caller::Foreign => return Err(foreign()),
    };
    let reader = gateway.reader(headers, None).await?;
    let mut members = body::object(request, &gateway.limits).await?;
    let form = body::text(&mut members, "as")?;
    let stream = body::text(&mut members, "stream")?;
    let filter = members.remove("where");
    body::finish(&members)?;
    match form.as_deref() {
        None | Some("ticket") => {
            gateway.ticket(&reader, stream.as_deref(), filter.as_ref(), origin.as_deref())
        }
        Some("cookie") if stream.is_none() && filter.is_none() => gateway.cookie(&reader),
        Some("cookie") => Err(Problem::new(
            Code::BODY_INVALID,
            "the cookie stands for the whole token: it takes no stream and no where",
        )),
        Some(_) => Err(Problem::new(Code::BODY_INVALID, "as is ticket or cookie")),
    }
}

impl Gateway {
    fn ticket(
        &self,
        reader: &Reader,
        stream: Option<&str>,
        filter: Option<&Value>,
        origin: Option<&str>,
    ) -> Result<Response, Problem> {
        let stream = stream.map(|name| self.stream(name, reader)).transpose()?;
        // What cannot be read with it is refused now, where somebody looks at the answer.
        match (&stream, filter) {
            (None, Some(_)) => return Err(Problem::new(Code::BODY_INVALID, "where needs a stream")),
            (Some(stream), Some(filter)) => {
                let grant = Grant::compile(stream, &reader.principal)?;
                let filter = grant.filter_from_json(stream, filter)?;
                grant.select(stream, &filter)?;
            }
            (_, None) => {}
        }
        let now_ms = self.clock.now_ms();
        let name = stream.as_ref().map(|stream| &stream.name);
        let ticket = self
            .tickets
            .issue(&reader.principal, name, filter, origin, now_ms);
        let expires_at_ms = reader
            .principal
            .expires_at_ms
            .min(now_ms.saturating_add(TICKET_TTL_MS));
        let answer = Json(json!({ "ticket": ticket, "expires_at": rfc3339(expires_at_ms) }));
        Ok((StatusCode::CREATED, [(CACHE_CONTROL, "no-store")], answer).into_response())
    }

    fn cookie(&self, reader: &Reader) -> Result<Response, Problem> {
        let now_ms = self.clock.now_ms();
        let expires_at_ms = reader.principal.expires_at_ms;
        let seconds = expires_at_ms.saturating_sub(now_ms).max(0) / 1000;
        let sealed = self.tickets.issue_cookie(&reader.principal, now_ms);
        if sealed.len() > COOKIE_BYTES_MAX {
            let detail = "the token says too much for a cookie, which browsers would drop: use tickets";
            return Err(Problem::new(Code::TOKEN_INVALID, detail));
        }
        let cookie =
            format!("{COOKIE_NAME}={sealed}; Path=/; Max-Age={seconds}; Secure; HttpOnly; SameSite=Strict");
        let answer = Json(json!({ "expires_at": rfc3339(expires_at_ms) }));
        let mut response = (StatusCode::CREATED, [(CACHE_CONTROL, "no-store")], answer).into_response();
        let cookie = HeaderValue::from_str(&cookie).map_err(|_| Problem::new(Code::INTERNAL, ""))?;
        response.headers_mut().insert(SET_COOKIE, cookie);
        Ok(response)
    }
}

/// A moment as RFC 3339 text, to the second.
pub(crate) fn rfc3339(ms: i64) -> String {
    jiff::Timestamp::from_second(ms.div_euclid(1000))
        .unwrap_or(jiff::Timestamp::UNIX_EPOCH)
        .to_string()
}

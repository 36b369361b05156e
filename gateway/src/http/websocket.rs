//! The upgrade to `tidewire.v1`, and to the protocols of GraphQL. Answers 101 by hand and gives the socket to the engine,
//! which speaks WebSocket itself: no buffers of a library stand between a reader and its socket.
//!
//! One invariant: a page that is not on the list never gets a socket, with credentials or without.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{
    AUTHORIZATION, CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use schemas::filter::Predicate;
use schemas::problem::Code;
use subscriptions::hub::{Protocol, Restriction, Transport, WebSocket};
use tokio::net::TcpStream;
use tungstenite::handshake::derive_accept_key;

use super::Gateway;
use super::credentials::{Reader, foreign};
use super::listener::{Explaining, Leaving, Stalling};
use super::origin::Caller;
use super::problem::{HANDSHAKE_INVALID, Problem, UPGRADE_REQUIRED, method_not_allowed};
use super::query::Parameters;

/// The subprotocol.
pub(crate) const TIDEWIRE_V1: &str = "tidewire.v1";

/// Between our 101 and the moment when the connection is ours; only a peer that takes nothing needs longer.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);

/// The subprotocols of GraphQL, the legacy one last.
const GRAPHQL: [(Protocol, &str); 2] = [
    (Protocol::GraphqlTransportWs, "graphql-transport-ws"),
    (Protocol::GraphqlWs, "graphql-ws"),
];

/// `GET /v1/ws`.
pub(crate) async fn upgrade(
    State(gateway): State<Arc<Gateway>>,
    request: Request,
) -> Result<Response, Problem> {
    let accept_key = begin(&gateway, &request)?;
    if !names(request.headers(), SEC_WEBSOCKET_PROTOCOL, TIDEWIRE_V1) {
        return Err(Problem::new(
            HANDSHAKE_INVALID,
            format!("Sec-WebSocket-Protocol must offer {TIDEWIRE_V1}"),
        ));
    }
    let caller = gateway.origins.judge(request.headers());
    // A ticket in a URL is for pages, which cannot do otherwise.
    if caller == Caller::NoPage && !request.headers().contains_key(AUTHORIZATION) {
        let detail = "without an Origin, a bearer token in the Authorization header is needed";
        return Err(Problem::new(Code::UNAUTHENTICATED, detail));
    }
    let mut response = hand_over(&gateway, request, caller, Protocol::TidewireV1).await?;
    let headers = response.headers_mut();
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept_key);
    headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(TIDEWIRE_V1));
    Ok(response)
}

/// The upgrade on a path of GraphQL. Routers have no `Origin`, and bring their credentials with `connection_init`. A client
/// that offers no subprotocol of ours is told so on the socket, because a browser cannot read a refused upgrade.
pub(crate) async fn upgrade_graphql(gateway: &Arc<Gateway>, request: Request) -> Result<Response, Problem> {
    let accept_key = begin(gateway, &request)?;
    let offered =
        |(_, name): &&(Protocol, &'static str)| names(request.headers(), SEC_WEBSOCKET_PROTOCOL, name);
    let chosen = GRAPHQL.iter().find(offered).copied();
    let protocol = chosen.map_or(Protocol::Unacceptable, |(protocol, _)| protocol);
    let caller = gateway.origins.judge(request.headers());
    let mut response = hand_over(gateway, request, caller, protocol).await?;
    let headers = response.headers_mut();
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept_key);
    if let Some((_, name)) = chosen {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(name));
    }
    gateway
        .metrics
        .graphql("websocket", chosen.map_or("unacceptable", |(_, name)| name));
    Ok(response)
}

/// What comes before any choice: the key of the answer.
fn begin(gateway: &Gateway, request: &Request) -> Result<HeaderValue, Problem> {
    // The router takes HEAD for GET.
    if request.method() != Method::GET {
        return Err(method_not_allowed("GET"));
    }
    gateway.admitting()?;
    handshake(request.version(), request.headers())
}

/// Answers 101, and gives the socket to the engine when it is there.
async fn hand_over(
    gateway: &Arc<Gateway>,
    mut request: Request,
    caller: Caller,
    protocol: Protocol,
) -> Result<Response, Problem> {
    if caller == Caller::Foreign {
        return Err(foreign());
    }
    let ticket = Parameters::ticket_only(request.uri().query())?;
    let reader = gateway
        .identify(request.headers(), ticket.as_deref(), &caller)
        .await?;
    let restriction = match &reader {
        Some(reader) => gateway.restriction(reader)?,
        None => None,
    };
    let permit = match &reader {
        Some(reader) => gateway.quotas.admit(&reader.principal),
        None => gateway.quotas.admit_unknown(),
    };
    let permit = permit.map_err(|code| Problem::new(code, ""))?;

    let upgrading = hyper::upgrade::on(&mut request);
    let session = Arc::clone(gateway);
    gateway.upgrades.spawn(async move {
        let Ok(Ok(upgraded)) = tokio::time::timeout(UPGRADE_TIMEOUT, upgrading).await else {
            return;
        };
        let Some(transport) = transport(upgraded) else {
            return;
        };
        let socket = WebSocket {
            transport,
            protocol,
            principal: reader.map(|reader| reader.principal),
            restriction,
            permit,
        };
        session.hub.open_websocket(socket).await;
    });

    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    Ok(response)
}

impl Gateway {
    /// What a ticket leaves the session: a filter needs its stream.
    pub(crate) fn restriction(&self, reader: &Reader) -> Result<Option<Restriction>, Problem> {
        let Some(name) = &reader.stream else {
            return Ok(None);
        };
        let stream = self.stream(name.as_str(), reader)?;
        let filter = match &reader.filter {
            Some(filter) => Predicate::from_json(&stream, filter)?,
            None => Predicate::default(),
        };
        Ok(Some(Restriction {
            stream: name.clone(),
            filter,
        }))
    }
}

/// The plain socket where there is one; anything else is read and written through.
fn transport(upgraded: Upgraded) -> Option<Transport> {
    match upgraded.downcast::<TokioIo<Leaving<Explaining<Stalling<TcpStream>>>>>() {
        Ok(parts) => {
            let stalling = parts.io.into_inner().into_inner().into_inner();
            let stream = stalling.into_inner().into_std().ok()?;
            Some(Transport::Tcp {
                stream,
                read_ahead: parts.read_buf,
            })
        }
        Err(upgraded) => Some(Transport::Other {
            io: Box::new(TokioIo::new(upgraded)),
            read_ahead: Bytes::new(),
        }),
    }
}

/// Checks the opening handshake (RFC 6455, section 4.2.1) and derives the key of the answer.
fn handshake(version: Version, headers: &HeaderMap) -> Result<HeaderValue, Problem> {
    let wants_upgrade = names(headers, CONNECTION, "upgrade") && names(headers, UPGRADE, "websocket");
    if version != Version::HTTP_11 || !wants_upgrade {
        let mut problem = Problem::new(UPGRADE_REQUIRED, "send a WebSocket handshake over HTTP/1.1");
        problem = problem.with(UPGRADE, HeaderValue::from_static("websocket"));
        // HTTP/2 has no Connection header.
        let h1 = version <= Version::HTTP_11;
        return Err(if h1 {
            problem.with(CONNECTION, HeaderValue::from_static("Upgrade"))
        } else {
            problem
        });
    }
    if headers
        .get(SEC_WEBSOCKET_VERSION)
        .is_none_or(|version| version != "13")
    {
        return Err(Problem::new(UPGRADE_REQUIRED, "the WebSocket version is 13")
            .with(UPGRADE, HeaderValue::from_static("websocket"))
            .with(CONNECTION, HeaderValue::from_static("Upgrade"))
            .with(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13")));
    }
    let key = headers
        .get(SEC_WEBSOCKET_KEY)
        .map(HeaderValue::as_bytes)
        .unwrap_or_default();
    if STANDARD.decode(key).map_or(0, |nonce| nonce.len()) != 16 {
        return Err(Problem::new(
            HANDSHAKE_INVALID,
            "Sec-WebSocket-Key is 16 bytes in base64",
        ));
    }
    HeaderValue::from_str(&derive_accept_key(key)).map_err(|_| Problem::new(Code::INTERNAL, ""))
}

/// Whether a header's list of tokens has this one, in any case.
fn names(headers: &HeaderMap, name: http::HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','))
        .any(|candidate| candidate.trim().eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered(change: &[(&'static str, Option<&'static str>)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let usual = [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-protocol", "tidewire.v2, tidewire.v1"),
        ];
        for (name, value) in usual {
            headers.insert(name, HeaderValue::from_static(value));
        }
        for (name, value) in change {
            headers.remove(*name);
            if let Some(value) = value {
                headers.insert(*name, HeaderValue::from_static(value));
            }
        }
        headers
    }

    #[test]
    fn the_key_is_answered_as_in_the_specification() {
        let key = handshake(Version::HTTP_11, &offered(&[])).expect("handshake");
        assert_eq!(key, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn what_is_no_handshake_is_told_to_upgrade() {
        for change in [
            ("connection", None),
            ("upgrade", Some("h2c")),
            ("sec-websocket-version", Some("8")),
            ("sec-websocket-version", None),
        ] {
            let problem = handshake(Version::HTTP_11, &offered(&[change])).expect_err("refused");
            assert_eq!(problem.code.status, 426, "{change:?}");
        }
        assert_eq!(
            handshake(Version::HTTP_2, &offered(&[]))
                .expect_err("refused")
                .code
                .status,
            426
        );
    }

    #[test]
    fn a_handshake_without_a_key_is_refused() {
        for change in [
            ("sec-websocket-key", None),
            ("sec-websocket-key", Some("c2hvcnQ=")),
            ("sec-websocket-key", Some("not base64 at all")),
        ] {
            let problem = handshake(Version::HTTP_11, &offered(&[change])).expect_err("refused");
            assert_eq!(problem.code, HANDSHAKE_INVALID, "{change:?}");
        }
    }
}

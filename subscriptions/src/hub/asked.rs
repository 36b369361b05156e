//! What the engine is asked, as plain data: connections to take over, streams to open, pages to read.

use std::sync::Arc;
use std::time::Duration;

use auth::quota::Permit;
use auth::token::Principal;
use bytes::Bytes;
use schemas::contract::Stream;
use schemas::cursor::{BadCursor, Cursor, Sealer};
use schemas::filter::Predicate;
use schemas::ids::{StreamName, TenantId};
use schemas::problem::Code;
use tokio::io::{AsyncRead, AsyncWrite};

use super::Failure;
use crate::graphql;

/// Something that can be read and written, for connections that are no plain TCP socket.
pub trait AsyncIo: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> AsyncIo for T {}

/// A connection that has left HTTP: after its WebSocket upgrade, or behind the head of a response.
pub enum Transport {
    /// A plain socket, written to directly. Must be non-blocking.
    Tcp {
        /// The socket.
        stream: std::net::TcpStream,
        /// Bytes that were read with the request.
        read_ahead: Bytes,
    },
    /// Anything else: TLS.
    Other {
        /// The connection.
        io: Box<dyn AsyncIo>,
        /// Bytes that were read with the request.
        read_ahead: Bytes,
    },
}

/// What a ticket restricts a session to.
#[derive(Debug, Clone)]
pub struct Restriction {
    /// The only stream.
    pub stream: StreamName,
    /// ANDed to every subscription's filter.
    pub filter: Predicate,
}

/// What is spoken on an upgraded connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// `tidewire.v1`.
    TidewireV1,
    /// `graphql-transport-ws`.
    GraphqlTransportWs,
    /// `graphql-ws`, the legacy protocol of `subscriptions-transport-ws`.
    GraphqlWs,
    /// A GraphQL client that offers neither: it is told so by a close code, since browsers cannot read a refused upgrade.
    Unacceptable,
}

/// An upgraded connection.
pub struct WebSocket {
    /// The connection.
    pub transport: Transport,
    /// What is spoken on it.
    pub protocol: Protocol,
    /// Who; `None`: the first message must be `auth`, or `connection_init` with a token.
    pub principal: Option<Arc<Principal>>,
    /// What a ticket restricts the session to.
    pub restriction: Option<Restriction>,
    /// What the session holds of the quotas; named when the first `auth` says who it is.
    pub permit: Permit,
}

/// From where a reader wants events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum After {
    /// Only what comes.
    Latest,
    /// All that Kafka still has.
    Earliest,
    /// From this time on, in milliseconds since the Unix epoch.
    Time(i64),
    /// Exactly after this cursor.
    Cursor(Box<Cursor>),
}

/// What one reader wants of one stream.
pub struct Reading {
    /// The stream.
    pub stream: Arc<Stream>,
    /// Who reads; the grant is compiled from it.
    pub principal: Arc<Principal>,
    /// Which events.
    pub filter: Predicate,
    /// From where.
    pub after: After,
}

/// A server-sent event stream.
pub struct Sse {
    /// What is read.
    pub reading: Reading,
    /// Told to the client as `retry:`.
    pub retry_ms: Option<u64>,
    /// What the session holds of the quotas; named when the first `auth` says who it is.
    pub permit: Permit,
}

/// A response that carries GraphQL results.
pub struct GraphqlStream {
    /// How.
    pub framing: GraphqlFraming,
    /// Whose it is.
    pub principal: Arc<Principal>,
    /// What a ticket restricts the session to.
    pub restriction: Option<Restriction>,
    /// What the session holds of the quotas.
    pub permit: Permit,
}

/// How a response carries GraphQL results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GraphqlFraming {
    /// Server-sent events of one operation.
    SseDistinct,
    /// Server-sent events of many operations.
    SseSingle,
    /// `multipart/mixed;subscriptionSpec=1.0`.
    Multipart,
    /// One result a line, for a callback; the last line may be `{"complete":true}`, with `errors` where it failed.
    Lines,
}

/// A GraphQL subscription to begin.
#[derive(Debug)]
pub struct GraphqlSubscribe {
    /// Its id within the session; empty where the response carries one operation.
    pub id: String,
    /// What it gives.
    pub bound: Box<graphql::Bound>,
}

/// One page, asked for.
pub struct Pull {
    /// What is read.
    pub reading: Reading,
    /// At most so many events.
    pub limit: usize,
    /// How long to wait for the first one.
    pub wait: Duration,
}

impl After {
    /// Parses `after`: a cursor of this stream and tenant, `earliest`, `latest` or an RFC 3339 time.
    pub fn parse(
        text: &str,
        stream: &StreamName,
        tenant: &TenantId,
        sealer: &Sealer,
    ) -> Result<Self, Failure> {
        match text {
            "latest" => return Ok(Self::Latest),
            "earliest" => return Ok(Self::Earliest),
            _ => {}
        }
        // No cursor has a colon, and every time has.
        if text.contains(':') {
            let time: jiff::Timestamp = text
                .parse()
                .map_err(|_| Failure::new(Code::PARAMETER_INVALID, "after is no RFC 3339 time"))?;
            return Ok(Self::Time(time.as_millisecond()));
        }
        match sealer.open(stream, tenant, text) {
            Ok(cursor) => Ok(Self::Cursor(Box::new(cursor))),
            Err(BadCursor::Invalid) => Err(Failure::new(Code::CURSOR_INVALID, "")),
            Err(BadCursor::Foreign) => Err(Failure::new(Code::CURSOR_FOREIGN, "")),
        }
    }
}

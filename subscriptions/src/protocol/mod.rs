//! How frames and what is said beside them look on the wire. Pure codecs: no sockets, no clocks.

pub mod callback;
pub mod chunked;
pub mod graphql_sse;
pub mod graphql_ws;
pub mod multipart;
pub mod said;
pub mod sse;
pub mod v1;
pub mod ws;

use std::sync::Arc;

use bytes::Bytes;
use schemas::ids::Slot;

use crate::close::Close;
use crate::view::View;
use said::Said;

/// Something that a subscription is owed, finished but for what differs between connections.
#[derive(Debug, Clone)]
pub struct Frame {
    /// The cursor after it.
    pub cursor: Arc<str>,
    /// What it is.
    pub kind: Kind,
}

/// What a frame is.
#[derive(Debug, Clone)]
pub enum Kind {
    /// An event: where it stands, and its body.
    Event {
        /// Its partition.
        slot: Slot,
        /// Its offset.
        offset: i64,
        /// Its body, shared by all readers of the view.
        body: Bytes,
    },
    /// Something could not be given any more.
    Gap {
        /// The `partitions` member as JSON.
        partitions: Arc<str>,
        /// When this was found, in milliseconds since the Unix epoch.
        at_ms: i64,
    },
    /// The replay is over.
    Live,
}

/// How a connection carries what is written to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wire {
    /// The wire format of its session.
    pub framing: Framing,
    /// Whether it is an HTTP/1.1 body that the engine writes itself, chunk by chunk.
    pub is_chunked: bool,
}

/// The wire format of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// `tidewire.v1` in WebSocket text frames.
    WebSocket,
    /// Server-sent events.
    Sse,
    /// `graphql-transport-ws` in WebSocket text frames.
    GraphqlTransportWs,
    /// `graphql-ws`, the legacy protocol of `subscriptions-transport-ws`.
    GraphqlWs,
    /// GraphQL over server-sent events, one operation a response (distinct connections mode).
    GraphqlSse,
    /// GraphQL over server-sent events, many operations on one response (single connection mode).
    GraphqlSseSingle,
    /// GraphQL in a multipart response (`subscriptionSpec=1.0`).
    Multipart,
    /// GraphQL payloads line by line, for whoever posts them to a router's callback.
    Lines,
}

impl Frame {
    /// What it costs on the wire, roughly: what bounds count.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let body = match &self.kind {
            Kind::Event { body, .. } => body.len(),
            Kind::Gap { partitions, .. } => partitions.len(),
            Kind::Live => 0,
        };
        body + self.cursor.len() + 64
    }

    /// Whether it is an event.
    #[must_use]
    pub fn is_event(&self) -> bool {
        matches!(self.kind, Kind::Event { .. })
    }
}

impl Wire {
    /// Appends a frame for the subscription whose id is `id`, a JSON string with its quotes.
    pub fn render(self, view: &View, id: &str, frame: &Frame, out: &mut Vec<u8>) {
        if self.is_chunked {
            chunked::chunk(out, |out| self.framing.render(view, id, frame, out));
        } else {
            self.framing.render(view, id, frame, out);
        }
    }
}

impl Framing {
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();

    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::WebSocket,
        Self::Sse,
        Self::GraphqlTransportWs,
        Self::GraphqlWs,
        Self::GraphqlSse,
        Self::GraphqlSseSingle,
        Self::Multipart,
        Self::Lines,
    ];

    /// Appends a frame for the subscription whose id is `id`, a JSON string with its quotes.
    pub fn render(self, view: &View, id: &str, frame: &Frame, out: &mut Vec<u8>) {
        let projection = match (self, view) {
            (Self::WebSocket, _) => return v1::render(id, frame, out),
            (Self::Sse, _) => return sse::render(frame, out),
            (_, View::Graphql(projection)) => projection,
            // GraphQL's sessions have projections; nothing else can be told on them.
            (_, View::CloudEvents) => return,
        };
        match &frame.kind {
            Kind::Event { body, .. } => self.payload(id, Some(&frame.cursor), body, out),
            Kind::Gap { partitions, at_ms } => {
                let mut payload = Vec::new();
                projection.gap(partitions, &frame.cursor, *at_ms, &mut payload);
                self.payload(id, Some(&frame.cursor), &payload, out);
            }
            // The end of a replay has no word in GraphQL.
            Kind::Live => {}
        }
    }

    /// Appends one GraphQL result for the operation whose id is `id`, a JSON string with its quotes.
    pub fn payload(self, id: &str, cursor: Option<&str>, payload: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::WebSocket | Self::Sse => {}
            Self::GraphqlTransportWs => graphql_ws::next(id, "next", payload, out),
            Self::GraphqlWs => graphql_ws::next(id, "data", payload, out),
            Self::GraphqlSse => graphql_sse::next(cursor, payload, out),
            Self::GraphqlSseSingle => graphql_sse::next_of(id, payload, out),
            Self::Multipart => multipart::part(payload, out),
            Self::Lines => callback::line(payload, out),
        }
    }

    /// Appends what is said beside frames. Nothing, where the wire format has no word for it.
    pub fn say(self, said: &Said<'_>, out: &mut Vec<u8>) {
        match self {
            Self::WebSocket => ws::text_frame(&v1::to_json(said), out),
            Self::Sse => sse::say(said, out),
            Self::GraphqlTransportWs => graphql_ws::say(said, out),
            Self::GraphqlWs => graphql_ws::say_legacy(said, out),
            Self::GraphqlSse => graphql_sse::say(said, out),
            Self::GraphqlSseSingle => graphql_sse::say_of(said, out),
            Self::Multipart => multipart::say(said, out),
            Self::Lines => callback::say(said, out),
        }
    }

    /// Appends the last bytes of a session.
    pub fn close(self, close: Close, reason: &str, out: &mut Vec<u8>) {
        match self {
            Self::WebSocket => ws::close(close.code, reason, out),
            Self::GraphqlTransportWs | Self::GraphqlWs => ws::close(close.graphql_code, reason, out),
            Self::Sse | Self::GraphqlSse | Self::GraphqlSseSingle | Self::Multipart | Self::Lines => {}
        }
    }

    /// Appends what keeps a quiet connection open.
    pub fn keep_alive(self, out: &mut Vec<u8>) {
        match self {
            Self::WebSocket | Self::GraphqlTransportWs => ws::ping(out),
            Self::GraphqlWs => {
                graphql_ws::keep_alive(out);
                ws::ping(out);
            }
            Self::Sse | Self::GraphqlSse | Self::GraphqlSseSingle => sse::comment(out),
            Self::Multipart => multipart::heartbeat(out),
            Self::Lines => {}
        }
    }

    /// Whether its connections are sockets of their own, on which clients speak too.
    #[must_use]
    pub fn is_websocket(self) -> bool {
        matches!(self, Self::WebSocket | Self::GraphqlTransportWs | Self::GraphqlWs)
    }

    /// Whether what is told on it are results of GraphQL operations.
    #[must_use]
    pub fn is_graphql(self) -> bool {
        !matches!(self, Self::WebSocket | Self::Sse)
    }

    /// Whether the response carries one operation, and ends with it.
    #[must_use]
    pub fn ends_with_its_operation(self) -> bool {
        matches!(self, Self::Sse | Self::GraphqlSse | Self::Multipart | Self::Lines)
    }

    /// The metric label and the operator's word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::Sse => "sse",
            Self::GraphqlTransportWs => "graphql_transport_ws",
            Self::GraphqlWs => "graphql_ws",
            Self::GraphqlSse => "graphql_sse",
            Self::GraphqlSseSingle => "graphql_sse_single",
            Self::Multipart => "graphql_multipart",
            Self::Lines => "graphql_callback",
        }
    }
}

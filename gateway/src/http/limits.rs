//! Sizes and times of the HTTP surface. Each has a reaction, which is said with it.

use std::time::Duration;

/// The limits of one listener and its handlers.
#[derive(Debug, Clone)]
pub struct HttpLimits {
    /// Open connections of the listener; beyond it nothing is accepted until one ends, or leaves as a WebSocket or as an event stream
    /// of HTTP/1.1.
    pub connections_max: usize,
    /// A request's head, in bytes; beyond it 431. HTTP/1.1 needs at least 8192, and less counts as that.
    pub head_bytes_max: usize,
    /// Header fields of a request; beyond it 431.
    pub head_fields_max: usize,
    /// From the connection's first moment (and, on a kept-alive one, from the end of the last answer) to the end of a
    /// request's head; beyond it the connection is closed.
    pub header_timeout: Duration,
    /// The TLS handshake; beyond it the connection is closed.
    pub tls_timeout: Duration,
    /// An HTTP/2 connection without a request is closed after this time.
    pub idle_timeout: Duration,
    /// A request's body, in bytes; beyond it 413.
    pub body_bytes_max: usize,
    /// A request's body must be there within this time; beyond it the request is answered 408.
    pub body_timeout: Duration,
    /// A peer that takes nothing of an answer for so long is cut off; over HTTP/2, with the whole connection.
    pub write_stall_max: Duration,
    /// A peer that acknowledges nothing of what was sent for so long is gone: longer than anything waits for one that is only slow.
    pub dead_after: Duration,
    /// The kernel's send buffer of each connection, in bytes: what a reader that takes nothing holds there before it counts
    /// as slow. 0: the kernel's own choice, which grows to megabytes (`net.ipv4.tcp_wmem`).
    pub send_buffer_bytes: usize,
    /// Requests under way on one HTTP/2 connection; beyond it the peer is refused the stream.
    pub h2_streams_max: u32,
    /// Events of a pulled page: the most that `limit` may ask for.
    pub page_events_max: usize,
    /// What `wait` of a pull may ask for; beyond it 400.
    pub wait_max: Duration,
    /// What SSE clients are told as `retry:`.
    pub sse_retry: Duration,
}

impl HttpLimits {
    /// Events of a page when `limit` is not given.
    pub const PAGE_EVENTS: usize = 100;
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            connections_max: 50_000,
            head_bytes_max: 16 << 10,
            head_fields_max: 64,
            header_timeout: Duration::from_secs(10),
            tls_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            body_bytes_max: 64 << 10,
            body_timeout: Duration::from_secs(10),
            write_stall_max: Duration::from_secs(30),
            dead_after: Duration::from_secs(60),
            send_buffer_bytes: 0,
            h2_streams_max: 128,
            page_events_max: 1000,
            wait_max: Duration::from_secs(60),
            sse_retry: Duration::from_secs(1),
        }
    }
}

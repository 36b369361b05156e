//! One accepted connection, from its first byte to its last.
//!
//! Which HTTP it speaks is decided before a parser sees it: by ALPN under TLS, by the first three bytes without. (A
//! detection inside the server would wait for ever for a peer that says nothing.)

use std::convert::Infallible;
use std::error::Error as _;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use http::header::HOST;
use http::{HeaderValue, Request};
use hyper::body::Incoming;
use hyper::rt::{Read, Write};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use super::activity::Activity;
use super::leaving::{Departure, Leave};
use super::{Explaining, HttpLimits, Leaving, Listener, Metrics, Place, Stalling};

/// hyper refuses a smaller buffer.
const H1_BUFFER_BYTES_MIN: usize = 8 << 10;
/// Of an HTTP/2 answer that the peer did not take yet, per stream: more than this is the engine's business.
const H2_SEND_BYTES_MAX: usize = 64 << 10;
/// An HTTP/2 peer is asked for a sign of life so often, and given as long to answer.
const H2_PING: Duration = Duration::from_secs(20);
/// Between two looks while one or two bytes of `PRI` are there and the third is not: twice as long each time, so that
/// those who leave it at that cost little.
const PREFACE_PAUSE_MIN: Duration = Duration::from_millis(10);
const PREFACE_PAUSE_MAX: Duration = Duration::from_secs(1);

/// What every connection of a listener shares.
pub(super) struct Context {
    router: Router,
    name: &'static str,
    limits: HttpLimits,
    metrics: Metrics,
    tls: Option<TlsAcceptor>,
    stop: CancellationToken,
    h1: http1::Builder,
    h2: http2::Builder<Owned>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Http1,
    Http2,
}

/// Why the server ends a connection: the metrics' label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// By the peer, or because all was said.
    Normally,
    Because(&'static str),
}

impl Context {
    pub(super) fn new(router: Router, listener: &Listener, stop: CancellationToken) -> Self {
        let limits = listener.limits.clone();
        let mut h1 = http1::Builder::new();
        h1.timer(TokioTimer::new())
            .header_read_timeout(limits.header_timeout)
            .max_headers(limits.head_fields_max)
            .max_buf_size(limits.head_bytes_max.max(H1_BUFFER_BYTES_MIN));
        let mut h2 = http2::Builder::new(Owned(TaskTracker::new()));
        h2.timer(TokioTimer::new())
            .max_concurrent_streams(limits.h2_streams_max)
            .max_header_list_size(u32::try_from(limits.head_bytes_max).unwrap_or(u32::MAX))
            .max_send_buf_size(H2_SEND_BYTES_MAX)
            .initial_stream_window_size(64 << 10)
            .initial_connection_window_size(256 << 10)
            .keep_alive_interval(H2_PING)
            .keep_alive_timeout(H2_PING);
        Self {
            router,
            name: listener.name,
            limits,
            metrics: listener.metrics.clone(),
            tls: listener.tls.as_ref().map(super::Tls::acceptor),
            stop,
            h1,
            h2,
        }
    }

    pub(super) async fn serve(self: Arc<Self>, socket: TcpStream, place: Place) {
        let ended = self.run(socket).await;
        drop(place);
        if let Ended::Because(reason) = ended {
            self.metrics.ended(self.name, reason);
            tracing::debug!(listener = self.name, reason, "a connection ended");
        }
    }

    async fn run(self: &Arc<Self>, socket: TcpStream) -> Ended {
        let Some(tls) = &self.tls else {
            let spoken = tokio::select! {
                spoken = timeout(self.limits.header_timeout, protocol(&socket)) => spoken,
                () = self.stop.cancelled() => return Ended::Normally,
            };
            let socket = Stalling::new(socket, self.limits.write_stall_max);
            return match spoken {
                Err(_) => Ended::Because("header_timeout"),
                Ok(None) => Ended::Normally,
                // Boxed: who has said nothing pays for no protocol.
                Ok(Some(Protocol::Http1)) => Box::pin(self.http1(socket)).await,
                Ok(Some(Protocol::Http2)) => Box::pin(self.http2(TokioIo::new(socket))).await,
            };
        };
        let socket = Stalling::new(socket, self.limits.write_stall_max);
        let shaken = tokio::select! {
            shaken = timeout(self.limits.tls_timeout, tls.accept(socket)) => shaken,
            () = self.stop.cancelled() => return Ended::Normally,
        };
        match shaken {
            Err(_) => Ended::Because("tls_timeout"),
            Ok(Err(_)) => Ended::Because("tls_failed"),
            Ok(Ok(stream)) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => {
                Box::pin(self.http2(TokioIo::new(stream))).await
            }
            Ok(Ok(stream)) => Box::pin(self.http1(stream)).await,
        }
    }

    async fn http1<I>(&self, io: I) -> Ended
    where
        I: AsyncRead + AsyncWrite + Leave + Unpin + Send + 'static,
    {
        let departure = Departure::default();
        let io = TokioIo::new(Leaving::new(Explaining::new(io), departure.clone()));
        let service = service_fn(|request: Request<Incoming>| async {
            let version = request.version();
            let mut response = self.answer(request).await?;
            departure.prepare(version, &mut response);
            Ok::<_, Infallible>(response)
        });
        let mut served = self.h1.serve_connection(io, service).with_upgrades();
        let mut is_stopping = false;
        let (body, held) = loop {
            // Ready when all is said, or when it is time to leave.
            let turn = poll_fn(|context| match Pin::new(&mut served).poll(context) {
                Poll::Ready(ended) => Poll::Ready(Err(ended)),
                Poll::Pending => departure
                    .begin()
                    .map_or(Poll::Pending, |body| Poll::Ready(Ok(body))),
            });
            tokio::select! {
                turn = turn => match turn {
                    Ok(leaves) => break leaves,
                    Err(ended) => return why(ended),
                },
                () = self.stop.cancelled(), if !is_stopping => is_stopping = true,
            }
            Pin::new(&mut served).graceful_shutdown();
        };
        let Some(parts) = served.into_parts() else {
            return Ended::Normally;
        };
        match parts.io.into_inner().into_inner().into_inner().transport() {
            Ok(transport) => body.move_to(transport, held).await,
            Err(error) => tracing::warn!(%error, "an event stream could not be left to the engine"),
        }
        Ended::Normally
    }

    async fn http2<I>(self: &Arc<Self>, io: I) -> Ended
    where
        I: Read + Write + Unpin + Send + 'static,
    {
        let activity = Activity::new();
        let service = service_fn(|request| {
            let under_way = activity.begin();
            let context = Arc::clone(self);
            async move { Ok::<_, Infallible>(under_way.hold(context.answer(request).await?)) }
        });
        let mut served = pin!(self.h2.serve_connection(io, service));
        let idle = activity.idle(self.limits.header_timeout, self.limits.idle_timeout);
        let mut stalled = pin!(activity.stalled(self.limits.write_stall_max));
        tokio::select! {
            ended = served.as_mut() => return why(ended),
            // Nothing is under way: there is nothing to finish.
            () = idle => return Ended::Because("idle"),
            () = stalled.as_mut() => return Ended::Because("write_stall"),
            () = self.stop.cancelled() => served.as_mut().graceful_shutdown(),
        }
        // A peer without a request under way has a moment to take our farewell.
        let idle = activity.idle(Duration::from_secs(1), Duration::from_secs(1));
        tokio::select! {
            ended = served => why(ended),
            () = idle => Ended::Normally,
            () = stalled => Ended::Because("write_stall"),
        }
    }

    /// Has the router answer. HTTP/2's authority becomes `Host`, so that nobody behind has to know of both.
    async fn answer(&self, mut request: Request<Incoming>) -> Result<Response, Infallible> {
        if !request.headers().contains_key(HOST)
            && let Some(authority) = request.uri().authority()
            && let Ok(host) = HeaderValue::from_str(authority.as_str())
        {
            request.headers_mut().insert(HOST, host);
        }
        self.router.clone().oneshot(request.map(Body::new)).await
    }
}

/// What the peer speaks, by its first bytes, which stay in the socket. No method but HTTP/2's preface begins with `PRI`.
async fn protocol(socket: &TcpStream) -> Option<Protocol> {
    let mut first = [0; 3];
    let mut pause = PREFACE_PAUSE_MIN;
    loop {
        let length = socket.peek(&mut first).await.ok()?;
        let seen = first.get(..length)?;
        match seen {
            [] => return None,
            b"PRI" => return Some(Protocol::Http2),
            b"P" | b"PR" => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PREFACE_PAUSE_MAX);
            }
            _ => return Some(Protocol::Http1),
        }
    }
}

fn why(ended: Result<(), hyper::Error>) -> Ended {
    let Err(error) = ended else { return Ended::Normally };
    if error.is_parse_too_large() {
        return Ended::Because("head_too_large");
    }
    if error.is_parse() {
        return Ended::Because("malformed");
    }
    if error.is_timeout() {
        return Ended::Because("header_timeout");
    }
    let mut source = error.source();
    while let Some(cause) = source {
        if cause
            .downcast_ref::<io::Error>()
            .is_some_and(|io| io.kind() == io::ErrorKind::TimedOut)
        {
            return Ended::Because("write_stall");
        }
        source = cause.source();
    }
    // The peer went away.
    Ended::Normally
}

/// Runs hyper's HTTP/2 stream tasks where they can be counted; they end with their connection.
#[derive(Clone)]
struct Owned(TaskTracker);

impl<F> hyper::rt::Executor<F> for Owned
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}

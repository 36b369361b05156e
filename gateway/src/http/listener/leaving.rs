//! How an event stream leaves HTTP/1.1.
//!
//! The HTTP server reads the request, writes the response's head and what there was of the body. When all of that is in the
//! socket and there is no more for the moment, the server is dropped with its buffers, and the engine goes on with the chunks of
//! the body. One invariant: nobody leaves while the server holds a byte that is not in the socket.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use axum::response::Response;
use bytes::Bytes;
use http::header::CONNECTION;
use http::{HeaderValue, Version};
use subscriptions::hub::{self, Transport};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::Stalling;
use crate::http::streaming::Loan;

/// What is known of a connection's leaving: shared by its stream, its requests and whoever drives it.
#[derive(Clone, Default)]
pub(super) struct Departure(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    loan: Option<Loan>,
    /// The server has given the socket everything that it had, the loan being idle after so many pieces.
    flushed_after: Option<u64>,
}

impl Departure {
    /// Notes a response that leaves with its connection. The version is the request's: older ones know no chunks.
    pub(super) fn prepare(&self, version: Version, response: &mut Response) {
        if version != Version::HTTP_11 {
            return;
        }
        let Some(loan) = response.extensions_mut().remove::<Loan>() else {
            return;
        };
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
        let mut state = self.lock();
        state.loan = Some(loan);
        state.flushed_after = None;
    }

    /// The body that goes on with the connection, if it is time.
    pub(super) fn begin(&self) -> Option<(hub::Body, Box<dyn Send>)> {
        let mut state = self.lock();
        // What was taken since is not in the socket, whether or not the server has tried to write it.
        let given = state.loan.as_ref()?.idle_after()?;
        if state.flushed_after != Some(given) {
            return None;
        }
        state.loan.take().and_then(|loan| loan.recall())
    }

    fn wrote(&self) {
        self.lock().flushed_after = None;
    }

    fn flushed(&self) {
        let mut state = self.lock();
        state.flushed_after = state.loan.as_ref().and_then(Loan::idle_after);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream that notes when its server has written everything.
pub(crate) struct Leaving<S> {
    inner: S,
    departure: Departure,
}

impl<S> Leaving<S> {
    pub(super) fn new(inner: S, departure: Departure) -> Self {
        Self { inner, departure }
    }

    pub(crate) fn into_inner(self) -> S {
        self.inner
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Leaving<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Leaving<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.departure.wrote();
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.departure.wrote();
        Pin::new(&mut self.inner).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    /// The server flushes when it holds nothing any more.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.inner).poll_flush(context))?;
        self.departure.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

/// A connection that the engine can go on with.
pub(super) trait Leave {
    /// It, as the engine takes it.
    fn transport(self) -> io::Result<Transport>;
}

impl Leave for Stalling<TcpStream> {
    fn transport(self) -> io::Result<Transport> {
        Ok(Transport::Tcp {
            stream: self.into_inner().into_std()?,
            read_ahead: Bytes::new(),
        })
    }
}

impl Leave for TlsStream<Stalling<TcpStream>> {
    fn transport(self) -> io::Result<Transport> {
        Ok(Transport::Other {
            io: Box::new(self),
            read_ahead: Bytes::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures_util::FutureExt;
    use http_body_util::BodyExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::mpsc;

    use super::*;
    use crate::http::streaming;

    fn response() -> (mpsc::Sender<Bytes>, Response) {
        let (sender, receiver) = mpsc::channel(2);
        (sender, streaming::response(receiver.into(), ()))
    }

    #[test]
    fn only_a_request_of_http_1_1_takes_its_connection_along() {
        for (version, leaves) in [
            (Version::HTTP_10, false),
            (Version::HTTP_11, true),
            (Version::HTTP_2, false),
        ] {
            let departure = Departure::default();
            let (_sender, mut response) = response();
            departure.prepare(version, &mut response);
            assert_eq!(departure.lock().loan.is_some(), leaves, "{version:?}");
            assert_eq!(response.headers().contains_key(CONNECTION), leaves, "{version:?}");
        }
    }

    #[tokio::test]
    async fn nobody_leaves_before_everything_is_in_the_socket() {
        let departure = Departure::default();
        let (sender, mut response) = response();
        departure.prepare(Version::HTTP_11, &mut response);
        let mut body = response.into_body();
        // Smaller than what is written: the rest waits.
        let (ours, mut theirs) = tokio::io::duplex(8);
        let mut socket = Leaving::new(ours, departure.clone());
        socket.flush().await.expect("flushed");
        assert!(departure.begin().is_none(), "the body was not asked for anything");

        sender
            .send(Bytes::from_static(b"0123456789"))
            .await
            .expect("room");
        let piece = body.frame().await.expect("a frame").expect("whole");
        let piece = piece.into_data().expect("data");
        let count = socket.write(&piece).await.expect("written");
        assert_eq!(count, 8);
        assert!(body.frame().now_or_never().is_none());
        let mut waits = poll_fn(|context| Pin::new(&mut socket).poll_write(context, &piece[count..]));
        assert!((&mut waits).now_or_never().is_none(), "there is no room");
        assert!(departure.begin().is_none(), "two bytes are with the server");

        theirs.read_exact(&mut [0; 8]).await.expect("read");
        socket.write_all(&piece[count..]).await.expect("written");
        assert!(departure.begin().is_none(), "written is not flushed");
        socket.flush().await.expect("flushed");
        assert!(departure.begin().is_some());
        assert!(departure.begin().is_none(), "once");
    }

    #[tokio::test]
    async fn what_comes_after_the_flush_is_waited_for() {
        let departure = Departure::default();
        let (sender, mut response) = response();
        departure.prepare(Version::HTTP_11, &mut response);
        let mut body = response.into_body();
        let (ours, _theirs) = tokio::io::duplex(64);
        let mut socket = Leaving::new(ours, departure.clone());
        assert!(body.frame().now_or_never().is_none());
        socket.flush().await.expect("flushed");
        sender.send(Bytes::from_static(b"late")).await.expect("room");
        body.frame().await.expect("a frame").expect("whole");
        assert!(departure.begin().is_none(), "the server has taken another chunk");
        assert!(body.frame().now_or_never().is_none());
        assert!(departure.begin().is_none(), "and has not written it");
        socket.write_all(b"late").await.expect("written");
        socket.flush().await.expect("flushed");
        assert!(departure.begin().is_some());
    }
}

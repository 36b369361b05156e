//! A response whose body the engine gives. HTTP/2 takes it piece by piece. A connection of HTTP/1.1 carries nothing else from
//! then on, so it is left to the engine, which writes to it as it writes to WebSockets: see `listener::leaving`.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http_body::Frame;
use subscriptions::hub;

/// What a body gives at once. HTTP/2 takes a piece whole as soon as the peer has room for one byte of it, and then it is
/// nobody's: pieces are small.
const PIECE_BYTES_MAX: usize = 16 << 10;

/// The response. `held` is kept while the session lasts, wherever its body is written.
pub(crate) fn response(body: hub::Body, held: impl Send + 'static) -> Response {
    let session = Streamed {
        body,
        rest: Bytes::new(),
        given: 0,
        is_idle: false,
        held: Box::new(held),
    };
    let loan = Loan(Arc::new(Mutex::new(Some(session))));
    let mut response = Response::new(Body::new(Pieces(loan.clone())));
    response.extensions_mut().insert(loan);
    response
}

/// A body that an HTTP server has on loan. It is found among the extensions of its response.
#[derive(Clone)]
pub(crate) struct Loan(Arc<Mutex<Option<Streamed>>>);

/// A body of the engine's, and what goes with it.
pub(crate) struct Streamed {
    body: hub::Body,
    /// Of the last chunk.
    rest: Bytes,
    /// How many pieces the server has been given.
    given: u64,
    /// Nothing more was there when it asked last.
    is_idle: bool,
    held: Box<dyn Send>,
}

impl Loan {
    /// How many pieces the server has been given; `None` while it has not asked for more in vain.
    pub(crate) fn idle_after(&self) -> Option<u64> {
        let session = self.lock();
        let session = session.as_ref()?;
        session.is_idle.then_some(session.given)
    }

    /// Takes the body back. The server is given nothing any more.
    pub(crate) fn recall(&self) -> Option<(hub::Body, Box<dyn Send>)> {
        self.lock().take().map(|session| (session.body, session.held))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Streamed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Streamed {
    /// The next piece. One that the engine cuts fails, so that nothing of it is sent any more.
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        self.is_idle = false;
        if self.rest.is_empty() && !self.body.is_cut() {
            match self.body.poll_recv(context) {
                Poll::Ready(Some(chunk)) => self.rest = chunk,
                Poll::Ready(None) if self.body.is_cut() => {}
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => {
                    self.is_idle = true;
                    return Poll::Pending;
                }
            }
        }
        if self.body.is_cut() {
            self.rest = Bytes::new();
            return Poll::Ready(Some(Err(io::ErrorKind::ConnectionAborted.into())));
        }
        self.given += 1;
        let length = self.rest.len().min(PIECE_BYTES_MAX);
        Poll::Ready(Some(Ok(self.rest.split_to(length))))
    }
}

/// The body as an HTTP server sees it.
struct Pieces(Loan);

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        match &mut *self.0.lock() {
            Some(session) => session
                .poll_piece(context)
                .map(|piece| piece.map(|piece| piece.map(Frame::data))),
            // Recalled: whoever did drops the server's side.
            None => Poll::Pending,
        }
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        // A response that is given up ends its session, though the loan may still be known elsewhere.
        drop(self.0.recall());
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use http_body_util::BodyExt;
    use tokio::sync::mpsc;

    use super::*;

    fn lent() -> (mpsc::Sender<Bytes>, Loan, Body, Arc<()>) {
        let (sender, receiver) = mpsc::channel(2);
        let held = Arc::new(());
        let mut response = response(receiver.into(), Arc::clone(&held));
        let loan = response.extensions_mut().remove::<Loan>().expect("a loan");
        (sender, loan, response.into_body(), held)
    }

    #[tokio::test]
    async fn a_large_chunk_of_events_is_given_in_pieces() {
        let (sender, _, mut body, _) = lent();
        let chunk = Bytes::from(vec![7; PIECE_BYTES_MAX + 5]);
        sender.send(chunk).await.expect("room");
        drop(sender);
        let mut lengths = Vec::new();
        while let Some(frame) = body.frame().await {
            lengths.push(frame.expect("whole").into_data().expect("data").len());
        }
        assert_eq!(lengths, [PIECE_BYTES_MAX, 5]);
    }

    #[tokio::test]
    async fn a_body_is_idle_when_all_that_was_there_has_been_given() {
        let (sender, loan, mut body, _) = lent();
        assert_eq!(loan.idle_after(), None, "nobody has asked for anything");
        sender
            .send(Bytes::from(vec![7; PIECE_BYTES_MAX + 5]))
            .await
            .expect("room");
        body.frame().await.expect("a frame").expect("whole");
        assert_eq!(loan.idle_after(), None, "the rest of a chunk is there");
        body.frame().await.expect("a frame").expect("whole");
        assert_eq!(loan.idle_after(), None, "whether there is more was not asked");
        assert!(body.frame().now_or_never().is_none());
        assert_eq!(loan.idle_after(), Some(2));
    }

    #[tokio::test]
    async fn what_a_session_holds_goes_with_its_body_or_ends_with_the_response() {
        let (_sender, loan, body, held) = lent();
        let recalled = loan.recall().expect("a body");
        drop(body);
        assert_eq!(Arc::strong_count(&held), 2, "it has moved");
        drop(recalled);
        assert_eq!(Arc::strong_count(&held), 1);

        let (sender, loan, body, held) = lent();
        drop(body);
        assert_eq!(Arc::strong_count(&held), 1);
        assert!(sender.is_closed() && loan.recall().is_none());
    }
}

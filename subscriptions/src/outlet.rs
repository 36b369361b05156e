//! Where a session's bytes go: a socket that is written to directly, another connection, or the body of a response.
//!
//! Invariant: a write never waits. What an outlet does not take stays with the caller.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::hub::{AsyncIo, Transport};
use crate::protocol::chunked;
use crate::worker::Wake;

/// Where bytes go.
pub(crate) enum Outlet {
    /// A plain socket.
    Tcp(TcpStream),
    /// Any other connection: TLS.
    Other {
        /// The connection.
        io: Box<dyn AsyncIo>,
        /// The session's own task: woken when a write that did not fit may go on.
        waker: Waker,
        /// Bytes were taken that are not on their way yet: nothing more is given until they are.
        unflushed: bool,
    },
    /// The body of a response, read by the HTTP server. Dropping the sender ends the response.
    Body {
        /// Where its chunks go.
        chunks: mpsc::Sender<Bytes>,
        /// What waits in it is for nobody any more.
        cut: Arc<AtomicBool>,
    },
    /// Closed.
    Gone,
}

/// The body of a response. The HTTP server takes its chunks, whose end is the response's, or moves it to its connection. Dropping it
/// ends the session.
#[derive(Debug)]
pub struct Body {
    chunks: mpsc::Receiver<Bytes>,
    cut: Arc<AtomicBool>,
    session: Option<Home>,
}

/// Where a session is.
#[derive(Debug)]
pub(crate) struct Home {
    /// Its worker, which ends though bodies are about.
    pub(crate) worker: mpsc::WeakSender<Wake>,
    pub(crate) place: usize,
    pub(crate) serial: u64,
}

/// A body on its way to its connection.
pub(crate) struct Moving {
    /// The connection.
    pub(crate) transport: Transport,
    /// The body, with what waits in it.
    pub(crate) body: Body,
}

impl Body {
    /// The same, with its session named.
    pub(crate) fn of(mut self, session: Home) -> Self {
        self.session = Some(session);
        self
    }

    /// Moves the body to its connection: the engine writes it from here on, as the chunks of HTTP/1.1, and ends with it. The
    /// response's head and all chunks that were taken must be on their way. `held` is kept while the session lasts.
    pub async fn move_to(mut self, transport: Transport, held: Box<dyn Send>) {
        // Without one, everything is dropped here: the connection ends as the body does.
        let Some(home) = self.session.take() else { return };
        let Some(worker) = home.worker.upgrade() else {
            return;
        };
        let moving = Moving {
            transport,
            body: self,
        };
        let wake = Wake::Move(home.place, home.serial, Box::new(moving), held);
        // A worker that is gone drops it.
        let _gone = worker.send(wake).await;
    }

    /// Gives a connection what is left of a body whose session is over, and the end of it if it is whole.
    pub(crate) async fn finish(mut self, transport: Transport) -> io::Result<()> {
        let mut bytes = Vec::new();
        for piece in self.untaken() {
            chunked::chunk(&mut bytes, |out| out.extend_from_slice(&piece));
        }
        if self.is_cut() {
            return Ok(());
        }
        bytes.extend_from_slice(chunked::LAST);
        let mut io: Box<dyn AsyncIo> = match transport {
            Transport::Tcp { stream, .. } => Box::new(TcpStream::from_std(stream)?),
            Transport::Other { io, .. } => io,
        };
        io.write_all(&bytes).await?;
        io.shutdown().await?;
        // Closing over something unread could destroy what was just written.
        let mut ignored = [0; 1024];
        while io.read(&mut ignored).await? > 0 {}
        Ok(())
    }

    /// The chunks that nobody has taken.
    pub(crate) fn untaken(&mut self) -> impl Iterator<Item = Bytes> {
        std::iter::from_fn(|| self.chunks.try_recv().ok())
    }

    /// The next chunk; `None` at the end. Cancel safe.
    pub async fn recv(&mut self) -> Option<Bytes> {
        std::future::poll_fn(|context| self.poll_recv(context)).await
    }

    /// The same, for those who poll.
    pub fn poll_recv(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let chunk = ready!(self.chunks.poll_recv(context));
        // What is still in the channel then is dropped with it.
        Poll::Ready(chunk.filter(|_| !self.is_cut()))
    }

    /// Whether it was broken off, with what waited in it: the response must not end as if it were whole.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Acquire)
    }
}

/// How many chunks may wait for the HTTP server to take them: one being written, one to follow it.
pub(crate) const BODY_CHUNKS_MAX: usize = 2;

/// The largest chunk of a body: what was handed to the HTTP server is sent even if the grant ends meanwhile.
const BODY_CHUNK_BYTES: usize = 32 << 10;

/// A body that nobody cuts.
impl From<mpsc::Receiver<Bytes>> for Body {
    fn from(chunks: mpsc::Receiver<Bytes>) -> Self {
        Self {
            chunks,
            cut: Arc::default(),
            session: None,
        }
    }
}

impl Outlet {
    /// A body and its outlet.
    pub(crate) fn body_of(chunks_max: usize) -> (Self, Body) {
        let (sender, receiver) = mpsc::channel(chunks_max);
        let cut = Arc::<AtomicBool>::default();
        let body = Body {
            chunks: receiver,
            cut: Arc::clone(&cut),
            session: None,
        };
        (Self::Body { chunks: sender, cut }, body)
    }

    /// Takes over a connection; call it on the worker's runtime.
    pub(crate) fn adopt(transport: Transport) -> io::Result<(Self, Bytes)> {
        match transport {
            Transport::Tcp { stream, read_ahead } => {
                Ok((Self::Tcp(TcpStream::from_std(stream)?), read_ahead))
            }
            Transport::Other { io, read_ahead } => Ok((
                Self::Other {
                    io,
                    waker: Waker::noop().clone(),
                    unflushed: false,
                },
                read_ahead,
            )),
        }
    }

    /// Writes what the outlet takes now: zero when it is full.
    pub(crate) fn write(&mut self, bytes: &Rendered<'_>) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => would_block(stream.try_write(bytes.slice)),
            Self::Other { io, waker, unflushed } => {
                let mut context = Context::from_waker(waker);
                if *unflushed {
                    match Pin::new(&mut *io).poll_flush(&mut context) {
                        Poll::Ready(result) => result?,
                        Poll::Pending => return Ok(0),
                    }
                }
                let mut written = 0;
                // A TLS connection takes a record at a time.
                while written < bytes.slice.len() {
                    match Pin::new(&mut *io).poll_write(&mut context, &bytes.slice[written..]) {
                        Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                        Poll::Ready(Ok(count)) => written += count,
                        Poll::Ready(Err(error)) => return Err(error),
                        Poll::Pending => break,
                    }
                }
                match Pin::new(io).poll_flush(&mut context) {
                    Poll::Ready(result) => {
                        result?;
                        *unflushed = false;
                    }
                    Poll::Pending => *unflushed = true,
                }
                Ok(written)
            }
            Self::Body { chunks: sender, .. } => {
                let mut written = 0;
                while written < bytes.len() {
                    match sender.try_reserve() {
                        Ok(room) => {
                            let end = bytes.len().min(written + BODY_CHUNK_BYTES);
                            room.send(bytes.shared().slice(written..end));
                            written = end;
                        }
                        Err(mpsc::error::TrySendError::Full(())) => break,
                        Err(mpsc::error::TrySendError::Closed(())) => {
                            return Err(io::ErrorKind::BrokenPipe.into());
                        }
                    }
                }
                Ok(written)
            }
            Self::Gone => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Names the session's own task.
    pub(crate) fn wake_by(&mut self, task: &Waker) {
        if let Self::Other { waker, .. } = self
            && !waker.will_wake(task)
        {
            waker.clone_from(task);
        }
    }

    /// Sends on what was taken before and is not on its way yet.
    pub(crate) fn flush_rest(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if let Self::Other { io, unflushed, .. } = self
            && *unflushed
            && let Poll::Ready(result) = Pin::new(io).poll_flush(context)
        {
            result?;
            *unflushed = false;
        }
        Ok(())
    }

    /// Ready when a write may take something, asked after one did not. Connections other than plain sockets have noted the
    /// session's task at that write; a body is waited for by [`Outlet::body`].
    pub(crate) fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_write_ready(context),
            Self::Other { .. } | Self::Body { .. } => Poll::Pending,
            Self::Gone => Poll::Ready(Ok(())),
        }
    }

    /// Reads what is there: `Ok(0)` is the end.
    pub(crate) fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => loop {
                ready!(stream.poll_read_ready(context))?;
                match stream.try_read(buffer) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    result => return Poll::Ready(result),
                }
            },
            Self::Other { io, .. } => {
                let mut buffer = ReadBuf::new(buffer);
                ready!(Pin::new(io).poll_read(context, &mut buffer))?;
                Poll::Ready(Ok(buffer.filled().len()))
            }
            Self::Body { .. } => Poll::Pending,
            Self::Gone => Poll::Ready(Ok(0)),
        }
    }

    /// Ends the writing side when everything is out. `true`: there is nothing to wait for.
    pub(crate) fn shut(&mut self, context: &mut Context<'_>) -> bool {
        match self {
            // The client's own end is then read, until the linger is over: closing at once could destroy the close frame.
            Self::Tcp(stream) => matches!(Pin::new(stream).poll_shutdown(context), Poll::Ready(Err(_))),
            Self::Other { io, .. } => matches!(Pin::new(io).poll_shutdown(context), Poll::Ready(Err(_))),
            Self::Body { .. } | Self::Gone => true,
        }
    }

    /// Ends it at once: what a plain socket has taken and not sent yet is thrown away, as far as that is ours to say.
    pub(crate) fn cut(&mut self) {
        match self {
            Self::Tcp(stream) => {
                if let Err(error) = stream.set_zero_linger() {
                    tracing::debug!(%error, "a socket keeps what it has taken");
                }
            }
            Self::Body { cut, .. } => cut.store(true, Ordering::Release),
            Self::Other { .. } | Self::Gone => {}
        }
        *self = Self::Gone;
    }

    /// Whether it has taken something that is not on its way yet, as far as that can be seen.
    pub(crate) fn is_behind(&self) -> bool {
        match self {
            Self::Tcp(_) | Self::Gone => false,
            Self::Other { unflushed, .. } => *unflushed,
            Self::Body { chunks, .. } => chunks.capacity() < chunks.max_capacity(),
        }
    }

    /// Whether it is the body of a response that the HTTP server writes.
    pub(crate) fn is_body(&self) -> bool {
        matches!(self, Self::Body { .. })
    }

    /// The sender of a body.
    pub(crate) fn body(&self) -> Option<mpsc::Sender<Bytes>> {
        match self {
            Self::Body { chunks, .. } => Some(chunks.clone()),
            _ => None,
        }
    }
}

fn would_block(result: io::Result<usize>) -> io::Result<usize> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        result => result,
    }
}

/// Finished bytes. Outlets that keep them share one copy.
pub(crate) struct Rendered<'a> {
    slice: &'a [u8],
    shared: std::cell::OnceCell<Bytes>,
}

impl<'a> Rendered<'a> {
    pub(crate) fn new(slice: &'a [u8]) -> Self {
        Self {
            slice,
            shared: std::cell::OnceCell::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.slice.len()
    }

    pub(crate) fn rest(&self, from: usize, to: usize) -> &'a [u8] {
        &self.slice[from..to]
    }

    fn shared(&self) -> Bytes {
        self.shared
            .get_or_init(|| Bytes::copy_from_slice(self.slice))
            .clone()
    }
}

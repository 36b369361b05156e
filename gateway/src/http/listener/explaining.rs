//! A stream that gives the HTTP/1.1 parser's own refusals their problem document.
//!
//! A request that cannot be parsed reaches no router: the parser answers with a bare head and closes. That head is exactly
//! known, and no answer of ours looks like it (each has a content type), so it is replaced on its way to the socket.
//! Invariant: whoever writes is told of its own bytes only, and only when what stands for them has been written whole.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use schemas::problem::Code;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::http::Problem;
use crate::http::problem::{MEDIA_TYPE, REQUEST_MALFORMED, URI_TOO_LONG};

/// What the parser's refusals have after their status line, up to the date.
const BARE: &[u8] = b"connection: close\r\ncontent-length: 0\r\ndate: ";

/// The stream, and what is still to be written in place of a refusal.
#[derive(Debug)]
pub(crate) struct Explaining<S> {
    inner: S,
    owed: Option<Bytes>,
}

impl<S> Explaining<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self { inner, owed: None }
    }

    pub(crate) fn into_inner(self) -> S {
        self.inner
    }
}

/// The whole answer in place of a bare refusal; `None` for everything else.
fn explained(written: &[u8]) -> Option<Bytes> {
    let status_and_rest = written.strip_prefix(b"HTTP/1.1 4")?;
    let line = status_and_rest.iter().position(|byte| *byte == b'\n')?;
    let (status_line, rest) = status_and_rest.split_at_checked(line + 1)?;
    let date = rest.strip_prefix(BARE)?.strip_suffix(b"\r\n\r\n")?;
    if date.contains(&b'\r') {
        return None;
    }
    let code = match status_line.get(..2)? {
        b"00" => REQUEST_MALFORMED,
        b"14" => URI_TOO_LONG,
        b"31" => Code::HEADERS_TOO_LARGE,
        _ => return None,
    };
    let body = Problem::new(code, "").document();
    let head = format!(
        "connection: close\r\ncontent-type: {MEDIA_TYPE}\r\ncache-control: no-store\r\ncontent-length: {}\r\ndate: ",
        body.len()
    );
    Some(
        [
            b"HTTP/1.1 4",
            status_line,
            head.as_bytes(),
            date,
            b"\r\n\r\n",
            &body,
        ]
        .concat()
        .into(),
    )
}

impl<S: AsyncWrite + Unpin> Explaining<S> {
    /// Writes what stands for `written`, if anything does.
    fn explain(&mut self, context: &mut Context<'_>, written: &[u8]) -> Option<Poll<io::Result<usize>>> {
        if self.owed.is_none() {
            self.owed = Some(explained(written)?);
        }
        Some(self.pay(context, written.len()))
    }

    fn pay(&mut self, context: &mut Context<'_>, length: usize) -> Poll<io::Result<usize>> {
        while let Some(owed) = &mut self.owed {
            let count = ready!(Pin::new(&mut self.inner).poll_write(context, owed))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            owed.advance(count);
            if owed.is_empty() {
                self.owed = None;
            }
        }
        Poll::Ready(Ok(length))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Explaining<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Explaining<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.explain(context, bytes) {
            Some(written) => written,
            None => Pin::new(&mut self.inner).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = slices.iter().find(|slice| !slice.is_empty());
        match first.and_then(|first| self.explain(context, first)) {
            Some(written) => written,
            None => Pin::new(&mut self.inner).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const BARE_400: &[u8] =
        b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\ndate: today\r\n\r\n";

    #[tokio::test]
    async fn a_bare_refusal_is_explained_however_small_the_socket() {
        // Smaller than the answer: it goes out in pieces.
        let (ours, mut theirs) = tokio::io::duplex(7);
        let writing = async {
            let mut explaining = Explaining::new(ours);
            explaining.write_all(BARE_400).await.expect("written");
        };
        let mut said = String::new();
        let (_, read) = tokio::join!(writing, theirs.read_to_string(&mut said));
        read.expect("read");
        let (head, body) = said.split_once("\r\n\r\n").expect("a head and a body");
        assert!(
            head.starts_with("HTTP/1.1 400 Bad Request\r\nconnection: close\r\n"),
            "{head}"
        );
        assert!(
            head.contains(&format!("\r\ncontent-length: {}\r\n", body.len())),
            "{head}"
        );
        let document: serde_json::Value = serde_json::from_str(body).expect("JSON");
        assert_eq!(document["code"], "request_malformed");
    }

    #[test]
    fn nothing_else_is_touched() {
        let with_more = [BARE_400, b"more"].concat();
        let ours = BARE_400.to_vec();
        let ours = String::from_utf8(ours)
            .expect("text")
            .replace("connection:", "content-type: x\r\nconnection:");
        for other in [
            &with_more[..],
            ours.as_bytes(),
            b"HTTP/1.1 204 No Content\r\nconnection: close\r\ncontent-length: 0\r\ndate: today\r\n\r\n",
            b"HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 0\r\ndate: today\r\n\r\n",
            b"HTTP/1.1 4",
            b"",
        ] {
            assert_eq!(explained(other), None);
        }
    }
}

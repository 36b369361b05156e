//! Receivers of webhooks that cost as little as they can: one thread, keep-alive, a status, and a look for the event's mark.
//!
//! Invariant: every event counts once for each path, whatever comes how often; what comes again is counted as that. Three
//! kinds of paths: `/hook/N` answers 200, `/sick/N` as it is told, `/bare/N` answers 200 and counts requests only.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail, ensure};
use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;

use crate::load::payload::{Finder, now_us};
use crate::load::readers::latencies;

/// The longest request.
const REQUEST_BYTES_MAX: usize = 64 << 10;

const GOOD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

/// What the receivers have seen; shared with whoever asks.
#[derive(Debug, Default)]
pub struct Tally {
    /// Events taken by `/hook`, each once a path.
    pub taken: AtomicU64,
    /// Events taken by `/sick`, each once a path.
    pub recovered: AtomicU64,
    /// Events that had been taken before.
    pub again: AtomicU64,
    /// Requests that were answered by something else than 200.
    pub refused: AtomicU64,
    /// Requests of the bare loop.
    pub bare: AtomicU64,
    /// What `/sick` answers; 200 from the start.
    pub sick: AtomicU16,
    /// Set: the latencies of `/hook` are recorded.
    pub measuring: AtomicBool,
    over: AtomicBool,
}

/// Receivers at work on a thread of their own.
pub struct Sink {
    /// What they have seen.
    pub tally: Arc<Tally>,
    address: SocketAddr,
    sample: Arc<Mutex<Vec<u8>>>,
    latencies: Arc<Mutex<Histogram<u64>>>,
    thread: std::thread::JoinHandle<Result<()>>,
}

impl Sink {
    /// Listens on loopback.
    pub fn start() -> Result<Self> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let tally = Arc::new(Tally::default());
        tally.sick.store(200, Ordering::Relaxed);
        let sample = Arc::new(Mutex::new(Vec::new()));
        let recorded = Arc::new(Mutex::new(latencies()?));
        let shared = Shared {
            tally: Arc::clone(&tally),
            sample: Arc::clone(&sample),
            latencies: Arc::clone(&recorded),
            seen: RefCell::default(),
        };
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            LocalSet::new().block_on(&runtime, serve(listener, Rc::new(shared)))
        });
        Ok(Self {
            tally,
            address,
            sample,
            latencies: recorded,
            thread,
        })
    }

    /// The URL of one receiver: `hook`, `sick` or `bare`.
    #[must_use]
    pub fn url(&self, kind: &str, number: usize) -> String {
        format!("http://{}/{kind}/{number}", self.address)
    }

    /// A request to `/hook` as it came, head and body.
    #[must_use]
    pub fn sample(&self) -> Vec<u8> {
        self.sample.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From produce to receipt in microseconds, of what came since this was asked for last.
    pub fn latencies(&self) -> Result<Histogram<u64>> {
        let mut recorded = self.latencies.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(std::mem::replace(&mut *recorded, latencies()?))
    }

    /// Ends.
    pub fn finish(self) -> Result<()> {
        self.tally.over.store(true, Ordering::Relaxed);
        // It waits for connections: one more lets it see.
        drop(std::net::TcpStream::connect(self.address)?);
        match self.thread.join() {
            Ok(ended) => ended,
            Err(_) => bail!("the receivers' thread panicked"),
        }
    }
}

struct Shared {
    tally: Arc<Tally>,
    sample: Arc<Mutex<Vec<u8>>>,
    latencies: Arc<Mutex<Histogram<u64>>>,
    /// By path, a bit for each event.
    seen: RefCell<HashMap<Vec<u8>, Vec<u64>>>,
}

async fn serve(listener: std::net::TcpListener, shared: Rc<Shared>) -> Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (socket, _) = listener.accept().await?;
        if shared.tally.over.load(Ordering::Relaxed) {
            return Ok(());
        }
        let shared = Rc::clone(&shared);
        // How a connection ends is the sender's matter; what did not arrive is seen in the counts.
        tokio::task::spawn_local(async move { drop(converse(socket, &shared).await) });
    }
}

async fn converse(mut socket: TcpStream, shared: &Shared) -> Result<()> {
    socket.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(8 << 10);
    loop {
        let (head_bytes, whole) = loop {
            if let Some(bounds) = bounds(&buffer)? {
                break bounds;
            }
            ensure!(buffer.len() < REQUEST_BYTES_MAX, "a request without an end");
            if socket.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        };
        let request = buffer.get(..whole).context("it is whole")?;
        let answer = shared.take(request, head_bytes)?;
        if answer == 200 {
            socket.write_all(GOOD).await?;
        } else {
            let text = format!("HTTP/1.1 {answer} No\r\ncontent-length: 0\r\n\r\n");
            socket.write_all(text.as_bytes()).await?;
        }
        buffer.drain(..whole);
    }
}

/// The bytes of a request's head and of all of it, when all of it has come.
fn bounds(buffer: &[u8]) -> Result<Option<(usize, usize)>> {
    let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head_bytes = at + 4;
    let name = b"content-length:";
    let head = buffer.get(..head_bytes).unwrap_or_default();
    let found = head
        .windows(name.len())
        .position(|window| window.eq_ignore_ascii_case(name))
        .and_then(|at| head.get(at + name.len()..))
        .context("a delivery has a length")?;
    let digits = found.trim_ascii_start();
    let end = digits.iter().position(|byte| !byte.is_ascii_digit());
    let length: usize = std::str::from_utf8(digits.get(..end.unwrap_or(0)).unwrap_or_default())?.parse()?;
    let whole = head_bytes + length;
    ensure!(whole <= REQUEST_BYTES_MAX, "a request of {whole} bytes");
    Ok((buffer.len() >= whole).then_some((head_bytes, whole)))
}

impl Shared {
    /// Counts a request: how it is answered.
    fn take(&self, request: &[u8], head_bytes: usize) -> Result<u16> {
        let mut words = request.splitn(3, |byte| *byte == b' ');
        let path = words.nth(1).context("a path")?;
        let tally = &self.tally;
        if path.starts_with(b"/bare/") {
            tally.bare.fetch_add(1, Ordering::Relaxed);
            return Ok(200);
        }
        let is_sick = path.starts_with(b"/sick/");
        let answer = if is_sick {
            tally.sick.load(Ordering::Relaxed)
        } else {
            200
        };
        if answer != 200 {
            tally.refused.fetch_add(1, Ordering::Relaxed);
            return Ok(answer);
        }
        let mut found = None;
        let body = request.get(head_bytes..).unwrap_or_default();
        Finder::default().feed(body, |number, time| found = Some((number, time)));
        let (number, time) = found.context("a delivery has a mark")?;
        if !self.is_new(path, number) {
            tally.again.fetch_add(1, Ordering::Relaxed);
            return Ok(answer);
        }
        if is_sick {
            tally.recovered.fetch_add(1, Ordering::Relaxed);
            return Ok(answer);
        }
        if tally.measuring.load(Ordering::Relaxed) {
            let latency = now_us().saturating_sub(time).max(1);
            let mut latencies = self.latencies.lock().unwrap_or_else(PoisonError::into_inner);
            latencies.saturating_record(latency);
        }
        if tally.taken.fetch_add(1, Ordering::Relaxed) == 0 {
            let mut sample = self.sample.lock().unwrap_or_else(PoisonError::into_inner);
            *sample = request.to_vec();
        }
        Ok(answer)
    }

    fn is_new(&self, path: &[u8], number: u64) -> bool {
        let mut seen = self.seen.borrow_mut();
        if !seen.contains_key(path) {
            seen.insert(path.to_vec(), Vec::new());
        }
        let Some(bits) = seen.get_mut(path) else {
            return false;
        };
        let (word, bit) = (usize::try_from(number / 64).unwrap_or(0), 1 << (number % 64));
        if bits.len() <= word {
            bits.resize(word + 1, 0);
        }
        let Some(bits) = bits.get_mut(word) else {
            return false;
        };
        let is_new = *bits & bit == 0;
        *bits |= bit;
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_whole_when_its_body_is() {
        let head = b"POST /hook/7 HTTP/1.1\r\nContent-Length: 5\r\n\r\n";
        let mut request = head.to_vec();
        assert_eq!(bounds(&request[..20]).unwrap(), None);
        request.extend_from_slice(b"1234");
        assert_eq!(bounds(&request).unwrap(), None);
        request.extend_from_slice(b"5POST");
        assert_eq!(bounds(&request).unwrap(), Some((head.len(), head.len() + 5)));
        assert!(bounds(b"POST / HTTP/1.1\r\n\r\n").is_err());
    }
}

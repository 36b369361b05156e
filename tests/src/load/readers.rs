//! Readers by the thousand on one thread: a socket, a few counters and a look for marks each.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use hdrhistogram::Histogram;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::task::LocalSet;

use super::payload::{Finder, now_us};
use crate::raw;

/// How many handshakes are under way at once.
const OPENING_MAX: usize = 100;
/// How often a WebSocket reader says that it is alive, so that it need not look for pings.
const PONG_EVERY: Duration = Duration::from_secs(15);
/// What one look at a socket takes at most.
const READ_BYTES: usize = 256 << 10;

/// What readers speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Protocol {
    /// `tidewire.v1`.
    Websocket,
    /// Server-sent events.
    Sse,
    /// `graphql-transport-ws`.
    Graphql,
    /// Nothing: connect and read.
    Bare,
}

/// Which readers are wanted.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where.
    pub address: SocketAddr,
    /// How.
    pub protocol: Protocol,
    /// How many.
    pub count: usize,
    /// The bearer token.
    pub token: String,
    /// The streams; reader `n` takes the `n`th, round and round.
    pub streams: Vec<String>,
    /// GraphQL: what is subscribed to, as the payload of `subscribe`; reader `n` takes the `n`th, round and round.
    pub operations: Vec<String>,
    /// Readers never say that they are alive: the gateway was told to be patient, and only events cost it something.
    pub silent: bool,
}

/// What the readers have seen; shared with whoever asks.
#[derive(Debug, Default)]
pub struct Tally {
    /// Readers that are subscribed.
    pub open: AtomicUsize,
    /// Readers whose connection ended.
    pub ended: AtomicUsize,
    /// Events taken.
    pub deliveries: AtomicU64,
    /// Bytes taken.
    pub bytes: AtomicU64,
    /// Numbers that were jumped over.
    pub gaps: AtomicU64,
    /// Numbers that came again or late.
    pub duplicates: AtomicU64,
    /// Set: latencies are recorded.
    pub measuring: AtomicBool,
    /// Set: everything ends.
    pub over: AtomicBool,
}

/// Readers at work on a thread of their own.
pub struct Crowd {
    /// What they have seen.
    pub tally: Arc<Tally>,
    thread: std::thread::JoinHandle<Result<Histogram<u64>>>,
}

impl Crowd {
    /// Opens the readers; [`Tally::open`] tells how far that is.
    pub fn start(plan: Plan) -> Self {
        let tally = Arc::new(Tally::default());
        let shared = Arc::clone(&tally);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            LocalSet::new().block_on(&runtime, run(plan, shared))
        });
        Self { tally, thread }
    }

    /// Ends all connections; the latencies that were recorded, in microseconds.
    pub fn finish(self) -> Result<Histogram<u64>> {
        self.tally.over.store(true, Ordering::Relaxed);
        match self.thread.join() {
            Ok(histogram) => histogram,
            Err(_) => bail!("the readers' thread panicked"),
        }
    }
}

/// An empty record of latencies: up to ten minutes, to three digits.
pub fn latencies() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 600_000_000, 3)?)
}

struct Shared {
    tally: Arc<Tally>,
    latencies: Histogram<u64>,
    buffer: Box<[u8]>,
}

async fn run(plan: Plan, tally: Arc<Tally>) -> Result<Histogram<u64>> {
    let shared = Rc::new(RefCell::new(Shared {
        tally: Arc::clone(&tally),
        latencies: latencies()?,
        buffer: vec![0; READ_BYTES].into_boxed_slice(),
    }));
    let opening = Rc::new(tokio::sync::Semaphore::new(OPENING_MAX));
    let plan = Rc::new(plan);
    let mut readers = tokio::task::JoinSet::new();
    for n in 0..plan.count {
        let (plan, shared, opening) = (Rc::clone(&plan), Rc::clone(&shared), Rc::clone(&opening));
        readers.spawn_local(async move {
            let permit = opening.acquire().await?;
            let opened = open(&plan, n).await;
            drop(permit);
            let (stream, head) = opened?;
            let tally = Arc::clone(&shared.borrow().tally);
            tally.open.fetch_add(1, Ordering::Relaxed);
            let ended = read(&stream, &head, &shared, &plan).await;
            tally.ended.fetch_add(1, Ordering::Relaxed);
            ended
        });
    }
    let mut look = tokio::time::interval(Duration::from_millis(50));
    while !tally.over.load(Ordering::Relaxed) {
        tokio::select! {
            _ = look.tick() => {}
            Some(ended) = readers.join_next() => match ended? {
                Ok(()) => {}
                Err(error) if tally.over.load(Ordering::Relaxed) => drop(error),
                Err(error) => return Err(error),
            },
        }
    }
    readers.shutdown().await;
    let Ok(shared) = Rc::try_unwrap(shared) else {
        bail!("a reader is left over")
    };
    Ok(shared.into_inner().latencies)
}

/// Connects and asks for its stream; gives the socket, and what came behind the answer.
async fn open(plan: &Plan, n: usize) -> Result<(TcpStream, Vec<u8>)> {
    let stream = TcpStream::connect(plan.address).await?;
    stream.set_nodelay(true)?;
    // Reset at the end, so that thousands of closed connections do not use up the ports for a minute.
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    let address = plan.address;
    let name = plan
        .streams
        .get(n % plan.streams.len().max(1))
        .map_or("", String::as_str);
    match plan.protocol {
        Protocol::Bare => Ok((stream, Vec::new())),
        Protocol::Sse => {
            let token = &plan.token;
            let request = format!(
                "GET /v1/streams/{name} HTTP/1.1\r\nHost: {address}\r\nAccept: text/event-stream\r\n\
                 Authorization: Bearer {token}\r\n\r\n"
            );
            write_all(&stream, request.as_bytes()).await?;
            let head = read_until(&stream, b"\n\n").await?;
            ensure!(
                head.starts_with(b"HTTP/1.1 200 "),
                "{}",
                String::from_utf8_lossy(&head)
            );
            Ok((stream, Vec::new()))
        }
        Protocol::Websocket => {
            upgrade(&stream, plan, "/v1/ws", "tidewire.v1").await?;
            let subscribe = format!("{{\"type\":\"subscribe\",\"id\":\"s\",\"stream\":{name:?}}}");
            write_all(&stream, &raw::frame(0x81, subscribe.as_bytes(), true)).await?;
            let heard = read_until(&stream, b"\"subscribed\"").await?;
            Ok((stream, heard))
        }
        Protocol::Graphql => {
            upgrade(&stream, plan, "/graphql/ws", "graphql-transport-ws").await?;
            write_all(
                &stream,
                &raw::frame(0x81, b"{\"type\":\"connection_init\"}", true),
            )
            .await?;
            read_until(&stream, b"\"connection_ack\"}").await?;
            let operation = plan
                .operations
                .get(n % plan.operations.len().max(1))
                .context("an operation")?;
            let subscribe = format!("{{\"type\":\"subscribe\",\"id\":\"s\",\"payload\":{operation}}}");
            write_all(&stream, &raw::frame(0x81, subscribe.as_bytes(), true)).await?;
            // The ping that names the subscription: its position is fixed.
            let heard = read_until(&stream, b"\"cursors\":{\"s\":").await?;
            Ok((stream, heard))
        }
    }
}

async fn upgrade(stream: &TcpStream, plan: &Plan, path: &str, protocol: &str) -> Result<()> {
    let (address, token) = (plan.address, &plan.token);
    let key = base64::engine::general_purpose::STANDARD.encode(rand::random::<[u8; 16]>());
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Protocol: {protocol}\r\n\
         Authorization: Bearer {token}\r\n\r\n"
    );
    write_all(stream, request.as_bytes()).await?;
    let head = read_until(stream, b"\r\n\r\n").await?;
    ensure!(
        head.starts_with(b"HTTP/1.1 101 "),
        "{}",
        String::from_utf8_lossy(&head)
    );
    Ok(())
}

async fn write_all(stream: &TcpStream, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        stream.writable().await?;
        match stream.try_write(bytes) {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Reads until this text has come.
async fn read_until(stream: &TcpStream, mark: &[u8]) -> Result<Vec<u8>> {
    let mut heard = Vec::new();
    let mut piece = [0; 1024];
    while !heard.windows(mark.len()).any(|window| window == mark) {
        ensure!(
            heard.len() < 64 << 10,
            "no {:?} came",
            String::from_utf8_lossy(mark)
        );
        stream.readable().await?;
        match stream.try_read(&mut piece) {
            Ok(0) => bail!("closed after {:?}", String::from_utf8_lossy(&heard)),
            Ok(read) => heard.extend_from_slice(piece.get(..read).unwrap_or_default()),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(heard)
}

/// Reads to the end.
async fn read(stream: &TcpStream, head: &[u8], shared: &RefCell<Shared>, plan: &Plan) -> Result<()> {
    let mut finder = Finder::default();
    let mut last = None;
    finder.feed(head, |_, _| {});
    let mut alive = tokio::time::interval(PONG_EVERY);
    alive.tick().await;
    loop {
        tokio::select! {
            ready = stream.readable() => ready?,
            _ = alive.tick() => {
                if matches!(plan.protocol, Protocol::Websocket | Protocol::Graphql) && !plan.silent {
                    write_all(stream, &raw::frame(0x8A, b"", true)).await?;
                }
                continue;
            }
        }
        let mut shared = shared.borrow_mut();
        let Shared {
            tally,
            latencies,
            buffer,
        } = &mut *shared;
        let read = match stream.try_read(buffer) {
            // The bare server ends when it has written everything; what is missing is missed by whoever counts.
            Ok(0) if plan.protocol == Protocol::Bare => return Ok(()),
            Ok(0) => bail!(
                "the gateway closed a connection, having said {:?}",
                finder.said_last()
            ),
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error).context("reading"),
        };
        finder.remember(buffer.get(..read).unwrap_or_default());
        let now = now_us();
        let measuring = tally.measuring.load(Ordering::Relaxed);
        let (mut events, mut gaps, mut duplicates) = (0, 0, 0);
        finder.feed(buffer.get(..read).unwrap_or_default(), |number, time| {
            events += 1;
            match last {
                Some(last) if number <= last => duplicates += 1,
                Some(last) => gaps += number - last - 1,
                None => {}
            }
            last = last.max(Some(number));
            if measuring {
                latencies.saturating_record(now.saturating_sub(time).max(1));
            }
        });
        tally.deliveries.fetch_add(events, Ordering::Relaxed);
        tally.bytes.fetch_add(read as u64, Ordering::Relaxed);
        if gaps + duplicates > 0 {
            tally.gaps.fetch_add(gaps, Ordering::Relaxed);
            tally.duplicates.fetch_add(duplicates, Ordering::Relaxed);
        }
    }
}

//! What the machine can do at all: a server that writes finished bytes to its sockets and does nothing else. One
//! thread, a process of its own, so that its CPU time is its own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::MissedTickBehavior;

use super::cores::Cores;
use super::readers::{Crowd, Plan, Protocol};
use crate::{leash, process, wait};

/// What a bare server does.
#[derive(Debug, Clone, clap::Args)]
pub struct Bare {
    /// Sockets that are waited for.
    #[arg(long)]
    pub readers: usize,
    /// Bytes of one event on the wire.
    #[arg(long)]
    pub frame_bytes: usize,
    /// Events.
    #[arg(long)]
    pub events: usize,
    /// Microseconds between events; 0: one after the other.
    #[arg(long, default_value_t = 0)]
    pub interval_us: u64,
    /// Events of one write: 1, or more for the batched loop.
    #[arg(long, default_value_t = 1)]
    pub batch: usize,
}

impl Bare {
    /// Serves: says where, waits for the sockets and for a line on stdin, writes, says what it cost.
    pub fn serve(&self) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            let mut stdout = std::io::stdout();
            writeln!(stdout, "listen={}", listener.local_addr()?)?;
            stdout.flush()?;
            let mut sockets = Vec::with_capacity(self.readers);
            while sockets.len() < self.readers {
                let (socket, _) = listener.accept().await?;
                socket.set_nodelay(true)?;
                sockets.push(socket);
            }
            std::io::stdin().read_exact(&mut [0])?;
            let before = process::cpu_seconds(std::process::id())?;
            self.write(&sockets).await?;
            let cost = process::cpu_seconds(std::process::id())? - before;
            writeln!(stdout, "cpu={cost}")?;
            stdout.flush()?;
            // The sockets stay until the readers have everything.
            std::io::stdin().read_exact(&mut [0])?;
            Ok(())
        })
    }

    async fn write(&self, sockets: &[TcpStream]) -> Result<()> {
        let bytes = vec![b'x'; self.frame_bytes * self.batch];
        let mut pace = tokio::time::interval(Duration::from_micros(self.interval_us.max(1)));
        pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut left = self.events;
        while left > 0 {
            if self.interval_us > 0 {
                pace.tick().await;
            }
            let now = left.min(self.batch);
            let bytes = bytes.get(..self.frame_bytes * now).unwrap_or_default();
            for socket in sockets {
                write(socket, bytes).await?;
            }
            left -= now;
        }
        Ok(())
    }
}

async fn write(socket: &TcpStream, mut bytes: &[u8]) -> Result<()> {
    loop {
        match socket.try_write(bytes) {
            Ok(written) if written == bytes.len() => return Ok(()),
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => socket.writable().await?,
            Err(error) => return Err(error.into()),
        }
    }
}

/// Deliveries per CPU second of a bare server, tried in a process of its own, on the cores that are for servers.
pub async fn measure(bare: &Bare, cores: Option<&Cores>) -> Result<f64> {
    let mut child = Command::new(std::env::current_exe()?)
        .arg("bare")
        .args([
            "--readers",
            &bare.readers.to_string(),
            "--frame-bytes",
            &bare.frame_bytes.to_string(),
        ])
        .args([
            "--events",
            &bare.events.to_string(),
            "--interval-us",
            &bare.interval_us.to_string(),
        ])
        .args(["--batch", &bare.batch.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    leash::hold(child.id());
    if let Some(cores) = cores {
        cores.give(child.id())?;
    }
    let measured = drive(bare, &mut child).await;
    child.kill()?;
    child.wait()?;
    leash::release(child.id());
    measured
}

async fn drive(bare: &Bare, child: &mut Child) -> Result<f64> {
    let mut stdin = child.stdin.take().context("stdin is piped")?;
    let mut lines = BufReader::new(child.stdout.take().context("stdout is piped")?).lines();
    let listen = lines.next().context("a first line")??;
    let address: SocketAddr = listen.strip_prefix("listen=").context("an address")?.parse()?;
    let crowd = Crowd::start(Plan {
        address,
        protocol: Protocol::Bare,
        count: bare.readers,
        token: String::new(),
        streams: Vec::new(),
        operations: Vec::new(),
        silent: true,
    });
    let open = || crowd.tally.open.load(std::sync::atomic::Ordering::Relaxed);
    wait::until_true("the bare readers to be connected", || open() == bare.readers).await?;
    stdin.write_all(b"!")?;
    let line = tokio::task::spawn_blocking(move || lines.next())
        .await?
        .context("a last line")??;
    let cpu: f64 = line.strip_prefix("cpu=").context("the cost")?.parse()?;
    let all = (bare.readers * bare.events * bare.frame_bytes) as u64;
    let bytes = || crowd.tally.bytes.load(std::sync::atomic::Ordering::Relaxed);
    wait::until_true("the bare readers to have everything", || bytes() == all).await?;
    stdin.write_all(b"!")?;
    crowd.finish()?;
    ensure!(cpu > 0.0, "too short to be measured");
    Ok((bare.readers * bare.events) as f64 / cpu)
}

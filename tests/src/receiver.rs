//! A receiver of webhooks: plain HTTP/1.1 on loopback, one path for each endpoint, written by hand so that it can do what no
//! server should: hang, reset, drip, flood, never accept.
//!
//! Invariant: every request is recorded before it is answered, and its `v1` signature is verified here by code of our own.
//! What is recorded is small (places and digests, no bodies), so that a million requests fit. It does not know what a
//! request was sent for: [`tally`] judges that.

pub mod answer;
pub mod hook;
pub mod request;
pub mod tally;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

pub use answer::{Answer, Behaviour};
pub use hook::{Arrival, Hook};
pub use request::{Event, Request};

/// A running receiver.
pub struct Receiver {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: JoinSet<()>,
}

#[derive(Default)]
struct Shared {
    hooks: Mutex<HashMap<String, Arc<Hook>>>,
    connections: AtomicUsize,
    strays: AtomicUsize,
}

impl Receiver {
    /// Listens on a port of loopback.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let mut server = JoinSet::new();
        server.spawn(serve(listener, Arc::clone(&shared)));
        Ok(Self {
            address,
            shared,
            server,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A new path, answered like this.
    #[must_use]
    pub fn hook(&self, name: &str, behaviour: Behaviour) -> Arc<Hook> {
        let path = format!("/{name}");
        let hook = Arc::new(Hook::new(format!("http://{}{path}", self.address), behaviour));
        let mut hooks = self.shared.hooks.lock().unwrap_or_else(PoisonError::into_inner);
        hooks.insert(path, Arc::clone(&hook));
        hook
    }

    /// How many connections were made.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Requests for paths that nobody made.
    #[must_use]
    pub fn strays(&self) -> usize {
        self.shared.strays.load(Ordering::Relaxed)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.server.abort_all();
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((socket, _)) = listener.accept().await else {
            continue;
        };
        shared.connections.fetch_add(1, Ordering::Relaxed);
        while connections.try_join_next().is_some() {}
        let shared = Arc::clone(&shared);
        // How a connection ends is the sender's matter.
        connections.spawn(async move { drop(converse(socket, &shared).await) });
    }
}

async fn converse(mut socket: TcpStream, shared: &Shared) -> Result<()> {
    socket.set_nodelay(true)?;
    let mut buffer = Vec::new();
    while let Some(request) = request::read(&mut socket, &mut buffer).await? {
        let hook = {
            let hooks = shared.hooks.lock().unwrap_or_else(PoisonError::into_inner);
            hooks.get(request.path()).map(Arc::clone)
        };
        let Some(hook) = hook else {
            shared.strays.fetch_add(1, Ordering::Relaxed);
            socket
                .write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
                .await?;
            continue;
        };
        if request.method == "OPTIONS" {
            socket.write_all(hook.consent(&request).as_bytes()).await?;
            continue;
        }
        if !hook.take(request).give(&mut socket).await? {
            return Ok(());
        }
    }
    Ok(())
}

/// A listener whose queue is full: connections to it are never made and never refused.
pub struct Deaf {
    address: SocketAddr,
    _listener: socket2::Socket,
    _waiting: Vec<std::net::TcpStream>,
}

impl Deaf {
    /// Fills a queue of its own.
    pub async fn start() -> Result<Self> {
        tokio::task::spawn_blocking(|| {
            let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
            listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
            listener.listen(0)?;
            let address = listener
                .local_addr()?
                .as_socket()
                .expect("deaf: it is an address");
            let mut waiting = Vec::new();
            let patience = std::time::Duration::from_millis(300);
            while let Ok(socket) = std::net::TcpStream::connect_timeout(&address, patience) {
                waiting.push(socket);
            }
            Ok(Self {
                address,
                _listener: listener,
                _waiting: waiting,
            })
        })
        .await?
    }

    /// Where nobody answers.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/deaf", self.address)
    }
}

#[cfg(test)]
mod tests;

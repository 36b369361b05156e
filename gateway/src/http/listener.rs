//! A listening socket and the connections that it took. Each connection has a place before it is accepted, an owner, and
//! a time by which it must have said something.
//!
//! One invariant: there are never more connections than places. One that becomes a WebSocket, or an event stream of HTTP/1.1,
//! gives its place back: it is the engine's then, and counted by the quotas. Knows nothing of what is asked over a connection.

mod activity;
mod connection;
mod explaining;
mod leaving;
mod stalling;
mod tls;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use self::connection::Context;
use super::metrics::OpenConnection;
use super::{HttpLimits, Metrics};

pub(crate) use self::explaining::Explaining;
pub(crate) use self::leaving::Leaving;
pub(crate) use self::stalling::Stalling;
pub use self::tls::{Tls, TlsError};

/// Connections that the kernel holds for us while we are busy.
const BACKLOG: i32 = 4096;
/// After an error that is not of one connection (no file descriptor is left): long enough for some to end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// A peer that vanished without a word is noticed by the kernel after about this time plus its probes.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// A bound socket; nothing is accepted before [`Listener::serve`].
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    tls: Option<Tls>,
    name: &'static str,
    limits: HttpLimits,
    metrics: Metrics,
    places: Arc<Semaphore>,
}

/// One connection's place among the listener's.
struct Place {
    _permit: OwnedSemaphorePermit,
    _open: OpenConnection,
}

impl Listener {
    /// Binds the address; port 0 asks for a free one. Call it inside a tokio runtime. `name` is the metrics' label.
    pub fn bind(
        address: SocketAddr,
        tls: Option<Tls>,
        name: &'static str,
        limits: &HttpLimits,
        metrics: &Metrics,
    ) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        if limits.send_buffer_bytes > 0 {
            // Accepted sockets inherit it.
            socket.set_send_buffer_size(limits.send_buffer_bytes)?;
        }
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let socket = TcpListener::from_std(socket.into())?;
        Ok(Self {
            address: socket.local_addr()?,
            socket,
            tls,
            name,
            limits: limits.clone(),
            metrics: metrics.clone(),
            places: Arc::new(Semaphore::new(
                limits.connections_max.clamp(1, Semaphore::MAX_PERMITS),
            )),
        })
    }

    /// The address, with the real port.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.address
    }

    /// Whether connections are encrypted.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Serves until `stop` is cancelled, then lets the open requests finish. Ends with the last connection (those
    /// that the engine has are not waited for). Dropping the future cuts the connections off.
    pub async fn serve(self, router: Router, stop: CancellationToken) {
        let context = Arc::new(Context::new(router, &self, stop.clone()));
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                Some(ended) = connections.join_next() => {
                    report(ended);
                    continue;
                }
                accepted = self.accept() => accepted,
            };
            if let Some((socket, place)) = accepted {
                connections.spawn(Arc::clone(&context).serve(socket, place));
            }
        }
        // The port is free for a successor while we finish.
        drop(self.socket);
        while let Some(ended) = connections.join_next().await {
            report(ended);
        }
    }

    /// One connection with its place. Cancel safe: a place that was waited for is given back.
    async fn accept(&self) -> Option<(TcpStream, Place)> {
        let permit = match Arc::clone(&self.places).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                self.metrics.saturated(self.name);
                Arc::clone(&self.places).acquire_owned().await.ok()?
            }
        };
        match self.socket.accept().await {
            Ok((socket, _)) => {
                prepare(&socket, self.limits.dead_after);
                let open = self.metrics.accepted(self.name);
                Some((
                    socket,
                    Place {
                        _permit: permit,
                        _open: open,
                    },
                ))
            }
            Err(error) if is_of_one_connection(&error) => None,
            Err(error) => {
                tracing::warn!(listener = self.name, %error, "cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                None
            }
        }
    }
}

/// Small writes at once; dead peers noticed, those that are written to as well: the kernel's own patience with what nobody
/// acknowledges is a quarter of an hour, and keepalive looks at quiet connections only. Where the system refuses, the connection works
/// without.
fn prepare(socket: &TcpStream, dead_after: Duration) {
    #[cfg(target_os = "linux")]
    if let Err(error) = SockRef::from(socket).set_tcp_user_timeout(Some(dead_after)) {
        tracing::debug!(%error, "a socket option was refused");
    }
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(Duration::from_secs(20));
    if let Err(error) = socket
        .set_nodelay(true)
        .and_then(|()| SockRef::from(socket).set_tcp_keepalive(&keepalive))
    {
        tracing::debug!(%error, "a socket option was refused");
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    )
}

fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!("a connection's task panicked");
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_peer_does_not_acknowledge_ends_its_connection_in_time() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("an address");
        let (_client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (socket, _) = accepted.expect("accepted");
        prepare(&socket, Duration::from_secs(70));
        let set = SockRef::from(&socket).tcp_user_timeout().expect("readable");
        assert_eq!(set, Some(Duration::from_secs(70)));
    }
}

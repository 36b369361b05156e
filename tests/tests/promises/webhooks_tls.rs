//! Receivers with TLS: connections are kept and shared, HTTP/2 is spoken where it is offered, a client certificate is shown
//! where one is wanted, and nothing is sent to a receiver that nobody vouches for.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::json;
use tidewire_tests::plan::Planned;
use tidewire_tests::wait;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use crate::support::World;

/// Somebody who vouches for receivers and clients.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate with its key.
struct Vouched {
    certificate: CertificateDer<'static>,
    key: Vec<u8>,
    pem: (String, String),
}

impl Authority {
    fn new() -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Ok(Self {
            issuer: CertifiedIssuer::self_signed(params, KeyPair::generate()?)?,
        })
    }

    fn vouch(&self, name: &str) -> Result<Vouched> {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new([name.to_owned()])?.signed_by(&key, &self.issuer)?;
        Ok(Vouched {
            certificate: certificate.der().clone(),
            key: key.serialize_der(),
            pem: (certificate.pem(), key.serialize_pem()),
        })
    }

    fn roots(&self) -> Result<Arc<RootCertStore>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone())?;
        Ok(Arc::new(roots))
    }
}

/// One delivery.
#[derive(Debug, Clone)]
struct Came {
    path: String,
    id: String,
    version: Version,
    connection: usize,
    /// Whether the client showed a certificate that the authority vouches for.
    is_vouched: bool,
}

struct Server {
    address: SocketAddr,
    came: Arc<Mutex<Vec<Came>>>,
    connections: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Server {
    async fn start(authority: &Authority, own: Vouched, offers: &[&[u8]]) -> Result<Self> {
        let verifier = WebPkiClientVerifier::builder(authority.roots()?)
            .allow_unauthenticated()
            .build()?;
        let key = PrivateKeyDer::try_from(own.key).map_err(anyhow::Error::msg)?;
        let mut config = ServerConfig::builder()
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![own.certificate], key)?;
        config.alpn_protocols = offers.iter().map(|offer| offer.to_vec()).collect();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (came, connections) = (Arc::default(), Arc::new(AtomicUsize::new(0)));
        let mut tasks = JoinSet::new();
        let (all, count) = (Arc::clone(&came), Arc::clone(&connections));
        tasks.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let number = count.fetch_add(1, Ordering::Relaxed);
                let (acceptor, all) = (acceptor.clone(), Arc::clone(&all));
                // How a connection ends is the sender's matter; what did not arrive is seen.
                open.spawn(async move { drop(converse(acceptor, socket, number, all).await) });
            }
        });
        Ok(Self {
            address,
            came,
            connections,
            _tasks: tasks,
        })
    }

    fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.address.port())
    }

    fn came(&self, path: &str) -> Vec<Came> {
        let came = self.came.lock().unwrap_or_else(PoisonError::into_inner);
        came.iter().filter(|one| one.path == path).cloned().collect()
    }
}

async fn converse(
    acceptor: TlsAcceptor,
    socket: tokio::net::TcpStream,
    connection: usize,
    all: Arc<Mutex<Vec<Came>>>,
) -> Result<()> {
    let stream = acceptor.accept(socket).await?;
    let is_vouched = stream.get_ref().1.peer_certificates().is_some();
    let service = service_fn(move |request: Request<Incoming>| {
        let all = Arc::clone(&all);
        async move {
            let (head, body) = request.into_parts();
            let text = |name: &str| {
                let value = head.headers.get(name).and_then(|value| value.to_str().ok());
                value.unwrap_or_default().to_owned()
            };
            let one = Came {
                path: head.uri.path().to_owned(),
                id: text("webhook-id"),
                version: head.version,
                connection,
                is_vouched,
            };
            if body.collect().await.is_ok() {
                all.lock().unwrap_or_else(PoisonError::into_inner).push(one);
            }
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    });
    let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    let served = server.serve_connection(TokioIo::new(stream), service).await;
    served.map_err(anyhow::Error::from_boxed)
}

#[tokio::test(flavor = "multi_thread")]
async fn receivers_with_tls_are_called_over_few_connections_and_by_http2_where_they_offer_it() -> Result<()> {
    const EVENTS: i64 = 300;
    let world = World::new().await?;
    let topic = world.topic("tls", 1).await?;
    let authority = Authority::new()?;
    let both: &[&[u8]] = &[b"h2", b"http/1.1"];
    let modern = Server::start(&authority, authority.vouch("localhost")?, both).await?;
    let old = Server::start(&authority, authority.vouch("localhost")?, &[b"http/1.1"]).await?;
    // Somebody else's: its certificate is good for its name, and nobody knows who signed it.
    let stranger = Authority::new()?;
    let strange = Server::start(&stranger, stranger.vouch("localhost")?, both).await?;

    let folder = tempfile::tempdir()?;
    let roots = folder.path().join("roots.pem");
    std::fs::write(&roots, authority.issuer.pem())?;
    let webhooks = world.webhooks().await?;
    let gateway = world
        .setup(&[&topic])
        .webhooks(&webhooks)
        // The system's own roots, as the gateway finds them.
        .environment("SSL_CERT_FILE", &roots.display().to_string())
        .start()
        .await?;
    let partner = world.partner(&gateway, "north");
    let client = authority.vouch("tidewire.example")?.pem;
    for (url, credentials) in [
        (modern.url("/plain"), json!(null)),
        (
            modern.url("/mutual"),
            json!({"type": "mtls", "certificate": client.0, "key": client.1}),
        ),
        (old.url("/plain"), json!(null)),
        (strange.url("/plain"), json!(null)),
    ] {
        let body =
            json!({"url": url, "streams": ["observations"], "content": "raw", "credentials": credentials});
        partner.make(&body).await?;
    }
    let records: Vec<_> = (0..EVENTS)
        .map(|n| {
            let planned = Planned {
                tenant: "north",
                patient: 1,
                status: "final",
                partition: 0,
                n,
                padding: 0,
            };
            planned.record(&topic)
        })
        .collect();
    world.producer.send_all(&records).await?;
    let wanted = usize::try_from(EVENTS)?;
    for (server, path, version, is_vouched) in [
        (&modern, "/plain", Version::HTTP_2, false),
        (&modern, "/mutual", Version::HTTP_2, true),
        (&old, "/plain", Version::HTTP_11, false),
    ] {
        let came = || {
            let came = server.came(path);
            came.iter().map(|one| one.id.clone()).collect::<BTreeSet<_>>()
        };
        wait::until_count(format!("deliveries to {path}"), wanted, || came().len())
            .await
            .with_context(|| gateway.log_tail())?;
        for one in server.came(path) {
            ensure!(one.version == version && one.is_vouched == is_vouched, "{one:?}");
        }
    }
    // HTTP/2: one connection for each client; some are opened at once before the first has been agreed on. HTTP/1.1: one for
    // each attempt that may be under way, at most.
    let used = |server: &Server, path: &str| {
        let connections: BTreeSet<usize> = server.came(path).iter().map(|one| one.connection).collect();
        connections.len()
    };
    for (server, path) in [(&modern, "/plain"), (&modern, "/mutual"), (&old, "/plain")] {
        let used = used(server, path);
        ensure!(used <= 16, "{used} connections for {wanted} deliveries to {path}");
    }
    let attempts = wait::until("the stranger to have been tried", || async {
        let attempts = partner.attempts("outcome=tls").await.ok()?;
        (!attempts.is_empty()).then_some(attempts)
    })
    .await?;
    ensure!(
        strange.came("/plain").is_empty() && strange.connections.load(Ordering::Relaxed) > 0,
        "{attempts:?}"
    );
    Ok(())
}

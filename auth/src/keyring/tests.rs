//! Rotation against an issuer on loopback, in paused time: hours pass at once, and only where a test says so.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::*;
use crate::egress::Reach;
use crate::issuer::{Issuer, KeySource};
use crate::reason;
use crate::testing::{NOW_MS, Pair, claims, issuer, pairs, set};
use crate::token::{Authenticator, BadToken};

/// Paused time goes on by itself when every task waits, and a socket is something to wait for. A blocking task that runs
/// keeps it where it is.
struct StillTime {
    _end: mpsc::Sender<()>,
    _task: JoinSet<()>,
}

impl StillTime {
    fn start() -> Self {
        tokio::time::pause();
        let (end, ended) = mpsc::channel();
        let mut task = JoinSet::new();
        task.spawn_blocking(move || {
            let _ended = ended.recv();
        });
        Self {
            _end: end,
            _task: task,
        }
    }
}

async fn pass(seconds: u64) {
    tokio::time::advance(Duration::from_secs(seconds)).await;
}

/// An issuer's HTTP side.
struct Server {
    base: String,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
    _time: StillTime,
}

struct Shared {
    /// What is said at a path: status, `Cache-Control`, body.
    pages: Mutex<Vec<(&'static str, u16, &'static str, String)>>,
    hits: AtomicUsize,
    /// A permit for each answer.
    gate: Semaphore,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let base = format!("http://{}", listener.local_addr().expect("an address"));
        let gate = Semaphore::new(Semaphore::MAX_PERMITS);
        let shared = Arc::new(Shared {
            pages: Mutex::default(),
            hits: AtomicUsize::new(0),
            gate,
        });
        let mut tasks = JoinSet::new();
        let state = Arc::clone(&shared);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                connections.spawn(serve(socket, Arc::clone(&state)));
            }
        });
        Self {
            base,
            shared,
            _tasks: tasks,
            _time: StillTime::start(),
        }
    }

    fn say(&self, path: &'static str, status: u16, cache_control: &'static str, body: String) {
        let mut pages = self.shared.pages.lock().expect("no panic");
        pages.retain(|page| page.0 != path);
        pages.push((path, status, cache_control, body));
    }

    fn keys(&self, cache_control: &'static str, keys: &[Value]) {
        self.say("/jwks", 200, cache_control, set(keys));
    }

    fn hits(&self) -> usize {
        self.shared.hits.load(Ordering::SeqCst)
    }

    fn issuer(&self) -> Issuer {
        let url = Url::parse(&format!("{}/jwks", self.base)).expect("a URL");
        self.with(KeySource::Url(url))
    }

    fn with(&self, keys: KeySource) -> Issuer {
        Issuer {
            reach: Reach {
                loopback: true,
                private: false,
                plain: false,
            },
            ..issuer(&self.base, keys)
        }
    }

    fn authenticator(&self) -> Authenticator {
        Authenticator::new(vec![self.issuer()]).expect("a good configuration")
    }

    fn token(&self, pair: &Pair, kid: &str) -> String {
        let claims = claims(&self.base);
        pair.token(&json!({"alg": "EdDSA", "kid": kid}), &claims)
    }
}

async fn serve(mut socket: TcpStream, shared: Arc<Shared>) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        if socket.read_buf(&mut request).await.unwrap_or(0) == 0 {
            return;
        }
    }
    shared.hits.fetch_add(1, Ordering::SeqCst);
    shared.gate.acquire().await.expect("an open gate").forget();
    let request = String::from_utf8(request).expect("text");
    let path = request.split(' ').nth(1).expect("a path");
    let page = shared
        .pages
        .lock()
        .expect("no panic")
        .iter()
        .find(|page| page.0 == path)
        .cloned();
    let (_, status, cache_control, body) = page.unwrap_or(("", 404, "no-store", String::new()));
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {status} x\r\ncache-control: {cache_control}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    );
    let _gone = socket.write_all(answer.as_bytes()).await;
}

fn ed(kid: &str) -> Value {
    pairs().ed.jwk(json!({"kid": kid}))
}

async fn verify(authenticator: &Authenticator, token: &str) -> Result<(), BadToken> {
    authenticator.verify(token, NOW_MS).await.map(drop)
}

#[tokio::test]
async fn keys_are_fetched_once_and_kept() {
    let server = Server::start().await;
    server.keys("max-age=600", &[ed("a")]);
    let authenticator = server.authenticator();
    assert!(!authenticator.ready());
    let token = server.token(&pairs().ed, "a");
    for _ in 0..5 {
        assert_eq!(verify(&authenticator, &token).await, Ok(()));
        pass(100).await;
    }
    assert!(authenticator.ready());
    assert_eq!(server.hits(), 1);
}

#[tokio::test]
async fn an_unknown_kid_fetches_again_at_most_once_in_ten_seconds() {
    let server = Server::start().await;
    server.keys("max-age=600", &[ed("a")]);
    let authenticator = server.authenticator();
    let (old, new) = (
        server.token(&pairs().ed, "a"),
        server.token(&pairs().stranger, "b"),
    );
    assert_eq!(verify(&authenticator, &old).await, Ok(()));
    assert_eq!(server.hits(), 1);

    // The issuer rotates. Within ten seconds of the last fetch nothing is fetched.
    server.keys("max-age=600", &[pairs().stranger.jwk(json!({"kid": "b"}))]);
    for _ in 0..20 {
        assert_eq!(verify(&authenticator, &new).await, Err(reason::KID_UNKNOWN));
    }
    assert_eq!(server.hits(), 1);

    pass(10).await;
    assert_eq!(verify(&authenticator, &new).await, Ok(()));
    assert_eq!(server.hits(), 2);
    assert_eq!(
        verify(&authenticator, &old).await,
        Err(reason::KID_UNKNOWN),
        "the old key is gone"
    );
    assert_eq!(server.hits(), 2);

    // Kids that nobody has cost one fetch in ten seconds, however many come.
    for _ in 0..5 {
        pass(10).await;
        for kid in 0..20 {
            let token = server.token(&pairs().ed, &format!("made-up-{kid}"));
            assert_eq!(verify(&authenticator, &token).await, Err(reason::KID_UNKNOWN));
        }
    }
    assert_eq!(server.hits(), 7);
    assert_eq!(verify(&authenticator, &new).await, Ok(()));
}

#[tokio::test]
async fn a_known_kid_with_a_bad_signature_fetches_nothing() {
    let server = Server::start().await;
    server.keys("max-age=600", &[ed("a")]);
    let authenticator = server.authenticator();
    assert_eq!(
        verify(&authenticator, &server.token(&pairs().ed, "a")).await,
        Ok(())
    );
    pass(60).await;
    let forged = server.token(&pairs().stranger, "a");
    assert_eq!(verify(&authenticator, &forged).await, Err(reason::SIGNATURE));
    assert_eq!(server.hits(), 1);
}

#[tokio::test]
async fn many_tokens_at_once_share_one_fetch() {
    let server = Server::start().await;
    server.keys("max-age=600", &[ed("a")]);
    let authenticator = server.authenticator();
    let token = server.token(&pairs().ed, "a");
    let all = futures_util::future::join_all((0..100).map(|_| verify(&authenticator, &token))).await;
    assert!(all.iter().all(Result::is_ok));
    assert_eq!(server.hits(), 1);
}

#[tokio::test]
async fn a_caller_that_goes_away_does_not_take_the_fetch_with_it() {
    let server = Server::start().await;
    server.keys("max-age=600", &[ed("a")]);
    server.shared.gate.forget_permits(Semaphore::MAX_PERMITS);
    let authenticator = server.authenticator();
    let token = server.token(&pairs().ed, "a");
    {
        let mut impatient = Box::pin(verify(&authenticator, &token));
        // Polled until its request has arrived, then dropped.
        while server.hits() == 0 {
            assert!((&mut impatient).now_or_never().is_none());
            tokio::task::yield_now().await;
        }
    }
    server.shared.gate.add_permits(1);
    assert_eq!(verify(&authenticator, &token).await, Ok(()));
    assert_eq!(server.hits(), 1);
}

#[tokio::test]
async fn stale_keys_serve_until_their_stated_age_and_no_longer() {
    let server = Server::start().await;
    server.keys("max-age=100", &[ed("a")]);
    let authenticator = server.authenticator();
    let token = server.token(&pairs().ed, "a");
    assert_eq!(verify(&authenticator, &token).await, Ok(()));
    server.say("/jwks", 503, "no-store", String::new());

    pass(99).await;
    assert_eq!(verify(&authenticator, &token).await, Ok(()));
    let unknown = server.token(&pairs().ed, "b");
    assert_eq!(verify(&authenticator, &unknown).await, Err(reason::KID_UNKNOWN));
    assert_eq!(server.hits(), 2, "a failed fetch leaves the keys as they are");
    assert_eq!(verify(&authenticator, &token).await, Ok(()));

    pass(1).await;
    assert!(!authenticator.ready());
    assert_eq!(
        verify(&authenticator, &token).await,
        Err(reason::KEYS_UNAVAILABLE)
    );
    assert_eq!(server.hits(), 2);
    pass(10).await;
    assert_eq!(
        verify(&authenticator, &token).await,
        Err(reason::KEYS_UNAVAILABLE)
    );
    assert_eq!(server.hits(), 3);

    server.keys("max-age=100", &[ed("a")]);
    pass(10).await;
    assert_eq!(verify(&authenticator, &token).await, Ok(()));
    assert_eq!(server.hits(), 4);
}

#[tokio::test]
async fn an_answer_that_is_no_usable_set_changes_nothing() {
    let server = Server::start().await;
    server.keys("max-age=600", &[ed("a")]);
    let authenticator = server.authenticator();
    let token = server.token(&pairs().ed, "a");
    assert_eq!(verify(&authenticator, &token).await, Ok(()));
    for body in [
        "",
        "<html>",
        "{}",
        r#"{"keys":[]}"#,
        r#"{"keys":[],"keys":[]}"#,
        r#"{"keys":[{"kty":"oct","k":"AA"}]}"#,
    ] {
        server.say("/jwks", 200, "max-age=600", body.to_owned());
        pass(10).await;
        let unknown = server.token(&pairs().ed, "b");
        assert_eq!(verify(&authenticator, &unknown).await, Err(reason::KID_UNKNOWN));
        assert_eq!(verify(&authenticator, &token).await, Ok(()));
    }
    server.say("/jwks", 200, "max-age=600", "x".repeat(600 * 1024));
    pass(10).await;
    assert_eq!(
        verify(&authenticator, &server.token(&pairs().ed, "b")).await,
        Err(reason::KID_UNKNOWN)
    );
    assert_eq!(verify(&authenticator, &token).await, Ok(()));
}

#[tokio::test]
async fn a_rotated_key_without_a_kid_is_found() {
    let server = Server::start().await;
    server.keys("max-age=600", &[pairs().ed.jwk(json!({}))]);
    let authenticator = server.authenticator();
    let claims = claims(&server.base);
    let token = |pair: &Pair| pair.token(&json!({"alg": "EdDSA"}), &claims);
    assert_eq!(verify(&authenticator, &token(&pairs().ed)).await, Ok(()));
    server.keys("max-age=600", &[pairs().stranger.jwk(json!({}))]);
    pass(10).await;
    assert_eq!(verify(&authenticator, &token(&pairs().stranger)).await, Ok(()));
    assert_eq!(
        verify(&authenticator, &token(&pairs().ed)).await,
        Err(reason::SIGNATURE)
    );
}

#[tokio::test]
async fn discovery_finds_the_set_of_the_very_issuer() {
    let server = Server::start().await;
    let authenticator = Authenticator::new(vec![server.with(KeySource::Discovery)]).expect("good");
    let token = server.token(&pairs().ed, "a");
    server.keys("max-age=600", &[ed("a")]);
    let document = |issuer: &str, uri: &str| json!({"issuer": issuer, "jwks_uri": uri}).to_string();
    let uri = format!("{}/jwks", server.base);
    for body in [
        document(&format!("{}/", server.base), &uri),
        document("https://id.example", &uri),
        json!({"jwks_uri": uri}).to_string(),
        document(&server.base, "no address"),
        // Discovery may send us anywhere: the guard holds for what it names, too.
        document(&server.base, "https://169.254.169.254/jwks"),
        document(&server.base, "http://10.0.0.1/jwks"),
    ] {
        server.say("/.well-known/openid-configuration", 200, "max-age=600", body);
        assert_eq!(
            verify(&authenticator, &token).await,
            Err(reason::KEYS_UNAVAILABLE)
        );
        pass(10).await;
    }
    let before = server.hits();
    server.say(
        "/.well-known/openid-configuration",
        200,
        "max-age=5",
        document(&server.base, &uri),
    );
    assert_eq!(verify(&authenticator, &token).await, Ok(()));
    assert_eq!(server.hits(), before + 2);
    pass(599).await;
    assert_eq!(
        verify(&authenticator, &token).await,
        Ok(()),
        "the set's own age counts"
    );
}

#[tokio::test]
async fn keys_are_kept_fresh_before_anybody_waits_for_them() {
    let server = Server::start().await;
    server.keys("max-age=1000", &[ed("a")]);
    let authenticator = server.authenticator();
    let mut tasks = JoinSet::new();
    tasks.spawn(authenticator.clone().run());
    settle(|| authenticator.ready()).await;
    assert_eq!(server.hits(), 1);

    server.keys("max-age=1000", &[ed("b")]);
    pass(749).await;
    assert_eq!(server.hits(), 1);
    pass(2).await;
    settle(|| server.hits() == 2).await;
    let token = server.token(&pairs().ed, "b");
    while verify(&authenticator, &token).await.is_err() {
        tokio::task::yield_now().await;
    }
    assert_eq!(server.hits(), 2, "nobody but the keeper fetched");

    // While the issuer is away it is tried again and again, ten seconds apart, and the keys go on serving.
    server.say("/jwks", 500, "no-store", String::new());
    let mut last = Instant::now();
    for tries in 3..6 {
        while server.hits() < tries {
            pass(1).await;
            breathe().await;
        }
        assert!(last.elapsed() >= REFETCH_MIN);
        last = Instant::now();
        assert!(authenticator.ready());
    }
}

/// Gives the other tasks and their sockets some turns.
async fn breathe() {
    for _ in 0..500 {
        tokio::task::yield_now().await;
    }
}

/// Lets the other tasks run until something is so. Time stands still meanwhile; the test's own limit is the harness's.
async fn settle(so: impl Fn() -> bool) {
    while !so() {
        tokio::task::yield_now().await;
    }
}

#[test]
fn the_stated_age_is_believed_within_bounds() {
    let seconds = |text| age(Some(text)).as_secs();
    assert_eq!(age(None), AGE_DEFAULT);
    assert_eq!(seconds("public, max-age=600"), 600);
    assert_eq!(seconds("Max-Age=\"600\", must-revalidate"), 600);
    assert_eq!(seconds("max-age=0"), AGE_MIN.as_secs());
    assert_eq!(seconds("max-age=99999999999"), AGE_MAX.as_secs());
    assert_eq!(seconds("max-age=soon"), AGE_DEFAULT.as_secs());
    assert_eq!(seconds("max-age=600, no-store"), AGE_MIN.as_secs());
    assert_eq!(seconds("no-cache"), AGE_MIN.as_secs());
}

//! An identity provider: keys that can rotate, published over HTTP on loopback, and tokens.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::jws::Key;

/// The audience of every token that a promise does not make wrong on purpose.
pub const AUDIENCE: &str = "tidewire-promises";

/// An issuer of tokens.
pub struct Issuer {
    /// Its name, which is also where its keys are found.
    pub name: String,
    state: Arc<Mutex<State>>,
    key: Arc<Key>,
    server: JoinSet<()>,
}

struct State {
    published: Vec<Value>,
    fetches: usize,
    max_age_s: u64,
    silent: bool,
}

impl Issuer {
    /// An issuer with one Ed25519 key.
    pub async fn start() -> Result<Self> {
        Self::with(Key::ed25519("first")).await
    }

    /// An issuer with this key.
    pub async fn with(key: Key) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let name = format!("http://{}", listener.local_addr()?);
        let state = State {
            published: vec![key.jwk()],
            fetches: 0,
            max_age_s: 3600,
            silent: false,
        };
        let state = Arc::new(Mutex::new(state));
        let mut server = JoinSet::new();
        server.spawn(serve(listener, name.clone(), Arc::clone(&state)));
        Ok(Self {
            name,
            state,
            key: Arc::new(key),
            server,
        })
    }

    /// Where its keys are.
    #[must_use]
    pub fn jwks_url(&self) -> String {
        format!("{}/jwks", self.name)
    }

    /// The key that it signs with.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Signs with another key from now on and publishes only it, or both.
    pub fn rotate(&mut self, key: Key, keep_the_old: bool) {
        let mut state = lock(&self.state);
        if !keep_the_old {
            state.published.clear();
        }
        state.published.push(key.jwk());
        self.key = Arc::new(key);
    }

    /// Publishes one more key without using it.
    pub fn publish(&self, jwk: Value) {
        lock(&self.state).published.push(jwk);
    }

    /// How often its keys were fetched.
    #[must_use]
    pub fn fetches(&self) -> usize {
        lock(&self.state).fetches
    }

    /// The age it states for its keys.
    pub fn keys_are_good_for(&self, seconds: u64) {
        lock(&self.state).max_age_s = seconds;
    }

    /// Stops answering: connections are closed without a word.
    pub fn fall_silent(&self) {
        lock(&self.state).silent = true;
    }

    /// A token for a reader of this tenant; see [`Token`].
    #[must_use]
    pub fn token(&self, tenant: &str) -> Token {
        let now = now_s();
        let mut claims = Map::new();
        claims.insert("iss".into(), json!(self.name));
        claims.insert("aud".into(), json!(AUDIENCE));
        claims.insert("sub".into(), json!("somebody"));
        claims.insert("tenant".into(), json!(tenant));
        claims.insert("iat".into(), json!(now));
        claims.insert("exp".into(), json!(now + 3600));
        Token {
            key: Arc::clone(&self.key),
            claims,
        }
    }

    /// The configuration that makes a gateway trust it.
    #[must_use]
    pub fn settings(&self) -> String {
        format!(
            "[[issuers]]\nissuer = {name:?}\njwks_url = {url:?}\naudiences = [{AUDIENCE:?}]\n\
             algorithms = [\"EdDSA\", \"ES256\", \"ES384\", \"ES512\", \"RS256\", \"RS384\", \"RS512\", \"PS256\", \
             \"PS384\", \"PS512\"]\ntenant_claim = \"tenant\"\ntenants = [\"*\"]\nclaims = [\"patient\", \"ward\"]\n\
             leeway_seconds = 0\nallow_loopback = true\n",
            name = self.name,
            url = self.jwks_url(),
        )
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.server.abort_all();
    }
}

/// A token in the making.
#[derive(Clone)]
pub struct Token {
    key: Arc<Key>,
    claims: Map<String, Value>,
}

impl Token {
    /// Who.
    #[must_use]
    pub fn subject(self, subject: &str) -> Self {
        self.claim("sub", subject)
    }

    /// What it may.
    #[must_use]
    pub fn scopes(self, scopes: &str) -> Self {
        self.claim("scope", scopes)
    }

    /// One more claim, or another value of one.
    #[must_use]
    pub fn claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.claims.insert(name.to_owned(), value.into());
        self
    }

    /// Without this claim.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.claims.remove(name);
        self
    }

    /// Good for so many seconds; negative: it expired so long ago.
    #[must_use]
    pub fn good_for(self, seconds: i64) -> Self {
        let until = i64::try_from(now_s()).unwrap_or(i64::MAX).saturating_add(seconds);
        self.claim("exp", until)
    }

    /// The claims.
    #[must_use]
    pub fn claims(&self) -> Value {
        Value::Object(self.claims.clone())
    }

    /// Signed.
    #[must_use]
    pub fn sign(&self) -> String {
        self.key.sign(&self.claims())
    }
}

/// Seconds since the Unix epoch.
#[must_use]
pub fn now_s() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(listener: TcpListener, name: String, state: Arc<Mutex<State>>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((mut socket, _)) = listener.accept().await else {
            continue;
        };
        let (name, state) = (name.clone(), Arc::clone(&state));
        while connections.try_join_next().is_some() {}
        connections.spawn(async move {
            let mut head = Vec::new();
            while !head.windows(4).any(|window| window == b"\r\n\r\n") {
                match socket.read_buf(&mut head).await {
                    Ok(1..) if head.len() < 16 << 10 => {}
                    _ => return,
                }
            }
            let head = String::from_utf8_lossy(&head).into_owned();
            let (body, max_age_s) = {
                let mut state = lock(&state);
                if state.silent {
                    return;
                }
                let body = if head.starts_with("GET /jwks ") {
                    state.fetches += 1;
                    Some(json!({"keys": state.published}))
                } else if head.starts_with("GET /.well-known/openid-configuration ") {
                    Some(json!({"issuer": name, "jwks_uri": format!("{name}/jwks")}))
                } else {
                    None
                };
                (body, state.max_age_s)
            };
            let (status, body) = body.map_or(("404 Not Found", String::new()), |body| ("200 OK", body.to_string()));
            let answer = format!(
                "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nCache-Control: max-age={max_age_s}\r\n\
                 Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
            if socket.write_all(answer.as_bytes()).await.is_ok() {
                drop(socket.shutdown().await);
            }
        });
    }
}

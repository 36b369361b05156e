//! The router's side of Apollo's callback protocol (`callback/1.0`): an HTTP server that answers as Apollo Router does,
//! keeps what it was told in order, and can be told to misbehave.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::http::{self, Answer};
use crate::wait;

/// A router.
pub struct Router {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    server: JoinSet<()>,
}

/// One callback.
#[derive(Debug, Clone)]
pub struct Call {
    /// `check`, `next` or `complete`.
    pub action: String,
    /// The body.
    pub body: Value,
    /// The status that it was answered with.
    pub status: u16,
}

#[derive(Default)]
struct State {
    /// Subscriptions by id: their verifier.
    known: BTreeMap<String, String>,
    /// Statuses that come instead of what is right, by action; each is used once.
    instead: BTreeMap<&'static str, VecDeque<u16>>,
    calls: BTreeMap<String, Vec<Call>>,
    /// Callbacks that are being answered, by subscription.
    under_way: BTreeMap<String, usize>,
    /// Callbacks that came while another of the same subscription was being answered.
    overtaking: usize,
    /// Callbacks that broke the protocol.
    wrong: Vec<String>,
    connections: usize,
    /// How often an answer lets others go first: a slow router, without a clock.
    slow: usize,
}

impl Router {
    /// A router on loopback.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let state = Arc::new(Mutex::new(State::default()));
        let mut server = JoinSet::new();
        server.spawn(serve(listener, Arc::clone(&state)));
        Ok(Self {
            address,
            state,
            server,
        })
    }

    /// `host:port`, as the gateway's list of hosts has it.
    #[must_use]
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Where the callbacks of a subscription go.
    #[must_use]
    pub fn url(&self, id: &str) -> String {
        format!("http://{}/callback/{id}", self.address)
    }

    /// Knows a subscription by its id and verifier.
    pub fn know(&self, id: &str, verifier: &str) {
        lock(&self.state).known.insert(id.to_owned(), verifier.to_owned());
    }

    /// Has never heard of it from now on.
    pub fn forget(&self, id: &str) {
        lock(&self.state).known.remove(id);
    }

    /// Answers the next callback with this action by this status, whatever would be right.
    pub fn answer_once(&self, action: &'static str, status: u16) {
        lock(&self.state)
            .instead
            .entry(action)
            .or_default()
            .push_back(status);
    }

    /// Takes its time for each answer.
    pub fn be_slow(&self, turns: usize) {
        lock(&self.state).slow = turns;
    }

    /// The callbacks of a subscription so far.
    #[must_use]
    pub fn calls(&self, id: &str) -> Vec<Call> {
        lock(&self.state).calls.get(id).cloned().unwrap_or_default()
    }

    /// The results that a subscription was given and that were taken.
    #[must_use]
    pub fn results(&self, id: &str) -> Vec<Value> {
        let calls = self.calls(id).into_iter();
        calls
            .filter(|call| call.action == "next" && call.status < 300)
            .map(|call| call.body["payload"].clone())
            .collect()
    }

    /// How many connections were made to it.
    #[must_use]
    pub fn connections(&self) -> usize {
        lock(&self.state).connections
    }

    /// Fails if a callback broke the protocol, or came before the one before it was answered.
    pub fn was_told_properly(&self) -> Result<()> {
        let state = lock(&self.state);
        ensure!(state.wrong.is_empty(), "{:?}", state.wrong);
        ensure!(
            state.overtaking == 0,
            "{} callbacks overtook others",
            state.overtaking
        );
        Ok(())
    }

    /// Waits until a subscription has so many callbacks with this action.
    pub async fn until(&self, id: &str, action: &str, count: usize) -> Result<Vec<Call>> {
        wait::until(format!("{count} times {action} for {id}"), || {
            let calls: Vec<Call> = self
                .calls(id)
                .into_iter()
                .filter(|call| call.action == action)
                .collect();
            std::future::ready((calls.len() >= count).then_some(calls))
        })
        .await
        .with_context(|| format!("{:?}", self.calls(id)))
    }

    /// Asks the gateway for a subscription, as a router does.
    pub async fn subscribe(&self, gateway: SocketAddr, token: &str, ask: Ask<'_>) -> Result<Answer> {
        let body = json!({
            "query": ask.query,
            "variables": ask.variables,
            "extensions": {"subscription": {
                "callbackUrl": ask.url.map_or_else(|| self.url(ask.id), str::to_owned),
                "subscriptionId": ask.id,
                "verifier": ask.verifier,
                "heartbeatIntervalMs": ask.heartbeat_ms,
            }},
        });
        let authorization = http::bearer(token);
        let mut headers = vec![("accept", ask.accept)];
        if !token.is_empty() {
            headers.push(("authorization", authorization.as_str()));
        }
        http::post(gateway, "/graphql", &headers, &body).await
    }

    /// Goes away: connections are refused from now on.
    pub async fn stop(&mut self) {
        self.server.shutdown().await;
    }
}

/// What a router asks for.
#[derive(Debug, Clone)]
pub struct Ask<'a> {
    /// The operation.
    pub query: &'a str,
    /// Its variables.
    pub variables: Value,
    /// The subscription's id.
    pub id: &'a str,
    /// Its verifier.
    pub verifier: &'a str,
    /// Where callbacks go, if not to the router.
    pub url: Option<&'a str>,
    /// The interval of heartbeats; 0 for none.
    pub heartbeat_ms: u64,
    /// `Accept`.
    pub accept: &'a str,
}

impl<'a> Ask<'a> {
    /// An operation without heartbeats.
    #[must_use]
    pub fn new(id: &'a str, query: &'a str, variables: Value) -> Self {
        Self {
            query,
            variables,
            id,
            verifier: "a verifier",
            url: None,
            heartbeat_ms: 0,
            accept: "application/json;callbackSpec=1.0",
        }
    }
}

async fn serve(listener: TcpListener, state: Arc<Mutex<State>>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((socket, _)) = listener.accept().await else {
            continue;
        };
        lock(&state).connections += 1;
        while connections.try_join_next().is_some() {}
        connections.spawn(talk(socket, Arc::clone(&state)));
    }
}

/// One connection, kept alive.
async fn talk(mut socket: TcpStream, state: Arc<Mutex<State>>) -> Option<()> {
    let mut bytes = Vec::new();
    loop {
        let head = loop {
            if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            if socket.read_buf(&mut bytes).await.ok()? == 0 {
                return None;
            }
        };
        let text = String::from_utf8_lossy(bytes.get(..head)?).to_ascii_lowercase();
        let header = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(&format!("{name}:")));
            line.and_then(|line| Some(line.split_once(':')?.1.trim().to_owned()))
        };
        let length: usize = header("content-length").and_then(|length| length.parse().ok())?;
        while bytes.len() < head + length {
            if socket.read_buf(&mut bytes).await.ok()? == 0 {
                return None;
            }
        }
        let body: Option<Value> = serde_json::from_slice(bytes.get(head..head + length)?).ok();
        bytes.drain(..head + length);
        let spoken = header("subscription-protocol");
        let status = answer(body, spoken.as_deref(), &state).await;
        let more = if status == 204 {
            "subscription-protocol: callback/1.0\r\n"
        } else {
            "content-length: 0\r\n"
        };
        let head = format!("HTTP/1.1 {status} Whatever\r\n{more}\r\n");
        socket.write_all(head.as_bytes()).await.ok()?;
    }
}

async fn answer(body: Option<Value>, spoken: Option<&str>, state: &Mutex<State>) -> u16 {
    let Some(body) = body else {
        lock(state).wrong.push("a body that is no JSON".to_owned());
        return 400;
    };
    let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
    let (id, action, verifier) = (text("id"), text("action"), text("verifier"));
    let slow = {
        let mut state = lock(state);
        let before = state.under_way.entry(id.clone()).or_default();
        *before += 1;
        if *before > 1 {
            state.overtaking += 1;
        }
        state.slow
    };
    for _ in 0..slow {
        tokio::task::yield_now().await;
    }
    let mut state = lock(state);
    let right = match state.known.get(&id) {
        None => 404,
        Some(known) if *known != verifier => 401,
        Some(_) => match action.as_str() {
            "check" => 204,
            "next" => 200,
            "complete" => 202,
            _ => 400,
        },
    };
    let instead = state
        .instead
        .get_mut(action.as_str())
        .and_then(VecDeque::pop_front);
    let status = instead.unwrap_or(right);
    if spoken != Some("callback/1.0") {
        state
            .wrong
            .push(format!("{action}: subscription-protocol is {spoken:?}"));
    }
    if body["kind"] != "subscription" || right == 400 || verifier.is_empty() {
        state.wrong.push(format!("{action}: {body}"));
    }
    if (action == "next") != body.get("payload").is_some() {
        state.wrong.push(format!("{action}: payload in {body}"));
    }
    if action == "complete" && status < 300 {
        state.known.remove(&id);
    }
    *state.under_way.entry(id.clone()).or_default() -= 1;
    state
        .calls
        .entry(id)
        .or_default()
        .push(Call { action, body, status });
    status
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

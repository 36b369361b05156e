//! Apollo's HTTP callback protocol (`callback/1.0`): the results of a subscription are posted to the router that asked.
//!
//! Invariants: nothing is posted to a host that the operator has not named; the router has said yes to a `check` before it
//! is answered; the posts of one subscription go one after the other, each until it is taken, so that nothing overtakes
//! anything; after one that was never taken only the end is told; and no result is posted once its reader's token is over,
//! however long it has waited, nor once the reader is revoked. Knows nothing of events: the engine gives it results
//! line by line.

mod posted;

use std::sync::Arc;
use std::time::Duration;

use auth::clock::Clock;
use auth::control::Control;
use auth::egress::{Bounds, Client, EgressError, Reach};
use auth::token::Principal;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue};
use schemas::problem::Code;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use subscriptions::hub::Body;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::posted::Posted;
use super::host::Host;
use super::lines::Lines;
use crate::http::metrics::Metrics;
use crate::http::problem::Problem;

/// The header by which both sides say what they speak.
pub(crate) const PROTOCOL: HeaderName = HeaderName::from_static("subscription-protocol");
/// Its value.
pub(crate) const CALLBACK_1: HeaderValue = HeaderValue::from_static("callback/1.0");

/// The router cannot be called back.
pub(crate) const CALLBACK_REFUSED: Code = Code {
    name: "callback_refused",
    status: 400,
    title: "the callback is not acceptable",
    retry: false,
};

/// Between two attempts of a post, at first and at most.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// What is read of a router's answer.
const ANSWER_BYTES_MAX: usize = 16 << 10;
/// How many routers of a node are asked at a time whether they know of a subscription. They are strangers until they say yes.
const CHECKS_MAX: usize = 64;
/// The longest URL, id and verifier.
const URL_BYTES_MAX: usize = 2048;
const NAME_BYTES_MAX: usize = 512;
/// The longest interval of heartbeats that is kept to the letter.
const HEARTBEAT_MAX: Duration = Duration::from_secs(86_400);

/// Who may be called back, and how patiently.
#[derive(Debug, Clone)]
pub struct CallbackSettings {
    /// Routers; empty: callbacks are refused.
    pub hosts: Vec<Host>,
    /// One POST; beyond it counts as failed.
    pub post_timeout: Duration,
    /// How long a failing POST is tried again; beyond it the subscription ends.
    pub retry_max: Duration,
    /// The shortest interval of heartbeats that may be asked for; below it the operation is refused.
    pub heartbeat_min: Duration,
}

impl Default for CallbackSettings {
    fn default() -> Self {
        Self {
            hosts: Vec::new(),
            post_timeout: Duration::from_secs(5),
            retry_max: Duration::from_secs(30),
            heartbeat_min: Duration::from_millis(500),
        }
    }
}

/// The subscriptions that are posted.
#[derive(Debug)]
pub struct Callbacks {
    settings: CallbackSettings,
    client: Client,
    metrics: Metrics,
    /// Their tasks, which end with their sessions.
    tasks: TaskTracker,
    /// Places for checks before a subscription begins.
    checks: Semaphore,
    /// From then on nothing is tried again.
    drain: CancellationToken,
}

/// One router's callback: where and how.
pub(crate) struct Router {
    url: url::Url,
    /// As JSON.
    id: String,
    /// As JSON.
    verifier: String,
    heartbeat: Option<Duration>,
    settings: CallbackSettings,
    client: Client,
    metrics: Metrics,
    drain: CancellationToken,
    expiry: Expiry,
    /// Who reads, and by what it is known whether they are revoked.
    judged: Option<(Control, Arc<Principal>)>,
}

/// Until when a reader's results may be posted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expiry {
    /// What tells the time.
    pub(crate) clock: Clock,
    /// Milliseconds since the Unix epoch.
    pub(crate) at_ms: i64,
}

impl Expiry {
    fn is_over(self) -> bool {
        self.at_ms <= self.clock.now_ms()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Check,
    Next,
    Complete,
}

impl Callbacks {
    /// Nothing is posted yet. `tasks` is waited for at the end, `drain` cancelled at its beginning.
    pub fn new(
        settings: CallbackSettings,
        metrics: Metrics,
        tasks: TaskTracker,
        drain: CancellationToken,
    ) -> Result<Self, EgressError> {
        let client = Client::new(Reach::NAMED_HOSTS)?;
        Ok(Self {
            settings,
            client,
            metrics,
            tasks,
            checks: Semaphore::new(CHECKS_MAX),
            drain,
        })
    }

    /// Reads `extensions.subscription`.
    pub(crate) fn router(&self, extensions: &Map<String, Value>, expiry: Expiry) -> Result<Router, Problem> {
        let refused = |detail: &str| Problem::new(CALLBACK_REFUSED, detail);
        let asked = extensions.get("subscription").and_then(Value::as_object);
        let asked = asked.ok_or_else(|| refused("extensions.subscription is missing"))?;
        let text = |name: &str, bytes_max: usize| {
            let text = asked.get(name).and_then(Value::as_str);
            text.filter(|text| !text.is_empty() && text.len() <= bytes_max)
                .ok_or_else(|| refused(&format!("{name} is a string of at most {bytes_max} bytes")))
        };
        let url = url::Url::parse(text("callbackUrl", URL_BYTES_MAX)?)
            .map_err(|_| refused("callbackUrl is no URL"))?;
        if !self.settings.hosts.iter().any(|host| host.covers(&url)) {
            return Err(refused("callbackUrl's host is not on the list"));
        }
        // Its scheme, too, and what else it may carry.
        Reach::NAMED_HOSTS
            .check(&url)
            .map_err(|_| refused("callbackUrl is not acceptable"))?;
        let json = |text: &str| Value::from(text).to_string();
        Ok(Router {
            id: json(text("subscriptionId", NAME_BYTES_MAX)?),
            verifier: json(text("verifier", NAME_BYTES_MAX)?),
            heartbeat: self.heartbeat(asked.get("heartbeatIntervalMs"))?,
            url,
            settings: self.settings.clone(),
            client: self.client.clone(),
            metrics: self.metrics.clone(),
            drain: self.drain.clone(),
            expiry,
            judged: None,
        })
    }

    /// Zero and nothing stand for none.
    fn heartbeat(&self, asked: Option<&Value>) -> Result<Option<Duration>, Problem> {
        let interval = match asked {
            None | Some(Value::Null) => return Ok(None),
            Some(value) => value.as_u64().map(Duration::from_millis),
        };
        match interval {
            Some(Duration::ZERO) => Ok(None),
            Some(interval) if interval >= self.settings.heartbeat_min => {
                Ok(Some(interval.min(HEARTBEAT_MAX)))
            }
            _ => Err(Problem::new(
                CALLBACK_REFUSED,
                format!(
                    "heartbeatIntervalMs is 0 or at least {}",
                    self.settings.heartbeat_min.as_millis()
                ),
            )),
        }
    }

    /// Asks the router whether it knows of the subscription, when there is a place to.
    pub(crate) async fn check(&self, router: &Router) -> Result<(), Problem> {
        let place = tokio::time::timeout(self.settings.post_timeout, self.checks.acquire());
        let Ok(Ok(_place)) = place.await else {
            return Err(Problem::new(
                Code::RATE_LIMITED,
                "too many routers are being asked",
            ));
        };
        match router.post(Action::Check, b"").await {
            (Posted::Taken, Some(204)) => Ok(()),
            _ => Err(Problem::new(
                CALLBACK_REFUSED,
                "the router did not answer a check with 204",
            )),
        }
    }

    /// Posts a session's results until it ends, or the router does not want them any more.
    pub(crate) fn begin(&self, router: Router, results: Body) {
        self.tasks.spawn(router.run(results));
    }
}

impl Router {
    /// Posts no result once this principal is revoked.
    pub(crate) fn judged_by(mut self, control: Control, principal: Arc<Principal>) -> Self {
        self.judged = Some((control, principal));
        self
    }

    fn is_revoked(&self) -> bool {
        self.judged
            .as_ref()
            .is_some_and(|(control, principal)| control.is_revoked(principal))
    }

    /// Dropping the results ends their session.
    async fn run(self, mut results: Body) {
        let mut lines = Lines::default();
        let mut due = self.next_check();
        loop {
            while let Some(line) = lines.next() {
                if due.is_some_and(|due| Instant::now() >= due) {
                    due = self.next_check();
                    if !self.delivered(Action::Check, b"").await {
                        return;
                    }
                }
                match end(&line) {
                    None if line.is_empty() => {}
                    Some(errors) => return self.complete(errors.as_deref()).await,
                    None if self.delivered(Action::Next, &line).await => {}
                    None => return,
                }
            }
            tokio::select! {
                chunk = results.recv() => match chunk {
                    Some(chunk) => lines.push(&chunk),
                    // The session was cut off before it could say why.
                    None if self.is_revoked() => {
                        return self.complete(Some(&failed(Code::TOKEN_REVOKED))).await;
                    }
                    None => return self.complete(Some(&failed(Code::INTERNAL))).await,
                },
                () = until(due) => {
                    due = self.next_check();
                    if !self.delivered(Action::Check, b"").await {
                        return;
                    }
                }
            }
        }
    }

    /// A quarter early, so that the way there costs nothing of the interval.
    fn next_check(&self) -> Option<Instant> {
        self.heartbeat.map(|interval| Instant::now() + interval * 3 / 4)
    }

    /// Whether things go on. A router that has forgotten the subscription is left alone; otherwise one that missed a
    /// result is told, as far as that goes, that there are no more.
    async fn delivered(&self, action: Action, payload: &[u8]) -> bool {
        match self.deliver(action, payload).await {
            Posted::Taken => true,
            Posted::Gone => false,
            Posted::Refused | Posted::Failed => {
                tracing::warn!(
                    action = action.name(),
                    "a router did not take a callback; its subscription ends"
                );
                let errors = failed(CALLBACK_REFUSED);
                self.post(Action::Complete, errors.as_bytes()).await;
                false
            }
            Posted::Overdue => {
                let code = if self.is_revoked() {
                    Code::TOKEN_REVOKED
                } else {
                    Code::TOKEN_EXPIRED
                };
                self.complete(Some(&failed(code))).await;
                false
            }
        }
    }

    async fn complete(&self, errors: Option<&str>) {
        let errors = errors.unwrap_or_default();
        if self.deliver(Action::Complete, errors.as_bytes()).await != Posted::Taken {
            tracing::debug!("a router did not take the end of a subscription");
        }
    }

    /// Posts until it is taken, refused, or has failed for too long; a result no longer than its reader's token lasts.
    async fn deliver(&self, action: Action, more: &[u8]) -> Posted {
        let give_up = Instant::now() + self.settings.retry_max;
        let mut pause = PAUSE_MIN;
        loop {
            if action == Action::Next && (self.expiry.is_over() || self.is_revoked()) {
                self.metrics.callback(action.name(), Posted::Overdue.name());
                return Posted::Overdue;
            }
            let (posted, _) = self.post(action, more).await;
            if posted != Posted::Failed || self.drain.is_cancelled() || Instant::now() + pause > give_up {
                return posted;
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                // Once more, and that is it.
                () = self.drain.cancelled() => {}
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Posts once: what became of it, and the status.
    async fn post(&self, action: Action, more: &[u8]) -> (Posted, Option<u16>) {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(PROTOCOL, CALLBACK_1);
        let bounds = Bounds {
            deadline: self.settings.post_timeout,
            body_bytes_max: ANSWER_BYTES_MAX,
        };
        let answer = self
            .client
            .post(&self.url, headers, self.body(action, more), bounds)
            .await;
        let posted = Posted::of(&answer);
        self.metrics.callback(action.name(), posted.name());
        (posted, answer.ok().map(|answer| answer.status))
    }

    fn body(&self, action: Action, more: &[u8]) -> Bytes {
        let (id, verifier, name) = (&self.id, &self.verifier, action.name());
        let mut body =
            format!(r#"{{"kind":"subscription","action":"{name}","id":{id},"verifier":{verifier}"#)
                .into_bytes();
        let member: &[u8] = match action {
            Action::Next => b",\"payload\":",
            Action::Complete => b",\"errors\":",
            Action::Check => b"",
        };
        // Some routers take empty errors for a failure.
        if !more.is_empty() {
            body.extend_from_slice(member);
            body.extend_from_slice(more);
        }
        body.push(b'}');
        Bytes::from(body)
    }
}

impl Action {
    fn name(self) -> &'static str {
        match self {
            Self::Check => "check",
            Self::Next => "next",
            Self::Complete => "complete",
        }
    }
}

/// Whether a line is the last one; and the errors with which the operation ended, as JSON.
fn end(line: &[u8]) -> Option<Option<String>> {
    #[derive(Deserialize)]
    struct End<'a> {
        #[serde(borrow, default)]
        errors: Option<&'a RawValue>,
    }
    // Results begin with their data; most lines are results, and are not parsed.
    if !line.starts_with(b"{\"complete\":true") {
        return None;
    }
    let end: End<'_> = serde_json::from_slice(line).ok()?;
    Some(end.errors.map(|errors| errors.get().to_owned()))
}

/// The errors of a subscription that ended by a code.
fn failed(code: Code) -> String {
    serde_json::json!([{"message": code.title, "extensions": {"code": code.name}}]).to_string()
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;

//! `tidewire tail`: a stream's events on standard output, one JSON object a line, without a gap.
//!
//! One invariant: it goes on exactly after the last cursor that it was given, whatever happened to the connection; what
//! cannot be had any more is told on standard error. Filters travel in a body, never in a URL that somebody logs.

mod frames;

use std::time::Duration;

use clap::Args;
use http::StatusCode;
use http::header::ACCEPT;
use schemas::problem::Code;
use serde_json::{Map, Value, json};
use url::Url;

use self::frames::{Frame, Frames};
use super::token::pair;
use super::{Exit, block_on, print_line, tell};

/// How long the connection may be made for.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A server that says nothing for so long, not even a heartbeat, is gone.
const SILENCE_MAX: Duration = Duration::from_secs(90);
/// The first pause before another try.
const PAUSE_MIN: Duration = Duration::from_millis(250);
/// The longest.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// The command's arguments.
#[derive(Debug, Args)]
pub struct Tail {
    /// The stream.
    stream: String,
    /// A token; see `tidewire token`.
    #[arg(long, env = "TIDEWIRE_TOKEN", hide_env_values = true)]
    token: String,
    /// The gateway.
    #[arg(long, default_value = "http://127.0.0.1:8080", env = "TIDEWIRE_URL")]
    url: Url,
    /// From where: a cursor, `earliest`, `latest` or an RFC 3339 time.
    #[arg(long, default_value = "latest")]
    after: String,
    /// Only events with this attribute; may be given several times.
    #[arg(long = "where", value_name = "ATTRIBUTE=VALUE", value_parser = pair)]
    filters: Vec<(String, String)>,
}

/// What to do after a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Next {
    /// Try again after the usual pause.
    Again,
    /// Try again after this pause.
    AgainAfter(Duration),
    /// End.
    End(Exit),
}

impl Tail {
    pub(super) fn execute(self) -> Exit {
        block_on(self.run())
    }

    async fn run(self) -> Exit {
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(SILENCE_MAX)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("tidewire/", env!("CARGO_PKG_VERSION")))
            .build();
        let client = match client {
            Ok(client) => client,
            Err(error) => {
                tell(format_args!("tidewire tail: {error}"));
                return Exit::Unavailable;
            }
        };
        let mut url = self.url.clone();
        match url.path_segments_mut() {
            Ok(mut path) => path.pop_if_empty().extend(["v1", "streams", &self.stream]),
            Err(()) => {
                tell("tidewire tail: --url is no address of a server");
                return Exit::Usage;
            }
        };
        let mut after = self.after.clone();
        let mut failures = 0;
        loop {
            let before = after.clone();
            let next = self.follow(&client, &url, &mut after).await;
            // Who got further has nothing to wait for.
            failures = if after == before { failures + 1 } else { 1 };
            let pause = match next {
                Next::End(exit) => return exit,
                Next::AgainAfter(pause) => pause,
                Next::Again => pause(failures, rand::random()),
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// One connection, until it ends.
    async fn follow(&self, client: &reqwest::Client, url: &Url, after: &mut String) -> Next {
        let body = json!({"after": *after, "where": filter(&self.filters)});
        let request = client
            .post(url.clone())
            .bearer_auth(&self.token)
            .header(ACCEPT, "text/event-stream")
            .json(&body);
        let mut response = match request.send().await {
            Ok(response) => response,
            Err(error) => {
                tell(format_args!("disconnected: {}", cause_of(&error)));
                return Next::Again;
            }
        };
        if response.status() != StatusCode::OK {
            let status = response.status();
            let problem = response.json().await.unwrap_or(Value::Null);
            return refused(status, &problem);
        }
        let mut frames = Frames::default();
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) => frames.push(&chunk),
                Ok(None) => {
                    tell("disconnected: the server ended the stream");
                    return Next::Again;
                }
                Err(error) => {
                    tell(format_args!("disconnected: {}", cause_of(&error)));
                    return Next::Again;
                }
            }
            while let Some(frame) = frames.next() {
                if let Some(next) = take(&frame) {
                    return next;
                }
                // Only now: what was not printed is asked for again.
                if let Some(id) = frame.id {
                    *after = id;
                }
            }
            if frames.is_too_large() {
                tell("tidewire tail: the server sent a line without end");
                return Next::End(Exit::Unavailable);
            }
        }
    }
}

/// Repeated attributes are alternatives.
fn filter(pairs: &[(String, String)]) -> Value {
    let mut filter = Map::new();
    for (name, value) in pairs {
        if let Value::Array(values) = filter.entry(name).or_insert_with(|| json!([])) {
            values.push(Value::from(value.as_str()));
        }
    }
    Value::Object(filter)
}

/// Prints what came. An answer ends the connection.
fn take(frame: &Frame) -> Option<Next> {
    let member = |name: &str| {
        serde_json::from_str::<Value>(&frame.data)
            .ok()?
            .get(name)
            .cloned()
    };
    match frame.event.as_deref() {
        None | Some("message") => {
            let is_wanted = frame.data.is_empty() || print_line(&frame.data);
            (!is_wanted).then_some(Next::End(Exit::Done))
        }
        Some("bye") => {
            let pause = member("reconnect_after_ms").and_then(|ms| ms.as_u64());
            tell("disconnected: the server is going away");
            Some(pause.map_or(Next::Again, |ms| {
                Next::AgainAfter(Duration::from_millis(ms).min(PAUSE_MAX))
            }))
        }
        Some("completed") => {
            tell(format_args!("completed: {}", frame.data));
            Some(Next::End(Exit::Done))
        }
        Some("problem") => {
            let problem = serde_json::from_str(&frame.data).unwrap_or(Value::Null);
            Some(refused(StatusCode::OK, &problem))
        }
        Some(name @ ("gap" | "live" | "stale" | "auth_required")) => {
            tell(format_args!("{name}: {}", frame.data));
            None
        }
        // A newer server may say more.
        Some(_) => None,
    }
}

/// A refusal: its code decides whether another try makes sense.
fn refused(status: StatusCode, problem: &Value) -> Next {
    let text = |name: &str| problem.get(name).and_then(Value::as_str).unwrap_or_default();
    let name = text("code");
    let code = Code::ALL.iter().find(|code| code.name == name);
    let status = code.map_or(status.as_u16(), |code| code.status);
    let what = if name.is_empty() {
        format!("the server answers {status}")
    } else {
        name.to_owned()
    };
    let said = [text("title"), text("message"), text("detail")];
    let said: Vec<&str> = said.into_iter().filter(|text| !text.is_empty()).collect();
    tell(format_args!("{what}: {}", said.join("; ")));
    let retry = problem
        .get("retry")
        .and_then(Value::as_bool)
        .or(code.map(|code| code.retry));
    if retry.unwrap_or(status >= 500 || status == 429 || status == 408) {
        return Next::Again;
    }
    Next::End(match status {
        401 | 403 => Exit::Forbidden,
        400..=499 => Exit::Usage,
        _ => Exit::Unavailable,
    })
}

/// Doubles with each failure, up to a bound, and is spread so that many clients do not come back at once. `random` is
/// anything.
fn pause(failures: u32, random: u32) -> Duration {
    let longest = PAUSE_MIN
        .saturating_mul(1 << failures.saturating_sub(1).min(10))
        .min(PAUSE_MAX);
    longest.mul_f64(0.5 + f64::from(random) / f64::from(u32::MAX) / 2.0)
}

/// The innermost cause, without the URL.
fn cause_of(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(below) = cause.source() {
        cause = below;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_decides_whether_another_try_makes_sense() {
        let refused =
            |status: u16, problem: Value| refused(StatusCode::from_u16(status).expect("a status"), &problem);
        assert_eq!(
            refused(401, json!({"code": "token_expired"})),
            Next::End(Exit::Forbidden)
        );
        assert_eq!(
            refused(403, json!({"code": "stream_forbidden"})),
            Next::End(Exit::Forbidden)
        );
        assert_eq!(
            refused(400, json!({"code": "cursor_invalid"})),
            Next::End(Exit::Usage)
        );
        assert_eq!(refused(503, json!({"code": "draining"})), Next::Again);
        assert_eq!(
            refused(429, json!({"code": "tenant_connections_exceeded"})),
            Next::Again
        );
        assert_eq!(refused(200, json!({"code": "slow_reader"})), Next::Again);
        assert_eq!(
            refused(200, json!({"code": "token_expired", "retry": false})),
            Next::End(Exit::Forbidden)
        );
        assert_eq!(refused(502, Value::Null), Next::Again);
        assert_eq!(refused(404, Value::Null), Next::End(Exit::Usage));
        assert_eq!(
            refused(429, json!({"code": "something_new", "retry": false})),
            Next::End(Exit::Usage)
        );
    }

    #[test]
    fn pauses_grow_to_a_bound_and_are_spread() {
        assert_eq!(pause(1, u32::MAX), PAUSE_MIN);
        assert_eq!(pause(1, 0), PAUSE_MIN / 2);
        assert_eq!(pause(3, u32::MAX), PAUSE_MIN * 4);
        assert_eq!(pause(50, u32::MAX), PAUSE_MAX);
    }

    #[test]
    fn repeated_filters_are_alternatives() {
        let pairs = [
            ("status", "final"),
            ("patient", "Patient/1"),
            ("status", "amended"),
        ];
        let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(
            filter(&pairs),
            json!({"status": ["final", "amended"], "patient": ["Patient/1"]})
        );
    }

    #[test]
    fn a_server_that_drains_says_when_to_come_back() {
        let frame = |event: &str, data: &str| Frame {
            event: Some(event.to_owned()),
            id: None,
            data: data.to_owned(),
        };
        let bye = take(&frame("bye", r#"{"reconnect_after_ms": 40}"#));
        assert_eq!(bye, Some(Next::AgainAfter(Duration::from_millis(40))));
        assert_eq!(take(&frame("completed", "{}")), Some(Next::End(Exit::Done)));
        assert_eq!(take(&frame("gap", "{}")), None);
        assert_eq!(take(&frame("something_new", "{}")), None);
    }
}

//! `graphql-transport-ws` (the protocol of the npm package `graphql-ws`), and the legacy `graphql-ws` (the one of
//! `subscriptions-transport-ws`), which older clients still speak.
//!
//! What the protocol has no word for travels in `ping`: `payload.cursors` (quiet progress, by operation),
//! `payload.stale`, `payload.auth_required`. Clients answer such pings like any other.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::said::{self, Said};
use super::ws;
use crate::graphql::Request;

/// The most characters of an operation's id.
pub const ID_CHARS_MAX: usize = 128;

/// What a client says, in either protocol.
#[derive(Debug, Clone, PartialEq)]
pub enum ClientMessage {
    /// The first message, with credentials where the upgrade had none.
    Init(Map<String, Value>),
    /// Begin an operation.
    Subscribe(Box<Operation>),
    /// End one.
    Complete {
        /// Which.
        id: String,
    },
    /// Answered with `pong`.
    Ping {
        /// Sent back, as JSON.
        payload: Option<Box<str>>,
        /// A renewed token.
        token: Option<Token>,
    },
    /// The answer to a ping of ours.
    Pong,
    /// The legacy protocol's goodbye.
    Terminate,
}

/// `subscribe`.
#[derive(Debug, Clone, PartialEq)]
pub struct Operation {
    /// Chosen by the client, unique in its session.
    pub id: String,
    /// What is asked.
    pub request: Request,
}

/// A token that a message brought. Its `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(pub String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

/// Which of the two is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// `graphql-transport-ws`.
    Transport,
    /// `graphql-ws`.
    Legacy,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    id: Option<String>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
}

impl Operation {
    /// Whose operation it is, where one connection speaks for several (`extensions.authorization`).
    #[must_use]
    pub fn authorization(&self) -> Option<Token> {
        let text = self.request.extensions.get("authorization")?.as_str()?;
        bearer(text)
    }
}

/// Reads a client's message. The error never repeats it.
pub fn parse(dialect: Dialect, text: &str) -> Result<ClientMessage, &'static str> {
    const BAD: &str = "Invalid message received";
    let message: Envelope<'_> = serde_json::from_str(text).map_err(|_| BAD)?;
    let payload = message.payload.map(RawValue::get).filter(|text| *text != "null");
    let id = || {
        let fits = |id: &String| !id.is_empty() && id.chars().count() <= ID_CHARS_MAX;
        message.id.clone().filter(fits).ok_or(BAD)
    };
    let object = |text: Option<&str>| match text {
        None => Ok(Map::new()),
        Some(text) => serde_json::from_str::<Map<String, Value>>(text).map_err(|_| BAD),
    };
    let subscribe = || {
        let request: Request = serde_json::from_str(payload.ok_or(BAD)?).map_err(|_| BAD)?;
        Ok(ClientMessage::Subscribe(Box::new(Operation {
            id: id()?,
            request,
        })))
    };
    match (dialect, &*message.kind) {
        (_, "connection_init") => Ok(ClientMessage::Init(object(payload)?)),
        (Dialect::Transport, "subscribe") | (Dialect::Legacy, "start") => subscribe(),
        (Dialect::Transport, "complete") | (Dialect::Legacy, "stop") => {
            Ok(ClientMessage::Complete { id: id()? })
        }
        (Dialect::Transport, "ping") => {
            let token = object(payload)?
                .get("token")
                .and_then(Value::as_str)
                .and_then(bearer);
            // A token is not sent back.
            let echo = payload.filter(|_| token.is_none()).map(Box::from);
            Ok(ClientMessage::Ping { payload: echo, token })
        }
        (Dialect::Transport, "pong") => object(payload).map(|_| ClientMessage::Pong),
        (Dialect::Legacy, "connection_terminate") => Ok(ClientMessage::Terminate),
        _ => Err(BAD),
    }
}

/// The token of `connection_init`: wherever clients and routers put it.
#[must_use]
pub fn credentials(payload: &Map<String, Value>) -> Option<Token> {
    let text = |value: &Value| value.as_str().and_then(bearer);
    let authorization = |members: &Map<String, Value>| {
        members
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case("authorization"))
            .and_then(|(_, value)| text(value))
    };
    let token = |members: &Map<String, Value>| members.get("token").and_then(text);
    let below = |name: &str| payload.get(name).and_then(Value::as_object);
    authorization(payload)
        .or_else(|| token(payload))
        .or_else(|| {
            below("connectionParams").and_then(|params| token(params).or_else(|| authorization(params)))
        })
        .or_else(|| below("headers").and_then(authorization))
}

/// A token with or without the word before it.
fn bearer(text: &str) -> Option<Token> {
    let token = match text.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
        Some(_) => return None,
        None => text,
    };
    (!token.is_empty()).then(|| Token(token.to_owned()))
}

/// Appends a result: `next`, or `data` in the legacy protocol.
pub(super) fn next(id: &str, kind: &str, payload: &[u8], out: &mut Vec<u8>) {
    const ID: &[u8] = br#"{"id":"#;
    const TYPE: &[u8] = br#","type":""#;
    const PAYLOAD: &[u8] = br#"","payload":"#;
    let length = ID.len() + id.len() + TYPE.len() + kind.len() + PAYLOAD.len() + payload.len() + b"}".len();
    ws::text_head(length, out);
    out.extend_from_slice(ID);
    out.extend_from_slice(id.as_bytes());
    out.extend_from_slice(TYPE);
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(PAYLOAD);
    out.extend_from_slice(payload);
    out.push(b'}');
}

/// Appends what is said in `graphql-transport-ws`.
pub(super) fn say(said: &Said<'_>, out: &mut Vec<u8>) {
    let ping = |payload: &str, out: &mut Vec<u8>| {
        ws::text_frame(&format!(r#"{{"type":"ping","payload":{payload}}}"#), out);
    };
    match said {
        Said::Acknowledged => ws::text_frame(r#"{"type":"connection_ack"}"#, out),
        Said::Subscribed { id, cursor } | Said::Cursor { id, cursor } => {
            ping(&format!(r#"{{"cursors":{{{id}:"{cursor}"}}}}"#), out);
        }
        Said::Stale { id } => ping(&format!(r#"{{"stale":[{id}]}}"#), out),
        Said::AuthRequired { expires_at } => {
            ping(
                &json!({"auth_required": {"expires_at": expires_at}}).to_string(),
                out,
            );
        }
        Said::Answer { id, payload } => {
            next(id, "next", payload, out);
            ws::text_frame(&format!(r#"{{"id":{id},"type":"complete"}}"#), out);
        }
        Said::Refused { id, errors } => error(id, errors, out),
        Said::Completed { id, failure } => error(id, &said::errors(failure), out),
        Said::Error {
            id: Some(id),
            failure,
        } => error(id, &said::errors(failure), out),
        Said::Pong { payload: None } => ws::text_frame(r#"{"type":"pong"}"#, out),
        Said::Pong {
            payload: Some(payload),
        } => {
            ws::text_frame(&format!(r#"{{"type":"pong","payload":{payload}}}"#), out);
        }
        // The close code tells the rest.
        Said::Welcome { .. }
        | Said::Authorized { .. }
        | Said::Unsubscribed { .. }
        | Said::Error { id: None, .. }
        | Said::Bye { .. } => {}
    }
}

/// Appends what is said in the legacy protocol.
pub(super) fn say_legacy(said: &Said<'_>, out: &mut Vec<u8>) {
    match said {
        Said::Acknowledged => {
            ws::text_frame(r#"{"type":"connection_ack"}"#, out);
            keep_alive(out);
        }
        Said::Error { id: None, failure } => {
            let payload = json!({"message": said::message(failure), "code": failure.code.name});
            ws::text_frame(
                &format!(r#"{{"type":"connection_error","payload":{payload}}}"#),
                out,
            );
        }
        Said::Answer { id, payload } => {
            next(id, "data", payload, out);
            ws::text_frame(&format!(r#"{{"id":{id},"type":"complete"}}"#), out);
        }
        Said::Refused { id, errors } => legacy_error(id, errors, out),
        Said::Completed { id, failure } => legacy_error(id, &said::errors(failure), out),
        Said::Error {
            id: Some(id),
            failure,
        } => legacy_error(id, &said::errors(failure), out),
        Said::Welcome { .. }
        | Said::Authorized { .. }
        | Said::Subscribed { .. }
        | Said::Cursor { .. }
        | Said::Stale { .. }
        | Said::Unsubscribed { .. }
        | Said::AuthRequired { .. }
        | Said::Pong { .. }
        | Said::Bye { .. } => {}
    }
}

/// The legacy protocol's keep-alive message.
pub(super) fn keep_alive(out: &mut Vec<u8>) {
    ws::text_frame(r#"{"type":"ka"}"#, out);
}

fn error(id: &str, errors: &str, out: &mut Vec<u8>) {
    ws::text_frame(
        &format!(r#"{{"id":{id},"type":"error","payload":{errors}}}"#),
        out,
    );
}

/// The legacy protocol's `error` is for operations that never began: one that did is told in `data`, and completed.
fn legacy_error(id: &str, errors: &str, out: &mut Vec<u8>) {
    next(id, "data", format!(r#"{{"errors":{errors}}}"#).as_bytes(), out);
    ws::text_frame(&format!(r#"{{"id":{id},"type":"complete"}}"#), out);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(dialect: fn(&Said<'_>, &mut Vec<u8>), said: &Said<'_>) -> Value {
        let mut out = Vec::new();
        dialect(said, &mut out);
        serde_json::from_slice(out.get(2..).unwrap()).unwrap()
    }

    #[test]
    fn a_token_is_found_wherever_clients_and_routers_put_it() {
        for payload in [
            json!({"Authorization": "Bearer a.b.c"}),
            json!({"authorization": "bearer a.b.c", "token": "not this one"}),
            json!({"token": "a.b.c"}),
            json!({"token": "Bearer a.b.c"}),
            json!({"connectionParams": {"token": "a.b.c"}}),
            json!({"connectionParams": {"Authorization": "Bearer a.b.c"}}),
            json!({"headers": {"AUTHORIZATION": "Bearer a.b.c"}}),
        ] {
            let payload = payload.as_object().unwrap();
            assert_eq!(
                credentials(payload),
                Some(Token("a.b.c".to_owned())),
                "{payload:?}"
            );
        }
        for payload in [
            json!({}),
            json!({"token": null}),
            json!({"token": ""}),
            json!({"authorization": "Basic YTpi"}),
            json!({"connectionParams": "x"}),
        ] {
            assert_eq!(credentials(payload.as_object().unwrap()), None, "{payload}");
        }
    }

    #[test]
    fn only_what_the_protocol_knows_is_a_message() {
        let transport = |text| parse(Dialect::Transport, text);
        for fine in [
            r#"{"type":"connection_init"}"#,
            r#"{"type":"connection_init","payload":null}"#,
            r#"{"type":"connection_init","payload":{"a":1},"new":true}"#,
            r#"{"type":"pong"}"#,
            r#"{"type":"ping","payload":{"x":1}}"#,
            r#"{"id":"1","type":"complete"}"#,
            r#"{"id":"1","type":"subscribe","payload":{"query":"{a}"}}"#,
        ] {
            assert!(transport(fine).is_ok(), "{fine}");
        }
        for bad in [
            "",
            "null",
            "[]",
            "{}",
            r#"{"type":1}"#,
            r#"{"type":"start","id":"1","payload":{"query":"{a}"}}"#,
            r#"{"type":"connection_init","payload":"x"}"#,
            r#"{"type":"ping","payload":"x"}"#,
            r#"{"type":"subscribe","payload":{"query":"{a}"}}"#,
            r#"{"id":"","type":"subscribe","payload":{"query":"{a}"}}"#,
            r#"{"id":"1","type":"subscribe"}"#,
            r#"{"id":"1","type":"subscribe","payload":{"query":1}}"#,
            r#"{"id":1,"type":"complete"}"#,
            r#"{"type":"next","id":"1","payload":{}}"#,
        ] {
            assert!(transport(bad).is_err(), "{bad}");
        }
        assert!(
            parse(
                Dialect::Legacy,
                r#"{"type":"start","id":"1","payload":{"query":"{a}"}}"#
            )
            .is_ok()
        );
        assert!(parse(Dialect::Legacy, r#"{"type":"connection_terminate"}"#).is_ok());
        assert!(parse(Dialect::Legacy, r#"{"type":"ping"}"#).is_err());
    }

    #[test]
    fn a_renewed_token_is_not_sent_back() {
        let ping = parse(
            Dialect::Transport,
            r#"{"type":"ping","payload":{"token":"a.b.c"}}"#,
        )
        .unwrap();
        let token = Some(Token("a.b.c".to_owned()));
        assert_eq!(ping, ClientMessage::Ping { payload: None, token });
    }

    #[test]
    fn quiet_progress_is_a_ping_that_names_the_operation() {
        let progress = Said::Cursor {
            id: "\"1\"",
            cursor: "abc",
        };
        assert_eq!(
            said(say, &progress),
            json!({"type": "ping", "payload": {"cursors": {"1": "abc"}}})
        );
    }
}

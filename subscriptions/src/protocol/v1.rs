//! `tidewire.v1`: JSON text messages, each with a `type`. Members that a side does not know are ignored by it.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::said::{Said, message};
use super::{Frame, Kind, ws};

/// The most characters of a subscription id.
pub const ID_CHARS_MAX: usize = 64;

/// What a client says.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ClientMessage {
    /// Begin a subscription.
    Subscribe(Box<Subscribe>),
    /// End one.
    Unsubscribe {
        /// Which.
        id: String,
    },
    /// Credentials, at the beginning or renewed.
    Auth(Credentials),
    /// Answered with `pong`.
    Ping,
}

/// `subscribe`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Subscribe {
    /// Chosen by the client, unique in its session.
    pub id: String,
    /// The stream's name.
    pub stream: String,
    /// Attribute filters.
    #[serde(default, rename = "where")]
    pub filter: Map<String, Value>,
    /// A cursor, `earliest`, `latest` or an RFC 3339 time.
    pub after: Option<String>,
    /// Not in this version.
    pub snapshot: Option<Value>,
    /// `close` in this version.
    pub overflow: Option<String>,
    /// Not in this version.
    pub rate: Option<Value>,
}

/// `auth`. Its `Debug` does not show the token.
#[derive(Clone, PartialEq, Deserialize)]
pub struct Credentials {
    /// The token.
    pub token: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials")
    }
}

/// Reads a client's message. The error never repeats it.
pub fn parse(text: &str) -> Result<ClientMessage, &'static str> {
    let message: ClientMessage =
        serde_json::from_str(text).map_err(|_| "not a JSON object of a known type with its members")?;
    let id = match &message {
        ClientMessage::Subscribe(subscribe) => &subscribe.id,
        ClientMessage::Unsubscribe { id } => id,
        ClientMessage::Auth(_) | ClientMessage::Ping => return Ok(message),
    };
    if id.is_empty() || id.chars().count() > ID_CHARS_MAX {
        return Err("an id has 1 to 64 characters");
    }
    Ok(message)
}

/// What is said, as a message.
#[must_use]
pub fn to_json(said: &Said<'_>) -> String {
    let plain = |kind: &str, id: &str| format!(r#"{{"type":"{kind}","id":{id}}}"#);
    match said {
        Said::Welcome {
            session,
            heartbeat_ms,
            limits,
        } => json!({"type": "welcome", "session": session, "heartbeat_ms": heartbeat_ms, "limits": limits})
            .to_string(),
        Said::Authorized { expires_at } => {
            json!({"type": "authorized", "expires_at": expires_at}).to_string()
        }
        Said::Subscribed { id, cursor } => {
            format!(r#"{{"type":"subscribed","id":{id},"cursor":"{cursor}"}}"#)
        }
        Said::Cursor { id, cursor } => format!(r#"{{"type":"cursor","id":{id},"cursor":"{cursor}"}}"#),
        Said::Stale { id } => plain("stale", id),
        Said::Unsubscribed { id } => plain("unsubscribed", id),
        Said::Completed { id, failure } => {
            format!(
                r#"{{"type":"completed","id":{id},"reason":"{}"}}"#,
                failure.code.name
            )
        }
        Said::Error { id, failure } => {
            let rest =
                json!({"code": failure.code.name, "message": message(failure), "retry": failure.code.retry});
            let rest = rest.to_string();
            let rest = rest.trim_start_matches('{');
            match id {
                Some(id) => format!(r#"{{"type":"error","id":{id},{rest}"#),
                None => format!(r#"{{"type":"error",{rest}"#),
            }
        }
        Said::AuthRequired { expires_at } => {
            json!({"type": "auth_required", "expires_at": expires_at}).to_string()
        }
        Said::Bye { reconnect_after_ms } => {
            json!({"type": "bye", "reconnect_after_ms": reconnect_after_ms}).to_string()
        }
        // What GraphQL has beside these is never said here.
        Said::Pong { .. } | Said::Acknowledged | Said::Answer { .. } | Said::Refused { .. } => {
            r#"{"type":"pong"}"#.to_owned()
        }
    }
}

/// Appends a frame as one WebSocket text frame.
pub fn render(id: &str, frame: &Frame, out: &mut Vec<u8>) {
    const EVENT: &[u8] = br#"{"type":"event","id":"#;
    const CURSOR: &[u8] = br#","cursor":""#;
    const BODY: &[u8] = br#"","event":"#;
    match &frame.kind {
        Kind::Event { body, .. } => {
            let length = EVENT.len()
                + id.len()
                + CURSOR.len()
                + frame.cursor.len()
                + BODY.len()
                + body.len()
                + b"}".len();
            ws::text_head(length, out);
            out.extend_from_slice(EVENT);
            out.extend_from_slice(id.as_bytes());
            out.extend_from_slice(CURSOR);
            out.extend_from_slice(frame.cursor.as_bytes());
            out.extend_from_slice(BODY);
            out.extend_from_slice(body);
            out.push(b'}');
        }
        Kind::Gap { partitions, .. } => {
            let cursor = &frame.cursor;
            ws::text_frame(
                &format!(r#"{{"type":"gap","id":{id},"cursor":"{cursor}","partitions":{partitions}}}"#),
                out,
            );
        }
        Kind::Live => {
            ws::text_frame(
                &format!(r#"{{"type":"live","id":{id},"cursor":"{}"}}"#, frame.cursor),
                out,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use schemas::ids::Slot;

    use super::*;

    #[test]
    fn unknown_members_are_ignored_and_unknown_types_refused() {
        let message = parse(r#"{"type":"subscribe","id":"1","stream":"s","new":true}"#).unwrap();
        assert!(matches!(message, ClientMessage::Subscribe(subscribe) if subscribe.stream == "s"));
        for bad in [
            "",
            "[]",
            "{}",
            r#"{"type":"x"}"#,
            r#"{"type":"subscribe","id":"","stream":"s"}"#,
            r#"{"type":"auth"}"#,
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_event_frame_is_one_valid_message() {
        let frame = Frame {
            cursor: Arc::from("abc"),
            kind: Kind::Event {
                slot: Slot(0),
                offset: 1,
                body: Bytes::from_static(br#"{"specversion":"1.0"}"#),
            },
        };
        let mut out = Vec::new();
        render(r#""a\"b""#, &frame, &mut out);
        assert_eq!(usize::from(out[1]), out.len() - 2);
        let value: Value = serde_json::from_slice(&out[2..]).unwrap();
        assert_eq!(
            value,
            json!({"type":"event","id":"a\"b","cursor":"abc","event":{"specversion":"1.0"}})
        );
    }

    #[test]
    fn an_error_tells_code_message_and_retry() {
        let failure = crate::hub::Failure::new(schemas::problem::Code::STREAM_UNAVAILABLE, "");
        let text = to_json(&Said::Error {
            id: Some("\"1\""),
            failure: &failure,
        });
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["code"], "stream_unavailable");
        assert_eq!(value["retry"], true);
        assert_eq!(value["id"], "1");
    }
}

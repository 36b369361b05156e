//! `tidewire.v1`: JSON text messages, each with a `type`. Members that a side does not know are ignored by it.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Frame, Kind, ws};
use crate::hub::Failure;

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

/// What a server says beside frames. `id` is a JSON string with its quotes.
#[derive(Debug, Clone, PartialEq)]
pub enum ServerMessage<'a> {
    /// The first message.
    Welcome {
        /// The session's id.
        session: &'a str,
        /// How often quiet progress is told.
        heartbeat_ms: u64,
        /// The limits that concern the client.
        limits: Value,
    },
    /// Credentials were accepted.
    Authorized {
        /// Until when.
        expires_at: &'a str,
    },
    /// A subscription began.
    Subscribed {
        /// Which.
        id: &'a str,
        /// Where it begins.
        cursor: &'a str,
    },
    /// Quiet progress.
    Cursor {
        /// Which.
        id: &'a str,
        /// How far everything was given.
        cursor: &'a str,
    },
    /// Kafka has not been reached for a while.
    Stale {
        /// Which.
        id: &'a str,
    },
    /// A subscription ended as asked.
    Unsubscribed {
        /// Which.
        id: &'a str,
    },
    /// A subscription ended.
    Completed {
        /// Which.
        id: &'a str,
        /// Why.
        reason: &'a str,
    },
    /// Something was refused.
    Error {
        /// Of which subscription.
        id: Option<&'a str>,
        /// What.
        failure: &'a Failure,
    },
    /// New credentials are needed.
    AuthRequired {
        /// By when.
        expires_at: &'a str,
    },
    /// The answer to `ping`.
    Pong,
    /// The node goes away.
    Bye {
        /// When to come back.
        reconnect_after_ms: u64,
    },
}

impl ServerMessage<'_> {
    /// The message as JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        let plain = |kind: &str, id: &str| format!(r#"{{"type":"{kind}","id":{id}}}"#);
        match self {
            Self::Welcome {
                session,
                heartbeat_ms,
                limits,
            } => {
                json!({"type": "welcome", "session": session, "heartbeat_ms": heartbeat_ms, "limits": limits})
                    .to_string()
            }
            Self::Authorized { expires_at } => {
                json!({"type": "authorized", "expires_at": expires_at}).to_string()
            }
            Self::Subscribed { id, cursor } => {
                format!(r#"{{"type":"subscribed","id":{id},"cursor":"{cursor}"}}"#)
            }
            Self::Cursor { id, cursor } => format!(r#"{{"type":"cursor","id":{id},"cursor":"{cursor}"}}"#),
            Self::Stale { id } => plain("stale", id),
            Self::Unsubscribed { id } => plain("unsubscribed", id),
            Self::Completed { id, reason } => {
                format!(r#"{{"type":"completed","id":{id},"reason":"{reason}"}}"#)
            }
            Self::Error { id, failure } => {
                let rest = json!({"code": failure.code.name, "message": message(failure), "retry": failure.code.retry});
                let rest = rest.to_string();
                let rest = rest.trim_start_matches('{');
                match id {
                    Some(id) => format!(r#"{{"type":"error","id":{id},{rest}"#),
                    None => format!(r#"{{"type":"error",{rest}"#),
                }
            }
            Self::AuthRequired { expires_at } => {
                json!({"type": "auth_required", "expires_at": expires_at}).to_string()
            }
            Self::Pong => r#"{"type":"pong"}"#.to_owned(),
            Self::Bye { reconnect_after_ms } => {
                json!({"type": "bye", "reconnect_after_ms": reconnect_after_ms}).to_string()
            }
        }
    }
}

/// What people are told of a failure.
#[must_use]
pub fn message(failure: &Failure) -> String {
    if failure.detail.is_empty() {
        failure.code.title.to_owned()
    } else {
        format!("{}: {}", failure.code.title, failure.detail)
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
        Kind::Gap(partitions) => {
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
        let failure = Failure::new(schemas::problem::Code::STREAM_UNAVAILABLE, "");
        let text = ServerMessage::Error {
            id: Some("\"1\""),
            failure: &failure,
        }
        .to_json();
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["code"], "stream_unavailable");
        assert_eq!(value["retry"], true);
        assert_eq!(value["id"], "1");
    }
}

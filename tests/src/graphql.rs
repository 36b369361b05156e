//! GraphQL as the promises speak it: the contract's types, and a client of `graphql-transport-ws` that does nothing by
//! itself.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::ws::{Dial, Said, Ws};

/// The types of the stream of [`crate::contract::observations`], bound to it. `Patient` and `Practitioner` are another
/// subgraph's.
pub const SDL: &str = r#"extend schema @link(url: "https://specs.apollo.dev/federation/v2.5", import: ["@key"])

scalar DateTime
scalar JSON

type Subscription {
  observations(
    patient: ID @attribute(name: "patient", prefix: "Patient/")
    status: [ObservationStatus!]
    code: [String!]
    after: String
  ): ObservationEvent! @stream(name: "observations")
  latest(patient: ID @attribute(name: "patient", prefix: "Patient/"), after: String): Observation
    @stream(name: "observations", emit: ENTITY)
}

type ObservationEvent @event {
  kind: ChangeKind!
  cursor: String!
  key: String
  time: DateTime!
  data: Observation
}

type Observation {
  id: ID!
  status: ObservationStatus
  patient: Patient @json(pointer: "/subject")
  code: Concept
  performer: [Practitioner!]
  note: [Note!]
  whole: JSON @json(pointer: "/code")
  partition: Int
  n: Int
  padding: String
}

enum ObservationStatus {
  FINAL @jsonValue(is: "final")
  PRELIMINARY @jsonValue(is: "preliminary")
  ENTERED_IN_ERROR @jsonValue(is: "entered-in-error")
}

type Concept {
  coding: [Coding!]
}

type Coding {
  system: String
  code: String
}

type Note {
  text: String
}

type Patient @key(fields: "id", resolvable: false) {
  id: ID! @json(pointer: "/reference", stripPrefix: "Patient/")
}

type Practitioner @key(fields: "id", resolvable: false) {
  id: ID! @json(pointer: "/reference", stripPrefix: "Practitioner/")
}
"#;

/// The settings that go with it.
pub const SETTINGS: &str = "[graphql]\nintrospection = true\n";

/// Everything that exact sequences need.
pub const EVENTS: &str = "subscription Events($patient: ID, $after: String) { observations(patient: $patient, after: $after) \
     { kind cursor data { partition n status patient { id } } } }";

/// The path and the subprotocol.
pub const TRANSPORT: (&str, &str) = ("/graphql/ws", "graphql-transport-ws");
/// The path and the subprotocol of older clients.
pub const LEGACY: (&str, &str) = ("/graphql/ws", "graphql-ws");

/// An operation's payload.
#[must_use]
pub fn operation(query: &str, variables: &Value) -> Value {
    json!({"query": query, "variables": variables})
}

/// One socket of `graphql-transport-ws`.
pub struct Wire {
    /// The connection.
    pub ws: Ws,
}

impl Wire {
    /// Connects without credentials and says nothing.
    pub async fn dial(address: SocketAddr) -> Result<Self> {
        Self::dial_with(address, &Dial::default()).await
    }

    /// Connects and says nothing.
    pub async fn dial_with(address: SocketAddr, dial: &Dial) -> Result<Self> {
        let mut dial = dial.clone();
        dial.tongue.get_or_insert(TRANSPORT);
        match Ws::dial(address, &dial).await? {
            Ok(ws) => Ok(Self { ws }),
            Err(refused) => bail!("refused: {refused:?}"),
        }
    }

    /// Connects, and waits until a token is acknowledged.
    pub async fn open(address: SocketAddr, token: &str) -> Result<Self> {
        let mut wire = Self::dial(address).await?;
        wire.init(&json!({"token": token})).await?;
        Ok(wire)
    }

    /// Says `connection_init` and waits for its acknowledgement.
    pub async fn init(&mut self, payload: &Value) -> Result<()> {
        self.say(&json!({"type": "connection_init", "payload": payload}))
            .await?;
        self.ws.until("connection_ack").await?;
        Ok(())
    }

    /// Says something.
    pub async fn say(&mut self, message: &Value) -> Result<()> {
        self.ws.say(message).await
    }

    /// Sends text that need not be a message.
    pub async fn text(&mut self, text: &str) -> Result<()> {
        self.ws.send(Message::text(text.to_owned())).await
    }

    /// Says `subscribe`.
    pub async fn start(&mut self, id: &str, operation: &Value) -> Result<()> {
        self.say(&json!({"type": "subscribe", "id": id, "payload": operation}))
            .await
    }

    /// Subscribes, and waits until the position is fixed: everything that is produced from now on is given. The cursor.
    pub async fn subscribe(&mut self, id: &str, operation: &Value) -> Result<String> {
        self.start(id, operation).await?;
        loop {
            match self.ws.hear().await? {
                Said::Message(message) if message["type"] == "ping" => {
                    if let Some(cursor) = message["payload"]["cursors"][id].as_str() {
                        return Ok(cursor.to_owned());
                    }
                }
                Said::Message(message) if message["id"] != id => {}
                other => bail!("{other:?} instead of a beginning"),
            }
        }
    }

    /// The next result of an operation; pings and other operations are passed over, all else is an error.
    pub async fn result(&mut self, id: &str) -> Result<Value> {
        loop {
            match self.ws.hear().await? {
                Said::Message(message) if message["type"] == "ping" || message["type"] == "pong" => {}
                Said::Message(message) if message["id"] != id => {}
                Said::Message(mut message) if message["type"] == "next" => {
                    return Ok(message["payload"].take());
                }
                other => bail!("{other:?} instead of a result"),
            }
        }
    }

    /// The event in the next result of an operation with one root field; errors in it are an error.
    pub async fn event(&mut self, id: &str) -> Result<Value> {
        event(self.result(id).await?)
    }

    /// Reads to the end: the close code and reason.
    pub async fn end(&mut self) -> Result<(u16, String)> {
        self.ws.end().await?.context("it ended without a close frame")
    }
}

/// The event in a result with one root field; errors in it are an error.
pub fn event(mut payload: Value) -> Result<Value> {
    if payload.get("errors").is_some_and(|errors| !errors.is_null()) {
        bail!("errors: {payload}");
    }
    let data = payload["data"].as_object_mut().context("no data")?;
    let (_, event) = data.iter_mut().next().context("no root field")?;
    Ok(event.take())
}

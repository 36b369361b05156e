//! A reader that speaks `tidewire.v1` over a plain WebSocket.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail, ensure};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::{http, wait};

/// How a connection is opened.
#[derive(Debug, Clone, Default)]
pub struct Dial {
    /// Sent as `Authorization: Bearer`.
    pub token: Option<String>,
    /// What follows the path, with its question mark.
    pub query: String,
    /// The path and the subprotocol; `/v1/ws` and `tidewire.v1` where there is none.
    pub tongue: Option<(&'static str, &'static str)>,
    /// More request headers.
    pub headers: Vec<(String, String)>,
    /// The size of the socket's receive buffer.
    pub receive_bytes: Option<usize>,
}

/// An open connection.
pub struct Ws {
    inner: WebSocketStream<TcpStream>,
}

/// What a connection says.
#[derive(Debug, Clone, PartialEq)]
pub enum Said {
    /// A message.
    Message(Value),
    /// It closed the session with a code and a reason.
    Closed {
        /// The close code.
        code: u16,
        /// The reason.
        reason: String,
    },
    /// The connection ended without a word.
    Gone,
}

/// The server did not upgrade.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The HTTP status.
    pub status: u16,
    /// The problem document's code.
    pub code: String,
}

/// A TCP connection to the gateway, non-blocking, with a receive buffer of a chosen size.
pub async fn connect(address: SocketAddr, receive_bytes: Option<usize>) -> Result<TcpStream> {
    let stream = match receive_bytes {
        None => wait::within("a connection", TcpStream::connect(address)).await??,
        Some(bytes) => {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            // Before connecting: the window that is offered is fixed with the handshake.
            socket.set_recv_buffer_size(bytes)?;
            socket.connect(&address.into())?;
            socket.set_nonblocking(true)?;
            TcpStream::from_std(socket.into())?
        }
    };
    stream.set_nodelay(true)?;
    Ok(stream)
}

impl Ws {
    /// Opens a connection with a token in its header.
    pub async fn open(address: SocketAddr, token: &str) -> Result<Self> {
        let dial = Dial {
            token: Some(token.to_owned()),
            ..Dial::default()
        };
        match Self::dial(address, &dial).await? {
            Ok(ws) => Ok(ws),
            Err(refused) => bail!("refused: {refused:?}"),
        }
    }

    /// Opens a connection, or tells how it was refused.
    pub async fn dial(address: SocketAddr, dial: &Dial) -> Result<Result<Self, Refused>> {
        let (path, protocol) = dial.tongue.unwrap_or(("/v1/ws", "tidewire.v1"));
        let mut request = format!("ws://{address}{path}{}", dial.query).into_client_request()?;
        let headers = request.headers_mut();
        headers.insert("sec-websocket-protocol", protocol.parse()?);
        if let Some(token) = &dial.token {
            headers.insert("authorization", http::bearer(token).parse()?);
        }
        for (name, value) in &dial.headers {
            let name: reqwest::header::HeaderName = name.parse()?;
            headers.insert(name, value.parse()?);
        }
        let stream = connect(address, dial.receive_bytes).await?;
        match wait::within("an upgrade", tokio_tungstenite::client_async(request, stream)).await? {
            Ok((inner, answer)) => {
                let spoken = answer.headers().get("sec-websocket-protocol");
                ensure!(
                    spoken.is_some_and(|spoken| spoken == protocol),
                    "the subprotocol is {spoken:?}"
                );
                Ok(Ok(Self { inner }))
            }
            Err(Error::Http(answer)) => {
                let body: Option<Value> = answer
                    .body()
                    .as_ref()
                    .and_then(|body| serde_json::from_slice(body).ok());
                let code = body
                    .as_ref()
                    .and_then(|body| body.get("code")?.as_str())
                    .unwrap_or_default();
                Ok(Err(Refused {
                    status: answer.status().as_u16(),
                    code: code.to_owned(),
                }))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Sends a message.
    pub async fn say(&mut self, message: &Value) -> Result<()> {
        self.send(Message::text(message.to_string())).await
    }

    /// Sends any frame.
    pub async fn send(&mut self, message: Message) -> Result<()> {
        wait::within("a frame to be sent", self.inner.send(message)).await??;
        Ok(())
    }

    /// The next thing that is said. Cancel safe.
    pub async fn hear(&mut self) -> Result<Said> {
        wait::within("something to be said", self.listen()).await?
    }

    /// The next thing that is said, however long it takes. Cancel safe.
    pub async fn listen(&mut self) -> Result<Said> {
        loop {
            return Ok(match self.inner.next().await {
                Some(Ok(Message::Text(text))) => {
                    Said::Message(serde_json::from_str(&text).context("not JSON")?)
                }
                Some(Ok(Message::Close(frame))) => frame.map_or(
                    Said::Closed {
                        code: 1005,
                        reason: String::new(),
                    },
                    |frame| Said::Closed {
                        code: frame.code.into(),
                        reason: frame.reason.to_string(),
                    },
                ),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                Some(Ok(other)) => bail!("unexpected frame: {other:?}"),
                Some(Err(_)) | None => Said::Gone,
            });
        }
    }

    /// The next message of this type; others are passed over, an end is an error.
    pub async fn until(&mut self, kind: &str) -> Result<Value> {
        let mut passed = Vec::new();
        loop {
            match self
                .hear()
                .await
                .with_context(|| format!("waiting for {kind} after {passed:?}"))?
            {
                Said::Message(message) if message["type"] == kind => return Ok(message),
                Said::Message(message) => passed.push(message["type"].to_string()),
                other => bail!("{other:?} instead of {kind}, after {passed:?}"),
            }
        }
    }

    /// Reads to the end: the close code and reason, `None` where the connection ended without a word.
    pub async fn end(&mut self) -> Result<Option<(u16, String)>> {
        loop {
            match self.hear().await? {
                Said::Message(_) => {}
                Said::Closed { code, reason } => return Ok(Some((code, reason))),
                Said::Gone => return Ok(None),
            }
        }
    }

    /// Subscribes and waits for the answer: `subscribed` or `error`.
    pub async fn subscribe(&mut self, subscribe: &Value) -> Result<Value> {
        let mut message = json!({"type": "subscribe"});
        let (Some(all), Some(more)) = (message.as_object_mut(), subscribe.as_object()) else {
            bail!("a subscription is an object")
        };
        all.extend(more.clone());
        self.say(&message).await?;
        let id = &subscribe["id"];
        loop {
            match self.hear().await? {
                Said::Message(message)
                    if (message["type"] == "subscribed" || message["type"] == "error")
                        && &message["id"] == id =>
                {
                    return Ok(message);
                }
                Said::Message(_) => {}
                other => bail!("{other:?} instead of an answer to {subscribe}"),
            }
        }
    }

    /// The socket beneath.
    pub fn socket(&self) -> &TcpStream {
        self.inner.get_ref()
    }
}

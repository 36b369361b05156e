//! Bytes on a socket: for what no well-behaved client would send.

use std::net::SocketAddr;

use anyhow::Result;
use base64::Engine;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::{wait, ws};

/// A connection on which anything can be sent.
pub struct Raw {
    stream: TcpStream,
}

/// What a server sent before it closed.
#[derive(Debug, Clone)]
pub struct Heard {
    /// All bytes.
    pub bytes: Vec<u8>,
}

impl Raw {
    /// Connects.
    pub async fn connect(address: SocketAddr) -> Result<Self> {
        Ok(Self {
            stream: ws::connect(address, None).await?,
        })
    }

    /// Connects and upgrades to a WebSocket by hand.
    pub async fn upgrade(address: SocketAddr, token: &str) -> Result<Self> {
        let more = format!("Sec-WebSocket-Protocol: tidewire.v1\r\nAuthorization: Bearer {token}\r\n");
        Self::upgrade_to(address, "/v1/ws", &more).await
    }

    /// Connects and upgrades on this path, with more lines in the head.
    pub async fn upgrade_to(address: SocketAddr, path: &str, more: &str) -> Result<Self> {
        let mut raw = Self::connect(address).await?;
        let key = base64::engine::general_purpose::STANDARD.encode(rand::random::<[u8; 16]>());
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n{more}\r\n"
        );
        raw.send(request.as_bytes()).await?;
        let head = raw.read_until(b"\r\n\r\n").await?;
        anyhow::ensure!(
            head.starts_with(b"HTTP/1.1 101 "),
            "{}",
            String::from_utf8_lossy(&head)
        );
        Ok(raw)
    }

    /// Sends bytes; a connection that the other side has closed takes them silently.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<bool> {
        Ok(wait::within("bytes to be sent", self.stream.write_all(bytes))
            .await?
            .is_ok())
    }

    /// Reads up to and with a mark.
    pub async fn read_until(&mut self, mark: &[u8]) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        while !bytes.ends_with(mark) {
            let byte = wait::within("bytes", self.stream.read_u8()).await??;
            bytes.push(byte);
        }
        Ok(bytes)
    }

    /// Closes our half; what the other side sends is still read.
    pub async fn finish(&mut self) -> Result<()> {
        Ok(self.stream.shutdown().await?)
    }

    /// Everything until the other side closes.
    pub async fn to_end(&mut self) -> Result<Heard> {
        let mut bytes = Vec::new();
        // A reset is an end too: the server threw away what it did not want to read.
        let _ = wait::within("the server to close", self.stream.read_to_end(&mut bytes))
            .await?
            .is_err();
        Ok(Heard { bytes })
    }
}

impl Heard {
    /// The status of an HTTP answer, 0 where there is none.
    #[must_use]
    pub fn status(&self) -> u16 {
        let text = String::from_utf8_lossy(&self.bytes);
        let code = text.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
        code.and_then(|code| code.parse().ok()).unwrap_or(0)
    }

    /// The code of a problem document.
    #[must_use]
    pub fn problem(&self) -> String {
        let text = String::from_utf8_lossy(&self.bytes);
        let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        let body: Option<serde_json::Value> = serde_json::from_str(body.trim()).ok();
        body.and_then(|body| Some(body.get("code")?.as_str()?.to_owned()))
            .unwrap_or_default()
    }

    /// The code of the close frame among the WebSocket frames, if there is one.
    #[must_use]
    pub fn close_code(&self) -> Option<u16> {
        let mut rest = self.bytes.as_slice();
        while let [first, second, tail @ ..] = rest {
            let (length, body) = match second & 0x7f {
                126 => (
                    usize::from(u16::from_be_bytes(tail.get(..2)?.try_into().ok()?)),
                    tail.get(2..)?,
                ),
                127 => (
                    usize::try_from(u64::from_be_bytes(tail.get(..8)?.try_into().ok()?)).ok()?,
                    tail.get(8..)?,
                ),
                short => (usize::from(short), tail),
            };
            let payload = body.get(..length)?;
            if first & 0x0f == 8 {
                return Some(u16::from_be_bytes(payload.get(..2)?.try_into().ok()?));
            }
            rest = body.get(length..)?;
        }
        None
    }
}

/// A client's frame: masked, as it must be, unless told otherwise.
#[must_use]
pub fn frame(first: u8, payload: &[u8], masked: bool) -> Vec<u8> {
    let mut frame = vec![first];
    let mask_bit = if masked { 0x80 } else { 0 };
    match payload.len() {
        short @ 0..=125 => frame.push(mask_bit | u8::try_from(short).unwrap_or(0)),
        medium @ 126..=0xffff => {
            frame.push(mask_bit | 126);
            frame.extend(u16::try_from(medium).unwrap_or(0).to_be_bytes());
        }
        long => {
            frame.push(mask_bit | 127);
            frame.extend(u64::try_from(long).unwrap_or(0).to_be_bytes());
        }
    }
    if masked {
        let mask: [u8; 4] = [0x12, 0x34, 0x56, 0x78];
        frame.extend(mask);
        frame.extend(
            payload
                .iter()
                .zip(mask.iter().cycle())
                .map(|(byte, mask)| byte ^ mask),
        );
    } else {
        frame.extend(payload);
    }
    frame
}

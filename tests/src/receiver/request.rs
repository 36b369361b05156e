//! One request as it came over the socket.

use anyhow::{Result, bail, ensure};
use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// The longest head and the longest body that a sender of ours has a reason for.
const HEAD_BYTES_MAX: usize = 64 << 10;
const BODY_BYTES_MAX: usize = 16 << 20;

/// Which planned event something is about: what stands in its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Event {
    /// The partition that it was produced to.
    pub partition: i32,
    /// Its number within the partition.
    pub n: i64,
}

/// A request, whole.
#[derive(Debug, Clone)]
pub struct Request {
    /// The method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// The headers in order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Request {
    /// The path alone.
    #[must_use]
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// A header; empty where there is none.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(have, _)| have == name);
        found.map_or("", |(_, value)| value)
    }

    /// The body as JSON; null where it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// Which planned event it is about, if its body tells: a structured event has it in `data`, others are the data.
    #[must_use]
    pub fn event(&self) -> Option<Event> {
        let body = self.json();
        let data = body.get("data").unwrap_or(&body);
        Some(Event {
            partition: i32::try_from(data.get("partition")?.as_i64()?).ok()?,
            n: data.get("n")?.as_i64()?,
        })
    }
}

/// Reads the next request; `None` at the end of the connection.
pub(super) async fn read(socket: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<Option<Request>> {
    let Some(head_bytes) = read_head(socket, buffer).await? else {
        return Ok(None);
    };
    let head = String::from_utf8_lossy(buffer.get(..head_bytes).unwrap_or_default()).into_owned();
    let mut lines = head.split("\r\n");
    let mut first = lines.next().unwrap_or_default().split(' ');
    let (method, target) = (
        first.next().unwrap_or_default().to_owned(),
        first.next().unwrap_or_default().to_owned(),
    );
    let mut headers = Vec::new();
    for line in lines.filter(|line| !line.is_empty()) {
        let Some((name, value)) = line.split_once(':') else {
            bail!("no header: {line}");
        };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut request = Request {
        method,
        target,
        headers,
        body: Vec::new(),
    };
    ensure!(
        request.header("transfer-encoding").is_empty(),
        "a delivery has a length"
    );
    let body_bytes = match request.header("content-length") {
        "" => 0,
        text => text.parse::<usize>()?,
    };
    ensure!(body_bytes <= BODY_BYTES_MAX, "a body of {body_bytes} bytes");
    let whole = head_bytes + body_bytes;
    while buffer.len() < whole {
        ensure!(
            socket.read_buf(buffer).await? > 0,
            "the connection ended in a body"
        );
    }
    request.body = buffer.get(head_bytes..whole).unwrap_or_default().to_vec();
    buffer.drain(..whole);
    Ok(Some(request))
}

/// Reads until a head is whole: its length with the empty line.
async fn read_head(socket: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<Option<usize>> {
    loop {
        if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            return Ok(Some(at + 4));
        }
        ensure!(buffer.len() < HEAD_BYTES_MAX, "a head without an end");
        if socket.read_buf(buffer).await? == 0 {
            ensure!(buffer.is_empty(), "the connection ended in a head");
            return Ok(None);
        }
    }
}

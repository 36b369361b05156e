//! A reader of server-sent events, parsed as the HTML standard says.

use std::collections::VecDeque;
use std::net::SocketAddr;

use anyhow::{Context, Result};
use bytes::Bytes;
use reqwest::{Method, Response};
use serde_json::Value;

use crate::http::{self, Answer};
use crate::wait;

/// An open response.
pub struct Sse {
    response: Response,
    lines: Lines,
    block: Block,
    ready: VecDeque<Dispatch>,
    /// What the response began with.
    pub headers: reqwest::header::HeaderMap,
}

/// A block that ended with an empty line.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Dispatch {
    /// The last `id:` so far, of this block or an earlier one.
    pub id: Option<String>,
    /// Whether this block had an `id:`.
    pub has_id: bool,
    /// `event:`; `message` where there was none.
    pub event: String,
    /// `data:`, its lines joined; `None`: nothing is dispatched, only the id moved.
    pub data: Option<String>,
    /// `retry:`.
    pub retry: Option<String>,
}

impl Dispatch {
    /// The data as JSON.
    pub fn json(&self) -> Result<Value> {
        let data = self.data.as_deref().context("no data")?;
        serde_json::from_str(data).with_context(|| data.to_owned())
    }
}

/// How a stream is asked for.
#[derive(Debug, Clone, Default)]
pub struct Ask<'a> {
    /// Sent as `Authorization: Bearer`.
    pub token: Option<&'a str>,
    /// The query.
    pub query: Vec<(&'a str, &'a str)>,
    /// More request headers.
    pub headers: Vec<(&'a str, &'a str)>,
    /// Sent by POST as JSON.
    pub body: Option<Value>,
}

impl Sse {
    /// Opens a stream, or gives the answer that refused it.
    pub async fn ask(address: SocketAddr, stream: &str, ask: &Ask<'_>) -> Result<Result<Self, Answer>> {
        let method = if ask.body.is_some() {
            Method::POST
        } else {
            Method::GET
        };
        let url = format!("http://{address}/v1/streams/{stream}{}", http::query(&ask.query));
        let mut request = http::client()
            .request(method, url)
            .header("accept", "text/event-stream");
        if let Some(token) = ask.token {
            request = request.header("authorization", http::bearer(token));
        }
        for (name, value) in &ask.headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = &ask.body {
            request = request
                .header("content-type", "application/json")
                .body(body.to_string());
        }
        Self::begin(request).await
    }

    /// Sends a request whose answer is a stream, or gives the answer that refused it.
    pub async fn begin(request: reqwest::RequestBuilder) -> Result<Result<Self, Answer>> {
        let response = wait::within("a stream to begin", request.send()).await??;
        let headers = response.headers().clone();
        if response.status() == 200 {
            let (lines, block, ready) = (Lines::default(), Block::default(), VecDeque::new());
            Ok(Ok(Self {
                response,
                lines,
                block,
                ready,
                headers,
            }))
        } else {
            let status = response.status().as_u16();
            let body = wait::within("a refusal", response.bytes()).await??.to_vec();
            Ok(Err(Answer {
                status,
                headers,
                body,
            }))
        }
    }

    /// The next block, `None` at the end of the response. Cancel safe.
    pub async fn next(&mut self) -> Result<Option<Dispatch>> {
        wait::within("a server-sent event", self.listen()).await?
    }

    /// The next block, however long it takes. Cancel safe.
    pub async fn listen(&mut self) -> Result<Option<Dispatch>> {
        loop {
            if let Some(dispatch) = self.ready.pop_front() {
                return Ok(Some(dispatch));
            }
            let Ok(Some(chunk)) = self.response.chunk().await else {
                return Ok(None);
            };
            for line in self.lines.feed(&chunk) {
                self.ready.extend(self.block.line(&line));
            }
        }
    }

    /// The next block of this event type; others are passed over, the end is an error.
    pub async fn until(&mut self, event: &str) -> Result<Dispatch> {
        loop {
            let dispatch = self
                .next()
                .await?
                .with_context(|| format!("the response ended before {event}"))?;
            if dispatch.data.is_some() && dispatch.event == event {
                return Ok(dispatch);
            }
        }
    }
}

/// Cuts bytes into lines, which may end with `\r\n`, `\n` or `\r`.
#[derive(Default)]
struct Lines {
    rest: Vec<u8>,
    after_return: bool,
}

impl Lines {
    fn feed(&mut self, chunk: &Bytes) -> Vec<String> {
        let mut lines = Vec::new();
        for byte in chunk {
            match byte {
                b'\n' if self.after_return => self.after_return = false,
                b'\n' | b'\r' => {
                    self.after_return = *byte == b'\r';
                    lines.push(String::from_utf8_lossy(&std::mem::take(&mut self.rest)).into_owned());
                }
                byte => {
                    self.after_return = false;
                    self.rest.push(*byte);
                }
            }
        }
        lines
    }
}

/// The fields of the block that is being read.
#[derive(Default)]
struct Block {
    last_id: Option<String>,
    has_id: bool,
    event: String,
    data: Option<String>,
    retry: Option<String>,
}

impl Block {
    fn line(&mut self, line: &str) -> Option<Dispatch> {
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            let dispatch = Dispatch {
                id: self.last_id.clone(),
                has_id: std::mem::take(&mut self.has_id),
                event: if event.is_empty() {
                    "message".to_owned()
                } else {
                    event
                },
                data: self.data.take(),
                retry: self.retry.take(),
            };
            let says_something = dispatch.has_id || dispatch.data.is_some() || dispatch.retry.is_some();
            return says_something.then_some(dispatch);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" if !value.contains('\0') => {
                self.last_id = Some(value.to_owned());
                self.has_id = true;
            }
            "event" => value.clone_into(&mut self.event),
            "data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_owned()),
            },
            "retry" => self.retry = Some(value.to_owned()),
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_read_whatever_the_line_ends_and_wherever_chunks_are_cut() {
        let text =
            "retry: 100\n\nid: a\n\nevent: gap\r\nid: b\r\ndata: {}\r\n\r\n: quiet\n\ndata: x\rdata: y\r\r";
        for cut in 0..text.len() {
            let (mut lines, mut block) = (Lines::default(), Block::default());
            let (head, tail) = text.as_bytes().split_at(cut);
            let mut heard = Vec::new();
            for part in [head, tail] {
                for line in lines.feed(&Bytes::copy_from_slice(part)) {
                    heard.extend(block.line(&line));
                }
            }
            let heard: Vec<_> = heard
                .into_iter()
                .map(|one| (one.id, one.event, one.data))
                .collect();
            let some = |text: &str| Some(text.to_owned());
            assert_eq!(
                heard,
                [
                    (None, "message".to_owned(), None),
                    (some("a"), "message".to_owned(), None),
                    (some("b"), "gap".to_owned(), some("{}")),
                    (some("b"), "message".to_owned(), some("x\ny")),
                ]
            );
        }
    }
}

//! What a receiver does with a request: decided by a behaviour, done to the socket here.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::request::Event;

/// What is done with one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// This status.
    Status(u16),
    /// This status and `Retry-After`.
    RetryAfter(u16, String),
    /// 307 to somewhere else.
    Redirect(String),
    /// Nothing, until the sender gives up.
    Hang,
    /// The connection is reset without an answer.
    Reset,
    /// 200, and then a byte a second.
    Drip,
    /// 200 after so long.
    Slow(Duration),
    /// 200 and so many bytes.
    Flood(u64),
}

/// What a behaviour is asked about.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// `webhook-id`.
    pub id: &'a str,
    /// `tidewire-attempt`.
    pub number: u32,
    /// The how-manieth request with this id it is here, from 1.
    pub nth: u32,
    /// The how-manieth request at all it is here, from 1.
    pub count: usize,
    /// What it is about.
    pub event: Option<Event>,
}

/// Decides about requests.
#[derive(Clone)]
pub struct Behaviour(Arc<dyn Fn(&Asked<'_>) -> Answer + Send + Sync>);

impl Behaviour {
    /// Decides by this.
    pub fn by(decide: impl Fn(&Asked<'_>) -> Answer + Send + Sync + 'static) -> Self {
        Self(Arc::new(decide))
    }

    /// The same for every request.
    #[must_use]
    pub fn always(answer: Answer) -> Self {
        Self::by(move |_| answer.clone())
    }

    /// 200.
    #[must_use]
    pub fn good() -> Self {
        Self::always(Answer::Status(200))
    }

    /// These for the first requests, and 200 for all that follow.
    #[must_use]
    pub fn first(answers: Vec<Answer>) -> Self {
        Self::by(move |asked| {
            answers
                .get(asked.count - 1)
                .cloned()
                .unwrap_or(Answer::Status(200))
        })
    }

    /// Of a hundred requests so many are answered by 500, so many hang and so many are reset; the others are taken. The dice
    /// are thrown anew for each request, and fall the same for the same seed, event and count, in whatever order they come.
    #[must_use]
    pub fn failing(seed: u64, errors: u64, hangs: u64, resets: u64) -> Self {
        Self::by(move |asked| {
            let mut hasher = DefaultHasher::new();
            (seed, asked.event, asked.nth).hash(&mut hasher);
            match hasher.finish() % 100 {
                luck if luck < errors => Answer::Status(500),
                luck if luck < errors + hangs => Answer::Hang,
                luck if luck < errors + hangs + resets => Answer::Reset,
                _ => Answer::Status(200),
            }
        })
    }

    pub(super) fn decide(&self, asked: &Asked<'_>) -> Answer {
        (self.0)(asked)
    }
}

impl fmt::Debug for Behaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Behaviour")
    }
}

impl Answer {
    /// Whether the sender is told that its request was taken.
    #[must_use]
    pub fn accepts(&self) -> bool {
        match self {
            Self::Status(status) => (200..300).contains(status),
            Self::Drip | Self::Slow(_) | Self::Flood(_) => true,
            Self::RetryAfter(..) | Self::Redirect(_) | Self::Hang | Self::Reset => false,
        }
    }

    /// Does it. Whether the connection goes on.
    pub(super) async fn give(self, socket: &mut TcpStream) -> Result<bool> {
        match self {
            Self::Status(status) => write(socket, status, "content-length: 0").await?,
            Self::RetryAfter(status, after) => {
                let headers = format!("content-length: 0\r\nretry-after: {after}");
                write(socket, status, &headers).await?;
            }
            Self::Redirect(to) => {
                write(socket, 307, &format!("content-length: 0\r\nlocation: {to}")).await?;
            }
            Self::Hang => {
                let mut rest = [0; 1024];
                while socket.read(&mut rest).await? > 0 {}
                return Ok(false);
            }
            Self::Reset => {
                socket2::SockRef::from(&*socket).set_linger(Some(Duration::ZERO))?;
                return Ok(false);
            }
            Self::Drip => {
                write(socket, 200, "content-length: 1000000").await?;
                let mut pace = tokio::time::interval(Duration::from_secs(1));
                loop {
                    pace.tick().await;
                    socket.write_all(b"x").await?;
                }
            }
            Self::Slow(how_long) => {
                tokio::time::sleep(how_long).await;
                write(socket, 200, "content-length: 0").await?;
            }
            Self::Flood(bytes) => {
                write(socket, 200, &format!("content-length: {bytes}")).await?;
                let chunk = vec![b'x'; 64 << 10];
                let mut left = usize::try_from(bytes)?;
                while left > 0 {
                    let now = left.min(chunk.len());
                    socket.write_all(chunk.get(..now).unwrap_or_default()).await?;
                    left -= now;
                }
            }
        }
        Ok(true)
    }
}

async fn write(socket: &mut TcpStream, status: u16, headers: &str) -> Result<()> {
    let head = format!("HTTP/1.1 {status} Answer\r\n{headers}\r\n\r\n");
    Ok(socket.write_all(head.as_bytes()).await?)
}

//! One reader of one stream, the same on every surface: what most promises are told with.

use std::collections::VecDeque;
use std::net::SocketAddr;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::http::{self, Answer};
use crate::sse::{Ask, Sse};
use crate::wait;
use crate::ws::{Dial, Said, Ws};

/// How a stream is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Surface {
    /// `tidewire.v1` on a WebSocket.
    WebSocket,
    /// Server-sent events.
    Sse,
    /// Page by page, with long polls.
    Pull,
}

impl Surface {
    /// All three.
    pub const ALL: [Self; 3] = [Self::WebSocket, Self::Sse, Self::Pull];
}

/// What is read, by whom and from where.
#[derive(Debug, Clone, Default)]
pub struct Want {
    /// The stream.
    pub stream: String,
    /// The token.
    pub token: String,
    /// `after`, if any.
    pub after: Option<String>,
    /// The filter: an attribute and the values of which it must have one.
    pub filter: Vec<(String, Vec<String>)>,
    /// Events on a page; pull only.
    pub limit: Option<usize>,
    /// The size of the socket's receive buffer; WebSocket only.
    pub receive_bytes: Option<usize>,
}

impl Want {
    /// A stream, for the bearer of a token.
    #[must_use]
    pub fn new(stream: &str, token: &str) -> Self {
        Self {
            stream: stream.to_owned(),
            token: token.to_owned(),
            ..Self::default()
        }
    }

    /// From there on.
    #[must_use]
    pub fn after(mut self, after: impl Into<String>) -> Self {
        self.after = Some(after.into());
        self
    }

    /// Only with this value of an attribute.
    #[must_use]
    pub fn only(mut self, attribute: &str, value: &str) -> Self {
        self.filter.push((attribute.to_owned(), vec![value.to_owned()]));
        self
    }

    fn filter_json(&self) -> Value {
        Value::Object(
            self.filter
                .iter()
                .map(|(name, values)| (name.clone(), json!(values)))
                .collect(),
        )
    }

    /// The filter as query parameters; commas in values are escaped.
    #[must_use]
    pub fn filter_query(&self) -> Vec<(String, String)> {
        let escape = |value: &String| value.replace('\\', "\\\\").replace(',', "\\,");
        let join = |values: &[String]| values.iter().map(escape).collect::<Vec<_>>().join(",");
        self.filter
            .iter()
            .map(|(name, values)| (name.clone(), join(values)))
            .collect()
    }
}

/// What a reader is told.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    /// An event: the CloudEvents object, without the pull surface's `cursor`.
    Event(Value),
    /// The replay is over.
    Live,
    /// Something could not be given any more: the list of partitions.
    Gap(Value),
    /// Only the cursor moved.
    Quiet,
    /// Another message, by its name.
    Other(String, Value),
    /// The session ended: its code (close code or problem code) and reason; empty where it ended without a word.
    Ended(String),
}

enum Line {
    WebSocket(Box<Ws>),
    Sse(Box<Sse>),
    Pull(Box<Pull>),
}

struct Pull {
    address: SocketAddr,
    ready: VecDeque<(Option<String>, Item)>,
}

/// A reader. Dropping it cuts the connection.
pub struct Reader {
    line: Line,
    want: Want,
    cursor: Option<String>,
}

impl Reader {
    /// Begins to read; a refusal is an error.
    pub async fn open(surface: Surface, address: SocketAddr, want: Want) -> Result<Self> {
        match Self::try_open(surface, address, want).await? {
            Ok(reader) => Ok(reader),
            Err(code) => bail!("refused on {surface:?}: {code}"),
        }
    }

    /// Begins to read, or tells the code of the refusal. When it returns, everything that is produced from now on is
    /// given: the position is fixed.
    pub async fn try_open(surface: Surface, address: SocketAddr, want: Want) -> Result<Result<Self, String>> {
        match surface {
            Surface::WebSocket => Self::open_ws(address, want).await,
            Surface::Sse => Self::open_sse(address, want).await,
            Surface::Pull => {
                let mut reader = Self {
                    line: Line::Pull(Box::new(Pull {
                        address,
                        ready: VecDeque::new(),
                    })),
                    cursor: want.after.clone(),
                    want,
                };
                match reader.page(0).await? {
                    Ok(()) => Ok(Ok(reader)),
                    Err(answer) => Ok(Err(answer.code())),
                }
            }
        }
    }

    async fn open_ws(address: SocketAddr, want: Want) -> Result<Result<Self, String>> {
        let dial = Dial {
            token: Some(want.token.clone()),
            receive_bytes: want.receive_bytes,
            ..Dial::default()
        };
        let mut ws = match Ws::dial(address, &dial).await? {
            Ok(ws) => ws,
            Err(refused) => return Ok(Err(refused.code)),
        };
        let mut subscribe = json!({"id": "s", "stream": want.stream});
        if let Some(after) = &want.after {
            subscribe["after"] = json!(after);
        }
        if !want.filter.is_empty() {
            subscribe["where"] = want.filter_json();
        }
        let answer = ws.subscribe(&subscribe).await?;
        if answer["type"] == "error" {
            return Ok(Err(answer["code"].as_str().unwrap_or_default().to_owned()));
        }
        let cursor = answer["cursor"]
            .as_str()
            .context("subscribed has a cursor")?
            .to_owned();
        Ok(Ok(Self {
            line: Line::WebSocket(Box::new(ws)),
            want,
            cursor: Some(cursor),
        }))
    }

    async fn open_sse(address: SocketAddr, want: Want) -> Result<Result<Self, String>> {
        let filter = want.filter_query();
        let mut query: Vec<(&str, &str)> = filter
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        query.extend(want.after.as_deref().map(|after| ("after", after)));
        let ask = Ask {
            token: Some(&want.token),
            query,
            ..Ask::default()
        };
        let mut sse = match Sse::ask(address, &want.stream, &ask).await? {
            Ok(sse) => sse,
            Err(answer) => return Ok(Err(answer.code())),
        };
        // The first thing is an id alone: from here on nothing is missed.
        let cursor = loop {
            let first = sse.next().await?.context("the response ended at once")?;
            if first.has_id {
                ensure!(
                    first.data.is_none(),
                    "the first thing is an id alone, not {first:?}"
                );
                break first.id;
            }
        };
        Ok(Ok(Self {
            line: Line::Sse(Box::new(sse)),
            want,
            cursor,
        }))
    }

    /// The cursor from which another reader would go on.
    #[must_use]
    pub fn cursor(&self) -> Option<&str> {
        self.cursor.as_deref()
    }

    /// What it wants, from where it is now.
    #[must_use]
    pub fn want_more(&self) -> Want {
        let mut want = self.want.clone();
        want.after.clone_from(&self.cursor);
        want
    }

    /// What it is told next. Cancel safe on WebSocket and SSE.
    pub async fn next(&mut self) -> Result<Item> {
        wait::within("something for the reader", self.listen()).await?
    }

    /// The next event; whatever else is told before is passed over, but a gap or an end is an error.
    pub async fn event(&mut self) -> Result<Value> {
        loop {
            match self.next().await? {
                Item::Event(event) => return Ok(event),
                Item::Live | Item::Quiet | Item::Other(..) => {}
                other => bail!("{other:?} instead of an event"),
            }
        }
    }

    /// Everything up to the end of the replay (pull: up to an empty page).
    pub async fn until_live(&mut self) -> Result<Vec<Item>> {
        let mut items = Vec::new();
        loop {
            match self.next().await? {
                Item::Live => return Ok(items),
                Item::Ended(code) => bail!("ended with {code:?} after {} items", items.len()),
                item => items.push(item),
            }
        }
    }

    /// What it is told next, however long it takes.
    pub async fn listen(&mut self) -> Result<Item> {
        let (cursor, item) = match &mut self.line {
            Line::WebSocket(ws) => from_ws(ws.listen().await?)?,
            Line::Sse(sse) => from_sse(sse).await?,
            Line::Pull(_) => loop {
                if let Line::Pull(pull) = &mut self.line
                    && let Some(ready) = pull.ready.pop_front()
                {
                    break ready;
                }
                if let Err(answer) = self.page(1).await? {
                    return Ok(Item::Ended(answer.code()));
                }
            },
        };
        if cursor.is_some() {
            self.cursor = cursor;
        }
        Ok(item)
    }

    /// Asks for the next page. An empty page is told as [`Item::Live`].
    async fn page(&mut self, wait_s: u32) -> Result<Result<(), Answer>> {
        let Line::Pull(pull) = &mut self.line else {
            bail!("only pull has pages")
        };
        let filter = self.want.filter_query();
        let mut query: Vec<(&str, &str)> = filter
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let (limit, wait_s) = (self.want.limit.unwrap_or(100).to_string(), wait_s.to_string());
        query.extend([("limit", limit.as_str()), ("wait", wait_s.as_str())]);
        query.extend(self.cursor.as_deref().map(|after| ("after", after)));
        let path = format!("/v1/streams/{}{}", self.want.stream, http::query(&query));
        let authorization = http::bearer(&self.want.token);
        let headers = [
            ("accept", "application/cloudevents-batch+json"),
            ("authorization", authorization.as_str()),
        ];
        let answer = http::get(pull.address, &path, &headers).await?;
        if answer.status != 200 {
            return Ok(Err(answer));
        }
        let next = next_cursor(&answer)?;
        if let Some(gap) = gap_of(&answer)? {
            pull.ready.push_back((None, Item::Gap(gap)));
        }
        let Value::Array(events) = answer.json()? else {
            bail!("a page is an array: {}", answer.text())
        };
        let empty = events.is_empty();
        for mut event in events {
            let cursor = event
                .as_object_mut()
                .context("an event is an object")?
                .shift_remove("cursor");
            let cursor = cursor
                .as_ref()
                .and_then(Value::as_str)
                .context("each event has its cursor")?
                .to_owned();
            pull.ready.push_back((Some(cursor), Item::Event(event)));
        }
        if empty {
            pull.ready.push_back((Some(next.clone()), Item::Live));
        }
        // The page's end may be beyond its last event.
        if let Some((cursor, _)) = pull.ready.back_mut() {
            *cursor = Some(next);
        }
        if self.cursor.is_none() {
            // The first page fixes the position, even if the reader never looks at what is on it.
            self.cursor = pull.ready.back().and_then(|(cursor, _)| cursor.clone());
        }
        Ok(Ok(()))
    }
}

fn from_ws(said: Said) -> Result<(Option<String>, Item)> {
    let message = match said {
        Said::Message(message) => message,
        Said::Closed { code, reason } => return Ok((None, Item::Ended(format!("{code} {reason}")))),
        Said::Gone => return Ok((None, Item::Ended(String::new()))),
    };
    let kind = message["type"]
        .as_str()
        .context("a message has a type")?
        .to_owned();
    let cursor = message["cursor"].as_str().map(str::to_owned);
    let item = match kind.as_str() {
        "event" => {
            ensure!(cursor.is_some(), "an event has its cursor");
            Item::Event(message["event"].clone())
        }
        "live" => Item::Live,
        "gap" => Item::Gap(message["partitions"].clone()),
        "cursor" => Item::Quiet,
        _ => Item::Other(kind, message),
    };
    Ok((cursor, item))
}

async fn from_sse(sse: &mut Sse) -> Result<(Option<String>, Item)> {
    let Some(dispatch) = sse.listen().await? else {
        return Ok((None, Item::Ended(String::new())));
    };
    let cursor = if dispatch.has_id {
        dispatch.id.clone()
    } else {
        None
    };
    if dispatch.data.is_none() {
        return Ok((cursor, Item::Quiet));
    }
    let data = dispatch.json()?;
    let item = match dispatch.event.as_str() {
        "message" => {
            ensure!(cursor.is_some(), "an event has its id");
            Item::Event(data)
        }
        "live" => Item::Live,
        "gap" => Item::Gap(data["partitions"].clone()),
        "problem" => Item::Ended(data["code"].as_str().unwrap_or_default().to_owned()),
        other => Item::Other(other.to_owned(), data),
    };
    Ok((cursor, item))
}

/// The cursor in `Link: <...>; rel="next"`.
pub fn next_cursor(answer: &Answer) -> Result<String> {
    let link = answer.header("link");
    let target = link
        .split(',')
        .find(|link| link.contains("rel=\"next\""))
        .and_then(|link| link.split_once('<')?.1.split_once('>'))
        .with_context(|| format!("no next link in {link:?}"))?
        .0;
    let url = url::Url::parse("http://gateway")?.join(target)?;
    let after = url.query_pairs().find(|(name, _)| name == "after");
    Ok(after
        .with_context(|| format!("{target} has no after"))?
        .1
        .into_owned())
}

/// The gap that a page tells in its `Tidewire-Gap` header.
fn gap_of(answer: &Answer) -> Result<Option<Value>> {
    let text = answer.header("tidewire-gap");
    if text.is_empty() {
        return Ok(None);
    }
    let gap: Value = serde_json::from_str(&text)?;
    Ok(Some(gap.get("partitions").cloned().unwrap_or(gap)))
}

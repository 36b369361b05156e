//! What somebody wrote of an endpoint: every field with its limit, and a code for each way to miss it.
//!
//! Invariant: what is read here is right by itself; whether the owner may have it is asked by [`Spec::interests`].

use std::collections::BTreeMap;
use std::time::Duration;

use auth::egress::{EgressError, Reach};
use http::{HeaderName, HeaderValue};
use schemas::ids::StreamName;
use schemas::problem::Code;
use serde_json::{Map, Value, json};
use url::Url;

use super::credentials::Credentials;
use super::header;
use crate::filter::Filter;
use crate::render::ContentMode;
use crate::retry::Schedule;
use crate::sign::Scheme;

pub(super) const URL_BYTES_MAX: usize = 2048;
pub(super) const STREAMS_MAX: usize = 64;
pub(super) const TYPES_MAX: usize = 64;
pub(super) const TYPE_BYTES_MAX: usize = 256;
pub(super) const DESCRIPTION_BYTES_MAX: usize = 1024;
pub(super) const METADATA_MAX: usize = 32;
pub(super) const METADATA_NAME_BYTES_MAX: usize = 64;
pub(super) const METADATA_VALUE_BYTES_MAX: usize = 512;
pub(super) const RATE_MAX: u64 = 10_000;
pub(super) const CONCURRENCY_MAX: u64 = 64;
pub(super) const CONCURRENCY: usize = 8;
pub(super) const TIMEOUT_MS_MIN: u64 = 100;
pub(super) const TIMEOUT_MS_MAX: u64 = 30_000;
pub(super) const TIMEOUT: Duration = Duration::from_secs(15);

/// The order of deliveries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ordering {
    /// None is promised.
    #[default]
    None,
    /// Those with the same record key come in order; later ones wait.
    Key,
}

/// The fields that somebody may write.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Where deliveries go.
    pub url: Url,
    /// Of which streams; at least one.
    pub streams: Vec<StreamName>,
    /// Which event types; none: all.
    pub types: Vec<String>,
    /// Which events.
    pub filter: Filter,
    /// What of them.
    pub content: ContentMode,
    /// Headers of its own.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// How deliveries are signed; at least one way.
    pub signing: Vec<Scheme>,
    /// Credentials to the destination.
    pub credentials: Credentials,
    /// The most attempts a second.
    pub rate_per_second: Option<u32>,
    /// The most attempts at once.
    pub concurrency: usize,
    /// The deadline of one attempt.
    pub timeout: Duration,
    /// When to try again; `None`: the gateway's schedule.
    pub retry: Option<Schedule>,
    /// In which order.
    pub ordering: Ordering,
    /// For people.
    pub description: String,
    /// For programs.
    pub metadata: BTreeMap<String, String>,
    /// Whether it is to be called.
    pub enabled: bool,
    /// Whether it is asked for its consent first (CloudEvents' abuse protection).
    pub handshake: bool,
}

/// A field that is not acceptable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {pointer}: {detail}", code.name)]
pub struct Invalid {
    /// What the client is told.
    pub code: Code,
    /// Which field (RFC 6901).
    pub pointer: String,
    /// The rule that it breaks, without its value.
    pub detail: String,
}

/// A code and the rule.
type Refused = (Code, String);

impl Spec {
    /// Reads a whole specification: `url` and `streams` are needed, the rest has defaults. Tells everything that is wrong.
    pub fn parse(body: &Value, reach: Reach) -> Result<Self, Vec<Invalid>> {
        let mut draft = Draft::default();
        draft.apply(object(body)?, reach)?;
        draft.finish()
    }

    /// Applies a merge patch (RFC 7396): a member that is absent stays, `null` is the default again, `headers` and
    /// `metadata` are merged by name, everything else is replaced. Credentials are always given whole.
    pub fn patched(&self, patch: &Value, reach: Reach) -> Result<Self, Vec<Invalid>> {
        let mut draft = Draft {
            url: Some(self.url.clone()),
            streams: Some(self.streams.clone()),
            rest: Some(self.clone()),
        };
        draft.apply(object(patch)?, reach)?;
        draft.finish()
    }

    /// What is shown of it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let headers: Map<String, Value> = self
            .headers
            .iter()
            .map(|(name, value)| {
                (
                    name.as_str().to_owned(),
                    json!(value.to_str().unwrap_or_default()),
                )
            })
            .collect();
        let retry = self.retry.as_ref().map(|schedule| {
            let seconds = schedule.delays().iter().map(Duration::as_secs);
            seconds.collect::<Vec<_>>()
        });
        json!({
            "url": self.url.as_str(),
            "streams": self.streams.iter().map(StreamName::as_str).collect::<Vec<_>>(),
            "types": self.types,
            "filter": self.filter.to_json(),
            "content": self.content.as_str(),
            "headers": headers,
            "signing": self.signing.iter().map(|scheme| scheme.as_str()).collect::<Vec<_>>(),
            "credentials": self.credentials.to_json(),
            "rate_per_second": self.rate_per_second,
            "concurrency": self.concurrency,
            "timeout_ms": u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX),
            "retry_seconds": retry,
            "ordering": match self.ordering { Ordering::None => "none", Ordering::Key => "key" },
            "description": self.description,
            "metadata": self.metadata,
            "enabled": self.enabled,
            "handshake": self.handshake,
        })
    }
}

#[derive(Default)]
struct Draft {
    url: Option<Url>,
    streams: Option<Vec<StreamName>>,
    /// The other fields; their own `url` and `streams` do not count.
    rest: Option<Spec>,
}

fn object(body: &Value) -> Result<&Map<String, Value>, Vec<Invalid>> {
    body.as_object().ok_or_else(|| {
        vec![Invalid {
            code: Code::BODY_INVALID,
            pointer: String::new(),
            detail: "an object is wanted".to_owned(),
        }]
    })
}

impl Draft {
    fn apply(&mut self, members: &Map<String, Value>, reach: Reach) -> Result<(), Vec<Invalid>> {
        let mut problems = Vec::new();
        for (name, value) in members {
            let result = match (name.as_str(), value) {
                ("url", value) => string(value)
                    .and_then(|text| url(text, reach))
                    .map(|url| self.url = Some(url)),
                ("streams", value) => streams(value).map(|streams| self.streams = Some(streams)),
                (name, Value::Null) => self.rest().reset(name),
                (name, value) => self.rest().set(name, value, reach),
            };
            if let Err((code, detail)) = result {
                // A name came from outside: cut, so that an answer stays small.
                let name: String = name.chars().take(64).collect();
                problems.push(Invalid {
                    code,
                    pointer: format!("/{}", name.replace('~', "~0").replace('/', "~1")),
                    detail,
                });
            }
        }
        if problems.is_empty() {
            Ok(())
        } else {
            Err(problems)
        }
    }

    fn rest(&mut self) -> &mut Spec {
        self.rest.get_or_insert_with(defaults)
    }

    fn finish(mut self) -> Result<Spec, Vec<Invalid>> {
        let mut spec = self.rest().clone();
        let missing = |pointer: &str| Invalid {
            code: Code::FIELD_INVALID,
            pointer: pointer.to_owned(),
            detail: "it is needed".to_owned(),
        };
        match (self.url, self.streams) {
            (Some(url), Some(streams)) => {
                spec.url = url;
                spec.streams = streams;
                Ok(spec)
            }
            (None, Some(_)) => Err(vec![missing("/url")]),
            (Some(_), None) => Err(vec![missing("/streams")]),
            (None, None) => Err(vec![missing("/url"), missing("/streams")]),
        }
    }
}

fn defaults() -> Spec {
    Spec {
        url: Url::parse("https://unset.invalid/").expect("spec: the text is a URL"),
        streams: Vec::new(),
        types: Vec::new(),
        filter: Filter::default(),
        content: ContentMode::default(),
        headers: Vec::new(),
        signing: vec![Scheme::V1],
        credentials: Credentials::None,
        rate_per_second: None,
        concurrency: CONCURRENCY,
        timeout: TIMEOUT,
        retry: None,
        ordering: Ordering::None,
        description: String::new(),
        metadata: BTreeMap::new(),
        enabled: true,
        handshake: false,
    }
}

impl Spec {
    fn reset(&mut self, name: &str) -> Result<(), Refused> {
        let defaults = defaults();
        match name {
            "types" => self.types = defaults.types,
            "filter" => self.filter = defaults.filter,
            "content" => self.content = defaults.content,
            "headers" => self.headers = defaults.headers,
            "signing" => self.signing = defaults.signing,
            "credentials" => self.credentials = defaults.credentials,
            "rate_per_second" => self.rate_per_second = defaults.rate_per_second,
            "concurrency" => self.concurrency = defaults.concurrency,
            "timeout_ms" => self.timeout = defaults.timeout,
            "retry_seconds" => self.retry = defaults.retry,
            "ordering" => self.ordering = defaults.ordering,
            "description" => self.description = defaults.description,
            "metadata" => self.metadata = defaults.metadata,
            "enabled" => self.enabled = defaults.enabled,
            "handshake" => self.handshake = defaults.handshake,
            _ => return Err(unknown()),
        }
        Ok(())
    }

    fn set(&mut self, name: &str, value: &Value, reach: Reach) -> Result<(), Refused> {
        match name {
            "types" => self.types = types(value)?,
            "filter" => {
                self.filter = Filter::parse(value).map_err(|bad| (bad.code, bad.detail))?;
            }
            "content" => {
                self.content = choice(value, &ContentMode::ALL, ContentMode::as_str)?;
            }
            "headers" => self.merge_headers(value)?,
            "signing" => self.signing = signing(value)?,
            "credentials" => self.credentials = Credentials::parse(value, reach)?,
            "rate_per_second" => {
                let rate = number(value, 1, RATE_MAX)?;
                self.rate_per_second = u32::try_from(rate).ok();
            }
            "concurrency" => {
                let places = number(value, 1, CONCURRENCY_MAX)?;
                self.concurrency = usize::try_from(places).unwrap_or(CONCURRENCY);
            }
            "timeout_ms" => {
                self.timeout = Duration::from_millis(number(value, TIMEOUT_MS_MIN, TIMEOUT_MS_MAX)?);
            }
            "retry_seconds" => self.retry = Some(schedule(value)?),
            "ordering" => {
                let word = |ordering| match ordering {
                    Ordering::None => "none",
                    Ordering::Key => "key",
                };
                self.ordering = choice(value, &[Ordering::None, Ordering::Key], word)?;
            }
            "description" => self.description = text(value, DESCRIPTION_BYTES_MAX)?,
            "metadata" => self.merge_metadata(value)?,
            "enabled" => self.enabled = boolean(value)?,
            "handshake" => self.handshake = boolean(value)?,
            _ => return Err(unknown()),
        }
        Ok(())
    }

    fn merge_headers(&mut self, value: &Value) -> Result<(), Refused> {
        let members = value
            .as_object()
            .ok_or_else(|| invalid("an object of headers is wanted"))?;
        for (name, value) in members {
            let found = HeaderName::try_from(name.as_str()).ok();
            self.headers.retain(|(have, _)| Some(have) != found.as_ref());
            if value.is_null() {
                continue;
            }
            let header =
                header::parse(name, string(value)?).map_err(|(code, detail)| (code, detail.to_owned()))?;
            self.headers.push(header);
        }
        if self.headers.len() > header::HEADERS_MAX {
            return Err(invalid("at most 16 headers are allowed"));
        }
        self.headers
            .sort_by(|one, other| one.0.as_str().cmp(other.0.as_str()));
        Ok(())
    }

    fn merge_metadata(&mut self, value: &Value) -> Result<(), Refused> {
        let members = value
            .as_object()
            .ok_or_else(|| invalid("an object of texts is wanted"))?;
        for (name, value) in members {
            if name.is_empty() || name.len() > METADATA_NAME_BYTES_MAX {
                return Err(invalid("a name of metadata has 1 to 64 bytes"));
            }
            if value.is_null() {
                self.metadata.remove(name);
            } else {
                self.metadata
                    .insert(name.clone(), text(value, METADATA_VALUE_BYTES_MAX)?);
            }
        }
        if self.metadata.len() > METADATA_MAX {
            return Err(invalid("at most 32 members of metadata are allowed"));
        }
        Ok(())
    }
}

/// Reads a URL that may be called; the address behind a name is looked at when it is connected to.
pub(super) fn url(text: &str, reach: Reach) -> Result<Url, Refused> {
    let bad = |detail: &str| (Code::URL_INVALID, detail.to_owned());
    if text.len() > URL_BYTES_MAX {
        return Err(bad("it is longer than 2048 bytes"));
    }
    // A parser of URLs drops tabs, line breaks and spaces around it: nobody means those.
    if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(bad("it has white space in it"));
    }
    let url = Url::parse(text).map_err(|_| bad("it is no absolute URL"))?;
    if url.fragment().is_some() {
        return Err(bad("a fragment would not be sent"));
    }
    match reach.check(&url) {
        Ok(()) => Ok(url),
        Err(EgressError::Address) => Err((Code::URL_FORBIDDEN, "the address is not allowed".to_owned())),
        Err(EgressError::Url(detail)) => Err(bad(detail)),
        Err(_) => Err(bad("it cannot be called")),
    }
}

fn streams(value: &Value) -> Result<Vec<StreamName>, Refused> {
    let wanted = || invalid("1 to 64 names of streams are wanted");
    let list = value.as_array().ok_or_else(wanted)?;
    let mut streams: Vec<StreamName> = list
        .iter()
        .map(|name| name.as_str().and_then(|name| StreamName::parse(name).ok()))
        .collect::<Option<_>>()
        .ok_or_else(wanted)?;
    if streams.is_empty() || streams.len() > STREAMS_MAX {
        return Err(wanted());
    }
    streams.sort();
    streams.dedup();
    Ok(streams)
}

fn types(value: &Value) -> Result<Vec<String>, Refused> {
    let fits = |kind: &str| (1..=TYPE_BYTES_MAX).contains(&kind.len());
    let list = value.as_array().filter(|list| list.len() <= TYPES_MAX);
    let kinds: Option<Vec<String>> = list.and_then(|list| {
        let kind = |kind: &Value| kind.as_str().filter(|kind| fits(kind)).map(str::to_owned);
        list.iter().map(kind).collect()
    });
    let mut kinds = kinds.ok_or_else(|| invalid("at most 64 event types are wanted"))?;
    kinds.sort();
    kinds.dedup();
    Ok(kinds)
}

fn signing(value: &Value) -> Result<Vec<Scheme>, Refused> {
    let wanted = || invalid("one or more of v1, v1a and rfc9421 are wanted");
    let list = value
        .as_array()
        .filter(|list| !list.is_empty())
        .ok_or_else(wanted)?;
    let mut schemes: Vec<Scheme> = list
        .iter()
        .map(|word| choice(word, &Scheme::ALL, Scheme::as_str))
        .collect::<Result<_, _>>()
        .map_err(|_| wanted())?;
    schemes.sort();
    schemes.dedup();
    Ok(schemes)
}

fn schedule(value: &Value) -> Result<Schedule, Refused> {
    let wanted = || invalid("at most 20 delays of 1 to 604800 whole seconds are wanted");
    let seconds: Option<Vec<u64>> = value
        .as_array()
        .and_then(|list| list.iter().map(Value::as_u64).collect());
    let delays = seconds.ok_or_else(wanted)?;
    // So many seconds are refused by the schedule, and would overflow nothing.
    let delays = delays.into_iter().map(Duration::from_secs).collect();
    Schedule::new(delays).map_err(|_| wanted())
}

fn choice<T: Copy>(value: &Value, all: &[T], word: impl Fn(T) -> &'static str) -> Result<T, Refused> {
    let found = value
        .as_str()
        .and_then(|text| all.iter().copied().find(|one| word(*one) == text));
    found.ok_or_else(|| {
        let words: Vec<&str> = all.iter().map(|one| word(*one)).collect();
        (
            Code::FIELD_INVALID,
            format!("one of {} is wanted", words.join(", ")),
        )
    })
}

fn string(value: &Value) -> Result<&str, Refused> {
    value.as_str().ok_or_else(|| invalid("a string is wanted"))
}

fn text(value: &Value, bytes_max: usize) -> Result<String, Refused> {
    let text = string(value)?;
    if text.len() > bytes_max || text.contains('\0') {
        return Err((
            Code::FIELD_INVALID,
            format!("at most {bytes_max} bytes are wanted"),
        ));
    }
    Ok(text.to_owned())
}

fn number(value: &Value, min: u64, max: u64) -> Result<u64, Refused> {
    value
        .as_u64()
        .filter(|number| (min..=max).contains(number))
        .ok_or_else(|| {
            (
                Code::FIELD_INVALID,
                format!("a whole number from {min} to {max} is wanted"),
            )
        })
}

fn boolean(value: &Value) -> Result<bool, Refused> {
    value.as_bool().ok_or_else(|| invalid("true or false is wanted"))
}

fn unknown() -> Refused {
    (Code::FIELD_UNKNOWN, "no such field".to_owned())
}

fn invalid(detail: &str) -> Refused {
    (Code::FIELD_INVALID, detail.to_owned())
}

//! A Kafka record in, an event or a reason out. Pure: no clock, no network.

mod cloudevents;
mod headers;
mod json;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use secrecy::{ExposeSecret, SecretString};
use smallvec::SmallVec;

use self::headers::{BadHeader, Headers};
use crate::attributes::{self, Atom, Attributes};
use crate::contract::{AttributeSource, Deletes, Format, Stream, TenantSource};
use crate::event::{Change, Data, Event};
use crate::ids::{AttributeId, Incarnation, Slot, TenantId};
use crate::project::{BadDocument, Document};

/// A record as Kafka gave it, its payload copied.
#[derive(Clone)]
pub struct Record {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The topic's incarnation.
    pub incarnation: Incarnation,
    /// This node's number for the partition.
    pub slot: Slot,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// The record's timestamp, in milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// The key.
    pub key: Option<Bytes>,
    /// The value; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// The headers in order; a name may occur twice.
    pub headers: Vec<(Box<str>, Option<Bytes>)>,
}

/// Where it came from; never its key, its value or its headers.
impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("topic", &self.topic)
            .field("partition", &self.partition)
            .field("offset", &self.offset)
            .finish_non_exhaustive()
    }
}

/// Why a record is no event of the stream. Never holds a payload.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {detail}")]
pub struct Rejected {
    /// A stable word: `tenant_missing`, `tenant_duplicate`, `tenant_invalid`, `tombstone_tenant_unknown`,
    /// `attribute_duplicate`, `attribute_invalid`, `json_invalid`, `json_duplicate_member`, `json_too_deep`, `too_large`,
    /// `cloudevent_invalid`.
    pub reason: &'static str,
    /// What hurt, without data.
    pub detail: String,
}

/// What a format makes of a record: the body, and what its producer says about it. What is `None` comes from the stream.
struct Parts {
    id: Option<Arc<str>>,
    source: Option<Arc<str>>,
    subject: Option<Arc<str>>,
    time_ms: Option<i64>,
    content_type: Arc<str>,
    /// Legal names that are neither declared nor reserved.
    extensions: Vec<(Arc<str>, Arc<str>)>,
    data: Data,
    /// A structured CloudEvent's attributes as text: they answer `header:ce_NAME` in place of the headers.
    envelope: Option<Vec<(Box<str>, Box<str>)>>,
}

/// Makes events of one stream's records. Cheap to clone.
#[derive(Clone)]
pub struct Decoder {
    inner: Arc<Inner>,
}

struct Inner {
    stream: Arc<Stream>,
    id_key: hmac::Key,
    source: Arc<str>,
    changed: Arc<str>,
    deleted: Arc<str>,
    json_type: Arc<str>,
}

impl Decoder {
    /// `id_secret` keys the hash of (topic incarnation, partition, offset) that is an event's default id: the same on all
    /// nodes, and it tells a tenant nothing about the others' traffic.
    #[must_use]
    pub fn new(stream: Arc<Stream>, id_secret: &SecretString) -> Self {
        let kind = |change: Change| {
            Arc::from(format!(
                "{}.{}.{}",
                stream.type_prefix,
                stream.name,
                change.as_str()
            ))
        };
        let inner = Inner {
            id_key: hmac::Key::new(hmac::HMAC_SHA256, id_secret.expose_secret().as_bytes()),
            source: Arc::from(&*stream.source),
            changed: kind(Change::Changed),
            deleted: kind(Change::Deleted),
            json_type: Arc::from("application/json"),
            stream,
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// The stream whose records these are.
    #[must_use]
    pub fn stream(&self) -> &Arc<Stream> {
        &self.inner.stream
    }

    /// Decodes one record. `None` is a record that the stream passes over: a tombstone where `deletes = "none"`.
    pub fn decode(&self, record: Record) -> Result<Option<Event>, Rejected> {
        let inner = &*self.inner;
        match &record.value {
            None => match inner.stream.deletes {
                Deletes::None => Ok(None),
                Deletes::Headers => inner.tombstone(record).map(Some),
                Deletes::Previous => Err(rejected(TOMBSTONE, "the value before is not kept")),
            },
            Some(value) => inner.event(value.clone(), record).map(Some),
        }
    }
}

/// The reason of a tombstone that cannot be given to anybody.
const TOMBSTONE: &str = "tombstone_tenant_unknown";

impl Inner {
    fn event(&self, value: Bytes, record: Record) -> Result<Event, Rejected> {
        let parts = match self.stream.format {
            Format::Json => json::parts(value, &record, &self.json_type)?,
            Format::CloudEvents => cloudevents::parts(value, &record, &self.stream, &self.json_type)?,
        };
        let headers = Headers {
            record: &record.headers,
            envelope: parts.envelope.as_deref(),
        };
        let tenant = self.tenant(&record, &headers, &parts.data)?;
        let mut values = SmallVec::new();
        for (attribute, id) in self
            .stream
            .attributes
            .iter()
            .zip(0..)
            .map(|(attribute, id)| (attribute, AttributeId(id)))
        {
            let mut add = |text: &str| values.push((id, atom(text, attribute.reference)));
            match &attribute.source {
                AttributeSource::Pointer(pointer) => {
                    if let Data::Json(document) = &parts.data {
                        document.strings_at(pointer).for_each(|text| add(&text));
                    }
                }
                AttributeSource::Key => key_text(&record).into_iter().for_each(add),
                AttributeSource::Header(name) => header_text(&headers, name)?.into_iter().for_each(add),
            }
        }
        Ok(self.finish(record, tenant, Attributes::new(values), parts, Change::Changed))
    }

    fn tombstone(&self, record: Record) -> Result<Event, Rejected> {
        let parts = match self.stream.format {
            Format::Json => json::tombstone(&self.json_type),
            Format::CloudEvents => cloudevents::tombstone(&record, &self.stream, &self.json_type)?,
        };
        let headers = Headers {
            record: &record.headers,
            envelope: None,
        };
        let tenant =
            self.tenant(&record, &headers, &Data::None)
                .map_err(|rejected| match rejected.reason {
                    "tenant_missing" => Rejected {
                        reason: TOMBSTONE,
                        ..rejected
                    },
                    _ => rejected,
                })?;
        let mut values = SmallVec::new();
        for (attribute, id) in self
            .stream
            .attributes
            .iter()
            .zip(0..)
            .map(|(attribute, id)| (attribute, AttributeId(id)))
        {
            let mut add = |text: &str| values.push((id, atom(text, attribute.reference)));
            match &attribute.source {
                AttributeSource::Pointer(pointer) if pointer.has_wildcard() => {
                    for text in headers.all(attribute.name.as_str()) {
                        add(text.map_err(|error| bad_attribute(error, attribute.name.as_str()))?);
                    }
                }
                AttributeSource::Pointer(_) => {
                    header_text(&headers, attribute.name.as_str())?
                        .into_iter()
                        .for_each(add);
                }
                AttributeSource::Key => key_text(&record).into_iter().for_each(add),
                AttributeSource::Header(name) => header_text(&headers, name)?.into_iter().for_each(add),
            }
        }
        Ok(self.finish(record, tenant, Attributes::new(values), parts, Change::Deleted))
    }

    fn tenant(&self, record: &Record, headers: &Headers<'_>, data: &Data) -> Result<TenantId, Rejected> {
        let missing = |detail: &str| rejected("tenant_missing", detail);
        let text: Cow<'_, str> = match &self.stream.tenant {
            TenantSource::Header(name) => match headers.one(name) {
                Ok(Some(text)) => text.into(),
                Ok(None) => return Err(missing("the record has no such header")),
                Err(BadHeader::Duplicate) => {
                    return Err(rejected("tenant_duplicate", "the header stands twice"));
                }
                Err(BadHeader::NotText) => return Err(rejected("tenant_invalid", "the header is not UTF-8")),
            },
            TenantSource::Topic => {
                let captured = self
                    .stream
                    .topics
                    .iter()
                    .find_map(|pattern| pattern.matches(&record.topic)?.tenant);
                return captured.ok_or_else(|| missing("the topic's name captures no tenant"));
            }
            TenantSource::KeyPrefix { separator } => key_text(record)
                .and_then(|key| key.split_once(*separator))
                .map(|(prefix, _)| prefix.into())
                .ok_or_else(|| missing("the key has no such prefix"))?,
            TenantSource::Pointer(pointer) => match data {
                Data::Json(document) => document
                    .string_at(pointer)
                    .ok_or_else(|| missing("the value has no such string"))?,
                Data::Binary(_) | Data::None => return Err(missing("the record has no JSON value")),
            },
        };
        // The name of the rule, not the value: it is somebody's.
        TenantId::parse(&text).map_err(|bad| rejected("tenant_invalid", bad.rule))
    }

    fn finish(
        &self,
        record: Record,
        tenant: TenantId,
        attributes: Attributes,
        parts: Parts,
        change: Change,
    ) -> Event {
        let subject = parts.subject.or_else(|| key_text(&record).map(Arc::from));
        let kind = if change == Change::Deleted {
            &self.deleted
        } else {
            &self.changed
        };
        let own_id = self.default_id(&record);
        let (id, own_id) = match parts.id {
            Some(id) => (id, Some(own_id)),
            None => (own_id, None),
        };
        let mut event = Event {
            id,
            own_id,
            stream: Arc::clone(&self.stream),
            slot: record.slot,
            offset: record.offset,
            tenant,
            source: parts.source.unwrap_or_else(|| Arc::clone(&self.source)),
            kind: Arc::clone(kind),
            subject,
            time_ms: parts.time_ms.unwrap_or(record.timestamp_ms),
            content_type: parts.content_type,
            change,
            key: record.key,
            attributes,
            extensions: parts.extensions,
            data: parts.data,
            bytes: 0,
        };
        event.bytes = event.memory();
        event
    }

    /// 128 bits of HMAC-SHA256 over the position, as URL-safe base64.
    fn default_id(&self, record: &Record) -> Arc<str> {
        let mut position = [0; 20];
        position[..8].copy_from_slice(&record.incarnation.0.to_be_bytes());
        position[8..12].copy_from_slice(&record.partition.to_be_bytes());
        position[12..].copy_from_slice(&record.offset.to_be_bytes());
        let hash = hmac::sign(&self.id_key, &position);
        let half = hash.as_ref().first_chunk::<16>().copied().unwrap_or_default();
        Arc::from(URL_SAFE_NO_PAD.encode(half))
    }
}

fn atom(text: &str, is_reference: bool) -> Atom {
    Atom::from(if is_reference {
        attributes::reference(text)
    } else {
        text
    })
}

/// The key, where it is text and not empty.
fn key_text(record: &Record) -> Option<&str> {
    record
        .key
        .as_deref()
        .and_then(|key| std::str::from_utf8(key).ok())
        .filter(|key| !key.is_empty())
}

/// A header's text for an attribute; an empty one is absent.
fn header_text<'a>(headers: &Headers<'a>, name: &str) -> Result<Option<&'a str>, Rejected> {
    match headers.one(name) {
        Ok(text) => Ok(text.filter(|text| !text.is_empty())),
        Err(error) => Err(bad_attribute(error, name)),
    }
}

fn bad_attribute(error: BadHeader, name: &str) -> Rejected {
    match error {
        BadHeader::Duplicate => rejected("attribute_duplicate", &format!("the header {name} stands twice")),
        BadHeader::NotText => rejected("attribute_invalid", &format!("the header {name} is not UTF-8")),
    }
}

fn rejected(reason: &'static str, detail: &str) -> Rejected {
    Rejected {
        reason,
        detail: detail.to_owned(),
    }
}

fn parse_json(value: Bytes) -> Result<Document, Rejected> {
    Document::parse(value).map_err(|bad| {
        let reason = match bad {
            BadDocument::Syntax { .. } => "json_invalid",
            BadDocument::DuplicateMember { .. } => "json_duplicate_member",
            BadDocument::TooDeep => "json_too_deep",
            BadDocument::TooLarge => "too_large",
        };
        rejected(reason, &bad.to_string())
    })
}

//! `format = "cloudevents"`: CloudEvents 1.0 over Kafka, binary or structured by the content type (CloudEvents Kafka
//! protocol binding 1.0.2, section 3).
//!
//! A producer's attributes never override what the stream declares or what is reserved: `type` and `tenant` are always
//! ours, and an extension of a declared name is left out.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use jiff::Timestamp;

use super::headers::{BadHeader, Headers};
use super::{Parts, Record, Rejected, json, parse_json, rejected};
use crate::attributes::RESERVED;
use crate::contract::Stream;
use crate::event::Data;
use crate::project::Document;

const INVALID: &str = "cloudevent_invalid";

/// The one version of the specification that is understood.
const SPECVERSION: &str = "1.0";

pub(super) fn parts(
    value: Bytes,
    record: &Record,
    stream: &Stream,
    json_type: &Arc<str>,
) -> Result<Parts, Rejected> {
    let media_type = content_type(record)?;
    match media_type {
        Some(media_type) if is_structured(media_type) => {
            if !json::is_json(media_type)
                || media_type
                    .to_ascii_lowercase()
                    .starts_with("application/cloudevents-batch")
            {
                return Err(rejected(INVALID, "structured events are JSON, one in a record"));
            }
            structured(value, stream, json_type)
        }
        media_type => {
            let mut parts = context(record, stream, json_type)?;
            let is_cloudevent = parts.id.is_some();
            match media_type {
                // Not said: JSON if it is, and JSON it must be where nothing says that this is a CloudEvent.
                None if is_cloudevent => match Document::parse(value.clone()) {
                    Ok(document) => parts.data = Data::Json(document),
                    Err(crate::project::BadDocument::Syntax { .. }) => {
                        parts.content_type = Arc::from("application/octet-stream");
                        parts.data = Data::Binary(value);
                    }
                    Err(_) => parts.data = Data::Json(parse_json(value)?),
                },
                Some(media_type) if is_cloudevent && !json::is_json(media_type) => {
                    parts.content_type = Arc::from(media_type);
                    parts.data = Data::Binary(value);
                }
                media_type => {
                    if let Some(media_type) = media_type.filter(|media_type| json::is_json(media_type)) {
                        parts.content_type = Arc::from(media_type);
                    }
                    parts.data = Data::Json(parse_json(value)?);
                }
            }
            Ok(parts)
        }
    }
}

/// A tombstone's headers may say what a binary event's say.
pub(super) fn tombstone(record: &Record, stream: &Stream, json_type: &Arc<str>) -> Result<Parts, Rejected> {
    context(record, stream, json_type)
}

fn content_type(record: &Record) -> Result<Option<&str>, Rejected> {
    let mut found = record
        .headers
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    let Some(first) = found.next() else {
        return Ok(None);
    };
    if found.next().is_some() {
        return Err(rejected(INVALID, "the header content-type stands twice"));
    }
    let text = first.1.as_deref().map(std::str::from_utf8).transpose();
    text.map_err(|_| rejected(INVALID, "the header content-type is not UTF-8"))
}

fn is_structured(media_type: &str) -> bool {
    const PREFIX: &[u8] = b"application/cloudevents";
    media_type
        .as_bytes()
        .get(..PREFIX.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(PREFIX))
}

/// The attributes of a binary event. Without `ce_specversion` the record is no CloudEvent, and all of them are the
/// stream's.
fn context(record: &Record, stream: &Stream, json_type: &Arc<str>) -> Result<Parts, Rejected> {
    let headers = Headers {
        record: &record.headers,
        envelope: None,
    };
    let mut parts = json::tombstone(json_type);
    let one = |name: &str| {
        headers.one(name).map_err(|error| match error {
            BadHeader::Duplicate => rejected(INVALID, &format!("the header {name} stands twice")),
            BadHeader::NotText => rejected(INVALID, &format!("the header {name} is not UTF-8")),
        })
    };
    let Some(version) = one("ce_specversion")? else {
        return Ok(parts);
    };
    check_required(version, one("ce_type")?)?;
    parts.id = Some(required(one("ce_id")?, "id")?);
    parts.source = Some(required(one("ce_source")?, "source")?);
    parts.subject = one("ce_subject")?
        .filter(|subject| !subject.is_empty())
        .map(Arc::from);
    parts.time_ms = one("ce_time")?.map(time_ms).transpose()?;
    for (name, value) in &record.headers {
        if let (Some(name), Some(_)) = (name.strip_prefix("ce_"), value)
            && is_extension(name, stream)
            && let Some(text) = one(&format!("ce_{name}"))?
        {
            parts.extensions.push((Arc::from(name), Arc::from(text)));
        }
    }
    Ok(parts)
}

fn structured(value: Bytes, stream: &Stream, json_type: &Arc<str>) -> Result<Parts, Rejected> {
    let document = parse_json(value)?;
    let members = document
        .members()
        .ok_or_else(|| rejected(INVALID, "a structured event is a JSON object"))?;
    let find = |name: &str| {
        members
            .iter()
            .find(|(have, _)| have == name)
            .map(|(_, value)| value)
            .filter(|value| !value.is_null())
    };
    let text = |name: &str| match find(name) {
        None => Ok(None),
        Some(value) => match value.as_string() {
            Some(text) => Ok(Some(text)),
            None => Err(rejected(INVALID, &format!("{name} is not a string"))),
        },
    };
    check_required(
        text("specversion")?.as_deref().unwrap_or_default(),
        text("type")?.as_deref(),
    )?;
    let mut parts = json::tombstone(json_type);
    parts.id = Some(required(text("id")?.as_deref(), "id")?);
    parts.source = Some(required(text("source")?.as_deref(), "source")?);
    parts.subject = text("subject")?
        .filter(|subject| !subject.is_empty())
        .map(Arc::from);
    parts.time_ms = text("time")?.as_deref().map(time_ms).transpose()?;
    if let Some(media_type) = text("datacontenttype")? {
        parts.content_type = Arc::from(media_type);
    }

    let mut envelope = Vec::new();
    for (name, value) in &members {
        let Some(text) = value.as_text().filter(|_| is_name(name)) else {
            continue;
        };
        envelope.push((Box::from(&**name), Box::from(&*text)));
        if is_extension(name, stream) {
            parts.extensions.push((Arc::from(&**name), Arc::from(text)));
        }
    }
    parts.envelope = Some(envelope);

    // Of `data`, null is a value: it is there.
    let data = members
        .iter()
        .find(|(name, _)| name == "data")
        .map(|(_, value)| value);
    parts.data = match (data, text("data_base64")?) {
        (Some(_), Some(_)) => return Err(rejected(INVALID, "data and data_base64 exclude each other")),
        (Some(data), None) => Data::Json(data.clone()),
        (None, None) => Data::None,
        (None, Some(encoded)) => {
            let bytes = STANDARD.decode(encoded.as_bytes());
            let bytes = Bytes::from(bytes.map_err(|_| rejected(INVALID, "data_base64 is not base64"))?);
            if json::is_json(&parts.content_type) {
                Data::Json(parse_json(bytes)?)
            } else {
                Data::Binary(bytes)
            }
        }
    };
    Ok(parts)
}

fn check_required(version: &str, kind: Option<&str>) -> Result<(), Rejected> {
    if version != SPECVERSION {
        return Err(rejected(INVALID, "specversion is not 1.0"));
    }
    required(kind, "type").map(drop)
}

fn required(text: Option<&str>, name: &str) -> Result<Arc<str>, Rejected> {
    let text = text.filter(|text| !text.is_empty());
    text.map(Arc::from)
        .ok_or_else(|| rejected(INVALID, &format!("{name} is missing or empty")))
}

fn time_ms(text: &str) -> Result<i64, Rejected> {
    let time: Timestamp = text
        .parse()
        .map_err(|_| rejected(INVALID, "time is not RFC 3339"))?;
    Ok(time.as_millisecond())
}

/// A legal name of an attribute that is the producer's to give. `dataschema` is the specification's and nobody else's.
fn is_extension(name: &str, stream: &Stream) -> bool {
    is_name(name) && (name == "dataschema" || !RESERVED.contains(&name)) && stream.attribute(name).is_none()
}

/// CloudEvents 1.0.2, section 3.1.1 "Naming Conventions".
fn is_name(name: &str) -> bool {
    (1..=20).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

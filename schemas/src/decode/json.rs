//! `format = "json"`: the value is the document, and everything else about the event comes from the stream.

use std::sync::Arc;

use bytes::Bytes;

use super::{Parts, Record, Rejected, parse_json};
use crate::event::Data;

/// The longest media type that is repeated.
const MEDIA_TYPE_BYTES_MAX: usize = 128;

pub(super) fn parts(value: Bytes, record: &Record, json_type: &Arc<str>) -> Result<Parts, Rejected> {
    let data = Data::Json(parse_json(value)?);
    Ok(Parts {
        data,
        content_type: content_type(record, json_type),
        ..tombstone(json_type)
    })
}

pub(super) fn tombstone(json_type: &Arc<str>) -> Parts {
    Parts {
        id: None,
        source: None,
        subject: None,
        time_ms: None,
        content_type: Arc::clone(json_type),
        extensions: Vec::new(),
        data: Data::None,
        envelope: None,
    }
}

/// The record's `content-type` where it says a kind of JSON (`application/fhir+json`), else plain JSON.
fn content_type(record: &Record, json_type: &Arc<str>) -> Arc<str> {
    let header = record
        .headers
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    let text = header.and_then(|(_, value)| std::str::from_utf8(value.as_deref()?).ok());
    match text {
        Some(text) if text == &**json_type => Arc::clone(json_type),
        Some(text) if text.len() <= MEDIA_TYPE_BYTES_MAX && is_json(text) => Arc::from(text),
        _ => Arc::clone(json_type),
    }
}

/// Whether a media type is JSON (RFC 6839, section 3.1, for the suffix).
pub(super) fn is_json(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    let ends_in = |suffix: &str| {
        let (essence, suffix) = (essence.as_bytes(), suffix.as_bytes());
        essence.len() > suffix.len() && essence[essence.len() - suffix.len()..].eq_ignore_ascii_case(suffix)
    };
    ends_in("/json") || ends_in("+json")
}

//! An event as a request's body and headers.
//!
//! One invariant: what goes out comes from [`Event::encode`] under the mask that the grant gives, so that a webhook shows
//! what every other path shows, and nothing that it hides; the other forms are parts of that text. Knows nothing of
//! endpoints' own headers, signatures and receivers.

mod shared;

pub use shared::Prepared;

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, header};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use schemas::event::Event;
use schemas::project::Mask;
use serde_json::value::RawValue;

/// What is sent of an event, and in which form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ContentMode {
    /// `specversion`, `id`, `source`, `type` and `time` as a structured CloudEvent: that something happened, and nothing of
    /// what. The receiver fetches the rest with its own credentials.
    #[default]
    Thin,
    /// The whole event as one CloudEvents JSON object.
    Structured,
    /// The data as the body, the attributes as `ce-` headers (CloudEvents HTTP binding, section 3.1).
    Binary,
    /// The data as the body, and of the rest the type only.
    Raw,
}

/// A body and the headers that describe it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// In order: `content-type` first, where there is a body.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body, as it is signed and sent.
    pub body: Bytes,
}

/// The header that names the type of a raw delivery.
pub const TYPE_HEADER: HeaderName = HeaderName::from_static("tidewire-type");

const STRUCTURED: HeaderValue = HeaderValue::from_static("application/cloudevents+json; charset=utf-8");

/// What of a thin event is told.
const THIN: [&str; 5] = ["specversion", "id", "source", "type", "time"];

/// What CloudEvents headers encode: all but printable ASCII, and of that the space, `"` and `%` (HTTP binding, 3.1.3.2).
const IN_HEADERS: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');

impl ContentMode {
    /// Every mode.
    pub const ALL: [Self; 4] = [Self::Thin, Self::Structured, Self::Binary, Self::Raw];

    /// As it stands in an endpoint.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Thin => "thin",
            Self::Structured => "structured",
            Self::Binary => "binary",
            Self::Raw => "raw",
        }
    }
}

/// Renders an event, what the mask hides removed.
#[must_use]
pub fn render(event: &Event, mask: &Mask, mode: ContentMode) -> Rendered {
    let mut whole = Vec::with_capacity(event.encoded_bytes_hint());
    event.encode(mask, &mut whole);
    formed(whole, mode)
}

/// The type of what is sent when somebody asks for a test. No stream has it.
pub const TEST_TYPE: &str = "tidewire.test";

/// What is sent when somebody asks for a test: an event that says that it is none, in the form of the others.
#[must_use]
pub fn test(id: &str, source: &str, time_ms: i64, stream: Option<&str>, mode: ContentMode) -> Rendered {
    let time = jiff::Timestamp::from_millisecond(time_ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let whole = serde_json::json!({
        "specversion": "1.0",
        "id": id,
        "source": source,
        "type": TEST_TYPE,
        "time": time.to_string(),
        "datacontenttype": "application/json",
        "data": { "test": true, "stream": stream },
    });
    formed(whole.to_string().into_bytes(), mode)
}

/// A structured event in the form that is asked for.
fn formed(whole: Vec<u8>, mode: ContentMode) -> Rendered {
    if mode == ContentMode::Structured {
        return structured(whole);
    }
    let whole = Bytes::from(whole);
    let members: BTreeMap<&str, &RawValue> =
        serde_json::from_slice(&whole).expect("render: what an event encodes is an object of plain names");
    match mode {
        ContentMode::Structured | ContentMode::Thin => {
            let mut thin = Vec::with_capacity(256);
            for name in THIN {
                if let Some(value) = members.get(name) {
                    thin.extend_from_slice(if thin.is_empty() { b"{\"" } else { b",\"" });
                    thin.extend_from_slice(name.as_bytes());
                    thin.extend_from_slice(b"\":");
                    thin.extend_from_slice(value.get().as_bytes());
                }
            }
            thin.push(b'}');
            structured(thin)
        }
        ContentMode::Binary => {
            let mut headers = content_type(&members);
            for (name, value) in &members {
                if matches!(*name, "data" | "data_base64" | "datacontenttype") {
                    continue;
                }
                if let (Some(name), Some(value)) = (attribute(name), encoded(value)) {
                    headers.push((name, value));
                }
            }
            Rendered {
                headers,
                body: data(&members, &whole),
            }
        }
        ContentMode::Raw => {
            let mut headers = content_type(&members);
            if let Some(value) = members.get("type").and_then(|value| encoded(value)) {
                headers.push((TYPE_HEADER, value));
            }
            Rendered {
                headers,
                body: data(&members, &whole),
            }
        }
    }
}

fn structured(body: Vec<u8>) -> Rendered {
    Rendered {
        headers: vec![(header::CONTENT_TYPE, STRUCTURED)],
        body: Bytes::from(body),
    }
}

fn content_type(members: &BTreeMap<&str, &RawValue>) -> Vec<(HeaderName, HeaderValue)> {
    let told = members.get("datacontenttype").and_then(|value| text(value));
    // The producer's word: one that is no header value is not passed on.
    let value = told.and_then(|text| HeaderValue::from_str(&text).ok());
    value
        .map(|value| (header::CONTENT_TYPE, value))
        .into_iter()
        .collect()
}

/// The data, as a part of the whole where it can be.
fn data(members: &BTreeMap<&str, &RawValue>, whole: &Bytes) -> Bytes {
    if let Some(data) = members.get("data") {
        return whole.slice_ref(data.get().as_bytes());
    }
    let encoded = members.get("data_base64").and_then(|value| text(value));
    let bytes = encoded.and_then(|text| STANDARD.decode(text.as_bytes()).ok());
    bytes.map_or_else(Bytes::new, Bytes::from)
}

/// A context attribute as a header's value. All of them are texts.
fn encoded(value: &RawValue) -> Option<HeaderValue> {
    let text = text(value)?;
    HeaderValue::from_str(&Cow::from(utf8_percent_encode(&text, IN_HEADERS))).ok()
}

fn text(value: &RawValue) -> Option<Cow<'_, str>> {
    let raw = value.get();
    let inside = raw.strip_prefix('"').and_then(|raw| raw.strip_suffix('"'));
    match inside {
        // Nothing is escaped: it stands there as it is.
        Some(inside) if !inside.contains('\\') => Some(Cow::Borrowed(inside)),
        _ => serde_json::from_str(raw).ok().map(Cow::Owned),
    }
}

/// The header of a context attribute. Those that every event has are made once.
fn attribute(name: &str) -> Option<HeaderName> {
    const ID: HeaderName = HeaderName::from_static("ce-id");
    const SOURCE: HeaderName = HeaderName::from_static("ce-source");
    const SPEC_VERSION: HeaderName = HeaderName::from_static("ce-specversion");
    const SUBJECT: HeaderName = HeaderName::from_static("ce-subject");
    const TIME: HeaderName = HeaderName::from_static("ce-time");
    const TYPE: HeaderName = HeaderName::from_static("ce-type");
    match name {
        "id" => Some(ID),
        "source" => Some(SOURCE),
        "specversion" => Some(SPEC_VERSION),
        "subject" => Some(SUBJECT),
        "time" => Some(TIME),
        "type" => Some(TYPE),
        name => HeaderName::try_from(format!("ce-{name}")).ok(),
    }
}

#[cfg(test)]
mod tests {
    use schemas::project::Pointer;
    use serde_json::Value;

    use super::*;
    use crate::fixture;

    fn hiding(pointer: &str) -> Mask {
        Mask::hide([Pointer::parse(pointer).expect("a pointer")])
    }

    fn header<'a>(rendered: &'a Rendered, name: &str) -> Option<&'a str> {
        let found = rendered.headers.iter().find(|(have, _)| have == name);
        found.and_then(|(_, value)| value.to_str().ok())
    }

    #[test]
    fn structured_is_the_event_as_every_other_path_encodes_it() {
        let event = fixture::observation("lund", "1", "final");
        let mask = hiding("/note");
        let rendered = render(&event, &mask, ContentMode::Structured);
        let mut expected = Vec::new();
        event.encode(&mask, &mut expected);
        assert_eq!(rendered.body, expected);
        assert_eq!(
            header(&rendered, "content-type"),
            Some("application/cloudevents+json; charset=utf-8")
        );
    }

    #[test]
    fn thin_tells_that_something_happened_and_nothing_of_what() {
        let event = fixture::observation("lund", "1", "final");
        let rendered = render(&event, &Mask::nothing_hidden(), ContentMode::Thin);
        let body: Value = serde_json::from_slice(&rendered.body).expect("JSON");
        let names: Vec<&str> = body
            .as_object()
            .expect("an object")
            .keys()
            .map(String::as_str)
            .collect();
        assert_eq!(names, THIN);
        assert_eq!(body["type"], "tidewire.observations.changed");
        assert_eq!(rendered.headers.len(), 1);
    }

    #[test]
    fn binary_has_the_data_as_it_was_written_and_the_attributes_as_headers() {
        let event = fixture::observation("lund", "1", "final");
        let rendered = render(&event, &hiding("/note"), ContentMode::Binary);
        let body = std::str::from_utf8(&rendered.body).expect("text");
        assert!(
            body.contains(r#""value":1.00"#) && !body.contains("private"),
            "{body}"
        );
        assert_eq!(header(&rendered, "content-type"), Some("application/json"));
        assert_eq!(header(&rendered, "ce-specversion"), Some("1.0"));
        assert_eq!(
            header(&rendered, "ce-type"),
            Some("tidewire.observations.changed")
        );
        assert_eq!(header(&rendered, "ce-patient"), Some("Patient/1"));
        assert_eq!(header(&rendered, "ce-tenant"), Some("lund"));
        assert_eq!(header(&rendered, "ce-datacontenttype"), None);
        let hidden = render(&event, &hiding("/subject"), ContentMode::Binary);
        assert_eq!(header(&hidden, "ce-patient"), None);
    }

    #[test]
    fn raw_has_the_data_and_its_type_only() {
        let event = fixture::observation("lund", "1", "final");
        let rendered = render(&event, &Mask::nothing_hidden(), ContentMode::Raw);
        let names: Vec<&str> = rendered.headers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["content-type", "tidewire-type"]);
        assert!(rendered.body.starts_with(br#"{"resourceType":"Observation""#));
    }

    #[test]
    fn a_deletion_has_no_body_where_only_the_data_is_sent() {
        let event = fixture::decode(fixture::record("lund", &fixture::position(0, 1), "o1", ""));
        for mode in [ContentMode::Binary, ContentMode::Raw] {
            let rendered = render(&event, &Mask::nothing_hidden(), mode);
            assert!(rendered.body.is_empty());
            assert_eq!(header(&rendered, "content-type"), None);
        }
        let rendered = render(&event, &Mask::nothing_hidden(), ContentMode::Raw);
        assert_eq!(
            header(&rendered, "tidewire-type"),
            Some("tidewire.observations.deleted")
        );
    }

    #[test]
    fn a_test_looks_like_an_event_in_every_form_and_says_that_it_is_none() {
        for mode in ContentMode::ALL {
            let rendered = test(
                "msg_test_1",
                "/v1/webhooks/endpoints/ep_1",
                0,
                Some("observations"),
                mode,
            );
            let body: Value = serde_json::from_slice(&rendered.body).expect("JSON");
            let kind = match mode {
                ContentMode::Thin | ContentMode::Structured => body["type"].as_str(),
                ContentMode::Binary => header(&rendered, "ce-type"),
                ContentMode::Raw => header(&rendered, "tidewire-type"),
            };
            assert_eq!(kind, Some(TEST_TYPE), "{mode:?}");
            let data = match mode {
                ContentMode::Thin => continue,
                ContentMode::Structured => &body["data"],
                ContentMode::Binary | ContentMode::Raw => &body,
            };
            assert_eq!(data["test"], true, "{mode:?}");
        }
    }

    #[test]
    fn text_beyond_ascii_is_encoded_in_headers_as_the_binding_wants_it() {
        let value = |text: &str| {
            let raw = RawValue::from_string(serde_json::to_string(text).expect("JSON")).expect("JSON");
            encoded(&raw).and_then(|value| value.to_str().map(str::to_owned).ok())
        };
        // The example of the specification, section 3.1.3.2.
        assert_eq!(
            value("Euro € 😀").as_deref(),
            Some("Euro%20%E2%82%AC%20%F0%9F%98%80")
        );
        assert_eq!(value("a\"b%c\r\nx: y").as_deref(), Some("a%22b%25c%0D%0Ax:%20y"));
    }
}

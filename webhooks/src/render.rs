//! An event as a request's body and headers.
//!
//! One invariant: what goes out is what [`Event::tell`] tells under the mask that the grant gives, so that a webhook shows
//! what every other path shows, and nothing that it hides. Knows nothing of endpoints' own headers, signatures and receivers.

mod shared;

pub use shared::Prepared;

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, header};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use schemas::event::{Event, Shown, Structured, Told, json};
use schemas::project::{Document, Mask};

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
const THIN: [&str; 4] = ["id", "source", "type", "time"];

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
    match mode {
        ContentMode::Structured => {
            let mut whole = Vec::with_capacity(event.encoded_bytes_hint());
            event.encode(mask, &mut whole);
            structured(whole)
        }
        ContentMode::Thin => thin(|told| event.tell(mask, told)),
        ContentMode::Binary | ContentMode::Raw => bare(mode, |told| event.tell(mask, told)),
    }
}

/// The type of what is sent when somebody asks for a test. No stream has it.
pub const TEST_TYPE: &str = "tidewire.test";

/// What is sent when somebody asks for a test: an event that says that it is none, in the form of the others.
#[must_use]
pub fn test(id: &str, source: &str, time_ms: i64, stream: Option<&str>, mode: ContentMode) -> Rendered {
    let data = serde_json::json!({ "test": true, "stream": stream }).to_string();
    let data = Document::parse(Bytes::from(data)).expect("render: what serde_json writes is JSON");
    let tell = |to: &mut dyn Told| {
        to.attribute("id", id);
        to.attribute("source", source);
        to.attribute("type", TEST_TYPE);
        to.attribute("time", json::time(time_ms).unwrap_or(json::Time::EPOCH).as_str());
        to.data("application/json", Shown::Json(&data, &Mask::nothing_hidden()));
    };
    match mode {
        ContentMode::Structured => {
            let mut whole = Vec::with_capacity(256);
            let mut told = Structured::begin(&mut whole);
            tell(&mut told);
            told.end();
            structured(whole)
        }
        ContentMode::Thin => thin(|told| tell(told)),
        ContentMode::Binary | ContentMode::Raw => bare(mode, |told| tell(told)),
    }
}

fn structured(body: Vec<u8>) -> Rendered {
    Rendered {
        headers: vec![(header::CONTENT_TYPE, STRUCTURED)],
        body: Bytes::from(body),
    }
}

/// What a thin event tells, as a CloudEvents JSON object.
fn thin(tell: impl FnOnce(&mut Thin<'_>)) -> Rendered {
    let mut whole = Vec::with_capacity(256);
    let mut told = Thin(Structured::begin(&mut whole));
    tell(&mut told);
    told.0.end();
    structured(whole)
}

struct Thin<'a>(Structured<'a>);

impl Told for Thin<'_> {
    fn attribute(&mut self, name: &str, value: &str) {
        if THIN.contains(&name) {
            self.0.attribute(name, value);
        }
    }

    fn data(&mut self, _: &str, _: Shown<'_>) {}
}

/// The data as the body; attributes as headers.
fn bare(mode: ContentMode, tell: impl FnOnce(&mut Bare)) -> Rendered {
    let mut told = Bare {
        is_binary: mode == ContentMode::Binary,
        // The content type comes first.
        headers: Vec::with_capacity(16),
        content_type: None,
        body: Bytes::new(),
    };
    if told.is_binary {
        told.attribute("specversion", "1.0");
    }
    tell(&mut told);
    let mut headers = told.headers;
    if let Some(content_type) = told.content_type {
        headers.insert(0, (header::CONTENT_TYPE, content_type));
    }
    Rendered {
        headers,
        body: told.body,
    }
}

struct Bare {
    is_binary: bool,
    headers: Vec<(HeaderName, HeaderValue)>,
    content_type: Option<HeaderValue>,
    body: Bytes,
}

impl Told for Bare {
    fn attribute(&mut self, name: &str, value: &str) {
        let name = match (self.is_binary, name) {
            (true, name) => attribute(name),
            (false, "type") => Some(TYPE_HEADER),
            (false, _) => None,
        };
        if let Some(name) = name
            && let Some(value) = encoded(value)
        {
            self.headers.push((name, value));
        }
    }

    fn data(&mut self, content_type: &str, data: Shown<'_>) {
        self.body = match data {
            Shown::Json(document, mask) => {
                let mut body = Vec::with_capacity(document.len());
                if !document.write(mask, &mut body) {
                    return;
                }
                Bytes::from(body)
            }
            Shown::Binary(bytes) => bytes.clone(),
        };
        // The producer's word: one that is no header value is not passed on.
        self.content_type = HeaderValue::from_str(content_type).ok();
    }
}

/// A context attribute as a header's value.
fn encoded(text: &str) -> Option<HeaderValue> {
    HeaderValue::from_str(&Cow::from(utf8_percent_encode(text, IN_HEADERS))).ok()
}

/// The header of a context attribute. Those that every event has are made once.
fn attribute(name: &str) -> Option<HeaderName> {
    const ID: HeaderName = HeaderName::from_static("ce-id");
    const SOURCE: HeaderName = HeaderName::from_static("ce-source");
    const SPEC_VERSION: HeaderName = HeaderName::from_static("ce-specversion");
    const TENANT: HeaderName = HeaderName::from_static("ce-tenant");
    const SUBJECT: HeaderName = HeaderName::from_static("ce-subject");
    const TIME: HeaderName = HeaderName::from_static("ce-time");
    const TYPE: HeaderName = HeaderName::from_static("ce-type");
    match name {
        "id" => Some(ID),
        "source" => Some(SOURCE),
        "specversion" => Some(SPEC_VERSION),
        "subject" => Some(SUBJECT),
        "tenant" => Some(TENANT),
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
        assert_eq!(names, ["specversion", "id", "source", "type", "time"]);
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
        let value = |text: &str| encoded(text).and_then(|value| value.to_str().map(str::to_owned).ok());
        // The example of the specification, section 3.1.3.2.
        assert_eq!(
            value("Euro € 😀").as_deref(),
            Some("Euro%20%E2%82%AC%20%F0%9F%98%80")
        );
        assert_eq!(value("a\"b%c\r\nx: y").as_deref(), Some("a%22b%25c%0D%0Ax:%20y"));
    }
}

//! One record of a stream, presented as a CloudEvents 1.0 event. Immutable once decoded, shared by `Arc`.

mod json;

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use smallvec::SmallVec;

use crate::attributes::Attributes;
use crate::contract::{AttributeSource, Stream};
use crate::ids::{AttributeId, Slot, TenantId};
use crate::project::{Document, Mask};

/// What happened to the thing that the event speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Change {
    /// It is new.
    Created,
    /// It has another value.
    Updated,
    /// It moved out of the reader's filter.
    Left,
    /// It is gone.
    Deleted,
    /// It was written; whether it is new is not known.
    Changed,
}

impl Change {
    /// The last segment of the event's type.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Left => "left",
            Self::Deleted => "deleted",
            Self::Changed => "changed",
        }
    }
}

/// The body of an event.
#[derive(Clone)]
pub enum Data {
    /// A JSON document, checked and indexed: field masks and projections work on it.
    Json(Document),
    /// Bytes of another media type; carried as `data_base64`, and only where nothing of the data is hidden.
    Binary(Bytes),
    /// No body (a tombstone).
    None,
}

/// One event.
#[derive(Clone)]
pub struct Event {
    /// The stream's declaration.
    pub stream: Arc<Stream>,
    /// The partition that it came from, by this node's numbering.
    pub slot: Slot,
    /// Its offset in that partition.
    pub offset: i64,
    /// Whose it is.
    pub tenant: TenantId,
    /// CloudEvents `id`.
    pub id: Arc<str>,
    /// CloudEvents `source`.
    pub source: Arc<str>,
    /// CloudEvents `type`: `<type_prefix>.<stream>.<change>`.
    pub kind: Arc<str>,
    /// CloudEvents `subject`.
    pub subject: Option<Arc<str>>,
    /// CloudEvents `time`, in milliseconds since the Unix epoch.
    pub time_ms: i64,
    /// CloudEvents `datacontenttype`.
    pub content_type: Arc<str>,
    /// What happened.
    pub change: Change,
    /// The record's key.
    pub key: Option<Bytes>,
    /// The declared attributes' values.
    pub attributes: Attributes,
    /// The producer's own CloudEvents extension attributes, where they collide with no declared or reserved name.
    /// Emitted only under a mask that hides nothing (see [`Event::encode`]).
    pub extensions: Vec<(Arc<str>, Arc<str>)>,
    /// The body.
    pub data: Data,
    /// What it costs in memory, roughly, for the bounds of rings and caches.
    pub bytes: usize,
}

impl Event {
    /// Appends the event as one CloudEvents JSON object without line breaks, hidden fields removed.
    ///
    /// The object starts with `{"specversion":"1.0"`, so that a caller can put a member in front of it. Then come `id`,
    /// `source`, `type`, `subject`, `time`, `tenant`, the declared attributes, the producer's extensions,
    /// `datacontenttype` and `data` (or `data_base64`). What of that a mask takes away:
    ///
    /// - of the data, what it hides; all of it if it is not JSON and the mask hides anything;
    /// - an attribute whose pointer is at, above or below something hidden. One with a `*` is never emitted;
    /// - `subject`, and attributes from the key or a header, where their text holds the value of an attribute that is
    ///   hidden (a hidden `patient` is not given away by the key). Hidden fields that are no attributes are not looked
    ///   for: whoever puts them into keys or CloudEvents attributes publishes them;
    /// - the producer's extensions, all of them, if the mask hides anything: nobody declared what they hold.
    pub fn encode(&self, mask: &Mask, out: &mut Vec<u8>) {
        let open = mask.hides_nothing();
        let secrets = if open {
            SmallVec::new()
        } else {
            self.hidden_values(mask)
        };
        let told = |text: &str| !secrets.iter().any(|secret| holds(text, secret));

        out.reserve(self.bytes.min(1 << 20) + 256);
        out.extend_from_slice(br#"{"specversion":"1.0","id":"#);
        json::string(&self.id, out);
        out.extend_from_slice(br#","source":"#);
        json::string(&self.source, out);
        out.extend_from_slice(br#","type":"#);
        json::string(&self.kind, out);
        if let Some(subject) = self.subject.as_deref().filter(|subject| told(subject)) {
            out.extend_from_slice(br#","subject":"#);
            json::string(subject, out);
        }
        if json::has_time(self.time_ms) {
            out.extend_from_slice(br#","time":"#);
            json::time(self.time_ms, out);
        }
        out.extend_from_slice(br#","tenant":"#);
        json::string(self.tenant.as_str(), out);
        for (id, value) in self.attributes.iter() {
            let Some(attribute) = self.stream.attributes.get(usize::from(id.0)) else {
                continue;
            };
            let shown = match &attribute.source {
                AttributeSource::Pointer(pointer) => {
                    !pointer.has_wildcard() && (open || !mask.hides(pointer))
                }
                AttributeSource::Key | AttributeSource::Header(_) => told(value),
            };
            if shown {
                json::member(attribute.name.as_str(), value, out);
            }
        }
        if open {
            for (name, value) in &self.extensions {
                json::member(name, value, out);
            }
        }
        self.encode_data(mask, open, out);
        out.push(b'}');
    }

    /// What the event holds in memory, roughly: its own size, and what its pointers own.
    pub(crate) fn memory(&self) -> usize {
        let data = match &self.data {
            Data::Json(document) => document.memory(),
            Data::Binary(bytes) => bytes.len(),
            Data::None => 0,
        };
        let extensions: usize = self
            .extensions
            .iter()
            .map(|(name, value)| name.len() + value.len() + 64)
            .sum();
        let texts = self.id.len() + self.source.len() + self.subject.as_deref().map_or(0, str::len) + 48;
        let key = self.key.as_ref().map_or(0, Bytes::len);
        size_of::<Self>() + data + extensions + texts + key + self.attributes.memory()
    }

    fn encode_data(&self, mask: &Mask, open: bool, out: &mut Vec<u8>) {
        let before = out.len();
        if !matches!(self.data, Data::None) {
            json::member("datacontenttype", &self.content_type, out);
        }
        match &self.data {
            Data::Json(document) => {
                out.extend_from_slice(br#","data":"#);
                if !document.write(mask, out) {
                    out.truncate(before);
                }
            }
            Data::Binary(bytes) if open => {
                out.extend_from_slice(br#","data_base64":""#);
                out.extend_from_slice(STANDARD.encode(bytes).as_bytes());
                out.push(b'"');
            }
            Data::Binary(_) => out.truncate(before),
            Data::None => {}
        }
    }

    /// The values of the attributes that the mask hides.
    fn hidden_values(&self, mask: &Mask) -> SmallVec<[&str; 4]> {
        let is_hidden = |id: AttributeId| match self.stream.attributes.get(usize::from(id.0)) {
            Some(attribute) => match &attribute.source {
                AttributeSource::Pointer(pointer) => mask.hides(pointer),
                AttributeSource::Key | AttributeSource::Header(_) => false,
            },
            None => false,
        };
        self.attributes
            .iter()
            .filter(|(id, _)| is_hidden(*id))
            .map(|(_, value)| &**value)
            .collect()
    }
}

/// Never the payload: what is written for debugging ends up in logs.
impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json(document) => document.fmt(f),
            Self::Binary(bytes) => write!(f, "Binary({} bytes)", bytes.len()),
            Self::None => f.write_str("None"),
        }
    }
}

/// Where it came from and what happened; never the payload, the key or attributes.
impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("stream", &self.stream.name)
            .field("slot", &self.slot)
            .field("offset", &self.offset)
            .field("change", &self.change)
            .field("data", &self.data)
            .finish_non_exhaustive()
    }
}

/// Whether a text gives a hidden value away: it holds the whole of it, or the id of a reference (`1` of `Patient/1`) as a
/// word of its own.
fn holds(text: &str, secret: &str) -> bool {
    if secret.is_empty() {
        return false;
    }
    let id = secret
        .rsplit_once('/')
        .map(|(_, id)| id)
        .filter(|id| !id.is_empty());
    let is_word = |at: usize, length: usize| {
        let outside = |byte: Option<&u8>| byte.is_none_or(|byte| !byte.is_ascii_alphanumeric());
        let bytes = text.as_bytes();
        outside(at.checked_sub(1).and_then(|before| bytes.get(before))) && outside(bytes.get(at + length))
    };
    text.contains(secret) || id.is_some_and(|id| text.match_indices(id).any(|(at, id)| is_word(at, id.len())))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use secrecy::SecretString;
    use serde_json::{Value, json};

    use super::*;
    use crate::contract::{Format, TenantSource};
    use crate::decode::Decoder;
    use crate::fixture::{self, pointer};

    const RESOURCE: &str = r#"{ "id": "9", "subject": {"reference": "Patient/1"}, "status": "final",
        "code": {"coding": [{"code": "c1"}, {"code": "c2"}]}, "value": 1.00, "note": [{"text": "x"}] }"#;

    fn event(stream: Stream, key: &str, value: &str, headers: &[(&str, &str)]) -> Event {
        let decoder = Decoder::new(Arc::new(stream), &SecretString::from("id secret"));
        let decoded = decoder.decode(fixture::record(key, value, headers));
        decoded.expect("a good record").expect("not passed over")
    }

    fn observation(key: &str) -> Event {
        event(
            fixture::clinical(),
            key,
            RESOURCE,
            &[("tenant", "north"), ("unit", "ICU")],
        )
    }

    fn encoded(event: &Event, mask: &Mask) -> (String, Value) {
        let mut out = Vec::new();
        event.encode(mask, &mut out);
        let text = String::from_utf8(out).expect("UTF-8");
        let value = serde_json::from_str(&text).expect("JSON");
        (text, value)
    }

    fn hide(pointers: &[&str]) -> Mask {
        Mask::hide(pointers.iter().map(|text| pointer(text)))
    }

    #[test]
    fn an_event_is_one_line_of_cloudevents() {
        let (text, _) = encoded(&observation("Observation/9"), &Mask::nothing_hidden());
        insta::assert_snapshot!(text, @r#"{"specversion":"1.0","id":"OeSI2y1WlhKuSpZqtO8W4w","source":"/streams/observations","type":"tidewire.observations.changed","subject":"Observation/9","time":"2023-11-14T22:13:20.123Z","tenant":"north","patient":"Patient/1","status":"final","rkey":"Observation/9","unit":"ICU","datacontenttype":"application/json","data":{"id":"9","subject":{"reference":"Patient/1"},"status":"final","code":{"coding":[{"code":"c1"},{"code":"c2"}]},"value":1.00,"note":[{"text":"x"}]}}"#);
    }

    #[test]
    fn hidden_attributes_are_neither_in_the_data_nor_beside_it() {
        let event = observation("Observation/9");
        for mask in [
            hide(&["/subject"]),
            hide(&["/subject/reference"]),
            hide(&["/subject/reference/below"]),
            hide(&["/subject/*"]),
            Mask::show([pointer("/status")]),
        ] {
            let (_, value) = encoded(&event, &mask);
            assert_eq!(value.get("patient"), None, "{mask:?}");
            assert_eq!(value["status"], json!("final"), "{mask:?}");
            assert_eq!(value["subject"], json!("Observation/9"), "{mask:?}");
        }
        let (_, value) = encoded(&event, &hide(&[""]));
        assert_eq!(
            (
                value.get("data"),
                value.get("datacontenttype"),
                value.get("status")
            ),
            (None, None, None)
        );
        assert_eq!(value["tenant"], json!("north"));
    }

    #[test]
    fn attributes_with_a_star_are_for_filters_only() {
        let (_, value) = encoded(&observation("k"), &Mask::nothing_hidden());
        assert_eq!(value.get("code"), None);
    }

    #[test]
    fn the_key_does_not_give_a_hidden_attribute_away() {
        for key in ["Patient/1", "north:Patient/1:9", "1", "1:9", "obs-1-9"] {
            let event = observation(key);
            let (_, open) = encoded(&event, &Mask::nothing_hidden());
            assert_eq!((&open["subject"], &open["rkey"]), (&json!(key), &json!(key)));
            let (text, masked) = encoded(&event, &hide(&["/subject"]));
            assert_eq!(
                (masked.get("subject"), masked.get("rkey")),
                (None, None),
                "{text}"
            );
            assert!(!text.contains("Patient/1"));
            // What is hidden has nothing to do with the key.
            let (_, other) = encoded(&event, &hide(&["/note"]));
            assert_eq!(other["subject"], json!(key));
        }
        let (_, masked) = encoded(&observation("Observation/21"), &hide(&["/subject"]));
        assert_eq!(masked["subject"], json!("Observation/21"), "1 is no word of 21");
        let event = event(
            fixture::clinical(),
            "k",
            RESOURCE,
            &[("tenant", "north"), ("unit", "of Patient/1")],
        );
        assert_eq!(encoded(&event, &hide(&["/subject"])).1.get("unit"), None);
    }

    #[test]
    fn extensions_are_the_producers_and_shown_only_with_all_the_data() {
        let mut stream = fixture::clinical();
        stream.format = Format::CloudEvents;
        let headers = [
            ("tenant", "north"),
            ("ce_specversion", "1.0"),
            ("ce_id", "e\n1"),
            ("ce_source", "urn:lab"),
            ("ce_type", "theirs"),
            ("ce_traceparent", "00-x"),
        ];
        let event = event(stream, "k", RESOURCE, &headers);
        let (_, open) = encoded(&event, &Mask::nothing_hidden());
        assert_eq!(
            (&open["traceparent"], &open["id"], &open["source"]),
            (&json!("00-x"), &json!("e\n1"), &json!("urn:lab"))
        );
        assert_eq!(open["type"], json!("tidewire.observations.changed"));
        assert_eq!(encoded(&event, &hide(&["/note"])).1.get("traceparent"), None);
    }

    #[test]
    fn bytes_are_given_whole_or_not_at_all() {
        let mut stream = fixture::clinical();
        stream.format = Format::CloudEvents;
        stream.tenant = TenantSource::Header("tenant".to_owned());
        let headers = [
            ("tenant", "north"),
            ("content-type", "text/plain"),
            ("ce_specversion", "1.0"),
            ("ce_id", "1"),
            ("ce_source", "s"),
            ("ce_type", "t"),
        ];
        let event = event(stream, "k", "hello", &headers);
        let (_, open) = encoded(&event, &Mask::nothing_hidden());
        assert_eq!(
            (&open["data_base64"], &open["datacontenttype"]),
            (&json!("aGVsbG8="), &json!("text/plain"))
        );
        let (text, _) = encoded(&event, &hide(&["/note"]));
        assert!(!text.contains("data"), "{text}");
    }

    #[test]
    fn an_event_without_a_time_has_none() {
        let mut event = observation("k");
        event.time_ms = -1;
        assert_eq!(encoded(&event, &Mask::nothing_hidden()).1.get("time"), None);
    }

    #[test]
    fn memory_counts_what_is_held() {
        let small = observation("k");
        let large = observation(&"k".repeat(10_000));
        assert!(large.bytes > small.bytes + 10_000);
        assert!(small.bytes > RESOURCE.len());
    }

    /// A tree whose strings are all different: `t0z`, `t1z`, ...
    fn tokens() -> impl Strategy<Value = Value> {
        let tree = Just(json!("")).prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec(("[abcd]", inner), 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        });
        tree.prop_map(|mut tree| {
            let mut count = 0;
            number(&mut tree, &mut count);
            tree
        })
    }

    fn number(tree: &mut Value, count: &mut usize) {
        match tree {
            Value::Object(members) => members.values_mut().for_each(|value| number(value, count)),
            Value::Array(values) => values.iter_mut().for_each(|value| number(value, count)),
            leaf => {
                *leaf = Value::from(format!("t{count}z"));
                *count += 1;
            }
        }
    }

    fn tokens_in(text: &str) -> Vec<&str> {
        text.split(|c: char| !c.is_ascii_alphanumeric())
            .filter(|word| word.len() > 2 && word.starts_with('t') && word.ends_with('z'))
            .filter(|word| {
                word.trim_matches(['t', 'z'])
                    .bytes()
                    .all(|byte| byte.is_ascii_digit())
            })
            .collect()
    }

    fn masks() -> impl Strategy<Value = Mask> {
        let pointers = prop::collection::vec("(/[abcd01*]){0,4}", 0..4)
            .prop_map(|texts| texts.iter().map(|text| pointer(text)).collect::<Vec<_>>());
        let one = prop_oneof![
            pointers.clone().prop_map(Mask::hide),
            pointers.prop_map(Mask::show)
        ];
        prop::collection::vec(one, 1..4).prop_map(|masks| Mask::any_of(&masks))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn nothing_hidden_stands_anywhere_in_the_event(tree in tokens(), mask in masks(), in_key in 0..3_usize) {
            let pointers = ["/a/b", "/c", "/d/*/a"];
            let stream = fixture::stream(vec![
                fixture::attribute("one", pointers[0]),
                fixture::attribute("two", pointers[1]),
                fixture::attribute("three", pointers[2]),
                fixture::attribute("rkey", "key"),
            ]);
            let text = tree.to_string();
            let document = Document::parse(Bytes::from(text.clone())).expect("a document");
            // The key tells the value of one of the attributes.
            let told = document.strings_at(&pointer(pointers[in_key])).next().unwrap_or_default();
            let event = event(stream, &format!("k-{told}"), &text, &[("tenant", "north")]);
            let (written, _) = encoded(&event, &mask);
            let mut shown = Vec::new();
            document.write(&mask, &mut shown);
            let shown = String::from_utf8(shown).expect("UTF-8");
            for token in tokens_in(&written) {
                prop_assert!(tokens_in(&shown).contains(&token), "{} is hidden: {}", token, written);
            }
        }
    }
}

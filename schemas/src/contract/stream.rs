//! One `[streams.NAME]` table, read into a [`Stream`].
//!
//! Invariant: what is read here is right by itself; what needs the SDL is checked by [`super::check`]. It does not know
//! the cluster: whether a topic exists or is compacted shows at run time.

use crate::ids::StreamName;
use crate::project::Pointer;

use super::access;
use super::attribute::{self, read_header, read_pointer};
use super::settings::{Placed, Table};
use super::topic::{CAPTURE, TopicPattern};
use super::{Deletes, Format, Stream, TenantSource};

/// A stream as it was read, with the places that later checks need.
#[derive(Debug)]
pub(super) struct Declared {
    /// The stream's name as it is written.
    pub(super) name: Placed<String>,
    /// The stream, unless something was wrong with it.
    pub(super) stream: Option<Stream>,
    /// The SDL type's name.
    pub(super) schema: Option<Placed<String>>,
    /// The attributes' pointers.
    pub(super) pointers: Vec<Placed<Pointer>>,
    /// The tenant's pointer, where it is one.
    pub(super) tenant: Option<Placed<Pointer>>,
    /// The rules' field lists.
    pub(super) fields: Vec<access::Fields>,
}

impl Declared {
    /// Reads a stream's table.
    pub(super) fn read(name: &Placed<String>, table: &Table) -> Self {
        let parsed = read_name(name, table);
        let topics = read_topics(table);
        let tenant = read_tenant(table);
        let deletes = read_deletes(table);
        check_together(table, topics.as_deref(), tenant.as_ref(), deletes.as_ref());
        let attributes = table
            .table("attributes")
            .map(|attributes| attribute::Declared::read(&attributes))
            .unwrap_or_default();
        let access = access::Declared::read(table, &attributes);
        let format = read_format(table);
        let schema = table.str("schema");
        let type_prefix = read_type_prefix(table);
        let source = read_source(table, &name.value);
        read_state(table);
        let description = table.str("description").map(|text| text.value);
        let show_offsets = table.boolean("show_offsets").is_some_and(|flag| flag.value);
        table.finish();
        let schema_name = schema.as_ref().map(|schema| schema.value.clone());
        let tenant_pointer = tenant.as_ref().and_then(|tenant| match &tenant.value {
            TenantSource::Pointer(pointer) => Some(Placed {
                value: pointer.clone(),
                place: tenant.place.clone(),
            }),
            TenantSource::Header(_) | TenantSource::Topic | TenantSource::KeyPrefix { .. } => None,
        });
        let build = || {
            Some(Stream {
                name: parsed?,
                revision: 0,
                description,
                topics: topics?.into_iter().map(|topic| topic.value).collect(),
                format: format?,
                schema: schema_name,
                tenant: tenant?.value,
                attributes: attributes.attributes,
                deletes: deletes?.value,
                access: access.rules,
                type_prefix: type_prefix?,
                source: source?,
                show_offsets,
            })
        };
        Self {
            name: name.clone(),
            stream: build(),
            schema,
            pointers: attributes.pointers,
            tenant: tenant_pointer,
            fields: access.fields,
        }
    }
}

fn read_name(name: &Placed<String>, table: &Table) -> Option<StreamName> {
    StreamName::parse(&name.value)
        .map_err(|bad| {
            let free: String = name
                .value
                .to_lowercase()
                .chars()
                .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
                .collect();
            let mend = match StreamName::parse(&free) {
                Ok(_) => format!("write [streams.{free}]"),
                Err(_) => "choose a name such as `observations`".to_owned(),
            };
            table.report(&name.place, "stream_name_invalid", bad.to_string(), mend);
        })
        .ok()
}

fn read_topics(table: &Table) -> Option<Vec<Placed<TopicPattern>>> {
    let texts = table.required_strings("topics")?;
    if texts.is_empty() {
        let message = "no topic is named";
        table.report(
            table.place_of("topics"),
            "topics_empty",
            message,
            "name at least one topic",
        );
        return None;
    }
    let mut topics: Vec<Placed<TopicPattern>> = Vec::new();
    for text in texts {
        let pattern = match TopicPattern::parse(&text.value) {
            Ok(pattern) => pattern,
            Err(bad) => {
                let mend =
                    "write a topic's name; `*` stands for any run of characters, `{tenant}` for the tenant";
                table.report(&text.place, "topic_invalid", bad.to_string(), mend);
                continue;
            }
        };
        if topics.iter().any(|known| known.value == pattern) {
            let message = format!("the topic {:?} is named twice", text.value);
            table.report(&text.place, "duplicate", message, "remove one of them");
        }
        if let Some(other) = topics
            .iter()
            .find(|known| known.value.is_ambiguous_with(&pattern))
        {
            let message = format!(
                "a topic could match {:?} and {:?} and be read as two tenants",
                other.value.as_str(),
                text.value
            );
            let mend = "give the patterns prefixes or suffixes that keep them apart";
            table.report(&text.place, "topic_ambiguous", message, mend);
        }
        topics.push(Placed {
            value: pattern,
            place: text.place,
        });
    }
    Some(topics)
}

fn read_tenant(table: &Table) -> Option<Placed<TenantSource>> {
    const SOURCES: &str = "one of { header = \"tenant\" }, { topic = \"{tenant}\" }, { key = \"prefix\" }, { pointer = \"/tenant\" }";
    let Some(value) = table.value("tenant") else {
        table.missing("tenant", SOURCES);
        return None;
    };
    if !value.is_table() {
        return table.wrong("tenant", value, SOURCES);
    }
    let tenant = table.table("tenant")?;
    let written = ["header", "topic", "key", "pointer"].map(|key| tenant.has(key));
    let mut place = table.place_of("tenant").clone();
    let source = match written {
        [true, false, false, false] => tenant.str("header").and_then(|text| {
            let header = read_header(&tenant, &text.place, &text.value)?;
            Some(TenantSource::Header(header))
        }),
        [false, true, false, false] => tenant.str("topic").and_then(|text| {
            if text.value == CAPTURE {
                return Some(TenantSource::Topic);
            }
            let message = format!("{:?} captures no tenant", text.value);
            let mend = "write topic = \"{tenant}\", and `{tenant}` in the stream's topics";
            tenant.report(&text.place, "unknown_value", message, mend);
            None
        }),
        [false, false, true, false] => tenant
            .choice("key", &["prefix"])
            .and_then(|_| read_separator(&tenant).map(|separator| TenantSource::KeyPrefix { separator })),
        [false, false, false, true] => tenant.str("pointer").and_then(|text| {
            let pointer = read_pointer(&tenant, &text.place, &text.value)?;
            if pointer.has_wildcard() {
                let message = "a `*` could find several tenants";
                tenant.report(&text.place, "tenant_wildcard", message, "point at one string");
                return None;
            }
            place = text.place;
            Some(TenantSource::Pointer(pointer))
        }),
        _ => {
            let message = format!("`{}` needs exactly one source", tenant.path());
            tenant.report(
                table.place_of("tenant"),
                "tenant_source_invalid",
                message,
                format!("write {SOURCES}"),
            );
            None
        }
    };
    tenant.finish();
    source.map(|value| Placed { value, place })
}

fn read_separator(tenant: &Table) -> Option<char> {
    if !tenant.has("separator") {
        return Some(':');
    }
    let text = tenant.str("separator")?;
    let mut chars = text.value.chars();
    match (chars.next(), chars.next()) {
        (Some(only), None) => Some(only),
        _ => {
            let message = format!("the separator {:?} is not one character", text.value);
            tenant.report(
                &text.place,
                "separator_invalid",
                message,
                "write one character, such as \":\"",
            );
            None
        }
    }
}

fn read_format(table: &Table) -> Option<Format> {
    const KNOWN: [&str; 6] = [
        "json",
        "cloudevents",
        "debezium",
        "avro",
        "protobuf",
        "json-schema",
    ];
    if !table.has("format") {
        return Some(Format::Json);
    }
    let word = table.choice("format", &KNOWN)?;
    match word.value {
        "json" => Some(Format::Json),
        "cloudevents" => Some(Format::CloudEvents),
        later => {
            not_yet(
                table,
                &word,
                &format!("the format \"{later}\""),
                "write \"json\" or \"cloudevents\"",
            );
            None
        }
    }
}

fn read_deletes(table: &Table) -> Option<Placed<Deletes>> {
    let place = table.place_of("deletes").clone();
    if !table.has("deletes") {
        return Some(Placed {
            value: Deletes::None,
            place,
        });
    }
    let word = table.choice("deletes", &["previous", "headers", "none"])?;
    let value = match word.value {
        "headers" => Deletes::Headers,
        "none" => Deletes::None,
        _ => {
            not_yet(
                table,
                &word,
                "`deletes = \"previous\"`",
                "write \"headers\" or \"none\"",
            );
            return None;
        }
    };
    Some(Placed { value, place })
}

fn read_state(table: &Table) {
    if let Some(word) = table.choice("state", &["compacted"]) {
        not_yet(table, &word, "`state` (snapshot, then live)", "remove it");
    }
}

fn not_yet(table: &Table, word: &Placed<&str>, what: &str, mend: &str) {
    let message = format!("{what} is not part of this version yet");
    table.report(&word.place, "not_yet", message, mend);
}

fn read_type_prefix(table: &Table) -> Option<String> {
    if !table.has("type_prefix") {
        return Some("tidewire".to_owned());
    }
    let text = table.str("type_prefix")?;
    let segment = |segment: &str| {
        !segment.is_empty()
            && segment
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
    };
    if text.value.len() <= 128 && text.value.split('.').all(segment) {
        return Some(text.value);
    }
    let message = format!("{:?} cannot start an event type", text.value);
    let mend = "write words of letters, digits, `-` and `_` with dots between them, such as \"org.example\"";
    table.report(&text.place, "type_prefix_invalid", message, mend);
    None
}

fn read_source(table: &Table, name: &str) -> Option<String> {
    if !table.has("source") {
        return Some(format!("/streams/{name}"));
    }
    let text = table.str("source")?;
    let uri = |c: char| c.is_ascii_alphanumeric() || "-._~:/?#[]@!$&'()*+,;=%".contains(c);
    if !text.value.is_empty() && text.value.len() <= 1024 && text.value.chars().all(uri) {
        return Some(text.value);
    }
    let message = format!("{:?} is no URI reference", text.value);
    let mend = "write a path or a URI, such as \"/streams/observations\" (CloudEvents `source`)";
    table.report(&text.place, "source_invalid", message, mend);
    None
}

/// What is right by itself and wrong together.
fn check_together(
    table: &Table,
    topics: Option<&[Placed<TopicPattern>]>,
    tenant: Option<&Placed<TenantSource>>,
    deletes: Option<&Placed<Deletes>>,
) {
    let Some(tenant) = tenant else { return };
    for topic in topics.unwrap_or_default() {
        let by_topic = tenant.value == TenantSource::Topic;
        if by_topic && !topic.value.has_capture() {
            let message = format!("the topic {:?} says no tenant", topic.value.as_str());
            let mend = "write `{tenant}` into it, or take the tenant from elsewhere";
            table.report(&topic.place, "tenant_capture_missing", message, mend);
        }
        if !by_topic && topic.value.has_capture() {
            let message = format!(
                "{:?} captures a tenant that `tenant` does not ask for",
                topic.value.as_str()
            );
            let mend = "write tenant = { topic = \"{tenant}\" }, or `*` in place of the capture";
            table.report(&topic.place, "tenant_capture_unused", message, mend);
        }
    }
    if let (TenantSource::Pointer(_), Some(deletes)) = (&tenant.value, deletes)
        && deletes.value == Deletes::Headers
    {
        let message = "a tombstone has no value, so that a tenant by pointer cannot be known";
        let mend = "take the tenant from a header, the topic or the key, or write deletes = \"none\"";
        table.report(&deletes.place, "deletes_without_tenant", message, mend);
    }
}

//! The contract's revision: a digest of what it means.
//!
//! Invariant: equal on every node and version of this program that read the same declarations; comments, descriptions,
//! white space and the order of files and tables do not change it. It does not know cursors, which carry it.

use aws_lc_rs::digest::{SHA256, digest as sha256};
use serde_json::{Value, json};

use crate::project::Mask;

use super::attribute::AttributeSource;
use super::template::{Template, TemplatePart};
use super::{Deletes, Format, Rows, Stream, TenantSource};

/// The first eight bytes of the SHA-256 of the canonical SDL and of the streams, which are ordered by name.
pub(super) fn digest(sdl: &str, streams: &[Stream]) -> u64 {
    let streams: Vec<Value> = streams.iter().map(stream).collect();
    let text = json!({ "tidewire_contract": 1, "sdl": sdl, "streams": streams }).to_string();
    let hash = sha256(&SHA256, text.as_bytes());
    hash.as_ref()
        .iter()
        .take(8)
        .fold(0, |number, byte| (number << 8) | u64::from(*byte))
}

fn stream(stream: &Stream) -> Value {
    let mut topics: Vec<&str> = stream.topics.iter().map(|topic| topic.as_str()).collect();
    topics.sort_unstable();
    let attributes: Vec<Value> = stream
        .attributes
        .iter()
        .map(|attribute| {
            let source = match &attribute.source {
                AttributeSource::Pointer(pointer) => json!({ "pointer": pointer.to_string() }),
                AttributeSource::Key => json!("key"),
                AttributeSource::Header(name) => json!({ "header": name }),
            };
            json!([attribute.name.as_str(), source, attribute.reference])
        })
        .collect();
    let access: Vec<Value> = stream
        .access
        .iter()
        .map(|rule| {
            let mut scopes = rule.scopes.clone();
            scopes.sort();
            json!([scopes, rows(&rule.rows), mask(&rule.mask)])
        })
        .collect();
    json!({
        "name": stream.name.as_str(),
        "topics": topics,
        "format": match stream.format {
            Format::Json => "json",
            Format::CloudEvents => "cloudevents",
        },
        "schema": stream.schema,
        "tenant": match &stream.tenant {
            TenantSource::Header(name) => json!({ "header": name }),
            TenantSource::Topic => json!("topic"),
            TenantSource::KeyPrefix { separator } => json!({ "key": separator.to_string() }),
            TenantSource::Pointer(pointer) => json!({ "pointer": pointer.to_string() }),
        },
        "attributes": attributes,
        "deletes": match stream.deletes {
            Deletes::Previous => "previous",
            Deletes::Headers => "headers",
            Deletes::None => "none",
        },
        "access": access,
        "type_prefix": stream.type_prefix,
        "source": stream.source,
        "show_offsets": stream.show_offsets,
    })
}

fn rows(rows: &Rows) -> Value {
    match rows {
        Rows::Tenant => json!("tenant"),
        Rows::Match(terms) => terms
            .iter()
            .map(|(attribute, template)| json!([attribute.0, parts(template)]))
            .collect(),
    }
}

fn parts(template: &Template) -> Value {
    let part = |part: &TemplatePart| match part {
        TemplatePart::Text(text) => json!({ "text": text }),
        TemplatePart::Claim(name) => json!({ "claim": name }),
        TemplatePart::Subject => json!("subject"),
    };
    template.parts.iter().map(part).collect()
}

fn mask(shown: &Mask) -> Value {
    match shown {
        Mask::Hide(pointers) => {
            json!({ "hide": pointers.iter().map(ToString::to_string).collect::<Vec<_>>() })
        }
        Mask::Show(pointers) => {
            json!({ "show": pointers.iter().map(ToString::to_string).collect::<Vec<_>>() })
        }
        Mask::All(masks) => json!({ "all": masks.iter().map(mask).collect::<Vec<_>>() }),
    }
}

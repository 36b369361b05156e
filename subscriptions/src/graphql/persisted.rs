//! Which document a request means: the one that it brings, one that it names by its hash (automatic persisted queries),
//! or one that the operator trusts.

use std::collections::HashMap;
use std::sync::Arc;

use aws_lc_rs::digest;
use schemas::problem::Code;
use serde_json::Value;

use super::cache::Cache;
use super::error::{GraphqlError, Refused};
use super::limits::{Limits, Persisted};
use super::request::Request;
use super::variables::bad_input;

/// A document's SHA-256.
pub(super) type Hash = [u8; 32];

/// Documents that are known by name.
pub(super) struct Documents {
    settings: Persisted,
    /// The trusted ones by their own hashes, for requests that bring them whole.
    trusted: HashMap<Hash, Arc<str>>,
    automatic: Cache<Hash, Arc<str>>,
}

/// The document that a request means.
pub(super) struct Document {
    pub(super) text: Arc<str>,
    pub(super) hash: Hash,
    /// Whether it is to be kept under its hash once it has proven good.
    pub(super) register: bool,
}

impl Documents {
    pub(super) fn new(settings: Persisted, limits: &Limits) -> Self {
        let trusted = settings
            .trusted
            .values()
            .map(|text| (hash(text), Arc::clone(text)))
            .collect();
        Self {
            settings,
            trusted,
            automatic: Cache::new(limits.cached_operations_max, limits.cached_bytes_max / 4),
        }
    }

    /// The document that the request means.
    pub(super) fn of(&self, request: &Request) -> Result<Document, Refused> {
        let named = named(request)?;
        if let Some(text) = request.query.as_deref().filter(|text| !text.is_empty()) {
            return self.brought(text, named);
        }
        let by_id = request.document_id.as_deref();
        let by_hash = named.map(|hash| hex(&hash));
        let trusted = by_id
            .or(by_hash.as_deref())
            .and_then(|name| self.settings.trusted.get(name));
        if let Some(text) = trusted {
            return Ok(Document {
                text: Arc::clone(text),
                hash: hash(text),
                register: false,
            });
        }
        let Some(hash) = named else {
            if by_id.is_some() {
                return Err(Refused::ours(
                    Code::DOCUMENT_UNKNOWN,
                    "no document has this documentId",
                ));
            }
            return Err(bad_request("the request has no query"));
        };
        if let Some(text) = self.trusted.get(&hash) {
            return Ok(Document {
                text: Arc::clone(text),
                hash,
                register: false,
            });
        }
        if self.settings.only_trusted {
            return Err(not_trusted());
        }
        if !self.settings.automatic {
            // What clients of automatic persisted queries expect of a server that has none.
            return Err(Refused::new(
                Code::DOCUMENT_UNKNOWN,
                GraphqlError::new("PERSISTED_QUERY_NOT_SUPPORTED", "PersistedQueryNotSupported"),
            ));
        }
        match self.automatic.get(&hash) {
            Some(text) => Ok(Document {
                text,
                hash,
                register: false,
            }),
            None => Err(Refused::new(
                Code::DOCUMENT_UNKNOWN,
                GraphqlError::new("PERSISTED_QUERY_NOT_FOUND", "PersistedQueryNotFound"),
            )),
        }
    }

    fn brought(&self, text: &str, named: Option<Hash>) -> Result<Document, Refused> {
        let hash = hash(text);
        if named.is_some_and(|named| named != hash) {
            return Err(bad_request("provided sha does not match query"));
        }
        if let Some(text) = self.trusted.get(&hash) {
            return Ok(Document {
                text: Arc::clone(text),
                hash,
                register: false,
            });
        }
        if self.settings.only_trusted {
            return Err(not_trusted());
        }
        Ok(Document {
            text: text.into(),
            hash,
            register: named.is_some() && self.settings.automatic,
        })
    }

    /// Keeps a document that has proven good.
    pub(super) fn register(&self, document: &Document) {
        if document.register {
            let bytes = document.text.len() + 64;
            self.automatic
                .insert(document.hash, Arc::clone(&document.text), bytes);
        }
    }
}

/// The hash in `extensions.persistedQuery`.
fn named(request: &Request) -> Result<Option<Hash>, Refused> {
    let Some(persisted) = request
        .extensions
        .get("persistedQuery")
        .filter(|value| !value.is_null())
    else {
        return Ok(None);
    };
    if persisted.get("version").and_then(Value::as_u64) != Some(1) {
        return Err(bad_request("unsupported persisted query version"));
    }
    let hash = persisted
        .get("sha256Hash")
        .and_then(Value::as_str)
        .and_then(unhex);
    hash.map(Some)
        .ok_or_else(|| bad_request("persistedQuery.sha256Hash must be 64 hexadecimal digits"))
}

fn hash(text: &str) -> Hash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, text.as_bytes()).as_ref());
    hash
}

fn hex(hash: &Hash) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Hash> {
    let mut hash = [0; 32];
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != hash.len() || !rest.is_empty() {
        return None;
    }
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    for (byte, [high, low]) in hash.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(hash)
}

fn not_trusted() -> Refused {
    Refused::ours(Code::DOCUMENT_UNKNOWN, "only trusted documents are run here")
}

pub(super) fn bad_request(message: &str) -> Refused {
    let mut refused = bad_input(message, async_graphql_parser::Pos::default());
    for error in &mut refused.errors {
        error.locations.clear();
        error.extensions.code = "BAD_REQUEST".into();
    }
    refused
}

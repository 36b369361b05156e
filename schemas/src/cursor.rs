//! Positions, sealed. A cursor is good on every node that has the keys; nothing is stored behind it.
//!
//! The text is URL-safe base64 of `version (1) | key id (4) | nonce (12) | ciphertext | tag (16)`. The plaintext is
//! `binding (8) | revision (8) | issued_at | topics`, padded so that its length does not tell how many digits the
//! others' offsets have. The binding is a keyed hash of stream and tenant: a cursor of another one is told apart from
//! no cursor at all, and refused.

mod body;
mod nonce;

use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::{digest, hkdf, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret, SecretString};

use crate::ids::{BadName, Incarnation, StreamName, TenantId};

/// Where a reader stands in one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Position {
    /// The next offset to read; never negative.
    At(i64),
    /// Not resolved yet: the first event at or after this time (milliseconds since the Unix epoch).
    Since(i64),
    /// Not resolved yet: the first event that Kafka still has.
    Start,
}

/// The positions in one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicPositions {
    /// A digest of the topic's name: [`topic_digest`].
    pub topic: u64,
    /// The topic's incarnation.
    pub incarnation: Incarnation,
    /// By partition number. A partition beyond the end is new to the cursor: it starts at 0.
    pub partitions: Vec<Position>,
}

/// What a cursor says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// The contract's revision.
    pub revision: u64,
    /// When it was sealed, in milliseconds since the Unix epoch.
    pub issued_at_ms: i64,
    /// Only topics that the tenant can match, ordered by digest.
    pub topics: Vec<TopicPositions>,
}

/// The longest text that is taken for a cursor.
pub const CURSOR_BYTES_MAX: usize = 4096;

/// The format of the text. Another one is no cursor of ours.
const VERSION: u8 = 1;

const KEY_ID_BYTES: usize = 4;
const HEAD_BYTES: usize = 1 + KEY_ID_BYTES;
const TAG_BYTES: usize = 16;
const BINDING_BYTES: usize = 8;

/// A stable 64-bit digest of a topic's name (the first eight bytes of its SHA-256, big-endian).
#[must_use]
pub fn topic_digest(topic: &str) -> u64 {
    let hash = digest::digest(&digest::SHA256, topic.as_bytes());
    hash.as_ref()
        .iter()
        .take(8)
        .fold(0, |digest, byte| digest << 8 | u64::from(*byte))
}

/// Why a cursor is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadCursor {
    /// Not text of ours, or sealed with a key that is not configured.
    #[error("the cursor is malformed or was sealed with an unknown key")]
    Invalid,
    /// Ours, but of another stream or tenant.
    #[error("the cursor belongs to another stream or tenant")]
    Foreign,
}

/// Seals and opens cursors. Cheap to clone.
#[derive(Clone)]
pub struct Sealer {
    /// At least one; the first seals.
    keys: Arc<[Key]>,
}

struct Key {
    id: [u8; KEY_ID_BYTES],
    aead: LessSafeKey,
    binding: hmac::Key,
}

impl Sealer {
    /// The shortest secret that is taken for a key.
    pub const KEY_BYTES_MIN: usize = 32;

    /// The first key seals; all open. Each key is at least 32 bytes of secret text; the keys that are used are derived
    /// from it (HKDF-SHA256).
    pub fn new(keys: &[SecretString]) -> Result<Self, BadName> {
        // The value of a secret is never repeated.
        let bad = |rule| BadName {
            what: "cursor key",
            value: String::new(),
            rule,
        };
        if keys.is_empty() {
            return Err(bad("at least one key"));
        }
        let derive = |secret: &SecretString| {
            let secret = secret.expose_secret().as_bytes();
            (secret.len() >= Self::KEY_BYTES_MIN)
                .then(|| Key::derive(secret))
                .flatten()
        };
        let keys = keys.iter().map(derive).collect::<Option<Arc<[Key]>>>();
        Ok(Self {
            keys: keys.ok_or_else(|| bad("at least 32 bytes"))?,
        })
    }

    /// The cursor as text: URL-safe base64 without padding.
    #[must_use]
    pub fn seal(&self, stream: &StreamName, tenant: &TenantId, cursor: &Cursor) -> String {
        let key = &self.keys[0];
        let head = key.head();
        let nonce = nonce::random();
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(&head);
        bytes.extend_from_slice(nonce.as_ref());
        let plain = bytes.len();
        bytes.extend_from_slice(&key.bind(stream, tenant));
        body::write(cursor, &mut bytes);
        let tag = key
            .aead
            .seal_in_place_separate_tag(nonce, Aad::from(head), &mut bytes[plain..])
            .expect("cursor: a plaintext of a few kilobytes can always be sealed");
        bytes.extend_from_slice(tag.as_ref());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Opens a cursor that was sealed for this stream and tenant.
    pub fn open(&self, stream: &StreamName, tenant: &TenantId, text: &str) -> Result<Cursor, BadCursor> {
        if text.len() > CURSOR_BYTES_MAX {
            return Err(BadCursor::Invalid);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| BadCursor::Invalid)?;
        let (head, rest) = bytes
            .split_first_chunk::<HEAD_BYTES>()
            .ok_or(BadCursor::Invalid)?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>().ok_or(BadCursor::Invalid)?;
        if sealed.len() < TAG_BYTES + BINDING_BYTES {
            return Err(BadCursor::Invalid);
        }
        // Two secrets may share an id, if hardly ever: all that fit are tried.
        for key in self.keys.iter().filter(|key| key.head() == *head) {
            let mut sealed = sealed.to_vec();
            let nonce = Nonce::assume_unique_for_key(*nonce);
            let Ok(plain) = key.aead.open_in_place(nonce, Aad::from(*head), &mut sealed) else {
                continue;
            };
            let (binding, body) = plain
                .split_first_chunk::<BINDING_BYTES>()
                .ok_or(BadCursor::Invalid)?;
            if *binding != key.bind(stream, tenant) {
                return Err(BadCursor::Foreign);
            }
            return body::read(body).ok_or(BadCursor::Invalid);
        }
        Err(BadCursor::Invalid)
    }

    /// The most bytes of text that a cursor over topics of these partition counts can have, to be checked against
    /// [`CURSOR_BYTES_MAX`] at the start.
    #[must_use]
    pub fn text_bytes_max(partition_counts: impl IntoIterator<Item = usize>) -> usize {
        let plain = BINDING_BYTES + body::bytes_max(partition_counts);
        ((HEAD_BYTES + NONCE_LEN + plain + TAG_BYTES) * 4).div_ceil(3)
    }
}

impl Key {
    fn derive(secret: &[u8]) -> Option<Self> {
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"tidewire cursor keys, version 1");
        let root = salt.extract(secret);
        let fill = |purpose: &[u8], out: &mut [u8]| {
            let purposes = [purpose];
            root.expand(&purposes, Length(out.len()))
                .and_then(|key| key.fill(out))
        };
        let (mut id, mut aead, mut binding) = ([0; KEY_ID_BYTES], [0; 32], [0; 32]);
        fill(b"id", &mut id).ok()?;
        fill(b"seal", &mut aead).ok()?;
        fill(b"bind", &mut binding).ok()?;
        Some(Self {
            id,
            aead: LessSafeKey::new(UnboundKey::new(&AES_256_GCM_SIV, &aead).ok()?),
            binding: hmac::Key::new(hmac::HMAC_SHA256, &binding),
        })
    }

    fn head(&self) -> [u8; HEAD_BYTES] {
        let [a, b, c, d] = self.id;
        [VERSION, a, b, c, d]
    }

    fn bind(&self, stream: &StreamName, tenant: &TenantId) -> [u8; BINDING_BYTES] {
        // Neither name can hold a line break, so the pair is unambiguous.
        let mut hash = hmac::Context::with_key(&self.binding);
        hash.update(stream.as_str().as_bytes());
        hash.update(b"\n");
        hash.update(tenant.as_str().as_bytes());
        hash.sign().as_ref().first_chunk().copied().unwrap_or_default()
    }
}

struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

#[cfg(test)]
mod tests;

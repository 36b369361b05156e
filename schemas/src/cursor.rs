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
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FIRST: &str = "the first key, thirty-two bytes long";
    const SECOND: &str = "the second key, thirty-two bytes long";

    fn sealer(keys: &[&str]) -> Sealer {
        let keys: Vec<SecretString> = keys.iter().map(|key| SecretString::from(*key)).collect();
        Sealer::new(&keys).expect("good keys")
    }

    fn stream(name: &str) -> StreamName {
        StreamName::parse(name).expect("a stream")
    }

    fn tenant(name: &str) -> TenantId {
        TenantId::parse(name).expect("a tenant")
    }

    fn cursor(offsets: &[i64]) -> Cursor {
        Cursor {
            revision: 0xFEED_FACE_CAFE_BEEF,
            issued_at_ms: 1_790_000_000_000,
            topics: vec![TopicPositions {
                topic: topic_digest("fhir.observation"),
                incarnation: Incarnation(17),
                partitions: offsets.iter().map(|offset| Position::At(*offset)).collect(),
            }],
        }
    }

    #[test]
    fn topics_have_a_stable_digest() {
        // The first eight bytes of `printf fhir.observation | sha256sum`.
        assert_eq!(topic_digest("fhir.observation"), 0xee2c_c5ee_dcc2_505c);
        assert_ne!(
            topic_digest("fhir.observation"),
            topic_digest("fhir.observations")
        );
    }

    #[test]
    fn a_cursor_opens_where_it_was_sealed_for() {
        let sealer = sealer(&[FIRST]);
        let sealed = sealer.seal(&stream("observations"), &tenant("north"), &cursor(&[1, 2, 3]));
        assert_eq!(
            sealer.open(&stream("observations"), &tenant("north"), &sealed),
            Ok(cursor(&[1, 2, 3]))
        );
        assert!(
            sealed
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        );
    }

    #[test]
    fn another_stream_or_tenant_is_foreign() {
        let sealer = sealer(&[FIRST]);
        let sealed = sealer.seal(&stream("observations"), &tenant("north"), &cursor(&[1]));
        for (name, whose) in [
            ("observations", "south"),
            ("encounters", "north"),
            ("observation", "snorth"),
        ] {
            assert_eq!(
                sealer.open(&stream(name), &tenant(whose), &sealed),
                Err(BadCursor::Foreign)
            );
        }
    }

    #[test]
    fn rotated_keys_still_open() {
        let (old, both, new) = (sealer(&[FIRST]), sealer(&[SECOND, FIRST]), sealer(&[SECOND]));
        let open = |sealer: &Sealer, text: &str| sealer.open(&stream("s"), &tenant("t"), text);
        let by_old = old.seal(&stream("s"), &tenant("t"), &cursor(&[5]));
        let by_both = both.seal(&stream("s"), &tenant("t"), &cursor(&[5]));
        assert_eq!(open(&both, &by_old), Ok(cursor(&[5])));
        assert_eq!(open(&new, &by_both), Ok(cursor(&[5])));
        assert_eq!(open(&new, &by_old), Err(BadCursor::Invalid));
        assert_eq!(open(&old, &by_both), Err(BadCursor::Invalid));
    }

    #[test]
    fn keys_are_long_and_never_repeated() {
        assert!(Sealer::new(&[]).is_err());
        let Err(refused) = Sealer::new(&[SecretString::from("short secret")]) else {
            panic!("taken")
        };
        assert!(!refused.to_string().contains("short secret"));
    }

    #[test]
    fn every_changed_bit_is_noticed() {
        let sealer = sealer(&[FIRST]);
        let sealed = sealer.seal(&stream("s"), &tenant("t"), &cursor(&[1, 2, 3]));
        let bytes = URL_SAFE_NO_PAD.decode(&sealed).expect("base64");
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << bit;
                let text = URL_SAFE_NO_PAD.encode(changed);
                assert_eq!(
                    sealer.open(&stream("s"), &tenant("t"), &text),
                    Err(BadCursor::Invalid)
                );
            }
            let cut = URL_SAFE_NO_PAD.encode(&bytes[..at]);
            assert_eq!(
                sealer.open(&stream("s"), &tenant("t"), &cut),
                Err(BadCursor::Invalid)
            );
        }
    }

    #[test]
    fn no_text_of_ours_is_invalid() {
        let sealer = sealer(&[FIRST]);
        let long = "A".repeat(CURSOR_BYTES_MAX + 4);
        for text in ["", "A", "latest", "%%%", "AQ==", "é", &long] {
            assert_eq!(
                sealer.open(&stream("s"), &tenant("t"), text),
                Err(BadCursor::Invalid)
            );
        }
    }

    #[test]
    fn equal_cursors_do_not_look_equal() {
        let sealer = sealer(&[FIRST]);
        let seal = || sealer.seal(&stream("s"), &tenant("t"), &cursor(&[1]));
        assert_ne!(seal(), seal());
    }

    #[test]
    fn the_length_does_not_tell_small_differences() {
        let sealer = sealer(&[FIRST]);
        let length = |offset| sealer.seal(&stream("s"), &tenant("t"), &cursor(&[offset])).len();
        assert_eq!(length(0), length(1_000_000));
    }

    #[test]
    fn the_bound_on_the_text_holds() {
        let sealer = sealer(&[FIRST]);
        let mut wide = cursor(&[i64::MAX; 100]);
        wide.issued_at_ms = i64::MIN;
        let text = sealer.seal(&stream("s"), &tenant("t"), &wide);
        assert!(text.len() <= Sealer::text_bytes_max([100]), "{}", text.len());
        assert!(Sealer::text_bytes_max([100]) < text.len() + 64);
    }

    fn positions() -> impl Strategy<Value = Position> {
        prop_oneof![
            (0..=i64::MAX).prop_map(Position::At),
            (0..100_i64).prop_map(Position::At),
            any::<i64>().prop_map(Position::Since),
            Just(Position::Start),
        ]
    }

    fn cursors() -> impl Strategy<Value = Cursor> {
        let topic = (
            any::<u64>(),
            any::<u64>(),
            prop::collection::vec(positions(), 0..12),
        );
        let topic = topic.prop_map(|(topic, incarnation, partitions)| TopicPositions {
            topic,
            incarnation: Incarnation(incarnation),
            partitions,
        });
        (any::<u64>(), any::<i64>(), prop::collection::vec(topic, 0..4)).prop_map(
            |(revision, issued_at_ms, topics)| Cursor {
                revision,
                issued_at_ms,
                topics,
            },
        )
    }

    proptest! {
        #[test]
        fn every_cursor_round_trips(cursor in cursors()) {
            let sealer = sealer(&[FIRST]);
            let sealed = sealer.seal(&stream("s"), &tenant("t"), &cursor);
            prop_assert!(sealed.len() <= Sealer::text_bytes_max(cursor.topics.iter().map(|topic| topic.partitions.len())));
            prop_assert_eq!(sealer.open(&stream("s"), &tenant("t"), &sealed), Ok(cursor));
        }

        #[test]
        fn hostile_bodies_are_read_with_bounds(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Some(cursor) = body::read(&bytes) {
                let mut out = Vec::new();
                body::write(&cursor, &mut out);
                prop_assert_eq!(body::read(&out), Some(cursor));
            }
        }

        #[test]
        fn any_text_is_answered(text in ".{0,200}") {
            prop_assert_eq!(sealer(&[FIRST]).open(&stream("s"), &tenant("t"), &text), Err(BadCursor::Invalid));
        }
    }
}

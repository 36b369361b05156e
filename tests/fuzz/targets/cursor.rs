//! Cursors from strangers, and plaintexts that only we could have sealed but never would.

#![no_main]

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::{hkdf, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use schemas::cursor::{BadCursor, Cursor, Position, Sealer, TopicPositions};
use schemas::ids::{Incarnation, StreamName, TenantId};
use secrecy::SecretString;

#[derive(Debug, Arbitrary)]
enum Case {
    /// What a client may send.
    Text(String),
    /// Bytes in the right alphabet.
    Bytes(Vec<u8>),
    /// A body as it stands, sealed with the key.
    Body(Vec<u8>),
    /// A cursor.
    Cursor {
        revision: u64,
        issued_at_ms: i64,
        topics: Vec<(u64, u64, Vec<Place>)>,
    },
}

#[derive(Debug, Arbitrary)]
enum Place {
    At(u64),
    Since(i64),
    Start,
}

const SECRET: &str = "a fuzzer's key of at least 32 bytes";

fuzz_target!(|case: Case| {
    let sealer = Sealer::new(&[SecretString::from(SECRET)]).expect("a long key");
    let stream = StreamName::parse("observations").expect("a name");
    let tenant = TenantId::parse("north").expect("a tenant");
    let open = |text: &str| sealer.open(&stream, &tenant, text);
    match case {
        Case::Text(text) => assert_eq!(open(&text), Err(BadCursor::Invalid)),
        Case::Bytes(bytes) => assert_eq!(open(&URL_SAFE_NO_PAD.encode(bytes)), Err(BadCursor::Invalid)),
        Case::Body(body) => {
            if let Ok(cursor) = open(&seal_by_hand(&body)) {
                let again = sealer.seal(&stream, &tenant, &cursor);
                assert_eq!(open(&again), Ok(cursor));
            }
        }
        Case::Cursor {
            revision,
            issued_at_ms,
            topics,
        } => {
            let place = |place| match place {
                Place::At(offset) => Position::At((offset >> 1).cast_signed()),
                Place::Since(time_ms) => Position::Since(time_ms),
                Place::Start => Position::Start,
            };
            let topics = topics
                .into_iter()
                .map(|(topic, incarnation, partitions)| TopicPositions {
                    topic,
                    incarnation: Incarnation(incarnation),
                    partitions: partitions.into_iter().map(place).collect(),
                });
            let cursor = Cursor {
                revision,
                issued_at_ms,
                topics: topics.collect(),
            };
            let text = sealer.seal(&stream, &tenant, &cursor);
            let counts = cursor.topics.iter().map(|topic| topic.partitions.len());
            assert!(text.len() <= Sealer::text_bytes_max(counts));
            if text.len() <= schemas::cursor::CURSOR_BYTES_MAX {
                let other = TenantId::parse("south").expect("a tenant");
                assert_eq!(sealer.open(&stream, &other, &text), Err(BadCursor::Foreign));
                assert_eq!(open(&text), Ok(cursor));
            }
        }
    }
});

/// The sealing of `schemas::cursor`, once more: the reader behind it must stand any bytes.
fn seal_by_hand(body: &[u8]) -> String {
    struct Length(usize);
    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    let root =
        hkdf::Salt::new(hkdf::HKDF_SHA256, b"tidewire cursor keys, version 1").extract(SECRET.as_bytes());
    let derive = |purpose: &[u8], out: &mut [u8]| {
        let purposes = [purpose];
        root.expand(&purposes, Length(out.len()))
            .and_then(|key| key.fill(out))
            .expect("a short key");
    };
    let (mut id, mut key, mut binding) = ([0; 4], [0; 32], [0; 32]);
    derive(b"id", &mut id);
    derive(b"seal", &mut key);
    derive(b"bind", &mut binding);
    let binding = hmac::sign(
        &hmac::Key::new(hmac::HMAC_SHA256, &binding),
        b"observations\nnorth",
    );

    let head = [&[1][..], &id].concat();
    let mut sealed = [&binding.as_ref()[..8], body].concat();
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM_SIV, &key).expect("32 bytes"));
    let nonce = Nonce::assume_unique_for_key([7; 12]);
    key.seal_in_place_append_tag(nonce, Aad::from(&head), &mut sealed)
        .expect("short");
    URL_SAFE_NO_PAD.encode([&head[..], &[7; 12], &sealed].concat())
}

//! What sealing promises.

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
    for widest in [Position::At(i64::MAX), Position::Since(i64::MIN), Position::Start] {
        let mut wide = cursor(&[]);
        wide.issued_at_ms = i64::MIN;
        wide.topics[0].partitions = vec![widest; 100];
        let text = sealer.seal(&stream("s"), &tenant("t"), &wide);
        assert!(
            text.len() <= Sealer::text_bytes_max([100]),
            "{widest:?}: {}",
            text.len()
        );
    }
    assert!(Sealer::text_bytes_max([100]) < 100 * 11 * 4 / 3 + 150);
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

//! One event owed to one endpoint, and the id that it has everywhere.
//!
//! One invariant: the id follows from (endpoint, stream, topic incarnation, partition, offset) and a secret that all nodes
//! share, so that it is the same on every node, retry, resend and replay, and tells nothing of offsets.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use schemas::ids::{Incarnation, StreamName};
use secrecy::{ExposeSecret as _, SecretString};
use ulid::Ulid;

/// Where a record lies in Kafka.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// The topic's name.
    pub topic: Arc<str>,
    /// Which life of the topic.
    pub incarnation: Incarnation,
    /// The partition.
    pub partition: i32,
    /// The offset in it.
    pub offset: i64,
}

/// `ep_` and a ULID.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointId(Arc<str>);

/// `msg_` and 27 characters of `[A-Za-z0-9_-]`; it has no `.`, as the signed text wants it (Standard Webhooks).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeliveryId(Arc<str>);

/// A text that is no id of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the text is no id")]
pub struct BadId;

/// Makes delivery ids. The same secret on all nodes gives the same ids.
pub struct DeliveryIds {
    key: hmac::Key,
}

const DELIVERY_BYTES: usize = 20;

impl EndpointId {
    /// A new id, ordered by time.
    #[must_use]
    pub fn generate() -> Self {
        Self(Arc::from(format!("ep_{}", Ulid::generate())))
    }

    /// Reads an id.
    pub fn parse(text: &str) -> Result<Self, BadId> {
        let ulid = text.strip_prefix("ep_").ok_or(BadId)?;
        let small = ulid.len() == 26 && ulid.bytes().all(|byte| !byte.is_ascii_lowercase());
        match Ulid::from_string(ulid) {
            Ok(_) if small => Ok(Self(Arc::from(text))),
            _ => Err(BadId),
        }
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl DeliveryId {
    /// Reads an id.
    pub fn parse(text: &str) -> Result<Self, BadId> {
        let rest = text.strip_prefix("msg_").ok_or(BadId)?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        if (1..=64).contains(&rest.len()) && rest.bytes().all(plain) {
            Ok(Self(Arc::from(text)))
        } else {
            Err(BadId)
        }
    }

    /// An id for what is no event: a test that somebody asked for.
    #[must_use]
    pub fn test() -> Self {
        Self(Arc::from(format!("msg_test_{}", Ulid::generate())))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl DeliveryIds {
    /// With the secret that event ids are keyed with too; the purpose keeps the two apart.
    #[must_use]
    pub fn new(secret: &SecretString) -> Self {
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, secret.expose_secret().as_bytes()),
        }
    }

    /// The id of one event owed to one endpoint.
    #[must_use]
    pub fn of(&self, endpoint: &EndpointId, stream: &StreamName, position: &Position) -> DeliveryId {
        let mut hash = hmac::Context::with_key(&self.key);
        hash.update(b"tidewire.delivery\0");
        // None of the texts has a zero byte in it: the fields cannot run into each other.
        for text in [endpoint.as_str(), stream.as_str()] {
            hash.update(text.as_bytes());
            hash.update(b"\0");
        }
        hash.update(&position.incarnation.0.to_be_bytes());
        hash.update(&position.partition.to_be_bytes());
        hash.update(&position.offset.to_be_bytes());
        let tag = hash.sign();
        let short = tag.as_ref().get(..DELIVERY_BYTES).unwrap_or_default();
        DeliveryId(Arc::from(format!("msg_{}", URL_SAFE_NO_PAD.encode(short))))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ids() -> DeliveryIds {
        DeliveryIds::new(&SecretString::from("a secret of the tests, long enough"))
    }

    fn position(partition: i32, offset: i64, incarnation: u64) -> Position {
        Position {
            topic: Arc::from("fhir.observation"),
            incarnation: Incarnation(incarnation),
            partition,
            offset,
        }
    }

    #[test]
    fn ids_are_read_back_and_other_texts_are_not() {
        let id = EndpointId::generate();
        assert_eq!(EndpointId::parse(id.as_str()), Ok(id.clone()));
        for text in [
            "",
            "ep_",
            "ep_1",
            "wh_01ARZ3NDEKTSV4RRFFQ69G5FAV",
            "ep_01arz3ndektsv4rrffq69g5fav",
            "ep_01ARZ3NDEKTSV4RRFFQ69G5FA/",
        ] {
            assert_eq!(EndpointId::parse(text), Err(BadId), "{text}");
        }
        let stream = StreamName::parse("observations").expect("a name");
        let delivery = ids().of(&id, &stream, &position(1, 2, 3));
        assert_eq!(DeliveryId::parse(delivery.as_str()), Ok(delivery.clone()));
        assert_eq!(delivery.as_str().len(), 31);
        for text in ["", "msg_", "msg_a.b", "msg_a b", "evt_abc"] {
            assert_eq!(DeliveryId::parse(text), Err(BadId), "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_same_event_for_the_same_endpoint_has_one_id_and_any_other_has_another(
            one in (0_i32..4, 0_i64..4, 0_u64..4, 0_usize..2, 0_usize..2),
            two in (0_i32..4, 0_i64..4, 0_u64..4, 0_usize..2, 0_usize..2),
        ) {
            let endpoints = ["ep_01ARZ3NDEKTSV4RRFFQ69G5FAV", "ep_01ARZ3NDEKTSV4RRFFQ69G5FAW"]
                .map(|text| EndpointId::parse(text).expect("an id"));
            let streams = ["a", "ab"].map(|text| StreamName::parse(text).expect("a name"));
            let of = |(partition, offset, incarnation, endpoint, stream): (i32, i64, u64, usize, usize)| {
                ids().of(&endpoints[endpoint], &streams[stream], &position(partition, offset, incarnation))
            };
            prop_assert_eq!(of(one) == of(two), one == two);
        }
    }
}

//! Where the event of a delivery lies, sealed: a partner names it to an operator, who opens it (`tidewire position`). A raw
//! offset would tell a tenant the traffic of the others.
//!
//! Invariant: the same on each attempt and on every node, and nothing in it can be read without the keys of the store.

use std::sync::Arc;

use auth::seal::{BadKey, Seal};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderValue;
use schemas::decode::Record;
use schemas::ids::{Incarnation, StreamName, TenantId};
use secrecy::SecretString;
use webhooks::delivery::Position;

const PURPOSE: &[u8] = b"tidewire.webhooks.position";

/// Seals and opens positions.
pub(crate) struct Positions {
    seal: Seal,
}

/// What was sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Located {
    pub(crate) tenant: TenantId,
    pub(crate) stream: StreamName,
    pub(crate) position: Position,
}

impl Positions {
    /// Under keys that follow from those of the store.
    pub(crate) fn new(keys: &[SecretString]) -> Result<Self, BadKey> {
        Ok(Self {
            seal: Seal::apart(keys, "tidewire.webhooks.positions")?,
        })
    }

    /// Where a record lies, as a header's value.
    pub(crate) fn seal(&self, tenant: &TenantId, stream: &StreamName, record: &Record) -> HeaderValue {
        let names = [tenant.as_str(), stream.as_str(), &*record.topic];
        let mut plain = Vec::with_capacity(24 + names.iter().map(|name| name.len()).sum::<usize>());
        plain.extend_from_slice(&record.incarnation.0.to_be_bytes());
        plain.extend_from_slice(&record.partition.to_be_bytes());
        plain.extend_from_slice(&record.offset.to_be_bytes());
        for name in names {
            plain.extend_from_slice(name.as_bytes());
            plain.push(0);
        }
        let sealed = URL_SAFE_NO_PAD.encode(self.seal.seal_same(PURPOSE, &plain));
        HeaderValue::try_from(sealed).expect("positions: base64 is a header's value")
    }

    /// `None`: it was not sealed here, or under keys that are gone.
    pub(crate) fn open(&self, text: &str) -> Option<Located> {
        let sealed = URL_SAFE_NO_PAD.decode(text).ok()?;
        let plain = self.seal.open_bytes(PURPOSE, &sealed)?;
        let (incarnation, rest) = plain.split_first_chunk()?;
        let (partition, rest) = rest.split_first_chunk()?;
        let (offset, rest) = rest.split_first_chunk()?;
        let mut names = std::str::from_utf8(rest).ok()?.split_terminator('\0');
        Some(Located {
            tenant: TenantId::parse(names.next()?).ok()?,
            stream: StreamName::parse(names.next()?).ok()?,
            position: Position {
                topic: Arc::from(names.next()?),
                incarnation: Incarnation(u64::from_be_bytes(*incarnation)),
                partition: i32::from_be_bytes(*partition),
                offset: i64::from_be_bytes(*offset),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use schemas::ids::Slot;

    use super::*;

    fn positions(key: &str) -> Positions {
        Positions::new(&[SecretString::from(key.repeat(40))]).expect("a good key")
    }

    #[test]
    fn what_was_sealed_is_opened_with_the_same_keys_and_with_no_others() {
        let (tenant, stream) = (
            TenantId::parse("north").expect("a tenant"),
            StreamName::parse("observations").expect("a name"),
        );
        let record = Record {
            topic: Arc::from("fhir.observation"),
            incarnation: Incarnation(7),
            slot: Slot(0),
            partition: 3,
            offset: 1 << 40,
            timestamp_ms: 0,
            key: None,
            value: None,
            headers: Vec::new(),
        };
        let ours = positions("a");
        let sealed = ours.seal(&tenant, &stream, &record);
        assert_eq!(
            sealed,
            ours.seal(&tenant, &stream, &record),
            "the same on each attempt"
        );
        let text = sealed.to_str().expect("text");
        let located = ours.open(text).expect("it is ours");
        assert_eq!((&located.tenant, &located.stream), (&tenant, &stream));
        assert_eq!(&*located.position.topic, "fhir.observation");
        assert_eq!(located.position.incarnation, Incarnation(7));
        assert_eq!(
            (located.position.partition, located.position.offset),
            (3, 1 << 40)
        );
        assert_eq!(positions("b").open(text), None);
        for bad in ["", "AAAA", "not base64!"] {
            assert_eq!(ours.open(bad), None, "{bad:?}");
        }
    }
}

//! Attempts for one endpoint, as they are kept: many in one row.
//!
//! One invariant: what was written is read back the same. Texts that most attempts of a segment share stand in it once.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use schemas::ids::{Incarnation, StreamName, TenantId};
use ulid::Ulid;

use super::Attempt;
use crate::codec::{BadBytes, Input, length, some};
use crate::delivery::{DeliveryId, EndpointId, Position};

/// The format's version.
const VERSION: u8 = 1;

/// An attempt without a status.
const NO_STATUS: u16 = 0;

/// An attempt without a place.
const NO_TEXT: u32 = u32::MAX;

/// Texts, each once.
#[derive(Default)]
struct Texts<'a> {
    known: Vec<&'a str>,
}

impl<'a> Texts<'a> {
    /// The number of a text. There are a handful of streams, topics and outcomes: looking through them is enough.
    fn number(&mut self, text: &'a str) -> u32 {
        let found = self.known.iter().position(|known| *known == text);
        let number = found.unwrap_or_else(|| {
            self.known.push(text);
            self.known.len() - 1
        });
        length(number)
    }
}

/// Writes attempts for one endpoint.
pub(super) fn write(attempts: &[&Attempt]) -> Vec<u8> {
    let mut texts = Texts::default();
    let mut entries = Vec::with_capacity(attempts.len() * 120);
    for attempt in attempts {
        entries.extend_from_slice(&attempt.id.to_bytes());
        some(Some(attempt.delivery.as_str().as_bytes()), &mut entries);
        entries.extend_from_slice(&attempt.number.to_be_bytes());
        entries.extend_from_slice(&attempt.at_ms.to_be_bytes());
        entries.extend_from_slice(&attempt.status.unwrap_or(NO_STATUS).to_be_bytes());
        entries.extend_from_slice(&texts.number(&attempt.outcome).to_be_bytes());
        entries.extend_from_slice(&attempt.latency_ms.to_be_bytes());
        let Some((stream, position)) = &attempt.place else {
            entries.extend_from_slice(&NO_TEXT.to_be_bytes());
            continue;
        };
        entries.extend_from_slice(&texts.number(stream.as_str()).to_be_bytes());
        entries.extend_from_slice(&texts.number(&position.topic).to_be_bytes());
        entries.extend_from_slice(&position.incarnation.0.to_be_bytes());
        entries.extend_from_slice(&position.partition.to_be_bytes());
        entries.extend_from_slice(&position.offset.to_be_bytes());
    }
    let mut out = Vec::with_capacity(entries.len() + 128);
    out.push(VERSION);
    out.extend_from_slice(&length(texts.known.len()).to_be_bytes());
    for text in texts.known {
        some(Some(text.as_bytes()), &mut out);
    }
    out.extend_from_slice(&length(attempts.len()).to_be_bytes());
    out.extend_from_slice(&entries);
    out
}

/// Reads them, in the order in which they were written.
pub(super) fn read(
    tenant: &TenantId,
    endpoint: &EndpointId,
    bytes: Vec<u8>,
) -> Result<Vec<Attempt>, BadBytes> {
    let mut input = Input::new(Bytes::from(bytes));
    if input.array::<1>()? != [VERSION] {
        return Err(BadBytes);
    }
    let number = |input: &mut Input| input.array().map(u32::from_be_bytes);
    let mut texts: Vec<Arc<str>> = Vec::new();
    for _ in 0..number(&mut input)? {
        texts.push(input.text()?);
    }
    let text = |number: u32| {
        let found = usize::try_from(number).ok().and_then(|number| texts.get(number));
        found.cloned().ok_or(BadBytes)
    };
    let mut attempts = Vec::new();
    for _ in 0..number(&mut input)? {
        let id = Ulid::from_bytes(input.array()?);
        let delivery = DeliveryId::parse(&input.text()?).map_err(|_| BadBytes)?;
        let (nth, at_ms) = (number(&mut input)?, i64::from_be_bytes(input.array()?));
        let status = u16::from_be_bytes(input.array()?);
        let outcome = text(number(&mut input)?)?;
        let latency_ms = number(&mut input)?;
        let place = match number(&mut input)? {
            NO_TEXT => None,
            stream => {
                let stream = StreamName::parse(&text(stream)?).map_err(|_| BadBytes)?;
                let position = Position {
                    topic: text(number(&mut input)?)?,
                    incarnation: Incarnation(u64::from_be_bytes(input.array()?)),
                    partition: i32::from_be_bytes(input.array()?),
                    offset: i64::from_be_bytes(input.array()?),
                };
                Some((stream, position))
            }
        };
        attempts.push(Attempt {
            id,
            tenant: tenant.clone(),
            endpoint: endpoint.clone(),
            delivery,
            number: nth,
            at_ms,
            status: (status != NO_STATUS).then_some(status),
            outcome: Cow::Owned(outcome.to_string()),
            latency_ms,
            place,
        });
    }
    if !input.is_empty() {
        return Err(BadBytes);
    }
    Ok(attempts)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fixture;

    type Parts = (
        (u128, u32, i64),
        Option<u16>,
        usize,
        u32,
        Option<(usize, i32, i64)>,
    );

    fn attempt(endpoint: &EndpointId, parts: Parts) -> Attempt {
        let ((id, number, at_ms), status, outcome, latency_ms, place) = parts;
        let words = ["delivered", "status", "timeout", "dropped_not_granted"];
        Attempt {
            id: Ulid::from(id),
            tenant: fixture::tenant("lund"),
            endpoint: endpoint.clone(),
            delivery: DeliveryId::parse(&format!("msg_{number}")).expect("an id"),
            number,
            at_ms,
            status: status.filter(|status| *status != NO_STATUS),
            outcome: Cow::Borrowed(words[outcome]),
            latency_ms,
            place: place.map(|(stream, partition, offset)| {
                let stream = StreamName::parse(["observations", "encounters"][stream]).expect("a name");
                (stream, fixture::position(partition, offset))
            }),
        }
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_back_and_what_was_cut_is_refused(
            parts in prop::collection::vec(
                (any::<(u128, u32, i64)>(), any::<Option<u16>>(), 0..4_usize, any::<u32>(),
                 prop::option::of((0..2_usize, any::<i32>(), any::<i64>()))), 0..20),
            cut in any::<prop::sample::Index>(),
        ) {
            let endpoint = EndpointId::generate();
            let attempts: Vec<Attempt> = parts.into_iter().map(|parts| attempt(&endpoint, parts)).collect();
            let mut bytes = write(&attempts.iter().collect::<Vec<_>>());
            let again = read(&fixture::tenant("lund"), &endpoint, bytes.clone());
            prop_assert_eq!(again, Ok(attempts));
            bytes.truncate(cut.index(bytes.len()));
            prop_assert!(read(&fixture::tenant("lund"), &endpoint, bytes).is_err());
        }
    }
}

//! A record as bytes, to be parked: what Kafka gave, so that it can be decoded, judged and rendered anew at each attempt.
//!
//! One invariant: what was written is read back the same, and bytes that are none of ours are refused. Knows nothing of
//! sealing: the store does that.

use bytes::Bytes;
use schemas::decode::Record;
use schemas::ids::{Incarnation, Slot};

use crate::codec::{BadBytes, Input, length, some};

/// The format's version.
const VERSION: u8 = 1;

/// Writes a record. Its slot is this node's own business and is left out.
#[must_use]
pub(crate) fn write(record: &Record) -> Vec<u8> {
    let value = record.value.as_ref().map_or(0, Bytes::len);
    let mut out = Vec::with_capacity(value + 256);
    out.push(VERSION);
    some(Some(record.topic.as_bytes()), &mut out);
    out.extend_from_slice(&record.incarnation.0.to_be_bytes());
    out.extend_from_slice(&record.partition.to_be_bytes());
    out.extend_from_slice(&record.offset.to_be_bytes());
    out.extend_from_slice(&record.timestamp_ms.to_be_bytes());
    some(record.key.as_deref(), &mut out);
    some(record.value.as_deref(), &mut out);
    out.extend_from_slice(&length(record.headers.len()).to_be_bytes());
    for (name, value) in &record.headers {
        some(Some(name.as_bytes()), &mut out);
        some(value.as_deref(), &mut out);
    }
    out
}

/// Reads a record, its slot zero.
pub(crate) fn read(bytes: &Bytes) -> Result<Record, BadBytes> {
    let mut input = Input::new(bytes.clone());
    if input.array::<1>()? != [VERSION] {
        return Err(BadBytes);
    }
    let topic = input.text()?;
    let incarnation = Incarnation(u64::from_be_bytes(input.array()?));
    let partition = i32::from_be_bytes(input.array()?);
    let offset = i64::from_be_bytes(input.array()?);
    let timestamp_ms = i64::from_be_bytes(input.array()?);
    let key = input.some()?;
    let value = input.some()?;
    let count = u32::from_be_bytes(input.array()?);
    let mut headers = Vec::new();
    for _ in 0..count {
        headers.push((Box::from(&*input.text()?), input.some()?));
    }
    if !input.is_empty() {
        return Err(BadBytes);
    }
    Ok(Record {
        topic,
        incarnation,
        slot: Slot(0),
        partition,
        offset,
        timestamp_ms,
        key,
        value,
        headers,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    type Parts = (
        String,
        (u64, i32, i64, i64),
        Option<Vec<u8>>,
        Option<Vec<u8>>,
        Vec<(String, Option<Vec<u8>>)>,
    );

    fn parts() -> impl Strategy<Value = Parts> {
        let bytes = || prop::option::of(prop::collection::vec(any::<u8>(), 0..40));
        let headers = prop::collection::vec(("[a-z]{0,8}", bytes()), 0..4);
        (
            ".{0,12}",
            any::<(u64, i32, i64, i64)>(),
            bytes(),
            bytes(),
            headers,
        )
    }

    fn record((topic, (incarnation, partition, offset, timestamp_ms), key, value, headers): Parts) -> Record {
        Record {
            topic: Arc::from(topic),
            incarnation: Incarnation(incarnation),
            slot: Slot(0),
            partition,
            offset,
            timestamp_ms,
            key: key.map(Bytes::from),
            value: value.map(Bytes::from),
            headers: headers
                .into_iter()
                .map(|(name, value)| (name.into_boxed_str(), value.map(Bytes::from)))
                .collect(),
        }
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_back_and_every_cut_is_refused(parts in parts(), cut in any::<prop::sample::Index>()) {
            let record = record(parts);
            let written = write(&record);
            let again = read(&Bytes::from(written.clone())).expect("readable");
            prop_assert_eq!(write(&again), written.clone());
            prop_assert_eq!((again.key, again.value, again.headers), (record.key, record.value, record.headers));
            let cut = cut.index(written.len());
            prop_assert!(read(&Bytes::copy_from_slice(&written[..cut])).is_err());
        }

        #[test]
        fn no_bytes_make_the_reader_stumble(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&Bytes::from(bytes));
        }
    }
}

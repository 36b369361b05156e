//! The plaintext of a cursor: compact, padded, and read with bounds although only our own keys can have written it.

use super::{Cursor, Position, TopicPositions};
use crate::ids::Incarnation;

/// The length is a multiple of this.
const PADDING: usize = 16;

/// The most bytes of a 64-bit varint.
const VARINT_BYTES_MAX: usize = 10;

/// The most bytes of a position: a time is two varints, the first of one byte.
const POSITION_BYTES_MAX: usize = 1 + VARINT_BYTES_MAX;

/// Positions are one varint each: 0 is the start, 1 a time (which follows), anything else an offset plus 2.
const START: u64 = 0;
const SINCE: u64 = 1;
const FIRST_OFFSET: u64 = 2;

pub(super) fn write(cursor: &Cursor, out: &mut Vec<u8>) {
    let begin = out.len();
    out.extend_from_slice(&cursor.revision.to_be_bytes());
    varint(zigzag(cursor.issued_at_ms), out);
    varint(cursor.topics.len() as u64, out);
    for topic in &cursor.topics {
        out.extend_from_slice(&topic.topic.to_be_bytes());
        out.extend_from_slice(&topic.incarnation.0.to_be_bytes());
        varint(topic.partitions.len() as u64, out);
        for position in &topic.partitions {
            match *position {
                Position::Start => varint(START, out),
                Position::Since(time_ms) => {
                    varint(SINCE, out);
                    varint(zigzag(time_ms), out);
                }
                // No offset is negative; the first one is the nearest to it.
                Position::At(offset) => varint(offset.max(0).cast_unsigned() + FIRST_OFFSET, out),
            }
        }
    }
    out.resize(begin + (out.len() - begin).next_multiple_of(PADDING), 0);
}

pub(super) fn read(bytes: &[u8]) -> Option<Cursor> {
    let mut rest = bytes;
    let revision = fixed(&mut rest)?;
    let issued_at_ms = unzigzag(read_varint(&mut rest)?);
    let mut topics = Vec::new();
    for _ in 0..count(&mut rest)? {
        let topic = fixed(&mut rest)?;
        let incarnation = Incarnation(fixed(&mut rest)?);
        let count = count(&mut rest)?;
        let mut partitions = Vec::with_capacity(count);
        for _ in 0..count {
            partitions.push(match read_varint(&mut rest)? {
                START => Position::Start,
                SINCE => Position::Since(unzigzag(read_varint(&mut rest)?)),
                offset => Position::At(i64::try_from(offset - FIRST_OFFSET).ok()?),
            });
        }
        topics.push(TopicPositions {
            topic,
            incarnation,
            partitions,
        });
    }
    (rest.len() < PADDING && rest.iter().all(|byte| *byte == 0)).then_some(Cursor {
        revision,
        issued_at_ms,
        topics,
    })
}

/// The most bytes that topics of these partition counts can need.
pub(super) fn bytes_max(partition_counts: impl IntoIterator<Item = usize>) -> usize {
    let topic = |partitions: usize| 16 + VARINT_BYTES_MAX + partitions * POSITION_BYTES_MAX;
    let topics: usize = partition_counts.into_iter().map(topic).sum();
    (8 + 2 * VARINT_BYTES_MAX + topics).next_multiple_of(PADDING)
}

/// A count of things that take at least a byte each: more than there are bytes left is never true.
fn count(rest: &mut &[u8]) -> Option<usize> {
    let count = usize::try_from(read_varint(rest)?).ok()?;
    (count <= rest.len()).then_some(count)
}

fn fixed(rest: &mut &[u8]) -> Option<u64> {
    rest.split_off(..8)
        .and_then(|bytes| bytes.try_into().ok())
        .map(u64::from_be_bytes)
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    loop {
        let low = value.to_le_bytes()[0] & 0x7F;
        value >>= 7;
        if value == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

fn read_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..).step_by(7).take(VARINT_BYTES_MAX) {
        let byte = *rest.split_off_first()?;
        let bits = u64::from(byte & 0x7F);
        if shift == 63 && bits > 1 {
            return None;
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63).cast_unsigned()
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

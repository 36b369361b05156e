//! An event's data, 256 bytes or as many as are asked for: its number and when it was produced, found again without parsing JSON.

use std::time::{SystemTime, UNIX_EPOCH};

/// The size of an event's data, unless another one is asked for.
pub const BYTES: usize = 256;

/// What a mark begins with in the data.
const MARK: &[u8] = b"{\"s\":";
/// Between the number and the time.
const TIME: &[u8] = b",\"t\":";
/// Longer than any mark with its two numbers.
pub const MARK_BYTES_MAX: usize = 56;

/// Microseconds since the Unix epoch.
#[must_use]
pub fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// An event's data of this size and with this number, produced now.
#[must_use]
pub fn write(number: u64, bytes: usize) -> Vec<u8> {
    let mut data = format!("{{\"s\":{number},\"t\":{},\"p\":\"", now_us()).into_bytes();
    data.resize(bytes.saturating_sub(2).max(data.len()), b'x');
    data.extend_from_slice(b"\"}");
    data
}

/// The same about a patient.
#[must_use]
pub fn write_about(number: u64, patient: usize) -> Vec<u8> {
    let mut data = format!("{{\"s\":{number},\"t\":{},\"p\":\"", now_us()).into_bytes();
    let rest = format!("\",\"subject\":{{\"reference\":\"Patient/{patient}\"}}}}");
    data.resize(BYTES.saturating_sub(rest.len()), b'x');
    data.extend_from_slice(rest.as_bytes());
    data
}

/// Finds marks in bytes that arrive piece by piece.
#[derive(Debug, Default)]
pub struct Finder {
    /// The end of the last piece, if a mark may have begun in it.
    rest: Vec<u8>,
    /// The end of the last piece, which may say why the connection then ends.
    last: Vec<u8>,
}

impl Finder {
    /// Keeps the end of a piece.
    pub fn remember(&mut self, bytes: &[u8]) {
        self.last.clear();
        self.last
            .extend_from_slice(bytes.get(bytes.len().saturating_sub(32)..).unwrap_or_default());
    }

    /// The end of the last piece as text.
    #[must_use]
    pub fn said_last(&self) -> String {
        String::from_utf8_lossy(&self.last).into_owned()
    }

    /// Calls back with the number and time of each mark, in order.
    pub fn feed(&mut self, bytes: &[u8], found: impl FnMut(u64, u64)) {
        if self.rest.is_empty() {
            let left = scan(bytes, found);
            self.rest.extend_from_slice(left);
        } else {
            let mut all = std::mem::take(&mut self.rest);
            all.extend_from_slice(bytes);
            let left = scan(&all, found);
            self.rest = left.to_vec();
        }
    }
}

/// Calls back for each whole mark; gives back what may be the beginning of one.
fn scan(mut bytes: &[u8], mut found: impl FnMut(u64, u64)) -> &[u8] {
    loop {
        let Some(at) = bytes.windows(MARK.len()).position(|window| window == MARK) else {
            return bytes
                .get(bytes.len().saturating_sub(MARK.len() - 1)..)
                .unwrap_or_default();
        };
        let begun = bytes.get(at..).unwrap_or_default();
        let after = begun.get(MARK.len()..).unwrap_or_default();
        let Some((number, after)) = digits(after) else {
            return begun;
        };
        let Some(time) = after.strip_prefix(TIME) else {
            if TIME.starts_with(after) {
                return begun;
            }
            bytes = after;
            continue;
        };
        let Some((time, after)) = digits(time) else {
            return begun;
        };
        found(number, time);
        bytes = after;
    }
}

/// A number and what follows it; `None` where it may go on.
fn digits(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let length = bytes.iter().position(|byte| !byte.is_ascii_digit())?;
    let (digits, rest) = bytes.split_at(length);
    Some((
        digits
            .iter()
            .fold(0, |number: u64, digit| number * 10 + u64::from(digit - b'0')),
        rest,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_found_wherever_the_bytes_are_cut() {
        let mut stream = Vec::new();
        for number in [7, 8, 123_456] {
            stream.extend_from_slice(b"\x81~\x01\x02{\"type\":\"event\",\"data\":");
            stream.extend_from_slice(&write(number, BYTES));
            stream.extend_from_slice(b"}}");
        }
        assert_eq!(write(7, BYTES).len(), BYTES);
        assert_eq!(write(7, 1000).len(), 1000);
        assert_eq!(write_about(7, 10_000).len(), BYTES);
        for cut in 0..stream.len() {
            let (mut finder, mut numbers) = (Finder::default(), Vec::new());
            let (head, tail) = stream.split_at(cut);
            for part in [head, tail] {
                finder.feed(part, |number, time| {
                    assert!(time > 1_600_000_000_000_000);
                    numbers.push(number);
                });
            }
            assert_eq!(numbers, [7, 8, 123_456], "cut at {cut}");
            assert!(finder.rest.len() < MARK_BYTES_MAX);
        }
    }
}

//! JSON text by hand, for the hot path: strings, members and times. It writes no line break, whatever it is given.

use crate::project::plain_run;

/// The first and the last millisecond that RFC 3339 can write (years 0000 to 9999; ours begin with the epoch).
const TIME_MS: std::ops::RangeInclusive<i64> = 0..=253_402_300_799_999;

/// A time as RFC 3339 writes it, in milliseconds: `2026-11-28T09:13:56.000Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time {
    text: [u8; 24],
}

impl Time {
    /// The Unix epoch.
    pub const EPOCH: Self = Self {
        text: *b"1970-01-01T00:00:00.000Z",
    };

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.text).unwrap_or_default()
    }
}

/// A count of milliseconds since the Unix epoch as a text. `None`: it cannot be written, as Kafka's -1, "no timestamp".
#[must_use]
pub fn time(time_ms: i64) -> Option<Time> {
    if !TIME_MS.contains(&time_ms) {
        return None;
    }
    let (days, of_day) = (time_ms.div_euclid(86_400_000), time_ms.rem_euclid(86_400_000));
    let (year, month, day) = civil(days);
    let (seconds, millis) = (of_day / 1000, of_day % 1000);
    let mut time = Time::EPOCH;
    let parts = [
        (0..4, year),
        (5..7, month),
        (8..10, day),
        (11..13, seconds / 3600),
        (14..16, seconds / 60 % 60),
        (17..19, seconds % 60),
        (20..23, millis),
    ];
    for (place, value) in parts {
        digits(value, &mut time.text[place]);
    }
    Some(time)
}

/// `,"name":"value"`; the name is one of ours or a CloudEvents name and needs no escape.
pub(super) fn member(name: &str, value: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
    string(value, out);
}

/// A string with its quotes.
pub fn string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    loop {
        let (plain, others) = rest.split_at(plain_run(rest));
        out.extend_from_slice(plain);
        let Some((&byte, after)) = others.split_first() else {
            break;
        };
        rest = after;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            control => {
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[hex(control >> 4), hex(control & 0xF)]);
            }
        }
    }
    out.push(b'"');
}

/// Year, month and day of a count of days since 1970-01-01 (H. Hinnant, "chrono-compatible low-level date algorithms").
fn civil(days: i64) -> (i64, i64, i64) {
    // Years begin in March here, so that the leap day is the last one; eras are 400 years.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, next_year) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    (year + era * 400 + next_year, month, day)
}

fn digits(value: i64, place: &mut [u8]) {
    let mut rest = value;
    for digit in place.iter_mut().rev() {
        *digit = b"0123456789"[usize::try_from(rest % 10).unwrap_or(0)];
        rest /= 10;
    }
}

fn hex(nibble: u8) -> u8 {
    b"0123456789abcdef"[usize::from(nibble)]
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;

    fn text(write: impl Fn(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn times_are_rfc_3339_in_milliseconds() {
        for (time_ms, want) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_001, "2000-02-29T00:00:00.001Z"),
            (1_709_251_199_999, "2024-02-29T23:59:59.999Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(time(time_ms).as_ref().map(Time::as_str), Some(want));
        }
        assert_eq!(time(0), Some(Time::EPOCH));
        assert_eq!((time(-1), time(i64::MAX)), (None, None));
    }

    proptest! {
        #[test]
        fn times_are_read_back(time_ms in TIME_MS) {
            let written = time(time_ms).expect("it can be written");
            let read: Timestamp = written.as_str().parse().expect("RFC 3339");
            prop_assert_eq!(read.as_millisecond(), time_ms);
        }

        #[test]
        fn strings_are_read_back(given in any::<String>()) {
            let written = text(|out| string(&given, out));
            prop_assert!(!written.contains(['\n', '\r']));
            prop_assert_eq!(serde_json::from_str::<String>(&written).expect("JSON"), given);
        }

        #[test]
        fn control_characters_are_escaped(given in "[\\x00-\\x22\\\\\u{7f}\u{2028}é]{0,20}") {
            let written = text(|out| string(&given, out));
            prop_assert!(written.bytes().all(|byte| byte >= 0x20));
            prop_assert_eq!(serde_json::from_str::<String>(&written).expect("JSON"), given);
        }
    }
}

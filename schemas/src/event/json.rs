//! JSON text by hand, for the hot path: strings, members and times. It writes no line break, whatever it is given.

use crate::project::plain_run;

/// The first and the last millisecond that RFC 3339 can write (years 0000 to 9999; ours begin with the epoch).
const TIME_MS: std::ops::RangeInclusive<i64> = 0..=253_402_300_799_999;

/// Whether the time can be written. Kafka's -1, "no timestamp", cannot.
#[must_use]
pub fn has_time(time_ms: i64) -> bool {
    TIME_MS.contains(&time_ms)
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

/// `"2026-11-23T16:30:00.123Z"` with its quotes; only for what [`has_time`] accepts.
pub fn time(time_ms: i64, out: &mut Vec<u8>) {
    let (days, of_day) = (time_ms.div_euclid(86_400_000), time_ms.rem_euclid(86_400_000));
    let (year, month, day) = civil(days);
    let (seconds, millis) = (of_day / 1000, of_day % 1000);
    out.push(b'"');
    digits(year, 4, out);
    out.push(b'-');
    digits(month, 2, out);
    out.push(b'-');
    digits(day, 2, out);
    out.push(b'T');
    digits(seconds / 3600, 2, out);
    out.push(b':');
    digits(seconds / 60 % 60, 2, out);
    out.push(b':');
    digits(seconds % 60, 2, out);
    out.push(b'.');
    digits(millis, 3, out);
    out.extend_from_slice(b"Z\"");
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

fn digits(value: i64, count: u32, out: &mut Vec<u8>) {
    for place in (0..count).rev() {
        let digit = value / 10_i64.pow(place) % 10;
        out.push(b"0123456789"[usize::try_from(digit).unwrap_or(0)]);
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
            assert_eq!(text(|out| time(time_ms, out)), format!("\"{want}\""));
        }
        assert!(!has_time(-1));
        assert!(!has_time(i64::MAX));
    }

    proptest! {
        #[test]
        fn times_are_read_back(time_ms in TIME_MS) {
            let written = text(|out| time(time_ms, out));
            prop_assert_eq!(written.len(), 26);
            let read: Timestamp = written.trim_matches('"').parse().expect("RFC 3339");
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

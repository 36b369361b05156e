//! `Retry-After` (RFC 9110, section 10.2.3): seconds, or a date in one of three forms. What is neither is as if it were
//! not there.

use jiff::civil::DateTime;
use jiff::fmt::strtime;
use jiff::tz::Offset;

/// IMF-fixdate, and the two obsolete forms that a recipient must understand too (RFC 9110, section 5.6.7).
const DATES: [&str; 3] = [
    "%a, %d %b %Y %H:%M:%S GMT",
    "%A, %d-%b-%y %H:%M:%S GMT",
    "%a %b %e %H:%M:%S %Y",
];

/// The longest text that is looked at.
const BYTES_MAX: usize = 64;

/// How long to wait from `now_ms`, in milliseconds. A date in the past is no wait.
#[must_use]
pub fn retry_after_ms(value: &str, now_ms: i64) -> Option<u64> {
    let value = value.trim();
    if value.is_empty() || value.len() > BYTES_MAX {
        return None;
    }
    if value.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than a number holds is a very long time.
        return Some(value.parse::<u64>().unwrap_or(u64::MAX).saturating_mul(1000));
    }
    let date = DATES.iter().find_map(|form| {
        let date: DateTime = strtime::parse(form, value).ok()?.to_datetime().ok()?;
        Offset::UTC.to_timestamp(date).ok()
    })?;
    let wait_ms = date.as_millisecond().saturating_sub(now_ms);
    Some(u64::try_from(wait_ms).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::retry_after_ms;

    /// Sun, 06 Nov 1994 08:49:37 GMT, the example of the specification.
    const THEN_MS: i64 = 784_111_777_000;

    #[test]
    fn seconds_and_all_three_forms_of_dates_are_understood() {
        for (text, wait_ms) in [
            ("0", 0),
            ("120", 120_000),
            (" 7 ", 7_000),
            ("99999999999999999999999", u64::MAX),
            ("Sun, 06 Nov 1994 08:49:37 GMT", 10_000),
            ("Sunday, 06-Nov-94 08:49:37 GMT", 10_000),
            ("Sun Nov  6 08:49:37 1994", 10_000),
            ("Sun, 06 Nov 1994 08:49:20 GMT", 0),
        ] {
            assert_eq!(retry_after_ms(text, THEN_MS - 10_000), Some(wait_ms), "{text}");
        }
    }

    #[test]
    fn anything_else_is_as_if_it_were_not_there() {
        let long = "1".repeat(65);
        for text in [
            "",
            "-1",
            "1.5",
            "soon",
            "06 Nov 1994",
            "Sun, 06 Nov 1994 08:49:37 CET",
            &long,
        ] {
            assert_eq!(retry_after_ms(text, THEN_MS), None, "{text}");
        }
    }
}

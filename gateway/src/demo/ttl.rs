//! How long a development token is good for, as people write it.

use std::time::Duration;

/// Parses `90s`, `15m`, `1h 30m`: at least a second, at most `longest`.
///
/// # Errors
///
/// Says in words what is wrong.
pub fn parse(text: &str, longest: Duration) -> Result<Duration, String> {
    let span: jiff::SignedDuration = text
        .parse()
        .map_err(|_| "write a duration such as 90s, 15m or 1h".to_owned())?;
    let ttl = Duration::try_from(span).map_err(|_| "a duration cannot be negative".to_owned())?;
    if ttl < Duration::from_secs(1) {
        return Err("it must be at least 1s".to_owned());
    }
    if ttl > longest {
        return Err(format!("it must be at most {}h", longest.as_secs() / 3600));
    }
    Ok(ttl)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        let parse = |text| parse(text, Duration::from_secs(86_400));
        let table = [
            ("90s", 90),
            ("15m", 900),
            ("1h", 3600),
            ("1h 30m", 5400),
            ("1h30m", 5400),
            ("24h", 86_400),
        ];
        for (text, seconds) in table {
            assert_eq!(parse(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "1", "soon", "-1h", "0s", "25h", "1x"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}

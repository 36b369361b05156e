//! Which representation of a stream a request wants: server-sent events, or a page of events.
//!
//! RFC 9110, section 12.5.1: the most specific range decides the quality of each offer, and the best offer wins.

use http::HeaderMap;
use http::header::ACCEPT;

/// Server-sent events.
pub(crate) const EVENT_STREAM: &str = "text/event-stream";
/// A page, as a batch of CloudEvents.
pub(crate) const BATCH: &str = "application/cloudevents-batch+json";
/// A page, for clients that know nothing of CloudEvents' media types.
pub(crate) const JSON: &str = "application/json";

/// The best of the offers, which are named in the server's order of preference. Without `Accept` it is the first.
pub(crate) fn choose(headers: &HeaderMap, offers: &[&'static str]) -> Option<&'static str> {
    let values: Vec<&str> = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect();
    if values.is_empty() {
        return offers.first().copied();
    }
    let ranges: Vec<Range<'_>> = values
        .iter()
        .flat_map(|value| value.split(','))
        .filter_map(Range::parse)
        .collect();
    let mut best: Option<(u16, &'static str)> = None;
    for offer in offers {
        let quality = ranges
            .iter()
            .filter(|range| range.covers(offer))
            .max_by_key(|range| range.specificity());
        let quality = quality.map_or(0, |range| range.quality);
        if quality > best.map_or(0, |(quality, _)| quality) {
            best = Some((quality, offer));
        }
    }
    best.map(|(_, offer)| offer)
}

/// One media range. Parameters other than `q` are passed over: no offer has any.
struct Range<'a> {
    kind: &'a str,
    subtype: &'a str,
    /// In thousandths.
    quality: u16,
}

impl<'a> Range<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let (kind, subtype) = parts.next()?.split_once('/')?;
        let quality = parts
            .filter_map(|parameter| parameter.split_once('='))
            .find(|(name, _)| name.trim().eq_ignore_ascii_case("q"))
            .map_or(Some(1000), |(_, value)| thousandths(value.trim()))?;
        Some(Self {
            kind,
            subtype,
            quality,
        })
    }

    fn covers(&self, offer: &str) -> bool {
        let Some((kind, subtype)) = offer.split_once('/') else {
            return false;
        };
        (self.kind == "*" && self.subtype == "*")
            || (self.kind.eq_ignore_ascii_case(kind)
                && (self.subtype == "*" || self.subtype.eq_ignore_ascii_case(subtype)))
    }

    fn specificity(&self) -> u8 {
        match (self.kind, self.subtype) {
            ("*", _) => 0,
            (_, "*") => 1,
            _ => 2,
        }
    }
}

/// `0`, `1`, `0.5`, `0.123`.
pub(super) fn thousandths(text: &str) -> Option<u16> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 3 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let fraction: u16 = format!("{fraction:0<3}").parse().ok()?;
    match whole {
        "0" => Some(fraction),
        "1" if fraction == 0 => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(accept: Option<&'static str>) -> Option<&'static str> {
        let mut headers = HeaderMap::new();
        if let Some(accept) = accept {
            headers.insert(ACCEPT, http::HeaderValue::from_static(accept));
        }
        choose(&headers, &[BATCH, JSON, EVENT_STREAM])
    }

    #[test]
    fn the_media_type_chooses_between_events_and_a_page() {
        assert_eq!(chosen(Some("text/event-stream")), Some(EVENT_STREAM));
        assert_eq!(chosen(Some("application/cloudevents-batch+json")), Some(BATCH));
        assert_eq!(chosen(Some("application/json")), Some(JSON));
        assert_eq!(
            chosen(Some("Text/Event-Stream; charset=utf-8")),
            Some(EVENT_STREAM)
        );
        assert_eq!(chosen(Some("*/*")), Some(BATCH));
        assert_eq!(chosen(None), Some(BATCH));
    }

    #[test]
    fn what_is_not_offered_is_not_acceptable() {
        for refused in [
            "text/html",
            "application/cloudevents+json",
            "*/*;q=0",
            "",
            "nonsense",
            "text/event-stream;q=x",
        ] {
            assert_eq!(chosen(Some(refused)), None, "{refused}");
        }
    }

    #[test]
    fn qualities_and_the_most_specific_range_decide() {
        assert_eq!(
            chosen(Some("application/json;q=0.5, text/event-stream;q=0.9")),
            Some(EVENT_STREAM)
        );
        assert_eq!(
            chosen(Some("*/*, application/cloudevents-batch+json;q=0")),
            Some(JSON)
        );
        assert_eq!(
            chosen(Some("text/*;q=0.1, application/*;q=0.05")),
            Some(EVENT_STREAM)
        );
    }
}

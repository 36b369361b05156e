//! What a GraphQL request accepts: how a result is given, and how the results of a subscription are.
//!
//! Other than for streams, parameters of a media range decide here (`subscriptionSpec=1.0`), quoted or not. Where several
//! forms are accepted alike, a result is given as the specification prefers, and a subscription as the client named first.

use http::HeaderMap;
use http::header::ACCEPT;

/// The media type of a GraphQL response.
pub(crate) const RESPONSE: &str = "application/graphql-response+json";
/// The media type of one as clients took it before there was a specification.
pub(crate) const JSON: &str = "application/json";
/// Server-sent events.
pub(crate) const EVENT_STREAM: &str = "text/event-stream";
/// Parts of a body that comes over time, as they are answered.
pub(crate) const MULTIPART: &str = "multipart/mixed;boundary=\"graphql\";subscriptionSpec=1.0";

/// How one result is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Single {
    /// As a body, whose status says whether there is `data`.
    Response,
    /// As a body, whose status says whether it was a GraphQL request.
    Json,
    /// In the form of a subscription that is over at once.
    Streamed(Streamed),
}

/// How the results of a subscription are given in one answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Streamed {
    /// Server-sent events, one operation an answer (distinct connections mode).
    Events,
    /// `multipart/mixed;subscriptionSpec=1.0`.
    Multipart,
}

/// How the results of a subscription are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Many {
    /// In this answer.
    Streamed(Streamed),
    /// By requests of ours (`callbackSpec=1.0`).
    Callback,
}

/// What a request accepts.
#[derive(Debug, Clone)]
pub(crate) struct Accepted {
    ranges: Vec<Range>,
    /// Whether there was an `Accept` at all.
    is_given: bool,
}

#[derive(Debug, Clone)]
struct Range {
    /// `type/subtype`, in lower case.
    media: String,
    /// In lower case, without quotes.
    parameters: Vec<(String, String)>,
    /// In thousandths.
    quality: u16,
}

impl Accepted {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let values: Vec<&str> = headers
            .get_all(ACCEPT)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .collect();
        let ranges = values
            .iter()
            .flat_map(|value| split(value, ','))
            .filter_map(Range::parse)
            .collect();
        Self {
            ranges,
            is_given: !values.is_empty(),
        }
    }

    /// How one result is given; `None` where nothing that is offered is accepted.
    pub(crate) fn single(&self) -> Option<Single> {
        if !self.is_given {
            return Some(Single::Json);
        }
        let named = [
            (self.quality_of(RESPONSE), Single::Response),
            (self.quality_of(JSON), Single::Json),
            (self.quality_of(EVENT_STREAM), Single::Streamed(Streamed::Events)),
            (self.multipart(), Single::Streamed(Streamed::Multipart)),
        ];
        // Who takes anything gets what everybody can read.
        let any = ["application/*", "*/*"]
            .iter()
            .filter_map(|range| self.quality_of(range))
            .next();
        let any = if self.quality_of(JSON).is_some() {
            None
        } else {
            any
        };
        named
            .into_iter()
            .chain([(any, Single::Json)])
            .filter_map(|(quality, single)| Some((quality.filter(|quality| *quality > 0)?, single)))
            // The first of equals.
            .reduce(|best, other| if other.0 > best.0 { other } else { best })
            .map(|(_, single)| single)
    }

    /// How the results of a subscription are given; `None` where none of the forms that it needs is accepted.
    pub(crate) fn many(&self) -> Option<Many> {
        let form = |range: &Range| {
            if range.media == EVENT_STREAM {
                Some(Many::Streamed(Streamed::Events))
            } else if range.is_subscription_multipart() {
                Some(Many::Streamed(Streamed::Multipart))
            } else if range.media == JSON && range.has("callbackspec", "1.0") {
                Some(Many::Callback)
            } else {
                None
            }
        };
        self.ranges
            .iter()
            .filter(|range| range.quality > 0)
            .filter_map(|range| Some((range.quality, form(range)?)))
            .reduce(|best, other| if other.0 > best.0 { other } else { best })
            .map(|(_, form)| form)
    }

    /// Whether it is a browser that wants a page to look at.
    pub(crate) fn is_for_people(&self) -> bool {
        self.quality_of("text/html").is_some_and(|quality| quality > 0) && self.quality_of(RESPONSE).is_none()
    }

    /// Of the range that says exactly this.
    fn quality_of(&self, media: &str) -> Option<u16> {
        let mut named = self.ranges.iter().filter(|range| range.media == media);
        named.next().map(|range| range.quality)
    }

    fn multipart(&self) -> Option<u16> {
        let mut named = self
            .ranges
            .iter()
            .filter(|range| range.is_subscription_multipart());
        named.next().map(|range| range.quality)
    }
}

impl Range {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = split(text, ';').map(str::trim);
        let media = parts
            .next()
            .filter(|media| media.contains('/'))?
            .to_ascii_lowercase();
        let mut quality = 1000;
        let mut parameters = Vec::new();
        for part in parts {
            let Some((name, value)) = part.split_once('=') else {
                continue;
            };
            let name = name.trim().to_ascii_lowercase();
            let value = value.trim().trim_matches('"').to_ascii_lowercase();
            if name == "q" {
                quality = crate::http::accept::thousandths(&value)?;
            } else {
                parameters.push((name, value));
            }
        }
        Some(Self {
            media,
            parameters,
            quality,
        })
    }

    fn has(&self, name: &str, value: &str) -> bool {
        let mut parameters = self.parameters.iter();
        parameters.any(|(have, is)| have == name && is == value)
    }

    fn is_subscription_multipart(&self) -> bool {
        self.media == "multipart/mixed" && self.has("subscriptionspec", "1.0")
    }
}

/// Splits a header's value, but not inside of quotes.
fn split(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut is_quoted = false;
    text.split(move |character| {
        is_quoted ^= character == '"';
        character == separator && !is_quoted
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(text: Option<&'static str>) -> Accepted {
        let mut headers = HeaderMap::new();
        if let Some(text) = text {
            headers.insert(ACCEPT, http::HeaderValue::from_static(text));
        }
        Accepted::of(&headers)
    }

    #[test]
    fn one_result_is_given_as_the_client_prefers() {
        let table = [
            (None, Some(Single::Json)),
            (Some("*/*"), Some(Single::Json)),
            (Some("application/*;q=0.1"), Some(Single::Json)),
            (Some("application/json"), Some(Single::Json)),
            (Some("application/graphql-response+json"), Some(Single::Response)),
            (
                Some("application/json, application/graphql-response+json"),
                Some(Single::Response),
            ),
            (
                Some("application/graphql-response+json,application/json;q=0.9"),
                Some(Single::Response),
            ),
            (
                Some("application/graphql-response+json;q=0.5, application/json"),
                Some(Single::Json),
            ),
            (
                Some("application/graphql-response+json, */*"),
                Some(Single::Response),
            ),
            (Some("application/json;charset=UTF-8"), Some(Single::Json)),
            (
                Some("text/event-stream"),
                Some(Single::Streamed(Streamed::Events)),
            ),
            (
                Some(
                    "multipart/mixed;boundary=graphql;subscriptionSpec=1.0,application/graphql-response+json,application/json;q=0.9",
                ),
                Some(Single::Response),
            ),
            (
                Some("multipart/mixed;subscriptionSpec=\"1.0\""),
                Some(Single::Streamed(Streamed::Multipart)),
            ),
            (Some("multipart/mixed"), None),
            (Some("text/html"), None),
            (Some("application/json;q=0, */*"), None),
            (Some(""), None),
        ];
        for (accept, single) in table {
            assert_eq!(accepted(accept).single(), single, "{accept:?}");
        }
    }

    #[test]
    fn a_subscription_needs_one_of_its_forms_and_the_first_of_equals_is_taken() {
        let events = Some(Many::Streamed(Streamed::Events));
        let multipart = Some(Many::Streamed(Streamed::Multipart));
        let table = [
            (None, None),
            (Some("*/*"), None),
            (Some("application/json, application/graphql-response+json"), None),
            (Some("text/event-stream, application/json"), events),
            (Some("Text/Event-Stream; charset=utf-8"), events),
            (Some("text/event-stream;q=0"), None),
            (
                Some("multipart/mixed;subscriptionSpec=\"1.0\", text/event-stream"),
                multipart,
            ),
            (
                Some("multipart/mixed;boundary=graphql;subscriptionSpec=1.0;q=0.5, text/event-stream"),
                events,
            ),
            (
                Some("multipart/mixed; boundary=\"a,b;c\"; SubscriptionSpec=1.0"),
                multipart,
            ),
            (Some("multipart/mixed;deferSpec=20220824"), None),
            (Some("application/json;callbackSpec=1.0"), Some(Many::Callback)),
            (
                Some("application/json;callbackSpec=1.0; charset=utf-8"),
                Some(Many::Callback),
            ),
            (
                Some("application/json; callbackspec=\"1.0\", application/graphql-response+json"),
                Some(Many::Callback),
            ),
        ];
        for (accept, many) in table {
            assert_eq!(accepted(accept).many(), many, "{accept:?}");
        }
    }

    #[test]
    fn a_browser_that_opens_the_address_wants_a_page() {
        let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8";
        assert!(accepted(Some(browser)).is_for_people());
        for other in [None, Some("*/*"), Some("application/json"), Some("text/html;q=0")] {
            assert!(!accepted(other).is_for_people(), "{other:?}");
        }
    }
}

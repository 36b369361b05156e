//! Headers that an endpoint may add to its deliveries.

use http::{HeaderName, HeaderValue};
use schemas::problem::Code;

/// The most headers of one endpoint.
pub(super) const HEADERS_MAX: usize = 16;

/// The longest name and the longest value.
pub(super) const NAME_BYTES_MAX: usize = 64;
pub(super) const VALUE_BYTES_MAX: usize = 1024;

/// What begins like this is ours: the signature, the event, the body.
const RESERVED_PREFIXES: [&str; 6] = ["webhook-", "signature", "content-", "ce-", "tidewire-", "proxy-"];

/// What has a meaning for the connection (RFC 9110, section 7.6.1), for the message's framing, or is a credential.
const RESERVED: [&str; 20] = [
    "host",
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "trailers",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
    "expect",
    "accept-encoding",
    "authorization",
    "cookie",
    "date",
    "via",
    "forwarded",
    "max-forwards",
    "range",
    "user-agent",
    "upgrade-insecure-requests",
];

/// Reads one header, or says which code refuses it.
pub(super) fn parse(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), (Code, &'static str)> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err((Code::FIELD_INVALID, "a header's name has 1 to 64 characters"));
    }
    let Ok(name) = HeaderName::try_from(name) else {
        return Err((Code::FIELD_INVALID, "that is no header's name"));
    };
    if is_reserved(&name) {
        return Err((
            Code::HEADER_FORBIDDEN,
            "this header is the gateway's to set; credentials have a field of their own",
        ));
    }
    let plain = value.bytes().all(|byte| (b' '..=b'~').contains(&byte)) && value.trim() == value;
    if value.is_empty() || value.len() > VALUE_BYTES_MAX || !plain {
        return Err((
            Code::FIELD_INVALID,
            "a header's value has 1 to 1024 printable ASCII characters",
        ));
    }
    match HeaderValue::try_from(value) {
        Ok(value) => Ok((name, value)),
        Err(_) => Err((Code::FIELD_INVALID, "that is no header's value")),
    }
}

fn is_reserved(name: &HeaderName) -> bool {
    let name = name.as_str();
    RESERVED.contains(&name) || RESERVED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

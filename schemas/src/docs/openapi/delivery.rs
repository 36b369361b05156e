//! The headers of a delivery, for documents.

/// One header.
#[derive(Debug, Clone, Copy)]
pub struct DeliveryHeader {
    /// Its name.
    pub name: &'static str,
    /// Whether every delivery has it.
    pub always: bool,
    /// For people.
    pub description: &'static str,
}

const fn header(name: &'static str, always: bool, description: &'static str) -> DeliveryHeader {
    DeliveryHeader {
        name,
        always,
        description,
    }
}

/// Every header that the gateway sets on a delivery, but those of the connection and `ce-` attributes.
pub const DELIVERY_HEADERS: &[DeliveryHeader] = &[
    header(
        "webhook-id",
        true,
        "The id of the delivery: the same on every retry, resend and replay. Receivers that must not act twice remember it.",
    ),
    header(
        "webhook-timestamp",
        true,
        "When the attempt was signed, in seconds since the Unix epoch.",
    ),
    header(
        "webhook-signature",
        false,
        "v1 and v1a signatures (Standard Webhooks) over `id.timestamp.body`, with spaces between them: more than one while \
         a secret is rotated.",
    ),
    header(
        "content-digest",
        false,
        "The body's SHA-256 (RFC 9530), where the endpoint is signed for with RFC 9421.",
    ),
    header("signature-input", false, "What is signed (RFC 9421)."),
    header(
        "signature",
        false,
        "HTTP Message Signatures (RFC 9421) with the keys of /.well-known/webhook-keys.json.",
    ),
    header("tidewire-attempt", true, "The how-manieth attempt it is, from 1."),
    header(
        "tidewire-position",
        false,
        "Where the event lies, sealed: for operators.",
    ),
    header(
        "tidewire-dead-lettered",
        false,
        "With ordering `key`: the delivery before this one that was given up.",
    ),
    header(
        "tidewire-type",
        false,
        "The event's type, where the content is raw.",
    ),
];

//! Stable codes: what a client is told, on every surface, and whose move it is.
//!
//! A code never changes its meaning. Text beside it may.

/// One stable code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Code {
    /// The code, snake_case.
    pub name: &'static str,
    /// The HTTP status of a problem document with this code.
    pub status: u16,
    /// What it means, for people: a sentence without a full stop.
    pub title: &'static str,
    /// Whether the same request may succeed later.
    pub retry: bool,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $const:ident = $name:literal, $status:literal, $title:literal, $retry:literal;)*) => {
        impl Code {
            $($(#[$doc])* pub const $const: Code = Code { name: $name, status: $status, title: $title, retry: $retry };)*

            /// Every code, for documentation and tests.
            pub const ALL: &'static [Code] = &[$(Code::$const),*];
        }
    };
}

codes! {
    /// No credentials.
    UNAUTHENTICATED = "unauthenticated", 401, "credentials are missing", false;
    /// The token is malformed, badly signed, from an unknown issuer, or otherwise not acceptable.
    TOKEN_INVALID = "token_invalid", 401, "the token is not acceptable", false;
    /// The token's time is over.
    TOKEN_EXPIRED = "token_expired", 401, "the token has expired", false;
    /// The token, or whoever it names, was revoked.
    TOKEN_REVOKED = "token_revoked", 401, "the token was revoked", false;
    /// What was revoked cannot be known now: the control topic was not read (lately).
    CONTROL_STALE = "control_stale", 503, "what was revoked is not known at the moment", true;
    /// The issuer's keys cannot be had now.
    KEYS_UNAVAILABLE = "keys_unavailable", 503, "the issuer's keys cannot be fetched", true;
    /// The ticket is unknown, spent or too old.
    TICKET_INVALID = "ticket_invalid", 401, "the ticket is not valid or was used before", false;
    /// A renewed token names another issuer, subject or tenant.
    PRINCIPAL_CHANGED = "principal_changed", 403, "a renewed token must keep issuer, subject and tenant", false;
    /// No access rule grants the stream (or it does not exist: the two look the same).
    STREAM_FORBIDDEN = "stream_forbidden", 403, "the stream does not exist or is not granted", false;
    /// The compiled grant would have more than eight clauses.
    GRANT_TOO_WIDE = "grant_too_wide", 403, "too many access rules apply", false;
    /// The `Origin` is not on the list.
    ORIGIN_FORBIDDEN = "origin_forbidden", 403, "the origin is not allowed", false;
    /// No such path.
    NOT_FOUND = "not_found", 404, "nothing is here", false;
    /// The method is not allowed here.
    METHOD_NOT_ALLOWED = "method_not_allowed", 405, "the method is not allowed here", false;
    /// None of the offered media types can be given.
    NOT_ACCEPTABLE = "not_acceptable", 406, "none of the accepted media types is offered here", false;
    /// The request's media type is not understood.
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type", 415, "the media type is not understood", false;
    /// A query parameter or attribute that the stream does not have.
    UNKNOWN_PARAMETER = "unknown_parameter", 400, "unknown query parameter or attribute", false;
    /// A parameter's value is not acceptable.
    PARAMETER_INVALID = "parameter_invalid", 400, "a parameter is not acceptable", false;
    /// The filter is not acceptable.
    FILTER_INVALID = "filter_invalid", 400, "the filter is not acceptable", false;
    /// The body is not acceptable.
    BODY_INVALID = "body_invalid", 400, "the body is not acceptable", false;
    /// The body is larger than the limit.
    BODY_TOO_LARGE = "body_too_large", 413, "the body is too large", false;
    /// The request head is larger than the limit.
    HEADERS_TOO_LARGE = "headers_too_large", 431, "the request's head is too large", false;
    /// A GraphQL document, its variables or its choice of an operation are not acceptable.
    OPERATION_INVALID = "operation_invalid", 400, "the GraphQL operation is not acceptable", false;
    /// A GraphQL operation costs more than the limits allow.
    OPERATION_TOO_LARGE = "operation_too_large", 400, "the GraphQL operation is too large", false;
    /// A GraphQL operation selects what needs a scope that the token does not have.
    FIELD_FORBIDDEN = "field_forbidden", 403, "a selected field needs a scope that is missing", false;
    /// No GraphQL document is known by that name, or this one is not among the trusted ones.
    DOCUMENT_UNKNOWN = "document_unknown", 404, "the GraphQL document is not known here", false;
    /// The cursor is no cursor of ours.
    CURSOR_INVALID = "cursor_invalid", 400, "the cursor is malformed or was sealed with an unknown key", false;
    /// The cursor belongs to another stream or tenant.
    CURSOR_FOREIGN = "cursor_foreign", 400, "the cursor belongs to another stream or tenant", false;
    /// The cursor points beyond the end of Kafka's log.
    CURSOR_AHEAD = "cursor_ahead", 409, "the cursor points beyond the end of the log", false;
    /// `after=<time>` cannot be answered here.
    TIME_UNAVAILABLE = "time_unavailable", 422, "events cannot be looked up by time here", false;
    /// A message is no valid JSON object of a known shape.
    MESSAGE_INVALID = "message_invalid", 400, "the message is not valid", false;
    /// A message or frame is larger than the limit.
    MESSAGE_TOO_LARGE = "message_too_large", 413, "the message is too large", false;
    /// The subscription id is in use on this session.
    DUPLICATE_ID = "duplicate_id", 409, "the subscription id is in use", false;
    /// The subscription id is not known on this session.
    UNKNOWN_ID = "unknown_id", 404, "the subscription id is not known", false;
    /// Asked for what this version does not do.
    UNSUPPORTED = "unsupported", 422, "this version does not support that", false;
    /// Too many connections of the tenant.
    TENANT_CONNECTIONS = "tenant_connections_exceeded", 429, "too many connections of this tenant", true;
    /// Too many connections of the principal.
    PRINCIPAL_CONNECTIONS = "principal_connections_exceeded", 429, "too many connections of this principal", true;
    /// Too many connections on the node.
    NODE_CONNECTIONS = "node_connections_exceeded", 503, "too many connections on this node", true;
    /// Too many subscriptions in one session.
    SUBSCRIPTIONS = "subscriptions_exceeded", 429, "too many subscriptions in this session", false;
    /// Too many requests.
    RATE_LIMITED = "rate_limited", 429, "too many requests", true;
    /// The reader did not take its events in time.
    SLOW_READER = "slow_reader", 429, "the reader is too slow", true;
    /// The client said nothing for too long.
    IDLE = "idle", 408, "the client was silent for too long", true;
    /// A replay read more than it may, or too many are under way.
    REPLAY_LIMITED = "replay_limited", 429, "the replay reached its limit", true;
    /// The stream is not ready (Kafka has not been reached yet).
    STREAM_UNAVAILABLE = "stream_unavailable", 503, "the stream is not ready", true;
    /// The node is draining.
    DRAINING = "draining", 503, "the node is going away", true;
    /// A member of the body is not acceptable; the problem document points at it.
    FIELD_INVALID = "field_invalid", 400, "a field is not acceptable", false;
    /// A member of the body that is not known; the problem document points at it.
    FIELD_UNKNOWN = "field_unknown", 400, "a field is not known", false;
    /// A URL that is not called: another scheme, no host, credentials or a fragment in it.
    URL_INVALID = "url_invalid", 400, "the URL is not acceptable", false;
    /// A URL whose address is private, reserved or otherwise not to be called.
    URL_FORBIDDEN = "url_forbidden", 400, "the URL's address is not allowed", false;
    /// A header that is ours to set, or that has a meaning for the connection.
    HEADER_FORBIDDEN = "header_forbidden", 400, "the header may not be set", false;
    /// An event type that none of the endpoint's streams has.
    EVENT_TYPE_UNKNOWN = "event_type_unknown", 400, "none of the streams has that event type", false;
    /// Credentials to a destination that cannot be used.
    CREDENTIALS_INVALID = "credentials_invalid", 400, "the credentials are not acceptable", false;
    /// The tenant has as many endpoints as it may.
    ENDPOINTS = "endpoints_exceeded", 429, "too many endpoints of this tenant", false;
    /// `If-Match` names another version than the current one.
    PRECONDITION_FAILED = "precondition_failed", 412, "it was changed in the meantime", false;
    /// A change without `If-Match`.
    PRECONDITION_REQUIRED = "precondition_required", 428, "the change needs If-Match", false;
    /// The `Idempotency-Key` was used with another request.
    IDEMPOTENCY_KEY_REUSED = "idempotency_key_reused", 422, "the idempotency key belongs to another request", false;
    /// There are as many revocations, or denials of one tenant, as there may be.
    CONTROL_ENTRIES = "control_entries_exceeded", 429, "too many entries of this kind", false;
    /// The control topic cannot be written, or there is none.
    CONTROL_UNAVAILABLE = "control_unavailable", 503, "the control topic cannot be written", true;
    /// The token does not have the scope that the path asks for.
    SCOPE_MISSING = "scope_missing", 403, "the token lacks a scope", false;
    /// The endpoint has not agreed to be called.
    ENDPOINT_PENDING = "endpoint_pending", 409, "the endpoint has not agreed to be called", false;
    /// A handshake with an endpoint that waits for none.
    HANDSHAKE_NOT_PENDING = "handshake_not_pending", 409, "the endpoint waits for no handshake", false;
    /// As many secrets of the endpoint sign as may at once.
    SECRETS = "secrets_exceeded", 409, "too many secrets sign at once", false;
    /// The store of webhooks cannot be reached.
    STORE_UNAVAILABLE = "store_unavailable", 503, "the store cannot be reached", true;
    /// Our fault.
    INTERNAL = "internal", 500, "internal error", true;
}

//! Why a session ends: close codes in ranges that tell the client what to do.
//!
//! `tidewire.v1`: 4000 to 4099 reconnect now, 4100 to 4199 after a back-off, 4200 to 4299 with new credentials, 4300 to 4399 never.
//! GraphQL's protocols have a table of their own; where it has no row, codes are chosen by what the reference client does
//! with them: it comes back after 1012, 1013 and 4403, and takes 4400 to 4499 otherwise as the end.

/// A reason to end a session: the WebSocket close code and its stable text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Close {
    /// The WebSocket close code.
    pub code: u16,
    /// The close code on a GraphQL socket, by the protocols' own table.
    pub graphql_code: u16,
    /// The close reason and metric label.
    pub reason: &'static str,
}

impl Close {
    /// The node drains: reconnect now, anywhere.
    pub const DRAINING: Self = Self {
        code: 4000,
        graphql_code: 1012,
        reason: "draining",
    };
    /// The client said nothing, not even pong: the connection was dead.
    pub const SILENT: Self = Self {
        code: 4001,
        graphql_code: 1013,
        reason: "silent",
    };
    /// The reader did not take its events in time; it resumes from the cursor it last got.
    pub const SLOW_READER: Self = Self {
        code: 4002,
        graphql_code: 1013,
        reason: "slow_reader",
    };
    /// A limit of the node or tenant is reached.
    pub const LIMITED: Self = Self {
        code: 4100,
        graphql_code: 1013,
        reason: "limited",
    };
    /// Our fault.
    pub const INTERNAL: Self = Self {
        code: 4101,
        graphql_code: 4500,
        reason: "internal",
    };
    /// The token's time is over.
    pub const EXPIRED: Self = Self {
        code: 4200,
        graphql_code: 4403,
        reason: "token_expired",
    };
    /// The token is not acceptable, or was not given in time.
    pub const UNAUTHENTICATED: Self = Self {
        code: 4201,
        graphql_code: 4403,
        reason: "unauthenticated",
    };
    /// An operator revoked the token, or whoever it names. Nothing that waited is sent.
    pub const REVOKED: Self = Self {
        code: 4202,
        graphql_code: 4403,
        reason: "token_revoked",
    };
    /// A renewed token named another issuer, subject or tenant.
    pub const PRINCIPAL_CHANGED: Self = Self {
        code: 4203,
        graphql_code: 4403,
        reason: "principal_changed",
    };
    /// The client broke the protocol.
    pub const PROTOCOL: Self = Self {
        code: 4300,
        graphql_code: 4400,
        reason: "protocol",
    };
    /// A message or frame is larger than the limit.
    pub const TOO_LARGE: Self = Self {
        code: 4301,
        graphql_code: 1009,
        reason: "message_too_large",
    };
    /// The client asked to end (its own close frame).
    pub const CLIENT: Self = Self {
        code: 1000,
        graphql_code: 1000,
        reason: "client",
    };

    /// The subprotocol is not spoken here.
    pub const NOT_ACCEPTABLE: Self = Self {
        code: 4302,
        graphql_code: 4406,
        reason: "subprotocol",
    };
    /// GraphQL: no `connection_init` came in time.
    pub const INIT_TIMEOUT: Self = Self {
        code: 4201,
        graphql_code: 4408,
        reason: "init_timeout",
    };
    /// GraphQL: a second `connection_init`.
    pub const INIT_TWICE: Self = Self {
        code: 4300,
        graphql_code: 4429,
        reason: "init_twice",
    };
    /// GraphQL: `connection_init` was refused.
    pub const FORBIDDEN: Self = Self {
        code: 4201,
        graphql_code: 4403,
        reason: "init_refused",
    };
    /// GraphQL: an operation before the acknowledgement.
    pub const TOO_EARLY: Self = Self {
        code: 4201,
        graphql_code: 4401,
        reason: "too_early",
    };
    /// GraphQL: an operation's id is in use.
    pub const DUPLICATE: Self = Self {
        code: 4300,
        graphql_code: 4409,
        reason: "duplicate_id",
    };
    /// GraphQL: a message that the protocol does not know.
    pub const INVALID_MESSAGE: Self = Self {
        code: 4300,
        graphql_code: 4400,
        reason: "message_invalid",
    };

    /// What a GraphQL client is told beside the code: the reference server's words.
    #[must_use]
    pub fn graphql_reason(self) -> &'static str {
        match self.graphql_code {
            4400 => "Invalid message received",
            4401 => "Unauthorized",
            4403 => "Forbidden",
            4406 => "Subprotocol not acceptable",
            4408 => "Connection initialisation timeout",
            4429 => "Too many initialisation requests",
            _ => self.reason,
        }
    }
}

//! Why a session ends: close codes in ranges that tell the client what to do.
//!
//! 4000 to 4099 reconnect now, 4100 to 4199 after a back-off, 4200 to 4299 with new credentials, 4300 to 4399 never.

/// A reason to end a session: the WebSocket close code and its stable text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Close {
    /// The WebSocket close code.
    pub code: u16,
    /// The close reason and metric label.
    pub reason: &'static str,
}

impl Close {
    /// The node drains: reconnect now, anywhere.
    pub const DRAINING: Self = Self {
        code: 4000,
        reason: "draining",
    };
    /// The client said nothing, not even pong: the connection was dead.
    pub const SILENT: Self = Self {
        code: 4001,
        reason: "silent",
    };
    /// The reader did not take its events in time; it resumes from the cursor it last got.
    pub const SLOW_READER: Self = Self {
        code: 4002,
        reason: "slow_reader",
    };
    /// A limit of the node or tenant is reached.
    pub const LIMITED: Self = Self {
        code: 4100,
        reason: "limited",
    };
    /// Our fault.
    pub const INTERNAL: Self = Self {
        code: 4101,
        reason: "internal",
    };
    /// The token's time is over.
    pub const EXPIRED: Self = Self {
        code: 4200,
        reason: "token_expired",
    };
    /// The token is not acceptable, or was not given in time.
    pub const UNAUTHENTICATED: Self = Self {
        code: 4201,
        reason: "unauthenticated",
    };
    /// A renewed token named another issuer, subject or tenant.
    pub const PRINCIPAL_CHANGED: Self = Self {
        code: 4203,
        reason: "principal_changed",
    };
    /// The client broke the protocol.
    pub const PROTOCOL: Self = Self {
        code: 4300,
        reason: "protocol",
    };
    /// A message or frame is larger than the limit.
    pub const TOO_LARGE: Self = Self {
        code: 4301,
        reason: "message_too_large",
    };
    /// The client asked to end (its own close frame).
    pub const CLIENT: Self = Self {
        code: 1000,
        reason: "client",
    };
}

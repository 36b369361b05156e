//! Sealed stand-ins for a token, for browsers that cannot set headers: tickets and cookies.
//!
//! One invariant: a ticket opens nothing twice on one node, and a ticket is no cookie, nor a cookie a ticket (the purpose
//! is authenticated with the content). Knows nothing of HTTP.

use schemas::ids::StreamName;
use schemas::problem::Code;
use secrecy::SecretString;

use crate::token::Principal;

/// How long a ticket is good for, in milliseconds.
pub const TICKET_TTL_MS: i64 = 30_000;

/// What a ticket opens.
#[derive(Debug, Clone)]
pub struct Ticket {
    /// Who asked for it.
    pub principal: Principal,
    /// The only stream that it opens, if it names one.
    pub stream: Option<StreamName>,
    /// The filter that its reader cannot leave, if it names one (JSON, as `schemas::filter::Predicate::from_json` reads it).
    pub filter: Option<serde_json::Value>,
}

/// Why a ticket or a cookie is refused. `detail` names the rule, never the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", code.name)]
pub struct BadTicket {
    /// What the client is told.
    pub code: Code,
    /// The rule that it breaks: `sealed_otherwise`, `expired`, `spent`, `origin_mismatch`, `too_many`.
    pub detail: &'static str,
}

/// A key that cannot seal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    /// There is none.
    #[error("no key is given")]
    None,
    /// Shorter than 32 bytes.
    #[error("key {place} is shorter than 32 bytes")]
    Short {
        /// Which one, from 0.
        place: usize,
    },
    /// The same as another one.
    #[error("key {place} is given twice")]
    Twice {
        /// Which one, from 0.
        place: usize,
    },
}

/// Seals and opens tickets and cookies. Cheap to clone; clones share what was spent.
#[derive(Clone)]
pub struct Tickets {}

impl Tickets {
    /// The first key seals, all open. Each is at least 32 bytes of secret text.
    pub fn new(keys: &[SecretString]) -> Result<Self, BadKey> {
        todo!("{}", keys.len())
    }

    /// A ticket: good once, for 30 s (or until the token expires), and only from the same origin.
    #[must_use]
    pub fn issue(
        &self,
        principal: &Principal,
        stream: Option<&StreamName>,
        filter: Option<&serde_json::Value>,
        origin: Option<&str>,
        now_ms: i64,
    ) -> String {
        todo!("{principal:?} {stream:?} {filter:?} {origin:?} {now_ms}")
    }

    /// Opens a ticket and spends it. The origin must be the one that it was issued to (both absent is equal, too).
    pub fn redeem(&self, text: &str, origin: Option<&str>, now_ms: i64) -> Result<Ticket, BadTicket> {
        todo!("{} {origin:?} {now_ms}", text.len())
    }

    /// The cookie form: good until the token expires, any number of times.
    #[must_use]
    pub fn issue_cookie(&self, principal: &Principal, now_ms: i64) -> String {
        todo!("{principal:?} {now_ms}")
    }

    /// Opens a cookie. Whether the request's origin is on the list is the caller's business.
    pub fn open_cookie(&self, text: &str, now_ms: i64) -> Result<Principal, BadTicket> {
        todo!("{} {now_ms}", text.len())
    }
}

//! Sealed stand-ins for a token, for browsers that cannot set headers: tickets and cookies.
//!
//! One invariant: a ticket opens nothing twice on one node, and a ticket is no cookie, nor a cookie a ticket (the purpose
//! is authenticated with the content). Knows nothing of HTTP.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};

use schemas::ids::{StreamName, TenantId};
use schemas::problem::Code;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use ulid::Ulid;

use crate::seal::Seal;
use crate::token::Principal;

pub use crate::seal::BadKey;

/// How long a ticket is good for, in milliseconds.
pub const TICKET_TTL_MS: i64 = 30_000;

/// How many spent tickets are remembered. Each costs 40 bytes and its share of a tree, for 30 s: some 12 MiB at worst, at
/// 6,600 tickets a second. Beyond, redeeming is refused, never forgotten.
const SPENT_MAX: usize = 200_000;

/// How many of them one tenant may have spent, so that the others' are never refused on its account. All readers of a
/// full node (20,000 connections) may come back at once.
const SPENT_BY_TENANT_MAX: u32 = 50_000;

/// How many of them one principal may have spent: 66 a second.
const SPENT_BY_PRINCIPAL_MAX: u32 = 2_000;

/// The longest ticket or cookie that is looked at: the longest token, sealed, with room for a filter.
const TEXT_BYTES_MAX: usize = 48 * 1024;

const TICKET: &[u8] = b"tidewire ticket 1";
const COOKIE: &[u8] = b"tidewire cookie 1";

/// What a ticket opens.
#[derive(Clone)]
pub struct Ticket {
    /// Who asked for it.
    pub principal: Principal,
    /// The only stream that it opens, if it names one.
    pub stream: Option<StreamName>,
    /// The filter that its reader cannot leave, if it names one (JSON, as `schemas::filter::Predicate::from_json` reads it).
    pub filter: Option<Value>,
}

/// A filter may name a patient: it is not printed.
impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket")
            .field("principal", &self.principal)
            .field("stream", &self.stream)
            .finish_non_exhaustive()
    }
}

/// Why a ticket or a cookie is refused. `detail` names the rule, never the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", code.name)]
pub struct BadTicket {
    /// What the client is told.
    pub code: Code,
    /// The rule that it breaks: `sealed_otherwise`, `expired`, `spent`, `origin_mismatch`,
    /// `issued_in_the_future`, `too_many`.
    pub detail: &'static str,
}

impl BadTicket {
    const fn invalid(detail: &'static str) -> Self {
        Self {
            code: Code::TICKET_INVALID,
            detail,
        }
    }
}

/// Seals and opens tickets and cookies. Cheap to clone; clones share what was spent.
#[derive(Clone)]
pub struct Tickets {
    seal: Arc<Seal>,
    spent: Arc<Mutex<Spent>>,
}

impl Tickets {
    /// The first key seals, all open. Each is at least 32 bytes of secret text.
    pub fn new(keys: &[SecretString]) -> Result<Self, BadKey> {
        Ok(Self {
            seal: Arc::new(Seal::new(keys)?),
            spent: Arc::default(),
        })
    }

    /// A ticket: good once, for 30 s (or until the token expires), and only from the same origin.
    #[must_use]
    pub fn issue(
        &self,
        principal: &Principal,
        stream: Option<&StreamName>,
        filter: Option<&Value>,
        origin: Option<&str>,
        now_ms: i64,
    ) -> String {
        let content = TicketContent {
            id: Ulid::generate().to_string(),
            principal: Who::of(principal),
            stream: stream.map(|name| name.as_str().into()),
            filter: filter.cloned(),
            origin: origin.map(Into::into),
            expires_at_ms: principal.expires_at_ms.min(now_ms.saturating_add(TICKET_TTL_MS)),
        };
        self.seal.seal(TICKET, &to_json(&content))
    }

    /// Opens a ticket and spends it. The origin must be the one that it was issued to (both absent is equal, too).
    pub fn redeem(&self, text: &str, origin: Option<&str>, now_ms: i64) -> Result<Ticket, BadTicket> {
        let content: TicketContent = self.open(TICKET, text)?;
        if content.expires_at_ms <= now_ms {
            return Err(BadTicket::invalid("expired"));
        }
        if content.origin.as_deref() != origin {
            return Err(BadTicket::invalid("origin_mismatch"));
        }
        let stream = match &content.stream {
            None => None,
            Some(name) => Some(StreamName::parse(name).map_err(|_| BadTicket::invalid("sealed_otherwise"))?),
        };
        let id = Ulid::from_string(&content.id).map_err(|_| BadTicket::invalid("sealed_otherwise"))?;
        let principal = content.principal.into_principal()?;
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        let owners = spent.owners_of(&principal);
        spent.spend(id, owners, content.expires_at_ms, now_ms)?;
        Ok(Ticket {
            principal,
            stream,
            filter: content.filter,
        })
    }

    /// The cookie form: good until the token expires, any number of times.
    #[must_use]
    pub fn issue_cookie(&self, principal: &Principal, now_ms: i64) -> String {
        let content = CookieContent {
            principal: Who::of(principal),
            issued_at_ms: now_ms,
        };
        self.seal.seal(COOKIE, &to_json(&content))
    }

    /// Opens a cookie. Whether the request's origin is on the list is the caller's business.
    pub fn open_cookie(&self, text: &str, now_ms: i64) -> Result<Principal, BadTicket> {
        let content: CookieContent = self.open(COOKIE, text)?;
        let principal = content.principal.into_principal()?;
        if content.issued_at_ms > now_ms.saturating_add(TICKET_TTL_MS) {
            // Not of this time: the clock of the node that sealed it was far ahead, or ours was set back.
            return Err(BadTicket::invalid("issued_in_the_future"));
        }
        if principal.expires_at_ms <= now_ms {
            return Err(BadTicket {
                code: Code::TOKEN_EXPIRED,
                detail: "expired",
            });
        }
        Ok(principal)
    }

    fn open<T: for<'de> Deserialize<'de>>(&self, purpose: &[u8], text: &str) -> Result<T, BadTicket> {
        let otherwise = BadTicket::invalid("sealed_otherwise");
        if text.len() > TEXT_BYTES_MAX {
            return Err(otherwise);
        }
        let content = self.seal.open(purpose, text).ok_or(otherwise)?;
        serde_json::from_slice(&content).map_err(|_| otherwise)
    }
}

#[derive(Serialize, Deserialize)]
struct TicketContent {
    id: String,
    principal: Who,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    filter: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<String>,
    expires_at_ms: i64,
}

#[derive(Serialize, Deserialize)]
struct CookieContent {
    principal: Who,
    issued_at_ms: i64,
}

/// A principal, as it is written.
#[derive(Serialize, Deserialize)]
struct Who {
    issuer: Arc<str>,
    subject: Arc<str>,
    tenant: String,
    scopes: Vec<String>,
    claims: BTreeMap<String, Arc<str>>,
    token_id: Option<Arc<str>>,
    // Absent in what an earlier release sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    issued_at_ms: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    application: Option<Arc<str>>,
    expires_at_ms: i64,
}

impl Who {
    fn of(principal: &Principal) -> Self {
        Self {
            issuer: Arc::clone(&principal.issuer),
            subject: Arc::clone(&principal.subject),
            tenant: principal.tenant.as_str().to_owned(),
            scopes: principal.scopes.clone(),
            claims: principal.claims.clone(),
            token_id: principal.token_id.clone(),
            issued_at_ms: principal.issued_at_ms,
            application: principal.application.clone(),
            expires_at_ms: principal.expires_at_ms,
        }
    }

    fn into_principal(self) -> Result<Principal, BadTicket> {
        Ok(Principal {
            issuer: self.issuer,
            subject: self.subject,
            tenant: TenantId::parse(&self.tenant).map_err(|_| BadTicket::invalid("sealed_otherwise"))?,
            scopes: self.scopes,
            claims: self.claims,
            token_id: self.token_id,
            issued_at_ms: self.issued_at_ms,
            expires_at_ms: self.expires_at_ms,
            application: self.application,
            // Those of now, not those of when it was sealed: the caller asks for them.
            denials: Arc::default(),
        })
    }
}

fn to_json(content: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(content).expect("ticket: its content has string keys and no failing serializers")
}

/// The tickets that were redeemed and could still be redeemed again: ordered by when they expire.
#[derive(Default)]
struct Spent {
    tickets: BTreeMap<(i64, u128), Owners>,
    /// How many of them each owner has.
    by_owner: HashMap<u64, u32>,
    /// Its keys are random: nobody can choose names that collide.
    hasher: RandomState,
}

/// Whose a ticket is, hashed.
#[derive(Debug, Clone, Copy)]
struct Owners {
    tenant: u64,
    principal: u64,
}

impl Spent {
    fn owners_of(&self, principal: &Principal) -> Owners {
        let tenant = principal.tenant.as_str();
        Owners {
            tenant: self.hasher.hash_one(tenant),
            principal: self
                .hasher
                .hash_one((tenant, &principal.issuer, &principal.subject)),
        }
    }

    fn spend(&mut self, id: Ulid, owners: Owners, expires_at_ms: i64, now_ms: i64) -> Result<(), BadTicket> {
        while let Some(first) = self.tickets.first_entry()
            && first.key().0 <= now_ms
        {
            let owners = first.remove();
            self.give_back(owners);
        }
        let ticket = (expires_at_ms, id.into());
        if self.tickets.contains_key(&ticket) {
            return Err(BadTicket::invalid("spent"));
        }
        if self.tickets.len() >= SPENT_MAX
            || self.count(owners.tenant) >= SPENT_BY_TENANT_MAX
            || self.count(owners.principal) >= SPENT_BY_PRINCIPAL_MAX
        {
            return Err(BadTicket {
                code: Code::RATE_LIMITED,
                detail: "too_many",
            });
        }
        self.tickets.insert(ticket, owners);
        for owner in [owners.tenant, owners.principal] {
            *self.by_owner.entry(owner).or_default() += 1;
        }
        Ok(())
    }

    fn count(&self, owner: u64) -> u32 {
        self.by_owner.get(&owner).copied().unwrap_or_default()
    }

    fn give_back(&mut self, owners: Owners) {
        for owner in [owners.tenant, owners.principal] {
            if let Entry::Occupied(mut count) = self.by_owner.entry(owner) {
                *count.get_mut() -= 1;
                if *count.get() == 0 {
                    count.remove();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;

//! Entries as records of the control topic: `revocation:<id>` or `denial:<id>`, and JSON with a version.
//!
//! One invariant: a key says nothing of a person. The id is a keyed digest of whom or what the entry names, so the same
//! entry has the same key on every node, and compaction keeps one of it. The value has the names themselves: the topic is
//! for gateways only. What a newer version wrote is passed over, and so is what makes no sense; neither takes the place of
//! what was known before.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::hmac;
use schemas::ids::{AttributeName, TenantId};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};

use super::entry::{Denial, Entry, Revocation};

/// The version that is written, and the only one that is read.
const VERSION: u32 = 1;

/// Bytes of an id before it is written in hexadecimal.
const ID_BYTES: usize = 16;

/// The longest id that is looked at: room for what others may make.
const ID_TEXT_MAX: usize = 64;

/// What kind of entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// [`Revocation`].
    Revocation,
    /// [`Denial`].
    Denial,
}

/// An entry's name: lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryId(Arc<str>);

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// This is so, whatever was said under the id before.
    Put(EntryId, Entry),
    /// What was said under the id is so no longer.
    Remove(EntryKind, EntryId),
}

/// Why a record is passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Passed {
    /// A kind or a version of another release.
    #[error("a kind or a version that this release does not know")]
    Unknown,
    /// It is none of ours, or damaged.
    #[error("malformed: {0}")]
    Malformed(&'static str),
}

/// Makes ids. All nodes have the same secret, and so the same ids.
#[derive(Clone)]
pub struct Names {
    key: hmac::Key,
}

impl EntryKind {
    /// The word before the colon of a key.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Revocation => "revocation",
            Self::Denial => "denial",
        }
    }
}

impl EntryId {
    /// Reads an id.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f');
        ((1..=ID_TEXT_MAX).contains(&text.len()) && text.bytes().all(is_digit)).then(|| Self(Arc::from(text)))
    }

    /// As it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Names {
    /// With a secret that all nodes share. A plain digest of `Patient/1` could be found by trial.
    #[must_use]
    pub fn new(secret: &SecretString) -> Self {
        let root = hmac::Key::new(hmac::HMAC_SHA256, secret.expose_secret().as_bytes());
        let derived = hmac::sign(&root, b"tidewire.control.ids");
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref()),
        }
    }

    /// The id of an entry: of whom it concerns and until when it stands, and of nothing else. A revocation that is said again
    /// takes the place of the one before.
    #[must_use]
    pub fn of(&self, entry: &Entry) -> EntryId {
        let expires;
        let parts: Vec<Option<&str>> = match entry {
            Entry::Revocation(revocation) => {
                expires = revocation.expires_at_ms.map(|at_ms| at_ms.to_string());
                vec![
                    Some("revocation"),
                    revocation.issuer.as_deref(),
                    revocation.tenant.as_ref().map(TenantId::as_str),
                    revocation.subject.as_deref(),
                    revocation.token_id.as_deref(),
                    expires.as_deref(),
                ]
            }
            Entry::Denial(denial) => vec![
                Some("denial"),
                Some(denial.tenant.as_str()),
                Some(denial.attribute.as_str()),
                Some(&*denial.value),
                denial.subject.as_deref(),
                denial.application.as_deref(),
                denial.issuer.as_deref(),
            ],
        };
        let mut context = hmac::Context::with_key(&self.key);
        for part in parts {
            // A length before each part: no two lists of parts are the same bytes.
            let length = part.map_or(u64::MAX, |text| text.len() as u64);
            context.update(&length.to_be_bytes());
            context.update(part.unwrap_or_default().as_bytes());
        }
        let tag = context.sign();
        let digest = tag.as_ref().get(..ID_BYTES).unwrap_or_default();
        let text: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        EntryId(Arc::from(text))
    }
}

/// The key of a record.
#[must_use]
pub fn key_of(kind: EntryKind, id: &EntryId) -> String {
    format!("{}:{id}", kind.as_str())
}

#[derive(Serialize, Deserialize)]
struct RevocationRecord {
    v: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    issuer: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tenant: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subject: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token_id: Option<Arc<str>>,
    issued_until_ms: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at_ms: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<Arc<str>>,
}

#[derive(Serialize, Deserialize)]
struct DenialRecord {
    v: u32,
    tenant: String,
    attribute: String,
    value: Arc<str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subject: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    application: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    issuer: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<Arc<str>>,
}

impl Entry {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> EntryKind {
        match self {
            Self::Revocation(_) => EntryKind::Revocation,
            Self::Denial(_) => EntryKind::Denial,
        }
    }

    /// The value of its record.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let encoded = match self {
            Self::Revocation(revocation) => serde_json::to_vec(&RevocationRecord {
                v: VERSION,
                issuer: revocation.issuer.clone(),
                tenant: revocation.tenant.as_ref().map(ToString::to_string),
                subject: revocation.subject.clone(),
                token_id: revocation.token_id.clone(),
                issued_until_ms: revocation.issued_until_ms,
                expires_at_ms: revocation.expires_at_ms,
                reason: revocation.reason.clone(),
            }),
            Self::Denial(denial) => serde_json::to_vec(&DenialRecord {
                v: VERSION,
                tenant: denial.tenant.to_string(),
                attribute: denial.attribute.to_string(),
                value: Arc::clone(&denial.value),
                subject: denial.subject.clone(),
                application: denial.application.clone(),
                issuer: denial.issuer.clone(),
                reason: denial.reason.clone(),
            }),
        };
        encoded.expect("control: its entries have string keys and no failing serializers")
    }
}

impl Change {
    /// Reads a record. A record without a value removes its entry.
    ///
    /// # Errors
    ///
    /// The record is to be passed over, and counted.
    pub fn decode(key: Option<&[u8]>, value: Option<&[u8]>) -> Result<Self, Passed> {
        let key = key.and_then(|key| std::str::from_utf8(key).ok());
        let (kind, id) = key
            .and_then(|key| key.split_once(':'))
            .ok_or(Passed::Malformed("its key is not of the form kind:id"))?;
        let kind = match kind {
            "revocation" => EntryKind::Revocation,
            "denial" => EntryKind::Denial,
            _ => return Err(Passed::Unknown),
        };
        let id = EntryId::parse(id).ok_or(Passed::Malformed("its key has no id"))?;
        let Some(value) = value else {
            return Ok(Self::Remove(kind, id));
        };
        check_version(value)?;
        let entry = match kind {
            EntryKind::Revocation => Entry::Revocation(revocation(value)?),
            EntryKind::Denial => Entry::Denial(denial(value)?),
        };
        Ok(Self::Put(id, entry))
    }
}

fn check_version(value: &[u8]) -> Result<(), Passed> {
    #[derive(Deserialize)]
    struct Versioned {
        v: u32,
    }
    let versioned: Versioned = serde_json::from_slice(value)
        .map_err(|_| Passed::Malformed("it is no JSON object with a version"))?;
    if versioned.v == VERSION {
        Ok(())
    } else {
        Err(Passed::Unknown)
    }
}

fn revocation(value: &[u8]) -> Result<Revocation, Passed> {
    let record: RevocationRecord =
        serde_json::from_slice(value).map_err(|_| Passed::Malformed("its shape is that of no revocation"))?;
    let tenant = record.tenant.as_deref().map(TenantId::parse).transpose();
    let revocation = Revocation {
        issuer: record.issuer,
        tenant: tenant.map_err(|_| Passed::Malformed("its tenant is none"))?,
        subject: record.subject,
        token_id: record.token_id,
        issued_until_ms: record.issued_until_ms,
        expires_at_ms: record.expires_at_ms,
        reason: record.reason,
    };
    // One that names nobody would concern everybody.
    revocation.check().map_err(|bad| Passed::Malformed(bad.rule))?;
    Ok(revocation)
}

fn denial(value: &[u8]) -> Result<Denial, Passed> {
    let record: DenialRecord =
        serde_json::from_slice(value).map_err(|_| Passed::Malformed("its shape is that of no denial"))?;
    let denial = Denial {
        tenant: TenantId::parse(&record.tenant).map_err(|_| Passed::Malformed("its tenant is none"))?,
        attribute: AttributeName::parse(&record.attribute)
            .map_err(|_| Passed::Malformed("its attribute is none"))?,
        value: record.value,
        subject: record.subject,
        application: record.application,
        issuer: record.issuer,
        reason: record.reason,
    };
    denial.check().map_err(|bad| Passed::Malformed(bad.rule))?;
    Ok(denial)
}

//! The header of a token: read strictly, before anything of it is trusted.
//!
//! One invariant: it may choose among the issuer's keys and algorithms, and nothing else; whatever would bring in a key, an
//! address or another meaning is refused. Knows nothing of issuers.

use serde_json::Value;

use crate::issuer::Algorithm;
use crate::reason;
use crate::strict::{self, BadObject};
use crate::token::BadToken;

/// The longest `kid`, in bytes.
const KID_BYTES_MAX: usize = 256;

/// What a header says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) algorithm: Algorithm,
    pub(crate) kid: Option<String>,
}

impl Header {
    /// Reads the first part of a compact JWS.
    pub(crate) fn read(part: &str) -> Result<Self, BadToken> {
        let bytes = strict::base64(part).ok_or(reason::MALFORMED)?;
        let members = strict::object(&bytes).map_err(|bad| match bad {
            BadObject::Syntax => reason::HEADER_JSON,
            BadObject::Duplicate => reason::HEADER_DUPLICATE,
        })?;
        let has = |names: &[&str]| names.iter().any(|name| members.contains_key(*name));
        let text = |name: &str| members.get(name).and_then(Value::as_str);
        if has(&["jwk", "jku", "x5c", "x5u"]) {
            return Err(reason::KEY_IN_HEADER);
        }
        if has(&["crit"]) {
            return Err(reason::CRIT);
        }
        if has(&["b64"]) {
            return Err(reason::B64);
        }
        if has(&["enc", "zip"]) || text("cty").is_some_and(|cty| is_media_type(cty, &["jwt"])) {
            return Err(reason::NESTED);
        }
        if has(&["typ"]) && !text("typ").is_some_and(|typ| is_media_type(typ, &["jwt", "at+jwt"])) {
            return Err(reason::TYP);
        }
        let algorithm = algorithm(text("alg").ok_or(reason::ALG_MISSING)?)?;
        let kid = match members.get("kid") {
            None => None,
            Some(Value::String(kid)) if (1..=KID_BYTES_MAX).contains(&kid.len()) => Some(kid.clone()),
            Some(_) => return Err(reason::KID_MALFORMED),
        };
        Ok(Self { algorithm, kid })
    }
}

fn algorithm(name: &str) -> Result<Algorithm, BadToken> {
    Algorithm::parse(name).ok_or_else(|| {
        if name.eq_ignore_ascii_case("none") {
            reason::ALG_NONE
        } else if matches!(name, "HS256" | "HS384" | "HS512") {
            reason::ALG_SYMMETRIC
        } else {
            reason::ALG_UNKNOWN
        }
    })
}

/// Media types have no case, and `application/` may be left out (RFC 7515, section 4.1.9).
fn is_media_type(text: &str, names: &[&str]) -> bool {
    let text = text.to_ascii_lowercase();
    names.contains(&text.strip_prefix("application/").unwrap_or(&text))
}

//! The claims of a token whose signature is good: what its issuer may assert becomes a principal.
//!
//! One invariant: a claim reaches the principal only if the issuer's configuration lets it. Knows nothing of keys.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use schemas::ids::TenantId;
use serde_json::{Map, Value};

use crate::issuer::Issuer;
use crate::reason;
use crate::token::{BadToken, Principal};

/// The longest `sub` and `jti`, in bytes.
const NAME_BYTES_MAX: usize = 1024;

/// The end of the year 9999: the last moment that RFC 3339 can write.
const TIME_MS_MAX: i64 = 253_402_300_799_000;

/// Checks the claims and makes the principal of them. `name` is the issuer's, shared.
pub(crate) fn principal(
    issuer: &Issuer,
    name: &Arc<str>,
    claims: &Map<String, Value>,
    now_ms: i64,
) -> Result<Principal, BadToken> {
    check_audience(issuer, claims.get("aud"))?;
    let (issued_at_ms, expires_at_ms) = check_times(issuer, claims, now_ms)?;
    let subject = match claims.get("sub") {
        Some(Value::String(text)) if (1..=NAME_BYTES_MAX).contains(&text.len()) => Arc::from(text.as_str()),
        _ => return Err(reason::SUB_MISSING),
    };
    let token_id = match claims.get("jti") {
        None => None,
        Some(Value::String(text)) if text.len() <= NAME_BYTES_MAX => Some(Arc::from(text.as_str())),
        Some(_) => return Err(reason::JTI_MALFORMED),
    };
    let passed = |wanted: &String| {
        let value = claims.get(wanted)?.as_str()?;
        Some((wanted.clone(), Arc::from(value)))
    };
    Ok(Principal {
        issuer: Arc::clone(name),
        subject,
        tenant: tenant(issuer, claims)?,
        scopes: scopes(issuer, claims)?,
        claims: issuer
            .claims
            .iter()
            .filter_map(passed)
            .collect::<BTreeMap<_, _>>(),
        token_id,
        issued_at_ms,
        expires_at_ms,
        application: application(claims),
        denials: Arc::default(),
    })
}

fn check_audience(issuer: &Issuer, audience: Option<&Value>) -> Result<(), BadToken> {
    let expected = |audience: &str| issuer.audiences.iter().any(|expected| expected == audience);
    let meant = match audience {
        Some(Value::String(audience)) => expected(audience),
        Some(Value::Array(audiences)) if audiences.iter().all(Value::is_string) => {
            audiences.iter().filter_map(Value::as_str).any(expected)
        }
        _ => return Err(reason::AUD_MISSING),
    };
    if meant { Ok(()) } else { Err(reason::AUD_MISMATCH) }
}

/// The client that the token was issued to (RFC 9068, section 2.2; OpenID Connect Core, section 2).
fn application(claims: &Map<String, Value>) -> Option<Arc<str>> {
    let name = claims.get("client_id").or_else(|| claims.get("azp"))?.as_str()?;
    (1..=NAME_BYTES_MAX)
        .contains(&name.len())
        .then(|| Arc::from(name))
}

/// When it was issued at the earliest, if it says so, and until when it is good. `exp` without leeway, so that a token is
/// refused when a session with it would end; `nbf` and `iat` with.
fn check_times(
    issuer: &Issuer,
    claims: &Map<String, Value>,
    now_ms: i64,
) -> Result<(Option<i64>, i64), BadToken> {
    let time = |name: &str, malformed: BadToken| match claims.get(name) {
        None => Ok(None),
        Some(value) => time_ms(value).map(Some).ok_or(malformed),
    };
    let leeway_ms = i64::try_from(issuer.leeway.as_millis()).unwrap_or(i64::MAX);
    let latest_ms = now_ms.saturating_add(leeway_ms);
    let expires_at_ms = time("exp", reason::EXP_MISSING)?.ok_or(reason::EXP_MISSING)?;
    if expires_at_ms <= now_ms {
        return Err(reason::EXPIRED);
    }
    if time("nbf", reason::NBF_MALFORMED)?.is_some_and(|not_before_ms| not_before_ms > latest_ms) {
        return Err(reason::NOT_YET);
    }
    let issued_at_ms = time("iat", reason::IAT_MALFORMED)?;
    if issued_at_ms.is_some_and(|issued_at_ms| issued_at_ms > latest_ms) {
        return Err(reason::IAT_FUTURE);
    }
    // The issuer's clock may be ahead of ours by so much: what it issued just before a revocation must not look newer.
    let earliest_ms = issued_at_ms.map(|issued_at_ms| issued_at_ms.saturating_sub(leeway_ms));
    Ok((earliest_ms, expires_at_ms))
}

/// A `NumericDate` (RFC 7519, section 2): seconds since the Unix epoch, fractions allowed. Times before it are none, nor
/// are those that no calendar date can be given for.
fn time_ms(value: &Value) -> Option<i64> {
    let since = match value.as_u64() {
        Some(seconds) => Duration::from_secs(seconds),
        None => Duration::try_from_secs_f64(value.as_f64()?).ok()?,
    };
    let ms = i64::try_from(since.as_millis()).ok()?;
    (ms <= TIME_MS_MAX).then_some(ms)
}

fn tenant(issuer: &Issuer, claims: &Map<String, Value>) -> Result<TenantId, BadToken> {
    let value = match issuer.tenant_claim.strip_prefix('/') {
        None => claims.get(&issuer.tenant_claim),
        Some(path) => {
            let mut segments = path.split('/').map(unescape);
            let first = segments.next().and_then(|name| claims.get(&name));
            // Objects only: a place in a list is no name for a tenant.
            segments.fold(first, |value, name| value?.as_object()?.get(&name))
        }
    };
    let text = value.and_then(Value::as_str).ok_or(reason::TENANT_MISSING)?;
    let tenant = TenantId::parse(text).map_err(|_| reason::TENANT_MALFORMED)?;
    if issuer.tenants.allow(&tenant) {
        Ok(tenant)
    } else {
        Err(reason::TENANT_NOT_ALLOWED)
    }
}

/// RFC 6901, section 4.
fn unescape(segment: &str) -> String {
    segment.replace("~1", "/").replace("~0", "~")
}

/// `"a b c"` (RFC 8693, section 4.2) or `["a", "b", "c"]`. A token without scopes has none.
fn scopes(issuer: &Issuer, claims: &Map<String, Value>) -> Result<Vec<String>, BadToken> {
    let Some(value) = issuer.scope_claims.iter().find_map(|name| claims.get(name)) else {
        return Ok(Vec::new());
    };
    match value {
        Value::String(text) => Ok(text
            .split(' ')
            .filter(|scope| !scope.is_empty())
            .map(str::to_owned)
            .collect()),
        Value::Array(list) => list
            .iter()
            .map(|scope| scope.as_str().map(str::to_owned).ok_or(reason::SCOPE_MALFORMED))
            .collect(),
        _ => Err(reason::SCOPE_MALFORMED),
    }
}

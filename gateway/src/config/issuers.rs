//! `[[issuers]]`: whose tokens are accepted, and how far each is trusted.

use std::path::{Path, PathBuf};
use std::time::Duration;

use auth::dev::{AUDIENCE, ISSUER};
use auth::egress::Reach;
use auth::token::{Algorithm, Authenticator, Issuer as Trusted, KeySource, Tenants};
use schemas::contract::settings::{Place, Placed};
use schemas::ids::TenantId;
use url::Url;

use super::section::Section;

/// How many key sources an issuer may have.
const KEY_SOURCES: [&str; 4] = ["jwks_url", "discovery", "jwks_file", "development"];

/// One issuer.
#[derive(Debug, Clone)]
pub struct Issuer {
    /// Where it is declared.
    pub place: Place,
    /// What it is trusted with. The keys of a development issuer are put in when it is built.
    pub trusted: Trusted,
    /// The development issuer's key file.
    pub development: Option<PathBuf>,
    /// The file that `trusted.keys` was read from, for messages.
    pub jwks_file: Option<PathBuf>,
}

/// All issuers that could be read, and whether that is every one in the file.
pub(super) fn read(root: &Section) -> (Vec<Issuer>, bool) {
    let sections = root.all_below("issuers");
    if sections.is_empty() && root.table.is_whole() {
        let mend = "add an [[issuers]] table; without one nobody can read anything";
        root.report(
            root.table.place_of("issuers"),
            "no_issuers",
            "no issuer is configured".to_owned(),
            mend,
        );
    }
    let read: Vec<Option<Issuer>> = sections.iter().map(read_one).collect();
    let is_whole = read.iter().all(Option::is_some);
    let issuers: Vec<Issuer> = read.into_iter().flatten().collect();
    for (place, issuer) in issuers.iter().enumerate() {
        let before = issuers
            .iter()
            .take(place)
            .find(|other| other.trusted.issuer == issuer.trusted.issuer);
        if let Some(before) = before {
            let message = format!(
                "issuer {:?} is configured before, on line {}",
                issuer.trusted.issuer, before.place.line
            );
            root.report(&issuer.place, "duplicate_issuer", message, "keep one of the two");
        }
    }
    (issuers, is_whole)
}

fn read_one(section: &Section) -> Option<Issuer> {
    let is_development = section.flag("development");
    let name = if is_development {
        section
            .text("issuer")
            .map_or_else(|| Some(ISSUER.to_owned()), |name| development_name(section, name))
    } else {
        section
            .required_text("issuer")
            .and_then(|name| not_empty(section, "issuer", name))
    };
    // Asked for in any case, so that what is wrong with the rest is told too.
    let source = read_source(section, is_development, name.as_deref());
    let audiences = read_audiences(section, is_development);
    let algorithms = read_algorithms(section);
    let tenants = read_tenants(section, is_development);
    let claims = read_names(section, "claims");
    let scope_claims = read_names(section, "scope_claims");
    let tenant_claim = section
        .text("tenant_claim")
        .and_then(|name| not_empty(section, "tenant_claim", name));
    let leeway = section.table.unsigned("leeway_seconds", 0..=300);
    let reach = Reach {
        loopback: section.flag("allow_loopback"),
        private: section.flag("allow_private"),
        plain: false,
    };
    let development_key = section.text("development_key");
    if let Some(key) = &development_key
        && !is_development
    {
        section.report(
            &key.place,
            "key_sources",
            "`development_key` is for a development issuer only".to_owned(),
            "remove it, or add `development = true`",
        );
    }
    if is_development {
        refuse_fixed(section);
    }
    section.table.finish();
    let (source, jwks_file) = source?;
    let mut trusted = Trusted::new(&name?, source, audiences?);
    trusted.reach = reach;
    trusted.tenants = tenants?;
    if let Some(algorithms) = algorithms {
        trusted.algorithms = algorithms;
    }
    if let Some(claims) = claims {
        trusted.claims = claims;
    }
    if let Some(scope_claims) = scope_claims {
        trusted.scope_claims = scope_claims;
    }
    if let Some(tenant_claim) = tenant_claim {
        trusted.tenant_claim = tenant_claim;
    }
    if let Some(leeway) = leeway {
        trusted.leeway = Duration::from_secs(leeway.value);
    }
    if !is_development && let Err(bad) = Authenticator::new(vec![trusted.clone()]) {
        let place = if jwks_file.is_some() {
            section.table.place_of("jwks_file")
        } else {
            section.table.place()
        };
        let message = format!("issuer {:?} cannot be trusted: {}", bad.issuer, bad.problem);
        section.report(
            place,
            "issuer_unusable",
            message,
            "see the comments in the reference: tidewire check --reference",
        );
    }
    let development = is_development.then(|| match development_key {
        Some(key) => section.around.path(&key.value),
        None => crate::demo::state::folder().join(crate::demo::state::DEVELOPMENT_KEY),
    });
    Some(Issuer {
        place: section.table.place().clone(),
        trusted,
        development,
        jwks_file,
    })
}

/// What the development issuer's tokens are like is not to be configured.
fn refuse_fixed(section: &Section) {
    for key in ["algorithms", "scope_claims", "tenant_claim"] {
        if section.table.has(key) {
            let message = format!("`{key}` is not for a development issuer, whose tokens are always alike");
            section.report(
                section.table.place_of(key),
                "issuer_fixed",
                message,
                "remove it: tokens are EdDSA, with the claims `tenant` and `scope`",
            );
        }
    }
}

fn not_empty(section: &Section, key: &str, text: Placed<String>) -> Option<String> {
    if text.value.is_empty() {
        let message = format!("`{}` is empty", section.table.name(key));
        section.report(&text.place, "empty_value", message, "write a name");
        return None;
    }
    Some(text.value)
}

fn development_name(section: &Section, name: Placed<String>) -> Option<String> {
    if name.value != ISSUER {
        let message = format!(
            "the development issuer's name is {ISSUER:?}, not {:?}",
            name.value
        );
        section.report(&name.place, "invalid_issuer", message, "leave `issuer` out");
        return None;
    }
    Some(name.value)
}

fn read_source(
    section: &Section,
    is_development: bool,
    issuer: Option<&str>,
) -> Option<(KeySource, Option<PathBuf>)> {
    let url = section.text("jwks_url");
    let file = section.text("jwks_file");
    let discovery = section.flag("discovery");
    let given: Vec<&str> = KEY_SOURCES
        .into_iter()
        .zip([
            section.table.has("jwks_url"),
            discovery,
            section.table.has("jwks_file"),
            is_development,
        ])
        .filter_map(|(name, is_given)| is_given.then_some(name))
        .collect();
    if given.len() != 1 {
        let message = if given.is_empty() {
            "the issuer has no source of keys".to_owned()
        } else {
            format!(
                "the issuer has {} sources of keys: {}",
                given.len(),
                given.join(", ")
            )
        };
        let mend = "give exactly one of `jwks_url`, `discovery = true`, `jwks_file` and `development = true`";
        section.report(section.table.place(), "key_sources", message, mend);
        return None;
    }
    let loopback = section.flag("allow_loopback");
    if let Some(url) = url {
        let parsed = check_url(section, "jwks_url", &url, loopback)?;
        return Some((KeySource::Url(parsed), None));
    }
    if let Some(file) = file {
        return read_jwks(section, &file);
    }
    if discovery {
        let place = section.table.place_of("issuer").clone();
        let issuer = Placed {
            value: issuer?.to_owned(),
            place,
        };
        check_url(section, "issuer", &issuer, loopback)?;
        return Some((KeySource::Discovery, None));
    }
    is_development.then(|| (KeySource::Jwks(String::new()), None))
}

fn check_url(section: &Section, key: &str, text: &Placed<String>, loopback: bool) -> Option<Url> {
    let name = section.table.name(key);
    let Ok(url) = Url::parse(&text.value) else {
        let message = format!("`{name}` is no URL: {:?}", text.value);
        section.report(
            &text.place,
            "invalid_url",
            message,
            "write one such as https://id.example/jwks",
        );
        return None;
    };
    let is_loopback = match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    if !matches!(url.scheme(), "https" | "http") || url.host().is_none() {
        let message = format!("`{name}` is no web address: {:?}", text.value);
        section.report(
            &text.place,
            "invalid_url",
            message,
            "write one such as https://id.example/jwks",
        );
        return None;
    }
    if url.scheme() == "http" && !is_loopback {
        let message = format!("`{name}` fetches keys over plain http");
        section.report(
            &text.place,
            "insecure_url",
            message,
            "use https: whoever can change the keys can sign tokens",
        );
        return None;
    }
    if is_loopback && !loopback {
        let message = format!("`{name}` is on a loopback address, and those are not fetched from");
        section.report(
            &text.place,
            "loopback_url",
            message,
            "add `allow_loopback = true` (for development)",
        );
        return None;
    }
    Some(url)
}

fn read_jwks(section: &Section, file: &Placed<String>) -> Option<(KeySource, Option<PathBuf>)> {
    let path = section.around.path(&file.value);
    match jwks_text(&path) {
        Ok(text) => Some((KeySource::Jwks(text), Some(path))),
        Err((code, why)) => {
            let message = format!("`{}` {why}", section.table.name("jwks_file"));
            section.report(
                &file.place,
                code,
                message,
                "name a JWK set: {\"keys\": [...]} (RFC 7517)",
            );
            None
        }
    }
}

fn jwks_text(path: &Path) -> Result<String, (&'static str, String)> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| ("file_unreadable", format!("cannot be read: {error}")))?;
    let json: serde_json::Value =
        serde_json::from_str(&text).map_err(|error| ("jwks_invalid", format!("is not JSON: {error}")))?;
    match json.get("keys").and_then(serde_json::Value::as_array) {
        Some(keys) if !keys.is_empty() => Ok(text),
        _ => Err(("jwks_invalid", "has no keys".to_owned())),
    }
}

fn read_audiences(section: &Section, is_development: bool) -> Option<Vec<String>> {
    if is_development && !section.table.has("audiences") {
        return Some(vec![AUDIENCE.to_owned()]);
    }
    if !section.table.has("audiences") {
        section
            .table
            .missing("audiences", "the names under which tokens mean this service");
        return None;
    }
    let audiences = read_names(section, "audiences")?;
    if audiences.is_empty() {
        let place = section.table.place_of("audiences");
        let message = format!("`{}` is empty", section.table.name("audiences"));
        section.report(
            place,
            "empty_value",
            message,
            "a token for anybody is for nobody: name this service",
        );
        return None;
    }
    Some(audiences)
}

fn read_algorithms(section: &Section) -> Option<Vec<Algorithm>> {
    let names = section.texts("algorithms")?;
    let mut algorithms = Vec::new();
    for name in &names {
        match Algorithm::parse(&name.value) {
            Some(algorithm) => algorithms.push(algorithm),
            None => {
                let known: Vec<&str> = Algorithm::ALL
                    .iter()
                    .map(|algorithm| algorithm.as_str())
                    .collect();
                let message = format!("{:?} is no algorithm that tokens may be signed with", name.value);
                section.report(
                    &name.place,
                    "unknown_algorithm",
                    message,
                    &format!("write some of {}", known.join(", ")),
                );
            }
        }
    }
    if names.is_empty() {
        let message = format!("`{}` is empty", section.table.name("algorithms"));
        section.report(
            section.table.place_of("algorithms"),
            "empty_value",
            message,
            "name some, or leave the key out",
        );
    }
    (!algorithms.is_empty()).then_some(algorithms)
}

fn read_tenants(section: &Section, is_development: bool) -> Option<Tenants> {
    if !section.table.has("tenants") {
        if is_development {
            return Some(Tenants::Any);
        }
        section
            .table
            .missing("tenants", "the tenants that it may assert, or [\"*\"] for any");
        return None;
    }
    let texts = section.texts("tenants")?;
    let stars = texts.iter().filter(|text| text.value == "*").count();
    if stars > 0 && texts.len() == stars {
        return Some(Tenants::Any);
    }
    let mut tenants = Vec::new();
    let mut is_whole = true;
    for text in &texts {
        match TenantId::parse(&text.value) {
            Ok(tenant) => tenants.push(tenant),
            Err(error) => {
                is_whole = false;
                let mend = "write tenants by their names, or [\"*\"] alone for any";
                section.report(&text.place, "invalid_tenant", error.to_string(), mend);
            }
        }
    }
    if texts.is_empty() {
        let message = format!(
            "`{}` is empty: no token of the issuer would be accepted",
            section.table.name("tenants")
        );
        section.report(
            section.table.place_of("tenants"),
            "empty_value",
            message,
            "name tenants, or write [\"*\"] for any",
        );
        return None;
    }
    is_whole.then_some(Tenants::List(tenants))
}

fn read_names(section: &Section, key: &str) -> Option<Vec<String>> {
    let texts = section.texts(key)?;
    Some(
        texts
            .into_iter()
            .filter_map(|text| not_empty(section, key, text))
            .collect(),
    )
}

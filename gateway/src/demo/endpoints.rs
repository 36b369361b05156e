//! What the demo's page needs and no other gateway has: sample readers, and tokens for them.
//!
//! Served on the public listener of `tidewire demo` only, behind the page's check of `Host` (DNS rebinding); a token is
//! given to the page itself and to tools, never to another origin's page. Anybody who can reach the listener can have one:
//! that is why a development issuer in production, or beside a production Kafka, is refused.
//!
//! `GET /demo/readers` answers `200 application/json`:
//!
//! ```json
//! {"readers": [
//!   {"id": "north-clinician",
//!    "label": "Clinician at North Hospital",
//!    "note": "sees everything of the hospital",
//!    "tenant": "north",
//!    "subject": "clinician-north",
//!    "scopes": "user/Observation.rs user/Encounter.rs user/Patient.rs user/MedicationRequest.rs",
//!    "claims": {}},
//!   {"id": "north-patient-1",
//!    "label": "Patient at North Hospital",
//!    "note": "sees its own record only, without performers and notes",
//!    "tenant": "north",
//!    "subject": "patient-north-1",
//!    "scopes": "patient/Observation.rs patient/Encounter.rs patient/Patient.rs patient/MedicationRequest.rs",
//!    "claims": {"patient": "6f1c..."}}
//!  ],
//!  "streams": ["encounters", "medication_requests", "observations", "patients"],
//!  "kafka": {"embedded": true, "bootstrap_servers": "127.0.0.1:41234"},
//!  "events_per_second": 5}
//! ```
//!
//! `POST /demo/token` with `content-type: application/json` and the members of a reader (or of one's own making):
//!
//! ```json
//! {"tenant": "north", "subject": "clinician-north", "scopes": "user/Observation.rs", "claims": {"patient": "1"}, "ttl": "15m"}
//! ```
//!
//! `scopes`, `claims` and `ttl` (a duration such as `90s`, `15m`, `1h`; default `15m`, at most `24h`) may be absent. The answer is
//! `200 application/json`, `cache-control: no-store`:
//!
//! ```json
//! {"token": "eyJ...", "expires_at": "2026-11-23T17:00:00Z", "expires_in": 900}
//! ```
//!
//! Refusals are problem documents (`application/problem+json`, RFC 9457) with a stable `code`: `origin_forbidden` (403),
//! `unsupported_media_type` (415), `body_invalid` (400), `body_too_large` (413, above 16 KiB).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use auth::clock::Clock;
use auth::dev::DevelopmentIssuer;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::HeaderMap;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HOST, ORIGIN};
use schemas::contract::{Contract, WEBHOOK_EVENTS};
use schemas::ids::TenantId;
use schemas::problem::Code;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::script::{self, TENANTS};
use super::ttl;
use crate::http::{Problem, method_not_allowed, whole};

/// The largest body.
const BODY_BYTES_MAX: usize = 16 << 10;
/// It must be there within this time.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a page's token is good for.
const TTL: Duration = Duration::from_secs(15 * 60);
/// The longest that a page may ask for.
const TTL_MAX: Duration = Duration::from_secs(24 * 3600);

/// A reader that the page offers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SampleReader {
    /// Unique among the readers.
    pub id: String,
    /// For people.
    pub label: String,
    /// What it may see, in words.
    pub note: &'static str,
    /// Whose data.
    #[serde(serialize_with = "as_text")]
    pub tenant: TenantId,
    /// Who.
    pub subject: String,
    /// Separated by spaces.
    pub scopes: String,
    /// The token's claims.
    pub claims: BTreeMap<String, String>,
}

fn as_text<S: serde::Serializer>(tenant: &TenantId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(tenant.as_str())
}

/// The Kafka that events come from.
#[derive(Debug, Clone, Serialize)]
pub struct Kafka {
    /// Whether it ends with the demo.
    pub embedded: bool,
    /// Where clients reach it.
    pub bootstrap_servers: String,
}

#[derive(Debug, Serialize)]
struct Readers {
    readers: Vec<SampleReader>,
    streams: Vec<String>,
    kafka: Kafka,
    events_per_second: f64,
}

#[derive(Debug, Deserialize)]
struct Asked {
    tenant: String,
    subject: String,
    #[serde(default)]
    scopes: String,
    #[serde(default)]
    claims: BTreeMap<String, String>,
    ttl: Option<String>,
}

#[derive(Debug, Serialize)]
struct Given {
    token: String,
    expires_at: String,
    expires_in: u64,
}

struct Endpoints {
    issuer: DevelopmentIssuer,
    readers: Readers,
}

/// The routes.
pub fn router(
    issuer: DevelopmentIssuer,
    contract: &Contract,
    kafka: Kafka,
    events_per_second: f64,
) -> Router {
    let readers = Readers {
        readers: sample_readers(contract),
        streams: contract
            .streams
            .iter()
            // The sample readers are people: what happens to endpoints is not theirs to read.
            .filter(|stream| stream.name.as_str() != WEBHOOK_EVENTS)
            .map(|stream| stream.name.to_string())
            .collect(),
        kafka,
        events_per_second,
    };
    Router::new()
        .route(
            "/demo/readers",
            get(readers_of).fallback(|| async { method_not_allowed("GET, HEAD") }),
        )
        .route(
            "/demo/token",
            post(token).fallback(|| async { method_not_allowed("POST") }),
        )
        .with_state(Arc::new(Endpoints { issuer, readers }))
}

/// A clinician and the patient with the most resources, of each hospital. Scopes are those that the contract's rules ask
/// for: `user/` for clinicians, `patient/` for patients.
#[must_use]
pub fn sample_readers(contract: &Contract) -> Vec<SampleReader> {
    let rules = contract.streams.iter().flat_map(|stream| &stream.access);
    let mut scopes: Vec<&str> = rules.flat_map(|rule| &rule.scopes).map(String::as_str).collect();
    scopes.sort_unstable();
    scopes.dedup();
    let scopes_of = |kind: &str| {
        scopes
            .iter()
            .copied()
            .filter(|scope| scope.starts_with(kind))
            .collect::<Vec<_>>()
            .join(" ")
    };
    let patients = script::patients();
    let mut readers = Vec::new();
    for name in TENANTS {
        let Ok(tenant) = TenantId::parse(name) else {
            continue;
        };
        readers.push(SampleReader {
            id: format!("{name}-clinician"),
            label: format!("Clinician, {name} hospital"),
            note: "sees everything of the hospital",
            tenant: tenant.clone(),
            subject: format!("clinician-{name}"),
            scopes: scopes_of("user/"),
            claims: BTreeMap::new(),
        });
        if let Some(patient) = patients.iter().find(|patient| patient.tenant == tenant) {
            readers.push(SampleReader {
                id: format!("{name}-patient"),
                label: format!("{}, patient of {name} hospital", patient.name),
                note: "sees its own record only, without performers and notes",
                tenant,
                subject: format!("patient-{name}"),
                scopes: scopes_of("patient/"),
                claims: BTreeMap::from([("patient".to_owned(), patient.id.clone())]),
            });
        }
    }
    readers
}

async fn readers_of(State(endpoints): State<Arc<Endpoints>>) -> Response {
    ([(CACHE_CONTROL, "no-store")], Json(&endpoints.readers)).into_response()
}

async fn token(State(endpoints): State<Arc<Endpoints>>, request: Request) -> Result<Response, Problem> {
    check_page(request.headers())?;
    let asked: Asked = read(request).await?;
    let bad = |detail: String| Problem::new(Code::BODY_INVALID, detail);
    let tenant = TenantId::parse(&asked.tenant).map_err(|error| bad(format!("tenant: {}", error.rule)))?;
    if asked.subject.is_empty() {
        return Err(bad("subject: it is empty".to_owned()));
    }
    let ttl = asked
        .ttl
        .as_deref()
        .map(|text| ttl::parse(text, TTL_MAX))
        .transpose();
    let ttl = ttl.map_err(|why| bad(format!("ttl: {why}")))?.unwrap_or(TTL);
    let now_ms = Clock::System.now_ms();
    let token = endpoints
        .issuer
        .mint(&tenant, &asked.subject, &asked.scopes, &asked.claims, ttl, now_ms);
    let seconds = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
    let expires = jiff::Timestamp::from_second(now_ms.div_euclid(1000).saturating_add(seconds));
    let given = Given {
        token,
        expires_at: expires.map(|time| time.to_string()).unwrap_or_default(),
        expires_in: ttl.as_secs(),
    };
    Ok(([(CACHE_CONTROL, "no-store")], Json(given)).into_response())
}

/// No page of another origin may have a token, or switch anything. Tools say nothing of a page, and may.
pub(super) fn check_page(headers: &HeaderMap) -> Result<(), Problem> {
    let refused = |detail| Err(Problem::new(Code::ORIGIN_FORBIDDEN, detail));
    let text = |name: &http::HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    if let Some(origin) = text(&ORIGIN) {
        let authority = origin
            .strip_prefix("http://")
            .or_else(|| origin.strip_prefix("https://"));
        if authority.is_none() || authority != text(&HOST) {
            return refused("this is for the demo's own page");
        }
    }
    match headers.get("sec-fetch-site").map(http::HeaderValue::as_bytes) {
        None | Some(b"same-origin" | b"none") => Ok(()),
        Some(_) => refused("this is for the demo's own page"),
    }
}

/// Reads a small JSON body.
pub(super) async fn read<T: DeserializeOwned>(request: Request) -> Result<T, Problem> {
    let kind = request
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    // Any other media type could be sent by a foreign page without asking first.
    if !kind
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .eq_ignore_ascii_case("application/json")
    {
        return Err(Problem::new(
            Code::UNSUPPORTED_MEDIA_TYPE,
            "the body's media type is application/json",
        ));
    }
    let body = whole(request.into_body(), BODY_BYTES_MAX, BODY_TIMEOUT).await?;
    serde_json::from_slice(&body).map_err(|error| {
        Problem::new(
            Code::BODY_INVALID,
            format!(
                "line {}, column {}: not as asked for",
                error.line(),
                error.column()
            ),
        )
    })
}

#[cfg(test)]
mod tests {
    use auth::token::Authenticator;
    use axum::body::Body;
    use http::StatusCode;
    use serde_json::{Value, json};
    use tower::ServiceExt;

    use super::*;

    fn endpoints() -> (Router, DevelopmentIssuer) {
        let issuer = DevelopmentIssuer::ephemeral().expect("a key");
        let kafka = Kafka {
            embedded: true,
            bootstrap_servers: "127.0.0.1:1".to_owned(),
        };
        (
            router(issuer.clone(), &schemas::contract::clinical(), kafka, 5.0),
            issuer,
        )
    }

    async fn answer(router: Router, request: Request) -> (StatusCode, Value) {
        let response = router.oneshot(request).await.expect("an answer");
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), 1 << 20)
            .await
            .expect("a body");
        (status, serde_json::from_slice(&body).expect("JSON"))
    }

    fn post_token(headers: &[(&str, &str)], body: &Value) -> Request {
        let mut request = Request::post("/demo/token").header("host", "127.0.0.1:8080");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Body::from(body.to_string())).expect("a request")
    }

    const JSON: (&str, &str) = ("content-type", "application/json");

    #[tokio::test]
    async fn each_sample_reader_gets_a_token_that_is_accepted() {
        let (router, issuer) = endpoints();
        let authenticator =
            Authenticator::new(vec![issuer.trusted(&["patient"])]).expect("the issuer is good");
        let request = Request::get("/demo/readers")
            .body(Body::empty())
            .expect("a request");
        let (status, readers) = answer(router.clone(), request).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(readers["streams"].as_array().map(Vec::len), Some(4));
        let readers = readers["readers"].as_array().expect("readers").clone();
        assert_eq!(readers.len(), 4);
        for reader in readers {
            // The page sends back what it was given.
            let own = ("origin", "http://127.0.0.1:8080");
            let (status, given) = answer(router.clone(), post_token(&[JSON, own], &reader)).await;
            assert_eq!(status, StatusCode::OK, "{given}");
            assert_eq!(given["expires_in"], 900);
            let token = given["token"].as_str().expect("a token");
            let principal = authenticator
                .verify(token, Clock::System.now_ms())
                .await
                .expect("it is accepted");
            assert_eq!(principal.tenant.as_str(), reader["tenant"]);
            assert_eq!(
                principal.claims.get("patient").map(|claim| &**claim),
                reader["claims"]["patient"].as_str()
            );
            let contract = schemas::contract::clinical();
            for stream in &contract.streams {
                assert!(
                    auth::access::Grant::compile(stream, &principal).is_ok(),
                    "{} {}",
                    reader["id"],
                    stream.name
                );
            }
        }
    }

    #[tokio::test]
    async fn pages_of_other_origins_get_no_token() {
        let reader = json!({"tenant": "north", "subject": "x"});
        let foreign: [&[(&str, &str)]; 4] = [
            &[JSON, ("origin", "https://evil.example")],
            &[JSON, ("origin", "null")],
            &[JSON, ("origin", "http://127.0.0.1:9999")],
            &[JSON, ("sec-fetch-site", "cross-site")],
        ];
        for headers in foreign {
            let (status, problem) = answer(endpoints().0, post_token(headers, &reader)).await;
            assert_eq!(
                (status, &problem["code"]),
                (StatusCode::FORBIDDEN, &json!("origin_forbidden")),
                "{headers:?}"
            );
        }
        let (status, problem) = answer(
            endpoints().0,
            post_token(&[("content-type", "text/plain")], &reader),
        )
        .await;
        assert_eq!(
            (status, &problem["code"]),
            (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                &json!("unsupported_media_type")
            )
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_ends_is_given_up() {
        let silent = futures_util::stream::pending::<Result<bytes::Bytes, std::io::Error>>();
        let request = Request::post("/demo/token")
            .header(JSON.0, JSON.1)
            .body(Body::from_stream(silent));
        let (status, problem) = answer(endpoints().0, request.expect("a request")).await;
        assert_eq!(
            (status, &problem["code"]),
            (StatusCode::REQUEST_TIMEOUT, &json!("body_timeout"))
        );
    }

    #[tokio::test]
    async fn a_wrong_method_is_a_problem() {
        for path in ["/demo/readers", "/demo/token"] {
            let request = Request::delete(path).body(Body::empty()).expect("a request");
            let (status, problem) = answer(endpoints().0, request).await;
            assert_eq!(
                (status, &problem["code"]),
                (StatusCode::METHOD_NOT_ALLOWED, &json!("method_not_allowed"))
            );
        }
    }

    #[tokio::test]
    async fn bad_bodies_are_told() {
        let table = [
            (json!({"subject": "x"}), "body_invalid"),
            (json!({"tenant": "no tenant", "subject": "x"}), "body_invalid"),
            (json!({"tenant": "north", "subject": ""}), "body_invalid"),
            (
                json!({"tenant": "north", "subject": "x", "ttl": "soon"}),
                "body_invalid",
            ),
            (
                json!({"tenant": "north", "subject": "x", "ttl": "25h"}),
                "body_invalid",
            ),
            (
                json!({"tenant": "north", "subject": "x".repeat(20_000)}),
                "body_too_large",
            ),
        ];
        for (body, code) in table {
            let (status, problem) = answer(endpoints().0, post_token(&[JSON], &body)).await;
            assert!(status.is_client_error());
            assert_eq!(problem["code"], code);
        }
    }
}

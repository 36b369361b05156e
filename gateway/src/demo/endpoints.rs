//! What the demo's page needs and no other gateway has: sample readers, and tokens for them.
//!
//! Served on the public listener of `tidewire demo` only, and only to a loopback `Host` (DNS rebinding) that is asked by
//! the page itself (an `Origin`, where there is one, must be a loopback origin too).
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
//! Refusals are problem documents (`application/problem+json`, RFC 9457) with a stable `code`: `origin_forbidden` (403)
//! for a `Host` or `Origin` that is not loopback, `unsupported_media_type` (415), `body_invalid` (400), `body_too_large`
//! (413, above 16 KiB).

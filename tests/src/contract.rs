//! The contract of most promises: one stream of observations over topics of its own.

/// Scopes that give the tenant's rows.
pub const USER: &str = "user/Observation.rs";
/// Scopes that give the rows of the `patient` claim, with `performer` and `note` hidden.
pub const PATIENT: &str = "patient/Observation.rs";

/// `streams.toml` with one stream named `observations` over these topics (or patterns).
#[must_use]
pub fn observations(topics: &[&str]) -> String {
    stream("observations", topics)
}

/// One stream of that name, its rules those of observations.
#[must_use]
pub fn stream(name: &str, topics: &[&str]) -> String {
    format!(
        r#"[streams.{name}]
topics = {topics:?}
format = "json"
tenant = {{ header = "tenant" }}
show_offsets = true
attributes = {{ patient = {{ pointer = "/subject/reference", normalise = "reference" }}, status = "/status", code = "/code/coding/*/code" }}
[[streams.{name}.access]]
scopes = ["system/Observation.rs", "user/Observation.rs"]
rows = "tenant"
[[streams.{name}.access]]
scopes = ["patient/Observation.rs"]
rows = {{ patient = "Patient/{{claims.patient}}" }}
hide = ["/performer", "/note"]
"#
    )
}

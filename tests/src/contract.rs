//! The contract of most promises: one stream of observations over topics of its own.

/// Scopes that give the tenant's rows.
pub const USER: &str = "user/Observation.rs";
/// Scopes that give the rows of the `patient` claim, with `performer` and `note` hidden.
pub const PATIENT: &str = "patient/Observation.rs";

/// The types of all streams here: what field lists and attributes name, each of any shape.
pub const SDL: &str = "scalar JSON\n\
    type Observation { subject: JSON status: JSON code: JSON performer: JSON note: JSON }\n\
    type Random { kind: JSON ref: JSON list: JSON deep: JSON owner: JSON }\n";

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
schema = "Observation"
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

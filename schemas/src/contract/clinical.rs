//! The clinical contract: FHIR R4 Observation, Encounter, Patient and MedicationRequest, compiled in for the demo and the
//! tests.
//!
//! Invariant: it loads without findings. It does not know where the resources come from.

use std::path::PathBuf;

use super::Contract;

/// The contract's files: their names and texts, as they stand in `schemas/contracts/clinical`.
pub const CLINICAL_FILES: [(&str, &str); 2] = [
    (
        "clinical.graphql",
        include_str!("../../contracts/clinical/clinical.graphql"),
    ),
    (
        "streams.toml",
        include_str!("../../contracts/clinical/streams.toml"),
    ),
];

/// The clinical contract.
///
/// # Panics
///
/// Never: a test loads it.
#[must_use]
pub fn clinical() -> Contract {
    clinical_with(None)
}

/// The same with the stream [`super::WEBHOOK_EVENTS`] on this topic.
///
/// # Panics
///
/// Never: a test loads it.
#[must_use]
pub fn clinical_with(webhook_events: Option<&str>) -> Contract {
    let files = CLINICAL_FILES.map(|(name, text)| (PathBuf::from("clinical").join(name), text.to_owned()));
    Contract::from_sources_with(files.into(), webhook_events)
        .expect("clinical contract: it loads without findings")
}

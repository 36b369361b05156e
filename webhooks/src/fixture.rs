//! A contract, its events and a principal for this crate's own tests.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use auth::token::Principal;
use bytes::Bytes;
use schemas::contract::{Contract, Stream};
use schemas::decode::{Decoder, Record};
use schemas::event::Event;
use schemas::ids::{Incarnation, Slot, TenantId};
use secrecy::SecretString;

use crate::delivery::Position;

const STREAMS: &str = r#"
[streams.observations]
topics = ["fhir.observation"]
schema = "Observation"
tenant = { header = "tenant" }
deletes = "headers"
attributes = { patient = { pointer = "/subject/reference", normalise = "reference" }, status = "/status", code = "/code/coding/*/code" }
[[streams.observations.access]]
scopes = ["system/Observation.rs"]
rows = "tenant"
[[streams.observations.access]]
scopes = ["observations.blind"]
rows = "tenant"
hide = ["/subject", "/note"]
[[streams.observations.access]]
scopes = ["patient/Observation.rs"]
rows = { patient = "Patient/{claims.patient}" }
hide = ["/note"]

[streams.billing]
topics = ["billing"]
tenant = { header = "tenant" }
attributes = { status = "/status" }
[[streams.billing.access]]
scopes = ["billing.read"]
rows = "tenant"
"#;

const TYPES: &str = r#"
type Observation { id: ID status: String subject: Reference code: Concept note: String }
type Reference { reference: String }
type Concept { coding: [Coding!] }
type Coding { code: String }
"#;

pub(crate) fn contract() -> &'static Contract {
    static CONTRACT: OnceLock<Contract> = OnceLock::new();
    CONTRACT.get_or_init(|| {
        let sources = vec![
            (PathBuf::from("streams.toml"), STREAMS.to_owned()),
            (PathBuf::from("types.graphql"), TYPES.to_owned()),
        ];
        Contract::from_sources(sources).expect("the contract is right")
    })
}

/// `observations`: `patient` (a reference), `status`, and `code`, which may have several values.
pub(crate) fn stream() -> Arc<Stream> {
    Arc::clone(contract().stream("observations").expect("declared"))
}

pub(crate) fn tenant(name: &str) -> TenantId {
    TenantId::parse(name).expect("a tenant")
}

pub(crate) fn position(partition: i32, offset: i64) -> Position {
    Position {
        topic: Arc::from("fhir.observation"),
        incarnation: Incarnation(99),
        partition,
        offset,
    }
}

/// A record of `observations`; an empty body is a tombstone.
pub(crate) fn record(tenant: &str, position: &Position, key: &str, body: &str) -> Record {
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    Record {
        topic: Arc::clone(&position.topic),
        incarnation: position.incarnation,
        slot: Slot(0),
        partition: position.partition,
        offset: position.offset,
        timestamp_ms: 1_700_000_000_123,
        key: (!key.is_empty()).then(|| bytes(key)),
        value: (!body.is_empty()).then(|| bytes(body)),
        headers: vec![(Box::from("tenant"), Some(bytes(tenant)))],
    }
}

pub(crate) fn decode(record: Record) -> Event {
    let secret = SecretString::from("a secret of the tests, long enough");
    Decoder::new(stream(), &secret)
        .decode(record)
        .expect("a good record")
        .expect("an event")
}

/// An observation of this patient at offset 42 of partition 3.
pub(crate) fn observation(tenant: &str, patient: &str, status: &str) -> Event {
    let body = format!(
        r#"{{"resourceType":"Observation","status":"{status}","subject":{{"reference":"Patient/{patient}"}},"code":{{"coding":[{{"code":"8867-4"}}]}},"note":"private","valueQuantity":{{"value":1.00}}}}"#
    );
    decode(record(tenant, &position(3, 42), "o1", &body))
}

pub(crate) fn principal(tenant_name: &str, scopes: &[&str]) -> Principal {
    Principal {
        issuer: Arc::from("https://id.example"),
        subject: Arc::from("partner"),
        tenant: tenant(tenant_name),
        scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
        claims: BTreeMap::from([("patient".to_owned(), Arc::from("1"))]),
        token_id: None,
        issued_at_ms: Some(0),
        expires_at_ms: i64::MAX,
        application: None,
        denials: Arc::default(),
    }
}

//! Documents that are known by name.

use super::*;

const QUERY: &str = "subscription { things { kind } }";
/// Of [`QUERY`].
fn sha() -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, QUERY.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn named(query: Option<&str>, hash: &str) -> Request {
    Request {
        query: query.map(str::to_owned),
        extensions: map(json!({"persistedQuery": {"version": 1, "sha256Hash": hash}})),
        ..Request::default()
    }
}

fn persisted(automatic: bool, only_trusted: bool, trusted: &[(&str, &str)]) -> Schema {
    let trusted = trusted
        .iter()
        .map(|(name, text)| ((*name).to_owned(), Arc::from(*text)));
    schema_with(Options {
        persisted: Persisted {
            automatic,
            trusted: Arc::new(trusted.collect()),
            only_trusted,
        },
        ..Options::default()
    })
}

#[test]
fn a_document_is_known_by_its_hash_once_somebody_has_sent_both() {
    let schema = persisted(true, false, &[]);
    let missing = refused(&schema, &named(None, &sha()));
    assert_eq!(told(&missing).0, "PERSISTED_QUERY_NOT_FOUND");
    assert_eq!(missing.errors[0].message, "PersistedQueryNotFound");
    let other = named(Some("subscription { things { cursor } }"), &sha());
    assert_eq!(told(&refused(&schema, &other)).0, "BAD_REQUEST");
    assert!(
        schema.prepare(&named(None, &sha()), None).is_err(),
        "another document is not kept under it"
    );
    bound(&schema, &named(Some(QUERY), &sha().to_uppercase()));
    bound(&schema, &named(None, &sha()));
    assert_eq!(schema.kind(&named(None, &sha())), Ok(OperationKind::Subscription));
    for broken in [
        json!({"version": 2, "sha256Hash": sha()}),
        json!({"version": 1}),
        json!({"version": 1, "sha256Hash": "é"}),
        json!(1),
    ] {
        let mut request = request(QUERY);
        request.extensions = map(json!({"persistedQuery": broken}));
        assert_eq!(told(&refused(&schema, &request)).0, "BAD_REQUEST");
    }
}

#[test]
fn a_document_that_is_not_valid_is_not_kept() {
    let schema = persisted(true, false, &[]);
    let bad = "subscription { nothing }";
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bad.as_bytes());
    let hash: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    refused(&schema, &named(Some(bad), &hash));
    assert_eq!(
        told(&refused(&schema, &named(None, &hash))).0,
        "PERSISTED_QUERY_NOT_FOUND"
    );
}

#[test]
fn without_automatic_ones_clients_are_told_so() {
    let schema = persisted(false, false, &[]);
    assert_eq!(
        told(&refused(&schema, &named(None, &sha()))).0,
        "PERSISTED_QUERY_NOT_SUPPORTED"
    );
    bound(&schema, &named(Some(QUERY), &sha()));
    assert!(schema.prepare(&named(None, &sha()), None).is_err());
}

#[test]
fn trusted_documents_are_run_and_others_are_not_where_only_they_may() {
    let schema = persisted(true, true, &[("things-1", QUERY)]);
    let by_id = |id: &str| Request {
        document_id: Some(id.to_owned()),
        ..Request::default()
    };
    bound(&schema, &by_id("things-1"));
    bound(&schema, &named(None, &sha()));
    bound(&schema, &request(QUERY));
    assert_eq!(told(&refused(&schema, &by_id("things-2"))).0, "document_unknown");
    for other in [
        request("subscription { things { cursor } }"),
        request("{ __typename }"),
        named(None, &"0".repeat(64)),
    ] {
        assert_eq!(told(&refused(&schema, &other)).0, "document_unknown");
    }
    let lenient = persisted(false, false, &[("things-1", QUERY)]);
    bound(&lenient, &by_id("things-1"));
    bound(&lenient, &request("subscription { things { cursor } }"));
}

use auth::egress::Reach;
use secrecy::ExposeSecret as _;
use serde_json::json;

use super::*;
use crate::fixture;

const NOW_MS: i64 = 1_700_000_000_000;
const PERSONAL_MS: i64 = 86_400_000;

fn smallest() -> Value {
    json!({ "url": "https://partner.example/hooks", "streams": ["observations"] })
}

fn with(member: &str, value: Value) -> Value {
    let mut body = smallest();
    body[member] = value;
    body
}

fn spec(body: &Value) -> Result<Spec, Vec<Invalid>> {
    Spec::parse(body, Reach::default())
}

fn owner(scopes: &[&str]) -> Owner {
    Owner::of(&fixture::principal("lund", scopes), None, NOW_MS, PERSONAL_MS)
}

fn endpoint(body: &Value) -> Endpoint {
    let spec = spec(body).expect("a good body");
    Endpoint::create(spec, owner(&["system/Observation.rs"]), Start::default(), NOW_MS).expect("keys")
}

#[test]
fn the_smallest_request_has_safe_defaults() {
    let mut shown = endpoint(&smallest()).to_json();
    shown["id"] = json!("ep_...");
    insta::assert_snapshot!(serde_json::to_string_pretty(&shown).expect("JSON"));
}

#[test]
fn every_field_out_of_range_is_refused_with_its_code_and_its_place() {
    let long = |length: usize| "x".repeat(length);
    let headers = |count: usize| -> Value {
        let headers: Map<String, Value> = (0..count).map(|n| (format!("x-{n}"), json!("1"))).collect();
        Value::Object(headers)
    };
    let metadata = |count: usize| -> Value {
        let metadata: Map<String, Value> = (0..count).map(|n| (n.to_string(), json!("1"))).collect();
        Value::Object(metadata)
    };
    let field = Code::FIELD_INVALID;
    let cases: Vec<(&str, Value, Code)> = vec![
        ("url", json!(null), field),
        ("url", json!(7), field),
        ("url", json!(""), Code::URL_INVALID),
        ("url", json!("partner.example/hooks"), Code::URL_INVALID),
        ("url", json!("ftp://partner.example/"), Code::URL_INVALID),
        ("url", json!("http://partner.example/"), Code::URL_INVALID),
        ("url", json!("https://"), Code::URL_INVALID),
        (
            "url",
            json!("https://user:pw@partner.example/"),
            Code::URL_INVALID,
        ),
        ("url", json!("https://partner.example/#part"), Code::URL_INVALID),
        ("url", json!(" https://partner.example/"), Code::URL_INVALID),
        (
            "url",
            json!("https://partner.example/\r\nx: y"),
            Code::URL_INVALID,
        ),
        (
            "url",
            json!(format!("https://partner.example/{}", long(2048))),
            Code::URL_INVALID,
        ),
        ("url", json!("https://127.0.0.1/"), Code::URL_FORBIDDEN),
        ("url", json!("https://169.254.169.254/"), Code::URL_FORBIDDEN),
        ("streams", json!(null), field),
        ("streams", json!([]), field),
        ("streams", json!("observations"), field),
        ("streams", json!(["Not A Stream"]), field),
        (
            "streams",
            json!(
                vec!["a"; 65]
                    .iter()
                    .enumerate()
                    .map(|(n, _)| format!("s{n}"))
                    .collect::<Vec<_>>()
            ),
            field,
        ),
        ("types", json!("x"), field),
        ("types", json!([""]), field),
        ("types", json!([7]), field),
        ("types", json!([long(257)]), field),
        ("types", json!(vec!["x"; 65]), field),
        ("filter", json!("x"), Code::FILTER_INVALID),
        ("filter", json!({"sql": "x"}), Code::FILTER_INVALID),
        ("filter", json!({"exact": {"NOT": "x"}}), Code::UNKNOWN_PARAMETER),
        ("content", json!("everything"), field),
        ("content", json!(1), field),
        ("headers", json!([]), field),
        ("headers", json!({"x": 1}), field),
        ("headers", json!({"": "x"}), field),
        ("headers", json!({"a b": "x"}), field),
        ("headers", json!({"x": ""}), field),
        ("headers", json!({"x": "a\r\nhost: evil"}), field),
        ("headers", json!({"x": "ä"}), field),
        ("headers", json!({"x": long(1025)}), field),
        ("headers", json!({long(65): "x"}), field),
        ("headers", headers(17), field),
        ("headers", json!({"Host": "x"}), Code::HEADER_FORBIDDEN),
        ("headers", json!({"Authorization": "x"}), Code::HEADER_FORBIDDEN),
        ("headers", json!({"Webhook-Id": "x"}), Code::HEADER_FORBIDDEN),
        ("headers", json!({"Signature-Input": "x"}), Code::HEADER_FORBIDDEN),
        ("headers", json!({"Content-Length": "0"}), Code::HEADER_FORBIDDEN),
        (
            "headers",
            json!({"Transfer-Encoding": "chunked"}),
            Code::HEADER_FORBIDDEN,
        ),
        ("headers", json!({"Connection": "close"}), Code::HEADER_FORBIDDEN),
        ("headers", json!({"ce-id": "1"}), Code::HEADER_FORBIDDEN),
        (
            "headers",
            json!({"Tidewire-Attempt": "1"}),
            Code::HEADER_FORBIDDEN,
        ),
        ("signing", json!([]), field),
        ("signing", json!("v1"), field),
        ("signing", json!(["v2"]), field),
        ("credentials", json!("x"), Code::CREDENTIALS_INVALID),
        (
            "credentials",
            json!({"type": "digest"}),
            Code::CREDENTIALS_INVALID,
        ),
        (
            "credentials",
            json!({"type": "bearer"}),
            Code::CREDENTIALS_INVALID,
        ),
        (
            "credentials",
            json!({"type": "bearer", "token": "a b"}),
            Code::CREDENTIALS_INVALID,
        ),
        (
            "credentials",
            json!({"type": "bearer", "token": "a", "more": 1}),
            Code::CREDENTIALS_INVALID,
        ),
        (
            "credentials",
            json!({"type": "basic", "username": "a:b", "password": "c"}),
            Code::CREDENTIALS_INVALID,
        ),
        (
            "credentials",
            json!({"type": "mtls", "certificate": "x", "key": "y"}),
            Code::CREDENTIALS_INVALID,
        ),
        (
            "credentials",
            json!({"type": "oauth2", "token_url": "https://10.0.0.1/", "client_id": "a", "client_secret": "b"}),
            Code::URL_FORBIDDEN,
        ),
        ("rate_per_second", json!(0), field),
        ("rate_per_second", json!(10_001), field),
        ("rate_per_second", json!(1.5), field),
        ("concurrency", json!(0), field),
        ("concurrency", json!(65), field),
        ("timeout_ms", json!(99), field),
        ("timeout_ms", json!(30_001), field),
        ("retry_seconds", json!(5), field),
        ("retry_seconds", json!([0]), field),
        ("retry_seconds", json!([-1]), field),
        ("retry_seconds", json!([604_801]), field),
        ("retry_seconds", json!(vec![1; 21]), field),
        ("retry_seconds", json!([u64::MAX]), field),
        ("ordering", json!("strict"), field),
        ("description", json!(7), field),
        ("description", json!(long(1025)), field),
        ("metadata", json!([]), field),
        ("metadata", json!({"": "x"}), field),
        ("metadata", json!({"a": 1}), field),
        ("metadata", json!({"a": long(513)}), field),
        ("metadata", metadata(33), field),
        ("enabled", json!("yes"), field),
        ("handshake", json!(1), field),
        ("secret", json!("whsec_x"), Code::FIELD_UNKNOWN),
        ("id", json!("ep_x"), Code::FIELD_UNKNOWN),
    ];
    for (member, value, code) in cases {
        let problems = spec(&with(member, value.clone())).expect_err("out of range");
        let told: Vec<(Code, &str)> = problems
            .iter()
            .map(|bad| (bad.code, bad.pointer.as_str()))
            .collect();
        assert_eq!(
            told,
            [(code, format!("/{member}").as_str())],
            "{member} = {value}"
        );
    }
    assert_eq!(
        spec(&json!([])).expect_err("no object")[0].code,
        Code::BODY_INVALID
    );
}

#[test]
fn everything_that_is_wrong_is_told_at_once_and_no_value_is_repeated() {
    let body = json!({
        "url": "http://secret-host.example/", "streams": [], "timeout_ms": 0,
        "credentials": {"type": "bearer", "token": "secret token"}, "nothing": "secret text",
    });
    let problems = spec(&body).expect_err("all wrong");
    assert_eq!(problems.len(), 5);
    assert!(!format!("{problems:?}").contains("secret"), "{problems:?}");
    let named = spec(&with("a/b~c", json!(1))).expect_err("no such field");
    assert_eq!(named[0].pointer, "/a~1b~0c");
    let missing = spec(&json!({})).expect_err("nothing there");
    assert_eq!(
        missing.iter().map(|bad| bad.pointer.as_str()).collect::<Vec<_>>(),
        ["/url", "/streams"]
    );
}

#[test]
fn what_the_owner_may_not_have_is_refused_when_the_endpoint_is_made() {
    let refused = |body: &Value, scopes: &[&str]| {
        let spec = spec(body).expect("a good body");
        let start = Start::default();
        let interests = spec.interests(
            &EndpointId::generate(),
            &start,
            fixture::contract(),
            &owner(scopes),
        );
        let bad = interests.expect_err("not granted");
        (bad.code, bad.pointer, bad.detail)
    };
    let system = ["system/Observation.rs"];
    let (code, pointer, unknown) = refused(&with("streams", json!(["observations", "zzz"])), &system);
    assert_eq!((code, &*pointer), (Code::STREAM_FORBIDDEN, "/streams/1"));
    let (code, pointer, forbidden) = refused(&with("streams", json!(["billing", "observations"])), &system);
    assert_eq!((code, &*pointer), (Code::STREAM_FORBIDDEN, "/streams/0"));
    assert_eq!(unknown.replace("zzz", "X"), forbidden.replace("billing", "X"));

    let (code, pointer, _) = refused(&with("filter", json!({"exact": {"nothing": "x"}})), &system);
    assert_eq!((code, &*pointer), (Code::UNKNOWN_PARAMETER, "/filter"));
    let (code, pointer, _) = refused(
        &with("filter", json!({"exact": {"patient": "x"}})),
        &["observations.blind"],
    );
    assert_eq!((code, &*pointer), (Code::UNKNOWN_PARAMETER, "/filter"));
    let (code, pointer, _) = refused(&with("types", json!(["tidewire.billing.created"])), &system);
    assert_eq!((code, &*pointer), (Code::EVENT_TYPE_UNKNOWN, "/types/0"));
}

#[test]
fn a_patch_changes_what_it_names_and_null_is_the_default_again() {
    let mut body = smallest();
    body["headers"] = json!({"X-One": "1", "x-two": "2"});
    body["metadata"] = json!({"team": "a", "floor": "3"});
    body["timeout_ms"] = json!(5_000);
    body["credentials"] = json!({"type": "bearer", "token": "secret"});
    let before = spec(&body).expect("good");
    let patch = json!({
        "headers": {"x-one": null, "X-Three": "3"}, "metadata": {"team": "b", "floor": null}, "timeout_ms": null,
        "concurrency": 3,
    });
    let after = before.patched(&patch, Reach::default()).expect("good").to_json();
    let mut expected = before.to_json();
    expected["headers"] = json!({"x-three": "3", "x-two": "2"});
    expected["metadata"] = json!({"team": "b"});
    expected["timeout_ms"] = json!(15_000);
    expected["concurrency"] = json!(3);
    assert_eq!(after, expected);
    let same = before.patched(&json!({}), Reach::default()).expect("good");
    assert!(matches!(same.credentials, Credentials::Bearer { .. }));
    let bad = before
        .patched(&json!({"url": null}), Reach::default())
        .expect_err("needed");
    assert_eq!(bad[0].pointer, "/url");
}

#[test]
fn nothing_that_is_shown_or_printed_has_a_secret_in_it() {
    let mut body = smallest();
    body["signing"] = json!(["v1", "v1a", "rfc9421"]);
    for credentials in [
        json!({"type": "bearer", "token": "hush-hush"}),
        json!({"type": "basic", "username": "me", "password": "hush-hush"}),
        json!({"type": "oauth2", "token_url": "https://id.example/token", "client_id": "me", "client_secret": "hush-hush"}),
        json!({"type": "mtls", "certificate": "-----BEGIN CERTIFICATE-----", "key": "-----BEGIN PRIVATE KEY-----hush-hush"}),
    ] {
        body["credentials"] = credentials;
        let endpoint = endpoint(&body);
        let secrets = [
            "hush-hush",
            endpoint.keys.secrets[0].key.text().expose_secret(),
            endpoint.keys.pairs[0].key.text().expose_secret(),
        ];
        for text in [endpoint.to_json().to_string(), format!("{endpoint:?}")] {
            for secret in secrets {
                assert!(!text.contains(secret), "{text}");
            }
        }
        // What is stored has them, and is read back the same.
        let stored = endpoint.to_stored();
        for secret in secrets {
            assert!(String::from_utf8_lossy(&stored).contains(secret));
        }
        let again = Endpoint::from_stored(&stored).expect("readable");
        assert_eq!(again.to_stored(), stored);
        assert_eq!(again.etag(), endpoint.etag());
    }
}

#[test]
fn the_tag_changes_with_what_is_shown_and_only_with_it() {
    let mut endpoint = endpoint(&smallest());
    let before = endpoint.etag();
    assert_eq!(endpoint.etag(), before);
    let spec = endpoint
        .spec
        .patched(&json!({"description": "new"}), Reach::default())
        .expect("good");
    endpoint.change(spec, NOW_MS).expect("keys");
    assert_ne!(endpoint.etag(), before);
}

#[test]
fn an_endpoint_is_switched_off_and_on_and_asked_for_its_consent() {
    let mut endpoint = endpoint(&with("enabled", json!(false)));
    let disabled = |reason, since_ms| Status::Disabled { reason, since_ms };
    assert_eq!(endpoint.status, disabled(Disabled::ByHand, NOW_MS));
    let patched =
        |endpoint: &Endpoint, patch: Value| endpoint.spec.patched(&patch, Reach::default()).expect("good");
    endpoint
        .change(patched(&endpoint, json!({"enabled": true})), NOW_MS + 1)
        .expect("keys");
    assert_eq!(endpoint.status, Status::Active);
    // What disabled itself stays so when something else is changed.
    endpoint.status = disabled(Disabled::Gone, NOW_MS);
    endpoint
        .change(patched(&endpoint, json!({"description": "x"})), NOW_MS + 2)
        .expect("keys");
    assert_eq!(endpoint.status, disabled(Disabled::Gone, NOW_MS));

    endpoint.resume(NOW_MS + 3);
    assert_eq!(endpoint.status, Status::Active);
    endpoint.pause(NOW_MS + 4);
    assert_eq!(endpoint.status, disabled(Disabled::ByHand, NOW_MS + 4));

    let mut asked = self::endpoint(&with("handshake", json!(true)));
    assert_eq!(asked.status, Status::Pending);
    // No detour makes up for the receiver's consent.
    asked.pause(NOW_MS);
    asked.resume(NOW_MS);
    assert_eq!(asked.status, Status::Pending);
    asked.agree(Some(10), NOW_MS);
    assert_eq!(
        (asked.status, asked.spec.rate_per_second),
        (Status::Active, Some(10))
    );
    asked
        .change(patched(&asked, json!({"rate_per_second": 50})), NOW_MS)
        .expect("keys");
    assert_eq!(asked.spec.rate_per_second, Some(10));
    let again = Endpoint::from_stored(&asked.to_stored()).expect("readable");
    assert_eq!(again.agreed, asked.agreed);
    asked
        .change(patched(&asked, json!({"description": "x"})), NOW_MS + 1)
        .expect("keys");
    assert_eq!(asked.status, Status::Active);
    asked
        .change(
            patched(&asked, json!({"url": "https://other.example/"})),
            NOW_MS + 2,
        )
        .expect("keys");
    assert_eq!(asked.status, Status::Pending);
}

#[test]
fn keys_are_rotated_with_an_overlap_and_only_so_many_sign_at_once() {
    let mut endpoint = endpoint(&with("signing", json!(["v1", "v1a"])));
    let shown = endpoint.to_json_with_secrets();
    let first = shown["secret"].as_str().expect("a secret").to_owned();
    assert!(first.starts_with("whsec_"));
    assert!(
        shown["public_key"]
            .as_str()
            .is_some_and(|key| key.starts_with("whpk_"))
    );
    let hour = std::time::Duration::from_secs(3_600);
    for _ in 1..KEYS_MAX {
        endpoint.rotate(hour, NOW_MS).expect("room");
    }
    assert_ne!(endpoint.to_json_with_secrets()["secret"], json!(first));
    assert_eq!(endpoint.keys.secrets.len(), KEYS_MAX);
    assert_eq!(endpoint.keys.secrets[1].until_ms, Some(NOW_MS + 3_600_000));
    assert_eq!(endpoint.rotate(hour, NOW_MS), Err(BadRotation::TooMany));
    endpoint
        .rotate(hour, NOW_MS + 3_600_000)
        .expect("the others are over");
    assert_eq!((endpoint.keys.secrets.len(), endpoint.keys.pairs.len()), (2, 2));
    endpoint
        .rotate(std::time::Duration::ZERO, NOW_MS + 3_600_000)
        .expect("at once");
    assert_eq!((endpoint.keys.secrets.len(), endpoint.keys.pairs.len()), (1, 1));
}

#[test]
fn a_person_without_an_application_is_kept_for_a_short_time() {
    let until = |scopes: &[&str], application: Option<&str>| {
        let principal = fixture::principal("lund", scopes);
        Owner::of(
            &principal,
            application.map(std::sync::Arc::from),
            NOW_MS,
            PERSONAL_MS,
        )
        .authorized_until_ms
    };
    assert_eq!(until(&["system/Observation.rs"], None), None);
    assert_eq!(
        until(&["system/Observation.rs", "user/Observation.rs"], None),
        Some(NOW_MS + PERSONAL_MS)
    );
    assert_eq!(
        until(&["patient/Observation.rs"], None),
        Some(NOW_MS + PERSONAL_MS)
    );
    assert_eq!(until(&["patient/Observation.rs"], Some("app")), None);
}

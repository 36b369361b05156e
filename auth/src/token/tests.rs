//! Tokens, good and bad: each rule of [`crate::reason`] has a token that breaks it and nothing else.

mod bad;

use serde_json::{Value, json};

use super::*;
use crate::control::{Change, Control, Entry, EntryId, Revocation};
use crate::testing::{ISSUER, NOW, NOW_MS, Pair, claims, encode, issuer, pairs, set};

/// The keys of the issuer, good and bad ones.
fn keys() -> String {
    let pairs = pairs();
    let mut short = pairs.rsa.jwk(json!({"kid": "short"}));
    short["n"] = encode(&[0xff; 128]).into();
    let mut even = pairs.rsa.jwk(json!({"kid": "even"}));
    even["n"] = encode(&[0xfe; 256]).into();
    let mut one = pairs.rsa.jwk(json!({"kid": "exponent-1"}));
    one["e"] = encode(&[1]).into();
    let mut cut = pairs.p256.jwk(json!({"kid": "cut"}));
    cut["x"] = encode(&[1; 31]).into();
    let mut off_curve = pairs.p256.jwk(json!({"kid": "off-curve"}));
    off_curve["x"] = encode(&[1; 32]).into();
    set(&[
        pairs.rsa.jwk(json!({"kid": "rsa", "use": "sig"})),
        pairs.p256.jwk(json!({"kid": "p256", "key_ops": ["verify"]})),
        pairs.p384.jwk(json!({"kid": "p384"})),
        pairs.p521.jwk(json!({"kid": "p521"})),
        pairs.ed.jwk(json!({"kid": "ed", "alg": "EdDSA"})),
        pairs.rsa.jwk(json!({"kid": "only-ps256", "alg": "PS256"})),
        pairs.rsa.jwk(json!({"kid": "encryption", "use": "enc"})),
        pairs
            .rsa
            .jwk(json!({"kid": "operations", "key_ops": ["encrypt", "wrapKey"]})),
        pairs.rsa.jwk(json!({"kid": "published", "d": "AQAB"})),
        pairs.p256.jwk(json!({"kid": "k256", "crv": "secp256k1"})),
        pairs.ed.jwk(json!({"kid": "ed448", "crv": "Ed448"})),
        pairs.ed.jwk(json!({"kid": "twin"})),
        pairs.stranger.jwk(json!({"kid": "twin"})),
        json!({"kid": "secret", "kty": "oct", "k": encode(b"0123456789abcdef0123456789abcdef")}),
        json!({"kid": "bare", "kty": "RSA"}),
        json!({"kid": "unknown", "kty": "LWE"}),
        short,
        even,
        one,
        cut,
        off_curve,
    ])
}

fn authenticator() -> Authenticator {
    let mut trusted = issuer(ISSUER, KeySource::Jwks(keys()));
    trusted
        .algorithms
        .retain(|algorithm| *algorithm != Algorithm::RS512);
    Authenticator::new(vec![trusted]).expect("a good configuration")
}

fn header(alg: &str, kid: &str) -> Value {
    json!({"alg": alg, "typ": "JWT", "kid": kid})
}

/// A good token's header with one member changed; `null` takes it out.
fn with(mut object: Value, name: &str, value: Value) -> Value {
    let members = object.as_object_mut().expect("an object");
    members.remove(name);
    if !value.is_null() {
        members.insert(name.to_owned(), value);
    }
    object
}

async fn verify(token: &str) -> Result<Arc<Principal>, BadToken> {
    authenticator().verify(token, NOW_MS).await
}

#[tokio::test]
async fn each_bad_token_is_refused_with_its_reason() {
    let authenticator = authenticator();
    let table = [bad::by_shape(), bad::by_header(), bad::by_key(), bad::by_claim()].concat();
    for (name, token, refused) in &table {
        let answer = authenticator.verify(token, NOW_MS).await;
        assert_eq!(answer.as_ref().err(), Some(refused), "{name}");
    }
    // The table leaves no reason out but those that do not lie in the token.
    let elsewhere = [reason::KEYS_UNAVAILABLE, reason::REVOKED, reason::CONTROL_STALE];
    for reason in Authenticator::reasons()
        .iter()
        .filter(|reason| !elsewhere.contains(reason))
    {
        assert!(
            table.iter().any(|(_, _, refused)| refused == reason),
            "no bad token for {reason}"
        );
    }
}

#[tokio::test]
async fn every_algorithm_verifies_and_no_other_key_does() {
    let pairs = pairs();
    let mut all = issuer(ISSUER, KeySource::Jwks(keys()));
    all.algorithms = Algorithm::ALL.to_vec();
    let authenticator = Authenticator::new(vec![all]).expect("a good configuration");
    for algorithm in Algorithm::ALL {
        let (pair, kid) = match algorithm {
            Algorithm::ES256 => (&pairs.p256, "p256"),
            Algorithm::ES384 => (&pairs.p384, "p384"),
            Algorithm::ES512 => (&pairs.p521, "p521"),
            Algorithm::EdDSA => (&pairs.ed, "ed"),
            _ => (&pairs.rsa, "rsa"),
        };
        let token = pair.token(&header(algorithm.as_str(), kid), &claims(ISSUER));
        let principal = authenticator
            .verify(&token, NOW_MS)
            .await
            .unwrap_or_else(|bad| panic!("{algorithm}: {bad}"));
        assert_eq!(&*principal.subject, "ann");
        // The last byte of the signature, altered.
        let (message, signature) = token.rsplit_once('.').expect("three parts");
        let mut signature = strict::base64(signature).expect("base64url");
        *signature.last_mut().expect("a byte") ^= 1;
        let altered = format!("{message}.{}", encode(&signature));
        assert_eq!(
            authenticator.verify(&altered, NOW_MS).await,
            Err(reason::SIGNATURE),
            "{algorithm}"
        );
    }
}

#[tokio::test]
async fn a_signature_of_one_algorithm_is_none_of_another() {
    let pairs = pairs();
    for (said, done) in [("RS256", "PS256"), ("PS256", "RS256"), ("RS384", "RS256")] {
        let message = format!(
            "{}.{}",
            encode(header(said, "rsa").to_string().as_bytes()),
            encode(claims(ISSUER).to_string().as_bytes())
        );
        let token = format!("{message}.{}", encode(&pairs.rsa.sign(done, message.as_bytes())));
        assert_eq!(verify(&token).await, Err(reason::SIGNATURE), "{done} as {said}");
    }
}

#[tokio::test]
async fn a_good_token_becomes_its_principal() {
    let claims = with(claims(ISSUER), "note", json!("not passed through"));
    let token = pairs().ed.token(&header("EdDSA", "ed"), &claims);
    let principal = verify(&token).await.expect("good");
    assert_eq!(
        *principal,
        Principal {
            token_id: Some("t1".into()),
            ..crate::testing::principal(&["patient/*.rs", "openid"], &[("patient", "1")])
        }
    );
}

#[tokio::test]
async fn a_revoked_token_is_refused_and_one_of_after_the_revocation_is_not() {
    let control = Control::none();
    let authenticator = authenticator().with_control(control.clone());
    let token = |issued_at: i64| {
        let claims = with(claims(ISSUER), "iat", json!(issued_at));
        pairs().ed.token(&header("EdDSA", "ed"), &claims)
    };
    let before = token(NOW);
    assert!(authenticator.verify(&before, NOW_MS).await.is_ok());
    let revocation = Entry::Revocation(Revocation {
        subject: Some("ann".into()),
        ..Revocation::new(NOW_MS)
    });
    let id = EntryId::parse("ab").expect("an id");
    control.apply([Change::Put(id, revocation)]);
    // The issuer's clock may be 30 s ahead: what it issued then may have been issued before.
    for issued_at in [NOW - 100, NOW, NOW + 30] {
        let refused = authenticator.verify(&token(issued_at), NOW_MS).await;
        assert_eq!(refused, Err(reason::REVOKED), "{issued_at}");
    }
    let later_ms = NOW_MS + 31_000;
    assert!(authenticator.verify(&token(NOW + 31), later_ms).await.is_ok());
}

#[tokio::test]
async fn nobody_is_let_in_while_it_is_not_known_who_is_revoked() {
    let control = Control::unread(std::time::Duration::from_secs(60));
    let authenticator = authenticator().with_control(control.clone());
    let token = pairs().ed.token(&header("EdDSA", "ed"), &claims(ISSUER));
    let refused = authenticator.verify(&token, NOW_MS).await;
    assert_eq!(refused, Err(reason::CONTROL_STALE));
    control.has_read(tokio::time::Instant::now());
    assert!(authenticator.verify(&token, NOW_MS).await.is_ok());
}

#[tokio::test]
async fn the_application_is_the_client_that_the_token_was_issued_to() {
    for (member, value, application) in [
        ("client_id", json!("viewer"), Some("viewer")),
        ("azp", json!("viewer"), Some("viewer")),
        ("client_id", json!(""), None),
        ("client_id", json!(7), None),
        ("other", json!("viewer"), None),
    ] {
        let claims = with(claims(ISSUER), member, value);
        let token = pairs().ed.token(&header("EdDSA", "ed"), &claims);
        let principal = verify(&token).await.expect("good");
        assert_eq!(principal.application.as_deref(), application, "{member}");
    }
}

#[tokio::test]
async fn what_tokens_may_vary_in_is_accepted() {
    let ed = &pairs().ed;
    for (member, value) in [
        ("typ", json!("at+jwt")),
        ("typ", json!("application/AT+JWT")),
        ("typ", json!("jwt")),
        ("typ", Value::Null),
        ("x5t", json!("ignored")),
        ("x-other", json!({"ignored": true})),
    ] {
        let token = ed.token(
            &with(header("EdDSA", "ed"), member, value.clone()),
            &claims(ISSUER),
        );
        assert!(verify(&token).await.is_ok(), "{member}: {value}");
    }
    for (member, value) in [
        ("aud", json!(["other", "tidewire"])),
        ("nbf", json!(NOW + 30)),
        ("iat", json!(NOW + 30)),
        ("exp", json!(NOW + 1)),
        ("exp", json!(NOW as f64 + 0.5)),
        ("nbf", Value::Null),
        ("iat", Value::Null),
        ("jti", Value::Null),
        ("scope", Value::Null),
        ("patient", json!(1)),
    ] {
        let token = ed.token(
            &header("EdDSA", "ed"),
            &with(claims(ISSUER), member, value.clone()),
        );
        assert!(verify(&token).await.is_ok(), "{member}: {value}");
    }
}

#[tokio::test]
async fn scopes_are_read_from_the_first_claim_that_is_there() {
    let ed = &pairs().ed;
    for (scope, scp, expected) in [
        (json!("a  b "), json!(["c"]), vec!["a", "b"]),
        (Value::Null, json!(["c", "d"]), vec!["c", "d"]),
        (Value::Null, json!("c d"), vec!["c", "d"]),
        (json!(""), json!("c"), vec![]),
        (Value::Null, Value::Null, vec![]),
    ] {
        let claims = with(with(claims(ISSUER), "scope", scope), "scp", scp);
        let principal = verify(&ed.token(&header("EdDSA", "ed"), &claims))
            .await
            .expect("good");
        assert_eq!(principal.scopes, expected);
    }
}

#[tokio::test]
async fn claims_that_are_no_strings_are_not_passed_through() {
    let ed = &pairs().ed;
    for value in [
        json!(1),
        json!(true),
        json!(["1"]),
        json!({"id": "1"}),
        Value::Null,
    ] {
        let claims = with(claims(ISSUER), "patient", value);
        let principal = verify(&ed.token(&header("EdDSA", "ed"), &claims))
            .await
            .expect("good");
        assert!(principal.claims.is_empty());
    }
}

#[tokio::test]
async fn the_tenant_claim_may_lie_deeper() {
    let mut trusted = issuer(ISSUER, KeySource::Jwks(keys()));
    trusted.tenant_claim = "/https:~1~1id.example~1claims/hospital".into();
    let authenticator = Authenticator::new(vec![trusted]).expect("a good configuration");
    let ed = &pairs().ed;
    let nested = with(
        claims(ISSUER),
        "https://id.example/claims",
        json!({"hospital": "south"}),
    );
    let token = ed.token(&header("EdDSA", "ed"), &nested);
    assert_eq!(
        authenticator
            .verify(&token, NOW_MS)
            .await
            .expect("good")
            .tenant
            .as_str(),
        "south"
    );
    let flat = ed.token(&header("EdDSA", "ed"), &claims(ISSUER));
    assert_eq!(
        authenticator.verify(&flat, NOW_MS).await,
        Err(reason::TENANT_MISSING)
    );
}

#[tokio::test]
async fn a_key_of_one_issuer_verifies_nothing_of_another() {
    let other = "https://other.example";
    let pairs = pairs();
    let authenticator = Authenticator::new(vec![
        issuer(ISSUER, KeySource::Jwks(set(&[pairs.ed.jwk(json!({"kid": "k"}))]))),
        issuer(
            other,
            KeySource::Jwks(set(&[pairs.stranger.jwk(json!({"kid": "k"}))])),
        ),
    ])
    .expect("a good configuration");
    let header = header("EdDSA", "k");
    assert!(
        authenticator
            .verify(&pairs.ed.token(&header, &claims(ISSUER)), NOW_MS)
            .await
            .is_ok()
    );
    assert!(
        authenticator
            .verify(&pairs.stranger.token(&header, &claims(other)), NOW_MS)
            .await
            .is_ok()
    );
    for (pair, name) in [(&pairs.ed, other), (&pairs.stranger, ISSUER)] {
        let token = pair.token(&header, &claims(name));
        assert_eq!(authenticator.verify(&token, NOW_MS).await, Err(reason::SIGNATURE));
    }
}

#[tokio::test]
async fn a_token_without_a_kid_needs_an_issuer_with_one_fitting_key() {
    let pairs = pairs();
    let keys = set(&[pairs.ed.jwk(json!({})), pairs.p256.jwk(json!({"kid": "other"}))]);
    let authenticator = Authenticator::new(vec![issuer(ISSUER, KeySource::Jwks(keys))]).expect("good");
    let token = pairs.ed.token(&json!({"alg": "EdDSA"}), &claims(ISSUER));
    assert!(authenticator.verify(&token, NOW_MS).await.is_ok());
    let token = pairs.rsa.token(&json!({"alg": "RS256"}), &claims(ISSUER));
    assert_eq!(
        authenticator.verify(&token, NOW_MS).await,
        Err(reason::KID_REQUIRED)
    );
}

#[test]
fn issuers_that_could_accept_nothing_are_refused() {
    let good = || issuer(ISSUER, KeySource::Jwks(keys()));
    let refused = |change: fn(&mut Issuer)| {
        let mut issuer = good();
        change(&mut issuer);
        Authenticator::new(vec![issuer]).err().expect("refused").problem
    };
    assert!(Authenticator::new(vec![good()]).is_ok());
    assert!(Authenticator::new(Vec::new()).is_ok_and(|nobody| nobody.ready()));
    assert!(
        Authenticator::new(vec![good(), good()])
            .err()
            .expect("refused")
            .problem
            .contains("twice")
    );
    assert!(refused(|issuer| issuer.audiences.clear()).contains("audience"));
    assert!(refused(|issuer| issuer.algorithms.clear()).contains("algorithm"));
    assert!(refused(|issuer| issuer.tenants = Tenants::List(Vec::new())).contains("tenant"));
    assert!(refused(|issuer| issuer.keys = KeySource::Jwks("{}".into())).contains("JWK set"));
    assert!(refused(|issuer| issuer.keys = KeySource::Jwks(r#"{"keys":[]}"#.into())).contains("no key"));
    let remote = |text: &str| KeySource::Url(Url::parse(text).expect("a URL"));
    for address in [
        "http://id.example/jwks",
        "https://127.0.0.1/jwks",
        "https://169.254.169.254/jwks",
    ] {
        let issuer = Issuer {
            keys: remote(address),
            ..good()
        };
        assert!(
            Authenticator::new(vec![issuer])
                .err()
                .expect("refused")
                .problem
                .contains("fetched")
        );
    }
}

#[test]
fn a_principal_prints_neither_subject_nor_scopes_nor_claims() {
    let principal = crate::testing::principal(&["launch/x"], &[("patient", "p-1")]);
    let printed = format!("{principal:?}");
    for secret in ["ann", "launch/x", "patient", "p-1"] {
        assert!(!printed.contains(secret), "{printed}");
    }
}

proptest::proptest! {
    #[test]
    fn no_text_whatever_makes_it_panic(text in "[A-Za-z0-9_.-]{0,200}", junk in ".{0,50}") {
        let authenticator = authenticator();
        for token in [text.clone(), junk.clone(), format!("{}.{}.{text}", encode(junk.as_bytes()), encode(text.as_bytes()))] {
            let refused = futures_util::FutureExt::now_or_never(authenticator.verify(&token, NOW_MS));
            proptest::prop_assert!(refused.is_some_and(|answer| answer.is_err()));
        }
    }

    #[test]
    fn one_altered_character_anywhere_is_noticed(place in 0..10_000_usize, letter in "[A-Za-z0-9_.-]") {
        let token = pairs().ed.token(&header("EdDSA", "ed"), &claims(ISSUER));
        let place = place % token.len();
        let mut altered = token.clone();
        altered.replace_range(place..=place, &letter);
        proptest::prop_assume!(altered != token);
        let answer = futures_util::FutureExt::now_or_never(authenticator().verify(&altered, NOW_MS));
        proptest::prop_assert!(answer.is_some_and(|answer| answer.is_err()));
    }
}

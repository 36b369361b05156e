//! Bad tokens, each refused with its code.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tidewire_tests::contract;
use tidewire_tests::http::{self, bearer};
use tidewire_tests::issuer::{AUDIENCE, Issuer, now_s};
use tidewire_tests::jws::{self, Key};
use tidewire_tests::reader::{Reader, Surface, Want};
use tidewire_tests::volume::say;
use tidewire_tests::ws::{Dial, Ws};

use crate::support::World;

/// A published key that signs nothing good.
struct Others {
    second: Key,
    curve: Key,
    rsa: Key,
}

/// Bad tokens, each with the code that it is refused with.
fn bad_tokens(
    issuer: &Issuer,
    elsewhere: &Issuer,
    others: &Others,
) -> Vec<(&'static str, String, &'static str)> {
    let key = issuer.key();
    let good = || issuer.token("north").scopes(contract::USER);
    let claims = good().claims();
    let head = json!({"alg": "EdDSA", "typ": "JWT", "kid": key.kid});
    let with_head = |name: &str, value: Value| {
        let mut head = head.clone();
        head[name] = value;
        key.sign_with(&head, &claims)
    };
    let raw = |head: &str, claims: &str| {
        let signed = key.sign_with(&json!({"alg": "EdDSA"}), &json!({}));
        let signature = signed.rsplit('.').next().unwrap_or_default().to_owned();
        format!(
            "{}.{}.{signature}",
            jws::encode(head.as_bytes()),
            jws::encode(claims.as_bytes())
        )
    };
    let signed = good().sign();
    let parts: Vec<&str> = signed.split('.').collect();
    let (header, payload, signature) = (parts[0], parts[1], parts[2]);
    let flipped = {
        let first = if signature.starts_with('A') { "B" } else { "A" };
        format!(
            "{header}.{payload}.{first}{}",
            signature.get(1..).unwrap_or_default()
        )
    };
    let other_payload = jws::encode(good().claim("tenant", "south").claims().to_string().as_bytes());
    let none = |alg: &str| {
        format!(
            "{}.{payload}.",
            jws::encode(
                json!({"alg": alg, "typ": "JWT", "kid": key.kid})
                    .to_string()
                    .as_bytes()
            )
        )
    };
    let hmac = |alg: &str, kid: &str, secret: &[u8]| {
        jws::sign_hmac(&json!({"alg": alg, "kid": kid}), &claims, secret)
    };
    let fake = Key::ed25519(&key.kid);
    let mut fake_jwk = head.clone();
    fake_jwk["jwk"] = fake.jwk();
    let zero = |kid: &str, alg: &str, bytes: usize| {
        let head = json!({"alg": alg, "kid": kid}).to_string();
        format!(
            "{}.{payload}.{}",
            jws::encode(head.as_bytes()),
            jws::encode(&vec![0; bytes])
        )
    };
    let twice = claims.to_string().replacen('{', "{\"tenant\":\"south\",", 1);
    let invalid = "token_invalid";
    vec![
        ("no token at all", String::new(), "unauthenticated"),
        ("one word", "abc".into(), invalid),
        ("two parts", format!("{header}.{payload}"), invalid),
        ("four parts", format!("{signed}.x"), invalid),
        (
            "five parts, as encrypted ones have",
            format!("{header}.{payload}.{signature}.x.y"),
            invalid,
        ),
        (
            "a header that is no base64",
            format!("%%.{payload}.{signature}"),
            invalid,
        ),
        (
            "a header with padding",
            format!("{header}==.{payload}.{signature}"),
            invalid,
        ),
        ("a header that is no JSON", raw("{", &claims.to_string()), invalid),
        (
            "a header that is an array",
            raw("[]", &claims.to_string()),
            invalid,
        ),
        ("claims that are no JSON", raw(&head.to_string(), "{"), invalid),
        (
            "claims with a member twice",
            raw(&head.to_string(), &twice),
            invalid,
        ),
        (
            "a header with a member twice",
            raw(r#"{"alg":"none","alg":"EdDSA"}"#, &claims.to_string()),
            invalid,
        ),
        ("no signature", format!("{header}.{payload}."), invalid),
        (
            "half a signature",
            format!("{header}.{payload}.{}", signature.get(..40).unwrap_or_default()),
            invalid,
        ),
        ("a signature with a bit flipped", flipped, invalid),
        (
            "claims changed after signing",
            format!("{header}.{other_payload}.{signature}"),
            invalid,
        ),
        ("alg none", none("none"), invalid),
        ("alg None", none("None"), invalid),
        (
            "alg nOnE with a signature",
            format!("{}{signature}", none("nOnE")),
            invalid,
        ),
        (
            "alg missing",
            key.sign_with(&json!({"kid": key.kid}), &claims),
            invalid,
        ),
        ("alg unknown", with_head("alg", json!("XX256")), invalid),
        ("alg a number", with_head("alg", json!(256)), invalid),
        (
            "HMAC with the public key",
            hmac("HS256", &others.rsa.kid, &others.rsa.public_der()),
            invalid,
        ),
        (
            "HMAC with the published key's text",
            hmac("HS256", &key.kid, key.jwk().to_string().as_bytes()),
            invalid,
        ),
        ("HMAC with an empty secret", hmac("HS512", &key.kid, b""), invalid),
        (
            "HMAC with a published secret",
            hmac("HS256", "symmetric", b"0123456789abcdef0123456789abcdef"),
            invalid,
        ),
        (
            "the alg of another kind of key",
            with_head("alg", json!("RS256")),
            invalid,
        ),
        (
            "the alg of another curve",
            others
                .curve
                .sign_with(&json!({"alg": "ES384", "kid": "curve"}), &claims),
            invalid,
        ),
        ("an ECDSA signature of zeros", zero("curve", "ES256", 64), invalid),
        ("an RSA signature of zeros", zero("rsa", "RS256", 256), invalid),
        (
            "its own key in the header",
            fake.sign_with(&fake_jwk, &claims),
            invalid,
        ),
        (
            "a jku",
            with_head("jku", json!("http://127.0.0.1:1/jwks")),
            invalid,
        ),
        (
            "an x5u",
            with_head("x5u", json!("http://127.0.0.1:1/chain")),
            invalid,
        ),
        ("an x5c", with_head("x5c", json!(["MIIB"])), invalid),
        ("a critical extension", with_head("crit", json!(["exp"])), invalid),
        ("an unencoded payload", with_head("b64", json!(false)), invalid),
        ("a compressed payload", with_head("zip", json!("DEF")), invalid),
        ("a token in a token", with_head("cty", json!("JWT")), invalid),
        ("another typ", with_head("typ", json!("dpop+jwt")), invalid),
        ("an unknown kid", with_head("kid", json!("nobody")), invalid),
        (
            "the kid of another key",
            with_head("kid", json!(others.second.kid)),
            invalid,
        ),
        ("a kid that is a number", with_head("kid", json!(7)), invalid),
        ("an empty kid", with_head("kid", json!("")), invalid),
        (
            "a kid that is a path",
            with_head("kid", json!("../../../etc/passwd")),
            invalid,
        ),
        (
            "the kid of a key for encryption",
            with_head("kid", json!("encryption")),
            invalid,
        ),
        (
            "a key that was not published",
            Key::ed25519(&key.kid).sign(&claims),
            invalid,
        ),
        ("no iss", good().without("iss").sign(), invalid),
        (
            "an unknown iss",
            good().claim("iss", "https://elsewhere.example").sign(),
            invalid,
        ),
        (
            "an iss that is a list",
            good().claim("iss", json!([issuer.name])).sign(),
            invalid,
        ),
        (
            "another issuer's name",
            good().claim("iss", elsewhere.name.clone()).sign(),
            invalid,
        ),
        ("no aud", good().without("aud").sign(), invalid),
        (
            "another aud",
            good().claim("aud", "somebody-else").sign(),
            invalid,
        ),
        (
            "a list of other auds",
            good().claim("aud", json!(["a", "b"])).sign(),
            invalid,
        ),
        ("an aud that is a number", good().claim("aud", 1).sign(), invalid),
        ("no exp", good().without("exp").sign(), invalid),
        ("an exp in the past", good().good_for(-60).sign(), "token_expired"),
        (
            "an exp that is a text",
            good().claim("exp", "4102444800").sign(),
            invalid,
        ),
        ("a negative exp", good().claim("exp", -1).sign(), invalid),
        (
            "an nbf in the future",
            good().claim("nbf", now_s() + 600).sign(),
            invalid,
        ),
        (
            "an nbf that is a text",
            good().claim("nbf", "now").sign(),
            invalid,
        ),
        (
            "issued in the future",
            good().claim("iat", now_s() + 600).sign(),
            invalid,
        ),
        ("no sub", good().without("sub").sign(), invalid),
        ("an empty sub", good().claim("sub", "").sign(), invalid),
        ("no tenant", good().without("tenant").sign(), invalid),
        (
            "a list of tenants",
            good().claim("tenant", json!(["north", "south"])).sign(),
            invalid,
        ),
        (
            "a tenant with a star",
            good().claim("tenant", "*").sign(),
            invalid,
        ),
        (
            "a tenant with a space",
            good().claim("tenant", "north south").sign(),
            invalid,
        ),
        (
            "a tenant that the issuer may not assert",
            elsewhere.token("north").scopes(contract::USER).sign(),
            invalid,
        ),
        (
            "scopes that are a number",
            good().claim("scope", 1).sign(),
            invalid,
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_tokens_are_refused_with_their_codes() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("bad-tokens", 1).await?;
    let elsewhere = Issuer::start().await?;
    let others = Others {
        second: Key::ed25519("second"),
        curve: Key::ec("curve", "P-256"),
        rsa: Key::rsa("rsa"),
    };
    for key in [&others.second, &others.curve, &others.rsa] {
        world.issuer.publish(key.jwk());
    }
    let secret = jws::encode(b"0123456789abcdef0123456789abcdef");
    world
        .issuer
        .publish(json!({"kty": "oct", "kid": "symmetric", "k": secret}));
    let mut encryption = world.issuer.key().jwk();
    encryption["use"] = json!("enc");
    encryption["kid"] = json!("encryption");
    world.issuer.publish(encryption);

    let weak: Value = serde_json::from_str(include_str!("../../../fixtures/weak-rsa.json"))?;
    let folder = tempfile::tempdir()?;
    let weak_keys = folder.path().join("weak.json");
    let mut weak_set = weak["jwks"].clone();
    // A good key beside it: a set without any would be refused when the gateway starts.
    weak_set["keys"]
        .as_array_mut()
        .context("keys")?
        .push(Key::rsa("strong").jwk());
    std::fs::write(&weak_keys, weak_set.to_string())?;
    let mut setup = world.setup(&[&topic]);
    setup.issuers.push_str(
        &elsewhere
            .settings()
            .replace("tenants = [\"*\"]", "tenants = [\"south\"]"),
    );
    setup.issuers.push_str(&format!(
        "[[issuers]]\nissuer = \"urn:tidewire:promises:weak\"\njwks_file = {weak_keys:?}\naudiences = [{AUDIENCE:?}]\n\
         algorithms = [\"RS256\"]\ntenant_claim = \"tenant\"\ntenants = [\"*\"]\nclaims = [\"patient\", \"ward\"]\n"
    ));
    let gateway = setup.start().await?;
    let good = world.user("north");
    let mut bad = bad_tokens(&world.issuer, &elsewhere, &others);
    bad.push((
        "a key of 1024 bits",
        weak["token"].as_str().context("a token")?.to_owned(),
        "token_invalid",
    ));
    ensure!(bad.len() >= 40, "the table is long enough");

    let pull = [("accept", "application/cloudevents-batch+json")];
    let mut wrong = Vec::new();
    for (what, token, code) in &bad {
        let authorization = bearer(token);
        let headers = [pull[0], ("authorization", authorization.as_str())];
        let answer = http::get(
            gateway.address(),
            "/v1/streams/observations?after=earliest",
            &headers,
        )
        .await?;
        if (answer.status, answer.code().as_str()) != (401, code) {
            wrong.push(format!(
                "{what}: pull answers {} {}",
                answer.status,
                answer.text()
            ));
        }
        let dial = Dial {
            token: Some(token.clone()),
            ..Dial::default()
        };
        match Ws::dial(gateway.address(), &dial).await? {
            Err(refused) if (refused.status, refused.code.as_str()) == (401, code) => {}
            Err(refused) => wrong.push(format!("{what}: the WebSocket is refused with {refused:?}")),
            Ok(_) => wrong.push(format!("{what}: the WebSocket is opened")),
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    for scheme in [
        "Basic bm9ydGg6c2VjcmV0".to_owned(),
        good.clone(),
        format!("Token {good}"),
    ] {
        let headers = [pull[0], ("authorization", scheme.as_str())];
        let answer = http::get(gateway.address(), "/v1/streams/observations", &headers).await?;
        ensure!(
            (answer.status, answer.code().as_str()) == (401, "unauthenticated"),
            "{}",
            answer.text()
        );
        ensure!(
            answer.header("www-authenticate").starts_with("Bearer"),
            "a challenge"
        );
    }
    // The same gateway takes the good ones, of each published key.
    for key in [world.issuer.key(), &others.second, &others.curve, &others.rsa] {
        let token = key.sign(&world.issuer.token("north").scopes(contract::USER).claims());
        Reader::open(
            Surface::Pull,
            gateway.address(),
            Want::new("observations", &token),
        )
        .await?;
    }
    let log = gateway.log();
    for (_, token, _) in bad.iter().filter(|(_, token, _)| token.len() > 40) {
        ensure!(!log.contains(token.as_str()), "a token stands in the log");
    }
    say(&format!(
        "tokens: {} bad ones refused with their codes, by pull and WebSocket",
        bad.len()
    ));
    Ok(())
}

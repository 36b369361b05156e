//! Who may read, and until when: bad tokens, rotation, expiry, renewal, tickets, sealed cursors.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tidewire_tests::contract;
use tidewire_tests::http::{self, bearer};
use tidewire_tests::issuer::{AUDIENCE, Issuer, now_s};
use tidewire_tests::jws::{self, Key};
use tidewire_tests::plan;
use tidewire_tests::producer::Record;
use tidewire_tests::reader::{Item, Reader, Surface, Want};
use tidewire_tests::sse::{Ask, Sse};
use tidewire_tests::volume::{dice, say};
use tidewire_tests::wait;
use tidewire_tests::ws::{Dial, Said, Ws};

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

    let weak: Value = serde_json::from_str(include_str!("../../fixtures/weak-rsa.json"))?;
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

#[tokio::test(flavor = "multi_thread")]
async fn every_algorithm_of_the_list_is_verified() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("algorithms", 1).await?;
    let keys = [
        (
            Key::rsa("rsa"),
            vec!["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"],
        ),
        (Key::ec("p256", "P-256"), vec!["ES256"]),
        (Key::ec("p384", "P-384"), vec!["ES384"]),
        (Key::ec("p521", "P-521"), vec!["ES512"]),
        (Key::ed25519("ed"), vec!["EdDSA"]),
    ];
    for (key, _) in &keys {
        world.issuer.publish(key.jwk());
    }
    let gateway = world.setup(&[&topic]).start().await?;
    let claims = world.issuer.token("north").scopes(contract::USER).claims();
    for (key, algorithms) in &keys {
        for algorithm in algorithms {
            let token = key.sign_with(&json!({"alg": algorithm, "kid": key.kid}), &claims);
            let want = Want::new("observations", &token);
            Reader::open(Surface::Pull, gateway.address(), want)
                .await
                .with_context(|| (*algorithm).to_owned())?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_rotate_without_a_restart_and_unknown_ones_cannot_hammer_the_issuer() -> Result<()> {
    let mut world = World::new().await?;
    let topic = world.topic("rotation", 1).await?;
    let gateway = world.setup(&[&topic]).start().await?;
    let before = world.user("north");
    let mut open = Reader::open(
        Surface::WebSocket,
        gateway.address(),
        Want::new("observations", &before),
    )
    .await?;
    world.issuer.rotate(Key::ec("second", "P-256"), true);
    let after = world.user("north");
    // Refetching is rate-limited, so a new key may take a moment: that is a condition to wait for.
    wait::until("the new key to be known", || async {
        let opened = Reader::try_open(
            Surface::Pull,
            gateway.address(),
            Want::new("observations", &after),
        )
        .await;
        matches!(opened, Ok(Ok(_))).then_some(())
    })
    .await?;
    Reader::open(
        Surface::Pull,
        gateway.address(),
        Want::new("observations", &before),
    )
    .await?;

    let fetches = world.issuer.fetches();
    for n in 0..200 {
        let stranger = Key::ed25519(&format!("stranger-{n}")).sign(&world.issuer.token("north").claims());
        let opened = Reader::try_open(
            Surface::Pull,
            gateway.address(),
            Want::new("observations", &stranger),
        )
        .await?;
        ensure!(
            opened.err().as_deref() == Some("token_invalid"),
            "a stranger's key"
        );
    }
    let more = world.issuer.fetches() - fetches;
    ensure!(more <= 20, "200 unknown keys cost {more} fetches");

    // With the issuer gone, known keys serve on, and open sessions do not notice.
    world.issuer.fall_silent();
    Reader::open(
        Surface::Pull,
        gateway.address(),
        Want::new("observations", &after),
    )
    .await?;
    let plan = plan::plan(&mut dice("rotation"), 1, 10);
    world.producer.send_all(&plan::records(&plan, &topic)).await?;
    crate::delivery::take_all(
        &mut open,
        &mut plan::owed(&plan, |planned| planned.tenant == "north"),
    )
    .await?;
    say(&format!(
        "tokens: 200 unknown keys cost {more} fetches of the issuer's keys"
    ));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_expires_in_mid_stream_ends_the_session_after_a_warning() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("expiry", 1).await?;
    let gateway = world
        .setup(&[&topic])
        .limit("auth_warning_ms", 2000)
        .start()
        .await?;
    let short = world
        .issuer
        .token("north")
        .scopes(contract::USER)
        .good_for(4)
        .sign();
    let mut ws = Reader::open(
        Surface::WebSocket,
        gateway.address(),
        Want::new("observations", &short),
    )
    .await?;
    let mut sse = Reader::open(Surface::Sse, gateway.address(), Want::new("observations", &short)).await?;
    let event = Record::json(&topic, &json!({"partition": 0, "n": 0}))
        .on(0)
        .header("tenant", "north");
    world.producer.send(&event).await?;
    ws.event().await?;
    sse.event().await?;
    for (surface, reader, code) in [
        (Surface::WebSocket, &mut ws, "4200 token_expired"),
        (Surface::Sse, &mut sse, "token_expired"),
    ] {
        let mut warned = false;
        loop {
            match reader.next().await? {
                Item::Other(kind, message) if kind == "auth_required" => {
                    ensure!(message["expires_at"].is_string(), "{message}");
                    warned = true;
                }
                Item::Ended(ended) => {
                    ensure!(
                        warned && ended == code,
                        "{surface:?} ended with {ended:?}, warned: {warned}"
                    );
                    break;
                }
                Item::Live | Item::Quiet | Item::Other(..) => {}
                other => anyhow::bail!("{surface:?}: {other:?}"),
            }
        }
    }
    // What was produced afterwards is there for the same cursor and a fresh token.
    let later = Record::json(&topic, &json!({"partition": 0, "n": 1}))
        .on(0)
        .header("tenant", "north");
    world.producer.send(&later).await?;
    let mut want = ws.want_more();
    want.token = world.user("north");
    let event = Reader::open(Surface::WebSocket, gateway.address(), want)
        .await?
        .event()
        .await?;
    ensure!(event["data"]["n"] == 1, "{event}");
    Ok(())
}

fn renewal(token: &str) -> Value {
    json!({"type": "auth", "token": token})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_renewed_in_band_keeps_the_session_and_its_place() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("renewal", 2).await?;
    let gateway = world
        .setup(&[&topic])
        .limit("auth_warning_ms", 2000)
        .start()
        .await?;
    let user = |seconds: i64| {
        world
            .issuer
            .token("north")
            .scopes(contract::USER)
            .good_for(seconds)
            .sign()
    };
    let mut ws = Ws::open(gateway.address(), &user(5)).await?;
    ws.subscribe(&json!({"id": "s", "stream": "observations"}))
        .await?;
    let plan = plan::plan(&mut dice("renewal"), 2, 300);
    let mut owed = plan::owed(&plan, |planned| planned.tenant == "north");
    let records = plan::records(&plan, &topic);
    world.producer.send_all(&records[..100]).await?;
    // Events before the warning are read over here; what is owed begins anew behind them.
    ws.until("auth_required").await?;
    ws.say(&renewal(&user(3600))).await?;
    let authorized = ws.until("authorized").await?;
    ensure!(authorized["expires_at"].is_string(), "{authorized}");
    world.producer.send_all(&records[100..]).await?;
    for planned in plan[..100].iter().filter(|planned| planned.tenant == "north") {
        owed.forgive(i64::from(planned.partition), planned.n + 1);
    }
    while !owed.is_done() {
        match ws.hear().await? {
            Said::Message(message) if message["type"] == "event" => owed.take(&message["event"])?,
            Said::Message(message) => ensure!(message["type"] != "error", "{message}"),
            other => anyhow::bail!("{other:?}"),
        }
    }
    // Another subject or tenant is another principal: that ends the session.
    for token in [
        world
            .issuer
            .token("north")
            .subject("somebody-else")
            .scopes(contract::USER)
            .sign(),
        world.issuer.token("south").scopes(contract::USER).sign(),
    ] {
        let mut ws = Ws::open(gateway.address(), &user(3600)).await?;
        ws.subscribe(&json!({"id": "s", "stream": "observations"}))
            .await?;
        ws.say(&renewal(&token)).await?;
        ensure!(
            ws.end().await? == Some((4203, "principal_changed".to_owned())),
            "principal_changed"
        );
    }
    let mut ws = Ws::open(gateway.address(), &user(3600)).await?;
    ws.say(&renewal("not.a.token")).await?;
    let error = ws.until("error").await?;
    ensure!(error["code"] == "token_invalid", "{error}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_queued_under_a_withdrawn_grant_are_never_sent() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("withdrawn", 1).await?;
    let setup = world
        .setup(&[&topic])
        .limit("session_lag_bytes_max", 64 << 20)
        .limit("group_log_bytes_max", 128 << 20)
        .limit("stall_max_ms", 60_000);
    let gateway = setup.start().await?;
    let wide = world.user("north");
    let narrow = world.patient("north", "1");
    let dial = Dial {
        token: Some(wide),
        receive_bytes: Some(4096),
        ..Dial::default()
    };
    let mut ws = Ws::dial(gateway.address(), &dial)
        .await?
        .map_err(|refused| anyhow::anyhow!("{refused:?}"))?;
    ws.subscribe(&json!({"id": "s", "stream": "observations"}))
        .await?;
    let mut plan = plan::plan(&mut dice("withdrawn"), 1, 3000);
    plan.iter_mut()
        .for_each(|planned| (planned.tenant, planned.padding) = ("north", 4000));
    world.producer.send_all(&plan::records(&plan, &topic)).await?;
    // The reader takes nothing, so most of 12 MB wait in the gateway. Then the grant is narrowed.
    wait::until("the reader to lag", || async {
        let sessions = gateway.sessions().await.ok()?;
        let lag = |session: &Value| session["subscriptions"][0]["lag_bytes"].as_u64().unwrap_or(0);
        sessions
            .iter()
            .any(|session| lag(session) > 1 << 20)
            .then_some(())
    })
    .await?;
    ws.say(&renewal(&narrow)).await?;
    let mut owed = plan::owed(&plan, |_| true);
    let mut narrowed = false;
    let mut under_the_old = 0;
    while !owed.is_done() {
        match ws.hear().await? {
            Said::Message(message) if message["type"] == "authorized" => {
                narrowed = true;
                // From here on only the patient's rows are owed, from where the reader stands.
                let stands = plan.len() - owed.left();
                let mut rest = plan::owed(&plan, |planned| planned.patient == 1);
                rest.forgive(0, i64::try_from(stands)?);
                owed = rest;
            }
            Said::Message(message) if message["type"] == "event" => {
                let event = &message["event"];
                owed.take(event)?;
                if narrowed {
                    ensure!(
                        event["patient"] == "Patient/1",
                        "another patient's row after the grant was narrowed"
                    );
                    ensure!(
                        event["data"].get("note").is_none(),
                        "a hidden field after the grant was narrowed"
                    );
                } else {
                    under_the_old += 1;
                }
            }
            Said::Message(_) => {}
            other => anyhow::bail!("{other:?}"),
        }
    }
    ensure!(narrowed, "the new grant was told");
    ensure!(
        under_the_old < plan.len() / 2,
        "{under_the_old} events were given before the new grant"
    );
    say(&format!(
        "tokens: {under_the_old} of {} events were on their way, none of the rest was sent",
        plan.len()
    ));

    // A grant that is gone altogether: the subscription is completed, the session stays.
    ws.say(&renewal(&world.issuer.token("north").scopes("openid").sign()))
        .await?;
    let completed = ws.until("completed").await?;
    ensure!(completed["id"] == "s", "{completed}");
    ws.say(&json!({"type": "ping"})).await?;
    ws.until("pong").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn tickets_are_good_once_and_for_what_they_name() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("tickets", 1).await?;
    let mut setup = world.setup(&[&topic]);
    setup.more = "[origins]\nallow = [\"https://app.example\"]\n".to_owned();
    let gateway = setup.start().await?;
    let authorization = bearer(&world.user("north"));
    let ticket = |body: Value, origin: Option<&'static str>| {
        let mut headers = vec![("authorization", authorization.as_str())];
        headers.extend(origin.map(|origin| ("origin", origin)));
        let address = gateway.address();
        async move {
            let answer = http::post(address, "/v1/tickets", &headers, &body).await?;
            ensure!(answer.status == 201, "{} {}", answer.status, answer.text());
            Ok(answer.json()?["ticket"].as_str().context("a ticket")?.to_owned())
        }
    };
    let ask =
        |text: &str, query: Vec<(&'static str, &'static str)>, headers: Vec<(&'static str, &'static str)>| {
            let (address, text) = (gateway.address(), text.to_owned());
            async move {
                let mut pairs = vec![("ticket", text.as_str())];
                pairs.extend(query);
                let ask = Ask {
                    query: pairs,
                    headers,
                    ..Ask::default()
                };
                anyhow::Ok(
                    Sse::ask(address, "observations", &ask)
                        .await?
                        .map_err(|answer| answer.code()),
                )
            }
        };
    // Once.
    let one = ticket(json!({}), None).await?;
    ensure!(
        ask(&one, vec![], vec![]).await?.is_ok(),
        "a ticket opens a stream"
    );
    ensure!(
        ask(&one, vec![], vec![]).await?.err().as_deref() == Some("ticket_invalid"),
        "a ticket opens one stream"
    );
    // On a page's WebSocket, once; who has no origin can send the header.
    let origin = "https://app.example";
    let one = ticket(json!({"stream": "observations"}), Some(origin)).await?;
    let mut dial = Dial {
        query: http::query(&[("ticket", &one)]),
        ..Dial::default()
    };
    let refused = Ws::dial(gateway.address(), &dial)
        .await?
        .err()
        .context("a WebSocket without an origin needs the header")?;
    ensure!(
        (refused.status, refused.code.as_str()) == (401, "unauthenticated"),
        "{refused:?}"
    );
    dial.headers = vec![("origin".to_owned(), origin.to_owned())];
    let opened = Ws::dial(gateway.address(), &dial).await?;
    let mut ws = opened.map_err(|refused| anyhow::anyhow!("a page's ticket: {refused:?}"))?;
    let answer = ws
        .subscribe(&json!({"id": "s", "stream": "observations"}))
        .await?;
    ensure!(answer["type"] == "subscribed", "{answer}");
    let refused = Ws::dial(gateway.address(), &dial)
        .await?
        .err()
        .context("a ticket is good once")?;
    ensure!(
        (refused.status, refused.code.as_str()) == (401, "ticket_invalid"),
        "{refused:?}"
    );
    // Bound to the origin that bought it.
    let page = ticket(json!({}), Some("https://app.example")).await?;
    ensure!(
        ask(&page, vec![], vec![]).await?.err().as_deref() == Some("ticket_invalid"),
        "without its origin"
    );
    let page = ticket(json!({}), Some("https://app.example")).await?;
    ensure!(
        ask(&page, vec![], vec![("origin", "https://app.example")])
            .await?
            .is_ok(),
        "with its origin"
    );
    // Narrowed by its filter, which cannot be widened.
    let narrow = ticket(
        json!({"stream": "observations", "where": {"patient": "Patient/1"}}),
        None,
    )
    .await?;
    let mut sse = ask(&narrow, vec![("after", "earliest"), ("status", "final")], vec![])
        .await?
        .map_err(anyhow::Error::msg)?;
    let mut plan = plan::plan(&mut dice("tickets"), 1, 60);
    plan.iter_mut().for_each(|planned| planned.tenant = "north");
    world.producer.send_all(&plan::records(&plan, &topic)).await?;
    let mut owed = plan::owed(&plan, |planned| planned.patient == 1 && planned.status == "final");
    while !owed.is_done() {
        owed.take(&sse.until("message").await?.json()?)?;
    }
    // Not by guessing, not by changing one.
    let spoilt = ticket(json!({}), None).await?;
    let spoilt: String = spoilt.chars().rev().collect();
    ensure!(
        ask(&spoilt, vec![], vec![]).await?.err().as_deref() == Some("ticket_invalid"),
        "a spoilt ticket"
    );
    // A ticket buys no ticket, and neither a stream nor a filter that is not granted can be bought.
    let again = http::post(gateway.address(), "/v1/tickets", &[], &json!({})).await?;
    ensure!(
        (again.status, again.code().as_str()) == (401, "unauthenticated"),
        "{}",
        again.text()
    );
    for (body, code) in [
        (json!({"stream": "nothing"}), "stream_forbidden"),
        (
            json!({"stream": "observations", "where": {"nothing": "1"}}),
            "unknown_parameter",
        ),
        (json!({"where": {"patient": "1"}}), "body_invalid"),
        (json!({"unknown": 1}), "unknown_parameter"),
    ] {
        let headers = [("authorization", authorization.as_str())];
        let answer = http::post(gateway.address(), "/v1/tickets", &headers, &body).await?;
        ensure!(answer.code() == code, "{body}: {}", answer.text());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cookie_serves_event_source_until_the_token_expires() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("cookie", 1).await?;
    let mut setup = world.setup(&[&topic]);
    setup.more = "[origins]\nallow = [\"https://app.example\"]\n".to_owned();
    let gateway = setup.start().await?;
    let token = world
        .issuer
        .token("north")
        .scopes(contract::USER)
        .good_for(6)
        .sign();
    let authorization = bearer(&token);
    let headers = [
        ("authorization", authorization.as_str()),
        ("origin", "https://app.example"),
    ];
    let answer = http::post(
        gateway.address(),
        "/v1/tickets",
        &headers,
        &json!({"as": "cookie"}),
    )
    .await?;
    ensure!(answer.status == 201, "{}", answer.text());
    let set = answer.header("set-cookie");
    for part in ["__Host-", "Secure", "HttpOnly", "SameSite=Strict", "Path=/"] {
        ensure!(set.contains(part), "{part} in {set}");
    }
    ensure!(!set.to_lowercase().contains("domain"), "{set}");
    let cookie = set.split(';').next().unwrap_or_default();
    let ask = |headers: Vec<(&'static str, String)>| {
        let address = gateway.address();
        async move {
            let headers = headers
                .iter()
                .map(|(name, value)| (*name, value.as_str()))
                .collect();
            let ask = Ask {
                headers,
                ..Ask::default()
            };
            anyhow::Ok(
                Sse::ask(address, "observations", &ask)
                    .await?
                    .map_err(|answer| answer.code()),
            )
        }
    };
    let page = |origin: &str| vec![("cookie", cookie.to_owned()), ("origin", origin.to_owned())];
    // Again and again, as EventSource reconnects; never from elsewhere.
    for _ in 0..3 {
        ensure!(
            ask(page("https://app.example")).await?.is_ok(),
            "the cookie serves again"
        );
    }
    ensure!(
        ask(page("https://evil.example")).await?.err().as_deref() == Some("origin_forbidden"),
        "from elsewhere"
    );
    ensure!(
        ask(page("null")).await?.err().as_deref() == Some("origin_forbidden"),
        "from nowhere"
    );
    wait::until("the cookie to expire with its token", || async {
        let refused = ask(page("https://app.example")).await.ok()?.err()?;
        (refused == "token_expired" || refused == "ticket_invalid").then_some(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_of_another_tenant_stream_or_key_is_refused() -> Result<()> {
    let world = World::new().await?;
    let (one, two) = (
        world.topic("sealed-one", 1).await?,
        world.topic("sealed-two", 1).await?,
    );
    let streams = format!(
        "{}{}",
        contract::observations(&[&one]),
        contract::stream("others", &[&two])
    );
    let mut setup = world.setup(&[&one]);
    setup.streams = streams;
    let gateway = setup.start().await?;
    let stranger = {
        let mut setup = setup.clone();
        setup.cursor_keys = vec!["another cursor key, which the first node does not have".to_owned()];
        setup.start().await?
    };
    let rotated = {
        let mut setup = setup.clone();
        setup.cursor_keys.insert(
            0,
            "a newer cursor key; the one before still opens cursors".to_owned(),
        );
        setup.start().await?
    };
    let plan = plan::plan(&mut dice("sealed"), 1, 20);
    world.producer.send_all(&plan::records(&plan, &one)).await?;
    let north = world.user("north");
    let mut reader = Reader::open(
        Surface::WebSocket,
        gateway.address(),
        Want::new("observations", &north).after("earliest"),
    )
    .await?;
    reader.event().await?;
    let cursor = reader.cursor().context("a cursor")?.to_owned();
    let truncated: String = cursor.chars().take(cursor.chars().count() - 2).collect();
    let last = cursor.chars().last().context("a cursor")?;
    let changed = format!("{}{}", &truncated, if last == 'A' { "BB" } else { "AA" });
    let cases = [
        (
            &gateway,
            "observations",
            world.user("south"),
            cursor.clone(),
            "cursor_foreign",
        ),
        (
            &gateway,
            "others",
            north.clone(),
            cursor.clone(),
            "cursor_foreign",
        ),
        (
            &stranger,
            "observations",
            north.clone(),
            cursor.clone(),
            "cursor_invalid",
        ),
        (
            &gateway,
            "observations",
            north.clone(),
            truncated,
            "cursor_invalid",
        ),
        (&gateway, "observations", north.clone(), changed, "cursor_invalid"),
        (
            &gateway,
            "observations",
            north.clone(),
            "0".to_owned(),
            "cursor_invalid",
        ),
        (
            &gateway,
            "observations",
            north.clone(),
            "not a cursor".to_owned(),
            "cursor_invalid",
        ),
        (
            &gateway,
            "observations",
            north.clone(),
            "A".repeat(5000),
            "cursor_invalid",
        ),
    ];
    for (node, stream, token, after, code) in cases {
        for surface in Surface::ALL {
            let want = Want::new(stream, &token).after(after.clone());
            let refused = Reader::try_open(surface, node.address(), want).await?.err();
            ensure!(
                refused.as_deref() == Some(code),
                "{surface:?} {stream}: {refused:?} instead of {code}"
            );
        }
    }
    // A node with a newer key and this one goes on from it, exactly.
    let mut rest = Reader::open(
        Surface::Sse,
        rotated.address(),
        Want::new("observations", &north).after(cursor),
    )
    .await?;
    let mut owed = plan::owed(&plan, |planned| planned.tenant == "north");
    let first = plan
        .iter()
        .find(|planned| planned.tenant == "north")
        .context("an event")?;
    owed.forgive(0, first.n + 1);
    crate::delivery::take_all(&mut rest, &mut owed).await
}

//! What somebody may write of an endpoint has bounds, and each way beyond them has its code; so have requests around it.

use anyhow::{Context, Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use tidewire_tests::contract;
use tidewire_tests::gateway::Gateway;
use tidewire_tests::http::Answer;
use tidewire_tests::partner::{ENDPOINTS, Partner};
use tidewire_tests::volume::say;

use crate::support::World;

/// A gateway with a stream that everybody may have and one that nobody of these may.
async fn gateway(world: &World, topic: &str) -> Result<Gateway> {
    let secret = contract::stream("secrets", &[topic]).replace("Observation.rs", "Secret.rs");
    let mut setup = world.setup(&[topic]);
    setup.streams.push_str(&secret);
    setup
        .webhooks(&world.webhooks().await?.with("endpoints_per_tenant_max", 8))
        .start()
        .await
}

fn problem(answer: &Answer, status: u16, code: &str) -> Result<Value> {
    ensure!(
        answer.status == status && answer.code() == code,
        "{} {}, not {status} {code}",
        answer.status,
        answer.text()
    );
    ensure!(
        answer
            .header("content-type")
            .starts_with("application/problem+json"),
        "{:?}",
        answer.headers
    );
    answer.json()
}

/// A member, a value that is not acceptable, and the code for it.
fn bad_members() -> Vec<(&'static str, Value, &'static str)> {
    let long = |bytes: usize| "x".repeat(bytes);
    let mut deep = json!({"exact": {"status": "final"}});
    for _ in 0..9 {
        deep = json!({ "not": deep });
    }
    let wide: Vec<Value> = (0..65).map(|_| json!({"exact": {"status": "final"}})).collect();
    let many_headers: Value = (0..17)
        .map(|n| (format!("x-{n}"), json!("1")))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let many_metadata: Value = (0..33)
        .map(|n| (format!("m{n}"), json!("1")))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let many_streams: Vec<String> = (0..65).map(|n| format!("stream{n}")).collect();
    let many_types: Vec<String> = (0..65).map(|n| format!("type{n}")).collect();
    let mut all = vec![
        ("url", json!(null), "field_invalid"),
        ("url", json!(7), "field_invalid"),
        ("url", json!(""), "url_invalid"),
        ("url", json!("partner.example"), "url_invalid"),
        ("url", json!("https://partner.example/ x"), "url_invalid"),
        (
            "url",
            json!(format!("https://partner.example/{}", long(2048))),
            "url_invalid",
        ),
        ("url", json!("https://10.0.0.1/"), "url_forbidden"),
        ("streams", json!(null), "field_invalid"),
        ("streams", json!([]), "field_invalid"),
        ("streams", json!("observations"), "field_invalid"),
        ("streams", json!([7]), "field_invalid"),
        ("streams", json!(["No Name"]), "field_invalid"),
        ("streams", json!(many_streams), "field_invalid"),
        ("streams", json!(["nowhere"]), "stream_forbidden"),
        ("streams", json!(["observations", "secrets"]), "stream_forbidden"),
        ("types", json!("tidewire.observations.changed"), "field_invalid"),
        ("types", json!([""]), "field_invalid"),
        ("types", json!([long(257)]), "field_invalid"),
        ("types", json!(many_types), "field_invalid"),
        ("types", json!(["tidewire.nowhere.changed"]), "event_type_unknown"),
        ("filter", json!("status=final"), "filter_invalid"),
        ("filter", json!({}), "filter_invalid"),
        ("filter", json!({"sql": "status = 'final'"}), "filter_invalid"),
        ("filter", json!({"exact": {}}), "filter_invalid"),
        ("filter", json!({"exact": {"status": ""}}), "filter_invalid"),
        ("filter", json!({"exact": {"status": [1]}}), "filter_invalid"),
        (
            "filter",
            json!({"exact": {"status": "a"}, "prefix": {"status": "a"}}),
            "filter_invalid",
        ),
        ("filter", json!({"all": []}), "filter_invalid"),
        ("filter", json!({ "any": wide }), "filter_invalid"),
        ("filter", deep, "filter_invalid"),
        (
            "filter",
            json!({"exact": {"undeclared": "x"}}),
            "unknown_parameter",
        ),
        (
            "filter",
            json!({"not": {"suffix": {"performer": "x"}}}),
            "unknown_parameter",
        ),
        ("content", json!("everything"), "field_invalid"),
        ("content", json!(1), "field_invalid"),
        ("headers", json!([]), "field_invalid"),
        ("headers", many_headers, "field_invalid"),
        ("headers", json!({"x y": "1"}), "field_invalid"),
        ("headers", json!({"": "1"}), "field_invalid"),
        ("headers", json!({"x": "1\r\nhost: there"}), "field_invalid"),
        ("headers", json!({"x": ""}), "field_invalid"),
        ("headers", json!({"x": "\u{e9}"}), "field_invalid"),
        ("headers", json!({"x": long(1025)}), "field_invalid"),
        ("headers", json!({long(65): "1"}), "field_invalid"),
        ("signing", json!([]), "field_invalid"),
        ("signing", json!("v1"), "field_invalid"),
        ("signing", json!(["v2"]), "field_invalid"),
        ("credentials", json!("secret"), "credentials_invalid"),
        ("credentials", json!({"type": "digest"}), "credentials_invalid"),
        ("credentials", json!({"type": "bearer"}), "credentials_invalid"),
        (
            "credentials",
            json!({"type": "bearer", "token": "a b"}),
            "credentials_invalid",
        ),
        (
            "credentials",
            json!({"type": "bearer", "token": long(4097)}),
            "credentials_invalid",
        ),
        (
            "credentials",
            json!({"type": "bearer", "token": "a", "more": 1}),
            "credentials_invalid",
        ),
        (
            "credentials",
            json!({"type": "basic", "username": "a:b", "password": "c"}),
            "credentials_invalid",
        ),
        (
            "credentials",
            json!({"type": "basic", "username": "a", "password": "c\n"}),
            "credentials_invalid",
        ),
        (
            "credentials",
            json!({"type": "oauth2", "token_url": "https://10.0.0.1/", "client_id": "a", "client_secret": "b"}),
            "url_forbidden",
        ),
        (
            "credentials",
            json!({"type": "oauth2", "token_url": "https://a.example/", "client_id": "a", "client_secret": "b", "scopes": ["a b"]}),
            "credentials_invalid",
        ),
        (
            "credentials",
            json!({"type": "mtls", "certificate": "x", "key": "y"}),
            "credentials_invalid",
        ),
        ("ordering", json!("strict"), "field_invalid"),
        ("ordering", json!(true), "field_invalid"),
        ("description", json!(long(1025)), "field_invalid"),
        ("description", json!("a\0b"), "field_invalid"),
        ("description", json!(1), "field_invalid"),
        ("metadata", json!([]), "field_invalid"),
        ("metadata", many_metadata, "field_invalid"),
        ("metadata", json!({"": "1"}), "field_invalid"),
        ("metadata", json!({long(65): "1"}), "field_invalid"),
        ("metadata", json!({"a": long(513)}), "field_invalid"),
        ("metadata", json!({"a": 1}), "field_invalid"),
        ("enabled", json!("yes"), "field_invalid"),
        ("handshake", json!(1), "field_invalid"),
        ("surprise", json!(1), "field_unknown"),
        ("tenant", json!("south"), "field_unknown"),
        (
            "secret",
            json!("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
            "field_unknown",
        ),
    ];
    for name in [
        "host",
        "content-type",
        "Content-Length",
        "transfer-encoding",
        "connection",
        "authorization",
        "cookie",
        "webhook-id",
        "webhook-signature",
        "signature",
        "signature-input",
        "ce-id",
        "tidewire-position",
        "proxy-authorization",
    ] {
        all.push(("headers", json!({ name: "1" }), "header_forbidden"));
    }
    for (name, min, max) in [
        ("rate_per_second", 1, 10_000),
        ("concurrency", 1, 64),
        ("timeout_ms", 100, 30_000),
    ] {
        for value in [
            json!(min - 1),
            json!(max + 1),
            json!(-1),
            json!(1.5),
            json!("1"),
            json!(u64::MAX),
        ] {
            all.push((name, value, "field_invalid"));
        }
    }
    for value in [
        json!(5),
        json!([0]),
        json!([-1]),
        json!([0.5]),
        json!(["1"]),
        json!([604_801]),
        json!([u64::MAX]),
        json!(vec![1; 21]),
    ] {
        all.push(("retry_seconds", value, "field_invalid"));
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn every_field_out_of_range_is_refused_by_its_code_and_changes_nothing() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("fields", 1).await?;
    let gateway = gateway(&world, &topic).await?;
    let good = json!({"url": "https://partner.example/", "streams": ["observations"], "enabled": false});
    // Several tenants: of each only so many changes a second are taken.
    let mut partners = Vec::new();
    for place in 0..12 {
        let partner = world.partner(&gateway, &format!("tenant{place}"));
        let made = partner.make(&good).await?;
        let shown = partner.read(&made.id, "").await?;
        partners.push((partner, made, shown));
    }
    let cases = bad_members();
    for ((name, value, code), (partner, made, _)) in cases.iter().zip(partners.iter().cycle()) {
        let path = format!("{ENDPOINTS}/{}", made.id);
        let case = || format!("{name}: {value}").chars().take(200).collect::<String>();
        let mut body = good.clone();
        body[*name] = value.clone();
        let answer = partner.post(&body).await?;
        let said = problem(&answer, status_of(code), code).with_context(case)?;
        ensure!(
            said["pointer"]
                .as_str()
                .is_some_and(|pointer| pointer.starts_with('/')),
            "{}: no pointer in {said}",
            case()
        );
        // Null in a patch is the default again, and url and streams have none.
        let patch = json!({ *name: value });
        let tag = [("if-match", made.etag.as_str())];
        let answer = partner.ask(Method::PATCH, &path, &tag, Some(&patch)).await?;
        problem(&answer, status_of(code), code).with_context(|| format!("as a change, {}", case()))?;
    }
    for (partner, made, before) in &partners {
        ensure!(
            partner.read(&made.id, "").await? == *before,
            "something was changed"
        );
        let listed = partner.get(ENDPOINTS).await?;
        ensure!(
            listed["endpoints"].as_array().map(Vec::len) == Some(1),
            "{listed}"
        );
    }
    say(&format!(
        "webhooks refuse: {} bad members, when made and when changed, each by its code",
        cases.len()
    ));
    Ok(())
}

fn status_of(code: &str) -> u16 {
    if code == "stream_forbidden" { 403 } else { 400 }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_around_an_endpoint_have_their_codes_too() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("requests", 1).await?;
    let gateway = gateway(&world, &topic).await?;
    let partner = world.partner(&gateway, "north");
    let good = json!({"url": "https://partner.example/", "streams": ["observations"], "enabled": false});
    let made = partner.make(&good).await?;
    let path = format!("{ENDPOINTS}/{}", made.id);
    let tag = made.etag.as_str();

    // Who asks, and for what.
    let scoped = |scopes: &str| {
        let token = world.issuer.token("north").scopes(scopes).sign();
        Partner::new(gateway.address(), &token)
    };
    let reading = scoped("system/Observation.rs webhooks:read");
    let without = scoped("system/Observation.rs");
    let answer = reading.post(&good).await?;
    ensure!(answer.status == 403, "{} {}", answer.status, answer.text());
    let answer = without.ask(Method::GET, ENDPOINTS, &[], None).await?;
    ensure!(answer.status == 403, "{} {}", answer.status, answer.text());
    let nobody = Partner::new(gateway.address(), "no token at all");
    problem(
        &nobody.ask(Method::GET, ENDPOINTS, &[], None).await?,
        401,
        "token_invalid",
    )?;

    // What is another tenant's looks as if it were not there.
    let stranger = world.partner(&gateway, "south");
    let tagged = [("if-match", tag)];
    for (method, below, headers, body) in [
        (Method::GET, "", &[][..], None),
        (Method::GET, "/health", &[], None),
        (Method::GET, "/replays", &[], None),
        (Method::GET, "/cursor?stream=observations", &[], None),
        (Method::PATCH, "", &tagged, Some(json!({"description": "mine"}))),
        (Method::DELETE, "", &tagged, None),
        (Method::POST, "/rotate", &[], Some(json!({}))),
        (Method::POST, "/pause", &[], None),
        (Method::POST, "/resume", &[], None),
        (Method::POST, "/test", &[], None),
        (Method::POST, "/replay", &[], Some(json!({"from": "failed"}))),
        (Method::POST, "/dry-run", &[], Some(json!({}))),
    ] {
        let answer = stranger
            .ask(method.clone(), &format!("{path}{below}"), headers, body.as_ref())
            .await?;
        problem(&answer, 404, "not_found").with_context(|| format!("{method} {below}"))?;
    }

    // Versions.
    let change = json!({"description": "new"});
    let answer = partner.ask(Method::PATCH, &path, &[], Some(&change)).await?;
    problem(&answer, 428, "precondition_required")?;
    let answer = partner
        .ask(
            Method::PATCH,
            &path,
            &[("if-match", "\"another\"")],
            Some(&change),
        )
        .await?;
    problem(&answer, 412, "precondition_failed")?;
    let answer = partner.ask(Method::PATCH, &path, &tagged, Some(&change)).await?;
    ensure!(
        answer.status == 200 && answer.header("etag") != tag,
        "{} {}",
        answer.status,
        answer.text()
    );
    let answer = partner.ask(Method::PATCH, &path, &tagged, Some(&change)).await?;
    problem(&answer, 412, "precondition_failed")?;

    // The same request twice under one key is one endpoint, and its secret is shown once.
    let key = [("idempotency-key", "one-and-the-same")];
    let first = partner.ask(Method::POST, ENDPOINTS, &key, Some(&good)).await?;
    ensure!(first.status == 201, "{} {}", first.status, first.text());
    let second = partner.ask(Method::POST, ENDPOINTS, &key, Some(&good)).await?;
    let (first, again) = (first.json()?, second.json()?);
    ensure!(
        (200..300).contains(&second.status) && again["id"] == first["id"],
        "{} {again}",
        second.status
    );
    ensure!(
        first["secret"].is_string() && again.get("secret").is_none_or(Value::is_null),
        "{again}"
    );
    let other = json!({"url": "https://other.example/", "streams": ["observations"]});
    let answer = partner.ask(Method::POST, ENDPOINTS, &key, Some(&other)).await?;
    problem(&answer, 422, "idempotency_key_reused")?;

    // Bodies, and what is asked below an endpoint.
    let answer = partner
        .ask(
            Method::POST,
            ENDPOINTS,
            &[("content-type", "text/plain")],
            Some(&good),
        )
        .await?;
    problem(&answer, 415, "unsupported_media_type")?;
    problem(&partner.post(&json!([])).await?, 400, "body_invalid")?;
    let huge = json!({"url": "https://partner.example/", "streams": ["observations"], "description": "x".repeat(100 << 10)});
    problem(&partner.post(&huge).await?, 413, "body_too_large")?;
    for (below, body) in [
        ("rotate", json!({"overlap_seconds": -1})),
        ("rotate", json!({"overlap_seconds": 604_801})),
        ("replay", json!({"from": 7})),
        ("replay", json!({"from": "yesterday"})),
        ("replay", json!({"from": "failed", "until": "tomorrow"})),
        ("dry-run", json!({"events": 0})),
        ("dry-run", json!({"events": 1_000_000})),
        ("replay", json!({"from": "failed", "surprise": 1})),
    ] {
        let answer = partner
            .ask(Method::POST, &format!("{path}/{below}"), &[], Some(&body))
            .await?;
        ensure!(
            answer.status == 400 && !answer.code().is_empty(),
            "{below} {body}: {} {}",
            answer.status,
            answer.text()
        );
    }
    for query in ["?limit=0", "?limit=x", "?after=x", "?surprise=1"] {
        let answer = partner
            .ask(Method::GET, &format!("{ENDPOINTS}{query}"), &[], None)
            .await?;
        ensure!(
            answer.status == 400 && !answer.code().is_empty(),
            "{query}: {} {}",
            answer.status,
            answer.text()
        );
    }

    // Who asks too often is told so.
    let hurried = world.partner(&gateway, "hurried");
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..150 {
        let hurried = hurried.clone();
        asking.spawn(async move {
            hurried
                .ask_once(Method::POST, ENDPOINTS, &[], Some(&json!({})))
                .await
        });
    }
    let mut refused = 0;
    while let Some(answer) = asking.join_next().await {
        let answer = answer??;
        if answer.status == 429 {
            problem(&answer, 429, "rate_limited")?;
            ensure!(!answer.header("retry-after").is_empty(), "{:?}", answer.headers);
            refused += 1;
        }
    }
    ensure!(refused > 0, "150 changes at once were taken");

    // As many as a tenant may have, page by page.
    for _ in 2..8 {
        partner.make(&good).await?;
    }
    problem(&partner.post(&good).await?, 429, "endpoints_exceeded")?;
    let mut ids = std::collections::BTreeSet::new();
    let mut after = String::new();
    loop {
        let page = partner.get(&format!("{ENDPOINTS}?limit=3{after}")).await?;
        let endpoints = page["endpoints"].as_array().context("endpoints")?;
        ensure!(endpoints.len() <= 3, "{page}");
        for endpoint in endpoints {
            ensure!(ids.insert(endpoint["id"].to_string()), "{endpoint} twice");
        }
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    ensure!(ids.len() == 8, "{ids:?}");

    let answer = partner
        .ask(Method::DELETE, &path, &[("if-match", "*")], None)
        .await?;
    ensure!(answer.status == 204, "{} {}", answer.status, answer.text());
    let answer = partner.ask(Method::GET, &path, &[], None).await?;
    problem(&answer, 404, "not_found")?;
    Ok(())
}

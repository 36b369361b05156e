//! What receivers verify: signatures, by libraries of others, and the exact headers on the wire.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tidewire_tests::gateway::Gateway;
use tidewire_tests::http;
use tidewire_tests::partner::{Made, Partner};
use tidewire_tests::plan::Planned;
use tidewire_tests::receiver::{Behaviour, Hook, Receiver, Request};
use tidewire_tests::verifiers::{Evidence, Verifiers};
use tidewire_tests::volume::say;
use tidewire_tests::wait;

use crate::support::World;

const SCHEMES: [&str; 3] = ["v1", "v1a", "rfc9421"];
const MODES: [&str; 4] = ["thin", "structured", "binary", "raw"];

fn event(n: i64) -> Planned {
    Planned {
        tenant: "north",
        patient: 1,
        status: "final",
        partition: 0,
        n,
        padding: 0,
    }
}

/// A gateway, a partner and an endpoint for each way to write an event.
struct Signed {
    world: World,
    topic: String,
    gateway: Gateway,
    partner: Partner,
    endpoints: Vec<(&'static str, Arc<Hook>, Made)>,
    _receiver: Receiver,
}

impl Signed {
    async fn new(name: &str, schemes: &[&str]) -> Result<Self> {
        let world = World::new().await?;
        let topic = world.topic(name, 1).await?;
        let gateway = world
            .setup(&[&topic])
            .webhooks(&world.webhooks().await?)
            .start()
            .await?;
        let partner = world.partner(&gateway, "north");
        let receiver = Receiver::start().await?;
        let mut endpoints = Vec::new();
        for mode in MODES {
            let hook = receiver.hook(mode, Behaviour::good());
            // Query and port are part of the target that is signed.
            let body = json!({
                "url": format!("{}?for=partner%201", hook.url), "streams": ["observations"], "content": mode,
                "signing": schemes, "headers": {"X-Team": "cardiology"},
            });
            let made = partner.make(&body).await?;
            if !made.secret.is_empty() {
                hook.know(&made.secret);
            }
            endpoints.push((mode, hook, made));
        }
        Ok(Self {
            world,
            topic,
            gateway,
            partner,
            endpoints,
            _receiver: receiver,
        })
    }

    /// Produces an event: what each endpoint got of it, whole.
    async fn requests(&self, n: i64) -> Result<Vec<Request>> {
        for (_, hook, _) in &self.endpoints {
            hook.keep(1);
        }
        self.world.producer.send(&event(n).record(&self.topic)).await?;
        let mut requests = Vec::new();
        for (mode, hook, _) in &self.endpoints {
            let kept = wait::until(format!("the {mode} delivery"), || async {
                hook.kept().into_iter().next()
            })
            .await;
            requests.push(kept.with_context(|| self.gateway.log_tail())?);
            ensure!(hook.faults().is_empty(), "{mode}: {:?}", hook.faults());
        }
        Ok(requests)
    }

    async fn jwks(&self) -> Result<Value> {
        let answer = http::get(self.gateway.address(), "/.well-known/webhook-keys.json", &[]).await?;
        ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
        answer.json()
    }
}

fn evidence(made: &Made, request: &Request, jwks: &Value) -> Evidence {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Evidence {
        url: made.body["url"].as_str().unwrap_or_default().to_owned(),
        headers: request.headers.clone(),
        body: request.body.clone(),
        secret: some(&made.secret),
        public_key: some(&made.public_key),
        jwks: Some(jwks.clone()),
        at_s: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_delivery_verifies_by_libraries_that_know_nothing_of_us() -> Result<()> {
    let signed = Signed::new("signed", &SCHEMES).await?;
    let mut verifiers = Verifiers::start().await?;
    let jwks = signed.jwks().await?;
    let mut verdicts = 0;
    for (request, (mode, hook, made)) in signed.requests(0).await?.iter().zip(&signed.endpoints) {
        ensure!(
            !made.secret.is_empty() && !made.public_key.is_empty(),
            "{}",
            made.body
        );
        let good = evidence(made, request, &jwks);
        ensure!(good.url.starts_with(&hook.url), "{}", good.url);
        verdicts += verifiers.accept(&good).await.context(*mode)?;

        // A byte more, another endpoint's keys, another target, another id, another time: none of them passes.
        let mut longer = good.clone();
        longer.body.push(b' ');
        verifiers.refuse(&longer).await?;
        let (_, _, stranger) = signed
            .endpoints
            .iter()
            .find(|(other, ..)| other != mode)
            .context("another endpoint")?;
        let mut foreign = good.clone();
        foreign.secret = Some(stranger.secret.clone());
        foreign.public_key = Some(stranger.public_key.clone());
        foreign.jwks = None;
        verifiers.refuse(&foreign).await?;
        let mut elsewhere = good.clone();
        elsewhere.url.push_str("&and=more");
        (elsewhere.secret, elsewhere.public_key) = (None, None);
        verifiers.refuse(&elsewhere).await?;
        for name in ["webhook-id", "webhook-timestamp"] {
            let mut changed = good.clone();
            for (_, value) in changed.headers.iter_mut().filter(|(have, _)| have == name) {
                *value = if name == "webhook-id" {
                    "msg_x".to_owned()
                } else {
                    (value.parse::<u64>()? - 1).to_string()
                };
            }
            verifiers.refuse(&changed).await.context(name)?;
        }
    }
    say(&format!(
        "webhooks signed: {verdicts} verdicts of 5 libraries on {} forms of one event, all good; 20 forgeries, all refused",
        MODES.len()
    ));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_secret_is_rotated_the_old_and_the_new_one_verify_and_then_the_new_one_only() -> Result<()> {
    let signed = Signed::new("rotated", &["v1", "v1a"]).await?;
    let mut verifiers = Verifiers::start().await?;
    let jwks = json!({"keys": []});
    let mut rotated = Vec::new();
    for (_, hook, made) in &signed.endpoints {
        let overlap = json!({"overlap_seconds": 4});
        let answer = signed.partner.tell(&made.id, "rotate", Some(&overlap)).await?;
        let mut new = made.clone();
        new.secret = answer["secret"].as_str().context("the new secret")?.to_owned();
        new.public_key = answer["public_key"].as_str().context("the new key")?.to_owned();
        ensure!(new.secret != made.secret && new.public_key != made.public_key);
        hook.know(&new.secret);
        rotated.push(new);
    }
    let without_jwks = |made: &Made, request: &Request| Evidence {
        jwks: None,
        ..evidence(made, request, &jwks)
    };
    for (request, (new, (mode, _, old))) in signed
        .requests(0)
        .await?
        .iter()
        .zip(rotated.iter().zip(&signed.endpoints))
    {
        verifiers
            .accept(&without_jwks(new, request))
            .await
            .with_context(|| format!("{mode}, new"))?;
        verifiers
            .accept(&without_jwks(old, request))
            .await
            .with_context(|| format!("{mode}, old"))?;
    }
    // The overlap is over when the signatures say so; what an endpoint shows says when.
    let mut n = 0;
    let last = wait::until("the overlap to end", || {
        n += 1;
        let (signed, n) = (&signed, n);
        async move {
            let requests = signed.requests(n).await.ok()?;
            let single = requests.iter().all(|request| {
                let list = request.header("webhook-signature");
                list.split(' ').filter(|one| one.starts_with("v1,")).count() == 1
            });
            single.then_some(requests)
        }
    })
    .await?;
    for (request, (new, (_, _, old))) in last.iter().zip(rotated.iter().zip(&signed.endpoints)) {
        verifiers.accept(&without_jwks(new, request)).await?;
        verifiers.refuse(&without_jwks(old, request)).await?;
        let shown = signed.partner.read(&new.id, "").await?;
        ensure!(!shown.to_string().contains(&new.secret), "a secret is shown once");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn on_the_wire_there_are_exactly_these_headers() -> Result<()> {
    let signed = Signed::new("headers", &SCHEMES).await?;
    let ours = [
        "content-digest",
        "content-length",
        "content-type",
        "host",
        "signature",
        "signature-input",
        "tidewire-attempt",
        "tidewire-position",
        "user-agent",
        "webhook-id",
        "webhook-signature",
        "webhook-timestamp",
        "x-team",
    ];
    let binary = [
        "ce-id",
        "ce-source",
        "ce-specversion",
        "ce-subject",
        "ce-time",
        "ce-type",
        "ce-tenant",
        "ce-patient",
        "ce-status",
    ];
    for (request, (mode, ..)) in signed.requests(0).await?.iter().zip(&signed.endpoints) {
        let mut names: Vec<&str> = request.headers.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        let mut expected = ours.to_vec();
        match *mode {
            "binary" => expected.extend(binary),
            "raw" => expected.push("tidewire-type"),
            _ => {}
        }
        expected.sort_unstable();
        // What the client adds of its own is one header more.
        names.retain(|name| *name != "accept");
        ensure!(names == expected, "{mode}: {names:?}, not {expected:?}");
        ensure!(
            request.header("user-agent").starts_with("tidewire/") && request.header("x-team") == "cardiology",
            "{:?}",
            request.headers
        );
        ensure!(
            request.target == format!("/{mode}?for=partner%201"),
            "{}",
            request.target
        );
        ensure!(
            request.header("tidewire-attempt") == "1" && request.method == "POST",
            "{:?}",
            request.headers
        );
        let body = request.json();
        match *mode {
            // That something happened, and nothing of what.
            "thin" => ensure!(
                body.get("data").is_none() && !body.to_string().contains("Patient"),
                "{body}"
            ),
            "structured" => ensure!(body["data"]["n"] == 0 && body["patient"] == "Patient/1", "{body}"),
            _ => ensure!(
                body["n"] == 0 && body["subject"]["reference"] == "Patient/1",
                "{body}"
            ),
        }
    }
    Ok(())
}

//! What operators say of readers: revocations that end sessions on every node, and consent that is withdrawn.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use hdrhistogram::Histogram;
use reqwest::Method;
use serde_json::{Value, json};
use tidewire_tests::contract;
use tidewire_tests::gateway::{Gateway, Setup};
use tidewire_tests::http::{self, Answer};
use tidewire_tests::producer::Record;
use tidewire_tests::reader::{Item, Reader, Surface, Want};
use tidewire_tests::volume::{say, volume};
use tidewire_tests::wait;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::support::{World, alone, unique};

const JSON: (&str, &str) = ("content-type", "application/json");

/// A gateway with a control topic that no other promise writes to.
fn controlled(world: &World, topic: &str) -> Setup {
    let mut setup = world.setup(&[topic]);
    setup.kafka = format!("control_topic = {:?}", unique("tidewire.control"));
    setup
}

async fn admin(method: Method, gateway: &Gateway, path: &str, body: &Value) -> Result<Answer> {
    let body = (!body.is_null()).then(|| body.to_string().into_bytes());
    http::request(method, gateway.admin(), path, &[JSON], body).await
}

async fn say_so(gateway: &Gateway, path: &str, body: &Value) -> Result<String> {
    let answer = admin(Method::POST, gateway, path, body).await?;
    ensure!(answer.status == 201, "{}: {}", answer.status, answer.text());
    let id = answer.json()?["id"].as_str().context("an id")?.to_owned();
    Ok(id)
}

async fn take_back(gateway: &Gateway, path: &str, id: &str) -> Result<()> {
    let answer = admin(Method::DELETE, gateway, &format!("{path}/{id}"), &Value::Null).await?;
    ensure!(answer.status == 204, "{}: {}", answer.status, answer.text());
    Ok(())
}

fn token(world: &World, subject: &str) -> String {
    world
        .issuer
        .token("north")
        .subject(subject)
        .scopes(contract::USER)
        .sign()
}

fn numbered(topic: &str, n: u64, patient: u64) -> Record {
    let value = json!({"n": n, "subject": {"reference": format!("Patient/{patient}")}, "status": "final"});
    Record::json(topic, &value).on(0).header("tenant", "north")
}

/// How a revoked reader ended: when its last byte came, and by which code.
struct Last {
    at: Instant,
    code: String,
}

/// Reads until the end; tells when the first event came.
async fn read_to_the_end(mut reader: Reader, begun: oneshot::Sender<()>) -> Result<Last> {
    let mut begun = Some(begun);
    loop {
        match reader.next().await? {
            Item::Ended(code) => {
                let at = Instant::now();
                return Ok(Last { at, code });
            }
            Item::Event(_) => {
                if let Some(begun) = begun.take() {
                    // Whoever waits for it may have failed.
                    let _gone = begun.send(());
                }
            }
            Item::Live | Item::Quiet | Item::Other(..) => {}
            gap @ Item::Gap(_) => bail!("{gap:?}"),
        }
    }
}

/// Reads until it has the event of this number, and finds each in its place.
async fn read_all(mut reader: Reader, until: oneshot::Receiver<u64>) -> Result<u64> {
    tokio::pin!(until);
    let mut last = None;
    let mut next = None;
    while last.is_none() || next <= last {
        tokio::select! {
            number = &mut until, if last.is_none() => last = Some(number?),
            event = reader.event() => {
                let n = event?["data"]["n"].as_u64().context("numbered")?;
                ensure!(next.is_none_or(|next| next == n), "{n} came in the place of {next:?}");
                next = Some(n + 1);
            }
        }
    }
    Ok(next.unwrap_or(0))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_ends_sessions_on_every_node_within_a_second_and_the_others_lose_nothing() -> Result<()>
{
    let _alone = alone().await;
    let world = World::alone().await?;
    let topic = world.topic("revoked", 1).await?;
    let setup = controlled(&world, &topic);
    let (first, second) = tokio::try_join!(setup.start(), setup.start())?;
    let nodes = [first.address(), second.address()];

    let goes_on = Arc::new(AtomicBool::new(true));
    let mut tasks = JoinSet::new();
    let (producer, flag, stream) = (world.producer.clone(), Arc::clone(&goes_on), topic.clone());
    tasks.spawn(async move {
        let mut n = 0;
        while flag.load(Ordering::Relaxed) {
            producer.send(&numbered(&stream, n, n % 7)).await?;
            n += 1;
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        anyhow::Ok(n - 1)
    });
    let mut others = JoinSet::new();
    let mut ends = Vec::new();
    for address in nodes {
        for surface in [Surface::WebSocket, Surface::Sse] {
            let want = Want::new("observations", &token(&world, "bystander"));
            let reader = Reader::open(surface, address, want).await?;
            let (end, ended) = oneshot::channel();
            ends.push(end);
            others.spawn(read_all(reader, ended));
        }
    }

    let mut latencies = Histogram::<u64>::new(3)?;
    let rounds = volume(20, 250);
    let mut tokens = Vec::new();
    for round in 0..rounds {
        let subject = format!("leaver-{round}");
        let token = token(&world, &subject);
        let mut readers = JoinSet::new();
        for address in nodes {
            for surface in [Surface::WebSocket, Surface::Sse] {
                let reader = Reader::open(surface, address, Want::new("observations", &token)).await?;
                let (begun, has_begun) = oneshot::channel();
                readers.spawn(read_to_the_end(reader, begun));
                wait::within("the reader's first event", has_begun).await??;
            }
        }
        let through = if round % 2 == 0 { &first } else { &second };
        let sent = Instant::now();
        let body = json!({"subject": subject, "tenant": "north"});
        let said = tokio::join!(say_so(through, "/admin/revocations", &body), async {
            let mut ended = Vec::new();
            while let Some(last) = readers.join_next().await {
                ended.push(last);
            }
            ended
        });
        said.0?;
        for last in said.1 {
            let last = last??;
            ensure!(
                last.code == "4202 token_revoked" || last.code == "token_revoked",
                "ended by {:?}",
                last.code
            );
            latencies.record(u64::try_from(last.at.duration_since(sent).as_micros())?)?;
        }
        for address in nodes {
            let refused = Reader::try_open(Surface::Pull, address, Want::new("observations", &token)).await?;
            ensure!(refused.err().as_deref() == Some("token_revoked"), "{address}");
        }
        tokens.push(token);
    }
    let p99_us = latencies.value_at_quantile(0.99);
    say(&format!(
        "control: {} readers on 2 nodes ended by {rounds} revocations, from the call to the last byte: p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms",
        latencies.len(),
        latencies.value_at_quantile(0.5) as f64 / 1000.0,
        p99_us as f64 / 1000.0,
        latencies.max() as f64 / 1000.0,
    ));
    ensure!(p99_us < 1_000_000, "p99: {p99_us} us");

    goes_on.store(false, Ordering::Relaxed);
    let last = tasks.join_next().await.context("the producer")???;
    for end in ends {
        ensure!(end.send(last).is_ok(), "a bystander has ended");
    }
    while let Some(read) = others.join_next().await {
        let read = read??;
        ensure!(read == last + 1, "{read} of {last}");
    }

    // A node that was not there then has read of it before it lets anybody in.
    let third = setup.start().await?;
    for token in &tokens {
        for surface in Surface::ALL {
            let want = Want::new("observations", token);
            let refused = Reader::try_open(surface, third.address(), want).await?;
            ensure!(refused.err().as_deref() == Some("token_revoked"), "{surface:?}");
        }
    }
    let known = third
        .metric("tidewire_control_entries", &["kind=\"revocation\""])
        .await?;
    ensure!((known - f64::from(rounds)).abs() < 0.5, "{known} of {rounds}");
    Ok(())
}

async fn numbers(address: SocketAddr, surface: Surface, want: Want, count: usize) -> Result<Vec<u64>> {
    let mut reader = Reader::open(surface, address, want).await?;
    let mut numbers = Vec::new();
    while numbers.len() < count {
        numbers.push(reader.event().await?["data"]["n"].as_u64().context("numbered")?);
    }
    Ok(numbers)
}

#[tokio::test(flavor = "multi_thread")]
async fn withdrawn_consent_takes_exactly_its_rows_away_and_gives_them_back() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("consent", 1).await?;
    let setup = controlled(&world, &topic);
    let (first, second) = tokio::try_join!(setup.start(), setup.start())?;
    let reader = token(&world, "reader");
    let mut live = Vec::new();
    for surface in [Surface::WebSocket, Surface::Sse] {
        live.push(Reader::open(surface, second.address(), Want::new("observations", &reader)).await?);
    }
    let send = async |range: std::ops::Range<u64>| {
        let records: Vec<Record> = range.map(|n| numbered(&topic, n, n % 3)).collect();
        world.producer.send_all(&records).await
    };
    send(0..30).await?;
    for reader in &mut live {
        for n in 0..30 {
            ensure!(reader.event().await?["data"]["n"] == n);
        }
    }
    let body = json!({"tenant": "north", "attribute": "patient", "value": "https://fhir.example/Patient/1"});
    let id = say_so(&first, "/admin/denials", &body).await?;
    // In force on the node that was asked; the other one follows within a moment.
    wait::until("the other node knows", || async {
        let known = second
            .metric("tidewire_control_entries", &["kind=\"denial\""])
            .await;
        known.is_ok_and(|known| known > 0.5).then_some(())
    })
    .await?;
    send(30..60).await?;
    let left: Vec<u64> = (0..60).filter(|n| n % 3 != 1).collect();
    for reader in &mut live {
        for n in left.iter().filter(|n| **n >= 30) {
            let event = reader.event().await?;
            ensure!(event["data"]["n"] == *n, "{event} in the place of {n}");
        }
    }
    for gateway in [&first, &second] {
        for surface in Surface::ALL {
            let want = Want::new("observations", &reader).after("earliest");
            let got = numbers(gateway.address(), surface, want, left.len()).await?;
            ensure!(got == left, "{surface:?}: {got:?}");
        }
    }
    take_back(&first, "/admin/denials", &id).await?;
    let whole: Vec<u64> = (0..60).collect();
    for surface in Surface::ALL {
        let want = Want::new("observations", &reader).after("earliest");
        let got = numbers(first.address(), surface, want, whole.len()).await?;
        ensure!(got == whole, "{surface:?}: {got:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_revoked_by_its_id_and_a_person_is_let_in_again_when_it_is_taken_back() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("by-id", 1).await?;
    let gateway = controlled(&world, &topic).start().await?;
    let named = |id: &str| {
        let token = world.issuer.token("north").scopes(contract::USER);
        token.claim("jti", id).sign()
    };
    let (lost, kept) = (named("lost"), named("kept"));
    let id = say_so(&gateway, "/admin/revocations", &json!({"token_id": "lost"})).await?;
    let open = async |token: &str| {
        let want = Want::new("observations", token);
        let opened = Reader::try_open(Surface::WebSocket, gateway.address(), want).await?;
        anyhow::Ok(opened.err())
    };
    ensure!(open(&lost).await?.as_deref() == Some("token_revoked"));
    ensure!(open(&kept).await?.is_none());
    take_back(&gateway, "/admin/revocations", &id).await?;
    ensure!(open(&lost).await?.is_none());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_operators_get_wrong_is_answered_by_its_code_and_nothing_is_written() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("slips", 1).await?;
    let gateway = controlled(&world, &topic).start().await?;
    let long = "x".repeat(2000);
    let revocations = "/admin/revocations";
    let denials = "/admin/denials";
    for (method, path, body, status, code) in [
        (Method::POST, revocations, json!({}), 400, "field_invalid"),
        (
            Method::POST,
            revocations,
            json!({"subject": ""}),
            400,
            "field_invalid",
        ),
        (
            Method::POST,
            revocations,
            json!({"subject": long}),
            400,
            "field_invalid",
        ),
        (
            Method::POST,
            revocations,
            json!({"subject": ["a"]}),
            400,
            "field_invalid",
        ),
        (
            Method::POST,
            revocations,
            json!({"tenant": "a b"}),
            400,
            "field_invalid",
        ),
        (
            Method::POST,
            revocations,
            json!({"tenant": "a", "expires_at": "2001-01-01T00:00:00Z"}),
            400,
            "field_invalid",
        ),
        (
            Method::POST,
            revocations,
            json!({"tenant": "a", "everybody": true}),
            400,
            "field_unknown",
        ),
        (Method::POST, revocations, json!("all"), 400, "body_invalid"),
        (
            Method::POST,
            denials,
            json!({"tenant": "a"}),
            400,
            "field_invalid",
        ),
        (
            Method::POST,
            denials,
            json!({"tenant": "a", "attribute": "Patient", "value": "1"}),
            400,
            "field_invalid",
        ),
        (Method::DELETE, "/admin/denials/00", json!(null), 404, "not_found"),
        (
            Method::DELETE,
            "/admin/denials/Patient",
            json!(null),
            404,
            "not_found",
        ),
        (
            Method::DELETE,
            revocations,
            json!(null),
            405,
            "method_not_allowed",
        ),
        (
            Method::GET,
            "/admin/revocations?x=1",
            json!(null),
            400,
            "unknown_parameter",
        ),
    ] {
        let answer = admin(method.clone(), &gateway, path, &body).await?;
        ensure!(
            (answer.status, answer.code().as_str()) == (status, code),
            "{method} {path} {body}: {} {}",
            answer.status,
            answer.text()
        );
    }
    let body = json!({"subject": "a"}).to_string().into_bytes();
    let plain = [("content-type", "text/plain")];
    let answer = http::request(Method::POST, gateway.admin(), revocations, &plain, Some(body)).await?;
    ensure!(
        answer.code() == "unsupported_media_type",
        "what a page could send"
    );
    for (path, list) in [(revocations, "revocations"), (denials, "denials")] {
        let known = admin(Method::GET, &gateway, path, &Value::Null).await?.json()?;
        ensure!(known[list] == json!([]), "{known}");
    }
    Ok(())
}

//! `tidewire demo`: everything in one process, in less than a second, for anybody who clones the repository.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use tidewire_tests::gateway::binary;
use tidewire_tests::partner::{self, Partner};
use tidewire_tests::producer::{Producer, Record};
use tidewire_tests::reader::{Item, Reader, Surface, Want};
use tidewire_tests::volume::say;
use tidewire_tests::{http, leash, process, wait};

use crate::support::World;

struct Demo {
    child: Child,
    said: BTreeMap<String, String>,
    started_in: Duration,
}

impl Demo {
    async fn start(state: &Path, arguments: &[&str]) -> Result<Self> {
        let begun = tokio::time::Instant::now();
        let mut child = Command::new(binary())
            .args(["demo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .args(arguments)
            .env("TIDEWIRE_STATE_DIR", state)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        leash::hold(child.id());
        let stdout = child.stdout.take().context("stdout is piped")?;
        let heard = Arc::new(Mutex::new(BTreeMap::new()));
        let lines = Arc::clone(&heard);
        std::thread::spawn(move || {
            for line in std::io::BufRead::lines(std::io::BufReader::new(stdout)).map_while(Result::ok) {
                if let Some((name, value)) = line.split_once('=') {
                    let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
                    lines.entry(name.to_owned()).or_insert_with(|| value.to_owned());
                }
            }
        });
        let all = ["listen", "admin", "kafka", "issuer", "receiver"];
        let said = wait::until("the demo to say where it is", || {
            let lines = heard.lock().unwrap_or_else(PoisonError::into_inner);
            std::future::ready(
                all.iter()
                    .all(|name| lines.contains_key(*name))
                    .then(|| lines.clone()),
            )
        })
        .await?;
        let mut demo = Self {
            child,
            said,
            started_in: Duration::ZERO,
        };
        let admin = demo.address("admin")?;
        wait::until("the demo to be ready", || async {
            let ready = http::get(admin, "/readyz", &[]).await.ok()?;
            (ready.status == 200).then_some(())
        })
        .await?;
        demo.started_in = begun.elapsed();
        Ok(demo)
    }

    fn address(&self, name: &str) -> Result<SocketAddr> {
        self.said
            .get(name)
            .and_then(|text| text.parse().ok())
            .with_context(|| format!("{name} in {:?}", self.said))
    }

    /// What the page is shown of the receiver of webhooks.
    async fn received(&self) -> Result<Value> {
        let shown = http::get(self.address("listen")?, "/demo/receiver", &[]).await?;
        ensure!(shown.status == 200, "{} {}", shown.status, shown.text());
        shown.json()
    }

    /// Waits until what the page is shown is like this.
    async fn until_received(&self, what: &str, is: impl Fn(&Value) -> bool) -> Result<Value> {
        wait::until(what, || async {
            self.received().await.ok().filter(|shown| is(shown))
        })
        .await
    }

    /// Lets the receiver fail, or no longer.
    async fn fail(&self, failing: bool) -> Result<()> {
        let headers = [("content-type", "application/json")];
        let body = json!({"failing": failing}).to_string().into_bytes();
        let address = self.address("listen")?;
        let answer = http::request(Method::POST, address, "/demo/receiver", &headers, Some(body)).await?;
        ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
        Ok(())
    }

    async fn end(mut self) -> Result<()> {
        process::signal(self.child.id(), "TERM")?;
        let status = wait::until("the demo to end", || {
            std::future::ready(self.child.try_wait().ok().flatten())
        })
        .await?;
        ensure!(status.code() == Some(0), "{status}");
        Ok(())
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let ended = self.child.kill().and_then(|()| self.child.wait());
        leash::release(self.child.id());
        drop(ended);
    }
}

fn token(state: &Path, arguments: &[&str]) -> Result<String> {
    let output = Command::new(binary())
        .arg("token")
        .args(arguments)
        .env("TIDEWIRE_STATE_DIR", state)
        .output()?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_starts_at_once_serves_real_resources_and_a_page() -> Result<()> {
    let _turn = crate::support::beside().await;
    let state = tempfile::tempdir()?;
    let demo = Demo::start(state.path(), &["--rate", "50"]).await?;
    say(&format!("demo: started in {:?}", demo.started_in));
    // Less than a second by itself; here others are busy beside it.
    ensure!(
        demo.started_in < Duration::from_secs(5),
        "it took {:?} to start",
        demo.started_in
    );
    let address = demo.address("listen")?;
    let page = http::get(address, "/", &[]).await?;
    ensure!(
        page.status == 200 && page.header("content-type").starts_with("text/html"),
        "{}",
        page.status
    );
    ensure!(
        !page.header("content-security-policy").is_empty(),
        "{:?}",
        page.headers
    );
    for (stream, scope) in [
        ("observations", "user/Observation.rs"),
        ("encounters", "user/Encounter.rs"),
        ("medication_requests", "user/MedicationRequest.rs"),
        ("patients", "user/Patient.rs"),
    ] {
        let token = token(
            state.path(),
            &["--tenant", "north", "--subject", "s", "--scope", scope],
        )?;
        let want = Want::new(stream, &token).after("earliest");
        let event = Reader::open(Surface::Sse, address, want).await?.event().await?;
        let kind = event["data"]["resourceType"]
            .as_str()
            .context("a FHIR resource")?
            .to_owned();
        ensure!(scope.contains(&kind) && event["tenant"] == "north", "{event}");
        ensure!(
            event["patient"]
                .as_str()
                .is_some_and(|patient| patient.starts_with("Patient/")),
            "{event}"
        );
    }
    // DNS rebinding: a name that somebody pointed here gets neither the page nor a token.
    let evil = [("host", "evil.example"), ("content-type", "application/json")];
    let body = json!({"tenant": "north", "subject": "x", "scopes": "user/Observation.rs"})
        .to_string()
        .into_bytes();
    for (method, path, body) in [
        (Method::GET, "/", None),
        (Method::POST, "/demo/token", Some(body)),
    ] {
        let answer = http::request(method, address, path, &evil, body).await?;
        ensure!((400..500).contains(&answer.status), "{path}: {}", answer.status);
    }
    demo.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn anybody_can_produce_to_the_demos_broker_and_no_events_are_made_if_not_asked_for() -> Result<()> {
    let _turn = crate::support::beside().await;
    let state = tempfile::tempdir()?;
    let demo = Demo::start(state.path(), &["--no-events"]).await?;
    let address = demo.address("listen")?;
    let user = token(
        state.path(),
        &[
            "--tenant",
            "north",
            "--subject",
            "s",
            "--scope",
            "user/Observation.rs",
        ],
    )?;
    let patient = token(
        state.path(),
        &[
            "--tenant",
            "north",
            "--subject",
            "p",
            "--scope",
            "patient/Observation.rs",
            "--claim",
            "patient=1",
            "--ttl",
            "1h",
        ],
    )?;
    let mut readers = Vec::new();
    for surface in Surface::ALL {
        readers.push(Reader::open(surface, address, Want::new("observations", &user)).await?);
    }
    let mut patients = Reader::open(Surface::WebSocket, address, Want::new("observations", &patient)).await?;
    let producer = Producer::new(demo.said.get("kafka").context("kafka")?)?;
    for of in [2, 1] {
        let value = json!({
            "resourceType": "Observation", "id": "mine", "status": "final",
            "subject": {"reference": format!("Patient/{of}")}, "note": [{"text": "hidden"}], "performer": [{"display": "x"}],
        });
        let record = Record::json("fhir.observation", &value)
            .key(format!("Observation/mine-{of}"))
            .header("tenant", "north");
        producer.send(&record).await?;
    }
    for reader in &mut readers {
        let mut of = Vec::new();
        for _ in 0..2 {
            // The first ones of a hospital that the demo would make events for: it has made none.
            let event = reader.event().await?;
            of.push(event["patient"].as_str().unwrap_or_default().to_owned());
        }
        of.sort();
        ensure!(of == ["Patient/1", "Patient/2"], "{of:?}");
    }
    let event = patients.event().await?;
    ensure!(
        event["patient"] == "Patient/1" && event["data"].get("note").is_none(),
        "{event}"
    );
    ensure!(event["data"].get("performer").is_none(), "{event}");
    demo.end().await
}

/// The deliveries of an endpoint that were answered like this.
fn answered<'a>(shown: &'a Value, tenant: &'a str, answer: u16) -> impl Iterator<Item = &'a Value> {
    let rows = shown["deliveries"].as_array().into_iter().flatten();
    rows.filter(move |row| row["tenant"] == tenant && row["answer"] == answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demos_receiver_verifies_what_comes_and_gets_what_it_failed_to_take_also_after_a_restart()
-> Result<()> {
    let _turn = crate::support::beside().await;
    let state = tempfile::tempdir()?;
    for start in ["the first", "the second"] {
        let demo = Demo::start(state.path(), &["--rate", "10"]).await?;
        let receiver = demo.said.get("receiver").context("receiver")?.clone();
        ensure!(receiver.starts_with("http://127.0.0.1:"), "{receiver}");
        let shown = demo
            .until_received("both hospitals' endpoints to be delivered to", |shown| {
                ["north", "south"]
                    .iter()
                    .all(|tenant| answered(shown, tenant, 204).next().is_some())
            })
            .await?;
        ensure!(shown["receiver"] == receiver.as_str(), "{shown}");
        ensure!(shown["endpoints"].as_array().map(Vec::len) == Some(2), "{shown}");
        ensure!(shown["counts"]["refused"] == 0, "{shown}");
        for row in shown["deliveries"].as_array().context("deliveries")? {
            let is_timed = row["answer"] == 500 || row["took_ms"].as_i64().is_some_and(|ms| ms >= 0);
            ensure!(
                row["verdict"] == "verified" && row["type"] == "tidewire.observations.changed" && is_timed,
                "{row}"
            );
        }
        say(&format!(
            "demo: {start} start, {} deliveries",
            shown["counts"]["taken"]
        ));

        demo.fail(true).await?;
        let failing = demo
            .until_received("deliveries that failed to be parked", |shown| {
                let parked = |endpoint: &Value| endpoint["parked"].as_i64().is_some_and(|count| count > 0);
                shown["endpoints"]
                    .as_array()
                    .is_some_and(|all| all.iter().all(parked))
                    && ["north", "south"]
                        .iter()
                        .all(|tenant| answered(shown, tenant, 500).next().is_some())
            })
            .await?;
        let failed: BTreeSet<String> = ["north", "south"]
            .iter()
            .filter_map(|tenant| answered(&failing, tenant, 500).next()?["delivery"].as_str())
            .map(str::to_owned)
            .collect();
        demo.fail(false).await?;
        // Seen one after the other: only the latest are shown.
        let arrived = Mutex::new(BTreeSet::new());
        demo.until_received("what failed to arrive", |shown| {
            let mut arrived = arrived.lock().unwrap_or_else(PoisonError::into_inner);
            for row in ["north", "south"]
                .iter()
                .flat_map(|tenant| answered(shown, tenant, 204))
            {
                let is_again = row["attempt"].as_u64().is_some_and(|attempt| attempt > 1);
                arrived.extend(row["delivery"].as_str().filter(|_| is_again).map(str::to_owned));
            }
            failed.is_subset(&arrived)
        })
        .await?;

        // Whoever does not have the secret is told so, and the page as well.
        let port = receiver
            .rsplit_once(':')
            .and_then(|(_, port)| port.parse().ok())
            .context("a port")?;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let forged = [
            ("webhook-id", "msg_forged"),
            ("webhook-timestamp", &*tidewire_tests::issuer::now_s().to_string()),
            (
                "webhook-signature",
                "v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=",
            ),
        ];
        let body = Some(br#"{"id":"forged"}"#.to_vec());
        let answer = http::request(Method::POST, address, "/north", &forged, body).await?;
        ensure!(answer.status == 401, "{}", answer.status);
        ensure!(
            demo.received().await?["counts"]["refused"] == 1,
            "one was refused"
        );

        // The endpoints of the first start are not left behind.
        let scopes = format!("user/Observation.rs {}", partner::SCOPES);
        let token = token(
            state.path(),
            &["--tenant", "north", "--subject", "s", "--scope", &scopes],
        )?;
        let partner = Partner::new(demo.address("listen")?, &token);
        let endpoints = partner.get(partner::ENDPOINTS).await?;
        ensure!(
            endpoints["endpoints"].as_array().map(Vec::len) == Some(1),
            "{endpoints}"
        );
        demo.end().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_embedded_broker_is_told_as_a_gap_never_as_a_fresh_start() -> Result<()> {
    let _turn = crate::support::beside().await;
    let state = tempfile::tempdir()?;
    let demo = Demo::start(state.path(), &["--rate", "50"]).await?;
    let token = token(
        state.path(),
        &[
            "--tenant",
            "north",
            "--subject",
            "s",
            "--scope",
            "user/Observation.rs",
        ],
    )?;
    let mut wants = Vec::new();
    for surface in Surface::ALL {
        let mut reader = Reader::open(
            surface,
            demo.address("listen")?,
            Want::new("observations", &token),
        )
        .await?;
        reader.event().await?;
        wants.push((surface, reader.want_more()));
    }
    drop(demo);
    let demo = Demo::start(state.path(), &["--rate", "50"]).await?;
    for (surface, want) in wants {
        let mut reader = Reader::open(surface, demo.address("listen")?, want).await?;
        let gap = loop {
            match reader.next().await? {
                Item::Gap(gap) => break gap,
                Item::Live | Item::Quiet | Item::Other(..) => {}
                other => anyhow::bail!("{surface:?}: {other:?} before the gap"),
            }
        };
        ensure!(
            gap[0]["reason"] == "recreated" || gap[0]["reason"] == "deleted",
            "{surface:?}: {gap}"
        );
        // And it goes on from there.
        loop {
            if let Item::Event(_) = reader.next().await? {
                break;
            }
        }
    }
    demo.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_real_kafka_a_restarted_demo_leaves_no_gap() -> Result<()> {
    let world = World::new().await?;
    let state = tempfile::tempdir()?;
    let arguments = ["--no-events", "--kafka", world.kafka.bootstrap()];
    let demo = Demo::start(state.path(), &arguments).await?;
    let tenant = crate::support::unique("tenant");
    let token = token(
        state.path(),
        &[
            "--tenant",
            &tenant,
            "--subject",
            "s",
            "--scope",
            "user/Observation.rs",
        ],
    )?;
    let produce = async |n: usize| {
        let value = json!({"resourceType": "Observation", "id": n.to_string(), "n": n});
        let record = Record::json("fhir.observation", &value)
            .on(0)
            .key("Observation/1")
            .header("tenant", &tenant);
        world.producer.send(&record).await
    };
    let mut reader = Reader::open(
        Surface::Sse,
        demo.address("listen")?,
        Want::new("observations", &token),
    )
    .await?;
    produce(0).await?;
    ensure!(reader.event().await?["data"]["n"] == 0, "the first");
    let want = reader.want_more();
    drop(reader);
    drop(demo);
    produce(1).await?;
    let demo = Demo::start(state.path(), &arguments).await?;
    produce(2).await?;
    let mut reader = Reader::open(Surface::Sse, demo.address("listen")?, want).await?;
    for n in 1..3 {
        let event = reader.event().await?;
        ensure!(event["data"]["n"] == n, "{event}");
    }
    demo.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_prints_events_and_goes_on_after_a_cut() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("tail", 1).await?;
    let mut gateway = world.setup(&[&topic]).start().await?;
    let mut child = Command::new(binary())
        .args([
            "tail",
            "observations",
            "--url",
            &format!("http://{}", gateway.address()),
            "--after",
            "earliest",
        ])
        .env("TIDEWIRE_TOKEN", world.user("north"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    leash::hold(child.id());
    let stdout = child.stdout.take().context("stdout is piped")?;
    let (said, mut lines) = tokio::sync::mpsc::channel(100);
    std::thread::spawn(move || {
        for line in std::io::BufRead::lines(std::io::BufReader::new(stdout)).map_while(Result::ok) {
            if said.blocking_send(line).is_err() {
                return;
            }
        }
    });
    for n in 0..6 {
        if n == 3 {
            gateway.kill()?;
            gateway.resume().await?;
        }
        let value = json!({"partition": 0, "n": n});
        world
            .producer
            .send(&Record::json(&topic, &value).on(0).header("tenant", "north"))
            .await?;
        let line = wait::within("a line", lines.recv())
            .await?
            .context("it goes on")?;
        let event: Value = serde_json::from_str(&line)?;
        ensure!(event["data"]["n"] == n, "{line}");
    }
    child.kill()?;
    child.wait()?;
    leash::release(child.id());
    Ok(())
}

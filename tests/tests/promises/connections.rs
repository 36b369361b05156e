//! Connections that say nothing, or are too many, end in time and cost nothing that stays.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tidewire_tests::gateway::Gateway;
use tidewire_tests::plan;
use tidewire_tests::process;
use tidewire_tests::raw::Raw;
use tidewire_tests::reader::{Reader, Surface, Want};
use tidewire_tests::volume::{dice, say};
use tidewire_tests::wait;
use tidewire_tests::ws::{Said, Ws};
use tokio::task::JoinSet;

use crate::support::World;

/// What a connection may cost that has begun a request and does not go on: the buffer of its head (hyper's grows to
/// `head_bytes_max`, 16 KiB), its task and the allocator's rounding. One that has said nothing costs a fraction of it. The
/// runbook names the figure.
const SILENT_CONNECTION_BYTES_MAX: u64 = 32 << 10;
/// What everything else may take meanwhile: events, metrics, librdkafka's queues.
const REST_BYTES_MAX: u64 = 8 << 20;

/// Connections that keep quiet, each in its way, until they are closed.
async fn keep_quiet(gateway: &Gateway, count: usize) -> Result<JoinSet<Result<()>>> {
    let mut silent = JoinSet::new();
    for n in 0..count {
        let mut raw = Raw::connect(gateway.address()).await?;
        // A third says nothing, a third begins a request, a third begins one and never ends it, byte by byte.
        match n % 3 {
            0 => {}
            1 => drop(
                raw.send(b"GET /v1/streams/observations HTTP/1.1\r\nHost: x\r\n")
                    .await?,
            ),
            _ => drop(raw.send(b"G").await?),
        }
        silent.spawn(async move {
            if n % 3 == 2 {
                let mut drip = tokio::time::interval(Duration::from_millis(200));
                for _ in 0..10 {
                    drip.tick().await;
                    raw.send(b"E").await?;
                }
            }
            raw.to_end().await?;
            Ok(())
        });
    }
    Ok(silent)
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_say_nothing_are_closed_in_time_and_memory_stays_flat() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("silent", 1).await?;
    let setup = world
        .setup(&[&topic])
        .limit("header_timeout_ms", 3000)
        .limit("auth_timeout_ms", 3000);
    let mut setup = setup.limit("heartbeat_ms", 1000).limit("silence_max_ms", 3000);
    setup.more = "[origins]\nallow = [\"https://app.example\"]\n".to_owned();
    let gateway = setup.start().await?;
    let mut reader = Reader::open(
        Surface::WebSocket,
        gateway.address(),
        Want::new("observations", &world.user("north")),
    )
    .await?;
    let plan = plan::plan(&mut dice("silent"), 1, 100);
    let resident = || process::resident_bytes(gateway.pid());
    let before = resident()?;
    let count = 1000;
    let mut highest = before;
    let mut after = Vec::new();
    for wave in 0..2 {
        let mut silent = keep_quiet(&gateway, count).await?;
        if wave == 0 {
            // Somebody who reads does not notice.
            world.producer.send_all(&plan::records(&plan, &topic)).await?;
            crate::delivery::take_all(
                &mut reader,
                &mut plan::owed(&plan, |planned| planned.tenant == "north"),
            )
            .await?;
        }
        let mut failed = None;
        wait::until_true("every connection to be closed", || {
            highest = highest.max(resident().unwrap_or(0));
            while let Some(closed) = silent.try_join_next() {
                failed = closed
                    .map_err(anyhow::Error::from)
                    .and_then(|closed| closed)
                    .err()
                    .or(failed.take());
            }
            silent.is_empty()
        })
        .await?;
        if let Some(error) = failed {
            return Err(error);
        }
        after.push(resident()?);
    }
    let kib = |bytes: u64| bytes.saturating_sub(before) / 1024;
    say(&format!(
        "silence: twice {count} silent connections closed, memory grew by {} KiB at most, {} KiB after the first, {} KiB after the second",
        kib(highest),
        kib(after[0]),
        kib(after[1]),
    ));
    let allowed = SILENT_CONNECTION_BYTES_MAX * count as u64 + REST_BYTES_MAX;
    ensure!(
        highest - before < allowed,
        "{count} silent connections cost {} bytes",
        highest - before
    );
    // What the first held is there for the second: nothing of a connection stays, whatever the allocator keeps for later.
    ensure!(
        after[1] < after[0] + REST_BYTES_MAX,
        "the second {count} left {} bytes more",
        after[1] - after[0]
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_open_websocket_is_found_by_its_silence() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("half-open", 1).await?;
    let setup = world
        .setup(&[&topic])
        .limit("heartbeat_ms", 500)
        .limit("silence_max_ms", 1500);
    let gateway = setup.start().await?;
    let token = world.user("north");
    // Reads and answers pings: stays, though it never says anything of its own.
    let mut alive = Ws::open(gateway.address(), &token).await?;
    alive
        .subscribe(&json!({"id": "s", "stream": "observations"}))
        .await?;
    // As after a pulled cable: the socket is there and nobody answers.
    let mut dead = Vec::new();
    for _ in 0..20 {
        dead.push(Raw::upgrade(gateway.address(), &token).await?);
    }
    // Closed our half only: the other side may still send, but the session is over.
    let mut finished = Raw::upgrade(gateway.address(), &token).await?;
    finished.finish().await?;
    finished.to_end().await?;
    let mut listening = JoinSet::new();
    listening.spawn(async move {
        loop {
            match alive.listen().await? {
                Said::Message(_) => {}
                other => anyhow::bail!("the one who answers pings was ended: {other:?}"),
            }
        }
        #[allow(unreachable_code, reason = "gives the task its type")]
        Ok::<(), anyhow::Error>(())
    });
    for raw in &mut dead {
        let code = raw.to_end().await?.close_code();
        ensure!(code == Some(4001), "{code:?} instead of 4001");
    }
    wait::until("one session to be left", || async {
        (gateway.sessions().await.ok()?.len() == 1).then_some(())
    })
    .await?;
    ensure!(listening.try_join_next().is_none(), "the one who answers stays");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_without_credentials_must_bring_them_in_time() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("unknown", 1).await?;
    let mut setup = world.setup(&[&topic]).limit("auth_timeout_ms", 1000);
    setup.more = "[origins]\nallow = [\"https://app.example\"]\n".to_owned();
    let gateway = setup.start().await?;
    let page = |origin: &str| tidewire_tests::ws::Dial {
        headers: vec![("origin".to_owned(), origin.to_owned())],
        ..Default::default()
    };
    let open = |origin: &'static str| {
        let address = gateway.address();
        async move { Ws::dial(address, &page(origin)).await }
    };
    let mut silent = open("https://app.example")
        .await?
        .map_err(|refused| anyhow::anyhow!("{refused:?}"))?;
    ensure!(
        silent.end().await? == Some((4201, "unauthenticated".to_owned())),
        "in time"
    );
    let mut early = open("https://app.example")
        .await?
        .map_err(|refused| anyhow::anyhow!("{refused:?}"))?;
    early
        .say(&json!({"type": "subscribe", "id": "s", "stream": "observations"}))
        .await?;
    ensure!(
        early.end().await?.is_some_and(|(code, _)| code == 4201),
        "nothing before auth"
    );
    let mut good = open("https://app.example")
        .await?
        .map_err(|refused| anyhow::anyhow!("{refused:?}"))?;
    good.say(&json!({"type": "auth", "token": world.user("north")}))
        .await?;
    good.until("authorized").await?;
    let answer = good
        .subscribe(&json!({"id": "s", "stream": "observations"}))
        .await?;
    ensure!(answer["type"] == "subscribed", "{answer}");
    for (origin, code) in [
        ("https://evil.example", "origin_forbidden"),
        ("null", "origin_forbidden"),
    ] {
        let refused = open(origin).await?.err().context("refused")?;
        ensure!(
            (refused.status, refused.code.as_str()) == (403, code),
            "{refused:?}"
        );
    }
    let nobody = Ws::dial(gateway.address(), &tidewire_tests::ws::Dial::default())
        .await?
        .err()
        .context("refused")?;
    ensure!(
        (nobody.status, nobody.code.as_str()) == (401, "unauthenticated"),
        "{nobody:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_limited_per_principal_tenant_and_node() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("limits", 1).await?;
    let setup = world.setup(&[&topic]).limit("connections_per_principal_max", 3);
    let setup = setup
        .limit("connections_per_tenant_max", 5)
        .limit("connections_max", 7);
    let gateway = setup.start().await?;
    let token = |tenant: &str, subject: &str| {
        let token = world.issuer.token(tenant).subject(subject);
        token.scopes(tidewire_tests::contract::USER).sign()
    };
    let mut open = Vec::new();
    let mut expect = async |tenant: &str, subject: &str, code: Option<&str>| -> Result<()> {
        let dial = tidewire_tests::ws::Dial {
            token: Some(token(tenant, subject)),
            ..Default::default()
        };
        match (Ws::dial(gateway.address(), &dial).await?, code) {
            (Ok(ws), None) => open.push(ws),
            (Err(refused), Some(code)) if refused.code == code => {}
            (opened, _) => anyhow::bail!("{tenant} {subject}: {:?} instead of {code:?}", opened.err()),
        }
        Ok(())
    };
    for _ in 0..3 {
        expect("north", "one", None).await?;
    }
    expect("north", "one", Some("principal_connections_exceeded")).await?;
    expect("north", "two", None).await?;
    expect("north", "two", None).await?;
    expect("north", "three", Some("tenant_connections_exceeded")).await?;
    expect("south", "one", None).await?;
    expect("south", "one", None).await?;
    expect("south", "two", Some("node_connections_exceeded")).await?;
    // A connection that ends makes room.
    open.clear();
    wait::until("the sessions to be gone", || async {
        gateway.sessions().await.ok()?.is_empty().then_some(())
    })
    .await?;
    wait::until("room", || async {
        let dial = tidewire_tests::ws::Dial {
            token: Some(token("north", "one")),
            ..Default::default()
        };
        Ws::dial(gateway.address(), &dial).await.ok()?.ok().map(drop)
    })
    .await
}

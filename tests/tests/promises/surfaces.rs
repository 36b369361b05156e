//! The surfaces as they are promised: what clients see beyond events.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tidewire_tests::contract;
use tidewire_tests::http::{self, bearer};
use tidewire_tests::plan;
use tidewire_tests::reader::{Item, Reader, Surface, Want, next_cursor};
use tidewire_tests::sse::{Ask, Sse};
use tidewire_tests::volume::dice;
use tidewire_tests::wait;
use tidewire_tests::ws::Ws;

use crate::support::World;

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_is_told_of_the_streams_that_it_may_read_and_of_no_others() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("catalogue", 1).await?;
    let gateway = world.setup(&[&topic]).start().await?;
    let ask = async |token: String| -> Result<serde_json::Value> {
        let authorization = bearer(&token);
        let headers = [("authorization", authorization.as_str())];
        http::get(gateway.address(), "/v1/streams", &headers)
            .await?
            .json()
    };
    let names = |entry: &serde_json::Value| {
        let attributes = entry["attributes"].as_array().cloned().unwrap_or_default();
        attributes
            .iter()
            .filter_map(|attribute| attribute["name"].as_str().map(str::to_owned))
            .collect::<Vec<_>>()
    };
    let seen = ask(world.user("north")).await?;
    ensure!(seen["streams"][0]["name"] == "observations", "{seen}");
    ensure!(
        names(&seen["streams"][0]) == ["code", "patient", "status"],
        "{seen}"
    );
    let nothing = ask(world.issuer.token("north").scopes("openid").sign()).await?;
    ensure!(nothing["streams"] == json!([]), "{nothing}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn last_event_id_beats_after_and_a_filter_may_come_in_a_body() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("sse", 1).await?;
    let gateway = world.setup(&[&topic]).start().await?;
    let mut plan = plan::plan(&mut dice("sse"), 1, 60);
    plan.iter_mut().for_each(|planned| planned.tenant = "north");
    world.producer.send_all(&plan::records(&plan, &topic)).await?;
    let token = world.user("north");
    let mut reader = Reader::open(
        Surface::Sse,
        gateway.address(),
        Want::new("observations", &token).after("earliest"),
    )
    .await?;
    for _ in 0..20 {
        reader.event().await?;
    }
    let cursor = reader.cursor().context("a cursor")?;
    let ask = Ask {
        token: Some(&token),
        query: vec![("after", "earliest")],
        headers: vec![("last-event-id", cursor)],
        ..Ask::default()
    };
    let mut sse = Sse::ask(gateway.address(), "observations", &ask)
        .await?
        .map_err(|answer| anyhow::anyhow!(answer.text()))?;
    ensure!(
        sse.headers
            .get("content-type")
            .is_some_and(|kind| kind == "text/event-stream"),
        "{:?}",
        sse.headers
    );
    ensure!(
        sse.headers
            .get("cache-control")
            .is_some_and(|cache| cache.to_str().is_ok_and(|cache| cache.contains("no-"))),
        "{:?}",
        sse.headers
    );
    let next = sse.until("message").await?.json()?;
    ensure!(next["data"]["n"] == 20, "{next}");

    let body = json!({"where": {"patient": ["Patient/1", "https://x.example/fhir/Patient/2/_history/4"]}, "after": "earliest"});
    let ask = Ask {
        token: Some(&token),
        body: Some(body),
        ..Ask::default()
    };
    let mut sse = Sse::ask(gateway.address(), "observations", &ask)
        .await?
        .map_err(|answer| anyhow::anyhow!(answer.text()))?;
    let mut owed = plan::owed(&plan, |planned| planned.patient <= 2);
    while !owed.is_done() {
        owed.take(&sse.until("message").await?.json()?)?;
    }
    ensure!(sse.until("live").await?.has_id, "live has a cursor");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn pull_tells_the_next_page_always_and_waits_for_events() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("pull", 2).await?;
    let gateway = world.setup(&[&topic]).start().await?;
    let mut plan = plan::plan(&mut dice("pull"), 2, 25);
    plan.iter_mut().for_each(|planned| planned.tenant = "north");
    world.producer.send_all(&plan::records(&plan, &topic)).await?;
    let authorization = bearer(&world.user("north"));
    let headers = [
        ("accept", "application/cloudevents-batch+json"),
        ("authorization", authorization.as_str()),
    ];
    let page = async |query: &[(&str, &str)]| {
        http::get(
            gateway.address(),
            &format!("/v1/streams/observations{}", http::query(query)),
            &headers,
        )
        .await
    };
    let mut owed = plan::owed(&plan, |_| true);
    let mut after = "earliest".to_owned();
    let mut sizes = Vec::new();
    while !owed.is_done() {
        let answer = page(&[("after", &after), ("limit", "10")]).await?;
        ensure!(
            answer
                .header("content-type")
                .starts_with("application/cloudevents-batch+json"),
            "{:?}",
            answer.headers
        );
        let events = answer.json()?;
        for event in events.as_array().context("an array")? {
            ensure!(event["cursor"].is_string(), "each event has its cursor");
            owed.take(event)?;
        }
        sizes.push(events.as_array().map_or(0, Vec::len));
        after = next_cursor(&answer)?;
    }
    ensure!(
        sizes.iter().all(|size| *size <= 10) && sizes.len() >= 3,
        "{sizes:?}"
    );
    let empty = page(&[("after", &after)]).await?;
    ensure!(
        empty.status == 200 && empty.json()? == json!([]),
        "{}",
        empty.text()
    );
    let after = next_cursor(&empty)?;
    let begun = tokio::time::Instant::now();
    let waited = page(&[("after", &after), ("wait", "1")]).await?;
    ensure!(
        waited.json()? == json!([]) && begun.elapsed() >= std::time::Duration::from_millis(900),
        "a long poll waits"
    );
    let mut late = plan[0].clone();
    late.n = 1000;
    let after = next_cursor(&waited)?;
    let poll = [("after", after.as_str()), ("wait", "30")];
    // Whether the poll waits already or finds the event when it comes: it is answered with it.
    let record = late.record(&topic);
    let (answer, _) = tokio::try_join!(page(&poll), world.producer.send(&record))?;
    ensure!(answer.json()?[0]["data"]["n"] == 1000, "{}", answer.text());
    let tag = answer.header("etag");
    let again = [headers[0], headers[1], ("if-none-match", tag.as_str())];
    let path = format!("/v1/streams/observations{}", http::query(&[("after", &after)]));
    let unchanged = http::get(gateway.address(), &path, &again).await?;
    ensure!(
        unchanged.status == 304 && !unchanged.header("link").is_empty(),
        "{} {:?}",
        unchanged.status,
        unchanged.headers
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_carries_many_subscriptions() -> Result<()> {
    let world = World::new().await?;
    let (one, two) = (
        world.topic("many-one", 2).await?,
        world.topic("many-two", 2).await?,
    );
    let mut setup = world.setup(&[&one]);
    setup.streams = format!(
        "{}{}",
        contract::observations(&[&one]),
        contract::stream("others", &[&two])
    );
    let gateway = setup.start().await?;
    let mut ws = Ws::open(gateway.address(), &world.user("north")).await?;
    let welcome = ws.until("welcome").await?;
    ensure!(
        welcome["session"].is_string() && welcome["heartbeat_ms"].is_u64(),
        "{welcome}"
    );
    let plan = plan::plan(&mut dice("many"), 2, 200);
    let mut owed = Vec::new();
    for (id, stream, wanted) in [
        ("a", "observations", None),
        ("b", "others", Some("final")),
        ("c", "others", Some("preliminary")),
    ] {
        let mut subscribe = json!({"id": id, "stream": stream, "after": "earliest"});
        if let Some(status) = wanted {
            subscribe["where"] = json!({"status": status});
        }
        let answer = ws.subscribe(&subscribe).await?;
        ensure!(
            answer["type"] == "subscribed" && answer["cursor"].is_string(),
            "{answer}"
        );
        owed.push((
            id,
            plan::owed(&plan, |planned| {
                planned.tenant == "north" && wanted.is_none_or(|status| planned.status == status)
            }),
        ));
    }
    world.producer.send_all(&plan::records(&plan, &one)).await?;
    world.producer.send_all(&plan::records(&plan, &two)).await?;
    while owed.iter().any(|(_, owed)| !owed.is_done()) {
        let message = ws.until("event").await?;
        let (_, owed) = owed
            .iter_mut()
            .find(|(id, _)| message["id"] == *id)
            .context("a subscription")?;
        owed.take(&message["event"])?;
    }
    ws.say(&json!({"type": "unsubscribe", "id": "a"})).await?;
    ws.until("unsubscribed").await?;
    world.producer.send_all(&plan::records(&plan, &one)).await?;
    world.producer.send_all(&plan::records(&plan, &two)).await?;
    // What the others get was produced later: until all of it is there, something would have come for `a`.
    let mut left = plan
        .iter()
        .filter(|planned| planned.tenant == "north" && ["final", "preliminary"].contains(&planned.status))
        .count();
    while left > 0 {
        let message = ws.until("event").await?;
        ensure!(message["id"] != "a", "{message} came after `unsubscribed`");
        left -= 1;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_says_bye_closes_and_ends_well_and_the_next_node_goes_on() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("drain", 2).await?;
    let setup = world.setup(&[&topic]).limit("drain_spread_ms", 500);
    let (mut leaving, staying) = (setup.start().await?, setup.start().await?);
    let mut readers = Vec::new();
    for surface in [Surface::WebSocket, Surface::Sse] {
        let want = Want::new("observations", &world.user("north"));
        readers.push((surface, Reader::open(surface, leaving.address(), want).await?));
    }
    let plan = plan::plan(&mut dice("drain"), 2, 200);
    world
        .producer
        .send_all(&plan::records(&plan[..100], &topic))
        .await?;
    let owed = plan::owed(&plan, |planned| planned.tenant == "north");
    leaving.ask_to_end()?;
    let mut wants = Vec::new();
    for (surface, mut reader) in readers {
        let mut mine = owed.clone();
        let mut bye = None;
        loop {
            match reader.next().await? {
                Item::Event(event) => mine.take(&event)?,
                Item::Other(kind, message) if kind == "bye" => bye = Some(message),
                Item::Ended(code) => {
                    let wanted = if surface == Surface::WebSocket {
                        "4000 draining"
                    } else {
                        ""
                    };
                    ensure!(code == wanted, "{surface:?} ended with {code:?}");
                    break;
                }
                Item::Live | Item::Quiet | Item::Other(..) => {}
                Item::Gap(gap) => anyhow::bail!("{gap}"),
            }
        }
        ensure!(
            bye.is_some_and(|bye| bye["reconnect_after_ms"].is_u64()),
            "{surface:?} is told bye"
        );
        wants.push((surface, reader.want_more(), mine));
    }
    let status = leaving.ended().await?;
    ensure!(status.code() == Some(0), "{status}");
    world
        .producer
        .send_all(&plan::records(&plan[100..], &topic))
        .await?;
    for (surface, want, mut mine) in wants {
        let mut reader = Reader::open(surface, staying.address(), want).await?;
        crate::delivery::take_all(&mut reader, &mut mine)
            .await
            .with_context(|| format!("{surface:?}"))?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_other_origins_are_told_nothing() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("cors", 1).await?;
    let mut setup = world.setup(&[&topic]);
    setup.more = "[origins]\nallow = [\"https://app.example\"]\n".to_owned();
    let gateway = setup.start().await?;
    let preflight = async |origin: &str| {
        let headers = [
            ("origin", origin),
            ("access-control-request-method", "GET"),
            ("access-control-request-headers", "authorization,last-event-id"),
        ];
        http::request(
            reqwest::Method::OPTIONS,
            gateway.address(),
            "/v1/streams/observations",
            &headers,
            None,
        )
        .await
    };
    let good = preflight("https://app.example").await?;
    ensure!(
        good.header("access-control-allow-origin") == "https://app.example",
        "{:?}",
        good.headers
    );
    ensure!(
        good.header("access-control-allow-headers")
            .to_lowercase()
            .contains("authorization"),
        "{:?}",
        good.headers
    );
    for origin in [
        "https://evil.example",
        "null",
        "https://app.example.evil.example",
        "http://app.example",
    ] {
        let bad = preflight(origin).await?;
        ensure!(
            bad.header("access-control-allow-origin").is_empty(),
            "{origin}: {:?}",
            bad.headers
        );
    }
    let authorization = bearer(&world.user("north"));
    let headers = [
        ("origin", "https://app.example"),
        ("authorization", authorization.as_str()),
    ];
    let answer = http::get(gateway.address(), "/v1/streams", &headers).await?;
    ensure!(
        answer.header("access-control-allow-origin") == "https://app.example",
        "{:?}",
        answer.headers
    );
    for exposed in ["Link", "ETag", "Retry-After", "Location"] {
        ensure!(
            answer.header("access-control-expose-headers").contains(exposed),
            "{exposed}: {:?}",
            answer.headers
        );
    }
    ensure!(
        answer.header("vary").to_lowercase().contains("origin"),
        "{:?}",
        answer.headers
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_and_http_2_carry_the_same_events() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("tls", 1).await?;
    let folder = tempfile::tempdir()?;
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&certificate, certified.cert.pem())?;
    std::fs::write(&key, certified.signing_key.serialize_pem())?;
    let mut setup = world.setup(&[&topic]);
    setup.listen = format!("tls = {{ certificate = {certificate:?}, key = {key:?} }}");
    let gateway = setup.start().await?;
    let mut plan = plan::plan(&mut dice("tls"), 1, 50);
    plan.iter_mut().for_each(|planned| planned.tenant = "north");
    world.producer.send_all(&plan::records(&plan, &topic)).await?;
    let root = reqwest::Certificate::from_pem(certified.cert.pem().as_bytes())?;
    let port = gateway.address().port();
    for (version, builder) in [
        (reqwest::Version::HTTP_11, reqwest::Client::builder().http1_only()),
        (reqwest::Version::HTTP_2, reqwest::Client::builder()),
    ] {
        let client = builder.tls_certs_only([root.clone()]).no_proxy().build()?;
        let request = client
            .get(format!(
                "https://localhost:{port}/v1/streams/observations?after=earliest"
            ))
            .header("accept", "text/event-stream")
            .header("authorization", bearer(&world.user("north")));
        let mut answer = wait::within("an answer over TLS", request.send()).await??;
        ensure!(
            answer.status() == 200 && answer.version() == version,
            "{} {:?}",
            answer.status(),
            answer.version()
        );
        let mut text = String::new();
        while text.matches("\"specversion\"").count() < plan.len() {
            let chunk = wait::within("events over TLS", answer.chunk())
                .await??
                .context("it ended")?;
            text.push_str(&String::from_utf8_lossy(&chunk));
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operations_listener_tells_lag_sessions_and_metrics_and_no_secret() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("operations", 3).await?;
    let gateway = world.setup(&[&topic]).start().await?;
    let token = world
        .issuer
        .token("north")
        .subject("a-secret-subject")
        .scopes(contract::USER)
        .sign();
    let mut reader = Reader::open(
        Surface::WebSocket,
        gateway.address(),
        Want::new("observations", &token),
    )
    .await?;
    let plan = plan::plan(&mut dice("operations"), 3, 100);
    world.producer.send_all(&plan::records(&plan, &topic)).await?;
    crate::delivery::take_all(
        &mut reader,
        &mut plan::owed(&plan, |planned| planned.tenant == "north"),
    )
    .await?;
    ensure!(
        http::get(gateway.admin(), "/healthz", &[]).await?.status == 200,
        "alive"
    );
    let ready = http::get(gateway.admin(), "/readyz", &[]).await?.json()?;
    let partitions = ready["partitions"].as_array().context("partitions")?;
    ensure!(
        partitions.len() == 3 && partitions.iter().all(|one| one["lag"].is_i64()),
        "{ready}"
    );
    let sessions = gateway.sessions().await?;
    ensure!(
        sessions.len() == 1 && sessions[0]["protocol"] == "websocket" && sessions[0]["tenant"] == "north",
        "{sessions:?}"
    );
    let metrics = http::get(gateway.admin(), "/metrics", &[]).await?;
    ensure!(metrics.status == 200, "{}", metrics.text());
    let owed = plan.iter().filter(|planned| planned.tenant == "north").count();
    ensure!(
        gateway.metric("hub_deliveries_total", &["websocket"]).await? == owed as f64,
        "{}",
        metrics.text()
    );
    for secret in ["a-secret-subject", "Patient/", "north", token.as_str()] {
        ensure!(!metrics.text().contains(secret), "{secret} stands in the metrics");
    }
    let log = gateway.log();
    for secret in ["Patient/", "for the ward only", token.as_str()] {
        ensure!(!log.contains(secret), "{secret} stands in the log");
    }
    ensure!(
        http::get(gateway.address(), "/metrics", &[]).await?.status == 404,
        "not on the public listener"
    );
    Ok(())
}

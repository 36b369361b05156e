//! Apollo's HTTP callback protocol, against the router's side of it: what is checked, who is believed, what is told and in
//! which order, and how it ends.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tidewire_tests::contract;
use tidewire_tests::gateway::Gateway;
use tidewire_tests::graphql::{self, EVENTS};
use tidewire_tests::plan::{self, Planned};
use tidewire_tests::router::{Ask, Router};
use tidewire_tests::volume::{dice, say, volume};
use tidewire_tests::wait;

use crate::support::World;

fn north(n: i64) -> Planned {
    Planned {
        tenant: "north",
        patient: 1,
        status: "final",
        partition: 0,
        n,
        padding: 0,
    }
}

/// A gateway that may call this router.
async fn gateway(world: &World, topic: &str, router: &Router, more: &str) -> Result<Gateway> {
    let mut setup = world.graphql(&[topic]);
    setup.more = format!(
        "{}\n[graphql.callback]\nhosts = [{:?}]\nheartbeat_min_ms = 100\n{more}\n",
        graphql::SETTINGS,
        router.host()
    );
    setup.start().await
}

/// Waits until no reader is left.
async fn nobody_reads(gateway: &Gateway) -> Result<()> {
    wait::until("the subscription to end", || async {
        (gateway.metric("groups", &[]).await.ok()? == 0.0).then_some(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_posted_in_order_one_by_one_under_load() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("callback", 3).await?;
    let router = Router::start().await?;
    let gateway = gateway(&world, &topic, &router, "").await?;
    let readers = volume(8, 50);
    let ids: Vec<String> = (0..readers).map(|n| format!("reader-{n}")).collect();
    for (n, id) in ids.iter().enumerate() {
        router.know(id, "a verifier");
        let tenant = plan::TENANTS[n % 2];
        let mut ask = Ask::new(id, EVENTS, json!({}));
        if n % 3 == 0 {
            ask.accept = "application/json;callbackSpec=1.0; charset=utf-8";
        }
        let answer = router
            .subscribe(gateway.address(), &world.user(tenant), ask)
            .await?;
        ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
        ensure!(answer.json()? == json!({"data": null}), "{}", answer.text());
        ensure!(
            answer.header("subscription-protocol") == "callback/1.0",
            "{:?}",
            answer.headers
        );
        let calls = router.calls(id);
        ensure!(
            calls.first().is_some_and(|call| call.action == "check"),
            "the check came before the answer: {calls:?}"
        );
    }
    router.be_slow(20);
    let plan = plan::plan(&mut dice("callback"), 3, volume(300, 3000));
    world.producer.send_all(&plan::records(&plan, &topic)).await?;
    for (n, id) in ids.iter().enumerate() {
        let mut owed = plan::owed(&plan, |planned| planned.tenant == plan::TENANTS[n % 2]);
        let count = owed.left();
        router.until(id, "next", count).await?;
        for result in router.results(id) {
            owed.take(&graphql::event(result)?).with_context(|| id.clone())?;
        }
        ensure!(owed.is_done(), "{} are missing", owed.left());
        ensure!(
            router.calls(id).iter().all(|call| call.action != "complete"),
            "it goes on"
        );
    }
    router.was_told_properly()?;
    say(&format!(
        "callback: {readers} subscriptions, {} events, in order, one at a time",
        plan.len()
    ));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_begins_only_where_its_router_vouches_for_it() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("vouch", 1).await?;
    let router = Router::start().await?;
    let gateway = gateway(&world, &topic, &router, "").await?;
    let token = world.user("north");
    router.know("known", "another verifier");
    // The router does not know the id, or the verifier; or it answers the check by anything but 204.
    let mut refused = vec![
        router
            .subscribe(gateway.address(), &token, Ask::new("unknown", EVENTS, json!({})))
            .await?,
    ];
    refused.push(
        router
            .subscribe(gateway.address(), &token, Ask::new("known", EVENTS, json!({})))
            .await?,
    );
    router.know("known", "a verifier");
    for status in [200, 202, 302, 400, 500] {
        router.answer_once("check", status);
        refused.push(
            router
                .subscribe(gateway.address(), &token, Ask::new("known", EVENTS, json!({})))
                .await?,
        );
    }
    for answer in &refused {
        ensure!(
            (400..500).contains(&answer.status),
            "{} {}",
            answer.status,
            answer.text()
        );
        ensure!(
            answer.json()?["errors"][0]["extensions"]["code"].is_string(),
            "{}",
            answer.text()
        );
    }
    nobody_reads(&gateway).await?;
    let connections = router.connections();

    // What is refused before the router is asked: no credentials, an operation that is not valid, hosts that are not on the
    // list (names are not looked up to find out), a heartbeat that is too fast.
    let port = router.host().rsplit(':').next().context("a port")?.to_owned();
    let other = Router::start().await?;
    let elsewhere: Vec<String> = vec![
        other.url("known"),
        format!("http://localhost:{port}/callback"),
        format!("http://127.0.0.1:{port}@{}/callback", other.host()),
        format!("https://{}/callback", router.host()),
        format!("http://[::1]:{port}/callback"),
        "http://169.254.169.254/latest".to_owned(),
        "file:///etc/passwd".to_owned(),
        "/callback".to_owned(),
        String::new(),
    ];
    let mut early = Vec::new();
    for url in &elsewhere {
        let mut ask = Ask::new("known", EVENTS, json!({}));
        ask.url = Some(url);
        early.push((
            url.clone(),
            router.subscribe(gateway.address(), &token, ask).await?,
        ));
    }
    let ask = Ask::new("known", "subscription { observations { nothing } }", json!({}));
    early.push((
        "invalid".to_owned(),
        router.subscribe(gateway.address(), &token, ask).await?,
    ));
    let mut ask = Ask::new("known", EVENTS, json!({}));
    ask.heartbeat_ms = 1;
    early.push((
        "too fast".to_owned(),
        router.subscribe(gateway.address(), &token, ask).await?,
    ));
    let ask = Ask::new("known", EVENTS, json!({}));
    early.push((
        "nobody".to_owned(),
        router.subscribe(gateway.address(), "", ask).await?,
    ));
    for (what, answer) in &early {
        // What is wrong with the document is told as GraphQL tells it where plain JSON was asked for: in a 200.
        let status = if what == "invalid" { 200..201 } else { 400..500 };
        ensure!(
            status.contains(&answer.status),
            "{what}: {} {}",
            answer.status,
            answer.text()
        );
        ensure!(
            answer.json()?["errors"][0]["extensions"]["code"].is_string(),
            "{what}: {}",
            answer.text()
        );
        ensure!(
            answer.header("subscription-protocol").is_empty(),
            "{what}: {:?}",
            answer.headers
        );
    }
    let https_may_knock = router.connections() - connections;
    ensure!(
        https_may_knock <= 1,
        "the router was called {https_may_knock} times"
    );
    ensure!(
        other.connections() == 0,
        "a host that is not on the list was called"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_that_forgets_ends_the_subscription_and_one_that_stumbles_does_not() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("stumble", 1).await?;
    let router = Router::start().await?;
    let gateway = gateway(&world, &topic, &router, "").await?;
    let token = world.user("north");
    let ask = |id| Ask::new(id, EVENTS, json!({"after": "earliest"}));

    // 404: the end, without a word.
    router.know("gone", "a verifier");
    router.subscribe(gateway.address(), &token, ask("gone")).await?;
    world.producer.send(&north(0).record(&topic)).await?;
    router.until("gone", "next", 1).await?;
    router.forget("gone");
    world.producer.send(&north(1).record(&topic)).await?;
    nobody_reads(&gateway).await?;
    world.producer.send(&north(2).record(&topic)).await?;

    // 401: somebody else has the id now. That is an end, too.
    router.know("taken", "a verifier");
    router.subscribe(gateway.address(), &token, ask("taken")).await?;
    router.until("taken", "next", 3).await?;
    router.know("taken", "another verifier");
    world.producer.send(&north(3).record(&topic)).await?;
    nobody_reads(&gateway).await?;

    // A server error now and then: the same result comes again, nothing is lost, the order stays.
    router.know("stumbles", "a verifier");
    for status in [500, 503, 502] {
        router.answer_once("next", status);
    }
    router
        .subscribe(gateway.address(), &token, ask("stumbles"))
        .await?;
    wait::until_true("all results", || router.results("stumbles").len() >= 4).await?;
    let got: Vec<Value> = router
        .results("stumbles")
        .iter()
        .map(|result| result["data"]["observations"]["data"]["n"].clone())
        .collect();
    ensure!(got == [json!(0), json!(1), json!(2), json!(3)], "{got:?}");

    // The others were told nothing after their end.
    let calls = router.calls("gone");
    ensure!(
        calls.iter().filter(|call| call.status == 404).count() == 1
            && calls.last().is_some_and(|call| call.status == 404),
        "{calls:?}"
    );
    let calls = router.calls("taken");
    let refused = calls
        .iter()
        .position(|call| call.status == 401)
        .context("a 401")?;
    ensure!(
        calls
            .iter()
            .skip(refused)
            .all(|call| call.action != "next" || call.status == 401),
        "{calls:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_that_went_away_is_given_up() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("away", 1).await?;
    let mut router = Router::start().await?;
    let gateway = gateway(&world, &topic, &router, "retry_max_ms = 1000").await?;
    router.know("1", "a verifier");
    router
        .subscribe(
            gateway.address(),
            &world.user("north"),
            Ask::new("1", EVENTS, json!({})),
        )
        .await?;
    router.stop().await;
    world.producer.send(&north(0).record(&topic)).await?;
    nobody_reads(&gateway).await
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_come_as_often_as_they_were_asked_for() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("heartbeats", 1).await?;
    let router = Router::start().await?;
    let gateway = gateway(&world, &topic, &router, "").await?;
    let token = world.user("north");
    for (id, heartbeat_ms) in [("beating", 200), ("quiet", 0)] {
        router.know(id, "a verifier");
        let mut ask = Ask::new(id, EVENTS, json!({}));
        ask.heartbeat_ms = heartbeat_ms;
        let answer = router.subscribe(gateway.address(), &token, ask).await?;
        ensure!(answer.status == 200, "{}", answer.text());
    }
    router.until("beating", "check", 5).await?;
    let quiet = router.calls("quiet");
    ensure!(quiet.len() == 1, "only the first check: {quiet:?}");
    // A heartbeat that finds the subscription gone ends it.
    router.forget("beating");
    router.forget("quiet");
    world.producer.send(&north(0).record(&topic)).await?;
    nobody_reads(&gateway).await?;
    router.was_told_properly()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_ends_with_its_token_and_says_so() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("callback-expiry", 1).await?;
    let router = Router::start().await?;
    let gateway = gateway(&world, &topic, &router, "").await?;
    router.know("1", "a verifier");
    let token = world
        .issuer
        .token("north")
        .scopes(contract::USER)
        .good_for(3)
        .sign();
    router
        .subscribe(gateway.address(), &token, Ask::new("1", EVENTS, json!({})))
        .await?;
    world.producer.send(&north(0).record(&topic)).await?;
    let complete = router.until("1", "complete", 1).await?.remove(0);
    ensure!(
        complete.body["errors"][0]["extensions"]["code"] == "token_expired",
        "{complete:?}"
    );
    ensure!(router.results("1").len() == 1, "{:?}", router.calls("1"));
    nobody_reads(&gateway).await?;
    router.was_told_properly()
}

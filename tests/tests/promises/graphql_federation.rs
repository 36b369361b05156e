//! As a subgraph: the SDL composes with another subgraph's, and a real federation router gives live events with the
//! other subgraph's fields joined, over each way in which it can consume subscriptions.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tidewire_tests::gateway::{Gateway, Setup, binary};
use tidewire_tests::graphql;
use tidewire_tests::http::{self, bearer};
use tidewire_tests::node::{self, Node};
use tidewire_tests::plan::{self, Planned};
use tidewire_tests::ports;
use tidewire_tests::reader::{Reader, Surface, Want};
use tidewire_tests::sse::Sse;
use tidewire_tests::volume::{dice, say, volume};
use tidewire_tests::wait;

use crate::support::World;

/// What is asked of the router: our fields, and those that only the other subgraph has.
const JOINED: &str = "subscription Joined($after: String) { observations(after: $after) { kind cursor data { \
     partition n status patient { id name birthDate } performer { name } } } }";

/// The SDL that `tidewire docs sdl` prints for these files.
async fn sdl(setup: &Setup, folder: &Path) -> Result<String> {
    let config = setup.files(folder)?;
    let output = tokio::task::spawn_blocking(move || {
        Command::new(binary())
            .args(["docs", "sdl", "--config"])
            .arg(config)
            .output()
    })
    .await??;
    if !output.status.success() {
        bail!("docs sdl: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// The other subgraph, the composed graph and a router in front of both.
struct Federation {
    people: Node,
    router: Node,
    address: std::net::SocketAddr,
    _folder: tempfile::TempDir,
}

impl Federation {
    async fn start(
        setup: &Setup,
        gateway: &Gateway,
        port: u16,
        (subscriptions, planner): (&str, &str),
    ) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut people = Node::start("people.mjs", &[]).await?;
        let people_port = people.until("listen").await?;
        let supergraph = supergraph(
            &folder,
            &sdl(setup, folder.path()).await?,
            &format!("http://{}/graphql", gateway.address()),
            &format!("http://127.0.0.1:{people_port}/graphql"),
        )
        .await?;
        let port = port.to_string();
        let router = Node::start_with(
            "node_modules/@graphql-hive/gateway/dist/bin.js",
            &["supergraph", "-c", "router.config.mjs"],
            &[
                ("SUPERGRAPH", &supergraph),
                ("PORT", &port),
                ("SUBSCRIPTIONS", subscriptions),
                ("PLANNER", planner),
                ("NODE_ENV", "production"),
            ],
        )
        .await?;
        let address = format!("127.0.0.1:{port}").parse()?;
        wait::until("the router to be ready", || async {
            let answer = http::get(address, "/readiness", &[]).await.ok()?;
            (answer.status == 200).then_some(())
        })
        .await?;
        Ok(Self {
            people,
            router,
            address,
            _folder: folder,
        })
    }

    /// Subscribes through the router.
    async fn subscribe(&self, token: &str, query: &str, after: &str) -> Result<Sse> {
        let body = json!({"query": query, "variables": {"after": after}});
        let request = http::client()
            .post(format!("http://{}/graphql", self.address))
            .header("accept", "text/event-stream")
            .header("content-type", "application/json")
            .header("authorization", bearer(token))
            .body(body.to_string());
        match Sse::begin(request).await? {
            Ok(sse) => Ok(sse),
            Err(answer) => bail!("{} {}", answer.status, answer.text()),
        }
    }
}

/// Composes; the path of the supergraph's file.
async fn supergraph(folder: &tempfile::TempDir, sdl: &str, events: &str, people: &str) -> Result<String> {
    let place = |name: &str| folder.path().join(name).display().to_string();
    let (ours, theirs, both) = (
        place("events.graphql"),
        place("people.graphql"),
        place("supergraph.graphql"),
    );
    std::fs::write(&ours, sdl)?;
    std::fs::write(&theirs, node::run("people.mjs", &["sdl"]).await?)?;
    let composed = node::run(
        "compose.mjs",
        &[
            &format!("events={events}={ours}"),
            &format!("people={people}={theirs}"),
        ],
    )
    .await
    .with_context(|| sdl.to_owned())?;
    std::fs::write(&both, composed)?;
    Ok(both)
}

/// The next event that the router gives.
async fn event(sse: &mut Sse) -> Result<Value> {
    let next = sse.until("next").await?;
    graphql::event(next.json()?)
}

async fn now(gateway: &Gateway, token: &str) -> Result<String> {
    let mut reader = Reader::open(Surface::Pull, gateway.address(), Want::new("observations", token)).await?;
    reader.until_live().await?;
    Ok(reader.cursor().context("a cursor")?.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sdl_composes_with_another_subgraph_and_says_nothing_of_streams() -> Result<()> {
    let world = World::new().await?;
    let folder = tempfile::tempdir()?;
    let setup = world.graphql(&["some-topic"]);
    let printed = sdl(&setup, folder.path()).await?;
    for ours in [
        "@stream",
        "@attribute",
        "@jsonValue",
        "@event",
        "tenant",
        "some-topic",
    ] {
        ensure!(!printed.contains(ours), "{ours} in {printed}");
    }
    // What `_service` gives to a router is the same.
    let topic = world.topic("sdl", 1).await?;
    let gateway = world.graphql(&[&topic]).start().await?;
    let authorization = bearer(&world.user("north"));
    let answer = http::post(
        gateway.address(),
        "/graphql",
        &[("authorization", &authorization)],
        &json!({"query": "{ _service { sdl } }"}),
    )
    .await?;
    ensure!(
        answer.json()?["data"]["_service"]["sdl"] == printed,
        "{}",
        answer.text()
    );
    // Alone, and with the subgraph that owns the people.
    let place = folder.path().join("alone.graphql").display().to_string();
    std::fs::write(&place, &printed)?;
    let composed = tempfile::tempdir()?;
    let path = supergraph(
        &composed,
        &printed,
        "http://events/graphql",
        "http://people/graphql",
    )
    .await?;
    let text = std::fs::read_to_string(path)?;
    ensure!(
        text.contains("type Subscription") && text.contains("EVENTS"),
        "{text}"
    );
    // Without a second subgraph there may be no query at all, which no supergraph can be without.
    if printed.contains("type Query") {
        node::run("compose.mjs", &[&format!("events=http://events/graphql={place}")]).await?;
    }
    Ok(())
}

async fn through_the_router(subscriptions: &str, planner: &str) -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("federation", 2).await?;
    let mut setup = world.graphql(&[&topic]);
    let port = ports::free();
    setup.more = format!(
        "{}\n[graphql.callback]\nhosts = [\"127.0.0.1:{port}\"]\n",
        graphql::SETTINGS
    );
    let gateway = setup.start().await?;
    let mut federation = Federation::start(&setup, &gateway, port, (subscriptions, planner)).await?;
    let start = now(&gateway, &world.user("north")).await?;

    // Tenants; two patients of one tenant with the same operation, which a router may take for one; and the same user twice.
    let west = now(&gateway, &world.user("west")).await?;
    let south = now(&gateway, &world.user("south")).await?;
    type Wants = fn(&Planned) -> bool;
    let readers: Vec<(&str, String, &str, Wants)> = vec![
        ("north", world.user("north"), &start, |planned| {
            planned.tenant == "north"
        }),
        ("south", world.user("south"), &south, |planned| {
            planned.tenant == "south"
        }),
        ("patient 1", world.patient("north", "1"), &start, |planned| {
            planned.tenant == "north" && planned.patient == 1
        }),
        ("patient 2", world.patient("north", "2"), &start, |planned| {
            planned.tenant == "north" && planned.patient == 2
        }),
        ("north again", world.user("north"), &start, |planned| {
            planned.tenant == "north"
        }),
    ];
    let mut open = Vec::new();
    for (name, token, after, wants) in readers {
        let sse = federation
            .subscribe(&token, JOINED, after)
            .await
            .with_context(|| name.to_owned())?;
        open.push((name, sse, wants));
    }
    let mut nothing = federation.subscribe(&world.user("west"), JOINED, &west).await?;

    let whole = plan::plan(&mut dice("federation"), 2, volume(40, 400));
    world.producer.send_all(&plan::records(&whole, &topic)).await?;
    let mut count = 0;
    let mut resume = Value::Null;
    for (name, sse, wants) in &mut open {
        let mut owed = plan::owed(&whole, *wants);
        ensure!(!owed.is_done(), "the plan has something for {name}");
        let tenant = if *name == "south" { "south" } else { "north" };
        while !owed.is_done() {
            let event = event(sse)
                .await
                .with_context(|| format!("{subscriptions}, {name}"))?;
            owed.take(&event)
                .with_context(|| format!("{subscriptions}, {name}"))?;
            let data = &event["data"];
            let patient = data["patient"]["id"].as_str().context("a patient")?;
            ensure!(
                data["patient"]["name"] == format!("Patient {patient} of {tenant}")
                    && data["patient"]["birthDate"] == "1970-01-01",
                "{name}: the other subgraph's fields, asked for with the reader's own token: {event}"
            );
            if name.starts_with("patient") {
                ensure!(data["performer"].is_null(), "hidden from a patient: {event}");
                ensure!(name.ends_with(patient), "{name}: {event}");
            } else {
                ensure!(
                    data["performer"][0]["name"] == format!("Practitioner 9 of {tenant}"),
                    "{event}"
                );
            }
            count += 1;
            resume = event["cursor"].clone();
        }
    }
    // A tenant without events got nothing: what comes first is the first of its own.
    let mut marker = whole.first().context("a plan")?.clone();
    (marker.tenant, marker.n) = ("west", 1_000_000);
    world.producer.send(&marker.record(&topic)).await?;
    let first = event(&mut nothing).await?;
    ensure!(first["data"]["n"] == 1_000_000, "{first}");

    // The cursor went through the router as a field, and is good for coming back through it.
    let after = resume.as_str().context("a cursor")?.to_owned();
    marker.tenant = "north";
    world.producer.send(&marker.record(&topic)).await?;
    let mut again = federation.subscribe(&world.user("north"), JOINED, &after).await?;
    let back = event(&mut again).await?;
    ensure!(back["data"]["n"] == 1_000_000, "{back}");

    // Nobody: the router says so, and gives nothing.
    let refused = federation.subscribe("nonsense", JOINED, "latest").await;
    if let Ok(mut sse) = refused {
        let next = sse.until("next").await?.json()?;
        ensure!(next["errors"].is_array(), "{next}");
    }
    drop((open, nothing, again));
    // What clients gave up ends at the gateway, too.
    wait::until("the router's subscriptions to end", || async {
        (gateway.metric("groups", &[]).await.ok()? == 0.0).then_some(())
    })
    .await?;
    let asked = std::iter::from_fn(|| federation.people.heard()).count();
    while federation.router.heard().is_some() {}
    say(&format!(
        "federation over {subscriptions}, planned in {planner}: {count} joined events, {asked} requests to the other subgraph"
    ));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_joins_live_events_over_server_sent_events() -> Result<()> {
    through_the_router("sse", "javascript").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_joins_live_events_over_websocket() -> Result<()> {
    through_the_router("ws", "javascript").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_joins_live_events_over_callbacks() -> Result<()> {
    through_the_router("callback", "javascript").await
}

/// Hive Router is a program of its own, in Rust; its query planner is to be had from npm, and works within Hive Gateway.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_routers_planner_joins_them_too() -> Result<()> {
    through_the_router("ws", "rust").await
}

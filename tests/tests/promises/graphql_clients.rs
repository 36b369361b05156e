//! The reference clients from npm, as pages use them: subscribe, receive, unsubscribe, come back with a cursor, an error,
//! a token that expires; and a gateway that is killed under them.

use std::collections::{BTreeMap, VecDeque};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tidewire_tests::contract;
use tidewire_tests::exact::Exact;
use tidewire_tests::gateway::Gateway;
use tidewire_tests::graphql::EVENTS;
use tidewire_tests::node::Node;
use tidewire_tests::plan::{self, Planned};
use tidewire_tests::reader::{Reader, Surface, Want};
use tidewire_tests::volume::{dice, say, volume};
use tidewire_tests::wait;

use crate::support::World;

/// Each client, and whether it comes back by itself when its connection breaks.
const CLIENTS: [(&str, bool); 7] = [
    ("graphql-ws", true),
    ("graphql-sse", true),
    ("graphql-sse-single", true),
    ("apollo-multipart", false),
    ("apollo-ws", true),
    ("urql-sse", false),
    ("urql-ws", true),
];

/// A reference client in a process of its own.
struct Client {
    name: &'static str,
    node: Node,
    ready: BTreeMap<String, VecDeque<Value>>,
}

impl Client {
    async fn start(name: &'static str, gateway: &Gateway, token: &str) -> Result<Self> {
        let base = format!("http://{}", gateway.address());
        let mut node = Node::start("clients.mjs", &[name, &base]).await?;
        node.until("ready").await?;
        let mut client = Self {
            name,
            node,
            ready: BTreeMap::new(),
        };
        client.token(token)?;
        Ok(client)
    }

    fn token(&mut self, token: &str) -> Result<()> {
        self.node.say(&json!({"do": "token", "token": token}))
    }

    /// Subscribes, from a cursor on.
    fn ask(&mut self, id: &str, query: &str, after: &str) -> Result<()> {
        self.node
            .say(&json!({"do": "subscribe", "id": id, "query": query, "after": after}))
    }

    fn unsubscribe(&mut self, id: &str) -> Result<()> {
        self.node.say(&json!({"do": "unsubscribe", "id": id}))
    }

    /// What an operation (or `socket`) is told next.
    async fn told(&mut self, id: &str) -> Result<Value> {
        loop {
            if let Some(told) = self.ready.get_mut(id).and_then(VecDeque::pop_front) {
                return Ok(told);
            }
            let said = self
                .node
                .hear()
                .await
                .with_context(|| format!("{}, operation {id}, having {:?}", self.name, self.ready))?;
            let whose = said["id"].as_str().unwrap_or("socket").to_owned();
            self.ready.entry(whose).or_default().push_back(said);
        }
    }

    /// Waits until it says once more that it is connected.
    async fn connected(&mut self) -> Result<()> {
        while self.told("socket").await?["socket"] != "connected" {}
        Ok(())
    }

    /// The next event of an operation; an error or an end is an error.
    async fn event(&mut self, id: &str) -> Result<Value> {
        let told = self.told(id).await?;
        let event = &told["next"]["data"]["observations"];
        ensure!(event.is_object(), "{}: {told} instead of an event", self.name);
        ensure!(
            told["next"]["extensions"]["cursor"] == event["cursor"],
            "{}: the cursor is a field and an extension: {told}",
            self.name
        );
        Ok(event.clone())
    }

    /// The errors that an operation is refused or ended with, however this client presents them.
    async fn errors(&mut self, id: &str) -> Result<Value> {
        loop {
            let told = self.told(id).await?;
            for errors in [&told["error"]["errors"], &told["next"]["errors"]] {
                if errors.is_array() {
                    return Ok(errors.clone());
                }
            }
            ensure!(
                told["next"].is_object(),
                "{}: {told} instead of errors",
                self.name
            );
        }
    }
}

/// With the cursor beside what exact sequences need.
fn asked() -> String {
    EVENTS.replace("kind data", "kind cursor data")
}

/// The cursor behind everything so far.
async fn now(gateway: &Gateway, token: &str) -> Result<String> {
    let mut reader = Reader::open(Surface::Pull, gateway.address(), Want::new("observations", token)).await?;
    reader.until_live().await?;
    Ok(reader.cursor().context("a cursor")?.to_owned())
}

fn of_north(plan: &[Planned]) -> Exact {
    plan::owed(plan, |planned| planned.tenant == "north")
}

#[tokio::test(flavor = "multi_thread")]
async fn each_client_subscribes_receives_unsubscribes_and_comes_back_with_a_cursor() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("clients", 2).await?;
    let gateway = world.graphql(&[&topic]).start().await?;
    let token = world.user("north");
    let whole = plan::plan(&mut dice("graphql clients"), 2, volume(60, 600));
    let (first, second) = whole.split_at(whole.len() / 2);
    let mut clients = Vec::new();
    let start = now(&gateway, &token).await?;
    for (name, _) in CLIENTS {
        let mut client = Client::start(name, &gateway, &token).await?;
        client.ask("1", &asked(), &start)?;
        clients.push(client);
    }
    world.producer.send_all(&plan::records(first, &topic)).await?;
    let mut cursors = Vec::new();
    for client in &mut clients {
        let mut owed = of_north(first);
        let mut cursor = String::new();
        while !owed.is_done() {
            let event = client.event("1").await?;
            owed.take(&event).with_context(|| client.name)?;
            event["cursor"]
                .as_str()
                .unwrap_or_default()
                .clone_into(&mut cursor);
        }
        cursors.push(cursor);
        client.unsubscribe("1")?;
    }
    // An operation that was given up holds nothing at the gateway any more.
    wait::until("the subscriptions to end", || async {
        (gateway.metric("groups", &[]).await.ok()? == 0.0).then_some(())
    })
    .await?;
    world.producer.send_all(&plan::records(second, &topic)).await?;
    for (client, cursor) in clients.iter_mut().zip(&cursors) {
        client.ask("2", &asked(), cursor)?;
        let mut owed = of_north(second);
        while !owed.is_done() {
            let event = client.event("2").await?;
            owed.take(&event).with_context(|| client.name)?;
        }
        // Nothing came for the operation that was given up.
        ensure!(
            client
                .ready
                .get("1")
                .is_none_or(|told| told.iter().all(|told| told.get("next").is_none())),
            "{}: {:?}",
            client.name,
            client.ready
        );
    }
    say(&format!(
        "reference clients: {} of them, {} events each",
        CLIENTS.len(),
        whole.len()
    ));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_client_is_told_why_an_operation_is_refused() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("refused", 1).await?;
    let gateway = world.graphql(&[&topic]).start().await?;
    let token = world.user("north");
    let start = now(&gateway, &token).await?;
    for (name, _) in CLIENTS {
        let mut client = Client::start(name, &gateway, &token).await?;
        client.ask("good", &asked(), &start)?;
        client.ask("bad", "subscription Bad { observations { nothing } }", &start)?;
        let errors = client.errors("bad").await?;
        let message = errors[0]["message"].as_str().unwrap_or_default();
        ensure!(message.contains("nothing"), "{name}: {errors}");
        ensure!(errors[0]["extensions"]["code"].is_string(), "{name}: {errors}");
        // Under a name of its own: Apollo Client takes operations for one that differ only in their extensions.
        client.ask("cursor", &asked().replace("Events", "Cursor"), "no cursor at all")?;
        let errors = client.errors("cursor").await?;
        ensure!(
            errors[0]["extensions"]["code"] == "cursor_invalid",
            "{name}: {errors}"
        );
        // The other operation does not feel it.
        world.producer.send(&north(0).record(&topic)).await?;
        client.event("good").await?;
        say(&format!(
            "{name}: refusals are told, and the other operation goes on"
        ));
    }
    Ok(())
}

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

#[tokio::test(flavor = "multi_thread")]
async fn each_client_is_told_of_expiry_and_goes_on_with_a_new_token() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("expiry", 1).await?;
    let gateway = world.graphql(&[&topic]).start().await?;
    let long = world.user("north");
    let start = now(&gateway, &long).await?;
    world.producer.send(&north(0).record(&topic)).await?;
    let mut clients = Vec::new();
    for (name, _) in CLIENTS {
        let short = world
            .issuer
            .token("north")
            .scopes(contract::USER)
            .good_for(5)
            .sign();
        let mut client = Client::start(name, &gateway, &short).await?;
        client.ask("1", &asked(), &start)?;
        let event = client.event("1").await?;
        ensure!(event["data"]["n"] == 0, "{name}: {event}");
        client.token(&long)?;
        clients.push((client, event["cursor"].as_str().unwrap_or_default().to_owned()));
    }
    for (client, cursor) in &mut clients {
        let name = client.name;
        if name == "graphql-sse-single" {
            // The one response that carries all operations ends, and the client reserves another.
            client.connected().await?;
            client.connected().await?;
        } else if name.ends_with("-ws") {
            // The socket is closed with 4403, after which graphql-ws comes back by itself, with the token of then.
            loop {
                let told = client.told("socket").await?;
                if told["socket"] == "closed" {
                    ensure!(told["code"] == 4403, "{name}: {told}");
                    break;
                }
            }
        } else {
            let errors = client.errors("1").await?;
            ensure!(
                errors[0]["extensions"]["code"] == "token_expired",
                "{name}: {errors}"
            );
            client.ask("1", &asked(), cursor)?;
        }
    }
    world.producer.send(&north(1).record(&topic)).await?;
    for (client, _) in &mut clients {
        // What is said behind the errors is the end of the operation that expired.
        let event = loop {
            let told = client.told("1").await?;
            let event = &told["next"]["data"]["observations"];
            if event.is_object() {
                break event.clone();
            }
            ensure!(told["complete"] == true || told["error"].is_object(), "{told}");
        };
        ensure!(event["data"]["n"] == 1, "{}: {event}", client.name);
    }
    Ok(())
}

/// The gateway is killed in mid-stream, twice. Clients that come back by themselves send the operation again that they
/// were given; with the place written into it at each result, nothing is missing and nothing comes twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_retry_after_a_kill_loses_nothing_and_repeats_nothing() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("killed", 3).await?;
    let mut gateway = world.graphql(&[&topic]).start().await?;
    let token = world.user("north");
    let whole = plan::plan(&mut dice("graphql killed"), 3, volume(600, 6000));
    let start = now(&gateway, &token).await?;
    let mut clients = Vec::new();
    for (name, _) in CLIENTS.iter().filter(|(_, comes_back)| *comes_back) {
        let mut client = Client::start(name, &gateway, &token).await?;
        client.ask("1", &asked(), &start)?;
        clients.push((client, of_north(&whole)));
    }
    let third = whole.len() / 3;
    let mut pieces = whole.chunks(third.max(1)).peekable();
    while let Some(piece) = pieces.next() {
        // Each has come back before the next kill.
        for (client, _) in &mut clients {
            client.connected().await.with_context(|| client.name)?;
        }
        let (before, after) = piece.split_at(piece.len() / 2);
        world.producer.send_all(&plan::records(before, &topic)).await?;
        for (client, owed) in &mut clients {
            take(client, owed, 1).await?;
        }
        if pieces.peek().is_some() {
            gateway.kill()?;
            world.producer.send_all(&plan::records(after, &topic)).await?;
            gateway.resume().await?;
        } else {
            world.producer.send_all(&plan::records(after, &topic)).await?;
        }
    }
    let mut returned = BTreeMap::new();
    for (client, owed) in &mut clients {
        let left = owed.left();
        take(client, owed, left).await?;
        returned.insert(client.name, owed.got());
    }
    say(&format!(
        "silent retries over two kills: {returned:?} events, 0 missing, 0 twice"
    ));
    Ok(())
}

async fn take(client: &mut Client, owed: &mut Exact, count: usize) -> Result<()> {
    for _ in 0..count {
        let event = client.event("1").await?;
        if let Err(error) = owed.take(&event) {
            bail!("{}: {error:#}", client.name);
        }
    }
    Ok(())
}

/// Without the recipe, the silent retry of graphql-ws begins where the operation began: that is why the recipe is there.
/// From one socket and by hand: what the gateway does with the same payload twice.
#[tokio::test(flavor = "multi_thread")]
async fn the_extension_beats_the_argument_as_the_last_event_id_does() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("beats", 1).await?;
    let gateway = world.graphql(&[&topic]).start().await?;
    let token = world.user("north");
    for n in 0..3 {
        world.producer.send(&north(n).record(&topic)).await?;
    }
    let mut wire = tidewire_tests::graphql::Wire::open(gateway.address(), &token).await?;
    let mut payload = json!({"query": asked(), "variables": {"after": "earliest"}});
    wire.start("1", &payload).await?;
    let event = wire.event("1").await?;
    ensure!(event["data"]["n"] == 0, "{event}");
    payload["extensions"] = json!({"after": event["cursor"]});
    wire.start("2", &payload).await?;
    let event = wire.event("2").await?;
    ensure!(event["data"]["n"] == 1, "{event}");
    Ok(())
}

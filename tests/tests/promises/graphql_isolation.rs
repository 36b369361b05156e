//! Nothing to the wrong reader, through GraphQL: random selections of random streams, hidden fields among them, under
//! aliases and in fragments. What comes equals the masked document, plainly selected from.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use auth::access::Grant;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use schemas::contract::Contract;
use schemas::decode::Decoder;
use schemas::filter::Predicate;
use secrecy::SecretString;
use serde_json::{Value, json};
use subscriptions::graphql::{Options, Prepared, Request, Schema};
use tidewire_tests::gateway::{Gateway, Setup};
use tidewire_tests::graphql::{SETTINGS, Wire};
use tidewire_tests::issuer::Issuer;
use tidewire_tests::oracle::random;
use tidewire_tests::oracle::selection::{SDL, Selection};
use tidewire_tests::oracle::{Filter, Model, Record, Seen, Who, leaves};
use tidewire_tests::producer::{self, Producer};
use tidewire_tests::reader::{Reader, Surface, Want};
use tidewire_tests::volume::{say, volume};
use tidewire_tests::ws::Said;

use crate::isolation::{Case, case, principal, raw, runner};
use crate::support::World;

/// An operation by dice.
#[derive(Debug, Clone)]
struct Asked {
    query: String,
    selection: Selection,
    /// The key under which the data comes.
    data: &'static str,
}

fn asked(model: &Model, filter: &Filter, dice: &mut impl Rng) -> Asked {
    let selection = Selection::random(dice);
    let data = if dice.random_bool(0.5) { "data" } else { "hidden" };
    let alias = if data == "data" { "" } else { "hidden: " };
    let arguments: Vec<String> = filter
        .iter()
        .map(|(name, values)| format!("{name}: {}", json!(values)))
        .chain(["after: $after".to_owned()])
        .collect();
    let mut fragments = String::new();
    let selected = selection.text(&mut fragments);
    let event = format!(
        "event: {} ({}) {{ kind key {alias}data {selected} }}",
        model.name,
        arguments.join(", ")
    );
    let query = format!("subscription Some($after: String) {{ {event} }}{fragments}");
    Asked {
        query,
        selection,
        data,
    }
}

/// Whether a payload is what the rules allow of a record, plainly selected from.
fn same(payload: &Value, asked: &Asked, allowed: &Seen, record: &Record) -> Result<()> {
    ensure!(payload.get("errors").is_none(), "errors in {payload}");
    let event = &payload["data"]["event"];
    let wanted = asked.selection.of_masked(&allowed.data);
    ensure!(
        event[asked.data] == wanted,
        "given {}, the rules allow {wanted}",
        event[asked.data]
    );
    if allowed.silent {
        ensure!(
            event["key"].is_null(),
            "a key beside something hidden that is not there: {event}"
        );
    }
    if allowed.whole {
        ensure!(event["key"] == record.key, "the key in {event}");
    }
    let (mut all, mut shown) = (Vec::new(), Vec::new());
    leaves(&record.value, &mut all);
    leaves(&allowed.data, &mut shown);
    let text = payload.to_string();
    for secret in all
        .iter()
        .filter(|leaf| leaf.starts_with('s') && leaf.len() > 6 && !shown.contains(leaf))
    {
        ensure!(
            !text.contains(secret.as_str()),
            "{secret} is hidden and stands in {text}"
        );
    }
    Ok(())
}

#[test]
fn selections_show_what_the_rules_allow_restated() {
    let cases = volume(5_000, 20_000);
    let mut runner = runner("selections_show_what_the_rules_allow_restated", cases);
    let told = runner.run(&(case(), any::<u64>()), |(case, seed)| {
        decide(&case, seed).map_err(|error| TestCaseError::fail(format!("{error:#}")))
    });
    if let Err(error) = told {
        panic!("{error}");
    }
    say(&format!(
        "isolation through GraphQL, pure: {cases} random streams, readers and selections, 6 records each"
    ));
}

/// Takes a case through the product's own decisions, without Kafka or sockets.
fn decide(case: &Case, seed: u64) -> Result<()> {
    let sources = vec![
        (PathBuf::from("streams.toml"), case.model.toml()),
        (PathBuf::from("types.graphql"), SDL.to_owned()),
    ];
    let contract = match Contract::from_sources(sources) {
        Ok(contract) => Arc::new(contract),
        Err(findings) => bail!("{findings:?}\n{}", case.model.toml()),
    };
    let schema = Schema::new(&contract, Options::default())?;
    let asked = asked(&case.model, &case.filter, &mut StdRng::seed_from_u64(seed));
    let refusal = case.model.refusal(&case.who, &case.filter);
    let request: Request = serde_json::from_value(json!({"query": asked.query}))?;
    let who = principal(&case.who);
    let bound = match schema.prepare(&request, Some(&who)) {
        Ok(Prepared::Subscription(bound)) => bound,
        Ok(Prepared::Answer(_)) => bail!("no subscription: {}", asked.query),
        // An argument that nobody declared is no argument.
        Err(refused) => {
            ensure!(refusal.is_some(), "refused: {refused:?}: {}", asked.query);
            return Ok(());
        }
    };
    let stream = contract.stream(&case.model.name).context("the stream is there")?;
    let selected = Grant::compile(stream, &who)
        .map_err(|denied| denied.code.name)
        .and_then(|grant| {
            let filter = Predicate::from_json(stream, &Value::Object(bound.filter.clone()))
                .map_err(|bad| bad.code.name)?;
            grant.select(stream, &filter).map_err(|denied| denied.code.name)
        });
    let wants = match (selected, refusal) {
        (Ok(wants), None) => wants,
        (Err(code), Some(refusal)) if code == refusal => return Ok(()),
        (selected, refusal) => bail!("{:?}, the rules say {refusal:?}", selected.err()),
    };
    let decoder = Decoder::new(
        Arc::clone(stream),
        &SecretString::from("a key for event ids, long enough"),
    );
    for (offset, record) in (0..).zip(&case.records) {
        let given = match decoder.decode(raw(record, offset)) {
            Ok(Some(event)) => {
                let bits = wants.matching(&event);
                let mut out = Vec::new();
                (bits != 0).then(|| {
                    bound
                        .projection
                        .event(&event, &wants.mask(bits), "cursor", &mut out);
                    out
                })
            }
            Ok(None) | Err(_) => None,
        };
        let allowed = case.model.sees(&case.who, &case.filter, record);
        match (given, allowed) {
            (None, None) => {}
            (Some(given), Some(allowed)) => {
                let payload: Value = serde_json::from_slice(&given)?;
                ensure!(payload["extensions"]["cursor"] == "cursor", "{payload}");
                same(&payload, &asked, &allowed, record).with_context(|| asked.query.clone())?;
            }
            (given, allowed) => bail!(
                "given {:?}, the rules allow {allowed:?} of {record:?}",
                given.map(|given| String::from_utf8_lossy(&given).into_owned())
            ),
        }
    }
    Ok(())
}

/// One reader of a random contract, with a tenant and an operation of its own.
struct Tried {
    who: Who,
    filter: Filter,
    asked: Asked,
    token: String,
    live: Option<Wire>,
}

#[tokio::test(flavor = "multi_thread")]
async fn graphql_readers_get_what_the_rules_allow_live_and_replayed() -> Result<()> {
    let (contracts, cases) = volume((3, 12), (20, 50));
    let mut runner = runner("graphql_readers_get_what_the_rules_allow_live_and_replayed", 1);
    let mut compared = 0;
    for contract in 0..contracts {
        compared += try_contract(&mut runner, cases)
            .await
            .with_context(|| format!("contract {contract}"))?;
    }
    say(&format!(
        "isolation through GraphQL, gateway: {contracts} random contracts x {cases} cases, {compared} events compared"
    ));
    Ok(())
}

fn sample<T: std::fmt::Debug>(runner: &mut TestRunner, strategy: impl Strategy<Value = T>) -> Result<T> {
    let tree = strategy
        .new_tree(runner)
        .map_err(|error| anyhow::anyhow!("{error}"))?;
    Ok(tree.current())
}

async fn try_contract(runner: &mut TestRunner, cases: usize) -> Result<usize> {
    let world = World::new().await?;
    let topic = world.topic("graphql-isolation", 3).await?;
    let model = sample(runner, random::model("things".to_owned(), topic.clone()))?;
    let mut setup = Setup::new(world.kafka.bootstrap(), &world.issuer, model.toml());
    setup.sdl = Some(SDL.to_owned());
    SETTINGS.clone_into(&mut setup.more);
    let gateway = setup.start().await.with_context(|| model.toml())?;
    let tenants: Vec<String> = (0..cases).map(|case| format!("t{case}")).collect();
    let mut readers = Vec::new();
    for tenant in &tenants {
        let (who, filter) = sample(runner, (random::who(tenant.clone()), random::filter()))?;
        let seed = sample(runner, any::<u64>())?;
        let asked = asked(&model, &filter, &mut StdRng::seed_from_u64(seed));
        readers.push(begin(&gateway, &world.issuer, &model, who, filter, asked).await?);
    }
    let mut records = Vec::new();
    for n in 0..cases * 12 {
        records.push(sample(runner, random::record(&model, tenants.clone(), n))?);
    }
    let mut produced = Vec::new();
    for (n, record) in records.iter().enumerate() {
        let mut out = producer::Record::json(&topic, &record.value)
            .on(i32::try_from(n % 3).unwrap_or(0))
            .key(&record.key);
        for (name, value) in &record.headers {
            out = out.header(name, value);
        }
        produced.push(out);
    }
    Producer::new(world.kafka.bootstrap())?
        .send_all(&produced)
        .await?;

    let mut compared = 0;
    for tried in readers {
        let Some(mut live) = tried.live else { continue };
        let allowed: Vec<(Seen, &Record)> = records
            .iter()
            .filter_map(|record| Some((model.sees(&tried.who, &tried.filter, record)?, record)))
            .collect();
        let context = || format!("{:?} {:?}\n{}", tried.who, tried.asked.query, model.toml());
        let mut cursor = read(&mut live, "1", &tried.asked, &allowed)
            .await
            .context("live")
            .with_context(context)?;
        let replay = json!({"query": tried.asked.query, "variables": {"after": "earliest"}});
        live.start("2", &replay).await?;
        let replayed = read(&mut live, "2", &tried.asked, &allowed)
            .await
            .context("replayed")
            .with_context(context)?;
        compared += 2 * allowed.len();
        cursor = cursor.or(replayed);
        // Nothing more was given: from the last cursor nothing comes.
        let mut want = Want::new(&model.name, &tried.token);
        want.filter.clone_from(&tried.filter);
        want.after = cursor;
        if want.after.is_some() {
            let rest = Reader::open(Surface::Pull, gateway.address(), want)
                .await?
                .until_live()
                .await?;
            ensure!(
                rest.is_empty(),
                "{rest:?} came after what is allowed\n{}",
                context()
            );
        }
    }
    Ok(compared)
}

async fn begin(
    gateway: &Gateway,
    issuer: &Issuer,
    model: &Model,
    who: Who,
    filter: Filter,
    asked: Asked,
) -> Result<Tried> {
    let mut token = issuer
        .token(&who.tenant)
        .subject(&who.subject)
        .scopes(&who.scopes.join(" "));
    for (name, value) in &who.claims {
        token = token.claim(name, value.clone());
    }
    let token = token.sign();
    let mut wire = Wire::open(gateway.address(), &token).await?;
    wire.start("1", &json!({"query": asked.query})).await?;
    let begun = loop {
        match wire.ws.hear().await? {
            Said::Message(message) if message["type"] == "error" => {
                let code = message["payload"][0]["extensions"]["code"].as_str();
                break Err(code.unwrap_or_default().to_owned());
            }
            Said::Message(message) if message["payload"]["cursors"]["1"].is_string() => break Ok(()),
            Said::Message(_) => {}
            other => bail!("{other:?}"),
        }
    };
    let declared = |name: &String| model.attributes.iter().any(|attribute| attribute.name == *name);
    let live = match (begun, model.refusal(&who, &filter)) {
        (Ok(()), None) => Some(wire),
        (Err(code), Some(refusal)) if code == refusal => None,
        // An argument that nobody declared is no argument.
        (Err(_), Some(_)) if !filter.iter().all(|(name, _)| declared(name)) => None,
        (begun, refusal) => bail!(
            "{begun:?}, the rules say {refusal:?} to {who:?}: {}\n{}",
            asked.query,
            model.toml()
        ),
    };
    Ok(Tried {
        who,
        filter,
        asked,
        token,
        live,
    })
}

/// Reads as many results as there are records to be seen: each must be what is allowed of one that is left. The last cursor.
async fn read(
    wire: &mut Wire,
    id: &str,
    asked: &Asked,
    allowed: &[(Seen, &Record)],
) -> Result<Option<String>> {
    let mut left: Vec<&(Seen, &Record)> = allowed.iter().collect();
    let mut cursor = None;
    for _ in 0..allowed.len() {
        let payload = wire.result(id).await?;
        cursor = payload["extensions"]["cursor"].as_str().map(str::to_owned);
        let is_allowed = |one: &&(Seen, &Record)| same(&payload, asked, &one.0, one.1).is_ok();
        // Results may look alike: the record whose key is told, or must not be, goes before one that could be either.
        let key = &payload["data"]["event"]["key"];
        let is_its_own = |one: &&(Seen, &Record)| *key == one.1.key || one.0.silent;
        let fits = left
            .iter()
            .position(|one| is_its_own(one) && is_allowed(one))
            .or_else(|| left.iter().position(is_allowed));
        let Some(fits) = fits else {
            bail!("{payload} is not allowed, or came twice; left: {left:?}")
        };
        left.remove(fits);
    }
    Ok(cursor)
}

//! Nothing to the wrong reader: what a reader gets equals what an independent restatement of the rules allows.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use auth::access::Grant;
use auth::token::Principal;
use bytes::Bytes;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use rand::RngCore;
use schemas::contract::{Contract, Stream};
use schemas::decode::{self, Decoder};
use schemas::filter::Predicate;
use schemas::ids::{Incarnation, Slot, TenantId};
use secrecy::SecretString;
use serde_json::{Value, json};
use tidewire_tests::gateway::{Gateway, Setup};
use tidewire_tests::issuer::Issuer;
use tidewire_tests::oracle::random;
use tidewire_tests::oracle::{Filter, Model, Record, Seen, Who, leaves};
use tidewire_tests::producer::{self, Producer};
use tidewire_tests::reader::{Item, Reader, Surface, Want};
use tidewire_tests::volume::{dice, say, volume};

use crate::support::World;

/// A test runner with the promise's dice.
pub(crate) fn runner(promise: &str, cases: u32) -> TestRunner {
    let mut seed = [0; 32];
    dice(promise).fill_bytes(&mut seed);
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed))
}

#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) model: Model,
    pub(crate) who: Who,
    pub(crate) filter: Filter,
    pub(crate) records: Vec<Record>,
}

pub(crate) fn case() -> impl Strategy<Value = Case> {
    let tenants = || vec!["north".to_owned(), "south".to_owned()];
    random::model("things".to_owned(), "topic".to_owned()).prop_flat_map(move |model| {
        let records: Vec<_> = (0..6).map(|n| random::record(&model, tenants(), n)).collect();
        (
            Just(model),
            random::who("north".to_owned()),
            random::filter(),
            records,
        )
            .prop_map(|(model, who, filter, records)| Case {
                model,
                who,
                filter,
                records,
            })
    })
}

#[test]
fn grants_decide_as_the_rules_say_restated() {
    let cases = volume(10_000, 20_000);
    let mut runner = runner("grants_decide_as_the_rules_say_restated", cases);
    let told = runner.run(&case(), |case| {
        decide(&case).map_err(|error| TestCaseError::fail(format!("{error:#}")))
    });
    if let Err(error) = told {
        panic!("{error}");
    }
    say(&format!(
        "isolation, pure: {cases} random streams, readers and filters, 6 records each"
    ));
}

/// Takes a case through the product's own decisions, without Kafka or sockets.
fn decide(case: &Case) -> Result<()> {
    let contract = Contract::from_sources(vec![
        (PathBuf::from("streams.toml"), case.model.toml()),
        (
            PathBuf::from("types.graphql"),
            tidewire_tests::contract::SDL.to_owned(),
        ),
    ]);
    let contract = match contract {
        Ok(contract) => contract,
        Err(findings) => bail!("{findings:?}\n{}", case.model.toml()),
    };
    let stream = contract.stream(&case.model.name).context("the stream is there")?;
    let wants = match admitted(stream, &case.who, &case.filter) {
        Ok(selection) => {
            ensure!(
                case.model.refusal(&case.who, &case.filter).is_none(),
                "admitted against the rules"
            );
            selection
        }
        Err(code) => {
            let refusal = case.model.refusal(&case.who, &case.filter);
            ensure!(
                refusal == Some(code),
                "refused with {code}, the rules say {refusal:?}"
            );
            return Ok(());
        }
    };
    let decoder = Decoder::new(
        Arc::clone(stream),
        &SecretString::from("a key for event ids, long enough"),
    );
    for (offset, record) in (0..).zip(&case.records) {
        let given = decoder.decode(raw(record, offset));
        let given = match given {
            Ok(Some(event)) => {
                let bits = wants.matching(&event);
                let mut out = Vec::new();
                (bits != 0).then(|| {
                    event.encode(&wants.mask(bits), &mut out);
                    out
                })
            }
            Ok(None) | Err(_) => None,
        };
        let allowed = case.model.sees(&case.who, &case.filter, record);
        match (given, allowed) {
            (None, None) => {}
            (Some(given), Some(allowed)) => {
                same(&serde_json::from_slice(&given)?, &allowed, record, &case.model)?
            }
            (given, allowed) => bail!(
                "given {:?}, the rules allow {allowed:?} of {record:?}",
                given.map(|given| String::from_utf8_lossy(&given).into_owned())
            ),
        }
    }
    Ok(())
}

fn admitted(stream: &Stream, who: &Who, filter: &Filter) -> Result<auth::access::Selection, &'static str> {
    let grant = Grant::compile(stream, &principal(who)).map_err(|denied| denied.code.name)?;
    let filter: serde_json::Map<String, Value> = filter
        .iter()
        .map(|(name, values)| (name.clone(), json!(values)))
        .collect();
    let filter = Predicate::from_json(stream, &Value::Object(filter)).map_err(|bad| bad.code.name)?;
    grant.select(stream, &filter).map_err(|denied| denied.code.name)
}

/// Somebody, as the gateway knows them once their token is verified.
pub(crate) fn principal(who: &Who) -> Principal {
    let claims = who
        .claims
        .iter()
        .filter_map(|(name, value)| Some((name.clone(), Arc::from(value.as_str()?))));
    Principal {
        issuer: "issuer".into(),
        subject: who.subject.as_str().into(),
        tenant: TenantId::parse(&who.tenant).expect("a tenant"),
        scopes: who.scopes.clone(),
        claims: claims.collect(),
        token_id: None,
        issued_at_ms: None,
        expires_at_ms: i64::MAX,
        application: None,
        denials: Arc::default(),
    }
}

pub(crate) fn raw(record: &Record, offset: i64) -> decode::Record {
    let headers = record.headers.iter();
    decode::Record {
        topic: "topic".into(),
        incarnation: Incarnation(1),
        slot: Slot(0),
        partition: 0,
        offset,
        timestamp_ms: 1_700_000_000_000,
        key: Some(Bytes::copy_from_slice(record.key.as_bytes())),
        value: Some(Bytes::from(record.value.to_string())),
        headers: headers
            .map(|(name, value)| (name.as_str().into(), Some(Bytes::from(value.clone()))))
            .collect(),
    }
}

/// Whether an event is what the rules allow of its record, and nothing of the rest stands anywhere in it.
fn same(event: &Value, allowed: &Seen, record: &Record, model: &Model) -> Result<()> {
    ensure!(
        event["data"] == allowed.data,
        "data is {}, the rules allow {}",
        event["data"],
        allowed.data
    );
    for attribute in model
        .attributes
        .iter()
        .filter(|attribute| attribute.from.starts_with('/'))
    {
        let told = event.get(&attribute.name).and_then(Value::as_str);
        let wanted = allowed.attributes.get(&attribute.name).map(String::as_str);
        ensure!(
            told == wanted,
            "{} is {told:?}, the rules allow {wanted:?} in {event}",
            attribute.name
        );
    }
    if allowed.silent {
        let mut beside = model
            .attributes
            .iter()
            .filter(|attribute| !attribute.from.starts_with('/'));
        ensure!(
            event.get("subject").is_none() && beside.all(|attribute| event.get(&attribute.name).is_none()),
            "the key or a header is told beside something hidden that is not there: {event}"
        );
    }
    if allowed.whole {
        ensure!(
            event["subject"] == record.key,
            "the key is the subject of {event}"
        );
        for attribute in model
            .attributes
            .iter()
            .filter(|attribute| !attribute.from.starts_with('/'))
        {
            let wanted = match attribute.from.strip_prefix("header:") {
                None => Some(&record.key),
                Some(name) => record
                    .headers
                    .iter()
                    .find(|(have, _)| have == name)
                    .map(|(_, value)| value),
            };
            ensure!(
                event.get(&attribute.name).and_then(Value::as_str) == wanted.map(String::as_str),
                "{event}"
            );
        }
    }
    let (mut all, mut shown) = (Vec::new(), Vec::new());
    leaves(&record.value, &mut all);
    leaves(&allowed.data, &mut shown);
    let text = event.to_string();
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

/// One reader of a random contract, with a tenant of its own.
struct Tried {
    who: Who,
    filter: Filter,
    want: Want,
    live: Option<Reader>,
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_get_what_the_rules_allow_on_live_replay_and_pull() -> Result<()> {
    let (contracts, cases) = volume((3, 12), (20, 50));
    let mut runner = runner("readers_get_what_the_rules_allow_on_live_replay_and_pull", 1);
    let mut seen = 0;
    for contract in 0..contracts {
        seen += try_contract(&mut runner, cases)
            .await
            .with_context(|| format!("contract {contract}"))?;
    }
    say(&format!(
        "isolation, gateway: {contracts} random contracts x {cases} cases, {seen} events compared"
    ));
    Ok(())
}

async fn try_contract(runner: &mut TestRunner, cases: usize) -> Result<usize> {
    let world = World::new().await?;
    let topic = world.topic("isolation", 3).await?;
    let mut sample = |strategy: BoxedStrategy<Model>| {
        strategy
            .new_tree(runner)
            .map(|tree| tree.current())
            .map_err(|error| anyhow::anyhow!("{error}"))
    };
    let model = sample(random::model("things".to_owned(), topic.clone()).boxed())?;
    let gateway = Setup::new(world.kafka.bootstrap(), &world.issuer, model.toml())
        .start()
        .await
        .with_context(|| model.toml())?;
    let tenants: Vec<String> = (0..cases).map(|case| format!("t{case}")).collect();
    let mut readers = Vec::new();
    for tenant in &tenants {
        let pair = (random::who(tenant.clone()), random::filter()).new_tree(runner);
        let (who, filter) = pair.map_err(|error| anyhow::anyhow!("{error}"))?.current();
        readers.push(begin(&gateway, &world.issuer, &model, who, filter).await?);
    }
    let mut records = Vec::new();
    for n in 0..cases * 12 {
        let record = random::record(&model, tenants.clone(), n).new_tree(runner);
        records.push(record.map_err(|error| anyhow::anyhow!("{error}"))?.current());
    }
    let place = |n: usize| i32::try_from(n % 3).unwrap_or(0);
    let mut produced = Vec::new();
    for (n, record) in records.iter().enumerate() {
        let mut out = producer::Record::json(&topic, &record.value)
            .on(place(n))
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
        let allowed: BTreeMap<i64, (Seen, &Record)> = (0..)
            .zip(&records)
            .filter_map(|(n, record)| Some((n, (model.sees(&tried.who, &tried.filter, record)?, record))))
            .collect();
        let context = || format!("{:?} {:?}\n{}", tried.who, tried.filter, model.toml());
        let mut events = Vec::new();
        for _ in 0..allowed.len() {
            events.push(live.event().await.with_context(context)?);
        }
        compare(&events, &allowed, &model)
            .context("live")
            .with_context(context)?;
        for surface in Surface::ALL {
            let want = tried.want.clone().after("earliest");
            let items = Reader::open(surface, gateway.address(), want)
                .await?
                .until_live()
                .await?;
            let replayed: Vec<Value> = items
                .into_iter()
                .filter_map(|item| match item {
                    Item::Event(event) => Some(event),
                    _ => None,
                })
                .collect();
            compare(&replayed, &allowed, &model)
                .with_context(|| format!("{surface:?}"))
                .with_context(context)?;
            compared += replayed.len();
        }
        compared += events.len();
        // Nothing more was given live: the cursor now stands behind everything, and from there nothing comes.
        let rest = Reader::open(Surface::Pull, gateway.address(), live.want_more())
            .await?
            .until_live()
            .await?;
        ensure!(
            rest.is_empty(),
            "{rest:?} came after what is allowed\n{}",
            context()
        );
    }
    Ok(compared)
}

async fn begin(gateway: &Gateway, issuer: &Issuer, model: &Model, who: Who, filter: Filter) -> Result<Tried> {
    let mut token = issuer
        .token(&who.tenant)
        .subject(&who.subject)
        .scopes(&who.scopes.join(" "));
    for (name, value) in &who.claims {
        token = token.claim(name, value.clone());
    }
    let mut want = Want::new(&model.name, &token.sign());
    want.filter.clone_from(&filter);
    let mut live = None;
    for surface in Surface::ALL {
        let opened = Reader::try_open(surface, gateway.address(), want.clone()).await?;
        let refusal = model.refusal(&who, &filter);
        match (opened, refusal) {
            (Ok(reader), None) if surface == Surface::WebSocket => live = Some(reader),
            (Ok(_), None) => {}
            (Err(code), Some(refusal)) if code == refusal => {}
            (opened, refusal) => bail!(
                "{surface:?}: {:?}, the rules say {refusal:?} to {who:?} {filter:?}\n{}",
                opened.err(),
                model.toml()
            ),
        }
    }
    Ok(Tried {
        who,
        filter,
        want,
        live,
    })
}

fn compare(events: &[Value], allowed: &BTreeMap<i64, (Seen, &Record)>, model: &Model) -> Result<()> {
    // A mask may hide `n`; the subject is then looked at, and where that is hidden too, only the whole is compared.
    let mut left: Vec<&(Seen, &Record)> = allowed.values().collect();
    // Those that say more come first: one that is silent may look like one that need not be, and not the other way round.
    let (told, silent): (Vec<&Value>, Vec<&Value>) =
        events.iter().partition(|event| event.get("subject").is_some());
    for event in told.into_iter().chain(silent) {
        let fits = left
            .iter()
            .position(|(seen, record)| same(event, seen, record, model).is_ok());
        let Some(fits) = fits else {
            bail!("{event} is not allowed, or came twice; left: {left:?}")
        };
        left.remove(fits);
    }
    ensure!(left.is_empty(), "missing: {left:?}");
    Ok(())
}

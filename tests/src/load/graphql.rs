//! What GraphQL costs: beside the plain WebSocket in the same run, with an argument of its own for each reader, and with a
//! selection of its own for each.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::readers::{Crowd, Plan, Protocol};
use super::source::Source;
use crate::contract;
use crate::gateway::{Gateway, Setup};
use crate::issuer::Issuer;
use crate::kafka::Kafka;
use crate::topics::Topics;
use crate::volume::say;
use crate::{graphql, process, wait};

/// The types of the load's events: the mark that readers look for comes first.
const SDL: &str = r#"scalar DateTime
scalar Long
scalar JSON

type Subscription {
  observations(patient: ID @attribute(name: "patient", prefix: "Patient/"), after: String): LoadEvent!
    @stream(name: "observations")
}

type LoadEvent @event {
  kind: ChangeKind!
  cursor: String!
  key: String
  time: DateTime!
  data: Load
}

type Load {
  s: Int
  t: Long
  p: String
  subject: Reference
}

type Reference {
  reference: String
}
"#;

fn streams(topic: &str) -> String {
    format!(
        "[streams.observations]\ntopics = [{topic:?}]\nformat = \"json\"\nschema = \"Load\"\n\
         tenant = {{ header = \"tenant\" }}\n\
         attributes = {{ patient = {{ pointer = \"/subject/reference\", normalise = \"reference\" }} }}\n\
         [[streams.observations.access]]\nscopes = [\"user/Observation.rs\"]\nrows = \"tenant\"\n"
    )
}

/// One run.
struct Row {
    name: &'static str,
    protocol: Protocol,
    readers: usize,
    operations: Vec<String>,
    /// Each event is about one of so many patients; 0: about nobody, and for every reader.
    patients: usize,
    per_second: f64,
    how_long: Duration,
}

/// What it showed.
struct Outcome {
    events: u64,
    deliveries: u64,
    wrong: u64,
    cpu_seconds: f64,
    frame_bytes: u64,
}

impl Outcome {
    fn per_cpu_second(&self) -> f64 {
        self.deliveries as f64 / self.cpu_seconds
    }

    fn us_per_event(&self) -> f64 {
        self.cpu_seconds * 1e6 / self.events.max(1) as f64
    }
}

fn operation(query: &str) -> String {
    json!({"query": query}).to_string()
}

/// One for each: an argument.
fn of_patient(n: usize) -> String {
    json!({
        "query": "subscription($p: ID) { observations(patient: $p) { cursor data { s t p } } }",
        "variables": {"p": n.to_string()},
    })
    .to_string()
}

/// One for each: the fields of the event, and how often and under which names the data's come.
fn of_selection(n: usize) -> String {
    let event: String = ["kind", "cursor", "key", "time"]
        .iter()
        .enumerate()
        .filter(|(bit, _)| n >> bit & 1 == 1)
        .map(|(_, name)| format!("{name} "))
        .collect();
    operation(&format!(
        "subscription {{ observations {{ {event}data {{ s t p x{n}: subject {{ reference }} }} }} }}"
    ))
}

fn rows(scale: f64) -> Vec<Row> {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a count of readers"
    )]
    let some = |count: f64| (count * scale.min(1.0)).max(10.0) as usize;
    let (many, few, thousand) = (some(10_000.0), some(100.0).min(100), some(1000.0));
    let how_long = Duration::from_secs_f64(20.0 * scale);
    let whole = "subscription { observations { kind cursor key time data { s t p subject { reference } } } }";
    let row = |name, protocol, readers, operations, patients, per_second| Row {
        name,
        protocol,
        readers,
        operations,
        patients,
        per_second,
        how_long,
    };
    let mut rows = Vec::new();
    // Thrice, in turn: what the neighbours do then weighs on both.
    for _ in 0..3 {
        rows.push(row(
            "one for all, plain",
            Protocol::Websocket,
            many,
            Vec::new(),
            0,
            4.0,
        ));
        rows.push(row(
            "one for all, GraphQL",
            Protocol::Graphql,
            many,
            vec![operation(whole)],
            0,
            4.0,
        ));
    }
    for _ in 0..3 {
        for readers in [few, many] {
            let operations = (0..readers).map(of_patient).collect();
            rows.push(row(
                "an argument for each",
                Protocol::Graphql,
                readers,
                operations,
                readers,
                1000.0,
            ));
        }
    }
    let operations = (0..thousand).map(of_selection).collect();
    rows.push(row(
        "a selection for each",
        Protocol::Graphql,
        thousand,
        operations,
        0,
        20.0,
    ));
    rows
}

/// Runs everything, or the rows with this in their name, and gives the table as Markdown.
pub async fn table(scale: f64, only: Option<&str>) -> Result<String> {
    let kafka = Kafka::shared().await;
    let issuer = Issuer::start().await?;
    let mut text = String::from(
        "| scenario | readers | events | deliveries | gaps and twice | bytes a delivery | deliveries per CPU second | CPU us per event |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    let mut done: Vec<(Row, Outcome)> = Vec::new();
    for row in rows(scale)
        .into_iter()
        .filter(|row| only.is_none_or(|only| row.name.contains(only)))
    {
        match one(kafka, &issuer, &row).await {
            Ok(outcome) => {
                let line = format!(
                    "| {} | {} | {} | {} | {} | {} | {:.0} | {:.1} |",
                    row.name,
                    row.readers,
                    outcome.events,
                    outcome.deliveries,
                    outcome.wrong,
                    outcome.frame_bytes,
                    outcome.per_cpu_second(),
                    outcome.us_per_event(),
                );
                say(&line);
                writeln!(text, "{line}")?;
                done.push((row, outcome));
            }
            Err(error) => writeln!(text, "| {} | {} | failed: {error:#} |", row.name, row.readers)?,
        }
    }
    let median = |wanted: &dyn Fn(&Row) -> bool, figure: fn(&Outcome) -> f64| {
        let mut figures: Vec<f64> = done
            .iter()
            .filter(|(row, _)| wanted(row))
            .map(|(_, outcome)| figure(outcome))
            .collect();
        figures.sort_by(f64::total_cmp);
        figures.get(figures.len() / 2).copied()
    };
    let plain = median(&|row| row.name.ends_with("plain"), Outcome::per_cpu_second);
    let ours = median(&|row| row.name.ends_with("all, GraphQL"), Outcome::per_cpu_second);
    if let (Some(plain), Some(ours)) = (plain, ours) {
        writeln!(
            text,
            "\nOne operation: {:.0}% of the plain WebSocket's deliveries per CPU second (aim: at least 90%), medians of three.",
            100.0 * ours / plain
        )?;
    }
    let most = done.iter().map(|(row, _)| row.patients).max().unwrap_or(0);
    let few = median(
        &|row| row.patients > 0 && row.patients < most,
        Outcome::us_per_event,
    );
    let many = median(
        &|row| row.patients > 0 && row.patients == most,
        Outcome::us_per_event,
    );
    if let (Some(few), Some(many)) = (few, many) {
        writeln!(
            text,
            "\nAn argument for each: an event costs {many:.1} us with {most} readers, {few:.1} us with few: {:+.0}% (aim: within 20%), \
             medians of three.",
            100.0 * (many / few - 1.0)
        )?;
    }
    Ok(text)
}

async fn one(kafka: &Kafka, issuer: &Issuer, row: &Row) -> Result<Outcome> {
    let topic = format!("load-{:08x}", rand::random::<u32>());
    Topics::new(kafka.bootstrap())?.create(&topic, 1, &[]).await?;
    let gateway = gateway(kafka, issuer, &topic).await?;
    let token = issuer.token("north").scopes(contract::USER).sign();
    let outcome = measure(kafka, &gateway, &topic, &token, row).await;
    outcome.with_context(|| gateway.log_tail())
}

async fn gateway(kafka: &Kafka, issuer: &Issuer, topic: &str) -> Result<Gateway> {
    let mut setup = Setup::new(kafka.bootstrap(), issuer, streams(topic));
    setup.sdl = Some(SDL.to_owned());
    graphql::SETTINGS.clone_into(&mut setup.more);
    for limit in [
        "connections_max",
        "connections_per_tenant_max",
        "connections_per_principal_max",
    ] {
        setup = setup.limit(limit, 15_000);
    }
    // Only events cost something: no heartbeats within a run.
    setup = setup
        .limit("heartbeat_ms", 3_600_000)
        .limit("silence_max_ms", 7_200_000);
    setup.start().await
}

async fn measure(kafka: &Kafka, gateway: &Gateway, topic: &str, token: &str, row: &Row) -> Result<Outcome> {
    let mut source = Source::new(kafka.bootstrap(), vec![topic.to_owned()])?.about(row.patients);
    let crowd = Crowd::start(Plan {
        address: gateway.address(),
        protocol: row.protocol,
        count: row.readers,
        token: token.to_owned(),
        streams: vec!["observations".to_owned()],
        operations: row.operations.clone(),
        silent: true,
    });
    let tally = &crowd.tally;
    let open = wait::until_true("the readers to be subscribed", || {
        tally.open.load(Ordering::Relaxed) == row.readers
    });
    if let Err(error) = open.await {
        let how_many = tally.open.load(Ordering::Relaxed);
        let why = crowd.finish().err();
        return Err(error).with_context(|| format!("{how_many} of {} are: {why:?}", row.readers));
    }
    let of_event = if row.patients > 0 { 1 } else { row.readers as u64 };
    let all = async |owed: u64| {
        wait::until_true("every delivery", || {
            tally.deliveries.load(Ordering::Relaxed) >= owed || tally.ended.load(Ordering::Relaxed) > 0
        })
        .await
        .with_context(|| format!("{} of {owed}", tally.deliveries.load(Ordering::Relaxed)))
    };
    // Warm: every path has been taken, and where each event is for one reader, most sockets have been written to.
    let warm = source.at_rate(row.per_second, Duration::from_secs(2)).await?;
    all(warm * of_event).await?;
    let (bytes, deliveries) = (
        tally.bytes.load(Ordering::Relaxed),
        tally.deliveries.load(Ordering::Relaxed),
    );
    let cpu = process::cpu_seconds(gateway.pid())?;
    let events = source.at_rate(row.per_second, row.how_long).await?;
    all((warm + events) * of_event).await?;
    let cpu_seconds = process::cpu_seconds(gateway.pid())? - cpu;
    let ended = tally.ended.load(Ordering::Relaxed);
    let wrong = tally.gaps.load(Ordering::Relaxed) + tally.duplicates.load(Ordering::Relaxed);
    let deliveries = tally.deliveries.load(Ordering::Relaxed) - deliveries;
    let bytes = tally.bytes.load(Ordering::Relaxed) - bytes;
    let finished = crowd.finish();
    ensure!(ended == 0, "{ended} readers were closed: {:?}", finished.err());
    ensure!(cpu_seconds > 0.0, "too short to be measured");
    Ok(Outcome {
        events,
        deliveries,
        wrong,
        cpu_seconds,
        frame_bytes: bytes / deliveries.max(1),
    })
}

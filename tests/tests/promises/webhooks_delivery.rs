//! Webhooks lose nothing: receivers fail at random, the gateway is killed, Kafka and the database are restarted, and each
//! event arrives at each endpoint that it is for, under one id, and at no other.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use rand::Rng;
use serde_json::{Value, json};
use tidewire_tests::contract;
use tidewire_tests::gateway::{Gateway, Setup};
use tidewire_tests::issuer::Issuer;
use tidewire_tests::kafka::Kafka;
use tidewire_tests::partner::{self, Partner};
use tidewire_tests::plan::{self, Planned};
use tidewire_tests::postgres::Postgres;
use tidewire_tests::producer::Producer;
use tidewire_tests::receiver::tally::{self, Tally, Trouble};
use tidewire_tests::receiver::{Behaviour, Event, Hook, Receiver};
use tidewire_tests::topics::Topics;
use tidewire_tests::volume::{dice, say, seed_of, volume};
use tidewire_tests::wait;
use tokio::time::Instant;

use crate::support::{beside, webhooks};

pub(crate) const PARTITIONS: i32 = 6;
pub(crate) const TOPIC: &str = "observations";

/// Delays of a second or two, more of them than thirty failures of a hundred will ever use up.
pub(crate) fn schedule() -> Value {
    json!([1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2])
}

/// What one endpoint asks for, and which events that are.
pub(crate) struct Wish {
    tenant: &'static str,
    /// The claim `patient` of its owner, who then is that patient.
    patient: Option<u32>,
    more: Value,
    wants: fn(&Planned) -> bool,
}

/// Twenty endpoints: of two tenants, with and without filters, owned by systems and by patients, in three forms.
pub(crate) fn wishes() -> Vec<Wish> {
    let wish = |tenant, more, wants| Wish {
        tenant,
        patient: None,
        more,
        wants,
    };
    let mut wishes: Vec<Wish> = Vec::new();
    for content in [
        "structured",
        "raw",
        "binary",
        "structured",
        "raw",
        "binary",
        "structured",
        "raw",
        "binary",
        "raw",
    ] {
        wishes.push(wish("north", json!({ "content": content }), |_| true));
    }
    wishes.push(wish(
        "north",
        json!({"content": "raw", "filter": {"exact": {"status": "final"}}}),
        |planned| planned.status == "final",
    ));
    wishes.push(wish(
        "north",
        json!({"content": "raw", "filter": {"not": {"exact": {"patient": "Patient/1"}}}}),
        |planned| planned.patient != 1,
    ));
    wishes.push(wish(
        "north",
        json!({"content": "raw", "filter": {"any": [
            {"suffix": {"patient": "/2"}},
            {"all": [{"prefix": {"status": "pre"}}, {"exact": {"patient": "Patient/3"}}]},
        ]}}),
        |planned| planned.patient == 2 || planned.patient == 3 && planned.status == "preliminary",
    ));
    wishes.push(wish(
        "north",
        json!({"content": "raw", "types": ["tidewire.observations.deleted"]}),
        |_| false,
    ));
    for (patient, wants) in [
        (1, (|planned| planned.patient == 1) as fn(&Planned) -> bool),
        (4, |planned| planned.patient == 4),
    ] {
        wishes.push(Wish {
            tenant: "north",
            patient: Some(patient),
            more: json!({"content": "raw"}),
            wants,
        });
    }
    for content in ["raw", "structured", "binary"] {
        wishes.push(wish("south", json!({ "content": content }), |_| true));
    }
    wishes.push(wish(
        "south",
        json!({"content": "raw", "filter": {"exact": {"status": "final", "patient": "Patient/2"}}}),
        |planned| planned.status == "final" && planned.patient == 2,
    ));
    wishes
}

/// An endpoint and what it is owed.
pub(crate) struct Owing {
    pub(crate) hook: Arc<Hook>,
    pub(crate) owed: BTreeSet<Event>,
}

/// A cluster and an issuer of one's own, a plan, and where it is to arrive.
pub(crate) struct Field {
    pub(crate) kafka: Kafka,
    pub(crate) producer: Producer,
    pub(crate) topics: Topics,
    pub(crate) issuer: Issuer,
    pub(crate) receiver: Receiver,
    pub(crate) setup: Setup,
    pub(crate) group: String,
    pub(crate) plan: Vec<Planned>,
    pub(crate) endpoints: Vec<Owing>,
    pub(crate) troubles: Vec<Trouble>,
}

impl Field {
    /// Everything but the gateway; the store is at this URL, or a file of SQLite.
    pub(crate) async fn new(promise: &str, store: Option<String>, events: usize) -> Result<Self> {
        let kafka = Kafka::start().await?;
        let issuer = Issuer::start().await?;
        let topics = Topics::new(kafka.bootstrap())?;
        topics.create(TOPIC, PARTITIONS, &[]).await?;
        let mut settings = webhooks(&topics).await?;
        if let Some(store) = store {
            settings.store = store;
        }
        let setup =
            Setup::new(kafka.bootstrap(), &issuer, contract::observations(&[TOPIC])).webhooks(&settings);
        let mut dice = dice(promise);
        let mut plan = plan::plan(&mut dice, PARTITIONS, events);
        // Most of it is one tenant's, so that most endpoints are owed most of it.
        for planned in &mut plan {
            planned.tenant = if dice.random_bool(0.9) { "north" } else { "south" };
        }
        Ok(Self {
            producer: Producer::new(kafka.bootstrap())?,
            receiver: Receiver::start().await?,
            group: settings.group,
            kafka,
            topics,
            issuer,
            setup,
            plan,
            endpoints: Vec::new(),
            troubles: Vec::new(),
        })
    }

    /// Makes the twenty endpoints; of a hundred requests thirty fail.
    pub(crate) async fn endpoints(&mut self, promise: &str, gateway: &Gateway) -> Result<()> {
        for (place, wish) in wishes().into_iter().enumerate() {
            let seed = seed_of(&format!("{promise} {place}"));
            let behaviour = Behaviour::failing(seed, 22, 2, 6);
            let hook = self.receiver.hook(&format!("e{place}"), behaviour);
            let mut more = json!({"timeout_ms": 1000, "retry_seconds": schedule()});
            more.as_object_mut()
                .context("an object")?
                .extend(wish.more.as_object().context("an object")?.clone());
            let mut token = self.issuer.token(wish.tenant).good_for(7200);
            token = match wish.patient {
                None => token.scopes(&format!("system/Observation.rs {}", partner::SCOPES)),
                Some(patient) => token
                    .scopes(&format!("{} {}", contract::PATIENT, partner::SCOPES))
                    .claim("patient", patient.to_string()),
            };
            Partner::new(gateway.address(), &token.sign())
                .hook(&hook, &["observations"], more)
                .await
                .with_context(|| format!("endpoint {place}"))?;
            let mine = |planned: &&Planned| planned.tenant == wish.tenant && (wish.wants)(planned);
            let owed = self.plan.iter().filter(mine).map(|planned| Event {
                partition: planned.partition,
                n: planned.n,
            });
            self.endpoints.push(Owing {
                owed: owed.collect(),
                hook,
            });
        }
        Ok(())
    }

    /// How many deliveries were taken.
    pub(crate) fn taken(&self) -> usize {
        self.endpoints.iter().map(|endpoint| endpoint.hook.taken()).sum()
    }

    /// How many there are to be.
    pub(crate) fn owed(&self) -> usize {
        self.endpoints.iter().map(|endpoint| endpoint.owed.len()).sum()
    }

    /// Waits until so many thousandths of it were taken.
    pub(crate) async fn until(&self, thousandths: usize) -> Result<()> {
        let wanted = self.owed() * thousandths / 1000;
        wait::until_count("deliveries", wanted, || self.taken()).await
    }

    /// Waits until everything that is owed of this part of the plan, the first one, was taken.
    pub(crate) async fn all_of(&self, part: &[Planned]) -> Result<()> {
        let events: BTreeSet<Event> = part
            .iter()
            .map(|planned| Event {
                partition: planned.partition,
                n: planned.n,
            })
            .collect();
        let endpoints = self.endpoints.iter();
        let wanted = endpoints
            .map(|endpoint| endpoint.owed.intersection(&events).count())
            .sum();
        let all = wait::until_count("what was produced", wanted, || self.taken()).await;
        all.with_context(|| format!("missing: {}", self.missing(&events)))
    }

    /// What was not taken of these, with how often it was tried, for whoever looks for why.
    fn missing(&self, events: &BTreeSet<Event>) -> String {
        let mut missing = Vec::new();
        for (place, endpoint) in self.endpoints.iter().enumerate() {
            let arrivals = endpoint.hook.arrivals();
            for event in endpoint.owed.intersection(events) {
                let of_it = || arrivals.iter().filter(|arrival| arrival.event == Some(*event));
                if !of_it().any(|arrival| arrival.accepted) {
                    missing.push(format!("{event:?} to {place}, tried {} times", of_it().count()));
                }
            }
        }
        missing.truncate(40);
        missing.join("; ")
    }

    /// Produces a part of the plan; how much that was.
    pub(crate) async fn produce(&self, piece: Option<&[Planned]>) -> Result<usize> {
        let piece = piece.context("the plan has another part")?;
        self.producer.send_all(&plan::records(piece, TOPIC)).await?;
        Ok(piece.len())
    }

    /// How far the group has committed.
    pub(crate) async fn committed(&self) -> Result<i64> {
        let ask = || async {
            let sum = self.topics.committed(&self.group, TOPIC, PARTITIONS).await;
            sum.ok()
        };
        wait::until("the group's offsets", ask).await
    }

    /// Waits until the group has committed more than that: what was broken between it and Kafka works again.
    pub(crate) async fn committed_since(&self, before: i64) -> Result<()> {
        wait::until("a commit", || async {
            let sum = self.topics.committed(&self.group, TOPIC, PARTITIONS).await;
            sum.ok().filter(|now| *now > before).map(|_| ())
        })
        .await
    }

    /// Remembers something that was broken from then until now.
    pub(crate) fn trouble(&mut self, what: &'static str, from: Instant) {
        self.troubles.push(Trouble {
            what,
            from,
            to: Instant::now(),
        });
    }

    /// The reckoning of all endpoints.
    pub(crate) fn judge(&self) -> Result<Tally> {
        let mut sum = Tally::default();
        for endpoint in &self.endpoints {
            sum.add(&tally::judge(&endpoint.hook, &endpoint.owed, &self.troubles)?);
        }
        ensure!(self.receiver.strays() == 0, "requests to nowhere");
        Ok(sum)
    }
}

/// A part of the plan is produced before each trouble, so that there is always something under way.
async fn nothing_lost(promise: &str, postgres: Option<&Postgres>, events: usize, kills: usize) -> Result<()> {
    let begun = Instant::now();
    let store = match postgres {
        Some(postgres) => Some(postgres.database().await?),
        None => None,
    };
    let mut field = Field::new(promise, store, events).await?;
    let mut gateway = field.setup.start().await?;
    field.endpoints(promise, &gateway).await?;

    let troubles = kills + 1 + usize::from(postgres.is_some());
    let plan = std::mem::take(&mut field.plan);
    let piece_len = plan.len().div_ceil(troubles + 2);
    let mut pieces = plan.chunks(piece_len);
    let mut produced = 0;
    let mut dice = dice(&format!("{promise} troubles"));
    let kafka_at = dice.random_range(1..troubles);
    for trouble in 0..troubles {
        produced += field.produce(pieces.next()).await?;
        // In the middle of it: half of what is new was taken.
        field
            .until((produced - piece_len / 2) * 1000 / plan.len())
            .await?;
        let from = Instant::now();
        if trouble == kafka_at {
            field.kafka.stop().await?;
            field.kafka.resume().await?;
            let before = field.committed().await?;
            // Something has to come for something to be committed.
            produced += field.produce(pieces.next()).await?;
            field.committed_since(before).await?;
            field.trouble("kafka", from);
        } else if let (Some(postgres), true) = (postgres, trouble == 0) {
            postgres.stop().await?;
            postgres.resume().await?;
            gateway.ready().await?;
            field.trouble("database", from);
        } else {
            gateway.kill()?;
            gateway.resume().await?;
            gateway.ready().await?;
            // It is over when everything that was under way has arrived, from Kafka or from the store.
            field.all_of(&plan[..produced]).await?;
            field.trouble("kill", from);
        }
    }
    for piece in pieces {
        field.produce(Some(piece)).await?;
    }
    let all = field.until(1000).await;
    let tally = field.judge().with_context(|| gateway.log_tail())?;
    all?;
    say(&format!(
        "webhooks, {}: {events} events to {} endpoints, {} deliveries in {} requests, {kills} kills: 0 missing, 0 foreign, \
         taken again {:?}, {} without an excuse, in {:.0} s",
        if postgres.is_some() {
            "PostgreSQL"
        } else {
            "SQLite"
        },
        field.endpoints.len(),
        tally.owed,
        tally.requests,
        tally.duplicates,
        tally.unexplained,
        begun.elapsed().as_secs_f64(),
    ));
    ensure!(tally.unexplained == 0, "taken again without an excuse: {tally:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn with_sqlite_nothing_is_lost_by_kills_and_failing_receivers() -> Result<()> {
    let _turn = beside().await;
    nothing_lost("webhooks on sqlite", None, volume(2_000, 20_000), volume(4, 20)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn with_postgres_nothing_is_lost_by_kills_restarts_and_failing_receivers() -> Result<()> {
    let _turn = beside().await;
    let postgres = Postgres::start().await?;
    nothing_lost(
        "webhooks on postgres",
        Some(&postgres),
        volume(500, 20_000),
        volume(4, 20),
    )
    .await
}

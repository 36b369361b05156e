//! `ordering: key`: of one key each event comes after the one before it was taken, whatever fails in between.

use std::collections::HashMap;

use anyhow::{Context, Result};
use rand::Rng;
use serde_json::json;
use tidewire_tests::plan::{self, Planned};
use tidewire_tests::producer::Record;
use tidewire_tests::receiver::tally::{self, Trouble};
use tidewire_tests::receiver::{Behaviour, Event, Receiver};
use tidewire_tests::volume::{dice, say, seed_of, volume};
use tidewire_tests::wait;
use tokio::time::Instant;

use crate::support::World;
use crate::webhooks_delivery::schedule;

const PATIENTS: u32 = 25;

/// Keyed by patient, where the plan's own keys are all different.
fn key(planned: &Planned) -> String {
    format!("{}/Patient/{}", planned.partition, planned.patient)
}

fn record(planned: &Planned, topic: &str) -> Record {
    planned.record(topic).key(key(planned))
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_one_key_arrive_in_order_under_failures_and_kills() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("keyed", 4).await?;
    let setup = world.setup(&[&topic]).webhooks(&world.webhooks().await?);
    let mut gateway = setup.start().await?;
    let receiver = Receiver::start().await?;
    let promise = "webhooks in order";
    let mut dice = dice(promise);
    let mut plan = plan::plan(&mut dice, 4, volume(600, 6_000));
    for planned in &mut plan {
        planned.tenant = "north";
        planned.patient = dice.random_range(1..=PATIENTS);
    }
    let behaviours = [
        Behaviour::good(),
        Behaviour::failing(seed_of(promise), 20, 1, 4),
        Behaviour::failing(seed_of("webhooks in order, too"), 5, 5, 15),
    ];
    let partner = world.partner(&gateway, "north");
    let mut hooks = Vec::new();
    for (place, behaviour) in behaviours.into_iter().enumerate() {
        let hook = receiver.hook(&format!("o{place}"), behaviour);
        let more = json!({
            "ordering": "key", "content": "raw", "timeout_ms": 1000, "retry_seconds": schedule(), "concurrency": 32,
        });
        partner.hook(&hook, &["observations"], more).await?;
        hooks.push(hook);
    }
    let event = |planned: &Planned| Event {
        partition: planned.partition,
        n: planned.n,
    };
    let owed = plan.iter().map(event).collect();
    let keys: HashMap<Event, String> = plan
        .iter()
        .map(|planned| (event(planned), key(planned)))
        .collect();

    let kills = volume(2, 8);
    let mut troubles = Vec::new();
    let mut pieces = plan.chunks(plan.len().div_ceil(kills + 1));
    let taken = || hooks.iter().map(|hook| hook.taken()).sum::<usize>();
    let mut produced = 0;
    while let Some(piece) = pieces.next() {
        let records: Vec<Record> = piece.iter().map(|planned| record(planned, &topic)).collect();
        world.producer.send_all(&records).await?;
        produced += piece.len();
        if pieces.len() == 0 {
            break;
        }
        let half = hooks.len() * (produced - piece.len() / 2);
        wait::until_count("deliveries", half, taken).await?;
        let from = Instant::now();
        gateway.kill()?;
        gateway.resume().await?;
        gateway.ready().await?;
        // It is over when everything that was under way has arrived, from Kafka or from the store.
        wait::until_count("deliveries after a kill", hooks.len() * produced, taken).await?;
        troubles.push(Trouble {
            what: "kill",
            from,
            to: Instant::now(),
        });
    }
    let all = wait::until_count("deliveries", hooks.len() * plan.len(), taken).await;
    let mut sum = tally::Tally::default();
    let mut rows = 0;
    for hook in &hooks {
        sum.add(&tally::judge(hook, &owed, &troubles).with_context(|| gateway.log_tail())?);
        rows += tally::in_order(hook, &keys)?;
    }
    all?;
    say(&format!(
        "webhooks in order: {} deliveries of {rows} keys in {} requests over {kills} kills, all in order; taken again {:?}",
        sum.owed, sum.requests, sum.duplicates
    ));
    anyhow::ensure!(sum.unexplained == 0, "taken again without an excuse: {sum:?}");
    Ok(())
}

//! Kafka in, every surface out: each reader gets exactly its own.

use anyhow::{Context, Result, ensure};
use tidewire_tests::exact::Exact;
use tidewire_tests::plan::{self, Planned};
use tidewire_tests::reader::{Reader, Surface, Want};
use tidewire_tests::volume::{dice, say};
use tokio::task::JoinSet;

use crate::support::World;

/// Reads until nothing is owed.
pub(crate) async fn take_all(reader: &mut Reader, owed: &mut Exact) -> Result<()> {
    while !owed.is_done() {
        let event = reader
            .event()
            .await
            .with_context(|| format!("{} are owed still", owed.left()))?;
        owed.take(&event)?;
    }
    Ok(())
}

type Wants = fn(&Planned) -> bool;

/// Four readers: of both tenants, one of all rows and one of a patient's or a filter's.
fn readers(world: &World) -> Vec<(Want, Wants)> {
    let want = |token: &str| Want::new("observations", token);
    vec![
        (want(&world.user("north")), |planned| planned.tenant == "north"),
        (want(&world.user("south")).only("status", "final"), |planned| {
            planned.tenant == "south" && planned.status == "final"
        }),
        (want(&world.patient("north", "1")), |planned| {
            planned.tenant == "north" && planned.patient == 1
        }),
        (want(&world.patient("south", "2")), |planned| {
            planned.tenant == "south" && planned.patient == 2
        }),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_events_reach_each_reader_of_each_surface_exactly() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("delivery", 6).await?;
    let gateway = world.setup(&[&topic]).start().await?;
    let plan = plan::plan(&mut dice("delivery"), 6, 10_000);

    let mut reading = JoinSet::new();
    for surface in Surface::ALL {
        for (want, wants) in readers(&world) {
            let mut reader = Reader::open(surface, gateway.address(), want).await?;
            let mut owed = plan::owed(&plan, wants);
            reading.spawn(async move {
                take_all(&mut reader, &mut owed)
                    .await
                    .with_context(|| format!("{surface:?}"))?;
                Ok::<_, anyhow::Error>(owed.got())
            });
        }
    }
    world.producer.send_all(&plan::records(&plan, &topic)).await?;
    let mut got = 0;
    while let Some(reader) = reading.join_next().await {
        got += reader??;
    }
    say(&format!(
        "delivery: {} events, {got} deliveries to 12 readers, none missing, none twice",
        plan.len()
    ));

    // The same from the beginning, out of Kafka and the ring.
    for surface in Surface::ALL {
        for (want, wants) in readers(&world) {
            let mut reader = Reader::open(surface, gateway.address(), want.after("earliest")).await?;
            take_all(&mut reader, &mut plan::owed(&plan, wants))
                .await
                .with_context(|| format!("{surface:?}"))?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn hidden_fields_never_leave_the_gateway() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("hidden", 1).await?;
    let gateway = world.setup(&[&topic]).start().await?;
    let mut plan = plan::plan(&mut dice("hidden"), 1, 20);
    plan.iter_mut()
        .for_each(|planned| (planned.tenant, planned.patient) = ("north", 1));
    world.producer.send_all(&plan::records(&plan, &topic)).await?;
    for surface in Surface::ALL {
        for (token, whole) in [(world.user("north"), true), (world.patient("north", "1"), false)] {
            let want = Want::new("observations", &token).after("earliest");
            let mut reader = Reader::open(surface, gateway.address(), want).await?;
            for _ in &plan {
                let event = reader.event().await?;
                let data = &event["data"];
                ensure!(data.get("performer").is_some() == whole, "{surface:?} {event}");
                ensure!(data.get("note").is_some() == whole, "{surface:?} {event}");
                ensure!(
                    whole || !event.to_string().contains("Practitioner"),
                    "{surface:?} {event}"
                );
                ensure!(
                    event["patient"] == "Patient/1" && event["tenant"] == "north",
                    "{surface:?} {event}"
                );
                ensure!(
                    event["specversion"] == "1.0" && event["type"] == "tidewire.observations.changed",
                    "{event}"
                );
            }
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_the_same_on_every_surface_and_every_node() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("same", 3).await?;
    let setup = world.setup(&[&topic]);
    let nodes = [setup.start().await?, setup.start().await?];
    let plan = plan::plan(&mut dice("same"), 3, 30);
    world.producer.send_all(&plan::records(&plan, &topic)).await?;
    let mut first: Option<Vec<String>> = None;
    for node in &nodes {
        for surface in Surface::ALL {
            let want = Want::new("observations", &world.user("north")).after("earliest");
            let mut reader = Reader::open(surface, node.address(), want).await?;
            let mut events = Vec::new();
            for _ in plan.iter().filter(|planned| planned.tenant == "north") {
                events.push(reader.event().await?.to_string());
            }
            events.sort();
            match &first {
                None => first = Some(events),
                Some(first) => ensure!(*first == events, "{surface:?}"),
            }
        }
    }
    Ok(())
}

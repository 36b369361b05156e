//! Topics and partitions that come, go, and are made again.

use anyhow::{Context, Result, ensure};
use tidewire_tests::exact::Exact;
use tidewire_tests::gateway::Gateway;
use tidewire_tests::plan::{self, Planned};
use tidewire_tests::producer::Producer;
use tidewire_tests::reader::{Item, Reader, Surface, Want};
use tidewire_tests::wait;

use crate::delivery::take_all;
use crate::support::{World, unique};

/// Owes this many events of each partition to readers who are open already.
async fn produce(
    producer: &Producer,
    topic: &str,
    partitions: std::ops::Range<i32>,
    from: i64,
    count: i64,
) -> Result<Exact> {
    let mut plan = Vec::new();
    for n in from..from + count {
        for partition in partitions.clone() {
            plan.push(Planned {
                tenant: "north",
                patient: 1,
                status: "final",
                partition,
                n,
                padding: 0,
            });
        }
    }
    producer.send_all(&plan::records(&plan, topic)).await?;
    Ok(plan::owed(&plan, |_| true))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_partition_is_read_from_its_beginning_under_open_sessions() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("grown", 2).await?;
    let gateway = world.setup(&[&topic]).start().await?;
    let mut readers = Vec::new();
    for surface in Surface::ALL {
        let want = Want::new("observations", &world.user("north"));
        readers.push((surface, Reader::open(surface, gateway.address(), want).await?));
    }
    let first = produce(&world.producer, &topic, 0..2, 0, 20).await?;
    let mut before = Vec::new();
    for (surface, reader) in &mut readers {
        take_all(reader, &mut first.clone())
            .await
            .with_context(|| format!("{surface:?}"))?;
        before.push((*surface, reader.want_more()));
    }
    world.topics.grow(&topic, 5).await?;
    // A client that does not know the new partitions yet would not write to them.
    let producer = Producer::new(world.kafka.bootstrap())?;
    let mut second = produce(&producer, &topic, 0..2, 20, 20).await?;
    let third = produce(&producer, &topic, 2..5, 0, 20).await?;
    for partition in 2..5 {
        (0..20).for_each(|n| second.owe(partition, n));
    }
    drop(third);
    for (surface, reader) in &mut readers {
        take_all(reader, &mut second.clone())
            .await
            .with_context(|| format!("open, {surface:?}"))?;
    }
    // A cursor from before knows two partitions; the others are new to it.
    for (surface, want) in before {
        let mut reader = Reader::open(surface, gateway.address(), want).await?;
        take_all(&mut reader, &mut second.clone())
            .await
            .with_context(|| format!("resumed, {surface:?}"))?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_topic_is_read_from_its_beginning_under_open_sessions() -> Result<()> {
    let world = World::new().await?;
    let family = unique("family");
    let literal = unique("later");
    let gateway = world.setup(&[&format!("{family}.*"), &literal]).start().await?;
    let readiness = tidewire_tests::http::get(gateway.admin(), "/readyz", &[]).await?;
    ensure!(
        readiness.text().contains(&literal),
        "the missing topic is reported: {}",
        readiness.text()
    );
    let mut readers = Vec::new();
    for surface in Surface::ALL {
        let want = Want::new("observations", &world.user("north"));
        readers.push((surface, Reader::open(surface, gateway.address(), want).await?));
    }
    let cursors: Vec<_> = readers
        .iter()
        .map(|(surface, reader)| (*surface, reader.want_more()))
        .collect();
    for topic in [format!("{family}.one"), literal.clone(), format!("{family}.two")] {
        world.topics.create(&topic, 2, &[]).await?;
        let owed = produce(&world.producer, &topic, 0..2, 0, 30).await?;
        for (surface, reader) in &mut readers {
            take_all(reader, &mut owed.clone())
                .await
                .with_context(|| format!("{topic}, {surface:?}"))?;
        }
    }
    // A cursor that was given before the topics were made gives all of them: 30 events of 2 partitions of 3 topics.
    for (surface, want) in cursors {
        let mut reader = Reader::open(surface, gateway.address(), want).await?;
        for n in 0..180 {
            reader
                .event()
                .await
                .with_context(|| format!("event {n}, {surface:?}"))?;
        }
        let rest = reader.want_more();
        let items = Reader::open(Surface::Pull, gateway.address(), rest)
            .await?
            .until_live()
            .await?;
        ensure!(items.is_empty(), "{surface:?}: {items:?} came twice");
    }
    Ok(())
}

/// A reader on each surface that has taken all of this: from where each would go on.
async fn taken(world: &World, gateway: &Gateway, first: &Exact) -> Result<Vec<(Surface, Want)>> {
    let mut before = Vec::new();
    for surface in Surface::ALL {
        let want = Want::new("observations", &world.user("north")).after("earliest");
        let mut reader = Reader::open(surface, gateway.address(), want).await?;
        take_all(&mut reader, &mut first.clone())
            .await
            .with_context(|| format!("{surface:?}"))?;
        let read = gateway.metric("source_streams_read", &[]).await?;
        ensure!(read == 1.0, "{read} streams are read for a reader of one");
        before.push((surface, reader.want_more()));
    }
    Ok(before)
}

/// Everything of the topic's new life comes, and nothing of it before the gap.
async fn expect(again: &Exact, surface: Surface, mut reader: Reader, how: &str) -> Result<()> {
    let mut owed = again.clone();
    let mut reasons = Vec::new();
    while !owed.is_done() {
        match reader
            .next()
            .await
            .with_context(|| format!("{how}, {surface:?}, {reasons:?}"))?
        {
            Item::Event(event) => {
                owed.take(&event)
                    .with_context(|| format!("{how}, {surface:?}, {reasons:?}"))?;
                ensure!(
                    !reasons.is_empty(),
                    "{how}, {surface:?}: an event of the new life before the gap"
                );
            }
            Item::Gap(gaps) => {
                let gaps = gaps.as_array().context("a list")?.clone();
                reasons.extend(
                    gaps.iter()
                        .map(|gap| gap["reason"].as_str().unwrap_or_default().to_owned()),
                );
            }
            Item::Live | Item::Quiet => {}
            other => anyhow::bail!("{how}, {surface:?}: {other:?}"),
        }
    }
    let known = ["recreated", "deleted"];
    ensure!(
        reasons.iter().all(|reason| known.contains(&reason.as_str())),
        "{how}, {surface:?}: {reasons:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_deleted_and_made_again_is_told_and_read_from_its_beginning() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("again", 2).await?;
    let gateway = world.setup(&[&topic]).start().await?;
    let mut readers = Vec::new();
    for surface in Surface::ALL {
        let want = Want::new("observations", &world.user("north"));
        readers.push((surface, Reader::open(surface, gateway.address(), want).await?));
    }
    let first = produce(&world.producer, &topic, 0..2, 0, 50).await?;
    let mut before = Vec::new();
    for (surface, reader) in &mut readers {
        take_all(reader, &mut first.clone())
            .await
            .with_context(|| format!("{surface:?}"))?;
        before.push((*surface, reader.want_more()));
    }
    world.topics.delete(&topic).await?;
    world.topics.create(&topic, 2, &[]).await?;
    let producer = Producer::new(world.kafka.bootstrap())?;
    let again = produce(&producer, &topic, 0..2, 0, 80).await?;
    for (surface, reader) in readers {
        expect(&again, surface, reader, "open").await?;
    }
    for (surface, want) in before {
        let reader = Reader::open(surface, gateway.address(), want).await?;
        expect(&again, surface, reader, "resumed").await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_made_again_while_nobody_reads_it_is_told_to_whoever_comes_back() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("rested", 2).await?;
    let mut setup = world.setup(&[&topic]);
    setup.kafka.push_str("idle_after_ms = 1000\n");
    let gateway = setup.start().await?;
    let first = produce(&world.producer, &topic, 0..2, 0, 50).await?;
    let before = taken(&world, &gateway, &first).await?;
    wait::until("nobody to read the stream", async || {
        let read = gateway.metric("source_streams_read", &[]).await.ok()?;
        (read == 0.0).then_some(())
    })
    .await?;
    world.topics.delete(&topic).await?;
    world.topics.create(&topic, 2, &[]).await?;
    let producer = Producer::new(world.kafka.bootstrap())?;
    let again = produce(&producer, &topic, 0..2, 0, 80).await?;
    for (surface, want) in before {
        let reader = Reader::open(surface, gateway.address(), want).await?;
        expect(&again, surface, reader, "back").await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_was_deleted_for_good_is_told_as_a_gap() -> Result<()> {
    let world = World::new().await?;
    let (gone, stays) = (world.topic("gone", 1).await?, world.topic("stays", 1).await?);
    let mut setup = world.setup(&[&gone, &stays]);
    setup = setup.limit("layout_grace_ms", 1000);
    let gateway = setup.start().await?;
    let first = produce(&world.producer, &gone, 0..1, 0, 20).await?;
    let before = taken(&world, &gateway, &first).await?;
    world.topics.delete(&gone).await?;
    let later = produce(&world.producer, &stays, 0..1, 100, 20).await?;
    // As soon as the node has noticed.
    wait::until("the topic to be missed", async || {
        let answer = tidewire_tests::http::get(gateway.admin(), "/readyz", &[])
            .await
            .ok()?;
        answer.text().contains(&gone).then_some(())
    })
    .await?;
    for (surface, want) in before {
        let mut reader = Reader::open(surface, gateway.address(), want).await?;
        let mut owed = later.clone();
        let mut reasons = Vec::new();
        while !owed.is_done() || reasons.is_empty() {
            match reader
                .next()
                .await
                .with_context(|| format!("{surface:?}, {reasons:?}"))?
            {
                Item::Event(event) => owed.take(&event)?,
                Item::Gap(gaps) => {
                    for gap in gaps.as_array().context("a list")? {
                        reasons.push(gap["reason"].as_str().unwrap_or_default().to_owned());
                    }
                }
                Item::Live | Item::Quiet => {}
                other => anyhow::bail!("{surface:?}: {other:?}"),
            }
        }
        ensure!(reasons == ["deleted"], "{surface:?}: {reasons:?}");
    }
    Ok(())
}

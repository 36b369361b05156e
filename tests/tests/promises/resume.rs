//! A reader that comes back with its cursor goes on exactly after it, whatever happened in between.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rand::Rng;
use rand::rngs::StdRng;
use tidewire_tests::exact::Exact;
use tidewire_tests::gateway::Gateway;
use tidewire_tests::plan::{self, Planned};
use tidewire_tests::producer::Producer;
use tidewire_tests::reader::{Item, Reader, Surface, Want};
use tidewire_tests::volume::{dice, say, volume};
use tidewire_tests::wait;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::delivery::take_all;
use crate::support::World;

/// Records that each cut adds to what may be produced: some flow before and after each of them, and none run out.
const RECORDS_PER_CUT: usize = 60;

/// Produces a plan little by little, as far as it may.
fn flow(producer: Producer, plan: Vec<Planned>, topic: String, may: Arc<Semaphore>) -> JoinSet<Result<()>> {
    let mut flow = JoinSet::new();
    flow.spawn(async move {
        let mut pace = tokio::time::interval(Duration::from_millis(10));
        for pair in plan::records(&plan, &topic).chunks(2) {
            may.acquire_many(u32::try_from(pair.len())?).await?.forget();
            pace.tick().await;
            producer.send_all(pair).await?;
        }
        Ok(())
    });
    flow
}

/// Reads for a random while (some events, some time, or nothing at all), then gives back from where to go on.
async fn read_a_while(reader: &mut Reader, owed: &mut Exact, dice: &mut StdRng) -> Result<()> {
    let patience = Duration::from_millis(dice.random_range(0..120));
    let most = dice.random_range(0..60);
    let reading = async {
        for _ in 0..most {
            match reader.next().await? {
                Item::Event(event) => owed.take(&event)?,
                Item::Live | Item::Quiet | Item::Other(..) => {}
                other => anyhow::bail!("{other:?} in mid-stream"),
            }
        }
        Ok(())
    };
    // Running out of patience is the cut at a random instant, not a wait for something.
    tokio::time::timeout(patience, reading).await.unwrap_or(Ok(()))
}

/// Opens a reader on a node that may just be starting.
async fn reopen(surface: Surface, gateway: &Gateway, want: &Want) -> Result<Reader> {
    wait::until(format!("a reader to come back on {surface:?}"), || async {
        match Reader::try_open(surface, gateway.address(), want.clone()).await {
            Ok(Ok(reader)) => Some(Ok(reader)),
            // A node that has not seen all partitions yet says so.
            Ok(Err(code)) if code == "stream_unavailable" => None,
            Ok(Err(code)) => Some(Err(anyhow::anyhow!("refused: {code}"))),
            Err(error) => Some(Err(error)),
        }
    })
    .await?
}

/// Cuts a reader many times while events flow; at odd cuts its gateway is killed too, if that is asked for. Each time it
/// comes back on the next gateway.
async fn cut_again_and_again(
    name: &str,
    surface: Surface,
    mut gateways: Vec<Gateway>,
    topic: &str,
    world: &World,
    kill: bool,
) -> Result<()> {
    let cuts = volume(12, 100);
    let mut dice = dice(name);
    let mut plan = plan::plan(&mut dice, 4, (cuts + 1) * RECORDS_PER_CUT);
    plan.iter_mut()
        .for_each(|planned| planned.padding = dice.random_range(0..2000));
    let mut owed = plan::owed(&plan, |planned| planned.tenant == "north");
    let all = owed.left();
    let mut want = Want::new("observations", &world.user("north"));
    let mut reader = Reader::open(surface, gateways[0].address(), want.clone()).await?;
    let may = Arc::new(Semaphore::new(0));
    let mut flow = flow(world.producer.clone(), plan, topic.to_owned(), Arc::clone(&may));
    for cut in 0..cuts {
        may.add_permits(RECORDS_PER_CUT);
        read_a_while(&mut reader, &mut owed, &mut dice)
            .await
            .with_context(|| format!("before cut {cut}"))?;
        want = reader.want_more();
        ensure!(want.after.is_some(), "there is a cursor before the first event");
        let count = gateways.len();
        let gateway = &mut gateways[cut % count];
        if kill && cut % 2 == 1 {
            gateway.kill()?;
            drop(reader);
            gateway.resume().await?;
        } else {
            drop(reader);
        }
        reader = reopen(surface, &gateways[(cut + 1) % count], &want)
            .await
            .with_context(|| format!("cut {cut}"))?;
    }
    ensure!(flow.try_join_next().is_none(), "the flow ended before the cuts");
    may.add_permits(RECORDS_PER_CUT);
    take_all(&mut reader, &mut owed)
        .await
        .with_context(|| format!("after {cuts} cuts, {} of {all} owed", owed.left()))?;
    while let Some(flow) = flow.join_next().await {
        flow??;
    }
    say(&format!(
        "{name}: {surface:?}, {cuts} cuts, {all} events, the exact sequence"
    ));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_cut_again_and_again_gets_the_exact_sequence() -> Result<()> {
    let world = World::new().await?;
    for surface in Surface::ALL {
        let topic = world.topic("cuts", 4).await?;
        let gateways = vec![world.setup(&[&topic]).start().await?];
        cut_again_and_again(
            "cuts, half of them kill the gateway",
            surface,
            gateways,
            &topic,
            &world,
            true,
        )
        .await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_changes_nodes_at_each_cut_gets_the_exact_sequence() -> Result<()> {
    let world = World::new().await?;
    for surface in [Surface::WebSocket, Surface::Sse] {
        let topic = world.topic("nodes", 4).await?;
        let setup = world.setup(&[&topic]);
        let gateways = vec![setup.start().await?, setup.start().await?];
        cut_again_and_again(
            "two nodes, another at each cut",
            surface,
            gateways,
            &topic,
            &world,
            false,
        )
        .await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ring_smaller_than_the_gap_is_no_gap() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("ring", 4).await?;
    let setup = world.setup(&[&topic]).limit("ring_bytes_max", 64 << 10);
    cut_again_and_again(
        "a ring of 64 KiB",
        Surface::WebSocket,
        vec![setup.start().await?],
        &topic,
        &world,
        false,
    )
    .await?;

    // A gap of some megabytes, while events keep coming.
    for surface in Surface::ALL {
        let topic = world.topic("ring-gap", 4).await?;
        let gateway = world
            .setup(&[&topic])
            .limit("ring_bytes_max", 64 << 10)
            .start()
            .await?;
        let mut plan = plan::plan(&mut dice("ring"), 4, volume(3_000, 20_000));
        plan.iter_mut().for_each(|planned| planned.padding = 1000);
        let mut owed = plan::owed(&plan, |planned| planned.tenant == "south");
        let want = Reader::open(
            surface,
            gateway.address(),
            Want::new("observations", &world.user("south")),
        )
        .await?
        .want_more();
        let (before, after) = plan.split_at(plan.len() * 3 / 4);
        world.producer.send_all(&plan::records(before, &topic)).await?;
        let mut reader = Reader::open(surface, gateway.address(), want).await?;
        let may = Arc::new(Semaphore::new(after.len()));
        let mut flow = flow(world.producer.clone(), after.to_vec(), topic.clone(), may);
        take_all(&mut reader, &mut owed)
            .await
            .with_context(|| format!("{surface:?}"))?;
        while let Some(flow) = flow.join_next().await {
            flow??;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_is_told_as_a_gap_with_the_right_numbers() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("retention", 3).await?;
    let mut gateway = world.setup(&[&topic]).start().await?;
    let plan = plan::plan(&mut dice("retention"), 3, 300);
    let count = |partition: i32, plan: &[Planned]| {
        i64::try_from(
            plan.iter()
                .filter(|planned| planned.partition == partition)
                .count(),
        )
        .unwrap_or(0)
    };
    let (first, second) = plan.split_at(60);
    let mut cursors = Vec::new();
    world.producer.send_all(&plan::records(first, &topic)).await?;
    for surface in Surface::ALL {
        let want = Want::new("observations", &world.user("north")).after("earliest");
        let mut reader = Reader::open(surface, gateway.address(), want).await?;
        let mut owed = plan::owed(first, |planned| planned.tenant == "north");
        for item in reader.until_live().await? {
            if let Item::Event(event) = item {
                owed.take(&event)?;
            }
        }
        // At the end of the replay the cursor is behind everything: the records of the other tenant too.
        ensure!(owed.is_done(), "{surface:?}: {} are owed still", owed.left());
        cursors.push((surface, reader.want_more()));
    }
    world.producer.send_all(&plan::records(second, &topic)).await?;
    // What the cursors want next is gone on two of three partitions; on the third only what they had.
    let from: Vec<i64> = (0..3).map(|partition| count(partition, first)).collect();
    let kept = [from[0] + 10, from[1] - 1, from[2] + 25];
    for (partition, before) in (0..).zip(kept) {
        world.topics.delete_records(&topic, partition, before).await?;
    }
    // What the gateway still has in memory is given as long as it has it; a new one has nothing.
    gateway.kill()?;
    gateway.resume().await?;
    gateway.ready().await?;
    for (surface, want) in cursors {
        let mut reader = Reader::open(surface, gateway.address(), want).await?;
        let mut owed = plan::owed(second, |planned| planned.tenant == "north");
        owed.forgive(0, kept[0]);
        owed.forgive(2, kept[2]);
        let mut gaps = Vec::new();
        while !owed.is_done() {
            match reader.next().await? {
                Item::Event(event) => owed
                    .take(&event)
                    .with_context(|| format!("{surface:?} {gaps:?}"))?,
                Item::Gap(partitions) => gaps.extend(partitions.as_array().context("a list")?.clone()),
                Item::Live | Item::Quiet => {}
                other => anyhow::bail!("{surface:?}: {other:?}"),
            }
        }
        gaps.sort_by_key(|gap| gap["partition"].as_i64());
        let told: Vec<_> = gaps
            .iter()
            .map(|gap| {
                (
                    gap["partition"].as_i64(),
                    gap["reason"].as_str(),
                    gap["from"].as_i64(),
                    gap["to"].as_i64(),
                )
            })
            .collect();
        let wanted = [
            (Some(0), Some("expired"), Some(from[0]), Some(kept[0])),
            (Some(2), Some("expired"), Some(from[2]), Some(kept[2])),
        ];
        ensure!(told == wanted, "{surface:?}: {gaps:?} instead of {wanted:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_has_no_offsets_where_the_stream_does_not_show_them() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("hidden-offsets", 1).await?;
    let mut setup = world.setup(&[&topic]);
    setup.streams = setup.streams.replace("show_offsets = true\n", "");
    ensure!(!setup.streams.contains("show_offsets"), "{}", setup.streams);
    let mut gateway = setup.start().await?;
    let plan = plan::plan(&mut dice("hidden-offsets"), 1, 40);
    let (first, second) = plan.split_at(20);
    world.producer.send_all(&plan::records(first, &topic)).await?;
    let mut wants = Vec::new();
    for surface in Surface::ALL {
        let want = Want::new("observations", &world.user("north")).after("earliest");
        let mut reader = Reader::open(surface, gateway.address(), want).await?;
        reader.until_live().await?;
        wants.push((surface, reader.want_more()));
    }
    world.producer.send_all(&plan::records(second, &topic)).await?;
    world.topics.delete_records(&topic, 0, 30).await?;
    gateway.kill()?;
    gateway.resume().await?;
    gateway.ready().await?;
    for (surface, want) in wants {
        let mut reader = Reader::open(surface, gateway.address(), want).await?;
        let gap = loop {
            match reader.next().await? {
                Item::Gap(partitions) => break partitions,
                Item::Live | Item::Quiet => {}
                other => anyhow::bail!("{surface:?}: {other:?} before the gap"),
            }
        };
        let only = gap.as_array().filter(|gap| gap.len() == 1).context("one gap")?;
        let members = only[0].as_object().context("an object")?;
        ensure!(
            members["reason"] == "expired" && !members.contains_key("from") && !members.contains_key("to"),
            "{surface:?}: {gap}"
        );
    }
    Ok(())
}

//! The cases that break naive cursors, each by itself.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tidewire_tests::exact::Exact;
use tidewire_tests::plan::{self, Planned};
use tidewire_tests::process;
use tidewire_tests::producer::{Producer, Record};
use tidewire_tests::reader::{Item, Reader, Surface, Want};
use tidewire_tests::volume::{dice, say, volume};
use tidewire_tests::wait;
use tokio::task::JoinSet;

use crate::delivery::take_all;
use crate::support::{World, unique};

fn north(planned: &Planned) -> bool {
    planned.tenant == "north"
}

/// A plan with everything in the north and on given partitions: so many events each.
fn everything(counts: &[usize], padding: usize) -> Vec<Planned> {
    let mut plan = Vec::new();
    for (partition, count) in (0..).zip(counts) {
        for n in 0..*count {
            let n = i64::try_from(n).unwrap_or(0);
            plan.push(Planned {
                tenant: "north",
                patient: 1,
                status: "final",
                partition,
                n,
                padding,
            });
        }
    }
    plan
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_behind_on_one_slow_partition_is_cut_again_and_misses_nothing() -> Result<()> {
    let world = World::new().await?;
    for surface in Surface::ALL {
        let topic = world.topic("behind", 2).await?;
        let gateway = world
            .setup(&[&topic])
            .limit("ring_bytes_max", 64 << 10)
            .start()
            .await?;
        let mut want = Want::new("observations", &world.user("north"));
        want.limit = Some(40);
        want.receive_bytes = Some(8192);
        want = Reader::open(surface, gateway.address(), want).await?.want_more();
        // A long way behind on partition 0, level on partition 1, where events keep coming.
        let backlog = everything(&[volume(1500, 6000), 0], 800);
        world.producer.send_all(&plan::records(&backlog, &topic)).await?;
        let fresh = everything(&[0, volume(200, 1000)], 0);
        let mut owed = plan::owed(&backlog, north);
        fresh
            .iter()
            .for_each(|planned| owed.owe(i64::from(planned.partition), planned.n));
        let mut fresh = plan::records(&fresh, &topic).into_iter();
        let mut cuts = 0;
        while !owed.is_done() {
            let mut reader = Reader::open(surface, gateway.address(), want.clone()).await?;
            world
                .producer
                .send_all(&fresh.by_ref().take(10).collect::<Vec<_>>())
                .await?;
            let before = owed.got();
            // A few live events come between the old ones; then the connection is cut, again in mid-replay.
            while !owed.is_done() && owed.got() < before + 130 {
                if owed.left() <= fresh.len() {
                    world
                        .producer
                        .send_all(&fresh.by_ref().collect::<Vec<_>>())
                        .await?;
                }
                owed.take(&reader.event().await?)
                    .with_context(|| format!("{surface:?}, after {cuts} cuts"))?;
            }
            want = reader.want_more();
            cuts += 1;
        }
        ensure!(cuts > 5, "{cuts} cuts are not enough to show anything");
        say(&format!(
            "behind on one partition: {surface:?}, {cuts} cuts in mid-replay, exact"
        ));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_from_a_node_that_was_ahead_gets_nothing_twice() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("ahead", 3).await?;
    let setup = world.setup(&[&topic]);
    let (ahead, behind) = (setup.start().await?, setup.start().await?);
    let rounds = volume(10, 40);
    let plan = plan::plan(&mut dice("ahead"), 3, rounds * 60);
    let mut owed = plan::owed(&plan, north);
    let mut want = Want::new("observations", &world.user("north"));
    want = Reader::open(Surface::WebSocket, ahead.address(), want)
        .await?
        .want_more();
    for (round, part) in plan.chunks(60).enumerate() {
        let surface = Surface::ALL[round % 3];
        let (first, second) = part.split_at(40);
        // The other node stands still while this one gives its reader everything.
        process::signal(behind.pid(), "STOP")?;
        world.producer.send_all(&plan::records(first, &topic)).await?;
        let mut reader = Reader::open(surface, ahead.address(), want.clone()).await?;
        for _ in first.iter().filter(|planned| north(planned)) {
            owed.take(&reader.event().await?)?;
        }
        want = reader.want_more();
        drop(reader);
        // It comes to the other node in the very moment in which that one begins to catch up.
        let mut opening = JoinSet::new();
        let address = behind.address();
        opening.spawn(async move { Reader::open(surface, address, want).await });
        tokio::task::yield_now().await;
        process::signal(behind.pid(), "CONT")?;
        let mut reader = opening.join_next().await.context("one")???;
        world.producer.send_all(&plan::records(second, &topic)).await?;
        for _ in second.iter().filter(|planned| north(planned)) {
            owed.take(&reader.event().await?)
                .with_context(|| format!("round {round}, {surface:?}"))?;
        }
        want = reader.want_more();
    }
    ensure!(owed.is_done(), "{} are owed still", owed.left());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_without_an_event_for_long_has_no_false_gap_and_nothing_is_scanned_for_it() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("quiet", 2).await?;
    let setup = world
        .setup(&[&topic])
        .limit("ring_bytes_max", 64 << 10)
        .limit("heartbeat_ms", 200);
    let gateway = setup.limit("silence_max_ms", 30_000).start().await?;
    let want = Want::new("observations", &world.user("south"));
    let mut wants = Vec::new();
    for surface in Surface::ALL {
        let mut reader = Reader::open(surface, gateway.address(), want.clone()).await?;
        let first = reader.cursor().context("a cursor before any event")?.to_owned();
        let noise = everything(&[2000, 2000], 300);
        world.producer.send_all(&plan::records(&noise, &topic)).await?;
        let (mut ends, mut partition) = (Vec::new(), 0);
        while partition < 2 {
            ends.push(world.topics.bounds(&topic, partition).await?.1);
            partition += 1;
        }
        // The cursor moves past what was not for this reader, without an event.
        loop {
            match reader.next().await? {
                Item::Quiet | Item::Live => {}
                other => anyhow::bail!("{other:?} for a reader of nothing"),
            }
            let bytes_before = gateway.metric("replay_bytes_total", &[]).await?;
            let passes_before = gateway.metric("replay_passes_total", &[]).await?;
            let opened = Reader::open(Surface::Pull, gateway.address(), reader.want_more()).await?;
            drop(opened);
            let bytes = gateway.metric("replay_bytes_total", &[]).await? - bytes_before;
            let passes = gateway.metric("replay_passes_total", &[]).await? - passes_before;
            // As soon as a heartbeat has told the new cursor, coming back costs no reading at all.
            if reader.cursor() != Some(&first) && bytes == 0.0 && passes == 0.0 {
                break;
            }
        }
        wants.push((surface, reader.want_more(), ends));
    }
    // Where something is read for a reader, it is counted.
    let before = gateway.metric("replay_bytes_total", &[]).await?;
    let earlier = Want::new("observations", &world.user("south")).after("earliest");
    let mut reader = Reader::open(Surface::Sse, gateway.address(), earlier).await?;
    reader.until_live().await?;
    let now = gateway.metric("replay_bytes_total", &[]).await?;
    ensure!(now > before, "a replay of everything read {} bytes", now - before);
    // Retention takes everything that those readers never wanted.
    let (_, _, ends) = wants.last().context("ends")?;
    for (partition, end) in (0..).zip(ends.clone()) {
        world.topics.delete_records(&topic, partition, end).await?;
    }
    let (surface, want, _) = wants.pop().context("a reader")?;
    ensure!(surface == Surface::Pull, "the last cursor is at the end");
    for surface in Surface::ALL {
        let mut reader = Reader::open(surface, gateway.address(), want.clone()).await?;
        let event = json!({"partition": 0, "n": 1});
        world
            .producer
            .send(&Record::json(&topic, &event).on(0).header("tenant", "south"))
            .await?;
        // `event` takes a gap as an error.
        let got = reader.event().await.with_context(|| format!("{surface:?}"))?;
        ensure!(got["data"]["n"] == 1, "{got}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_cut_before_its_first_event_misses_nothing() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("first", 3).await?;
    let mut gateway = world.setup(&[&topic]).start().await?;
    let plan = plan::plan(&mut dice("first"), 3, 300);
    world
        .producer
        .send_all(&plan::records(&plan[..100], &topic))
        .await?;
    // Nobody has read the stream yet: `latest` is where it ends when the first reader comes.
    let mut wants = Vec::new();
    for surface in Surface::ALL {
        let reader = Reader::open(
            surface,
            gateway.address(),
            Want::new("observations", &world.user("north")),
        )
        .await?;
        wants.push((surface, reader.want_more()));
    }
    world
        .producer
        .send_all(&plan::records(&plan[100..200], &topic))
        .await?;
    gateway.kill()?;
    gateway.resume().await?;
    gateway.ready().await?;
    world
        .producer
        .send_all(&plan::records(&plan[200..], &topic))
        .await?;
    for (surface, want) in wants {
        ensure!(
            want.after.is_some(),
            "{surface:?} gives a cursor before the first event"
        );
        let mut reader = Reader::open(surface, gateway.address(), want).await?;
        take_all(&mut reader, &mut plan::owed(&plan[100..], north))
            .await
            .with_context(|| format!("{surface:?}"))?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn aborted_transactions_at_the_end_of_a_partition_do_not_hold_a_replay_up() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("aborted", 2).await?;
    let setup = world.setup(&[&topic]).limit("ring_bytes_max", 64 << 10);
    let mut gateway = setup.start().await?;
    let transactional = Producer::transactional(world.kafka.bootstrap(), &unique("transactions")).await?;
    let mut owed = Exact::default();
    for n in 0..40 {
        let committed = n % 4 == 0;
        transactional.begin()?;
        for partition in 0..2 {
            let value = json!({"partition": partition, "n": n, "padding": "x".repeat(2000)});
            transactional
                .send(
                    &Record::json(&topic, &value)
                        .on(partition)
                        .header("tenant", "north"),
                )
                .await?;
            if committed {
                owed.owe(i64::from(partition), n);
            }
        }
        if committed {
            transactional.commit().await?
        } else {
            transactional.abort().await?
        }
    }
    gateway.kill()?;
    gateway.resume().await?;
    gateway.ready().await?;
    for surface in Surface::ALL {
        let want = Want::new("observations", &world.user("north")).after("earliest");
        let mut reader = Reader::open(surface, gateway.address(), want).await?;
        let mut owed = owed.clone();
        for item in reader
            .until_live()
            .await
            .with_context(|| format!("{surface:?}"))?
        {
            if let Item::Event(event) = item {
                owed.take(&event)?;
            }
        }
        ensure!(
            owed.is_done(),
            "{surface:?}: {} are owed at the end of the replay",
            owed.left()
        );
        // The cursor stands behind the markers: coming back costs no gap and gives nothing twice.
        let mut again = Reader::open(surface, gateway.address(), reader.want_more()).await?;
        ensure!(
            again.until_live().await?.iter().all(|item| *item == Item::Quiet),
            "{surface:?}: nothing is left"
        );
    }
    // An open transaction holds nothing back but what comes after it, and its end lets it go.
    transactional.begin()?;
    let value = json!({"partition": 0, "n": 1000});
    transactional
        .send(&Record::json(&topic, &value).on(0).header("tenant", "north"))
        .await?;
    let mut reader = Reader::open(
        Surface::WebSocket,
        gateway.address(),
        Want::new("observations", &world.user("north")),
    )
    .await?;
    transactional.commit().await?;
    let event = reader.event().await?;
    ensure!(event["data"]["n"] == 1000, "{event}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn compaction_holes_do_not_hold_a_replay_up() -> Result<()> {
    let world = World::new().await?;
    let settings = [
        ("cleanup.policy", "compact"),
        ("segment.ms", "100"),
        ("min.cleanable.dirty.ratio", "0.01"),
        ("min.compaction.lag.ms", "0"),
        ("delete.retention.ms", "100"),
    ];
    let topic = world.topic_with("compacted", 1, &settings).await?;
    let mut gateway = world
        .setup(&[&topic])
        .limit("ring_bytes_max", 64 << 10)
        .start()
        .await?;
    let record = |n: i64, key: i64| {
        let value = json!({"partition": 0, "n": n, "padding": "x".repeat(500)});
        Record::json(&topic, &value)
            .on(0)
            .key(format!("Observation/{key}"))
            .header("tenant", "north")
    };
    let mut records: Vec<Record> = (0..500).map(|n| record(n, n % 10)).collect();
    records.extend((500..510).map(|n| record(n, n)));
    world.producer.send_all(&records).await?;
    // The segment that is being written is never compacted: each round closes the one before.
    let left = wait::until("the log to be compacted", || async {
        world.producer.send(&record(510, 9)).await.ok()?;
        let offsets = world.topics.offsets(&topic, 0).await.ok()?;
        (offsets.len() < 60).then_some(offsets)
    })
    .await?;
    gateway.kill()?;
    gateway.resume().await?;
    gateway.ready().await?;
    for surface in Surface::ALL {
        let want = Want::new("observations", &world.user("north")).after("earliest");
        let mut reader = Reader::open(surface, gateway.address(), want).await?;
        let items = reader
            .until_live()
            .await
            .with_context(|| format!("{surface:?}"))?;
        let mut seen = Vec::new();
        for item in &items {
            match item {
                Item::Event(event) => seen.push(event["data"]["n"].as_i64().context("n")?),
                Item::Quiet => {}
                other => anyhow::bail!("{surface:?}: {other:?}: a hole is no gap"),
            }
        }
        ensure!(seen.is_sorted(), "{surface:?}: {seen:?}");
        // The latest per key is there, whatever else is still waiting for the cleaner.
        for n in (490..499).chain(500..511) {
            ensure!(seen.contains(&n), "{surface:?}: {n} is missing in {seen:?}");
        }
        ensure!(
            seen.len() <= left.len() + 10,
            "{surface:?}: {} events of {} records",
            seen.len(),
            left.len()
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_is_where_to_go_on_from() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("times", 2).await?;
    let mut gateway = world.setup(&[&topic]).start().await?;
    let plan = plan::plan(&mut dice("times"), 2, 200);
    world
        .producer
        .send_all(&plan::records(&plan[..100], &topic))
        .await?;
    // A moment after which nothing of the first half was produced, and before which nothing of the second was.
    let between = jiff::Timestamp::now() + jiff::SignedDuration::from_millis(5);
    wait::until_true("the moment to pass", || {
        jiff::Timestamp::now() > between + jiff::SignedDuration::from_millis(5)
    })
    .await?;
    world
        .producer
        .send_all(&plan::records(&plan[100..], &topic))
        .await?;
    for restarted in [false, true] {
        if restarted {
            gateway.kill()?;
            gateway.resume().await?;
            gateway.ready().await?;
        }
        for surface in Surface::ALL {
            let want = Want::new("observations", &world.user("north")).after(between.to_string());
            let mut reader = Reader::open(surface, gateway.address(), want).await?;
            let mut owed = plan::owed(&plan[100..], north);
            take_all(&mut reader, &mut owed)
                .await
                .with_context(|| format!("{surface:?}, restarted {restarted}"))?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_that_resumes_from_nearby_positions_shares_few_passes() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("crowd", 2).await?;
    let setup = world.setup(&[&topic]).limit("ring_bytes_max", 64 << 10);
    let setup = setup
        .limit("connections_per_principal_max", 5000)
        .limit("connections_per_tenant_max", 5000);
    let mut gateway = setup.start().await?;
    let crowd = volume(200, 1000);
    // A thousand positions, a thousand cursors: one behind each event.
    let plan = everything(&[crowd / 2, crowd / 2], 300);
    world.producer.send_all(&plan::records(&plan, &topic)).await?;
    let want = Want::new("observations", &world.user("north")).after("earliest");
    let mut reader = Reader::open(Surface::WebSocket, gateway.address(), want).await?;
    let mut owed = plan::owed(&plan, north);
    let mut wants = Vec::new();
    while !owed.is_done() {
        wants.push((reader.want_more(), owed.clone()));
        owed.take(&reader.event().await?)?;
    }
    ensure!(wants.len() == crowd, "{} positions", wants.len());
    drop(reader);
    gateway.kill()?;
    gateway.resume().await?;
    gateway.ready().await?;
    let mut resuming = JoinSet::new();
    for (n, (want, mut owed)) in wants.into_iter().enumerate() {
        let surface = [Surface::WebSocket, Surface::Sse][n % 2];
        let address = gateway.address();
        resuming.spawn(async move {
            let mut reader = Reader::open(surface, address, want).await?;
            take_all(&mut reader, &mut owed)
                .await
                .with_context(|| format!("{surface:?}, reader {n}"))
        });
    }
    while let Some(reader) = resuming.join_next().await {
        reader??;
    }
    let passes = gateway.metric("replay_passes_total", &[]).await?;
    say(&format!(
        "crowd: {crowd} readers resumed from {crowd} positions on 2 partitions in {passes} passes"
    ));
    ensure!(
        passes > 0.0 && passes <= 6.0,
        "{passes} passes over two partitions"
    );
    Ok(())
}

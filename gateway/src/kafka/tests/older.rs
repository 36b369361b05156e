//! Older events, read again from the embedded broker.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use schemas::ids::{Slot, StreamName};
use subscriptions::history::{Older, OlderError, Page, Partition};

use super::super::KafkaSettings;
use super::super::embedded::Broker;
use super::super::lookup::Lookup;
use super::super::raw::Described;
use super::super::replay::Replay;
use super::super::topology::incarnation;
use super::{PATIENCE, Writer, contract, settings, stream};

struct Past {
    broker: Broker,
    replay: Arc<Replay>,
    registry: Registry,
    partition: Partition,
}

fn past(records: i32, change: impl FnOnce(&mut KafkaSettings)) -> Past {
    let broker = Broker::start(["a"], 1).expect("a broker");
    let writer = Writer::new(&broker);
    for number in 0..records {
        writer.write(
            "a",
            0,
            &format!("{{\"number\":{number},\"text\":\"{}\"}}", "x".repeat(100)),
        );
    }
    writer.flush();
    let mut settings = settings(&broker);
    change(&mut settings);
    let mut registry = Registry::default();
    let replay =
        Replay::new(&settings, &contract(vec![stream("events", "a")]), &mut registry).expect("a replay");
    let topic: Arc<str> = Arc::from("a");
    let lookup = Lookup::start(&settings).expect("look-ups");
    let described = lookup
        .client()
        .describe(&[Arc::clone(&topic)], PATIENCE)
        .expect("an answer");
    let Some((_, Described::Topic { id, .. })) = described.first() else {
        panic!("the topic exists")
    };
    let partition = Partition {
        stream: StreamName::parse("events").expect("a name"),
        slot: Slot(3),
        incarnation: incarnation(&topic, *id),
        topic,
        partition: 0,
    };
    Past {
        broker,
        replay,
        registry,
        partition,
    }
}

impl Past {
    async fn page(&self, from: i64, until: i64) -> Result<Page, OlderError> {
        tokio::time::timeout(PATIENCE, self.replay.page(&self.partition, from, until))
            .await
            .expect("a page in time")
    }

    /// Reads `from..until` as a reader does, and checks that nothing is missing.
    async fn read(&self, from: i64, until: i64) {
        let mut next = from;
        while next < until {
            let page = self.page(next, until).await.expect("a page");
            assert!(page.next > next && page.next <= until && page.log_start <= next);
            let offsets: Vec<i64> = page.events.iter().map(|event| event.offset).collect();
            assert_eq!(offsets, (next..page.next).collect::<Vec<i64>>());
            next = page.next;
        }
    }

    fn metric(&self, name: &str) -> u64 {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).expect("metrics");
        let line = text
            .lines()
            .find(|line| line.starts_with(name))
            .unwrap_or("x 0")
            .to_owned();
        line.rsplit(' ')
            .next()
            .and_then(|value| value.parse().ok())
            .expect("a number")
    }
}

#[tokio::test]
async fn pages_cover_exactly_what_was_asked_for() {
    let past = past(3000, |settings| settings.replay.page_bytes_max = 20_000);
    past.read(0, 3000).await;
    past.read(1234, 2345).await;
    past.read(0, 1).await;
    assert_eq!(past.metric("replay_passes_total"), 1);
    let bounds = past.replay.bounds(&past.partition).await.expect("bounds");
    assert_eq!((bounds.start, bounds.end), (0, 3000));
    let page = past.page(100, 200).await.expect("a page");
    assert!(page.events.iter().all(|event| event.slot == Slot(3)));
}

#[tokio::test]
async fn a_thousand_readers_at_a_thousand_nearby_positions_cost_at_most_three_passes() {
    let past = Arc::new(past(5000, |settings| {
        settings.replay.nearby_bytes_max = 300_000;
        settings.replay.page_bytes_max = 20_000;
    }));
    let mut readers = tokio::task::JoinSet::new();
    for number in 0..1000_i64 {
        let past = Arc::clone(&past);
        // Every position of the window once, in no order.
        let from = 2000 + number * 387 % 1000;
        readers.spawn(async move { past.read(from, 5000).await });
        if number % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    while let Some(read) = readers.join_next().await {
        read.expect("a reader ends well");
    }
    let passes = past.metric("replay_passes_total");
    assert!((1..=3).contains(&passes), "{passes} passes");
}

#[tokio::test]
async fn readers_who_come_one_after_the_other_from_the_end_to_the_beginning_cost_at_most_three_passes() {
    let past = past(5000, |settings| {
        settings.replay.nearby_bytes_max = 300_000;
        settings.replay.page_bytes_max = 20_000;
    });
    for from in (2000..3000).rev().step_by(50) {
        past.read(from, 5000).await;
    }
    let passes = past.metric("replay_passes_total");
    assert!((1..=3).contains(&passes), "{passes} passes");
}

#[tokio::test]
async fn a_reader_that_chases_the_end_gets_what_comes_in_the_same_pass() {
    let past = past(100, |_| {});
    let writer = Writer::new(&past.broker);
    let mut next = 0;
    for round in 1..=5_i64 {
        past.read(next, round * 100).await;
        next = round * 100;
        for _ in 0..100 {
            writer.write("a", 0, "{}");
        }
        writer.flush();
    }
    assert_eq!(past.metric("replay_passes_total"), 1);
}

#[tokio::test]
async fn another_incarnation_is_gone_and_times_are_refused_by_a_mock_cluster() {
    let mut past = past(10, |_| {});
    assert_eq!(
        past.replay.at_time(&past.partition, 0).await,
        Err(OlderError::NoTimes)
    );
    past.partition.incarnation = schemas::ids::Incarnation(1);
    assert_eq!(past.page(0, 10).await.err(), Some(OlderError::Gone));
    assert_eq!(
        past.replay.bounds(&past.partition).await.err(),
        Some(OlderError::Gone)
    );
    assert_eq!(past.replay.known(), (0, 0), "nothing is kept of it");
}

#[tokio::test]
async fn a_reader_who_leaves_leaves_nothing_behind() {
    let past = past(2000, |settings| settings.replay.consumers_max = 1);
    for _ in 0..50 {
        let page = past.replay.page(&past.partition, 10, 2000);
        drop(tokio::time::timeout(Duration::from_micros(50), page).await);
    }
    past.read(0, 2000).await;
}

#[tokio::test]
async fn more_partitions_than_consumers_are_all_read() {
    let broker = Broker::start(["a"], 8).expect("a broker");
    let writer = Writer::new(&broker);
    for number in 0..800 {
        writer.write("a", number % 8, "{}");
    }
    writer.flush();
    let mut settings = settings(&broker);
    settings.replay.consumers_max = 2;
    let contract = contract(vec![stream("events", "a")]);
    let replay = Replay::new(&settings, &contract, &mut Registry::default()).expect("a replay");
    let topic: Arc<str> = Arc::from("a");
    let lookup = Lookup::start(&settings).expect("look-ups");
    let described = lookup
        .client()
        .describe(&[Arc::clone(&topic)], PATIENCE)
        .expect("an answer");
    let Some((_, Described::Topic { id, .. })) = described.first() else {
        panic!("the topic exists")
    };
    let pages = (0..8).map(|number| {
        let partition = Partition {
            stream: StreamName::parse("events").expect("a name"),
            slot: Slot(u32::try_from(number).expect("small")),
            incarnation: incarnation(&topic, *id),
            topic: Arc::clone(&topic),
            partition: number,
        };
        replay.page(&partition, 0, 100)
    });
    for page in tokio::time::timeout(PATIENCE, futures_util::future::join_all(pages))
        .await
        .expect("in time")
    {
        assert_eq!(page.expect("a page").events.len(), 100);
    }
}

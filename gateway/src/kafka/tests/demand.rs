//! Streams are read while somebody needs them.

use super::*;

const IDLE: Duration = Duration::from_millis(300);

fn on_demand(broker: &Broker) -> KafkaSettings {
    let mut settings = settings(broker);
    settings.idle_after = Some(IDLE);
    settings
}

fn starts(reader: &Reader) -> Vec<Position> {
    let mut starts: Vec<_> = reader
        .partitions
        .values()
        .map(|(partition, start)| (partition.partition, *start))
        .collect();
    starts.sort_by_key(|(partition, _)| *partition);
    starts.into_iter().map(|(_, start)| start).collect()
}

fn nowhere(reader: &Reader) -> bool {
    !reader.partitions.is_empty()
        && starts(reader)
            .iter()
            .all(|start| matches!(start, Position::Since(_)))
}

#[tokio::test]
async fn a_stream_is_read_from_its_end_when_it_is_needed_and_rests_when_nobody_has_for_a_while() {
    let broker = Broker::start(["a"], 2).expect("a broker");
    let writer = Writer::new(&broker);
    writer.write("a", 0, "{}");
    writer.flush();
    let needs = Arc::new(Needs::new(1));
    let (source, mut readers) = start_for(&on_demand(&broker), vec![stream("events", "a")], &needs);
    let reader = &mut readers[0];
    reader.until("it rests", |reader| reader.resting).await;
    assert!(
        nowhere(reader),
        "its partitions are known, and not where they are: {:?}",
        starts(reader)
    );
    writer.write("a", 0, "{}");
    writer.flush();

    let need = needs.need(0);
    reader.until("it is read", |reader| reader.complete).await;
    assert_eq!(reader.generation, 0);
    assert_eq!(starts(reader), [Position::At(2), Position::At(0)]);
    writer.write("a", 0, "{}");
    reader
        .until("the event", |reader| reader.events == [(0, 2)])
        .await;
    assert!(
        source
            .status()
            .partitions
            .iter()
            .all(|partition| partition.position.is_some())
    );

    drop(need);
    reader
        .until("it rests again", |reader| reader.resting && nowhere(reader))
        .await;
    assert!(
        source
            .status()
            .partitions
            .iter()
            .all(|partition| partition.position.is_none())
    );
    let slots: Vec<u32> = reader.partitions.keys().copied().collect();
    for _ in 0..3 {
        writer.write("a", 0, "{}");
    }
    writer.flush();

    let _need = needs.need(0);
    reader.until("it is read again", |reader| reader.complete).await;
    assert_eq!((reader.generation, &reader.removed), (1, &Vec::new()));
    assert!(reader.partitions.keys().all(|slot| slots.contains(slot)));
    assert_eq!(starts(reader), [Position::At(6), Position::At(0)]);
    writer.write("a", 0, "{}");
    writer.write("a", 1, "{}");
    reader
        .until("what comes", |reader| reader.events.len() == 3)
        .await;
    assert!(
        reader.events.contains(&(0, 6)) && reader.events.contains(&(1, 0)),
        "{:?}",
        reader.events
    );
    source.stop().await;
}

#[tokio::test]
async fn a_topic_of_two_streams_is_read_while_one_of_them_is_needed() {
    let broker = Broker::start(["fhir.a", "fhir.b"], 1).expect("a broker");
    let needs = Arc::new(Needs::new(2));
    let streams = vec![stream("all", "fhir.*"), stream("one", "fhir.b")];
    let (source, mut readers) = start_for(&on_demand(&broker), streams, &needs);
    let one = needs.need(1);
    readers[1].until("it is read", |reader| reader.complete).await;
    let read = |source: &Source| -> Vec<bool> {
        let partitions = source.status().partitions;
        partitions
            .iter()
            .map(|partition| partition.position.is_some())
            .collect()
    };
    assert_eq!(read(&source), [false, true]);
    let all = needs.need(0);
    readers[0].until("it is read", |reader| reader.complete).await;
    assert_eq!(read(&source), [true, true]);
    drop(one);
    readers[1].until("it rests", |reader| reader.resting).await;
    assert_eq!(read(&source), [true, true], "the other stream needs both");
    let writer = Writer::new(&broker);
    writer.write("fhir.b", 0, "{}");
    readers[0]
        .until("the event", |reader| reader.events == [(0, 0)])
        .await;
    drop(all);
    readers[0]
        .until("it rests", |reader| reader.resting && nowhere(reader))
        .await;
    assert_eq!(read(&source), [false, false]);
    source.stop().await;
}

#[tokio::test]
async fn what_appears_while_a_stream_rests_is_known_and_read_when_it_is_needed() {
    let broker = Broker::start(["a"], 1).expect("a broker");
    let needs = Arc::new(Needs::new(1));
    let (source, mut readers) = start_for(&on_demand(&broker), vec![stream("later", "b")], &needs);
    let reader = &mut readers[0];
    reader.until("it rests", |reader| reader.resting).await;
    assert!(reader.partitions.is_empty());
    broker.create_topic("b", 2).expect("a topic");
    reader
        .until("its partitions", |reader| reader.partitions.len() == 2)
        .await;
    assert!(nowhere(reader));
    let writer = Writer::new(&broker);
    writer.write("b", 1, "{}");
    writer.flush();
    let _need = needs.need(0);
    reader.until("it is read", |reader| reader.complete).await;
    assert_eq!(starts(reader), [Position::At(0), Position::At(1)]);
    source.stop().await;
}

/// Waits until one of these lines is among the metrics.
async fn metric(registry: &Registry, lines: &[&str]) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !shows(registry, lines) {
        assert!(tokio::time::Instant::now() < deadline, "never: {lines:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn shows(registry: &Registry, lines: &[&str]) -> bool {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry).expect("metrics");
    text.lines().any(|have| lines.contains(&have))
}

#[tokio::test]
async fn a_stream_that_rests_while_it_is_held_back_is_read_again_when_it_is_needed() {
    let broker = Broker::start(["a"], 1).expect("a broker");
    let (needs, mut registry) = (Arc::new(Needs::new(1)), Registry::default());
    let streams = vec![stream("events", "a")];
    let (source, mut readers) = start_counted(&on_demand(&broker), streams, &needs, &mut registry);
    let reader = &mut readers[0];
    let need = needs.need(0);
    reader.until("it is read", |reader| reader.complete).await;
    // More than may wait for a sequencer, which takes nothing for now.
    let writer = Writer::new(&broker);
    let large = format!("{{\"text\":\"{}\"}}", "x".repeat(100_000));
    let is_held_back = "source_held_back_total{stream=\"events\"} 1";
    let mut written = 0;
    while !shows(&registry, &[is_held_back]) {
        // The embedded broker keeps five megabytes of a partition.
        for _ in 0..45 {
            writer.write("a", 0, &large);
            written += 1;
        }
        writer.flush();
        let are_read = format!("source_records_total{{stream=\"events\"}} {written}");
        metric(&registry, &[&are_read, is_held_back]).await;
    }
    drop(need);
    metric(&registry, &["source_streams_read 0"]).await;
    reader
        .until("it rests", |reader| reader.resting && nowhere(reader))
        .await;

    let _need = needs.need(0);
    reader.until("it is read again", |reader| reader.complete).await;
    assert_eq!(starts(reader), [Position::At(written)]);
    writer.write("a", 0, "{}");
    reader
        .until("what comes", |reader| reader.events.contains(&(0, written)))
        .await;
    source.stop().await;
}

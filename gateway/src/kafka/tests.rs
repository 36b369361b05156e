//! The promises of both sides, on the embedded broker.

mod demand;
mod older;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, OwnedHeaders, OwnedMessage};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use schemas::contract::{Contract, Deletes, Format, Stream, TenantSource, TopicPattern};
use schemas::cursor::Position;
use schemas::ids::StreamName;
use secrecy::SecretString;
use subscriptions::history::Partition;
use subscriptions::needs::Needs;
use subscriptions::sequencer::Input;
use tokio::sync::mpsc::Receiver;

use super::embedded::Broker;
use super::{KafkaSettings, Source};

/// Far beyond what any of this takes; a test that waits for so long has failed.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) fn stream(name: &str, topic: &str) -> Arc<Stream> {
    Arc::new(Stream {
        name: StreamName::parse(name).expect("a name"),
        revision: 1,
        description: None,
        topics: vec![TopicPattern::parse(topic).expect("a topic")],
        format: Format::Json,
        schema: None,
        tenant: TenantSource::Header("tenant".to_owned()),
        attributes: Vec::new(),
        deletes: Deletes::None,
        access: Vec::new(),
        type_prefix: "tidewire".to_owned(),
        source: format!("/streams/{name}"),
        show_offsets: false,
    })
}

pub(super) fn contract(streams: Vec<Arc<Stream>>) -> Arc<Contract> {
    Arc::new(Contract {
        revision: 1,
        streams,
        graph: Arc::default(),
    })
}

pub(crate) fn settings(broker: &Broker) -> KafkaSettings {
    let mut settings = KafkaSettings::new(broker.bootstrap_servers(), SecretString::from("event ids"));
    settings.embedded = true;
    settings.metadata_interval = Duration::from_millis(100);
    settings.idle_after = None;
    settings
}

pub(crate) struct Writer(BaseProducer);

impl Writer {
    pub(crate) fn new(broker: &Broker) -> Self {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", broker.bootstrap_servers())
            .set("linger.ms", "0")
            .create()
            .expect("a producer");
        Self(producer)
    }

    pub(crate) fn write(&self, topic: &str, partition: i32, value: &str) {
        self.write_as(topic, partition, Some("north"), value);
    }

    pub(crate) fn write_as(&self, topic: &str, partition: i32, tenant: Option<&str>, value: &str) {
        let headers = tenant.into_iter().fold(OwnedHeaders::new(), |headers, tenant| {
            headers.insert(Header {
                key: "tenant",
                value: Some(tenant),
            })
        });
        let record = BaseRecord::to(topic)
            .partition(partition)
            .key("k")
            .payload(value)
            .headers(headers);
        self.0
            .send(record)
            .map_err(|(error, _)| error)
            .expect("room in the producer's queue");
    }

    pub(crate) fn flush(&self) {
        self.0.flush(PATIENCE).expect("all is written");
    }
}

/// Waits for it on this thread.
pub(crate) fn first_dead_letter(settings: &KafkaSettings) -> OwnedMessage {
    let consumer: BaseConsumer = settings.replay_consumer().create().expect("a consumer");
    let mut list = rdkafka::TopicPartitionList::new();
    list.add_partition_offset(&settings.dead_letter_topic, 0, rdkafka::Offset::Offset(0))
        .expect("an offset");
    consumer.assign(&list).expect("assigned");
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        assert!(tokio::time::Instant::now() < deadline, "never: a dead letter");
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
            return message.detach();
        }
    }
}

struct Reader {
    inputs: Receiver<Input>,
    partitions: HashMap<u32, (Partition, Position)>,
    /// Partition number and offset of each event.
    events: Vec<(i32, i64)>,
    complete: bool,
    generation: u64,
    resting: bool,
    fresh: Option<bool>,
    removed: Vec<u32>,
    next: HashMap<u32, i64>,
}

impl Reader {
    async fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let all = async {
            while !done(self) {
                let input = self.inputs.recv().await.expect("the source runs");
                self.take(input);
            }
        };
        if tokio::time::timeout(PATIENCE, all).await.is_err() {
            panic!("never: {what}");
        }
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Partition { partition, start, .. } => {
                self.partitions.insert(partition.slot.0, (partition, start));
            }
            Input::Resolved { slot, start } => {
                self.partitions
                    .get_mut(&slot.0)
                    .expect("announced before it is resolved")
                    .1 = Position::At(start);
            }
            Input::Unresolved { slot, since_ms } => {
                self.partitions.get_mut(&slot.0).expect("announced").1 = Position::Since(since_ms);
            }
            Input::Complete { generation } => {
                (self.complete, self.resting, self.generation) = (true, false, generation);
            }
            Input::Resting => (self.complete, self.resting) = (false, true),
            Input::Records { slot, events, next } => {
                let number = self
                    .partitions
                    .get(&slot.0)
                    .expect("announced before its records")
                    .0
                    .partition;
                for event in &events {
                    assert_eq!(event.slot, slot);
                    assert!(event.offset < next);
                    self.events.push((number, event.offset));
                }
                assert!(self.next.insert(slot.0, next).is_none_or(|before| before < next));
            }
            Input::Lost { .. } => panic!("nothing is lost here"),
            Input::Removed { slots, .. } => self.removed.extend(slots.iter().map(|slot| slot.0)),
            Input::Fresh(fresh) => self.fresh = Some(fresh),
        }
    }
}

fn start(settings: &KafkaSettings, streams: Vec<Arc<Stream>>) -> (Source, Vec<Reader>) {
    let needs = Arc::new(Needs::new(streams.len()));
    start_for(settings, streams, &needs)
}

fn start_for(
    settings: &KafkaSettings,
    streams: Vec<Arc<Stream>>,
    needs: &Arc<Needs>,
) -> (Source, Vec<Reader>) {
    start_counted(settings, streams, needs, &mut Registry::default())
}

fn start_counted(
    settings: &KafkaSettings,
    streams: Vec<Arc<Stream>>,
    needs: &Arc<Needs>,
    registry: &mut Registry,
) -> (Source, Vec<Reader>) {
    let mut readers = Vec::new();
    let mut inputs = HashMap::new();
    for stream in &streams {
        let (sender, receiver) = tokio::sync::mpsc::channel(4);
        inputs.insert(stream.name.clone(), sender);
        readers.push(Reader {
            inputs: receiver,
            partitions: HashMap::new(),
            events: Vec::new(),
            complete: false,
            generation: 0,
            resting: false,
            fresh: None,
            removed: Vec::new(),
            next: HashMap::new(),
        });
    }
    let source = Source::start(
        settings,
        &contract(streams),
        |name| inputs.get(name).cloned(),
        needs,
        registry,
    )
    .expect("the source starts");
    (source, readers)
}

#[tokio::test]
async fn what_exists_is_read_from_its_end_and_what_comes_is_delivered_in_order() {
    let broker = Broker::start(["a"], 2).expect("a broker");
    let writer = Writer::new(&broker);
    for number in 0..10 {
        writer.write("a", 0, &format!("{{\"old\":{number}}}"));
    }
    writer.flush();
    let (source, mut readers) = start(&settings(&broker), vec![stream("events", "a")]);
    let reader = &mut readers[0];
    reader.until("complete", |reader| reader.complete).await;
    let mut starts: Vec<_> = reader
        .partitions
        .values()
        .map(|(partition, start)| (partition.partition, *start))
        .collect();
    starts.sort_by_key(|(partition, _)| *partition);
    assert_eq!(starts, [(0, Position::At(10)), (1, Position::At(0))]);
    for number in 0..1000 {
        writer.write("a", number % 2, &format!("{{\"new\":{number}}}"));
    }
    writer.flush();
    reader
        .until("all events", |reader| reader.events.len() >= 1000)
        .await;
    for (partition, first) in [(0, 10), (1, 0)] {
        let offsets: Vec<i64> = reader
            .events
            .iter()
            .filter(|(number, _)| *number == partition)
            .map(|(_, offset)| *offset)
            .collect();
        assert_eq!(offsets, (first..first + 500).collect::<Vec<i64>>());
    }
    let status = source.status();
    assert!(status.reachable);
    assert_eq!(
        status
            .partitions
            .iter()
            .map(|partition| partition.position)
            .collect::<Vec<_>>(),
        [Some(510), Some(500)]
    );
    source.stop().await;
}

#[tokio::test]
async fn an_event_after_a_silence_is_delivered_soon() {
    let broker = Broker::start(["a"], 1).expect("a broker");
    let (source, mut readers) = start(&settings(&broker), vec![stream("events", "a")]);
    let reader = &mut readers[0];
    reader.until("complete", |reader| reader.complete).await;
    let writer = Writer::new(&broker);
    let mut took = Vec::new();
    for number in 1..=20 {
        // Longer than what counts as without a gap.
        tokio::time::sleep(super::witness::GAP * 3).await;
        let written = tokio::time::Instant::now();
        writer.write("a", 0, "{}");
        reader
            .until("the event", |reader| reader.events.len() == number)
            .await;
        took.push(written.elapsed());
    }
    took.sort();
    // A mock's fetch takes up to 100 ms; the witness adds one round trip to it, and no wait of its own.
    assert!(took[10] < Duration::from_millis(180), "{took:?}");
    source.stop().await;
}

#[tokio::test]
async fn a_topic_that_appears_later_is_read_from_its_first_record() {
    let broker = Broker::start(["a"], 1).expect("a broker");
    let (source, mut readers) = start(
        &settings(&broker),
        vec![stream("events", "a"), stream("later", "b")],
    );
    for reader in &mut readers {
        reader.until("complete", |reader| reader.complete).await;
    }
    assert_eq!(source.status().missing_topics, [Arc::from("b")]);
    assert!(readers[1].partitions.is_empty());
    broker.create_topic("b", 3).expect("a topic");
    let writer = Writer::new(&broker);
    writer.write("b", 2, "{}");
    writer.flush();
    let later = &mut readers[1];
    later.until("the event", |reader| reader.events == [(2, 0)]).await;
    assert_eq!(later.partitions.len(), 3);
    assert!(
        later
            .partitions
            .values()
            .all(|(_, start)| *start == Position::At(0))
    );
    source.stop().await;
}

#[tokio::test]
async fn topics_of_a_pattern_are_found_and_one_topic_feeds_several_streams() {
    let broker = Broker::start(["fhir.a", "fhir.b", "other", "tidewire.dead-letters"], 1).expect("a broker");
    let (source, mut readers) = start(
        &settings(&broker),
        vec![stream("all", "fhir.*"), stream("one", "fhir.b")],
    );
    for reader in &mut readers {
        reader.until("complete", |reader| reader.complete).await;
    }
    assert_eq!(readers[0].partitions.len(), 2);
    assert_eq!(readers[1].partitions.len(), 1);
    let writer = Writer::new(&broker);
    writer.write("fhir.a", 0, "{}");
    writer.write("fhir.b", 0, "{}");
    writer.flush();
    readers[0]
        .until("both events", |reader| reader.events.len() == 2)
        .await;
    readers[1]
        .until("its event", |reader| reader.events.len() == 1)
        .await;
    source.stop().await;
}

#[tokio::test]
async fn a_stream_that_is_behind_does_not_hold_up_another() {
    let broker = Broker::start(["slow", "fast"], 1).expect("a broker");
    let (source, mut readers) = start(
        &settings(&broker),
        vec![stream("slow", "slow"), stream("fast", "fast")],
    );
    for reader in &mut readers {
        reader.until("complete", |reader| reader.complete).await;
    }
    let writer = Writer::new(&broker);
    let body = format!("{{\"text\":\"{}\"}}", "x".repeat(40_000));
    // Far more than its channel and its outbox take; nobody receives.
    for _ in 0..100 {
        writer.write("slow", 0, &body);
    }
    writer.flush();
    for _ in 0..100 {
        writer.write("fast", 0, "{}");
    }
    writer.flush();
    readers[1]
        .until("the fast stream's events", |reader| reader.events.len() == 100)
        .await;
    readers[0]
        .until("the slow stream's events", |reader| reader.events.len() == 100)
        .await;
    source.stop().await;
}

#[tokio::test]
async fn partitions_without_a_leader_hold_up_neither_readers_nor_other_partitions() {
    const DEAD: i32 = 60;
    let broker = Broker::start(["a"], DEAD + 1).expect("a broker");
    for partition in 0..DEAD {
        broker.set_leader("a", partition, false).expect("no leader");
    }
    let (source, mut readers) = start(&settings(&broker), vec![stream("events", "a")]);
    let reader = &mut readers[0];
    let begun = tokio::time::Instant::now();
    reader.until("complete", |reader| reader.complete).await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let writer = Writer::new(&broker);
    writer.write("a", DEAD, "{}");
    reader
        .until("the event", |reader| reader.events == [(DEAD, 0)])
        .await;
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    broker.set_leader("a", 7, true).expect("a leader");
    reader
        .until("resolved", |reader| {
            reader
                .partitions
                .values()
                .any(|(partition, start)| partition.partition == 7 && matches!(start, Position::At(_)))
        })
        .await;
    source.stop().await;
}

#[tokio::test]
async fn a_kafka_that_is_gone_is_told_and_nothing_is_lost_when_it_is_back() {
    let broker = Broker::start(["a"], 1).expect("a broker");
    let mut settings = settings(&broker);
    settings.stale_after = Duration::from_millis(1500);
    let (source, mut readers) = start(&settings, vec![stream("events", "a")]);
    let reader = &mut readers[0];
    reader.until("complete", |reader| reader.complete).await;
    broker.set_reachable(false).expect("it is cut off");
    reader.until("stale", |reader| reader.fresh == Some(false)).await;
    assert!(!source.status().reachable);
    broker.set_reachable(true).expect("it is back");
    let writer = Writer::new(&broker);
    writer.write("a", 0, "{}");
    reader
        .until("fresh, and the event", |reader| {
            reader.fresh == Some(true) && reader.events.len() == 1
        })
        .await;
    broker.set_reachable(false).expect("it is cut off again");
    reader
        .until("stale again", |reader| reader.fresh == Some(false))
        .await;
    source.stop().await;
}

#[tokio::test]
async fn a_record_without_a_tenant_becomes_a_dead_letter_and_the_stream_goes_on() {
    use rdkafka::Message;
    use rdkafka::message::Headers;

    let broker = Broker::start(["a", "tidewire.dead-letters"], 1).expect("a broker");
    let settings = settings(&broker);
    let (source, mut readers) = start(&settings, vec![stream("events", "a")]);
    let reader = &mut readers[0];
    reader.until("complete", |reader| reader.complete).await;
    let writer = Writer::new(&broker);
    writer.write("a", 0, "{\"n\":1}");
    writer.write_as("a", 0, None, "{\"n\":2}");
    writer.write("a", 0, "{\"n\":3}");
    writer.flush();
    reader
        .until("the good events", |reader| reader.events == [(0, 0), (0, 2)])
        .await;

    let letter = first_dead_letter(&settings);
    assert_eq!(letter.key(), Some(b"a:0:1".as_slice()));
    assert_eq!(letter.payload(), Some(b"{\"n\":2}".as_slice()));
    let headers: HashMap<&str, &[u8]> = letter
        .headers()
        .expect("headers")
        .iter()
        .map(|header| (header.key, header.value.unwrap_or_default()))
        .collect();
    for (name, value) in [
        ("stream", "events"),
        ("topic", "a"),
        ("partition", "0"),
        ("offset", "1"),
        ("reason", "tenant_missing"),
    ] {
        assert_eq!(headers.get(name), Some(&value.as_bytes()), "{name}");
    }
    source.stop().await;
}

//! The whole way of a delivery, from the embedded broker to a receiver of the test's own.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;

use auth::egress::Reach;
use auth::token::Principal;
use axum::Router;
use axum::extract::{Request, State};
use http::StatusCode;
use rdkafka::Message as _;
use schemas::contract::clinical_with;
use schemas::ids::{StreamName, TenantId};
use serde_json::json;
use tempfile::TempDir;
use webhooks::endpoint::{Endpoint, Owner, Spec};
use webhooks::matching::Start;

use super::*;
use crate::kafka::embedded::Broker;
use crate::kafka::testing::{Writer, first_dead_letter, settings};

const PATIENCE: Duration = Duration::from_secs(30);
const TOPIC: &str = "fhir.observation";

/// What came, by `webhook-id`: how often.
type Came = Arc<Mutex<BTreeMap<String, usize>>>;

struct Receiver {
    address: SocketAddr,
    came: Came,
    held: Arc<Mutex<Option<String>>>,
    _server: JoinSet<()>,
}

#[derive(Clone)]
struct Answering {
    came: Came,
    /// Answers 500 to the first so many attempts of each delivery.
    failures: usize,
    /// Does not answer to this one at first.
    held: Arc<Mutex<Option<String>>>,
}

async fn answer(State(answering): State<Answering>, request: Request) -> StatusCode {
    let id = request.headers()["webhook-id"].to_str().expect("text").to_owned();
    let count = {
        let mut came = answering.came.lock().expect("no panic");
        let count = came.entry(id.clone()).or_default();
        *count += 1;
        *count
    };
    let is_held = answering.held.lock().expect("no panic").as_ref() == Some(&id);
    if is_held && count == 1 {
        std::future::pending::<()>().await;
    }
    if count <= answering.failures {
        StatusCode::INTERNAL_SERVER_ERROR
    } else {
        StatusCode::NO_CONTENT
    }
}

impl Receiver {
    async fn start(failures: usize) -> Self {
        let came = Came::default();
        let answering = Answering {
            came: Arc::clone(&came),
            failures,
            held: Arc::default(),
        };
        let held = Arc::clone(&answering.held);
        let router = Router::new().fallback(answer).with_state(answering);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let address = listener.local_addr().expect("bound");
        let mut server = JoinSet::new();
        server.spawn(async move {
            axum::serve(listener, router).await.expect("served");
        });
        Self {
            address,
            came,
            held,
            _server: server,
        }
    }

    fn came(&self) -> BTreeMap<String, usize> {
        self.came.lock().expect("no panic").clone()
    }

    async fn until(&self, count: usize) {
        until(&format!("{count} deliveries"), || self.came().len() >= count).await;
    }
}

async fn until(what: &str, done: impl Fn() -> bool) {
    let end = tokio::time::Instant::now() + PATIENCE;
    while !done() {
        assert!(tokio::time::Instant::now() < end, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

struct House {
    broker: Broker,
    writer: Writer,
    contract: Arc<Contract>,
    folder: TempDir,
    keys: config::keys::Keys,
    written: i64,
    slow_after: Duration,
    body_bytes_max: usize,
}

impl House {
    fn new() -> Self {
        let broker = Broker::start([TOPIC, "tidewire.webhook-events"], 2).expect("a broker");
        broker.create_topic("tidewire.dead-letters", 1).expect("a topic");
        let secret = || SecretString::from("a secret of the tests that is long enough");
        Self {
            writer: Writer::new(&broker),
            broker,
            contract: Arc::new(clinical_with(Some("tidewire.webhook-events"))),
            folder: tempfile::tempdir().expect("a folder"),
            keys: config::keys::Keys {
                cursor: vec![secret()],
                ticket: vec![secret()],
                event_id: secret(),
                store: vec![secret()],
                signing: Vec::new(),
            },
            written: 0,
            slow_after: Duration::from_secs(2),
            body_bytes_max: 0,
        }
    }

    async fn store(&self) -> Arc<Store> {
        let url = format!("sqlite:{}", self.folder.path().join("store.db").display());
        let store = Store::open(&SecretString::from(url), &self.keys.store).await;
        Arc::new(store.expect("a store"))
    }

    async fn start(&self) -> Webhooks {
        let config = config::webhooks::Webhooks {
            enabled: true,
            allow_loopback: true,
            registry_interval: Duration::from_millis(50),
            // The embedded broker lets a group wait for three seconds at first: a shorter session would be over by then.
            session_timeout: Duration::from_secs(5),
            attempt_body_bytes_max: self.body_bytes_max,
            scheduler: webhooks::scheduler::Bounds {
                slow_after: self.slow_after,
                ..webhooks::scheduler::Bounds::default()
            },
            ..config::webhooks::Webhooks::default()
        };
        let setup = Setup {
            config: &config,
            keys: &self.keys,
            kafka: &settings(&self.broker),
            contract: &self.contract,
            store: self.store().await,
            dead_letters: DeadLetters::uncounted(&settings(&self.broker)),
            control: Control::none(),
            sealer: Sealer::new(&self.keys.cursor).expect("keys"),
            clock: Clock::System,
            drain_timeout: Duration::from_secs(10),
        };
        Webhooks::start(setup, &mut Counted::default()).expect("it starts")
    }

    /// Writes so many observations of the tenant `north`, to the two partitions in turn.
    fn write(&mut self, count: i64) {
        for _ in 0..count {
            self.write_to(i32::try_from(self.written % 2).expect("small"));
        }
        self.writer.flush();
    }

    fn write_to(&mut self, partition: i32) {
        let value = json!({
            "resourceType": "Observation", "id": self.written.to_string(), "status": "final",
            "subject": {"reference": "Patient/1"},
        });
        self.writer.write(TOPIC, partition, &value.to_string());
        self.written += 1;
    }

    /// An endpoint that is owed everything that was ever written.
    async fn endpoint(&self, receiver: &Receiver, more: serde_json::Value) -> Endpoint {
        let mut body = json!({
            "url": format!("http://{}/hook", receiver.address), "streams": ["observations"],
            "retry_seconds": [1, 1, 1, 1],
        });
        let members = body.as_object_mut().expect("an object");
        members.extend(more.as_object().expect("an object").clone());
        let reach = Reach {
            loopback: true,
            ..Reach::default()
        };
        let spec = Spec::parse(&body, reach).expect("a specification");
        let principal = Principal {
            issuer: Arc::from("https://issuer.example"),
            subject: Arc::from("partner"),
            tenant: TenantId::parse("north").expect("a tenant"),
            scopes: vec!["system/Observation.rs".to_owned()],
            claims: BTreeMap::new(),
            token_id: None,
            issued_at_ms: Some(0),
            expires_at_ms: i64::MAX,
            application: None,
            denials: Arc::default(),
        };
        let owner = Owner::of(&principal, None, 0, i64::MAX);
        let endpoint = Endpoint::create(spec, owner, Start::default(), 1_000).expect("keys");
        let store = self.store().await;
        store.create_endpoint(&endpoint, 100, None).await.expect("kept");
        store.close().await;
        endpoint
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_record_is_delivered_once_and_not_again_after_a_restart() {
    let mut house = House::new();
    let receiver = Receiver::start(0).await;
    house.endpoint(&receiver, json!({})).await;
    let node = house.start().await;
    house.write(100);
    receiver.until(100).await;
    house.write(100);
    receiver.until(200).await;
    node.drain().await;
    house.write(50);
    let node = house.start().await;
    receiver.until(250).await;
    node.drain().await;
    assert!(
        receiver.came().values().all(|count| *count == 1),
        "{:?}",
        receiver.came()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_no_event_becomes_a_dead_letter_though_nobody_reads_the_stream() {
    let mut house = House::new();
    let receiver = Receiver::start(0).await;
    house.endpoint(&receiver, json!({})).await;
    let node = house.start().await;
    house.write(1);
    house.writer.write(TOPIC, 1, "no JSON");
    house.writer.flush();
    house.write(2);
    receiver.until(3).await;
    let letter = first_dead_letter(&settings(&house.broker));
    assert_eq!(letter.key(), Some(format!("{TOPIC}:1:0").as_bytes()));
    node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_the_reader_learns_of_late_gets_what_it_was_owed_before() {
    let mut house = House::new();
    let (early, late) = (Receiver::start(0).await, Receiver::start(0).await);
    house.endpoint(&early, json!({})).await;
    let node = house.start().await;
    house.write(120);
    early.until(120).await;
    house.endpoint(&late, json!({})).await;
    house.write(30);
    late.until(150).await;
    early.until(150).await;
    node.drain().await;
    assert!(early.came().values().all(|count| *count == 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_taken_away_and_comes_back_is_owed_from_then_on_without_a_gap() {
    let mut house = House::new();
    let receiver = Receiver::start(0).await;
    let streams = json!({"streams": ["observations", "webhook_events"]});
    let endpoint = house.endpoint(&receiver, streams).await;
    let node = house.start().await;
    house.write(10);
    receiver.until(10).await;
    let patch = async |streams: serde_json::Value| {
        let principal = Principal {
            scopes: vec!["system/Observation.rs".to_owned(), "webhooks:read".to_owned()],
            ..endpoint.owner.principal()
        };
        let mut patch = serde_json::Map::new();
        patch.insert("owner".to_owned(), json!("me"));
        patch.insert("streams".to_owned(), streams);
        let desk = node.desk();
        let changed = desk.patch(&principal, &endpoint.id, patch, &desk::Condition::Any);
        changed.await.expect("changed");
    };
    let stream = Arc::clone(house.contract.stream("observations").expect("declared"));
    let ends = node
        .desk()
        .logs
        .ends(&stream, &endpoint.tenant)
        .await
        .expect("kafka answers");
    let ids = DeliveryIds::new(&house.keys.event_id);
    let mut wanted: Vec<i64> = (0..10).collect();
    for _ in 0..5 {
        patch(json!(["webhook_events"])).await;
        house.write(4);
        patch(json!(["observations", "webhook_events"])).await;
        wanted.extend(house.written..house.written + 4);
        house.write(4);
        // What was written while it was not wanted may have been on its way already; what was wanted is all there.
        let expected: Vec<String> = wanted
            .iter()
            .map(|number| {
                let end = ends.iter().find(|end| i64::from(end.partition) == number % 2);
                let position = webhooks::delivery::Position {
                    offset: number / 2,
                    ..end.expect("a partition").clone()
                };
                ids.of(&endpoint.id, &stream.name, &position).to_string()
            })
            .collect();
        until("what is wanted again", || {
            let came = receiver.came();
            expected.iter().all(|id| came.contains_key(id))
        })
        .await;
    }
    node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_is_parked_and_arrives_later_under_the_same_id() {
    let mut house = House::new();
    let receiver = Receiver::start(1).await;
    house.endpoint(&receiver, json!({"concurrency": 4})).await;
    let node = house.start().await;
    house.write(9);
    until("each of them twice", || {
        let came = receiver.came();
        came.len() == 9 && came.values().all(|count| *count == 2)
    })
    .await;
    node.drain().await;
    let store = house.store().await;
    assert_eq!(store.due().await.expect("read"), []);
    let stream = StreamName::parse("observations").expect("a name");
    let attempts = store
        .attempts(
            &TenantId::parse("north").expect("a tenant"),
            &webhooks::store::AttemptFilter::default(),
            100,
        )
        .await
        .expect("read");
    assert_eq!(attempts.len(), 18, "each attempt is on record");
    assert!(
        attempts
            .iter()
            .all(|attempt| attempt.place.as_ref().is_some_and(|(name, _)| *name == stream))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_are_kept_only_where_that_is_switched_on() {
    let mut house = House::new();
    let receiver = Receiver::start(0).await;
    let endpoint = house.endpoint(&receiver, json!({"content": "raw"})).await;
    for (body_bytes_max, count) in [(0, 1), (10, 2)] {
        house.body_bytes_max = body_bytes_max;
        let node = house.start().await;
        house.write(1);
        receiver.until(count).await;
        node.drain().await;
    }
    let store = house.store().await;
    let filter = webhooks::store::AttemptFilter::default();
    let attempts = store.attempts(&endpoint.tenant, &filter, 10).await.expect("read");
    let mut kept = Vec::new();
    for attempt in attempts {
        let bodies = store.bodies(&endpoint.tenant, &endpoint.id, attempt.id).await;
        kept.push(bodies.expect("read"));
    }
    let [Some((request, Some(answer))), None] = kept.as_slice() else {
        panic!("the later one only: {kept:?}");
    };
    assert_eq!(&*request.kept, b"{\"resource", "its beginning");
    assert!(request.bytes > Some(10) && request.is_cut());
    assert_eq!((answer.kept.len(), answer.bytes), (0, Some(0)));
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_ends_without_a_word_loses_nothing() {
    let mut house = House::new();
    let receiver = Receiver::start(0).await;
    house.endpoint(&receiver, json!({})).await;
    for round in 1..=3 {
        let node = house.start().await;
        house.write(60);
        receiver.until(round * 60 - 30).await;
        // Its tasks are cut off wherever they are; the group learns of it when the session ends.
        node.abandon();
    }
    let node = house.start().await;
    receiver.until(180).await;
    node.drain().await;
    assert_eq!(receiver.came().len(), 180);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_taken_behind_an_open_one_is_not_sent_again_after_a_crash() {
    let mut house = House::new();
    // Nothing is parked: only notes tell what was taken.
    house.slow_after = Duration::from_secs(60);
    let receiver = Receiver::start(0).await;
    let endpoint = house.endpoint(&receiver, json!({})).await;
    let node = house.start().await;
    let stream = Arc::clone(house.contract.stream("observations").expect("declared"));
    let ends = node.desk().logs.ends(&stream, &endpoint.tenant).await;
    let first = webhooks::delivery::Position {
        offset: 0,
        ..ends.expect("kafka answers").swap_remove(0)
    };
    let ids = DeliveryIds::new(&house.keys.event_id);
    let held = ids.of(&endpoint.id, &stream.name, &first).to_string();
    *receiver.held.lock().expect("no panic") = Some(held.clone());
    house.write(80);
    receiver.until(80).await;
    let store = house.store().await;
    let end = tokio::time::Instant::now() + PATIENCE;
    // Of its partition everything but the one that is held.
    while store
        .noted_from("tidewire.webhooks", &first)
        .await
        .expect("read")
        .len()
        < 39
    {
        assert!(tokio::time::Instant::now() < end, "what is settled is noted");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    node.abandon();
    let node = house.start().await;
    house.write(20);
    receiver.until(100).await;
    until("the one that was held", || receiver.came()[&held] == 2).await;
    node.drain().await;
    let again: Vec<String> = receiver
        .came()
        .into_iter()
        .filter_map(|(id, count)| (count > 1).then_some(id))
        .collect();
    assert_eq!(again, [held], "only what was not taken is sent again");
    store.close().await;
}

/// An endpoint without an interest is owed nothing, and what a partition is read with is not read again for it: a part of
/// them must never be shown without.
#[tokio::test(flavor = "multi_thread")]
async fn endpoints_are_shown_all_with_or_all_without_what_operators_know() {
    const ENDPOINTS: usize = 12;
    let house = House::new();
    let receiver = Receiver::start(0).await;
    for _ in 0..ENDPOINTS {
        house.endpoint(&receiver, json!({})).await;
    }
    let stream = StreamName::parse("observations").expect("a name");
    let logs =
        Arc::new(Logs::new(&settings(&house.broker), &house.contract, Default::default()).expect("a client"));
    // Wherever in a look it becomes known.
    for place in 0..60 {
        let control = Control::unread(Duration::from_secs(60));
        let registry = Arc::new(Registry::new(
            house.store().await,
            Arc::clone(&house.contract),
            control.clone(),
            Arc::clone(&logs),
            webhooks::retry::Schedule::standard(),
            Arc::from("node_test"),
            Duration::from_secs(10),
        ));
        let interests = || registry.snapshot().index.interests(&stream).count();
        let mut looking = JoinSet::new();
        let looked = Arc::clone(&registry);
        looking.spawn(async move { looked.look().await });
        let until = tokio::time::Instant::now() + Duration::from_micros(place * 50);
        while tokio::time::Instant::now() < until {
            tokio::task::yield_now().await;
        }
        control.has_read(tokio::time::Instant::now());
        while let Some(ended) = looking.join_next().await {
            ended.expect("no panic").expect("the store answers");
        }
        let shown = interests();
        assert!(shown == 0 || shown == ENDPOINTS, "{shown} of {ENDPOINTS}");
        registry.look().await.expect("the store answers");
        assert_eq!(
            interests(),
            ENDPOINTS,
            "what was compiled without is compiled anew"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_delivered_in_order_also_to_an_endpoint_that_is_learnt_of_late() {
    let mut house = House::new();
    let receiver = Receiver::start(0).await;
    let other = Receiver::start(0).await;
    house.endpoint(&other, json!({})).await;
    let node = house.start().await;
    house.write(80);
    other.until(80).await;
    let endpoint = house.endpoint(&receiver, json!({"ordering": "key"})).await;
    house.write(40);
    receiver.until(120).await;
    node.drain().await;
    // Every record has one key: the order of first arrivals is that of each partition.
    let store = house.store().await;
    let filter = webhooks::store::AttemptFilter {
        endpoint: Some(endpoint.id.clone()),
        ..webhooks::store::AttemptFilter::default()
    };
    let mut attempts = store
        .attempts(&endpoint.tenant, &filter, 1000)
        .await
        .expect("read");
    attempts.sort_by(|one, other| (one.at_ms, &one.id).cmp(&(other.at_ms, &other.id)));
    let mut last: BTreeMap<i32, i64> = BTreeMap::new();
    for attempt in attempts {
        let (_, position) = attempt.place.expect("an event");
        let before = last.insert(position.partition, position.offset);
        assert!(
            before < Some(position.offset),
            "{before:?} came before {}",
            position.offset
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_without_a_leader_does_not_keep_the_others_waiting() {
    let mut house = House::new();
    let receiver = Receiver::start(0).await;
    house.endpoint(&receiver, json!({})).await;
    house
        .broker
        .set_leader(TOPIC, 1, false)
        .expect("it is taken away");
    let node = house.start().await;
    (0..10).for_each(|_| house.write_to(0));
    house.writer.flush();
    receiver.until(10).await;
    house.broker.set_leader(TOPIC, 1, true).expect("it is given back");
    (0..10).for_each(|_| house.write_to(1));
    house.writer.flush();
    receiver.until(20).await;
    node.drain().await;
    assert!(
        receiver.came().values().all(|count| *count == 1),
        "{:?}",
        receiver.came()
    );
}

//! A node: sequencer and worker on the test's own thread.

mod log;
mod reader;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use auth::clock::Clock;
use auth::control::Control;
use auth::dev::DevelopmentIssuer;
use auth::quota::{Limits, Quotas};
use auth::token::{Authenticator, Principal};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use schemas::contract::{Contract, Stream};
use schemas::cursor::{Position, Sealer};
use schemas::decode::{Decoder, Record};
use schemas::event::Event;
use schemas::filter::Predicate;
use schemas::ids::{Incarnation, Slot, StreamName, TenantId};
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::spawn_local;
use tokio::time::{Instant, timeout};

use crate::graphql;
use crate::history::{Bounds, Older, OlderError, Page, Partition, Ring};
use crate::hub::{
    After, Body, Failure, GraphqlFraming, GraphqlStream, GraphqlSubscribe, HubConfig, Protocol, Pull,
    PullPage, Reading, Services, Sse, Transport, WebSocket,
};
use crate::metrics::Metrics;
use crate::needs::Needs;
use crate::outlet::Home;
use crate::scans::Scans;
use crate::sequencer::{Gone, Input, Past, Sequencer};
use crate::worker::{Opened, Order, Setup, Wake, Worker};

pub(super) use self::log::Log;
pub(super) use self::reader::Reader;

pub(super) const STREAMS: &str = r#"
[streams.observations]
topics = ["vitals"]
format = "json"
schema = "Vital"
tenant = { header = "tenant" }
show_offsets = true
attributes = { patient = "/patient", status = "/status" }
[[streams.observations.access]]
scopes = ["user/Observation.rs"]
rows = "tenant"
[[streams.observations.access]]
scopes = ["patient/Observation.rs"]
rows = { patient = "Patient/{claims.patient}" }
hide = ["/note"]
"#;

const TYPES: &str = r#"
extend schema @link(url: "https://specs.apollo.dev/federation/v2.5", import: ["@requiresScopes"])
type Vital {
  n: Int patient: String status: String note: String
  phi: String @json(pointer: "/note") @requiresScopes(scopes: [["phi:read"]])
}
"#;

fn contract() -> Contract {
    let sources = [("streams.toml", STREAMS), ("types.graphql", TYPES)];
    let sources = sources.map(|(name, text)| (PathBuf::from(name), text.to_owned()));
    Contract::from_sources(sources.into()).expect("the test's contract is valid")
}

pub(super) const NOW_MS: i64 = 1_800_000_000_000;

/// One node over a log.
pub(super) struct Node {
    pub(super) log: Log,
    input: mpsc::Sender<Input>,
    worker: mpsc::Sender<Wake>,
    slots: BTreeMap<(u64, i32), Slot>,
    /// The next offset that this node has not been fed.
    fed: BTreeMap<(u64, i32), i64>,
    next_slot: u32,
    clock: Clock,
    pub(super) issuer: DevelopmentIssuer,
    sealer: Sealer,
    quotas: Quotas,
    pub(super) metrics: Arc<Metrics>,
    schema: Arc<graphql::Schema>,
    pub(super) control: Control,
    pub(super) needs: Arc<Needs>,
}

impl Node {
    /// Starts a node that knows these partitions, each from its end.
    pub(super) async fn start(
        log: &Log,
        config: HubConfig,
        issuer: &DevelopmentIssuer,
        partitions: &[i32],
    ) -> Self {
        let mut node = Self::unready(log, config, issuer).await;
        node.complete(partitions).await;
        node
    }

    /// The partitions that there are become known.
    pub(super) async fn complete(&mut self, partitions: &[i32]) {
        for partition in partitions {
            let end = self.log.end(1, *partition);
            self.announce(1, *partition, Position::At(end)).await;
        }
        self.send(Input::Complete { generation: 0 }).await;
        self.settle().await;
    }

    /// Starts a node that has not reached Kafka.
    pub(super) async fn unready(log: &Log, config: HubConfig, issuer: &DevelopmentIssuer) -> Self {
        let contract = Arc::new(contract());
        let clock = Clock::Tokio {
            base_ms: NOW_MS,
            start: Instant::now(),
        };
        let sealer = Sealer::new(&[SecretString::from(
            "a cursor key of a test, 32 characters or more",
        )])
        .expect("the key is long enough");
        let schema = graphql::Schema::new(&contract, graphql::Options::default());
        let schema = Arc::new(schema.expect("the test's contract can be served"));
        let control = Control::none();
        let authenticator = Authenticator::new(vec![issuer.trusted(&["patient"])])
            .expect("the issuer is valid")
            .with_control(control.clone());
        let services = Services {
            older: Arc::new(log.clone()),
            sealer: sealer.clone(),
            authenticator,
            clock,
            graphql: Some(Arc::clone(&schema)),
        };
        let metrics = Arc::new(Metrics::default());
        let shown = Arc::clone(&metrics);
        let past = Arc::new(Past {
            ring: std::sync::RwLock::new(Ring::new(config.ring_bytes_max)),
            standing: Mutex::default(),
        });
        let (worker, inbox) = mpsc::channel(64);
        let needs = Arc::new(Needs::new(1));
        let setup = Setup {
            scans: Arc::new(Scans::new(config.scan_bytes_max, config.tenant_scan_bytes_max)),
            config: Arc::new(config),
            contract,
            services: Arc::new(services),
            pasts: vec![Arc::clone(&past)],
            metrics: Arc::clone(&metrics),
            needs: Arc::clone(&needs),
        };
        spawn_local(Worker::run(setup, inbox));
        let (input, inputs) = mpsc::channel(64);
        let sequencer = Sequencer::new(0, log.stream.name.clone(), past, metrics);
        spawn_local(sequencer.run(inputs, vec![worker.clone()]));
        let quotas = Quotas::new(Limits::default());
        let node = Self {
            log: log.clone(),
            input,
            worker,
            slots: BTreeMap::new(),
            fed: BTreeMap::new(),
            next_slot: 0,
            clock,
            issuer: issuer.clone(),
            sealer,
            quotas,
            metrics: shown,
            schema,
            control,
            needs,
        };
        node.settle().await;
        node
    }

    pub(super) async fn send(&self, input: Input) {
        assert!(self.input.send(input).await.is_ok(), "the sequencer is gone");
    }

    /// Waits until everything that was sent has been applied: paused time only moves when nobody has anything to do.
    pub(super) async fn settle(&self) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    fn partition(&self, life: u64, partition: i32) -> Partition {
        Partition {
            stream: StreamName::parse("observations").unwrap(),
            slot: self.slots[&(life, partition)],
            topic: Arc::from("vitals"),
            incarnation: Incarnation(life),
            partition,
        }
    }

    pub(super) async fn announce(&mut self, life: u64, partition: i32, start: Position) {
        self.slots.insert((life, partition), Slot(self.next_slot));
        self.next_slot += 1;
        if let Position::At(offset) = start {
            self.fed.insert((life, partition), offset);
        }
        let partition = self.partition(life, partition);
        self.send(Input::Partition {
            partition,
            tenant: None,
            start,
        })
        .await;
    }

    pub(super) async fn remove(&mut self, life: u64) {
        let slots: Vec<Slot> = self
            .slots
            .iter()
            .filter(|((of, _), _)| *of == life)
            .map(|(_, slot)| *slot)
            .collect();
        self.slots.retain(|(of, _), _| *of != life);
        self.send(Input::Removed {
            slots,
            gone: Gone::Recreated,
        })
        .await;
    }

    /// Feeds the node everything that the log has beyond what it was fed, up to `count` events.
    pub(super) async fn feed(&mut self, life: u64, partition: i32, count: usize) {
        let from = self.fed[&(life, partition)];
        let at = self.partition(life, partition);
        let (events, next) = self.log.events(&at, from, i64::MAX, count);
        self.fed.insert((life, partition), next);
        self.send(Input::Records {
            slot: at.slot,
            events,
            next,
        })
        .await;
        self.settle().await;
    }

    /// Feeds everything, for a test that waits for an answer meanwhile: the node's own account is not advanced.
    pub(super) async fn feed_all(&self, life: u64, partition: i32) {
        let at = self.partition(life, partition);
        let (events, next) = self
            .log
            .events(&at, self.fed[&(life, partition)], i64::MAX, usize::MAX);
        self.send(Input::Records {
            slot: at.slot,
            events,
            next,
        })
        .await;
    }

    /// An unresolved start is known.
    pub(super) async fn resolve(&mut self, life: u64, partition: i32, start: i64) {
        self.fed.insert((life, partition), start);
        self.send(Input::Resolved {
            slot: self.slots[&(life, partition)],
            start,
        })
        .await;
    }

    /// It is not known any more where a partition is.
    pub(super) async fn unresolve(&self, life: u64, partition: i32) {
        let slot = self.slots[&(life, partition)];
        self.send(Input::Unresolved {
            slot,
            since_ms: NOW_MS,
        })
        .await;
    }

    /// Appends and feeds one event.
    pub(super) async fn publish(&mut self, partition: i32, tenant: &str, value: Value) {
        self.log.append(1, partition, tenant, value);
        self.feed(1, partition, usize::MAX).await;
    }

    pub(super) fn principal(&self, tenant: &str, scopes: &str, patient: Option<&str>) -> Arc<Principal> {
        Arc::new(Principal {
            issuer: Arc::from(auth::dev::ISSUER),
            subject: Arc::from("reader"),
            tenant: TenantId::parse(tenant).unwrap(),
            scopes: scopes.split(' ').map(str::to_owned).collect(),
            claims: patient
                .map(|patient| ("patient".to_owned(), Arc::from(patient)))
                .into_iter()
                .collect(),
            token_id: None,
            issued_at_ms: Some(self.clock.now_ms()),
            expires_at_ms: self.clock.now_ms() + 3_600_000,
            application: None,
            denials: Arc::default(),
        })
    }

    pub(super) fn token(
        &self,
        tenant: &str,
        subject: &str,
        scopes: &str,
        patient: Option<&str>,
        ttl: Duration,
    ) -> String {
        let claims = patient
            .map(|patient| ("patient".to_owned(), patient.to_owned()))
            .into_iter()
            .collect();
        let tenant = TenantId::parse(tenant).unwrap();
        self.issuer
            .mint(&tenant, subject, scopes, &claims, ttl, self.clock.now_ms())
    }

    /// Connects a WebSocket whose pipe holds so many bytes.
    pub(super) async fn connect(&self, principal: Option<Arc<Principal>>, pipe_bytes: usize) -> Reader {
        self.connect_as(Protocol::TidewireV1, principal, pipe_bytes).await
    }

    /// The same, speaking another protocol.
    pub(super) async fn connect_as(
        &self,
        protocol: Protocol,
        principal: Option<Arc<Principal>>,
        pipe_bytes: usize,
    ) -> Reader {
        let (ours, theirs) = tokio::io::duplex(pipe_bytes);
        let permit = match &principal {
            Some(principal) => self.quotas.admit(principal).unwrap(),
            None => self.quotas.admit_unknown().unwrap(),
        };
        let transport = Transport::Other {
            io: Box::new(theirs),
            read_ahead: Bytes::new(),
        };
        let socket = WebSocket {
            transport,
            protocol,
            principal,
            restriction: None,
            permit,
        };
        assert!(self.worker.send(Wake::WebSocket(Box::new(socket))).await.is_ok());
        Reader {
            pipe: ours,
            buffer: Vec::new(),
            close: None,
        }
    }

    /// Connects, subscribes to everything of a tenant, and reads up to `subscribed`.
    pub(super) async fn subscribe(&self, tenant: &str, after: Option<&str>) -> Reader {
        let mut reader = self
            .connect(Some(self.principal(tenant, "user/Observation.rs", None)), 1 << 20)
            .await;
        reader.subscribe(after).await;
        let subscribed = reader.until("subscribed").await;
        assert!(subscribed["cursor"].is_string());
        reader
    }

    pub(super) async fn pull(
        &self,
        tenant: &str,
        after: After,
        limit: usize,
        wait: Duration,
    ) -> Result<PullPage, Failure> {
        let (reply, answer) = oneshot::channel();
        let reading = Reading {
            stream: Arc::clone(&self.log.stream),
            principal: self.principal(tenant, "user/Observation.rs", None),
            filter: Predicate::default(),
            after,
        };
        assert!(
            self.worker
                .send(Wake::Pull(Box::new(Pull { reading, limit, wait }), reply))
                .await
                .is_ok()
        );
        answer.await.expect("the worker answers")
    }

    pub(super) async fn sse(&self, tenant: &str, after: After) -> Body {
        let (reply, answer) = oneshot::channel();
        let principal = self.principal(tenant, "user/Observation.rs", None);
        let permit = self.quotas.admit(&principal).unwrap();
        let reading = Reading {
            stream: Arc::clone(&self.log.stream),
            principal,
            filter: Predicate::default(),
            after,
        };
        let sse = Sse {
            reading,
            retry_ms: Some(1000),
            permit,
        };
        assert!(self.worker.send(Wake::Sse(Box::new(sse), reply)).await.is_ok());
        let opened = answer.await.expect("the worker answers");
        let (place, serial, body) = opened.expect("the stream opens");
        body.of(Home {
            worker: self.worker.downgrade(),
            place,
            serial,
        })
    }

    /// An operation, compiled.
    pub(super) fn bound(&self, query: &str, after: Option<&str>) -> Box<graphql::Bound> {
        let mut request = graphql::Request {
            query: Some(query.to_owned()),
            ..graphql::Request::default()
        };
        if let Some(after) = after {
            request.extensions.insert("after".to_owned(), json!(after));
        }
        let principal = self.principal("north", "user/Observation.rs", None);
        match self.schema.prepare(&request, Some(&principal)) {
            Ok(graphql::Prepared::Subscription(bound)) => bound,
            other => panic!("no subscription: {other:?}"),
        }
    }

    /// Opens a response with GraphQL results for everybody's observations in `north`.
    pub(super) async fn graphql(
        &self,
        framing: GraphqlFraming,
        first: Option<GraphqlSubscribe>,
    ) -> Result<Opened, Failure> {
        let principal = self.principal("north", "user/Observation.rs", None);
        let stream = GraphqlStream {
            framing,
            permit: self.quotas.admit(&principal).unwrap(),
            principal,
            restriction: None,
        };
        let (reply, answer) = oneshot::channel();
        let wake = Wake::Graphql(Box::new(stream), first, reply);
        assert!(self.worker.send(wake).await.is_ok());
        answer.await.expect("the worker answers")
    }

    /// Says something to an open response.
    pub(super) async fn order(&self, opened: &Opened, order: Order) -> Result<bool, Failure> {
        let (reply, answer) = oneshot::channel();
        let wake = Wake::Order(opened.0, opened.1, order, reply);
        assert!(self.worker.send(wake).await.is_ok());
        answer.await.expect("the worker answers")
    }

    /// Its worker's inbox.
    pub(super) fn worker(&self) -> mpsc::WeakSender<Wake> {
        self.worker.downgrade()
    }

    /// How many sessions are open.
    pub(super) async fn sessions(&self) -> usize {
        let (reply, answer) = oneshot::channel();
        assert!(self.worker.send(Wake::Inspect(reply)).await.is_ok());
        answer.await.expect("the worker answers").len()
    }

    pub(super) fn after(&self, tenant: &str, cursor: &str) -> After {
        After::parse(
            cursor,
            &self.log.stream.name,
            &TenantId::parse(tenant).unwrap(),
            &self.sealer,
        )
        .unwrap()
    }

    pub(super) async fn drain(&self) -> oneshot::Receiver<()> {
        let (done, is_done) = oneshot::channel();
        assert!(
            self.worker
                .send(Wake::Drain(Duration::from_secs(1), done))
                .await
                .is_ok()
        );
        is_done
    }
}

/// A node of its own on a log of its own, with one partition.
pub(super) async fn node() -> Node {
    node_with(HubConfig::default()).await
}

/// The same with other limits.
pub(super) async fn node_with(config: HubConfig) -> Node {
    let issuer = DevelopmentIssuer::ephemeral().unwrap();
    Node::start(&Log::new(), config, &issuer, &[0]).await
}

/// Runs a test's body where local tasks may be spawned.
pub(super) async fn local<T>(body: impl Future<Output = T>) -> T {
    tokio::task::LocalSet::new().run_until(body).await
}

pub(super) fn numbered(n: i64) -> Value {
    json!({"n": n, "patient": "Patient/1", "status": "final", "note": "secret"})
}

//! A gateway without Kafka: the clinical contract, a real hub that is fed by the test, a development issuer.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use auth::clock::Clock;
use auth::control::{Change, Control, Names};
use auth::dev::DevelopmentIssuer;
use auth::quota::{self, Quotas};
use auth::ticket::Tickets;
use auth::token::Authenticator;
use axum::Router;
use axum::body::{Body, to_bytes};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Request, StatusCode};
use prometheus_client::registry::Registry;
use schemas::contract::clinical;
use schemas::cursor::{Position, Sealer};
use schemas::decode::{Decoder, Record};
use schemas::ids::{Incarnation, Slot, StreamName, TenantId};
use secrecy::SecretString;
use serde_json::Value;
use subscriptions::graphql::{self, Schema};
use subscriptions::history::{Bounds, Older, OlderError, Page as OlderPage, Partition};
use subscriptions::hub::{Hub, HubConfig, Services};
use subscriptions::sequencer::Input;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::http::control::Desk;
use crate::http::graphql::{CallbackSettings, Callbacks, Surface};
use crate::http::listener::{Listener, Tls};
use crate::http::{
    Gateway, HttpLimits, IngestStatus, Metrics, Operations, Origins, Page, operations_router, public_router,
};

/// What asks for a page.
pub(super) const BATCH: (&str, &str) = ("accept", "application/cloudevents-batch+json");
/// What a body is sent as.
pub(super) const JSON: (&str, &str) = ("content-type", "application/json");
/// The page that may call.
pub(super) const ORIGIN: &str = "https://app.example";
/// A token of the operations listener.
pub(super) const OPERATIONS_TOKEN: &str = "operations-token";

/// Every stream of a tenant.
const SYSTEM: &str =
    "system/Observation.rs system/Encounter.rs system/Patient.rs system/MedicationRequest.rs";

/// Admin calls that write nowhere: they are in force at once.
fn desk(control: Control) -> Desk {
    let known = control.clone();
    Desk {
        control,
        names: Names::new(&SecretString::from("a secret of the tests")),
        clock: Clock::System,
        limits: HttpLimits::default(),
        write: Some(Arc::new(move |key, value| {
            let change =
                Change::decode(Some(key.as_bytes()), value.as_deref()).expect("what we write is read");
            known.apply([change]);
            async { Ok(()) }.boxed()
        })),
    }
}

/// Nothing is older than the ring.
struct NothingOlder;

impl Older for NothingOlder {
    fn page(&self, _: &Partition, _: i64, _: i64) -> BoxFuture<'static, Result<OlderPage, OlderError>> {
        async { Err(OlderError::Gone) }.boxed()
    }

    fn bounds(&self, _: &Partition) -> BoxFuture<'static, Result<Bounds, OlderError>> {
        async { Err(OlderError::Unavailable("there is no Kafka here".to_owned())) }.boxed()
    }

    fn at_time(&self, _: &Partition, _: i64) -> BoxFuture<'static, Result<i64, OlderError>> {
        async { Err(OlderError::NoTimes) }.boxed()
    }
}

/// A gateway under test.
pub(super) struct Rig {
    pub(super) hub: Hub,
    pub(super) issuer: DevelopmentIssuer,
    pub(super) drain: CancellationToken,
    pub(super) public: Router,
    pub(super) operations: Router,
    pub(super) metrics: Metrics,
    decoder: Decoder,
    next: i64,
}

/// What is not usual about a rig.
#[derive(Default)]
pub(super) struct Unusual {
    pub(super) limits: HttpLimits,
    pub(super) page: Option<Page>,
    pub(super) operations_token: Option<&'static str>,
    pub(super) principal_max: Option<usize>,
    pub(super) introspection: bool,
    /// Automatic persisted queries are on.
    pub(super) automatic: bool,
    pub(super) callback: CallbackSettings,
    pub(super) webhooks: Option<Arc<crate::webhooks::desk::Desk>>,
}

impl Rig {
    pub(super) fn new() -> Self {
        Self::with(Unusual::default())
    }

    pub(super) fn with(unusual: Unusual) -> Self {
        let secret = |text: &str| SecretString::from(text.repeat(8));
        let issuer = DevelopmentIssuer::ephemeral().expect("issuer");
        let control = Control::none();
        let authenticator = Authenticator::new(vec![issuer.trusted(&["patient"])])
            .expect("authenticator")
            .with_control(control.clone());
        let contract = Arc::new(clinical());
        let sealer = Sealer::new(&[secret("cursor")]).expect("sealer");
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        let options = graphql::Options {
            introspection: unusual.introspection,
            persisted: graphql::Persisted {
                automatic: unusual.automatic,
                ..graphql::Persisted::default()
            },
            ..graphql::Options::default()
        };
        let schema = Arc::new(Schema::new(&contract, options).expect("schema"));
        let services = Services {
            older: Arc::new(NothingOlder),
            sealer: sealer.clone(),
            authenticator: authenticator.clone(),
            clock: Clock::System,
            graphql: Some(Arc::clone(&schema)),
        };
        let config = HubConfig {
            workers: 1,
            ..HubConfig::default()
        };
        let hub = Hub::start(config, Arc::clone(&contract), services, &mut registry).expect("hub");
        let drain = CancellationToken::new();
        let mut quotas = quota::Limits::default();
        quotas.principal_max = unusual.principal_max.unwrap_or(quotas.principal_max);
        let mut origins = Origins::parse([ORIGIN]).expect("origins");
        if unusual.page.is_some() {
            origins = origins.with_own_host();
        }
        let posts = Callbacks::new(
            unusual.callback,
            metrics.clone(),
            TaskTracker::new(),
            drain.clone(),
        );
        let posts = posts.expect("a client");
        let surface = Surface::new(schema, unusual.introspection, unusual.introspection, posts);
        let gateway = Arc::new(Gateway {
            graphql: Some(Arc::new(surface)),
            hub: hub.clone(),
            authenticator: authenticator.clone(),
            tickets: Tickets::new(&[secret("ticket")]).expect("tickets"),
            quotas: Quotas::new(quotas),
            sealer,
            clock: Clock::System,
            origins,
            limits: unusual.limits,
            metrics: metrics.clone(),
            drain: drain.clone(),
            upgrades: TaskTracker::new(),
            page: unusual.page,
            webhooks: unusual.webhooks,
        });
        let operations = Arc::new(Operations {
            control: desk(control),
            hub: hub.clone(),
            authenticator,
            registry: Arc::new(registry),
            metrics: metrics.clone(),
            token: unusual.operations_token.map(SecretString::from),
            drain: drain.clone(),
            ingest: Arc::new(IngestStatus::default),
            partitions_max: 256,
        });
        let observations = contract.stream("observations").expect("stream");
        Self {
            hub,
            issuer,
            drain,
            public: public_router(gateway),
            operations: operations_router(operations),
            metrics,
            decoder: Decoder::new(Arc::clone(observations), &secret("id")),
            next: 0,
        }
    }

    /// A token; `patient` is a claim where it is not empty.
    pub(super) fn token(&self, tenant: &str, scopes: &str, patient: &str) -> String {
        let mut claims = BTreeMap::new();
        if !patient.is_empty() {
            claims.insert("patient".to_owned(), patient.to_owned());
        }
        let tenant = TenantId::parse(tenant).expect("tenant");
        self.issuer.mint(
            &tenant,
            "somebody",
            scopes,
            &claims,
            Duration::from_secs(600),
            Clock::System.now_ms(),
        )
    }

    /// A token that may read the observations of `north`.
    pub(super) fn bearer(&self) -> String {
        format!("Bearer {}", self.token("north", "user/Observation.rs", ""))
    }

    /// Every stream has one empty partition.
    pub(super) async fn complete(&self) {
        for (number, stream) in self.hub.contract().streams.iter().enumerate() {
            let input = self.hub.input(&stream.name).expect("input");
            let partition = partition(&stream.name, u32::try_from(number).expect("small"));
            let partition = Input::Partition {
                partition,
                tenant: None,
                start: Position::At(0),
            };
            input.send(partition).await.expect("sequencer");
            input
                .send(Input::Complete { generation: 0 })
                .await
                .expect("sequencer");
        }
        // The workers hear of it a moment after the hub says so.
        for stream in &self.hub.contract().streams {
            let bearer = format!("Bearer {}", self.token("nobody", SYSTEM, ""));
            let uri = format!("/v1/streams/{}", stream.name);
            let ready = async {
                while self.get(&uri, &[("authorization", &bearer)]).await.status != StatusCode::OK {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(Duration::from_secs(20), ready)
                .await
                .expect("the stream is ready");
            assert!(self.hub.is_known(&stream.name));
        }
    }

    /// Feeds one observation of `north` into the hub.
    pub(super) async fn observe(&mut self, patient: &str) {
        let streams = &self.hub.contract().streams;
        let number = streams
            .iter()
            .position(|stream| stream.name.as_str() == "observations")
            .expect("stream");
        let slot = Slot(u32::try_from(number).expect("small"));
        let body = format!(
            r#"{{"resourceType":"Observation","id":"o{}","status":"final","code":{{}},"subject":{{"reference":"Patient/{patient}"}}}}"#,
            self.next
        );
        let record = Record {
            topic: "fhir.observation".into(),
            incarnation: Incarnation(1),
            slot,
            partition: 0,
            offset: self.next,
            timestamp_ms: Clock::System.now_ms(),
            key: Some(Bytes::from(format!("Observation/o{}", self.next))),
            value: Some(Bytes::from(body)),
            headers: vec![("tenant".into(), Some(Bytes::from_static(b"north")))],
        };
        let event = self.decoder.decode(record).expect("decoded").expect("an event");
        self.next += 1;
        let name = StreamName::parse("observations").expect("name");
        let input = self.hub.input(&name).expect("input");
        input
            .send(Input::Records {
                slot,
                events: vec![event],
                next: self.next,
            })
            .await
            .expect("sequencer");
    }

    pub(super) async fn ask(&self, request: Request<Body>) -> Answer {
        answer(&self.public, request).await
    }

    pub(super) async fn get(&self, uri: &str, headers: &[(&str, &str)]) -> Answer {
        self.ask(request("GET", uri, headers, "")).await
    }

    pub(super) async fn post(&self, uri: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        self.ask(request("POST", uri, headers, body)).await
    }

    /// Serves the public router on a free port of loopback.
    pub(super) fn serve(&self, limits: &HttpLimits, tls: Option<Tls>) -> Served {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listener = Listener::bind(any, tls, "public", limits, &self.metrics).expect("bound");
        let address = listener.local_address();
        let stop = CancellationToken::new();
        let mut task = JoinSet::new();
        task.spawn(listener.serve(self.public.clone(), stop.clone()));
        Served { address, stop, task }
    }
}

/// A listener under test; dropping it cuts everything off.
pub(super) struct Served {
    pub(super) address: SocketAddr,
    pub(super) stop: CancellationToken,
    pub(super) task: JoinSet<()>,
}

impl Served {
    pub(super) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("connected")
    }
}

fn partition(stream: &StreamName, slot: u32) -> Partition {
    let topic = match stream.as_str() {
        "observations" => "fhir.observation",
        "encounters" => "fhir.encounter",
        "patients" => "fhir.patient",
        _ => "fhir.medication_request",
    };
    Partition {
        stream: stream.clone(),
        slot: Slot(slot),
        topic: topic.into(),
        incarnation: Incarnation(1),
        partition: 0,
    }
}

/// An answer, read to its end.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) text: String,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {}", self.text))
    }

    /// The code of a problem document.
    pub(super) fn code(&self) -> String {
        assert_eq!(
            self.headers["content-type"], "application/problem+json",
            "{}",
            self.text
        );
        let document = self.json();
        assert_eq!(document["status"], self.status.as_u16(), "{document}");
        document["code"].as_str().expect("a code").to_owned()
    }
}

pub(super) fn request(method: &str, uri: &str, headers: &[(&str, &str)], body: &str) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(uri);
    if !headers.iter().any(|(name, _)| *name == "host") {
        request = request.header("host", "gateway.example");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Body::from(body.to_owned())).expect("a request")
}

pub(super) async fn answer(router: &Router, request: Request<Body>) -> Answer {
    let Ok(response) = router.clone().oneshot(request).await;
    let (head, body) = response.into_parts();
    let bytes = to_bytes(body, 1 << 20).await.expect("a body");
    let text = String::from_utf8(bytes.to_vec()).expect("text");
    Answer {
        status: head.status,
        headers: head.headers,
        text,
    }
}

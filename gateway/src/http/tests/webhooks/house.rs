//! Webhooks behind the routers of a rig: the embedded broker, SQLite, and a receiver of the test's own.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use auth::clock::Clock;
use auth::control::Control;
use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, Method, StatusCode};
use schemas::contract::{Contract, clinical};
use schemas::cursor::Sealer;
use secrecy::SecretString;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinSet;
use webhooks::delivery::{DeliveryIds, EndpointId};
use webhooks::sign::{Ed25519, Held, MessageSigner};
use webhooks::store::Store;

use crate::http::tests::rig::{Answer, Rig, Unusual, request};
use crate::kafka::Logs;
use crate::kafka::embedded::Broker;
use crate::kafka::testing::{Writer, settings};
use crate::webhooks::clients::{Clients, Reaches};
use crate::webhooks::desk::{Announce, Desk, DeskSettings, Paces};

/// Scopes of whoever may do everything with observations.
pub(super) const ALL: &str = "webhooks:read webhooks:write system/Observation.rs";
pub(super) const ENDPOINTS: &str = "/v1/webhooks/endpoints";
pub(super) const TOPIC: &str = "fhir.observation";

pub(super) struct House {
    pub(super) rig: Rig,
    pub(super) desk: Arc<Desk>,
    pub(super) store: Arc<Store>,
    pub(super) writer: Writer,
    /// What was told of endpoints.
    pub(super) told: Arc<Mutex<Vec<(String, String, Value)>>>,
    pub(super) changed: watch::Receiver<u64>,
    _broker: Broker,
    _folder: TempDir,
}

impl House {
    pub(super) async fn new() -> Self {
        Self::with(100).await
    }

    pub(super) async fn with(endpoints_per_tenant_max: i64) -> Self {
        let secret = |text: &str| SecretString::from(text.repeat(8));
        let contract: Arc<Contract> = Arc::new(clinical());
        let topics = contract.streams.iter().flat_map(|stream| &stream.topics);
        let broker = Broker::start(topics.map(|topic| topic.as_str()), 2).expect("a broker");
        let folder = tempfile::tempdir().expect("a folder");
        let url = format!("sqlite:{}", folder.path().join("store.db").display());
        let store = Store::open(&SecretString::from(url), &[secret("store")]).await;
        let store = Arc::new(store.expect("a store"));
        let reaches = Reaches {
            loopback: true,
            private: Vec::new(),
        };
        let told = Arc::new(Mutex::new(Vec::new()));
        let telling = Arc::clone(&told);
        let (sender, changed) = watch::channel(0);
        let key = Held {
            key: Ed25519::generate().expect("a key"),
            until_ms: None,
        };
        let desk = Arc::new(Desk {
            store: Arc::clone(&store),
            logs: Arc::new(Logs::new(&settings(&broker), &contract, Default::default()).expect("logs")),
            contract,
            signer: Arc::new(MessageSigner::new(vec![key])),
            clients: Arc::new(Clients::new(reaches).expect("clients")),
            control: Control::none(),
            ids: Arc::new(DeliveryIds::new(&secret("id"))),
            // The rig's: its cursors are good here, and ours there.
            sealer: Sealer::new(&[secret("cursor")]).expect("a key"),
            clock: Clock::System,
            settings: DeskSettings {
                endpoints_per_tenant_max,
                secret_overlap: Duration::from_secs(3_600),
                personal_max_ms: 86_400_000,
                origin: "gateway.example".to_owned(),
                attempt_body_bytes_max: 1_000,
                consumer: "group".to_owned(),
            },
            changed: sender,
            registry: None,
            announce: Announce {
                tell: Some(Box::new(move |_, id: &EndpointId, event, detail| {
                    let entry = (id.to_string(), event.to_owned(), detail);
                    telling.lock().expect("no panic").push(entry);
                })),
            },
            paces: Paces::default(),
        });
        let rig = Rig::with(Unusual {
            webhooks: Some(Arc::clone(&desk)),
            ..Unusual::default()
        });
        Self {
            rig,
            desk,
            store,
            writer: Writer::new(&broker),
            told,
            changed,
            _broker: broker,
            _folder: folder,
        }
    }

    /// Of a tenant, with scopes.
    pub(super) fn bearer(&self, tenant: &str, scopes: &str) -> String {
        format!("Bearer {}", self.rig.token(tenant, scopes, "1"))
    }

    /// A request of `north` with all scopes.
    pub(super) async fn ask(&self, method: &str, uri: &str, body: &Value) -> Answer {
        self.ask_as(&self.bearer("north", ALL), method, uri, &[], body)
            .await
    }

    pub(super) async fn ask_as(
        &self,
        bearer: &str,
        method: &str,
        uri: &str,
        more: &[(&str, &str)],
        body: &Value,
    ) -> Answer {
        let mut headers = vec![("authorization", bearer)];
        let text = if body.is_null() {
            String::new()
        } else {
            headers.push(("content-type", "application/json"));
            body.to_string()
        };
        headers.extend(more);
        self.rig.ask(request(method, uri, &headers, &text)).await
    }

    pub(super) async fn get(&self, uri: &str) -> Answer {
        self.ask("GET", uri, &Value::Null).await
    }

    /// An endpoint of `north`, and its path.
    pub(super) async fn create(&self, body: &Value) -> (Value, String) {
        let answer = self.ask("POST", ENDPOINTS, body).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
        let shown = answer.json();
        let path = format!("{ENDPOINTS}/{}", shown["id"].as_str().expect("an id"));
        (shown, path)
    }

    /// The endpoint's current tag.
    pub(super) async fn tag(&self, path: &str) -> String {
        let answer = self.get(path).await;
        answer.headers["etag"].to_str().expect("text").to_owned()
    }

    pub(super) async fn patch(&self, path: &str, tag: &str, patch: &Value) -> Answer {
        let bearer = self.bearer("north", ALL);
        self.ask_as(&bearer, "PATCH", path, &[("if-match", tag)], patch)
            .await
    }

    /// One observation of a tenant, without a word of who it is but the patient.
    pub(super) fn observe(&self, tenant: &str, patient: &str, status: &str) {
        let value = json!({
            "resourceType": "Observation", "id": "o1", "status": status, "note": [{"text": "a private note"}],
            "code": {}, "subject": {"reference": format!("Patient/{patient}")},
        });
        self.writer.write_as(TOPIC, 0, Some(tenant), &value.to_string());
        self.writer.flush();
    }
}

/// What has to be there to make an endpoint.
pub(super) fn smallest() -> Value {
    json!({ "url": "https://partner.example/hooks", "streams": ["observations"] })
}

pub(super) fn with(member: &str, value: Value) -> Value {
    let mut body = smallest();
    body[member] = value;
    body
}

/// A request that came to a receiver.
#[derive(Debug, Clone)]
pub(super) struct Came {
    pub(super) method: Method,
    pub(super) headers: HeaderMap,
    pub(super) body: String,
}

/// A receiver on loopback.
pub(super) struct Receiver {
    pub(super) url: String,
    pub(super) came: Arc<Mutex<Vec<Came>>>,
    _server: JoinSet<()>,
}

#[derive(Clone)]
struct Answering {
    status: StatusCode,
    headers: HeaderMap,
    came: Arc<Mutex<Vec<Came>>>,
}

impl Receiver {
    /// Answers everything so.
    pub(super) async fn start(status: StatusCode, headers: &[(&'static str, &str)]) -> Self {
        let came = Arc::new(Mutex::new(Vec::new()));
        let answering = Answering {
            status,
            headers: headers
                .iter()
                .map(|(name, value)| {
                    let name: http::HeaderName = name.parse().expect("a name");
                    (name, value.parse().expect("a value"))
                })
                .collect(),
            came: Arc::clone(&came),
        };
        let router = Router::new().fallback(receive).with_state(answering);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let url = format!("http://{}/hook", listener.local_addr().expect("bound"));
        let mut server = JoinSet::new();
        server.spawn(async move {
            axum::serve(listener, router).await.expect("served");
        });
        Self {
            url,
            came,
            _server: server,
        }
    }

    pub(super) fn came(&self) -> Vec<Came> {
        self.came.lock().expect("no panic").clone()
    }
}

async fn receive(State(answering): State<Answering>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.expect("a body");
    answering.came.lock().expect("no panic").push(Came {
        method: head.method,
        headers: head.headers,
        body: String::from_utf8(body.to_vec()).expect("text"),
    });
    // Something that a partner must never be told.
    (answering.status, answering.headers, "inside the firewall").into_response()
}

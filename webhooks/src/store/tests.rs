mod postgres;

use std::collections::BTreeSet;
use std::sync::Arc;

use auth::egress::Reach;
use schemas::decode::Record;
use schemas::ids::{Incarnation, StreamName, TenantId};
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::delivery::{DeliveryId, DeliveryIds, EndpointId, Position};
use crate::endpoint::{Disabled, Endpoint, Owner, Spec, Status};
use crate::fixture;
use crate::ledger::{Commit, Partition};
use crate::matching::Start;

const LEASE: Duration = Duration::from_secs(60);

fn keys() -> Vec<SecretString> {
    vec![SecretString::from("a key of the tests that is long enough")]
}

/// A database, and what keeps it alive.
struct Database {
    url: SecretString,
    _folder: Option<TempDir>,
    _server: Option<Arc<postgres::Server>>,
}

impl Database {
    fn sqlite() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self {
            url: SecretString::from(format!("sqlite:{}", folder.path().join("store.db").display())),
            _folder: Some(folder),
            _server: None,
        }
    }

    async fn postgres() -> Option<Self> {
        // Starting takes seconds: not on the thread that runs the tests' tasks.
        let server = tokio::task::spawn_blocking(postgres::server)
            .await
            .expect("started")?;
        Some(Self {
            url: server.database().await,
            _folder: None,
            _server: Some(server),
        })
    }

    async fn open(&self) -> Store {
        Store::open(&self.url, &keys()).await.expect("a store")
    }
}

/// The same promises on both engines.
macro_rules! on_both {
    ($($name:ident)*) => {
        mod on_sqlite {
            $(#[tokio::test]
            async fn $name() {
                super::$name(&super::Database::sqlite()).await;
            })*
        }
        mod on_postgres {
            $(#[tokio::test]
            async fn $name() {
                if let Some(database) = super::Database::postgres().await {
                    super::$name(&database).await;
                }
            })*
        }
    };
}

mod endpoints;
mod log;
mod parked;
mod progress;

on_both! {
    nothing_secret_is_stored_in_the_clear_or_opens_with_another_key
}

fn endpoint(tenant: &str) -> Endpoint {
    let body = json!({
        "url": "https://partner.example/hooks", "streams": ["observations"],
        "credentials": {"type": "bearer", "token": "hush-hush-token"},
    });
    let spec = Spec::parse(&body, Reach::default()).expect("a specification");
    let principal = fixture::principal(tenant, &["system/Observation.rs"]);
    Endpoint::create(spec, Owner::of(&principal, None, 0, 1), Start::default(), 1_000).expect("keys")
}

fn delivery(endpoint: &Endpoint, partition: i32, offset: i64) -> Parked {
    let ids = DeliveryIds::new(&SecretString::from("a secret of the tests, long enough"));
    let position: Position = fixture::position(partition, offset);
    let stream = StreamName::parse("observations").expect("a name");
    Parked {
        delivery: ids.of(&endpoint.id, &stream, &position),
        endpoint: endpoint.id.clone(),
        tenant: endpoint.tenant.clone(),
        stream,
        record: Arc::new(fixture::record(
            endpoint.tenant.as_str(),
            &position,
            "o1",
            r#"{"status":"hush-hush"}"#,
        )),
        order_key: None,
        attempts: 1,
        age: Duration::from_secs(3),
        due_in: Duration::ZERO,
        lease: None,
    }
}

async fn create(store: &Store, tenant: &str) -> Endpoint {
    let endpoint = endpoint(tenant);
    let created = store.create_endpoint(&endpoint, 100, None).await.expect("kept");
    assert_eq!(created, Created::New);
    endpoint
}

async fn claim(
    store: &Store,
    endpoint: &Endpoint,
    holder: &str,
    lease: Duration,
    limit: i64,
) -> Vec<Claimed> {
    let claimed = store
        .claim(&endpoint.tenant, &endpoint.id, holder, lease, limit)
        .await;
    claimed.expect("claimed")
}

fn offsets(claimed: &[Claimed]) -> Vec<i64> {
    claimed.iter().map(|claimed| claimed.record.offset).collect()
}

fn same(one: &Record, other: &Record) -> bool {
    one.key == other.key
        && one.value == other.value
        && one.headers == other.headers
        && one.offset == other.offset
}

async fn nothing_secret_is_stored_in_the_clear_or_opens_with_another_key(database: &Database) {
    let store = database.open().await;
    let (lund, oslo) = (create(&store, "lund").await, create(&store, "oslo").await);
    let parked = delivery(&lund, 0, 0);
    store
        .park(&[parked.clone(), delivery(&oslo, 0, 0)])
        .await
        .expect("parked");
    let sealed: Vec<Vec<u8>> = on!(store, pool => {
        let mut all: Vec<(Vec<u8>,)> =
            sqlx::query_as("SELECT payload FROM webhook_parked").fetch_all(pool).await.expect("read");
        all.extend::<Vec<(Vec<u8>,)>>(
            sqlx::query_as("SELECT sealed FROM webhook_endpoints").fetch_all(pool).await.expect("read"),
        );
        all.into_iter().map(|(bytes,)| bytes).collect()
    });
    assert_eq!(sealed.len(), 4);
    for bytes in &sealed {
        let text = String::from_utf8_lossy(bytes);
        assert!(!text.contains("hush-hush") && !text.contains("whsec_") && !text.contains("status"));
    }
    // A payload that was put under another delivery, or another tenant, does not open.
    on!(store, pool => {
        let sql = "UPDATE webhook_parked SET delivery = 'msg_other' WHERE delivery = $1";
        sqlx::query(sql).bind(parked.delivery.as_str()).execute(pool).await.expect("moved");
    });
    let moved = store.claim(&lund.tenant, &lund.id, "a", LEASE, 9).await;
    assert!(matches!(moved, Err(StoreError::Unreadable(_))), "{moved:?}");
    let foreign = store.claim(&lund.tenant, &oslo.id, "a", LEASE, 9).await;
    assert!(matches!(foreign, Err(StoreError::Unreadable(_))), "{foreign:?}");
    store.close().await;

    let other = [SecretString::from("another key of the tests, long enough")];
    let store = Store::open(&database.url, &other).await.expect("a store");
    let unreadable = store.endpoint(&lund.tenant, &lund.id).await;
    assert!(
        matches!(unreadable, Err(StoreError::Unreadable(_))),
        "{unreadable:?}"
    );
    store.close().await;
    // A new key seals, the old one opens still.
    let both = [other[0].clone(), keys()[0].clone()];
    let store = Store::open(&database.url, &both).await.expect("a store");
    assert!(
        store
            .endpoint(&lund.tenant, &lund.id)
            .await
            .expect("read")
            .is_some()
    );
    store.close().await;
}

#[tokio::test]
async fn urls_of_nothing_and_databases_of_later_versions_are_refused() {
    let refused = Store::open(&SecretString::from("mysql://x"), &keys()).await;
    assert!(matches!(refused, Err(StoreError::Url)));
    let database = Database::sqlite();
    let store = database.open().await;
    on!(store, pool => {
        sqlx::query("INSERT INTO webhook_schema (version) VALUES (99)").execute(pool).await.expect("written");
    });
    store.close().await;
    let refused = Store::open(&database.url, &keys()).await;
    assert!(matches!(refused, Err(StoreError::Later { have: 99, .. })));
}

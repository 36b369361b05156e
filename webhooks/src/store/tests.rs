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

on_both! {
    what_was_answered_is_there_after_a_restart
    the_same_request_makes_one_endpoint_and_no_answer_has_its_secret
    a_change_of_an_older_version_is_refused
    endpoints_come_in_pages
    parking_what_is_parked_changes_nothing
    a_delivery_is_leased_to_one_at_a_time
    many_holders_never_get_the_same_delivery
    a_lease_that_ended_is_taken_over_and_the_former_holder_changes_nothing
    deliveries_of_one_key_come_one_after_the_other
    what_is_not_called_is_not_due_and_what_is_too_old_is_dropped
    attempts_are_found_again_by_page_and_filter
    bodies_are_sealed_and_belong_to_one_attempt
    attempts_of_many_segments_that_overlap_come_in_the_order_of_time
    figures_are_of_one_endpoint_and_of_the_time_that_is_asked_for
    watermarks_never_go_back_within_one_life_of_a_topic
    what_is_noted_above_a_watermark_goes_when_the_watermark_has_passed_it
    a_replay_is_read_by_one_at_a_time_and_keeps_what_it_found_with_how_far_it_is
    who_has_caught_up_is_known_until_the_endpoint_is_gone
    a_stream_that_is_not_wanted_any_more_is_caught_up_with_anew
    what_was_given_up_is_neither_delivered_nor_waiting_nor_denied
    nodes_that_are_silent_do_not_share_the_work
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

async fn what_was_answered_is_there_after_a_restart(database: &Database) {
    let store = database.open().await;
    let endpoint = create(&store, "lund").await;
    let parked = delivery(&endpoint, 0, 7);
    store.park(std::slice::from_ref(&parked)).await.expect("parked");
    store
        .report_health(&endpoint.id, Some(5), Some(9))
        .await
        .expect("told");
    store.close().await;

    let store = database.open().await;
    let kept = store
        .endpoint(&endpoint.tenant, &endpoint.id)
        .await
        .expect("read")
        .expect("there");
    assert_eq!(kept.endpoint.etag(), endpoint.etag());
    assert_eq!(kept.endpoint.to_stored(), endpoint.to_stored());
    assert_eq!(
        (kept.revision, kept.failing_since_ms, kept.open_until_ms),
        (1, Some(5), Some(9))
    );
    assert_eq!(
        store.due().await.expect("read"),
        std::slice::from_ref(&endpoint.id)
    );
    let claimed = claim(&store, &endpoint, "a", LEASE, 10).await;
    assert_eq!(claimed.len(), 1);
    assert!(same(&claimed[0].record, &parked.record));
    assert_eq!((&claimed[0].delivery, claimed[0].attempts), (&parked.delivery, 1));
    assert!(
        (3..10).contains(&claimed[0].age.as_secs()),
        "{:?}",
        claimed[0].age
    );
    let foreign = store
        .endpoint(&fixture::tenant("oslo"), &endpoint.id)
        .await
        .expect("read");
    assert!(foreign.is_none());
    assert!(
        store
            .delete_endpoint(&endpoint.tenant, &endpoint.id)
            .await
            .expect("deleted")
    );
    assert_eq!(store.backlog(&endpoint.id).await.expect("read").count, 0);
    assert!(
        !store
            .delete_endpoint(&endpoint.tenant, &endpoint.id)
            .await
            .expect("gone")
    );
    store.close().await;
}

async fn the_same_request_makes_one_endpoint_and_no_answer_has_its_secret(database: &Database) {
    let store = Arc::new(database.open().await);
    let key = Idempotency::new("key-1", b"{request}");
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (store, key) = (Arc::clone(&store), key.clone());
        tasks.spawn(async move {
            let endpoint = endpoint("lund");
            let created = store
                .create_endpoint(&endpoint, 100, Some(&key))
                .await
                .expect("kept");
            (endpoint.id, created)
        });
    }
    let answers = tasks.join_all().await;
    let made: Vec<&EndpointId> = answers
        .iter()
        .filter(|(_, created)| *created == Created::New)
        .map(|(id, _)| id)
        .collect();
    assert_eq!(made.len(), 1);
    for (id, created) in &answers {
        assert!(
            id == made[0] || *created == Created::Before(made[0].clone()),
            "{created:?}"
        );
    }
    assert_eq!(
        store
            .endpoints(&fixture::tenant("lund"), None, 100)
            .await
            .expect("read")
            .len(),
        1
    );
    let other = Idempotency::new("key-1", b"{another request}");
    let reused = store
        .create_endpoint(&endpoint("lund"), 100, Some(&other))
        .await
        .expect("answered");
    assert_eq!(reused, Created::KeyReused);
    // The key is the tenant's own.
    let foreign = store
        .create_endpoint(&endpoint("oslo"), 100, Some(&other))
        .await
        .expect("kept");
    assert_eq!(foreign, Created::New);
    let more = store
        .create_endpoint(&endpoint("oslo"), 1, None)
        .await
        .expect("answered");
    assert_eq!(more, Created::TooMany);
    assert_eq!(
        store.expire_idempotency(Duration::ZERO).await.expect("forgotten"),
        2
    );
    store.close().await;
}

async fn a_change_of_an_older_version_is_refused(database: &Database) {
    let store = database.open().await;
    let mut endpoint = create(&store, "lund").await;
    endpoint.status = Status::Disabled {
        reason: Disabled::Gone,
        since_ms: 7,
    };
    assert_eq!(store.update_endpoint(&endpoint, 1).await.expect("kept"), Some(2));
    endpoint.status = Status::Active;
    assert_eq!(store.update_endpoint(&endpoint, 1).await.expect("refused"), None);
    let kept = store
        .endpoint(&endpoint.tenant, &endpoint.id)
        .await
        .expect("read")
        .expect("there");
    assert!(matches!(
        kept.endpoint.status,
        Status::Disabled {
            reason: Disabled::Gone,
            since_ms: 7
        }
    ));
    let revisions = store.endpoint_versions().await.expect("read");
    let version = Version {
        id: endpoint.id.clone(),
        tenant: endpoint.tenant.clone(),
        revision: 2,
        failing_since_ms: None,
        open_until_ms: None,
    };
    assert_eq!(revisions, [version]);
    store.close().await;
}

async fn endpoints_come_in_pages(database: &Database) {
    let store = database.open().await;
    let mut ids = BTreeSet::new();
    for _ in 0..5 {
        ids.insert(create(&store, "lund").await.id);
        create(&store, "oslo").await;
    }
    let tenant = fixture::tenant("lund");
    let mut seen = Vec::new();
    loop {
        let page = store.endpoints(&tenant, seen.last(), 2).await.expect("a page");
        if page.is_empty() {
            break;
        }
        seen.extend(page.into_iter().map(|kept| kept.endpoint.id));
    }
    assert_eq!(seen, ids.into_iter().collect::<Vec<_>>());
    store.close().await;
}

async fn parking_what_is_parked_changes_nothing(database: &Database) {
    let store = database.open().await;
    let endpoint = create(&store, "lund").await;
    let first = delivery(&endpoint, 0, 7);
    store.park(std::slice::from_ref(&first)).await.expect("parked");
    let mut again = first.clone();
    again.attempts = 9;
    again.due_in = Duration::from_secs(1_000);
    store
        .park(&[again, delivery(&endpoint, 0, 8)])
        .await
        .expect("parked");
    assert_eq!(store.backlog(&endpoint.id).await.expect("read").count, 2);
    let claimed = claim(&store, &endpoint, "a", LEASE, 10).await;
    assert_eq!(
        claimed.iter().map(|claimed| claimed.attempts).collect::<Vec<_>>(),
        [1, 1]
    );
    store.close().await;
}

async fn a_delivery_is_leased_to_one_at_a_time(database: &Database) {
    let store = database.open().await;
    let endpoint = create(&store, "lund").await;
    let parked: Vec<Parked> = (0..3).map(|offset| delivery(&endpoint, 0, offset)).collect();
    store.park(&parked).await.expect("parked");
    let mine = claim(&store, &endpoint, "a", LEASE, 2).await;
    assert_eq!(offsets(&mine), [0, 1]);
    assert_eq!(offsets(&claim(&store, &endpoint, "b", LEASE, 2).await), [2]);
    assert!(claim(&store, &endpoint, "c", LEASE, 2).await.is_empty());
    assert!(store.due().await.expect("read").is_empty());
    // One that is parked while it runs is leased from the start.
    let mut running = delivery(&endpoint, 0, 9);
    running.lease = Some((Arc::from("a"), LEASE));
    store.park(&[running.clone()]).await.expect("parked");
    assert!(claim(&store, &endpoint, "c", LEASE, 2).await.is_empty());
    let settled = [
        Settled::Over(mine[0].delivery.clone()),
        Settled::Again {
            delivery: mine[1].delivery.clone(),
            due_in: Duration::from_secs(600),
            attempts: 2,
        },
        Settled::Released(running.delivery),
    ];
    store.settle("a", &settled).await.expect("settled");
    assert_eq!(offsets(&claim(&store, &endpoint, "c", LEASE, 9).await), [9]);
    assert_eq!(store.backlog(&endpoint.id).await.expect("read").count, 3);
    // A drain gives back what is held.
    assert_eq!(store.release("c").await.expect("released"), 1);
    assert_eq!(offsets(&claim(&store, &endpoint, "d", LEASE, 9).await), [9]);
    store.close().await;
}

async fn many_holders_never_get_the_same_delivery(database: &Database) {
    let store = Arc::new(database.open().await);
    let endpoint = Arc::new(create(&store, "lund").await);
    let parked: Vec<Parked> = (0..60).map(|offset| delivery(&endpoint, 0, offset)).collect();
    store.park(&parked).await.expect("parked");
    let mut tasks = tokio::task::JoinSet::new();
    for holder in 0..6 {
        let (store, endpoint) = (Arc::clone(&store), Arc::clone(&endpoint));
        tasks.spawn(async move {
            let mut mine = Vec::new();
            loop {
                let claimed = claim(&store, &endpoint, &holder.to_string(), LEASE, 4).await;
                if claimed.is_empty() {
                    return mine;
                }
                mine.extend(offsets(&claimed));
            }
        });
    }
    let mut all: Vec<i64> = tasks.join_all().await.into_iter().flatten().collect();
    // What another one had locked for a moment was passed over by those who looked then.
    all.extend(offsets(&claim(&store, &endpoint, "last", LEASE, 100).await));
    all.sort_unstable();
    assert_eq!(all, (0..60).collect::<Vec<_>>());
    store.close().await;
}

async fn a_lease_that_ended_is_taken_over_and_the_former_holder_changes_nothing(database: &Database) {
    let store = database.open().await;
    let endpoint = create(&store, "lund").await;
    store
        .park(&[delivery(&endpoint, 0, 0), delivery(&endpoint, 0, 1)])
        .await
        .expect("parked");
    let dead = claim(&store, &endpoint, "dead", Duration::ZERO, 9).await;
    assert_eq!(offsets(&dead), [0, 1]);
    assert_eq!(offsets(&claim(&store, &endpoint, "heir", LEASE, 9).await), [0, 1]);
    let late = Settled::Again {
        delivery: dead[0].delivery.clone(),
        due_in: Duration::ZERO,
        attempts: 5,
    };
    store
        .settle("dead", &[late, Settled::Released(dead[1].delivery.clone())])
        .await
        .expect("told");
    assert!(claim(&store, &endpoint, "third", LEASE, 9).await.is_empty());
    // What was delivered was delivered, whoever did it.
    store
        .settle("dead", &[Settled::Over(dead[0].delivery.clone())])
        .await
        .expect("told");
    assert_eq!(store.backlog(&endpoint.id).await.expect("read").count, 1);
    store.close().await;
}

async fn deliveries_of_one_key_come_one_after_the_other(database: &Database) {
    let store = database.open().await;
    let endpoint = create(&store, "lund").await;
    let keyed = |offset: i64, key: &str, due_s: u64| Parked {
        order_key: Some(key.as_bytes().to_vec()),
        due_in: Duration::from_secs(due_s),
        ..delivery(&endpoint, 0, offset)
    };
    let parked = [
        keyed(1, "a", 600),
        keyed(2, "a", 0),
        keyed(3, "b", 0),
        keyed(4, "b", 0),
        delivery(&endpoint, 0, 5),
    ];
    store.park(&parked).await.expect("parked");
    // The first of `a` is not due: the second waits for it.
    let claimed = claim(&store, &endpoint, "n", LEASE, 9).await;
    assert_eq!(offsets(&claimed), [3, 5]);
    assert!(claim(&store, &endpoint, "m", LEASE, 9).await.is_empty());
    let mut keys = store.blocked_keys(&endpoint.id).await.expect("read");
    keys.sort();
    assert_eq!(keys, [b"a".to_vec(), b"b".to_vec()]);
    store
        .settle("n", &[Settled::Over(parked[2].delivery.clone())])
        .await
        .expect("settled");
    assert_eq!(offsets(&claim(&store, &endpoint, "m", LEASE, 9).await), [4]);
    store
        .settle("n", &[Settled::Over(parked[0].delivery.clone())])
        .await
        .expect("settled");
    assert_eq!(offsets(&claim(&store, &endpoint, "m", LEASE, 9).await), [2]);
    let unsettled = store.unsettled(&endpoint.id).await.expect("read");
    assert_eq!(unsettled, [fixture::position(0, 2)]);
    store.close().await;
}

async fn what_is_not_called_is_not_due_and_what_is_too_old_is_dropped(database: &Database) {
    let store = database.open().await;
    let mut endpoint = create(&store, "lund").await;
    store.park(&[delivery(&endpoint, 0, 0)]).await.expect("parked");
    endpoint.status = Status::Disabled {
        reason: Disabled::ByHand,
        since_ms: 7,
    };
    store.update_endpoint(&endpoint, 1).await.expect("kept");
    assert!(store.due().await.expect("read").is_empty());
    assert_eq!(
        store
            .expire_parked(&endpoint.id, Duration::from_secs(600))
            .await
            .expect("none"),
        0
    );
    assert_eq!(
        store
            .expire_parked(&endpoint.id, Duration::ZERO)
            .await
            .expect("dropped"),
        1
    );
    store.close().await;
}

async fn attempts_are_found_again_by_page_and_filter(database: &Database) {
    let store = database.open().await;
    let (one, two) = (endpoint("lund"), endpoint("lund"));
    let attempt = |endpoint: &Endpoint, number: u32, status: Option<u16>, outcome: &str| Attempt {
        // Ordered by number, whatever the machine's clock says.
        id: ulid::Ulid::from(u128::from(number)),
        tenant: endpoint.tenant.clone(),
        endpoint: endpoint.id.clone(),
        delivery: DeliveryId::parse(&format!("msg_{}", number % 2)).expect("an id"),
        number,
        at_ms: 1_000 * i64::from(number),
        status,
        outcome: outcome.to_owned().into(),
        latency_ms: 12,
        place: (number == 4).then(|| {
            let stream = StreamName::parse("observations").expect("a name");
            (stream, fixture::position(3, 44))
        }),
    };
    let attempts = [
        attempt(&one, 1, Some(200), "delivered"),
        attempt(&one, 2, Some(500), "status"),
        attempt(&two, 3, None, "timeout"),
        attempt(&one, 4, Some(200), "delivered"),
        attempt(&endpoint("oslo"), 5, Some(200), "delivered"),
    ];
    store.log(&attempts, &[]).await.expect("logged");
    store.log(&attempts[..1], &[]).await.expect("logged once");
    let lund: TenantId = fixture::tenant("lund");
    let found = async |filter: AttemptFilter, limit: usize| {
        let found = store.attempts(&lund, &filter, limit).await.expect("read");
        found.iter().map(|attempt| attempt.number).collect::<Vec<_>>()
    };
    let all = AttemptFilter::default;
    assert_eq!(found(all(), 9).await, [4, 3, 2, 1]);
    assert_eq!(found(all(), 2).await, [4, 3]);
    let next = AttemptFilter {
        before: Some(attempts[2].id),
        ..all()
    };
    assert_eq!(found(next, 2).await, [2, 1]);
    assert_eq!(
        found(
            AttemptFilter {
                endpoint: Some(one.id.clone()),
                ..all()
            },
            9
        )
        .await,
        [4, 2, 1]
    );
    assert_eq!(
        found(
            AttemptFilter {
                outcome: Some("delivered".to_owned()),
                ..all()
            },
            9
        )
        .await,
        [4, 1]
    );
    let place = |id: &str| {
        let id = DeliveryId::parse(id).expect("an id");
        let (store, lund) = (&store, &lund);
        async move { store.position_of(lund, &id).await.expect("read") }
    };
    let (endpoint, _, position) = place("msg_0").await.expect("the latest attempt has one");
    assert_eq!((endpoint, position.offset), (one.id.clone(), 44));
    assert_eq!(place("msg_1").await, None);
    let delivery = DeliveryId::parse("msg_1").ok();
    assert_eq!(found(AttemptFilter { delivery, ..all() }, 9).await, [3, 1]);
    let time = AttemptFilter {
        since_ms: Some(2_000),
        until_ms: Some(4_000),
        ..all()
    };
    assert_eq!(found(time, 9).await, [3, 2]);
    let read = store.attempts(&lund, &all(), 9).await.expect("read");
    assert_eq!((&read[1], &read[3]), (&attempts[2], &attempts[0]));
    store
        .expire_attempts(Duration::from_secs(3600))
        .await
        .expect("forgotten");
    assert_eq!(found(all(), 9).await, [0; 0], "they are of 1970");
    store.close().await;
}

async fn bodies_are_sealed_and_belong_to_one_attempt(database: &Database) {
    let store = database.open().await;
    let (lund, oslo) = (create(&store, "lund").await, create(&store, "oslo").await);
    let attempt = |endpoint: &Endpoint, number: u32| Attempt {
        id: ulid::Ulid::from(u128::from(number)),
        tenant: endpoint.tenant.clone(),
        endpoint: endpoint.id.clone(),
        delivery: DeliveryId::parse("msg_1").expect("an id"),
        number,
        at_ms: 1_000,
        status: Some(500),
        outcome: "status".into(),
        latency_ms: 1,
        place: None,
    };
    let attempts = [attempt(&lund, 1), attempt(&lund, 2)];
    let whole = b"hush-hush in the body";
    let bodies = Bodies {
        attempt: attempts[0].id,
        tenant: lund.tenant.clone(),
        endpoint: lund.id.clone(),
        at_ms: 1_000,
        request: Body::beginning(whole, 9),
        answer: Some(Body {
            bytes: None,
            ..Body::beginning(whole, 99)
        }),
    };
    assert!(bodies.request.is_cut());
    assert!(!format!("{bodies:?}").contains("hush"));
    store
        .log(&attempts, std::slice::from_ref(&bodies))
        .await
        .expect("logged");
    for attempt in &attempts {
        let found = store.attempt(&lund.tenant, attempt.id).await.expect("read");
        assert_eq!(found.as_ref(), Some(attempt));
    }
    let id = attempts[0].id;
    let read = store.bodies(&lund.tenant, &lund.id, id).await.expect("read");
    assert_eq!(read, Some((bodies.request.clone(), bodies.answer.clone())));
    // Nobody else's, and no other attempt's.
    assert_eq!(store.attempt(&oslo.tenant, id).await.expect("read"), None);
    let foreign = store.bodies(&oslo.tenant, &lund.id, id).await.expect("read");
    assert_eq!(foreign, None);
    let other = store.bodies(&lund.tenant, &lund.id, attempts[1].id).await;
    assert_eq!(other.expect("read"), None);
    let wrong = store.bodies(&lund.tenant, &oslo.id, id).await;
    assert!(matches!(wrong, Err(StoreError::Unreadable(_))));
    let sealed: (Vec<u8>,) = reading!(store, pool => {
        sqlx::query_as("SELECT sealed FROM webhook_bodies").fetch_one(pool).await
    })
    .expect("read");
    assert!(!String::from_utf8_lossy(&sealed.0).contains("hush"));
    store
        .expire_attempts(Duration::from_secs(3600))
        .await
        .expect("forgotten");
    let gone = store.bodies(&lund.tenant, &lund.id, id).await.expect("read");
    assert_eq!(gone, None);
    store.close().await;
}

async fn attempts_of_many_segments_that_overlap_come_in_the_order_of_time(database: &Database) {
    const ATTEMPTS: u32 = 3_000;
    let store = database.open().await;
    let endpoints = [endpoint("lund"), endpoint("lund"), endpoint("lund")];
    let attempt = |number: u32| Attempt {
        id: ulid::Ulid::from(u128::from(number)),
        tenant: fixture::tenant("lund"),
        endpoint: endpoints[number as usize % 3].id.clone(),
        delivery: DeliveryId::parse(&format!("msg_{number}")).expect("an id"),
        number,
        at_ms: i64::from(number),
        status: Some(200),
        outcome: "delivered".into(),
        latency_ms: number,
        place: None,
    };
    // Two nodes write in turns, each what began since it wrote last; one writes the same again, as after a failure.
    for batch in 0..10 {
        let of = |node: u32| -> Vec<Attempt> {
            let numbers = (batch * 300..(batch + 1) * 300).filter(|number| number / 7 % 2 == node);
            numbers.map(attempt).collect()
        };
        for node in [1, 0, 1] {
            store.log(&of(node), &[]).await.expect("logged");
        }
    }
    let tenant = fixture::tenant("lund");
    for (endpoint, step) in [(None, 1), (Some(endpoints[1].id.clone()), 3)] {
        let mut filter = AttemptFilter {
            endpoint,
            ..AttemptFilter::default()
        };
        let mut numbers = Vec::new();
        loop {
            let page = store.attempts(&tenant, &filter, 70).await.expect("read");
            let Some(last) = page.last() else { break };
            filter.before = Some(last.id);
            numbers.extend(page.iter().map(|attempt| attempt.number));
        }
        let wanted: Vec<u32> = (0..ATTEMPTS)
            .rev()
            .filter(|number| step == 1 || number % 3 == 1)
            .collect();
        assert_eq!(numbers, wanted);
    }
    let figures = store
        .figures(&tenant, &endpoints[0].id, 2_700)
        .await
        .expect("read");
    assert_eq!((figures.attempts, figures.p50_ms), (100, Some(2_847)));
    store.close().await;
}

async fn figures_are_of_one_endpoint_and_of_the_time_that_is_asked_for(database: &Database) {
    let store = database.open().await;
    let (one, two) = (endpoint("lund"), endpoint("lund"));
    let attempt = |endpoint: &Endpoint, number: u32, outcome: &str| Attempt {
        id: ulid::Ulid::generate(),
        tenant: endpoint.tenant.clone(),
        endpoint: endpoint.id.clone(),
        delivery: DeliveryId::parse("msg_1").expect("an id"),
        number,
        at_ms: 1_000 * i64::from(number),
        status: None,
        outcome: outcome.to_owned().into(),
        latency_ms: 10 * number,
        place: None,
    };
    let attempts = [
        attempt(&one, 1, "timeout"),
        attempt(&one, 2, "timeout"),
        attempt(&one, 3, "delivered"),
        attempt(&two, 4, "delivered"),
    ];
    store.log(&attempts, &[]).await.expect("logged");
    let figures = store.figures(&one.tenant, &one.id, 2_000).await.expect("read");
    assert_eq!(
        figures,
        Figures {
            attempts: 2,
            delivered: 1,
            p50_ms: Some(20),
            p95_ms: Some(30)
        }
    );
    let foreign = store
        .figures(&fixture::tenant("oslo"), &one.id, 0)
        .await
        .expect("read");
    assert_eq!(foreign, Figures::default());
    store.close().await;
}

async fn watermarks_never_go_back_within_one_life_of_a_topic(database: &Database) {
    let store = database.open().await;
    let commit = |number: i32, incarnation: u64, offset: i64| Commit {
        partition: Partition {
            topic: Arc::from("fhir.observation"),
            number,
        },
        incarnation: Incarnation(incarnation),
        offset,
    };
    store
        .keep_watermarks("w", &[commit(0, u64::MAX, 10), commit(1, 1, 5)])
        .await
        .expect("kept");
    store
        .keep_watermarks("w", &[commit(0, u64::MAX, 7), commit(1, 2, 0)])
        .await
        .expect("kept");
    let read = store.watermarks("w", "fhir.observation").await.expect("read");
    assert_eq!(read, [commit(0, u64::MAX, 10), commit(1, 2, 0)]);
    assert!(
        store
            .watermarks("other", "fhir.observation")
            .await
            .expect("read")
            .is_empty()
    );
    store.close().await;
}

async fn what_is_noted_above_a_watermark_goes_when_the_watermark_has_passed_it(database: &Database) {
    let store = database.open().await;
    let lund = create(&store, "lund").await;
    let settled = |offsets: std::ops::Range<i64>| -> Vec<(i64, DeliveryId)> {
        offsets
            .map(|offset| (offset, delivery(&lund, 0, offset).delivery))
            .collect()
    };
    let from = |offset| fixture::position(0, offset);
    let (partition, incarnation) = (
        Partition {
            topic: from(0).topic,
            number: 0,
        },
        from(0).incarnation,
    );
    let note = |offsets| Note {
        partition: partition.clone(),
        incarnation,
        settled: settled(offsets),
    };
    let noted = async |consumer: &str, at: Position| -> BTreeSet<DeliveryId> {
        let noted = store.noted_from(consumer, &at).await.expect("read");
        noted.into_iter().collect()
    };
    let ids = |offsets| -> BTreeSet<DeliveryId> { settled(offsets).into_iter().map(|(_, id)| id).collect() };
    // More than one row holds.
    store.note("w", &[note(3..15_003)]).await.expect("kept");
    store.note("w", &[note(20_000..20_010)]).await.expect("kept");
    assert_eq!(noted("w", from(3)).await.len(), 15_010);
    assert_eq!(noted("w", from(20_001)).await, ids(20_000..20_010));
    assert_eq!(noted("w", from(20_010)).await, BTreeSet::new());
    assert_eq!(noted("other", from(3)).await, BTreeSet::new());
    let other = Position {
        incarnation: Incarnation(incarnation.0 + 1),
        ..from(3)
    };
    assert_eq!(noted("w", other.clone()).await, BTreeSet::new());
    let commit = |incarnation, offset| Commit {
        partition: partition.clone(),
        incarnation,
        offset,
    };
    store
        .keep_watermarks("w", &[commit(incarnation, 15_003)])
        .await
        .expect("kept");
    assert_eq!(noted("w", from(0)).await, ids(20_000..20_010));
    // The topic was made again.
    store
        .keep_watermarks("w", &[commit(other.incarnation, 0)])
        .await
        .expect("kept");
    assert_eq!(noted("w", from(0)).await, BTreeSet::new());
    store.close().await;
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

fn part(endpoint: &Endpoint, partition: i32, from: i64, until: i64) -> NewReplay {
    NewReplay {
        endpoint: endpoint.id.clone(),
        tenant: endpoint.tenant.clone(),
        stream: StreamName::parse("observations").expect("a name"),
        position: fixture::position(partition, from),
        until,
    }
}

async fn a_replay_is_read_by_one_at_a_time_and_keeps_what_it_found_with_how_far_it_is(database: &Database) {
    let store = database.open().await;
    let (one, two) = (create(&store, "lund").await, create(&store, "oslo").await);
    let parts = [part(&one, 0, 10, 20), part(&one, 1, 7, 7)];
    for _ in 0..2 {
        store
            .add_replays("rp_1", Kind::Replay, &parts)
            .await
            .expect("kept");
    }
    let claim = async |holder: &str, busy: &[EndpointId]| {
        store.claim_replay(holder, LEASE, busy).await.expect("claimed")
    };
    assert_eq!(claim("a", std::slice::from_ref(&one.id)).await, None);
    let reading = claim("a", &[]).await.expect("a part");
    assert_eq!((reading.position.offset, reading.until), (10, 20));
    assert_eq!(
        claim("b", &[]).await,
        None,
        "it is leased, and of the other nothing is to be read"
    );
    let found = [delivery(&one, 0, 12)];
    let advance = async |holder: &str, next: i64, lease: Duration| {
        let advanced = store.advance_replay(&reading, holder, next, &found, lease).await;
        advanced.expect("told")
    };
    assert!(!advance("b", 15, LEASE).await, "it is not b's");
    assert_eq!(store.backlog(&one.id).await.expect("counted").count, 0);
    assert!(advance("a", 15, Duration::ZERO).await);
    let reading = claim("b", &[]).await.expect("it was given back");
    assert_eq!(reading.position.offset, 15);
    assert!(
        store
            .advance_replay(&reading, "b", 20, &found, Duration::ZERO)
            .await
            .expect("told")
    );
    assert_eq!(claim("a", &[]).await, None);
    assert_eq!(
        store.backlog(&one.id).await.expect("counted").count,
        1,
        "parking twice is parking once"
    );
    let shown = store.replays(&one.tenant, &one.id).await.expect("read");
    let shown: Vec<_> = shown
        .iter()
        .map(|row| (row.partition, row.next, row.until, row.parked))
        .collect();
    assert_eq!(shown, [(0, 20, 20, 2), (1, 7, 7, 0)]);
    assert!(
        !store
            .cancel_replay(&two.tenant, &two.id, "rp_1")
            .await
            .expect("asked")
    );
    assert!(
        store
            .cancel_replay(&one.tenant, &one.id, "rp_1")
            .await
            .expect("asked")
    );
    assert_eq!(store.replays(&one.tenant, &one.id).await.expect("read"), []);
    store.close().await;
}

async fn a_stream_that_is_not_wanted_any_more_is_caught_up_with_anew(database: &Database) {
    let store = database.open().await;
    let one = create(&store, "lund").await;
    let stream = StreamName::parse("observations").expect("a name");
    let keep = async |from| {
        let parts = [part(&one, 0, from, 12)];
        store
            .add_replays("cu_1", Kind::CatchUp, &parts)
            .await
            .expect("kept");
    };
    let known = async || store.catch_ups(&one.id, &stream).await.expect("read");
    keep(10).await;
    keep(11).await;
    let expected = |offset| CatchUp {
        next: fixture::position(0, offset),
        until: 12,
    };
    assert_eq!(known().await, [expected(10)]);
    let other = StreamName::parse("billing").expect("a name");
    store
        .forget_catch_ups(&one.id, &other)
        .await
        .expect("nothing to do");
    assert_eq!(known().await.len(), 1);
    store.forget_catch_ups(&one.id, &stream).await.expect("forgotten");
    assert_eq!(known().await, []);
    keep(11).await;
    assert_eq!(known().await, [expected(11)]);
    store.close().await;
}

async fn what_was_given_up_is_neither_delivered_nor_waiting_nor_denied(database: &Database) {
    let store = database.open().await;
    let one = create(&store, "lund").await;
    let stream = StreamName::parse("observations").expect("a name");
    let attempt = |partition: i32, offset: i64, number: u32, outcome: &str| Attempt {
        id: ulid::Ulid::generate(),
        tenant: one.tenant.clone(),
        endpoint: one.id.clone(),
        delivery: delivery(&one, partition, offset).delivery,
        number,
        at_ms: 1_000,
        status: None,
        outcome: outcome.to_owned().into(),
        latency_ms: 1,
        place: Some((stream.clone(), fixture::position(partition, offset))),
    };
    let attempts = [
        // Delivered in the end; waiting; denied; given up, twice in one partition.
        attempt(0, 1, 1, "timeout"),
        attempt(0, 1, 2, "delivered"),
        attempt(0, 2, 1, "status"),
        attempt(0, 3, 1, "status"),
        attempt(0, 3, 2, "dropped_not_granted"),
        attempt(0, 5, 1, "status"),
        attempt(0, 4, 1, "timeout"),
        attempt(1, 9, 1, "dns"),
    ];
    store.log(&attempts, &[]).await.expect("logged");
    store.park(&[delivery(&one, 0, 2)]).await.expect("parked");
    let given_up = store.given_up(&one.tenant, &one.id).await.expect("read");
    assert_eq!(
        given_up,
        [
            (stream.clone(), fixture::position(0, 4)),
            (stream.clone(), fixture::position(1, 9))
        ]
    );
    let foreign = store
        .given_up(&fixture::tenant("oslo"), &one.id)
        .await
        .expect("read");
    assert_eq!(foreign, []);
    store.close().await;
}

async fn who_has_caught_up_is_known_until_the_endpoint_is_gone(database: &Database) {
    let store = database.open().await;
    let (one, two) = (create(&store, "lund").await, create(&store, "oslo").await);
    let keep = async |id: &str, part: NewReplay| {
        store.add_replays(id, Kind::CatchUp, &[part]).await.expect("kept");
    };
    keep("cu_1", part(&one, 0, 10, 12)).await;
    keep("cu_2", part(&two, 0, 10, 10)).await;
    let known = async || {
        let incarnation = fixture::position(0, 0).incarnation;
        let topic = fixture::position(0, 0).topic;
        let mut known = store.caught_up(&topic, incarnation, 0).await.expect("read");
        known.sort();
        known
            .into_iter()
            .map(|(endpoint, _, done)| (endpoint, done))
            .collect::<Vec<_>>()
    };
    let mut expected = vec![(one.id.clone(), false), (two.id.clone(), true)];
    expected.sort();
    assert_eq!(known().await, expected);
    // A second learning changes nothing.
    keep("cu_1", part(&one, 0, 10, 99)).await;
    let reading = store
        .claim_replay("a", LEASE, &[])
        .await
        .expect("claimed")
        .expect("a part");
    assert_eq!((reading.kind, reading.until), (Kind::CatchUp, 12));
    assert!(
        store
            .advance_replay(&reading, "a", 12, &[], Duration::ZERO)
            .await
            .expect("told")
    );
    assert!(known().await.iter().all(|(_, done)| *done));
    assert_eq!(
        store.expire_replays(Duration::ZERO).await.expect("tidied"),
        0,
        "catch-ups stay"
    );
    assert_eq!(
        store.replays(&one.tenant, &one.id).await.expect("read"),
        [],
        "and are nobody's to see"
    );
    assert!(
        store
            .delete_endpoint(&one.tenant, &one.id)
            .await
            .expect("deleted")
    );
    assert_eq!(known().await, [(two.id.clone(), true)]);
    store.close().await;
}

async fn nodes_that_are_silent_do_not_share_the_work(database: &Database) {
    let store = database.open().await;
    let endpoint = create(&store, "lund").await;
    store.park(&[delivery(&endpoint, 0, 1)]).await.expect("parked");
    assert_eq!(store.beat("gone", LEASE).await.expect("told"), 1);
    assert_eq!(claim(&store, &endpoint, "gone", LEASE, 9).await.len(), 1);
    assert_eq!(store.beat("here", LEASE).await.expect("told"), 2);
    assert_eq!(store.waiting().await.expect("read"), 1);
    assert_eq!(
        claim(&store, &endpoint, "here", LEASE, 9).await.len(),
        0,
        "it is leased"
    );
    // It was heard of long ago.
    on!(store, pool => {
        let silent = sqlx::query("UPDATE webhook_nodes SET seen_ms = 1 WHERE holder = 'gone'");
        silent.execute(pool).await.map(drop)
    })
    .expect("told");
    assert_eq!(store.beat("here", LEASE).await.expect("told"), 1);
    assert_eq!(
        claim(&store, &endpoint, "here", LEASE, 9).await.len(),
        1,
        "nobody has it any more"
    );
    store.leave("here").await.expect("told");
    assert_eq!(store.beat("a", LEASE).await.expect("told"), 1);
    assert_eq!(store.beat("b", LEASE).await.expect("told"), 2);
    assert_eq!(store.beat("b", LEASE).await.expect("told"), 2);
    store.leave("a").await.expect("told");
    assert_eq!(store.beat("b", LEASE).await.expect("told"), 1);
    store.close().await;
}

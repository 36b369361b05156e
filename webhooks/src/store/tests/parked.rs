//! What waits, who works on it, and when it is everybody's again.

use super::*;

on_both! {
    parking_what_is_parked_changes_nothing
    a_delivery_is_leased_to_one_at_a_time
    many_holders_never_get_the_same_delivery
    a_lease_that_ended_is_taken_over_and_the_former_holder_changes_nothing
    deliveries_of_one_key_come_one_after_the_other
    what_is_not_called_is_not_due_and_what_is_too_old_is_dropped
    nodes_that_are_silent_do_not_share_the_work
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
    assert_eq!(
        claim(&store, &endpoint, "a", LEASE, 9).await.len(),
        1,
        "who left has it no more"
    );
    assert_eq!(store.beat("b", LEASE).await.expect("told"), 2);
    assert_eq!(store.beat("b", LEASE).await.expect("told"), 2);
    store.leave("a").await.expect("told");
    assert_eq!(store.beat("b", LEASE).await.expect("told"), 1);
    store.close().await;
}

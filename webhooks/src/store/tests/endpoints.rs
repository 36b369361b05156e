//! Endpoints, and what is answered of them.

use super::*;

on_both! {
    what_was_answered_is_there_after_a_restart
    the_same_request_makes_one_endpoint_and_no_answer_has_its_secret
    a_change_of_an_older_version_is_refused
    endpoints_come_in_pages
    two_that_write_at_once_wait_for_each_other
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

async fn two_that_write_at_once_wait_for_each_other(database: &Database) {
    let stores = [database.open().await, database.open().await];
    let writers = stores.map(|store| async move {
        for _ in 0..40 {
            // It reads how many there are, then writes.
            create(&store, "lund").await;
        }
    });
    futures_util::future::join_all(writers).await;
}

//! How far partitions, replays and catch-ups are.

use super::*;

on_both! {
    watermarks_never_go_back_within_one_life_of_a_topic
    what_is_noted_above_a_watermark_goes_when_the_watermark_has_passed_it
    a_replay_is_read_by_one_at_a_time_and_keeps_what_it_found_with_how_far_it_is
    who_has_caught_up_is_known_until_the_endpoint_is_gone
    a_stream_that_is_not_wanted_any_more_is_caught_up_with_anew
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

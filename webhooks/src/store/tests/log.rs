//! The log of attempts, and what is read off it.

use super::*;

on_both! {
    attempts_are_found_again_by_page_and_filter
    bodies_are_sealed_and_belong_to_one_attempt
    attempts_of_many_segments_that_overlap_come_in_the_order_of_time
    figures_are_of_one_endpoint_and_of_the_time_that_is_asked_for
    what_was_given_up_is_neither_delivered_nor_waiting_nor_denied
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

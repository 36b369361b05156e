mod memory;

use std::collections::BTreeMap;

use proptest::prelude::*;
use tokio::time::sleep;

use super::*;
use crate::endpoint::{Disabled, Ordering};
use crate::retry::{Death, Outcome};
use memory::{House, Memory, partition, target};

const OK: Verdict = Verdict::Answered(Outcome::Delivered);
const FAILED: Verdict = Verdict::Answered(Outcome::Failed);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// No breaker gets in the way.
fn patient() -> Bounds {
    let mut bounds = Bounds::default();
    bounds.breaker.failures = u32::MAX;
    bounds
}

#[tokio::test(start_paused = true)]
async fn what_is_delivered_at_once_never_sees_the_store() {
    let world = Memory::new(|_, _| (ms(20), OK));
    let mut house = House::new(Arc::clone(&world), Bounds::default());
    let target = Arc::new(target("lund"));
    for _ in 0..200 {
        house.offer(&target, None).await;
    }
    house.until(seconds(2), |state| state.receipts.len() == 200).await;
    assert_eq!(house.committed(), 200);
    let offsets: Vec<i64> = world.state().calls.iter().map(|(_, offset, _)| *offset).collect();
    assert_eq!(offsets, (0..200).collect::<Vec<_>>());
    assert_eq!(world.state().parkings, 0);
    // 8 at once, 20 ms each: 200 take half a second.
    assert!(house.start.elapsed() < ms(700), "{:?}", house.start.elapsed());
    house.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_parked_retried_by_the_schedule_and_given_up_at_its_end() {
    let world = Memory::new(|_, _| (ms(10), FAILED));
    let mut house = House::new(Arc::clone(&world), patient());
    let target = Arc::new(target("lund"));
    house.offer(&target, None).await;
    house.until(seconds(1), |state| !state.receipts.is_empty()).await;
    // Kafka goes on as soon as it is parked.
    assert_eq!(house.committed(), 1);
    house
        .until(seconds(200), |state| {
            !state.dead.is_empty() && state.parked.is_empty()
        })
        .await;
    let calls: Vec<Instant> = world.state().calls.iter().map(|(_, _, at)| *at).collect();
    let waits: Vec<Duration> = calls.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(waits.len(), 3);
    for (wait, delay) in waits.iter().zip([5, 20, 60]) {
        // The delay, a fifth of luck, and the time until the store is asked.
        let latest = seconds(delay) + seconds(delay) / 5 + ms(600);
        assert!(
            *wait >= seconds(delay) && *wait <= latest,
            "{wait:?} for {delay} s"
        );
    }
    assert_eq!(world.state().dead, [(0, Death::Exhausted)]);
    // The next delivery says which one was given up.
    house.offer(&target, None).await;
    house.until(seconds(1), |state| state.calls.len() == 5).await;
    assert_eq!(world.state().told.len(), 1);
    house.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_receiver_holds_neither_its_partition_nor_another_tenant() {
    let world = Memory::new(|job, _| match job.target.tenant.as_str() {
        "slow" => (seconds(14), OK),
        "never" => (seconds(100_000), OK),
        _ => (ms(10), OK),
    });
    let mut house = House::new(Arc::clone(&world), Bounds::default());
    let [slow, never, quick] = ["slow", "never", "quick"].map(|tenant| {
        Arc::new(Target {
            concurrency: 64,
            ..target(tenant)
        })
    });
    for _ in 0..600 {
        house.offer(&slow, None).await;
        house.offer(&never, None).await;
    }
    // While they hang.
    for _ in 0..20 {
        sleep(ms(100)).await;
        for _ in 0..10 {
            house.offer(&quick, None).await;
        }
        let sent = Instant::now();
        let expected = world
            .state()
            .delivered
            .iter()
            .filter(|(to, _, _)| *to == quick.endpoint)
            .count()
            + 10;
        let quick = quick.endpoint.clone();
        let arrived = move |state: &memory::State| {
            state.delivered.iter().filter(|(to, _, _)| *to == quick).count() == expected
        };
        house.until(seconds(1), arrived).await;
        assert!(sent.elapsed() <= ms(30), "{:?}", sent.elapsed());
    }
    sleep(seconds(3)).await;
    assert_eq!(house.committed(), 1400, "everything is delivered or parked");
    house.finish().await;
}

#[tokio::test(start_paused = true)]
async fn deliveries_of_one_key_come_in_order_whatever_fails() {
    let world = Memory::new(|job, call| {
        let fails = (job.record.offset * 7 + call as i64 * 13) % 5 < 2;
        let wait = if call % 9 == 0 { ms(2_500) } else { ms(30) };
        (wait, if fails { FAILED } else { OK })
    });
    let mut house = House::new(Arc::clone(&world), patient());
    let schedule = crate::retry::Schedule::new(vec![ms(300); 20]).expect("a schedule");
    let target = Arc::new(Target {
        ordering: Ordering::Key,
        schedule: Arc::new(schedule),
        ..target("lund")
    });
    let keys = ["a", "b", "c"];
    let mut of: BTreeMap<i64, &str> = BTreeMap::new();
    for round in 0..40 {
        for key in keys {
            of.insert(house.offer(&target, Some(key)).await, key);
        }
        sleep(ms(if round % 10 == 9 { 4_000 } else { 40 })).await;
    }
    house
        .until(seconds(600), |state| {
            state.delivered.len() == 120 && state.parked.is_empty()
        })
        .await;
    let delivered: Vec<i64> = world
        .state()
        .delivered
        .iter()
        .map(|(_, offset, _)| *offset)
        .collect();
    for key in keys {
        let order: Vec<i64> = delivered
            .iter()
            .copied()
            .filter(|offset| of[offset] == key)
            .collect();
        assert!(order.is_sorted(), "{key}: {order:?}");
        // No later one is even tried before an earlier one is over.
        let state = world.state();
        let tried: Vec<i64> = state
            .calls
            .iter()
            .map(|(_, offset, _)| *offset)
            .filter(|offset| of[offset] == key)
            .collect();
        assert!(tried.is_sorted(), "{key}: {tried:?}");
    }
    assert_eq!(house.committed(), 120);
    house.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_dead_receiver_is_left_alone_probed_and_everything_arrives_when_it_is_back() {
    let back = seconds(60);
    let start = Instant::now();
    let world = Memory::new(move |_, _| (ms(10), if start.elapsed() < back { FAILED } else { OK }));
    let mut bounds = Bounds::default();
    bounds.breaker.failures = 5;
    bounds.breaker.open_max = seconds(20);
    let mut house = House::new(Arc::clone(&world), bounds);
    let schedule = crate::retry::Schedule::new(vec![seconds(5); 20]).expect("a schedule");
    let target = Arc::new(Target {
        concurrency: 1,
        schedule: Arc::new(schedule),
        ..target("lund")
    });
    for _ in 0..300 {
        house.offer(&target, None).await;
    }
    sleep(seconds(30)).await;
    // Five that opened it, then one probe after 5 s and one after 10 s more.
    let calls = world.state().calls.len();
    assert!((6..=8).contains(&calls), "{calls} calls while it was dead");
    assert_eq!(house.committed(), 300, "all of it is parked");
    house
        .until(seconds(200), |state| {
            state.delivered.len() == 300 && state.parked.is_empty()
        })
        .await;
    house.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_is_gone_is_disabled_and_what_it_is_owed_is_kept() {
    let answer = |call| {
        if call == 0 {
            Verdict::Answered(Outcome::Gone)
        } else {
            OK
        }
    };
    let world = Memory::new(move |_, call| (ms(10), answer(call)));
    let mut house = House::new(Arc::clone(&world), Bounds::default());
    let target = Arc::new(Target {
        concurrency: 1,
        ..target("lund")
    });
    for _ in 0..20 {
        house.offer(&target, None).await;
    }
    sleep(seconds(60)).await;
    house.offer(&target, None).await;
    sleep(seconds(1)).await;
    assert_eq!(world.state().calls.len(), 1);
    assert_eq!(world.state().disabled, [Disabled::Gone]);
    assert_eq!(world.state().parked.len(), 21);
    assert_eq!(house.committed(), 21);
    // Somebody enables it again: what was parked arrives, although nothing new comes.
    world.state().changed = Some(Arc::new(Target {
        revision: 2,
        ..(*target).clone()
    }));
    world.state().disabled.clear();
    house
        .until(seconds(10), |state| {
            state.delivered.len() == 21 && state.parked.is_empty()
        })
        .await;
    house.finish().await;
}

#[tokio::test(start_paused = true)]
async fn what_other_nodes_know_of_a_dead_receiver_is_believed() {
    let world = Memory::new(|_, _| (ms(10), OK));
    let mut house = House::new(Arc::clone(&world), Bounds::default());
    let target = Arc::new(Target {
        failing_since_ms: Some(0),
        open_until_ms: Some(20_000),
        ..target("lund")
    });
    house.offer(&target, None).await;
    sleep(seconds(19)).await;
    assert!(world.state().calls.is_empty());
    house.until(seconds(5), |state| state.delivered.len() == 1).await;
    house.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_asks_for_calm_gets_it() {
    let world = Memory::new(|_, call| {
        let calm = Outcome::Throttled {
            retry_after_ms: Some(30_000),
        };
        (ms(10), if call == 0 { Verdict::Answered(calm) } else { OK })
    });
    let mut house = House::new(Arc::clone(&world), Bounds::default());
    let target = Arc::new(Target {
        concurrency: 1,
        ..target("lund")
    });
    for _ in 0..5 {
        house.offer(&target, None).await;
    }
    sleep(seconds(29)).await;
    assert_eq!(world.state().calls.len(), 1);
    house.until(seconds(20), |state| state.delivered.len() == 5).await;
    house.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_rate_is_kept_and_holds_no_partition() {
    let world = Memory::new(|_, _| (ms(1), OK));
    let mut house = House::new(Arc::clone(&world), Bounds::default());
    let target = Arc::new(Target {
        rate_per_second: Some(10),
        ..target("lund")
    });
    for _ in 0..200 {
        house.offer(&target, None).await;
    }
    sleep(seconds(3)).await;
    assert_eq!(house.committed(), 200, "what waits for long is parked");
    house
        .until(seconds(60), |state| state.delivered.len() == 200)
        .await;
    let calls = world.state().calls.clone();
    // In no second more than the rate and what was saved up in the one before.
    for (place, (_, _, from)) in calls.iter().enumerate() {
        let within = calls[place..]
            .iter()
            .take_while(|(_, _, at)| *at < *from + seconds(1))
            .count();
        assert!(within <= 20, "{within} calls in a second");
    }
    assert!(house.start.elapsed() >= seconds(18));
    house.finish().await;
}

#[tokio::test(start_paused = true)]
async fn while_the_store_is_gone_nothing_is_committed_that_is_not_delivered() {
    let world = Memory::new(|job, _| (ms(10), if job.record.offset % 2 == 0 { FAILED } else { OK }));
    let mut house = House::new(Arc::clone(&world), patient());
    let target = Arc::new(target("lund"));
    world.state().is_down = true;
    for _ in 0..20 {
        house.offer(&target, None).await;
    }
    sleep(seconds(30)).await;
    assert_eq!(house.committed(), 0);
    assert_eq!(world.state().delivered.len(), 10, "what can be delivered is");
    world.state().is_down = false;
    house.until(seconds(10), |state| state.parked.len() == 10).await;
    sleep(ms(50)).await;
    assert_eq!(house.committed(), 20);
    house.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_lets_attempts_end_and_gives_the_rest_back() {
    let world = Memory::new(|job, _| {
        (
            if job.record.offset < 4 {
                seconds(3)
            } else {
                seconds(60)
            },
            OK,
        )
    });
    let mut house = House::new(Arc::clone(&world), Bounds::default());
    let target = Arc::new(Target {
        concurrency: 6,
        ..target("lund")
    });
    for _ in 0..10 {
        house.offer(&target, None).await;
    }
    sleep(ms(2_600)).await;
    // Six are under way and parked, four were parked when they had waited for long.
    assert_eq!(world.state().parked.len(), 10);
    let stopped = Instant::now();
    let world = Arc::clone(&house.world);
    house.finish().await;
    assert!(stopped.elapsed() <= seconds(11));
    let state = world.state();
    assert_eq!(state.delivered.len(), 4);
    assert_eq!(state.parked.len(), 6);
    let now = Instant::now();
    assert!(
        state.parked.values().all(|row| row.leased_until <= now),
        "others may have them at once"
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_under_way_for_a_partition_that_was_revoked_is_called_off() {
    let world = Memory::new(|_, _| (seconds(1), OK));
    let mut house = House::new(Arc::clone(&world), Bounds::default());
    let target = Arc::new(Target {
        concurrency: 2,
        ordering: Ordering::Key,
        ..target("lund")
    });
    for key in ["a", "a", "b", "c", "c"] {
        house.offer(&target, Some(key)).await;
    }
    sleep(ms(100)).await;
    house
        .inbox
        .send(Input::Revoked(partition()))
        .await
        .expect("it runs");
    sleep(seconds(10)).await;
    assert_eq!(world.state().calls.len(), 2);
    assert!(world.state().delivered.is_empty() && world.state().parked.is_empty());
    assert!(world.state().receipts.is_empty());
    // And what comes after it is assigned again is attempted.
    house.offer(&target, Some("a")).await;
    house.until(seconds(5), |state| state.delivered.len() == 1).await;
    house.finish().await;
}

#[tokio::test(start_paused = true)]
async fn what_another_node_has_parked_of_a_key_goes_first() {
    let world = Memory::new(|_, _| (ms(10), OK));
    let mut house = House::new(Arc::clone(&world), Bounds::default());
    let target = Arc::new(Target {
        ordering: Ordering::Key,
        ..target("lund")
    });
    let blocked = Input::Blocked(target.endpoint.clone(), vec![b"a".to_vec()]);
    house.inbox.send(blocked).await.expect("it runs");
    house.offer(&target, Some("a")).await;
    house.until(seconds(1), |state| state.parkings == 1).await;
    house.until(seconds(5), |state| state.delivered.len() == 1).await;
    house.finish().await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    /// Whatever receivers and the store do: each job ends delivered, dead-lettered or dropped, each receipt is given back
    /// once, those of one key are tried in order, and an offset may be committed only when its delivery is over or parked.
    #[test]
    fn each_job_ends_once_and_each_receipt_is_given_back_once(
        answers in prop::collection::vec((0_u64..3_500, 0_u8..10), 1..40),
        jobs in prop::collection::vec((0_usize..3, prop::option::of(0_u8..3), 0_u64..400), 1..60),
        outages in prop::collection::vec(100_u64..3_000, 0..4),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime").block_on(async move {
            let world = Memory::new(move |job, call| {
                let place = (usize::try_from(job.record.offset).unwrap_or(0) * 31 + call) % answers.len();
                let (wait, answer) = answers[place];
                let verdict = match answer {
                    0..=4 => OK,
                    5 => Verdict::Dropped,
                    6 => Verdict::Answered(Outcome::Throttled { retry_after_ms: Some(wait) }),
                    _ => FAILED,
                };
                (ms(wait), verdict)
            });
            let mut bounds = Bounds::default();
            bounds.breaker.failures = 3;
            bounds.breaker.open_max = seconds(10);
            bounds.plan.queue_max = 4;
            let mut house = House::new(Arc::clone(&world), bounds);
            let targets = [Ordering::None, Ordering::Key, Ordering::Key].map(|ordering| {
                Arc::new(Target { ordering, concurrency: 2, ..target("lund") })
            });
            let mut keyed: BTreeMap<i64, (usize, u8)> = BTreeMap::new();
            let total = jobs.len();
            let mut outages = outages.into_iter();
            for (place, (to, key, wait)) in jobs.into_iter().enumerate() {
                let offset = house.offer(&targets[to], key.map(|key| key.to_string()).as_deref()).await;
                if let (true, Some(key)) = (to > 0, key) {
                    keyed.insert(offset, (to, key));
                }
                sleep(ms(wait)).await;
                if place % 15 == 14 && let Some(outage) = outages.next() {
                    world.state().is_down = true;
                    sleep(ms(outage)).await;
                    world.state().is_down = false;
                }
            }
            house.until(seconds(3_000), |state| state.receipts.len() >= total && state.parked.is_empty()).await;
            sleep(seconds(60)).await;
            // Of one key no later delivery is tried before an earlier one is over.
            let mut last: BTreeMap<(usize, u8), i64> = BTreeMap::new();
            for (_, offset, _) in &world.state().calls {
                if let Some(key) = keyed.get(offset) {
                    let before = last.insert(*key, *offset);
                    assert!(before <= Some(*offset), "{before:?} was tried before {offset}");
                }
            }
            let receipts: Vec<_> = world.state().receipts.iter().map(|(receipt, _)| receipt.clone()).collect();
            let distinct: std::collections::HashSet<_> = receipts.iter().cloned().collect();
            assert_eq!((receipts.len(), distinct.len()), (total, total));
            assert_eq!(house.committed(), i64::try_from(total).expect("few"));
            house.finish().await;
        });
    }
}

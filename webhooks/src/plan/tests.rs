use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

const BOUNDS: Bounds = Bounds {
    queue_max: 5,
    tenant_max: 6,
    node_max: 8,
    slow_max: 4,
};

type Numbers = Plan<u8, u8, u32>;

#[test]
fn an_endpoint_gets_its_deliveries_in_order_and_not_more_at_once_than_it_may() {
    let mut plan = Numbers::new(BOUNDS);
    for delivery in 0..5 {
        plan.push(&1, &1, 2, delivery).expect("room");
    }
    assert_eq!(plan.push(&1, &1, 2, 5), Err(5));
    assert_eq!(
        (plan.start(), plan.start(), plan.start()),
        (Some((1, 0)), Some((1, 1)), None)
    );
    plan.ended(&1, false);
    assert_eq!((plan.start(), plan.start()), (Some((1, 2)), None));
    plan.hold(&1);
    plan.ended(&1, false);
    assert_eq!(plan.start(), None);
    plan.release(&1);
    assert_eq!(plan.start(), Some((1, 3)));
    assert_eq!(plan.drain(&1), [4]);
}

#[test]
fn tenants_take_turns_whoever_has_more_waiting() {
    let mut plan = Numbers::new(BOUNDS);
    for endpoint in 0..3 {
        for delivery in 0..5 {
            plan.push(&1, &endpoint, 1, delivery).expect("room");
        }
    }
    plan.push(&2, &9, 1, 77).expect("room");
    let started: Vec<u8> = std::iter::from_fn(|| plan.start())
        .map(|(endpoint, _)| endpoint)
        .collect();
    assert_eq!(started, [0, 9, 1, 2]);
}

#[test]
fn slow_tenants_cannot_keep_another_from_starting() {
    let mut plan = Numbers::new(BOUNDS);
    // Two tenants whose receivers never answer.
    for tenant in [1, 2] {
        for delivery in 0..5 {
            plan.push(&tenant, &tenant, 5, delivery).expect("room");
        }
    }
    while plan.start().is_some() {}
    assert_eq!(plan.under_way(), 6);
    plan.push(&3, &3, 5, 0).expect("room");
    assert_eq!(plan.start(), Some((3, 0)));
}

#[test]
fn attempts_that_take_long_leave_the_node_to_others_and_are_bounded_themselves() {
    let mut plan = Numbers::new(BOUNDS);
    for delivery in 0..5 {
        plan.push(&1, &1, 9, delivery).expect("room");
    }
    while plan.start().is_some() {}
    assert_eq!(plan.under_way(), 5);
    let taken: Vec<bool> = (0..5).map(|_| plan.slow(&1)).collect();
    assert_eq!(taken, [true, true, true, false, false]);
    assert_eq!(plan.under_way(), 2);
    // They count for their tenant still: one more is all that it may.
    for delivery in 5..8 {
        plan.push(&1, &1, 9, delivery).expect("room");
    }
    assert_eq!((plan.start(), plan.start()), (Some((1, 5)), None));
    plan.ended(&1, true);
    assert_eq!((plan.start(), plan.start()), (Some((1, 6)), None));
    assert_eq!(plan.under_way(), 4);
}

#[derive(Debug, Clone)]
enum Step {
    Push(u8, u8),
    Start,
    End(prop::sample::Index),
    Hold(u8),
    Release(u8),
    Drain(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0_u8..4, 0_u8..3).prop_map(|(tenant, endpoint)| Step::Push(tenant, tenant * 3 + endpoint)),
        6 => Just(Step::Start),
        4 => any::<prop::sample::Index>().prop_map(Step::End),
        1 => (0_u8..12).prop_map(Step::Hold),
        1 => (0_u8..12).prop_map(Step::Release),
        1 => (0_u8..12).prop_map(Step::Drain),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_bounds_hold_and_everything_that_may_start_does(steps in prop::collection::vec(step(), 0..200)) {
        let mut plan = Numbers::new(BOUNDS);
        let mut waiting: AHashMap<u8, VecDeque<u32>> = AHashMap::new();
        let mut under_way: Vec<u8> = Vec::new();
        let mut held: HashSet<u8> = HashSet::new();
        let mut next = 0;
        for step in steps {
            match step {
                Step::Push(tenant, endpoint) => {
                    let queue = waiting.entry(endpoint).or_default();
                    let pushed = plan.push(&tenant, &endpoint, 2, next);
                    prop_assert_eq!(pushed.is_ok(), queue.len() < 5);
                    if pushed.is_ok() {
                        queue.push_back(next);
                    }
                    next += 1;
                }
                Step::Start => {
                    let of = |tenant: u8| under_way.iter().filter(|endpoint| **endpoint / 3 == tenant).count();
                    let can = |endpoint: u8| {
                        !held.contains(&endpoint)
                            && waiting.get(&endpoint).is_some_and(|queue| !queue.is_empty())
                            && under_way.iter().filter(|other| **other == endpoint).count() < 2
                    };
                    // Whoever has nothing under way is always within its share.
                    let must = under_way.len() < 8 && (0..12).any(|endpoint| can(endpoint) && of(endpoint / 3) == 0);
                    match plan.start() {
                        Some((endpoint, delivery)) => {
                            prop_assert!(can(endpoint));
                            prop_assert!(under_way.len() < 8 && of(endpoint / 3) < 6);
                            prop_assert_eq!(waiting.get_mut(&endpoint).and_then(VecDeque::pop_front), Some(delivery));
                            under_way.push(endpoint);
                        }
                        None => prop_assert!(!must),
                    }
                }
                Step::End(which) => {
                    if !under_way.is_empty() {
                        plan.ended(&under_way.swap_remove(which.index(under_way.len())), false);
                    }
                }
                Step::Hold(endpoint) => {
                    // Nothing is known of an endpoint that has nothing.
                    let known = waiting.get(&endpoint).is_some_and(|queue| !queue.is_empty()) || under_way.contains(&endpoint);
                    if known {
                        plan.hold(&endpoint);
                        held.insert(endpoint);
                    }
                }
                Step::Release(endpoint) => {
                    plan.release(&endpoint);
                    held.remove(&endpoint);
                }
                Step::Drain(endpoint) => {
                    let expected: Vec<u32> = waiting.remove(&endpoint).unwrap_or_default().into();
                    prop_assert_eq!(plan.drain(&endpoint), expected);
                }
            }
            prop_assert_eq!(plan.under_way(), under_way.len());
            prop_assert_eq!(plan.waiting(), waiting.values().map(VecDeque::len).sum::<usize>());
        }
    }
}

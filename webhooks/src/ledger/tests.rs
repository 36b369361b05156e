use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn partition(number: i32) -> Partition {
    Partition {
        topic: Arc::from("fhir.observation"),
        number,
    }
}

fn committed(ledger: &mut Ledger) -> Vec<(i32, i64)> {
    let commits = ledger.commits();
    commits
        .iter()
        .map(|commit| (commit.partition.number, commit.offset))
        .collect()
}

#[test]
fn what_is_settled_above_the_watermark_is_told() {
    let mut ledger = Ledger::new(10);
    let partition = partition(0);
    ledger.assign(partition.clone(), Incarnation(1), 5);
    let five = ledger.register(&partition, 5, 1).expect("ours");
    let six = ledger.register(&partition, 6, 2).expect("ours");
    assert!(ledger.settle(&six), "five is open");
    assert_eq!(ledger.watermark(&partition), Some(5));
    assert!(!ledger.settle(&five));
    assert_eq!(ledger.watermark(&partition), Some(6), "something is owed for six");
    assert!(!ledger.settle(&six));
    assert_eq!(ledger.watermark(&partition), Some(7));
    drop(ledger.revoke(&partition));
    assert!(!ledger.settle(&six), "a receipt that is void");
}

#[test]
fn an_offset_is_committed_when_everything_before_it_is_settled() {
    let mut ledger = Ledger::new(10);
    ledger.assign(partition(0), Incarnation(1), 5);
    assert_eq!(committed(&mut ledger), []);
    let first = ledger.register(&partition(0), 5, 2).expect("ours");
    let second = ledger.register(&partition(0), 8, 1).expect("ours");
    let _nobody = ledger.register(&partition(0), 9, 0).expect("ours");
    ledger.settle(&second);
    assert_eq!(committed(&mut ledger), []);
    ledger.settle(&first);
    assert_eq!(committed(&mut ledger), []);
    ledger.settle(&first);
    assert_eq!(committed(&mut ledger), [(0, 10)]);
    // Said once.
    assert_eq!(committed(&mut ledger), []);
}

#[test]
fn records_that_nobody_wants_cost_nothing_and_are_passed() {
    let mut ledger = Ledger::new(2);
    ledger.assign(partition(0), Incarnation(1), 0);
    for offset in 0..1000 {
        ledger.register(&partition(0), offset, 0).expect("ours");
    }
    assert_eq!((ledger.open(), ledger.is_full(&partition(0))), (0, false));
    assert_eq!(committed(&mut ledger), [(0, 1000)]);
}

#[test]
fn the_window_is_bounded() {
    let mut ledger = Ledger::new(3);
    ledger.assign(partition(0), Incarnation(1), 0);
    let first = ledger.register(&partition(0), 0, 1).expect("ours");
    ledger.register(&partition(0), 1, 0).expect("ours");
    assert!(!ledger.is_full(&partition(0)));
    ledger.register(&partition(0), 2, 1).expect("ours");
    assert!(ledger.is_full(&partition(0)));
    ledger.settle(&first);
    assert!(!ledger.is_full(&partition(0)));
}

#[test]
fn what_waits_is_bounded_in_bytes_and_each_partition_has_its_share() {
    let mut ledger = Ledger::new(1000).bounded(100);
    for number in 0..2 {
        ledger.assign(partition(number), Incarnation(1), 0);
    }
    let large: Vec<_> = (0..9)
        .map(|offset| ledger.register_sized(&partition(0), offset, 1, 10).expect("ours"))
        .collect();
    assert!(!ledger.is_full(&partition(0)), "the others have nothing");
    let small = ledger.register_sized(&partition(1), 0, 1, 10).expect("ours");
    assert!(ledger.is_full(&partition(0)), "it has more than its share");
    assert!(!ledger.is_full(&partition(1)), "and this one has not");
    assert!(!ledger.has_room(&partition(0)) && ledger.has_room(&partition(1)));
    // What is settled costs nothing, also while something before it is open.
    for receipt in large.iter().skip(1) {
        ledger.settle(receipt);
    }
    assert!(ledger.has_room(&partition(0)));
    ledger.settle(&small);
    ledger.revoke(&partition(0));
    ledger.assign(partition(0), Incarnation(1), 9);
    assert_eq!(ledger.bytes, 0);
}

#[test]
fn a_window_that_was_full_has_room_when_half_of_it_is_free() {
    let mut ledger = Ledger::new(4);
    ledger.assign(partition(0), Incarnation(1), 0);
    let receipts: Vec<_> = (0..4)
        .map(|offset| ledger.register(&partition(0), offset, 1).expect("ours"))
        .collect();
    let mut has_room = Vec::new();
    for receipt in &receipts {
        has_room.push(ledger.has_room(&partition(0)));
        ledger.settle(receipt);
    }
    assert_eq!(has_room, [false, false, true, true]);
    assert!(ledger.has_room(&partition(1)), "it is not ours");
}

#[test]
fn receipts_of_an_assignment_that_is_over_are_void() {
    let mut ledger = Ledger::new(10);
    ledger.assign(partition(0), Incarnation(1), 0);
    let before = ledger.register(&partition(0), 0, 1).expect("ours");
    ledger.assign(partition(0), Incarnation(1), 0);
    let again = ledger.register(&partition(0), 0, 1).expect("ours");
    assert!(!ledger.is_current(&before) && ledger.is_current(&again));
    ledger.settle(&before);
    assert_eq!(committed(&mut ledger), []);
    ledger.settle(&again);
    assert_eq!(committed(&mut ledger), [(0, 1)]);
    assert_eq!(ledger.revoke(&partition(0)), None);
    assert_eq!(ledger.register(&partition(0), 1, 1), None);
}

#[test]
fn what_is_settled_when_a_partition_is_given_up_can_still_be_committed() {
    let mut ledger = Ledger::new(10);
    ledger.assign(partition(0), Incarnation(7), 0);
    ledger.register(&partition(0), 3, 0).expect("ours");
    ledger.register(&partition(0), 4, 1).expect("ours");
    let commit = ledger.revoke(&partition(0)).expect("something is settled");
    assert_eq!((commit.offset, commit.incarnation), (4, Incarnation(7)));
}

/// What the group, the log and the receivers do.
#[derive(Debug, Clone)]
enum Step {
    /// The next record of this partition, some offsets further on, owed to so many.
    Record(i32, i64, usize),
    /// One of the deliveries under way completes.
    Complete(prop::sample::Index),
    Commit,
    /// The group takes the partition away; what may be committed is, or is not.
    Revoke(i32, bool),
    /// The group gives it (again): it is read from what the group has.
    Assign(i32),
    /// The process dies and starts again; what was under way may or may not have reached anybody.
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0_i32..3, 1_i64..4, 0_usize..4).prop_map(|(number, hole, owed)| Step::Record(number, hole, owed)),
        10 => any::<prop::sample::Index>().prop_map(Step::Complete),
        3 => Just(Step::Commit),
        1 => (0_i32..3, any::<bool>()).prop_map(|(number, commits)| Step::Revoke(number, commits)),
        2 => (0_i32..3).prop_map(Step::Assign),
        1 => Just(Step::Crash),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// The model keeps, per partition, the log's records with what is owed for each of them, which (record, receiver) pairs
    /// were settled at least once, and what the group has as committed.
    #[test]
    fn the_committed_offset_never_passes_an_unsettled_one(steps in prop::collection::vec(step(), 0..150)) {
        let mut ledger = Ledger::new(4);
        let mut logs: Vec<BTreeMap<i64, usize>> = vec![BTreeMap::new(); 3];
        let mut ends = [0_i64; 3];
        let mut settled: BTreeSet<(i32, i64, usize)> = BTreeSet::new();
        let mut group = [0_i64; 3];
        let mut reading: [Option<i64>; 3] = [None; 3];
        let mut under_way: Vec<(Receipt, i32, i64, usize)> = Vec::new();

        macro_rules! check {
            ($commit:expr) => {{
                let commit: Commit = $commit;
                let place = usize::try_from(commit.partition.number).expect("a partition");
                prop_assert!(commit.offset >= group[place], "never back");
                for (offset, owed) in logs[place].range(..commit.offset) {
                    for receiver in 0..*owed {
                        prop_assert!(
                            settled.contains(&(commit.partition.number, *offset, receiver)),
                            "{} of partition {} is owed to {receiver}", offset, commit.partition.number
                        );
                    }
                }
                group[place] = commit.offset;
            }};
        }

        for step in steps {
            match step {
                Step::Record(number, hole, owed) => {
                    let place = usize::try_from(number).expect("a partition");
                    ends[place] += hole;
                    logs[place].insert(ends[place], owed);
                    ends[place] += 1;
                }
                Step::Complete(which) => {
                    if !under_way.is_empty() {
                        let (receipt, number, offset, receiver) = under_way.swap_remove(which.index(under_way.len()));
                        settled.insert((number, offset, receiver));
                        ledger.settle(&receipt);
                    }
                }
                Step::Commit => {
                    for commit in ledger.commits() {
                        check!(commit);
                    }
                }
                Step::Revoke(number, commits) => {
                    let commit = ledger.revoke(&partition(number));
                    reading[usize::try_from(number).expect("a partition")] = None;
                    if let (Some(commit), true) = (commit, commits) {
                        check!(commit);
                    }
                }
                Step::Assign(number) => {
                    let place = usize::try_from(number).expect("a partition");
                    ledger.assign(partition(number), Incarnation(1), group[place]);
                    reading[place] = Some(group[place]);
                }
                Step::Crash => {
                    ledger = Ledger::new(4);
                    reading = [None; 3];
                    // Deliveries that nobody waits for any more are lost.
                    under_way.clear();
                }
            }
            // The consumer reads as far as the windows let it.
            for number in 0..3 {
                let place = usize::try_from(number).expect("a partition");
                while let Some(position) = reading[place] {
                    if ledger.is_full(&partition(number)) {
                        break;
                    }
                    let Some((offset, owed)) = logs[place].range(position..).next().map(|(offset, owed)| (*offset, *owed))
                    else {
                        break;
                    };
                    let receipt = ledger.register(&partition(number), offset, owed).expect("ours");
                    under_way.extend((0..owed).map(|receiver| (receipt.clone(), number, offset, receiver)));
                    reading[place] = Some(offset + 1);
                }
            }
            prop_assert!(ledger.open() <= 3 * 4);
        }
    }
}

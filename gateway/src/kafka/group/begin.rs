//! Where a partition that the group gives is read from. Pure.
//!
//! One invariant: nothing is passed over in silence. What is owed begins at the lowest start of its endpoints; what is
//! settled is not read again; and what is owed and not in Kafka any more is told as lost.

use rdkafka::{Offset, TopicPartitionList};
use schemas::ids::Incarnation;
use subscriptions::history::Bounds;

/// How far a partition is settled, as the group or the store has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Settled {
    /// The life of the topic; `None` where nobody wrote it down.
    pub(super) incarnation: Option<Incarnation>,
    /// The next offset.
    pub(super) offset: i64,
}

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Begin {
    /// The offset.
    pub(super) offset: i64,
    /// What is owed and gone.
    pub(super) lost: Option<Lost>,
}

/// Events that were owed and are not in Kafka any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lost {
    /// The first one.
    pub(super) from: i64,
    /// The one after the last; below zero where the topic was made again and nobody knows.
    pub(super) until: i64,
}

/// What is reckoned with where a log's ends cannot be had: if it was cut, its reader is told when it gets there, and asks
/// again.
const UNBOUNDED: Bounds = Bounds {
    start: 0,
    end: i64::MAX,
};

/// `starts` are those of the endpoints that want something of the partition; `bounds` are its ends, if they can be had.
pub(super) fn begin(
    incarnation: Incarnation,
    settled: &[Settled],
    starts: impl Iterator<Item = i64>,
    bounds: Option<Bounds>,
) -> Begin {
    let has_bounds = bounds.is_some();
    let bounds = bounds.unwrap_or(UNBOUNDED);
    let is_ours = |settled: &&Settled| settled.incarnation.is_none_or(|other| other == incarnation);
    let furthest = settled.iter().filter(is_ours).map(|settled| settled.offset).max();
    let was_another = settled.iter().any(|settled| !is_ours(&settled));
    // Nobody wants anything: what comes from now on, or, where nobody knows where that is, from what is known on.
    let nothing = if has_bounds { bounds.end } else { bounds.start };
    let wanted = starts.min().unwrap_or(nothing);
    let offset = furthest.map_or(wanted, |settled| settled.max(wanted));
    if offset < bounds.start {
        let lost = Lost {
            from: offset,
            until: bounds.start,
        };
        return Begin {
            offset: bounds.start,
            lost: Some(lost),
        };
    }
    // A topic that was made again took what was not settled of its former life with it.
    let lost = (furthest.is_none() && was_another).then_some(Lost { from: 0, until: -1 });
    Begin {
        // Beyond the end only where a log was cut (an unclean election): what comes there is new.
        offset: offset.min(bounds.end),
        lost,
    }
}

/// What the group has committed for a partition.
pub(super) fn committed(list: &TopicPartitionList, topic: &str, partition: i32) -> Option<Settled> {
    let place = list.find_partition(topic, partition)?;
    let Offset::Offset(offset) = place.offset() else {
        return None;
    };
    Some(Settled {
        incarnation: incarnation_in(place.metadata()),
        offset,
    })
}

/// What a commit says beside the offset.
pub(super) fn metadata(incarnation: Incarnation) -> String {
    format!("incarnation={:016x}", incarnation.0)
}

fn incarnation_in(metadata: &str) -> Option<Incarnation> {
    let hex = metadata.strip_prefix("incarnation=")?;
    u64::from_str_radix(hex, 16).ok().map(Incarnation)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Incarnation = Incarnation(7);
    const LOG: Bounds = Bounds { start: 100, end: 500 };

    fn settled(incarnation: Option<u64>, offset: i64) -> Settled {
        Settled {
            incarnation: incarnation.map(Incarnation),
            offset,
        }
    }

    fn at(settled: &[Settled], starts: &[i64]) -> Begin {
        begin(NOW, settled, starts.iter().copied(), Some(LOG))
    }

    fn plain(offset: i64) -> Begin {
        Begin { offset, lost: None }
    }

    #[test]
    fn what_is_settled_is_not_read_again_and_what_nobody_wants_is_passed_over() {
        assert_eq!(at(&[], &[]), plain(500));
        assert_eq!(at(&[], &[300, 200]), plain(200));
        assert_eq!(at(&[settled(Some(7), 250)], &[200]), plain(250));
        assert_eq!(
            at(&[settled(Some(7), 250), settled(Some(7), 260)], &[200]),
            plain(260)
        );
        assert_eq!(at(&[settled(None, 250)], &[200]), plain(250));
        // An endpoint that was made long after the last one was deleted.
        assert_eq!(at(&[settled(Some(7), 250)], &[400]), plain(400));
        assert_eq!(at(&[settled(Some(7), 250)], &[]), plain(500));
        // A log that was cut.
        assert_eq!(at(&[settled(Some(7), 900)], &[200]), plain(500));
    }

    #[test]
    fn what_is_owed_and_gone_is_told() {
        let lost = |from, until| Some(Lost { from, until });
        assert_eq!(
            at(&[settled(Some(7), 50)], &[20]),
            Begin {
                offset: 100,
                lost: lost(50, 100)
            }
        );
        assert_eq!(
            at(&[], &[20]),
            Begin {
                offset: 100,
                lost: lost(20, 100)
            }
        );
        // Nobody wanted what is gone.
        assert_eq!(at(&[settled(Some(7), 50)], &[150]), plain(150));
    }

    #[test]
    fn a_topic_that_was_made_again_begins_at_its_beginning_and_its_former_life_is_told() {
        let log = Bounds { start: 0, end: 10 };
        let begun = begin(
            NOW,
            &[settled(Some(6), 900), settled(Some(6), 800)],
            [0].into_iter(),
            Some(log),
        );
        assert_eq!(
            begun,
            Begin {
                offset: 0,
                lost: Some(Lost { from: 0, until: -1 })
            }
        );
        // The store knows the new one, the group does not yet.
        let begun = begin(
            NOW,
            &[settled(Some(6), 900), settled(Some(7), 4)],
            [0].into_iter(),
            Some(log),
        );
        assert_eq!(begun, plain(4));
    }

    #[test]
    fn a_log_whose_ends_cannot_be_had_begins_where_it_is_settled_or_owed() {
        let at = |settled: &[Settled], starts: &[i64]| begin(NOW, settled, starts.iter().copied(), None);
        assert_eq!(at(&[settled(Some(7), 250)], &[200]), plain(250));
        assert_eq!(at(&[settled(Some(7), 250)], &[]), plain(250));
        assert_eq!(at(&[], &[200]), plain(200));
        assert_eq!(at(&[], &[]), plain(0));
    }

    #[test]
    fn a_commit_names_the_life_of_its_topic() {
        assert_eq!(
            incarnation_in(&metadata(Incarnation(0xfeed))),
            Some(Incarnation(0xfeed))
        );
        assert_eq!(incarnation_in(""), None);
        assert_eq!(incarnation_in("incarnation=x"), None);
    }
}

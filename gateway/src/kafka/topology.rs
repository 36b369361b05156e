//! Which partitions exist: what the cluster says against what was known, and what follows. Pure.
//!
//! Invariant: a partition begins at 0 only if it was made while we watched; what could have existed before begins at the
//! end of its log.

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_lc_rs::digest;
use schemas::contract::Stream;
use schemas::ids::{Incarnation, TenantId};
use subscriptions::sequencer::Gone;

use super::raw::Described;

/// A digest of the topic's id. A broker without ids (before Kafka 2.8) gives all zeros; the name must do then, and a topic
/// that is made again is not noticed.
pub(super) fn incarnation(topic: &str, id: u128) -> Incarnation {
    let hash = if id == 0 {
        digest::digest(&digest::SHA256, topic.as_bytes())
    } else {
        digest::digest(&digest::SHA256, &id.to_be_bytes())
    };
    let mut first = [0; 8];
    first.copy_from_slice(&hash.as_ref()[..8]);
    Incarnation(u64::from_be_bytes(first))
}

/// What the streams want of the cluster.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    streams: Vec<Arc<Stream>>,
    /// Ours.
    never: Vec<Arc<str>>,
}

impl Wanted {
    /// `never`: topics that no stream reads, whatever its patterns say.
    pub(super) fn new<'a>(streams: &[Arc<Stream>], never: impl IntoIterator<Item = &'a str>) -> Self {
        Self {
            streams: streams.to_vec(),
            never: never.into_iter().map(Arc::from).collect(),
        }
    }

    fn is_ours(&self, topic: &str) -> bool {
        self.never.iter().any(|never| **never == *topic)
    }

    /// Whether the names of all topics are needed.
    pub(super) fn has_patterns(&self) -> bool {
        self.streams
            .iter()
            .flat_map(|stream| &stream.topics)
            .any(|pattern| !pattern.is_literal())
    }

    /// Topics to describe: those that are named, and those of `existing` that match a pattern. Distinct, in order.
    pub(super) fn topics(&self, existing: &[Arc<str>]) -> Vec<Arc<str>> {
        let named = self
            .streams
            .iter()
            .flat_map(|stream| &stream.topics)
            .filter(|pattern| pattern.is_literal());
        let mut topics: Vec<Arc<str>> = named.map(|pattern| Arc::from(pattern.as_str())).collect();
        topics.extend(
            existing
                .iter()
                .filter(|topic| self.readers(topic).next().is_some())
                .cloned(),
        );
        topics.retain(|topic| !self.is_ours(topic));
        topics.sort();
        topics.dedup();
        topics
    }

    /// The streams that read a topic, by their place, and the tenant that its name captures.
    pub(super) fn readers<'a>(
        &'a self,
        topic: &'a str,
    ) -> impl Iterator<Item = (usize, Option<TenantId>)> + 'a {
        let wanted = !self.is_ours(topic);
        self.streams
            .iter()
            .enumerate()
            .filter(move |_| wanted)
            .filter_map(move |(place, stream)| {
                stream
                    .topics
                    .iter()
                    .find_map(|pattern| pattern.matches(topic))
                    .map(|found| (place, found.tenant))
            })
    }
}

/// Where a new partition begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begin {
    /// It may have existed before we looked: at the end of its log.
    End,
    /// It was made while we watched: at 0.
    Zero,
    /// It was taken for gone, and is not: where it was left.
    Again,
}

/// What follows from a look at the cluster, in the order in which it must be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// The topic is gone, or another topic has its name.
    Removed {
        topic: Arc<str>,
        incarnation: Incarnation,
        gone: Gone,
    },
    /// These partitions are new.
    Appeared {
        topic: Arc<str>,
        incarnation: Incarnation,
        partitions: std::ops::Range<i32>,
        begin: Begin,
    },
    /// The topic does not exist (told once).
    Missing { topic: Arc<str> },
    /// The cluster would not describe the topic (told once).
    Unclear { topic: Arc<str>, reason: String },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Known {
    /// Never seen, and known not to have existed.
    Missing,
    /// It may exist.
    Unclear,
    Topic {
        incarnation: Incarnation,
        partitions: i32,
        misses: u8,
    },
    /// It was there once.
    Removed {
        incarnation: Incarnation,
        partitions: i32,
    },
}

/// What is known of the cluster.
#[derive(Debug, Default)]
pub(super) struct Topology {
    topics: BTreeMap<Arc<str>, Known>,
    /// Whether the cluster has been seen at least once: a pattern's topic that appears later is new.
    seen: bool,
}

/// A broker that has just started may not know a topic yet; it is gone when two looks say so.
const MISSES_MAX: u8 = 2;

impl Topology {
    /// Takes one answer for all wanted topics. Topics that are known and not in it count as missing.
    pub(super) fn observe(&mut self, described: &[(Arc<str>, Described)]) -> Vec<Change> {
        let mut changes = Vec::new();
        let absent: Vec<Arc<str>> = self
            .topics
            .keys()
            .filter(|topic| !described.iter().any(|(name, _)| name == *topic))
            .cloned()
            .collect();
        for topic in absent {
            self.missing(&topic, &mut changes);
        }
        for (topic, state) in described {
            match state {
                Described::Missing => self.missing(topic, &mut changes),
                Described::Unclear(code) => self.unclear(topic, code.to_string(), &mut changes),
                Described::Topic { id, partitions, .. } => {
                    self.found(topic, incarnation(topic, *id), *partitions, &mut changes);
                }
            }
        }
        self.seen = true;
        changes
    }

    /// Whether another look should come soon: something is taken for gone that one look did not find.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.topics
            .values()
            .any(|known| matches!(known, Known::Topic { misses: 1.., .. }))
    }

    /// The topics that are wanted by name and do not exist.
    pub(super) fn missing_topics(&self) -> impl Iterator<Item = &Arc<str>> {
        self.topics
            .iter()
            .filter(|(_, known)| !matches!(known, Known::Topic { .. }))
            .map(|(topic, _)| topic)
    }

    fn missing(&mut self, topic: &Arc<str>, changes: &mut Vec<Change>) {
        match self.topics.get_mut(topic) {
            Some(Known::Missing | Known::Removed { .. }) => {}
            Some(Known::Topic {
                incarnation,
                partitions,
                misses,
            }) => {
                *misses += 1;
                if *misses >= MISSES_MAX {
                    let (incarnation, partitions) = (*incarnation, *partitions);
                    changes.push(Change::Removed {
                        topic: Arc::clone(topic),
                        incarnation,
                        gone: Gone::Deleted,
                    });
                    self.topics.insert(
                        Arc::clone(topic),
                        Known::Removed {
                            incarnation,
                            partitions,
                        },
                    );
                }
            }
            Some(Known::Unclear) | None => {
                changes.push(Change::Missing {
                    topic: Arc::clone(topic),
                });
                self.topics.insert(Arc::clone(topic), Known::Missing);
            }
        }
    }

    fn unclear(&mut self, topic: &Arc<str>, reason: String, changes: &mut Vec<Change>) {
        if !self.topics.contains_key(topic) {
            changes.push(Change::Unclear {
                topic: Arc::clone(topic),
                reason,
            });
            self.topics.insert(Arc::clone(topic), Known::Unclear);
        }
    }

    fn found(&mut self, topic: &Arc<str>, incarnation: Incarnation, count: i32, changes: &mut Vec<Change>) {
        let mut appear = |partitions: std::ops::Range<i32>, begin| {
            if !partitions.is_empty() {
                changes.push(Change::Appeared {
                    topic: Arc::clone(topic),
                    incarnation,
                    partitions,
                    begin,
                });
            }
        };
        let now = Known::Topic {
            incarnation,
            partitions: count,
            misses: 0,
        };
        match self.topics.insert(Arc::clone(topic), now) {
            Some(Known::Topic {
                incarnation: before,
                partitions,
                ..
            }) if before == incarnation => {
                appear(partitions..count, Begin::Zero);
                if partitions > count {
                    // Stale metadata: a topic never loses partitions.
                    self.topics.insert(
                        Arc::clone(topic),
                        Known::Topic {
                            incarnation,
                            partitions,
                            misses: 0,
                        },
                    );
                }
            }
            Some(Known::Topic {
                incarnation: before, ..
            }) => {
                changes.push(Change::Removed {
                    topic: Arc::clone(topic),
                    incarnation: before,
                    gone: Gone::Recreated,
                });
                changes.push(Change::Appeared {
                    topic: Arc::clone(topic),
                    incarnation,
                    partitions: 0..count,
                    begin: Begin::Zero,
                });
            }
            Some(Known::Removed {
                incarnation: before,
                partitions,
            }) if before == incarnation => {
                appear(0..partitions.min(count), Begin::Again);
                appear(partitions..count, Begin::Zero);
            }
            Some(Known::Missing | Known::Removed { .. }) => appear(0..count, Begin::Zero),
            None if self.seen => appear(0..count, Begin::Zero),
            Some(Known::Unclear) | None => appear(0..count, Begin::End),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(id: u128, partitions: i32) -> Described {
        Described::Topic {
            id,
            partitions,
            leaderless: Box::default(),
        }
    }

    fn look(topology: &mut Topology, state: Described) -> Vec<Change> {
        topology.observe(&[(Arc::from("a"), state)])
    }

    fn appeared(id: u128, partitions: std::ops::Range<i32>, begin: Begin) -> Change {
        Change::Appeared {
            topic: Arc::from("a"),
            incarnation: incarnation("a", id),
            partitions,
            begin,
        }
    }

    #[test]
    fn what_exists_at_the_start_begins_at_the_end_and_what_comes_later_at_zero() {
        let mut topology = Topology::default();
        assert_eq!(look(&mut topology, topic(7, 2)), [appeared(7, 0..2, Begin::End)]);
        assert_eq!(look(&mut topology, topic(7, 2)), []);
        assert_eq!(look(&mut topology, topic(7, 3)), [appeared(7, 2..3, Begin::Zero)]);
    }

    #[test]
    fn a_missing_topic_is_told_once_and_begins_at_zero_when_it_appears() {
        let mut topology = Topology::default();
        assert_eq!(
            look(&mut topology, Described::Missing),
            [Change::Missing {
                topic: Arc::from("a")
            }]
        );
        assert_eq!(look(&mut topology, Described::Missing), []);
        assert_eq!(topology.missing_topics().count(), 1);
        assert_eq!(look(&mut topology, topic(7, 1)), [appeared(7, 0..1, Begin::Zero)]);
        assert_eq!(topology.missing_topics().count(), 0);
    }

    #[test]
    fn a_topic_that_could_not_be_described_begins_at_its_end() {
        let mut topology = Topology::default();
        let unclear = Described::Unclear(rdkafka::error::RDKafkaErrorCode::TopicAuthorizationFailed);
        assert_eq!(look(&mut topology, unclear.clone()).len(), 1);
        assert_eq!(look(&mut topology, unclear), []);
        assert_eq!(look(&mut topology, topic(7, 1)), [appeared(7, 0..1, Begin::End)]);
    }

    #[test]
    fn a_topic_made_again_is_removed_and_begins_at_zero() {
        let mut topology = Topology::default();
        look(&mut topology, topic(7, 2));
        let removed = Change::Removed {
            topic: Arc::from("a"),
            incarnation: incarnation("a", 7),
            gone: Gone::Recreated,
        };
        assert_eq!(
            look(&mut topology, topic(8, 1)),
            [removed, appeared(8, 0..1, Begin::Zero)]
        );
    }

    #[test]
    fn one_look_that_misses_a_topic_removes_nothing() {
        let mut topology = Topology::default();
        look(&mut topology, topic(7, 2));
        assert_eq!(look(&mut topology, Described::Missing), []);
        assert!(topology.is_in_doubt());
        assert_eq!(look(&mut topology, topic(7, 2)), []);
        assert!(!topology.is_in_doubt());
        look(&mut topology, Described::Missing);
        assert_eq!(look(&mut topology, Described::Missing).len(), 1);
        assert_eq!(
            look(&mut topology, topic(7, 2)),
            [appeared(7, 0..2, Begin::Again)]
        );
    }

    #[test]
    fn topics_of_a_pattern_that_vanish_count_as_missing() {
        let mut topology = Topology::default();
        look(&mut topology, topic(7, 1));
        assert_eq!(topology.observe(&[]), []);
        assert_eq!(topology.observe(&[]).len(), 1);
    }

    #[test]
    fn incarnations_differ_by_id_and_fall_back_to_the_name() {
        assert_ne!(incarnation("a", 1), incarnation("a", 2));
        assert_eq!(incarnation("a", 1), incarnation("b", 1));
        assert_ne!(incarnation("a", 0), incarnation("b", 0));
    }
}

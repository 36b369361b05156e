//! The partitions of a stream that this node knows, and vectors of positions over them. Pure.
//!
//! Invariant: a slot that was removed never comes back; a topic made again has new slots.

use std::sync::Arc;

use schemas::cursor::{Cursor, Position, TopicPositions, topic_digest};
use schemas::ids::{Incarnation, Slot, TenantId};

use crate::history::Partition;

/// One partition and whose it can be.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The partition.
    pub partition: Partition,
    /// The tenant that the topic's name captures, if it does: nobody else's cursor names it.
    pub tenant: Option<TenantId>,
}

#[derive(Debug, Clone)]
struct Topic {
    name: Arc<str>,
    digest: u64,
    incarnation: Incarnation,
    tenant: Option<TenantId>,
    /// By partition number.
    slots: Vec<Option<Slot>>,
}

/// The partitions of one stream. Changes rarely, so it is copied when it does.
#[derive(Debug, Clone, Default)]
pub struct Layout {
    entries: Vec<Option<Entry>>,
    /// Ordered by digest.
    topics: Vec<Topic>,
    /// Whether every partition that exists has been announced at least once.
    pub known: bool,
    /// Whether all of it is read, so that subscriptions may begin: those of this generation of needs.
    pub read: Option<u64>,
}

/// A position per slot. Slots without an entry have none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Vector {
    positions: Vec<Option<Position>>,
}

/// A cursor's positions, laid over a layout.
#[derive(Debug, Default)]
pub struct Placed {
    /// Where the reader stands in the partitions that this node knows.
    pub vector: Vector,
    /// Positions in topics (or partitions of them) that this node does not know, or not yet.
    pub carried: Vec<Carried>,
    /// Slots of topics that were made again since: what the cursor named is gone.
    pub recreated: Vec<Slot>,
}

/// A position in a partition that this node has not seen (yet).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carried {
    /// The topic's digest.
    pub topic: u64,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// The partition.
    pub partition: i32,
    /// Where the reader stands.
    pub position: Position,
}

/// How far back from `issued_at` a topic that a cursor does not name is read: clocks differ, and the topic may have been
/// made just before.
pub(crate) const ISSUED_AT_SLACK_MS: i64 = 60_000;

impl Vector {
    /// The position in one slot.
    #[must_use]
    pub fn get(&self, slot: Slot) -> Option<Position> {
        self.positions.get(slot.0 as usize).copied().flatten()
    }

    /// The next offset in one slot, if it is resolved.
    #[must_use]
    pub fn offset(&self, slot: Slot) -> Option<i64> {
        match self.get(slot) {
            Some(Position::At(offset)) => Some(offset),
            _ => None,
        }
    }

    /// Sets one position.
    pub fn set(&mut self, slot: Slot, position: Position) {
        let place = slot.0 as usize;
        if self.positions.len() <= place {
            self.positions.resize(place + 1, None);
        }
        self.positions[place] = Some(position);
    }

    /// Forgets one slot.
    pub fn remove(&mut self, slot: Slot) {
        if let Some(position) = self.positions.get_mut(slot.0 as usize) {
            *position = None;
        }
    }
}

impl Layout {
    /// Adds a partition.
    pub fn add(&mut self, partition: Partition, tenant: Option<TenantId>) {
        let place = partition.slot.0 as usize;
        if self.entries.len() <= place {
            self.entries.resize(place + 1, None);
        }
        let digest = topic_digest(&partition.topic);
        let found = self
            .topics
            .iter()
            .position(|t| t.digest == digest && t.incarnation == partition.incarnation);
        let topic = match found {
            Some(found) => &mut self.topics[found],
            None => {
                let place = self.topics.partition_point(|topic| topic.digest < digest);
                self.topics.insert(
                    place,
                    Topic {
                        name: Arc::clone(&partition.topic),
                        digest,
                        incarnation: partition.incarnation,
                        tenant: tenant.clone(),
                        slots: Vec::new(),
                    },
                );
                &mut self.topics[place]
            }
        };
        let number = usize::try_from(partition.partition).unwrap_or(0);
        if topic.slots.len() <= number {
            topic.slots.resize(number + 1, None);
        }
        topic.slots[number] = Some(partition.slot);
        self.entries[place] = Some(Entry { partition, tenant });
    }

    /// Removes a partition.
    pub fn remove(&mut self, slot: Slot) {
        if let Some(entry) = self.entries.get_mut(slot.0 as usize) {
            *entry = None;
        }
        for topic in &mut self.topics {
            for have in &mut topic.slots {
                if *have == Some(slot) {
                    *have = None;
                }
            }
        }
        self.topics
            .retain(|topic| topic.slots.iter().any(Option::is_some));
    }

    /// One partition.
    #[must_use]
    pub fn entry(&self, slot: Slot) -> Option<&Entry> {
        self.entries.get(slot.0 as usize)?.as_ref()
    }

    /// All partitions.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().flatten()
    }

    /// The slots that a tenant can match.
    pub fn slots<'a>(&'a self, tenant: &'a TenantId) -> impl Iterator<Item = Slot> + 'a {
        self.entries()
            .filter(move |entry| entry.tenant.as_ref().is_none_or(|of| of == tenant))
            .map(|entry| entry.partition.slot)
    }

    /// The partition's number among those that the tenant can match, by topic name and number: what a gap names instead of
    /// the topic.
    #[must_use]
    pub fn ordinal(&self, tenant: &TenantId, slot: Slot) -> Option<usize> {
        let mut order: Vec<(&str, i32, Slot)> = self
            .entries()
            .filter(|entry| entry.tenant.as_ref().is_none_or(|of| of == tenant))
            .map(|entry| {
                (
                    &*entry.partition.topic,
                    entry.partition.partition,
                    entry.partition.slot,
                )
            })
            .collect();
        order.sort_unstable();
        order.iter().position(|(_, _, have)| *have == slot)
    }

    /// What a cursor for this tenant says: `vector`, and what the reader carries for topics unknown here.
    #[must_use]
    pub fn cursor(
        &self,
        tenant: &TenantId,
        vector: &Vector,
        carried: &[Carried],
        revision: u64,
        issued_at_ms: i64,
    ) -> Cursor {
        let mut topics = Vec::with_capacity(self.topics.len());
        for topic in &self.topics {
            if topic.tenant.as_ref().is_some_and(|of| of != tenant) {
                continue;
            }
            let partitions = topic
                .slots
                .iter()
                .map(|slot| {
                    slot.and_then(|slot| vector.get(slot))
                        .unwrap_or(Position::Since(issued_at_ms))
                })
                .collect();
            topics.push(TopicPositions {
                topic: topic.digest,
                incarnation: topic.incarnation,
                partitions,
            });
        }
        for carry in carried {
            let place = topics
                .iter()
                .position(|t| t.topic == carry.topic && t.incarnation == carry.incarnation);
            let topic = match place {
                Some(place) => &mut topics[place],
                None => {
                    let place = topics.partition_point(|have| have.topic < carry.topic);
                    topics.insert(
                        place,
                        TopicPositions {
                            topic: carry.topic,
                            incarnation: carry.incarnation,
                            partitions: Vec::new(),
                        },
                    );
                    &mut topics[place]
                }
            };
            let number = usize::try_from(carry.partition).unwrap_or(0);
            if topic.partitions.len() <= number {
                // A partition that nobody named yet is new: it starts at 0.
                topic.partitions.resize(number + 1, Position::At(0));
            }
            topic.partitions[number] = carry.position;
        }
        Cursor {
            revision,
            issued_at_ms,
            topics,
        }
    }

    /// Lays a cursor over the partitions that this node knows.
    #[must_use]
    pub fn place(&self, tenant: &TenantId, cursor: &Cursor) -> Placed {
        let mut placed = Placed::default();
        for topic in &self.topics {
            if topic.tenant.as_ref().is_some_and(|of| of != tenant) {
                continue;
            }
            let same = cursor
                .topics
                .iter()
                .find(|c| c.topic == topic.digest && c.incarnation == topic.incarnation);
            let other = cursor
                .topics
                .iter()
                .any(|c| c.topic == topic.digest && c.incarnation != topic.incarnation);
            for (number, slot) in topic.slots.iter().enumerate() {
                let Some(slot) = *slot else { continue };
                if other {
                    placed.recreated.push(slot);
                }
                let position = match same {
                    Some(named) => named.partitions.get(number).copied().unwrap_or(Position::At(0)),
                    None if other => Position::At(0),
                    None => Position::Since(cursor.issued_at_ms.saturating_sub(ISSUED_AT_SLACK_MS)),
                };
                placed.vector.set(slot, position);
            }
        }
        for named in &cursor.topics {
            let known = self.topics.iter().find(|t| t.digest == named.topic);
            if known.is_some_and(|known| known.incarnation != named.incarnation) {
                continue;
            }
            for (number, position) in named.partitions.iter().enumerate() {
                let here = known.is_some_and(|known| known.slots.get(number).copied().flatten().is_some());
                let Ok(partition) = i32::try_from(number) else {
                    continue;
                };
                if !here {
                    placed.carried.push(Carried {
                        topic: named.topic,
                        incarnation: named.incarnation,
                        partition,
                        position: *position,
                    });
                }
            }
        }
        placed
    }

    /// The name of a topic by its digest, where it is known.
    #[must_use]
    pub fn topic_name(&self, digest: u64) -> Option<&Arc<str>> {
        self.topics
            .iter()
            .find(|topic| topic.digest == digest)
            .map(|topic| &topic.name)
    }
}

impl Carried {
    /// Whether this is the partition that is carried.
    #[must_use]
    pub fn is(&self, partition: &Partition) -> bool {
        self.partition == partition.partition
            && self.incarnation == partition.incarnation
            && self.topic == topic_digest(&partition.topic)
    }
}

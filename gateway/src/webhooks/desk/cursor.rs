//! The cursor of an endpoint: from there on everything that is unsettled follows, at least once, on SSE, WebSocket and pull.
//!
//! Invariant: nothing that is owed and not delivered lies before it. How far partitions are settled is read first, then how
//! far the endpoint has caught up, then what is parked: what moves on in between is after the mark that was read.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemas::contract::Stream;
use schemas::cursor::{Cursor, Position as At, TopicPositions, topic_digest};
use schemas::ids::TenantId;
use schemas::problem::Code;
use webhooks::delivery::{EndpointId, Position};
use webhooks::endpoint::Endpoint;
use webhooks::ledger::Commit;
use webhooks::matching::Start;
use webhooks::store::CatchUp;

use super::{Desk, Refusal};

impl Desk {
    /// The cursor of one of an endpoint's streams; of its only one, where none is named.
    pub(crate) async fn cursor(
        &self,
        tenant: &TenantId,
        id: &EndpointId,
        stream: Option<&str>,
    ) -> Result<(Arc<Stream>, String), Refusal> {
        let endpoint = self.find(tenant, id).await?.endpoint;
        let stream = self.named_or_only(&endpoint, stream, "/stream")?;
        let ends = self.logs.ends(&stream, tenant).await?;
        let mut settled = Vec::new();
        let mut topics: Vec<&Arc<str>> = ends.iter().map(|end| &end.topic).collect();
        topics.sort_unstable();
        topics.dedup();
        for topic in topics {
            settled.extend(self.store.watermarks(&self.settings.consumer, topic).await?);
        }
        let caught_up = self.store.catch_ups(id, &stream.name).await?;
        let parked = self.store.unsettled(id).await?;
        let positions = unsettled(&ends, &endpoint.start, &settled, &caught_up, &parked);
        let cursor = cursor(&positions, self.contract.revision, self.clock.now_ms());
        let text = self.sealer.seal(&stream.name, tenant, &cursor);
        Ok((stream, text))
    }

    /// The stream of that name, if it is the endpoint's; without a name the only one.
    pub(super) fn named_or_only(
        &self,
        endpoint: &Endpoint,
        name: Option<&str>,
        pointer: &str,
    ) -> Result<Arc<Stream>, Refusal> {
        match (name, endpoint.spec.streams.as_slice()) {
            (Some(name), _) => self.stream_of(endpoint, name, pointer),
            (None, [only]) => self.stream_of(endpoint, only.as_str(), pointer),
            (None, _) => Err(Refusal::field(
                Code::FIELD_INVALID,
                pointer,
                "the endpoint has several streams: one has to be named",
            )),
        }
    }
}

/// Of each partition the first position that is unsettled: the lowest of how far it is settled, how far the endpoint has
/// caught up, and what is parked.
fn unsettled(
    ends: &[Position],
    start: &Start,
    settled: &[Commit],
    caught_up: &[CatchUp],
    parked: &[Position],
) -> Vec<Position> {
    let from = |end: &Position| {
        let is_here = |have: &Position| {
            have.topic == end.topic && have.partition == end.partition && have.incarnation == end.incarnation
        };
        let begin = start.of(&end.topic, end.incarnation, end.partition);
        let commit = settled.iter().find(|commit| {
            commit.partition.topic == end.topic
                && commit.partition.number == end.partition
                && commit.incarnation == end.incarnation
        });
        let settled = match caught_up.iter().find(|part| is_here(&part.next)) {
            // Whoever reads the partition does not know the endpoint yet: nothing of it is settled.
            None => begin,
            Some(part) => {
                let settled = commit.map_or(0, |commit| commit.offset).max(begin);
                if part.next.offset < part.until {
                    settled.min(part.next.offset)
                } else {
                    settled
                }
            }
        };
        let waiting = parked.iter().filter(|parked| is_here(parked));
        waiting.map(|parked| parked.offset).fold(settled, i64::min)
    };
    ends.iter()
        .map(|end| Position {
            offset: from(end),
            ..end.clone()
        })
        .collect()
}

/// A cursor that says these positions.
fn cursor(positions: &[Position], revision: u64, now_ms: i64) -> Cursor {
    let mut topics: BTreeMap<(u64, u64), TopicPositions> = BTreeMap::new();
    for position in positions {
        let digest = topic_digest(&position.topic);
        let topic = topics
            .entry((digest, position.incarnation.0))
            .or_insert_with(|| TopicPositions {
                topic: digest,
                incarnation: position.incarnation,
                partitions: Vec::new(),
            });
        let Ok(number) = usize::try_from(position.partition) else {
            continue;
        };
        if topic.partitions.len() <= number {
            // A number that is not there is a partition that nobody has seen yet: from now on, as live cursors say it.
            topic.partitions.resize(number + 1, At::Since(now_ms));
        }
        topic.partitions[number] = At::At(position.offset);
    }
    Cursor {
        revision,
        issued_at_ms: now_ms,
        topics: topics.into_values().collect(),
    }
}

#[cfg(test)]
mod tests {
    use schemas::ids::Incarnation;
    use webhooks::ledger::Partition;

    use super::*;

    fn at(topic: &str, incarnation: u64, partition: i32, offset: i64) -> Position {
        Position {
            topic: Arc::from(topic),
            incarnation: Incarnation(incarnation),
            partition,
            offset,
        }
    }

    fn commit(topic: &str, incarnation: u64, number: i32, offset: i64) -> Commit {
        Commit {
            partition: Partition {
                topic: Arc::from(topic),
                number,
            },
            incarnation: Incarnation(incarnation),
            offset,
        }
    }

    #[test]
    fn it_begins_at_the_lowest_of_what_is_not_settled() {
        let ends = [
            ("a", 1, 0),
            ("a", 1, 1),
            ("a", 1, 2),
            ("a", 1, 3),
            ("b", 2, 0),
            ("c", 1, 0),
        ]
        .map(|(topic, incarnation, partition)| at(topic, incarnation, partition, 100));
        let mut start = Start::default();
        start.extend([
            at("a", 1, 0, 10),
            at("a", 1, 1, 60),
            at("a", 1, 3, 10),
            at("b", 1, 0, 5),
            at("c", 1, 0, 40),
        ]);
        let settled = [
            commit("a", 1, 0, 50),
            commit("a", 1, 1, 50),
            commit("a", 1, 3, 90),
            // Of another life of the topic: it says nothing of this one.
            commit("b", 1, 0, 1_000),
            commit("c", 1, 0, 90),
        ];
        let part = |topic: &str, incarnation, partition, next, until| CatchUp {
            next: at(topic, incarnation, partition, next),
            until,
        };
        let caught_up = [
            part("a", 1, 0, 10, 10),
            part("a", 1, 1, 60, 60),
            part("a", 1, 2, 0, 0),
            part("a", 1, 3, 20, 80),
            part("b", 2, 0, 0, 0),
        ];
        let parked = [at("a", 1, 0, 30), at("b", 1, 0, 3)];
        let offsets: Vec<i64> = unsettled(&ends, &start, &settled, &caught_up, &parked)
            .iter()
            .map(|position| position.offset)
            .collect();
        // Parked; settled before it was made; never committed; still catching up; made again; not known to the reader.
        assert_eq!(offsets, [30, 60, 0, 20, 0, 40]);
    }

    #[test]
    fn it_names_every_partition_of_every_topic_by_digest() {
        let cursor = cursor(&[at("b", 2, 1, 9), at("a", 1, 0, 5), at("b", 2, 0, 8)], 7, 1_000);
        let mut named: Vec<(u64, Vec<At>)> = cursor
            .topics
            .iter()
            .map(|topic| (topic.topic, topic.partitions.clone()))
            .collect();
        let ordered = named.clone();
        named.sort_by_key(|(digest, _)| *digest);
        assert_eq!(named, ordered);
        assert!(named.contains(&(topic_digest("b"), vec![At::At(8), At::At(9)])));
        assert!(named.contains(&(topic_digest("a"), vec![At::At(5)])));
    }
}

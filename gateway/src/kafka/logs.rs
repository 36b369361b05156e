//! What Kafka's logs say, for whoever asks about webhooks: which topics a stream has for a tenant, where they begin and
//! end, and what was written last.
//!
//! Invariants: an answer names the life of each topic that it is about, asked after the offsets were. However many ask, few read
//! at a time. It knows no endpoint.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use prometheus_client::metrics::counter::Counter;
use schemas::contract::{Contract, Stream};
use schemas::decode::Decoder;
use schemas::event::Event;
use schemas::ids::{Incarnation, StreamName, TenantId};
use subscriptions::history::{Bounds, OlderError};
use tokio::sync::Semaphore;
use webhooks::delivery::Position;
use webhooks::ledger::Partition;

use super::lookup::Lookup;
use super::raw::{Described, RawRecord};
use super::reread::{Reread, RereadError};
use super::settings::KafkaSettings;
use super::topology::{self, Wanted};

/// How long one question may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Records that a dry run reads for each that it is to find, at most so many of a partition.
const LAST_MAX: i64 = 2000;
/// Consumers that read for partners who ask, at the same time on this node: each costs threads. Who comes when all of them
/// are busy waits for [`TIMEOUT`], and is then told to come again.
const READERS_MAX: usize = 4;

/// Asks Kafka about logs.
pub(crate) struct Logs {
    settings: KafkaSettings,
    contract: Arc<Contract>,
    lookup: Lookup,
    wanted: Wanted,
    readers: Arc<Semaphore>,
    /// Counts who was told to come again.
    busy: Counter,
}

/// Kafka did not answer, or not all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("kafka does not answer now")]
pub(crate) struct Unavailable;

impl From<OlderError> for Unavailable {
    fn from(_: OlderError) -> Self {
        Self
    }
}

/// A topic that exists.
#[derive(Debug, Clone)]
struct Topic {
    name: Arc<str>,
    incarnation: Incarnation,
    partitions: i32,
}

impl Logs {
    /// `busy` counts who is told to come again because all readers are taken.
    ///
    /// # Errors
    ///
    /// librdkafka refuses the settings.
    pub(crate) fn new(
        settings: &KafkaSettings,
        contract: &Arc<Contract>,
        busy: Counter,
    ) -> Result<Self, rdkafka::error::KafkaError> {
        Ok(Self {
            lookup: Lookup::start(settings)?,
            wanted: Wanted::new(&contract.streams, settings.own_topics()),
            contract: Arc::clone(contract),
            settings: settings.clone(),
            readers: Arc::new(Semaphore::new(READERS_MAX)),
            busy,
        })
    }

    /// The ends of every partition of the stream's topics that this tenant can match: where an endpoint made now begins.
    pub(crate) async fn ends(
        &self,
        stream: &Arc<Stream>,
        tenant: &TenantId,
    ) -> Result<Vec<Position>, Unavailable> {
        self.positions(stream, tenant, |bounds| bounds.end).await
    }

    /// The first that Kafka still has.
    pub(crate) async fn starts(
        &self,
        stream: &Arc<Stream>,
        tenant: &TenantId,
    ) -> Result<Vec<Position>, Unavailable> {
        self.positions(stream, tenant, |bounds| bounds.start).await
    }

    /// The first offset of each that is not older than this time.
    pub(crate) async fn at_time(
        &self,
        stream: &Arc<Stream>,
        tenant: &TenantId,
        ms: i64,
    ) -> Result<Vec<Position>, Unavailable> {
        let mut positions = self.ends(stream, tenant).await?;
        for position in &mut positions {
            let topic = Arc::clone(&position.topic);
            match self.lookup.at_time(topic, position.partition, ms).await {
                Ok(found) => position.offset = found.unwrap_or(position.offset).min(position.offset),
                // The embedded broker knows no times: everything is sent rather than nothing.
                Err(OlderError::NoTimes) => position.offset = 0,
                Err(_) => return Err(Unavailable),
            }
        }
        Ok(positions)
    }

    /// The last `count` records of the stream that are events of this tenant, decoded; the latest first.
    pub(crate) async fn last(
        &self,
        stream: &Arc<Stream>,
        tenant: &TenantId,
        count: usize,
    ) -> Result<Vec<(Event, Position)>, Unavailable> {
        let starts = self.starts(stream, tenant).await?;
        let ends = self.ends(stream, tenant).await?;
        let decoder = Decoder::new(Arc::clone(stream), &self.settings.id_secret);
        let mut found: Vec<(Event, Position)> = Vec::new();
        for (start, end) in starts.iter().zip(&ends) {
            let from = start.offset.max(end.offset - LAST_MAX);
            if (&start.topic, start.incarnation, start.partition)
                != (&end.topic, end.incarnation, end.partition)
                || from >= end.offset
            {
                continue;
            }
            let part = Position {
                offset: from,
                ..end.clone()
            };
            let read = self.read(part, end.offset).await?;
            for record in read.map_err(|_| Unavailable)? {
                let position = Position {
                    offset: record.offset,
                    ..end.clone()
                };
                let decoded = decoder.decode(super::live::to_decode(
                    &record,
                    end.incarnation,
                    schemas::ids::Slot(0),
                ));
                if let Ok(Some(event)) = decoded
                    && event.tenant == *tenant
                {
                    found.push((event, position));
                }
            }
        }
        found.sort_by_key(|(event, _)| std::cmp::Reverse(event.time_ms));
        found.truncate(count);
        Ok(found)
    }

    /// One record as an event; `None` where it is gone, of another life of its topic, or no event of the stream.
    pub(crate) async fn event(
        &self,
        stream: &Arc<Stream>,
        position: &Position,
    ) -> Result<Option<Event>, Unavailable> {
        let partition = Partition {
            topic: Arc::clone(&position.topic),
            number: position.partition,
        };
        let described = self.describe(std::slice::from_ref(&partition)).await?;
        let is_there = described.iter().any(|(_, incarnation, bounds)| {
            let is_within = |bounds: &Bounds| (bounds.start..bounds.end).contains(&position.offset);
            *incarnation == position.incarnation && bounds.as_ref().is_some_and(is_within)
        });
        if !is_there {
            return Ok(None);
        }
        let records = match self.read(position.clone(), position.offset + 1).await? {
            Ok(records) => records,
            Err(RereadError::Gone) => return Ok(None),
            Err(RereadError::Unavailable(_)) => return Err(Unavailable),
        };
        let record = records.iter().find(|record| record.offset == position.offset);
        let decoder = Decoder::new(Arc::clone(stream), &self.settings.id_secret);
        let raw =
            record.map(|record| super::live::to_decode(record, position.incarnation, schemas::ids::Slot(0)));
        Ok(raw.and_then(|raw| decoder.decode(raw).ok().flatten()))
    }

    /// Everything from a position until an offset, by one of a few readers.
    async fn read(
        &self,
        from: Position,
        until: i64,
    ) -> Result<Result<Vec<RawRecord>, RereadError>, Unavailable> {
        let free = Arc::clone(&self.readers).acquire_owned();
        let place = tokio::time::timeout(TIMEOUT, free).await;
        let Ok(place) = place else {
            self.busy.inc();
            return Err(Unavailable);
        };
        let place = place.map_err(|_| Unavailable)?;
        let settings = self.settings.clone();
        // The reader keeps its place to its end, also when nobody waits for it any more.
        let read = move || {
            let read = Reread::all(&settings, &from, until);
            drop(place);
            read
        };
        tokio::task::spawn_blocking(read).await.map_err(|_| Unavailable)
    }

    /// The topics of these streams that exist, in order.
    pub(crate) async fn topics(
        &self,
        streams: &BTreeSet<StreamName>,
    ) -> Result<Vec<(Arc<str>, Incarnation)>, Unavailable> {
        if streams.is_empty() {
            return Ok(Vec::new());
        }
        let names: Vec<&Arc<Stream>> = self
            .contract
            .streams
            .iter()
            .filter(|stream| streams.contains(&stream.name))
            .collect();
        let found = self.find(|_, place| {
            let stream = self.contract.streams.get(place);
            stream.is_some_and(|stream| names.iter().any(|wanted| wanted.name == stream.name))
        });
        let topics = found.await?.into_iter();
        Ok(topics.map(|topic| (topic.name, topic.incarnation)).collect())
    }

    /// The streams that read a topic.
    pub(crate) fn streams_of<'a>(&'a self, topic: &'a str) -> impl Iterator<Item = &'a Arc<Stream>> + 'a {
        self.wanted
            .readers(topic)
            .filter_map(|(place, _)| self.contract.streams.get(place))
    }

    /// The life of each partition's topic, and its ends; `None` where they cannot be had now (no leader): one partition
    /// does not keep the others waiting.
    pub(crate) async fn describe(
        &self,
        partitions: &[Partition],
    ) -> Result<Vec<(Partition, Incarnation, Option<Bounds>)>, Unavailable> {
        let asked = partitions.iter().map(|partition| async move {
            let topic = Arc::clone(&partition.topic);
            (partition, self.lookup.bounds(topic, partition.number).await.ok())
        });
        let bounds = join_all(asked).await;
        // Asked after the ends: so they are of the topic that is told, or of one before it, and then it is noticed soon.
        let mut names: Vec<Arc<str>> = partitions
            .iter()
            .map(|partition| Arc::clone(&partition.topic))
            .collect();
        names.sort();
        names.dedup();
        let topics = self.describe_topics(names).await?;
        bounds
            .into_iter()
            .map(|(partition, bounds)| {
                let topic = topics.iter().find(|topic| topic.name == partition.topic);
                let incarnation = topic.ok_or(Unavailable)?.incarnation;
                Ok((partition.clone(), incarnation, bounds))
            })
            .collect()
    }

    async fn positions(
        &self,
        stream: &Arc<Stream>,
        tenant: &TenantId,
        which: impl Fn(&Bounds) -> i64,
    ) -> Result<Vec<Position>, Unavailable> {
        let place = self
            .contract
            .streams
            .iter()
            .position(|other| other.name == stream.name);
        // A topic that captures a tenant is that tenant's alone.
        let topics = self
            .find(|topic, at| {
                Some(at) == place
                    && self.wanted.readers(topic).any(|(other, captured)| {
                        Some(other) == place && captured.is_none_or(|captured| captured == *tenant)
                    })
            })
            .await?;
        let mut positions = Vec::new();
        for topic in topics {
            for partition in 0..topic.partitions {
                let bounds = self.lookup.bounds(Arc::clone(&topic.name), partition).await?;
                positions.push(Position {
                    topic: Arc::clone(&topic.name),
                    incarnation: topic.incarnation,
                    partition,
                    offset: which(&bounds),
                });
            }
        }
        Ok(positions)
    }

    /// The topics that exist and that a stream reads of which `is_wanted` says so.
    async fn find(&self, is_wanted: impl Fn(&str, usize) -> bool) -> Result<Vec<Topic>, Unavailable> {
        let existing = if self.wanted.has_patterns() {
            let asked = self.lookup.run(|client| {
                client
                    .topics(TIMEOUT)
                    .map_err(|error| OlderError::Unavailable(error.to_string()))
            });
            asked.await?
        } else {
            Vec::new()
        };
        let mut names = self.wanted.topics(&existing);
        names.retain(|topic| {
            self.wanted
                .readers(topic)
                .any(|(place, _)| is_wanted(topic, place))
        });
        self.describe_topics(names).await
    }

    async fn describe_topics(&self, names: Vec<Arc<str>>) -> Result<Vec<Topic>, Unavailable> {
        let asked = self.lookup.run(move |client| {
            client
                .describe(&names, TIMEOUT)
                .map_err(|code| OlderError::Unavailable(code.to_string()))
        });
        let mut topics = Vec::new();
        for (name, state) in asked.await? {
            match state {
                Described::Topic { id, partitions, .. } => topics.push(Topic {
                    incarnation: topology::incarnation(&name, id),
                    partitions,
                    name,
                }),
                Described::Missing => {}
                Described::Unclear(_) => return Err(Unavailable),
            }
        }
        Ok(topics)
    }
}

#[cfg(test)]
mod tests {
    use schemas::contract::clinical;

    use super::super::embedded::Broker;
    use super::super::testing::settings;
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_asks_while_all_readers_are_busy_is_told_to_come_again() {
        let broker = Broker::start(["fhir.observation"], 1).expect("a broker");
        let told = Counter::default();
        let logs = Logs::new(&settings(&broker), &Arc::new(clinical()), told.clone()).expect("a client");
        let busy = logs.readers.acquire_many(4).await.expect("it is open");
        let from = Position {
            topic: Arc::from("fhir.observation"),
            incarnation: Incarnation(1),
            partition: 0,
            offset: 0,
        };
        assert_eq!(logs.read(from.clone(), 0).await.err(), Some(Unavailable));
        assert_eq!(told.get(), 1);
        drop(busy);
        let read = logs.read(from, 0).await.expect("there is a place");
        assert_eq!(read.expect("there is nothing to read").len(), 0);
    }
}

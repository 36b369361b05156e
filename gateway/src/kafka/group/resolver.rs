//! What the group's thread must not wait for: where partitions begin, what is to be read again for endpoints that are new,
//! and which topics there are.
//!
//! Invariant: what is answered was durable before: a partition is read on from an offset only when the catching up of
//! everybody who is owed something below it is written down.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use schemas::ids::Incarnation;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use webhooks::delivery::{DeliveryId, Position};
use webhooks::ledger::Partition;
use webhooks::store::{Kind, NewReplay, Store};

use super::begin::{Settled, begin, committed};
use super::{Ask, Beginning, Command, Commands, Interested, Learnt};
use crate::kafka::client::Context;
use crate::kafka::logs::Logs;
use crate::webhooks::Metrics;
use crate::webhooks::announcer::{Announcer, Notice};
use crate::webhooks::registry::Registry;

/// How long before something that failed is tried again.
const AGAIN: Duration = Duration::from_millis(500);
/// How often those who catch up are looked at.
const CATCHING_UP: Duration = Duration::from_millis(100);
/// How long Kafka may take to say what is committed.
const COMMITTED: Duration = Duration::from_secs(5);

/// Answers the group's thread. One for each node; [`Resolver::run`] is its task.
pub(crate) struct Resolver {
    pub(crate) consumer: Arc<BaseConsumer<Context>>,
    /// The group's name: watermarks in the store are kept under it.
    pub(crate) group: String,
    pub(crate) store: Arc<Store>,
    pub(crate) logs: Arc<Logs>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) announcer: Announcer,
    pub(crate) commands: Commands,
    pub(crate) metrics: Metrics,
    /// How often topics are looked at.
    pub(crate) interval: Duration,
}

/// What failed; it is tried again.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("kafka does not answer")]
    Kafka,
    #[error(transparent)]
    Store(#[from] webhooks::store::StoreError),
}

impl Resolver {
    /// Works until it is told to stop.
    pub(crate) async fn run(self, mut asks: mpsc::Receiver<Ask>, stop: CancellationToken) {
        let mut look = tokio::time::interval(self.interval);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut changed = self.registry.changes();
        let mut catching = tokio::time::interval(CATCHING_UP);
        catching.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut subscribed: Vec<Arc<str>> = Vec::new();
        let mut incarnations: HashMap<Arc<str>, Incarnation> = HashMap::new();
        let mut behind: Vec<(Interested, Partition, Incarnation)> = Vec::new();
        loop {
            // Every branch may be dropped: what was received is worked on outside of them.
            let ask = tokio::select! {
                () = stop.cancelled() => return self.last(asks).await,
                ask = asks.recv() => match ask {
                    Some(ask) => Some(ask),
                    None => return,
                },
                _ = look.tick() => None,
                // The first endpoint of a stream is not to wait for the next look.
                Ok(()) = changed.changed() => None,
                _ = catching.tick(), if !behind.is_empty() => {
                    self.caught_up(&mut behind).await;
                    continue;
                }
            };
            match ask {
                None => self.look(&mut subscribed, &mut incarnations).await,
                Some(ask) => {
                    let answered = self.answer(ask, &mut incarnations, &mut behind);
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = answered => {}
                    }
                }
            }
        }
    }

    /// Keeps what the group's thread said last.
    async fn last(&self, mut asks: mpsc::Receiver<Ask>) {
        while let Ok(ask) = asks.try_recv() {
            let kept = match ask {
                Ask::Settled(commits) => self.store.keep_watermarks(&self.group, &commits).await,
                Ask::Noted(notes) => self.store.note(&self.group, &notes).await,
                Ask::Begin(..) | Ask::Learnt(_) => continue,
            };
            if let Err(error) = kept {
                tracing::warn!(%error, "what was settled last was not kept: some of it may be sent again");
                return;
            }
        }
    }

    /// Answers, however often it takes.
    async fn answer(
        &self,
        ask: Ask,
        incarnations: &mut HashMap<Arc<str>, Incarnation>,
        behind: &mut Vec<(Interested, Partition, Incarnation)>,
    ) {
        let mut told = false;
        loop {
            let result = match &ask {
                Ask::Begin(question, partitions) => match self.begin(partitions).await {
                    Ok(beginnings) => {
                        for beginning in &beginnings {
                            incarnations
                                .insert(Arc::clone(&beginning.partition.topic), beginning.incarnation);
                            behind.extend(beginning.catching_up.iter().map(|interested| {
                                (
                                    interested.clone(),
                                    beginning.partition.clone(),
                                    beginning.incarnation,
                                )
                            }));
                        }
                        self.commands.tell(Command::Begin(*question, beginnings));
                        Ok(())
                    }
                    Err(failed) => Err(failed),
                },
                Ask::Learnt(learnt) => self.learnt(learnt, behind).await,
                Ask::Settled(commits) => {
                    // It is told again soon.
                    let kept = self.store.keep_watermarks(&self.group, commits).await;
                    kept.or_else(|error| {
                        tracing::debug!(%error, "watermarks were not kept");
                        Ok(())
                    })
                }
                Ask::Noted(notes) => {
                    // Without them something may be sent again.
                    let kept = self.store.note(&self.group, notes).await;
                    kept.or_else(|error| {
                        tracing::debug!(%error, "what is settled was not noted");
                        Ok(())
                    })
                }
            };
            let Err(failed) = result else { return };
            if !told {
                told = true;
                tracing::warn!(error = %failed, "webhooks wait: partitions cannot begin to be delivered yet");
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn begin(&self, partitions: &[Partition]) -> Result<Vec<Beginning>, Failed> {
        let described = self.logs.describe(partitions).await.map_err(|_| Failed::Kafka)?;
        let list = self.committed(partitions).await?;
        let snapshot = self.registry.snapshot();
        let mut beginnings = Vec::with_capacity(partitions.len());
        for (partition, incarnation, bounds) in described {
            let (topic, number) = (&partition.topic, partition.number);
            let kept = self.store.watermarks(&self.group, topic).await?;
            let kept = kept.iter().find(|commit| commit.partition == partition);
            let settled: Vec<Settled> = kept
                .map(|commit| Settled {
                    incarnation: Some(commit.incarnation),
                    offset: commit.offset,
                })
                .into_iter()
                .chain(committed(&list, topic, number))
                .collect();
            let interested = snapshot.interested(&partition, incarnation);
            let starts = interested.iter().map(|(_, start, _)| *start);
            let begun = begin(incarnation, &settled, starts, bounds);
            if let Some(lost) = begun.lost {
                self.metrics.lost.inc();
                tracing::error!(
                    topic = &**topic,
                    partition = number,
                    from = lost.from,
                    until = lost.until,
                    "deliveries are lost: kafka has not any more what was owed"
                );
                for ((endpoint, stream), start, _) in &interested {
                    if lost.until < 0 || *start < lost.until {
                        let mut notice = Notice::new("deliveries.lost", endpoint);
                        notice.detail = serde_json::json!({ "stream": stream.as_str(), "partition": number });
                        self.announcer.announce(&snapshot, &notice);
                    }
                }
            }
            // What endpoints that are new are owed below it is written down before it is read on from here.
            let known = self.store.caught_up(topic, incarnation, number).await?;
            let mut covered: HashSet<Interested> = HashSet::new();
            let mut catching_up = Vec::new();
            let mut blocked = Vec::new();
            for (interested, start, keeps_order) in interested {
                let have = known
                    .iter()
                    .find(|(endpoint, stream, _)| (endpoint, stream) == (&interested.0, &interested.1));
                let is_behind = match have {
                    Some((_, _, done)) => !done,
                    None => {
                        let learnt = Learnt {
                            interested: interested.clone(),
                            partition: partition.clone(),
                            incarnation,
                            from: start.max(bounds.map_or(0, |bounds| bounds.start)),
                            until: begun.offset,
                        };
                        self.keep(&learnt).await?;
                        start < begun.offset
                    }
                };
                if keeps_order {
                    let keys = self.store.blocked_keys(&interested.0).await?;
                    if !keys.is_empty() {
                        blocked.push((interested.0.clone(), keys));
                    }
                    if is_behind {
                        catching_up.push(interested.clone());
                    }
                }
                covered.insert(interested);
            }
            let from = Position {
                topic: Arc::clone(topic),
                incarnation,
                partition: number,
                offset: begun.offset,
            };
            // What is parked first: what is over in the meantime was noted when it was parked.
            let mut settled: HashSet<DeliveryId> = HashSet::new();
            settled.extend(self.store.parked_from(&from).await?);
            settled.extend(self.store.noted_from(&self.group, &from).await?);
            beginnings.push(Beginning {
                settled,
                incarnation,
                offset: begun.offset,
                covered,
                catching_up,
                blocked,
                partition,
            });
        }
        Ok(beginnings)
    }

    async fn committed(&self, partitions: &[Partition]) -> Result<TopicPartitionList, Failed> {
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            list.add_partition(&partition.topic, partition.number);
        }
        let consumer = Arc::clone(&self.consumer);
        let asked = tokio::task::spawn_blocking(move || consumer.committed_offsets(list, COMMITTED));
        match asked.await {
            Ok(Ok(list)) => Ok(list),
            _ => Err(Failed::Kafka),
        }
    }

    async fn learnt(
        &self,
        learnt: &[Learnt],
        behind: &mut Vec<(Interested, Partition, Incarnation)>,
    ) -> Result<(), Failed> {
        for one in learnt {
            self.keep(one).await?;
            if one.from < one.until {
                behind.push((one.interested.clone(), one.partition.clone(), one.incarnation));
            }
        }
        Ok(())
    }

    async fn keep(&self, learnt: &Learnt) -> Result<(), Failed> {
        let (endpoint, stream) = &learnt.interested;
        let snapshot = self.registry.snapshot();
        let Some(entry) = snapshot.entry(endpoint) else {
            // It was deleted in the meantime.
            return Ok(());
        };
        let part = NewReplay {
            endpoint: endpoint.clone(),
            tenant: entry.kept.endpoint.tenant.clone(),
            stream: stream.clone(),
            position: Position {
                topic: Arc::clone(&learnt.partition.topic),
                incarnation: learnt.incarnation,
                partition: learnt.partition.number,
                offset: learnt.from.min(learnt.until),
            },
            until: learnt.until,
        };
        let id = format!("cu_{endpoint}_{stream}");
        self.store.add_replays(&id, Kind::CatchUp, &[part]).await?;
        Ok(())
    }

    /// Lets those go on who have caught up.
    async fn caught_up(&self, behind: &mut Vec<(Interested, Partition, Incarnation)>) {
        let places: BTreeSet<(Partition, Incarnation)> = behind
            .iter()
            .map(|(_, partition, incarnation)| (partition.clone(), *incarnation))
            .collect();
        for (partition, incarnation) in places {
            let Ok(known) = self
                .store
                .caught_up(&partition.topic, incarnation, partition.number)
                .await
            else {
                return;
            };
            let mut index = 0;
            while let Some((interested, of, _)) = behind.get(index) {
                // Not among them: it was deleted, with all that is parked for it.
                let still = known.iter().any(|(endpoint, stream, done)| {
                    (endpoint, stream) == (&interested.0, &interested.1) && !done
                });
                if *of != partition || still {
                    index += 1;
                    continue;
                }
                let Ok(keys) = self.store.blocked_keys(&interested.0).await else {
                    return;
                };
                let (interested, partition, _) = behind.swap_remove(index);
                self.commands.tell(Command::CaughtUp(interested, partition, keys));
            }
        }
    }

    /// Looks which topics there are, and whether they are what they were.
    async fn look(&self, subscribed: &mut Vec<Arc<str>>, incarnations: &mut HashMap<Arc<str>, Incarnation>) {
        let snapshot = self.registry.snapshot();
        let streams = snapshot.index.streams();
        let asked = Instant::now();
        let Ok(found) = self.logs.topics(&streams).await else {
            tracing::debug!(
                ms = asked.elapsed().as_millis(),
                "kafka did not say which topics there are"
            );
            return;
        };
        for (topic, incarnation) in &found {
            if incarnations.get(topic).is_some_and(|known| known != incarnation) {
                tracing::warn!(
                    topic = &**topic,
                    "a topic was made again: its webhooks begin anew"
                );
                incarnations.insert(Arc::clone(topic), *incarnation);
                self.commands
                    .tell(Command::Recreated(Arc::clone(topic), *incarnation));
            }
        }
        let topics: Vec<Arc<str>> = found.into_iter().map(|(topic, _)| topic).collect();
        if topics != *subscribed {
            subscribed.clone_from(&topics);
            self.commands.tell(Command::Subscribe(topics));
        }
    }
}

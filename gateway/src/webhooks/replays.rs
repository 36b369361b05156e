//! Reads again what somebody is owed from before: what an endpoint missed until every node knew of it, and what a partner
//! asks for. What is found is parked, and so goes the way of everything that is parked.
//!
//! Invariants: new events are never held back: a replay reads with a consumer of its own and stops while its endpoint has
//! much to do. How far it is is kept with what it found, so that a node that dies costs a batch that is read twice.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use auth::clock::Clock;
use schemas::decode::Decoder;
use schemas::ids::{Slot, StreamName};
use tokio_util::sync::CancellationToken;
use webhooks::delivery::{DeliveryIds, EndpointId, Position};
use webhooks::endpoint::Ordering;
use webhooks::ledger::Partition;
use webhooks::store::{Kind, Parked, Reading, Store, StoreError};

use super::Metrics;
use super::planner::OrderKeys;
use super::registry::Registry;
use crate::kafka::reread::{Reread, RereadError};
use crate::kafka::{KafkaSettings, Logs, RawRecord, to_decode};

/// How often is looked for something to read.
const LOOK: Duration = Duration::from_millis(200);
/// Records of one batch.
const BATCH_MAX: usize = 512;
/// How long a part is ours between two batches.
const LEASE: Duration = Duration::from_secs(60);
/// What an endpoint may have parked before its replays wait.
const BACKLOG_MAX: i64 = 5_000;

/// What replays are read with.
pub(crate) struct Replays {
    pub(crate) settings: KafkaSettings,
    pub(crate) store: Arc<Store>,
    pub(crate) logs: Arc<Logs>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) decoders: Arc<HashMap<StreamName, Decoder>>,
    pub(crate) ids: Arc<DeliveryIds>,
    pub(crate) order_keys: OrderKeys,
    pub(crate) holder: Arc<str>,
    pub(crate) clock: Clock,
    pub(crate) metrics: Metrics,
    /// Endpoints of which another worker here reads something: one at a time, so that their backlog is counted truly.
    pub(crate) busy: Mutex<Vec<EndpointId>>,
}

enum Ended {
    /// It was read to its end.
    Done,
    /// Its endpoint has enough to do.
    Later,
    /// It is another node's, or gone.
    Lost,
}

#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Kafka(#[from] RereadError),
    #[error("kafka does not answer")]
    Unavailable,
}

impl Replays {
    /// One worker.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut full: Vec<EndpointId> = Vec::new();
        loop {
            let work = async {
                if !self.registry.may_lease() {
                    return Ok(None);
                }
                let mut skipped = self.busy().clone();
                skipped.extend(full.iter().cloned());
                let Some(reading) = self.store.claim_replay(&self.holder, LEASE, &skipped).await? else {
                    return Ok(None);
                };
                self.busy().push(reading.endpoint.clone());
                let ended = self.read(&reading).await;
                let mut busy = self.busy();
                if let Some(place) = busy.iter().position(|endpoint| *endpoint == reading.endpoint) {
                    busy.swap_remove(place);
                }
                drop(busy);
                ended.map(|ended| Some((reading, ended)))
            };
            let worked = tokio::select! {
                // What is under way is somebody else's when its lease ends.
                () = stop.cancelled() => return,
                worked = work => worked,
            };
            match worked {
                Ok(Some((reading, Ended::Later))) => full.push(reading.endpoint),
                Ok(Some((reading, Ended::Done))) => {
                    tracing::info!(replay = reading.id, endpoint = %reading.endpoint, "a part of a replay is read");
                    continue;
                }
                Ok(Some((_, Ended::Lost))) => continue,
                Ok(None) => full.clear(),
                Err::<_, Failed>(error) => {
                    tracing::warn!(%error, "a replay waits");
                    full.clear();
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    fn busy(&self) -> std::sync::MutexGuard<'_, Vec<EndpointId>> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read(&self, reading: &Reading) -> Result<Ended, Failed> {
        let position = &reading.position;
        let partition = Partition {
            topic: Arc::clone(&position.topic),
            number: position.partition,
        };
        let mut next = position.offset;
        let mut reread = None;
        while next < reading.until {
            if reading.kind == Kind::Replay
                && self.store.backlog(&reading.endpoint).await?.count >= BACKLOG_MAX
            {
                self.store
                    .advance_replay(reading, &self.holder, next, &[], Duration::ZERO)
                    .await?;
                return Ok(Ended::Later);
            }
            let (settings, from, until) = (
                self.settings.clone(),
                Position {
                    offset: next,
                    ..position.clone()
                },
                reading.until,
            );
            let read = tokio::task::spawn_blocking(move || {
                let mut open = match reread {
                    Some(open) => open,
                    None => Reread::open(&settings, &from, until).map_err(RereadError::from)?,
                };
                let batch = open.batch(BATCH_MAX)?;
                Ok::<_, RereadError>((open, batch))
            });
            let batch = match read.await.map_err(|_| Failed::Unavailable)? {
                Ok((open, batch)) => {
                    reread = Some(open);
                    batch
                }
                Err(RereadError::Gone) => {
                    next = reading.until;
                    if !self
                        .store
                        .advance_replay(reading, &self.holder, next, &[], Duration::ZERO)
                        .await?
                    {
                        return Ok(Ended::Lost);
                    }
                    break;
                }
                Err(error) => return Err(error.into()),
            };
            // Asked after what was read: another life of the topic is not what was asked for.
            let described = self.logs.describe(std::slice::from_ref(&partition)).await;
            let incarnation = described
                .map_err(|_| Failed::Unavailable)?
                .first()
                .map(|(_, life, _)| *life);
            let is_same = incarnation == Some(position.incarnation);
            let found = if is_same {
                self.found(reading, &batch.records)
            } else {
                Vec::new()
            };
            next = if is_same { batch.next } else { reading.until };
            let lease = if next < reading.until {
                LEASE
            } else {
                Duration::ZERO
            };
            self.metrics.replayed.inc_by(found.len() as u64);
            if !self
                .store
                .advance_replay(reading, &self.holder, next, &found, lease)
                .await?
            {
                return Ok(Ended::Lost);
            }
        }
        Ok(Ended::Done)
    }

    /// What of these records is owed to the endpoint. What somebody asks for is judged by the grant alone, whenever it was.
    fn found(&self, reading: &Reading, records: &[RawRecord]) -> Vec<Parked> {
        let snapshot = self.registry.snapshot();
        let Some(entry) = snapshot.entry(&reading.endpoint) else {
            return Vec::new();
        };
        let Ok(interest) = entry.interest(&reading.stream, &self.registry) else {
            return Vec::new();
        };
        let Some(decoder) = self.decoders.get(&reading.stream) else {
            return Vec::new();
        };
        let keeps_order = entry.target.ordering == Ordering::Key;
        let mut found = Vec::new();
        for record in records {
            let raw = to_decode(record, reading.position.incarnation, Slot(0));
            let Ok(Some(event)) = decoder.decode(raw.clone()) else {
                continue;
            };
            let position = Position {
                offset: record.offset,
                ..reading.position.clone()
            };
            let now_ms = self.clock.now_ms();
            let is_owed = match reading.kind {
                Kind::CatchUp => interest.judge(&event, &position, now_ms).is_some(),
                Kind::Replay | Kind::Resend => interest.shows(&event, now_ms).is_some(),
            };
            if !is_owed {
                continue;
            }
            found.push(Parked {
                delivery: self.ids.of(&reading.endpoint, &reading.stream, &position),
                endpoint: reading.endpoint.clone(),
                tenant: reading.tenant.clone(),
                stream: reading.stream.clone(),
                order_key: if keeps_order {
                    self.order_keys.of(&reading.stream, &raw)
                } else {
                    None
                },
                record: Arc::new(raw),
                attempts: 0,
                age: Duration::ZERO,
                due_in: Duration::ZERO,
                lease: None,
            });
        }
        found
    }
}

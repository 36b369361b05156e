//! What a record owes, and to whom.
//!
//! One invariant: what is owed is decided by the snapshot of now, the same for every endpoint of a record. Knows nothing of
//! offsets that are settled.

use std::collections::HashMap;
use std::sync::Arc;

use auth::clock::Clock;
use aws_lc_rs::hmac;
use schemas::decode::{Decoder, Record};
use schemas::ids::{Incarnation, Slot, StreamName};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::Instant;
use webhooks::delivery::{DeliveryIds, EndpointId, Position};
use webhooks::endpoint::Ordering;
use webhooks::ledger::Partition;
use webhooks::render::Prepared;
use webhooks::scheduler::Job;

use super::registry::{Registry, Snapshot};
use crate::kafka::{DeadLetters, Logs, RawRecord, to_decode};

/// Hashes a record's key, so that what must keep its order can be told apart and the key is not kept in the clear.
#[derive(Clone)]
pub(crate) struct OrderKeys {
    key: hmac::Key,
}

impl OrderKeys {
    pub(crate) fn new(secret: &SecretString) -> Self {
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, secret.expose_secret().as_bytes()),
        }
    }

    /// What deliveries of this record share with others of its key.
    pub(crate) fn of(&self, stream: &StreamName, record: &Record) -> Option<Vec<u8>> {
        let key = record.key.as_ref()?;
        let mut hash = hmac::Context::with_key(&self.key);
        hash.update(b"tidewire.order\0");
        hash.update(stream.as_str().as_bytes());
        hash.update(b"\0");
        hash.update(key);
        Some(hash.sign().as_ref().get(..16).unwrap_or_default().to_vec())
    }
}

/// Plans records.
pub(crate) struct Planner {
    registry: Arc<Registry>,
    dead_letters: Arc<DeadLetters>,
    logs: Arc<Logs>,
    decoders: Arc<HashMap<StreamName, Decoder>>,
    ids: Arc<DeliveryIds>,
    order_keys: OrderKeys,
    clock: Clock,
    snapshot: Arc<Snapshot>,
}

impl Planner {
    pub(crate) fn new(
        registry: Arc<Registry>,
        dead_letters: Arc<DeadLetters>,
        logs: Arc<Logs>,
        decoders: Arc<HashMap<StreamName, Decoder>>,
        ids: Arc<DeliveryIds>,
        order_keys: OrderKeys,
        clock: Clock,
    ) -> Self {
        Self {
            snapshot: registry.snapshot(),
            registry,
            dead_letters,
            logs,
            decoders,
            ids,
            order_keys,
            clock,
        }
    }

    /// Takes the latest snapshot. Whether it is another one.
    pub(crate) fn refresh(&mut self) -> bool {
        let snapshot = self.registry.snapshot();
        let is_other = snapshot.number != self.snapshot.number;
        self.snapshot = snapshot;
        is_other
    }

    /// Who wants something of a partition, from which offset on, and whether in order.
    pub(crate) fn interested(
        &self,
        partition: &Partition,
        incarnation: Incarnation,
    ) -> Vec<((EndpointId, StreamName), i64, bool)> {
        self.snapshot.interested(partition, incarnation)
    }

    /// What a record owes. A record that is no event of a stream owes nothing of it, and becomes a dead letter.
    pub(crate) fn owed(&self, record: &RawRecord, incarnation: Incarnation) -> Vec<Job> {
        let mut owed = Vec::new();
        for stream in self.logs.streams_of(&record.topic) {
            if self.snapshot.index.interests(&stream.name).next().is_none() {
                continue;
            }
            let Some(decoder) = self.decoders.get(&stream.name) else {
                continue;
            };
            let raw = to_decode(record, incarnation, Slot(0));
            let event = match decoder.decode(raw.clone()) {
                Ok(Some(event)) => event,
                Ok(None) => continue,
                Err(rejected) => {
                    self.dead_letters.offer(&stream.name, record.clone(), rejected);
                    continue;
                }
            };
            let position = Position {
                topic: Arc::clone(&raw.topic),
                incarnation,
                partition: raw.partition,
                offset: raw.offset,
            };
            let deliveries =
                self.snapshot
                    .index
                    .deliveries(&event, &position, &self.ids, self.clock.now_ms());
            let order_key = deliveries
                .iter()
                .any(|owed| self.keeps_order(&owed.interest.endpoint))
                .then(|| self.order_keys.of(&stream.name, &raw))
                .flatten();
            let event = if deliveries.len() == 1 {
                Prepared::alone(event)
            } else {
                Prepared::new(event)
            };
            let (event, raw) = (Arc::new(event), Arc::new(raw));
            for delivery in deliveries {
                let Some(entry) = self.snapshot.entry(&delivery.interest.endpoint) else {
                    continue;
                };
                let keeps_order = entry.target.ordering == Ordering::Key;
                owed.push(Job {
                    target: Arc::clone(&entry.target),
                    delivery: delivery.id,
                    stream: stream.name.clone(),
                    record: Arc::clone(&raw),
                    event: Some(Arc::clone(&event)),
                    order_key: order_key.clone().filter(|_| keeps_order),
                    attempts: 0,
                    first_ms: None,
                    receipt: None,
                    arrived: Instant::now(),
                    leased_until: None,
                });
            }
        }
        owed
    }

    fn keeps_order(&self, endpoint: &EndpointId) -> bool {
        self.snapshot
            .entry(endpoint)
            .is_some_and(|entry| entry.target.ordering == Ordering::Key)
    }
}

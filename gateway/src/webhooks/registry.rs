//! The endpoints as this node knows them: looked at often, compiled once for each change.
//!
//! Invariants: what is shown at one moment is one snapshot, whole. An endpoint's interests are compiled from its owner, the
//! contract and what operators know of the owner; when one of the three changes they are compiled anew before they are used
//! again, all of them by the same knowledge. A change that was made here is seen here before the answer is given.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use ahash::AHashMap;
use arc_swap::ArcSwap;
use auth::control::Control;
use schemas::contract::Contract;
use schemas::ids::{Incarnation, StreamName};
use tokio::sync::{Mutex, watch};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use webhooks::delivery::EndpointId;
use webhooks::endpoint::{Ordering as Order, Status};
use webhooks::ledger::Partition;
use webhooks::matching::{Index, Interest};
use webhooks::retry::Schedule;
use webhooks::scheduler::Target;
use webhooks::store::{Kept, Store, StoreError, Version};

use crate::kafka::Logs;

/// One endpoint, compiled.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) kept: Kept,
    pub(crate) target: Arc<Target>,
    interests: AHashMap<StreamName, Arc<Interest>>,
    epoch: u64,
}

/// All endpoints at one moment.
#[derive(Default)]
pub(crate) struct Snapshot {
    pub(crate) number: u64,
    pub(crate) index: Index,
    entries: AHashMap<EndpointId, Arc<Entry>>,
    /// Which streams read a topic is asked of the logs, when there are any.
    logs: Option<Arc<Logs>>,
}

/// Why an endpoint gets nothing of a stream now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ungranted {
    /// Its owner is revoked, or not authorized any more, or may not have the stream.
    Denied,
    /// What operators know has not been read yet: nobody knows.
    Unknown,
}

/// Keeps the snapshot fresh.
pub(crate) struct Registry {
    store: Arc<Store>,
    contract: Arc<Contract>,
    control: Control,
    logs: Arc<Logs>,
    schedule: Arc<Schedule>,
    /// This node's name among those that share the work.
    holder: Arc<str>,
    /// A node that was not heard of for so long does not count, and has leased nothing.
    member_age: Duration,
    current: ArcSwap<Snapshot>,
    /// Only one looks at a time.
    looking: Mutex<()>,
    /// Numbers targets on this node: the latest one counts.
    revisions: AtomicI64,
    members: AtomicU64,
    changes: watch::Sender<u64>,
}

impl Entry {
    /// What the endpoint wants of a stream, under the grant of now.
    pub(crate) fn interest(
        &self,
        stream: &StreamName,
        registry: &Registry,
    ) -> Result<Arc<Interest>, Ungranted> {
        if !registry.control.is_read() {
            return Err(Ungranted::Unknown);
        }
        let found = if self.epoch == registry.control.epoch() {
            self.interests.get(stream).cloned()
        } else {
            // What operators know has changed since: it is compiled anew, for this once.
            compiled(&self.kept, &registry.contract, &registry.control).remove(stream)
        };
        found.ok_or(Ungranted::Denied)
    }
}

impl Snapshot {
    pub(crate) fn entry(&self, endpoint: &EndpointId) -> Option<&Arc<Entry>> {
        self.entries.get(endpoint)
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.entries.values()
    }

    /// Who wants something of a partition, from which offset on, and whether in order.
    pub(crate) fn interested(
        &self,
        partition: &Partition,
        incarnation: Incarnation,
    ) -> Vec<((EndpointId, StreamName), i64, bool)> {
        let Some(logs) = &self.logs else {
            return Vec::new();
        };
        let mut interested = Vec::new();
        for stream in logs.streams_of(&partition.topic) {
            for interest in self.index.interests(&stream.name) {
                let start = interest
                    .start()
                    .of(&partition.topic, incarnation, partition.number);
                let keeps_order = self
                    .entry(&interest.endpoint)
                    .is_some_and(|entry| entry.target.ordering == Order::Key);
                interested.push((
                    (interest.endpoint.clone(), stream.name.clone()),
                    start,
                    keeps_order,
                ));
            }
        }
        interested
    }
}

impl Registry {
    pub(crate) fn new(
        store: Arc<Store>,
        contract: Arc<Contract>,
        control: Control,
        logs: Arc<Logs>,
        schedule: Schedule,
        holder: Arc<str>,
        member_age: Duration,
    ) -> Self {
        let snapshot = Snapshot {
            logs: Some(Arc::clone(&logs)),
            ..Snapshot::default()
        };
        Self {
            store,
            contract,
            control,
            logs,
            schedule: Arc::new(schedule),
            holder,
            member_age,
            current: ArcSwap::from_pointee(snapshot),
            looking: Mutex::new(()),
            revisions: AtomicI64::new(0),
            members: AtomicU64::new(0),
            changes: watch::Sender::new(0),
        }
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Changes when the snapshot does.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Looks often, and whenever somebody here has changed something or operators know something new.
    pub(crate) async fn run(
        &self,
        interval: Duration,
        mut poked: watch::Receiver<u64>,
        stop: CancellationToken,
    ) {
        let mut tick = tokio::time::interval(interval);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut known = self.control.changes();
        let mut failing = false;
        // Before this one there was another process, and it is gone: nobody else uses a file.
        let mut is_first = self.store.is_single();
        loop {
            // Every branch may be dropped.
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => {}
                Ok(()) = poked.changed() => {}
                Ok(()) = known.changed() => {}
            }
            let looked = async {
                if is_first {
                    self.store.beat(&self.holder, Duration::ZERO).await?;
                }
                let members = self.store.beat(&self.holder, self.member_age).await?;
                is_first = false;
                self.members.store(members.max(1), Ordering::Relaxed);
                self.look().await
            };
            match looked.await {
                Ok(()) => {
                    if failing {
                        tracing::info!("the store of webhooks answers again");
                    }
                    failing = false;
                }
                Err(error) => {
                    if !failing {
                        tracing::error!(%error, "the store of webhooks does not answer: endpoints stay as they were known");
                    }
                    failing = true;
                }
            }
        }
    }

    /// Takes what has changed.
    pub(crate) async fn look(&self) -> Result<(), StoreError> {
        let _looking = self.looking.lock().await;
        while !self.take().await? {}
        Ok(())
    }

    /// `false`: what operators know has changed meanwhile. Some endpoints were compiled by the one and some by the other then,
    /// and before anything was read nobody is granted anything: a part of them would miss what a partition is read with.
    async fn take(&self) -> Result<bool, StoreError> {
        let known = (self.control.epoch(), self.control.is_read());
        let epoch = known.0;
        let before = self.snapshot();
        let versions = self.store.endpoint_versions().await?;
        let mut entries = AHashMap::with_capacity(versions.len());
        let mut changed = versions.len() != before.entries.len();
        for version in versions {
            let rate = |rate: u32| self.share(rate);
            let same = before.entries.get(&version.id).filter(|entry| {
                let kept = &entry.kept;
                let same_rate = entry.target.rate_per_second == kept.endpoint.spec.rate_per_second.map(rate);
                same_rate && entry.epoch == epoch && is_same(kept, &version)
            });
            if let Some(entry) = same {
                entries.insert(version.id, Arc::clone(entry));
                continue;
            }
            changed = true;
            // It may have been deleted a moment ago.
            if let Some(kept) = self.store.endpoint(&version.tenant, &version.id).await? {
                entries.insert(version.id, Arc::new(self.entry(kept, epoch)));
            }
        }
        if (self.control.epoch(), self.control.is_read()) != known {
            return Ok(false);
        }
        if changed {
            let interests = entries
                .values()
                .flat_map(|entry| entry.interests.values())
                .cloned();
            let snapshot = Snapshot {
                number: before.number + 1,
                index: Index::new(interests),
                entries,
                logs: Some(Arc::clone(&self.logs)),
            };
            self.changes.send_replace(snapshot.number);
            self.current.store(Arc::new(snapshot));
        }
        Ok(true)
    }

    /// Whether anything may be leased: not before the others know of this node (they would take its leases for nobody's),
    /// nor before this node knows who is revoked.
    pub(crate) fn may_lease(&self) -> bool {
        self.members.load(Ordering::Relaxed) > 0 && self.control.is_read()
    }

    /// This node's part of a rate that holds for all of them together.
    fn share(&self, rate: u32) -> u32 {
        let members = u32::try_from(self.members.load(Ordering::Relaxed)).unwrap_or(u32::MAX);
        (rate / members.max(1)).max(1)
    }

    fn entry(&self, kept: Kept, epoch: u64) -> Entry {
        let endpoint = &kept.endpoint;
        let target = Target {
            endpoint: endpoint.id.clone(),
            tenant: endpoint.tenant.clone(),
            revision: self.revisions.fetch_add(1, Ordering::Relaxed),
            callable: endpoint.status == Status::Active,
            concurrency: endpoint.spec.concurrency,
            rate_per_second: endpoint.spec.rate_per_second.map(|rate| self.share(rate)),
            timeout: endpoint.spec.timeout,
            schedule: endpoint.spec.retry.as_ref().map_or_else(
                || Arc::clone(&self.schedule),
                |schedule| Arc::new(schedule.clone()),
            ),
            ordering: endpoint.spec.ordering,
            failing_since_ms: kept.failing_since_ms,
            open_until_ms: kept.open_until_ms,
        };
        Entry {
            interests: compiled(&kept, &self.contract, &self.control),
            target: Arc::new(target),
            kept,
            epoch,
        }
    }
}

fn is_same(kept: &Kept, version: &Version) -> bool {
    kept.revision == version.revision
        && kept.failing_since_ms == version.failing_since_ms
        && kept.open_until_ms == version.open_until_ms
}

/// What an endpoint wants, as far as its owner may have it: a stream that is not granted any more is left out.
fn compiled(kept: &Kept, contract: &Contract, control: &Control) -> AHashMap<StreamName, Arc<Interest>> {
    let endpoint = &kept.endpoint;
    let Ok(principal) = control.admit(&endpoint.owner.principal()) else {
        return AHashMap::new();
    };
    let compiled = endpoint.granted(contract, &principal).into_iter();
    compiled
        .map(|interest| (interest.stream().clone(), Arc::new(interest)))
        .collect()
}

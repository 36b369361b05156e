//! One stream on one worker: the position that the worker has reached, the groups with their index, and the lanes.
//!
//! Invariant: outside of a round, every group's log ends exactly at `vector`: whoever joins then has missed nothing.

use std::sync::{Arc, PoisonError};

use ahash::AHashMap;
use auth::access::Selection;
use schemas::attributes::Atom;
use schemas::contract::Stream;
use schemas::cursor::{Position, Sealer};
use schemas::event::Event;
use schemas::ids::{AttributeId, Slot, TenantId};
use slab::Slab;
use smallvec::SmallVec;

use crate::group::{Group, Share};
use crate::hub::Services;
use crate::lane::{Lane, Surroundings, gap_partitions};
use crate::layout::{Carried, Layout, Vector};
use crate::metrics::Metrics;
use crate::needs::Needs;
use crate::protocol::{Frame, Kind};
use crate::sequencer::{Batch, Item, Past};
use crate::view::Viewed;

/// An index entry's most values: a longer `in` list is matched without the index.
const INDEXED_VALUES_MAX: usize = 16;

/// One stream on one worker.
pub(crate) struct Shard {
    pub(crate) stream: Arc<Stream>,
    /// Its place in the contract.
    place: usize,
    pub(crate) layout: Arc<Layout>,
    pub(crate) vector: Vector,
    /// Counts the changes of `vector`.
    pub(crate) version: u64,
    /// Whether Kafka can be reached.
    pub(crate) fresh: bool,
    pub(crate) groups: Slab<Group>,
    pub(crate) lanes: Slab<Lane>,
    pub(crate) past: Arc<Past>,
    by_share: AHashMap<Share, usize>,
    /// The selections of the groups: one copy of each, and how many groups have it.
    selections: AHashMap<Arc<Selection>, usize>,
    tenants: AHashMap<TenantId, Index>,
    /// The round's events, counted.
    stamp: u64,
    touched: Vec<usize>,
    /// The shared cursor of a tenant at a version.
    quiet: AHashMap<TenantId, (u64, Arc<str>)>,
    needs: Arc<Needs>,
    services: Arc<Services>,
    metrics: Arc<Metrics>,
}

/// The groups of one tenant, by the most selective equality of each clause.
#[derive(Debug, Default)]
struct Index {
    unkeyed: Vec<usize>,
    keyed: AHashMap<(AttributeId, Atom), SmallVec<[usize; 1]>>,
}

/// What a batch told beside events.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// Kafka was lost or came back.
    pub(crate) fresh: Option<bool>,
    /// Subscriptions may begin now.
    pub(crate) readable: bool,
}

impl Shard {
    pub(crate) fn new(
        place: usize,
        stream: Arc<Stream>,
        past: Arc<Past>,
        needs: Arc<Needs>,
        services: Arc<Services>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            stream,
            place,
            needs,
            layout: Arc::default(),
            vector: Vector::default(),
            version: 0,
            fresh: true,
            groups: Slab::new(),
            lanes: Slab::new(),
            past,
            by_share: AHashMap::new(),
            selections: AHashMap::new(),
            tenants: AHashMap::new(),
            stamp: 0,
            touched: Vec::new(),
            quiet: AHashMap::new(),
            services,
            metrics,
        }
    }

    /// Applies a batch: frames go into the logs of the groups that want them. Nothing is written yet.
    pub(crate) fn apply(&mut self, batch: &Batch) -> Told {
        let mut told = Told::default();
        for item in &batch.items {
            match item {
                Item::Added { slot, start, layout } => {
                    self.layout = Arc::clone(layout);
                    self.vector.set(*slot, *start);
                    self.version += 1;
                    self.each_lane(|lane, around| lane.added(*slot, *start, around));
                }
                Item::Resolved { slot, start } => {
                    self.vector.set(*slot, Position::At(*start));
                    self.version += 1;
                }
                Item::Unresolved { slot, since_ms } => {
                    self.vector.set(*slot, Position::Since(*since_ms));
                    self.version += 1;
                }
                Item::Readable { layout } => {
                    self.layout = Arc::clone(layout);
                    told.readable |= layout.read.is_some();
                }
                Item::Records { slot, events, next } => {
                    for event in events {
                        self.vector.set(*slot, Position::At(event.event.offset + 1));
                        self.offer(event);
                    }
                    if self.vector.offset(*slot) != Some(*next) || !events.is_empty() {
                        self.version += 1;
                    }
                    self.vector.set(*slot, Position::At(*next));
                }
                Item::Lost { slot, next } => {
                    let hole = self.vector.offset(*slot).map(|from| (from, *next));
                    self.vector.set(*slot, Position::At(*next));
                    self.version += 1;
                    self.tell_groups("lost", &[(*slot, hole)], &Arc::clone(&self.layout));
                }
                Item::Removed { slots, gone, layout } => {
                    let before = std::mem::replace(&mut self.layout, Arc::clone(layout));
                    for slot in slots {
                        self.vector.remove(*slot);
                    }
                    self.version += 1;
                    let slots: Vec<_> = slots.iter().map(|slot| (*slot, None)).collect();
                    self.tell_groups(gone.reason(), &slots, &before);
                    self.tell_lanes(gone.reason(), &slots, &before);
                }
                Item::Fresh(fresh) => {
                    self.fresh = *fresh;
                    told.fresh = Some(*fresh);
                }
            }
        }
        told
    }

    /// Offers an event to the groups that may want it.
    fn offer(&mut self, viewed: &Arc<Viewed>) {
        let event: &Event = &viewed.event;
        let Some(index) = self.tenants.get(&event.tenant) else {
            return;
        };
        self.stamp += 1;
        let mut candidates: SmallVec<[usize; 16]> = SmallVec::from_slice(&index.unkeyed);
        if !index.keyed.is_empty() {
            for (attribute, value) in event.attributes.iter() {
                if let Some(groups) = index.keyed.get(&(*attribute, Arc::clone(value))) {
                    candidates.extend_from_slice(groups);
                }
            }
        }
        let mut offer = viewed.offer();
        for candidate in candidates {
            let group = &mut self.groups[candidate];
            if group.stamp == self.stamp {
                continue;
            }
            group.stamp = self.stamp;
            let bits = group.share.selection.matching(event);
            if bits == 0 || !group.share.view.wants(event) {
                continue;
            }
            let mask = group.mask(bits);
            let cursor = viewed.shared_cursor(|| {
                seal(
                    &self.services,
                    &self.stream,
                    &self.layout,
                    &event.tenant,
                    &self.vector,
                    &[],
                )
            });
            if !group.is_touched() {
                self.touched.push(candidate);
            }
            let kind = Kind::Event {
                slot: event.slot,
                offset: event.offset,
                body: offer.body(&group.share.view, &mask, &cursor),
            };
            group.push(Frame { cursor, kind });
        }
    }

    /// Tells every group whose tenant can match one of the slots. `names` is the layout that still names them.
    fn tell_groups(
        &mut self,
        reason: &'static str,
        slots: &[(Slot, Option<(i64, i64)>)],
        names: &Arc<Layout>,
    ) {
        for place in 0..self.groups.capacity() {
            let Some(group) = self.groups.get_mut(place) else {
                continue;
            };
            let tenant = group.share.selection.tenant.clone();
            let mine = of_tenant(slots, names, &tenant);
            if mine.is_empty() || group.members.is_empty() {
                continue;
            }
            let cursor = seal(
                &self.services,
                &self.stream,
                &self.layout,
                &tenant,
                &self.vector,
                &[],
            );
            let partitions = gap_partitions(reason, &mine, &tenant, None, names, self.stream.show_offsets);
            if !group.is_touched() {
                self.touched.push(place);
            }
            for _ in &group.members {
                self.metrics.gap(reason);
            }
            let partitions = serde_json::Value::Array(partitions).to_string();
            group.push(Frame {
                cursor,
                kind: Kind::Gap {
                    partitions: Arc::from(partitions),
                    at_ms: self.services.clock.now_ms(),
                },
            });
        }
    }

    fn tell_lanes(
        &mut self,
        reason: &'static str,
        slots: &[(Slot, Option<(i64, i64)>)],
        names: &Arc<Layout>,
    ) {
        let metrics = Arc::clone(&self.metrics);
        self.each_lane(|lane, around| {
            let mine = of_tenant(slots, names, &lane.share.selection.tenant);
            if mine.is_empty() {
                return;
            }
            for (slot, _) in &mine {
                lane.removed(*slot);
            }
            metrics.gap(reason);
            lane.gap(reason, &mine, names, around);
        });
    }

    /// Does something with each lane.
    pub(crate) fn each_lane(&mut self, mut deed: impl FnMut(&mut Lane, &Surroundings<'_>)) {
        if self.lanes.is_empty() {
            return;
        }
        let (layout, services, stream) = (&self.layout, &self.services, &self.stream);
        let ring = self.past.ring.read().unwrap_or_else(PoisonError::into_inner);
        let seal = |tenant: &TenantId, vector: &Vector, carried: &[Carried]| {
            seal(services, stream, layout, tenant, vector, carried)
        };
        let around = Surroundings {
            layout,
            shared: &self.vector,
            ring: &ring,
            show_offsets: stream.show_offsets,
            seal: &seal,
            queue_bytes_max: usize::MAX,
            now_ms: services.clock.now_ms(),
        };
        for (_, lane) in &mut self.lanes {
            deed(lane, &around);
        }
    }

    /// Does something with one lane.
    pub(crate) fn with_lane<T>(
        &mut self,
        lane: usize,
        queue_bytes_max: usize,
        deed: impl FnOnce(&mut Lane, &Surroundings<'_>) -> T,
    ) -> Option<T> {
        let lane = self.lanes.get_mut(lane)?;
        let (layout, services, stream) = (&self.layout, &self.services, &self.stream);
        let ring = self.past.ring.read().unwrap_or_else(PoisonError::into_inner);
        let seal = |tenant: &TenantId, vector: &Vector, carried: &[Carried]| {
            seal(services, stream, layout, tenant, vector, carried)
        };
        let around = Surroundings {
            layout,
            shared: &self.vector,
            ring: &ring,
            show_offsets: stream.show_offsets,
            seal: &seal,
            queue_bytes_max,
            now_ms: services.clock.now_ms(),
        };
        Some(deed(lane, &around))
    }

    /// The groups that were given frames in this round.
    pub(crate) fn take_touched(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.touched)
    }

    /// The shared cursor for a tenant.
    pub(crate) fn shared_cursor(&mut self, tenant: &TenantId) -> Arc<str> {
        if let Some((version, cursor)) = self.quiet.get(tenant)
            && *version == self.version
        {
            return Arc::clone(cursor);
        }
        let cursor = seal(
            &self.services,
            &self.stream,
            &self.layout,
            tenant,
            &self.vector,
            &[],
        );
        self.quiet
            .insert(tenant.clone(), (self.version, Arc::clone(&cursor)));
        cursor
    }

    /// The copy of a selection that its group has already, if there is a group.
    pub(crate) fn share(&self, selection: Selection) -> Arc<Selection> {
        match self.selections.get_key_value(&selection) {
            Some((shared, _)) => Arc::clone(shared),
            None => Arc::new(selection),
        }
    }

    /// The group of those who share this, made if it is not there.
    pub(crate) fn group(&mut self, share: &Share) -> usize {
        if let Some(group) = self.by_share.get(share) {
            return *group;
        }
        let need = self.needs.need(self.place);
        let place = self.groups.insert(Group::new(share.clone(), need));
        self.by_share.insert(share.clone(), place);
        let selection = &share.selection;
        *self.selections.entry(Arc::clone(selection)).or_default() += 1;
        let index = self.tenants.entry(selection.tenant.clone()).or_default();
        match keys(selection) {
            None => index.unkeyed.push(place),
            Some(keys) => {
                for key in keys {
                    let groups = index.keyed.entry(key).or_default();
                    if !groups.contains(&place) {
                        groups.push(place);
                    }
                }
            }
        }
        self.metrics.groups.inc();
        place
    }

    /// Removes a group without members.
    pub(crate) fn drop_group(&mut self, place: usize) {
        let group = self.groups.remove(place);
        let selection = &group.share.selection;
        self.by_share.remove(&group.share);
        if let Some(count) = self.selections.get_mut(selection) {
            *count -= 1;
            if *count == 0 {
                self.selections.remove(selection);
            }
        }
        self.metrics.groups.dec();
        let tenant = &selection.tenant;
        let Some(index) = self.tenants.get_mut(tenant) else {
            return;
        };
        index.unkeyed.retain(|have| *have != place);
        for key in keys(selection).unwrap_or_default() {
            if let Some(groups) = index.keyed.get_mut(&key) {
                groups.retain(|have| *have != place);
                if groups.is_empty() {
                    index.keyed.remove(&key);
                }
            }
        }
        if index.unkeyed.is_empty() && index.keyed.is_empty() {
            self.tenants.remove(tenant);
            self.quiet.remove(tenant);
        }
    }
}

fn of_tenant(
    slots: &[(Slot, Option<(i64, i64)>)],
    layout: &Layout,
    tenant: &TenantId,
) -> Vec<(Slot, Option<(i64, i64)>)> {
    slots
        .iter()
        .filter(|(slot, _)| {
            layout
                .entry(*slot)
                .is_some_and(|entry| entry.tenant.as_ref().is_none_or(|of| of == tenant))
        })
        .copied()
        .collect()
}

/// The index entries of a selection: for each clause its most selective equality. None where a clause has no equality
/// that is worth one: the group is then asked about every event of its tenant.
fn keys(selection: &Selection) -> Option<Vec<(AttributeId, Atom)>> {
    let mut keys = Vec::new();
    for clause in &selection.clauses {
        let (attribute, values) = clause.rows.terms().min_by_key(|(_, values)| values.len())?;
        if values.len() > INDEXED_VALUES_MAX {
            return None;
        }
        keys.extend(values.iter().map(|value| (attribute, Arc::clone(value))));
    }
    Some(keys)
}

fn seal(
    services: &Services,
    stream: &Stream,
    layout: &Layout,
    tenant: &TenantId,
    vector: &Vector,
    carried: &[Carried],
) -> Arc<str> {
    let sealer: &Sealer = &services.sealer;
    let cursor = layout.cursor(tenant, vector, carried, stream.revision, services.clock.now_ms());
    Arc::from(sealer.seal(&stream.name, tenant, &cursor))
}

//! Which offsets are settled, and how far a partition may be committed. Pure.
//!
//! One invariant: the offset to commit never passes one that is not settled, whatever completes in which order, and what
//! completes for a partition after it was taken away changes nothing. Bounded: a partition holds at most
//! `open_offsets_max` offsets above the first one that is open, and all of them together about `open_bytes_max`, each its share;
//! then its reading waits. Knows nothing of Kafka's client and of deliveries: an offset is owed a number of them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use ahash::AHashMap;
use schemas::ids::Incarnation;

/// One partition of one topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Partition {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition.
    pub number: i32,
}

/// What one delivery gives back when it is settled: which offset, of which assignment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Receipt {
    partition: Partition,
    assignment: u64,
    offset: i64,
}

/// How far a partition may be committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// The partition.
    pub partition: Partition,
    /// The life of the topic that the offset belongs to; it stands in the commit's metadata.
    pub incarnation: Incarnation,
    /// The next offset to be consumed: everything below it is settled.
    pub offset: i64,
}

/// The partitions that this node has been assigned.
#[derive(Debug)]
pub struct Ledger {
    windows: AHashMap<Partition, Window>,
    open_offsets_max: usize,
    open_bytes_max: usize,
    /// What waits costs so many bytes, over all partitions.
    bytes: usize,
    /// Counts assignments, so that what was owed under one is not settled under the next.
    assignments: u64,
}

#[derive(Debug)]
struct Window {
    assignment: u64,
    incarnation: Incarnation,
    /// Ordered by offset; the first one is not settled.
    open: VecDeque<Entry>,
    /// What waits of it costs so many bytes.
    bytes: usize,
    /// The offset after the last one that was registered.
    next: i64,
    /// What was last given out to be committed.
    committed: i64,
}

#[derive(Debug)]
struct Entry {
    offset: i64,
    owed: usize,
    bytes: usize,
}

impl Ledger {
    /// An empty ledger. `open_offsets_max` bounds the window of each partition.
    #[must_use]
    pub fn new(open_offsets_max: usize) -> Self {
        Self {
            windows: AHashMap::new(),
            open_offsets_max: open_offsets_max.max(1),
            open_bytes_max: usize::MAX,
            bytes: 0,
            assignments: 0,
        }
    }

    /// Bounds what waits over all partitions, in bytes.
    #[must_use]
    pub fn bounded(mut self, open_bytes_max: usize) -> Self {
        self.open_bytes_max = open_bytes_max.max(1);
        self
    }

    /// Takes on a partition, to be read from `offset`. What was open for it before is forgotten: its receipts are void.
    pub fn assign(&mut self, partition: Partition, incarnation: Incarnation, offset: i64) {
        self.assignments += 1;
        let window = Window {
            assignment: self.assignments,
            incarnation,
            open: VecDeque::new(),
            bytes: 0,
            next: offset,
            committed: offset,
        };
        if let Some(before) = self.windows.insert(partition, window) {
            self.bytes -= before.bytes;
        }
    }

    /// Gives up a partition. `Some` is what may still be committed for it: not after the group has given it to another.
    pub fn revoke(&mut self, partition: &Partition) -> Option<Commit> {
        let window = self.windows.remove(partition)?;
        self.bytes -= window.bytes;
        window.commit(partition)
    }

    /// Registers the next offset of a partition and how many deliveries are owed for it: none for a record that nobody
    /// wants. Offsets come in order; there may be holes between them. `None` where the partition is not ours, or the
    /// offset was registered before (a consumer that went back).
    pub fn register(&mut self, partition: &Partition, offset: i64, owed: usize) -> Option<Receipt> {
        self.register_sized(partition, offset, owed, 0)
    }

    /// The same, for what costs so many bytes until it is settled.
    pub fn register_sized(
        &mut self,
        partition: &Partition,
        offset: i64,
        owed: usize,
        bytes: usize,
    ) -> Option<Receipt> {
        let window = self.windows.get_mut(partition)?;
        if offset < window.next {
            return None;
        }
        window.next = offset + 1;
        // Settled from the start, and nothing open before it: the window stays empty.
        if owed > 0 || !window.open.is_empty() {
            let bytes = if owed > 0 { bytes } else { 0 };
            window.open.push_back(Entry { offset, owed, bytes });
            window.bytes += bytes;
            self.bytes += bytes;
        }
        Some(Receipt {
            partition: partition.clone(),
            assignment: window.assignment,
            offset,
        })
    }

    /// Settles one delivery of an offset: it succeeded, or it is parked durably, or it is dropped on record. A receipt of
    /// an assignment that is over is void. Whether it lies above the watermark, so that it is not committed yet: something
    /// before it is open, or something else that is owed for its offset.
    pub fn settle(&mut self, receipt: &Receipt) -> bool {
        let Some(window) = self.windows.get_mut(&receipt.partition) else {
            return false;
        };
        if window.assignment != receipt.assignment {
            return false;
        }
        let place = window
            .open
            .binary_search_by_key(&receipt.offset, |entry| entry.offset);
        if let Some(entry) = place.ok().and_then(|place| window.open.get_mut(place)) {
            debug_assert!(entry.owed > 0, "ledger: no delivery is settled twice");
            entry.owed = entry.owed.saturating_sub(1);
            if entry.owed == 0 {
                let bytes = std::mem::take(&mut entry.bytes);
                window.bytes -= bytes;
                self.bytes -= bytes;
            }
        }
        while window.open.front().is_some_and(|entry| entry.owed == 0) {
            window.open.pop_front();
        }
        receipt.offset >= window.settled()
    }

    /// Whether the partition's window is full, so that it is not read on until something is settled.
    #[must_use]
    pub fn is_full(&self, partition: &Partition) -> bool {
        self.windows.get(partition).is_some_and(|window| {
            window.open.len() >= self.open_offsets_max
                || (self.bytes >= self.open_bytes_max && window.bytes >= self.share(self.open_bytes_max))
        })
    }

    /// Whether half of the partition's window is free: one that was full is read on then. What was fetched ahead is lost with
    /// each pause, so a full window is not to be left and entered again for each offset.
    #[must_use]
    pub fn has_room(&self, partition: &Partition) -> bool {
        self.windows.get(partition).is_none_or(|window| {
            window.open.len() <= self.open_offsets_max / 2
                && (self.bytes <= self.open_bytes_max / 2
                    || window.bytes <= self.share(self.open_bytes_max) / 2)
        })
    }

    /// What each partition may have of all.
    fn share(&self, all: usize) -> usize {
        all / self.windows.len().max(1)
    }

    /// Whether a receipt still counts: its partition has been ours without a break.
    #[must_use]
    pub fn is_current(&self, receipt: &Receipt) -> bool {
        self.windows
            .get(&receipt.partition)
            .is_some_and(|window| window.assignment == receipt.assignment)
    }

    /// What may be committed and was not given out before, ordered by partition.
    pub fn commits(&mut self) -> Vec<Commit> {
        let mut commits = BTreeMap::new();
        for (partition, window) in &mut self.windows {
            if let Some(commit) = window.commit(partition) {
                window.committed = commit.offset;
                commits.insert(partition.clone(), commit);
            }
        }
        commits.into_values().collect()
    }

    /// The offset after the last one that was registered: what comes next. `None` where the partition is not ours.
    #[must_use]
    pub fn next(&self, partition: &Partition) -> Option<i64> {
        self.windows.get(partition).map(|window| window.next)
    }

    /// The first offset of a partition of ours that is not settled.
    #[must_use]
    pub fn watermark(&self, partition: &Partition) -> Option<i64> {
        self.windows.get(partition).map(Window::settled)
    }

    /// Which life of its topic a partition of ours is read in.
    #[must_use]
    pub fn incarnation(&self, partition: &Partition) -> Option<Incarnation> {
        self.windows.get(partition).map(|window| window.incarnation)
    }

    /// The partitions that are ours.
    pub fn partitions(&self) -> impl Iterator<Item = &Partition> {
        self.windows.keys()
    }

    /// Offsets that wait for something, over all partitions.
    #[must_use]
    pub fn open(&self) -> usize {
        self.windows.values().map(|window| window.open.len()).sum()
    }

    /// The first offset of each partition that is not settled: from where everything that is owed follows.
    pub fn watermarks(&self) -> impl Iterator<Item = Commit> {
        self.windows.iter().map(|(partition, window)| Commit {
            partition: partition.clone(),
            incarnation: window.incarnation,
            offset: window.settled(),
        })
    }
}

impl Receipt {
    /// The partition.
    #[must_use]
    pub fn partition(&self) -> &Partition {
        &self.partition
    }

    /// The offset.
    #[must_use]
    pub fn offset(&self) -> i64 {
        self.offset
    }
}

impl Window {
    fn settled(&self) -> i64 {
        self.open.front().map_or(self.next, |entry| entry.offset)
    }

    fn commit(&self, partition: &Partition) -> Option<Commit> {
        let offset = self.settled();
        (offset > self.committed).then(|| Commit {
            partition: partition.clone(),
            incarnation: self.incarnation,
            offset,
        })
    }
}

#[cfg(test)]
mod tests;

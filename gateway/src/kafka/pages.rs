//! Decoded runs of partitions that readers of older events share, and the decision what a reader who finds nothing does:
//! wait for a pass that is under way, or have one started. Pure: no Kafka, no clock.
//!
//! Invariant: a chunk covers its interval completely; what it does not hold in there does not exist or is no event. The
//! bytes of all chunks are bounded; the longest unused go first.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use schemas::event::Event;

/// A run of one partition.
#[derive(Debug, Clone)]
pub(super) struct Chunk {
    pub(super) from: i64,
    pub(super) next: i64,
    /// In offset order, all in `from..next`.
    pub(super) events: Arc<[Arc<Event>]>,
    /// Bytes of records read for it.
    pub(super) scanned_bytes: u64,
    used: u64,
}

impl Chunk {
    pub(super) fn new(from: i64, next: i64, events: Vec<Event>, scanned_bytes: u64) -> Self {
        Self {
            from,
            next,
            events: events.into_iter().map(Arc::new).collect(),
            scanned_bytes,
            used: 0,
        }
    }

    /// The part in `from..until`: its events, where it ends, and its share of the bytes.
    pub(super) fn part(&self, from: i64, until: i64) -> (Arc<[Arc<Event>]>, i64, u64) {
        let next = self.next.min(until);
        if from <= self.from && next == self.next {
            return (Arc::clone(&self.events), next, self.scanned_bytes);
        }
        let first = self.events.partition_point(|event| event.offset < from);
        let last = self.events.partition_point(|event| event.offset < next);
        let events: Arc<[Arc<Event>]> = self.events.get(first..last).unwrap_or_default().into();
        let span = u64::try_from(self.next - self.from).unwrap_or(1).max(1);
        let part = u64::try_from(next - from.max(self.from)).unwrap_or(0);
        (events, next, self.scanned_bytes.saturating_mul(part) / span)
    }

    fn cost(&self) -> usize {
        512 + self.events.iter().map(|event| event.bytes + 64).sum::<usize>()
    }
}

/// A pass as its log sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PassView {
    pub(super) id: u64,
    /// Where it reads next.
    pub(super) position: i64,
    /// It has not begun to read; a lower start can still be had.
    pub(super) gathering: bool,
    /// It ends there, where others have read.
    pub(super) limit: Option<i64>,
}

/// What is known of one partition.
#[derive(Debug, Default)]
pub(super) struct Log {
    chunks: BTreeMap<i64, Chunk>,
    /// Where Kafka's log began when it was last asked.
    pub(super) log_start: i64,
    pub(super) passes: Vec<PassView>,
    offsets_read: u64,
    bytes_read: u64,
}

/// What a reader who finds nothing does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plan {
    /// This pass will come by.
    Wait { pass: u64 },
    /// This pass has not begun; it begins here instead.
    Lower { pass: u64, start: i64 },
    /// Nobody comes by.
    Start { start: i64, limit: Option<i64> },
}

impl Log {
    /// Bytes of an offset, from what was read; `None` before anything was.
    fn bytes_per_offset(&self) -> Option<u64> {
        self.bytes_read
            .checked_div(self.offsets_read)
            .map(|bytes| bytes.max(1))
    }

    fn is_near(&self, low: i64, high: i64, nearby_bytes: u64) -> bool {
        let distance = u64::try_from(high - low).unwrap_or(0);
        // Before anything is known of the log's records, neighbours count as near: the first chunk corrects it.
        self.bytes_per_offset()
            .is_none_or(|bytes| distance.saturating_mul(bytes) <= nearby_bytes)
    }

    fn containing(&self, offset: i64) -> Option<&Chunk> {
        self.chunks
            .range(..=offset)
            .next_back()
            .map(|(_, chunk)| chunk)
            .filter(|chunk| offset < chunk.next)
    }

    /// What to do about an offset that no chunk contains.
    pub(super) fn plan(&self, from: i64, nearby_bytes: u64) -> Plan {
        let comes_by = |pass: &&PassView| {
            pass.position <= from
                && pass.limit.is_none_or(|limit| from < limit)
                // A pass that was begun with room below is still on its way; and what is known of sizes changes.
                && self.is_near(pass.position, from, nearby_bytes.saturating_mul(2))
        };
        if let Some(pass) = self
            .passes
            .iter()
            .filter(comes_by)
            .max_by_key(|pass| pass.position)
        {
            return Plan::Wait { pass: pass.id };
        }
        let above = |position: i64| position > from && self.is_near(from, position, nearby_bytes);
        let unknown = self.bytes_per_offset().is_none();
        if let Some(pass) = self
            .passes
            .iter()
            .filter(|pass| above(pass.position))
            .min_by_key(|pass| pass.position)
        {
            if pass.gathering {
                return Plan::Lower {
                    pass: pass.id,
                    start: from,
                };
            }
            if unknown {
                // It tells soon how big records are here; then this is asked again.
                return Plan::Wait { pass: pass.id };
            }
        }
        let chunk_above = self.chunks.range(from..).next().map(|(start, _)| *start);
        let pass_above = self
            .passes
            .iter()
            .map(|pass| pass.position)
            .filter(|position| *position > from)
            .min();
        let limit = chunk_above.into_iter().chain(pass_above).min();
        let start = match limit {
            // Somebody was here a little further on: others will come from here, too, so begin with some room below.
            Some(limit) if self.is_near(from, limit, nearby_bytes) => {
                let room = nearby_bytes.saturating_mul(3) / 2 / self.bytes_per_offset().unwrap_or(1);
                let lower = from.saturating_sub(i64::try_from(room).unwrap_or(i64::MAX));
                let read_below = self.chunks.range(..from).next_back().map(|(_, chunk)| chunk.next);
                let passed_below = self
                    .passes
                    .iter()
                    .map(|pass| pass.limit.unwrap_or(pass.position))
                    .filter(|at| *at <= from);
                let floor = read_below.into_iter().chain(passed_below).max().unwrap_or(0);
                lower.max(floor).max(self.log_start).min(from)
            }
            _ => from,
        };
        Plan::Start { start, limit }
    }

    /// Where others have read on from here, if they have.
    pub(super) fn is_covered(&self, offset: i64) -> bool {
        self.containing(offset).is_some()
    }
}

/// All partitions' chunks, under one bound.
#[derive(Debug)]
pub(super) struct Pages<K> {
    logs: HashMap<K, Log>,
    order: BTreeMap<u64, (K, i64)>,
    clock: u64,
    bytes: usize,
    bytes_max: usize,
}

impl<K: Clone + Eq + std::hash::Hash> Pages<K> {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            logs: HashMap::new(),
            order: BTreeMap::new(),
            clock: 0,
            bytes: 0,
            bytes_max,
        }
    }

    pub(super) fn log(&mut self, key: &K) -> &mut Log {
        self.logs.entry(key.clone()).or_default()
    }

    pub(super) fn peek(&self, key: &K) -> Option<&Log> {
        self.logs.get(key)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.logs.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The chunk that contains an offset; it counts as used.
    pub(super) fn find(&mut self, key: &K, offset: i64) -> Option<&Chunk> {
        let log = self.logs.get_mut(key)?;
        let start = log.containing(offset)?.from;
        let chunk = log.chunks.get_mut(&start)?;
        self.clock += 1;
        self.order.remove(&chunk.used);
        chunk.used = self.clock;
        self.order.insert(self.clock, (key.clone(), start));
        Some(chunk)
    }

    /// Adds what was read. The part that others have read already is left out.
    pub(super) fn add(&mut self, key: &K, mut chunk: Chunk) {
        let log = self.logs.entry(key.clone()).or_default();
        log.offsets_read += u64::try_from(chunk.next - chunk.from).unwrap_or(0);
        log.bytes_read += chunk.scanned_bytes;
        if let Some(next) = log.containing(chunk.from).map(|before| before.next) {
            chunk = cut(&chunk, next, chunk.next);
        }
        if let Some(above) = log.chunks.range(chunk.from..).next().map(|(start, _)| *start)
            && above < chunk.next
        {
            chunk = cut(&chunk, chunk.from, above);
        }
        if chunk.from >= chunk.next {
            return;
        }
        self.clock += 1;
        chunk.used = self.clock;
        self.order.insert(self.clock, (key.clone(), chunk.from));
        self.bytes += chunk.cost();
        log.chunks.insert(chunk.from, chunk);
        let newest = self.clock;
        while self.bytes > self.bytes_max {
            let Some((used, (key, from))) = self.order.pop_first() else {
                break;
            };
            if used == newest {
                // The newest stays, or nobody would ever get it.
                self.order.insert(used, (key, from));
                break;
            }
            if let Some(gone) = self.logs.get_mut(&key).and_then(|log| log.chunks.remove(&from)) {
                self.bytes -= gone.cost();
                self.tidy(&key);
            }
        }
    }

    /// Forgets a pass of a partition, and the partition if nothing else is known of it.
    pub(super) fn end_pass(&mut self, key: &K, id: u64) {
        if let Some(log) = self.logs.get_mut(key) {
            log.passes.retain(|view| view.id != id);
        }
        self.tidy(key);
    }

    /// Forgets a partition of which nothing was read that is still here, and nobody reads.
    pub(super) fn tidy(&mut self, key: &K) {
        if self
            .logs
            .get(key)
            .is_some_and(|log| log.chunks.is_empty() && log.passes.is_empty())
        {
            self.logs.remove(key);
        }
    }

    /// Forgets a partition.
    pub(super) fn forget(&mut self, key: &K) {
        let Some(log) = self.logs.remove(key) else { return };
        for chunk in log.chunks.values() {
            self.order.remove(&chunk.used);
            self.bytes -= chunk.cost();
        }
    }
}

fn cut(chunk: &Chunk, from: i64, until: i64) -> Chunk {
    let (events, next, scanned_bytes) = chunk.part(from, until);
    Chunk {
        from: from.max(chunk.from),
        next,
        events,
        scanned_bytes,
        used: 0,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RECORD: u64 = 100;

    fn chunk(from: i64, next: i64) -> Chunk {
        Chunk::new(
            from,
            next,
            Vec::new(),
            RECORD * u64::try_from(next - from).expect("positive"),
        )
    }

    fn pages() -> Pages<u8> {
        Pages::new(1 << 20)
    }

    #[test]
    fn the_first_reader_starts_a_pass_where_it_stands() {
        assert_eq!(
            pages().log(&0).plan(70, 1000),
            Plan::Start {
                start: 70,
                limit: None
            }
        );
    }

    #[test]
    fn a_reader_below_a_pass_that_gathers_lowers_it() {
        let mut pages = pages();
        pages.log(&0).passes.push(PassView {
            id: 1,
            position: 70,
            gathering: true,
            limit: None,
        });
        assert_eq!(pages.log(&0).plan(60, 1000), Plan::Lower { pass: 1, start: 60 });
        assert_eq!(pages.log(&0).plan(75, 1000), Plan::Wait { pass: 1 });
    }

    #[test]
    fn a_reader_below_what_was_read_starts_with_room_below_and_ends_there() {
        let mut pages = pages();
        pages.add(&0, chunk(70, 90));
        assert_eq!(
            pages.log(&0).plan(65, 1000),
            Plan::Start {
                start: 50,
                limit: Some(70)
            }
        );
        pages.log(&0).log_start = 60;
        assert_eq!(
            pages.log(&0).plan(65, 1000),
            Plan::Start {
                start: 60,
                limit: Some(70)
            }
        );
        assert_eq!(
            pages.log(&0).plan(40, 1000),
            Plan::Start {
                start: 40,
                limit: Some(70)
            },
            "far below"
        );
    }

    #[test]
    fn a_reader_far_ahead_of_a_pass_does_not_wait_for_it() {
        let mut pages = pages();
        pages.add(&0, chunk(0, 10));
        pages.log(&0).passes.push(PassView {
            id: 1,
            position: 10,
            gathering: false,
            limit: None,
        });
        assert_eq!(pages.log(&0).plan(15, 1000), Plan::Wait { pass: 1 });
        assert_eq!(
            pages.log(&0).plan(1000, 1000),
            Plan::Start {
                start: 1000,
                limit: None
            }
        );
    }

    #[test]
    fn what_others_have_read_is_not_kept_twice() {
        let mut pages = pages();
        pages.add(&0, chunk(0, 10));
        pages.add(&0, chunk(20, 30));
        pages.add(&0, chunk(5, 25));
        let mut at = 0;
        for (from, next) in [(0, 10), (10, 20), (20, 30)] {
            let chunk = pages.find(&0, at).expect("covered");
            assert_eq!((chunk.from, chunk.next), (from, next));
            at = next;
        }
        assert!(pages.find(&0, 30).is_none());
        pages.forget(&0);
        assert_eq!(pages.bytes(), 0);
    }

    #[test]
    fn the_longest_unused_goes_first() {
        let mut pages = Pages::new(512 * 2);
        pages.add(&0, chunk(0, 10));
        pages.add(&0, chunk(10, 20));
        assert!(pages.find(&0, 0).is_some());
        pages.add(&0, chunk(20, 30));
        assert!(pages.find(&0, 10).is_none());
        assert!(pages.find(&0, 0).is_some());
        assert!(pages.find(&0, 20).is_some());
    }

    proptest! {
        /// Readers arrive in any order at positions within the nearby distance; each reads to the end. Passes advance
        /// between arrivals as fast as they like.
        #[test]
        fn nearby_readers_cost_at_most_three_passes(
            positions in proptest::collection::vec(0_i64..1000, 1..200),
            steps in proptest::collection::vec(0_usize..4, 200),
            gather in 0_usize..5,
        ) {
            let nearby = 1000 * RECORD;
            let base = 5000;
            let end = base + 1500;
            let mut pages: Pages<u8> = Pages::new(usize::MAX);
            let mut count = 0;
            let mut arrived = 0;
            let mut waiting: Vec<i64> = Vec::new();
            for (position, steps) in positions.iter().zip(steps) {
                waiting.push(base + position);
                arrived += 1;
                for _ in 0..steps {
                    // Every reader that waits looks again, then each pass reads a chunk.
                    for reader in &mut waiting {
                        while let Some(chunk) = pages.find(&0, *reader) {
                            *reader = chunk.next;
                        }
                        if *reader >= end {
                            continue;
                        }
                        let log = pages.log(&0);
                        match log.plan(*reader, nearby) {
                            Plan::Wait { .. } => {}
                            Plan::Lower { pass, start } => {
                                for view in log.passes.iter_mut().filter(|view| view.id == pass) {
                                    view.position = start;
                                }
                            }
                            Plan::Start { start, limit } => {
                                count += 1;
                                log.passes.push(PassView { id: count, position: start, gathering: true, limit });
                            }
                        }
                    }
                    let passes = pages.log(&0).passes.clone();
                    for pass in passes {
                        if arrived <= gather {
                            continue;
                        }
                        let log = pages.log(&0);
                        let next = (pass.position + 50).min(end).min(pass.limit.unwrap_or(end));
                        let done = next == end || pass.limit == Some(next) || log.is_covered(next);
                        log.passes.retain(|view| view.id != pass.id);
                        if !done {
                            log.passes.push(PassView { position: next, gathering: false, ..pass });
                        }
                        if next > pass.position {
                            pages.add(&0, chunk(pass.position, next));
                        }
                    }
                }
            }
            prop_assert!(count <= 3, "{} passes", count);
        }
    }
}

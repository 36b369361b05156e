//! One partition on the live path: what was gathered of it, and whether that may be handed over yet.
//!
//! Invariant: what came after a silence waits until a witness has said that the topic is still what it was.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use schemas::event::Event;
use tokio::time::Instant;

use super::orders::{Place, Route, Standing};
use super::witness;

/// What a partition may gather while it waits for a witness; beyond it is paused.
const HELD_BYTES_MAX: usize = 4 << 20;

/// Doubts that are kept apart while they wait; what comes then shares the last one.
const MARKS_MAX: usize = 64;

/// All of them, by topic and partition.
pub(super) type Readings = HashMap<Arc<str>, Vec<Option<Reading>>>;

/// One partition as the live thread reads it.
pub(super) struct Reading {
    pub(super) place: Place,
    pub(super) routes: Vec<Route>,
    pub(super) pending: Vec<Vec<Event>>,
    /// The next offset; `None` until it is resolved.
    pub(super) next: Option<i64>,
    /// What the streams were told.
    pub(super) told: i64,
    pub(super) touched: bool,
    pub(super) paused: bool,
    pub(super) standing: Arc<Standing>,
    /// When something came last.
    pub(super) heard_at: Option<Instant>,
    /// Where doubts begin in what was gathered, oldest first. What is before the first may be handed over.
    marks: VecDeque<Mark>,
    /// Bytes that were gathered and not handed over.
    gathered_bytes: usize,
    /// It gathered too much while it waits for a witness.
    pub(super) held: bool,
}

/// What was gathered from here on waits for the witness with this ticket.
struct Mark {
    ticket: u64,
    heard_at: Instant,
    /// What was gathered before: up to this offset, so many events for each route, so many bytes.
    next: i64,
    events: Vec<usize>,
    bytes: usize,
}

/// What may be handed over: the events for each route, and where they end.
pub(super) struct Free {
    pub(super) events: Vec<Vec<Event>>,
    pub(super) next: i64,
}

impl Reading {
    /// One that was just announced.
    pub(super) fn new(place: &Place, routes: Vec<Route>, next: Option<i64>, standing: Arc<Standing>) -> Self {
        Self {
            place: place.clone(),
            pending: routes.iter().map(|_| Vec::new()).collect(),
            routes,
            next,
            told: next.unwrap_or(0),
            touched: false,
            paused: false,
            standing,
            heard_at: None,
            marks: VecDeque::new(),
            gathered_bytes: 0,
            held: false,
        }
    }

    /// It begins, or goes on after a loss, at this offset. What waited comes again or is lost.
    pub(super) fn go_on(&mut self, next: i64) {
        self.next = Some(next);
        self.told = next;
        self.drop_gathered();
        self.heard_at = None;
        self.standing.position.store(next, Ordering::Relaxed);
        self.standing.resolved.store(true, Ordering::Relaxed);
    }

    /// Nobody needs it: what waits is dropped, and what still comes is not taken.
    pub(super) fn rest(&mut self) {
        self.next = None;
        self.drop_gathered();
        (self.held, self.paused) = (false, false);
        self.standing.resolved.store(false, Ordering::Relaxed);
    }

    /// Whether it gathers too much while it waits for a witness, and should be paused.
    pub(super) fn is_over(&self) -> bool {
        !self.marks.is_empty() && self.gathered_bytes > HELD_BYTES_MAX
    }

    /// Whether something that was gathered waits for a witness.
    pub(super) fn is_in_doubt(&self) -> bool {
        !self.marks.is_empty()
    }

    /// Something comes: after a silence its topic's life is in doubt. True: the witness is to be asked with this ticket.
    pub(super) fn hear(&mut self, now: Instant, ticket: u64) -> bool {
        let silent = self
            .heard_at
            .is_none_or(|at| now.saturating_duration_since(at) > witness::GAP);
        self.heard_at = Some(now);
        let Some(next) = self.next.filter(|_| silent) else {
            return false;
        };
        let full = self.marks.len() >= MARKS_MAX;
        match self.marks.back_mut().filter(|_| full) {
            Some(last) => (last.ticket, last.heard_at) = (ticket, now),
            None => self.marks.push_back(Mark {
                ticket,
                heard_at: now,
                next,
                events: self.pending.iter().map(Vec::len).collect(),
                bytes: self.gathered_bytes,
            }),
        }
        true
    }

    /// Gathered up to here, so many bytes more.
    pub(super) fn gather(&mut self, next: i64, bytes: usize) {
        self.next = Some(next);
        self.gathered_bytes += bytes;
    }

    /// The topic was what it was when this was asked: doubts up to this ticket are over, and so are those of records that
    /// came within the gap after the question.
    pub(super) fn witnessed(&mut self, ticket: u64, asked_at: Instant) {
        while self
            .marks
            .front()
            .is_some_and(|mark| mark.ticket <= ticket || mark.heard_at <= asked_at + witness::GAP)
        {
            self.marks.pop_front();
        }
        self.heard_at = self.heard_at.max(Some(asked_at));
    }

    /// Takes what may be handed over, if that is anything.
    pub(super) fn take(&mut self) -> Option<Free> {
        let (next, bytes, counts) = match self.marks.front() {
            None => (self.next?, self.gathered_bytes, None),
            Some(mark) => (mark.next, mark.bytes, Some(mark.events.clone())),
        };
        if next <= self.told {
            return None;
        }
        self.gathered_bytes -= bytes;
        let events: Vec<Vec<Event>> = match counts {
            None => self.pending.iter_mut().map(std::mem::take).collect(),
            Some(counts) => {
                let parts = self.pending.iter_mut().zip(counts);
                parts
                    .map(|(pending, count)| pending.drain(..count).collect())
                    .collect()
            }
        };
        for mark in &mut self.marks {
            mark.bytes -= bytes;
            for (before, taken) in mark.events.iter_mut().zip(&events) {
                *before -= taken.len();
            }
        }
        self.told = next;
        self.standing.position.store(next, Ordering::Relaxed);
        Some(Free { events, next })
    }

    fn drop_gathered(&mut self) {
        self.pending.iter_mut().for_each(Vec::clear);
        self.marks.clear();
        self.gathered_bytes = 0;
    }
}

/// The reading of a partition.
pub(super) fn find<'a>(readings: &'a mut Readings, topic: &str, partition: i32) -> Option<&'a mut Reading> {
    readings
        .get_mut(topic)?
        .get_mut(usize::try_from(partition).ok()?)?
        .as_mut()
}

/// Notes that there is something to hand over.
pub(super) fn touch(reading: &mut Reading, touched: &mut Vec<(Arc<str>, i32)>) {
    if !reading.touched {
        reading.touched = true;
        touched.push((Arc::clone(&reading.place.topic), reading.place.partition));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicI64};
    use std::time::Duration;

    use schemas::ids::{Incarnation, Slot};

    use super::*;

    fn reading() -> Reading {
        let place = Place {
            topic: Arc::from("a"),
            incarnation: Incarnation(1),
            partition: 0,
        };
        let standing = Arc::new(Standing {
            place: place.clone(),
            position: AtomicI64::new(0),
            resolved: AtomicBool::new(false),
        });
        let route = Route {
            stream: 0,
            slot: Slot(0),
            tenant: None,
        };
        Reading::new(&place, vec![route], Some(5), standing)
    }

    fn taken(reading: &mut Reading) -> Option<i64> {
        reading.take().map(|free| free.next)
    }

    const LONG: Duration = Duration::from_secs(1);

    #[test]
    fn what_comes_after_a_silence_waits_and_what_follows_it_waits_with_it() {
        let (mut reading, start) = (reading(), Instant::now());
        assert!(reading.hear(start, 1));
        reading.gather(6, 10);
        assert!(!reading.hear(start + witness::GAP, 2));
        reading.gather(7, 10);
        assert_eq!(taken(&mut reading), None);
        reading.witnessed(1, start);
        assert_eq!(taken(&mut reading), Some(7));
        assert_eq!(taken(&mut reading), None);
        assert_eq!(reading.gathered_bytes, 0);
    }

    #[test]
    fn an_answer_lets_go_what_it_was_asked_for_though_more_came_meanwhile() {
        let (mut reading, start) = (reading(), Instant::now());
        for (number, next) in (0..5).zip(6..) {
            assert!(reading.hear(start + LONG * number, u64::from(number) + 1));
            reading.gather(next, 10);
        }
        reading.witnessed(2, start + LONG);
        assert_eq!(taken(&mut reading), Some(7));
        assert_eq!(reading.gathered_bytes, 30);
        reading.witnessed(5, start + LONG * 5);
        assert_eq!(taken(&mut reading), Some(10));
    }

    #[test]
    fn a_fresh_answer_spares_the_question() {
        let (mut reading, start) = (reading(), Instant::now());
        reading.witnessed(0, start + LONG);
        assert!(!reading.hear(start + LONG + witness::GAP, 1));
        assert!(reading.hear(start + LONG * 2, 1));
        reading.witnessed(0, start + LONG * 2 - witness::GAP);
        assert!(!reading.is_in_doubt());
    }

    #[test]
    fn doubts_are_bounded_and_none_is_forgotten() {
        let (mut reading, start) = (reading(), Instant::now());
        let mut last = 0;
        for number in 0..1000 {
            last += 1;
            assert!(reading.hear(start + LONG * number, last));
            reading.gather(6 + i64::from(number), 1);
        }
        assert!(reading.marks.len() <= MARKS_MAX);
        reading.witnessed(last - 1, start);
        assert!(reading.is_in_doubt());
        reading.witnessed(last, start);
        assert_eq!(taken(&mut reading), Some(1005));
    }

    #[test]
    fn what_waited_for_a_witness_is_gone_when_the_partition_goes_on_elsewhere() {
        let (mut reading, start) = (reading(), Instant::now());
        assert!(reading.hear(start, 1));
        reading.gather(9, 10);
        reading.go_on(7);
        assert_eq!((taken(&mut reading), reading.gathered_bytes), (None, 0));
        assert!(reading.hear(start, 2), "and what comes there is in doubt again");
    }
}

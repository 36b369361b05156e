//! One partition on the live path: what was gathered of it, and whether that may be handed over yet.
//!
//! Invariant: what came after a silence waits until a witness has said that the topic is still what it was.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;

use schemas::event::Event;
use tokio::time::Instant;

use super::orders::{Place, Route, Standing};
use super::witness::{self, Question};

/// What a partition may gather while it waits for a witness; beyond it is paused.
const HELD_BYTES_MAX: usize = 4 << 20;

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
    /// What was gathered waits for the witness with this ticket.
    pub(super) ticket: Option<u64>,
    /// Bytes that were gathered since they were handed over.
    pub(super) gathered_bytes: usize,
    /// It gathered too much while it waits for a witness.
    pub(super) held: bool,
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
            ticket: None,
            gathered_bytes: 0,
            held: false,
        }
    }

    /// It begins, or goes on after a loss, at this offset.
    pub(super) fn go_on(&mut self, next: i64) {
        self.next = Some(next);
        self.told = next;
        self.standing.position.store(next, Ordering::Relaxed);
        self.standing.resolved.store(true, Ordering::Relaxed);
    }

    /// Whether it gathers too much while it waits for a witness, and should be paused.
    pub(super) fn is_over(&self) -> bool {
        self.ticket.is_some() && self.gathered_bytes > HELD_BYTES_MAX
    }

    /// Something came: after a silence its topic's life is in doubt.
    pub(super) fn hear(&mut self, now: Instant, ticket: &mut u64, questions: &SyncSender<Question>) {
        let silent = self
            .heard_at
            .is_none_or(|at| now.duration_since(at) > witness::GAP);
        self.heard_at = Some(now);
        if silent && self.next.is_some() {
            *ticket += 1;
            let question = Question {
                ticket: *ticket,
                topic: Arc::clone(&self.place.topic),
            };
            match questions.try_send(question) {
                Ok(()) => self.ticket = Some(*ticket),
                // Thousands of partitions woke at once: the next record asks.
                Err(_) => self.heard_at = None,
            }
        }
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

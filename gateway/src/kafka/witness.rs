//! Witnesses that a topic is still what it was when records come after a silence.
//!
//! librdkafka goes on at the old offset of a topic that was deleted and made again. Nothing in its fetches tells the two
//! lives apart, but a fetch that meets a deleted topic backs off first: so records that follow one another without a gap
//! are of one life, and so are records that follow a description of their topic without a gap. After a gap the topic's id
//! is asked for, once the records are there. One question is under way at a time, for all topics that wait and for those
//! that waited lately: its answer spares them the next.
//!
//! Invariant: a question stays open until it is answered or its topic is taken away, however long Kafka is gone.

use std::collections::BTreeMap;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use schemas::ids::Incarnation;
use tokio::time::Instant;

use super::lookup::Client;
use super::orders::Command;
use super::raw::{Described, Waker};
use super::topology::incarnation;

/// Records that follow one another within this time are of one life: half of `fetch.error.backoff.ms`.
pub(super) const GAP: Duration = Duration::from_millis(50);
/// Questions are so far apart at least: at most 200 a second, whatever the traffic.
const PACE: Duration = Duration::from_millis(5);
/// How soon a question without an answer is asked again.
const AGAIN: Duration = Duration::from_millis(100);
/// A topic that was asked about within this time is asked about with the others, up to so many.
const LATELY: Duration = Duration::from_secs(1);
const LATELY_MAX: usize = 256;
/// How long a broker may take: a dead one must not hold what is quiet, and a slow one must be heard in the end.
const TIMEOUT: Duration = Duration::from_millis(500);
const TIMEOUT_MAX: Duration = Duration::from_secs(4);

/// What is to be asked, by topic. The live thread asks, the witness answers.
#[derive(Debug, Default)]
pub(super) struct Questions {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The newest ticket of each topic.
    open: BTreeMap<Arc<str>, u64>,
    /// There are tickets that were not asked for yet.
    fresh: bool,
    closed: bool,
}

/// What was seen of a topic, asked after the records of all tickets up to this one had come.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) ticket: u64,
    pub(super) topic: Arc<str>,
    pub(super) incarnation: Incarnation,
    pub(super) asked_at: Instant,
}

impl Questions {
    /// Is this topic what it was, after these records came? Tickets grow.
    pub(super) fn ask(&self, topic: &Arc<str>, ticket: u64) {
        let mut state = self.lock();
        state.open.insert(Arc::clone(topic), ticket);
        state.fresh = true;
        drop(state);
        self.changed.notify_one();
    }

    /// The same again, though not at once.
    pub(super) fn ask_later(&self, topic: &Arc<str>, ticket: u64) {
        let mut state = self.lock();
        let newest = state.open.entry(Arc::clone(topic)).or_insert(ticket);
        *newest = ticket.max(*newest);
        drop(state);
        self.changed.notify_one();
    }

    /// Nobody reads the topic any more.
    pub(super) fn forget(&self, topic: &str) {
        self.lock().open.remove(topic);
    }

    /// Nobody will ask again.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }

    /// Waits until there is something to ask. `None`: it is over.
    fn next(&self) -> Option<BTreeMap<Arc<str>, u64>> {
        let again_at = Instant::now() + AGAIN;
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            let wait = again_at.saturating_duration_since(Instant::now());
            if state.fresh || (wait.is_zero() && !state.open.is_empty()) {
                state.fresh = false;
                return Some(state.open.clone());
            }
            state = if state.open.is_empty() {
                self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
            } else {
                let waited = self.changed.wait_timeout(state, wait);
                waited.unwrap_or_else(PoisonError::into_inner).0
            };
        }
    }

    /// A question was answered up to this ticket.
    fn answered(&self, topic: &str, ticket: u64) {
        let mut state = self.lock();
        if state.open.get(topic).is_some_and(|newest| *newest <= ticket) {
            state.open.remove(topic);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Answers until the questions are closed. A topic that is missing at the moment gets no answer: a broker may not know it
/// yet, and nothing may be dropped for that.
pub(super) fn run(client: &Client, questions: &Questions, commands: &SyncSender<Command>, waker: &Waker) {
    let mut lately: BTreeMap<Arc<str>, Instant> = BTreeMap::new();
    let mut asked_at: Option<Instant> = None;
    let mut timeout = TIMEOUT;
    while let Some(mut open) = questions.next() {
        if let Some(rest) = asked_at.and_then(|at| PACE.checked_sub(at.elapsed())) {
            // Nothing else is to be done here, and nothing that comes could not wait so long.
            std::thread::park_timeout(rest);
            open.extend(questions.lock().open.clone());
        }
        let now = Instant::now();
        asked_at = Some(now);
        lately.retain(|_, at| now.duration_since(*at) < LATELY);
        let mut topics: Vec<Arc<str>> = open.keys().cloned().collect();
        let others = lately.keys().filter(|topic| !open.contains_key(*topic));
        topics.extend(others.take(LATELY_MAX.saturating_sub(open.len())).cloned());
        lately.extend(open.keys().map(|topic| (Arc::clone(topic), now)));
        // An unreachable Kafka is asked again: the records wait as long as it takes.
        let Ok(described) = client.describe(&topics, timeout) else {
            timeout = (timeout * 2).min(TIMEOUT_MAX);
            continue;
        };
        timeout = TIMEOUT;
        let mut answers = Vec::new();
        for (topic, state) in described {
            if let Described::Topic { id, .. } = state {
                let ticket = open.get(&topic).copied().unwrap_or(0);
                questions.answered(&topic, ticket);
                answers.push(Answer {
                    ticket,
                    incarnation: incarnation(&topic, id),
                    topic,
                    asked_at: now,
                });
            }
        }
        if answers.is_empty() {
            continue;
        }
        if commands.send(Command::Witnessed(answers)).is_err() {
            return;
        }
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(name: &str) -> Arc<str> {
        Arc::from(name)
    }

    #[test]
    fn a_question_stays_open_until_its_newest_ticket_is_answered() {
        let questions = Questions::default();
        questions.ask(&topic("a"), 1);
        assert_eq!(questions.next(), Some(BTreeMap::from([(topic("a"), 1)])));
        questions.ask(&topic("a"), 2);
        questions.answered("a", 1);
        assert_eq!(questions.next(), Some(BTreeMap::from([(topic("a"), 2)])));
        // Not answered at all: it comes again by itself.
        assert_eq!(questions.next(), Some(BTreeMap::from([(topic("a"), 2)])));
        questions.answered("a", 2);
        questions.ask(&topic("b"), 3);
        assert_eq!(questions.next(), Some(BTreeMap::from([(topic("b"), 3)])));
    }

    #[test]
    fn what_nobody_reads_is_not_asked_for() {
        let questions = Questions::default();
        questions.ask(&topic("a"), 1);
        questions.ask(&topic("b"), 2);
        questions.forget("a");
        assert_eq!(questions.next(), Some(BTreeMap::from([(topic("b"), 2)])));
        questions.close();
        assert_eq!(questions.next(), None);
    }
}

//! Witnesses that a topic is still what it was when records come after a silence.
//!
//! librdkafka goes on at the old offset of a topic that was deleted and made again. Nothing in its fetches tells the two
//! lives apart, but a fetch that meets a deleted topic backs off first: so records that follow one another without a gap
//! are of one life, and after a gap the topic's id is asked for, once the records are there. One question is under way at
//! a time, for all topics that wait.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
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
/// How soon a question without an answer is asked again, and for how long of a topic that is missing (it was removed by
/// then).
const AGAIN: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(60);
const TIMEOUT: Duration = Duration::from_secs(2);

/// A question: is this topic what it was, after these records came? Tickets grow.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) ticket: u64,
    pub(super) topic: Arc<str>,
}

/// An answer to all questions about a topic up to this ticket.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) ticket: u64,
    pub(super) topic: Arc<str>,
    pub(super) incarnation: Incarnation,
}

/// Answers until the questions' other side is dropped. A topic that is missing at the moment gets no answer: a broker may
/// not know it yet, and nothing may be dropped for that.
pub(super) fn run(
    client: &Client,
    questions: &Receiver<Question>,
    commands: &SyncSender<Command>,
    waker: &Waker,
) {
    let mut open: BTreeMap<Arc<str>, (u64, Instant)> = BTreeMap::new();
    let mut asked_at: Option<Instant> = None;
    loop {
        let next = if open.is_empty() {
            questions.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            questions.recv_timeout(AGAIN)
        };
        let mut next = match next {
            Ok(question) => Some(question),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        if let Some(rest) = asked_at.and_then(|at| PACE.checked_sub(at.elapsed())) {
            // Nothing else is to be done here, and nothing that comes could not wait so long.
            std::thread::park_timeout(rest);
        }
        while let Some(question) = next {
            open.insert(question.topic, (question.ticket, Instant::now()));
            next = questions.try_recv().ok();
        }
        asked_at = Some(Instant::now());
        let topics: Vec<Arc<str>> = open.keys().cloned().collect();
        // An unreachable Kafka is asked again: the records wait as long as it takes.
        let described = client.describe(&topics, TIMEOUT).unwrap_or_default();
        let mut answers = Vec::new();
        for (topic, state) in described {
            if state == Described::Missing
                && open
                    .get(&topic)
                    .is_some_and(|(_, since)| since.elapsed() > PATIENCE)
            {
                open.remove(&topic);
            } else if let Described::Topic { id, .. } = state
                && let Some((ticket, _)) = open.remove(&topic)
            {
                answers.push(Answer {
                    ticket,
                    incarnation: incarnation(&topic, id),
                    topic,
                });
            }
        }
        if commands.send(Command::Witnessed(answers)).is_err() {
            return;
        }
        waker.wake();
    }
}

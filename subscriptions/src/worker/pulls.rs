//! One page for one request: a lane that is read once.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use schemas::problem::Code;
use serde_json::Value;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use super::Worker;
use super::state::State;
use crate::connection::Place;
use crate::group::Share;
use crate::hub::{After, Failure, Pull, PullPage, Reading};
use crate::lane::Owner;
use crate::protocol::{Frame, Kind};
use crate::view::View;

/// How long a request that does not want to wait for new events waits for old ones. What came by then is answered; the
/// rest is behind the next link.
const PATIENCE: Duration = Duration::from_secs(10);

impl Worker {
    /// Answers one request.
    pub(crate) async fn pull(
        self: Rc<Self>,
        pull: Pull,
        mut reply: oneshot::Sender<Result<PullPage, Failure>>,
    ) {
        let Pull {
            mut reading,
            limit,
            wait,
        } = pull;
        let waiting = Rc::new(Notify::new());
        let mut changes = self.state.borrow().services.authenticator.control().changes();
        let needed = self.ready(reading.stream.name.as_str(), &reading.principal).await;
        changes.mark_unchanged();
        let begun = self.state.borrow_mut().begin_pull(&mut reading, &waiting);
        drop(needed);
        let (stream, mut lane) = match begun {
            Ok(begun) => begun,
            Err(failure) => {
                let _dropped = reply.send(Err(failure));
                return;
            }
        };
        let now = Instant::now();
        let now_ms = self.state.borrow().services.clock.now_ms();
        let granted = reading.principal.expires_at_ms.saturating_sub(now_ms);
        let granted = now + Duration::from_millis(u64::try_from(granted).unwrap_or(0));
        let for_old = (now + wait.max(PATIENCE)).min(granted);
        let for_new = (now + wait).min(granted);
        self.run_lane(stream, lane);
        let answer = loop {
            if let Err(failure) = self.judge_pull(&mut changes, &mut reading, stream, &mut lane, &waiting) {
                break Err(failure);
            }
            let ready = self
                .state
                .borrow_mut()
                .pull_ready(stream, lane, limit, for_new <= Instant::now());
            let until = match ready {
                Ready::Yes => break self.state.borrow_mut().answer_pull(stream, lane, limit),
                Ready::CaughtUp => for_new,
                Ready::No => for_old,
            };
            tokio::select! {
                () = waiting.notified() => {}
                // The sender lives as long as the state.
                _ = changes.changed() => changes.mark_changed(),
                () = sleep_until(until) => {
                    let judged = self.judge_pull(&mut changes, &mut reading, stream, &mut lane, &waiting);
                    break judged.and_then(|()| self.state.borrow_mut().answer_pull(stream, lane, limit));
                }
                () = reply.closed() => {
                    self.state.borrow_mut().detach(stream, Place::Lane(lane));
                    return;
                }
            }
        };
        self.state.borrow_mut().detach(stream, Place::Lane(lane));
        let _dropped = reply.send(answer);
    }

    /// Judges who waits for a page, if more is known than when they were judged last. What was read for them under another
    /// grant is read again.
    fn judge_pull(
        &self,
        changes: &mut watch::Receiver<u64>,
        reading: &mut Reading,
        stream: usize,
        lane: &mut usize,
        waiting: &Rc<Notify>,
    ) -> Result<(), Failure> {
        if !changes.has_changed().unwrap_or(false) {
            return Ok(());
        }
        changes.mark_unchanged();
        let mut state = self.state.borrow_mut();
        reading.principal = state.admit(&reading.principal)?;
        let share = Share {
            selection: state.select(stream, &reading.principal, &reading.filter)?,
            view: View::CloudEvents,
        };
        let owner = Owner::Pull(Rc::clone(waiting));
        let is_other = state.shards[stream]
            .lanes
            .get(*lane)
            .is_some_and(|lane| lane.share != share);
        if is_other && let Some(new) = state.relane(stream, Place::Lane(*lane), owner, share) {
            *lane = new;
            state.run_lane(stream, new);
        }
        Ok(())
    }
}

/// Whether a request can be answered.
enum Ready {
    /// There is something, or nothing will come without waiting longer than the request does.
    Yes,
    /// It has everything that there is, which is nothing.
    CaughtUp,
    /// Older events are being read.
    No,
}

impl State {
    fn begin_pull(&mut self, reading: &mut Reading, waiting: &Rc<Notify>) -> Result<(usize, usize), Failure> {
        let stream = self.stream(reading.stream.name.as_str())?;
        reading.principal = self.admit(&reading.principal)?;
        let share = Share {
            selection: self.select(stream, &reading.principal, &reading.filter)?,
            view: View::CloudEvents,
        };
        let after = (reading.after != After::Latest).then_some(&reading.after);
        Ok((
            stream,
            self.begin_lane(stream, Owner::Pull(Rc::clone(waiting)), share, after),
        ))
    }

    fn pull_ready(&mut self, stream: usize, place: usize, limit: usize, patience_is_over: bool) -> Ready {
        let queue_bytes_max = self.config.lane_bytes_max;
        let ready = self.shards[stream].with_lane(place, queue_bytes_max, |lane, around| {
            let something = lane.queue.iter().any(|frame| !matches!(frame.kind, Kind::Live));
            match (lane.is_settled(limit, around), something) {
                (true, true) => Ready::Yes,
                (true, false) if lane.failed.is_some() || patience_is_over => Ready::Yes,
                (true, false) => Ready::CaughtUp,
                (false, _) => Ready::No,
            }
        });
        ready.unwrap_or(Ready::Yes)
    }

    fn answer_pull(&mut self, stream: usize, place: usize, limit: usize) -> Result<PullPage, Failure> {
        let gone = || Failure::new(Code::INTERNAL, "");
        let failed = self.shards[stream]
            .lanes
            .get(place)
            .ok_or_else(gone)?
            .failed
            .clone();
        // A replay that reached its limit has an advanced cursor: the next request goes on from there.
        let limited = failed
            .as_ref()
            .is_some_and(|failure| failure.code == Code::REPLAY_LIMITED);
        if let Some(failure) = failed.filter(|_| !limited) {
            self.metrics.refused(failure.code.name);
            return Err(failure);
        }
        let (frames, next) = self.take_page(stream, place, limit).ok_or_else(gone)?;
        let events = self.bodies(&frames);
        self.metrics.delivered("pull", events.len() as u64);
        let gaps: Vec<Value> = frames
            .iter()
            .filter_map(|frame| match &frame.kind {
                Kind::Gap { partitions, .. } => serde_json::from_str::<Vec<Value>>(partitions).ok(),
                _ => None,
            })
            .flatten()
            .collect();
        let gap = (!gaps.is_empty()).then(|| serde_json::json!({"cursor": &*next, "partitions": gaps}));
        Ok(PullPage {
            events,
            next: next.to_string(),
            gap,
            limited,
        })
    }

    fn bodies(&self, frames: &VecDeque<Frame>) -> Vec<Bytes> {
        let with_cursor = |frame: &Frame| {
            let Kind::Event { body, .. } = &frame.kind else {
                return None;
            };
            let mut event = BytesMut::with_capacity(body.len() + frame.cursor.len() + 16);
            event.put_slice(b"{\"cursor\":\"");
            event.put_slice(frame.cursor.as_bytes());
            event.put_slice(b"\",");
            event.put_slice(body.get(1..)?);
            Some(event.freeze())
        };
        frames.iter().filter_map(with_cursor).collect()
    }
}

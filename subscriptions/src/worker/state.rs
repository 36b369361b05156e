//! What a worker knows: its connections and, per stream, a shard. All of it is touched by one thread only.

use std::collections::VecDeque;
use std::rc::Weak;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use schemas::contract::Contract;
use slab::Slab;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Setup, Worker};
use crate::connection::{Connection, Place};
use crate::group::{Flushed, Render};
use crate::hub::{HubConfig, Services, SessionInfo, SubscriptionInfo};
use crate::metrics::Metrics;
use crate::needs::Needs;
use crate::pace::Speed;
use crate::protocol::Framing;
use crate::scans::Scans;
use crate::sequencer::Batch;
use crate::session::Times;
use crate::shard::Shard;

/// How much is read from a socket at once; one buffer serves all.
const READ_BYTES: usize = 16 << 10;

/// A worker's state.
pub(crate) struct State {
    pub(crate) config: Arc<HubConfig>,
    pub(crate) contract: Arc<Contract>,
    pub(crate) services: Arc<Services>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) scans: Arc<Scans>,
    pub(crate) needs: Arc<Needs>,
    pub(crate) shards: Vec<Shard>,
    pub(crate) connections: Slab<Connection>,
    /// One entry per connection: when it next needs a look.
    pub(crate) due: std::collections::BTreeSet<(Instant, usize)>,
    /// The timer that the worker waits for.
    pub(super) awaited: Option<Instant>,
    pub(crate) render: Render,
    /// The worker's tasks, ended with it.
    pub(crate) tasks: JoinSet<()>,
    pub(crate) this: Weak<Worker>,
    /// Lanes that have more to do: stream, lane.
    pub(crate) agenda: VecDeque<(usize, usize)>,
    /// What all lanes have queued.
    pub(crate) lanes_bytes: u64,
    pub(crate) draining: bool,
    /// Connections that are given the last words of sessions that are over.
    pub(crate) finishing: usize,
    /// The epoch of the knowledge by which the sessions were judged.
    pub(super) judged_at: u64,
    pub(crate) times: Times,
    /// How fast clients may speak.
    pub(crate) speed: Speed,
    pub(crate) serials: u64,
    read: Box<[u8]>,
    pub(crate) log_bytes: i64,
}

impl State {
    pub(crate) fn new(setup: Setup, this: Weak<Worker>) -> Self {
        let Setup {
            config,
            contract,
            services,
            pasts,
            metrics,
            scans,
            needs,
        } = setup;
        let shard = |(place, (stream, past))| {
            let (needs, services) = (Arc::clone(&needs), Arc::clone(&services));
            Shard::new(place, stream, past, needs, services, Arc::clone(&metrics))
        };
        let streams = contract.streams.iter().cloned().zip(pasts);
        let shards = streams.enumerate().map(shard).collect();
        let milliseconds =
            |duration: std::time::Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        let times = Times {
            auth_timeout_ms: milliseconds(config.auth_timeout),
            auth_warning_ms: milliseconds(config.auth_warning),
        };
        let speed = config.speed();
        Self {
            config,
            contract,
            services,
            metrics,
            scans,
            needs,
            shards,
            connections: Slab::new(),
            due: std::collections::BTreeSet::new(),
            awaited: None,
            render: Render::default(),
            tasks: JoinSet::new(),
            this,
            agenda: VecDeque::new(),
            lanes_bytes: 0,
            draining: false,
            finishing: 0,
            judged_at: 0,
            times,
            speed,
            serials: 0,
            read: vec![0; READ_BYTES].into_boxed_slice(),
            log_bytes: 0,
        }
    }

    /// A number that no other connection or lane of this worker has.
    pub(crate) fn serial(&mut self) -> u64 {
        self.serials += 1;
        self.serials
    }

    /// The connection at this place, if it is still the same.
    pub(crate) fn connection(&mut self, place: usize, serial: u64) -> Option<&mut Connection> {
        self.connections
            .get_mut(place)
            .filter(|connection| connection.serial == serial)
    }

    /// Lets go of tasks that ended, so that the set does not grow.
    pub(crate) fn reap(&mut self) {
        while self.tasks.try_join_next().is_some() {}
    }

    /// One round: apply, write, let the lanes go on. `true`: a stream became ready.
    pub(crate) fn apply(&mut self, batches: &[Arc<Batch>]) -> bool {
        let mut readable = false;
        let mut streams: Vec<usize> = Vec::new();
        for batch in batches {
            let told = self.shards[batch.stream].apply(batch);
            readable |= told.readable;
            if !streams.contains(&batch.stream) {
                streams.push(batch.stream);
            }
            if let Some(fresh) = told.fresh {
                self.tell_freshness(batch.stream, fresh);
            }
        }
        let mut slow = Vec::new();
        for stream in &streams {
            slow.append(&mut self.flush_groups(*stream));
        }
        for place in slow {
            self.close_slow(place);
        }
        for stream in streams {
            self.schedule_lanes(stream);
        }
        self.render.settle();
        readable
    }

    fn flush_groups(&mut self, stream: usize) -> Vec<usize> {
        let shard = &mut self.shards[stream];
        let mut flushed = Flushed::default();
        let pressed = self.log_bytes > i64::try_from(self.config.group_log_bytes_max).unwrap_or(i64::MAX);
        let lag_bytes_max = if pressed {
            0
        } else {
            self.config.session_lag_bytes_max as u64
        };
        let mut change = 0;
        for place in shard.take_touched() {
            let Some(group) = shard.groups.get_mut(place) else {
                continue;
            };
            group.flush(
                &mut self.connections,
                &mut self.render,
                lag_bytes_max,
                &mut flushed,
            );
            change += group.held_change();
        }
        self.hold(change);
        self.count(&flushed);
        flushed.slow
    }

    /// Groups hold more, or less, for laggards. The metric is that of all workers.
    pub(crate) fn hold(&mut self, change: i64) {
        self.log_bytes += change;
        self.metrics.log_bytes.inc_by(change);
    }

    /// Counts what was written.
    pub(crate) fn count(&self, flushed: &Flushed) {
        for framing in Framing::ALL {
            let events = flushed.delivered[framing as usize];
            if events > 0 {
                self.metrics.delivered(framing.name(), events);
            }
        }
        self.metrics.writes.inc_by(flushed.writes);
        self.metrics.bytes_written.inc_by(flushed.bytes);
    }

    /// Reads from a connection and does what the client says. `false`: it is over.
    pub(crate) fn read(&mut self, place: usize, serial: u64, context: &mut Context<'_>) -> Poll<bool> {
        let mut buffer = std::mem::take(&mut self.read);
        let result = match self.connection(place, serial) {
            None => Poll::Ready(Ok(0)),
            // The timer wakes its task.
            Some(connection) if connection.deaf_until.is_some() && connection.closing.is_none() => {
                Poll::Pending
            }
            Some(connection) => connection.outlet.poll_read(context, &mut buffer),
        };
        let result = result.map(|read| match read {
            Ok(count) if count > 0 => self.heard(place, &buffer[..count]),
            Ok(_) | Err(_) => false,
        });
        self.read = buffer;
        result
    }

    /// The body's sender and what wakes its task.
    pub(crate) fn body(
        &mut self,
        place: usize,
        serial: u64,
    ) -> Option<(mpsc::Sender<Bytes>, std::rc::Rc<tokio::sync::Notify>)> {
        let connection = self.connection(place, serial)?;
        Some((connection.outlet.body()?, std::rc::Rc::clone(&connection.room)))
    }

    /// Whether a body waits for room. None: it is over, or has moved to its connection.
    pub(crate) fn body_is_full(&mut self, place: usize, serial: u64) -> Option<bool> {
        let connection = self.connection(place, serial)?;
        if !connection.outlet.is_body() {
            return None;
        }
        let full = connection.full_since.is_some();
        if connection.broken || (connection.closing.is_some() && !full) {
            self.end(place);
            return None;
        }
        Some(full)
    }

    /// The open sessions, for operators.
    pub(crate) fn inspect(&self) -> Vec<SessionInfo> {
        let describe = |(_, connection): (usize, &Connection)| {
            let principal = connection.session.principal.as_ref();
            SessionInfo {
                id: connection.session.id.clone(),
                protocol: connection.framing.name(),
                tenant: principal.map(|principal| principal.tenant.to_string()),
                issuer: principal.map(|principal| principal.issuer.to_string()),
                opened_at_ms: connection.session.opened_at_ms,
                expires_at_ms: principal.map(|principal| principal.expires_at_ms),
                subscriptions: connection
                    .subscriptions
                    .iter()
                    .flatten()
                    .map(|subscription| {
                        let shard = &self.shards[subscription.stream];
                        let (state, lag) = match subscription.place {
                            Place::Lane(lane) => (
                                "replaying",
                                shard.lanes.get(lane).map_or(0, crate::lane::Lane::queue_bytes),
                            ),
                            Place::Group { group, member } => {
                                let group = &shard.groups[group];
                                ("live", group.lag(group.members[member].next))
                            }
                        };
                        SubscriptionInfo {
                            stream: shard.stream.name.to_string(),
                            state,
                            lag_bytes: usize::try_from(lag).unwrap_or(usize::MAX),
                        }
                    })
                    .collect(),
                pending_bytes: connection.pending_bytes(),
            }
        };
        self.connections.iter().map(describe).collect()
    }

    /// Whether any session is open.
    pub(crate) fn has_sessions(&self) -> bool {
        !self.connections.is_empty() || self.finishing > 0
    }

    /// Removes a subscription from its group or lane.
    pub(crate) fn detach(&mut self, stream: usize, place: Place) {
        let shard = &mut self.shards[stream];
        match place {
            Place::Lane(lane) => {
                if let Some(gone) = shard.lanes.try_remove(lane) {
                    self.lanes_bytes = self.lanes_bytes.saturating_sub(gone.counted);
                    self.metrics.lanes.dec();
                }
            }
            Place::Group { group, member } => {
                let Some(left) = shard.groups.get_mut(group) else {
                    return;
                };
                if let Some(moved) = left.leave(member)
                    && let Some(connection) = self.connections.get_mut(moved.connection)
                    && let Some(Some(subscription)) = connection.subscriptions.get_mut(moved.subscription)
                {
                    subscription.place = Place::Group { group, member };
                }
                if left.members.is_empty() {
                    left.forget();
                    let change = left.held_change();
                    shard.drop_group(group);
                    self.hold(change);
                }
            }
        }
    }
}

//! A thread that owns sessions: one for every two cores, nothing in it is shared but the rings and the finished bodies.
//!
//! Invariant: a round applies all batches that are there, then writes once per reader, then lets the lanes go on. Nobody
//! joins a group while a round is being applied.

mod hearing;
mod judging;
mod lanes;
mod operations;
mod pulls;
mod sessions;
mod speech;
mod state;
mod subscribing;
mod timers;

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use auth::token::Principal;
use schemas::contract::Contract;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::hub::{
    Failure, GraphqlStream, GraphqlSubscribe, HubConfig, Pull, PullPage, Services, SessionInfo, Sse,
    WebSocket,
};
use crate::metrics::Metrics;
use crate::needs::{Need, Needs};
use crate::outlet::Moving;
use crate::scans::Scans;
use crate::sequencer::{Batch, Past};
pub(crate) use operations::{Opened, Order};
use speech::LINGER;
use state::State;

/// What wakes a worker.
pub(crate) enum Wake {
    /// Events.
    Batch(Arc<Batch>),
    /// A connection to take over.
    WebSocket(Box<WebSocket>),
    /// A stream to open.
    Sse(Box<Sse>, oneshot::Sender<Result<Opened, Failure>>),
    /// A response with GraphQL results to open.
    Graphql(
        Box<GraphqlStream>,
        Option<GraphqlSubscribe>,
        oneshot::Sender<Result<Opened, Failure>>,
    ),
    /// A session's body moves to its connection; something is held while the session lasts.
    Move(usize, u64, Box<Moving>, Box<dyn Send>),
    /// What another request says to such a session.
    Order(usize, u64, Order, oneshot::Sender<Result<bool, Failure>>),
    /// A page to read.
    Pull(Box<Pull>, oneshot::Sender<Result<PullPage, Failure>>),
    /// Tell the open sessions.
    Inspect(oneshot::Sender<Vec<SessionInfo>>),
    /// Say goodbye to all, spread over this time.
    Drain(Duration, oneshot::Sender<()>),
}

/// How many wakes one round takes.
const WAKES_PER_ROUND_MAX: usize = 64;

/// How much is read from a connection before the others have their turn.
const READS_PER_TURN_MAX: usize = 4;

/// How long a reader waits for a stream to be read before it is refused.
const READY_PATIENCE: Duration = Duration::from_secs(10);

/// What a worker needs to begin.
pub(crate) struct Setup {
    pub(crate) config: Arc<HubConfig>,
    pub(crate) contract: Arc<Contract>,
    pub(crate) services: Arc<Services>,
    pub(crate) pasts: Vec<Arc<Past>>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) scans: Arc<Scans>,
    pub(crate) needs: Arc<Needs>,
}

/// One worker.
pub(crate) struct Worker {
    state: RefCell<State>,
    /// Lanes that have more to do than one turn allowed.
    agenda: Notify,
    /// A stream can be read.
    readable: Notify,
    /// A timer was set before the one that is waited for.
    sooner: Notify,
}

impl Worker {
    /// Runs until the hub is dropped. Call it on a thread of its own, inside a current-thread runtime.
    pub(crate) async fn run(setup: Setup, inbox: mpsc::Receiver<Wake>) {
        let tasks = LocalSet::new();
        tasks
            .run_until(async {
                let worker = Rc::new_cyclic(|this| Self {
                    state: RefCell::new(State::new(setup, this.clone())),
                    agenda: Notify::new(),
                    readable: Notify::new(),
                    sooner: Notify::new(),
                });
                worker.serve(inbox).await;
            })
            .await;
    }

    async fn serve(self: Rc<Self>, mut inbox: mpsc::Receiver<Wake>) {
        let gather_max = self.state.borrow().config.gather_max;
        // Not through the inbox: a revocation must not wait behind events.
        let mut changes = self.state.borrow().services.authenticator.control().changes();
        let mut wakes = Vec::with_capacity(WAKES_PER_ROUND_MAX);
        loop {
            let due = self.state.borrow_mut().await_due();
            let timer = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            // Each branch is cancel safe: `recv_many` takes nothing until it is ready, the others only wait.
            tokio::select! {
                // The sender lives as long as the state.
                _ = changes.changed() => self.judge(&mut changes),
                count = inbox.recv_many(&mut wakes, WAKES_PER_ROUND_MAX) => {
                    if count == 0 {
                        return;
                    }
                    let started = Instant::now();
                    self.judge(&mut changes);
                    // A session whose time is over gets nothing of what came.
                    self.state.borrow_mut().timers(started);
                    self.round(&mut wakes);
                    // More came meanwhile: the worker is busy. Waiting a little gathers more into one write. The timer's
                    // unit is a millisecond: after a shorter round waiting would cost more than it gathers.
                    let pause = started.elapsed().min(gather_max);
                    if !inbox.is_empty() && pause >= Duration::from_millis(1) {
                        sleep(pause).await;
                    }
                }
                () = self.agenda.notified() => {
                    self.judge(&mut changes);
                    self.state.borrow_mut().work_agenda();
                }
                () = self.sooner.notified() => {}
                () = timer => self.state.borrow_mut().timers(Instant::now()),
            }
        }
    }

    /// Judges the sessions anew, if more is known than when they were judged last.
    fn judge(&self, changes: &mut watch::Receiver<u64>) {
        let mut state = self.state.borrow_mut();
        let epoch = *changes.borrow_and_update();
        if state.judged_at != epoch {
            state.judged_at = epoch;
            state.judge();
        }
    }

    fn round(self: &Rc<Self>, wakes: &mut Vec<Wake>) {
        self.state.borrow_mut().reap();
        let mut batches = Vec::new();
        for wake in wakes.drain(..) {
            match wake {
                Wake::Batch(batch) => batches.push(batch),
                Wake::WebSocket(socket) => {
                    let opened = self.state.borrow_mut().open_websocket(*socket);
                    if let Some((place, serial)) = opened {
                        let worker = Rc::clone(self);
                        self.own(async move {
                            poll_fn(|context| worker.poll_connection(place, serial, context)).await;
                        });
                    }
                }
                Wake::Sse(sse, reply) => self.own(Rc::clone(self).open_sse(*sse, reply)),
                Wake::Graphql(stream, first, reply) => {
                    self.own(Rc::clone(self).open_graphql(*stream, first, reply));
                }
                Wake::Move(place, serial, moving, held) => {
                    self.own(Rc::clone(self).move_body(place, serial, *moving, held));
                }
                Wake::Order(place, serial, order, reply) => {
                    self.own(Rc::clone(self).take_order(place, serial, order, reply));
                }
                Wake::Pull(pull, reply) => self.own(Rc::clone(self).pull(*pull, reply)),
                Wake::Inspect(reply) => {
                    let _dropped = reply.send(self.state.borrow().inspect());
                }
                Wake::Drain(spread, done) => self.own(Rc::clone(self).drain(spread, done)),
            }
        }
        if !batches.is_empty() && self.state.borrow_mut().apply(&batches) {
            self.readable.notify_waiters();
        }
    }

    /// Runs a task that belongs to this worker's thread and ends with it.
    fn own(&self, task: impl Future<Output = ()> + 'static) {
        self.state.borrow_mut().tasks.spawn_local(task);
    }

    /// Opens an event stream when its stream is ready.
    async fn open_sse(self: Rc<Self>, sse: Sse, reply: oneshot::Sender<Result<Opened, Failure>>) {
        let reading = &sse.reading;
        let needed = self.ready(reading.stream.name.as_str(), &reading.principal).await;
        let opened = self.state.borrow_mut().open_sse(sse);
        drop(needed);
        let session = opened.as_ref().ok().map(|(place, serial, _)| (*place, *serial));
        // A request that was dropped meanwhile drops the receiver, which ends the session.
        let _dropped = reply.send(opened);
        if let Some((place, serial)) = session {
            self.drive_body(place, serial).await;
        }
    }

    /// The life of a session whose body has moved to its connection. `_held` is held so long.
    async fn move_body(self: Rc<Self>, place: usize, serial: u64, moving: Moving, _held: Box<dyn Send>) {
        let moved = self.state.borrow_mut().move_body(place, serial, moving);
        match moved {
            Ok(()) => poll_fn(|context| self.poll_connection(place, serial, context)).await,
            // It ended on the way: its last words are in the body.
            Err(Moving { transport, body }) => {
                self.state.borrow_mut().finishing += 1;
                if let Ok(Err(error)) = timeout(LINGER, body.finish(transport)).await {
                    tracing::debug!(%error, "a connection did not take the last words");
                }
                self.state.borrow_mut().finishing -= 1;
            }
        }
    }

    /// Waits until a stream is read, for a while: a node that has just begun, or that nobody read it on, must not turn its
    /// readers away. What is given keeps it so until the reader has begun. Whoever may have nothing of it does not wait, and it is
    /// not read for them.
    async fn ready(&self, stream: &str, principal: &Principal) -> Option<Need> {
        let need = self.state.borrow().need_of(stream, principal)?;
        let patience = sleep(READY_PATIENCE);
        tokio::pin!(patience);
        loop {
            let readable = self.readable.notified();
            if self.state.borrow().is_ready(stream) {
                return Some(need);
            }
            tokio::select! {
                () = readable => {}
                () = &mut patience => return Some(need),
            }
        }
    }

    /// The life of a socket: reads what the client says, writes what was left.
    fn poll_connection(&self, place: usize, serial: u64, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        for _ in 0..READS_PER_TURN_MAX {
            let Some(connection) = state.connection(place, serial) else {
                return Poll::Ready(());
            };
            if connection.broken {
                state.end(place);
                return Poll::Ready(());
            }
            connection.waker = Some(context.waker().clone());
            connection.outlet.wake_by(context.waker());
            if connection.outlet.flush_rest(context).is_err() {
                connection.broken = true;
                continue;
            }
            let mut again = false;
            if connection.full_since.is_some() {
                state.flush(place);
                let Some(connection) = state.connection(place, serial) else {
                    return Poll::Ready(());
                };
                if connection.full_since.is_some() {
                    match connection.outlet.poll_room(context) {
                        Poll::Ready(Ok(())) => again = true,
                        Poll::Ready(Err(_)) => connection.broken = true,
                        Poll::Pending => {}
                    }
                }
            }
            if state.shut_if_closed(place, context) {
                state.end(place);
                return Poll::Ready(());
            }
            match state.read(place, serial, context) {
                Poll::Ready(true) => {}
                Poll::Ready(false) => {
                    state.end(place);
                    return Poll::Ready(());
                }
                Poll::Pending if again => {}
                Poll::Pending => return Poll::Pending,
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// The life of a response's body: waits for room and for the end.
    async fn drive_body(self: Rc<Self>, place: usize, serial: u64) {
        let Some((sender, room)) = self.state.borrow_mut().body(place, serial) else {
            return;
        };
        loop {
            let Some(full) = self.state.borrow_mut().body_is_full(place, serial) else {
                return;
            };
            let go_on = if full {
                tokio::select! {
                    reserved = sender.reserve() => reserved.is_ok(),
                    () = room.notified() => true,
                }
            } else {
                tokio::select! {
                    () = sender.closed() => false,
                    () = room.notified() => true,
                }
            };
            let mut state = self.state.borrow_mut();
            match state.connection(place, serial) {
                Some(connection) if connection.outlet.is_body() => {}
                // It is over, or another task's.
                _ => return,
            }
            if !go_on {
                state.end(place);
                return;
            }
            state.flush(place);
        }
    }

    /// Tells every session goodbye, spread over some time so that the clients do not all come back at once.
    async fn drain(self: Rc<Self>, spread: Duration, done: oneshot::Sender<()>) {
        let places = self.state.borrow_mut().begin_drain();
        let pause = spread / u32::try_from(places.len().max(1)).unwrap_or(u32::MAX);
        for (place, serial) in places {
            self.state.borrow_mut().say_bye(place, serial, spread);
            sleep(pause).await;
        }
        // What is being closed has the linger time to take its last bytes.
        while self.state.borrow().has_sessions() {
            let due = self.state.borrow().next_due().unwrap_or_else(Instant::now);
            sleep_until(due.min(Instant::now() + Duration::from_millis(10))).await;
        }
        let _dropped = done.send(());
    }
}

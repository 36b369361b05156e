//! How many requests of one HTTP/2 connection are under way, whether it has been idle for too long, and whether its peer
//! leaves an answer lying.
//!
//! A request is under way until its answer's body is finished or dropped. A body that has given a piece is not asked for
//! the next one before the peer has room for it: the socket may be writable all the time, so nobody else notices.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

/// Counts requests under way.
pub(super) struct Activity {
    shared: Arc<Shared>,
}

/// One request under way.
pub(super) struct UnderWay {
    shared: Arc<Shared>,
    number: u64,
}

struct Shared {
    count: watch::Sender<usize>,
    bodies: Mutex<Bodies>,
}

#[derive(Default)]
struct Bodies {
    /// Of the next request.
    number: u64,
    /// Since when bodies that have given a piece have not been asked for more, by request. At most as many as the
    /// connection may have streams.
    lying: HashMap<u64, Instant>,
}

impl Shared {
    fn bodies(&self) -> MutexGuard<'_, Bodies> {
        // Nothing between two statements here can panic half way.
        self.bodies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Activity {
    pub(super) fn new() -> Self {
        Self {
            shared: Arc::new(Shared {
                count: watch::Sender::new(0),
                bodies: Mutex::default(),
            }),
        }
    }

    pub(super) fn begin(&self) -> UnderWay {
        let mut bodies = self.shared.bodies();
        bodies.number += 1;
        let number = bodies.number;
        drop(bodies);
        self.shared.count.send_modify(|count| *count += 1);
        UnderWay {
            shared: Arc::clone(&self.shared),
            number,
        }
    }

    /// Ends when the peer has left a piece of an answer lying for so long. Cancel safe.
    pub(super) fn stalled(&self, stall_max: Duration) -> impl Future<Output = ()> + use<> {
        let shared = Arc::clone(&self.shared);
        let mut count = shared.count.subscribe();
        async move {
            loop {
                if count.wait_for(|count| *count > 0).await.is_err() {
                    return;
                }
                let oldest = shared.bodies().lying.values().min().copied();
                let now = Instant::now();
                // What begins to lie while this sleeps has its time at the end of it, or later.
                let until = oldest.unwrap_or(now) + stall_max;
                if until <= now {
                    return;
                }
                sleep_until(until).await;
            }
        }
    }

    /// Ends when nothing has been under way for `first` since the beginning, or for `later` after a request.
    pub(super) fn idle(&self, first: Duration, later: Duration) -> impl Future<Output = ()> + use<> {
        let mut count = self.shared.count.subscribe();
        async move {
            let mut patience = first;
            loop {
                let busy = *count.borrow_and_update() > 0;
                if busy {
                    patience = later;
                    if count.changed().await.is_err() {
                        return;
                    }
                } else if timeout(patience, count.changed()).await.is_err() {
                    return;
                }
            }
        }
    }
}

impl UnderWay {
    /// Ties the request to its answer's body.
    pub(super) fn hold(self, response: Response) -> Response {
        response.map(|body| {
            Body::new(Held {
                body,
                under_way: self,
            })
        })
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.shared.bodies().lying.remove(&self.number);
        self.shared.count.send_modify(|count| *count -= 1);
    }
}

struct Held {
    body: Body,
    under_way: UnderWay,
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let number = self.under_way.number;
        let given = Pin::new(&mut self.body).poll_frame(context);
        let mut bodies = self.under_way.shared.bodies();
        if matches!(given, Poll::Ready(Some(Ok(_)))) {
            bodies.lying.insert(number, Instant::now());
        } else {
            bodies.lying.remove(&number);
        }
        drop(bodies);
        given
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_idle_only_while_nothing_is_under_way() {
        let (first, later) = (Duration::from_secs(10), Duration::from_secs(60));
        let activity = Activity::new();
        let begun = Instant::now();
        activity.idle(first, later).await;
        assert_eq!(begun.elapsed(), first, "nothing was ever asked");

        let under_way = activity.begin();
        let idle = activity.idle(first, later);
        let asked = async {
            tokio::time::sleep(Duration::from_secs(500)).await;
            drop(under_way);
            Instant::now()
        };
        let (answered, ()) = tokio::join!(asked, idle);
        assert_eq!(answered.elapsed(), later);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_leaves_an_answer_lying_is_noticed() {
        let stall_max = Duration::from_secs(30);
        let activity = Activity::new();
        let mut quiet = activity
            .begin()
            .hold(Response::new(Body::new(http_body_util::StreamBody::new(
                futures_util::stream::pending::<Result<Frame<Bytes>, axum::Error>>(),
            ))))
            .into_body();
        let mut pieces = activity
            .begin()
            .hold(Response::new(Body::from("a piece")))
            .into_body();
        assert!(quiet.frame().now_or_never().is_none(), "there is no event yet");
        let begun = Instant::now();
        let stalled = activity.stalled(stall_max);
        let taking = async {
            tokio::time::sleep(Duration::from_secs(500)).await;
            pieces.frame().await.expect("a frame").expect("data");
            Instant::now()
        };
        let (given, ()) = tokio::join!(taking, stalled);
        assert_eq!(given.elapsed(), stall_max);
        assert_eq!(begun.elapsed().as_secs(), 530, "waiting for events is no stall");
    }
}

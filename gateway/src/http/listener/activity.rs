//! How many requests of one HTTP/2 connection are under way, and whether it has been idle for too long.
//!
//! A request is under way until its answer's body is finished or dropped.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::sync::watch;
use tokio::time::timeout;

/// Counts requests under way.
pub(super) struct Activity {
    count: Arc<watch::Sender<usize>>,
}

/// One request under way.
pub(super) struct UnderWay {
    count: Arc<watch::Sender<usize>>,
}

impl Activity {
    pub(super) fn new() -> Self {
        Self {
            count: Arc::new(watch::Sender::new(0)),
        }
    }

    pub(super) fn begin(&self) -> UnderWay {
        self.count.send_modify(|count| *count += 1);
        UnderWay {
            count: Arc::clone(&self.count),
        }
    }

    /// Ends when nothing has been under way for `first` since the beginning, or for `later` after a request.
    pub(super) fn idle(&self, first: Duration, later: Duration) -> impl Future<Output = ()> + use<> {
        let mut count = self.count.subscribe();
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
                _under_way: self,
            })
        })
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.count.send_modify(|count| *count -= 1);
    }
}

struct Held {
    body: Body,
    _under_way: UnderWay,
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
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
    use super::*;
    use tokio::time::Instant;

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
}

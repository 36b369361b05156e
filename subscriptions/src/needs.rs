//! Which streams somebody reads on this node. A source reads what is needed and lets the rest be.
//!
//! Invariant: a stream is put to rest only while nobody needs it, and whoever needs it from then on belongs to the next
//! generation: what was known of it before does not count for them.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// See the module. One for each hub.
pub struct Needs {
    streams: Vec<Mutex<Stream>>,
    needed: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

#[derive(Debug)]
struct Stream {
    readers: usize,
    /// When the last need ended.
    idle_since: Instant,
    rests: bool,
    generation: u64,
}

/// Somebody needs a stream, until this is dropped.
#[derive(Debug)]
pub struct Need {
    needs: Arc<Needs>,
    stream: usize,
}

impl Needs {
    /// Nobody needs any of these streams yet.
    #[must_use]
    pub fn new(streams: usize) -> Self {
        let stream = || Stream {
            readers: 0,
            idle_since: Instant::now(),
            rests: true,
            generation: 0,
        };
        Self {
            streams: (0..streams).map(|_| Mutex::new(stream())).collect(),
            needed: OnceLock::new(),
        }
    }

    /// What is called when a stream is needed that rests. Only the first one counts; it must not wait.
    pub fn on_need(&self, call: impl Fn() + Send + Sync + 'static) {
        let _second = self.needed.set(Box::new(call));
    }

    /// Somebody needs this stream, by its place in the contract.
    #[must_use]
    pub fn need(self: &Arc<Self>, stream: usize) -> Need {
        let rests = {
            let mut entry = self.entry(stream);
            entry.readers += 1;
            entry.rests
        };
        if rests && let Some(call) = self.needed.get() {
            call();
        }
        Need {
            needs: Arc::clone(self),
            stream,
        }
    }

    /// How often the stream was put to rest. It cannot change while somebody needs it.
    #[must_use]
    pub fn generation(&self, stream: usize) -> u64 {
        self.entry(stream).generation
    }

    /// The source's question: whether a stream that rests is needed, and is to be read from now on.
    #[must_use]
    pub fn rouse(&self, stream: usize) -> bool {
        let mut entry = self.entry(stream);
        let wakes = entry.rests && entry.readers > 0;
        entry.rests &= !wakes;
        wakes
    }

    /// The source's question: whether a stream that is read has not been needed for so long, and rests from now on.
    #[must_use]
    pub fn rest(&self, stream: usize, idle_after: Duration) -> bool {
        let mut entry = self.entry(stream);
        let rests = !entry.rests && entry.readers == 0 && entry.idle_since.elapsed() >= idle_after;
        if rests {
            entry.rests = true;
            entry.generation += 1;
        }
        rests
    }

    fn entry(&self, stream: usize) -> MutexGuard<'_, Stream> {
        self.streams[stream]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Need {
    fn drop(&mut self) {
        let mut entry = self.needs.entry(self.stream);
        entry.readers -= 1;
        entry.idle_since = Instant::now();
    }
}

impl fmt::Debug for Needs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Needs")
            .field("streams", &self.streams)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const IDLE: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn a_stream_rests_when_nobody_has_needed_it_for_a_while() {
        let needs = Arc::new(Needs::new(2));
        assert!(!needs.rouse(0), "nobody needs it");
        let (first, second) = (needs.need(0), needs.need(0));
        assert!(needs.rouse(0));
        assert!(!needs.rouse(0), "it is read already");
        assert!(!needs.rouse(1), "and the other one is not needed");
        drop(first);
        tokio::time::advance(IDLE * 2).await;
        assert!(!needs.rest(0, IDLE), "somebody is left");
        drop(second);
        assert!(!needs.rest(0, IDLE), "it was needed just now");
        tokio::time::advance(IDLE).await;
        assert!(needs.rest(0, IDLE));
        assert!(!needs.rest(0, IDLE), "it rests already");
    }

    #[tokio::test(start_paused = true)]
    async fn who_needs_a_stream_that_was_put_to_rest_is_of_the_next_generation() {
        let needs = Arc::new(Needs::new(1));
        let first = needs.need(0);
        assert!(needs.rouse(0));
        assert_eq!(needs.generation(0), 0);
        drop(first);
        assert!(needs.rest(0, Duration::ZERO));
        let _second = needs.need(0);
        assert_eq!(needs.generation(0), 1);
        assert!(!needs.rest(0, Duration::ZERO), "not while it is needed");
        assert!(needs.rouse(0));
    }

    #[test]
    fn the_source_is_called_for_streams_that_rest() {
        let (needs, calls) = (Arc::new(Needs::new(1)), Arc::new(AtomicUsize::new(0)));
        let counts = Arc::clone(&calls);
        needs.on_need(move || {
            counts.fetch_add(1, Ordering::Relaxed);
        });
        let _first = needs.need(0);
        assert!(needs.rouse(0));
        let _second = needs.need(0);
        assert_eq!(calls.load(Ordering::Relaxed), 1);
    }
}

//! What happened before: the ring of recent events, and the trait that reads older ones.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use schemas::event::Event;
use schemas::ids::{Incarnation, Slot, StreamName};

/// One partition, as both sides name it.
#[derive(Debug, Clone)]
pub struct Partition {
    /// The stream that reads it.
    pub stream: StreamName,
    /// The node's number for it.
    pub slot: Slot,
    /// The topic.
    pub topic: Arc<str>,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// Its number in the topic.
    pub partition: i32,
}

/// A run of one partition's events, older than what the ring covers.
#[derive(Debug, Clone)]
pub struct Page {
    /// In offset order, all in `from..next`. Shared: readers at nearby positions get the same pages.
    pub events: Arc<[Arc<Event>]>,
    /// Everything in `from..next` that still exists and is an event of the stream is in `events`. Never beyond the
    /// `until` that was asked for, except over a hole.
    pub next: i64,
    /// Where Kafka's log begins now. Above the `from` that was asked for: everything below it is gone, and the page
    /// begins there.
    pub log_start: i64,
    /// Bytes of records read for this page, matching or not.
    pub scanned_bytes: u64,
}

/// The ends of a partition's log, fresh from Kafka.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The first offset that exists.
    pub start: i64,
    /// The offset after the last one that a `read_committed` reader may see.
    pub end: i64,
}

/// Why older events cannot be had now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OlderError {
    /// Kafka does not answer; ask again.
    #[error("kafka does not answer: {0}")]
    Unavailable(String),
    /// Too many replays are under way; ask again.
    #[error("too many replays are under way")]
    Limited,
    /// The topic or this incarnation of it is gone.
    #[error("the topic is gone")]
    Gone,
    /// The broker cannot look offsets up by time.
    #[error("the broker cannot look offsets up by time")]
    NoTimes,
}

/// Reads what is older than the ring. Futures may be dropped at any time.
pub trait Older: Send + Sync + 'static {
    /// A page of `from..until`, `until > from`. Waits for room among the replays under way.
    fn page(&self, partition: &Partition, from: i64, until: i64) -> BoxFuture<'static, Result<Page, OlderError>>;

    /// The ends of the log now.
    fn bounds(&self, partition: &Partition) -> BoxFuture<'static, Result<Bounds, OlderError>>;

    /// The first offset whose record is not older than this time; the end of the log if there is none.
    fn at_time(&self, partition: &Partition, time_ms: i64) -> BoxFuture<'static, Result<i64, OlderError>>;
}

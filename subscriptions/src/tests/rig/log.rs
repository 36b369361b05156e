//! A log that several nodes may read: Kafka, made of vectors.

use super::*;

/// A Kafka made of vectors. Several nodes may read it.
#[derive(Clone)]
pub(in crate::tests) struct Log {
    inner: Arc<Mutex<Partitions>>,
    since: Instant,
    pub(in crate::tests) stream: Arc<Stream>,
    decoder: Decoder,
}

#[derive(Default)]
struct Partitions {
    by_name: BTreeMap<(u64, i32), Kept>,
    pub(in crate::tests) pages: usize,
    /// Partitions that do not answer until they are told to.
    held: BTreeMap<i32, Arc<Notify>>,
    unreachable: bool,
    page_events: usize,
    /// How long the ends of a log are on their way to who asked for them.
    ends_take: Duration,
}

/// Offset, tenant, value, time.
type Written = (i64, String, Value, i64);

#[derive(Default, Clone)]
struct Kept {
    start: i64,
    end: i64,
    records: Vec<Written>,
}

impl Log {
    pub(in crate::tests) fn new() -> Self {
        let contract = contract();
        let stream = Arc::clone(&contract.streams[0]);
        let decoder = Decoder::new(
            Arc::clone(&stream),
            &SecretString::from("an event id secret of a test run"),
        );
        let partitions = Partitions {
            page_events: 7,
            ..Partitions::default()
        };
        Self {
            inner: Arc::new(Mutex::new(partitions)),
            since: Instant::now(),
            stream,
            decoder,
        }
    }

    fn now_ms(&self) -> i64 {
        NOW_MS + i64::try_from(self.since.elapsed().as_millis()).unwrap()
    }

    /// Appends a record and tells its offset.
    pub(in crate::tests) fn append(&self, life: u64, partition: i32, tenant: &str, value: Value) -> i64 {
        let mut inner = self.inner.lock().unwrap();
        let kept = inner.by_name.entry((life, partition)).or_default();
        let offset = kept.end;
        kept.records
            .push((offset, tenant.to_owned(), value, self.now_ms()));
        kept.end += 1;
        offset
    }

    /// Leaves a hole, as a transaction marker or compaction does.
    pub(in crate::tests) fn skip(&self, life: u64, partition: i32, count: i64) {
        self.inner
            .lock()
            .unwrap()
            .by_name
            .entry((life, partition))
            .or_default()
            .end += count;
    }

    /// Deletes what is below this offset.
    pub(in crate::tests) fn retain_from(&self, life: u64, partition: i32, start: i64) {
        let mut inner = self.inner.lock().unwrap();
        let kept = inner.by_name.entry((life, partition)).or_default();
        kept.start = start;
        kept.records.retain(|(offset, ..)| *offset >= start);
    }

    pub(in crate::tests) fn end(&self, life: u64, partition: i32) -> i64 {
        self.inner
            .lock()
            .unwrap()
            .by_name
            .get(&(life, partition))
            .map_or(0, |kept| kept.end)
    }

    /// How many pages were read.
    pub(in crate::tests) fn pages(&self) -> usize {
        self.inner.lock().unwrap().pages
    }

    pub(in crate::tests) fn page_events(&self, count: usize) {
        self.inner.lock().unwrap().page_events = count;
    }

    pub(in crate::tests) fn ends_take(&self, time: Duration) {
        self.inner.lock().unwrap().ends_take = time;
    }

    /// Makes a partition's older events wait until they are let go.
    pub(in crate::tests) fn hold(&self, partition: i32) {
        self.inner.lock().unwrap().held.insert(partition, Arc::default());
    }

    pub(in crate::tests) fn let_go(&self, partition: i32) {
        if let Some(held) = self.inner.lock().unwrap().held.remove(&partition) {
            held.notify_waiters();
        }
    }

    pub(in crate::tests) fn events(
        &self,
        partition: &Partition,
        from: i64,
        until: i64,
        count: usize,
    ) -> (Vec<Event>, i64) {
        let inner = self.inner.lock().unwrap();
        let Some(kept) = inner.by_name.get(&(partition.incarnation.0, partition.partition)) else {
            return (Vec::new(), from);
        };
        let until = until.min(kept.end);
        let wanted: Vec<_> = kept
            .records
            .iter()
            .filter(|(offset, ..)| *offset >= from && *offset < until)
            .collect();
        let next = if wanted.len() > count {
            wanted[count - 1].0 + 1
        } else {
            until
        };
        let decode = |(offset, tenant, value, _): &&Written| {
            let record = Record {
                topic: Arc::clone(&partition.topic),
                incarnation: partition.incarnation,
                slot: partition.slot,
                partition: partition.partition,
                offset: *offset,
                timestamp_ms: NOW_MS,
                key: None,
                value: Some(Bytes::from(value.to_string())),
                headers: vec![(Box::from("tenant"), Some(Bytes::from(tenant.clone())))],
            };
            self.decoder
                .decode(record)
                .expect("the test's records are valid")
                .expect("none is skipped")
        };
        (wanted.iter().take(count).map(decode).collect(), next)
    }
}

impl Older for Log {
    fn page(
        &self,
        partition: &Partition,
        from: i64,
        until: i64,
    ) -> BoxFuture<'static, Result<Page, OlderError>> {
        let (log, partition) = (self.clone(), partition.clone());
        async move {
            let held = log.inner.lock().unwrap().held.get(&partition.partition).cloned();
            if let Some(held) = held {
                held.notified().await;
            }
            tokio::time::sleep(Duration::from_millis(3)).await;
            let (log_start, count) = {
                let mut inner = log.inner.lock().unwrap();
                if inner.unreachable {
                    return Err(OlderError::Unavailable("the test says so".to_owned()));
                }
                inner.pages += 1;
                let key = (partition.incarnation.0, partition.partition);
                (
                    inner.by_name.get(&key).map_or(0, |kept| kept.start),
                    inner.page_events,
                )
            };
            let begin = from.max(log_start);
            let (events, next) = log.events(&partition, begin, until, count);
            let events = events.into_iter().map(Arc::new).collect();
            Ok(Page {
                events,
                next: next.max(begin),
                log_start,
                scanned_bytes: 100,
            })
        }
        .boxed()
    }

    fn bounds(&self, partition: &Partition) -> BoxFuture<'static, Result<Bounds, OlderError>> {
        let (log, partition) = (self.clone(), partition.clone());
        async move {
            let (kept, time) = {
                let inner = log.inner.lock().unwrap();
                let kept = inner
                    .by_name
                    .get(&(partition.incarnation.0, partition.partition))
                    .cloned()
                    .unwrap_or_default();
                (kept, inner.ends_take)
            };
            tokio::time::sleep(time).await;
            Ok(Bounds {
                start: kept.start,
                end: kept.end,
            })
        }
        .boxed()
    }

    fn at_time(&self, partition: &Partition, time_ms: i64) -> BoxFuture<'static, Result<i64, OlderError>> {
        let (log, partition) = (self.clone(), partition.clone());
        async move {
            let inner = log.inner.lock().unwrap();
            let Some(kept) = inner.by_name.get(&(partition.incarnation.0, partition.partition)) else {
                return Ok(0);
            };
            let first = kept
                .records
                .iter()
                .find(|(_, _, _, written_ms)| *written_ms >= time_ms);
            Ok(first.map_or(kept.end, |(offset, ..)| *offset))
        }
        .boxed()
    }
}

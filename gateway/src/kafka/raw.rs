//! What librdkafka can do and its Rust wrapper cannot: batches of owned records, the end of a partition with its topic
//! and offset, topic ids, and what the client knows of a log's ends without asking.
//!
//! The one module with `unsafe`. Invariant: nothing that it returns points into librdkafka's memory (borrowed payloads pin
//! whole fetch buffers). It knows nothing of streams.

#![allow(
    unsafe_code,
    reason = "calls into librdkafka that the wrapper lacks; each block says why it is sound"
)]

use std::ffi::{CStr, CString};
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use ahash::AHashSet;
use bytes::Bytes;
use rdkafka::ClientContext;
use rdkafka::bindings as sys;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;

use super::client::Context;

/// A record, copied out of librdkafka.
#[derive(Debug, Clone)]
pub(crate) struct RawRecord {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) timestamp_ms: i64,
    pub(crate) key: Option<Bytes>,
    pub(crate) value: Option<Bytes>,
    pub(crate) headers: Vec<(Box<str>, Option<Bytes>)>,
    /// Bytes of key, value and headers.
    pub(crate) bytes: usize,
}

/// What a consumer's queue gives.
#[derive(Debug)]
pub(super) enum Polled {
    Record(RawRecord),
    /// The partition is read up to here; what a `read_committed` reader may see ends at `offset`.
    End {
        topic: Arc<str>,
        partition: i32,
        offset: i64,
    },
    /// Something is wrong with one partition. `offset` is the one that was asked for, where it matters.
    Partition {
        topic: Arc<str>,
        partition: i32,
        offset: i64,
        code: RDKafkaErrorCode,
    },
    /// Something is wrong with the client.
    Client(RDKafkaErrorCode),
    /// The group gives partitions, to be assigned, or takes them away, to be unassigned: all of them in one call, also if
    /// there are none. Nothing goes on in the group until then.
    Rebalance {
        given: bool,
        partitions: Vec<(Arc<str>, i32)>,
    },
    /// Offsets could not be committed.
    Uncommitted(RDKafkaErrorCode),
}

/// The queue into which all partitions of a consumer are delivered.
pub(super) struct Queue {
    native: Arc<NativeQueue>,
    /// Topic names that were seen, so that records share them.
    names: AHashSet<Arc<str>>,
}

/// Makes a waiting [`Queue::poll`] return.
#[derive(Clone)]
pub(super) struct Waker(Arc<NativeQueue>);

struct NativeQueue {
    queue: *mut sys::rd_kafka_queue_t,
    /// The queue belongs to this client, which must outlive it.
    _consumer: Arc<BaseConsumer<Context>>,
}

// SAFETY: librdkafka's queues are reference counted and locked inside; every `rd_kafka_queue_*` call may come from any
// thread (rdkafka.h, "queue" functions).
unsafe impl Send for NativeQueue {}
// SAFETY: as above.
unsafe impl Sync for NativeQueue {}

impl Drop for NativeQueue {
    fn drop(&mut self) {
        // SAFETY: the pointer came from `rd_kafka_queue_get_consumer`, which gave us a reference of our own; it is given
        // back once, while the client still lives (`_consumer` is dropped after this body).
        unsafe { sys::rd_kafka_queue_destroy(self.queue) }
    }
}

impl Waker {
    pub(super) fn wake(&self) {
        // SAFETY: the queue is alive as long as `self.0`.
        unsafe { sys::rd_kafka_queue_yield(self.0.queue) }
    }
}

impl Queue {
    /// `None` if the consumer has no group id and so no queue of its own.
    pub(super) fn of(consumer: &Arc<BaseConsumer<Context>>) -> Option<Self> {
        // SAFETY: `native_ptr` is valid as long as the consumer, which the result keeps alive.
        let queue = unsafe { sys::rd_kafka_queue_get_consumer(consumer.client().native_ptr()) };
        if queue.is_null() {
            return None;
        }
        Some(Self {
            native: Arc::new(NativeQueue {
                queue,
                _consumer: Arc::clone(consumer),
            }),
            names: AHashSet::new(),
        })
    }

    pub(super) fn waker(&self) -> Waker {
        Waker(Arc::clone(&self.native))
    }

    /// Waits up to `timeout` for something, then takes what is there, at most `max` items. Returns early when woken.
    pub(super) fn poll(&mut self, timeout: Duration, max: usize, out: &mut Vec<Polled>) {
        let mut wait_ms = millis(timeout);
        for _ in 0..max {
            // SAFETY: the queue is alive as long as `self.native`.
            let event = unsafe { sys::rd_kafka_queue_poll(self.native.queue, wait_ms) };
            if event.is_null() {
                return;
            }
            wait_ms = 0;
            // SAFETY: a non-null event is ours until it is destroyed, which happens once, right after it was read, and
            // nothing that `read` returns points into it.
            unsafe {
                self.read(event, out);
                sys::rd_kafka_event_destroy(event);
            }
        }
    }

    /// SAFETY: `event` must be a live event of this queue.
    unsafe fn read(&mut self, event: *mut sys::rd_kafka_event_t, out: &mut Vec<Polled>) {
        // SAFETY: the event is alive (the caller's promise); messages and strings that belong to it are only read here,
        // before it is destroyed; the topic-partition is ours and is destroyed once.
        unsafe {
            match sys::rd_kafka_event_type(event) {
                sys::RD_KAFKA_EVENT_FETCH => loop {
                    let message = sys::rd_kafka_event_message_next(event);
                    if message.is_null() {
                        break;
                    }
                    out.push(Polled::Record(self.record(message)));
                },
                sys::RD_KAFKA_EVENT_ERROR => {
                    let code = RDKafkaErrorCode::from(sys::rd_kafka_event_error(event));
                    let place = sys::rd_kafka_event_topic_partition(event);
                    if place.is_null() {
                        out.push(Polled::Client(code));
                        return;
                    }
                    let (topic, partition, offset) =
                        (self.name((*place).topic), (*place).partition, (*place).offset);
                    sys::rd_kafka_topic_partition_destroy(place);
                    out.push(if code == RDKafkaErrorCode::PartitionEOF {
                        Polled::End {
                            topic,
                            partition,
                            offset,
                        }
                    } else {
                        Polled::Partition {
                            topic,
                            partition,
                            offset,
                            code,
                        }
                    });
                }
                sys::RD_KAFKA_EVENT_LOG => {
                    let (mut facility, mut line, mut level) = (ptr::null(), ptr::null(), 0);
                    if sys::rd_kafka_event_log(event, &raw mut facility, &raw mut line, &raw mut level) == 0 {
                        let text = |text| CStr::from_ptr(text).to_string_lossy();
                        Context.log(log_level(level), &text(facility), &text(line));
                    }
                }
                sys::RD_KAFKA_EVENT_REBALANCE => {
                    let code = RDKafkaErrorCode::from(sys::rd_kafka_event_error(event));
                    let list = sys::rd_kafka_event_topic_partition_list(event);
                    let mut partitions = Vec::new();
                    if !list.is_null() {
                        for index in 0..usize::try_from((*list).cnt).unwrap_or(0) {
                            let place = (*list).elems.add(index);
                            partitions.push((self.name((*place).topic), (*place).partition));
                        }
                    }
                    out.push(Polled::Rebalance {
                        given: code == RDKafkaErrorCode::AssignPartitions,
                        partitions,
                    });
                }
                sys::RD_KAFKA_EVENT_OFFSET_COMMIT => {
                    let code = RDKafkaErrorCode::from(sys::rd_kafka_event_error(event));
                    if !matches!(code, RDKafkaErrorCode::NoError | RDKafkaErrorCode::NoOffset) {
                        out.push(Polled::Uncommitted(code));
                    }
                }
                // Statistics, token refreshes (OIDC is served in librdkafka's own background thread).
                _ => {}
            }
        }
    }

    /// SAFETY: `message` must be alive.
    unsafe fn record(&mut self, message: *const sys::rd_kafka_message_t) -> RawRecord {
        // SAFETY: the message is alive (the caller's promise), its payload and key are valid for the lengths beside them,
        // its topic handle is valid with it, and its headers stay valid as long as the message is not changed.
        unsafe {
            let message = &*message;
            let topic = self.name(sys::rd_kafka_topic_name(message.rkt));
            let mut time_kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
            let timestamp_ms = sys::rd_kafka_message_timestamp(message, &raw mut time_kind).max(0);
            let key = slice(message.key, message.key_len);
            let value = slice(message.payload, message.len);
            let mut names: Vec<(Box<str>, Option<&[u8]>)> = Vec::new();
            let mut headers = ptr::null_mut();
            if sys::rd_kafka_message_headers(message, &raw mut headers)
                == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
            {
                loop {
                    let (mut name, mut bytes, mut len) = (ptr::null(), ptr::null(), 0);
                    let answer = sys::rd_kafka_header_get_all(
                        headers,
                        names.len(),
                        &raw mut name,
                        &raw mut bytes,
                        &raw mut len,
                    );
                    if answer != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                        break;
                    }
                    names.push((CStr::from_ptr(name).to_string_lossy().into(), slice(bytes, len)));
                }
            }
            let parts = [key, value]
                .into_iter()
                .chain(names.iter().map(|(_, bytes)| *bytes));
            let total = parts.clone().flatten().map(<[u8]>::len).sum();
            // One allocation for all parts of a record.
            let mut copy = Vec::with_capacity(total);
            parts.flatten().for_each(|part| copy.extend_from_slice(part));
            let whole = Bytes::from(copy);
            let mut at = 0;
            let mut take = |part: Option<&[u8]>| {
                part.map(|part| {
                    let start = at;
                    at += part.len();
                    whole.slice(start..at)
                })
            };
            RawRecord {
                topic,
                partition: message.partition,
                offset: message.offset,
                timestamp_ms,
                key: take(key),
                value: take(value),
                bytes: total + names.iter().map(|(name, _)| name.len()).sum::<usize>(),
                headers: names
                    .iter()
                    .map(|(name, bytes)| (name.clone(), take(*bytes)))
                    .collect(),
            }
        }
    }

    /// SAFETY: `name` must be a C string.
    unsafe fn name(&mut self, name: *const std::ffi::c_char) -> Arc<str> {
        // SAFETY: the caller's promise. Kafka's topic names are ASCII.
        let name = unsafe { CStr::from_ptr(name) }.to_string_lossy();
        if let Some(known) = self.names.get(&*name) {
            return Arc::clone(known);
        }
        let name: Arc<str> = Arc::from(&*name);
        self.names.insert(Arc::clone(&name));
        name
    }
}

/// A syslog level.
fn log_level(level: i32) -> RDKafkaLogLevel {
    match level {
        ..=3 => RDKafkaLogLevel::Error,
        4 => RDKafkaLogLevel::Warning,
        5 | 6 => RDKafkaLogLevel::Info,
        _ => RDKafkaLogLevel::Debug,
    }
}

/// SAFETY: `bytes` must be null or valid for `len` bytes for the lifetime that the caller gives the result.
unsafe fn slice<'a>(bytes: *const std::ffi::c_void, len: usize) -> Option<&'a [u8]> {
    // SAFETY: the caller's promise.
    (!bytes.is_null()).then(|| unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), len) })
}

/// A topic as the cluster describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Described {
    /// It exists.
    Topic {
        /// Its 128-bit id; zero where the broker has none (before Kafka 2.8).
        id: u128,
        /// How many partitions.
        partitions: i32,
        /// Those without a leader.
        leaderless: Box<[i32]>,
    },
    /// It does not exist.
    Missing,
    /// The cluster would not say.
    Unclear(RDKafkaErrorCode),
}

/// Describes topics (distinct names) by asking this broker; blocks up to `timeout`. (By default librdkafka would ask the
/// controller, which need not be a broker that can be reached, and which the mock cluster does not have.)
pub(super) fn describe(
    consumer: &BaseConsumer<Context>,
    broker: i32,
    topics: &[Arc<str>],
    timeout: Duration,
) -> Result<Vec<(Arc<str>, Described)>, RDKafkaErrorCode> {
    if topics.is_empty() {
        return Ok(Vec::new());
    }
    let names: Vec<CString> = topics
        .iter()
        .filter_map(|name| CString::new(&**name).ok())
        .collect();
    let mut pointers: Vec<*const std::ffi::c_char> = names.iter().map(|name| name.as_ptr()).collect();
    let client = consumer.client().native_ptr();
    // SAFETY: the client outlives this call; the collection copies the names; the options, the collection, the queue and
    // the event are each destroyed exactly once; results are read before their event is destroyed. A result that comes
    // after the queue was given up is dropped by librdkafka.
    unsafe {
        let options = sys::rd_kafka_AdminOptions_new(
            client,
            sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS,
        );
        sys::rd_kafka_AdminOptions_set_request_timeout(options, millis(timeout).max(1), ptr::null_mut(), 0);
        sys::rd_kafka_AdminOptions_set_broker(options, broker, ptr::null_mut(), 0);
        let collection = sys::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
        let queue = sys::rd_kafka_queue_new(client);
        sys::rd_kafka_DescribeTopics(client, collection, options, queue);
        let event =
            sys::rd_kafka_queue_poll(queue, millis(timeout.saturating_add(Duration::from_millis(500))));
        let answer = if event.is_null() {
            Err(RDKafkaErrorCode::OperationTimedOut)
        } else {
            described(event)
        };
        if !event.is_null() {
            sys::rd_kafka_event_destroy(event);
        }
        sys::rd_kafka_queue_destroy(queue);
        sys::rd_kafka_TopicCollection_destroy(collection);
        sys::rd_kafka_AdminOptions_destroy(options);
        answer
    }
}

/// SAFETY: `event` must be alive.
unsafe fn described(
    event: *mut sys::rd_kafka_event_t,
) -> Result<Vec<(Arc<str>, Described)>, RDKafkaErrorCode> {
    // SAFETY: the event is alive (the caller's promise), and everything read here belongs to it.
    unsafe {
        let error = RDKafkaErrorCode::from(sys::rd_kafka_event_error(event));
        if error != RDKafkaErrorCode::NoError {
            return Err(error);
        }
        let result = sys::rd_kafka_event_DescribeTopics_result(event);
        if result.is_null() {
            return Err(RDKafkaErrorCode::BadMessage);
        }
        let mut count = 0;
        let topics = sys::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        let mut found = Vec::with_capacity(count);
        for index in 0..count {
            let topic = *topics.add(index);
            let name = CStr::from_ptr(sys::rd_kafka_TopicDescription_name(topic)).to_string_lossy();
            let error = sys::rd_kafka_TopicDescription_error(topic);
            let code = if error.is_null() {
                RDKafkaErrorCode::NoError
            } else {
                RDKafkaErrorCode::from(sys::rd_kafka_error_code(error))
            };
            let state = match code {
                RDKafkaErrorCode::NoError => {
                    let id = sys::rd_kafka_TopicDescription_topic_id(topic);
                    let (high, low) = if id.is_null() {
                        (0, 0)
                    } else {
                        (
                            sys::rd_kafka_Uuid_most_significant_bits(id),
                            sys::rd_kafka_Uuid_least_significant_bits(id),
                        )
                    };
                    let mut partitions = 0;
                    let infos = sys::rd_kafka_TopicDescription_partitions(topic, &raw mut partitions);
                    let leaderless = (0..partitions)
                        .map(|index| *infos.add(index))
                        .filter(|info| sys::rd_kafka_TopicPartitionInfo_leader(*info).is_null())
                        .map(|info| sys::rd_kafka_TopicPartitionInfo_partition(info))
                        .collect();
                    Described::Topic {
                        id: (u128::from(high.cast_unsigned()) << 64) | u128::from(low.cast_unsigned()),
                        partitions: i32::try_from(partitions).unwrap_or(i32::MAX),
                        leaderless,
                    }
                }
                RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic => {
                    Described::Missing
                }
                code => Described::Unclear(code),
            };
            found.push((Arc::from(&*name), state));
        }
        Ok(found)
    }
}

/// The end of a partition as this client saw it in its last fetch; no request is made.
pub(super) fn seen_end(consumer: &BaseConsumer<Context>, topic: &str, partition: i32) -> Option<i64> {
    let topic = CString::new(topic).ok()?;
    let (mut low, mut high) = (-1, -1);
    // SAFETY: the client outlives the call, the name is a C string, and both results are valid for writes.
    let code = unsafe {
        sys::rd_kafka_get_watermark_offsets(
            consumer.client().native_ptr(),
            topic.as_ptr(),
            partition,
            &raw mut low,
            &raw mut high,
        )
    };
    (code == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR && high >= 0).then_some(high)
}

fn millis(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}

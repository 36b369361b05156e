//! A Kafka record in, an event or a reason out. Pure: no clock, no network.

use std::sync::Arc;

use bytes::Bytes;
use secrecy::SecretString;

use crate::contract::Stream;
use crate::event::Event;
use crate::ids::{Incarnation, Slot};

/// A record as Kafka gave it, its payload copied.
#[derive(Debug, Clone)]
pub struct Record {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The topic's incarnation.
    pub incarnation: Incarnation,
    /// This node's number for the partition.
    pub slot: Slot,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// The record's timestamp, in milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// The key.
    pub key: Option<Bytes>,
    /// The value; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// The headers in order; a name may occur twice.
    pub headers: Vec<(Box<str>, Option<Bytes>)>,
}

/// Why a record is no event of the stream. Never holds a payload.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {detail}")]
pub struct Rejected {
    /// A stable word: `tenant_missing`, `tenant_duplicate`, `tenant_invalid`, `json_invalid`, `json_duplicate_member`,
    /// `cloudevent_invalid`, `tombstone_tenant_unknown`, `too_large`, ...
    pub reason: &'static str,
    /// What hurt, without data.
    pub detail: String,
}

/// Makes events of one stream's records.
#[derive(Clone)]
pub struct Decoder {
    stream: Arc<Stream>,
}

impl Decoder {
    /// `id_secret` keys the hash of (topic incarnation, partition, offset) that is an event's default id: the same on all
    /// nodes, and it tells a tenant nothing about the others' traffic.
    #[must_use]
    pub fn new(stream: Arc<Stream>, id_secret: &SecretString) -> Self {
        let _ = id_secret;
        Self { stream }
    }

    /// The stream whose records these are.
    #[must_use]
    pub fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }

    /// Decodes one record.
    pub fn decode(&self, record: Record) -> Result<Event, Rejected> {
        todo!("{record:?}")
    }
}

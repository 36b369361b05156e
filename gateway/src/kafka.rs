//! Kafka, on both of its sides: what comes now, and what was before.
//!
//! The only module that knows Kafka. It feeds streams' sequencers and knows nothing of readers.
//!
//! [`source`]: one consumer and its thread (`live`), told what to read by a `steward` that looks at the `topology`, and kept
//! from reading a topic's next life as this one by a `witness`.
//! What a decoder rejects goes to [`dead_letter`]. [`replay`] reads what is older, into `pages` that readers share.
//! [`group`] shares partitions among nodes for what has to be delivered; `logs` answers about logs, `reread` reads a part of one
//! again, `letters` writes, as `control` does, by a producer that tells what is `acknowledged`.
//! [`control`] is the topic of what operators know. [`embedded`] is the broker of the demo. `lookup` asks what is no fetch, at a `desk` of its own. `raw` is the one module with `unsafe`.

mod acknowledged;
mod alive;
mod client;
mod compacted;
pub mod control;
mod dead_letter;
mod desk;
pub mod embedded;
pub(crate) mod group;
pub(crate) mod letters;
mod live;
mod logs;
mod lookup;
mod metrics;
mod orders;
mod outbox;
mod pages;
mod pass;
mod raw;
mod reading;
pub mod replay;
pub(crate) mod reread;
pub mod settings;
pub mod source;
mod steward;
mod topology;
mod witness;

use std::time::Duration;

use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaResult;

pub use control::ControlTopic;
pub(crate) use dead_letter::DeadLetters;
pub(crate) use live::to_decode;
pub(crate) use logs::{Logs, Unavailable};
pub(crate) use raw::RawRecord;
pub use replay::Replay;
pub use settings::{BadProperty, KafkaSettings, PROTECTED_PROPERTIES, ReplaySettings};
pub use source::{PartitionStatus, Source, SourceStatus, StartError};

/// The consumer of a group; nothing is read before it subscribes.
pub(crate) fn group_consumer(
    settings: &KafkaSettings,
    group: &str,
    session_timeout: Duration,
) -> KafkaResult<BaseConsumer<client::Context>> {
    settings
        .group_consumer(group, session_timeout)
        .create_with_context(client::Context)
}

/// What other modules' tests use of the embedded broker's.
#[cfg(test)]
pub(crate) mod testing {
    pub(crate) use super::tests::{Writer, first_dead_letter, settings};
}

#[cfg(test)]
mod tests;

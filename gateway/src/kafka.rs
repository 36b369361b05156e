//! Kafka, on both of its sides: what comes now, and what was before.
//!
//! The only module that knows Kafka. It feeds streams' sequencers and knows nothing of readers.
//!
//! [`source`]: one consumer and its thread (`live`), told what to read by a `steward` that looks at the `topology`, and kept
//! from reading a topic's next life as this one by a `witness`.
//! What a decoder rejects goes to [`dead_letter`]. [`replay`] reads what is older, into `pages` that readers share.
//! [`embedded`] is the broker of the demo. `lookup` asks what is no fetch, at a `desk` of its own. `raw` is the one module with `unsafe`.

mod alive;
mod client;
mod dead_letter;
mod desk;
pub mod embedded;
mod live;
mod lookup;
mod metrics;
mod orders;
mod outbox;
mod pages;
mod pass;
mod raw;
mod reading;
pub mod replay;
pub mod settings;
pub mod source;
mod steward;
mod topology;
mod witness;

pub use replay::Replay;
pub use settings::{BadProperty, KafkaSettings, PROTECTED_PROPERTIES, ReplaySettings};
pub use source::{PartitionStatus, Source, SourceStatus, StartError};

#[cfg(test)]
mod tests;

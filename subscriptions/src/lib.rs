//! The engine. Records come in through a [`sequencer`]; each [`worker`] owns sessions and, per stream, a `shard` of
//! groups; a reader is a position in its group's log. Knows nothing of Kafka, HTTP servers or configuration files.

pub mod close;
pub mod history;
pub mod hub;
pub mod sequencer;

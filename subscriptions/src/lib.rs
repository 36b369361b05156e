//! The engine. Records come in through a [`sequencer`]; each `worker` owns sessions and, per stream, a `shard` of
//! groups; a reader is a position in its group's log. Knows nothing of Kafka, HTTP servers or configuration files.

pub mod close;
mod connection;
pub mod graphql;
mod group;
pub mod history;
pub mod hub;
mod lane;
pub mod layout;
mod metrics;
pub mod needs;
mod outlet;
mod pace;
pub mod protocol;
mod scans;
pub mod sequencer;
mod session;
mod shard;
pub mod view;
mod worker;

#[cfg(test)]
mod tests;

//! What an event is. The bottom of the house: this crate imports nothing of ours, opens no socket and reads no clock.
//!
//! [`contract`] declares streams; [`decode`] turns a Kafka record into an [`event::Event`]; [`filter`] and
//! [`project`] decide which events and which of their fields somebody may get; [`cursor`] seals a position.

pub mod attributes;
pub mod contract;
pub mod cursor;
pub mod decode;
pub mod docs;
pub mod event;
pub mod filter;
#[cfg(test)]
mod fixture;
pub mod graph;
pub mod ids;
pub mod problem;
pub mod project;

//! The harness of the promises: a real Kafka, a running gateway, an issuer, readers on every surface, and an oracle
//! that restates the rules without any of the product's code.
//!
//! Invariant: nothing here waits for a time to pass; everything waits on a condition, up to a deadline that fails the
//! test. It does not know how the gateway works inside: it sees files, processes, sockets and Kafka.

pub mod contract;
pub mod exact;
pub mod gateway;
pub mod graphql;
pub mod http;
pub mod issuer;
pub mod jws;
pub mod kafka;
pub mod leash;
pub mod load;
pub mod node;
pub mod oracle;
pub mod partner;
pub mod plan;
pub mod ports;
pub mod postgres;
pub mod process;
pub mod producer;
pub mod python;
pub mod raw;
pub mod reader;
pub mod receiver;
pub mod router;
pub mod sse;
pub mod topics;
pub mod verifiers;
pub mod volume;
pub mod wait;
pub mod ws;

//! The load generator: many readers, events at a rate, and what that costs the gateway. Beside it, in the same run, what
//! the machine can do at all: bare loops that write the same bytes, and a bare Kafka consumer.

pub mod bare;
pub mod cores;
pub mod graphql;
pub mod payload;
pub mod readers;
pub mod scenario;
pub mod source;
pub mod suite;
pub mod webhooks;

//! The gateway: the only crate that knows Kafka, HTTP serving and configuration files.
//!
//! [`app`] puts the parts together: `build` binds, `serve` lets readers in, `drain` ends. [`config`] is the file that the
//! user writes, [`kafka`] the side that events come from, [`http`] the side that readers come from, [`cli`] the commands
//! of the `tidewire` binary, and [`demo`] everything that `tidewire demo` adds and nothing else uses.

pub mod app;
pub mod cli;
pub mod config;
pub mod demo;
pub mod http;
pub mod kafka;
pub mod shutdown;
pub mod telemetry;
pub mod webhooks;

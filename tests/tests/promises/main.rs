//! What users are promised, tried on a real Apache Kafka and the gateway that users run.
//!
//! One binary, so that all promises share one Kafka. Volumes and seeds: see `tidewire_tests::volume`.

mod configuration;
mod connections;
mod control;
mod cursors;
mod delivery;
mod demo;
mod graphql_audits;
mod graphql_callback;
mod graphql_clients;
mod graphql_federation;
mod graphql_frames;
mod graphql_input;
mod graphql_isolation;
mod harness;
mod ingest;
mod input;
mod isolation;
mod outage;
mod resume;
mod slow;
mod support;
mod surfaces;
mod tokens;
mod topics;
mod webhooks_consent;
mod webhooks_delivery;
mod webhooks_events;
mod webhooks_guard;
mod webhooks_input;
mod webhooks_isolation;
mod webhooks_nodes;
mod webhooks_order;
mod webhooks_retries;
mod webhooks_signatures;
mod webhooks_tls;

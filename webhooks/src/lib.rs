//! Signed outbound webhooks: what is owed to whom, and until it is settled.
//!
//! A live reader is told when it falls behind and comes back with its cursor; a webhook receiver cannot be asked to, so its
//! deliveries are kept until they succeed. That difference is why this crate stands beside `subscriptions` and not in it.
//! It knows no Kafka, serves no HTTP and reads no configuration file: the gateway gives it events and takes its commits.
//!
//! The way of an event: [`matching`] says to which endpoints it is owed; [`plan`] whose turn it is; [`render`] and [`sign`]
//! make the request; [`retry`] and [`breaker`] say what follows; [`ledger`] knows which offsets are settled by it. All of
//! these decide and do nothing. [`store`] keeps endpoints and what could not be delivered at once. [`scheduler`] owns queues,
//! breakers and attempts, [`attempt`] is one POST; what both need of the world beyond this crate the gateway gives them.
//!
//! Invariants:
//!
//! - An offset is committed only when everything owed for it, and for each offset before it, is delivered, parked durably or
//!   dropped on record ([`ledger`]).
//! - The id of a delivery is the same on every node, retry, resend and replay ([`delivery`]).
//! - An event goes out only where the owner's grant, compiled anew, shows it; what is hidden cannot be learnt by filtering
//!   ([`matching`]). What goes out is what [`schemas::event::Event::encode`] writes under that grant ([`render`]).
//! - Nobody is called sooner than the schedule and the receiver said ([`retry`]), nor while the breaker is open
//!   ([`breaker`]).
//! - What is parked is sealed with its tenant's key and leased to one node at a time; parking twice is parking once
//!   ([`store`]).
//! - No secret of an endpoint is shown, printed or stored in the clear ([`endpoint`]).
//! - What a receiver is sent is one list of headers and a body that the signatures cover; it is called through
//!   [`auth::egress`] only, under one deadline, and its answer's body is left if it is long or drips ([`attempt`]).
//! - What is neither over nor parked after two seconds is parked, under way or not: no receiver holds a partition. Of one
//!   order key only one delivery is on its way ([`scheduler`]).
//! - No tenant's receivers take what others need to start: queues are bounded per endpoint, places per tenant ([`plan`]).

pub mod attempt;
pub mod breaker;
mod codec;
pub mod delivery;
pub mod endpoint;
pub mod filter;
#[cfg(test)]
mod fixture;
pub mod ledger;
pub mod matching;
mod payload;
pub mod plan;
pub mod render;
pub mod retry;
pub mod scheduler;
pub mod sign;
pub mod store;

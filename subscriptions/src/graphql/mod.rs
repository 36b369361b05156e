//! GraphQL operations: a request in, a stream, a filter and a [`Projection`] out; an event in, finished bytes out.
//!
//! One invariant: a projection reads an event only through its mask, so that what is hidden reads as absent, whatever the
//! operation asks for. Knows nothing of transports: protocols put the bytes into their frames.

mod cache;
mod compile;
mod error;
mod finished;
mod interner;
mod leaf;
mod limits;
mod measure;
mod operation;
mod path;
mod persisted;
mod plan;
mod projection;
mod request;
mod schema;
mod validator;
mod value;
mod variables;
mod weight;

#[cfg(test)]
mod tests;

pub use error::{Extensions, GraphqlError, Location, Refused};
pub use finished::Finished;
pub use limits::{Limits, Options, Persisted};
pub use projection::Projection;
pub use request::{Bound, OperationKind, Prepared, Request};
pub(crate) use schema::check_requires;
pub use schema::{BadSchema, Schema};

//! GraphQL operations: a request in, a stream, a filter and a [`Projection`] out; an event in, finished bytes out.
//!
//! One invariant: a projection reads an event only through its mask, so that what is hidden reads as absent, whatever the
//! operation asks for. Knows nothing of transports: protocols put the bytes into their frames.

mod error;
mod limits;
mod projection;
mod request;
mod schema;

pub use error::{ERRORS_MAX, Extensions, GraphqlError, Location, Refused, Segment};
pub use limits::{Limits, Options, Persisted};
pub use projection::Projection;
pub use request::{Bound, OperationKind, Prepared, Request};
pub use schema::{BadSchema, Schema};

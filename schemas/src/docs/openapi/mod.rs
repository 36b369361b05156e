//! The HTTP API as an OpenAPI 3.1 document, and the table of its routes.
//!
//! Invariants: a route is served if and only if it stands in [`ROUTES`]; the gateway builds its router from that table. What
//! is written of a stream is what its declaration and the reader's grant say. It does not know tokens, grants and handlers.

mod components;
mod delivery;
mod document;
mod operations;
mod routes;
#[cfg(test)]
mod tests;

pub use delivery::{DELIVERY_HEADERS, DeliveryHeader};
pub use document::{Document, Shown};
pub use operations::{Access, Answer, Body, Of, Operation, Parameter, Place, Route};
pub use routes::ROUTES;

/// Asked for by what only looks at webhooks.
pub const READ_SCOPE: &str = "webhooks:read";

/// Asked for by what changes webhooks, or has something sent.
pub const WRITE_SCOPE: &str = "webhooks:write";

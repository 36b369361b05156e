//! Who asks, and what they may get. Knows events and contracts, and nothing of connections.
//!
//! [`token`] turns a JWT into a [`token::Principal`]; [`access`] turns a stream's rules and a principal into a
//! [`access::Grant`], the one type that decides on every path.

pub mod access;
pub mod clock;
pub mod token;

//! Who asks, and what they may get. Knows events and contracts, and nothing of connections.
//!
//! [`token`] turns a JWT into a [`token::Principal`]; [`access`] turns a stream's rules and a principal into a
//! [`access::Grant`], the one type that decides on every path. [`control`] is what operators know of readers beside their
//! tokens: revocations, and consent that was withdrawn. [`ticket`] stands in for a token where a browser cannot
//! send one, [`quota`] counts connections, [`egress`] is the only way out to the network.

pub mod access;
mod address;
mod claims;
pub mod clock;
pub mod control;
pub mod dev;
pub mod egress;
mod header;
pub mod issuer;
mod keyring;
mod keys;
pub mod quota;
pub mod reason;
pub mod scope;
pub mod seal;
mod strict;
#[cfg(test)]
mod testing;
pub mod ticket;
pub mod token;

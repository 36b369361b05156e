//! The HTTP surface, by what it promises: requests against the router, and connections against a real listener.

mod browsers;
mod connections;
mod control;
mod graphql;
mod leaving;
mod operations;
mod requests;
mod rig;
mod webhooks;

//! The REST API of webhooks, by what it promises, over the routers, the embedded broker and SQLite.

mod calls;
mod documents;
mod endpoints;
mod house;
mod log;
mod refused;
mod replays;

//! The engine under paused time, with a Kafka made of vectors: every order of events that matters can be forced.

mod control;
mod graphql;
mod moved;
mod pace;
mod property;
mod resume;
mod rig;
mod scans;
mod sessions;
mod slow;

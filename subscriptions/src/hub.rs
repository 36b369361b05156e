//! The engine's front door: what a server calls.

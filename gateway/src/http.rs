//! The public surface and the operations listener, over HTTP.
//!
//! Thin handlers over plain structs; decisions are made below.

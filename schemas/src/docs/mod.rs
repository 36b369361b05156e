//! Documents that are derived from a contract, for people and for other programs.

pub mod openapi;
pub mod sdl;

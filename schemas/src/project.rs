//! Views of a body: a checked JSON document over its own bytes, and the field masks that decide what of it is shown.
//!
//! A [`Document`] keeps the producer's bytes (numbers and strings stay as they were written, `1.00` stays `1.00`) and
//! an index over them. Emitting copies slices and drops white space, so the output never has a line break.

mod document;
mod mask;
mod pointer;
mod scan;
mod text;

pub use document::{BadDocument, Document};
pub use mask::Mask;
pub use pointer::Pointer;
pub(crate) use text::plain_run;

//! Views of a body: a checked JSON document over its own bytes, and the field masks that decide what of it is shown.
//!
//! A [`Document`] keeps the producer's bytes (numbers and strings stay as they were written, `1.00` stays `1.00`) and
//! an index over them. Emitting copies slices and drops white space, so the output never has a line break. A [`Seen`] is
//! a document under a mask: whoever has one in hand reaches nothing that is hidden.

mod document;
mod mask;
mod names;
mod pointer;
mod scan;
mod seen;
mod text;

pub use document::{BadDocument, Document};
pub use mask::Mask;
pub use names::Names;
pub use pointer::Pointer;
pub use seen::{Picked, Seen, Shape, Sight};
pub(crate) use text::plain_run;

//! Where in the response an error is. Built on the stack; written only when something is wrong.

use super::plan::Key;

/// A place in the response.
#[derive(Clone, Copy)]
pub(super) enum Path<'a> {
    /// The operation.
    Root,
    /// A field of a place.
    Field(&'a Path<'a>, &'a Key),
    /// An element of a place.
    Index(&'a Path<'a>, usize),
}

impl Path<'_> {
    /// Appends `["a",0]`.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.push(b'[');
        self.write_steps(out);
        out.push(b']');
    }

    /// Appends `"a",0`.
    pub(super) fn write_steps(&self, out: &mut Vec<u8>) {
        let above = match self {
            Self::Root => return,
            Self::Field(above, _) | Self::Index(above, _) => above,
        };
        above.write_steps(out);
        if !matches!(above, Path::Root) {
            out.push(b',');
        }
        match self {
            Self::Root => {}
            Self::Field(_, key) => out.extend_from_slice(key.quoted()),
            Self::Index(_, index) => out.extend_from_slice(index.to_string().as_bytes()),
        }
    }
}

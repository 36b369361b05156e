//! The chunks of an HTTP/1.1 body whose length nobody knows (RFC 9112, section 7.1). Pure: appends to bytes.
//!
//! Invariant: none is empty, because an empty one is the end.

use std::io::Write as _;

/// What ends a body that is whole.
pub const LAST: &[u8] = b"0\r\n\r\n";

/// Room for the longest head: 16 digits and a line break.
const HEAD_BYTES_MAX: usize = 18;

/// Appends what `render` appends, as one chunk; nothing, if that is nothing.
pub fn chunk(out: &mut Vec<u8>, render: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    // The head is as long as its number: it is known when the content is.
    out.extend_from_slice(&[0; HEAD_BYTES_MAX]);
    let content = out.len();
    render(out);
    let length = out.len() - content;
    if length == 0 {
        return out.truncate(start);
    }
    let mut head = [0; HEAD_BYTES_MAX];
    let mut left = &mut head[..];
    let written = write!(left, "{length:x}\r\n");
    debug_assert!(written.is_ok(), "a number has at most 16 digits");
    let head_bytes = HEAD_BYTES_MAX - left.len();
    out[start..start + head_bytes].copy_from_slice(&head[..head_bytes]);
    out.copy_within(content.., start + head_bytes);
    out.truncate(start + head_bytes + length);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks(pieces: &[&[u8]]) -> Vec<u8> {
        let mut out = b"before".to_vec();
        for piece in pieces {
            chunk(&mut out, |out| out.extend_from_slice(piece));
        }
        out
    }

    #[test]
    fn a_chunk_says_its_length_in_hexadecimal_digits_without_leading_zeros() {
        assert_eq!(chunks(&[b"id: 1\n\n"]), b"before7\r\nid: 1\n\n\r\n");
        let large = [b'x'; 700];
        let out = chunks(&[&large, b"y"]);
        assert!(out.starts_with(b"before2bc\r\nxx"));
        assert!(out.ends_with(b"xx\r\n1\r\ny\r\n"));
        assert_eq!(out.len(), 6 + 5 + 700 + 2 + 6);
    }

    #[test]
    fn what_is_nothing_is_no_chunk_because_an_empty_one_is_the_end() {
        assert_eq!(chunks(&[b"", b"a", b""]), b"before1\r\na\r\n");
    }
}

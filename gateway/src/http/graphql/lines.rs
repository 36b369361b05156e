//! Chunks in, lines out.

use std::collections::VecDeque;

/// Lines of bytes that come in chunks of any size. What it holds is bounded by the chunks that are pushed before their
/// lines are taken, and by the longest line.
#[derive(Debug, Default)]
pub(super) struct Lines {
    whole: VecDeque<Vec<u8>>,
    rest: Vec<u8>,
}

impl Lines {
    /// Takes a chunk.
    pub(super) fn push(&mut self, chunk: &[u8]) {
        let mut pieces = chunk.split(|byte| *byte == b'\n').peekable();
        while let Some(piece) = pieces.next() {
            self.rest.extend_from_slice(piece);
            if pieces.peek().is_some() {
                self.whole.push_back(std::mem::take(&mut self.rest));
            }
        }
    }

    /// The next whole line, without its end.
    pub(super) fn next(&mut self) -> Option<Vec<u8>> {
        self.whole.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_out_whole_however_they_were_cut() {
        let text = b"{\"a\":1}\n{\"b\":2}\n\nlast\n";
        for size in 1..=text.len() {
            let mut lines = Lines::default();
            let mut found = Vec::new();
            for chunk in text.chunks(size) {
                lines.push(chunk);
                while let Some(line) = lines.next() {
                    found.push(String::from_utf8(line).expect("text"));
                }
            }
            assert_eq!(found, ["{\"a\":1}", "{\"b\":2}", "", "last"], "{size}");
        }
        let mut lines = Lines::default();
        lines.push(b"unfinished");
        assert_eq!(lines.next(), None);
    }
}

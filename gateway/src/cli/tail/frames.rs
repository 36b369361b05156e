//! Server-sent events, taken from chunks that may end anywhere (the HTML standard, "Server-sent events").

/// The longest line, in bytes.
const LINE_BYTES_MAX: usize = 32 << 20;

/// One event, or an `id:` alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Frame {
    /// `event:`.
    pub(super) event: Option<String>,
    /// `id:`.
    pub(super) id: Option<String>,
    /// The `data:` lines, joined.
    pub(super) data: String,
}

/// Collects chunks, gives frames.
#[derive(Debug, Default)]
pub(super) struct Frames {
    bytes: Vec<u8>,
    /// Everything before is taken.
    taken: usize,
    /// Nothing ends before here.
    searched: usize,
    draft: Frame,
}

impl Frames {
    /// Adds what came.
    pub(super) fn push(&mut self, chunk: &[u8]) {
        self.bytes.drain(..self.taken);
        self.searched -= self.taken;
        self.taken = 0;
        self.bytes.extend_from_slice(chunk);
    }

    /// The next frame that is whole.
    pub(super) fn next(&mut self) -> Option<Frame> {
        while let Some(line) = self.line() {
            if line.is_empty() {
                let frame = std::mem::take(&mut self.draft);
                if frame != Frame::default() {
                    return Some(frame);
                }
                continue;
            }
            self.field(&line);
        }
        None
    }

    /// Whether a line is longer than any that is expected.
    pub(super) fn is_too_large(&self) -> bool {
        self.bytes.len() - self.taken > LINE_BYTES_MAX
    }

    fn line(&mut self) -> Option<String> {
        let end = self
            .bytes
            .iter()
            .skip(self.searched)
            .position(|byte| *byte == b'\n')
            .map(|at| at + self.searched);
        let Some(end) = end else {
            self.searched = self.bytes.len();
            return None;
        };
        let line = self.bytes.get(self.taken..end).unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let line = String::from_utf8_lossy(line).into_owned();
        self.taken = end + 1;
        self.searched = self.taken;
        Some(line)
    }

    fn field(&mut self, line: &str) {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "event" => self.draft.event = Some(value.to_owned()),
            "id" if !value.contains('\0') => self.draft.id = Some(value.to_owned()),
            "data" => {
                if !self.draft.data.is_empty() {
                    self.draft.data.push('\n');
                }
                self.draft.data.push_str(value);
            }
            // Comments, `retry`, and what is not known.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = ": hello\nretry: 1000\n\nid: c0\n\nid: c1\ndata: {\"a\":\"é\"}\n\nevent: gap\r\nid: c2\r\ndata:{}\r\ndata: x\r\n\r\nid: c3\ndata: cut";

    fn frames(text: &[u8], size: usize) -> Vec<Frame> {
        let mut frames = Frames::default();
        let mut found = Vec::new();
        for chunk in text.chunks(size) {
            frames.push(chunk);
            while let Some(frame) = frames.next() {
                found.push(frame);
            }
        }
        found
    }

    #[test]
    fn frames_are_the_same_however_the_bytes_are_cut() {
        let frame = |event: Option<&str>, id: &str, data: &str| Frame {
            event: event.map(str::to_owned),
            id: Some(id.to_owned()),
            data: data.to_owned(),
        };
        let wanted = [
            frame(None, "c0", ""),
            frame(None, "c1", "{\"a\":\"é\"}"),
            frame(Some("gap"), "c2", "{}\nx"),
        ];
        for size in 1..=TEXT.len() {
            assert_eq!(frames(TEXT.as_bytes(), size), wanted, "{size}");
        }
    }

    #[test]
    fn a_frame_that_was_cut_off_is_not_given() {
        assert_eq!(frames(b"id: c1\ndata: half\n", 7), []);
    }

    #[test]
    fn a_line_without_end_is_noticed() {
        let mut frames = Frames::default();
        frames.push(&vec![b'x'; LINE_BYTES_MAX + 1]);
        assert_eq!(frames.next(), None);
        assert!(frames.is_too_large());
    }
}

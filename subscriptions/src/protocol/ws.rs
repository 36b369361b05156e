//! WebSocket frames (RFC 6455): what a client sends, taken apart under limits, and the heads of what we send.
//!
//! Between messages a reader holds no buffer: an idle connection costs nothing here.

use std::io::Cursor;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// The largest payload of a control frame (RFC 6455, section 5.5).
const CONTROL_BYTES_MAX: u64 = 125;

/// What a client sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// A whole text message.
    Text(String),
    /// A ping, to be answered with its payload.
    Ping(Vec<u8>),
    /// A pong.
    Pong,
    /// The closing handshake, with its code.
    Close(Option<u16>),
}

/// Why a connection cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// A message is larger than the limit.
    #[error("a message is larger than the limit")]
    TooLarge,
    /// The bytes break RFC 6455.
    #[error("{0}")]
    Protocol(&'static str),
    /// A text message is not UTF-8.
    #[error("a text message is not UTF-8")]
    NotUtf8,
    /// A binary message: `tidewire.v1` is text.
    #[error("binary messages are not understood")]
    Binary,
}

/// Takes a client's bytes apart.
#[derive(Debug)]
pub struct Reader {
    buffer: Vec<u8>,
    fragments: Option<Vec<u8>>,
    message_bytes_max: usize,
}

impl Reader {
    /// A reader of messages up to this size.
    #[must_use]
    pub fn new(message_bytes_max: usize) -> Self {
        Self {
            buffer: Vec::new(),
            fragments: None,
            message_bytes_max,
        }
    }

    /// Adds bytes. Never holds more than one message and what came with it: [`Reader::read`] is called until it has no
    /// more before more bytes are read from a socket.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether anything that was fed has not been read.
    #[must_use]
    pub fn holds_some(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// The next whole message, if it is there.
    pub fn read(&mut self) -> Result<Option<Incoming>, Broken> {
        loop {
            let mut cursor = Cursor::new(self.buffer.as_slice());
            let parsed = FrameHeader::parse(&mut cursor)
                .map_err(|_| Broken::Protocol("a frame's head is not valid"))?;
            let Some((header, length)) = parsed else {
                self.let_go();
                return Ok(None);
            };
            let Some(mask) = header.mask else {
                return Err(Broken::Protocol("a client's frame is not masked"));
            };
            if header.rsv1 || header.rsv2 || header.rsv3 {
                return Err(Broken::Protocol("a reserved bit is set"));
            }
            let control = matches!(header.opcode, OpCode::Control(_));
            if control && (length > CONTROL_BYTES_MAX || !header.is_final) {
                return Err(Broken::Protocol("a control frame is too long or fragmented"));
            }
            let so_far = self.fragments.as_ref().map_or(0, Vec::len) as u64;
            if !control && so_far.saturating_add(length) > self.message_bytes_max as u64 {
                return Err(Broken::TooLarge);
            }
            let start = usize::try_from(cursor.position()).unwrap_or(usize::MAX);
            let end = start.saturating_add(usize::try_from(length).unwrap_or(usize::MAX));
            if self.buffer.len() < end {
                return Ok(None);
            }
            let mut payload: Vec<u8> = self.buffer[start..end].to_vec();
            for (place, byte) in payload.iter_mut().enumerate() {
                *byte ^= mask[place % 4];
            }
            self.buffer.drain(..end);
            if let Some(message) = self.frame(header.opcode, header.is_final, payload)? {
                self.let_go();
                return Ok(Some(message));
            }
        }
    }

    fn frame(
        &mut self,
        opcode: OpCode,
        is_final: bool,
        payload: Vec<u8>,
    ) -> Result<Option<Incoming>, Broken> {
        match opcode {
            OpCode::Control(Control::Ping) => Ok(Some(Incoming::Ping(payload))),
            OpCode::Control(Control::Pong) => Ok(Some(Incoming::Pong)),
            OpCode::Control(Control::Close) => match payload.as_slice() {
                [] => Ok(Some(Incoming::Close(None))),
                [_] => Err(Broken::Protocol("a close frame has one byte")),
                // Codes that must not be sent (RFC 6455, section 7.4), or that nobody has defined a use for.
                [high, low, ..] => match u16::from_be_bytes([*high, *low]) {
                    0..=999 | 1004..=1006 | 1015..=2999 | 5000.. => {
                        Err(Broken::Protocol("a close code is reserved"))
                    }
                    code => Ok(Some(Incoming::Close(Some(code)))),
                },
            },
            OpCode::Control(Control::Reserved(_)) | OpCode::Data(Data::Reserved(_)) => {
                Err(Broken::Protocol("an opcode is reserved"))
            }
            OpCode::Data(Data::Binary) => Err(Broken::Binary),
            OpCode::Data(Data::Text) => {
                if self.fragments.is_some() {
                    return Err(Broken::Protocol("a message begins within another"));
                }
                if is_final {
                    return text(payload).map(Some);
                }
                self.fragments = Some(payload);
                Ok(None)
            }
            OpCode::Data(Data::Continue) => {
                let Some(mut message) = self.fragments.take() else {
                    return Err(Broken::Protocol("a continuation has no beginning"));
                };
                message.extend_from_slice(&payload);
                if is_final {
                    return text(message).map(Some);
                }
                self.fragments = Some(message);
                Ok(None)
            }
        }
    }

    /// Gives the buffer's memory back when it is empty.
    fn let_go(&mut self) {
        if self.buffer.is_empty() {
            self.buffer = Vec::new();
        }
    }
}

fn text(payload: Vec<u8>) -> Result<Incoming, Broken> {
    String::from_utf8(payload)
        .map(Incoming::Text)
        .map_err(|_| Broken::NotUtf8)
}

const FINAL_TEXT: u8 = 0x81;
const FINAL_CLOSE: u8 = 0x88;
const FINAL_PING: u8 = 0x89;
const FINAL_PONG: u8 = 0x8A;

/// Appends the head of an unmasked text frame.
pub fn text_head(length: usize, out: &mut Vec<u8>) {
    head(FINAL_TEXT, length, out);
}

/// Appends a text frame.
pub fn text_frame(text: &str, out: &mut Vec<u8>) {
    text_head(text.len(), out);
    out.extend_from_slice(text.as_bytes());
}

/// Appends a ping without payload.
pub fn ping(out: &mut Vec<u8>) {
    head(FINAL_PING, 0, out);
}

/// Appends a pong.
pub fn pong(payload: &[u8], out: &mut Vec<u8>) {
    head(FINAL_PONG, payload.len(), out);
    out.extend_from_slice(payload);
}

/// Appends a close frame. `reason` is ASCII and short.
pub fn close(code: u16, reason: &str, out: &mut Vec<u8>) {
    head(FINAL_CLOSE, reason.len() + 2, out);
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(reason.as_bytes());
}

fn head(first: u8, length: usize, out: &mut Vec<u8>) {
    out.push(first);
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short), _) if short <= 125 => out.push(short),
        (_, Ok(medium)) => {
            out.push(126);
            out.extend_from_slice(&medium.to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [1_u8, 2, 3, 4];
        let mut out = Vec::new();
        head(first, payload.len(), &mut out);
        out[1] |= 0x80;
        out.extend_from_slice(&mask);
        out.extend(
            payload
                .iter()
                .enumerate()
                .map(|(place, byte)| byte ^ mask[place % 4]),
        );
        out
    }

    #[test]
    fn a_message_is_read_however_its_bytes_arrive() {
        let mut bytes = masked(0x01, b"{\"ty");
        bytes.extend(masked(0x89, b"hey"));
        bytes.extend(masked(0x80, b"pe\":1}"));
        bytes.extend(masked(0x81, &[b'x'; 300]));
        for step in 1..bytes.len() {
            let mut reader = Reader::new(1000);
            let mut got = Vec::new();
            for chunk in bytes.chunks(step) {
                reader.feed(chunk);
                while let Some(message) = reader.read().unwrap() {
                    got.push(message);
                }
            }
            assert_eq!(
                got,
                [
                    Incoming::Ping(b"hey".to_vec()),
                    Incoming::Text("{\"type\":1}".to_owned()),
                    Incoming::Text("x".repeat(300)),
                ]
            );
            assert_eq!(reader.buffer.capacity(), 0);
        }
    }

    #[test]
    fn what_breaks_the_protocol_is_refused() {
        let cases: &[(Vec<u8>, Broken)] = &[
            (
                vec![0x81, 0x01, b'x'],
                Broken::Protocol("a client's frame is not masked"),
            ),
            (masked(0xC1, b"x"), Broken::Protocol("a reserved bit is set")),
            (
                masked(0x80, b"x"),
                Broken::Protocol("a continuation has no beginning"),
            ),
            (
                masked(0x09, b"x"),
                Broken::Protocol("a control frame is too long or fragmented"),
            ),
            (
                masked(0x89, &[0; 126]),
                Broken::Protocol("a control frame is too long or fragmented"),
            ),
            (masked(0x88, &[3]), Broken::Protocol("a close frame has one byte")),
            (
                masked(0x88, &1005_u16.to_be_bytes()),
                Broken::Protocol("a close code is reserved"),
            ),
            (masked(0x82, b"x"), Broken::Binary),
            (masked(0x81, &[0xff]), Broken::NotUtf8),
            (masked(0x81, &[b'x'; 101]), Broken::TooLarge),
            (
                [masked(0x01, &[b'x'; 60]), masked(0x80, &[b'x'; 60])].concat(),
                Broken::TooLarge,
            ),
        ];
        for (bytes, expected) in cases {
            let mut reader = Reader::new(100);
            reader.feed(bytes);
            assert_eq!(reader.read(), Err(*expected));
        }
    }

    #[test]
    fn an_announced_giant_is_refused_before_its_bytes_arrive() {
        let mut reader = Reader::new(100);
        reader.feed(&[0x81, 0xFF, 0, 0, 1, 0, 0, 0, 0, 0, 1, 2, 3, 4]);
        assert_eq!(reader.read(), Err(Broken::TooLarge));
    }
}

//! A WebSocket client's bytes: frames, and the messages in them.

#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use subscriptions::protocol::v1;
use subscriptions::protocol::ws::{Broken, Incoming, Reader};

/// Small, so that the limit is met.
const MESSAGE_BYTES_MAX: usize = 512;

#[derive(Debug, Arbitrary)]
struct Case<'a> {
    cuts: Vec<u8>,
    /// Frames as a client makes them.
    frames: Vec<(u8, &'a [u8])>,
    /// Whatever else.
    rest: &'a [u8],
}

fuzz_target!(|case: Case<'_>| {
    let mut bytes = Vec::new();
    for (head, payload) in &case.frames {
        frame(*head, payload, &mut bytes);
    }
    bytes.extend_from_slice(case.rest);

    let whole = read(std::iter::once(bytes.as_slice()));
    let mut rest = bytes.as_slice();
    let mut pieces = Vec::new();
    for cut in case.cuts {
        let (piece, after) = rest.split_at(usize::from(cut).min(rest.len()));
        pieces.push(piece);
        rest = after;
    }
    pieces.push(rest);
    assert_eq!(
        whole,
        read(pieces.into_iter()),
        "the cuts between reads make no difference"
    );

    for message in whole.0 {
        if let Incoming::Text(text) = message {
            assert!(text.len() <= MESSAGE_BYTES_MAX);
            let _ = v1::parse(&text);
        }
    }
    if let Ok(text) = std::str::from_utf8(case.rest) {
        let _ = v1::parse(text);
    }
});

fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Incoming>, Option<Broken>) {
    let mut reader = Reader::new(MESSAGE_BYTES_MAX);
    let mut messages = Vec::new();
    for piece in pieces {
        reader.feed(piece);
        loop {
            match reader.read() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(broken) => return (messages, Some(broken)),
            }
        }
    }
    (messages, None)
}

fn frame(head: u8, payload: &[u8], out: &mut Vec<u8>) {
    const MASK: [u8; 4] = [1, 2, 3, 4];
    out.push(head);
    match payload.len() {
        length @ 0..=125 => out.push(0x80 | u8::try_from(length).expect("short")),
        length => {
            out.push(0x80 | 126);
            out.extend_from_slice(&u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
        }
    }
    out.extend_from_slice(&MASK);
    out.extend(
        payload
            .iter()
            .zip(MASK.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
}

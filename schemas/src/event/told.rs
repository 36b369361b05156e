//! To whom an event is told: a JSON text, or whatever else is made of attributes and data.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use super::json;
use crate::project::{Document, Mask};

/// What an event shows under a mask is told to this, by [`Event::tell`](super::Event::tell) and by nothing else.
pub trait Told {
    /// A context attribute. Its name needs no escapes. `specversion` is not told: it is always `1.0`.
    fn attribute(&mut self, name: &str, value: &str);
    /// The data, which comes last, and its media type.
    fn data(&mut self, content_type: &str, data: Shown<'_>);
}

/// The data of an event, as far as it is shown.
#[derive(Debug, Clone, Copy)]
pub enum Shown<'a> {
    /// JSON, of which this mask hides something. It may hide everything: then nothing was told.
    Json(&'a Document, &'a Mask),
    /// Bytes of another media type, all of them.
    Binary(&'a Bytes),
}

/// A CloudEvents JSON object that is being written.
#[derive(Debug)]
pub struct Structured<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Structured<'a> {
    /// Begins behind what is there.
    pub fn begin(out: &'a mut Vec<u8>) -> Self {
        out.extend_from_slice(br#"{"specversion":"1.0""#);
        Self { out }
    }

    /// Ends the object.
    pub fn end(self) {
        self.out.push(b'}');
    }
}

impl Told for Structured<'_> {
    fn attribute(&mut self, name: &str, value: &str) {
        json::member(name, value, self.out);
    }

    fn data(&mut self, content_type: &str, data: Shown<'_>) {
        let before = self.out.len();
        json::member("datacontenttype", content_type, self.out);
        match data {
            Shown::Json(document, mask) => {
                self.out.extend_from_slice(br#","data":"#);
                if !document.write(mask, self.out) {
                    self.out.truncate(before);
                }
            }
            Shown::Binary(bytes) => {
                self.out.extend_from_slice(br#","data_base64":""#);
                self.out.extend_from_slice(STANDARD.encode(bytes).as_bytes());
                self.out.push(b'"');
            }
        }
    }
}

//! Small things as bytes, for what is kept in the store as a whole: numbers in network order, texts with their length.
//!
//! One invariant: what was written is read back the same, and bytes that end too soon are refused, never read beyond.

use std::sync::Arc;

use bytes::Bytes;

/// Bytes that are none of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("what is stored cannot be read")]
pub(crate) struct BadBytes;

/// Kafka's messages are far smaller than 4 GiB.
pub(crate) fn length(length: usize) -> u32 {
    u32::try_from(length).expect("codec: what is kept is smaller than 4 GiB")
}

/// A byte that says whether there is anything, its length, and it.
pub(crate) fn some(value: Option<&[u8]>, out: &mut Vec<u8>) {
    match value {
        None => out.push(0),
        Some(value) => {
            out.push(1);
            out.extend_from_slice(&length(value.len()).to_be_bytes());
            out.extend_from_slice(value);
        }
    }
}

/// What is left to be read.
pub(crate) struct Input {
    bytes: Bytes,
}

impl Input {
    pub(crate) fn new(bytes: Bytes) -> Self {
        Self { bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) fn take(&mut self, length: usize) -> Result<Bytes, BadBytes> {
        if length > self.bytes.len() {
            return Err(BadBytes);
        }
        Ok(self.bytes.split_to(length))
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], BadBytes> {
        self.take(N)?.as_ref().try_into().map_err(|_| BadBytes)
    }

    pub(crate) fn some(&mut self) -> Result<Option<Bytes>, BadBytes> {
        match self.array::<1>()? {
            [0] => Ok(None),
            [1] => {
                let length = u32::from_be_bytes(self.array()?);
                let length = usize::try_from(length).map_err(|_| BadBytes)?;
                self.take(length).map(Some)
            }
            _ => Err(BadBytes),
        }
    }

    pub(crate) fn text(&mut self) -> Result<Arc<str>, BadBytes> {
        let bytes = self.some()?.ok_or(BadBytes)?;
        std::str::from_utf8(&bytes).map(Arc::from).map_err(|_| BadBytes)
    }
}

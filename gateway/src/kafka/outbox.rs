//! What waits for one stream's sequencer. The channel is bounded; what does not fit waits here, in order, and beyond a
//! bound the stream's partitions are to be paused.
//!
//! Invariant: nothing is reordered and nothing is dropped, except after the sequencer is gone.

use std::collections::VecDeque;

use subscriptions::sequencer::{Input, InputSender};
use tokio::sync::mpsc::error::TrySendError;

/// One librdkafka fetch is at most a megabyte a partition; this is a handful of them.
const BYTES_MAX: usize = 8 << 20;

/// See the module.
#[derive(Debug)]
pub(super) struct Outbox {
    sender: Option<InputSender>,
    waiting: VecDeque<(usize, Input)>,
    bytes: usize,
}

impl Outbox {
    pub(super) fn new(sender: InputSender) -> Self {
        Self {
            sender: Some(sender),
            waiting: VecDeque::new(),
            bytes: 0,
        }
    }

    pub(super) fn push(&mut self, input: Input) {
        if self.sender.is_none() {
            return;
        }
        let bytes = match &input {
            Input::Records { events, .. } => events.iter().map(|event| event.bytes).sum(),
            _ => 64,
        };
        self.bytes += bytes;
        self.waiting.push_back((bytes, input));
        self.flush();
    }

    /// Sends what the channel takes now.
    pub(super) fn flush(&mut self) {
        let Some(sender) = &self.sender else { return };
        while let Some((bytes, input)) = self.waiting.pop_front() {
            match sender.try_send(input) {
                Ok(()) => self.bytes -= bytes,
                Err(TrySendError::Full(input)) => {
                    self.waiting.push_front((bytes, input));
                    return;
                }
                Err(TrySendError::Closed(_)) => {
                    self.sender = None;
                    self.waiting.clear();
                    self.bytes = 0;
                    return;
                }
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether the stream's partitions should wait.
    pub(super) fn is_over(&self) -> bool {
        self.bytes > BYTES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_the_channel_does_not_take_waits_in_order() {
        let (sender, mut inputs) = tokio::sync::mpsc::channel(1);
        let mut outbox = Outbox::new(sender);
        for fresh in [true, false, true] {
            outbox.push(Input::Fresh(fresh));
        }
        assert!(!outbox.is_empty());
        for fresh in [true, false, true] {
            assert!(matches!(inputs.recv().await, Some(Input::Fresh(got)) if got == fresh));
            outbox.flush();
        }
        assert!(outbox.is_empty());
        assert_eq!(outbox.bytes, 0);
    }

    #[test]
    fn a_sequencer_that_is_gone_holds_nothing() {
        let (sender, inputs) = tokio::sync::mpsc::channel(1);
        drop(inputs);
        let mut outbox = Outbox::new(sender);
        outbox.push(Input::Resting);
        outbox.push(Input::Resting);
        assert!(outbox.is_empty());
    }
}

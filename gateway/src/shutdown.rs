//! The signals that end a process. The first asks for a drain, the second ends at once.
//!
//! Knows nothing of what is drained.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Listens for SIGTERM and SIGINT from its creation on: a signal in between is not lost.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

/// A signal that asked the process to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// Its name.
    pub name: &'static str,
    /// The exit code of a process that this signal ended: 128 and its number.
    pub exit_code: u8,
}

impl Signals {
    /// Starts to listen.
    ///
    /// # Errors
    ///
    /// The system does not let handlers be registered.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// The next signal. Cancel safe.
    pub async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked { name: "SIGTERM", exit_code: 143 },
            _ = self.interrupt.recv() => Asked { name: "SIGINT", exit_code: 130 },
        }
    }
}

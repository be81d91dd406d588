//! Signals: what stops the process, and what it does at somebody's word.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that this process listens to.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    user_1: Signal,
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// To stop, by the signal with this name.
    Stop(&'static str),
    /// SIGHUP: to read the configuration again.
    Reload,
    /// SIGUSR1: to open the event log anew.
    Reopen,
}

impl Signals {
    /// Begins to listen. Needs a runtime with I/O.
    ///
    /// # Errors
    /// When a handler cannot be installed.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            user_1: signal(SignalKind::user_defined1())?,
        })
    }

    /// Waits for the next one.
    pub async fn next(&mut self) -> Wish {
        tokio::select! {
            _ = self.terminate.recv() => Wish::Stop("SIGTERM"),
            _ = self.interrupt.recv() => Wish::Stop("SIGINT"),
            _ = self.hangup.recv() => Wish::Reload,
            _ = self.user_1.recv() => Wish::Reopen,
        }
    }

    /// Waits for SIGTERM or SIGINT and names it; what else comes is too late.
    pub async fn stop(&mut self) -> &'static str {
        loop {
            if let Wish::Stop(by) = self.next().await {
                return by;
            }
        }
    }
}

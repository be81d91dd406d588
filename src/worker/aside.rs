//! What few connections have and all others do without, so that these stay small: what a slow one has
//! beside its outbox, what one has missed, and what makes one a stream of server-sent events. A connection without it is a
//! WebSocket that is written to on the short way.

use super::event_stream::EventStream;
use super::replay::Replays;
use crate::ws::{Backlog, Lag};

/// What a connection keeps aside.
#[derive(Debug, Default)]
pub struct Aside {
    /// Since when its outbox waits for the socket.
    pub lag: Lag,
    /// Events that may go if it takes too long.
    pub backlog: Backlog,
    /// What it has missed and not been sent yet.
    pub replays: Replays,
    /// What it is instead of a WebSocket.
    pub stream: Option<EventStream>,
}

impl Aside {
    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.stream.is_none()
            && self.replays.is_empty()
            && self.backlog.is_empty()
            && self.lag.deadline_ms() == u64::MAX
    }

    /// The connection ends: nothing more is sent that waits here.
    pub fn abandon(&mut self) {
        self.lag.clear();
        self.backlog = Backlog::default();
        self.replays = Replays::default();
    }
}

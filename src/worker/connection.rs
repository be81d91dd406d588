//! One upgraded socket as its worker keeps it.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::Waker;

use super::aside::Aside;
use super::mailbox::Load;
use super::stream::Stream;
use crate::admission::Permit;
use crate::limits::QUEUE_SHARE;
use crate::metrics::WorkerCounters;
use crate::protocol::Close;
use crate::session::{Answer, Session};
use crate::ws::{Dialogue, Frame, Outbox};

/// A call that a session waits for.
pub type CallInFlight = Pin<Box<dyn Future<Output = Answer>>>;

/// The permits that a connection holds as long as it lives: node, address, user.
pub type Permits = [Option<Permit>; 3];

/// One upgraded socket.
pub struct Connection {
    /// The socket.
    pub stream: Stream,
    /// What the protocol has to remember of it.
    pub dialogue: Dialogue,
    /// What waits to be written.
    pub outbox: Outbox,
    /// The client, unless it was refused.
    pub session: Option<Session>,
    /// The session's call. `Some` exactly while the session is busy.
    pub call: Option<CallInFlight>,
    /// Input that came while the session was busy.
    pub unread: Option<Vec<u8>>,
    /// Wakes the connection's task.
    pub waker: Option<Waker>,
    /// Where in its life it is.
    pub life: Life,
    /// Whether and how it waits for a write.
    pub flow: Flow,
    /// What a slow one has beside its outbox; with something in it, it is `Dirty` or `Blocked`.
    pub aside: Option<Box<Aside>>,
    /// Tells it from an earlier connection in the same slot; also the number in its name.
    pub serial: u64,
    /// The earliest entry for it in the worker's deadlines; `u64::MAX` without one.
    pub scheduled_ms: u64,
    /// When it was adopted, in milliseconds since 1970.
    pub opened_at: u64,
    /// The client's address, as admission saw it.
    pub address: IpAddr,
    /// Released with the connection.
    pub permits: Permits,
    /// Released with the connection, too.
    pub load: Load,
}

/// Where in its life a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// Messages are read and events are sent.
    Open,
    /// A close frame was queued; what the peer still sends is thrown away.
    Closing {
        /// Ours, or `None` if the peer began.
        close: Option<Close>,
        /// When patience ends, in monotonic milliseconds.
        until_ms: u64,
        /// Whether the peer has said that it closes, too.
        agreed: bool,
        /// Whether our half of the TCP connection was shut down.
        shut: bool,
    },
    /// To be removed by its task.
    Gone {
        /// Why.
        why: Gone,
    },
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gone {
    /// By the closing handshake: our reason, or `None` if the peer began.
    Closed(Option<Close>),
    /// The socket failed or ended without one.
    Lost,
    /// A ping was not answered.
    Silent,
    /// A fault of ours: its task panicked.
    Fault,
}

/// Whether a connection waits for a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// The outbox is empty, and all that was in it is the kernel's.
    Clean,
    /// It is in the worker's dirty list.
    Dirty,
    /// The kernel takes no more; the task waits for writability.
    Blocked,
}

/// What one flush came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flushed {
    /// Everything is written.
    Empty,
    /// The kernel took a part or nothing.
    Blocked,
    /// The socket failed.
    Failed,
}

impl Connection {
    /// When something is due for it, in monotonic milliseconds.
    pub fn deadline_ms(&self) -> u64 {
        match self.life {
            Life::Gone { .. } => u64::MAX,
            Life::Closing { until_ms, .. } => until_ms,
            Life::Open => {
                let session = self.session.as_ref().map_or(u64::MAX, Session::deadline_ms);
                match &self.aside {
                    Some(aside) if self.flow == Flow::Blocked => {
                        session.min(aside.lag.deadline_ms())
                    }
                    _ => session,
                }
            }
        }
    }

    /// Whether so much waits for it that what it asks next may wait, too. Then it is not read, and the
    /// kernel tells its peer to stop sending.
    pub fn is_behind(&self, queue_bytes: usize) -> bool {
        self.life == Life::Open && self.outbox.bytes() > queue_bytes / QUEUE_SHARE
    }

    /// Whether anything may be said to its peer.
    pub fn may_send(&self) -> bool {
        self.life == Life::Open && self.dialogue.may_send()
    }

    /// Queues a frame; `false` if the bound is reached. Then what waits is written first, so that a
    /// burst within one turn counts only against a client that does not read.
    pub fn queue(
        &mut self,
        frame: &Frame,
        bytes_max: usize,
        scratch: &mut Vec<u8>,
        counters: &WorkerCounters,
    ) -> bool {
        if self.outbox.push(frame, bytes_max).is_ok() {
            return true;
        }
        // What is wrong with the socket shows again when the turn ends.
        let _ = self.flush(scratch, counters);
        self.outbox.push(frame, bytes_max).is_ok()
    }

    /// Writes what waits, with as few calls as it takes.
    pub fn flush(&mut self, scratch: &mut Vec<u8>, counters: &WorkerCounters) -> Flushed {
        let waited = self.outbox.bytes();
        let flushed = self.write(scratch, counters);
        if let Some(aside) = &mut self.aside {
            aside.lag.taken(waited - self.outbox.bytes());
        }
        flushed
    }

    fn write(&mut self, scratch: &mut Vec<u8>, counters: &WorkerCounters) -> Flushed {
        use crate::limits::{WRITE_ALONE_BYTES, WRITE_BYTES};
        while !self.outbox.is_empty() {
            let bytes = match self.outbox.first(WRITE_ALONE_BYTES) {
                Some(first) => first,
                None => {
                    scratch.clear();
                    self.outbox.copy_to(scratch, WRITE_BYTES);
                    &*scratch
                }
            };
            match self.stream.try_write(bytes) {
                Ok(0) => return Flushed::Failed,
                Ok(written) => {
                    self.outbox.consume(written);
                    counters.writes.increment();
                    counters.sent_bytes.add(written as u64);
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    return Flushed::Blocked;
                }
                Err(_) => return Flushed::Failed,
            }
        }
        match self.stream.flush() {
            Ok(()) => Flushed::Empty,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Flushed::Blocked,
            Err(_) => Flushed::Failed,
        }
    }

    /// Ends it; its task will remove it.
    pub fn gone(&mut self, why: Gone) {
        if !matches!(self.life, Life::Gone { .. }) {
            self.life = Life::Gone { why };
            self.call = None;
            self.unread = None;
        }
        self.wake();
    }

    /// Has its task look at it.
    pub fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }
}

impl Gone {
    /// For the event log.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Closed(Some(close)) => close.reason(),
            Self::Closed(None) => "closed by client",
            Self::Lost => "connection lost",
            Self::Silent => "no pong",
            Self::Fault => "internal error",
        }
    }

    /// The close code that was sent, if any.
    pub fn code(self) -> Option<u16> {
        match self {
            Self::Closed(Some(close)) => Some(close.code()),
            _ => None,
        }
    }
}

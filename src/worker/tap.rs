//! What an operator watches of a worker: the frames of one user, channel or connection, without what they say.
//! How frames come here is in `sight`.
//!
//! Whoever watches must never slow down what is watched: a frame that does not fit into the queue of a tap is
//! counted and forgotten.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;

use crate::protocol::ChannelKey;
use crate::protocol::shape::Shape;

/// Frames that wait for who watches; some hundred bytes each.
const WAITING_FRAMES: usize = 1_024;

/// Whose frames are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Watched {
    /// Of every connection of this user.
    User(Arc<str>),
    /// What is about this channel, of all connections.
    Channel(ChannelKey),
    /// Of the connection with this number.
    Connection(u64),
}

/// The worker's end.
#[derive(Debug, Clone)]
pub struct Tap {
    pub(super) watched: Watched,
    pub(super) frames: mpsc::Sender<Seen>,
    pub(super) dropped: Arc<AtomicU64>,
}

/// The end of who watches. Dropping it ends the tap.
#[derive(Debug)]
pub struct Tapped {
    /// In the order in which each worker saw them.
    pub frames: mpsc::Receiver<Seen>,
    dropped: Arc<AtomicU64>,
}

/// A frame that passed.
#[derive(Debug, Clone)]
pub struct Seen {
    /// In milliseconds since 1970.
    pub unix_ms: u64,
    /// The connection's number.
    pub serial: u64,
    /// Whose it is; `None` if it was refused.
    pub user_id: Option<Arc<str>>,
    /// Which way.
    pub way: Way,
    /// `text`, `binary`, `ping`, `pong` or `close`.
    pub frame: &'static str,
    /// Its payload.
    pub bytes: usize,
    /// What is shown of it; nothing of those that hold no message.
    pub shape: Option<Arc<Shape>>,
}

/// Which way a frame went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the client.
    In,
    /// To the client: it was queued for it.
    Out,
}

/// A tap and its other end.
pub fn tap(watched: Watched) -> (Tap, Tapped) {
    let (frames, received) = mpsc::channel(WAITING_FRAMES);
    let dropped = Arc::<AtomicU64>::default();
    let tap = Tap {
        watched,
        frames,
        dropped: dropped.clone(),
    };
    let tapped = Tapped {
        frames: received,
        dropped,
    };
    (tap, tapped)
}

impl Tapped {
    /// Frames that did not fit, so far.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

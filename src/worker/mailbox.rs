//! What other threads say to a worker.
//!
//! Two lanes. The control lane holds what must not be lost; it is bounded by what it is about: a
//! message per accepted socket (bounded by file descriptors), one per request of a backend that waits
//! for its answer (bounded by the same), and a handful for the life of the process. The event lane is bounded in events and bytes; an event that does not fit is a gap, which
//! the worker's members of that channel are told of, and never blocks the publisher.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::{Notify, oneshot};

use crate::admission::Permit;
use crate::limits::{LANE_BYTES_MAX, LANE_EVENTS_MAX};
use crate::protocol::{ChannelKey, Position};
use crate::session::Terms;
use crate::trace::Passage;
use crate::worker::tap::Tap;

/// What must reach a worker.
#[derive(Debug)]
pub enum Control {
    /// A socket to serve.
    Accept(Accepted),
    /// Go by these terms from now on.
    Terms(Arc<Terms>),
    /// Show what passes to who watches.
    Watch {
        /// To whom.
        tap: Tap,
        /// That it has begun.
        reply: oneshot::Sender<()>,
    },
    /// The node stops: tell everybody.
    Drain(Farewell),
    /// Nobody new comes in any more: end with the last socket.
    Finish,
    /// Name open connections.
    List {
        /// Which.
        wanted: Wanted,
        /// For the page.
        reply: oneshot::Sender<Vec<Listed>>,
    },
    /// Close open connections.
    Disconnect {
        /// Which.
        whom: Whom,
        /// For the clients, beside the reason.
        message: Option<Arc<str>>,
        /// For how many there were.
        reply: oneshot::Sender<usize>,
    },
    /// Say that this was come to.
    Probe(std::sync::mpsc::SyncSender<()>),
    /// Drop everything now.
    Stop,
}

/// How a node that stops sends its clients away.
#[derive(Debug, Clone, Copy)]
pub struct Farewell {
    /// By when all of them are told, one after the other, in monotonic milliseconds.
    pub told_ms: u64,
    /// From when somebody takes those who come back, in monotonic milliseconds.
    pub back_ms: u64,
    /// Over how many milliseconds they come.
    pub spread_ms: u64,
}

/// Which connections are meant.
#[derive(Debug, Clone)]
pub enum Whom {
    /// All.
    Everybody,
    /// Those of this user.
    User(Arc<str>),
    /// The one with this number.
    Connection(u64),
    /// Those that fit all of these; what is empty fits everybody.
    Like {
        /// A part of the user's id.
        user: Arc<str>,
        /// How the client's address begins.
        address: Arc<str>,
        /// The key of a channel that it follows.
        channel: Arc<str>,
    },
}

/// Which page of connections.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Of these.
    pub whom: Whom,
    /// Only those with a larger number.
    pub after: u64,
    /// The first so many by their numbers.
    pub limit: usize,
}

/// An open connection.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    /// The number in its name.
    pub serial: u64,
    /// Whose it is.
    pub user_id: Arc<str>,
    /// The client's address.
    pub address: IpAddr,
    /// In milliseconds since 1970.
    pub opened_at: u64,
    /// Whether it is a stream of server-sent events, and no WebSocket.
    pub is_stream: bool,
    /// Subscriptions that were acknowledged.
    pub channels: usize,
}

/// A socket on its way to a worker.
#[derive(Debug)]
pub struct Accepted {
    /// Non-blocking.
    pub stream: TcpStream,
    /// Its other end.
    pub peer: SocketAddr,
    /// Counts it as the worker's.
    pub load: Load,
    /// Its address's leave to hold a socket that is no WebSocket; trusted proxies need none.
    pub permit: Option<Permit>,
}

/// One socket that a worker serves, from the accept to its end, however that comes about.
#[derive(Debug)]
#[must_use = "dropping it says that the socket is gone"]
pub struct Load(Arc<Shared>);

impl Drop for Load {
    fn drop(&mut self) {
        self.0.load.fetch_sub(1, Ordering::Relaxed);
        // A worker that drains waits for the last one.
        self.0.wake.notify_one();
    }
}

/// An event for a worker's members.
#[derive(Debug)]
pub struct Posted {
    /// The channel.
    pub channel: ChannelKey,
    /// Its place in the channel's history.
    pub position: Option<Position>,
    /// The encoded frame, shared by all workers.
    pub frame: Bytes,
    /// Of what is traced.
    pub passage: Option<Arc<Passage>>,
    /// [`crate::broker::Delivery::since_ns`]
    pub since_ns: u64,
}

/// The senders' end.
#[derive(Debug)]
pub struct Mailbox {
    control: flume::Sender<Control>,
    events: flume::Sender<Posted>,
    shared: Arc<Shared>,
}

/// The worker's end.
#[derive(Debug)]
pub struct Inbound {
    /// The control lane.
    pub control: flume::Receiver<Control>,
    events: flume::Receiver<Posted>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    wake: Notify,
    /// Bytes of the frames in the event lane.
    queued_bytes: AtomicUsize,
    /// Channels of which an event did not fit. Bounded by the channels that the worker follows.
    gaps: Mutex<HashSet<ChannelKey>>,
    /// Whether `gaps` has anything in it.
    gap_count: AtomicUsize,
    /// Tokens were revoked: some sockets may have to be closed.
    recheck: AtomicBool,
    /// Sockets that the worker serves.
    load: AtomicUsize,
}

/// A mailbox and the worker's end of it.
pub fn mailbox() -> (Mailbox, Inbound) {
    let (control_tx, control_rx) = flume::unbounded();
    let (events_tx, events_rx) = flume::bounded(LANE_EVENTS_MAX);
    let shared = Arc::new(Shared::default());
    (
        Mailbox {
            control: control_tx,
            events: events_tx,
            shared: shared.clone(),
        },
        Inbound {
            control: control_rx,
            events: events_rx,
            shared,
        },
    )
}

impl Mailbox {
    /// Hands a message to the worker; gives it back if the worker has ended.
    pub fn control(&self, message: Control) -> Result<(), Control> {
        self.control
            .send(message)
            .map_err(|flume::SendError(message)| message)?;
        self.shared.wake.notify_one();
        Ok(())
    }

    /// Posts an event; `false` if it did not fit and became a gap.
    pub fn post(&self, posted: Posted) -> bool {
        let bytes = posted.frame.len();
        let queued = self.shared.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        let refused = if queued + bytes > LANE_BYTES_MAX {
            Some(posted.channel)
        } else {
            match self.events.try_send(posted) {
                Ok(()) => None,
                Err(error) => Some(error.into_inner().channel),
            }
        };
        let fits = refused.is_none();
        if let Some(channel) = refused {
            self.shared.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.gap(channel);
        }
        self.shared.wake.notify_one();
        fits
    }

    /// Tells the worker that events of a channel were lost.
    pub fn gap(&self, channel: ChannelKey) {
        let mut gaps = self
            .shared
            .gaps
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        gaps.insert(channel);
        self.shared.gap_count.store(gaps.len(), Ordering::Release);
        drop(gaps);
        self.shared.wake.notify_one();
    }

    /// Has the worker close the sockets whose tokens are revoked.
    pub fn recheck(&self) {
        self.shared.recheck.store(true, Ordering::Release);
        self.shared.wake.notify_one();
    }

    /// Has the worker take a turn soon.
    pub fn wake(&self) {
        self.shared.wake.notify_one();
    }

    /// Events that wait.
    pub fn depth(&self) -> usize {
        self.events.len()
    }

    /// How full the event lane is, in percent of what it takes before there are gaps.
    pub fn percent_full(&self) -> f64 {
        let bytes = self.shared.queued_bytes.load(Ordering::Relaxed);
        let share = |value: usize, most: usize| value as f64 * 100.0 / most as f64;
        share(self.depth(), LANE_EVENTS_MAX).max(share(bytes, LANE_BYTES_MAX))
    }

    /// Sockets that the worker serves.
    pub fn load(&self) -> usize {
        self.shared.load.load(Ordering::Relaxed)
    }

    /// Counts a socket that is about to be handed over, so that the next choice knows of it.
    pub fn add_load(&self) -> Load {
        self.shared.load.fetch_add(1, Ordering::Relaxed);
        Load(self.shared.clone())
    }
}

impl Inbound {
    /// Waits until something may be there. Wakes of the past count.
    pub async fn woken(&self) {
        self.shared.wake.notified().await;
    }

    /// Has the worker take another turn soon.
    pub fn wake(&self) {
        self.shared.wake.notify_one();
    }

    /// The next event.
    pub fn event(&self) -> Option<Posted> {
        let posted = self.events.try_recv().ok()?;
        self.shared
            .queued_bytes
            .fetch_sub(posted.frame.len(), Ordering::Relaxed);
        Some(posted)
    }

    /// Whether an event waits.
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// Whether tokens were revoked since this was asked last.
    pub fn takes_recheck(&self) -> bool {
        self.shared.recheck.load(Ordering::Relaxed)
            && self.shared.recheck.swap(false, Ordering::Acquire)
    }

    /// Takes the channels that lost events.
    pub fn gaps(&self) -> HashSet<ChannelKey> {
        if self.shared.gap_count.load(Ordering::Acquire) == 0 {
            return HashSet::new();
        }
        let mut gaps = self
            .shared
            .gaps
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        self.shared.gap_count.store(0, Ordering::Release);
        std::mem::take(&mut *gaps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn posted(bytes: usize) -> Posted {
        Posted {
            channel: ChannelKey::parse("post_1", 255).unwrap(),
            position: None,
            frame: Bytes::from(vec![0; bytes]),
            passage: None,
            since_ns: 0,
        }
    }

    #[test]
    fn an_event_lane_full_of_events_makes_gaps_and_recovers() {
        let (mailbox, inbound) = mailbox();
        for _ in 0..LANE_EVENTS_MAX {
            assert!(mailbox.post(posted(1)));
        }
        assert!(!mailbox.post(posted(1)));
        assert!(!mailbox.post(posted(1)));
        assert_eq!(inbound.gaps().len(), 1);
        assert!(inbound.gaps().is_empty());
        assert!(inbound.event().is_some());
        assert!(mailbox.post(posted(1)));
    }

    #[test]
    fn an_event_lane_is_bounded_in_bytes_as_well() {
        let (mailbox, inbound) = mailbox();
        let half = LANE_BYTES_MAX / 2;
        assert!(mailbox.post(posted(half)));
        assert!((49.9..=50.0).contains(&mailbox.percent_full()));
        assert!(mailbox.post(posted(half)));
        assert!(!mailbox.post(posted(1)));
        inbound.event().unwrap();
        assert!(mailbox.post(posted(half)));
    }

    #[test]
    fn control_is_never_refused_while_the_worker_lives() {
        let (mailbox, inbound) = mailbox();
        for _ in 0..100_000 {
            mailbox.control(Control::Stop).unwrap();
        }
        assert_eq!(inbound.control.len(), 100_000);
        drop(inbound);
        assert!(mailbox.control(Control::Stop).is_err());
    }
}

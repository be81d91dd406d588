//! Which channels this node follows, from which server, and what is due for each.
//!
//! Behind one lock that is never held while waiting, and that callers of the broker never take: they
//! send orders, which are carried out in the order in which they were given.

use std::collections::{HashMap, HashSet};

use tokio::sync::oneshot;

use super::line::Line;
use super::{Redis, lock};
use crate::broker::Error;
use crate::protocol::ChannelKey;

/// What callers ask for.
pub(super) enum Order {
    /// To hear a channel, and to be told when it is heard.
    Follow(ChannelKey, oneshot::Sender<Result<(), Error>>),
    /// To hear it no more.
    Leave(ChannelKey, oneshot::Sender<Result<(), Error>>),
}

/// Channels that are followed.
#[derive(Default)]
pub(super) struct Followed {
    pub(super) channels: HashMap<ChannelKey, Entry>,
    /// The server that notices are heard from.
    pub(super) notices: Option<u64>,
    /// Channels that need something done.
    pub(super) due: HashSet<ChannelKey>,
}

pub(super) struct Entry {
    pub(super) line: Line,
    pub(super) is_wanted: bool,
    /// The server that it is heard from, or asked of.
    pub(super) server: Option<u64>,
    /// Whether that server has confirmed it.
    pub(super) is_heard: bool,
    waiting: Vec<oneshot::Sender<Result<(), Error>>>,
}

impl Followed {
    /// Whether notices of all nodes are heard from `server`.
    pub(super) fn hears_notices(&self, server: u64) -> bool {
        self.notices == Some(server)
    }
}

impl Entry {
    pub(super) fn answer(&mut self, answer: Result<(), Error>) {
        for waiting in self.waiting.drain(..) {
            let _ = waiting.send(answer.clone());
        }
    }
}

impl Redis {
    pub(super) fn obey(&self, order: Order) {
        let mut followed = lock(&self.followed);
        match order {
            Order::Follow(channel, waiting) => {
                let line_slot = self.line_slot(&channel);
                let server = self.hearing().server(line_slot).map(|server| server.id);
                let keeps = (self.keeps_history)(&channel);
                let entry = followed
                    .channels
                    .entry(channel.clone())
                    .or_insert_with(|| Entry {
                        line: Line::new(keeps),
                        is_wanted: true,
                        server: None,
                        is_heard: false,
                        waiting: Vec::new(),
                    });
                entry.is_wanted = true;
                match server {
                    Err(error) => drop(waiting.send(Err(error))),
                    Ok(server) if entry.is_heard && entry.server == Some(server) => {
                        drop(waiting.send(Ok(())));
                        return;
                    }
                    Ok(_) => entry.waiting.push(waiting),
                }
                followed.due.insert(channel);
            }
            Order::Leave(channel, waiting) => {
                if let Some(entry) = followed.channels.get_mut(&channel) {
                    entry.is_wanted = false;
                    followed.due.insert(channel);
                }
                drop(waiting.send(Ok(())));
            }
        }
    }

    /// Finds out what is not heard from where it should be.
    pub(super) fn look_at_routes(&self) {
        let mut followed = lock(&self.followed);
        let Followed { channels, due, .. } = &mut *followed;
        for (channel, entry) in channels {
            let server = self.hearing().server(self.line_slot(channel)).ok();
            let server = server.map(|server| server.id);
            if entry.server.is_some() && entry.server != server {
                if entry.is_heard {
                    entry.line.interrupt();
                }
                entry.server = None;
                entry.is_heard = false;
            }
            if entry.server.is_none() {
                due.insert(channel.clone());
            }
            if server.is_none() {
                for waiting in entry.waiting.drain(..) {
                    let _ = waiting.send(Err(Error::Unavailable));
                }
            }
        }
    }

    /// Where pub/sub has a Redis of its own, another server of the data may mean other epochs.
    pub(super) fn data_moved(&self) {
        if self.pubsub.is_some() {
            let mut followed = lock(&self.followed);
            let Followed { channels, due, .. } = &mut *followed;
            for (channel, entry) in channels {
                if entry.line.keeps() && entry.is_heard {
                    entry.line.interrupt();
                    due.insert(channel.clone());
                }
            }
        }
    }

    /// Messages were lost on the way, nobody knows of which channel.
    pub(super) fn interrupt_all(&self) {
        tracing::warn!("Redis sends faster than this node takes: events were passed over");
        if let Some(sink) = self.sink() {
            sink.notices_lost();
        }
        let mut followed = lock(&self.followed);
        let Followed { channels, due, .. } = &mut *followed;
        for (channel, entry) in channels {
            if entry.is_heard {
                entry.line.interrupt();
                due.insert(channel.clone());
            }
        }
    }

    /// A channel that nobody wants and nobody is asked for any more.
    pub(super) fn forget_unwanted(&self, channel: &ChannelKey) {
        let mut followed = lock(&self.followed);
        if followed
            .channels
            .get(channel)
            .is_none_or(|entry| !entry.is_wanted)
        {
            followed.channels.remove(channel);
            followed.due.remove(channel);
        }
    }
}

//! Missed events, page by page: the first comes with the answer to `subscribe`, each other one when the
//! socket has taken enough of those before. Meanwhile nothing is held back for the member, because what
//! comes by is read from the history in its turn; so a long replay takes no more memory than a page.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::calls::entry_bytes;
use super::channels::{Activated, Slot};
use super::connection::{Connection, Life};
use super::event_stream::Addressed;
use super::{State, Worker};
use crate::broker::{Broker, Error};
use crate::clock::Moment;
use crate::event_log::without_token;
use crate::limits::{CALL_TIMEOUT_MS, QUEUE_SHARE, REPLAY_BYTES, REPLAY_EVENTS_MAX};
use crate::protocol::history::{Entry, Recovery, Unrecoverable};
use crate::protocol::{ChannelKey, Close, Position};
use crate::ws::Frame;
use crate::ws::frame::event_text;

/// The replays of a connection, a page of each in turn.
#[derive(Default)]
pub struct Replays {
    waiting: VecDeque<Replay>,
    /// The next page of the first one.
    reading: Option<Reading>,
}

type Reading = Pin<Box<dyn Future<Output = Result<Recovery, Error>>>>;

/// A member that has not had all it missed.
struct Replay {
    channel: ChannelKey,
    /// The last event that was sent.
    at: Position,
}

impl std::fmt::Debug for Replays {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} replays", self.waiting.len())
    }
}

impl Replays {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// A channel was left.
    pub fn forget(&mut self, key: &ChannelKey) {
        if self.waiting.front().is_some_and(|one| one.channel == *key) {
            self.reading = None;
        }
        self.waiting.retain(|one| one.channel != *key);
    }

    /// Where the client stands in a channel that is being replayed.
    pub fn standing(&self, key: &ChannelKey) -> Option<Position> {
        let replay = self.waiting.iter().find(|one| one.channel == *key);
        replay.map(|one| one.at.clone())
    }
}

/// What came after `since`, as [`Broker::recover`], but no more than a page: so many events and bytes,
/// one at least. It is the last page if its last event is at the position beside it.
pub async fn page(
    broker: &dyn Broker,
    channel: &ChannelKey,
    since: &Position,
    bytes_max: usize,
) -> Result<Recovery, Error> {
    let position = broker.position(channel).await?;
    if since.epoch != position.epoch || since.offset > position.offset {
        if since.offset > 0 {
            let missed = Err(Unrecoverable::EpochChanged);
            return Ok(Recovery { position, missed });
        }
        // The broker may know that nothing was there before it.
        let recovery = broker.recover(channel, since).await?;
        return Ok(match recovery.missed {
            Ok(missed) => fitting(channel, recovery.position, missed, bytes_max),
            Err(_) => recovery,
        });
    }
    let count = (position.offset - since.offset).min(REPLAY_EVENTS_MAX as u64);
    if count == 0 {
        let missed = Ok(Vec::new());
        return Ok(Recovery { position, missed });
    }
    let end = since.offset + count + 1;
    let (position, entries) = broker.history(channel, Some(end), count as usize).await?;
    let is_whole = position.epoch == since.epoch
        && entries.len() as u64 == count
        && entries[0].offset == since.offset + 1;
    let (position, entries) = if is_whole {
        (position, entries)
    } else {
        // The reason; or all of it after all, if it can be had in no other way.
        let recovery = broker.recover(channel, since).await?;
        match recovery.missed {
            Ok(entries) => (recovery.position, entries),
            Err(_) => return Ok(recovery),
        }
    };
    Ok(fitting(channel, position, entries, bytes_max))
}

/// The first ones of what was missed, as many as a page has.
fn fitting(
    channel: &ChannelKey,
    position: Position,
    mut entries: Vec<Entry>,
    bytes_max: usize,
) -> Recovery {
    let mut bytes = 0;
    let fitting = entries.iter().take(REPLAY_EVENTS_MAX).take_while(|entry| {
        bytes += entry_bytes(entry, channel);
        bytes <= bytes_max
    });
    let fitting = fitting.count().max(1);
    entries.truncate(fitting);
    let missed = Ok(entries);
    Recovery { position, missed }
}

impl Worker {
    /// Sends a page of what a member has missed, which begins right after where it stood. If it is the
    /// last one, what was held back follows, then live events.
    pub(super) fn send_page(
        &self,
        state: &mut State,
        slot: Slot,
        channel: &ChannelKey,
        position: Option<Position>,
        missed: &[Entry],
        now: Moment,
    ) {
        let mut at = None;
        for entry in missed {
            at = position.as_ref().map(|position| Position {
                epoch: position.epoch.clone(),
                offset: entry.offset,
            });
            let text = event_text(channel, &entry.event, at.as_ref());
            let frame = Frame::text(&text);
            let event = Addressed::new(channel, at.as_ref(), &frame);
            self.send_event(state, slot, &event, now);
        }
        let activated = match at {
            Some(at) if Some(&at) != position.as_ref() => {
                let connection = &mut state.connections[slot as usize];
                if connection.life == Life::Open {
                    let replays = &mut connection.aside.get_or_insert_default().replays;
                    replays.waiting.push_back(Replay {
                        channel: channel.clone(),
                        at,
                    });
                    connection.wake();
                }
                state.channels.postpone(channel, slot)
            }
            _ => state.channels.activate(channel, slot, position),
        };
        match activated {
            Activated::Held(held) => {
                for (at, frame) in held {
                    let event = Addressed::new(channel, at.as_ref(), &frame);
                    self.send_event(state, slot, &event, now);
                }
            }
            Activated::Lost => self.close(state, slot, Close::Resync, now),
        }
    }

    /// Goes on with a connection's first replay; whether a page was sent.
    pub(super) fn replay(
        &self,
        state: &mut State,
        slot: Slot,
        context: &mut Context<'_>,
        now: Moment,
    ) -> bool {
        let bytes_max = REPLAY_BYTES.min(state.terms.limits.queue_bytes / QUEUE_SHARE);
        let Some(replays) = replays(&mut state.connections[slot as usize]) else {
            return false;
        };
        let Some(first) = replays.waiting.front() else {
            return false;
        };
        let channel = first.channel.clone();
        let reading = replays.reading.get_or_insert_with(|| {
            // From now on live events are held back again: this may be the last page.
            state.channels.resume(&channel, slot);
            let (channel, at) = (channel.clone(), first.at.clone());
            let broker = Arc::clone(&self.outfit.services.broker);
            Box::pin(async move {
                let limit = Duration::from_millis(CALL_TIMEOUT_MS);
                let page = page(&*broker, &channel, &at, bytes_max);
                let page = tokio::time::timeout(limit, page).await;
                page.unwrap_or(Err(Error::Unavailable))
            })
        });
        let Poll::Ready(page) = reading.as_mut().poll(context) else {
            return false;
        };
        replays.reading = None;
        replays.waiting.pop_front();
        match page {
            Ok(Recovery {
                position,
                missed: Ok(missed),
            }) => self.send_page(state, slot, &channel, Some(position), &missed, now),
            // It was promised, and is not there any more; or nobody knows.
            Ok(_) => self.close(state, slot, Close::Resync, now),
            Err(error) => {
                let channel = without_token(channel.as_str());
                tracing::warn!(%error, %channel, "a replay could not go on");
                self.close(state, slot, Close::Resync, now);
            }
        }
        let connection = &mut state.connections[slot as usize];
        if connection
            .aside
            .as_ref()
            .is_some_and(|aside| aside.is_empty())
        {
            connection.aside = None;
        }
        true
    }
}

fn replays(connection: &mut Connection) -> Option<&mut Replays> {
    if connection.life != Life::Open {
        return None;
    }
    Some(&mut connection.aside.as_mut()?.replays)
}

//! Shows frames that pass to who watches. Without anybody, a turn pays one comparison an event, and a delivery
//! nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::channels::Slot;
use super::connection::Connection;
use super::tap::{Seen, Tap, Watched, Way};
use super::{State, Worker};
use crate::clock::Moment;
use crate::protocol::ChannelKey;
use crate::protocol::shape::{Shape, shape};
use crate::ws::Frame;

/// A frame on its way, looked into at most once for all that watch.
struct Passing<'a> {
    text: Option<&'a str>,
    frame: &'static str,
    bytes: usize,
    way: Way,
    /// Whose it is, of a command: it may name a channel of the user's by its type alone.
    caller: Option<Arc<str>>,
    shape: Option<Arc<Shape>>,
}

impl Passing<'_> {
    fn shape(&mut self) -> Option<Arc<Shape>> {
        if self.shape.is_none() {
            let caller = self.caller.as_deref();
            self.shape = self.text.map(|text| Arc::new(shape(text, caller)));
        }
        self.shape.clone()
    }

    fn is_about(&mut self, key: &ChannelKey) -> bool {
        // Most are about another one, which is found out without looking into them.
        let is_own = self.caller.as_deref() == Some(key.id());
        self.text
            .is_some_and(|text| is_own || text.contains(key.id()))
            && self
                .shape()
                .is_some_and(|shape| shape.channel.as_deref() == Some(key.as_str()))
    }
}

impl Worker {
    /// Begins to show what passes.
    pub(super) fn watch(&self, tap: Tap) {
        let mut state = self.state.borrow_mut();
        state.taps.retain(|tap| !tap.frames.is_closed());
        state.taps.push(tap);
    }
}

impl State {
    /// Shows a frame from a client. `text` is none of those that are no text.
    pub(super) fn see_received(
        &mut self,
        slot: Slot,
        frame: &'static str,
        text: Option<&str>,
        now: Moment,
    ) {
        if self.taps.is_empty() {
            return;
        }
        let connections = of(&self.connections, std::slice::from_ref(&slot));
        let passing = Passing {
            text,
            frame,
            bytes: text.map_or(0, str::len),
            way: Way::In,
            caller: connections.iter().find_map(|one| user(one)),
            shape: None,
        };
        see(&mut self.taps, &connections, passing, now);
    }

    /// Shows a frame that was queued for one client.
    pub(super) fn see_sent(&mut self, slot: Slot, frame: &Frame, now: Moment) {
        if !self.taps.is_empty() {
            let connections = of(&self.connections, std::slice::from_ref(&slot));
            see_sent(&mut self.taps, &connections, frame, now);
        }
    }
}

/// Shows a frame that was queued for these clients.
#[cold]
pub(super) fn see_sent(
    taps: &mut Vec<Tap>,
    connections: &[&Connection],
    sent: &Frame,
    now: Moment,
) {
    let text = sent
        .text_payload()
        .and_then(|payload| std::str::from_utf8(payload).ok());
    let passing = Passing {
        text,
        frame: match sent.first().map(|first| first & 0x0f) {
            Some(1) => "text",
            Some(8) => "close",
            Some(9) => "ping",
            Some(10) => "pong",
            _ => "binary",
        },
        bytes: text.map_or(0, str::len),
        way: Way::Out,
        caller: None,
        shape: None,
    };
    see(taps, connections, passing, now);
}

fn see(taps: &mut Vec<Tap>, connections: &[&Connection], mut passing: Passing<'_>, now: Moment) {
    taps.retain(|tap| !tap.frames.is_closed());
    for tap in taps {
        if let Watched::Channel(key) = &tap.watched
            && !passing.is_about(key)
        {
            continue;
        }
        for connection in connections {
            let user_id = user(connection);
            let is_wanted = match &tap.watched {
                Watched::User(user) => user_id.as_ref() == Some(user),
                Watched::Connection(serial) => *serial == connection.serial,
                Watched::Channel(_) => true,
            };
            if !is_wanted {
                continue;
            }
            match tap.frames.try_reserve() {
                Ok(place) => place.send(Seen {
                    unix_ms: now.unix_ms,
                    serial: connection.serial,
                    user_id,
                    way: passing.way,
                    frame: passing.frame,
                    bytes: passing.bytes,
                    shape: passing.shape(),
                }),
                Err(_) => {
                    tap.dropped.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }
}

fn user(connection: &Connection) -> Option<Arc<str>> {
    let session = connection.session.as_ref();
    session.map(|session| session.identity().user_id.clone())
}

/// The connections in these slots.
pub(super) fn of<'a>(
    connections: &'a slab::Slab<Connection>,
    slots: &'a [Slot],
) -> Vec<&'a Connection> {
    let each = slots.iter().copied();
    each.filter_map(|slot| connections.get(slot as usize))
        .collect()
}

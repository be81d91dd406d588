//! What becomes of events when a socket takes no more: they wait in its outbox until that is too much
//! or too old, or beside it, where their channel's rule lets the oldest go.

use super::channels::Slot;
use super::connection::{Connection, Flow, Life};
use super::event_stream::Addressed;
use super::{State, Worker};
use crate::clock::{Moment, millis};
use crate::config::{Limits, Slow};
use crate::limits::{QUEUE_SHARE, REFILL_BYTES};
use crate::protocol::Reply;
use crate::ws::Frame;
use crate::ws::backlog::{Due, Room};

impl Worker {
    /// Queues an event on the long way: for a connection that has something aside, or of a channel whose
    /// events may be dropped. `false` if it may not and there is no room.
    pub(super) fn queue_aside(
        &self,
        connection: &mut Connection,
        event: &Addressed<'_>,
        slow: Slow,
        limits: &Limits,
        scratch: &mut Vec<u8>,
        now: Moment,
    ) -> bool {
        let bytes_max = limits.queue_bytes;
        let backlog = connection.aside.as_ref().map(|aside| &aside.backlog);
        // A rule that was changed meanwhile must not let an event pass those that wait.
        let slow = backlog
            .and_then(|backlog| backlog.rule(event.key))
            .unwrap_or(slow);
        let waits = connection.flow == Flow::Blocked || backlog.is_some_and(|it| !it.is_empty());
        let may_queue = slow == Slow::Close || !waits;
        let counters = &self.outfit.counters;
        let queued = may_queue && connection.queue_event(event, bytes_max, scratch, counters);
        let room = room(connection, limits, now);
        let dropped = if !queued && slow != Slow::Close {
            let backlog = &mut connection.aside.get_or_insert_default().backlog;
            backlog.push(
                event.key,
                slow,
                event.position,
                event.frame,
                now.mono_ms,
                room,
            )
        } else if let Some(aside) = &mut connection.aside {
            // What cannot wait elsewhere takes the room of what may go.
            aside.backlog.fit(room)
        } else {
            0
        };
        counters.dropped.add(dropped);
        queued || slow != Slow::Close
    }

    /// Notes how much waits for a socket that takes no more; whether some of it has for too long.
    pub(super) fn lags(connection: &mut Connection, limits: &Limits, now: Moment) -> bool {
        if connection.flow != Flow::Blocked || connection.life != Life::Open {
            return false;
        }
        let lag = &mut connection.aside.get_or_insert_default().lag;
        let age_ms = millis(limits.queue_age);
        lag.mark(connection.outbox.bytes(), now.mono_ms, age_ms);
        lag.is_late(now.mono_ms)
    }

    /// The socket took all there was: what waited aside follows, a piece at a time.
    pub(super) fn refill(&self, state: &mut State, slot: Slot, now: Moment) {
        let connection = &mut state.connections[slot as usize];
        let room = room(connection, &state.terms.limits, now);
        let Some(aside) = &mut connection.aside else {
            return;
        };
        let counters = &self.outfit.counters;
        counters.dropped.add(aside.backlog.fit(room));
        let bytes_max = REFILL_BYTES.min(room.bytes / QUEUE_SHARE);
        let mut gaps = Vec::new();
        while connection.outbox.bytes() <= bytes_max {
            let aside = connection.aside.as_mut();
            // What is due has been counted where it waited.
            let _ = match aside.and_then(|aside| aside.backlog.pop()) {
                Some(Due::Event {
                    key,
                    position,
                    frame,
                }) => {
                    let event = Addressed::new(&key, position.as_ref(), &frame);
                    connection.queue_event(&event, usize::MAX, &mut state.write, counters)
                }
                Some(Due::Gap(key, gap)) => {
                    let told = Reply::Gap {
                        key: &key,
                        dropped: gap.dropped,
                        before: gap.before.as_ref(),
                    };
                    let told = Frame::text(&told.encode(None));
                    let framed = connection.framed(&told);
                    gaps.push(told);
                    connection.queue(&framed, usize::MAX, &mut state.write, counters)
                }
                None => break,
            };
        }
        if connection
            .aside
            .as_ref()
            .is_some_and(|aside| aside.is_empty())
        {
            connection.aside = None;
        }
        if !connection.outbox.is_empty() {
            self.mark_dirty(state, slot);
        }
        for told in &gaps {
            state.see_sent(slot, told, now);
        }
    }
}

/// What may wait beside the outbox.
fn room(connection: &Connection, limits: &Limits, now: Moment) -> Room {
    Room {
        bytes: limits.queue_bytes.saturating_sub(connection.outbox.bytes()),
        since_ms: now.mono_ms.saturating_sub(millis(limits.queue_age)),
    }
}

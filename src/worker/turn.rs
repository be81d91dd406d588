//! A turn: what the mailbox and the clock brought is applied, then the next dirty connections are
//! written to, once each.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::sync::Arc;

use slab::Slab;

use super::channels::Slot;
use super::connection::{Connection, Flow, Flushed, Gone, Life};
use super::event_stream::Addressed;
use super::mailbox::Farewell;
use super::{Next, State, Worker, sight};
use crate::clock::Moment;
use crate::config::{Limits, Slow};
use crate::limits::{RECHECK_EVERY_MS, TURN_BYTES_MAX, TURN_EVENTS_MAX, TURN_WRITES_MAX};
use crate::protocol::{ChannelKey, Close};
use crate::session::Input;
use crate::stopwatch;
use crate::trace::{Passage, Role};
use crate::ws::Frame;

/// Entries for which the dirty list keeps memory while it is empty.
const DIRTY_SPARE: usize = 1_024;

/// A traced event that was taken in this turn.
struct Traced {
    passage: Arc<Passage>,
    channel: ChannelKey,
    /// Whose queues it was put into.
    subscribers: u64,
}

impl Worker {
    /// One turn.
    pub(super) fn turn(&self) -> Next {
        let now = self.outfit.services.clock.now();
        self.outfit.counters.turns.increment();
        let mut state = self.state.borrow_mut();
        self.take_gaps(&mut state, now);
        self.take_revoked(&mut state, now);
        let traced = self.take_events(&mut state, now);
        self.take_deadlines(&mut state, now);
        self.flush(&mut state, now);
        self.tell_of(traced);
        let drained = *self.draining.borrow() && state.connections.is_empty();
        if drained && self.outfit.router.mailboxes()[self.outfit.index].load() == 0 {
            return Next::End;
        }
        if self.inbound.has_events() || !state.dirty.is_empty() {
            return Next::Again;
        }
        Next::Wait
    }

    /// Members of channels that lost events are asked to come again.
    fn take_gaps(&self, state: &mut State, now: Moment) {
        for key in self.inbound.gaps() {
            for slot in state.channels.members(&key) {
                self.input(state, slot, Input::End(Close::Resync), now);
            }
        }
    }

    /// Connections whose tokens were revoked end; all of them are looked at, so not too often.
    fn take_revoked(&self, state: &mut State, now: Moment) {
        if self.inbound.takes_recheck() && state.recheck_at_ms.is_none() {
            state.recheck_at_ms = Some(state.rechecked_ms.saturating_add(RECHECK_EVERY_MS));
        }
        if state.recheck_at_ms.is_none_or(|at_ms| at_ms > now.mono_ms) {
            return;
        }
        state.recheck_at_ms = None;
        state.rechecked_ms = now.mono_ms;
        let revocations = &self.outfit.router.revocations;
        let revoked: Vec<Slot> = state
            .connections
            .iter()
            .filter(|(_, one)| {
                let session = one.session.as_ref();
                one.life == Life::Open
                    && session.is_some_and(|session| revocations.cover(session.identity()))
            })
            .map(|(slot, _)| slot as Slot)
            .collect();
        for slot in revoked {
            self.input(state, slot, Input::End(Close::Revoked), now);
        }
    }

    /// Puts events into the queues of those who follow their channels; those that are traced.
    fn take_events(&self, state: &mut State, now: Moment) -> Vec<Traced> {
        let mut traced = Vec::new();
        let (mut events, mut bytes, mut deliveries) = (0, 0, 0);
        while events < TURN_EVENTS_MAX && bytes < TURN_BYTES_MAX {
            let Some(posted) = self.inbound.event() else {
                break;
            };
            events += 1;
            bytes += posted.frame.len();
            let frame = Frame::encoded(&posted.frame);
            let State {
                terms,
                connections,
                channels,
                dirty,
                delivering,
                overflowed,
                taps,
                write,
                ..
            } = state;
            let event = Addressed::new(&posted.channel, posted.position.as_ref(), &frame);
            let position = posted.position.as_ref();
            let mut delivery = Delivery {
                worker: self,
                event: &event,
                limits: &terms.limits,
                connections,
                dirty,
                overflowed,
                write,
                now,
                count: 0,
            };
            if taps.is_empty() {
                channels.event(&posted.channel, position, &frame, |slot, slow| {
                    delivery.to(slot, slow);
                });
            } else {
                let mut slots = Vec::new();
                channels.event(&posted.channel, position, &frame, |slot, slow| {
                    if delivery.to(slot, slow) {
                        slots.push(slot);
                    }
                });
                sight::see_sent(taps, &sight::of(delivery.connections, &slots), &frame, now);
            }
            let subscribers = delivery.count;
            deliveries += subscribers;
            delivering.begin(posted.since_ns, dirty.len());
            if let Some(passage) = posted.passage {
                traced.push(Traced {
                    passage,
                    channel: posted.channel,
                    subscribers,
                });
            }
        }
        self.outfit.counters.deliveries.add(deliveries);
        while let Some(slot) = state.overflowed.pop() {
            self.input(state, slot, Input::End(Close::TooSlow), now);
        }
        traced
    }

    fn take_deadlines(&self, state: &mut State, now: Moment) {
        while let Some(&Reverse((due_ms, slot, serial))) = state.deadlines.peek() {
            if due_ms > now.mono_ms {
                break;
            }
            state.deadlines.pop();
            let Some(connection) = state.connections.get_mut(slot as usize) else {
                continue;
            };
            if connection.serial != serial || connection.scheduled_ms != due_ms {
                continue;
            }
            connection.scheduled_ms = u64::MAX;
            if connection.deadline_ms() <= now.mono_ms {
                if let Life::Closing { close, .. } = connection.life {
                    connection.gone(Gone::Closed(close));
                } else if Self::lags(connection, &state.terms.limits, now) {
                    self.input(state, slot, Input::End(Close::TooSlow), now);
                } else {
                    self.input(state, slot, Input::Deadline, now);
                }
            }
            state.schedule(slot);
        }
    }

    /// One write for each of the connections that have waited longest for it.
    fn flush(&self, state: &mut State, now: Moment) {
        let queue_bytes = state.terms.limits.queue_bytes;
        let mut writes = 0;
        for _ in 0..TURN_WRITES_MAX {
            let Some(slot) = state.dirty.pop_front() else {
                break;
            };
            writes += 1;
            // Removed since, or its slot is somebody else's who is listed for itself.
            let Some(connection) = state.connections.get_mut(slot as usize) else {
                continue;
            };
            if connection.flow != Flow::Dirty {
                continue;
            }
            let was_behind = connection.is_behind(queue_bytes);
            match connection.flush(&mut state.write, &self.outfit.counters) {
                Flushed::Empty => {
                    connection.flow = Flow::Clean;
                    end_if_said(connection);
                    if connection.aside.is_some() {
                        self.refill(state, slot, now);
                    }
                }
                Flushed::Blocked => {
                    connection.flow = Flow::Blocked;
                    connection.wake();
                    Self::lags(connection, &state.terms.limits, now);
                    state.schedule(slot);
                }
                Flushed::Failed => connection.gone(Gone::Lost),
            }
            let connection = &state.connections[slot as usize];
            if was_behind && !connection.is_behind(queue_bytes) {
                connection.wake();
            }
        }
        state.delivering.wrote(writes);
        if state.delivering.has_arrived() {
            let now_ns = stopwatch::nanos();
            while let Some(took_us) = state.delivering.arrived(now_ns) {
                self.outfit.counters.delivery.add(took_us);
            }
        }
        if state.dirty.is_empty() && state.dirty.capacity() > DIRTY_SPARE {
            state.dirty.shrink_to(DIRTY_SPARE);
        }
    }

    /// Records what became of traced events: from when they were posted to the end of this turn, by which
    /// they stand in every queue and the first ones are written.
    fn tell_of(&self, traced: Vec<Traced>) {
        // Another node may trace what this one does not.
        if traced.is_empty() || self.outfit.services.config().sampling().is_none() {
            return;
        }
        let tracer = &self.outfit.services.tracer;
        for one in traced {
            let passage = one.passage;
            let mut span = tracer.span_since(passage.parent, Role::Consumer, passage.since_ns);
            span.name(format!("deliver {}", one.channel.kind()));
            span.say("messaging.system", "fanfare".into());
            span.say("messaging.operation.type", "process".into());
            span.say("messaging.destination.name", one.channel.as_str().into());
            span.say("fanfare.worker", (self.outfit.index as u64).into());
            span.say("fanfare.subscribers", one.subscribers.into());
        }
    }

    /// Plans the end of every connection.
    pub(super) fn drain(&self, farewell: Farewell) {
        let now = self.outfit.services.clock.now();
        let mut state = self.state.borrow_mut();
        state.farewell = Some(farewell);
        let slots: Vec<Slot> = state
            .connections
            .iter()
            .map(|(slot, _)| slot as Slot)
            .collect();
        let span_ms = farewell.told_ms.saturating_sub(now.mono_ms);
        // Between those of the other workers.
        let workers = self.outfit.router.mailboxes().len();
        let all = (slots.len() * workers).max(1) as u64;
        for (nth, slot) in slots.into_iter().enumerate() {
            let before = (nth * workers + self.outfit.index) as u64;
            let at_ms = now.mono_ms + span_ms * before / all;
            self.input(&mut state, slot, Input::Drain { at_ms }, now);
        }
    }

    /// How long a client should stay away, in milliseconds: spread, so that not all come at once.
    pub(super) fn retry_after_ms(&self, state: &mut State, close: Close) -> u64 {
        match close {
            _ if !close.reconnect() => 0,
            Close::ShuttingDown => {
                let now_ms = self.outfit.services.clock.now().mono_ms;
                let (back_ms, spread_ms) = state
                    .farewell
                    .map_or((0, 500), |farewell| (farewell.back_ms, farewell.spread_ms));
                back_ms.saturating_sub(now_ms) + 500 + state.roll(spread_ms)
            }
            Close::TokenExpired => 0,
            Close::Resync => state.roll(1_000),
            _ => 1_000 + state.roll(2_000),
        }
    }
}

/// An event on its way to the members of its channel.
struct Delivery<'a> {
    worker: &'a Worker,
    event: &'a Addressed<'a>,
    limits: &'a Limits,
    connections: &'a mut Slab<Connection>,
    dirty: &'a mut VecDeque<Slot>,
    overflowed: &'a mut Vec<Slot>,
    write: &'a mut Vec<u8>,
    now: Moment,
    /// Members that it was meant for.
    count: u64,
}

impl Delivery<'_> {
    /// To one of them; whether it took it.
    #[inline(always)]
    fn to(&mut self, slot: Slot, slow: Slow) -> bool {
        let (worker, event, limits) = (self.worker, self.event, self.limits);
        let connection = &mut self.connections[slot as usize];
        if connection.life != Life::Open {
            return false;
        }
        self.count += 1;
        let is_taken = if slow == Slow::Close && connection.aside.is_none() {
            let counters = &worker.outfit.counters;
            connection.queue(event.frame, limits.queue_bytes, self.write, counters)
        } else {
            worker.queue_aside(connection, event, slow, limits, self.write, self.now)
        };
        if !is_taken {
            self.overflowed.push(slot);
        } else if connection.flow == Flow::Clean {
            connection.flow = Flow::Dirty;
            self.dirty.push_back(slot);
        }
        is_taken
    }
}

/// A connection that has nothing left to write and has said its last word ends: at once if the peer
/// has, too, else with a FIN that the peer answers.
pub(super) fn end_if_said(connection: &mut super::Connection) {
    if let Life::Closing {
        close,
        agreed,
        shut,
        ..
    } = &mut connection.life
    {
        if *agreed {
            let close = *close;
            connection.stream.say_goodbye();
            connection.gone(Gone::Closed(close));
        } else if !*shut {
            *shut = true;
            // A failure shows at the next read.
            let _ = connection.stream.shutdown();
        }
    }
}

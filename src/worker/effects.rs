//! What sessions want done, carried out: frames are queued, channels joined and left, calls begun,
//! connections closed.

use smallvec::SmallVec;

use super::calls;
use super::channels::Slot;
use super::connection::{Flow, Gone, Life};
use super::event_stream::{Addressed, last_words};
use super::{State, Worker};
use crate::auth::trial::Event;
use crate::clock::Moment;
use crate::event_log::{Data, Kind};
use crate::limits::CLOSE_TIMEOUT_MS;
use crate::protocol::{ChannelKey, Close, Reply};
use crate::session::{Answer, Call, Effect, Input, Session};
use crate::ws::Frame;

impl Worker {
    pub(super) fn carry_out(&self, state: &mut State, slot: Slot, effect: Effect, now: Moment) {
        let router = &self.outfit.router;
        match effect {
            Effect::Send(text) => self.send(state, slot, &Frame::text(&text), now),
            Effect::SendError {
                text,
                code,
                channel,
            } => {
                self.outfit.counters.error_replies.increment();
                // Of those who send too fast there would be too many lines; `TooFast` counts them.
                if code != "rate_limited" {
                    let detail = Data {
                        reason: Some(code),
                        channel: channel.as_deref(),
                        ..Data::default()
                    };
                    self.log(state, slot, Kind::Error, detail);
                }
                self.send(state, slot, &Frame::text(&text), now);
            }
            Effect::Acknowledge {
                text,
                channel,
                stands,
            } => {
                // With its place, if it has one: a stream that is lost right after this is taken up here.
                let frame = Frame::text(&text);
                let event = Addressed::new(&channel, stands.as_ref(), &frame);
                self.send_event(state, slot, &event, now);
            }
            Effect::TooFast { refused } => {
                let counters = &self.outfit.services.counters;
                let past = match refused {
                    true => &counters.limited,
                    false => &counters.would_limit,
                };
                past.increment("commands_per_second");
            }
            Effect::AuthFailure(check) => {
                let services = &self.outfit.services;
                services.counters.auth_failures.increment(check);
                let detail = Data {
                    reason: Some(check),
                    ..Data::default()
                };
                self.log(state, slot, Kind::AuthFailure, detail);
            }
            Effect::Ping => {
                self.send(state, slot, &Frame::ping(), now);
                if state.connections[slot as usize].is_event_stream() {
                    // Nobody answers: that the client is gone shows when nothing is acknowledged.
                    self.input(state, slot, Input::Pong, now);
                }
            }
            Effect::Join(key) => {
                let slow = state.terms.channels.slow(key.kind());
                let (key, first) = state.channels.join(key, slot, slow);
                router.interest.join(self.outfit.index, &key, first);
                if let Some(session) = &mut state.connections[slot as usize].session {
                    session.share(&key);
                    if state.terms.channels.has_presence(key.kind()) {
                        let user_id = &session.identity().user_id;
                        self.outfit.services.presence.enter(&key, user_id);
                    }
                }
            }
            Effect::Activate {
                channel,
                position,
                missed,
            } => {
                self.send_page(state, slot, &channel, position, &missed, now);
                if state.connections[slot as usize].life == Life::Open {
                    let detail = Data {
                        channel: Some(channel.as_str()),
                        ..Data::default()
                    };
                    self.log(state, slot, Kind::ChannelSubscribe, detail);
                }
            }
            Effect::Leave(key) => {
                self.leave(state, slot, &key);
                let detail = Data {
                    channel: Some(key.as_str()),
                    ..Data::default()
                };
                self.log(state, slot, Kind::ChannelUnsubscribe, detail);
            }
            Effect::Call(Call::Standing { channel }) => {
                let aside = &state.connections[slot as usize].aside;
                let waiting = aside.as_ref().and_then(|aside| {
                    let replayed = aside.replays.standing(&channel);
                    replayed.or_else(|| aside.backlog.standing(&channel))
                });
                let position = waiting.or_else(|| state.channels.standing(&channel, slot));
                let answer = Answer::Subscribed {
                    position,
                    missed: None,
                    unread: None,
                };
                state.connections[slot as usize].call = Some(Box::pin(std::future::ready(answer)));
            }
            Effect::Call(call) => {
                let connection = &mut state.connections[slot as usize];
                let caller = connection.session.as_ref().map(|session| calls::Caller {
                    identity: session.identity().clone(),
                    serial: connection.serial,
                });
                connection.call =
                    caller.map(|caller| calls::begin(call, caller, &self.outfit.services));
            }
            Effect::Close(close) => {
                if close == Close::TokenExpired
                    && let Some(session) = &state.connections[slot as usize].session
                {
                    let variant = session.identity().variant.as_deref();
                    let authority = self.outfit.services.authority();
                    authority.trial().note(variant, Event::Expiry);
                }
                self.close(state, slot, close, now);
            }
            Effect::Drop => {
                self.leave_all(state, slot);
                state.connections[slot as usize].gone(Gone::Silent);
            }
        }
    }

    /// Queues a frame for a client, which is closed if it has too many already.
    pub(super) fn send(&self, state: &mut State, slot: Slot, frame: &Frame, now: Moment) {
        let bytes_max = state.terms.limits.queue_bytes;
        let (counters, scratch) = (&self.outfit.counters, &mut state.write);
        let connection = &mut state.connections[slot as usize];
        if connection.may_send() {
            let framed = connection.framed(frame);
            let is_queued = connection.queue(&framed, bytes_max, scratch, counters);
            if is_queued {
                state.see_sent(slot, frame, now);
            }
            self.sent(state, slot, is_queued, now);
        }
    }

    /// As [`Worker::send`], for an event that goes to nobody else.
    pub(super) fn send_event(
        &self,
        state: &mut State,
        slot: Slot,
        event: &Addressed<'_>,
        now: Moment,
    ) {
        let bytes_max = state.terms.limits.queue_bytes;
        let (counters, scratch) = (&self.outfit.counters, &mut state.write);
        let connection = &mut state.connections[slot as usize];
        if connection.may_send() {
            let is_queued = connection.queue_event(event, bytes_max, scratch, counters);
            if is_queued {
                state.see_sent(slot, event.frame, now);
            }
            self.sent(state, slot, is_queued, now);
        }
    }

    fn sent(&self, state: &mut State, slot: Slot, is_queued: bool, now: Moment) {
        if is_queued {
            self.mark_dirty(state, slot);
        } else {
            self.close(state, slot, Close::TooSlow, now);
        }
    }

    pub(super) fn mark_dirty(&self, state: &mut State, slot: Slot) {
        let connection = &mut state.connections[slot as usize];
        if connection.flow == Flow::Clean {
            connection.flow = Flow::Dirty;
            state.dirty.push_back(slot);
            self.inbound.wake();
        }
    }

    /// Says why, then closes.
    pub(super) fn close(&self, state: &mut State, slot: Slot, close: Close, now: Moment) {
        self.close_saying(state, slot, close, None, now);
    }

    /// As [`Worker::close`], with what an operator has to say.
    pub(super) fn close_saying(
        &self,
        state: &mut State,
        slot: Slot,
        close: Close,
        message: Option<&str>,
        now: Moment,
    ) {
        let retry_after_ms = self.retry_after_ms(state, close);
        self.leave_all(state, slot);
        let connection = &mut state.connections[slot as usize];
        if connection.life != Life::Open {
            return;
        }
        self.outfit
            .counters
            .closes
            .increment(&format!("{} {}", close.code(), close.reason()));
        if let Some(aside) = &mut connection.aside {
            aside.abandon();
        }
        if close == Close::TooSlow {
            connection.outbox.discard_unsent();
        }
        let last = Reply::Disconnect {
            close,
            message,
            retry_after_ms,
        };
        let last = last.encode(None);
        let mut said: SmallVec<[Frame; 2]> = SmallVec::new();
        if connection.is_event_stream() {
            let last_words = last_words(&last, close, retry_after_ms);
            connection.outbox.push_last_words(&last_words);
            said.push(Frame::text(&last));
        } else {
            if connection.dialogue.may_send() {
                said.push(Frame::text(&last));
            }
            let mut bytes = Vec::new();
            state
                .engine
                .close(&mut connection.dialogue, close, &mut bytes);
            if !bytes.is_empty() {
                said.push(Frame::encoded(&bytes));
            }
            for frame in &said {
                connection.outbox.push_last_words(frame);
            }
        }
        connection.call = None;
        connection.unread = None;
        let until_ms = now.mono_ms + CLOSE_TIMEOUT_MS;
        connection.life = Life::Closing {
            close: Some(close),
            until_ms,
            agreed: false,
            shut: false,
        };
        if let Flow::Clean = connection.flow {
            connection.flow = Flow::Dirty;
            state.dirty.push_back(slot);
        }
        connection.wake();
        for frame in &said {
            state.see_sent(slot, frame, now);
        }
        state.schedule(slot);
        self.inbound.wake();
    }

    pub(super) fn leave(&self, state: &mut State, slot: Slot, key: &ChannelKey) {
        let Some(last_here) = state.channels.leave(key, slot) else {
            return;
        };
        if let Some(aside) = &mut state.connections[slot as usize].aside {
            aside.backlog.forget(key);
            aside.replays.forget(key);
        }
        if state.terms.channels.has_presence(key.kind())
            && let Some(session) = &state.connections[slot as usize].session
        {
            let user_id = &session.identity().user_id;
            self.outfit.services.presence.leave(key, user_id);
        }
        let outfit = &self.outfit;
        let interest = &outfit.router.interest;
        interest.leave(outfit.index, key, last_here, || {
            // Called before anybody can join again, so that whoever does is subscribed after it.
            drop(outfit.services.broker.unsubscribe(key));
        });
    }

    pub(super) fn leave_all(&self, state: &mut State, slot: Slot) {
        let connection = &mut state.connections[slot as usize];
        let channels = connection
            .session
            .as_mut()
            .map(Session::leave_all)
            .unwrap_or_default();
        for key in channels {
            self.leave(state, slot, &key);
        }
    }

    /// A line about a client, with `detail` beside who it is.
    pub(super) fn log(&self, state: &State, slot: Slot, kind: Kind, detail: Data<'_>) {
        let connection = &state.connections[slot as usize];
        let Some(session) = &connection.session else {
            return;
        };
        let connection_id = self.connection_id(connection.serial);
        let data = Data {
            user_id: Some(&session.identity().user_id),
            ip: Some(connection.address),
            connection_id: Some(&connection_id),
            ..detail
        };
        self.outfit.services.event_log.record(kind, &data);
    }
}

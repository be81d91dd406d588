//! A connection's task: reads its socket and feeds the session; what comes of it is in `effects`.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead as _, ReadBuf};

use super::aside::Aside;
use super::channels::Slot;
use super::connection::{Connection, Flow, Gone, Life};
use super::event_stream::{EventStream, RETRY_MS, opening};
use super::mailbox::{Farewell, Load};
use super::stream::Stream;
use super::turn::end_if_said;
use super::{State, Worker};
use crate::clock::Moment;
use crate::event_log::{Data, Kind};
use crate::http::event_stream::Followed;
use crate::http::upgrade::Ticket;
use crate::limits::{CLOSE_TIMEOUT_MS, READS_PER_TURN_MAX};
use crate::protocol::connection::connection_id;
use crate::protocol::{Close, CommandError, Request};
use crate::session::pulse::PING_EVERY_MS;
use crate::session::{Input, Session};
use crate::ws::{Dialogue, Frame, Outbox, Received};

impl Worker {
    /// Takes over a socket that is upgraded when `answer` is written, and what came `behind` the
    /// request. The answer to a stream is in its ticket.
    pub(super) fn adopt(
        self: &Rc<Self>,
        stream: Stream,
        answer: &[u8],
        behind: &[u8],
        ticket: Ticket,
        load: Load,
    ) {
        let now = self.outfit.services.clock.now();
        let is_stream = ticket.stream.is_some();
        let mut state = self.state.borrow_mut();
        let retry_ms = RETRY_MS + state.roll(RETRY_MS);
        let terms = &state.terms;
        let Ticket {
            address,
            client,
            permits,
            stream: wanted,
        } = ticket;
        let (session, refusal) = match client {
            Ok(identity) => (Some(Session::new(identity, terms, now)), None),
            Err(close) => (None, Some(close)),
        };
        let serial = self.next_serial();
        let (opening, aside) = match wanted {
            None => (None, None),
            Some(wanted) => {
                // There are no answers to heartbeats: the kernel tells of a client that is gone.
                let patience = Duration::from_millis(2 * PING_EVERY_MS);
                let _ =
                    socket2::SockRef::from(stream.socket()).set_tcp_user_timeout(Some(patience));
                let stream = Some(EventStream::new(wanted.channels));
                let aside = Aside {
                    stream,
                    ..Aside::default()
                };
                (Some(opening(wanted.head, retry_ms)), Some(Box::new(aside)))
            }
        };
        let mut outbox = Outbox::default();
        outbox.push_last_words(&Frame::encoded(opening.as_deref().unwrap_or(answer)));
        let connection = Connection {
            stream,
            dialogue: Dialogue::default(),
            outbox,
            session,
            call: None,
            unread: (!behind.is_empty()).then(|| behind.to_vec()),
            waker: None,
            life: Life::Open,
            flow: Flow::Clean,
            aside,
            serial,
            scheduled_ms: u64::MAX,
            opened_at: now.unix_ms,
            address,
            permits,
            load,
        };
        let slot = state.connections.insert(connection) as Slot;
        let worker = self.clone();
        // Polled later; whatever happens until then, the connection has somebody who removes it.
        tokio::task::spawn_local(Drive { worker, slot });
        match refusal {
            Some(close) => self.close(&mut state, slot, close, now),
            None => {
                let counters = &self.outfit.counters;
                counters.connections_opened.increment();
                if is_stream {
                    counters.event_streams_opened.increment();
                }
                self.log(&state, slot, Kind::Connection, Data::default());
                let connection_id = self.connection_id(serial);
                self.input(&mut state, slot, Input::Opened { connection_id }, now);
                // Between the upgrade and now, where no look at the sockets would have found it.
                let session = state.connections[slot as usize].session.as_ref();
                let revocations = &self.outfit.router.revocations;
                if session.is_some_and(|session| revocations.cover(session.identity())) {
                    self.input(&mut state, slot, Input::End(Close::Revoked), now);
                }
                if *self.draining.borrow() {
                    self.input(&mut state, slot, Input::End(Close::ShuttingDown), now);
                } else if let Some(Farewell { told_ms, .. }) = state.farewell {
                    self.input(&mut state, slot, Input::Drain { at_ms: told_ms }, now);
                }
            }
        }
    }

    pub(super) fn connection_id(&self, serial: u64) -> String {
        connection_id(&self.outfit.services.node, serial)
    }

    /// Hands an input to a connection's session and carries out what it wants.
    pub(super) fn input(&self, state: &mut State, slot: Slot, input: Input, now: Moment) {
        let State {
            connections, terms, ..
        } = state;
        let Some(connection) = connections.get_mut(slot as usize) else {
            return;
        };
        if connection.life != Life::Open {
            return;
        }
        let Some(session) = &mut connection.session else {
            return;
        };
        let mut effects = std::mem::take(&mut state.effects);
        session.handle(input, terms, now, &mut effects);
        for effect in effects.drain(..) {
            self.carry_out(state, slot, effect, now);
            if state.connections[slot as usize].life != Life::Open {
                // It was closed, and what else the session wanted, such as joining, is void.
                break;
            }
        }
        state.effects = effects;
        state.schedule(slot);
    }

    /// What a peer sent, up to the end or until the session is busy.
    fn receive(&self, state: &mut State, slot: Slot, bytes: &[u8], now: Moment) {
        let queue_bytes = state.terms.limits.queue_bytes;
        let mut input = bytes;
        loop {
            let connection = &mut state.connections[slot as usize];
            if connection.life != Life::Open {
                return self.listen_for_close(state, slot, input);
            }
            if connection.call.is_some() || connection.is_behind(queue_bytes) {
                connection.unread = (!input.is_empty()).then(|| input.to_vec());
                return;
            }
            state.protocol.clear();
            let received =
                state
                    .engine
                    .receive(&mut connection.dialogue, &mut input, &mut state.protocol);
            if !state.protocol.is_empty() {
                let frame = Frame::encoded(&state.protocol);
                if !connection.queue(&frame, queue_bytes, &mut state.write, &self.outfit.counters) {
                    self.close(state, slot, Close::TooSlow, now);
                    continue;
                }
                self.mark_dirty(state, slot);
                state.see_sent(slot, &frame, now);
            }
            match received {
                Received::NeedInput => return,
                Received::Text(text) => {
                    state.see_received(slot, "text", Some(text.as_str()), now);
                    self.request(state, slot, Request::parse(&text), now);
                }
                Received::Binary => {
                    state.see_received(slot, "binary", None, now);
                    self.request(state, slot, Request::binary(), now);
                }
                Received::Pong => {
                    state.see_received(slot, "pong", None, now);
                    self.input(state, slot, Input::Pong, now);
                }
                Received::Failed(close) => self.close(state, slot, close, now),
                Received::Closing => {
                    state.see_received(slot, "close", None, now);
                    self.leave_all(state, slot);
                    let connection = &mut state.connections[slot as usize];
                    let until_ms = now.mono_ms + CLOSE_TIMEOUT_MS;
                    connection.life = Life::Closing {
                        close: None,
                        until_ms,
                        agreed: true,
                        shut: false,
                    };
                    if connection.flow == Flow::Clean {
                        end_if_said(connection);
                    }
                    state.schedule(slot);
                }
            }
        }
    }

    /// After our close only the peer's agreement matters; after its mistakes not even that is
    /// looked for, because its frames can no longer be told apart.
    fn listen_for_close(&self, state: &mut State, slot: Slot, bytes: &[u8]) {
        let connection = &mut state.connections[slot as usize];
        let Life::Closing { close, agreed, .. } = &mut connection.life else {
            return;
        };
        let deaf = matches!(
            close,
            Some(Close::TooBig | Close::Protocol | Close::NotUtf8)
        );
        if deaf || *agreed {
            return;
        }
        let mut input = bytes;
        loop {
            state.protocol.clear();
            match state
                .engine
                .receive(&mut connection.dialogue, &mut input, &mut state.protocol)
            {
                Received::Closing | Received::Failed(_) => {
                    *agreed = true;
                    if connection.flow == Flow::Clean {
                        end_if_said(connection);
                    }
                    return;
                }
                Received::NeedInput => return,
                _ => {}
            }
        }
    }

    fn request(&self, state: &mut State, slot: Slot, request: Request, now: Moment) {
        let name = match &request.command {
            Ok(command) => command.name(),
            Err(error) => error.name(),
        };
        self.outfit.counters.messages.increment();
        self.outfit.counters.messages_by_type.increment(name);
        let detail = Data {
            message_type: Some(name),
            ..Data::default()
        };
        self.log(state, slot, Kind::Message, detail);
        if let Err(CommandError::Format) = &request.command {
            self.outfit.counters.malformed.increment();
        }
        self.input(state, slot, Input::Request(request), now);
    }

    fn remove(&self, state: &mut State, slot: Slot, why: Gone) {
        self.leave_all(state, slot);
        let detail = Data {
            reason: Some(why.reason()),
            code: why.code(),
            ..Data::default()
        };
        self.log(state, slot, Kind::Disconnect, detail);
        let connection = state.connections.remove(slot as usize);
        if connection.session.is_some() {
            self.outfit.counters.connections_closed.increment();
            if connection.is_event_stream() {
                self.outfit.counters.event_streams_closed.increment();
            }
        }
    }

    /// After a panic in the task of a connection, which is removed: the others go on. What the panic
    /// said is on stderr already.
    pub(super) fn mend(&self, slot: Slot) {
        let services = &self.outfit.services;
        services.counters.errors.increment();
        tracing::error!("the task of a connection panicked");
        let state = &mut *self.state.borrow_mut();
        state.refit();
        if state.connections.contains(slot as usize) {
            let detail = Data {
                message: Some("the task of a connection panicked"),
                ..Data::default()
            };
            self.log(state, slot, Kind::Error, detail);
            // The session may not know any more what it had asked for.
            for key in state.channels.of(slot) {
                self.leave(state, slot, &key);
            }
            self.remove(state, slot, Gone::Fault);
        }
    }

    /// One poll of a connection's task; ready when the connection is removed.
    fn drive(&self, slot: Slot, context: &mut Context<'_>) -> Poll<()> {
        let now = self.outfit.services.clock.now();
        let state = &mut *self.state.borrow_mut();
        let connection = &mut state.connections[slot as usize];
        if connection
            .waker
            .as_ref()
            .is_none_or(|waker| !waker.will_wake(context.waker()))
        {
            connection.waker = Some(context.waker().clone());
        }
        let queue_bytes = state.terms.limits.queue_bytes;
        let (mut reads, mut is_replayed) = (0, false);
        loop {
            let connection = &mut state.connections[slot as usize];
            if let Life::Gone { why } = connection.life {
                self.remove(state, slot, why);
                return Poll::Ready(());
            }
            if let Some(call) = &mut connection.call {
                let Poll::Ready(answer) = call.as_mut().poll(context) else {
                    break;
                };
                connection.call = None;
                self.input(state, slot, Input::Answer(answer), now);
                continue;
            }
            // The flush that makes room wakes this task.
            if connection.is_behind(queue_bytes) {
                break;
            }
            if let Some(Followed {
                channel, recover, ..
            }) = Self::next_wanted(connection)
            {
                self.input(state, slot, Input::Follow { channel, recover }, now);
                continue;
            }
            // A page at a time, so that others have their turn, and what the client asks is heard.
            if !is_replayed && self.replay(state, slot, context, now) {
                is_replayed = true;
                wake_after_others(context);
                continue;
            }
            let connection = &mut state.connections[slot as usize];
            if let Some(unread) = connection.unread.take() {
                self.receive(state, slot, &unread, now);
                continue;
            }
            if reads == READS_PER_TURN_MAX {
                wake_after_others(context);
                break;
            }
            if self.read(state, slot, context, now).is_pending() {
                break;
            }
            reads += 1;
        }
        let connection = &mut state.connections[slot as usize];
        if connection.flow == Flow::Blocked
            && connection.stream.poll_write_ready(context).is_ready()
        {
            connection.flow = Flow::Dirty;
            state.dirty.push_back(slot);
            self.inbound.wake();
        }
        Poll::Pending
    }

    /// One read; pending if there is nothing to read.
    fn read(
        &self,
        state: &mut State,
        slot: Slot,
        context: &mut Context<'_>,
        now: Moment,
    ) -> Poll<()> {
        let connection = &mut state.connections[slot as usize];
        let mut buffer = ReadBuf::new(&mut state.read);
        // Unlike `try_read` it knows by what it gets that there is no more, and need not ask.
        match ready!(Pin::new(&mut connection.stream).poll_read(context, &mut buffer)) {
            Ok(()) if buffer.filled().is_empty() => {
                let why = match connection.life {
                    Life::Closing { close, .. } => Gone::Closed(close),
                    _ => Gone::Lost,
                };
                connection.gone(why);
            }
            Ok(()) => {
                let count = buffer.filled().len();
                self.outfit.counters.received_bytes.add(count as u64);
                if connection.is_event_stream() {
                    // Whatever it is, nobody has asked for it.
                    return Poll::Ready(());
                }
                let read = std::mem::take(&mut state.read);
                self.receive(state, slot, &read[..count], now);
                state.read = read;
            }
            Err(_) => connection.gone(Gone::Lost),
        }
        Poll::Ready(())
    }
}

/// Has this task polled again when all others, the worker's turn included, and the driver had their
/// share. Waking it at once would not do: it would be polled dozens of times before them.
fn wake_after_others(context: &mut Context<'_>) {
    let yielding = std::pin::pin!(tokio::task::yield_now());
    // Its first poll leaves the waker with the runtime, which is all that is wanted of it.
    let _ = yielding.poll(context);
}

/// The future of a connection's task.
struct Drive {
    worker: Rc<Worker>,
    slot: Slot,
}

impl Future for Drive {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        // What a panic leaves half done is this connection's, and `mend` takes it apart.
        let driven = catch_unwind(AssertUnwindSafe(|| self.worker.drive(self.slot, context)));
        driven.unwrap_or_else(|_| {
            self.worker.mend(self.slot);
            Poll::Ready(())
        })
    }
}

//! A stream of server-sent events: another framing of a connection, for a client that only listens.

use std::cell::OnceCell;
use std::collections::VecDeque;

use super::Worker;
use super::connection::{Connection, Life};
use crate::http::event_stream::Followed;
use crate::metrics::WorkerCounters;
use crate::protocol::event_stream::{HEARTBEAT, Marks, write_message, write_retry};
use crate::protocol::{ChannelKey, Close, Position};
use crate::ws::Frame;

/// A client comes back so soon at the earliest if nobody tells it otherwise, and at the latest after
/// twice that.
pub const RETRY_MS: u64 = 1_500;
/// What is said to a browser that should not come back: it cannot be told not to.
const AWAY_MS: u64 = 60 * 60 * 1_000;

/// What a connection is that is no WebSocket.
#[derive(Debug)]
pub struct EventStream {
    /// Channels that have not been asked for yet.
    wanted: VecDeque<Followed>,
    /// What the next id says. An event is in it once it is queued, and never before.
    marks: Marks,
}

/// An event, or what else has a place in a channel, on its way to whoever gets it.
pub struct Addressed<'a> {
    pub key: &'a ChannelKey,
    pub position: Option<&'a Position>,
    /// For WebSockets.
    pub frame: &'a Frame,
    /// For streams, without an id: made when the first one asks.
    block: OnceCell<Frame>,
}

impl<'a> Addressed<'a> {
    pub fn new(key: &'a ChannelKey, position: Option<&'a Position>, frame: &'a Frame) -> Self {
        Self {
            key,
            position,
            frame,
            block: OnceCell::new(),
        }
    }
}

impl EventStream {
    /// A stream of these channels, which stands where it stood before.
    pub fn new(channels: Vec<Followed>) -> Self {
        let mut marks = Marks::default();
        for followed in &channels {
            if let (Some(key), Some(at)) = (&followed.key, &followed.recover) {
                marks.set(key, at.clone());
            }
        }
        Self {
            wanted: channels.into(),
            marks,
        }
    }

    /// A WebSocket's frame in the form of this stream: a message, or a sign of life.
    fn reframe(frame: &Frame) -> Frame {
        match frame.text_payload() {
            Some(json) => {
                let mut block = Vec::with_capacity(json.len() + 32);
                write_message(json, &mut block);
                Frame::encoded(&block)
            }
            None => Frame::encoded(HEARTBEAT),
        }
    }

    /// The message `block` with the id that says where the stream stands after it.
    fn with_id(&self, block: &[u8]) -> Frame {
        let mut bytes = Vec::with_capacity(block.len() + 64);
        self.marks.write_line(&mut bytes);
        bytes.extend_from_slice(block);
        Frame::encoded(&bytes)
    }
}

impl Connection {
    /// Whether it is no WebSocket.
    pub fn is_event_stream(&self) -> bool {
        self.aside
            .as_ref()
            .is_some_and(|aside| aside.stream.is_some())
    }

    /// What it is, if it is no WebSocket.
    pub fn event_stream(&mut self) -> Option<&mut EventStream> {
        self.aside.as_mut()?.stream.as_mut()
    }

    /// The frame as this connection has it.
    pub fn framed(&mut self, frame: &Frame) -> Frame {
        match self.event_stream() {
            None => frame.clone(),
            Some(_) => EventStream::reframe(frame),
        }
    }

    /// As [`Connection::queue`], for an event.
    pub fn queue_event(
        &mut self,
        event: &Addressed<'_>,
        bytes_max: usize,
        scratch: &mut Vec<u8>,
        counters: &WorkerCounters,
    ) -> bool {
        let Some(stream) = self.event_stream() else {
            return self.queue(event.frame, bytes_max, scratch, counters);
        };
        let block = event
            .block
            .get_or_init(|| EventStream::reframe(event.frame));
        let Some(position) = event.position else {
            return self.queue(block, bytes_max, scratch, counters);
        };
        let before = stream.marks.set(event.key, position.clone());
        let framed = stream.with_id(block);
        let is_queued = self.queue(&framed, bytes_max, scratch, counters);
        if !is_queued && let Some(stream) = self.event_stream() {
            stream.marks.reset(event.key, before);
        }
        is_queued
    }
}

impl Worker {
    /// The next channel that the client of a stream asked for.
    pub(super) fn next_wanted(connection: &mut Connection) -> Option<Followed> {
        if connection.life != Life::Open {
            return None;
        }
        connection.event_stream()?.wanted.pop_front()
    }
}

/// How a stream begins: the head of the answer, and when to come back if the connection is lost.
pub fn opening(mut head: Vec<u8>, retry_ms: u64) -> Vec<u8> {
    write_retry(retry_ms, &mut head);
    head.push(b'\n');
    head
}

/// The last message of a stream, `json`, and when to come back.
pub fn last_words(json: &str, close: Close, retry_after_ms: u64) -> Frame {
    let mut block = Vec::new();
    let away = if close.reconnect() {
        retry_after_ms
    } else {
        AWAY_MS
    };
    write_retry(away, &mut block);
    write_message(json.as_bytes(), &mut block);
    Frame::encoded(&block)
}

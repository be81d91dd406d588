//! tungstenite's protocol machine over memory: it parses, masks, checks UTF-8, joins fragments and
//! answers pings and closes; sockets and queues are somebody else's.
//!
//! Between two whole messages such a machine remembers nothing, and that is where connections are
//! almost always. So a worker has one machine for all of them, which gets whole frames only, and a
//! connection has one of its own just while it is in the middle of a fragmented message or closes.

use std::io::{self, Cursor, Read, Write};

use tungstenite::error::{CapacityError, Error, ProtocolError};
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, Role, WebSocketConfig, WebSocketContext};
use tungstenite::{Message, Utf8Bytes};

use crate::protocol::Close;

/// What tungstenite reads at a time: 256 bytes parse a 150-byte message as fast as larger buffers do.
const READ_BUFFER_BYTES: usize = 256;

/// The server's side of RFC 6455, for any number of connections.
#[derive(Debug)]
pub struct Engine {
    /// Between two messages, active, with no byte in its buffers.
    idle: WebSocketContext,
    message_bytes: usize,
}

/// What has to be remembered of one connection from one read to the next: mostly nothing.
#[derive(Debug, Default)]
pub struct Dialogue(Option<Box<Unfinished>>);

#[derive(Debug, Default)]
struct Unfinished {
    /// The beginning of a frame: shorter than that frame, and than `message_bytes` and a header.
    frame: Vec<u8>,
    /// In the middle of a message, after a close frame either way, or after a mistake.
    context: Option<WebSocketContext>,
}

/// What the next bytes of a peer amount to.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    /// A text message.
    Text(Utf8Bytes),
    /// A binary message.
    Binary,
    /// The answer to a ping.
    Pong,
    /// The peer begins to close, or agrees to our close: nothing more comes from it.
    Closing,
    /// It broke the protocol, sent what is not UTF-8, or more than it may.
    Failed(Close),
    /// The input is used up.
    NeedInput,
}

/// How far the frame at the front of some bytes goes.
enum Extent {
    /// So many bytes, header included; perhaps more than are there.
    Bytes(usize),
    /// Its header is not there yet.
    Unknown,
    /// It will be refused for its header.
    Refused,
}

impl Engine {
    /// For messages of at most `message_bytes`.
    pub fn new(message_bytes: usize) -> Self {
        Self {
            idle: context(message_bytes),
            message_bytes,
        }
    }

    /// Messages may have so many bytes from now on. The same has to be said to every [`Dialogue`].
    pub fn rebound(&mut self, message_bytes: usize) {
        self.message_bytes = message_bytes;
        rebound(&mut self.idle, message_bytes);
    }

    /// Reads from the front of `input` up to the end of one message; what the protocol itself
    /// answers (pongs, the reply to a close) is appended to `out`.
    pub fn receive(
        &mut self,
        dialogue: &mut Dialogue,
        input: &mut &[u8],
        out: &mut Vec<u8>,
    ) -> Received {
        loop {
            let begun = dialogue.take_frame();
            let received = if begun.is_empty() {
                let length = match self.extent(input) {
                    Extent::Bytes(length) if length <= input.len() => length,
                    Extent::Refused => input.len(),
                    _ => {
                        dialogue.keep_frame(input.to_vec());
                        *input = &[];
                        return Received::NeedInput;
                    }
                };
                let (frame, rest) = input.split_at(length);
                *input = rest;
                self.frame(dialogue, frame, out)
            } else {
                match self.complete(begun, input) {
                    Ok(frame) => self.frame(dialogue, &frame, out),
                    Err(begun) => {
                        dialogue.keep_frame(begun);
                        return Received::NeedInput;
                    }
                }
            };
            if let Some(received) = received {
                return received;
            }
        }
    }

    /// Adds to the beginning of a frame what is missing, if it is there.
    fn complete(&self, mut begun: Vec<u8>, input: &mut &[u8]) -> Result<Vec<u8>, Vec<u8>> {
        loop {
            let missing = match self.extent(&begun) {
                Extent::Bytes(length) => length - begun.len(),
                Extent::Refused => 0,
                Extent::Unknown => 1,
            };
            if missing == 0 {
                return Ok(begun);
            }
            if input.is_empty() {
                return Err(begun);
            }
            let (more, rest) = input.split_at(missing.min(input.len()));
            begun.extend_from_slice(more);
            *input = rest;
        }
    }

    fn extent(&self, bytes: &[u8]) -> Extent {
        let mut cursor = Cursor::new(bytes);
        match FrameHeader::parse(&mut cursor) {
            Ok(None) => Extent::Unknown,
            Ok(Some((_, length))) if length <= self.message_bytes as u64 => {
                Extent::Bytes(cursor.position() as usize + length as usize)
            }
            Ok(Some(_)) | Err(_) => Extent::Refused,
        }
    }

    /// One whole frame, or one that is refused; `None` if it is not the end of anything.
    fn frame(
        &mut self,
        dialogue: &mut Dialogue,
        mut frame: &[u8],
        out: &mut Vec<u8>,
    ) -> Option<Received> {
        if has_wrong_code(frame) {
            self.lend(dialogue);
            return Some(Received::Failed(Close::Protocol));
        }
        let context = dialogue.context().unwrap_or(&mut self.idle);
        let memory = &mut Memory {
            input: &mut frame,
            out,
        };
        match context.read(memory) {
            Ok(Message::Text(text)) => {
                dialogue.message_ended();
                Some(Received::Text(text))
            }
            Ok(Message::Binary(_)) => {
                dialogue.message_ended();
                Some(Received::Binary)
            }
            Ok(Message::Pong(_)) => Some(Received::Pong),
            Ok(Message::Ping(_) | Message::Frame(_)) => {
                // Writes the pong, which tungstenite would do at the next read.
                let _ = context.flush(memory);
                None
            }
            Ok(Message::Close(_)) => {
                let _ = context.flush(memory);
                self.lend(dialogue);
                Some(Received::Closing)
            }
            // A part of a message.
            Err(Error::Io(_)) => {
                self.lend(dialogue);
                None
            }
            Err(error) => {
                self.lend(dialogue);
                Some(match error {
                    Error::ConnectionClosed | Error::AlreadyClosed => Received::Closing,
                    Error::Protocol(ProtocolError::ReceivedAfterClosing) => Received::Closing,
                    Error::Capacity(CapacityError::MessageTooLong { .. }) => {
                        Received::Failed(Close::TooBig)
                    }
                    Error::Utf8(_) => Received::Failed(Close::NotUtf8),
                    _ => Received::Failed(Close::Protocol),
                })
            }
        }
    }

    /// The idle context is this connection's from now on, unless it has one.
    fn lend<'a>(&mut self, dialogue: &'a mut Dialogue) -> &'a mut WebSocketContext {
        let unfinished = dialogue.0.get_or_insert_default();
        unfinished
            .context
            .get_or_insert_with(|| std::mem::replace(&mut self.idle, context(self.message_bytes)))
    }

    /// Appends our close frame to `out`. After it nothing else may be sent.
    pub fn close(&mut self, dialogue: &mut Dialogue, close: Close, out: &mut Vec<u8>) {
        let frame = CloseFrame {
            code: CloseCode::from(close.code()),
            reason: Utf8Bytes::from_static(close.reason()),
        };
        // In memory this cannot fail but for a context that has already ended.
        let _ = self.lend(dialogue).close(
            &mut Memory {
                input: &mut &[][..],
                out,
            },
            Some(frame),
        );
    }
}

impl Dialogue {
    /// Whether data may be sent: not after a close frame went either way.
    pub fn may_send(&self) -> bool {
        let context = self.0.as_ref().and_then(|own| own.context.as_ref());
        context.is_none_or(WebSocketContext::can_write)
    }

    /// As [`Engine::rebound`] says.
    pub fn rebound(&mut self, message_bytes: usize) {
        if let Some(context) = self.context() {
            rebound(context, message_bytes);
        }
    }

    fn context(&mut self) -> Option<&mut WebSocketContext> {
        self.0.as_mut()?.context.as_mut()
    }

    /// The beginning of a frame that was kept, if any.
    fn take_frame(&mut self) -> Vec<u8> {
        let Some(own) = &mut self.0 else {
            return Vec::new();
        };
        let frame = std::mem::take(&mut own.frame);
        if own.context.is_none() {
            self.0 = None;
        }
        frame
    }

    fn keep_frame(&mut self, frame: Vec<u8>) {
        if !frame.is_empty() {
            self.0.get_or_insert_default().frame = frame;
        }
    }

    /// Nothing is to be remembered of it, unless the connection closes.
    fn message_ended(&mut self) {
        if self.may_send() {
            self.0 = None;
        }
    }
}

/// Whether it is a close frame with a code that must not be sent (RFC 6455 section 7.4). tungstenite would
/// answer it by itself, and nothing could be said before that.
fn has_wrong_code(frame: &[u8]) -> bool {
    if frame.first() != Some(&0x88) {
        return false;
    }
    let mut cursor = Cursor::new(frame);
    // What else may be wrong with a close frame, tungstenite finds.
    let Ok(Some((header, 2..=125))) = FrameHeader::parse(&mut cursor) else {
        return false;
    };
    match (header.mask, &frame[cursor.position() as usize..]) {
        (Some(mask), [high, low, ..]) => {
            let code = u16::from_be_bytes([high ^ mask[0], low ^ mask[1]]);
            !CloseCode::from(code).is_allowed()
        }
        _ => false,
    }
}

fn context(message_bytes: usize) -> WebSocketContext {
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        // Nothing stays in tungstenite's own buffer, so that shared frames may go between.
        .write_buffer_size(0);
    let mut context = WebSocketContext::new(Role::Server, Some(config));
    rebound(&mut context, message_bytes);
    context
}

fn rebound(context: &mut WebSocketContext, message_bytes: usize) {
    context.set_config(|config| {
        config.max_message_size = Some(message_bytes);
        config.max_frame_size = Some(message_bytes);
    });
}

/// The stream that tungstenite sees: reads take from a slice, writes append to a buffer.
struct Memory<'a, 'b> {
    input: &'a mut &'b [u8],
    out: &'a mut Vec<u8>,
}

impl Read for Memory<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.input.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.input.read(buffer)
    }
}

impl Write for Memory<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;

//! tungstenite's protocol machine over memory: it parses, masks, checks UTF-8, joins fragments and
//! answers pings and closes; sockets and queues are somebody else's.

use std::io::{self, Read, Write};

use tungstenite::error::{CapacityError, Error, ProtocolError};
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, Role, WebSocketConfig, WebSocketContext};
use tungstenite::{Message, Utf8Bytes};

use crate::protocol::Close;

/// What tungstenite keeps per connection for reading: 256 bytes parse a 150-byte message as fast as
/// larger buffers do, and 10,000 idle connections pay for what is larger.
const READ_BUFFER_BYTES: usize = 256;

/// The protocol state of one connection.
#[derive(Debug)]
pub struct Engine {
    context: WebSocketContext,
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

impl Engine {
    /// The server's side of a fresh connection, for messages of at most `message_bytes`.
    pub fn new(message_bytes: usize) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            // Nothing stays in tungstenite's own buffer, so that shared frames may go between.
            .write_buffer_size(0)
            .max_message_size(Some(message_bytes))
            .max_frame_size(Some(message_bytes));
        Self {
            context: WebSocketContext::new(Role::Server, Some(config)),
        }
    }

    /// Messages that begin from now on may have so many bytes.
    pub fn rebound(&mut self, message_bytes: usize) {
        self.context.set_config(|config| {
            config.max_message_size = Some(message_bytes);
            config.max_frame_size = Some(message_bytes);
        });
    }

    /// Reads from the front of `input` up to the end of one message; what the protocol itself
    /// answers (pongs, the reply to a close) is appended to `out`.
    pub fn receive(&mut self, input: &mut &[u8], out: &mut Vec<u8>) -> Received {
        loop {
            match self.context.read(&mut Memory { input, out }) {
                Ok(Message::Text(text)) => return Received::Text(text),
                Ok(Message::Binary(_)) => return Received::Binary,
                Ok(Message::Pong(_)) => return Received::Pong,
                // Answered in the next call, and nothing for us to do.
                Ok(Message::Ping(_) | Message::Frame(_)) => {}
                Ok(Message::Close(_)) => {
                    // Writes the reply, which tungstenite would do at the next read.
                    let _ = self.context.flush(&mut Memory { input, out });
                    return Received::Closing;
                }
                Err(Error::Io(_)) => return Received::NeedInput,
                Err(Error::ConnectionClosed | Error::AlreadyClosed) => return Received::Closing,
                Err(Error::Capacity(CapacityError::MessageTooLong { .. })) => {
                    return Received::Failed(Close::TooBig);
                }
                Err(Error::Utf8(_)) => return Received::Failed(Close::NotUtf8),
                Err(Error::Protocol(ProtocolError::ReceivedAfterClosing)) => {
                    return Received::Closing;
                }
                Err(_) => return Received::Failed(Close::Protocol),
            }
        }
    }

    /// Appends our close frame to `out`. After it nothing else may be sent.
    pub fn close(&mut self, close: Close, out: &mut Vec<u8>) {
        let frame = CloseFrame {
            code: CloseCode::from(close.code()),
            reason: Utf8Bytes::from_static(close.reason()),
        };
        // In memory this cannot fail but for a context that has already ended.
        let _ = self.context.close(
            &mut Memory {
                input: &mut &[][..],
                out,
            },
            Some(frame),
        );
    }

    /// Whether data may be sent: not after a close frame went either way.
    pub fn may_send(&self) -> bool {
        self.context.can_write()
    }
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
mod tests {
    use super::*;

    /// A client's frame with a mask of zeros.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![first, 0x80 | payload.len() as u8, 0, 0, 0, 0];
        bytes.extend_from_slice(payload);
        bytes
    }

    /// All that `bytes` amount to, handed over `step` bytes at a time, and what was answered.
    fn receive(bytes: &[u8], step: usize) -> (Vec<Received>, Vec<u8>) {
        let mut engine = Engine::new(100);
        let (mut all, mut out) = (Vec::new(), Vec::new());
        for mut chunk in bytes.chunks(step) {
            loop {
                match engine.receive(&mut chunk, &mut out) {
                    Received::NeedInput => break,
                    failed @ Received::Failed(_) => {
                        all.push(failed);
                        return (all, out);
                    }
                    Received::Closing => {
                        all.push(Received::Closing);
                        return (all, out);
                    }
                    received => all.push(received),
                }
            }
        }
        (all, out)
    }

    #[test]
    fn messages_arrive_whole_however_they_were_cut() {
        let mut bytes = frame(0x81, b"one");
        bytes.extend(frame(0x01, b"tw"));
        bytes.extend(frame(0x89, b"p"));
        bytes.extend(frame(0x80, b"o"));
        bytes.extend(frame(0x8a, b""));
        bytes.extend(frame(0x82, b"x"));
        for step in 1..bytes.len() {
            let (all, out) = receive(&bytes, step);
            let expected = [
                Received::Text("one".into()),
                Received::Text("two".into()),
                Received::Pong,
                Received::Binary,
            ];
            assert_eq!(all, expected, "in steps of {step}");
            assert_eq!(out, b"\x8a\x01p", "in steps of {step}");
        }
    }

    #[test]
    fn every_way_to_break_the_protocol_has_its_close() {
        let unmasked = [0x81, 1, b'x'];
        assert_eq!(receive(&unmasked, 9).0, [Received::Failed(Close::Protocol)]);
        assert_eq!(
            receive(&frame(0xf1, b"x"), 9).0,
            [Received::Failed(Close::Protocol)]
        );
        assert_eq!(
            receive(&frame(0x83, b"x"), 9).0,
            [Received::Failed(Close::Protocol)]
        );
        assert_eq!(
            receive(&frame(0x81, b"\xff"), 9).0,
            [Received::Failed(Close::NotUtf8)]
        );
        assert_eq!(
            receive(&frame(0x81, &[b'x'; 101]), 200).0,
            [Received::Failed(Close::TooBig)]
        );
        let announced = [
            0x81, 0xff, 0x7f, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0,
        ];
        assert_eq!(receive(&announced, 99).0, [Received::Failed(Close::TooBig)]);
    }

    #[test]
    fn a_close_is_answered_with_its_code() {
        let (all, out) = receive(&frame(0x88, &[0x03, 0xe8]), 99);
        assert_eq!(all, [Received::Closing]);
        assert_eq!(out, [0x88, 2, 0x03, 0xe8]);
    }

    #[test]
    fn after_our_close_nothing_may_be_sent_and_the_peers_reply_ends_it() {
        let mut engine = Engine::new(100);
        let mut out = Vec::new();
        assert!(engine.may_send());
        engine.close(Close::TokenExpired, &mut out);
        assert_eq!(
            out,
            [&[0x88, 15, 0x10, 0x05][..], b"token expired"].concat()
        );
        assert!(!engine.may_send());
        engine.close(Close::Revoked, &mut out);
        assert_eq!(out.len(), 17, "only one close frame is sent");
        let reply = frame(0x88, &[0x10, 0x05]);
        assert_eq!(engine.receive(&mut &reply[..], &mut out), Received::Closing);
    }

    #[test]
    fn after_a_failure_the_close_can_still_be_said() {
        let mut engine = Engine::new(100);
        let mut out = Vec::new();
        let bad = [0x81, 1, b'x'];
        assert_eq!(
            engine.receive(&mut &bad[..], &mut out),
            Received::Failed(Close::Protocol)
        );
        engine.close(Close::Protocol, &mut out);
        assert_eq!(&out[..4], [0x88, 16, 0x03, 0xea]);
    }
}

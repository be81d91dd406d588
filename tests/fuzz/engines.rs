//! `ws::Engine` serves all connections of a worker by one machine; each has to be served as if it had one of its
//! own, and as tungstenite itself would, but for a close with a code that must not be sent. From any bytes: what
//! several peers send, in pieces.

use std::io::{self, Cursor, Read, Write};

use fanfare::protocol::Close;
use fanfare::ws::{Dialogue, Engine, Received};
use tungstenite::error::{CapacityError, Error, ProtocolError};
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, Role, WebSocketConfig, WebSocketContext};
use tungstenite::{Message, Utf8Bytes};

const PEERS: usize = 3;
const MESSAGE_BYTES: usize = 300;

/// What a peer was told, and what it said as the server understood it.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    said: Vec<Received>,
    answered: Vec<u8>,
    is_over: bool,
}

/// Has the peers send what `input` says, turn by turn, and compares.
pub fn agree(mut input: &[u8]) {
    let mut shared = Engine::new(MESSAGE_BYTES);
    let mut dialogues: [Dialogue; PEERS] = Default::default();
    let mut seen: [Seen; PEERS] = Default::default();
    let mut sent: [Vec<u8>; PEERS] = Default::default();
    while let Some((peer, pieces)) = turn(&mut input) {
        for piece in pieces {
            sent[peer].extend_from_slice(&piece);
            take(&mut shared, &mut dialogues[peer], &piece, &mut seen[peer]);
        }
    }
    for (seen, sent) in seen.iter().zip(&sent) {
        let mut alone = Seen::default();
        let mut own = Engine::new(MESSAGE_BYTES);
        take(&mut own, &mut Dialogue::default(), sent, &mut alone);
        assert_eq!(*seen, alone, "alone, of {sent:?}");
        assert_eq!(*seen, by_tungstenite(sent), "tungstenite, of {sent:?}");
    }
}

/// Who sends what next: raw bytes, or a frame that is cut in two.
fn turn(input: &mut &[u8]) -> Option<(usize, Vec<Vec<u8>>)> {
    let control = byte(input)?;
    let peer = usize::from(control) % PEERS;
    if control & 0x80 == 0 {
        let bytes = usize::from(byte(input)?);
        return Some((peer, vec![bytes_of(input, bytes)]));
    }
    let (head, form, length, cut) = (byte(input)?, byte(input)?, byte(input)?, byte(input)?);
    let payload = bytes_of(
        input,
        usize::from(length) * if form & 4 == 0 { 1 } else { 2 },
    );
    let mask = [form, head, length, cut];
    let masked = if form & 0x40 == 0 { 0x80 } else { 0 };
    let mut frame = vec![head];
    match (form % 4, payload.len()) {
        (0 | 1, length @ ..126) => frame.push(masked | length as u8),
        (2, length) => {
            frame.push(masked | 127);
            frame.extend((length as u64).to_be_bytes());
        }
        (_, length) => {
            frame.push(masked | 126);
            frame.extend((length as u16).to_be_bytes());
        }
    }
    if masked == 0 {
        frame.extend(&payload);
    } else {
        frame.extend(mask);
        frame.extend(
            payload
                .iter()
                .zip(mask.iter().cycle())
                .map(|(byte, mask)| byte ^ mask),
        );
    }
    let rest = frame.split_off(usize::from(cut) % (frame.len() + 1));
    Some((peer, vec![frame, rest]))
}

fn byte(input: &mut &[u8]) -> Option<u8> {
    let (first, rest) = input.split_first()?;
    *input = rest;
    Some(*first)
}

fn bytes_of(input: &mut &[u8], count: usize) -> Vec<u8> {
    let (taken, rest) = input.split_at(count.min(input.len()));
    *input = rest;
    taken.to_vec()
}

fn take(engine: &mut Engine, dialogue: &mut Dialogue, mut input: &[u8], seen: &mut Seen) {
    while !seen.is_over {
        match engine.receive(dialogue, &mut input, &mut seen.answered) {
            Received::NeedInput => {
                assert!(input.is_empty());
                return;
            }
            Received::Failed(close) => {
                engine.close(dialogue, close, &mut seen.answered);
                seen.said.push(Received::Failed(close));
                seen.is_over = true;
            }
            received => {
                seen.is_over = received == Received::Closing;
                seen.said.push(received);
            }
        }
    }
}

/// Where a whole close frame begins whose code must not be sent: tungstenite would answer it by itself.
fn wrong_close(input: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let mut cursor = Cursor::new(&input[at..]);
        let (header, length) = FrameHeader::parse(&mut cursor).ok()??;
        let begin = at + usize::try_from(cursor.position()).ok()?;
        let end = begin.checked_add(usize::try_from(length).ok()?)?;
        let payload = input.get(begin..end)?;
        if let (0x88, Some(mask), [high, low, ..], ..=125) =
            (input[at], header.mask, payload, payload.len())
        {
            let code = u16::from_be_bytes([high ^ mask[0], low ^ mask[1]]);
            if !CloseCode::from(code).is_allowed() {
                return Some(at);
            }
        }
        at = end;
    }
}

fn by_tungstenite(input: &[u8]) -> Seen {
    let wrong = wrong_close(input);
    let config = WebSocketConfig::default()
        .write_buffer_size(0)
        .max_message_size(Some(MESSAGE_BYTES))
        .max_frame_size(Some(MESSAGE_BYTES));
    let mut context = WebSocketContext::new(Role::Server, Some(config));
    let mut memory = Memory(&input[..wrong.unwrap_or(input.len())], Vec::new());
    let mut said = Vec::new();
    let is_over = loop {
        let received = match context.read(&mut memory) {
            Ok(Message::Text(text)) => Received::Text(text),
            Ok(Message::Binary(_)) => Received::Binary,
            Ok(Message::Pong(_)) => Received::Pong,
            Ok(Message::Ping(_) | Message::Frame(_)) => {
                let _ = context.flush(&mut memory);
                continue;
            }
            Ok(Message::Close(_)) => {
                let _ = context.flush(&mut memory);
                Received::Closing
            }
            Err(Error::Io(_)) if wrong.is_some() => Received::Failed(Close::Protocol),
            Err(Error::Io(_)) => break false,
            Err(
                Error::ConnectionClosed
                | Error::AlreadyClosed
                | Error::Protocol(ProtocolError::ReceivedAfterClosing),
            ) => Received::Closing,
            Err(Error::Capacity(CapacityError::MessageTooLong { .. })) => {
                Received::Failed(Close::TooBig)
            }
            Err(Error::Utf8(_)) => Received::Failed(Close::NotUtf8),
            Err(_) => Received::Failed(Close::Protocol),
        };
        if let Received::Failed(close) = &received {
            let frame = CloseFrame {
                code: close.code().into(),
                reason: Utf8Bytes::from_static(close.reason()),
            };
            let _ = context.close(&mut memory, Some(frame));
        }
        let is_over = matches!(received, Received::Closing | Received::Failed(_));
        said.push(received);
        if is_over {
            break true;
        }
    };
    Seen {
        said,
        answered: memory.1,
        is_over,
    }
}

struct Memory<'a>(&'a [u8], Vec<u8>);

impl Read for Memory<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.0.read(buffer)
    }
}

impl Write for Memory<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.1.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

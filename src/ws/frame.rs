//! Frames, encoded once and shared by all that send them.

use std::ops::Deref;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};

use crate::protocol::{ChannelKey, Event, Position};

/// Bytes of the longest header that a server sends (RFC 6455 section 5.2): no mask.
pub const HEADER_BYTES_MAX: usize = 10;

/// The first byte of an unfragmented text frame.
const FIN_TEXT: u8 = 0x81;

/// The bytes of one whole frame, or of several that stay together. Cloning shares them: the count is
/// not atomic, because a frame never leaves its worker.
#[derive(Debug, Clone)]
pub struct Frame(Rc<[u8]>);

impl Frame {
    /// A text frame.
    pub fn text(payload: &str) -> Self {
        let mut bytes = Vec::with_capacity(payload.len() + HEADER_BYTES_MAX);
        write_text_header(payload.len(), &mut bytes);
        bytes.extend_from_slice(payload.as_bytes());
        Self(bytes.into())
    }

    /// A ping without a payload.
    pub fn ping() -> Self {
        Self(Rc::new([0x89, 0]))
    }

    /// The text of one text frame; `None` for another.
    pub fn text_payload(&self) -> Option<&[u8]> {
        let (&first, rest) = self.0.split_first()?;
        let (&length, rest) = rest.split_first()?;
        let extended = match length {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        (first == FIN_TEXT).then(|| rest.get(extended..)).flatten()
    }

    /// Bytes that already are whole frames.
    pub fn encoded(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }
}

impl Deref for Frame {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// Appends the header of an unfragmented, unmasked text frame.
pub fn write_text_header(payload_bytes: usize, out: &mut Vec<u8>) {
    out.push(FIN_TEXT);
    match payload_bytes {
        0..=125 => out.push(payload_bytes as u8),
        126..=0xffff => {
            out.push(126);
            out.extend_from_slice(&(payload_bytes as u16).to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&(payload_bytes as u64).to_be_bytes());
        }
    }
}

/// Encodes what every subscriber of a channel gets for an event: once per node.
pub fn encode_event(channel: &ChannelKey, event: &Event, position: Option<&Position>) -> Bytes {
    let mut bytes = BytesMut::with_capacity(
        HEADER_BYTES_MAX + event.as_bytes().len() + channel.as_str().len() + 96,
    );
    bytes.resize(HEADER_BYTES_MAX, 0);
    event.write_with_meta(channel, position, &mut bytes);
    let mut header = Vec::with_capacity(HEADER_BYTES_MAX);
    write_text_header(bytes.len() - HEADER_BYTES_MAX, &mut header);
    let start = HEADER_BYTES_MAX - header.len();
    bytes[start..HEADER_BYTES_MAX].copy_from_slice(&header);
    bytes.freeze().slice(start..)
}

/// The text that a subscriber gets for an event, for what is sent to one client only.
pub fn event_text(channel: &ChannelKey, event: &Event, position: Option<&Position>) -> String {
    let mut text = BytesMut::new();
    event.write_with_meta(channel, position, &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_text_frame() {
        let key = ChannelKey::parse("post_42", 255).unwrap();
        for padding in [1, 200, 70_000] {
            let json = format!(r#"{{"type":"{}"}}"#, "x".repeat(padding));
            let event = Event::parse(&json, 1 << 20).unwrap();
            let payload = format!(r#"{{"_meta":{{"channel":"post_42"}},{}"#, &json[1..]);
            assert_eq!(encode_event(&key, &event, None), *Frame::text(&payload));
            let frame = Frame::text(&payload);
            assert_eq!(frame.text_payload(), Some(payload.as_bytes()));
        }
    }

    #[test]
    fn headers_follow_the_rfc_at_every_boundary() {
        let header = |bytes| {
            let mut out = Vec::new();
            write_text_header(bytes, &mut out);
            out
        };
        assert_eq!(header(0), [0x81, 0]);
        assert_eq!(header(125), [0x81, 125]);
        assert_eq!(header(126), [0x81, 126, 0, 126]);
        assert_eq!(header(65_535), [0x81, 126, 255, 255]);
        assert_eq!(header(65_536), [0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
        assert_eq!(&*Frame::text("hi"), b"\x81\x02hi");
        assert_eq!(Frame::ping().text_payload(), None);
    }
}

//! The client's side of RFC 6455 in as little code and time as it can be had: pure, nothing is
//! allocated per message. Not for: servers, fragments, extensions, trust in what the peer sends.

/// A request key, the same on every connection (the one of RFC 6455 section 1.3): a benchmark has
/// nothing to hide, and the answer can be compared with a constant.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// The answer to [`KEY`].
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// Masks need not surprise anybody here. Not zero, so that the server has something to undo.
const MASK: [u8; 4] = [0x5a, 0xa5, 0x3c, 0xc3];
/// No frame of a server under test is longer.
pub const FRAME_BYTES_MAX: u64 = 512 << 10;

const FIN: u8 = 0x80;
const TEXT: u8 = 0x1;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;

/// One thing that the server said.
#[derive(Debug, PartialEq, Eq)]
pub enum Said<'a> {
    /// A text message.
    Text(&'a [u8]),
    /// A ping, to be answered with the same bytes.
    Ping(&'a [u8]),
    /// The end, with its code; 1005 for none.
    Close(u16),
    /// A pong.
    Pong,
}

/// Bytes that are no WebSocket frame of a server, or none that is understood here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server sent a frame that this client does not know")]
pub struct Foreign;

/// Takes the first frame off `bytes`: what it says and its length; `None` if it has not arrived whole.
///
/// # Errors
/// [`Foreign`]
pub fn next(bytes: &[u8]) -> Result<Option<(Said<'_>, usize)>, Foreign> {
    let [first, second, rest @ ..] = bytes else {
        return Ok(None);
    };
    let (length, head) = match second {
        // The mask bit is the client's.
        128.. => return Err(Foreign),
        127 => match rest.first_chunk() {
            Some(length) => (u64::from_be_bytes(*length), 10),
            None => return Ok(None),
        },
        126 => match rest.first_chunk() {
            Some(length) => (u64::from(u16::from_be_bytes(*length)), 4),
            None => return Ok(None),
        },
        short => (u64::from(*short), 2),
    };
    if length > FRAME_BYTES_MAX {
        return Err(Foreign);
    }
    let end = head + length as usize;
    let Some(payload) = bytes.get(head..end) else {
        return Ok(None);
    };
    let said = match first ^ FIN {
        TEXT => Said::Text(payload),
        PING => Said::Ping(payload),
        PONG => Said::Pong,
        CLOSE => Said::Close(
            payload
                .first_chunk()
                .map_or(1005, |code| u16::from_be_bytes(*code)),
        ),
        _ => return Err(Foreign),
    };
    Ok(Some((said, end)))
}

/// Appends a text frame of the client.
pub fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    put(out, TEXT, text);
}

/// Appends the answer to a ping.
pub fn put_pong(out: &mut Vec<u8>, payload: &[u8]) {
    put(out, PONG, payload);
}

fn put(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    out.push(FIN | opcode);
    put_length(out, payload.len(), 0x80);
    out.extend_from_slice(&MASK);
    let masked = payload.iter().zip(MASK.iter().cycle());
    out.extend(masked.map(|(byte, mask)| byte ^ mask));
}

/// A text frame as a server sends it.
pub fn server_text(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 10);
    out.push(FIN | TEXT);
    put_length(&mut out, text.len(), 0);
    out.extend_from_slice(text);
    out
}

fn put_length(out: &mut Vec<u8>, length: usize, mask_bit: u8) {
    if length < 126 {
        out.push(mask_bit | length as u8);
    } else if let Ok(length) = u16::try_from(length) {
        out.push(mask_bit | 126);
        out.extend_from_slice(&length.to_be_bytes());
    } else {
        out.push(mask_bit | 127);
        out.extend_from_slice(&(length as u64).to_be_bytes());
    }
}

/// The request that opens a WebSocket.
pub fn upgrade_request(host: &str, path: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_every_length_are_read_whole_or_not_at_all() {
        for length in [0, 1, 125, 126, 127, 65_535, 65_536] {
            let text = vec![b'x'; length];
            let mut bytes = server_text(&text);
            let frame = bytes.len();
            bytes.extend_from_slice(&[FIN | PONG, 0]);
            assert_eq!(
                next(&bytes),
                Ok(Some((Said::Text(&text), frame))),
                "{length}"
            );
            assert_eq!(next(&bytes[..frame - 1]), Ok(None), "{length}");
            assert_eq!(next(&bytes[frame..]), Ok(Some((Said::Pong, 2))));
        }
        assert_eq!(next(&[]), Ok(None));
        assert_eq!(next(&[FIN | TEXT]), Ok(None));
    }

    #[test]
    fn control_frames_and_foreign_bytes_are_told_apart() {
        assert_eq!(next(b"\x89\x02hi"), Ok(Some((Said::Ping(b"hi"), 4))));
        assert_eq!(next(b"\x88\x02\x10\x06"), Ok(Some((Said::Close(4102), 4))));
        assert_eq!(next(b"\x88\x00"), Ok(Some((Said::Close(1005), 2))));
        // Masked, continued, compressed, immense.
        for foreign in [
            &b"\x81\x81aaaaa"[..],
            b"\x01\x01a",
            b"\xc1\x01a",
            b"\x81\x7f\xff\xff\xff\xff\xff\xff\xff\xff",
        ] {
            assert_eq!(next(foreign), Err(Foreign), "{foreign:?}");
        }
    }

    #[test]
    fn a_library_reads_what_this_client_writes() {
        use tungstenite::protocol::Role;
        for length in [0, 125, 126, 70_000] {
            let text = "y".repeat(length);
            let mut bytes = Vec::new();
            put_text(&mut bytes, text.as_bytes());
            let peer = std::io::Cursor::new(bytes);
            let mut socket = tungstenite::WebSocket::from_raw_socket(peer, Role::Server, None);
            assert_eq!(socket.read().unwrap().into_text().unwrap().as_str(), text);
        }
    }
}

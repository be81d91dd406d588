//! A connection for what no HTTP or WebSocket library would send.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::Reply;
use super::http::{find, parse};

/// For everything that a server should do at once.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes out, bytes in.
pub struct Raw {
    stream: TcpStream,
    /// Received and not looked at yet.
    received: Vec<u8>,
}

impl Raw {
    /// Connects.
    #[track_caller]
    pub fn open(to: SocketAddr) -> Self {
        Self::try_open(to).unwrap_or_else(|error| panic!("cannot connect: {error}"))
    }

    /// Connects, unless the server or the kernel does not want to.
    pub fn try_open(to: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self {
            stream,
            received: Vec::new(),
        })
    }

    /// Connects and becomes a WebSocket on this path, which has the token in it.
    #[track_caller]
    pub fn upgrade(to: SocketAddr, path: &str) -> Self {
        let mut raw = Self::open(to);
        raw.send(handshake(path).as_bytes());
        let reply = raw.reply().expect("closed instead of an upgrade");
        assert_eq!(reply.status, 101, "{reply:?}");
        raw
    }

    /// Sends; `false` if the server does not take it any more.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Sends as much as the server takes within `patience`; how much that was.
    pub fn stuff(&mut self, bytes: &[u8], patience: Duration) -> usize {
        self.stream.set_write_timeout(Some(patience)).unwrap();
        let mut sent = 0;
        while sent < bytes.len() {
            match self.stream.write(&bytes[sent..]) {
                Ok(0) | Err(_) => break,
                Ok(count) => sent += count,
            }
        }
        self.stream.set_write_timeout(Some(PATIENCE)).unwrap();
        sent
    }

    /// The next answer; `None` if the connection ends instead. Panics if neither comes in time.
    #[track_caller]
    pub fn reply(&mut self) -> Option<Reply> {
        self.reply_to("GET")
    }

    /// As [`Raw::reply`], to a request of this method: the answer to `HEAD` has no body.
    #[track_caller]
    pub fn reply_to(&mut self, method: &str) -> Option<Reply> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(end) = find(&self.received, b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&self.received[..end]).to_ascii_lowercase();
                let length = head
                    .split("\r\n")
                    .find_map(|line| line.strip_prefix("content-length:"))
                    .filter(|_| method != "HEAD")
                    .map_or(0, |length| length.trim().parse::<usize>().unwrap());
                let whole = end + 4 + length;
                if self.received.len() >= whole {
                    let rest = self.received.split_off(whole);
                    let reply = std::mem::replace(&mut self.received, rest);
                    return Some(parse(&reply).unwrap());
                }
            }
            if !self.read(deadline) {
                assert!(Instant::now() < deadline, "neither an answer nor an end");
                assert!(self.received.is_empty(), "half an answer: {self:?}");
                return None;
            }
        }
    }

    /// All that comes until the server closes, however it does.
    #[track_caller]
    pub fn rest(&mut self, patience: Duration) -> Vec<u8> {
        let deadline = Instant::now() + patience;
        while self.read(deadline) {}
        assert!(Instant::now() < deadline, "not closed in time: {self:?}");
        std::mem::take(&mut self.received)
    }

    /// The frames that come until the server closes: first byte and payload of each.
    #[track_caller]
    pub fn frames(&mut self, patience: Duration) -> Vec<(u8, Vec<u8>)> {
        let bytes = self.rest(patience);
        let mut bytes = &bytes[..];
        let mut frames = Vec::new();
        while let [first, short, rest @ ..] = bytes {
            let (length, rest) = match short {
                126 => {
                    let (length, rest) = rest.split_at(2);
                    (u16::from_be_bytes(length.try_into().unwrap()).into(), rest)
                }
                127 => {
                    let (length, rest) = rest.split_at(8);
                    (
                        u64::from_be_bytes(length.try_into().unwrap()) as usize,
                        rest,
                    )
                }
                short => (usize::from(*short), rest),
            };
            // A reset may cut the last one.
            let Some((payload, rest)) = rest.split_at_checked(length) else {
                break;
            };
            frames.push((*first, payload.to_vec()));
            bytes = rest;
        }
        frames
    }

    /// The code of the close frame that ends it all; `None` if it ends without one.
    #[track_caller]
    pub fn close_code(&mut self, patience: Duration) -> Option<u16> {
        let frames = self.frames(patience);
        let (first, payload) = frames.last()?;
        (*first == 0x88).then(|| {
            let code = payload
                .get(..2)
                .map_or([0x03, 0xed], |code| [code[0], code[1]]);
            u16::from_be_bytes(code)
        })
    }

    /// Says that nothing more will be sent.
    pub fn finish(&mut self) {
        // The server may have closed already.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Ends with a reset instead of a farewell.
    pub fn reset(self) {
        let socket = socket2::SockRef::from(&self.stream);
        socket.set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// The socket itself.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Reads once; `false` at the end of the connection or of time.
    fn read(&mut self, deadline: Instant) -> bool {
        let mut buffer = [0; 16 << 10];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            self.stream.set_read_timeout(Some(left)).unwrap();
            match self.stream.read(&mut buffer) {
                Ok(0) => return false,
                Ok(count) => {
                    self.received.extend_from_slice(&buffer[..count]);
                    return true;
                }
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => return false,
            }
        }
    }
}

impl std::fmt::Debug for Raw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = &self.received[..self.received.len().min(500)];
        write!(f, "Raw({:?})", String::from_utf8_lossy(shown))
    }
}

/// A good upgrade request.
pub fn handshake(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

/// A client's frame: its first byte, and its payload under a mask.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..=125 => bytes.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            bytes.push(0x80 | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        length => {
            bytes.push(0x80 | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes.extend(MASK);
    bytes.extend(
        payload
            .iter()
            .zip(MASK.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    bytes
}

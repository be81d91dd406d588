//! One HTTP connection that publishes. Requests may be sent before the earlier ones are answered
//! (RFC 9112 section 9.3.2); the server takes them up one after the other, so order is kept.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::stopwatch;

/// Bytes of answers read at a time.
const READ_BYTES: usize = 16 << 10;
/// The head of an answer has fewer lines.
const HEADERS_MAX: usize = 32;

/// The connection, and what is under way on it.
pub struct Publisher {
    /// Non-blocking.
    pub socket: TcpStream,
    /// Requests that have not left yet.
    pub out: Vec<u8>,
    /// Whether the kernel took no more, so that it has to be told when there is room.
    pub blocked: bool,
    /// When each of the requests that have no answer yet was made, in nanoseconds.
    in_flight: VecDeque<u64>,
    unread: Vec<u8>,
}

/// An answer to a publication.
pub struct Answer<'a> {
    /// Such as 200.
    pub status: u16,
    /// From making the request to reading the answer.
    pub nanos: u64,
    /// JSON.
    pub body: &'a [u8],
}

impl Publisher {
    /// Connects.
    ///
    /// # Errors
    /// When nobody listens.
    pub fn connect(to: SocketAddr) -> io::Result<Self> {
        let socket = TcpStream::connect(to)?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            out: Vec::new(),
            blocked: false,
            in_flight: VecDeque::new(),
            unread: Vec::new(),
        })
    }

    /// Notes that a request was appended to `out`.
    pub fn asked(&mut self, now_ns: u64) {
        self.in_flight.push_back(now_ns);
    }

    /// Requests without an answer.
    pub fn waiting(&self) -> usize {
        self.in_flight.len()
    }

    /// Writes what the kernel takes.
    ///
    /// # Errors
    /// When the connection is broken.
    pub fn flush(&mut self) -> io::Result<()> {
        while !self.out.is_empty() {
            match self.socket.write(&self.out) {
                Ok(written) => drop(self.out.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads what is there and hands over every whole answer.
    ///
    /// # Errors
    /// When the connection ended or talks something else than HTTP.
    pub fn read(&mut self, mut take: impl FnMut(Answer<'_>)) -> io::Result<()> {
        let kept = self.unread.len();
        self.unread.resize(kept + READ_BYTES, 0);
        let read = match self.socket.read(&mut self.unread[kept..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error),
        };
        self.unread.truncate(kept + read);
        let now = stopwatch::nanos();
        let mut at = 0;
        while let Some((status, body, length)) = answer(&self.unread[at..])? {
            let asked = self
                .in_flight
                .pop_front()
                .ok_or(io::ErrorKind::InvalidData)?;
            take(Answer {
                status,
                nanos: now.saturating_sub(asked),
                body,
            });
            at += length;
        }
        self.unread.drain(..at);
        Ok(())
    }
}

/// The first answer: status, body, length in all; `None` if it is not whole.
fn answer(bytes: &[u8]) -> io::Result<Option<(u16, &[u8], usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let foreign = |_| io::Error::from(io::ErrorKind::InvalidData);
    let httparse::Status::Complete(head) = response.parse(bytes).map_err(foreign)? else {
        return Ok(None);
    };
    let length = response
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-length"))
        .and_then(|header| {
            std::str::from_utf8(header.value)
                .ok()?
                .parse::<usize>()
                .ok()
        })
        .ok_or(io::ErrorKind::InvalidData)?;
    let end = head.saturating_add(length);
    let body = bytes.get(head..end);
    Ok(body.map(|body| (response.code.unwrap_or(0), body, end)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_taken_one_by_one_and_whole() {
        let first = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
        let both = [
            &first[..],
            b"HTTP/1.1 507 Full\r\nContent-Length: 1\r\n\r\n0",
        ]
        .concat();
        assert_eq!(answer(&both).unwrap(), Some((200, &b"{}"[..], first.len())));
        assert_eq!(answer(&both[first.len()..]).unwrap().unwrap().0, 507);
        for cut in [0, 5, 20, first.len() - 1] {
            assert_eq!(answer(&first[..cut]).unwrap(), None, "{cut}");
        }
        assert!(answer(b"\x81\x02hi").is_err());
        assert!(answer(b"HTTP/1.1 200 OK\r\n\r\n").is_err(), "no length");
    }
}

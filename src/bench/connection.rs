//! One subscriber's socket, from connecting to reading events.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use super::ledger::Seen;
use super::stalled::Stalled;
use super::wire::{self, Said};

/// Where a subscriber stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// No socket.
    Away,
    /// The TCP connection is being made.
    Connecting,
    /// The upgrade was asked for.
    Upgrading,
    /// It was granted; the greeting comes.
    Greeting,
    /// So many subscriptions have not been answered.
    Subscribing(usize),
    /// Reads events.
    Ready,
}

/// A subscriber and its socket.
pub struct Connection {
    /// Non-blocking; `None` while it is away.
    pub socket: Option<TcpStream>,
    /// How far it is.
    pub stage: Stage,
    /// The number of the channel whose events it counts.
    pub channel: usize,
    /// Whether it was there when the books were opened, so that it has to get everything.
    pub counted: bool,
    /// Which of them came.
    pub seen: Seen,
    /// What came to it, if it is one that stalls.
    pub stalled: Option<Stalled>,
    /// The start of a frame whose end has not come. Almost always empty.
    rest: Vec<u8>,
}

/// Why a socket is over, for people.
pub type Over = String;

impl Connection {
    /// One that is away.
    pub fn new(channel: usize) -> Self {
        Self {
            socket: None,
            stage: Stage::Away,
            channel,
            counted: false,
            seen: Seen::default(),
            stalled: None,
            rest: Vec::new(),
        }
    }

    /// Closes the socket; the kernel takes it out of the poll.
    pub fn leave(&mut self) {
        self.socket = None;
        self.stage = Stage::Away;
        self.rest = Vec::new();
    }

    /// Writes at once; a server that does not take a few bytes is broken.
    ///
    /// # Errors
    /// Why not.
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), Over> {
        match self.socket.as_mut().map(|socket| socket.write(bytes)) {
            Some(Ok(written)) if written == bytes.len() => Ok(()),
            Some(Err(error)) => Err(error.to_string()),
            _ => Err("the server does not read".to_owned()),
        }
    }

    /// Reads once and hands over each text message; answers pings. `scratch` holds more than the
    /// longest frame.
    ///
    /// # Errors
    /// Why the socket is over.
    pub fn read(
        &mut self,
        scratch: &mut [u8],
        mut take: impl FnMut(&mut Self, &[u8]) -> Result<(), Over>,
    ) -> Result<(), Over> {
        let Some(socket) = &mut self.socket else {
            return Ok(());
        };
        let kept = self.rest.len();
        scratch[..kept].copy_from_slice(&self.rest);
        let read = match socket.read(&mut scratch[kept..]) {
            Ok(0) => return Err("the server closed the connection".to_owned()),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.to_string()),
        };
        let bytes = &scratch[..kept + read];
        let mut at = 0;
        if self.stage == Stage::Upgrading {
            at = upgraded(bytes)?;
            if at > 0 {
                self.stage = Stage::Greeting;
            }
        }
        if self.stage != Stage::Upgrading {
            while let Some((said, length)) = wire::next(&bytes[at..]).map_err(|e| e.to_string())? {
                at += length;
                match said {
                    Said::Text(text) => take(self, text)?,
                    Said::Ping(payload) => {
                        let mut pong = Vec::new();
                        wire::put_pong(&mut pong, payload);
                        self.send(&pong)?;
                    }
                    Said::Pong => {}
                    Said::Close(code) => return Err(format!("the server closed with {code}")),
                }
            }
        }
        self.rest.clear();
        self.rest.extend_from_slice(&bytes[at..]);
        Ok(())
    }
}

/// The length of the answer's head, if the upgrade was granted; 0 if the head is not whole.
fn upgraded(bytes: &[u8]) -> Result<usize, Over> {
    let end = b"\r\n\r\n";
    let Some(at) = bytes.windows(end.len()).position(|window| window == end) else {
        return Ok(0);
    };
    let head = String::from_utf8_lossy(&bytes[..at]);
    if !head.starts_with("HTTP/1.1 101") {
        let status = head.lines().next().unwrap_or_default();
        return Err(format!("the upgrade was refused: {status}"));
    }
    if !head.contains(wire::ACCEPT) {
        return Err("the upgrade was answered for another key".to_owned());
    }
    Ok(at + end.len())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn messages_come_through_however_they_are_cut() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let mut connection = Connection::new(0);
        connection.socket = Some(socket);
        connection.stage = Stage::Upgrading;
        let mut bytes = format!(
            "HTTP/1.1 101 x\r\nSec-WebSocket-Accept: {}\r\n\r\n",
            wire::ACCEPT
        )
        .into_bytes();
        for text in ["one", "two", &"three".repeat(100)] {
            bytes.extend(wire::server_text(text.as_bytes()));
        }
        bytes.extend_from_slice(b"\x89\x01p");
        let (mut scratch, mut got) = (vec![0; 4096], Vec::new());
        for byte in bytes {
            server.write_all(&[byte]).unwrap();
            let read = connection.read(&mut scratch, |_, text| {
                got.push(String::from_utf8(text.to_vec()).unwrap());
                Ok(())
            });
            read.unwrap();
        }
        assert_eq!(got, ["one", "two", &"three".repeat(100)]);
        let mut pong = [0; 7];
        server.read_exact(&mut pong).unwrap();
        assert_eq!(pong[..2], [0x8a, 0x81]);
        drop(server);
        assert!(connection.read(&mut scratch, |_, _| Ok(())).is_err());
    }

    #[test]
    fn a_refused_upgrade_says_why() {
        assert_eq!(upgraded(b"HTTP/1.1 101 "), Ok(0));
        assert_eq!(
            upgraded(b"HTTP/1.1 429 Too Many Requests\r\nx: y\r\n\r\n"),
            Err("the upgrade was refused: HTTP/1.1 429 Too Many Requests".to_owned())
        );
        assert!(upgraded(b"HTTP/1.1 101 x\r\n\r\n").is_err());
    }
}

//! The baseline: a server that does nothing but write. One frame, encoded before, to every subscriber,
//! with one write(2) each, from one thread: the floor for whoever makes a system call per delivery.
//!
//! It believes everybody and understands only this program's own client: `GET /N` subscribes to channel
//! N, `POST /N` publishes the body to it. For loopback alone.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use rustix::event::epoll;
use slab::Slab;

use super::wire;

const EVENTS: usize = 1_024;
const LISTENER: u64 = u64::MAX;
const READ_BYTES: usize = 256 << 10;
/// A request head of this client has fewer lines.
const HEADERS_MAX: usize = 16;
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";

/// Serves until it is killed; prints where, as `fanfare serve` does.
///
/// # Errors
/// When it cannot listen or poll.
pub fn serve() -> io::Result<()> {
    let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listener = crate::acceptor::bind(any_port)?;
    let mut out = io::stdout();
    writeln!(out, "listening on http://{}", listener.local_addr()?)?;
    out.flush()?;

    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let watch = epoll::EventFlags::IN;
    epoll::add(
        &epoll,
        &listener,
        epoll::EventData::new_u64(LISTENER),
        watch,
    )?;
    let mut hall = Hall::default();
    let mut scratch = vec![0; READ_BYTES];
    let mut events = Vec::with_capacity(EVENTS);
    loop {
        events.clear();
        match epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in &events {
            let number = event.data.u64();
            if number != LISTENER {
                hall.attend(number as usize, &mut scratch);
                continue;
            }
            while let Ok((socket, _)) = listener.accept() {
                // Blocking: a subscriber that does not read holds up the rest, and loses nothing.
                let entry = hall.peers.vacant_entry();
                let data = epoll::EventData::new_u64(entry.key() as u64);
                epoll::add(&epoll, &socket, data, watch)?;
                entry.insert(Peer {
                    socket,
                    unread: Vec::new(),
                    seat: None,
                });
            }
        }
    }
}

/// Everybody who is connected.
#[derive(Default)]
struct Hall {
    peers: Slab<Peer>,
    /// Members of each channel, as their keys in `peers`.
    audience: HashMap<u16, Vec<usize>>,
}

struct Peer {
    socket: TcpStream,
    unread: Vec<u8>,
    /// Channel and place in its audience; `self.audience[channel][place]` is this peer.
    seat: Option<(u16, usize)>,
}

impl Hall {
    /// Reads from one socket and does what is asked.
    fn attend(&mut self, key: usize, scratch: &mut [u8]) {
        let Some(peer) = self.peers.get_mut(key) else {
            return;
        };
        match peer.socket.read(scratch) {
            Ok(read) if read > 0 => peer.unread.extend_from_slice(&scratch[..read]),
            _ => return self.dismiss(key),
        }
        // One that sits does not speak, but for pongs that nobody asked for.
        if peer.seat.is_some() {
            peer.unread.clear();
            return;
        }
        let mut unread = std::mem::take(&mut peer.unread);
        let mut at = 0;
        loop {
            match request(&unread[at..]) {
                Ok(None) => break,
                Ok(Some((request, length))) => {
                    at += length;
                    self.act(key, &request);
                }
                Err(_foreign) => return self.dismiss(key),
            }
        }
        unread.drain(..at);
        if unread.is_empty() {
            unread = Vec::new();
        }
        if let Some(peer) = self.peers.get_mut(key) {
            peer.unread = unread;
        }
    }

    fn act(&mut self, key: usize, request: &Request<'_>) {
        match request {
            Request::Subscribe(channel) => {
                let members = self.audience.entry(*channel).or_default();
                let peer = &mut self.peers[key];
                peer.seat = Some((*channel, members.len()));
                members.push(key);
                let answer = format!(
                    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                     Upgrade: websocket\r\nSec-WebSocket-Accept: {}\r\n\r\n",
                    wire::ACCEPT
                );
                // One that cannot be written to shows as closed when it is read.
                let _ = peer.socket.write_all(answer.as_bytes());
            }
            Request::Publish(channel, event) => {
                let frame = wire::server_text(event);
                for &member in self.audience.get(channel).into_iter().flatten() {
                    let _ = self.peers[member].socket.write_all(&frame);
                }
                let _ = self.peers[key].socket.write_all(ANSWER);
            }
        }
    }

    fn dismiss(&mut self, key: usize) {
        let peer = self.peers.remove(key);
        let Some((channel, place)) = peer.seat else {
            return;
        };
        let members = self.audience.entry(channel).or_default();
        members.swap_remove(place);
        if let Some(&moved) = members.get(place) {
            self.peers[moved].seat = Some((channel, place));
        }
    }
}

enum Request<'a> {
    Subscribe(u16),
    Publish(u16, &'a [u8]),
}

/// The first request and its length, if it is whole.
fn request(bytes: &[u8]) -> io::Result<Option<(Request<'_>, usize)>> {
    let foreign = || io::Error::from(io::ErrorKind::InvalidData);
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Request::new(&mut headers);
    let parsed = head.parse(bytes).map_err(|_| foreign())?;
    let httparse::Status::Complete(start) = parsed else {
        return Ok(None);
    };
    let channel = head
        .path
        .and_then(|path| path.strip_prefix('/')?.parse().ok());
    let channel = channel.ok_or_else(foreign)?;
    if head.method == Some("GET") {
        return Ok(Some((Request::Subscribe(channel), start)));
    }
    let mut headers = head.headers.iter();
    let length = headers
        .find(|header| header.name.eq_ignore_ascii_case("content-length"))
        .and_then(|header| {
            std::str::from_utf8(header.value)
                .ok()?
                .parse::<usize>()
                .ok()
        })
        .ok_or_else(foreign)?;
    let end = start.saturating_add(length);
    let event = bytes.get(start..end);
    Ok(event.map(|event| (Request::Publish(channel, event), end)))
}

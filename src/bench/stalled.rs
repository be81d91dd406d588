//! Subscribers that stop reading for a while, and what they are told when they read again.

use std::time::Duration;

use rustix::event::epoll;
use serde::Deserialize;
use socket2::Socket;

use super::connection::{Connection, Stage};
use super::door::Door;
use super::fleet::Fleet;
use super::ledger::Faults;
use super::mark::Mark;
use super::{Failure, stopwatch};

/// What the kernel holds for a socket that nobody reads: little, else the server notices nothing for
/// a long time. A segment's length bounds what waits on the server's side.
const RECEIVED_BYTES: usize = 4 << 10;
const SEGMENT_BYTES: u32 = 1_000;
/// Reading again is over when nothing has come for so long.
const QUIET: Duration = Duration::from_millis(500);

/// What came to one of them since the books were opened.
#[derive(Debug, Default)]
pub struct Stalled {
    events: u64,
    /// As gaps told it.
    dropped: u64,
    /// Below it no event may come any more.
    next: u32,
    out_of_order: u64,
    /// The server has closed the socket.
    ended: bool,
}

/// What came to all of them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Aftermath {
    /// Events that were dropped, and told so.
    pub dropped: u64,
    /// Sockets that were closed.
    pub closed: usize,
    /// What was neither delivered nor told to be dropped, came twice, or late; of those not closed.
    pub faults: Faults,
}

#[derive(Deserialize)]
#[serde(tag = "type", content = "data", rename_all = "lowercase")]
enum Told {
    Gap { dropped: u64 },
}

impl Stalled {
    /// Takes in an event.
    pub fn arrive(&mut self, mark: Mark) {
        self.events += 1;
        if mark.sequence < self.next {
            self.out_of_order += 1;
        }
        self.next = mark.sequence + 1;
    }

    /// Takes in a message that is no event.
    pub fn hear(&mut self, text: &[u8]) {
        if let Ok(Told::Gap { dropped }) = serde_json::from_slice(text) {
            self.dropped += dropped;
        }
    }

    /// The server has closed it.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// Buffers so small that the server soon knows.
    ///
    /// # Errors
    /// Of the kernel.
    pub fn narrow(socket: &Socket) -> Result<(), Failure> {
        socket.set_recv_buffer_size(RECEIVED_BYTES)?;
        Ok(socket.set_tcp_mss(SEGMENT_BYTES)?)
    }

    fn heard(&self) -> (u64, u64, bool) {
        (self.events, self.dropped, self.ended)
    }

    fn faults(&self, published: u32) -> Faults {
        let accounted = self.events + self.dropped;
        let published = u64::from(published);
        Faults {
            lost: published.saturating_sub(accounted),
            repeated: accounted.saturating_sub(published),
            out_of_order: self.out_of_order,
        }
    }
}

impl Fleet {
    /// The first so many subscribers are to stall: they have small buffers, and nothing that comes to
    /// them counts with what comes to the others. Before they are opened.
    pub fn appoint_stalled(&mut self, count: usize) {
        for connection in self.connections.iter_mut().take(count) {
            connection.stalled = Some(Stalled::default());
        }
    }

    /// They read no more.
    ///
    /// # Errors
    /// Of the kernel.
    pub fn stall(&mut self) -> Result<(), Failure> {
        for socket in self.connections.iter().filter_map(stalled_socket) {
            epoll::delete(&self.epoll, socket)?;
        }
        Ok(())
    }

    /// They read again, until nothing more comes.
    ///
    /// # Errors
    /// As [`Fleet::turn`].
    pub fn read_again(&mut self, door: &Door) -> Result<Aftermath, Failure> {
        for (number, connection) in self.connections.iter().enumerate() {
            if let Some(socket) = stalled_socket(connection) {
                let data = epoll::EventData::new_u64(number as u64);
                epoll::add(&self.epoll, socket, data, epoll::EventFlags::IN)?;
            }
        }
        let heard = |fleet: &Self| {
            let stalled = fleet
                .connections
                .iter()
                .filter_map(|one| one.stalled.as_ref());
            stalled.map(Stalled::heard).collect::<Vec<_>>()
        };
        let mut last = (heard(self), stopwatch::nanos());
        while stopwatch::nanos() - last.1 < stopwatch::of(QUIET) {
            self.attend(Duration::from_millis(50), door)?;
            let now = heard(self);
            if now != last.0 {
                last = (now, stopwatch::nanos());
            }
        }
        let mut aftermath = Aftermath::default();
        for connection in &self.connections {
            let Some(stalled) = &connection.stalled else {
                continue;
            };
            aftermath.dropped += stalled.dropped;
            if stalled.ended {
                aftermath.closed += 1;
            } else {
                let faults = stalled.faults(self.ledger.published(connection.channel));
                aftermath.faults = aftermath.faults.and(faults);
            }
        }
        Ok(aftermath)
    }
}

fn stalled_socket(connection: &Connection) -> Option<&std::net::TcpStream> {
    let stalls = connection.stalled.is_some() && connection.stage == Stage::Ready;
    connection.socket.as_ref().filter(|_| stalls)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_and_what_a_gap_tells_make_up_what_was_published() {
        let mut stalled = Stalled::default();
        let mark = |sequence| Mark {
            channel: 0,
            sequence,
            micros: 0,
        };
        stalled.arrive(mark(0));
        stalled.hear(br#"{"type":"gap","data":{"channelKey":"post_1","dropped":3}}"#);
        stalled.hear(br#"{"type":"pong"}"#);
        stalled.arrive(mark(4));
        assert_eq!(stalled.faults(5), Faults::default());
        assert_eq!(stalled.faults(7).lost, 2);
        assert_eq!(stalled.faults(4).repeated, 1);
        stalled.arrive(mark(3));
        assert_eq!(stalled.faults(6).out_of_order, 1);
    }
}

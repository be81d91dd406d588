//! The first bytes of a socket. Nearly always they are the whole head of an upgrade, with a token that
//! is good: then it is answered here, and the answer leaves in one write with the greeting. Whatever
//! else comes is hyper's business (`serve`), which gets the bytes that were read.

use std::net::SocketAddr;
use std::rc::Rc;

use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::Worker;
use super::mailbox::{Accepted, Load};
use super::serve::request_timeout;
use crate::http::upgrade::{self, Considered, Ticket};

/// What the first bytes amount to.
enum First {
    /// A client comes in.
    Upgrade {
        /// The 101.
        answer: Vec<u8>,
        ticket: Box<Ticket>,
        /// What came behind the head.
        behind: Vec<u8>,
    },
    /// A request for HTTP to answer, or a part of one.
    Http {
        read: Bytes,
        /// The upgrade that it is was refused with this.
        considered: Option<Considered>,
    },
    /// Nothing is there yet.
    Nothing,
    /// There is nothing to come.
    End,
}

impl Worker {
    /// Serves a socket in a task of its own.
    pub(super) fn accept(self: Rc<Self>, accepted: Accepted) {
        let Accepted {
            stream,
            peer,
            load,
            permit,
        } = accepted;
        match TcpStream::from_std(stream) {
            Ok(stream) => {
                tokio::task::spawn_local(async move {
                    // A WebSocket has a permit of its own; this one ends with the task in any case.
                    let _permit = permit;
                    self.begin(stream, peer, load).await;
                });
            }
            Err(error) => tracing::warn!(%error, "a socket could not be registered"),
        }
    }

    async fn begin(self: Rc<Self>, stream: TcpStream, peer: SocketAddr, load: Load) {
        let until = Instant::now() + self.outfit.services.config().limits.header_timeout;
        let mut draining = self.draining.subscribe();
        loop {
            tokio::select! {
                biased;
                readable = stream.readable() => if readable.is_err() { return },
                // Who has not asked for anything gets no answer.
                _ = draining.wait_for(|draining| *draining) => return,
                () = tokio::time::sleep_until(until) => return say_late(&stream),
            }
            match self.first(&stream, peer) {
                First::Nothing => {}
                First::End => return,
                First::Upgrade {
                    answer,
                    ticket,
                    behind,
                } => return self.adopt(stream, &answer, &behind, *ticket, load),
                First::Http { read, considered } => {
                    // Boxed: it is much larger than what all others need.
                    return Box::pin(self.serve(stream, peer, load, read, considered, until)).await;
                }
            }
        }
    }

    fn first(&self, stream: &TcpStream, peer: SocketAddr) -> First {
        let state = &mut *self.state.borrow_mut();
        let read = match stream.try_read(&mut state.read) {
            Ok(0) => return First::End,
            Ok(count) => &state.read[..count],
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return First::Nothing,
            Err(_) => return First::End,
        };
        let http = |considered| First::Http {
            read: Bytes::copy_from_slice(read),
            considered,
        };
        let Some((length, request)) = upgrade::whole(read) else {
            return http(None);
        };
        match upgrade::consider(&self.outfit.services, peer, &request) {
            Considered::Upgrade { response, ticket } => First::Upgrade {
                answer: upgrade::encode(&response),
                ticket,
                behind: read[length..].to_vec(),
            },
            Considered::Other => http(None),
            refused @ Considered::Refused(_) => http(Some(refused)),
        }
    }
}

/// The answer to a head that does not come in time.
pub(super) fn say_late(stream: &TcpStream) {
    // A courtesy, and the end of the socket.
    let _ = stream.try_write(&request_timeout());
    let _ = socket2::SockRef::from(stream).shutdown(std::net::Shutdown::Write);
}

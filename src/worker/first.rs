//! The first bytes of a socket. Nearly always they are the whole head of an upgrade, with a token that
//! is good: then it is answered here, and the answer leaves in one write with the greeting. Whatever
//! else comes is hyper's business (`serve`), which gets the bytes that were read.

use std::net::SocketAddr;
use std::rc::Rc;

use bytes::Bytes;
use hyper::Request;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::Worker;
use super::mailbox::{Accepted, Load};
use super::serve::request_timeout;
use super::stream::Stream;
use crate::http::upgrade::{self, Considered};

/// What the first bytes amount to.
enum First {
    /// An upgrade, whose head is so long.
    Upgrade(Bytes, usize, Box<Request<()>>),
    /// Another request, or a part of one.
    Other(Bytes),
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
                    let stream = match self.outfit.services.tls.acceptor() {
                        None => Stream::Plain(stream),
                        // Boxed: only a handshake needs the room.
                        Some(acceptor) => {
                            match Box::pin(self.shake_hands(acceptor, stream)).await {
                                Some(stream) => stream,
                                None => return,
                            }
                        }
                    };
                    self.begin(stream, peer, load).await;
                });
            }
            Err(error) => tracing::warn!(%error, "a socket could not be registered"),
        }
    }

    async fn begin(self: Rc<Self>, mut stream: Stream, peer: SocketAddr, load: Load) {
        let until = Instant::now() + self.outfit.services.config().limits.header_timeout;
        let mut draining = self.draining.subscribe();
        loop {
            tokio::select! {
                biased;
                readable = stream.readable() => if readable.is_err() { return },
                // Who has not asked for anything gets no answer.
                _ = draining.wait_for(|draining| *draining) => return,
                () = tokio::time::sleep_until(until) => return say_late(&mut stream),
            }
            let (read, considered) = match self.first(&mut stream) {
                First::Nothing => continue,
                First::End => return,
                First::Other(read) => (read, None),
                First::Upgrade(read, length, request) => {
                    let services = &self.outfit.services;
                    upgrade::prepare(services, &*request).await;
                    match upgrade::consider(services, peer, &*request) {
                        Considered::Upgrade { response, ticket } => {
                            let answer = upgrade::encode(&response);
                            return self.adopt(stream, &answer, &read[length..], *ticket, load);
                        }
                        refused => (read, Some(refused)),
                    }
                }
            };
            // Boxed: it is much larger than what all others need.
            return Box::pin(self.serve(stream, peer, load, read, considered, until)).await;
        }
    }

    fn first(&self, stream: &mut Stream) -> First {
        let state = &mut *self.state.borrow_mut();
        let read = match stream.try_read(&mut state.read) {
            Ok(0) => return First::End,
            Ok(count) => &state.read[..count],
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return First::Nothing,
            Err(_) => return First::End,
        };
        let bytes = Bytes::copy_from_slice(read);
        match upgrade::whole(read) {
            Some((length, request)) => First::Upgrade(bytes, length, Box::new(request)),
            None => First::Other(bytes),
        }
    }
}

/// The answer to a head that does not come in time.
pub(super) fn say_late(stream: &mut Stream) {
    // A courtesy, and the end of the socket.
    let _ = stream.try_write(&request_timeout());
    let _ = stream.shutdown();
}

//! The first bytes of a socket. Nearly always they are the whole head of an upgrade, with a token that
//! is good: then it is answered here, and the answer leaves in one write with the greeting. Whatever
//! else comes is hyper's business (`serve`), which gets the bytes that were read.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::Request;
use tokio::io::{AsyncRead as _, ReadBuf};
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
        let first = tokio::select! {
            biased;
            first = poll_fn(|context| self.poll_first(&mut stream, context)) => first,
            // Who has not asked for anything gets no answer.
            _ = draining.wait_for(|draining| *draining) => return,
            () = tokio::time::sleep_until(until) => return say_late(&mut stream),
        };
        let (read, considered) = match first {
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
        Box::pin(self.serve(stream, peer, load, read, considered, until)).await;
    }

    fn poll_first(&self, stream: &mut Stream, context: &mut Context<'_>) -> Poll<First> {
        let state = &mut *self.state.borrow_mut();
        let mut buffer = ReadBuf::new(&mut state.read);
        // It knows by what it gets that there is no more: `try_read` would have the next one ask.
        let read = ready!(Pin::new(stream).poll_read(context, &mut buffer));
        if read.is_err() || buffer.filled().is_empty() {
            return Poll::Ready(First::End);
        }
        let bytes = Bytes::copy_from_slice(buffer.filled());
        Poll::Ready(match upgrade::whole(&bytes) {
            Some((length, request)) => First::Upgrade(bytes, length, Box::new(request)),
            None => First::Other(bytes),
        })
    }
}

/// The answer to a head that does not come in time.
pub(super) fn say_late(stream: &mut Stream) {
    // A courtesy, and the end of the socket.
    let _ = stream.try_write(&request_timeout());
    let _ = stream.shutdown();
}

//! HTTP on a socket, until it ends or becomes a WebSocket or a stream of server-sent events.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Response, StatusCode, upgrade};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::Worker;
use super::cork::{Cork, poll_uncorked};
use super::first::say_late;
use super::mailbox::Load;
use super::stall::Unstalled;
use super::stream::Stream;
use crate::http;
use crate::http::upgrade::{Considered, Ticket};
use crate::limits::{HEAD_BYTES_MAX, HEADERS_MAX};

/// Refusals in one go. Their answers leave in one write.
const REFUSALS_AT_ONCE: usize = 8;

impl Worker {
    /// Serves requests until the socket ends or is adopted as a WebSocket. The first one begins with
    /// what was `read`, is an upgrade that was refused if it was `considered`, and is late at `until`.
    pub(super) async fn serve(
        self: Rc<Self>,
        stream: Stream,
        peer: SocketAddr,
        load: Load,
        read: Bytes,
        considered: Option<Considered>,
        until: Instant,
    ) {
        let services = &self.outfit.services;
        let upgraded: RefCell<Option<(OnUpgrade, Ticket)>> = RefCell::new(None);
        let (streamed, begins) = (RefCell::new(None), Notify::new());
        let answered = Cell::new(false);
        let considered = Cell::new(considered);
        let refusals = Refusals::default();
        let service = service_fn(|mut request: Request<Incoming>| {
            answered.set(true);
            let considered = considered.take();
            let (upgraded, streamed, begins) = (&upgraded, &streamed, &begins);
            let refusals = &refusals;
            async move {
                let considered = match considered {
                    Some(considered) => considered,
                    None => {
                        http::upgrade::prepare(services, &request).await;
                        http::upgrade::consider(services, peer, &request)
                    }
                };
                let is_upgrade = matches!(&considered,
                    Considered::Upgrade { ticket, .. } if ticket.stream.is_none());
                let waiting = is_upgrade.then(|| upgrade::on(&mut request));
                Ok::<_, Infallible>(match considered {
                    Considered::Other => {
                        let response = http::handle(services, peer, request).await;
                        refusals.note(&response).await;
                        response
                    }
                    Considered::Refused(response) => {
                        refusals.note(&response).await;
                        response
                    }
                    Considered::Upgrade { ticket, .. } if ticket.stream.is_some() => {
                        *streamed.borrow_mut() = Some(*ticket);
                        begins.notify_one();
                        // The socket is taken away from hyper, which would have it written in chunks.
                        std::future::pending().await
                    }
                    Considered::Upgrade { response, ticket } => {
                        *upgraded.borrow_mut() = waiting.map(|waiting| (waiting, *ticket));
                        response
                    }
                })
            }
        });
        let patience = services.config().limits.header_timeout;
        let (socket, cork) = Cork::new(Unstalled::new(stream, patience, read));
        let mut connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(patience)
            .max_headers(HEADERS_MAX)
            .max_buf_size(HEAD_BYTES_MAX)
            // Who has said all it has to say still waits for the answer.
            .half_close(true)
            .serve_connection(TokioIo::new(socket), service)
            .with_upgrades();
        let mut draining = self.draining.subscribe();
        // hyper's own patience begins with the connection, ours when the socket came.
        let late = async {
            tokio::time::sleep_until(until).await;
            if answered.get() {
                std::future::pending::<()>().await;
            }
        };
        let serving = async {
            tokio::select! {
                served = poll_fn(|context| poll_uncorked(&mut connection, &cork, context)) => Some(served),
                () = late => None,
                _ = draining.wait_for(|draining| *draining) => {
                    std::pin::Pin::new(&mut connection).graceful_shutdown();
                    Some(poll_fn(|context| poll_uncorked(&mut connection, &cork, context)).await)
                }
            }
        };
        let served = tokio::select! {
            served = serving => served,
            () = begins.notified() => {
                drop(connection);
                if let (Some(ticket), Some((socket, held))) = (streamed.take(), cork.into_inner()) {
                    // Else an answer to an earlier request is not out yet, and is lost with the rest.
                    if held.is_empty() && !socket.is_waiting() {
                        self.adopt(socket.into_inner().0, &[], &[], ticket, load);
                    }
                }
                return;
            }
        };
        match served {
            Some(Ok(Ok(()))) => {}
            Some(Err(error)) => {
                tracing::debug!(%error, %peer, "an http connection ended");
                return;
            }
            Some(Ok(Err(error))) if !error.is_timeout() => {
                tracing::debug!(%error, %peer, "an http connection ended");
                return;
            }
            None | Some(Ok(Err(_))) => {
                // Silence between two requests is nobody's fault.
                let is_asking = connection
                    .into_parts()
                    .is_some_and(|parts| !parts.read_buf.is_empty());
                // Not in the middle of an answer that the client did not take.
                if let Some((socket, held)) = cork.into_inner()
                    && held.is_empty()
                    && (is_asking || !answered.get())
                {
                    say_late(&mut socket.into_inner().0);
                }
                return;
            }
        }
        let Some((waiting, ticket)) = upgraded.take() else {
            return;
        };
        drop(connection);
        let Ok(upgraded) = waiting.await else {
            return;
        };
        if let Ok(parts) = upgraded.downcast::<TokioIo<Cork>>() {
            drop(parts.io);
            let Some((socket, held)) = cork.into_inner() else {
                return;
            };
            // `read_buf` pins hyper's whole buffer even when it is empty: it ends here.
            let (stream, unread) = socket.into_inner();
            let behind = [&parts.read_buf[..], &unread[..]].concat();
            drop((parts.read_buf, unread));
            self.adopt(stream, &held, &behind, ticket, load);
        }
    }
}

/// Answers to somebody who asks too much.
#[derive(Default)]
struct Refusals(Cell<usize>);

impl Refusals {
    /// After some of them everything else that is under way comes first, the worker's turn included:
    /// hyper would go on as long as there is something to answer.
    async fn note<B>(&self, response: &Response<B>) {
        if response.status() != StatusCode::TOO_MANY_REQUESTS {
            return;
        }
        self.0.set(self.0.get() + 1);
        if self.0.get().is_multiple_of(REFUSALS_AT_ONCE) {
            tokio::task::yield_now().await;
        }
    }
}

/// The answer to a head that does not come in time, which hyper drops without a word.
pub(super) fn request_timeout() -> Vec<u8> {
    const BODY: &str = r#"{"error":"Request timeout","code":"timeout"}"#;
    let length = BODY.len();
    format!(
        "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Cache-Control: no-store\r\nContent-Length: {length}\r\n\r\n{BODY}"
    )
    .into_bytes()
}

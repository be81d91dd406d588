//! HTTP on a fresh socket, until it ends or becomes a WebSocket.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Request, upgrade};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;

use super::Worker;
use crate::http;
use crate::http::upgrade::{Considered, Ticket};
use crate::limits::{HEAD_BYTES_MAX, HEADERS_MAX};

/// What hyper drops without a word when the head of a request does not come in time.
const REQUEST_TIMEOUT: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

impl Worker {
    /// Serves a socket in a task of its own.
    pub(super) fn accept(self: Rc<Self>, stream: std::net::TcpStream, peer: SocketAddr) {
        match TcpStream::from_std(stream) {
            Ok(stream) => {
                tokio::task::spawn_local(async move {
                    if !self.clone().serve(stream, peer).await {
                        self.inbound.release_load();
                        self.inbound.wake();
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a socket could not be registered");
                self.inbound.release_load();
            }
        }
    }

    /// Serves requests; `true` if the socket was adopted as a WebSocket.
    async fn serve(self: Rc<Self>, stream: TcpStream, peer: SocketAddr) -> bool {
        let services = &self.outfit.services;
        let upgraded: RefCell<Option<(OnUpgrade, Ticket)>> = RefCell::new(None);
        let answered = Cell::new(false);
        let service = service_fn(|mut request: Request<Incoming>| {
            answered.set(true);
            let considered = http::upgrade::consider(services, peer, &request);
            let waiting =
                matches!(considered, Considered::Upgrade { .. }).then(|| upgrade::on(&mut request));
            let upgraded = &upgraded;
            async move {
                Ok::<_, Infallible>(match considered {
                    Considered::Other => http::handle(services, peer, request).await,
                    Considered::Refused(response) => response,
                    Considered::Upgrade { response, ticket } => {
                        *upgraded.borrow_mut() = waiting.map(|waiting| (waiting, *ticket));
                        response
                    }
                })
            }
        });
        let mut connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(services.config.limits.header_timeout)
            .max_headers(HEADERS_MAX)
            .max_buf_size(HEAD_BYTES_MAX)
            // Who has said all it has to say still waits for the answer.
            .half_close(true)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        let mut draining = self.draining.subscribe();
        let served = tokio::select! {
            served = &mut connection => served,
            _ = draining.wait_for(|draining| *draining) => {
                std::pin::Pin::new(&mut connection).graceful_shutdown();
                (&mut connection).await
            }
        };
        if let Err(error) = served {
            let parts = connection.into_parts();
            if let Some(parts) = parts.filter(|_| error.is_timeout()) {
                // Silence between two requests is nobody's fault.
                if !answered.get() || !parts.read_buf.is_empty() {
                    let stream = parts.io.into_inner();
                    let _ = stream.try_write(REQUEST_TIMEOUT);
                    let _ = socket2::SockRef::from(&stream).shutdown(std::net::Shutdown::Write);
                }
            } else {
                tracing::debug!(%error, %peer, "an http connection ended");
            }
            return false;
        }
        let Some((waiting, ticket)) = upgraded.take() else {
            return false;
        };
        drop(connection);
        let Ok(upgraded) = waiting.await else {
            return false;
        };
        match upgraded.downcast::<TokioIo<TcpStream>>() {
            Ok(parts) => {
                // `read_buf` pins hyper's whole buffer even when it is empty: it ends here.
                self.adopt(parts.io.into_inner(), &parts.read_buf, ticket);
                true
            }
            Err(_) => false,
        }
    }
}

//! From a plain socket to an encrypted one, if the listener speaks TLS: bounded in time, and with a
//! word for those who speak HTTP there.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::Worker;
use super::stream::Stream;
use crate::limits::HANDSHAKE_TIMEOUT_MS;
use crate::tls::{self, Spoken};

/// Bytes of a request without TLS that are read away, so that the answer to it arrives.
const REST_BYTES_MAX: u64 = 64 * 1024;
const REST_TIMEOUT: Duration = Duration::from_secs(1);

impl Worker {
    /// Shakes hands; `None`: it came to nothing, and has been counted.
    pub(super) async fn shake_hands(
        &self,
        acceptor: TlsAcceptor,
        socket: TcpStream,
    ) -> Option<Stream> {
        let mut draining = self.draining.subscribe();
        let limit = Duration::from_millis(HANDSHAKE_TIMEOUT_MS);
        let shaking = timeout(limit, attempt(acceptor, socket));
        let (outcome, stream) = tokio::select! {
            shaken = shaking => shaken.unwrap_or(("timeout", None)),
            _ = draining.wait_for(|draining| *draining) => ("stopping", None),
        };
        self.outfit.services.counters.handshakes.increment(outcome);
        stream
    }
}

async fn attempt(acceptor: TlsAcceptor, socket: TcpStream) -> (&'static str, Option<Stream>) {
    match tls::first_words(&socket).await {
        Ok(Spoken::Tls) => {}
        Ok(Spoken::Http) => {
            explain(socket).await;
            return ("plain_http", None);
        }
        Ok(Spoken::Other) | Err(_) => return ("failed", None),
    }
    match acceptor.accept(socket).await {
        Ok(stream) => {
            let (socket, session) = stream.into_inner();
            ("completed", Some(Stream::tls(socket, session)))
        }
        // The client was told which alert it is, and can see more of it than we do.
        Err(error) => {
            tracing::debug!(%error, "a TLS handshake failed");
            ("failed", None)
        }
    }
}

/// Says that this is HTTPS, and waits for a moment until that is read: an end with unread bytes would
/// take the answer back.
async fn explain(mut socket: TcpStream) {
    let said = async {
        socket.write_all(tls::ANSWER.as_bytes()).await?;
        socket.shutdown().await?;
        let mut rest = socket.take(REST_BYTES_MAX);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
    };
    let _ = timeout(REST_TIMEOUT, said).await;
}

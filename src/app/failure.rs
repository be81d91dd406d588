//! Why the server cannot start or go on.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::auth::keys;
use crate::broker::{embedded, redis};
use crate::supervisor::NotASocket;
use crate::tls;

/// Why the server could not start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A folder that is needed could not be made.
    #[error("cannot create {path}")]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The signing key could not be read or made.
    #[error("the signing key")]
    Secret(#[from] keys::SecretError),
    /// The event log could not be opened.
    #[error("the event log in {path}")]
    EventLog {
        /// Its folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The database could not be opened.
    #[error("the database")]
    Store(#[from] embedded::OpenError),
    /// There is no Redis to work with.
    #[error("broker.redis")]
    Redis(#[from] redis::OpenError),
    /// The certificate of a listener cannot be used.
    #[error("{listener}.tls")]
    Tls {
        /// Whose.
        listener: &'static str,
        /// Why.
        source: tls::Fault,
    },
    /// The service manager handed over what cannot be served.
    #[error("a socket that was handed over")]
    Inherited(#[from] NotASocket),
    /// An address could not be bound.
    #[error("cannot listen on {address} ({key})")]
    Listen {
        /// The setting.
        key: &'static str,
        /// Its value.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// A thread, runtime or signal handler could not be set up.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    /// Nobody could be asked by the rule `backend`.
    #[error("channels.backend.url")]
    AccessBackend(#[source] io::Error),
    /// The keys of other issuers could not be asked for.
    #[error("auth.issuers")]
    Issuers(#[source] io::Error),
    /// A worker thread ended by itself: it panicked.
    #[error("a worker thread ended; the server cannot go on without it")]
    Worker,
    /// The thread that writes to the database ended by itself: it panicked.
    #[error(
        "the store's thread ended; the server cannot go on without it (see above, and fanfare store check)"
    )]
    StoreEnded,
    /// Which tokens are revoked could not be read.
    #[error("the revocations")]
    Revocations(#[source] crate::broker::Error),
    /// The broker could not start.
    #[error("the broker")]
    Broker(#[source] crate::broker::Error),
}

/// An error with everything that led to it, on one line.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |&error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

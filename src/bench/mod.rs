//! `fanfare bench`: measures a running server, or one that it starts itself, beside a baseline that
//! only writes, so that every figure is also a ratio that travels between machines.
//!
//! The client is one thread around one epoll, so that the kernel's own work and the server's is what
//! the figures show. Not for: load on machines of others, correctness in depth (that is `tests/`).

pub mod attack;
mod conditions;
pub mod connect;
mod connection;
mod descriptors;
mod disk;
mod door;
mod entry;
pub mod fanout;
mod fleet;
mod histogram;
mod host;
pub mod idle;
pub mod leash;
mod ledger;
mod mark;
pub mod nodes;
mod process;
pub mod publish;
mod publisher;
pub mod raw_server;
pub mod recover;
mod redis_server;
pub mod report;
mod scratch;
pub mod slow;
mod stalled;
mod wire;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::json;

use crate::config::{self, Secret};
pub use crate::progress::Progress;
use crate::stopwatch;
pub use report::Report;

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The server, ours or the other, does not do its part.
    #[error("{0}")]
    Server(String),
    /// Its connection broke, or this machine's resources are at their end.
    #[error("the measurement was cut short")]
    Io(#[from] io::Error),
}

impl From<rustix::io::Errno> for Failure {
    fn from(error: rustix::io::Errno) -> Self {
        Self::Io(error.into())
    }
}

/// Against what is measured, and where.
#[derive(Debug)]
pub struct Setup {
    /// A running server; `None`: one of our own for each measurement.
    pub target: Option<Target>,
    /// `auth.*`, whose issuer and audience the tokens need.
    pub auth: config::Auth,
    /// `--config` for our own server.
    pub config_file: Option<PathBuf>,
    /// Settings for our own server, key and value.
    pub settings: Vec<(String, String)>,
    /// Where the folder of our own server is made, for a while.
    pub scratch: PathBuf,
    /// The CPU that servers run on; `None`: as the kernel likes.
    pub server_cpu: Option<usize>,
    /// The CPU that the client runs on.
    pub client_cpu: Option<usize>,
    /// Bytes of an event.
    pub event_bytes: usize,
}

/// A server that runs already.
#[derive(Debug)]
pub struct Target {
    /// Where.
    pub address: SocketAddr,
    /// What it verifies tokens with.
    pub secret: Secret,
    /// What it knows a backend by.
    pub api_key: String,
    /// Its process, if that is on this machine: for CPU and memory.
    pub pid: Option<u32>,
    /// The type of the channels that are used; anybody may subscribe to them.
    pub channel_type: String,
}

/// The command that subscribes to a channel, with the epoch and offset to recover from, if any.
fn subscribe(channel: &str, since: Option<(&str, u64)>) -> String {
    let recover = since.map(|(epoch, offset)| json!({ "epoch": epoch, "offset": offset }));
    let mut command = json!({ "type": "subscribe", "channel": channel });
    if let Some(recover) = recover {
        command["recover"] = recover;
    }
    command.to_string()
}

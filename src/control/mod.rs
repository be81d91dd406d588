//! The control socket: how commands of this machine reach the running server. One request a
//! connection, as a line of JSON; the answer is another one.
//!
//! It is a Unix socket in `data_dir`, for the server's own user (and root): whoever may read the database
//! may use it. Not for clients or backends (`http`).

mod client;
mod listener;

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::oneshot;

pub use client::ask;
pub use listener::Listener;

/// The socket's name in `data_dir`.
const NAME: &str = "control.sock";

/// Bytes of a request; the largest names a file.
const REQUEST_BYTES_MAX: u64 = 64 * 1024;

/// What a command wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Read the configuration again: `{"ok":true,"changes":[..],"warnings":[..]}`, or `ok` is false,
    /// `error` says why, and nothing was changed.
    Reload,
}

/// A request that waits for its answer.
#[derive(Debug)]
pub struct Asked {
    /// What is wanted.
    pub request: Request,
    /// Where the answer goes; dropped, the command is told that there is none.
    pub reply: oneshot::Sender<Value>,
}

/// A way to a file in a folder that a socket address has room for (107 bytes), however deep the folder
/// lies. Good for as long as the folder is open.
fn short_path(folder: &File, name: &str) -> PathBuf {
    format!("/proc/self/fd/{}/{name}", folder.as_raw_fd()).into()
}

fn open_folder(data_dir: &Path) -> io::Result<File> {
    File::open(data_dir)
}

//! The server's end: a few connections at a time, each read for a bounded time.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{sleep, timeout};

use super::{Asked, NAME, REQUEST_BYTES_MAX, open_folder, short_path};

/// Commands that are served at a time; others wait to be accepted.
const CONNECTIONS_MAX: usize = 16;
/// Requests that wait for the server.
const WAITING_MAX: usize = 16;
/// For the request, and for the command to take the answer.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(10);
/// After a failed accept: without file descriptors it would fail again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The socket, bound.
#[derive(Debug)]
pub struct Listener {
    listener: UnixListener,
    folder: File,
}

impl Listener {
    /// Binds the socket of this `data_dir`, in place of one that a killed server left behind: the caller
    /// has the database, so there is no other server. Needs a runtime with I/O.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn bind(data_dir: &Path) -> io::Result<Self> {
        let folder = open_folder(data_dir)?;
        // Nobody can connect before it is for its owner alone.
        let (unfinished, path) = (
            short_path(&folder, "control.sock.new"),
            short_path(&folder, NAME),
        );
        let _ = fs::remove_file(&unfinished);
        let listener = UnixListener::bind(&unfinished)?;
        fs::set_permissions(&unfinished, fs::Permissions::from_mode(0o600))?;
        fs::rename(&unfinished, &path)?;
        Ok(Self { listener, folder })
    }

    /// Takes requests, in a task on the current runtime, until what it gives is dropped.
    pub fn serve(self) -> mpsc::Receiver<Asked> {
        let (ask, asked) = mpsc::channel(WAITING_MAX);
        tokio::spawn(async move {
            let ended = ask.clone();
            tokio::select! {
                () = self.accept(ask) => {}
                () = ended.closed() => {}
            }
            let _ = fs::remove_file(short_path(&self.folder, NAME));
        });
        asked
    }

    async fn accept(&self, ask: mpsc::Sender<Asked>) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Ok(place) = places.clone().acquire_owned().await else {
                return;
            };
            let Ok((stream, _)) = self.listener.accept().await else {
                sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let ask = ask.clone();
            tokio::spawn(async move {
                // Whoever does not read its answer has no use for it.
                let _ = converse(stream, ask).await;
                drop(place);
            });
        }
    }
}

async fn converse(stream: UnixStream, ask: mpsc::Sender<Asked>) -> io::Result<()> {
    let (input, mut output) = stream.into_split();
    let mut line = String::new();
    let mut input = BufReader::new(input.take(REQUEST_BYTES_MAX));
    timeout(EXCHANGE_TIMEOUT, input.read_line(&mut line)).await??;
    let answer = match serde_json::from_str(&line) {
        Ok(request) => {
            let (reply, answer) = oneshot::channel();
            let stopping = || json!({"ok": false, "error": "the server is stopping"});
            match ask.send(Asked { request, reply }).await {
                Ok(()) => answer.await.unwrap_or_else(|_| stopping()),
                Err(_) => stopping(),
            }
        }
        Err(error) => unknown(&error),
    };
    let mut bytes = serde_json::to_vec(&answer)?;
    bytes.push(b'\n');
    timeout(EXCHANGE_TIMEOUT, output.write_all(&bytes)).await?
}

fn unknown(error: &serde_json::Error) -> Value {
    json!({"ok": false, "error": format!("the server does not understand this: {error}")})
}

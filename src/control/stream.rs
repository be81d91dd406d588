//! An answer that is written by a thread while the client takes it.

use std::io::{self, Write};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use http_body_util::combinators::BoxBody;
use hyper::body::{Body, Frame};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

/// What the client is told by a body that ends without its end.
pub const INCOMPLETE: &str = "the answer broke off";
/// Chunks that may wait for the client.
const CHUNKS: usize = 4;
/// Bytes of a chunk.
const CHUNK_BYTES: usize = 64 << 10;
/// A client that takes nothing for so long is given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// A body of what `write` writes, in a thread of its own; it ends in an error if `write` does.
///
/// # Errors
/// When there is no thread to be had.
pub(super) fn from_thread(
    name: &str,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static,
) -> io::Result<BoxBody<Bytes, io::Error>> {
    let (tx, rx) = mpsc::channel(CHUNKS);
    let mut chunks = Chunks {
        tx,
        runtime: Handle::current(),
    };
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            let mut out = io::BufWriter::with_capacity(CHUNK_BYTES, &mut chunks);
            let written = write(&mut out).and_then(|()| out.flush());
            // Not flushed again when it is dropped: the client may be the reason of the error.
            let (_, _) = out.into_parts();
            if let Err(error) = written {
                tracing::warn!(%error, "an answer of the control socket broke off");
                let _ = chunks.send(Err(error));
            }
        })?;
    Ok(Received(rx).boxed())
}

struct Chunks {
    tx: mpsc::Sender<io::Result<Bytes>>,
    runtime: Handle,
}

impl Chunks {
    fn send(&self, chunk: io::Result<Bytes>) -> io::Result<()> {
        let gone = || io::Error::new(io::ErrorKind::BrokenPipe, "the client has gone away");
        let sent = self
            .runtime
            .block_on(async { tokio::time::timeout(PATIENCE, self.tx.send(chunk)).await });
        match sent {
            Ok(sent) => sent.map_err(|_| gone()),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.send(Ok(Bytes::copy_from_slice(bytes)))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Received(mpsc::Receiver<io::Result<Bytes>>);

impl Body for Received {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.0
            .poll_recv(context)
            .map(|chunk| chunk.map(|chunk| chunk.map(Frame::data)))
    }
}

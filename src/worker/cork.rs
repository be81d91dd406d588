//! The socket below hyper. Answers to requests that came in one go leave in one go: hyper would write
//! each by itself, and its own way of putting them together (`pipeline_flush`) keeps an answer back as
//! long as a part of the next request is there.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::stall::Unstalled;

/// Answers that wait for others; what does not fit is written at once.
const HELD_BYTES_MAX: usize = 16 << 10;

/// A socket that holds what is written until [`poll_uncorked`] lets it go. Of two handles hyper has
/// one, which it wants to be able to send between threads; both are used by one task.
pub struct Cork(Arc<Mutex<Corked>>);

struct Corked {
    socket: Unstalled,
    held: Vec<u8>,
}

impl Cork {
    /// Two handles of one socket.
    pub fn new(socket: Unstalled) -> (Self, Self) {
        let held = Vec::new();
        let shared = Arc::new(Mutex::new(Corked { socket, held }));
        (Self(Arc::clone(&shared)), Self(shared))
    }

    /// The socket, and what it was not given yet; `None` as long as there is another handle.
    pub fn into_inner(self) -> Option<(Unstalled, Vec<u8>)> {
        let corked = Arc::into_inner(self.0)?.into_inner();
        let Corked { socket, held } = corked.unwrap_or_else(PoisonError::into_inner);
        Some((socket, held))
    }

    fn lock(&self) -> MutexGuard<'_, Corked> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Polls what answers over one handle of a socket; what it has written leaves when it lets go.
///
/// # Errors
/// If that cannot be written.
pub fn poll_uncorked<F: Future + Unpin>(
    answering: &mut F,
    cork: &Cork,
    context: &mut Context<'_>,
) -> Poll<io::Result<F::Output>> {
    let answered = Pin::new(answering).poll(context);
    match (cork.lock().poll_release(context), answered) {
        (_, Poll::Ready(output)) => Poll::Ready(Ok(output)),
        (Poll::Ready(Err(error)), Poll::Pending) => Poll::Ready(Err(error)),
        (_, Poll::Pending) => Poll::Pending,
    }
}

impl Corked {
    fn poll_release(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.held.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let mut written = 0;
        let outcome = loop {
            if written == self.held.len() {
                break Pin::new(&mut self.socket).poll_flush(context);
            }
            match Pin::new(&mut self.socket).poll_write(context, &self.held[written..]) {
                Poll::Ready(Ok(0)) => break Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => written += count,
                Poll::Ready(Err(error)) => break Poll::Ready(Err(error)),
                Poll::Pending => break Poll::Pending,
            }
        };
        if written == self.held.len() {
            // Nothing is kept for a connection that may be silent for a long time.
            self.held = Vec::new();
        } else {
            self.held.drain(..written);
        }
        outcome
    }

    fn poll_hold(
        &mut self,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        if self.held.len() + bytes <= HELD_BYTES_MAX {
            parts
                .iter()
                .for_each(|part| self.held.extend_from_slice(part));
            return Poll::Ready(Ok(bytes));
        }
        ready!(self.poll_release(context))?;
        Pin::new(&mut self.socket).poll_write_vectored(context, parts)
    }
}

impl AsyncRead for Cork {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.lock().socket).poll_read(context, buffer)
    }
}

impl AsyncWrite for Cork {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.lock().poll_hold(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.lock().poll_hold(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        // Encrypted or not, parts are put together here.
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let corked = &mut *self.lock();
        if corked.held.is_empty() {
            return Pin::new(&mut corked.socket).poll_flush(context);
        }
        // It leaves when hyper lets go.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let corked = &mut *self.lock();
        ready!(corked.poll_release(context))?;
        Pin::new(&mut corked.socket).poll_shutdown(context)
    }
}

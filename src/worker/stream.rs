//! A worker's socket: plain, or encrypted by a session of rustls that is driven here.
//!
//! Both are used in the same way: wait until it is ready, then try. What a write took is on its way,
//! but for an encrypted socket some of it may still wait here ([`Stream::flush`]): a record is
//! encrypted as a whole, and the kernel may take a part of it.

use std::io::{self, IoSlice, Read as _, Write as _};
use std::net::Shutdown;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustls::ServerConnection;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Plaintext that is encrypted before the kernel has taken what was encrypted so far: one record.
const RECORD_BYTES: usize = 16 * 1024;

/// A socket of a client.
pub enum Stream {
    /// As it is.
    Plain(TcpStream),
    /// After the handshake.
    Tls(Box<Tls>),
}

// A plain socket pays nothing for the other kind.
const _: () = assert!(size_of::<Stream>() == size_of::<TcpStream>());

/// An encrypted socket.
pub struct Tls {
    socket: TcpStream,
    session: ServerConnection,
    /// Whether decrypted bytes may be left in the session: then it is readable whatever the socket is.
    has_unread: bool,
}

impl Stream {
    /// A socket whose handshake is done.
    pub fn tls(socket: TcpStream, session: ServerConnection) -> Self {
        Self::Tls(Box::new(Tls {
            socket,
            session,
            // What came behind the handshake, as far as anybody knows.
            has_unread: true,
        }))
    }

    /// The socket below, for what concerns the kernel alone.
    pub fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(tls) => &tls.socket,
        }
    }

    /// Ready when [`Stream::try_read`] may find something.
    pub fn poll_read_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(socket) => socket.poll_read_ready(context),
            Self::Tls(tls) if tls.has_unread => Poll::Ready(Ok(())),
            Self::Tls(tls) => tls.socket.poll_read_ready(context),
        }
    }

    /// Waits until [`Stream::try_read`] may find something.
    pub async fn readable(&self) -> io::Result<()> {
        std::future::poll_fn(|context| self.poll_read_ready(context)).await
    }

    /// Ready when [`Stream::try_write`] may be able to write.
    pub fn poll_write_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket().poll_write_ready(context)
    }

    /// Reads what is there; 0: the peer has ended. `WouldBlock`: nothing is there.
    pub fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.try_read(buffer),
            Self::Tls(tls) => tls.try_read(buffer),
        }
    }

    /// Writes a part, at least a byte. `WouldBlock`: nothing can be taken now.
    pub fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.try_write(bytes),
            Self::Tls(tls) => tls.try_write(bytes),
        }
    }

    /// Hands on what writes have left here. `WouldBlock`: not all of it can be taken now.
    pub fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(tls) => tls.flush(),
        }
    }

    /// Says that nothing more comes, where the protocol has a word for it.
    pub fn say_goodbye(&mut self) {
        if let Self::Tls(tls) = self {
            tls.session.send_close_notify();
            // A courtesy, which fits into any socket that is not full.
            let _ = tls.flush();
        }
    }

    /// Says that nothing more will be written, and has the kernel say it, too.
    pub fn shutdown(&mut self) -> io::Result<()> {
        self.say_goodbye();
        socket2::SockRef::from(self.socket()).shutdown(Shutdown::Write)
    }
}

impl Tls {
    fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.session.reader().read(buffer) {
                Ok(count) => {
                    self.has_unread = count == buffer.len();
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.has_unread = false,
                // The end, without the peer's having said so.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                Err(error) => return Err(error),
            }
            let read = self.session.read_tls(&mut Kernel(&self.socket))?;
            if let Err(error) = self.session.process_new_packets() {
                // The peer is told what is wrong, as far as it listens.
                let _ = self.flush();
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
            if read == 0 {
                return Ok(0);
            }
            if self.session.wants_write() {
                // The answer to a new key; what is left of it goes with the next write.
                let _ = self.flush();
            }
        }
    }

    fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.flush()?;
        let taken = bytes.len().min(RECORD_BYTES);
        let taken = self.session.writer().write(&bytes[..taken])?;
        match self.flush() {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            // It is encrypted, and cannot be taken back.
            _ => Ok(taken),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            if self.session.write_tls(&mut Kernel(&self.socket))? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        Ok(())
    }
}

/// The non-blocking socket, as rustls wants it.
struct Kernel<'a>(&'a TcpStream);

impl io::Read for Kernel<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl io::Write for Kernel<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(parts)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// For hyper, before a socket becomes a WebSocket.
impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let tls = match &mut *self {
            Self::Plain(socket) => return Pin::new(socket).poll_read(context, buffer),
            Self::Tls(tls) => tls,
        };
        loop {
            match tls.try_read(buffer.initialize_unfilled()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(tls.socket.poll_read_ready(context))?;
                }
                read => {
                    buffer.advance(read?);
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Plain(socket) => Pin::new(socket).poll_write(context, bytes),
            Self::Tls(tls) => tls.poll(context, |tls| tls.try_write(bytes)),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Plain(socket) => Pin::new(socket).poll_write_vectored(context, parts),
            Self::Tls(tls) => {
                let first = parts.iter().find(|part| !part.is_empty());
                let first = first.map_or(&[][..], |part| part);
                tls.poll(context, |tls| tls.try_write(first))
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        matches!(self, Self::Plain(_))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(socket) => Pin::new(socket).poll_flush(context),
            Self::Tls(tls) => tls.poll(context, Tls::flush),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(context),
            Self::Tls(tls) => {
                // Said once, however often this is polled.
                tls.session.send_close_notify();
                ready!(tls.poll(context, Tls::flush))?;
                Pin::new(&mut tls.socket).poll_shutdown(context)
            }
        }
    }
}

impl Tls {
    /// Tries until it works or the kernel says that it takes nothing; then this task is woken.
    fn poll<T>(
        &mut self,
        context: &mut Context<'_>,
        mut attempt: impl FnMut(&mut Self) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        loop {
            match attempt(self) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.socket.poll_write_ready(context))?;
                }
                done => return Poll::Ready(done),
            }
        }
    }
}

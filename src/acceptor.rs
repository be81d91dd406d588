//! The listening socket: accepts, and places each socket on a worker.

use std::io::{self, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{SocketFlags, acceptfrom_with};
use tokio::io::unix::AsyncFd;

use crate::admission::is_trusted;
use crate::descriptors::Room;
use crate::http::Services;
use crate::router::Router;
use crate::worker::mailbox::{Accepted, Control};

/// Connections that the kernel holds for us between two accepts; it may cap this (`somaxconn`).
const BACKLOG: i32 = 4_096;
/// How long to wait when the process has no descriptor left: some will be closed by then.
const BREATHER: Duration = Duration::from_millis(50);
/// Sockets accepted in a row before signals have their turn.
const BATCH: usize = 256;

/// Binds a non-blocking listener whose sockets send small frames at once.
///
/// # Errors
/// When the address is taken or may not be bound.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    // Linux hands this on to accepted sockets: a system call less for each.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Accepts until it is dropped. Past the sockets that so many descriptors have room for, on all
/// workers, new ones are closed at once: there would be none left for files.
pub async fn run(
    listener: TcpListener,
    router: Arc<Router>,
    services: Arc<Services>,
    descriptors: usize,
) -> io::Error {
    // SAFETY: `AsyncFd` owns the listener, whose descriptor stays the same until it is dropped.
    #[allow(unsafe_code)]
    let registered = unsafe { AsyncFd::register(listener) };
    let listener = match registered {
        Ok(listener) => listener,
        Err(error) => return error.into(),
    };
    loop {
        let mut ready = match listener.readable().await {
            Ok(ready) => ready,
            Err(error) => return error,
        };
        for _ in 0..BATCH {
            match ready.try_io(accept) {
                Err(_would_block) => break,
                Ok(Ok((stream, peer))) => place(&router, &services, stream, peer, descriptors),
                Ok(Err(error)) => {
                    // ECONNABORTED and the like are the peer's doing; the rest passes or repeats.
                    if matches!(
                        error.raw_os_error(),
                        Some(EMFILE | ENFILE | ENOBUFS | ENOMEM)
                    ) {
                        tracing::warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(BREATHER).await;
                        break;
                    }
                }
            }
        }
        tokio::task::yield_now().await;
    }
}

const EMFILE: i32 = rustix::io::Errno::MFILE.raw_os_error();
const ENFILE: i32 = rustix::io::Errno::NFILE.raw_os_error();
const ENOBUFS: i32 = rustix::io::Errno::NOBUFS.raw_os_error();
const ENOMEM: i32 = rustix::io::Errno::NOMEM.raw_os_error();

/// One `accept4`: the socket comes non-blocking and closed on exec without further calls.
fn accept(listener: &AsyncFd<TcpListener>) -> io::Result<(TcpStream, SocketAddr)> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (socket, peer) = acceptfrom_with(listener.get_ref(), flags)?;
    let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
    Ok((
        TcpStream::from(socket),
        peer.ok_or(io::ErrorKind::AddrNotAvailable)?,
    ))
}

fn place(
    router: &Router,
    services: &Services,
    stream: TcpStream,
    peer: SocketAddr,
    descriptors: usize,
) {
    let config = services.config();
    let room = Room::of(descriptors, config.limits.connections);
    if router.load() >= room.sockets {
        services.counters.limited.increment("connections");
        return;
    }
    // A proxy's sockets are those of many clients.
    let is_proxy = is_trusted(peer.ip(), &config.server.trusted_proxies);
    let permit = if is_proxy {
        None
    } else {
        match services.admission.accept_plain(peer.ip()) {
            None => return refuse(services, &stream),
            some => some,
        }
    };
    let mailbox = router.place();
    let accepted = Accepted {
        stream,
        peer,
        load: mailbox.add_load(),
        permit,
    };
    // A worker that has ended drops the socket: the process is stopping.
    let _ = mailbox.control(Control::Accept(accepted));
}

/// Answers before anything was asked: nobody waits for the request of one who has too many sockets.
fn refuse(services: &Services, mut stream: &TcpStream) {
    const BODY: &str = r#"{"error":"Too many requests","code":"rate_limited"}"#;
    if services.tls.is_secure() {
        // Before the handshake there is no word that the client could read.
        return;
    }
    let length = BODY.len();
    let answer = format!(
        "HTTP/1.1 429 Too Many Requests\r\nConnection: close\r\nRetry-After: 5\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{BODY}"
    );
    // A courtesy, which fits into any socket's buffer; the refusal is the end of the socket.
    let _ = stream.write_all(answer.as_bytes());
    let _ = stream.shutdown(Shutdown::Write);
}

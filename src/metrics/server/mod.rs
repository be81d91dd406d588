//! The listener of `/stats`, `/metrics` and the dashboard. Contract section 7.
//!
//! tiny_http serves them, but never meets the network: it has no timeouts and no bounds, a reset
//! connection panics one of its threads, and a single accept error ends it. So a small bounded
//! `front` owns the port, and asks tiny_http (`answers`) over a private Unix socket.
//!
//! It shares only figures with the rest of the server and answers until [`Handle::stop`].

mod answers;
mod front;
mod head;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use socket2::{Domain, Socket, Type};
use tokio::sync::oneshot;

use super::hour::Hour;
use super::roster::Roster;
use super::{Observed, Snapshot};
use crate::config::Live;
use crate::tls::Endpoint;
use answers::Answers;

/// Connections that the kernel completes before they are accepted. The 128 of the standard library
/// make a scraper wait a second, for its repeated SYN, when a few hundred others come at once.
const BACKLOG: i32 = 1_024;

/// Who is connected: names and addresses, so on an address that others reach only with a token.
const CONNECTIONS: &str = "/connections";

/// Where the figures for an answer come from.
pub type Source = Arc<dyn Fn() -> Snapshot + Send + Sync>;

/// How the listener speaks and with whom. Asked for every connection.
#[derive(Clone)]
pub struct Door {
    /// TLS, or none.
    pub tls: Endpoint,
    /// For `metrics.token`.
    pub config: Live,
}

/// Serves what is observed.
///
/// # Errors
/// When no private directory can be made, or no thread started.
pub fn start(
    listener: TcpListener,
    door: Door,
    observed: Arc<Observed>,
    hour: Arc<Hour>,
    roster: Roster,
) -> io::Result<Handle> {
    let source = Arc::new(move || observed.snapshot());
    serve(listener, door, source, hour, roster)
}

/// Serves whatever `source` says. See [`start`].
///
/// # Errors
/// As [`start`].
pub fn serve(
    listener: TcpListener,
    door: Door,
    source: Source,
    hour: Arc<Hour>,
    roster: Roster,
) -> io::Result<Handle> {
    let local_addr = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (answers, first) = Answers::open(source, hour, roster)?;
    let (stop_front, front_stopped) = oneshot::channel();
    // From here on, dropping the handle undoes what was begun.
    let mut handle = Handle {
        local_addr,
        answers: Arc::clone(&answers),
        stop_front: Some(stop_front),
        front: None,
        back: None,
    };
    let back = Arc::clone(&answers);
    handle.back = Some(named("metrics", move || back.run(first))?);
    handle.front = Some(named("metrics-front", move || {
        runtime.block_on(front::run(listener, door, answers, front_stopped));
    })?);
    Ok(handle)
}

/// A listener for [`start`].
///
/// # Errors
/// When the address is taken or may not be bound.
pub fn bind(listen: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(listen), Type::STREAM, None)?;
    // Or a restart would wait for the connections of the process before.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&listen.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn named(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.to_string()).spawn(run)
}

/// The running listener. Dropping it stops it.
#[derive(Debug)]
pub struct Handle {
    local_addr: SocketAddr,
    answers: Arc<Answers>,
    stop_front: Option<oneshot::Sender<()>>,
    front: Option<JoinHandle<()>>,
    back: Option<JoinHandle<()>>,
}

impl Handle {
    /// The address that was bound.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Closes the port, lets answers in flight finish for half a second, and ends the threads.
    pub fn stop(self) {}
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.stop_front = None;
        if let Some(front) = self.front.take() {
            let _ = front.join();
        }
        self.answers.stop();
        if let Some(back) = self.back.take() {
            let _ = back.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::net::UnixListener;
    use std::path::Path;
    use std::time::Duration;

    use super::*;

    fn ask(handle: &Handle) -> String {
        let mut stream = TcpStream::connect(handle.local_addr()).unwrap();
        stream.write_all(b"GET /stats HTTP/1.1\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn start() -> Handle {
        let door = Door {
            tls: Endpoint::new(None).unwrap(),
            config: Live::new(crate::http::tests::config()),
        };
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let source = Arc::new(Snapshot::default);
        let nobody = Arc::new(|_, _| Some(Vec::new()));
        serve(listener, door, source, Arc::default(), nobody).unwrap()
    }

    #[test]
    fn the_private_socket_is_private_and_goes_with_the_server() {
        let handle = start();
        let dir = handle.answers.socket().parent().unwrap().to_path_buf();
        let mode = fs::metadata(&dir).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        handle.stop();
        assert!(!dir.exists());
    }

    #[test]
    fn what_a_killed_process_has_left_is_removed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let named = |id: &str| folder.path().join(format!("fanfare-{id}"));
        let [killed, running] = ["0", "1"].map(|digit| named(&digit.repeat(32)));
        let [not_ours, empty] = [named("backups"), named(&"2".repeat(32))];
        for dir in [&killed, &running, &not_ours, &empty] {
            fs::create_dir(dir).unwrap();
        }
        let bind = |dir: &Path| UnixListener::bind(dir.join("metrics")).unwrap();
        // Closing a socket leaves its file.
        drop((bind(&killed), bind(&not_ours)));
        let _alive = bind(&running);
        answers::tidy(folder.path());
        assert!(!killed.exists());
        for dir in [running.join("metrics"), not_ours.join("metrics"), empty] {
            assert!(dir.exists(), "{dir:?}");
        }
    }

    #[test]
    fn a_socket_that_was_tidied_away_is_made_anew() {
        let handle = start();
        for _ in 0..3 {
            assert!(ask(&handle).starts_with("HTTP/1.1 200 "));
            fs::remove_dir_all(handle.answers.socket().parent().unwrap()).unwrap();
            assert!(ask(&handle).starts_with("HTTP/1.1 503 "));
            let answered = (0..100).any(|_| {
                thread::sleep(Duration::from_millis(20));
                ask(&handle).starts_with("HTTP/1.1 200 ")
            });
            assert!(answered);
        }
    }
}

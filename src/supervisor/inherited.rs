//! Listening sockets that were open before this process: with them, no connection is refused while it
//! restarts. sd_listen_fds(3).

use std::io;
use std::net::TcpListener;

use listenfd::ListenFd;

/// The sockets that were handed over and not taken yet.
#[derive(Debug, Default)]
pub struct Inherited {
    server: Option<TcpListener>,
    metrics: Option<TcpListener>,
}

/// Something else was handed over.
#[derive(Debug, thiserror::Error)]
#[error("descriptor {number} ({name:?}) is no listening TCP socket")]
pub struct NotASocket {
    /// Counted from 0, the first one that was handed over.
    number: usize,
    name: String,
    source: io::Error,
}

impl Inherited {
    /// Those of this process. A name with `metrics` in it is that of `metrics.listen`; without names the
    /// second one is.
    ///
    /// # Errors
    /// When something is handed over that cannot be served.
    pub fn of_process() -> Result<Self, NotASocket> {
        // Its format is known to listenfd, but not its names: LISTEN_FDNAMES=a:b.
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let names: Vec<&str> = names.split(':').collect();
        let mut handed_over = ListenFd::from_env();
        let mut inherited = Self::default();
        for number in 0..handed_over.len() {
            let name = names.get(number).copied().unwrap_or_default();
            let wrong = |source| NotASocket {
                number,
                name: name.to_owned(),
                source,
            };
            let taken = handed_over.take_tcp_listener(number).map_err(wrong)?;
            let place = if is_for_metrics(name, number) {
                &mut inherited.metrics
            } else {
                &mut inherited.server
            };
            if place.is_some() {
                let twice =
                    io::Error::new(io::ErrorKind::AlreadyExists, "there are two of its kind");
                return Err(wrong(twice));
            }
            *place = taken.map(prepare).transpose().map_err(wrong)?;
        }
        Ok(inherited)
    }

    /// The one for `server.listen`.
    pub fn server(&mut self) -> Option<TcpListener> {
        self.server.take()
    }

    /// The one for `metrics.listen`.
    pub fn metrics(&mut self) -> Option<TcpListener> {
        self.metrics.take()
    }
}

fn is_for_metrics(name: &str, number: usize) -> bool {
    match name {
        "" | "unknown" => number == 1,
        name => name.contains("metrics"),
    }
}

/// As our own are: non-blocking, and small frames leave at once. Linux hands the latter on to accepted
/// sockets.
fn prepare(listener: TcpListener) -> io::Result<TcpListener> {
    listener.set_nonblocking(true)?;
    socket2::SockRef::from(&listener).set_tcp_nodelay(true)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_whose_it_is_and_without_one_the_order_does() {
        assert!(!is_for_metrics("fanfare.socket", 1));
        assert!(is_for_metrics("fanfare-metrics.socket", 0));
        assert!(!is_for_metrics("", 0));
        assert!(is_for_metrics("", 1));
        assert!(is_for_metrics("unknown", 1));
    }
}

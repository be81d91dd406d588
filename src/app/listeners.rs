//! The sockets that are listened on.

use std::net::TcpListener;

use super::Failure;
use crate::acceptor;
use crate::config::Config;
use crate::metrics::server;
use crate::supervisor::Inherited;

/// Handed over by the service manager, or bound here.
pub(super) struct Listeners {
    pub server: TcpListener,
    pub metrics: TcpListener,
}

impl Listeners {
    pub fn open(config: &Config) -> Result<Self, Failure> {
        let mut inherited = Inherited::of_process()?;
        let cannot = |key, address| {
            move |source| Failure::Listen {
                key,
                address,
                source,
            }
        };
        let (key, address) = ("server.listen", config.server.listen);
        let server = inherited
            .server()
            .map_or_else(|| acceptor::bind(address), Ok);
        let server = server.map_err(cannot(key, address))?;
        let (key, address) = ("metrics.listen", config.metrics.listen);
        let metrics = inherited
            .metrics()
            .map_or_else(|| server::bind(address), Ok);
        Ok(Self {
            server,
            metrics: metrics.map_err(cannot(key, address))?,
        })
    }

    /// Says so if a socket that was handed over is not where the setting says: changing the setting
    /// alone has no effect then.
    pub fn compare(&self, config: &Config) {
        for (key, wanted, listener) in [
            ("server.listen", config.server.listen, &self.server),
            ("metrics.listen", config.metrics.listen, &self.metrics),
        ] {
            match listener.local_addr() {
                Ok(held) if held != wanted && wanted.port() != 0 => tracing::warn!(
                    %held,
                    %wanted,
                    "{key}: the service manager holds another address; change its socket unit, too"
                ),
                _ => {}
            }
        }
    }
}

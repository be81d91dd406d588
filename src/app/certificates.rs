//! The certificates of both listeners: used as soon as their files are others, and complained about
//! before they end.

use std::convert::Infallible;
use std::time::Duration;

use super::Failure;
use crate::clock::{self, Clock, millis};
use crate::config::Config;
use crate::event_log::{Data, EventLog, Kind};
use crate::tls::{Endpoint, Files, Prepared, Refreshed};

/// How often the files are looked at.
pub(super) const LOOK: Duration = Duration::from_secs(5);
/// A certificate that ends within this time should have been renewed: the usual tools do so a month before.
const WARNED_MS: u64 = 14 * 24 * 60 * 60 * 1_000;
/// How often that is said.
const WARN_EVERY: Duration = Duration::from_secs(24 * 60 * 60);

/// What both listeners speak.
#[derive(Clone)]
pub(super) struct Certificates {
    pub server: Endpoint,
    pub metrics: Endpoint,
}

/// What [`Certificates::renew`] puts in force.
pub(super) struct Renewal {
    server: Prepared,
    metrics: Prepared,
}

impl Certificates {
    /// Reads them.
    pub fn new(config: &Config) -> Result<Self, Failure> {
        let endpoint = |listener, files: &Option<Files>| {
            let endpoint = Endpoint::new(files.as_ref());
            endpoint.map_err(|source| Failure::Tls { listener, source })
        };
        Ok(Self {
            server: endpoint("server", &config.server.tls)?,
            metrics: endpoint("metrics", &config.metrics.tls)?,
        })
    }

    /// Reads those of another configuration.
    pub fn prepare(&self, config: &Config) -> Result<Renewal, Failure> {
        let prepare = |endpoint: &Endpoint, listener, files: &Option<Files>| {
            let prepared = endpoint.prepare(files.as_ref());
            prepared.map_err(|source| Failure::Tls { listener, source })
        };
        Ok(Renewal {
            server: prepare(&self.server, "server", &config.server.tls)?,
            metrics: prepare(&self.metrics, "metrics", &config.metrics.tls)?,
        })
    }

    /// From now on the listeners speak so.
    pub fn renew(&self, Renewal { server, metrics }: Renewal) {
        self.server.renew(server);
        self.metrics.renew(metrics);
    }

    /// Looks at the files from time to time, for ever.
    pub async fn watch(&self, clock: &Clock, event_log: &EventLog) -> Infallible {
        let mut warned_ms = None;
        loop {
            for (listener, endpoint) in self.all() {
                if let Some(message) = look(listener, endpoint) {
                    warned_ms = None;
                    let data = Data {
                        message: Some(&message),
                        ..Data::default()
                    };
                    event_log.record(Kind::Server, &data);
                }
            }
            let now = clock.now();
            if warned_ms.is_none_or(|at| now.mono_ms >= at + millis(WARN_EVERY)) {
                warned_ms = Some(now.mono_ms);
                self.warn(now.unix_ms);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// When they end, in milliseconds since 1970.
    pub fn ends(&self) -> Vec<(&'static str, u64)> {
        let ends = self.all().into_iter();
        ends.filter_map(|(listener, endpoint)| Some((listener, endpoint.not_after_ms()?)))
            .collect()
    }

    fn all(&self) -> [(&'static str, &Endpoint); 2] {
        [("server", &self.server), ("metrics", &self.metrics)]
    }

    fn warn(&self, unix_ms: u64) {
        for (listener, endpoint) in self.all() {
            let Some(not_after_ms) = endpoint.not_after_ms() else {
                continue;
            };
            let until = clock::rfc3339(not_after_ms);
            if not_after_ms <= unix_ms {
                tracing::error!(
                    "{listener}.tls: the certificate ended at {until}: clients refuse it"
                );
            } else if not_after_ms - unix_ms <= WARNED_MS {
                tracing::warn!("{listener}.tls: the certificate ends soon, at {until}");
            }
        }
    }
}

/// What there is to be said of it, if the files are others.
fn look(listener: &str, endpoint: &Endpoint) -> Option<String> {
    match endpoint.refresh() {
        Refreshed::Same => None,
        Refreshed::Renewed => {
            let until = clock::rfc3339(endpoint.not_after_ms().unwrap_or_default());
            tracing::info!(
                "{listener}.tls: the files are others: their certificate is used, until {until}"
            );
            Some(format!("{listener}.tls: certificate renewed"))
        }
        Refreshed::Refused(fault) => {
            tracing::error!("{listener}.tls: the files are others and not used: {fault}");
            Some(format!("{listener}.tls: certificate refused"))
        }
    }
}

//! How a listener speaks: plain, or TLS with the certificate that is in its files now.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::ProducesTickets;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, ServerConfig};
use tokio_rustls::TlsAcceptor;

use super::certificate::{Certificate, Fault, Files, Stamp, provider};
use super::own;

/// Sessions are resumed by one ticket each: browsers that come back with it spare both sides the
/// signature.
const TICKETS: usize = 1;

/// One listener's TLS, or none. Cheap to clone; all clones are the same.
#[derive(Debug, Clone)]
pub struct Endpoint(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    provider: Arc<CryptoProvider>,
    /// Kept when the certificate changes: whoever has a ticket may use it.
    tickets: Arc<dyn ProducesTickets>,
    current: ArcSwapOption<Current>,
    watched: Mutex<Option<Watched>>,
}

struct Current {
    acceptor: TlsAcceptor,
    not_after_ms: u64,
    /// What the listener shows.
    end_entity: Option<CertificateDer<'static>>,
}

impl std::fmt::Debug for Current {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Current").finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Watched {
    files: Files,
    /// When they were last looked into.
    stamp: Stamp,
}

/// What a look at the files came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Refreshed {
    /// They are as they were.
    Same,
    /// There is another certificate, and it is used from now on.
    Renewed,
    /// They changed, and cannot be used: the one before goes on being used.
    Refused(Fault),
}

impl Endpoint {
    /// Speaks as these files say; without files, plain.
    ///
    /// # Errors
    /// What is wrong with the files.
    pub fn new(files: Option<&Files>) -> Result<Self, Fault> {
        let tickets = Ticketer::new();
        let endpoint = Self(Arc::new(Shared {
            provider: provider(),
            tickets: tickets.map_err(|error| Fault::Key(format!("of tickets: {error}")))?,
            current: ArcSwapOption::empty(),
            watched: Mutex::new(None),
        }));
        endpoint.renew(endpoint.prepare(files)?);
        Ok(endpoint)
    }

    /// Reads what is to be used from now on; nothing changes before [`Endpoint::renew`].
    ///
    /// # Errors
    /// What is wrong with the files.
    pub fn prepare(&self, files: Option<&Files>) -> Result<Prepared, Fault> {
        let Some(files) = files else {
            return Ok(Prepared(None));
        };
        // Before the reading: what changes meanwhile is seen by the next look.
        let stamp = files.stamp();
        let certificate = files.load(&self.0.provider)?;
        let watched = Watched {
            files: files.clone(),
            stamp,
        };
        Ok(Prepared(Some((watched, certificate))))
    }

    /// Uses it from now on. Sockets that are open stay as they are.
    pub fn renew(&self, Prepared(prepared): Prepared) {
        let (watched, current) = prepared
            .map(|(watched, certificate)| (watched, Arc::new(self.current(certificate))))
            .unzip();
        *self.watched() = watched;
        self.0.current.store(current);
    }

    /// Looks whether the files are others now, and uses them if they are good.
    pub fn refresh(&self) -> Refreshed {
        let (files, stamp) = match &*self.watched() {
            Some(watched) => (watched.files.clone(), watched.stamp.clone()),
            None => return Refreshed::Same,
        };
        if files.stamp() == stamp {
            return Refreshed::Same;
        }
        match self.prepare(Some(&files)) {
            Ok(prepared) => {
                self.renew(prepared);
                Refreshed::Renewed
            }
            Err(fault) => {
                // Said once; when one of the files changes again, they are looked into again.
                if let Some(watched) = &mut *self.watched() {
                    watched.stamp = files.stamp();
                }
                Refreshed::Refused(fault)
            }
        }
    }

    /// How to shake hands; `None`: this listener is plain.
    pub fn acceptor(&self) -> Option<TlsAcceptor> {
        let current = self.0.current.load();
        current.as_ref().map(|current| current.acceptor.clone())
    }

    /// Whether it speaks TLS.
    pub fn is_secure(&self) -> bool {
        self.0.current.load().is_some()
    }

    /// When the certificate ends, in milliseconds since 1970; `None`: there is none.
    pub fn not_after_ms(&self) -> Option<u64> {
        let current = self.0.current.load();
        current.as_ref().map(|current| current.not_after_ms)
    }

    /// How the server itself connects to this listener; `None`: it is plain.
    pub fn own_client(&self) -> Option<(Arc<ClientConfig>, ServerName<'static>)> {
        own::client(self.end_entity()?)
    }

    /// The certificate that it shows, of those it has; `None`: it is plain.
    pub fn end_entity(&self) -> Option<CertificateDer<'static>> {
        let current = self.0.current.load();
        current.as_ref()?.end_entity.clone()
    }

    fn current(&self, certificate: Certificate) -> Current {
        let Certificate {
            certified,
            not_after_ms,
        } = certificate;
        let end_entity = certified
            .cert
            .first()
            .cloned()
            .map(CertificateDer::into_owned);
        let mut config = ServerConfig::builder_with_provider(self.0.provider.clone())
            .with_safe_default_protocol_versions()
            .expect("the provider has suites for both versions")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.ticketer = self.0.tickets.clone();
        config.send_tls13_tickets = TICKETS;
        Current {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            not_after_ms,
            end_entity,
        }
    }

    fn watched(&self) -> std::sync::MutexGuard<'_, Option<Watched>> {
        self.0
            .watched
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// What [`Endpoint::renew`] puts in force.
#[derive(Debug)]
pub struct Prepared(Option<(Watched, Certificate)>);

impl From<Fault> for io::Error {
    fn from(fault: Fault) -> Self {
        Self::new(io::ErrorKind::InvalidData, fault)
    }
}

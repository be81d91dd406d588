//! A certificate with its key, from two files.

use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::expiry;

/// A chain is a few kilobytes; this is where a wrong file is not read to its end.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Where a certificate and its key are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// PEM: the certificate, then those that lead from it to a root.
    pub cert: PathBuf,
    /// PEM: the key of the first certificate.
    pub key: PathBuf,
}

/// What is wrong, and in which of the two.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// In the file of the certificate.
    #[error("the certificate {0}")]
    Cert(String),
    /// In the file of the key.
    #[error("the key {0}")]
    Key(String),
}

/// A certificate that fits its key.
#[derive(Debug, Clone)]
pub(super) struct Certificate {
    pub certified: Arc<CertifiedKey>,
    /// In milliseconds since 1970.
    pub not_after_ms: u64,
}

/// Tells one state of the two files from another without reading them: inode, length, and the time of the
/// last change, permissions included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stamp([Option<(u64, u64, i64, i64)>; 2]);

impl Files {
    /// Reads both, and sees whether they fit together.
    ///
    /// # Errors
    /// What is wrong with which.
    pub fn check(&self) -> Result<(), Fault> {
        self.load(&provider()).map(drop)
    }

    /// Everything that the two come down to, for telling whether they changed.
    pub fn content(&self) -> Vec<u8> {
        let read = |path: &Path| read(path).unwrap_or_default();
        [read(&self.cert), read(&self.key)].concat()
    }

    pub(super) fn load(&self, provider: &CryptoProvider) -> Result<Certificate, Fault> {
        let unreadable = |error: io::Error| format!("cannot be read: {error}");
        let pem = read(&self.cert).map_err(|error| Fault::Cert(unreadable(error)))?;
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        let chain = chain.map_err(|error| Fault::Cert(format!("is no PEM: {error}")))?;
        let leaf = chain.first();
        let leaf = leaf.ok_or_else(|| Fault::Cert("is not in the file".into()))?;
        let not_after_ms = expiry::not_after_ms(leaf)
            .ok_or_else(|| Fault::Cert("is no X.509 certificate".into()))?;
        let pem = read(&self.key).map_err(|error| Fault::Key(unreadable(error)))?;
        let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| match error {
            rustls::pki_types::pem::Error::NoItemsFound => Fault::Key(
                "is not in the file, or only encrypted: openssl pkey -in FILE writes it without its passphrase"
                    .into(),
            ),
            error => Fault::Key(format!("is no PEM: {error}")),
        })?;
        let certified =
            CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
                rustls::Error::InconsistentKeys(_) => {
                    Fault::Key("is not that of the certificate".into())
                }
                rustls::Error::InvalidCertificate(error) => Fault::Cert(format!("is bad: {error}")),
                error => Fault::Key(format!("cannot be used: {error}")),
            })?;
        Ok(Certificate {
            certified: Arc::new(certified),
            not_after_ms,
        })
    }

    /// Follows symbolic links: certbot changes those.
    pub(super) fn stamp(&self) -> Stamp {
        let stamp = |meta: Metadata| (meta.ino(), meta.len(), meta.ctime(), meta.ctime_nsec());
        Stamp([&self.cert, &self.key].map(|path| fs::metadata(path).ok().map(stamp)))
    }
}

/// The cryptography of all of this, whatever else in the process has installed.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut file = File::open(path)?.take(FILE_BYTES_MAX + 1);
    file.read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(bytes)
}

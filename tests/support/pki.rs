//! Certificates that are made for a test, and clients that trust who signed them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// An authority, and the folder in which a server finds its certificate and key.
pub struct Pki {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: PathBuf,
}

impl Pki {
    /// A new authority, and the first certificate, good for a month.
    pub fn new(folder: &Path) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        std::fs::create_dir_all(folder).unwrap();
        let pki = Self {
            issuer,
            folder: folder.to_owned(),
        };
        let (cert, key) = pki.issue("localhost", 30);
        pki.put(&cert, &key);
        pki
    }

    /// A certificate for this name and loopback that ends in so many days, and its key: PEM.
    pub fn issue(&self, name: &str, days: i64) -> (String, String) {
        let names = vec![name.to_string(), "127.0.0.1".to_string()];
        let mut params = CertificateParams::new(names).unwrap();
        let now = time::OffsetDateTime::now_utc();
        params.not_before = now - time::Duration::days(100);
        params.not_after = now + time::Duration::days(days);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let chain = pem("CERTIFICATE", certificate.der()) + &pem("CERTIFICATE", self.issuer.der());
        (chain, pem("PRIVATE KEY", key.serialized_der()))
    }

    /// Puts these where the server looks, each as a whole.
    pub fn put(&self, cert: &str, key: &str) {
        self.put_one("key.pem", key);
        self.put_one("cert.pem", cert);
    }

    /// One of the two.
    pub fn put_one(&self, name: &str, content: &str) {
        let unfinished = self.folder.join("unfinished");
        std::fs::write(&unfinished, content).unwrap();
        std::fs::rename(&unfinished, self.folder.join(name)).unwrap();
    }

    pub fn cert(&self) -> PathBuf {
        self.folder.join("cert.pem")
    }

    pub fn key(&self) -> PathBuf {
        self.folder.join("key.pem")
    }

    /// The authority's certificate, in a file of its own.
    pub fn authority(&self) -> PathBuf {
        let path = self.folder.join("authority.pem");
        std::fs::write(&path, pem("CERTIFICATE", self.issuer.der())).unwrap();
        path
    }

    /// A server that is somebody else's, with a certificate for this name.
    pub fn server(&self, name: &str, days: i64) -> Arc<ServerConfig> {
        let (chain, key) = self.issue(name, days);
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain.as_bytes()).collect();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain.unwrap(), key)
            .unwrap();
        Arc::new(config)
    }

    /// Whom clients trust.
    pub fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from(self.issuer.der().to_vec());
        roots.add(root).unwrap();
        roots
    }

    /// A client that trusts the authority, and speaks what servers of HTTP/1.1 speak.
    pub fn client(&self) -> Arc<ClientConfig> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots())
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Arc::new(config)
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut lines = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        lines += std::str::from_utf8(line).unwrap();
        lines.push('\n');
    }
    lines + &format!("-----END {label}-----\n")
}

//! Requests of our own, to addresses that the configuration fixes: one client per address.
//!
//! It follows no redirect. Not for: what is asked, how long it may take, and how large an answer may be.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, ResponseFuture};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

/// What we call ourselves.
pub const USER_AGENT: &str = concat!("fanfare/", env!("CARGO_PKG_VERSION"));

/// Connections that nobody needs are closed after this: sooner than most servers close them, so that
/// a request seldom meets one that is being closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// The way to one host.
pub struct Outgoing(Way);

/// Certificates are looked for only where they are needed.
enum Way {
    Plain(Client<HttpConnector, Full<Bytes>>),
    Tls(Client<HttpsConnector<HttpConnector>, Full<Bytes>>),
}

impl Outgoing {
    /// Keeps at most `idle_max` connections that are not in use. `authorities` (PEM) are believed beside
    /// those of this machine.
    ///
    /// # Errors
    /// When the URL is `https` and there are no certificates to check it with.
    pub fn new(
        uri: &Uri,
        authorities: Option<&[u8]>,
        connect_timeout: Duration,
        idle_max: usize,
    ) -> io::Result<Self> {
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(connect_timeout));
        let mut client = Client::builder(TokioExecutor::new());
        client
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(idle_max);
        Ok(Self(if uri.scheme_str() == Some("https") {
            tcp.enforce_http(false);
            let tls = HttpsConnectorBuilder::new()
                .with_tls_config(believing(authorities)?)
                .https_only()
                .enable_http1()
                .wrap_connector(tcp);
            Way::Tls(client.build(tls))
        } else {
            Way::Plain(client.build(tcp))
        }))
    }

    /// Sends a request, whose URL is the one this was made for.
    pub fn send(&self, request: Request<Full<Bytes>>) -> ResponseFuture {
        match &self.0 {
            Way::Plain(client) => client.request(request),
            Way::Tls(client) => client.request(request),
        }
    }
}

/// Checks certificates by whom this machine believes, and by whom the configuration names.
fn believing(authorities: Option<&[u8]>) -> io::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let of_machine = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(of_machine.certs);
    for certificate in CertificateDer::pem_slice_iter(authorities.unwrap_or_default()) {
        let certificate = certificate.map_err(io::Error::other)?;
        roots.add(certificate).map_err(io::Error::other)?;
    }
    if roots.is_empty() {
        let errors: Vec<String> = of_machine.errors.iter().map(ToString::to_string).collect();
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!(
                "no certificates of authorities were found ({})",
                errors.join("; ")
            ),
        ));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// The header that proves who asks: `t=UNIX,v1=HEX`, as Stripe signs its webhooks.
pub const SIGNATURE: &str = "x-fanfare-signature";

/// The value of [`SIGNATURE`]: HMAC-SHA-256 over the time, a full stop and the body. With the time in
/// it, what somebody wrote down cannot be sent again next week.
pub fn signature(key: &hmac::Key, unix_seconds: u64, body: &str) -> String {
    let mut context = hmac::Context::with_key(key);
    context.update(format!("{unix_seconds}.").as_bytes());
    context.update(body.as_bytes());
    let tag = context.sign();
    let hex: String = tag
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("t={unix_seconds},v1={hex}")
}

/// An error with its causes, which is where hyper says what really happened.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

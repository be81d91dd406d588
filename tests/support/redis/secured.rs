//! A server that speaks TLS alone to whoever is its ACL user.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::RedisServer;
use super::server::free_port;

/// What the manual (`config.toml`) says that a user needs.
const RIGHTS: &str = "on >pass@word ~ws:* &ws:* +@read +@write +@connection +@pubsub +@scripting \
                      +info +time +wait +cluster|slots";

/// A running one.
pub struct Secured {
    folder: TempDir,
    /// By another port without TLS, for the test.
    pub server: RedisServer,
}

impl Secured {
    #[track_caller]
    pub fn start() -> Self {
        let folder = TempDir::new().unwrap();
        certificate(folder.path());
        let port = free_port();
        let path = |name| path(folder.path(), name);
        let server = RedisServer::start(&[
            ("tls-port", &port.to_string()),
            ("tls-cert-file", &path("cert.pem")),
            ("tls-key-file", &path("key.pem")),
            ("tls-ca-cert-file", &path("cert.pem")),
            ("tls-auth-clients", "no"),
            ("user", &format!("fanfare {RIGHTS}")),
        ]);
        let url = format!("rediss://fanfare:pass%40word@localhost:{port}\n");
        std::fs::write(path("url"), url).unwrap();
        Self { folder, server }
    }

    /// What puts a server on it.
    pub fn settings(&self) -> [(&'static str, String); 2] {
        [
            ("broker.redis.url_file", path(self.folder.path(), "url")),
            ("broker.redis.ca_file", path(self.folder.path(), "cert.pem")),
        ]
    }
}

fn path(folder: &Path, name: &str) -> String {
    folder.join(name).display().to_string()
}

/// A key and a certificate of its own for localhost.
fn certificate(folder: &Path) {
    let output = Command::new("openssl")
        .args([
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
        ])
        .args([
            "-keyout",
            "key.pem",
            "-out",
            "cert.pem",
            "-subj",
            "/CN=localhost",
        ])
        .args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .current_dir(folder)
        .output()
        .expect("openssl makes a certificate; tests/run installs it");
    assert!(output.status.success(), "{output:?}");
}

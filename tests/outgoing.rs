//! What the server asks over https: the keys of other issuers, the application, the webhook of alerts. Who
//! answers has to have a certificate of somebody who is believed.

#![allow(clippy::unwrap_used, reason = "what is not there has to fail the test")]

mod support;

use std::time::Duration;

use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use support::{Application, Client, Pki, Server, Signer, eventually, key_set};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(30);
const SECRET: &str = "a key of signatures for tests alone";
const ISSUER: &str = "https://issuer.example";

/// Those who are asked, and who signed their certificates.
struct Others {
    folder: TempDir,
    pki: Pki,
    signer: Signer,
    issuer: Application,
    backend: Application,
    webhook: Application,
}

impl Others {
    /// Their certificates end in so many days.
    fn start(days: i64) -> Self {
        let folder = TempDir::new().unwrap();
        let pki = Pki::new(folder.path());
        let signer = Signer::generate("k1", Algorithm::ES256);
        Self {
            issuer: Application::start_tls(&key_set(&[&signer]), &pki, days),
            backend: Application::start_tls(r#"{"allow":true}"#, &pki, days),
            webhook: Application::start_tls("{}", &pki, days),
            folder,
            pki,
            signer,
        }
    }

    /// A configuration that has them asked.
    fn config(&self, outgoing: &str) -> String {
        format!(
            "[auth]\nsecret = \"SECRET\"\napi_keys = [\"API_KEY\"]\n\
             [auth.issuers.other]\nissuer = \"{ISSUER}\"\njwks_url = \"{}\"\n\
             [channels.room]\nsubscribe = \"backend\"\n\
             [channels.backend]\nurl = \"{}\"\nsecret = \"{SECRET}\"\n\
             [limits]\nrequests_per_second = 100000\n\
             [alerts]\nauth_failures_per_minute = 5\nwebhook_url = \"{}\"\n{outgoing}",
            self.issuer.url(),
            self.backend.url(),
            self.webhook.url(),
        )
    }

    fn trusting(&self) -> String {
        let path = self.pki.authority();
        self.config(&format!("[outgoing]\nca_file = \"{}\"\n", path.display()))
    }

    /// Whether a token of the issuer is good there.
    fn is_believed(&self, server: &Server) -> bool {
        let mut claims = server.claims("u1");
        claims["iss"] = json!(ISSUER);
        let bearer = format!("Bearer {}", self.signer.sign(&claims));
        let headers = [("Authorization", &*bearer)];
        server.http("GET", "/api/auth/wallet", &headers, "").status == 200
    }
}

fn subscribe(client: &mut Client, channel: &str) -> Value {
    client.send(&json!({"type": "subscribe", "channel": channel}));
    client.next()["type"].clone()
}

fn fail_often(server: &Server) {
    for _ in 0..20 {
        let bad = [("Authorization", "Bearer nonsense")];
        server.http("GET", "/api/auth/wallet", &bad, "").expect(401);
    }
}

#[test]
fn an_authority_of_ones_own_is_believed_when_it_is_named() {
    let others = Others::start(30);
    let server = Server::start_from(&others.config(""));
    let mut client = server.connect("ann");
    // By default it is the system that says who is believed, and this one is unknown to it.
    eventually("the keys were not fetched", PATIENCE, || {
        server
            .output()
            .contains("the keys of an issuer could not be fetched")
    });
    assert_eq!(subscribe(&mut client, "room_1"), "error");
    fail_often(&server);
    eventually("the alert was not told", PATIENCE, || {
        server
            .output()
            .contains("alerts.webhook_url did not take an alert")
    });
    assert!(!others.is_believed(&server));
    assert!(
        server.output().contains("certificate"),
        "{}",
        server.output()
    );
    for one in [&others.issuer, &others.backend, &others.webhook] {
        assert!(one.asked().is_empty());
    }

    // A reload is enough; the alert that waits goes out then.
    server.write_config(&others.trusting());
    let output = server.run(&["reload"]);
    assert!(output.status.success(), "{output:?}");
    eventually("the issuer is believed", PATIENCE, || {
        others.is_believed(&server)
    });
    eventually("the application is asked", PATIENCE, || {
        // Whoever failed is left alone for some seconds.
        subscribe(&mut client, "room_1") == "subscribed"
    });
    assert!(
        others.backend.asked()[0]
            .header("x-fanfare-signature")
            .starts_with("t=")
    );
    eventually("the webhook is told", PATIENCE, || {
        !others.webhook.asked().is_empty()
    });
}

#[test]
fn a_certificate_that_has_ended_is_refused_whoever_signed_it() {
    let others = Others::start(-1);
    let server = Server::start_from(&others.trusting());
    eventually("the keys were not fetched", PATIENCE, || {
        server
            .output()
            .contains("the keys of an issuer could not be fetched")
    });
    let mut client = server.connect("ann");
    assert_eq!(subscribe(&mut client, "room_1"), "error");
    assert!(!others.is_believed(&server));
    for one in [&others.issuer, &others.backend, &others.webhook] {
        assert!(one.asked().is_empty());
    }
}

#[test]
fn a_file_of_authorities_that_cannot_be_used_is_a_mistake() {
    let others = Others::start(30);
    let at = |name: &str, content: &str| {
        let path = others.folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    };
    let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (path, problem) in [
        ("/nowhere/ca.pem".to_owned(), "cannot be read"),
        (at("empty", ""), "holds no certificate"),
        (
            at("key", &others.signer.private_pem),
            "holds no certificate",
        ),
        (at("garbage", garbage), "holds one that cannot be used"),
    ] {
        for key in ["outgoing.ca_file", "broker.redis.ca_file"] {
            let output = support::command()
                .args(["check", "--set", &format!("{key}={path}")])
                .current_dir(others.folder.path())
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(78), "{said}");
            assert!(said.contains(key) && said.contains(problem), "{said}");
        }
    }
}

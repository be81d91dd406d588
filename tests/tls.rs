//! TLS of our own: sockets over it, what goes wrong before it, and certificates that change.

#![allow(clippy::unwrap_used, reason = "what is not there has to fail the test")]
#![allow(
    clippy::disallowed_methods,
    reason = "a handshake is bounded in real time"
)]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, ProtocolVersion, StreamOwned};
use serde_json::{Value, json};
use support::{Client, EventStream, Server, Wire, eventually, exchange};

const PATIENCE: Duration = Duration::from_secs(30);

const BASE: &str = "\
    [auth]\nsecret = \"SECRET\"\napi_keys = [\"API_KEY\"]\n\
    [limits]\nrequests_per_second = 100000\nconnections_per_user = 1000\n";

fn with(more: &str) -> String {
    format!("{BASE}{more}")
}

/// A finished handshake.
fn shake(server: &Server, config: &Arc<ClientConfig>) -> std::io::Result<Tls> {
    let stream = TcpStream::connect(server.addr())?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let name = ServerName::from(server.addr().ip());
    let mut stream = StreamOwned::new(ClientConnection::new(config.clone(), name).unwrap(), stream);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

type Tls = StreamOwned<ClientConnection, TcpStream>;

/// The certificate that the server shows now.
fn shown(server: &Server) -> CertificateDer<'static> {
    let stream = shake(server, &server.pki().client()).unwrap();
    stream.conn.peer_certificates().unwrap()[0]
        .clone()
        .into_owned()
}

/// What a program without TLS hears on this port.
fn hears(to: std::net::SocketAddr, says: &[u8]) -> String {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(says).unwrap();
    let mut heard = Vec::new();
    // What is thrown away unread may show as a reset.
    let _ = stream.read_to_end(&mut heard);
    String::from_utf8(heard).unwrap()
}

fn numbered(n: usize, bytes: usize) -> Value {
    json!({"type": "numbered", "n": n, "pad": "x".repeat(bytes)})
}

#[test]
fn a_stream_over_tls_recovers_what_it_missed() {
    let server = Server::start_tls(&with(""));
    let mut stream = EventStream::follow(&server, "ann", "post_1", "");
    assert_eq!(stream.next()["type"], "subscribed");
    server.publish("post_1", numbered(0, 10));
    assert_eq!(stream.next()["n"], 0);
    let id = stream.last_event_id.clone();
    drop(stream);
    for n in 1..50 {
        server.publish("post_1", numbered(n, 4_000));
    }
    let mut stream = EventStream::follow(&server, "ann", "post_1", &id);
    assert_eq!(stream.next()["data"]["recovered"], true);
    for n in 1..50 {
        assert_eq!(stream.next()["n"], n);
    }
    server.publish("post_1", numbered(50, 10));
    assert_eq!(stream.next()["n"], 50);
}

#[test]
fn a_socket_over_tls_recovers_what_it_missed() {
    let server = Server::start_tls(&with(""));
    let mut client = server.connect("ann");
    let position = client.subscribe("post_1")["data"].clone();
    server.publish("post_1", numbered(0, 10));
    assert_eq!(client.next()["n"], 0);
    client.close();
    for n in 1..50 {
        server.publish("post_1", numbered(n, 4_000));
    }
    let mut client = server.connect("ann");
    let recover = json!({"epoch": position["epoch"], "offset": 1});
    client.send(&json!({"type": "subscribe", "channel": "post_1", "recover": recover}));
    assert_eq!(client.next()["data"]["recovered"], true);
    for n in 1..50 {
        assert_eq!(client.next()["n"], n);
    }
    client.close();
    let sessions = server.metrics("/metrics").text().to_string();
    assert!(
        sessions.contains("fanfare_tls_handshakes_total{outcome=\"completed\"}"),
        "{sessions}"
    );
}

#[test]
fn large_frames_go_both_ways() {
    let server = Server::start_tls(&with(
        "message_bytes = \"1MiB\"\nevent_bytes = \"1MiB\"\nqueue_bytes = \"8MiB\"\n\
         [channels.room]\nsubscribe = \"any\"\npublish = \"any\"\n",
    ));
    let mut ann = server.connect("ann");
    ann.set_patience(PATIENCE);
    ann.subscribe("room_1");
    // Around what one record holds (16 KiB), and far beyond.
    for bytes in [16_000, 16_383, 16_384, 16_385, 65_536, 700_000] {
        let event = numbered(bytes, bytes);
        ann.send(&json!({"type": "publish", "channel": "room_1", "event": event, "id": 1}));
        let heard = ann.next_of("numbered");
        assert_eq!(heard["pad"].as_str().unwrap().len(), bytes);
        ann.next_of("published");
    }
}

#[test]
fn a_slow_reader_gets_every_byte_in_order() {
    const EVENTS: usize = 600;
    let server = Server::start_tls(&with("queue_bytes = \"64MiB\"\n"));
    let mut slow = server.connect("slow");
    slow.set_patience(PATIENCE);
    slow.subscribe("post_1");
    let mut quick = server.connect("quick");
    quick.set_patience(PATIENCE);
    quick.subscribe("post_1");
    // Nobody reads: the kernel's buffers fill up in the middle of a record, over and over.
    for n in 0..EVENTS {
        server.publish("post_1", numbered(n, 10_000));
    }
    for n in 0..EVENTS {
        assert_eq!(quick.next()["n"], n);
    }
    for n in 0..EVENTS {
        if n % 100 == 0 {
            std::thread::sleep(Duration::from_millis(20));
        }
        let event = slow.next();
        assert_eq!(event["n"], n);
        assert_eq!(event["pad"].as_str().unwrap().len(), 10_000);
    }
    slow.close();
}

#[test]
fn one_who_does_not_read_is_sent_away_and_told_so() {
    let server = Server::start_tls(&with("queue_bytes = \"256KiB\"\n"));
    let mut deaf = server.connect("deaf");
    deaf.set_patience(PATIENCE);
    deaf.subscribe("post_1");
    let counted = || {
        let text = server.metrics("/metrics").text().to_string();
        text.contains("code=\"4102\"")
    };
    let mut n = 0;
    eventually("the end of its queue", PATIENCE, || {
        for _ in 0..20 {
            server.publish("post_1", numbered(n, 50_000));
            n += 1;
        }
        counted()
    });
    // What was on its way comes whole, then the reason.
    let mut heard = 0;
    let last = loop {
        let message = deaf.next();
        match message["type"].as_str() {
            Some("numbered") => {
                assert_eq!(message["n"], heard);
                heard += 1;
            }
            _ => break message,
        }
    };
    assert_eq!(last["type"], "disconnect", "{last}");
    assert_eq!(last["data"]["code"], 4102);
}

#[test]
fn who_speaks_http_without_tls_is_told() {
    let server = Server::start_tls(&with(&format!(
        "[metrics.tls]\ncert = \"{0}/cert.pem\"\nkey = \"{0}/key.pem\"\n",
        "tls"
    )));
    let upgrade = "GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    for request in ["GET /health HTTP/1.1\r\nHost: h\r\n\r\n", upgrade, "POST"] {
        let heard = hears(server.addr(), request.as_bytes());
        assert!(heard.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{heard}");
        assert!(heard.contains("\"code\":\"tls_required\""), "{heard}");
    }
    let heard = hears(server.metrics_addr(), b"GET /stats HTTP/1.1\r\n\r\n");
    assert!(heard.contains("\"code\":\"tls_required\""), "{heard}");
    // What is neither is told nothing, or by TLS.
    assert_eq!(hears(server.addr(), b"\x00\x01\x02"), "");
    let mut alert = Vec::new();
    let mut stream = TcpStream::connect(server.addr()).unwrap();
    stream.write_all(&[22, 3, 1, 0, 4, 9, 0, 0, 0]).unwrap();
    stream.read_to_end(&mut alert).unwrap();
    assert_eq!(alert.first(), Some(&21), "an alert: {alert:?}");
    drop(stream);
    assert_eq!(server.http("GET", "/health", &[], "").status, 200);
}

#[test]
fn a_handshake_is_bounded_in_time_and_number() {
    let server = Server::start_tls(&with(
        "connections_per_address = 4\n[server]\ntrusted_proxies = []\n",
    ));
    let silent: Vec<TcpStream> = (0..4)
        .map(|_| TcpStream::connect(server.addr()).unwrap())
        .collect();
    let half = &silent[0];
    (&mut &*half).write_all(&[22, 3, 1]).unwrap();
    // One more of this address is closed before it says anything.
    eventually("the limit", PATIENCE, || {
        hears(server.addr(), b"").is_empty()
    });
    let start = Instant::now();
    for mut stream in silent {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut rest = Vec::new();
        // Reset or ended: it is over.
        let _ = stream.read_to_end(&mut rest);
    }
    assert!(
        start.elapsed() < Duration::from_secs(20),
        "{:?}",
        start.elapsed()
    );
    eventually("room again", PATIENCE, || {
        shake(&server, &server.pki().client()).is_ok()
    });
}

#[test]
fn a_certificate_is_renewed_without_dropping_anybody() {
    let server = Server::start_tls(&with(""));
    let mut ann = server.connect("ann");
    ann.subscribe("post_1");
    let first = shown(&server);
    // Half of a renewal: the certificate is there and its key is not. Nobody notices.
    let (cert, key) = server.pki().issue("second.example", 60);
    server.pki().put_one("cert.pem", &cert);
    eventually("the refusal", PATIENCE, || {
        server
            .output()
            .contains("the files are others and not used: the key is not that")
    });
    assert_eq!(shown(&server), first);
    server.pki().put_one("key.pem", &key);
    eventually("the renewal", PATIENCE, || shown(&server) != first);
    let second = shown(&server);
    // At once, if somebody says so.
    let (cert, key) = server.pki().issue("third.example", 60);
    server.pki().put(&cert, &key);
    server.signal(Signal::HUP);
    eventually("the reload", PATIENCE, || {
        server.output().contains("the configuration was read again")
    });
    assert_ne!(shown(&server), second);
    let said = server.output();
    assert!(said.contains("server.tls.cert"), "{said}");
    server.publish("post_1", numbered(7, 10));
    assert_eq!(ann.next()["n"], 7);
    ann.close();
}

#[test]
fn a_certificate_that_ends_soon_is_complained_about_and_shown() {
    let mut server = Server::start_tls(&with(""));
    assert!(!server.output().contains("ends soon"));
    let metric = |server: &Server| {
        let text = server.metrics("/metrics").text().to_string();
        let line = text
            .lines()
            .find(|line| {
                line.starts_with("fanfare_tls_certificate_not_after_seconds{listener=\"server\"}")
            })
            .map(str::to_string);
        line.unwrap()
            .rsplit_once(' ')
            .unwrap()
            .1
            .parse::<f64>()
            .unwrap()
    };
    let in_a_month = metric(&server);
    let (cert, key) = server.pki().issue("localhost", 3);
    server.pki().put(&cert, &key);
    server.terminate();
    server.restart();
    let in_three_days = metric(&server);
    let days = (in_a_month - in_three_days) / 86_400.0;
    assert!((26.9..27.1).contains(&days), "{days}");
    eventually("the complaint", PATIENCE, || {
        server.output().contains("the certificate ends soon")
    });
}

#[test]
fn tls_may_be_switched_on_while_plain_sockets_stay() {
    let server = Server::start_from(&with(""));
    let mut plain = server.connect("ann");
    plain.subscribe("post_1");
    let folder = server.data_dir().parent().unwrap().join("tls");
    let pki = support::Pki::new(&folder);
    server.write_config(&with(
        "[server.tls]\ncert = \"tls/cert.pem\"\nkey = \"tls/key.pem\"\n",
    ));
    let output = server.run(&["reload"]);
    assert!(output.status.success(), "{output:?}");
    assert!(hears(server.addr(), b"GET / HTTP/1.1\r\n\r\n").contains("tls_required"));
    let path = format!("/ws?token={}", server.token("bob"));
    let mut secure = Client::open(server.addr(), Some(&pki.client()), &path, &[])
        .unwrap()
        .greeted();
    secure.send(&json!({"type": "ping"}));
    assert_eq!(secure.next()["type"], "pong");
    plain.send(&json!({"type": "ping"}));
    assert_eq!(plain.next()["type"], "pong");
}

#[test]
fn versions_protocols_and_resumption_are_as_browsers_expect() {
    let server = Server::start_tls(&with(""));
    let config = server.pki().client();
    let mut first = shake(&server, &config).unwrap();
    assert_eq!(
        first.conn.protocol_version(),
        Some(ProtocolVersion::TLSv1_3)
    );
    assert_eq!(first.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
    // The ticket comes with the first answer.
    first
        .write_all(b"GET /health HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        .unwrap();
    first.read_to_end(&mut Vec::new()).unwrap();
    let second = shake(&server, &config).unwrap();
    assert_eq!(second.conn.handshake_kind(), Some(HandshakeKind::Resumed));

    let mut older = (*config).clone();
    let provider = older.crypto_provider().clone();
    let roots = server.pki().roots();
    older = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let older = shake(&server, &Arc::new(older)).unwrap();
    assert_eq!(
        older.conn.protocol_version(),
        Some(ProtocolVersion::TLSv1_2)
    );

    let mut newer = (*config).clone();
    newer.alpn_protocols = vec![b"h2".to_vec()];
    assert!(shake(&server, &Arc::new(newer.clone())).is_err());
    newer.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let newer = shake(&server, &Arc::new(newer)).unwrap();
    assert_eq!(newer.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
}

#[test]
fn a_stop_is_said_over_tls_as_well() {
    let mut server = Server::start_tls(&with("[server]\nshutdown_grace = \"2s\"\n"));
    let mut clients: Vec<Client> = (0..20).map(|n| server.connect(&format!("u{n}"))).collect();
    server.signal(Signal::TERM);
    for client in &mut clients {
        client.set_patience(PATIENCE);
        client.expect_disconnect(4100, "shutting down");
    }
    assert!(server.wait(PATIENCE).success());
}

#[test]
fn metrics_are_for_those_with_the_token() {
    let server = Server::start_tls(&with(
        "[metrics]\ntoken = [\"a-token-of-a-scraper\", \"another-one-of-them\"]\n\
         [metrics.tls]\ncert = \"tls/cert.pem\"\nkey = \"tls/key.pem\"\n",
    ));
    let scrape = |headers: &[(&str, &str)]| {
        let wire = Wire::connect(
            server.metrics_addr(),
            Some(&server.pki().client()),
            PATIENCE,
        );
        exchange(
            wire.unwrap(),
            server.metrics_addr(),
            "GET",
            "/stats",
            headers,
            b"",
        )
        .unwrap()
    };
    for headers in [
        &[][..],
        &[("Authorization", "Bearer a-token-of-a-scrapes")],
        &[("Authorization", "Basic a-token-of-a-scraper")],
        &[("X-API-Key", "a-token-of-a-scraper")],
    ] {
        let refused = scrape(headers);
        assert_eq!(refused.status, 401, "{headers:?}");
        assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
        assert!(!refused.text().contains("totalConnections"));
    }
    let good = scrape(&[("Authorization", "Bearer a-token-of-a-scraper")]);
    assert_eq!(good.status, 200);
    assert_eq!(good.json()["totalConnections"], 0);
    assert_eq!(
        scrape(&[("authorization", "bearer another-one-of-them")]).status,
        200
    );
    assert!(!server.output().contains("a-scraper"));
    // A new one counts at once.
    server.write_config(&with(
        "[metrics]\ntoken = \"quite-another-token\"\n\
         [metrics.tls]\ncert = \"tls/cert.pem\"\nkey = \"tls/key.pem\"\n",
    ));
    let output = server.run(&["reload"]);
    assert!(output.status.success());
    assert!(!String::from_utf8_lossy(&output.stdout).contains("quite-another"));
    assert_eq!(
        scrape(&[("Authorization", "Bearer a-token-of-a-scraper")]).status,
        401
    );
    assert_eq!(
        scrape(&[("Authorization", "Bearer quite-another-token")]).status,
        200
    );
}

#[test]
fn a_certificate_that_cannot_be_used_stops_the_start_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let pki = support::Pki::new(folder.path());
    let (_, other_key) = pki.issue("other.example", 30);
    let file = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    };
    let (cert, key) = (
        pki.cert().display().to_string(),
        pki.key().display().to_string(),
    );
    let other_key = file("other.pem", &other_key);
    let empty = file("empty.pem", "");
    let check = |cert: &str, key: &str| {
        let mut command = support::command();
        command.args(["check", "--config", &file("empty.toml", "")]);
        for (name, value) in [("cert", cert), ("key", key)] {
            command
                .arg("--set")
                .arg(format!("server.tls.{name}={value}"));
        }
        let output = command.output().unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    assert_eq!(check(&cert, &key).0, Some(0));
    for (cert, key, blamed, why) in [
        (&*cert, "", "server.tls.cert", "is of no use alone"),
        ("", &*key, "server.tls.key", "is of no use alone"),
        (
            "/nowhere/cert.pem",
            &*key,
            "server.tls.cert",
            "cannot be read",
        ),
        (&*empty, &*key, "server.tls.cert", "is not in the file"),
        (&*key, &*key, "server.tls.cert", "is not in the file"),
        (&*cert, &*empty, "server.tls.key", "is not in the file"),
        (&*cert, &*cert, "server.tls.key", "is not in the file"),
        (
            &*cert,
            &*other_key,
            "server.tls.key",
            "is not that of the certificate",
        ),
    ] {
        let (code, told) = check(cert, key);
        assert_eq!(code, Some(78), "{told}");
        assert!(
            told.contains(blamed) && told.contains(why),
            "{blamed}, {why}: {told}"
        );
    }
}

//! How many may come in, and how fast: before and after the upgrade. Contract section 6.

#![allow(clippy::unwrap_used)] // clippy knows the tests, not what they share

mod support;

use std::time::Duration;

use serde_json::json;
use support::{Client, Raw, Reply, Server, eventually, handshake};

/// An upgrade that is refused, with all that the answer has.
#[track_caller]
fn refused(server: &Server, headers: &[(&str, &str)]) -> Reply {
    let path = format!("/ws?token={}", server.token("u1"));
    let mut all = vec![
        ("Connection", "Upgrade, close"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    all.extend(headers);
    server.http("GET", &path, &all, "")
}

fn open(server: &Server, user: &str, headers: &[(&str, &str)]) -> Result<Client, u16> {
    let path = format!("/ws?token={}", server.token(user));
    server.connect_with(&path, headers)
}

#[test]
fn a_user_has_so_many_sockets_and_another_user_as_many() {
    let server = Server::start(&[
        ("limits.connections_per_user", "3"),
        ("server.workers", "2"),
    ]);
    let mut held: Vec<Client> = (0..3).map(|_| server.connect("u1")).collect();
    for _ in 0..5 {
        let mut client = open(&server, "u1", &[]).unwrap();
        let announced = client.expect_disconnect(4302, "limit reached");
        assert_eq!(announced["data"]["retryAfterMs"], 0);
    }
    server.connect("u2").close();
    // However a socket ends, its place is free again.
    held.remove(0).close();
    eventually("a place is free", Duration::from_secs(5), || {
        let mut client = open(&server, "u1", &[]).unwrap();
        client.next()["type"] == "connected"
    });
    drop(held);
    eventually("all places are free", Duration::from_secs(5), || {
        server.stats()["activeConnections"] == 0
    });
    let held: Vec<Client> = (0..3).map(|_| server.connect("u1")).collect();
    assert_eq!(held.len(), 3);
}

#[test]
fn an_address_has_so_many_sockets() {
    let server = Server::start(&[("limits.connections_per_address", "2")]);
    let from = |address| [("X-Forwarded-For", address)];
    let mut held = vec![
        open(&server, "u1", &from("192.0.2.1")).unwrap(),
        open(&server, "u2", &from("198.51.100.7, 192.0.2.1")).unwrap(),
    ];
    let reply = refused(&server, &from("192.0.2.1")).expect(429);
    assert!(reply.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
    assert!(reply.json()["code"].is_string() && reply.json()["error"].is_string());
    held.push(open(&server, "u1", &from("192.0.2.2")).unwrap());
    // One /64 is one address.
    held.push(open(&server, "u1", &from("2001:db8::1")).unwrap());
    held.push(open(&server, "u1", &from("2001:db8::ffff:2")).unwrap());
    assert_eq!(open(&server, "u1", &from("2001:db8::3")).err(), Some(429));
    held.push(open(&server, "u1", &from("2001:db8:0:1::3")).unwrap());
    // Sockets without a good token count as well, as long as they are there.
    held.remove(0).close();
    eventually("a place is free", Duration::from_secs(5), || {
        open(&server, "u1", &from("192.0.2.1")).is_ok()
    });
}

#[test]
fn a_node_has_so_many_sockets() {
    let server = Server::start(&[("limits.connections", "3")]);
    let mut held: Vec<Client> = (0..3)
        .map(|nth| server.connect(&format!("u{nth}")))
        .collect();
    let reply = refused(&server, &[]).expect(503);
    assert!(reply.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
    // The rest of the server is not concerned.
    server.http("GET", "/ready", &[], "").expect(200);
    server.publish("post_1", json!({"type": "tick"}));
    held.remove(0).close();
    eventually("a place is free", Duration::from_secs(5), || {
        open(&server, "u9", &[])
            .is_ok_and(|client| client.greeted().greeting["type"] == "connected")
    });
    assert_eq!(server.stats()["errors"], 0);
}

#[test]
fn an_address_has_so_many_sockets_before_the_upgrade() {
    let settings = [("limits.connections_per_address", "3")];
    let open = |server: &Server| -> Vec<Raw> {
        let sockets = (0..8).map(|_| Raw::open(server.addr()));
        sockets.collect()
    };
    let server = Server::start(&[settings[0], ("server.trusted_proxies", "")]);
    // The sockets of the harness are of the same address.
    std::thread::sleep(Duration::from_millis(200));
    let mut held = open(&server);
    let refused: Vec<_> = held
        .drain(3..)
        .map(|mut raw| raw.reply().unwrap())
        .collect();
    assert_eq!(refused.len(), 5);
    for reply in refused {
        assert_eq!(reply.status, 429);
        assert_eq!(reply.json()["code"], "rate_limited");
        assert!(reply.header("retry-after").is_some());
    }
    // One that becomes a WebSocket is counted as that from then on, and one that ends not at all.
    let path = format!("/ws?token={}", server.token("u1"));
    assert!(held[0].send(handshake(&path).as_bytes()));
    assert_eq!(held[0].reply().unwrap().status, 101);
    held.remove(1);
    let request = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut more = Vec::new();
    eventually("two places are free", Duration::from_secs(5), || {
        let mut raw = Raw::open(server.addr());
        if raw.send(request) && raw.reply().is_some_and(|reply| reply.status == 200) {
            more.push(raw);
        }
        more.len() == 2
    });
    drop(more);

    // Behind a proxy they are of many clients.
    let server = Server::start(&settings);
    for mut raw in open(&server) {
        assert!(raw.send(request));
        assert_eq!(raw.reply().unwrap().status, 200);
    }
}

#[test]
fn sockets_are_accepted_at_a_bounded_rate() {
    let server = Server::start(&[("limits.accepts_per_second", "2")]);
    let mut held = Vec::new();
    let mut refusals = 0;
    for _ in 0..20 {
        match open(&server, "u1", &[]) {
            Ok(client) => held.push(client),
            Err(status) => {
                assert_eq!(status, 503);
                refusals += 1;
            }
        }
    }
    assert!(
        held.len() >= 2 && refusals >= 5,
        "{} in, {refusals} refused",
        held.len()
    );
    let reply = loop {
        let reply = refused_or_none(&server);
        if let Some(reply) = reply {
            break reply;
        }
    };
    assert_eq!(reply.header("retry-after"), Some("1"));
    eventually(
        "there is room a second later",
        Duration::from_secs(3),
        || open(&server, "u1", &[]).is_ok(),
    );
    // A rate of sockets is not one of requests.
    server.http("GET", "/ready", &[], "").expect(200);
}

/// An upgrade that is refused; `None` if it was not, which takes a while to find out otherwise.
fn refused_or_none(server: &Server) -> Option<Reply> {
    while open(server, "u1", &[]).is_ok() {}
    let reply = refused(server, &[]);
    (reply.status == 503).then_some(reply)
}

/// In a process of its own, because the server inherits the limit.
#[test]
fn with_few_descriptors_it_still_says_that_there_are_too_many() {
    const CHILD: &str = "FANFARE_TEST_FEW_DESCRIPTORS";
    if std::env::var_os(CHILD).is_none() {
        let script = "ulimit -n 256 && exec \"$0\" --exact with_few_descriptors_it_still_says_that_there_are_too_many";
        let output = std::process::Command::new("sh")
            .args(["-c", script])
            .arg(std::env::current_exe().unwrap())
            .env(CHILD, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let passed = output.status.success() && said.contains("1 passed");
        assert!(passed, "{said}{}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    let server = Server::start(&[("server.workers", "2")]);
    let held: Vec<Client> = (0..208)
        .map(|nth| server.connect(&format!("u{nth}")))
        .collect();
    for _ in 0..3 {
        let reply = refused(&server, &[]).expect(503);
        assert_eq!(reply.json()["code"], "too_many_connections");
    }
    server.http("GET", "/ready", &[], "").expect(200);
    assert_eq!(server.stats()["activeConnections"], 208);
    assert_eq!(server.stats()["errors"], 0);
    drop(held);
}

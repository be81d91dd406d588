//! What strangers may do to a WebSocket, and what becomes of it: the documented close, and nobody else
//! notices. Contract sections 4 and 6, RFC 6455.

#![allow(
    clippy::unwrap_used,
    reason = "what does not work here has to fail the test"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "the test of a process waits in real time"
)]

mod support;

use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use support::{Bystander, Calm, Dice, Raw, Server, eventually, frame, handshake, request};

const PATIENCE: Duration = Duration::from_secs(10);

const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;
const CLOSE: u8 = 0x88;

fn path(server: &Server, user: &str) -> String {
    format!("/ws?token={}", server.token(user))
}

fn upgrade(server: &Server) -> Raw {
    Raw::upgrade(server.addr(), &path(server, "u1"))
}

#[test]
fn handshakes_that_are_none_are_refused() {
    let server = Server::start(&[]);
    let calm = Calm::of(&server);
    let bystander = Bystander::begin(&server, PATIENCE);
    let good = handshake(&path(&server, "u1"));
    let without = |line: &str| {
        let lines = good.split("\r\n").filter(|l| !l.starts_with(line));
        lines.collect::<Vec<_>>().join("\r\n")
    };
    let version = |version: &str| good.replace("Version: 13", &format!("Version: {version}"));
    let key = |key: &str| good.replace("dGhlIHNhbXBsZSBub25jZQ==", key);
    for (what, request, status) in [
        ("version 12", version("12"), 426),
        ("version 14", version("14"), 426),
        ("version 0", version("0"), 426),
        ("version x", version("x"), 426),
        ("no version", without("Sec-WebSocket-Version"), 426),
        ("no key", without("Sec-WebSocket-Key"), 400),
        ("an empty key", key(""), 400),
        ("a key of 3 bytes", key("YWJj"), 400),
        ("a key of 17 bytes", key("MDEyMzQ1Njc4OWFiY2RlZmc="), 400),
        (
            "a key that is no base64",
            key("!!!!!!!!!!!!!!!!!!!!!!=="),
            400,
        ),
        ("no connection header", without("Connection"), 400),
        ("no upgrade header", without("Upgrade"), 426),
        ("HTTP/1.0", good.replace("HTTP/1.1", "HTTP/1.0"), 400),
        ("POST", good.replace("GET", "POST"), 405),
    ] {
        let mut raw = Raw::open(server.addr());
        raw.send(request.as_bytes());
        raw.finish();
        let answer = String::from_utf8(raw.rest(PATIENCE)).unwrap();
        let (line, headers) = answer
            .split_once("\r\n")
            .unwrap_or_else(|| panic!("{what}"));
        assert!(line.contains(&format!(" {status} ")), "{what}: {line}");
        if what.contains("version") {
            let headers = headers.to_ascii_lowercase();
            assert!(headers.contains("sec-websocket-version: 13\r\n"), "{what}");
        }
    }
    // Cut at every byte, by an end and by a reset.
    for cut in (0..good.len()).step_by(5) {
        let mut ended = Raw::open(server.addr());
        ended.send(&good.as_bytes()[..cut]);
        ended.finish();
        assert!(!ended.rest(PATIENCE).starts_with(b"HTTP/1.1 101"), "{cut}");
        let mut reset = Raw::open(server.addr());
        reset.send(&good.as_bytes()[..cut]);
        reset.reset();
    }
    for _ in 0..50 {
        let mut reset = Raw::open(server.addr());
        reset.send(good.as_bytes());
        reset.reset();
    }
    // A body is no part of a handshake: its bytes are the first frames, and none that are masked.
    let with_body = good.replace("Host:", "Content-Length: 5\r\nHost:") + "hello";
    let mut raw = Raw::open(server.addr());
    raw.send(with_body.as_bytes());
    raw.finish();
    raw.rest(PATIENCE);
    bystander.end();
    calm.returns(&server, PATIENCE);
}

#[test]
fn floods_are_bounded_in_memory_and_end_as_documented() {
    let server = Server::start(&[]);
    let calm = Calm::of(&server);
    let bystander = Bystander::begin(&server, PATIENCE);
    let before = server.rss_bytes();
    let deadline = Duration::from_secs(2);
    let many = |one: Vec<u8>, bytes: usize| one.repeat(bytes / one.len());
    let floods: Vec<(&str, Vec<u8>)> = vec![
        ("empty pings", many(frame(PING, b""), 16 << 20)),
        ("full pings", many(frame(PING, &[b'x'; 125]), 16 << 20)),
        (
            "pings and pongs",
            many([frame(PING, b""), frame(PONG, b"")].concat(), 16 << 20),
        ),
        (
            "messages",
            many(frame(TEXT, br#"{"type":"ping"}"#), 8 << 20),
        ),
        (
            "large messages",
            many(frame(TEXT, &[b' '; 65_000]), 16 << 20),
        ),
        (
            "empty fragments",
            [frame(0x01, b""), many(frame(0x00, b""), 16 << 20)].concat(),
        ),
    ];
    let mut deaf = Vec::new();
    for (what, bytes) in &floods {
        let mut raw = upgrade(&server);
        let sent = raw.stuff(bytes, deadline);
        let grown = server.rss_bytes().saturating_sub(before);
        println!(
            "{what}: {} KiB taken, the server grew by {} KiB",
            sent >> 10,
            grown >> 10
        );
        deaf.push(raw);
    }
    let grown = server.rss_bytes().saturating_sub(before);
    assert!(
        grown < 24 << 20,
        "{} MiB for {} sockets",
        grown >> 20,
        deaf.len()
    );

    // Who reads and floods is told to slow down and then sent away.
    let mut loud = server.connect("u2");
    let flood = frame(TEXT, br#"{"type":"ping"}"#).repeat(2_000);
    loud.send_raw(&flood);
    assert_eq!(loud.next_of("error")["data"]["code"], "rate_limited");
    let disconnect = loud.next_of("disconnect");
    assert_eq!(disconnect["data"]["code"], 4303);
    assert_eq!(disconnect["data"]["reconnect"], false);
    assert_eq!(loud.expect_close().0, 4303);

    drop((deaf, loud));
    bystander.end();
    calm.returns(&server, PATIENCE);
}

#[test]
fn storms_of_subscribing_leave_nothing_behind() {
    let server = Server::start(&[("limits.commands_per_second", "0")]);
    let calm = Calm::of(&server);
    let bystander = Bystander::begin(&server, PATIENCE);
    let before = server.rss_bytes();
    let (addr, paths): (_, Vec<String>) = (
        server.addr(),
        (0..4).map(|n| path(&server, &format!("u{n}"))).collect(),
    );
    thread::scope(|scope| {
        for path in &paths {
            scope.spawn(move || {
                for round in 0..5 {
                    let mut raw = Raw::upgrade(addr, path);
                    let mut storm = Vec::new();
                    for n in 0..1_000 {
                        let channel = format!("post_{}", n % 150);
                        let kind = ["subscribe", "subscribe", "unsubscribe"][(n + round) % 3];
                        let text = json!({"type": kind, "channel": channel}).to_string();
                        storm.extend(frame(TEXT, text.as_bytes()));
                    }
                    if round % 2 == 0 {
                        storm.extend(frame(CLOSE, b""));
                        raw.send(&storm);
                        raw.frames(PATIENCE);
                    } else {
                        raw.send(&storm);
                        raw.reset();
                    }
                }
            });
        }
    });
    bystander.end();
    calm.returns(&server, PATIENCE);
    let stats = server.metrics("/stats").json();
    assert_eq!(stats["connectionsByChannel"], json!({}));
    let grown = server.rss_bytes().saturating_sub(before) >> 20;
    assert!(grown < 24, "{grown} MiB");
}

#[test]
fn who_never_reads_is_closed_as_too_slow_and_delays_nobody() {
    let server = Server::start(&[("limits.queue_bytes", "256KiB")]);
    let calm = Calm::of(&server);
    let before = server.rss_bytes();
    let subscribe = frame(TEXT, br#"{"type":"subscribe","channel":"post_1"}"#);
    const EVENTS: u64 = 2_000;
    const PUBLISHERS: u64 = 8;
    let deaf: Vec<Raw> = (0..5)
        .map(|_| {
            let mut raw = upgrade(&server);
            raw.send(&subscribe);
            raw
        })
        .collect();
    let mut readers: Vec<_> = (0..5)
        .map(|n| {
            let mut reader = server.connect(&format!("reader-{n}"));
            reader.subscribe("post_1");
            reader
        })
        .collect();
    let start = Instant::now();
    let (addr, key) = (server.addr(), server.api_key());
    thread::scope(|scope| {
        for reader in &mut readers {
            scope.spawn(move || {
                for n in 1..=EVENTS {
                    let event = reader.next();
                    assert_eq!(event["_meta"]["offset"], n, "{}", reader.tell());
                }
            });
        }
        for _ in 0..PUBLISHERS {
            scope.spawn(move || {
                let event = json!({"type": "e", "padding": "x".repeat(8_000)});
                let body = json!({"channel": "post_1", "event": event}).to_string();
                for _ in 0..EVENTS / PUBLISHERS {
                    let headers = [("X-API-Key", key)];
                    let reply = request(addr, "POST", "/api/publish", &headers, body.as_bytes());
                    reply.unwrap().expect(200);
                }
            });
        }
    });
    let rate = EVENTS as f64 / start.elapsed().as_secs_f64();
    let grown = server.rss_bytes().saturating_sub(before) >> 20;
    println!("{rate:.0} events a second, the server grew by {grown} MiB");
    assert!(grown < 32, "{grown} MiB");
    let too_slow = |line: &serde_json::Value| line["data"]["code"] == 4102;
    eventually("the log has every one of the deaf", PATIENCE, || {
        server
            .event_log()
            .iter()
            .filter(|line| too_slow(line))
            .count()
            == deaf.len()
    });
    drop((deaf, readers));
    calm.returns(&server, PATIENCE);
}

#[test]
fn who_reads_too_slowly_is_told_so() {
    let server = Server::start(&[("limits.queue_bytes", "256KiB")]);
    let calm = Calm::of(&server);
    let mut slow = upgrade(&server);
    slow.send(&frame(TEXT, br#"{"type":"subscribe","channel":"post_1"}"#));
    let event = json!({"type": "e", "padding": "x".repeat(60_000)});
    let body = json!({"channel": "post_1", "event": event});
    eventually("it is too slow", PATIENCE, || {
        server.as_backend("POST", "/api/publish", &body).expect(200);
        let closes = server.metrics("/metrics");
        closes.text().contains("reason=\"too slow\"} 1")
    });
    // What the kernel had taken comes first, then whole frames and the reason.
    let frames = slow.frames(PATIENCE);
    let [.., (TEXT, last), (CLOSE, code)] = &frames[..] else {
        panic!("no farewell in {} frames", frames.len());
    };
    let last: serde_json::Value = serde_json::from_slice(last).unwrap();
    assert_eq!(last["data"]["code"], 4102);
    assert_eq!(last["data"]["reconnect"], true);
    assert_eq!(code[..2], 4102u16.to_be_bytes());
    calm.returns(&server, PATIENCE);
}

#[test]
fn half_open_peers_and_resets_are_counted_out() {
    let server = Server::start(&[]);
    let calm = Calm::of(&server);
    let bystander = Bystander::begin(&server, PATIENCE);
    let subscribe = frame(TEXT, br#"{"type":"subscribe","channel":"post_1"}"#);
    for n in 0..200 {
        let mut raw = upgrade(&server);
        match n % 4 {
            0 => raw.reset(),
            1 => {
                raw.send(&subscribe);
                raw.reset();
            }
            2 => {
                raw.send(&subscribe[..subscribe.len() / 2]);
                raw.finish();
                raw.rest(PATIENCE);
            }
            _ => {
                raw.send(&subscribe);
                raw.finish();
                raw.rest(PATIENCE);
            }
        }
    }
    bystander.end();
    calm.returns(&server, PATIENCE);
}

#[test]
fn random_bytes_and_mutated_frames_do_no_harm() {
    let server = Server::start(&[]);
    let calm = Calm::of(&server);
    let bystander = Bystander::begin(&server, PATIENCE);
    let mut dice = Dice::from_environment();
    let good = handshake(&path(&server, "u1")).into_bytes();
    let valid: Vec<Vec<u8>> = vec![
        frame(TEXT, br#"{"type":"ping","id":7}"#),
        frame(TEXT, br#"{"type":"subscribe","channel":{"type":"post","postId":"1"},"recover":{"epoch":"e","offset":3}}"#),
        frame(TEXT, br#"{"type":"unsubscribe","channel":"post_1"}"#),
        frame(TEXT, br#"{"type":"history","channel":"post_1","limit":5,"before":9}"#),
        frame(TEXT, br#"{"type":"publish","channel":"post_1","event":{"type":"x"}}"#),
        frame(TEXT, br#"{"type":"refresh","token":"a.b.c"}"#),
        [frame(0x01, b"{\"type\":"), frame(PING, b"x"), frame(0x80, b"\"ping\"}")].concat(),
        frame(PING, b"x"),
        frame(PONG, b"x"),
        frame(BINARY, b"x"),
        frame(CLOSE, &[0x03, 0xe8]),
    ];
    let rounds = 10_000;
    for round in 0..rounds {
        let Ok(mut raw) = Raw::try_open(server.addr()) else {
            panic!("not accepted any more, round {round}");
        };
        if round % 4 == 0 {
            raw.send(&mutated(&mut dice, good.clone()));
        } else {
            raw.send(&good);
            for _ in 0..=dice.below(6) {
                let one = dice.pick(&valid).clone();
                let one = if dice.below(2) == 0 {
                    one
                } else {
                    mutated(&mut dice, one)
                };
                raw.send(&one);
            }
        }
        match dice.below(3) {
            0 => raw.reset(),
            1 => drop(raw),
            _ => {
                raw.finish();
                raw.rest(PATIENCE);
            }
        }
    }
    let seen = bystander.end();
    println!("{rounds} rounds, {seen:?}");
    eventually("the server forgets them", PATIENCE, || {
        server.metrics("/stats").json()["connectionsByChannel"] == json!({})
    });
    calm.returns(&server, PATIENCE);
}

/// Some bytes changed, inserted, left out or repeated.
fn mutated(dice: &mut Dice, mut bytes: Vec<u8>) -> Vec<u8> {
    for _ in 0..=dice.below(4) {
        if bytes.is_empty() {
            return bytes;
        }
        let at = dice.below(bytes.len() as u64) as usize;
        match dice.below(5) {
            0 => bytes[at] = dice.bits() as u8,
            1 => bytes[at] ^= 1 << dice.below(8),
            2 => bytes.truncate(at),
            3 => {
                let count = dice.below(20) as usize;
                let inserted = dice.bytes(count);
                bytes.splice(at..at, inserted);
            }
            _ => {
                let part = bytes[at..].to_vec();
                bytes.extend(part);
            }
        }
    }
    bytes
}

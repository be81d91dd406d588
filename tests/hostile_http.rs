//! What strangers may send over HTTP, and what becomes of it: a documented answer, and nobody else
//! notices. Contract sections 2 and 6.

#![allow(
    clippy::unwrap_used,
    reason = "what does not work here has to fail the test"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "the test of a process waits in real time"
)]

mod support;

use std::time::{Duration, Instant};

use serde_json::json;
use support::{Bystander, Calm, Raw, Server};

const PATIENCE: Duration = Duration::from_secs(10);

#[test]
fn heads_that_are_too_long_or_no_http_are_refused_and_closed() {
    let server = Server::start(&[]);
    let calm = Calm::of(&server);
    let bystander = Bystander::begin(&server, PATIENCE);
    let host = "GET /health HTTP/1.1\r\nHost: x\r\n";
    let many = |count: usize| {
        let lines: String = (0..count).map(|n| format!("X-{n}: 1\r\n")).collect();
        format!("{host}{lines}\r\n").into_bytes()
    };
    let with = |line: &str| format!("{host}{line}\r\n\r\n").into_bytes();
    let post =
        |lines: &str| format!("POST /api/publish HTTP/1.1\r\nHost: x\r\n{lines}").into_bytes();
    let cases: Vec<(&str, Vec<u8>, u16)> = vec![
        (
            "a line of 17 KB",
            with(&format!("X: {}", "x".repeat(17 << 10))),
            431,
        ),
        (
            "a name of 17 KB",
            with(&format!("{}: x", "x".repeat(17 << 10))),
            431,
        ),
        ("1000 headers", many(1_000), 431),
        ("65 headers", many(64), 431),
        (
            "a path of 20 KB",
            format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(20 << 10)).into(),
            431,
        ),
        ("a head without end", vec![b'x'; 1 << 20], 431),
        ("no method", b" / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), 400),
        ("no path", b"GET\r\n\r\n".to_vec(), 400),
        (
            "a version to come",
            b"GET / HTTP/9.9\r\nHost: x\r\n\r\n".to_vec(),
            400,
        ),
        (
            "TLS",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03abcdefgh\r\n\r\n".to_vec(),
            400,
        ),
        ("zeros", vec![0; 100], 400),
        ("high bytes", vec![0xff; 100], 400),
        ("a NUL in a value", with("X: a\0b"), 400),
        ("a NUL in a name", with("X\0: a"), 400),
        ("a folded line", with("X: a\r\n b"), 400),
        ("a space before the colon", with("X : a"), 400),
        ("no colon", with("X"), 400),
        ("a length of -1", post("Content-Length: -1\r\n\r\n"), 400),
        ("a length of +1", post("Content-Length: +1\r\n\r\nx"), 400),
        ("a length in hex", post("Content-Length: 0x1\r\n\r\nx"), 400),
        (
            "a length of 2^64",
            post("Content-Length: 18446744073709551616\r\n\r\n"),
            400,
        ),
        (
            "two lengths",
            post("Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx"),
            400,
        ),
        (
            "two lengths in one",
            post("Content-Length: 1, 2\r\n\r\nxx"),
            400,
        ),
        (
            "an unknown coding",
            post("Transfer-Encoding: xchunked\r\n\r\n"),
            400,
        ),
        (
            "chunked not last",
            post("Transfer-Encoding: chunked, gzip\r\n\r\n"),
            400,
        ),
        (
            "chunks in HTTP/1.0",
            b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(),
            400,
        ),
    ];
    for (what, bytes, status) in cases {
        let mut raw = Raw::open(server.addr());
        raw.send(&bytes);
        let reply = raw.reply().unwrap_or_else(|| panic!("{what}: no answer"));
        assert_eq!(reply.status, status, "{what}: {reply:?}");
        assert_eq!(raw.rest(PATIENCE), b"", "{what}: more than one answer");
    }

    let mut raw = Raw::open(server.addr());
    raw.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x12\x04\0\0\0\0\0");
    assert_eq!(raw.rest(PATIENCE), b"", "HTTP/2 is not spoken");

    bystander.end();
    calm.returns(&server, PATIENCE);
}

#[test]
fn no_request_hides_in_another() {
    let server = Server::start(&[]);
    let calm = Calm::of(&server);
    let hidden = "GET /health HTTP/1.1\r\nHost: x\r\n\r\n";
    let publish = |lines: &str, body: &str| {
        format!("POST /api/publish HTTP/1.1\r\nHost: x\r\n{lines}\r\n{body}{hidden}")
    };
    let chunked = "Transfer-Encoding: chunked\r\n";
    // (what, request, whether what follows may count as a request of its own)
    let cases = [
        (
            "a length and chunks",
            publish(&format!("Content-Length: 4\r\n{chunked}"), "0\r\n\r\n"),
        ),
        (
            "chunks and a length",
            publish(&format!("{chunked}Content-Length: 4\r\n"), "0\r\n\r\n"),
        ),
        (
            "a chunk of 2^68 bytes",
            publish(chunked, "fffffffffffffffff\r\n"),
        ),
        ("a chunk of -1 bytes", publish(chunked, "-1\r\n")),
        ("a chunk of no length", publish(chunked, "\r\n")),
        (
            "a chunk longer than it says",
            publish(chunked, "1\r\nxxxx\r\n0\r\n\r\n"),
        ),
        (
            "an endless extension",
            publish(chunked, &format!("1;{}\r\n", "x".repeat(100_000))),
        ),
        (
            "endless trailers",
            publish(chunked, &format!("0\r\n{}\r\n", "x: y\r\n".repeat(20_000))),
        ),
    ];
    for (what, bytes) in cases {
        let mut raw = Raw::open(server.addr());
        raw.send(bytes.as_bytes());
        raw.finish();
        let mut answers = Vec::new();
        while let Some(reply) = raw.reply() {
            answers.push(reply.status);
        }
        assert!(
            matches!(answers[..], [] | [400] | [401]),
            "{what}: {answers:?}"
        );
    }
    calm.returns(&server, PATIENCE);
}

#[test]
fn who_is_slow_is_told_so_and_closed() {
    let server = Server::start(&[
        ("limits.header_timeout", "1s"),
        ("limits.body_timeout", "1s"),
    ]);
    let calm = Calm::of(&server);
    let bystander = Bystander::begin(&server, PATIENCE);

    let start = Instant::now();
    let mut drip = Raw::open(server.addr());
    for byte in "GET /health HTTP/1.1\r\nHost: x\r\nX: 0123456789\r\n".bytes() {
        if !drip.send(&[byte]) || start.elapsed() > Duration::from_secs(2) {
            break;
        }
        std::thread::sleep(Duration::from_millis(60));
    }
    let reply = drip.reply().expect("no answer");
    assert_eq!(reply.status, 408);
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert_eq!(
        reply.json(),
        json!({"error": "Request timeout", "code": "timeout"})
    );
    drip.rest(PATIENCE);
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(900), "{took:?}");

    let start = Instant::now();
    let mut silent = Raw::open(server.addr());
    silent.rest(Duration::from_secs(5));
    assert!(start.elapsed() >= Duration::from_millis(900));

    let mut idle = Raw::open(server.addr());
    idle.send(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(idle.reply().unwrap().status, 200);
    let farewell = idle.rest(Duration::from_secs(5));
    assert_eq!(farewell, b"", "silence between two requests is no fault");

    for head in ["Content-Length: 100", "Transfer-Encoding: chunked"] {
        let start = Instant::now();
        let mut body = Raw::open(server.addr());
        body.send(
            format!("POST /api/publish HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n3\r\nabc\r\n")
                .as_bytes(),
        );
        let reply = body.reply().expect("no answer");
        assert_eq!(reply.status, 408, "{head}");
        assert_eq!(reply.json()["code"], "timeout");
        body.rest(PATIENCE);
        assert!(start.elapsed() >= Duration::from_millis(900));
    }
    bystander.end();
    calm.returns(&server, PATIENCE);
}

#[test]
fn every_method_has_an_answer() {
    let server = Server::start(&[]);
    let calm = Calm::of(&server);
    for (method, path, expected) in [
        ("HEAD", "/health", 200),
        ("HEAD", "/api/publish", 405),
        ("OPTIONS", "/api/publish", 204),
        ("OPTIONS", "*", 404),
        ("TRACE", "/health", 405),
        ("CONNECT", "example.org:443", 404),
        ("BREW", "/health", 405),
        ("GET", "http://example.org/health", 200),
    ] {
        let mut raw = Raw::open(server.addr());
        raw.send(
            format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes(),
        );
        let reply = raw.reply_to(method).expect("no answer");
        assert_eq!(reply.status, expected, "{method} {path}");
        assert_eq!(
            reply.header("allow").is_some(),
            matches!(expected, 204 | 405)
        );
        assert_eq!(raw.rest(PATIENCE), b"", "{method} {path}");
    }
    let mut old = Raw::open(server.addr());
    old.send(b"GET /health HTTP/1.0\r\n\r\n");
    let answer = String::from_utf8(old.rest(PATIENCE)).unwrap();
    assert!(answer.contains(" 200 OK\r\n"), "{answer}");
    calm.returns(&server, PATIENCE);
}

#[test]
fn an_answer_waits_for_no_request_that_is_still_to_come() {
    let server = Server::start(&[]);
    let health = "GET /health HTTP/1.1\r\nHost: x\r\n\r\n";
    // The next one has only begun: its head, its body.
    let publish = format!(
        "POST /api/publish HTTP/1.1\r\nHost: x\r\nX-API-Key: {}\r\nContent-Length: 60\r\n\r\n{{",
        server.api_key()
    );
    for begun in ["G", "GET /health HTTP/1.1\r\nHo", "\r\n", &publish] {
        let mut raw = Raw::open(server.addr());
        raw.send(format!("{health}{health}{begun}").as_bytes());
        let asked = Instant::now();
        for _ in 0..2 {
            assert_eq!(raw.reply().expect("no answer").status, 200, "{begun:?}");
        }
        // Sooner than anybody gives the client up for (limits.header_timeout).
        assert!(asked.elapsed() < Duration::from_secs(5), "{begun:?}");
    }
    // Much more than is put together in one go, and in order.
    let mut raw = Raw::open(server.addr());
    let library = "GET /fanfare.js HTTP/1.1\r\nHost: x\r\n\r\n";
    raw.send(format!("{health}{library}").repeat(40).as_bytes());
    for n in 0..40 {
        assert!(raw.reply().expect("no answer").body.len() < 1_000, "{n}");
        let length = raw.reply().expect("no answer").body.len();
        assert!(length > 10_000, "{n}: {length}");
    }
    // The answer to an upgrade comes after those before it, and the greeting after that.
    let mut raw = Raw::open(server.addr());
    let token = server.token("u1");
    let upgrade = support::handshake(&format!("/ws?token={token}"));
    raw.send(format!("{health}{health}{upgrade}").as_bytes());
    for status in [200, 200, 101] {
        assert_eq!(raw.reply().expect("no answer").status, status);
    }
    raw.send(&support::frame(0x88, b""));
    let frames = raw.frames(PATIENCE);
    let greeting = String::from_utf8_lossy(&frames[0].1);
    assert!(greeting.contains("\"connected\""), "{greeting}");
}

#[test]
fn odd_orders_of_sending_get_ordinary_answers() {
    let server = Server::start(&[]);
    let calm = Calm::of(&server);
    let bystander = Bystander::begin(&server, PATIENCE);

    // A hundred requests before the first answer.
    let mut pipelined = Raw::open(server.addr());
    let requests: String = (0..100)
        .map(|n| match n % 2 {
            0 => "GET /health HTTP/1.1\r\nHost: x\r\n\r\n",
            _ => "GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n",
        })
        .collect();
    pipelined.send(requests.as_bytes());
    for n in 0..100 {
        let expected = if n % 2 == 0 { 200 } else { 404 };
        assert_eq!(
            pipelined.reply().expect("no answer").status,
            expected,
            "{n}"
        );
    }

    // A client that has said all it has to say still wants to hear.
    let event = json!({"channel": "post_1", "event": {"type": "x"}}).to_string();
    let publish = format!(
        "POST /api/publish HTTP/1.1\r\nHost: x\r\nX-API-Key: {}\r\nContent-Length: {}\r\n\r\n{event}",
        server.api_key(),
        event.len()
    );
    for _ in 0..20 {
        let mut half = Raw::open(server.addr());
        half.send(publish.as_bytes());
        half.finish();
        assert_eq!(half.reply().expect("no answer").status, 200);
        assert_eq!(half.rest(PATIENCE), b"");
    }

    // A client that asks whether it may send.
    let mut polite = Raw::open(server.addr());
    let (head, body) = publish.split_once("\r\n\r\n").unwrap();
    polite.send(format!("{head}\r\nExpect: 100-continue\r\n\r\n").as_bytes());
    assert_eq!(polite.reply().expect("no answer").status, 100);
    polite.send(body.as_bytes());
    assert_eq!(polite.reply().expect("no answer").status, 200);
    let mut refused = Raw::open(server.addr());
    refused.send(
        b"POST /api/publish HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\nExpect: 100-continue\r\n\r\n",
    );
    assert_eq!(refused.reply().expect("no answer").status, 413);
    refused.rest(PATIENCE);

    // Resets at every place of a request.
    for cut in (0..publish.len()).step_by(7) {
        let mut raw = Raw::open(server.addr());
        raw.send(&publish.as_bytes()[..cut]);
        raw.reset();
    }
    // Ends at every place of a request.
    for cut in (1..publish.len()).step_by(7) {
        let mut raw = Raw::open(server.addr());
        raw.send(&publish.as_bytes()[..cut]);
        raw.finish();
        let answer = raw.reply().map(|reply| reply.status);
        assert!(matches!(answer, None | Some(400)), "{cut}: {answer:?}");
        raw.rest(PATIENCE);
    }
    drop((pipelined, polite));
    bystander.end();
    calm.returns(&server, PATIENCE);
}

#[test]
fn thousands_who_say_nothing_keep_nobody_waiting() {
    let server = Server::start(&[]);
    let calm = Calm::of(&server);
    let bystander = Bystander::begin(&server, PATIENCE);
    let before = server.rss_bytes();
    let crowd: Vec<Raw> = (0..4_000)
        .map(|n| {
            let mut raw = Raw::open(server.addr());
            if n % 2 == 0 {
                raw.send(b"GET /health HTTP/1.1\r\nHost: x\r\nX: ");
            }
            raw
        })
        .collect();
    let each = (server.rss_bytes().saturating_sub(before)) / crowd.len() as u64;
    let start = Instant::now();
    server.connect("u1").close();
    server.http("GET", "/ready", &[], "").expect(200);
    let took = start.elapsed();
    println!("{each} bytes for each of the silent, {took:?} for somebody who speaks");
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert!(each < 40 << 10, "{each} bytes each");
    drop(crowd);
    let seen = bystander.end();
    println!("{seen:?}");
    calm.returns(&server, Duration::from_secs(15));
}

#[test]
fn who_never_reads_the_answers_costs_little() {
    let server = Server::start(&[]);
    let calm = Calm::of(&server);
    let bystander = Bystander::begin(&server, PATIENCE);
    let before = server.rss_bytes();
    let requests = "GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n".repeat(50_000);
    let deaf: Vec<Raw> = (0..20)
        .map(|_| {
            let mut raw = Raw::open(server.addr());
            raw.stuff(requests.as_bytes(), Duration::from_millis(200));
            raw
        })
        .collect();
    let grown = server.rss_bytes().saturating_sub(before) >> 20;
    println!("{grown} MiB for {} who do not read", deaf.len());
    assert!(grown < 40, "{grown} MiB");
    drop(deaf);
    bystander.end();
    calm.returns(&server, PATIENCE);
}

#[test]
fn who_does_not_read_the_answers_is_closed() {
    let server = Server::start(&[("limits.header_timeout", "1s")]);
    let calm = Calm::of(&server);
    let mut deaf = Raw::open(server.addr());
    let request = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n";
    // More answers than any buffer on the way holds; as long as they are taken, they come.
    deaf.stuff(&request.repeat(2_000), Duration::from_secs(1));
    calm.returns(&server, PATIENCE);
    drop(deaf);
}

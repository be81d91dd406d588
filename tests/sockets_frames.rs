//! Frames that are too big, malformed, cut in pieces or come early. Contract section 4, RFC 6455.

#![allow(clippy::unwrap_used)] // clippy knows the tests, not what they share

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::json;
use support::{Server, eventually, frame};

#[test]
fn a_message_may_be_so_long_and_no_longer() {
    let server = Server::start(&[("limits.message_bytes", "2KiB")]);
    let mut client = server.connect("u1");
    let ping = |length: usize| format!("{:<length$}", r#"{"type":"ping"}"#);
    client.send_text(&ping(2_048));
    assert_eq!(client.next(), json!({"type": "pong"}));
    client.send_text(&ping(2_049));
    client.expect_disconnect(1009, "message too big");

    // In pieces, each of which would fit.
    let mut client = server.connect("u1");
    client.send_raw(&frame(0x01, ping(2_000).as_bytes()));
    client.send_raw(&frame(0x80, &[b' '; 49]));
    client.expect_disconnect(1009, "message too big");

    // Announced and never sent: refused by the announcement.
    let mut client = server.connect("u1");
    client.send_raw(&[0x81, 0xff, 0x7f, 255, 255, 255, 255, 255, 255, 255]);
    client.send_raw(&[0, 0, 0, 0]);
    client.expect_disconnect(1009, "message too big");
}

#[test]
fn a_large_message_is_refused_however_much_of_it_was_sent() {
    let server = Server::start(&[]);
    let mut neighbour = server.connect("u1");
    let mut client = server.connect("u1");
    // The server may close while this is still being written.
    let _ = client
        .stream()
        .write_all(&frame(0x81, &vec![b' '; 8 << 20]));
    // What it says is not lost in the reset that unread bytes would cause.
    client.expect_disconnect(1009, "message too big");
    neighbour.send(&json!({"type": "ping"}));
    assert_eq!(neighbour.next(), json!({"type": "pong"}));
}

#[test]
fn frames_that_break_the_protocol_are_the_end() {
    let server = Server::start(&[]);
    let cases: [(&str, Vec<u8>); 10] = [
        ("not masked", vec![0x81, 1, b'x']),
        ("reserved bit", frame(0xc1, b"{}")),
        ("reserved opcode", frame(0x83, b"{}")),
        ("reserved control opcode", frame(0x8b, b"")),
        ("fragmented ping", frame(0x09, b"x")),
        ("long ping", frame(0x89, &[b'x'; 126])),
        ("continuation of nothing", frame(0x80, b"x")),
        (
            "new message in the middle of one",
            [frame(0x01, b"{"), frame(0x81, b"{}")].concat(),
        ),
        (
            "close with a code that is never sent",
            frame(0x88, &1005_u16.to_be_bytes()),
        ),
        (
            "not HTTP's turn any more",
            b"GET /ready HTTP/1.1\r\n\r\n".to_vec(),
        ),
    ];
    for (what, bytes) in cases {
        println!("{what}");
        let mut client = server.connect("u1");
        client.subscribe("post_1");
        client.send_raw(&bytes);
        client.expect_disconnect(1002, "protocol error");
    }
    eventually("all of them are gone", Duration::from_secs(5), || {
        server.stats()["activeConnections"] == 0
    });
    assert_eq!(server.stats()["connectionsByChannel"], json!({}));
}

#[test]
fn text_that_is_not_utf8_is_the_end() {
    let server = Server::start(&[]);
    for bytes in [
        frame(0x81, b"\xff"),
        frame(0x81, b"{\"type\":\"\xed\xa0\x80\"}"),
        frame(0x81, b"\xc3"),
        frame(0x81, b"\xf4\x90\x80\x80"),
        [frame(0x01, b"\xc3"), frame(0x80, b"(")].concat(),
    ] {
        let mut client = server.connect("u1");
        client.send_raw(&bytes);
        client.expect_disconnect(1007, "invalid utf-8");
    }
    // Cut within a character is still text.
    let mut client = server.connect("u1");
    let ping = "{\"type\":\"ping\",\"x\":\"\u{e4}\"}".as_bytes();
    let cut = ping.iter().position(|byte| *byte == 0xc3).unwrap() + 1;
    client.send_raw(&frame(0x01, &ping[..cut]));
    client.send_raw(&frame(0x80, &ping[cut..]));
    assert_eq!(client.next(), json!({"type": "pong"}));
}

#[test]
fn a_message_arrives_in_whatever_pieces_it_comes() {
    let server = Server::start(&[]);
    let mut client = server.connect("u1");
    let mut bytes = frame(0x01, br#"{"type":"#);
    bytes.extend(frame(0x89, b"are you there?"));
    bytes.extend(frame(0x00, b""));
    bytes.extend(frame(0x80, br#""ping","id":1}"#));
    bytes.extend(frame(0x81, br#"{"type":"ping","id":2}"#));
    for byte in bytes {
        client.send_raw(&[byte]);
    }
    assert_eq!(client.next(), json!({"type": "pong", "id": 1}));
    assert_eq!(client.next(), json!({"type": "pong", "id": 2}));
    assert!(
        client.tell().contains("Pong"),
        "a ping of the client's is answered{}",
        client.tell()
    );
}

#[test]
fn what_comes_with_the_handshake_is_not_lost() {
    let server = Server::start(&[]);
    let mut stream = TcpStream::connect(server.addr()).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let mut bytes = format!(
        "GET /ws?token={} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        server.token("u1")
    )
    .into_bytes();
    for id in 0..50 {
        bytes.extend(frame(
            0x81,
            format!(r#"{{"type":"ping","id":{id}}}"#).as_bytes(),
        ));
    }
    bytes.extend(frame(0x88, &1000_u16.to_be_bytes()));
    stream.write_all(&bytes).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    // RFC 6455 section 1.3 gives the answer to this key.
    assert!(answer.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{answer}");
    let mut rest = answer.as_ref();
    for id in 0..50 {
        let pong = format!(r#"{{"type":"pong","id":{id}}}"#);
        let at = rest
            .find(&pong)
            .unwrap_or_else(|| panic!("no {pong}: {answer}"));
        rest = &rest[at + pong.len()..];
    }
}

#[test]
fn a_connection_may_ask_over_http_first() {
    let server = Server::start(&[]);
    let mut stream = TcpStream::connect(server.addr()).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let mut requests = "GET /ready HTTP/1.1\r\nHost: x\r\n\r\n".repeat(3);
    requests += &format!(
        "GET /ws?token={} HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\n\
         Upgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        server.token("u1")
    );
    let mut bytes = requests.into_bytes();
    bytes.extend(frame(0x81, br#"{"type":"ping"}"#));
    bytes.extend(frame(0x88, &1000_u16.to_be_bytes()));
    stream.write_all(&bytes).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer);
    assert_eq!(answer.matches("HTTP/1.1 200 ").count(), 3, "{answer}");
    assert_eq!(answer.matches("HTTP/1.1 101 ").count(), 1, "{answer}");
    assert!(answer.contains(r#"{"type":"pong"}"#), "{answer}");
}

#[test]
fn a_close_of_the_clients_is_answered_with_its_code() {
    let server = Server::start(&[]);
    for code in [1000_u16, 1001, 3000, 4999] {
        let mut client = server.connect("u1");
        client.subscribe("post_1");
        client.send_raw(&frame(0x88, &[&code.to_be_bytes()[..], b"bye"].concat()));
        assert_eq!(client.expect_close().0, code);
    }
    // And one without a code, or no close at all, is an end as well.
    let mut client = server.connect("u1");
    client.send_raw(&frame(0x88, b""));
    assert_eq!(client.expect_close().0, 1005);
    drop(server.connect("u1"));
    eventually("nobody is left", Duration::from_secs(5), || {
        server.stats()["activeConnections"] == 0
    });
}

//! What strangers may send on an open WebSocket: every breach of RFC 6455 has its close code, what is
//! odd but allowed works, and a strange message is an error that the socket survives.

#![allow(
    clippy::unwrap_used,
    reason = "what does not work here has to fail the test"
)]

mod support;

use std::time::Duration;

use serde_json::json;
use support::{Bystander, Calm, Raw, Server, frame, handshake};

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
fn frames_behind_the_handshake_are_not_lost() {
    let server = Server::start(&[]);
    let mut bytes = handshake(&path(&server, "u1")).into_bytes();
    for _ in 0..20 {
        bytes.extend(frame(TEXT, br#"{"type":"ping"}"#));
    }
    bytes.extend(frame(CLOSE, &[0x03, 0xe8]));
    let mut raw = Raw::open(server.addr());
    raw.send(&bytes);
    assert_eq!(raw.reply().unwrap().status, 101);
    let frames = raw.frames(PATIENCE);
    let pongs = frames
        .iter()
        .filter(|(_, text)| text == br#"{"type":"pong"}"#);
    assert_eq!(pongs.count(), 20);
    assert_eq!(frames.last().unwrap(), &(CLOSE, vec![0x03, 0xe8]));
}

#[test]
fn every_breach_of_the_protocol_has_its_close_code() {
    let server = Server::start(&[]);
    let calm = Calm::of(&server);
    let bystander = Bystander::begin(&server, PATIENCE);
    let unmasked =
        |first: u8, payload: &[u8]| [&[first, payload.len() as u8][..], payload].concat();
    let announced =
        |first: u8, length: u64| [&[first, 0xff][..], &length.to_be_bytes(), &[0; 4]].concat();
    let close = |code: u16, reason: &[u8]| frame(CLOSE, &[&code.to_be_bytes(), reason].concat());
    let cases: Vec<(&str, Vec<u8>, u16)> = vec![
        ("unmasked text", unmasked(TEXT, b"{}"), 1002),
        ("unmasked ping", unmasked(PING, b""), 1002),
        ("unmasked close", unmasked(CLOSE, &[0x03, 0xe8]), 1002),
        ("first reserved bit", frame(TEXT | 0x40, b"{}"), 1002),
        ("second reserved bit", frame(TEXT | 0x20, b"{}"), 1002),
        ("third reserved bit", frame(TEXT | 0x10, b"{}"), 1002),
        ("opcode 3", frame(0x83, b"{}"), 1002),
        ("opcode 7", frame(0x87, b"{}"), 1002),
        ("opcode 11", frame(0x8b, b""), 1002),
        ("opcode 15", frame(0x8f, b""), 1002),
        ("a ping of 126 bytes", frame(PING, &[b'x'; 126]), 1002),
        ("a pong of 60,000 bytes", frame(PONG, &[b'x'; 60_000]), 1002),
        ("a close of 126 bytes", frame(CLOSE, &[b'x'; 126]), 1002),
        ("a fragmented ping", frame(0x09, b"x"), 1002),
        ("a fragmented close", frame(0x08, &[0x03, 0xe8]), 1002),
        ("a continuation of nothing", frame(0x80, b"x"), 1002),
        (
            "text within text",
            [frame(0x01, b"a"), frame(TEXT, b"b")].concat(),
            1002,
        ),
        ("a close of one byte", frame(CLOSE, &[3]), 1002),
        ("close code 0", close(0, b""), 1002),
        ("close code 999", close(999, b""), 1002),
        ("close code 1004", close(1004, b""), 1002),
        ("close code 1005", close(1005, b""), 1002),
        ("close code 1006", close(1006, b""), 1002),
        ("close code 1016", close(1016, b""), 1002),
        ("close code 2999", close(2999, b""), 1002),
        ("close code 5000", close(5000, b""), 1002),
        (
            "a close reason that is no text",
            close(1000, b"\xff\xfe"),
            1007,
        ),
        ("text that is no text", frame(TEXT, b"\xc3\x28"), 1007),
        (
            "half a character at the end",
            frame(TEXT, b"\xe2\x82"),
            1007,
        ),
        ("a surrogate", frame(TEXT, b"\xed\xa0\x80"), 1007),
        ("overlong", frame(TEXT, b"\xc0\xaf"), 1007),
        (
            "a bad character over two fragments",
            [frame(0x01, b"\"\xe2\x82"), frame(0x80, b"\x28\"")].concat(),
            1007,
        ),
        ("65,537 bytes", frame(TEXT, &[b' '; 65_537]), 1009),
        ("65,537 bytes, binary", frame(BINARY, &[b' '; 65_537]), 1009),
        (
            "2^63 - 1 bytes announced",
            announced(TEXT, u64::MAX >> 1),
            1009,
        ),
        ("2^32 bytes announced", announced(TEXT, 1 << 32), 1009),
        (
            "65,537 bytes in fragments",
            [frame(0x01, &[b' '; 40_000]), frame(0x80, &[b' '; 25_537])].concat(),
            1009,
        ),
    ];
    for (what, bytes, code) in cases {
        let mut whole = upgrade(&server);
        whole.send(&bytes);
        assert_eq!(whole.close_code(PATIENCE), Some(code), "{what}");
        if bytes.len() > 1_000 {
            continue;
        }
        let mut drop_by_drop = upgrade(&server);
        for byte in &bytes {
            // The server may have heard enough before the end.
            if !drop_by_drop.send(&[*byte]) {
                break;
            }
        }
        assert_eq!(
            drop_by_drop.close_code(PATIENCE),
            Some(code),
            "{what}, slowly"
        );
    }
    let mut raw = upgrade(&server);
    raw.send(&announced(TEXT, 1 << 63));
    let code = raw.close_code(PATIENCE);
    assert!(
        matches!(code, Some(1002 | 1009)),
        "2^63 bytes announced: {code:?}"
    );
    bystander.end();
    calm.returns(&server, PATIENCE);
}

#[test]
fn what_may_be_odd_but_is_allowed_works() {
    let server = Server::start(&[]);
    let calm = Calm::of(&server);
    let ping = br#"{"type":"ping"}"#;
    let pong = br#"{"type":"pong"}"#;
    let end = frame(CLOSE, &[0x03, 0xe8]);
    let bytewise: Vec<u8> = [frame(TEXT, ping), frame(PING, b"hey"), end.clone()].concat();
    let mut slow = upgrade(&server);
    for byte in &bytewise {
        assert!(slow.send(&[*byte]));
    }
    let frames = slow.frames(PATIENCE);
    assert!(frames.contains(&(TEXT, pong.to_vec())), "{frames:?}");
    assert!(frames.contains(&(PONG, b"hey".to_vec())), "{frames:?}");
    assert_eq!(frames.last().unwrap(), &(CLOSE, vec![0x03, 0xe8]));

    // A character in four fragments, a ping between them, empty ones around.
    let mut pieces = upgrade(&server);
    let text = r#"{"type":"ping","id":"é🎉"}"#.as_bytes();
    let mut bytes = frame(0x01, b"");
    for byte in text {
        bytes.extend(frame(0x00, &[*byte]));
        bytes.extend(frame(PING, b""));
        bytes.extend(frame(0x00, b""));
    }
    bytes.extend(frame(0x80, b""));
    bytes.extend(&end);
    pieces.send(&bytes);
    let frames = pieces.frames(PATIENCE);
    let answered = r#"{"type":"pong","id":"é🎉"}"#.as_bytes().to_vec();
    assert!(frames.contains(&(TEXT, answered)), "{frames:?}");
    let pongs = frames.iter().filter(|(first, _)| *first == PONG).count();
    assert_eq!(pongs, text.len());

    // What comes after a close is not looked at.
    let mut late = upgrade(&server);
    late.send(&[end.clone(), frame(TEXT, ping), vec![0xff; 10_000]].concat());
    let frames = late.frames(PATIENCE);
    assert_eq!(frames.last().unwrap(), &(CLOSE, vec![0x03, 0xe8]));
    assert!(!frames.contains(&(TEXT, pong.to_vec())), "{frames:?}");
    // Nor who asks for it.
    for code in [1000u16, 1001, 1003, 1007, 1011, 3000, 4999] {
        let mut raw = upgrade(&server);
        raw.send(&frame(CLOSE, &code.to_be_bytes()));
        assert_eq!(raw.close_code(PATIENCE), Some(code));
    }
    let mut bare = upgrade(&server);
    bare.send(&frame(CLOSE, b""));
    assert_eq!(bare.close_code(PATIENCE), Some(1005));
    calm.returns(&server, PATIENCE);
}

#[test]
fn strange_messages_are_errors_and_the_socket_lives_on() {
    let server = Server::start(&[]);
    let calm = Calm::of(&server);
    let deep = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
    let mut client = server.connect("u1");
    for text in [
        String::new(),
        "\0".into(),
        deep.clone(),
        "{\"a\":".repeat(10_000),
        format!(r#"{{"type":{deep}}}"#),
        r#"{"type":"ping"}{"type":"ping"}"#.into(),
        r#"{"type":"ping","type":"ping"}"#.into(),
        r#"{"type":"\ud800"}"#.into(),
    ] {
        client.send_text(&text);
        let answer = client.next();
        assert_eq!(answer["type"], "error", "{text:.60}");
        assert_eq!(answer["data"]["code"], "invalid_format", "{text:.60}");
    }
    for (text, code) in [
        (format!(r#"{{"type":"dance","a":{deep}}}"#), "unknown_type"),
        (
            format!(r#"{{"type":"{}"}}"#, "x".repeat(60_000)),
            "unknown_type",
        ),
        (
            r#"{"type":"subscribe","channel":"post_\u0000"}"#.into(),
            "invalid_channel",
        ),
        (
            format!(
                r#"{{"type":"subscribe","channel":"post_{}"}}"#,
                "x".repeat(60_000)
            ),
            "invalid_channel",
        ),
        (
            r#"{"type":"history","channel":"feed_other"}"#.into(),
            "access_denied",
        ),
        (
            r#"{"type":"publish","channel":"post_1","event":{"type":"x"}}"#.into(),
            "access_denied",
        ),
    ] {
        client.send_text(&text);
        let answer = client.next();
        assert_eq!(answer["data"]["code"], code, "{text:.80}: {answer}");
    }
    // The channel is repeated in the answer, and nobody needs one this deep.
    client.send_text(&format!(r#"{{"type":"subscribe","channel":{deep}}}"#));
    client.send(&json!({"type": "ping", "id": "still there"}));
    let mut raw = upgrade(&server);
    raw.send(&frame(
        TEXT,
        format!(r#"{{"type":"ping","a":{deep}}}"#).as_bytes(),
    ));
    raw.send(&frame(CLOSE, b""));
    assert!(
        raw.frames(PATIENCE)
            .iter()
            .any(|(_, text)| text == br#"{"type":"pong"}"#)
    );
    drop(client);
    calm.returns(&server, PATIENCE);
}

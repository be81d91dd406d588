//! Autobahn's fuzzing client against `ws::Engine` and `ws::Outbox`: RFC 6455 as a third party reads
//! it. The suite wants an echo server, which Fanfare is not; so this is one, around the same parts.
//!
//! It needs `wstest`, a program for Python 2.7: `tests/conformance/run` gets it and runs this.

#![allow(
    clippy::unwrap_used,
    reason = "what does not work here has to fail the test"
)]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use fanfare::ws::{Dialogue, Engine, Frame, Outbox, Received};
use serde_json::{Value, json};
use tungstenite::handshake::derive_accept_key;

/// The largest message of the suite.
const MESSAGE_BYTES: usize = 16 << 20;
/// More than waits at any moment: the echo writes everything before it reads on.
const QUEUE_BYTES: usize = 2 * MESSAGE_BYTES;

/// Binary messages, whose contents Fanfare does not look at (it answers with an error), and
/// permessage-deflate, which it does not offer.
const LEFT_OUT: [&str; 7] = ["1.2.*", "9.2.*", "9.4.*", "9.6.*", "9.8.*", "12.*", "13.*"];

#[test]
#[ignore = "needs wstest: tests/conformance/run"]
fn the_engine_conforms_to_rfc_6455() {
    let wstest = std::env::var("FANFARE_WSTEST").expect("FANFARE_WSTEST is the path of wstest");
    let address = echo_server();
    let folder = tempfile::TempDir::new().unwrap();
    let spec = json!({
        "outdir": "reports",
        "servers": [{"agent": "fanfare", "url": format!("ws://{address}")}],
        "cases": ["*"],
        "exclude-cases": LEFT_OUT,
        "exclude-agent-cases": {},
    });
    std::fs::write(folder.path().join("spec.json"), spec.to_string()).unwrap();
    let status = Command::new(wstest)
        .args(["--mode", "fuzzingclient", "--spec", "spec.json"])
        .current_dir(folder.path())
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success(), "{status}");
    let report = std::fs::read(folder.path().join("reports/index.json")).unwrap();
    let report: Value = serde_json::from_slice(&report).unwrap();
    let cases = report["fanfare"].as_object().unwrap();
    let (mut strict, mut bad) = (0, Vec::new());
    for (name, case) in cases {
        let both = [&case["behavior"], &case["behaviorClose"]].map(|it| it.as_str().unwrap());
        match both {
            ["OK", "OK"] => strict += 1,
            [
                "OK" | "NON-STRICT" | "INFORMATIONAL",
                "OK" | "INFORMATIONAL",
            ] => {
                println!("{name}: {both:?}");
            }
            _ => bad.push((name, both)),
        }
    }
    println!("{} cases, {strict} of them to the letter", cases.len());
    assert!(bad.is_empty(), "{bad:?}");
    assert!(cases.len() > 200, "only {} cases ran", cases.len());
}

fn echo_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            // A peer that breaks off is part of the suite.
            std::thread::spawn(move || drop(echo(stream)));
        }
    });
    address
}

fn echo(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let behind = shake_hands(&mut stream)?;
    let mut engine = (Engine::new(MESSAGE_BYTES), Dialogue::default());
    let mut outbox = Outbox::default();
    let mut ended = !answer(&mut engine, &behind, &mut outbox);
    let mut buffer = vec![0; 64 << 10];
    loop {
        let mut scratch = Vec::new();
        outbox.copy_to(&mut scratch, usize::MAX);
        stream.write_all(&scratch)?;
        outbox.consume(scratch.len());
        if ended {
            stream.shutdown(Shutdown::Write)?;
            // What still comes is read, so that our last words are not lost to a reset.
            while stream.read(&mut buffer)? > 0 {}
            return Ok(());
        }
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        ended = !answer(&mut engine, &buffer[..count], &mut outbox);
    }
}

/// Takes in bytes as a worker does; `false` when the connection is to end.
fn answer(
    (engine, dialogue): &mut (Engine, Dialogue),
    mut input: &[u8],
    outbox: &mut Outbox,
) -> bool {
    loop {
        let mut protocol = Vec::new();
        let received = engine.receive(dialogue, &mut input, &mut protocol);
        outbox
            .push(&Frame::encoded(&protocol), QUEUE_BYTES)
            .unwrap();
        match received {
            Received::Text(text) if dialogue.may_send() => {
                outbox.push(&Frame::text(&text), QUEUE_BYTES).unwrap();
            }
            Received::Text(_) | Received::Binary | Received::Pong => {}
            Received::NeedInput => return true,
            Received::Closing => return false,
            Received::Failed(close) => {
                let mut farewell = Vec::new();
                engine.close(dialogue, close, &mut farewell);
                outbox.push_last_words(&Frame::encoded(&farewell));
                return false;
            }
        }
    }
}

/// Answers the upgrade; what came behind it.
fn shake_hands(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut head = Vec::new();
    let mut buffer = [0; 4 << 10];
    let end = loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        head.extend_from_slice(&buffer[..count]);
        if let Some(at) = head.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
    };
    let behind = head.split_off(end);
    let head = String::from_utf8_lossy(&head);
    let mut lines = head.lines().filter_map(|line| line.split_once(':'));
    let key = lines.find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"));
    let accept = derive_accept_key(key.map_or("", |(_, key)| key.trim()).as_bytes());
    stream.write_all(
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        )
        .as_bytes(),
    )?;
    Ok(behind)
}

//! Upgrades in one piece and in many: the first is answered without the HTTP machinery, the others with
//! it, and nobody can tell. Contract section 4, RFC 6455 section 4.

#![allow(clippy::unwrap_used)] // clippy knows the tests, not what they share

mod support;

use std::time::Duration;

use support::{Raw, Server, frame, handshake};

const PATIENCE: Duration = Duration::from_secs(20);

/// The status, the headers that matter and every frame until the server closes.
fn upgrade(server: &Server, pieces: &[&[u8]]) -> (u16, String, Vec<String>) {
    let mut raw = Raw::open(server.addr());
    for (nth, piece) in pieces.iter().enumerate() {
        if nth > 0 {
            // Most of them arrive by themselves then; whether they do must not matter.
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(raw.send(piece));
    }
    let reply = raw.reply().expect("closed instead of an upgrade");
    let accept = reply.header("sec-websocket-accept").unwrap_or_default();
    let frames = raw.frames(PATIENCE);
    let kinds = frames.iter().map(|(first, payload)| {
        let text = String::from_utf8_lossy(payload);
        let kind = serde_json::from_str::<serde_json::Value>(&text)
            .ok()
            .and_then(|json| json["type"].as_str().map(str::to_owned));
        kind.unwrap_or_else(|| format!("{first:02x}"))
    });
    (reply.status, accept.to_owned(), kinds.collect())
}

#[test]
fn however_an_upgrade_is_cut_it_is_the_same() {
    let server = Server::start(&[]);
    let head = handshake(&format!("/ws?token={}", server.token("u1"))).into_bytes();
    let mut behind = frame(0x81, br#"{"type":"ping"}"#);
    behind.extend(frame(0x88, &1000_u16.to_be_bytes()));
    let all = [&head[..], &behind].concat();
    let whole = upgrade(&server, &[&all]);
    assert_eq!(whole.0, 101);
    assert_eq!(whole.1, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert_eq!(whole.2, ["connected", "pong", "88"]);
    let ends = [
        1,
        3,
        20,
        head.len() - 2,
        head.len(),
        head.len() + 1,
        all.len() - 1,
    ];
    for cut in ends {
        let (first, second) = all.split_at(cut);
        assert_eq!(upgrade(&server, &[first, second]), whole, "cut at {cut}");
    }
    let pieces: Vec<&[u8]> = all.chunks(60).collect();
    assert_eq!(upgrade(&server, &pieces), whole);
}

#[test]
fn a_refused_upgrade_leaves_the_connection_to_other_requests() {
    let server = Server::start(&[]);
    let good = handshake(&format!("/ws?token={}", server.token("u1")));
    let old = good.replace("Version: 13", "Version: 8");
    let foreign = good.replace("Host:", "Origin: https://evil.example\r\nHost:");
    let mut raw = Raw::open(server.addr());
    for (request, status) in [
        (old.as_str(), 426),
        (foreign.as_str(), 403),
        ("GET /ready HTTP/1.1\r\nHost: x\r\n\r\n", 200),
        (good.as_str(), 101),
    ] {
        assert!(raw.send(request.as_bytes()));
        let reply = raw.reply().expect("an answer");
        assert_eq!(reply.status, status);
        if status == 426 {
            assert_eq!(reply.header("sec-websocket-version"), Some("13"));
            assert_eq!(reply.header("upgrade"), Some("websocket"));
            assert_eq!(reply.header("connection"), Some("upgrade"));
        }
    }
    assert!(raw.send(&frame(0x88, &1000_u16.to_be_bytes())));
    let frames = raw.frames(PATIENCE);
    assert_eq!(frames.last().map(|(first, _)| *first), Some(0x88));
}

/// As proxies in front of us add their own lines.
#[test]
fn an_upgrade_in_several_lines_is_one() {
    let server = Server::start(&[]);
    let head = handshake(&format!("/ws?token={}", server.token("u1")));
    let repeated = "Connection: keep-alive\r\nConnection: Upgrade\r\n";
    for (plain, list) in [
        ("Connection: Upgrade\r\n", repeated),
        ("Upgrade: websocket\r\n", "Upgrade: h2c, websocket\r\n"),
        (
            "Upgrade: websocket\r\n",
            "Upgrade: h2c\r\nUpgrade: websocket\r\n",
        ),
    ] {
        assert!(head.contains(plain), "{head}");
        let mut all = head.replace(plain, list).into_bytes();
        all.extend(frame(0x88, &1000_u16.to_be_bytes()));
        for cut in [all.len(), 30] {
            let (first, second) = all.split_at(cut);
            let (status, accept, frames) = upgrade(&server, &[first, second]);
            assert_eq!(status, 101, "{list}");
            assert_eq!(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
            assert_eq!(frames, ["connected", "88"]);
        }
    }
}

#[test]
fn a_bad_token_hears_why_whether_its_upgrade_came_whole_or_not() {
    let server = Server::start(&[]);
    let head = handshake("/ws?token=none").into_bytes();
    for cut in [head.len(), 30] {
        let (first, second) = head.split_at(cut);
        let (status, _, frames) = upgrade(&server, &[first, second]);
        assert_eq!(status, 101);
        assert_eq!(frames, ["disconnect", "88"]);
    }
}

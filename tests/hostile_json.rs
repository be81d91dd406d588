//! What strangers may send as bodies, queries and header values: a documented answer, and never a 500.

#![allow(
    clippy::unwrap_used,
    reason = "what does not work here has to fail the test"
)]

mod support;

use std::time::Duration;

use serde_json::json;
use support::{Calm, Raw, Server};

const PATIENCE: Duration = Duration::from_secs(10);

/// Every route that reads a body.
const BODY_ROUTES: &[(&str, &str)] = &[
    ("POST", "/api/auth/wallet"),
    ("POST", "/api/user/notifications"),
    ("PATCH", "/api/user/notifications"),
    ("PUT", "/api/user/notifications"),
    ("POST", "/api/publish"),
    ("POST", "/api/broadcast"),
    ("PUT", "/api/users"),
];

/// A request of a whole server, with every right that it could need.
fn with_every_right(server: &Server, method: &str, path: &str, body: &[u8]) -> (u16, String) {
    let bearer = format!("Bearer {}", server.token("u1"));
    let headers = [
        ("Authorization", bearer.as_str()),
        ("X-API-Key", server.api_key()),
        ("Content-Type", "application/json"),
    ];
    let reply = server.http(method, path, &headers, body);
    let code = reply.json()["code"].as_str().unwrap_or("").to_string();
    (reply.status, code)
}

#[test]
fn bodies_are_bounded_however_they_are_announced() {
    let server = Server::start(&[
        ("limits.body_bytes", "100KiB"),
        ("limits.body_timeout", "1s"),
    ]);
    let calm = Calm::of(&server);
    let large = vec![b' '; 4 << 20];
    for (method, path) in BODY_ROUTES {
        let (status, code) = with_every_right(&server, method, path, &large);
        assert_eq!((status, &*code), (413, "body_too_large"), "{method} {path}");

        let mut raw = Raw::open(server.addr());
        raw.send(
            format!("{method} {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
                .as_bytes(),
        );
        for _ in 0..64 {
            raw.send(b"4000\r\n");
            raw.send(&large[..0x4000]);
            if !raw.send(b"\r\n") {
                break;
            }
        }
        // What is too large is 413, whether its end is there or is still awaited.
        if *method == "POST" {
            raw.send(b"0\r\n\r\n");
        }
        assert_eq!(
            raw.reply().expect("no answer").status,
            413,
            "{method} {path}"
        );
        raw.rest(PATIENCE);
    }
    calm.returns(&server, PATIENCE);
}

#[test]
fn strange_json_is_400_and_never_500() {
    let server = Server::start(&[]);
    let calm = Calm::of(&server);
    let deep = |open: &str, close: &str| open.repeat(20_000) + &close.repeat(20_000);
    let everywhere = [
        deep("[", "]"),
        deep("{\"a\":", "}").replace("}}", "1}}"),
        "[".repeat(20_000),
        "{\"a\":".repeat(20_000),
        "\u{feff}{}".into(),
        "{\"a\":\0}".into(),
        "{\"a\":NaN}".into(),
        "{\"a\":01}".into(),
        "nul".into(),
        "{\"a\":\"\\ud8".into(),
        "{\"a\":\"\\q\"}".into(),
        "{\"a\":1,}".into(),
        "{}{}".into(),
        "x".repeat(100_000),
    ];
    for (method, path) in BODY_ROUTES {
        for body in &everywhere {
            let (status, _) = with_every_right(&server, method, path, body.as_bytes());
            assert_eq!(status, 400, "{method} {path} {:.60}", body);
        }
        let (status, code) = with_every_right(&server, method, path, b"{\"a\":\"\xff\xfe\"}");
        assert_eq!((status, &*code), (400, "invalid_json"), "{method} {path}");
    }

    let deep = deep("[", "]");
    let members: Vec<(&str, &str, String)> = vec![
        (
            "POST",
            "/api/auth/wallet",
            format!(r#"{{"wallet":{deep}}}"#),
        ),
        (
            "POST",
            "/api/publish",
            format!(r#"{{"channel":{deep},"event":{{"type":"x"}}}}"#),
        ),
        (
            "POST",
            "/api/publish",
            format!(r#"{{"channel":"post_1","event":{deep}}}"#),
        ),
        (
            "POST",
            "/api/publish",
            format!(r#"{{"channel":"post_1","event":{{"type":"x","a":{deep}}}}}"#),
        ),
        (
            "POST",
            "/api/broadcast",
            format!(r#"{{"channels":{deep},"event":{{"type":"x"}}}}"#),
        ),
        (
            "POST",
            "/api/broadcast",
            format!(r#"{{"channels":["post_1"],"event":{{"type":"x","a":{deep}}}}}"#),
        ),
        (
            "PATCH",
            "/api/user/notifications",
            format!(r#"{{"notificationId":{deep},"isRead":true}}"#),
        ),
        (
            "PUT",
            "/api/user/notifications",
            format!(r#"{{"notificationIds":{deep}}}"#),
        ),
        (
            "POST",
            "/api/user/notifications",
            format!(r#"{{"userId":"u1","type":"t","title":"t","message":"m","metadata":{deep}}}"#),
        ),
        ("PUT", "/api/users", format!(r#"{{"id":{deep}}}"#)),
        // A lone surrogate, a NUL where names go, more than one of a kind, numbers past all bounds.
        ("POST", "/api/auth/wallet", r#"{"wallet":"\ud800"}"#.into()),
        ("POST", "/api/auth/wallet", r#"{"wallet":1e999999}"#.into()),
        (
            "POST",
            "/api/auth/wallet",
            r#"{"wallet":"a","wallet":"b"}"#.into(),
        ),
        (
            "POST",
            "/api/publish",
            r#"{"channel":"post_1","event":{"type":"\ud800"}}"#.into(),
        ),
        (
            "POST",
            "/api/publish",
            r#"{"channel":"post_\u0000","event":{"type":"x"}}"#.into(),
        ),
        (
            "POST",
            "/api/publish",
            r#"{"channel":"post_1","channel":"post_2","event":{"type":"x"}}"#.into(),
        ),
        (
            "PUT",
            "/api/user/notifications",
            r#"{"notificationIds":[1e400]}"#.into(),
        ),
        ("PUT", "/api/users", r#"{"id":"u\u0000"}"#.into()),
    ];
    for (method, path, body) in members {
        let (status, code) = with_every_right(&server, method, path, body.as_bytes());
        assert_eq!(status, 400, "{method} {path} {:.100} ({code})", body);
    }
    let listed = server.as_user("u1", "GET", "/api/user/notifications", &json!(null));
    assert_eq!(listed.json()["notifications"], json!([]));
    calm.returns(&server, PATIENCE);
}

#[test]
fn queries_paths_and_headers_may_hold_anything() {
    let server = Server::start(&[]);
    let calm = Calm::of(&server);
    let bearer = format!("Bearer {}", server.token("u1"));
    for (path, expected) in [
        ("/api/user/notifications?limit=99999999999999999999", 400),
        ("/api/user/notifications?limit=-1", 400),
        ("/api/user/notifications?limit=0", 400),
        ("/api/user/notifications?cursor=%00%ff", 400),
        ("/api/user/notifications?limit=5&%ff%fe=%zz&&&===", 200),
        ("/%2e%2e/%2e%2e/etc/passwd", 404),
        ("/../../etc/passwd", 404),
        ("//", 404),
        ("/api/user/notifications/%00/read", 405),
        ("/health?%00", 200),
    ] {
        let reply = server.http("GET", path, &[("Authorization", &bearer)], "");
        assert_eq!(reply.status, expected, "{path}");
    }
    let long = "x".repeat(8_000);
    for header in [
        "Authorization",
        "X-API-Key",
        "Idempotency-Key",
        "X-Forwarded-For",
        "Origin",
    ] {
        for value in [
            &*long,
            "\u{ff}\u{80}",
            "Bearer",
            "Bearer ",
            "Bearer a.b.c",
            ",,,,",
            "::::",
        ] {
            let reply = server.http("GET", "/api/auth/wallet", &[(header, value)], "");
            assert_eq!(reply.status, 401, "{header}: {value:.20}");
        }
    }
    calm.returns(&server, PATIENCE);
}

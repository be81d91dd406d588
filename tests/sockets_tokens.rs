//! How a client shows who it is, and what happens if it cannot. Contract section 4.

#![allow(clippy::unwrap_used)] // clippy knows the tests, not what they share

mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::{Server, eventually};

/// The upgrade works, and then the socket is closed with 1008.
#[track_caller]
fn is_unauthorized(server: &Server, path: &str, headers: &[(&str, &str)]) {
    let mut client = server.connect_with(path, headers).unwrap();
    assert_eq!(
        client.next(),
        json!({"type": "disconnect", "data":
            {"code": 1008, "reason": "Unauthorized", "reconnect": false, "retryAfterMs": 0}})
    );
    assert_eq!(client.expect_close(), (1008, "Unauthorized".to_string()));
}

/// Who the server takes this client for.
#[track_caller]
fn taken_for(server: &Server, path: &str, headers: &[(&str, &str)]) -> Value {
    let client = server.connect_with(path, headers).unwrap().greeted();
    client.greeting["data"]["userId"].clone()
}

#[test]
fn a_token_may_come_in_three_ways_and_the_query_comes_first() {
    let server = Server::start(&[]);
    let query = format!("/ws?token={}", server.token("by-query"));
    let bearer = format!("Bearer {}", server.token("by-header"));
    let header = ("Authorization", bearer.as_str());
    let protocols = format!("fanfare, bearer.{}", server.token("by-protocol"));
    let protocol = ("Sec-WebSocket-Protocol", protocols.as_str());

    assert_eq!(taken_for(&server, &query, &[]), "by-query");
    assert_eq!(taken_for(&server, "/ws", &[header]), "by-header");
    assert_eq!(taken_for(&server, "/ws", &[protocol]), "by-protocol");
    assert_eq!(taken_for(&server, &query, &[header, protocol]), "by-query");
    assert_eq!(taken_for(&server, "/ws", &[header, protocol]), "by-header");
    assert_eq!(taken_for(&server, "/ws?token=", &[header]), "by-header");
    // Something else in the header is no token.
    let basic = ("Authorization", "Basic dTpw");
    assert_eq!(taken_for(&server, "/ws", &[basic, protocol]), "by-protocol");

    let client = server.connect_with("/ws", &[protocol]).unwrap();
    assert_eq!(client.subprotocol.as_deref(), Some("fanfare"));
    let client = server.connect_with(&query, &[]).unwrap();
    assert_eq!(client.subprotocol, None);

    // A bad token is not made good by another one.
    is_unauthorized(&server, "/ws?token=bad", &[header, protocol]);
    is_unauthorized(&server, "/ws", &[("Authorization", "Bearer bad"), protocol]);
}

#[test]
fn sockets_are_at_ws_and_at_the_root_and_nowhere_else() {
    let server = Server::start(&[]);
    let token = server.token("u1");
    for path in ["/ws", "/"] {
        assert_eq!(
            taken_for(&server, &format!("{path}?token={token}"), &[]),
            "u1"
        );
    }
    for path in ["/ws/", "/wss", "/WS", "/api/publish", "/ready"] {
        let status = server.connect_with(&format!("{path}?token={token}"), &[]);
        let status = status.err().unwrap();
        assert!(matches!(status, 404 | 405 | 200), "{path}: {status}");
    }
    server.http("GET", "/ws", &[], "").expect(426);
}

#[test]
fn the_greeting_is_exactly_what_the_contract_lists() {
    let server = Server::start(&[]);
    let mut claims = server.claims("u1");
    claims["exp"] = json!(4_102_444_800_u64);
    let path = format!("/ws?token={}", server.token_with(&claims));
    let one = server.connect_with(&path, &[]).unwrap().greeted().greeting;
    let other = server.connect_with(&path, &[]).unwrap().greeted().greeting;
    let data = &one["data"];
    assert_eq!(
        one,
        json!({"type": "connected", "data": {
            "userId": "u1",
            "message": "Successfully connected to WebSocket server",
            "connectionId": data["connectionId"],
            "node": server.stats()["server"]["node"],
            "expiresAt": "2100-01-01T00:00:00.000Z",
        }})
    );
    assert!(data["connectionId"].is_string() && data["node"].is_string());
    assert_ne!(data["connectionId"], other["data"]["connectionId"]);
}

#[test]
fn a_bad_token_is_closed_with_1008_and_the_log_says_why() {
    let server = Server::start(&[]);
    let good = server.token("u1");
    let changed = |claim: &str, value: Value| {
        let mut claims = server.claims("u1");
        claims[claim] = value;
        server.token_with(&claims)
    };
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let first = if signature.starts_with('A') { "B" } else { "A" };
    let payload = signed.split_once('.').unwrap().1;
    let mut nameless = server.claims("u1");
    nameless["userId"] = Value::Null;
    nameless["sub"] = Value::Null;
    let cases = [
        ("missing", String::new()),
        ("malformed", "nonsense".to_string()),
        ("malformed", "a.b.c".to_string()),
        ("signature", format!("{signed}.{first}{}", &signature[1..])),
        // {"alg":"none"}
        ("algorithm", format!("eyJhbGciOiJub25lIn0.{payload}.")),
        ("expired", changed("exp", json!(1_700_000_000))),
        ("no_expiry", changed("exp", Value::Null)),
        ("issuer", changed("iss", json!("somebody"))),
        ("issuer", changed("iss", Value::Null)),
        ("audience", changed("aud", json!("something"))),
        ("not_yet_valid", changed("nbf", json!(4_102_444_800_u64))),
        ("no_subject", server.token_with(&nameless)),
    ];
    for (_, token) in &cases {
        is_unauthorized(&server, &format!("/ws?token={token}"), &[]);
    }
    is_unauthorized(&server, "/ws", &[]);
    let failures = || {
        let log = server.event_log();
        let failures = log
            .into_iter()
            .filter(|line| line["type"] == "auth_failure");
        failures.collect::<Vec<_>>()
    };
    eventually(
        "all failures are in the log",
        Duration::from_secs(5),
        || failures().len() > cases.len(),
    );
    for ((check, token), line) in cases.iter().zip(failures()) {
        assert_eq!(line["data"]["reason"], *check, "{token}");
        assert_eq!(line["data"]["ip"], "127.0.0.1");
    }
    assert_eq!(server.stats()["authFailures"], cases.len() + 1);
    // Nobody was let in, and nobody holds a place.
    assert_eq!(server.stats()["totalConnections"], 0);
}

#[test]
fn a_backends_token_needs_no_more_than_the_contract_says() {
    let server = Server::start(&[]);
    let whole = server.claims("u1");
    let claims =
        json!({"sub": "from-sub", "exp": whole["exp"], "iss": whole["iss"], "aud": whole["aud"]});
    let path = format!("/ws?token={}", server.token_with(&claims));
    assert_eq!(taken_for(&server, &path, &[]), "from-sub");
    let mut both = whole;
    both["sub"] = json!("from-sub");
    both["userId"] = json!("from-user-id");
    let path = format!("/ws?token={}", server.token_with(&both));
    assert_eq!(taken_for(&server, &path, &[]), "from-user-id");
}

#[test]
fn pages_of_strangers_are_refused_before_the_upgrade() {
    let server = Server::start(&[(
        "server.allowed_origins",
        "https://fonana.me,http://localhost:3000",
    )]);
    let path = format!("/ws?token={}", server.token("u1"));
    let own = format!("http://{}", server.addr());
    for origin in [own.as_str(), "https://fonana.me", "http://localhost:3000"] {
        assert_eq!(taken_for(&server, &path, &[("Origin", origin)]), "u1");
    }
    assert_eq!(taken_for(&server, &path, &[]), "u1");
    for origin in [
        "https://evil.example",
        "http://fonana.me",
        "https://fonana.me.evil.example",
        "https://evil.example/https://fonana.me",
        "http://localhost:3001",
        "null",
        "",
    ] {
        let refused = server.connect_with(&path, &[("Origin", origin)]);
        assert_eq!(refused.err(), Some(403), "{origin:?}");
    }
    let upgrade = [
        ("Connection", "Upgrade, close"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Origin", "https://evil.example"),
    ];
    let body = server.http("GET", &path, &upgrade, "").expect(403).json();
    assert_eq!(body["code"], "origin_not_allowed");
    assert!(body["error"].is_string());

    let closed = Server::start(&[]);
    let path = format!("/ws?token={}", closed.token("u1"));
    let own = format!("http://{}", closed.addr());
    assert_eq!(taken_for(&closed, &path, &[("Origin", &own)]), "u1");
    let refused = closed.connect_with(&path, &[("Origin", "https://fonana.me")]);
    assert_eq!(refused.err(), Some(403));

    let open = Server::start(&[("server.allowed_origins", "*")]);
    let path = format!("/ws?token={}", open.token("u1"));
    assert_eq!(
        taken_for(&open, &path, &[("Origin", "https://evil.example")]),
        "u1"
    );
}

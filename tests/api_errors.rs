//! How the API says no, and what it says about itself.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};
use support::Server;

#[test]
fn unknown_paths_and_methods_are_told_apart() {
    let server = Server::start(&[]);
    for path in [
        "/nothing",
        "/api",
        "/api/publish/",
        "/API/publish",
        "/%2e%2e/etc/passwd",
        "/test/../x",
    ] {
        let reply = server.http("GET", path, &[], "").expect(404).json();
        assert_eq!(
            reply,
            json!({"error": "Not found", "code": "not_found"}),
            "{path}"
        );
    }
    let reply = server
        .http("DELETE", "/api/auth/wallet", &[], "")
        .expect(405);
    assert_eq!(reply.json()["code"], "method_not_allowed");
    assert_eq!(reply.header("allow"), Some("GET, POST, HEAD, OPTIONS"));
    let reply = server.http("BREW", "/api/publish", &[], "").expect(405);
    assert_eq!(reply.header("allow"), Some("POST, OPTIONS"));
    let reply = server.http("OPTIONS", "/api/publish", &[], "").expect(204);
    assert_eq!(reply.header("allow"), Some("POST, OPTIONS"));
    let head = server.http("HEAD", "/health", &[], "").expect(200);
    assert!(head.body.is_empty());
    assert!(
        head.header("content-length")
            .unwrap()
            .parse::<u64>()
            .unwrap()
            > 0
    );
}

#[test]
fn answers_are_not_to_be_kept_and_do_not_name_the_server() {
    let server = Server::start(&[]);
    for path in ["/health", "/nothing", "/api/auth/wallet"] {
        let reply = server.http("GET", path, &[], "");
        assert_eq!(reply.header("cache-control"), Some("no-store"), "{path}");
        assert_eq!(
            reply.header("content-type"),
            Some("application/json"),
            "{path}"
        );
        assert_eq!(reply.header("server"), None, "{path}");
    }
}

#[test]
fn bodies_must_be_json_by_content_and_by_name() {
    let server = Server::start(&[]);
    let post = |content_type: &str, body: &str| {
        let headers = [
            ("Content-Type", content_type),
            ("X-API-Key", server.api_key()),
        ];
        server.http("POST", "/api/publish", &headers, body).status
    };
    let good = r#"{"channel":"post_1","event":{"type":"x"}}"#;
    assert_eq!(post("application/json; charset=utf-8", good), 200);
    assert_eq!(post("application/cloudevents+json", good), 200);
    assert_eq!(post("text/plain", good), 415);
    assert_eq!(post("application/x-www-form-urlencoded", good), 415);
    let deep = format!(r#"{{"channel":{}"#, "[".repeat(20_000));
    for bad in ["", "x", "{", "[]", "null", "\u{0}", &deep] {
        assert_eq!(post("application/json", bad), 400, "{bad:.20}");
    }
    let bare = server.http(
        "POST",
        "/api/publish",
        &[("X-API-Key", server.api_key())],
        good,
    );
    bare.expect(200);
    let headers = [
        ("Content-Type", "application/json"),
        ("X-API-Key", server.api_key()),
    ];
    server
        .http(
            "POST",
            "/api/publish",
            &headers,
            b"{\"channel\":\"\xff\xfe\"}",
        )
        .expect(400);
    // Deeper than what subscribers' parsers take, and refused without using the stack.
    let deep = format!(
        r#"{{"channel":"post_1","event":{{"type":"x","d":{}{}}}}}"#,
        "[".repeat(20_000),
        "]".repeat(20_000)
    );
    assert_eq!(post("application/json", &deep), 400);
}

#[test]
fn a_body_that_is_too_large_or_too_slow_is_not_waited_for() {
    let server = Server::start(&[
        ("limits.body_bytes", "4KiB"),
        ("limits.body_timeout", "500ms"),
    ]);
    let large = format!(r#"{{"wallet":"{}"}}"#, "x".repeat(8_000));
    let reply = server
        .http("POST", "/api/auth/wallet", &[], &large)
        .expect(413);
    assert_eq!(reply.json()["code"], "body_too_large");
    // Larger than what the kernel's buffers hold: who is still sending gets to read the answer.
    let huge = "x".repeat(4 << 20);
    server
        .http("POST", "/api/auth/wallet", &[], &huge)
        .expect(413);

    let mut stream = TcpStream::connect(server.addr()).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let head = "POST /api/auth/wallet HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{";
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(
        answer.to_ascii_lowercase().contains("connection: close"),
        "{answer}"
    );
}

#[test]
fn requests_are_limited_by_address_and_backends_are_not() {
    let server = Server::start(&[("limits.requests_per_second", "5")]);
    let ask = |headers: &[(&str, &str)]| server.http("GET", "/openapi.json", headers, "");
    let one = [("X-Forwarded-For", "203.0.113.1")];
    let limited = (0..100)
        .map(|_| ask(&one))
        .find(|reply| reply.status == 429);
    let limited = limited.expect("no limit was met");
    assert_eq!(limited.json()["code"], "rate_limited");
    assert_eq!(limited.header("retry-after"), Some("1"));
    ask(&[("X-Forwarded-For", "203.0.113.2")]).expect(200);
    // Whoever balances load asks often, and from one address.
    for path in ["/health", "/ready"] {
        for _ in 0..50 {
            server.http("GET", path, &one, "").expect(200);
        }
    }
    for _ in 0..50 {
        ask(&[
            ("X-Forwarded-For", "203.0.113.1"),
            ("X-API-Key", server.api_key()),
        ])
        .expect(200);
    }
}

#[test]
fn it_says_that_it_lives_and_is_ready() {
    let server = Server::start(&[]);
    let health = server.http("GET", "/health", &[], "").expect(200).json();
    assert_eq!(health["status"], "ok");
    let ready = server.http("GET", "/ready", &[], "").expect(200).json();
    assert_eq!(
        ready,
        json!({"ready": true, "checks": {"store": "up", "broker": "up", "draining": false}})
    );
}

#[test]
fn the_document_describes_what_is_answered() {
    let server = Server::start(&[]);
    let document = server
        .http("GET", "/openapi.json", &[], "")
        .expect(200)
        .json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1."));
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            if method == "parameters" {
                continue;
            }
            let path = path.replace("{id}", "no-such-id");
            let reply = server.http(&method.to_uppercase(), &path, &[], "");
            let status = reply.status.to_string();
            let known = operation["responses"].as_object().unwrap();
            assert!(
                known.contains_key(&status),
                "{method} {path} answered {status}"
            );
            if reply.status >= 400 {
                let error = reply.json();
                assert!(
                    error["error"].is_string() && error["code"].is_string(),
                    "{error}"
                );
            }
        }
    }
}

#[test]
fn a_path_for_sockets_asks_for_one() {
    let server = Server::start(&[("server.test_page", "false")]);
    for path in ["/ws", "/", "/ws?token=x"] {
        let reply = server.http("GET", path, &[], "").expect(426);
        assert_eq!(reply.header("upgrade"), Some("websocket"));
        assert_eq!(reply.json()["code"], "upgrade_required");
    }
    server
        .http("GET", "/test/jwt-websocket", &[], "")
        .expect(404);
    let server = Server::start(&[("server.test_page", "true")]);
    let reply = server.http("GET", "/", &[], "").expect(302);
    assert_eq!(reply.header("location"), Some("/test/jwt-websocket"));
    let page = server
        .http("GET", "/test/jwt-websocket", &[], "")
        .expect(200);
    assert!(
        page.header("content-type")
            .unwrap()
            .starts_with("text/html")
    );
    assert!(page.header("content-security-policy").is_some());
    server
        .http("POST", "/test/jwt-websocket", &[], "")
        .expect(405);
    server.http("GET", "/ws", &[], "").expect(426);
}

#[test]
fn a_full_store_refuses_writes_and_answers_reads() {
    let server = Server::start(&[
        ("limits.store_bytes", "2MiB"),
        ("channels.live.subscribe", "any"),
        ("channels.live.history", "0"),
    ]);
    let mut stored = 0;
    for bytes in [30_000, 1_000, 1] {
        let message = "x".repeat(bytes);
        let body = json!({"userId": "u1", "type": "t", "title": "t", "message": message});
        let refused = loop {
            let reply = server.as_backend("POST", "/api/user/notifications", &body);
            if reply.status != 201 {
                break reply;
            }
            stored += 1;
            assert!(stored < 1_000, "the store is never full");
        };
        assert_eq!(refused.expect(507).json()["code"], "store_full");
    }
    let listed = server.as_user("u1", "GET", "/api/user/notifications", &Value::Null);
    let listed = listed.expect(200).json();
    assert_eq!(listed["unreadCount"], stored);

    // Nothing that has to be kept is taken; what passes through, and what somebody does with what there
    // is, reaches who is there.
    let mut user = server.connect("u1");
    user.subscribe("notifications");
    user.next_of("unread_notifications");
    user.subscribe("live_1");
    user.subscribe("post_1");
    let event = json!({"type": "tick", "text": "x".repeat(1_000)});
    let kept = json!({"channel": "post_1", "event": event});
    let refused = server.as_backend("POST", "/api/publish", &kept);
    assert_eq!(refused.expect(507).json()["code"], "store_full");
    server.publish("live_1", event);
    assert_eq!(user.next()["_meta"]["channel"], "live_1");
    for n in 0..30 {
        let id = &listed["notifications"][n % 20]["id"];
        let mark = json!({"notificationId": id, "isRead": n < 20});
        server
            .as_user("u1", "PATCH", "/api/user/notifications", &mark)
            .expect(200);
        let told = user.next_of("notification_read");
        assert_eq!(told["notificationId"], *id);
    }
    assert!(!server.output().contains("not told"), "{}", server.output());
}

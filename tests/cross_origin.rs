//! Pages of other hosts: which may use the API, and what browsers are told about our own answers.

#![allow(clippy::unwrap_used)] // clippy knows the tests, not what they share

mod support;

use serde_json::json;
use support::{Reply, Server};

const WALLET: &str = "/api/auth/wallet";
const NOTIFICATIONS: &str = "/api/user/notifications";
const FRIEND: &str = "https://app.example";
const STRANGER: &str = "https://evil.example";

fn preflight(server: &Server, path: &str, origin: &str, method: &str) -> Reply {
    let headers = [
        ("Origin", origin),
        ("Access-Control-Request-Method", method),
        (
            "Access-Control-Request-Headers",
            "authorization,content-type",
        ),
    ];
    server.http("OPTIONS", path, &headers, "")
}

/// All values of a header that may come several times, in lower case.
fn values(reply: &Reply, name: &str) -> String {
    let mut all = Vec::new();
    for (found, value) in &reply.headers {
        if found.eq_ignore_ascii_case(name) {
            all.push(value.to_lowercase());
        }
    }
    all.join(", ")
}

#[track_caller]
fn is_shared_with(reply: &Reply, origin: Option<&str>) {
    assert_eq!(reply.header("access-control-allow-origin"), origin);
    // A token is shown by the page; nothing that the browser keeps is ever of use.
    assert_eq!(reply.header("access-control-allow-credentials"), None);
}

#[test]
fn a_page_of_a_listed_origin_may_use_the_whole_api() {
    let server = Server::start(&[("server.allowed_origins", FRIEND)]);
    for (path, methods) in [
        (WALLET, ["GET", "POST"].as_slice()),
        (NOTIFICATIONS, &["GET", "POST", "PATCH", "PUT", "DELETE"]),
        ("/api/user/notifications/n1/read", &["PUT"]),
        ("/api/user/notifications/clear", &["DELETE"]),
    ] {
        for method in methods {
            let reply = preflight(&server, path, FRIEND, method).expect(204);
            is_shared_with(&reply, Some(FRIEND));
            let allowed = values(&reply, "access-control-allow-methods");
            assert!(
                allowed.contains(&method.to_lowercase()),
                "{path}: {allowed}"
            );
            let headers = values(&reply, "access-control-allow-headers");
            for header in [
                "authorization",
                "content-type",
                "idempotency-key",
                "traceparent",
                "x-user-wallet",
            ] {
                assert!(headers.contains(header), "{headers}");
            }
            assert!(!headers.contains("x-api-key"), "{headers}");
            assert!(reply.header("access-control-max-age").is_some());
            assert!(values(&reply, "vary").contains("origin"));
            assert!(reply.body.is_empty());
        }
    }
    let bearer = format!("Bearer {}", server.token("u1"));
    let page = [("Origin", FRIEND), ("Authorization", bearer.as_str())];
    let reply = server.http("GET", NOTIFICATIONS, &page, "").expect(200);
    is_shared_with(&reply, Some(FRIEND));
    // Also a refusal, so that the page learns what is wrong and when to come again.
    let reply = server.http("GET", NOTIFICATIONS, &[("Origin", FRIEND)], "");
    is_shared_with(&reply, Some(FRIEND));
    assert!(values(&reply, "access-control-expose-headers").contains("retry-after"));
    assert_eq!(reply.expect(401).json()["code"], "authentication_required");
    is_shared_with(
        &server.http("GET", "/nowhere", &[("Origin", FRIEND)], ""),
        Some(FRIEND),
    );
    let asked = [("Origin", FRIEND), ("Content-Type", "application/json")];
    let reply = server.http("POST", WALLET, &asked, "{");
    is_shared_with(&reply.expect(400), Some(FRIEND));
}

#[test]
fn other_pages_are_told_nothing() {
    let server = Server::start(&[("server.allowed_origins", FRIEND)]);
    let bearer = format!("Bearer {}", server.token("u1"));
    for origin in [
        STRANGER,
        "null",
        "https://app.example.evil.example",
        "http://app.example",
        "x",
    ] {
        let reply = preflight(&server, NOTIFICATIONS, origin, "DELETE").expect(204);
        is_shared_with(&reply, None);
        assert!(values(&reply, "vary").contains("origin"));
        let page = [("Origin", origin), ("Authorization", bearer.as_str())];
        let reply = server.http("GET", NOTIFICATIONS, &page, "");
        is_shared_with(&reply, None);
        assert!(values(&reply, "vary").contains("origin"));
    }
    // Without an origin nothing is said but that the answer depends on it.
    let reply = server.http("GET", "/health", &[], "").expect(200);
    is_shared_with(&reply, None);
    assert!(values(&reply, "vary").contains("origin"));
    let reply = server.http("OPTIONS", WALLET, &[], "").expect(204);
    assert_eq!(reply.header("allow"), Some("GET, POST, HEAD, OPTIONS"));
    assert_eq!(reply.header("access-control-allow-methods"), None);
}

#[test]
fn pages_of_the_same_host_need_no_list_and_a_star_is_for_all() {
    let server = Server::start(&[]);
    let own = format!("http://{}", server.addr());
    is_shared_with(&preflight(&server, WALLET, &own, "POST"), Some(&own));
    is_shared_with(&preflight(&server, WALLET, FRIEND, "POST"), None);

    let open = Server::start(&[("server.allowed_origins", "*")]);
    is_shared_with(&preflight(&open, WALLET, STRANGER, "POST"), Some("*"));
    let reply = open.http("GET", "/health", &[("Origin", STRANGER)], "");
    is_shared_with(&reply, Some("*"));
}

#[test]
fn a_page_that_asks_too_often_learns_when_to_come_again() {
    let server = Server::start(&[
        ("server.allowed_origins", FRIEND),
        ("limits.requests_per_second", "1"),
    ]);
    let limited = (0..20)
        .map(|_| server.http("GET", WALLET, &[("Origin", FRIEND)], ""))
        .find(|reply| reply.status == 429)
        .unwrap();
    is_shared_with(&limited, Some(FRIEND));
    assert_eq!(limited.header("retry-after"), Some("1"));
}

#[test]
fn every_answer_says_what_it_is_and_none_sets_a_cookie() {
    let server = Server::start(&[("server.test_page", "true")]);
    let wallet = support::Dice::from_environment().wallet();
    let mut replies = vec![
        server
            .json("POST", WALLET, &[], &json!({"wallet": wallet}))
            .expect(200),
        server
            .as_user("u1", "GET", WALLET, &json!(null))
            .expect(200),
        server
            .as_user("u1", "GET", NOTIFICATIONS, &json!(null))
            .expect(200),
        server
            .http("GET", "/.well-known/jwks.json", &[], "")
            .expect(200),
        server.http("GET", "/openapi.json", &[], "").expect(200),
        server.http("GET", "/nowhere", &[], "").expect(404),
        server.http("GET", WALLET, &[], "").expect(401),
        server.http("GET", "/ws", &[], "").expect(426),
    ];
    for reply in &replies {
        let policy = reply.header("content-security-policy").unwrap();
        assert_eq!(policy, "default-src 'none'; frame-ancestors 'none'");
    }
    for path in [
        "/test/jwt-websocket",
        "/test/jwt-websocket.js",
        "/test/jwt-websocket.css",
    ] {
        let page = server.http("GET", path, &[], "").expect(200);
        let policy = page.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'; "), "{policy}");
        for loose in [
            "unsafe-inline",
            "unsafe-eval",
            "http:",
            "https:",
            "data:",
            "*",
        ] {
            assert!(!policy.contains(loose), "{policy}");
        }
        for part in [
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        ] {
            assert!(policy.contains(part), "{policy}");
        }
        assert_eq!(page.header("x-frame-options"), Some("DENY"));
        assert_eq!(page.header("referrer-policy"), Some("no-referrer"));
        assert_eq!(
            page.header("cross-origin-opener-policy"),
            Some("same-origin")
        );
        assert_eq!(
            page.header("cross-origin-resource-policy"),
            Some("same-origin")
        );
        assert!(page.header("permissions-policy").is_some());
        replies.push(page);
    }
    for reply in &replies {
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(reply.header("set-cookie"), None);
        assert!(reply.header("server").is_none() && reply.header("x-powered-by").is_none());
    }
    // A cookie is no identity either.
    let cookie = format!("token={}", server.token("u1"));
    server
        .http("GET", WALLET, &[("Cookie", &cookie)], "")
        .expect(401);
}

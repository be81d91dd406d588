//! Limits of who comes in and how often, as those see them who meet one. Contract section 6; those of
//! sockets alone are in `sockets_limits`.

#![allow(clippy::unwrap_used)] // clippy knows the tests, not what they share

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use support::{Client, Dice, Reply, Server, eventually};

const WALLET: &str = "/api/auth/wallet";

/// The counts of a metric by its label `limit`.
fn counted(server: &Server, metric: &str) -> BTreeMap<String, u64> {
    let metrics = server.metrics("/metrics").expect(200);
    let start = format!("fanfare_{metric}{{limit=\"");
    let lines = metrics.text().lines();
    let found = lines.filter_map(|line| {
        let (limit, count) = line.strip_prefix(&start)?.split_once("\"} ")?;
        Some((limit.to_owned(), count.parse().unwrap()))
    });
    found.collect()
}

#[track_caller]
fn seconds_to_wait(reply: &Reply) -> u64 {
    assert!(matches!(reply.status, 429 | 503), "{}", reply.status);
    assert!(reply.json()["error"].is_string() && reply.json()["code"].is_string());
    let seconds = reply.header("retry-after").unwrap().parse().unwrap();
    assert!(seconds >= 1);
    seconds
}

#[test]
fn requests_are_counted_by_address_and_not_those_of_backends() {
    let server = Server::start(&[("limits.requests_per_second", "2")]);
    let from = |address: &str| server.http("GET", WALLET, &[("X-Forwarded-For", address)], "");
    let replies: Vec<Reply> = (0..60).map(|_| from("203.0.113.1")).collect();
    let limited: Vec<&Reply> = replies.iter().filter(|reply| reply.status == 429).collect();
    // A second's worth at once, then the rate.
    assert!((10..=58).contains(&limited.len()), "{}", limited.len());
    for reply in limited {
        assert_eq!(seconds_to_wait(reply), 1);
    }
    assert_eq!(from("203.0.113.2").status, 401);
    for _ in 0..40 {
        let event = json!({"channel": "post_1", "event": {"type": "tick"}});
        let body = event.to_string();
        let headers = [
            ("X-Forwarded-For", "203.0.113.1"),
            ("X-API-Key", server.api_key()),
            ("Content-Type", "application/json"),
        ];
        server
            .http("POST", "/api/publish", &headers, body)
            .expect(200);
        let header = [("X-Forwarded-For", "203.0.113.1")];
        server.http("GET", "/health", &header, "").expect(200);
        server.http("GET", "/ready", &header, "").expect(200);
    }
    assert!(counted(&server, "limited_total")["requests_per_second"] >= 10);
    eventually("there is room again", Duration::from_secs(5), || {
        from("203.0.113.1").status == 401
    });
}

#[test]
fn sockets_with_bad_tokens_use_up_their_address_and_nobody_elses() {
    let server = Server::start(&[("limits.requests_per_second", "1")]);
    let open = |address: &str, token: &str| {
        server.connect_with(
            &format!("/ws?token={token}"),
            &[("X-Forwarded-For", address)],
        )
    };
    let statuses: Vec<Option<u16>> = (0..30).map(|_| open("203.0.113.1", "bad").err()).collect();
    assert_eq!(statuses[0], None, "{statuses:?}");
    assert!(
        statuses
            .iter()
            .filter(|status| **status == Some(429))
            .count()
            >= 10
    );
    // A good one from the same address has to wait a moment, one from elsewhere not.
    let good = server.token("u1");
    open("203.0.113.2", &good).unwrap().greeted();
    eventually("there is room again", Duration::from_secs(5), || {
        open("203.0.113.1", &good).is_ok()
    });
    // Good ones cost nothing.
    let held: Vec<Client> = (0..20)
        .map(|_| open("203.0.113.3", &good).unwrap())
        .collect();
    assert_eq!(held.len(), 20);
}

#[test]
fn sign_ins_that_fail_come_back_more_slowly() {
    let server = Server::start(&[
        ("limits.sign_in_per_minute", "3"),
        ("auth.wallet_proof", "signature"),
    ]);
    let wallet = Dice::from_environment().wallet();
    let from = |address: &str| {
        let headers = [("X-Forwarded-For", address)];
        server.json("POST", WALLET, &headers, &json!({"wallet": wallet}))
    };
    for _ in 0..3 {
        from("203.0.113.1").expect(401);
    }
    // One in twenty seconds is the rate of those that are right; one in eighty that of the others.
    assert!((60..=80).contains(&seconds_to_wait(&from("203.0.113.1"))));
    from("203.0.113.2").expect(401);
}

#[test]
fn a_dry_run_counts_and_logs_and_refuses_nobody() {
    let server = Server::start(&[
        ("limits.dry_run", "true"),
        ("limits.sign_in_per_minute", "1"),
        ("limits.requests_per_second", "1"),
        ("limits.accepts_per_second", "1"),
        ("limits.connections_per_address", "1"),
        ("limits.connections_per_user", "1"),
        ("limits.commands_per_second", "1"),
    ]);
    let wallet = Dice::from_environment().wallet();
    for _ in 0..10 {
        server
            .json("POST", WALLET, &[], &json!({"wallet": wallet}))
            .expect(200);
    }
    let mut held: Vec<Client> = (0..5).map(|_| server.connect("u1")).collect();
    for _ in 0..200 {
        held[0].send(&json!({"type": "ping"}));
        assert_eq!(held[0].next(), json!({"type": "pong"}));
    }
    let would = counted(&server, "would_limit_total");
    for (limit, least) in [
        ("sign_in_per_minute", 9),
        ("requests_per_second", 1),
        ("accepts_per_second", 1),
        ("connections_per_address", 4),
        ("connections_per_user", 4),
        ("commands_per_second", 100),
    ] {
        let count = would.get(limit).copied().unwrap_or(0);
        assert!(count >= least, "{limit}: {count}");
    }
    assert_eq!(counted(&server, "limited_total"), BTreeMap::new());
    let said = server.output();
    assert!(said.contains("limits.dry_run is on"), "{said}");
    assert!(said.contains("limits.sign_in_per_minute"), "{said}");
    // Still bounded by what there is room for.
    let refused: Value = server
        .as_user("u1", "POST", "/api/publish", &json!({}))
        .json();
    assert_eq!(refused["code"], "invalid_api_key");
}

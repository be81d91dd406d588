//! A ping every 25 seconds, and an end for who does not answer it. Contract section 4.
//!
//! In real time on purpose: what the pure session decides is tested elsewhere; this is the proof that
//! somebody wakes up for it.

#![allow(clippy::unwrap_used)] // clippy knows the tests, not what they share

mod support;

use std::time::{Duration, Instant};

use serde_json::json;
use support::{Server, eventually};

#[test]
#[allow(clippy::disallowed_methods, reason = "measures a process from outside")]
fn who_answers_pings_stays_and_who_does_not_is_dropped() {
    let server = Server::start(&[]);
    let start = Instant::now();
    let mut lively = server.connect("lively");
    let mut chatty = server.connect("chatty");
    // Nobody reads this one, so nobody answers its pings; the TCP connection is as good as any.
    let mut silent = server.connect("silent");
    for client in [&mut lively, &mut chatty, &mut silent] {
        client.subscribe("post_1");
    }
    assert!(!lively.tell().contains("Ping"));
    lively.quiet(22_000);
    assert!(
        !lively.tell().contains("Ping"),
        "too early{}",
        lively.tell()
    );
    lively.quiet(5_000);
    let pinged = start.elapsed();
    assert!(
        lively.tell().contains("Ping"),
        "not after {pinged:?}{}",
        lively.tell()
    );
    chatty.quiet(100);
    assert_eq!(server.stats()["activeConnections"], 3);

    // From here on one sends commands, which are no pongs, but it reads, too.
    while start.elapsed() < Duration::from_secs(47) {
        chatty.send(&json!({"type": "ping"}));
        assert_eq!(chatty.next()["type"], "pong");
        lively.quiet(500);
    }
    assert_eq!(server.stats()["activeConnections"], 3);
    lively.quiet(3_000);
    chatty.quiet(100);
    eventually("the silent one is dropped", Duration::from_secs(6), || {
        server.stats()["activeConnections"] == 2
    });
    let dropped = start.elapsed();
    println!("dropped after {dropped:?}");
    assert!(dropped < Duration::from_secs(56), "{dropped:?}");
    let log = server.event_log();
    let ends: Vec<_> = log
        .iter()
        .filter(|line| line["type"] == "disconnect")
        .collect();
    assert_eq!(ends.len(), 1);
    assert_eq!(ends[0]["data"]["userId"], "silent");
    assert_eq!(ends[0]["data"]["reason"], "no pong");

    server.publish("post_1", json!({"type": "tick"}));
    for client in [&mut lively, &mut chatty] {
        assert_eq!(client.next()["type"], "tick");
    }
}

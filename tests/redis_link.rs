//! A Redis that goes away and comes back: what is answered meanwhile, and what subscribers get after.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "clippy knows the tests, not what they share; how long an answer took is what is tried"
)]

mod support;

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::redis::{RedisServer, Topology, on_every_redis};
use support::{Client, Server, eventually};

on_every_redis! {
    a_connection_that_is_closed_is_made_again_without_loss
}

/// For a node to find its Redis again.
const PATIENCE: Duration = Duration::from_secs(30);

fn node(url: &str) -> Server {
    Server::start(&[
        ("broker.backend", "redis"),
        ("broker.redis.url", url),
        ("channels.live.subscribe", "any"),
        ("channels.live.history", "0"),
    ])
}

fn ready(server: &Server) -> u16 {
    server.http("GET", "/ready", &[], "").status
}

/// Publishing, and everything else that needs Redis, is refused at once.
#[track_caller]
fn refuses(server: &Server) {
    let event = json!({"channel": "post_1", "event": {"type": "tick"}});
    let note = json!({"userId": "u", "type": "t", "title": "t", "message": "m"});
    for (path, body) in [("/api/publish", &event), ("/api/user/notifications", &note)] {
        let began = Instant::now();
        let answer = server.as_backend("POST", path, body).expect(503);
        assert!(answer.header("retry-after").is_some());
        let took = began.elapsed();
        assert!(took < Duration::from_secs(2), "{path} took {took:?}");
    }
}

#[track_caller]
fn is_open(client: &mut Client) {
    client.send(&json!({"type": "ping"}));
    client.next_of("pong");
}

#[track_caller]
fn gets(client: &mut Client, numbers: std::ops::RangeInclusive<u64>) {
    for n in numbers {
        let event = client.next_of("tick");
        assert_eq!(
            (&event["n"], &event["_meta"]["offset"]),
            (&json!(n), &json!(n))
        );
    }
}

fn tick(server: &Server, n: u64) -> Value {
    server.publish("post_1", json!({"type": "tick", "n": n}))
}

/// Drops every packet between one address of the Redis and whoever talks to it there.
struct Cut(Vec<Vec<String>>);

impl Cut {
    #[track_caller]
    fn off(host: &str, port: u16) -> Self {
        let port = port.to_string();
        let ends = [("-d", "--dport"), ("-s", "--sport")];
        let rule = |(host_flag, port_flag): (&str, &str)| -> Vec<String> {
            [
                "OUTPUT", "-o", "lo", "-p", "tcp", host_flag, host, port_flag, &port, "-j", "DROP",
            ]
            .map(str::to_owned)
            .into()
        };
        let cut = Self(ends.map(rule).into());
        for rule in &cut.0 {
            let done = Command::new("iptables")
                .arg("-w")
                .arg("-I")
                .args(rule)
                .status();
            let done = done.expect("iptables drops packets; tests/run installs it");
            assert!(done.success(), "iptables needs root");
        }
        cut
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        for rule in &self.0 {
            let _ = Command::new("iptables")
                .arg("-w")
                .arg("-D")
                .args(rule)
                .status();
        }
    }
}

#[test]
fn a_node_that_is_cut_off_notices_and_catches_up() {
    let redis = RedisServer::start(&[("bind", "127.0.0.1 127.0.0.3")]);
    let away = format!("127.0.0.3:{}", redis.port());
    let (cut_off, other) = (node(&format!("redis://{away}")), node(&redis.url()));
    let mut follower = cut_off.connect("u1");
    follower.subscribe("post_1");
    follower.subscribe("post_2");
    let mut listener = cut_off.connect("u2");
    listener.subscribe("live_1");
    let mut revoked = cut_off.connect("u3");
    tick(&other, 1);
    gets(&mut follower, 1..=1);

    let cut = Cut::off("127.0.0.3", redis.port());
    let began = Instant::now();
    eventually("it is noticed", Duration::from_secs(10), || {
        ready(&cut_off) == 503
    });
    refuses(&cut_off);
    for n in 2..=6 {
        tick(&other, n);
    }
    let whom = json!({"userId": "u3"});
    let revoking = other.as_backend("POST", "/api/auth/revoke", &whom);
    revoking.expect(200);
    std::thread::sleep(Duration::from_secs(30).saturating_sub(began.elapsed()));
    is_open(&mut follower);
    is_open(&mut listener);
    is_open(&mut revoked);
    tick(&other, 7);
    drop(cut);
    eventually("it is back", PATIENCE, || ready(&cut_off) == 200);
    follower.set_patience(PATIENCE);
    gets(&mut follower, 2..=7);
    tick(&cut_off, 8);
    gets(&mut follower, 8..=8);
    // It has not heard of it, and reads it.
    revoked.set_patience(PATIENCE);
    assert_eq!(revoked.expect_close().0, 4300);
    // What was published without history nobody knows any more.
    listener.set_patience(PATIENCE);
    assert_eq!(listener.expect_close(), (4103, "resync".into()));
    assert_eq!(follower.subscribe("post_2")["data"]["offset"], 0);
}

#[test]
fn a_redis_that_is_killed_ends_the_epochs_and_keeps_the_events() {
    let mut redis = RedisServer::start(&[("appendfsync", "always")]);
    let server = node(&redis.url());
    let mut client = server.connect("u1");
    client.subscribe("post_1");
    let epoch = tick(&server, 1)["epoch"].clone();
    gets(&mut client, 1..=1);
    let note = server.notify("u1", "kept");

    redis.kill();
    eventually("it is noticed", Duration::from_secs(10), || {
        ready(&server) == 503
    });
    refuses(&server);
    is_open(&mut client);
    client.send(&json!({"type": "subscribe", "channel": "post_9"}));
    assert_eq!(client.next_of("error")["data"]["code"], "unavailable");
    redis.restart();
    eventually("it is back", PATIENCE, || ready(&server) == 200);
    client.set_patience(PATIENCE);
    assert_eq!(client.expect_close(), (4103, "resync".into()));

    let mut client = server.connect("u1");
    client.send(&json!({"type": "subscribe", "channel": "post_1",
        "recover": {"epoch": epoch, "offset": 1}}));
    let told = client.next_of("subscribed")["data"].clone();
    assert_eq!(
        (&told["recovered"], &told["reason"]),
        (&json!(false), &json!("epoch_changed"))
    );
    let after = tick(&server, 2);
    assert_eq!(after["offset"], 2);
    assert_ne!(after["epoch"], epoch);
    gets(&mut client, 2..=2);
    client.send(&json!({"type": "history", "channel": "post_1"}));
    assert_eq!(
        client.next_of("history")["data"]["events"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    let notes = server.as_user("u1", "GET", "/api/user/notifications", &Value::Null);
    assert_eq!(notes.expect(200).json()["notifications"], json!([note]));
}

fn a_connection_that_is_closed_is_made_again_without_loss(on: Topology) {
    let redis = on.start();
    let (server, other) = (
        Server::start(&redis.settings()),
        Server::start(&redis.settings()),
    );
    let mut client = server.connect("u1");
    client.subscribe("post_1");
    client.set_patience(PATIENCE);
    let mut n = 0;
    for kind in ["pubsub", "normal", "pubsub"] {
        for one in redis.servers() {
            one.command(&["CLIENT", "KILL", "TYPE", kind]);
        }
        for _ in 0..5 {
            n += 1;
            // The other node has lost its connection as well, and finds it again.
            let event = json!({"channel": "post_1", "event": {"type": "tick", "n": n}});
            eventually("it publishes again", PATIENCE, || {
                other.as_backend("POST", "/api/publish", &event).status == 200
            });
        }
        gets(&mut client, n - 4..=n);
    }
}

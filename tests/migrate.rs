//! `fanfare migrate`: from the embedded backend to Redis and back, without anybody noticing.

#![allow(clippy::unwrap_used)] // clippy knows the tests, not what they share

#[path = "migrate/interrupted.rs"]
mod interrupted;
#[path = "migrate/order.rs"]
mod order;
mod support;
#[path = "migrate/told.rs"]
mod told;
#[path = "migrate/ways.rs"]
mod ways;

use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};
use support::redis::RedisServer;
use support::{Client, Server};
use told::{challenge, has_all, notes, refresh, tell};

const REFUSED: i32 = 4;

fn server(url: &str) -> Server {
    server_with(&[("broker.redis.url", url)])
}

/// One that knows both sides, and starts on the embedded one.
fn server_with(settings: &[(&str, &str)]) -> Server {
    let common = [
        ("broker.backend", "embedded"),
        ("auth.wallet_proof", "signature"),
        ("auth.refresh_grace", "1h"),
        ("server.public_url", "https://fonana.me"),
        ("channels.chat.subscribe", "any"),
        ("channels.chat.history", "1000"),
    ];
    Server::start(&[&common, settings].concat())
}

fn migrate(server: &Server, more: &[&str]) -> Output {
    server.run(&[&["migrate", "--json"], more].concat())
}

#[track_caller]
fn report(output: &Output) -> Value {
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{:?}: {told}", output.status);
    serde_json::from_slice(&output.stdout).unwrap()
}

#[track_caller]
fn is_refused(output: &Output, code: i32, why: &str) {
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{told}");
    assert!(told.contains(why), "{told}");
}

/// Takes everything of a server that was stopped to the other backend, and starts it there.
#[track_caller]
fn move_to(server: &mut Server, backend: &str, more: &[&str]) -> Value {
    let report = report(&migrate(server, &[&["--to", backend], more].concat()));
    server.set("broker.backend", backend);
    server.restart();
    report
}

fn recover(client: &mut Client, channel: &str, epoch: &Value, offset: u64) -> Value {
    client.send(&json!({"type": "subscribe", "channel": channel,
        "recover": {"epoch": epoch, "offset": offset}}));
    client.next_of("subscribed")["data"].clone()
}

/// Recovers, and gets exactly the events of these numbers.
#[track_caller]
fn gets(server: &Server, channel: &str, epoch: &Value, offset: u64, numbers: &[u64]) -> Value {
    let mut client = server.connect("u1");
    let subscribed = recover(&mut client, channel, epoch, offset);
    assert_eq!(subscribed["recovered"], true, "{channel}: {subscribed}");
    for n in numbers {
        assert_eq!(client.next()["n"], *n, "{channel}: {}", client.tell());
    }
    client.send(&json!({"type": "ping"}));
    assert_eq!(client.next()["type"], "pong", "{}", client.tell());
    subscribed["epoch"].clone()
}

fn publish(server: &Server, channel: &str, numbers: std::ops::RangeInclusive<u64>) -> Value {
    let mut last = Value::Null;
    for n in numbers {
        last = server.publish(channel, json!({"type": "tick", "n": n}));
    }
    last["epoch"].clone()
}

#[test]
fn clients_go_on_as_after_any_restart() {
    let redis = RedisServer::start(&[]);
    let mut server = server(&redis.url());
    let told = tell(&server);

    server.terminate();
    let moved = move_to(&mut server, "redis", &[]);
    assert_eq!(moved["resumed"], false);
    for kind in [
        "users",
        "notifications",
        "channels",
        "events",
        "revocations",
        "sign-ins",
    ] {
        let row = &moved["compared"]["rows"][kind];
        assert!(row["source"].as_u64() > Some(0), "{kind}: {moved}");
        assert_eq!(row["source"], row["target"]);
        assert_eq!(row["sourceDigest"], row["targetDigest"]);
    }
    has_all(&server, &told);
    gets(&server, "chat_{1}", &told.chat, 5, &[6, 7, 8, 9]);
    assert_eq!(publish(&server, "chat_{1}", 10..=11), told.chat);
    gets(&server, "chat_{1}", &told.chat, 9, &[10, 11]);
    // A channel that had no event: its epoch was that of all such channels.
    let quiet = gets(&server, "chat_quiet", &told.quiet, 0, &[]);
    assert_ne!(quiet, told.quiet);
    publish(&server, "chat_quiet", 1..=2);
    assert_eq!(gets(&server, "chat_quiet", &told.quiet, 0, &[1, 2]), quiet);
    gets(&server, "chat_quiet", &quiet, 1, &[2]);
    let signed_in = server.json("POST", "/api/auth/wallet", &[], &told.challenge);
    assert_eq!(
        signed_in.expect(200).json()["user"]["id"],
        told.signed_in["user"]["id"]
    );
    let open = challenge(&server, &told.wallet);
    let silent = server.connect("u1").subscribe("chat_silent")["data"]["epoch"].clone();

    // And back. What is there is not written over.
    server.terminate();
    is_refused(
        &migrate(&server, &["--to", "embedded"]),
        REFUSED,
        "--replace",
    );
    let moved = move_to(&mut server, "embedded", &["--replace"]);
    let aside = Path::new(moved["aside"].as_str().unwrap());
    let aside = server.data_dir().join(aside.file_name().unwrap());
    assert!(aside.exists(), "{moved}");
    has_all(&server, &told);
    gets(&server, "chat_{1}", &told.chat, 9, &[10, 11]);
    gets(&server, "chat_quiet", &quiet, 1, &[2]);
    assert_eq!(gets(&server, "chat_silent", &silent, 0, &[]), silent);
    assert_eq!(publish(&server, "chat_silent", 1..=1), silent);
    let signed_in = server.json("POST", "/api/auth/wallet", &[], &open);
    assert_eq!(
        signed_in.expect(200).json()["user"]["id"],
        told.signed_in["user"]["id"]
    );
    // The successor goes on from here.
    refresh(&server, &told.refreshed["refreshToken"]).expect(200);

    // Redis was left: whoever goes back to it begins new epochs.
    server.terminate();
    server.set("broker.backend", "redis");
    server.restart();
    let mut client = server.connect("u1");
    let subscribed = recover(&mut client, "chat_{1}", &told.chat, 9);
    assert_eq!(subscribed["recovered"], false, "{subscribed}");
    assert_eq!(subscribed["reason"], "epoch_changed");
}

#[test]
fn nothing_is_begun_on_what_is_in_use_or_not_empty() {
    let redis = RedisServer::start(&[]);
    let mut server = server(&redis.url());
    server.publish("chat_1", json!({"type": "tick"}));
    is_refused(
        &migrate(&server, &["--to", "redis"]),
        REFUSED,
        "in use by a running server",
    );
    is_refused(
        &migrate(&server, &["--to", "embedded"]),
        REFUSED,
        "nothing of ours",
    );
    server.terminate();
    redis.command(&["HSET", "ws:{post_1}:m", "e", "x"]);
    is_refused(&migrate(&server, &["--to", "redis"]), REFUSED, "not empty");
    redis.command(&["DEL", "ws:{post_1}:m"]);
    let other = "FLUSHALL is not ours to say";
    redis.command(&["SET", "other:key", other]);

    server.set("broker.backend", "redis");
    server.restart();
    server.notify("u1", "hello");
    is_refused(
        &migrate(&server, &["--to", "redis"]),
        REFUSED,
        "a running server is connected",
    );
    let replacing = ["--to", "embedded", "--replace"];
    is_refused(
        &migrate(&server, &replacing),
        REFUSED,
        "a running server is connected",
    );
    server.kill();
    let (url, nobody) = (redis.url(), "redis://127.0.0.1:1");
    server.set("broker.redis.url", nobody);
    is_refused(
        &migrate(&server, &["--to", "embedded"]),
        69,
        "cannot reach Redis",
    );
    server.set("broker.redis.url", &url);
    is_refused(
        &migrate(&server, &["--to", "redis", "--replace"]),
        REFUSED,
        "--replace is for",
    );
    is_refused(&migrate(&server, &["--to", "disk"]), 2, "possible values");
    // Nothing of all that has changed anything.
    assert!(redis.command(&["GET", "other:key"]).contains(other));
    server.restart();
    assert_eq!(notes(&server, "u1")["unreadCount"], 1);
    server.terminate();
    server.set("broker.backend", "embedded");
    server.restart();
    assert_eq!(
        server.publish("chat_1", json!({"type": "tick"}))["offset"],
        2
    );
}

//! Every kind of Redis, and every way to it.

use serde_json::{Value, json};

use crate::support::Server;
use crate::support::redis::{Cluster, RedisServer, Secured, Sentinels, Topology, on_every_redis};
use crate::told::{Told, has_all, tell};
use crate::{REFUSED, gets, is_refused, migrate, move_to, publish, report, server, server_with};

on_every_redis! {
    all_goes_there_and_back
    there_and_back_is_the_same
}

fn all_goes_there_and_back(on: Topology) {
    let redis = on.shared();
    goes_there_and_back(&redis.settings()[1..]);
}

/// Servers serve on both sides in between, and know everything.
#[track_caller]
fn goes_there_and_back(settings: &[(&str, &str)]) {
    let mut server = server_with(settings);
    let told = tell(&server);
    server.terminate();
    move_to(&mut server, "redis", &[]);
    let quiet = goes_on(&server, &told, &told.quiet, &[6, 7, 8, 9]);
    publish(&server, "chat_{1}", 10..=11);
    is_refused(
        &migrate(&server, &["--to", "embedded", "--replace"]),
        REFUSED,
        "a running server is connected",
    );
    server.terminate();
    move_to(&mut server, "embedded", &["--replace"]);
    goes_on(&server, &told, &quiet, &[6, 7, 8, 9, 10, 11]);
    server.terminate();
    let checked = server.run(&["store", "check"]);
    let told = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(told.contains("nothing wrong"), "{told}");
}

/// The epoch that the channel without events has now.
#[track_caller]
fn goes_on(server: &Server, told: &Told, quiet: &Value, missed: &[u64]) -> Value {
    has_all(server, told);
    gets(server, "chat_{1}", &told.chat, 5, missed);
    gets(server, "chat_quiet", quiet, 0, &[])
}

fn there_and_back_is_the_same(on: Topology) {
    let redis = on.shared();
    let mut server = server_with(&redis.settings()[1..]);
    tell(&server);
    publish(&server, "post_1", 1..=3);
    server.terminate();
    let there = report(&migrate(&server, &["--to", "redis"]));
    let back = report(&migrate(&server, &["--to", "embedded", "--replace"]));
    let rows = |report: &Value| report["compared"]["rows"].clone();
    assert_eq!(rows(&there), rows(&back));
    assert!(there["copied"].as_u64() > Some(25), "{there}");
    server.restart();
}

#[test]
fn over_tls_as_an_acl_user() {
    let redis = Secured::start();
    let settings = redis.settings();
    let settings = settings
        .each_ref()
        .map(|(key, value)| (*key, value.as_str()));
    goes_there_and_back(&settings);
}

#[test]
fn with_pubsub_on_another_one() {
    let (data, pubsub) = (RedisServer::start(&[]), RedisServer::start(&[]));
    let (url, pubsub_url) = (data.url(), pubsub.url());
    goes_there_and_back(&[
        ("broker.redis.url", &url),
        ("broker.redis.pubsub_url", &pubsub_url),
    ]);
    assert_eq!(pubsub.command(&["DBSIZE"]), ":0\r\n");
}

#[test]
fn what_replicas_are_waited_for_survives_the_master() {
    let mut redis = Sentinels::start();
    let url = redis.url();
    let mut server = server_with(&[
        ("broker.redis.url", &url),
        ("broker.redis.wait_replicas", "1"),
        ("broker.redis.wait_timeout", "2s"),
    ]);
    let told = tell(&server);
    server.terminate();
    redis.servers[1].freeze();
    let without = migrate(&server, &["--to", "redis"]);
    is_refused(&without, 1, "broker.redis.wait_replicas asks for");
    server.set("broker.backend", "redis");
    is_refused(&server.run(&["serve"]), 1, "fanfare migrate --to redis");
    redis.servers[1].thaw();
    let moved = report(&migrate(&server, &["--to", "redis"]));
    assert_eq!(moved["resumed"], true);
    redis.servers[0].kill();
    // Nobody follows the one that is left.
    server.set("broker.redis.wait_replicas", "0");
    server.restart();
    has_all(&server, &told);
    // What was in the master alone may have been lost: it is another epoch.
    let mut client = server.connect("u1");
    let subscribed = crate::recover(&mut client, "chat_{1}", &told.chat, 5);
    assert_eq!(subscribed["reason"], "epoch_changed", "{subscribed}");
    client.send(&json!({"type": "history", "channel": "chat_{1}"}));
    let kept = client.next_of("history")["data"]["events"].clone();
    assert_eq!(kept.as_array().unwrap().len(), 9, "{kept}");
}

/// What an earlier run wrote is waited for as well, at servers that this one writes nothing to.
#[test]
fn what_goes_on_waits_for_the_replicas_of_all() {
    let cluster = Cluster::with_replicas(1);
    let url = cluster.url();
    let mut server = server_with(&[
        ("broker.redis.url", &url),
        ("broker.redis.wait_replicas", "1"),
        ("broker.redis.wait_timeout", "2s"),
    ]);
    tell(&server);
    server.terminate();
    let marked = cluster.nodes[..3].iter().position(|node| {
        let answer = node.command(&["EXISTS", "ws:{!migration}:t"]);
        !answer.starts_with("-MOVED")
    });
    let replica = &cluster.nodes[3 + (marked.unwrap() + 1) % 3];
    replica.freeze();
    for _ in 0..2 {
        let without = migrate(&server, &["--to", "redis"]);
        is_refused(&without, 1, "broker.redis.wait_replicas asks for");
    }
    replica.thaw();
    cluster.agree();
    let moved = report(&migrate(&server, &["--to", "redis"]));
    assert_eq!(moved["resumed"], true);
}

#[test]
fn it_says_what_may_throw_things_away() {
    let redis = RedisServer::start(&[("maxmemory", "512mb"), ("maxmemory-policy", "volatile-lru")]);
    let mut server = server(&redis.url());
    let told = tell(&server);
    server.terminate();
    let output = migrate(&server, &["--to", "redis"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let sentence = "maxmemory-policy volatile-lru lets Redis throw away what is remembered";
    assert!(said.contains(sentence), "{said}");
    assert!(said.contains(&redis.address().to_string()), "{said}");
    let moved = report(&output);
    let warnings = moved["warnings"].as_array().unwrap();
    assert_eq!(warnings.len(), 1, "{moved}");
    assert!(warnings[0].as_str().unwrap().contains(sentence), "{moved}");
    server.set("broker.backend", "redis");
    server.restart();
    has_all(&server, &told);
    gets(&server, "chat_{1}", &told.chat, 5, &[6, 7, 8, 9]);
    // Whether this channel had an event that was thrown away nobody could tell: nothing is promised.
    let mut client = server.connect("u1");
    let subscribed = crate::recover(&mut client, "chat_quiet", &told.quiet, 0);
    assert_eq!(subscribed["recovered"], false, "{subscribed}");
    assert_eq!(subscribed["reason"], "epoch_changed");
}

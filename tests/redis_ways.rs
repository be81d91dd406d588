//! Ways to a Redis: over TLS as an ACL user, with pub/sub on another one, and waiting for replicas.

#![allow(clippy::unwrap_used)] // clippy knows the tests, not what they share

mod support;

use std::time::Duration;

use serde_json::json;
use support::redis::{RedisServer, Secured, Topology, on_every_redis, until};
use support::{Server, eventually};

on_every_redis! {
    with_pubsub_on_another_one
}

fn node(settings: &[(&str, &str)]) -> Server {
    Server::start(&[&[("broker.backend", "redis")], settings].concat())
}

/// Subscribes on one and publishes on the other, with and without history.
#[track_caller]
fn are_one(servers: &[Server]) {
    let mut client = servers[0].connect("u1");
    client.subscribe("post_1");
    client.subscribe("notifications");
    for n in 1..=50 {
        let publisher = &servers[n % servers.len()];
        let answer = publisher.publish("post_1", json!({"type": "tick", "n": n}));
        assert_eq!(answer["offset"], n);
        assert_eq!(client.next_of("tick")["n"], n);
    }
    servers[1].notify("u1", "hello");
    assert_eq!(client.next_of("notification")["unreadCount"], 1);
}

#[test]
fn over_tls_as_an_acl_user() {
    let redis = Secured::start();
    let settings = redis.settings();
    let settings = settings
        .each_ref()
        .map(|(key, value)| (*key, value.as_str()));
    let servers = [node(&settings), node(&settings)];
    are_one(&servers);
    for server in &servers {
        assert!(!server.output().contains("pass"), "{}", server.output());
    }
}

fn with_pubsub_on_another_one(on: Topology) {
    let (data, pubsub) = (on.start(), RedisServer::start(&[]));
    let pubsub_url = pubsub.url();
    let settings = [
        &data.settings()[..],
        &[("broker.redis.pubsub_url", pubsub_url.as_str())],
    ]
    .concat();
    let servers = [node(&settings), node(&settings), node(&settings)];
    are_one(&servers);
    for server in data.servers() {
        let heard = server.command(&["PUBSUB", "CHANNELS", &format!("{}*", data.prefix())]);
        assert_eq!(heard, "*0\r\n");
    }
    assert_eq!(pubsub.command(&["DBSIZE"]), ":0\r\n");
    // Publishers on all nodes at once: two round trips each, and still one order.
    let mut clients: Vec<_> = servers.iter().map(|server| server.connect("u2")).collect();
    for client in &mut clients {
        client.subscribe("post_2");
    }
    std::thread::scope(|scope| {
        for server in &servers {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..40 {
                        server.publish("post_2", json!({"type": "tick"}));
                    }
                });
            }
        }
    });
    for client in &mut clients {
        for offset in 1..=360 {
            assert_eq!(
                client.next_of("tick")["_meta"]["offset"],
                offset,
                "{}",
                client.tell()
            );
        }
    }
}

#[test]
fn a_write_that_no_replica_has_is_not_answered_with_success() {
    let master = RedisServer::start(&[]);
    let of_master = format!("127.0.0.1 {}", master.port());
    let replica = RedisServer::start(&[("replicaof", &of_master)]);
    until("the replica follows", || {
        replica.info("master_link_status") == "up"
    });
    let url = master.url();
    let server = node(&[
        ("broker.redis.url", &url),
        ("broker.redis.wait_replicas", "1"),
        ("broker.redis.wait_timeout", "500ms"),
        ("channels.fast.subscribe", "any"),
        ("channels.fast.durability", "relaxed"),
        ("channels.live.subscribe", "any"),
        ("channels.live.history", "0"),
    ]);
    let tick = |channel: &str| {
        let body = json!({"channel": channel, "event": {"type": "tick"}});
        server.as_backend("POST", "/api/publish", &body).status
    };
    let unreplicated = || -> u64 {
        let metrics = server.metrics("/metrics").expect(200).text().to_owned();
        let name = "fanfare_redis_unreplicated_writes_total ";
        let line = metrics.lines().find_map(|line| line.strip_prefix(name));
        line.map_or(0, |value| value.parse().unwrap())
    };
    // Its first acknowledgement may take longer than a write waits.
    eventually("the replica answers", Duration::from_secs(30), || {
        tick("post_1") == 200
    });
    let before = unreplicated();
    replica.freeze();
    assert_eq!(tick("post_1"), 503);
    assert_eq!(tick("fast_1"), 200);
    assert_eq!(unreplicated(), before + 1);
    replica.thaw();
    eventually("the replica has it", Duration::from_secs(30), || {
        tick("post_1") == 200
    });
    // What is repeated writes nothing new, and no replica has it any more than it had.
    let notes = "/api/user/notifications";
    let event = json!({"channel": "post_1", "event": {"type": "once"}});
    let live = json!({"channel": "live_1", "event": {"type": "once"}});
    let new = json!({"userId": "u1", "type": "like", "title": "once", "message": "m"});
    let read = json!({"notificationId": server.notify("u1", "hello")["id"], "isRead": true});
    let key = [("X-API-Key", server.api_key()), ("Idempotency-Key", "k")];
    let repeated: [&dyn Fn() -> u16; 4] = [
        &|| server.json("POST", "/api/publish", &key, &event).status,
        &|| server.json("POST", "/api/publish", &key, &live).status,
        &|| server.json("POST", notes, &key, &new).status,
        &|| server.as_user("u1", "PATCH", notes, &read).status,
    ];
    for (number, repeated) in repeated.iter().enumerate() {
        replica.freeze();
        for _ in 0..2 {
            assert_eq!(repeated(), 503, "{number}");
        }
        replica.thaw();
        eventually("the replica has it", Duration::from_secs(30), || {
            repeated() == 200
        });
    }
}

/// As with one Redis for both: it is kept and told, and the answer is 503 until replicas have it.
#[test]
fn what_no_replica_has_is_heard_all_the_same() {
    let (master, pubsub) = (RedisServer::start(&[]), RedisServer::start(&[]));
    let of_master = format!("127.0.0.1 {}", master.port());
    let replica = RedisServer::start(&[("replicaof", &of_master)]);
    until("the replica follows", || {
        replica.info("master_link_status") == "up"
    });
    let (url, pubsub_url) = (master.url(), pubsub.url());
    let server = node(&[
        ("broker.redis.url", &url),
        ("broker.redis.pubsub_url", &pubsub_url),
        ("broker.redis.wait_replicas", "1"),
        ("broker.redis.wait_timeout", "500ms"),
        ("channels.live.subscribe", "any"),
        ("channels.live.history", "0"),
    ]);
    let mut client = server.connect("u1");
    let key = [("X-API-Key", server.api_key()), ("Idempotency-Key", "k")];
    for channel in ["post_1", "live_1"] {
        client.subscribe(channel);
        let body = json!({"channel": channel, "event": {"type": "once"}});
        let publish = || server.json("POST", "/api/publish", &key, &body).status;
        replica.freeze();
        assert_eq!(publish(), 503);
        assert_eq!(client.next_of("once")["_meta"]["channel"], channel);
        replica.thaw();
        eventually("the replica has it", Duration::from_secs(30), || {
            publish() == 200
        });
        // It is not heard once more.
        client.send(&json!({"type": "ping"}));
        assert_eq!(client.next()["type"], "pong", "{}", client.tell());
    }
}

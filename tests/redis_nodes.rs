//! Several nodes on one Redis are one: what is done on one is seen on all.

#![allow(clippy::unwrap_used)] // clippy knows the tests, not what they share

mod support;

use std::io::{BufRead, BufReader, Lines, Write};
use std::net::TcpStream;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use support::redis::{Redis, RedisServer, Topology, on_every_redis};
use support::{Client, Server, eventually};

on_every_redis! {
    an_event_reaches_the_subscribers_of_every_node
    a_publication_is_one_round_trip_for_three_nodes_of_subscribers
    any_program_may_publish
    notifications_users_and_presence_are_shared
    disconnecting_reaches_every_node_and_counts_them_all
    every_node_has_the_order_of_the_stream
}

fn nodes(redis: &Redis, count: usize) -> Vec<Server> {
    let settings = [
        ("channels.chat.subscribe", "any"),
        ("channels.chat.publish", "any"),
        ("channels.chat.history", "10000"),
        ("channels.room.subscribe", "any"),
        ("channels.room.presence", "true"),
        ("channels.room.join_leave", "true"),
        ("channels.live.subscribe", "any"),
        ("channels.live.history", "0"),
    ];
    let settings = [&redis.settings()[..], &settings].concat();
    (0..count).map(|_| Server::start(&settings)).collect()
}

fn recover(client: &mut Client, channel: &str, epoch: &Value, offset: u64) -> Value {
    client.send(&json!({"type": "subscribe", "channel": channel,
        "recover": {"epoch": epoch, "offset": offset}}));
    client.next_of("subscribed")["data"].clone()
}

/// Waits for word of this user; one's own coming may be told before one is subscribed.
#[track_caller]
fn comes(client: &mut Client, user: &str) {
    while client.next_of("join")["data"]["userId"] != user {}
}

fn an_event_reaches_the_subscribers_of_every_node(on: Topology) {
    let redis = on.shared();
    let servers = nodes(&redis, 2);
    let mut clients: Vec<_> = servers.iter().map(|server| server.connect("u1")).collect();
    for client in &mut clients {
        client.subscribe("post_42");
        client.subscribe("live_1");
    }
    for (n, server) in servers.iter().enumerate() {
        let answer = server.publish("post_42", json!({"type": "tick", "n": n}));
        assert_eq!(answer["offset"], n + 1);
        server.publish("live_1", json!({"type": "tock", "n": n}));
        for client in &mut clients {
            let event = client.next_of("tick");
            assert_eq!(
                (&event["n"], &event["_meta"]["offset"]),
                (&json!(n), &json!(n + 1))
            );
            assert_eq!(event["_meta"]["epoch"], answer["epoch"]);
            assert_eq!(
                client.next_of("tock")["_meta"],
                json!({"channel": "live_1"})
            );
        }
    }
    // A client that comes back to the other node has missed nothing.
    let epoch = servers[0].publish("post_42", json!({"type": "tick", "n": 2}))["epoch"].clone();
    let mut client = servers[1].connect("u2");
    assert_eq!(
        recover(&mut client, "post_42", &epoch, 1)["recovered"],
        true
    );
    assert_eq!(client.next()["n"], 1);
    assert_eq!(client.next()["n"], 2);
}

fn a_publication_is_one_round_trip_for_three_nodes_of_subscribers(on: Topology) {
    const EVENTS: usize = 50;
    let redis = on.start();
    let servers = nodes(&redis, 3);
    let mut clients: Vec<_> = servers.iter().map(|server| server.connect("u1")).collect();
    for client in &mut clients {
        client.subscribe("post_42");
    }
    let monitors: Vec<_> = redis.servers().iter().map(monitor).collect();
    for n in 0..EVENTS {
        servers[0].publish("post_42", json!({"type": "tick", "n": n}));
        for client in &mut clients {
            assert_eq!(client.next_of("tick")["n"], n);
        }
    }
    // What the script itself does is no round trip; the rest is housekeeping, of the nodes and of sentinels.
    let notice = format!("\"{}!notice\"", redis.prefix());
    let own = [
        " lua] ",
        "\"PING\"",
        "\"INFO\"",
        "\"CLUSTER\" \"SLOTS\"",
        "\"__sentinel__:hello\"",
        &notice,
    ];
    let mut trips = Vec::new();
    for (server, seen) in redis.servers().iter().zip(monitors) {
        server.command(&["ECHO", "that is all"]);
        let seen = seen.map(Result::unwrap);
        let seen = seen.take_while(|line| !line.contains("that is all"));
        trips.extend(seen.filter(|line| !own.iter().any(|own| line.contains(own))));
    }
    assert_eq!(trips.len(), EVENTS, "{trips:#?}");
    assert!(
        trips.iter().all(|line| line.contains("EVALSHA")),
        "{trips:#?}"
    );
}

/// All commands that a server gets from now on.
fn monitor(server: &RedisServer) -> Lines<BufReader<TcpStream>> {
    let mut monitor = TcpStream::connect(server.address()).unwrap();
    monitor.write_all(b"MONITOR\r\n").unwrap();
    let mut seen = BufReader::new(monitor).lines();
    assert_eq!(seen.next().unwrap().unwrap(), "+OK");
    seen
}

fn any_program_may_publish(on: Topology) {
    let redis = on.shared();
    let servers = nodes(&redis, 2);
    let mut clients: Vec<_> = servers.iter().map(|server| server.connect("u1")).collect();
    for client in &mut clients {
        client.subscribe("post_42");
    }
    let line = format!("{}post_42", redis.prefix());
    for nonsense in [
        "",
        "hello",
        "{",
        "[]",
        "{\"a\":1}",
        "{\"type\":\"x\",\"_meta\":{}}",
        "@1:e:x",
    ] {
        redis.command(&["PUBLISH", &line, nonsense]);
    }
    let no_channel = format!("{}no channel", redis.prefix());
    redis.command(&["PUBLISH", &no_channel, "{\"type\":\"x\"}"]);
    // It is all the same which server of a cluster is told.
    for (n, one) in redis.servers().iter().enumerate() {
        let event = format!("{{\"type\":\"post_liked\",\"n\":{n}}}");
        one.command(&["PUBLISH", &line, &event]);
        for client in &mut clients {
            assert_eq!(
                client.next(),
                json!({"_meta": {"channel": "post_42"}, "type": "post_liked", "n": n})
            );
        }
    }
    for server in &servers {
        let metrics = server.metrics("/metrics").expect(200).text().to_owned();
        let dropped = "fanfare_redis_malformed_messages_total 7";
        assert!(metrics.contains(dropped), "{metrics}");
    }
}

fn notifications_users_and_presence_are_shared(on: Topology) {
    let redis = on.shared();
    let servers = nodes(&redis, 2);
    let [one, other] = servers.as_slice() else {
        unreachable!()
    };
    let mut socket = one.connect("u1");
    socket.subscribe("notifications");
    let note = other.notify("u1", "hello");
    let told = socket.next_of("notification");
    assert_eq!(
        (&told["notification"], &told["unreadCount"]),
        (&note, &json!(1))
    );
    let read = json!({"notificationId": note["id"], "isRead": true});
    other
        .as_user("u1", "PATCH", "/api/user/notifications", &read)
        .expect(200);
    assert_eq!(
        socket.next_of("notification_read")["notificationId"],
        note["id"]
    );
    let list = one.as_user("u1", "GET", "/api/user/notifications", &Value::Null);
    assert_eq!(list.expect(200).json()["notifications"][0]["isRead"], true);

    let wallet = "9xQeWvG816bUx9EPjHmaT23yvVM2ZWbrrpZb9PusVFin";
    let change = json!({"id": "app-7", "wallet": wallet, "nickname": "Seven"});
    one.as_backend("PUT", "/api/users", &change).expect(200);
    let signed_in = other.json("POST", "/api/auth/wallet", &[], &json!({"wallet": wallet}));
    assert_eq!(signed_in.expect(200).json()["user"]["id"], "app-7");

    let mut left = one.connect("ann");
    left.subscribe("room_1");
    let mut right = other.connect("bob");
    right.subscribe("room_1");
    comes(&mut left, "bob");
    for client in [&mut left, &mut right] {
        client.send(&json!({"type": "presence", "channel": "room_1"}));
        let present = client.next_of("presence")["data"].clone();
        assert_eq!(
            present,
            json!({"channelKey": "room_1", "users": ["ann", "bob"], "count": 2})
        );
    }
    drop(right);
    assert_eq!(left.next_of("leave")["data"]["userId"], "bob");
}

fn disconnecting_reaches_every_node_and_counts_them_all(on: Topology) {
    let redis = on.shared();
    let servers = nodes(&redis, 2);
    let mut clients: Vec<_> = servers.iter().map(|server| server.connect("ann")).collect();
    let mut stranger = servers[1].connect("bob");
    let disconnect = |body: Value| {
        let answer = servers[0].as_backend("POST", "/api/disconnect", &body);
        answer.expect(200).json()
    };
    let answer = disconnect(json!({"userId": "ann", "reason": "enough"}));
    assert_eq!(answer, json!({"success": true, "disconnected": 2}));
    for client in &mut clients {
        client.expect_disconnect(4301, "disconnected");
    }
    let id = stranger.greeting["data"]["connectionId"].clone();
    let mut other = servers[1].connect("bob");
    let answer = disconnect(json!({"connectionId": id}));
    assert_eq!(answer, json!({"success": true, "disconnected": 1}));
    stranger.expect_disconnect(4301, "disconnected");
    other.send(&json!({"type": "ping"}));
    other.next_of("pong");
    let nobody = disconnect(json!({"connectionId": "00000000-1"}));
    assert_eq!(nobody, json!({"success": true, "disconnected": 0}));
}

/// So many entries of a list, page by page of two; again as long as some node is slow.
#[track_caller]
fn listed(server: &Server, path: &str, member: &str, count: usize) -> Vec<Value> {
    let mut all = None;
    eventually("all nodes answer", Duration::from_secs(60), || {
        all = list(server, path, member);
        all.as_ref().is_some_and(|all| all.len() == count)
    });
    all.unwrap()
}

/// `None`: a node was silent.
fn list(server: &Server, path: &str, member: &str) -> Option<Vec<Value>> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let path = format!("{path}limit=2{cursor}");
        let page = server.as_backend("GET", &path, &Value::Null);
        let page = page.expect(200).json();
        if page.get("silentNodes").is_some() {
            return None;
        }
        let entries = page[member].as_array().unwrap();
        assert!(entries.len() <= 2, "{page}");
        all.extend(entries.iter().cloned());
        match page["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return Some(all),
        }
    }
}

#[test]
fn any_node_tells_of_all_nodes() {
    Topology::all_at_once(a_node_tells_of_all_nodes);
}

fn a_node_tells_of_all_nodes(on: Topology) {
    let redis = on.shared();
    let mut servers = nodes(&redis, 3);
    let mut clients = Vec::new();
    for (number, server) in servers.iter().enumerate() {
        for n in 0..3 {
            let mut client = server.connect(if n == 0 { "ann" } else { "bob" });
            client.subscribe("post_1");
            client.subscribe(format!("post_{number}{n}"));
            clients.push(client);
        }
    }
    let id = |client: &Client| client.greeting["data"]["connectionId"].clone();
    let ids = |found: &[Value]| -> Vec<Value> {
        found
            .iter()
            .map(|one| one["connectionId"].clone())
            .collect()
    };
    let mut expected: Vec<Value> = clients.iter().map(id).collect();
    expected.sort_by_key(Value::to_string);
    for server in &servers {
        let mut found = ids(&listed(server, "/api/connections?", "connections", 9));
        found.sort_by_key(Value::to_string);
        assert_eq!(found, expected);
        let of_ann = listed(server, "/api/connections?user=ann&", "connections", 3);
        assert!(
            of_ann
                .iter()
                .all(|one| one["userId"] == "ann" && one["channels"] == 2)
        );
        let channels = listed(server, "/api/channels?prefix=post_&", "channels", 10);
        assert_eq!(
            channels[3],
            json!({"channelKey": "post_1", "subscribers": 9})
        );
        assert!(
            channels
                .iter()
                .filter(|one| one["subscribers"] == 1)
                .count()
                == 9
        );
    }
    // The operator's command sees the same.
    let told = servers[2].run(&["connections", "--json"]);
    let told = String::from_utf8(told.stdout).unwrap();
    assert_eq!(told.lines().count(), 9, "{told}");
    // One that stands still is named, and the answer does not wait for it for long.
    let frozen = id(&clients[8])
        .as_str()
        .unwrap()
        .rsplit_once('-')
        .unwrap()
        .0
        .to_owned();
    servers[2].signal(Signal::STOP);
    eventually("it is named", Duration::from_secs(60), || {
        let page = servers[0].as_backend("GET", "/api/connections", &Value::Null);
        let page = page.expect(200).json();
        let count = page["connections"].as_array().unwrap().len();
        page["silentNodes"] == json!([frozen]) && count == 6
    });
    let body = json!({"userId": "ann"});
    let answer = servers[0].as_backend("POST", "/api/disconnect", &body);
    let expected = json!({"success": true, "disconnected": 2, "silentNodes": [frozen]});
    assert_eq!(answer.expect(200).json(), expected);
    servers[2].signal(Signal::CONT);
    // One that has ended in good order is missed by nobody.
    servers[2].terminate();
    listed(&servers[0], "/api/connections?", "connections", 4);
}

#[test]
fn the_metrics_tell_of_the_redis() {
    let redis = RedisServer::start(&[("maxmemory", "512mb"), ("maxmemory-policy", "allkeys-lru")]);
    let url = redis.url();
    let server = Server::start(&[("broker.backend", "redis"), ("broker.redis.url", &url)]);
    server.publish("post_1", json!({"type": "tick"}));
    let wanted = [
        "fanfare_redis_operation_seconds_bucket{operation=\"publish\",le=\"3\"} 1".to_owned(),
        "fanfare_redis_pubsub_lag_seconds_count 1".to_owned(),
        format!(
            "fanfare_redis_maximum_memory_bytes{{server=\"{}\"}} 536870912",
            redis.address()
        ),
        format!(
            "fanfare_redis_evicted_keys_total{{server=\"{}\"}} 0",
            redis.address()
        ),
    ];
    let mut metrics = String::new();
    eventually("a canary was heard", Duration::from_secs(30), || {
        metrics = server.metrics("/metrics").expect(200).text().to_owned();
        let has_lag = !metrics.contains("fanfare_redis_pubsub_lag_seconds_count 0");
        has_lag && metrics.contains("fanfare_redis_maximum_memory_bytes")
    });
    for line in &wanted {
        let line = line.strip_suffix(" 1").unwrap_or(line);
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    let said = server.output();
    assert!(said.contains("maxmemory-policy"), "{said}");
}

#[test]
fn a_node_that_is_killed_is_forgotten() {
    Topology::all_at_once(who_was_on_a_killed_node_is_forgotten);
}

fn who_was_on_a_killed_node_is_forgotten(on: Topology) {
    let redis = on.shared();
    let mut servers = nodes(&redis, 2);
    let mut left = servers[0].connect("ann");
    let mut right = servers[1].connect("bob");
    left.subscribe("room_1");
    right.subscribe("room_1");
    comes(&mut left, "bob");
    servers[1].kill();
    let path = "/api/presence?channel=room_1";
    eventually("bob is gone", Duration::from_secs(60), || {
        let present = servers[0].as_backend("GET", path, &Value::Null);
        present.expect(200).json()["users"] == json!(["ann"])
    });
    left.quiet(10);
}

/// Several publishers on several nodes; every subscriber on every node sees what the stream has.
fn every_node_has_the_order_of_the_stream(on: Topology) {
    const PUBLISHERS: u64 = 3;
    const EACH: u64 = 60;
    let redis = on.shared();
    let servers = nodes(&redis, 3);
    let channels = ["chat_1", "chat_2", "chat_3"];
    let mut listeners: Vec<_> = servers
        .iter()
        .map(|server| server.connect("listener"))
        .collect();
    for listener in &mut listeners {
        for channel in channels {
            listener.subscribe(channel);
        }
    }
    std::thread::scope(|scope| {
        for (node, server) in servers.iter().enumerate() {
            for publisher in 0..PUBLISHERS {
                scope.spawn(move || {
                    for n in 0..EACH {
                        let number = (node as u64 * PUBLISHERS + publisher) * EACH + n;
                        let channel = channels[(number % 3) as usize];
                        server.publish(channel, json!({"type": "tick", "n": number}));
                    }
                });
            }
        }
    });
    let total = servers.len() as u64 * PUBLISHERS * EACH;
    let mut orders: Vec<Vec<Vec<u64>>> = Vec::new();
    for listener in &mut listeners {
        let mut heard = vec![Vec::new(); channels.len()];
        for _ in 0..total {
            let event = listener.next_of("tick");
            let channel = event["_meta"]["channel"].as_str().unwrap();
            let index = channels.iter().position(|one| *one == channel).unwrap();
            heard[index].push(event["n"].as_u64().unwrap());
            assert_eq!(
                event["_meta"]["offset"],
                heard[index].len(),
                "{}",
                listener.tell()
            );
        }
        orders.push(heard);
    }
    for (index, channel) in channels.iter().enumerate() {
        let key = format!("{}{{{channel}}}:h", redis.prefix());
        let stored = stored(&redis.command(&["XRANGE", &key, "-", "+"]));
        assert!(!stored.is_empty());
        for order in &orders {
            assert_eq!(order[index], stored, "{channel}");
        }
    }
}

/// The numbers of the events in a channel's stream, as `XRANGE` gives them.
#[test]
fn a_node_that_stops_leaves_newcomers_to_the_others() {
    let redis = Topology::One.shared();
    let mut servers = nodes(&redis, 2);
    let mut clients: Vec<_> = (0..80)
        .map(|n| servers[0].connect(&format!("u{n}")))
        .collect();
    for client in &mut clients {
        client.subscribe("post_1");
    }
    servers[0].signal(Signal::TERM);
    let addr = servers[0].addr();
    eventually("it is closed", Duration::from_secs(3), || {
        TcpStream::connect(addr).is_err()
    });
    // For four seconds, one after the other; those who wait for their turn miss nothing.
    servers[1].publish("post_1", json!({"type": "tick"}));
    let mut heard = 0;
    for client in &mut clients {
        let mut frame = client.next();
        if frame["type"] == "tick" {
            heard += 1;
            frame = client.next();
        }
        assert_eq!(frame["data"]["code"], 4100);
        let wait = frame["data"]["retryAfterMs"].as_u64().unwrap();
        assert!((500..=1_000).contains(&wait), "others take them: {wait}");
    }
    assert!((20..80).contains(&heard), "{heard} were still there");
    assert!(servers[0].wait(Duration::from_secs(15)).success());
}

fn stored(answer: &str) -> Vec<u64> {
    let events = answer.lines().filter(|line| line.starts_with('{'));
    let number = |line: &str| {
        serde_json::from_str::<Value>(line).unwrap()["n"]
            .as_u64()
            .unwrap()
    };
    events.map(number).collect()
}

#[test]
fn what_cannot_be_used_ends_the_start_with_a_sentence() {
    let redis = RedisServer::start(&[("requirepass", "hunter2hunter2")]);
    let port = support::redis::free_port();
    let cases = [
        (format!("redis://127.0.0.1:{port}"), "cannot reach Redis"),
        (redis.url(), "cannot use Redis"),
        (
            format!("redis://:wrong-password@{}", redis.address()),
            "cannot use Redis",
        ),
    ];
    for (url, sentence) in cases {
        let home = tempfile::tempdir().unwrap();
        let output = support::command()
            .args(["serve", "--set", "server.listen=127.0.0.1:0"])
            .args(["--set", "metrics.listen=127.0.0.1:0"])
            .args(["--set", "broker.backend=redis"])
            .env("FANFARE_BROKER__REDIS__URL", &url)
            .current_dir(home.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(sentence), "{said}");
        assert!(!said.contains("wrong-password"), "{said}");
        // What may become better is waited for, and that is told.
        let waits = sentence == "cannot reach Redis";
        assert_eq!(said.contains("trying for another 9 s"), waits, "{said}");
    }
}

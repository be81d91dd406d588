//! `/stats` counts what sockets did, exactly. Contract section 7.

#![allow(clippy::unwrap_used)] // clippy knows the tests, not what they share

mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::{Client, Server, eventually};

#[test]
fn the_figures_are_exact_after_all_that_can_happen() {
    let server = Server::start(&[
        ("server.workers", "3"),
        ("limits.connections_per_user", "6"),
    ]);
    let mut clients: Vec<Client> = (0..10)
        .map(|nth| server.connect(&format!("u{}", nth % 2)))
        .collect();
    // Six of u0 would be one too many with the seventh; here are five of each, and one more of each.
    clients.push(server.connect("u0"));
    clients.push(server.connect("u1"));
    for user in ["u0", "u1"] {
        let path = format!("/ws?token={}", server.token(user));
        server
            .connect_with(&path, &[])
            .unwrap()
            .expect_disconnect(4302, "limit reached");
    }
    for path in ["/ws", "/ws?token=bad"] {
        server
            .connect_with(path, &[])
            .unwrap()
            .expect_disconnect(1008, "Unauthorized");
    }
    for (nth, client) in clients.iter_mut().enumerate() {
        client.subscribe("post_1");
        if nth < 4 {
            client.subscribe("post_2");
            client.subscribe("post_2");
        }
        if nth < 2 {
            client.subscribe("notifications");
            client.send(&json!({"type": "unsubscribe", "channel": "post_1"}));
            client.next_of("unsubscribed");
        }
        client.send(&json!({"type": "ping"}));
        client.next_of("pong");
    }
    clients[0].send_text("nonsense");
    clients[0].send_binary(b"x");
    clients[1].send(&json!({"type": "dance"}));
    clients[2].send(&json!({"type": "subscribe", "channel": "feed_u9"}));
    clients[3].send(&json!({"type": "history", "channel": "post_1"}));
    clients[4].send(&json!({"type": "refresh", "token": server.token("u0")}));
    clients[5].send(&json!({"type": "publish", "channel": "post_1", "event": {"type": "x"}}));
    for (nth, kind, count) in [
        (0, "error", 2),
        (1, "error", 1),
        (2, "error", 1),
        (3, "history", 1),
        (4, "refreshed", 1),
        (5, "error", 1),
    ] {
        for _ in 0..count {
            assert_eq!(clients[nth].next()["type"], kind);
        }
    }

    let stats = server.stats();
    assert_eq!(stats["totalConnections"], 12);
    assert_eq!(stats["activeConnections"], 12);
    assert_eq!(stats["authFailures"], 2);
    // As the predecessor counted them: what could not be read.
    assert_eq!(stats["errors"], 2);
    // Every kind of refusal counts, not only what is no command.
    assert_eq!(stats["server"]["errorReplies"], 2 + 1 + 1 + 1);
    assert_eq!(
        stats["connectionsByChannel"],
        json!({"post_1": 10, "post_2": 4, "notifications_u0": 1, "notifications_u1": 1})
    );
    assert_eq!(
        stats["messagesByType"],
        json!({"subscribe": 12 + 8 + 2 + 1, "unsubscribe": 2, "ping": 12, "invalid_format": 2,
            "dance": 1, "history": 1, "refresh": 1, "publish": 1})
    );
    assert_eq!(stats["totalMessages"], 23 + 2 + 12 + 2 + 1 + 1 + 1 + 1);

    eventually("the lines", Duration::from_secs(10), || {
        let lines = server.event_log();
        let of = |kind: &str| {
            lines
                .iter()
                .filter(|line| line["type"] == kind)
                .map(|line| &line["data"])
                .collect::<Vec<_>>()
        };
        let refused = |user: &str, reason: &str, channel: Value| {
            let is_of = |data: &&&Value| {
                data["userId"] == user && data["reason"] == reason && data["channel"] == channel
            };
            of("error").iter().filter(is_of).count()
        };
        of("error").len() == 5
            && refused("u0", "invalid_format", Value::Null) == 2
            && refused("u1", "unknown_type", Value::Null) == 1
            && refused("u0", "access_denied", json!("feed_u9")) == 1
            && refused("u1", "access_denied", json!("post_1")) == 1
            && of("message")
                .iter()
                .any(|data| data["messageType"] == "dance")
    });

    for client in clients.drain(..6) {
        client.close();
    }
    drop(clients);
    eventually("all sockets are gone", Duration::from_secs(5), || {
        server.stats()["activeConnections"] == 0
    });
    let stats = server.stats();
    assert_eq!(stats["totalConnections"], 12);
    assert_eq!(stats["connectionsByChannel"], json!({}));
    assert_eq!(stats["totalMessages"], 43);
}

#[test]
fn the_event_log_tells_a_sockets_story() {
    let server = Server::start(&[]);
    let mut client = server.connect("u1");
    client.subscribe("post_1");
    client.send(&json!({"type": "unsubscribe", "channel": "post_1"}));
    client.next_of("unsubscribed");
    client.send(&json!({"type": "ping"}));
    client.next_of("pong");
    let connection_id = client.greeting["data"]["connectionId"].clone();
    client.close();
    let story = || {
        let log = server.event_log();
        let own = log.into_iter().filter(|line| line["type"] != "server");
        own.collect::<Vec<_>>()
    };
    eventually("the story is complete", Duration::from_secs(5), || {
        story()
            .last()
            .is_some_and(|line| line["type"] == "disconnect")
    });
    let story = story();
    let kinds: Vec<_> = story
        .iter()
        .map(|line| line["type"].as_str().unwrap())
        .collect();
    assert_eq!(
        kinds,
        [
            "connection",
            "message",
            "channel_subscribe",
            "message",
            "channel_unsubscribe",
            "message",
            "disconnect"
        ]
    );
    for line in &story {
        assert_eq!(line["data"]["userId"], "u1");
        assert_eq!(line["data"]["ip"], "127.0.0.1");
        assert_eq!(line["data"]["connectionId"], connection_id);
        assert!(line["timestamp"].is_string());
    }
    let member = |name: &str| -> Vec<String> {
        let values = story.iter().filter_map(|line| line["data"][name].as_str());
        values.map(str::to_string).collect()
    };
    assert_eq!(member("messageType"), ["subscribe", "unsubscribe", "ping"]);
    assert_eq!(member("channel"), ["post_1", "post_1"]);
}

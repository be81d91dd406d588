//! Subscribing, being refused, and events on their way to everybody who follows. Contract section 4.

#![allow(clippy::unwrap_used)] // clippy knows the tests, not what they share

mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::{Server, eventually};

#[test]
fn each_way_to_name_a_channel_has_its_key() {
    let server = Server::start(&[("channels.chat.subscribe", "any")]);
    for (channel, key) in [
        (json!({"type": "creator", "id": "c1"}), "creator_c1"),
        (
            json!({"type": "notifications", "userId": "u1"}),
            "notifications_u1",
        ),
        (json!({"type": "feed", "userId": "u1"}), "feed_u1"),
        (json!({"type": "post", "postId": "p_1"}), "post_p_1"),
        (json!({"type": "post", "postId": 42}), "post_42"),
        (json!({"type": "post", "id": "42"}), "post_42"),
        (json!({"type": "chat", "id": "r"}), "chat_r"),
        (json!("notifications"), "notifications_u1"),
        (json!("feed"), "feed_u1"),
        (json!("creator_c1"), "creator_c1"),
        (json!("post_\u{1f600} \""), "post_\u{1f600} \""),
        (json!("chat_r"), "chat_r"),
    ] {
        let mut client = server.connect("u1");
        let reply = client.subscribe(channel.clone());
        let data = &reply["data"];
        assert_eq!(
            reply,
            json!({"type": "subscribed", "data": {"channel": channel, "channelKey": key,
                "epoch": data["epoch"], "offset": 0}})
        );
        assert!(
            data["epoch"]
                .as_str()
                .is_some_and(|epoch| !epoch.is_empty())
        );
        client.send(&json!({"type": "unsubscribe", "channel": channel, "id": 1}));
        assert_eq!(
            client.next(),
            json!({"type": "unsubscribed", "id": 1, "data": {"channel": channel, "channelKey": key}})
        );
    }
}

#[test]
fn an_unknown_type_and_other_peoples_channels_are_denied() {
    let server = Server::start(&[
        ("channels.secret.subscribe", "none"),
        ("channels.room.subscribe", "token"),
    ]);
    let mut claims = server.claims("u1");
    claims["channels"] = json!(["room_7", "room_vip*"]);
    let path = format!("/ws?token={}", server.token_with(&claims));
    let mut client = server.connect_with(&path, &[]).unwrap().greeted();
    for channel in [
        json!("unheard_1"),
        json!({"type": "unheard", "id": "1"}),
        json!("secret_1"),
        json!("room_8"),
        json!("room_77"),
        json!("feed_u2"),
        json!({"type": "feed", "userId": "u2"}),
        json!({"type": "notifications", "userId": "u2"}),
    ] {
        client.send(&json!({"type": "subscribe", "channel": channel}));
        assert_eq!(
            client.next(),
            json!({"type": "error", "data": {"message": "Access denied to channel",
                "channel": channel, "code": "access_denied"}})
        );
    }
    client.subscribe("room_7");
    client.subscribe("room_vip");
    client.subscribe("room_vip2");
}

#[test]
fn an_event_is_the_published_object_with_meta_in_front() {
    let server = Server::start(&[
        ("channels.live.subscribe", "any"),
        ("channels.live.history", "0"),
    ]);
    let mut client = server.connect("u1");
    let subscribed = client.subscribe("post_42");
    let epoch = subscribed["data"]["epoch"].as_str().unwrap();
    let body = r#"{"channel":"post_42","event":{ "type":"post_liked", "n" : 1.50, "deep":{"b":[],"a":"\u00e4"}}}"#;
    let headers = [
        ("X-API-Key", server.api_key()),
        ("Content-Type", "application/json"),
    ];
    let answer = server
        .http("POST", "/api/publish", &headers, body)
        .expect(200)
        .json();
    assert_eq!(
        answer,
        json!({"success": true, "channelKey": "post_42", "epoch": epoch, "offset": 1})
    );
    client.next();
    assert_eq!(
        client.last_text,
        format!(
            r#"{{"_meta":{{"channel":"post_42","offset":1,"epoch":"{epoch}"}}, "type":"post_liked", "n" : 1.50, "deep":{{"b":[],"a":"\u00e4"}}}}"#
        )
    );

    let subscribed = client.subscribe("live_1");
    assert_eq!(
        subscribed,
        json!({"type": "subscribed", "data": {"channel": "live_1", "channelKey": "live_1"}})
    );
    assert_eq!(
        server.publish("live_1", json!({"type": "tick"})),
        json!({"success": true, "channelKey": "live_1"})
    );
    client.next();
    assert_eq!(
        client.last_text,
        r#"{"_meta":{"channel":"live_1"},"type":"tick"}"#
    );
}

#[test]
fn an_event_reaches_every_socket_of_every_user_and_no_other() {
    let server = Server::start(&[("server.workers", "3")]);
    let mut followers: Vec<_> = (0..12)
        .map(|nth| server.connect(&format!("u{}", nth % 4)))
        .collect();
    let mut strangers: Vec<_> = (0..4)
        .map(|nth| server.connect(&format!("u{nth}")))
        .collect();
    for follower in &mut followers {
        follower.subscribe("post_1");
    }
    for stranger in &mut strangers {
        stranger.subscribe("post_10");
        stranger.subscribe("creator_1");
    }
    for n in 1..=50 {
        server.publish("post_1", json!({"type": "tick", "n": n}));
    }
    for follower in &mut followers {
        for n in 1..=50 {
            let event = follower.next();
            assert_eq!(
                (&event["n"], &event["_meta"]["offset"]),
                (&json!(n), &json!(n))
            );
        }
    }
    for client in followers.iter_mut().chain(&mut strangers) {
        client.quiet(20);
    }
}

#[test]
fn subscribing_twice_delivers_once_and_unsubscribing_ends_it() {
    let server = Server::start(&[]);
    let mut client = server.connect("u1");
    client.subscribe("post_1");
    server.publish("post_1", json!({"type": "tick", "n": 1}));
    assert_eq!(client.next()["n"], 1);
    let again = client.subscribe(json!({"type": "post", "postId": 1}));
    assert_eq!(again["data"]["offset"], 1);
    assert!(again["data"].get("recovered").is_none());
    server.publish("post_1", json!({"type": "tick", "n": 2}));
    assert_eq!(client.next()["n"], 2);
    client.quiet(50);
    client.send(&json!({"type": "unsubscribe", "channel": "post_1"}));
    client.next_of("unsubscribed");
    server.publish("post_1", json!({"type": "tick", "n": 3}));
    client.quiet(100);
    let back = client.subscribe("post_1");
    assert_eq!(back["data"]["offset"], 3);
    server.publish("post_1", json!({"type": "tick", "n": 4}));
    assert_eq!(client.next()["n"], 4);
}

#[test]
fn leaving_and_coming_back_in_one_breath_leaves_a_working_subscription() {
    let server = Server::start(&[]);
    let mut client = server.connect("u1");
    for round in 0..20 {
        for kind in ["subscribe", "unsubscribe", "subscribe"] {
            client.send(&json!({"type": kind, "channel": "post_1"}));
        }
        client.next_of("subscribed");
        client.next_of("unsubscribed");
        client.next_of("subscribed");
        server.publish("post_1", json!({"type": "tick", "round": round}));
        assert_eq!(client.next()["round"], round);
    }
    assert_eq!(server.stats()["connectionsByChannel"], json!({"post_1": 1}));
}

#[test]
fn clients_that_go_in_the_middle_of_subscribing_leave_no_member_behind() {
    let server = Server::start(&[("server.workers", "1")]);
    for round in 0..40 {
        let mut client = server.connect("u1");
        for key in 0..20 {
            client.send(&json!({"type": "subscribe", "channel": format!("post_{key}")}));
        }
        if round % 2 == 0 {
            client.close();
        }
    }
    eventually("nobody follows anything", Duration::from_secs(5), || {
        server.stats()["connectionsByChannel"] == json!({})
    });
    // Whoever comes next has nobody else's subscriptions.
    let mut client = server.connect("u1");
    for key in 0..20 {
        server.publish(&format!("post_{key}"), json!({"type": "tick"}));
    }
    client.quiet(100);
    client.subscribe("post_3");
    server.publish("post_3", json!({"type": "tick", "n": 1}));
    assert_eq!(client.next()["n"], 1);
    client.quiet(50);
}

#[test]
fn a_client_publishes_where_the_rule_allows_it() {
    let server = Server::start(&[
        ("channels.chat.subscribe", "any"),
        ("channels.chat.publish", "any"),
        ("channels.desk.subscribe", "own"),
        ("channels.desk.publish", "own"),
        ("channels.live.subscribe", "any"),
        ("channels.live.publish", "any"),
        ("channels.live.history", "0"),
        ("limits.event_bytes", "200"),
    ]);
    let mut one = server.connect("u1");
    let mut two = server.connect("u2");
    let epoch = one.subscribe("chat_1")["data"]["epoch"].clone();
    two.subscribe("chat_1");
    let publish = |channel: &str, event: Value| json!({"type": "publish", "channel": channel, "event": event, "id": "p"});
    one.send(&publish("chat_1", json!({"type": "said", "text": "hi"})));
    assert_eq!(
        one.next_of("published"),
        json!({"type": "published", "id": "p", "data":
            {"channelKey": "chat_1", "epoch": epoch, "offset": 1}})
    );
    for client in [&mut one, &mut two] {
        assert_eq!(client.next_of("said")["text"], "hi");
        client.quiet(20);
    }
    one.send(&publish("live_1", json!({"type": "said"})));
    assert_eq!(
        one.next(),
        json!({"type": "published", "id": "p", "data": {"channelKey": "live_1"}})
    );
    one.send(&publish("desk_u1", json!({"type": "said"})));
    assert_eq!(one.next()["type"], "published");
    for channel in [
        "post_1",
        "feed_u1",
        "notifications_u1",
        "desk_u2",
        "unheard_1",
    ] {
        one.send(&publish(channel, json!({"type": "said"})));
        assert_eq!(
            one.next(),
            json!({"type": "error", "id": "p", "data": {"message": "Access denied to channel",
                "channel": channel, "code": "access_denied"}})
        );
    }
    for (event, code) in [
        (json!({"text": "hi"}), "invalid_event"),
        (json!({"type": "said", "_meta": {}}), "invalid_event"),
        (json!([]), "invalid_event"),
        (
            json!({"type": "said", "text": "x".repeat(200)}),
            "event_too_large",
        ),
    ] {
        one.send(&publish("chat_1", event));
        assert_eq!(one.next()["data"]["code"], code);
    }
    two.quiet(20);
}

#[test]
fn history_can_be_read_page_by_page() {
    let server = Server::start(&[
        ("channels.live.subscribe", "any"),
        ("channels.live.history", "0"),
    ]);
    for n in 1..=30 {
        server.publish("post_1", json!({"type": "tick", "n": n}));
    }
    let mut client = server.connect("u1");
    let mut ask = |rest: Value| {
        let mut command = json!({"type": "history", "channel": "post_1", "id": 1});
        command
            .as_object_mut()
            .unwrap()
            .extend(rest.as_object().unwrap().clone());
        client.send(&command);
        client.next()
    };
    let all = ask(json!({}));
    let epoch = &all["data"]["epoch"];
    let expected: Vec<Value> = (1..=30)
        .map(|n| {
            json!({"_meta": {"channel": "post_1", "offset": n, "epoch": epoch},
                "type": "tick", "n": n})
        })
        .collect();
    assert_eq!(
        all,
        json!({"type": "history", "id": 1, "data":
            {"channelKey": "post_1", "epoch": epoch, "events": expected}})
    );
    assert_eq!(
        ask(json!({"limit": 4}))["data"]["events"],
        json!(expected[26..])
    );
    assert_eq!(
        ask(json!({"limit": 4, "before": 27}))["data"]["events"],
        json!(expected[22..26])
    );
    assert_eq!(ask(json!({"before": 1}))["data"]["events"], json!([]));
    for (channel, code) in [("feed_u2", "access_denied"), ("live_1", "no_history")] {
        client.send(&json!({"type": "history", "channel": channel}));
        assert_eq!(client.next()["data"]["code"], code);
    }
    // Reading back subscribes to nothing.
    server.publish("post_1", json!({"type": "tick"}));
    client.quiet(50);
}

#[test]
fn many_publishers_and_one_order() {
    let server = Server::start(&[("server.workers", "2")]);
    let mut followers: Vec<_> = (0..4)
        .map(|nth| server.connect(&format!("u{nth}")))
        .collect();
    for follower in &mut followers {
        follower.subscribe("post_1");
    }
    std::thread::scope(|scope| {
        for publisher in 0..4 {
            let server = &server;
            scope.spawn(move || {
                for n in 0..50 {
                    server.publish("post_1", json!({"type": "tick", "from": publisher, "n": n}));
                }
            });
        }
    });
    let mut stories = followers.iter_mut().map(|follower| {
        let mut next = [0; 4];
        (1..=200)
            .map(|offset| {
                let event = follower.next();
                assert_eq!(event["_meta"]["offset"], offset);
                let from = event["from"].as_u64().unwrap() as usize;
                assert_eq!(event["n"], next[from], "a publisher's own order");
                next[from] += 1;
                from
            })
            .collect::<Vec<_>>()
    });
    let first = stories.next().unwrap();
    assert!(stories.all(|story| story == first));
}

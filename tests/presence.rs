//! Who is in a channel: the command, the API, and the events of those who come and go.

#![allow(clippy::unwrap_used, reason = "what is not there has to fail the test")]

mod support;

use std::time::Duration;

use rustix::process::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};
use support::{Client, Server, eventually};

const ROOM: &[(&str, &str)] = &[
    ("channels.room.subscribe", "any"),
    ("channels.room.presence", "true"),
];

fn announcing() -> Vec<(&'static str, &'static str)> {
    [ROOM, &[("channels.room.join_leave", "true")]].concat()
}

/// Shells often start programs with 1,024 descriptors, of which more are to be had.
fn allow_many_sockets() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
}

/// Users and count by the command.
#[track_caller]
fn there(client: &mut Client, channel: &str) -> (Value, u64) {
    client.send(&json!({"type": "presence", "channel": channel, "id": 7}));
    let reply = client.next_of("presence");
    assert_eq!(reply["id"], 7);
    assert_eq!(reply["data"]["channelKey"], channel);
    let count = reply["data"]["count"].as_u64().unwrap();
    (reply["data"]["users"].clone(), count)
}

fn told(kind: &str, user: &str) -> Value {
    json!({
        "_meta": {"channel": "room_1"},
        "type": kind,
        "data": {"channelKey": "room_1", "userId": user},
    })
}

#[test]
fn a_user_is_listed_once_however_many_sockets() {
    let server = Server::start(ROOM);
    let mut ann = server.connect("ann");
    assert_eq!(there(&mut ann, "room_1"), (json!([]), 0));
    ann.subscribe("room_1");
    // The acknowledgement comes when the list has it.
    assert_eq!(there(&mut ann, "room_1"), (json!(["ann"]), 1));
    let mut second = server.connect("ann");
    second.subscribe("room_1");
    let mut bob = server.connect("bob");
    bob.subscribe("room_1");
    assert_eq!(there(&mut ann, "room_1"), (json!(["ann", "bob"]), 2));
    second.close();
    assert_eq!(there(&mut ann, "room_1"), (json!(["ann", "bob"]), 2));
    ann.send(&json!({"type": "unsubscribe", "channel": "room_1"}));
    ann.next_of("unsubscribed");
    eventually("ann has left", Duration::from_secs(5), || {
        there(&mut bob, "room_1") == (json!(["bob"]), 1)
    });
    // One that is cut off has left, too.
    drop(bob);
    eventually("bob has left", Duration::from_secs(5), || {
        there(&mut ann, "room_1") == (json!([]), 0)
    });
}

#[test]
fn the_api_tells_the_same_and_only_backends() {
    let server = Server::start(ROOM);
    let mut ann = server.connect("ann");
    ann.subscribe("room_1");
    let path = "/api/presence?channel=room_1";
    let answer = server.as_backend("GET", path, &Value::Null);
    assert_eq!(
        answer.expect(200).json(),
        json!({"success": true, "channelKey": "room_1", "users": ["ann"], "count": 1})
    );
    server.as_user("ann", "GET", path, &Value::Null).expect(401);
    for (path, code) in [
        ("/api/presence", "invalid_channel"),
        ("/api/presence?channel=nothing_1", "invalid_channel"),
        ("/api/presence?channel=post_1", "no_presence"),
    ] {
        let refused = server.as_backend("GET", path, &Value::Null).expect(400);
        assert_eq!(refused.json()["code"], code, "{path}");
    }
}

#[test]
fn whoever_may_not_subscribe_does_not_see_who_is_there() {
    let server = Server::start(&[
        ("channels.room.subscribe", "own"),
        ("channels.room.presence", "true"),
    ]);
    let mut ann = server.connect("ann");
    for (channel, code) in [("room_bob", "access_denied"), ("post_1", "no_presence")] {
        ann.send(&json!({"type": "presence", "channel": channel}));
        let refused = ann.next_of("error");
        assert_eq!(refused["data"]["code"], code);
        assert_eq!(refused["data"]["channel"], channel);
    }
    assert_eq!(there(&mut ann, "room_ann").1, 0);
}

#[test]
fn the_list_is_cut_and_the_count_is_not() {
    allow_many_sockets();
    let server = Server::start(ROOM);
    let mut crowd: Vec<Client> = (0..1_005)
        .map(|n| {
            let mut one = server.connect(&format!("u{n:04}"));
            one.subscribe("room_1");
            one
        })
        .collect();
    let (users, count) = there(&mut crowd[0], "room_1");
    assert_eq!(count, 1_005);
    let users = users.as_array().unwrap();
    assert_eq!(users.len(), 1_000);
    assert_eq!(users[999], "u0999");
}

#[test]
fn the_first_and_the_last_socket_of_a_user_are_announced() {
    let server = Server::start(&announcing());
    let mut bob = server.connect("bob");
    let subscribed = bob.subscribe("room_1");
    assert_eq!(subscribed["data"]["offset"], 0);
    // One's own joining comes after the acknowledgement.
    assert_eq!(bob.next(), told("join", "bob"));
    let mut first = server.connect("ann");
    first.subscribe("room_1");
    assert_eq!(bob.next(), told("join", "ann"));
    let mut second = server.connect("ann");
    second.subscribe("room_1");
    first.close();
    bob.quiet(200);
    drop(second);
    assert_eq!(bob.next(), told("leave", "ann"));
    // Nothing of this is history.
    let body = json!({"channel": "room_1", "event": {"type": "x"}});
    let published = server.as_backend("POST", "/api/publish", &body).expect(200);
    assert_eq!(published.json()["offset"], 1);
    assert_eq!(bob.next()["_meta"]["offset"], 1);
}

#[test]
fn nobody_is_told_unless_the_channel_asks_for_it() {
    let server = Server::start(ROOM);
    let mut bob = server.connect("bob");
    bob.subscribe("room_1");
    let mut ann = server.connect("ann");
    ann.subscribe("room_1");
    ann.close();
    bob.quiet(200);
}

#[test]
fn who_recovers_gets_history_once_beside_those_who_come_and_go() {
    let server = Server::start(&announcing());
    let publish = |n: u64| {
        let body = json!({"channel": "room_1", "event": {"type": "x", "n": n}});
        server
            .as_backend("POST", "/api/publish", &body)
            .expect(200)
            .json()
    };
    let epoch = publish(1)["epoch"].clone();
    publish(2);
    let mut ann = server.connect("ann");
    let recover = json!({"epoch": epoch, "offset": 0});
    ann.send(&json!({"type": "subscribe", "channel": "room_1", "recover": recover}));
    assert_eq!(ann.next_of("subscribed")["data"]["recovered"], true);
    publish(3);
    let mut numbers = Vec::new();
    let mut joined = 0;
    while numbers.len() < 3 {
        let message = ann.next();
        match message["type"].as_str() {
            Some("x") => numbers.push(message["n"].as_u64().unwrap()),
            Some("join") => joined += 1,
            _ => panic!("{message}"),
        }
    }
    assert_eq!((numbers, joined), (vec![1, 2, 3], 1));
    ann.quiet(100);
}

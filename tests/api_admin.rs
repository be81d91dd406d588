//! For backends and operators: history, channels, connections, disconnecting.

#![allow(clippy::unwrap_used, reason = "what is not there has to fail the test")]

mod support;

use std::collections::BTreeSet;

use serde_json::{Value, json};
use support::{Client, Server};

#[track_caller]
fn get(server: &Server, path: &str) -> Value {
    server
        .as_backend("GET", path, &Value::Null)
        .expect(200)
        .json()
}

#[track_caller]
fn disconnect(server: &Server, body: &Value) -> u64 {
    let answer = server.as_backend("POST", "/api/disconnect", body);
    let answer = answer.expect(200).json();
    assert_eq!(answer["success"], true);
    answer["disconnected"].as_u64().unwrap()
}

fn connection_id(client: &Client) -> String {
    let id = &client.greeting["data"]["connectionId"];
    id.as_str().unwrap().to_owned()
}

#[test]
fn only_backends_look_in() {
    let server = Server::start(&[]);
    for (method, path) in [
        ("POST", "/api/history"),
        ("GET", "/api/presence"),
        ("GET", "/api/channels"),
        ("GET", "/api/connections"),
        ("POST", "/api/disconnect"),
    ] {
        let body = match method {
            "POST" => json!({"channel": "post_1", "userId": "u1"}),
            _ => Value::Null,
        };
        server.json(method, path, &[], &body).expect(401);
        server.as_user("u1", method, path, &body).expect(401);
        let in_url = format!("{path}?key={0}&x-api-key={0}", server.api_key());
        server.json(method, &in_url, &[], &body).expect(401);
    }
}

#[test]
fn history_is_read_in_pages_with_the_place_of_every_event() {
    let server = Server::start(&[]);
    for n in 1..=7 {
        let body = json!({"channel": "post_1", "event": {"type": "x", "n": n}});
        server.as_backend("POST", "/api/publish", &body).expect(200);
    }
    let read = |body: Value| {
        let answer = server.as_backend("POST", "/api/history", &body);
        answer.expect(200).json()
    };
    let whole = read(json!({"channel": {"type": "post", "postId": 1}}));
    assert_eq!(whole["success"], true);
    assert_eq!(whole["channelKey"], "post_1");
    assert_eq!(whole["offset"], 7);
    let numbers = |answer: &Value| -> Vec<u64> {
        let events = answer["events"].as_array().unwrap();
        let number = |event: &Value| {
            assert_eq!(event["_meta"]["offset"], event["n"]);
            assert_eq!(event["_meta"]["epoch"], answer["epoch"]);
            event["n"].as_u64().unwrap()
        };
        events.iter().map(number).collect()
    };
    assert_eq!(numbers(&whole), [1, 2, 3, 4, 5, 6, 7]);
    let newest = read(json!({"channel": "post_1", "limit": 3}));
    assert_eq!(numbers(&newest), [5, 6, 7]);
    let before = read(json!({"channel": "post_1", "limit": 3, "before": 5}));
    assert_eq!(numbers(&before), [2, 3, 4]);
    assert_eq!(before["offset"], 7);
    let nothing = read(json!({"channel": "post_2"}));
    assert_eq!(
        (&nothing["events"], &nothing["offset"]),
        (&json!([]), &json!(0))
    );
}

#[test]
fn history_that_there_is_not_is_told() {
    let server = Server::start(&[
        ("channels.chat.subscribe", "any"),
        ("channels.chat.history", "0"),
    ]);
    for (body, code) in [
        (json!({}), "invalid_channel"),
        (json!({"channel": "nothing_1"}), "invalid_channel"),
        (json!({"channel": "chat_1"}), "no_history"),
        (json!({"channel": "post_1", "limit": 0}), "invalid_limit"),
        (json!({"channel": "post_1", "limit": 1001}), "invalid_limit"),
        (json!({"channel": "post_1", "limit": "7"}), "invalid_limit"),
        (json!({"channel": "post_1", "before": -1}), "invalid_before"),
    ] {
        let refused = server.as_backend("POST", "/api/history", &body).expect(400);
        assert_eq!(refused.json()["code"], code, "{body}");
    }
}

#[test]
fn large_events_come_in_more_pages() {
    let server = Server::start(&[
        ("limits.event_bytes", "1MiB"),
        ("limits.body_bytes", "2MiB"),
    ]);
    for n in 1..=6 {
        let event = json!({"type": "x", "n": n, "d": "d".repeat(1_000_000)});
        let body = json!({"channel": "post_1", "event": event});
        server.as_backend("POST", "/api/publish", &body).expect(200);
    }
    let mut seen = Vec::new();
    let mut before = Value::Null;
    loop {
        let mut body = json!({"channel": "post_1"});
        if !before.is_null() {
            body["before"] = before.clone();
        }
        let answer = server.as_backend("POST", "/api/history", &body).expect(200);
        assert!(answer.body.len() < 5 << 20);
        let answer = answer.json();
        let events = answer["events"].as_array().unwrap();
        let Some(first) = events.first() else { break };
        before = first["_meta"]["offset"].clone();
        seen.extend(
            events
                .iter()
                .rev()
                .map(|event| event["n"].as_u64().unwrap()),
        );
    }
    assert_eq!(seen, [6, 5, 4, 3, 2, 1]);
}

#[test]
fn channels_are_counted_and_paged_over_all_workers() {
    let server = Server::start(&[("server.workers", "2")]);
    let mut clients: Vec<Client> = (0..4).map(|n| server.connect(&format!("u{n}"))).collect();
    for client in &mut clients {
        for n in 0..5 {
            client.subscribe(format!("post_{n}"));
        }
        client.subscribe("feed");
    }
    let all = get(&server, "/api/channels?prefix=post_");
    let expected: Vec<Value> = (0..5)
        .map(|n| json!({"channelKey": format!("post_{n}"), "subscribers": 4}))
        .collect();
    assert_eq!(
        all,
        json!({"success": true, "channels": expected, "nextCursor": null})
    );
    let mut keys = Vec::new();
    let mut path = String::from("/api/channels?limit=2");
    loop {
        let page = get(&server, &path);
        let channels = page["channels"].as_array().unwrap();
        assert!((1..=2).contains(&channels.len()), "{page}");
        keys.extend(channels.iter().map(|channel| channel["channelKey"].clone()));
        let Some(cursor) = page["nextCursor"].as_str() else {
            break;
        };
        path = format!("/api/channels?limit=2&cursor={cursor}");
    }
    let keys: Vec<&str> = keys.iter().map(|key| key.as_str().unwrap()).collect();
    assert_eq!(keys.len(), 9);
    assert!(keys.is_sorted());
    assert_eq!(keys[..2], ["feed_u0", "feed_u1"]);
    for bad in ["limit=0", "limit=1001", "limit=x"] {
        let path = format!("/api/channels?{bad}");
        server.as_backend("GET", &path, &Value::Null).expect(400);
    }
}

#[test]
fn connections_are_listed_by_user_and_by_page() {
    let server = Server::start(&[("server.workers", "2")]);
    let mut clients: Vec<Client> = (0..7)
        .map(|n| server.connect(if n < 3 { "ann" } else { "bob" }))
        .collect();
    clients[0].subscribe("post_1");
    clients[0].subscribe("post_2");
    let all = get(&server, "/api/connections");
    assert_eq!(all["connections"].as_array().unwrap().len(), 7);
    let first = &all["connections"][0];
    assert_eq!(first["connectionId"], connection_id(&clients[0]));
    assert_eq!(first["userId"], "ann");
    assert_eq!(first["address"], "127.0.0.1");
    assert_eq!(first["channels"], 2);
    let since = first["connectedAt"].as_str().unwrap();
    assert!(since.starts_with("20") && since.ends_with('Z'), "{since}");

    let of_ann = get(&server, "/api/connections?user=ann");
    let of_ann = of_ann["connections"].as_array().unwrap();
    assert_eq!(of_ann.len(), 3);
    assert!(of_ann.iter().all(|one| one["userId"] == "ann"));
    let nobody = get(&server, "/api/connections?user=nobody");
    assert_eq!(nobody["connections"], json!([]));

    let mut seen = BTreeSet::new();
    let mut path = String::from("/api/connections?limit=3");
    for expected in [3, 3, 1] {
        let page = get(&server, &path);
        let page_ids = page["connections"].as_array().unwrap();
        assert_eq!(page_ids.len(), expected);
        seen.extend(page_ids.iter().map(|one| one["connectionId"].to_string()));
        path = format!(
            "/api/connections?limit=3&cursor={}",
            page["nextCursor"].as_str().unwrap_or("end")
        );
    }
    assert!(path.ends_with("=end"));
    assert_eq!(seen.len(), 7);
    server.as_backend("GET", &path, &Value::Null).expect(400);
}

#[test]
fn a_user_is_disconnected_everywhere_and_nobody_else() {
    let server = Server::start(&[("server.workers", "2")]);
    let mut of_ann: Vec<Client> = (0..3).map(|_| server.connect("ann")).collect();
    let mut bob = server.connect("bob");
    of_ann[0].subscribe("post_1");
    let body = json!({"userId": "ann", "reason": "You were signed out everywhere"});
    assert_eq!(disconnect(&server, &body), 3);
    for client in &mut of_ann {
        let last = client.next_of("disconnect");
        assert_eq!(
            last["data"],
            json!({
                "code": 4301,
                "reason": "disconnected",
                "message": "You were signed out everywhere",
                "reconnect": false,
                "retryAfterMs": 0,
            })
        );
        assert_eq!(client.expect_close(), (4301, "disconnected".to_owned()));
    }
    bob.quiet(100);
    assert_eq!(disconnect(&server, &body), 0);
    assert_eq!(get(&server, "/api/channels")["channels"], json!([]));
    // The token is as good as before.
    server.connect("ann").close();
    let noted = server.event_log();
    let noted = noted
        .iter()
        .find(|line| line["data"]["message"] == "disconnect")
        .expect("the event log has it");
    assert_eq!(noted["type"], "server");
    assert_eq!(noted["data"]["userId"], "ann");
    assert_eq!(noted["data"]["reason"], "You were signed out everywhere");
}

#[test]
fn one_connection_is_disconnected_by_its_name() {
    let server = Server::start(&[]);
    let mut first = server.connect("ann");
    let mut second = server.connect("ann");
    let body = json!({"connectionId": connection_id(&first)});
    assert_eq!(disconnect(&server, &body), 1);
    let last = first.next_of("disconnect");
    assert_eq!(last["data"].get("message"), None);
    assert_eq!(first.expect_close().0, 4301);
    second.quiet(100);
    for strange in ["x", "x-1", "-1", "1"] {
        assert_eq!(disconnect(&server, &json!({"connectionId": strange})), 0);
    }
    for bad in [
        json!({}),
        json!({"userId": "a", "connectionId": "b"}),
        json!({"userId": 7.5}),
        json!({"userId": ""}),
        json!({"userId": "ann", "reason": ""}),
        json!({"userId": "ann", "reason": "x".repeat(256)}),
        json!({"userId": "ann", "reason": 7}),
    ] {
        server
            .as_backend("POST", "/api/disconnect", &bad)
            .expect(400);
    }
    second.quiet(100);
}

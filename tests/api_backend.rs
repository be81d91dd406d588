//! For backends: publish, broadcast, users.

mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::{Application, Dice, Server, eventually};

#[test]
fn nothing_is_done_without_the_key() {
    let server = Server::start(&[]);
    let event = json!({"channel": "post_1", "event": {"type": "x"}});
    for (method, path) in [
        ("POST", "/api/publish"),
        ("POST", "/api/broadcast"),
        ("PUT", "/api/users"),
    ] {
        let refused = server.json(method, path, &[], &event).expect(401).json();
        assert_eq!(refused["error"], "API key required");
        let refused = server
            .as_user("u1", method, path, &event)
            .expect(401)
            .json();
        assert_eq!(refused["error"], "Invalid API key");
        let in_url = format!("{path}?key={0}&x-api-key={0}", server.api_key());
        server.json(method, &in_url, &[], &event).expect(401);
    }
}

#[test]
fn offsets_count_up_and_every_form_of_a_channel_is_the_same() {
    let server = Server::start(&[]);
    let publish = |channel: Value| {
        let body = json!({"channel": channel, "event": {"type": "liked"}});
        server
            .as_backend("POST", "/api/publish", &body)
            .expect(200)
            .json()
    };
    let first = publish(json!({"type": "post", "postId": "42"}));
    assert_eq!(first["success"], true);
    assert_eq!(first["channelKey"], "post_42");
    let second = publish(json!("post_42"));
    assert_eq!(second["epoch"], first["epoch"]);
    assert_eq!(
        second["offset"].as_u64().unwrap(),
        first["offset"].as_u64().unwrap() + 1
    );
    assert_eq!(
        publish(json!({"type": "creator", "id": 7}))["channelKey"],
        "creator_7"
    );
}

#[test]
fn a_channel_without_history_has_no_place_to_tell() {
    let server = Server::start(&[
        ("channels.chat.subscribe", "any"),
        ("channels.chat.history", "0"),
    ]);
    let body = json!({"channel": "chat_1", "event": {"type": "x"}});
    let answer = server
        .as_backend("POST", "/api/publish", &body)
        .expect(200)
        .json();
    assert_eq!(answer, json!({"success": true, "channelKey": "chat_1"}));
}

#[test]
fn what_is_no_channel_or_no_event_is_refused() {
    let server = Server::start(&[("limits.event_bytes", "1KiB")]);
    let code = |status: u16, channel: Value, event: Value| {
        let body = json!({"channel": channel, "event": event});
        let reply = server
            .as_backend("POST", "/api/publish", &body)
            .expect(status)
            .json();
        reply["code"].as_str().unwrap().to_owned()
    };
    let event = || json!({"type": "x"});
    for channel in [
        Value::Null,
        json!("post"),
        json!("feed"),
        json!("nothing_1"),
        json!({"id": 1}),
        json!([]),
    ] {
        assert_eq!(
            code(400, channel.clone(), event()),
            "invalid_channel",
            "{channel}"
        );
    }
    let bad = [
        Value::Null,
        json!("x"),
        json!([]),
        json!({}),
        json!({"type": 1}),
        json!({"type": "x", "_meta": {}}),
    ];
    for event in bad {
        assert_eq!(
            code(400, json!("post_1"), event.clone()),
            "invalid_event",
            "{event}"
        );
    }
    let large = json!({"type": "x", "d": "d".repeat(2_000)});
    assert_eq!(code(413, json!("post_1"), large), "event_too_large");
}

#[test]
fn a_repeated_publication_is_answered_and_not_delivered_again() {
    let server = Server::start(&[]);
    let mut client = server.connect("u1");
    client.subscribe("post_1");
    let publish = |key: &str, n: u64| {
        let body = json!({"channel": "post_1", "event": {"type": "x", "n": n}});
        let headers = [("X-API-Key", server.api_key()), ("Idempotency-Key", key)];
        let reply = server.json("POST", "/api/publish", &headers, &body);
        let is_replayed = reply.header("Idempotent-Replayed") == Some("true");
        (reply.expect(200).json(), is_replayed)
    };
    let (first, is_replayed) = publish("a", 1);
    assert!(!is_replayed);
    assert_eq!(publish("a", 2), (first.clone(), true));
    let (another, is_replayed) = publish("b", 3);
    assert!(another != first && !is_replayed);
    assert_eq!(client.next()["n"], 1);
    assert_eq!(client.next()["n"], 3);
}

#[test]
fn a_broadcast_reaches_each_channel_once_or_none_at_all() {
    let server = Server::start(&[]);
    let mut client = server.connect("u1");
    client.subscribe("post_1");
    client.subscribe("creator_1");
    let send = |channels: Value| {
        let body = json!({"channels": channels, "event": {"type": "x"}});
        server.as_backend("POST", "/api/broadcast", &body)
    };
    let refused = send(json!(["post_1", "nothing_1"])).expect(400).json();
    assert_eq!(refused["code"], "invalid_channel");
    send(json!([])).expect(400);
    client.quiet(100);

    let answer = send(json!(["post_1", {"type": "post", "postId": 1}, "creator_1"]))
        .expect(200)
        .json();
    assert_eq!(answer["success"], true);
    let results = answer["results"].as_array().unwrap();
    let keys: Vec<&str> = results
        .iter()
        .map(|r| r["channelKey"].as_str().unwrap())
        .collect();
    assert_eq!(keys, ["post_1", "creator_1"]);
    let mut heard: Vec<String> = (0..2)
        .map(|_| {
            client.next()["_meta"]["channel"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    heard.sort();
    assert_eq!(heard, ["creator_1", "post_1"]);
    client.quiet(100);

    let many: Vec<String> = (0..1_000).map(|n| format!("post_{n}")).collect();
    let answer = send(json!(many)).expect(200).json();
    assert_eq!(answer["results"].as_array().unwrap().len(), 1_000);
    let too_many: Vec<String> = (0..1_001).map(|n| format!("post_{n}")).collect();
    send(json!(too_many)).expect(400);
}

#[test]
fn a_wallet_belongs_to_the_user_it_was_given_last() {
    let server = Server::start(&[]);
    let wallet = Dice::from_environment().wallet();
    let put = |body: Value| server.as_backend("PUT", "/api/users", &body);
    let first = put(json!({"id": "u1", "wallet": wallet, "nickname": "Ann"}))
        .expect(200)
        .json();
    assert_eq!(
        first,
        json!({"success": true, "user": {"id": "u1", "wallet": wallet, "nickname": "Ann"}})
    );
    // What is not named stays.
    let renamed = put(json!({"id": "u1", "nickname": "Anna"}))
        .expect(200)
        .json();
    assert_eq!(renamed["user"]["wallet"], wallet);
    put(json!({"id": "u2", "wallet": wallet})).expect(200);
    let signed_in = server.json("POST", "/api/auth/wallet", &[], &json!({"wallet": wallet}));
    assert_eq!(signed_in.expect(200).json()["user"]["id"], "u2");
    for bad in [
        json!({}),
        json!({"id": ""}),
        json!({"id": "u1", "wallet": "x"}),
        json!({"id": "u1", "nickname": 7}),
    ] {
        put(bad).expect(400);
    }
}

/// What a real receiver makes of spans is in tests/system/monitoring.test.mjs.
#[test]
fn spans_go_to_the_receiver_and_nobody_waits_for_it() {
    const PATIENCE: Duration = Duration::from_secs(30);
    let receiver = Application::start("");
    let server = Server::start_with(
        &[
            ("traces.otlp_url", &receiver.url()),
            ("traces.sample", "100%"),
        ],
        &[(
            "FANFARE_TRACES__HEADERS",
            "X-Scope: a, Authorization: Bearer b",
        )],
    );
    let spans = |outcome: &str| -> u64 {
        let page = server.metrics("/metrics").expect(200);
        let name = format!("fanfare_trace_spans_total{{outcome=\"{outcome}\"}} ");
        let lines = page.text();
        let line = lines.lines().find_map(|line| line.strip_prefix(&name));
        line.unwrap().parse().unwrap()
    };
    server.publish("post_1", json!({"type": "x"}));
    eventually("spans", PATIENCE, || spans("exported") == 2);
    let asked = &receiver.asked()[0];
    assert_eq!(asked.header("content-type"), "application/x-protobuf");
    assert_eq!(asked.header("x-scope"), "a");
    assert_eq!(asked.header("authorization"), "Bearer b");
    for said in [
        "POST /api/publish",
        "publish post",
        "service.name",
        "fanfare",
    ] {
        assert!(asked.body.contains(said), "{said}");
    }

    // One that says no, and one that says nothing.
    receiver.answer(400, "");
    server.publish("post_1", json!({"type": "x"}));
    eventually("a refusal", PATIENCE, || spans("refused") == 2);
    receiver.delay(Duration::from_secs(60));
    for _ in 0..100 {
        server.publish("post_1", json!({"type": "x"}));
    }
    assert_eq!(spans("exported"), 2);
    assert!(!server.output().contains("Bearer b"));
}

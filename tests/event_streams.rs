//! Server-sent events at `/sse`: the same messages as over a WebSocket, from where the stream stood.

#![allow(clippy::unwrap_used)] // clippy knows the tests, not what they share

mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::{EventStream, Raw, Server, eventually};

const MANY_REQUESTS: (&str, &str) = ("limits.requests_per_second", "1000");

#[test]
fn a_stream_says_what_a_socket_says() {
    let server = Server::start(&[
        ("channels.live.subscribe", "any"),
        ("channels.live.history", "0"),
    ]);
    server.notify("u1", "before");
    let mut socket = server.connect("u1");
    let token = server.token("u1");
    let path = format!("/sse?channels=post_1,live_1,notifications,secret_1,NO&token={token}");
    let mut stream = EventStream::open(&server, &path, &[]).unwrap();
    for (name, value) in [
        ("content-type", "text/event-stream"),
        ("cache-control", "no-store"),
        ("x-accel-buffering", "no"),
        ("connection", "close"),
    ] {
        assert_eq!(stream.reply.header(name), Some(value), "{name}");
    }
    assert!(stream.reply.header("date").unwrap().ends_with(" GMT"));
    assert_eq!(stream.reply.header("content-length"), None);
    assert_eq!(stream.reply.header("transfer-encoding"), None);
    let greeting = stream.next();
    assert_eq!(greeting["type"], "connected");
    assert_eq!(greeting["data"]["userId"], "u1");
    assert!(stream.retry_ms.unwrap() >= 1_000);
    for channel in ["post_1", "live_1", "notifications"] {
        let subscribed = stream.next();
        let mut same = socket.subscribe(channel);
        assert_eq!(subscribed, same.take());
        if channel == "notifications" {
            assert_eq!(stream.next(), socket.next_of("unread_notifications"));
        }
    }
    for (channel, code) in [("secret_1", "access_denied"), ("NO", "invalid_channel")] {
        let refused = stream.next();
        assert_eq!(refused["data"]["code"], code);
        assert_eq!(refused["data"]["channel"], channel);
    }
    // In any order of spaces and lines, to the byte where they mean something.
    for event in [
        r#"{"type":"liked","n":1.50,"é":"\u00e9 \n"}"#,
        "{\"type\" :\n\t\"liked\",\r\n\r\n \"n\":2}",
    ] {
        let body = format!(r#"{{"channel":"post_1","event":{event}}}"#);
        let headers = [
            ("X-API-Key", server.api_key()),
            ("Content-Type", "application/json"),
        ];
        server
            .http("POST", "/api/publish", &headers, &body)
            .expect(200);
        assert_eq!(stream.next(), socket.next());
        if !event.contains('\n') {
            assert_eq!(stream.last_text, socket.last_text);
        }
    }
    let before = stream.last_event_id.clone();
    server.publish("live_1", json!({"type": "tick"}));
    assert_eq!(stream.next(), socket.next());
    assert_eq!(stream.last_event_id, before, "it has no place in a history");
    server.notify("u1", "now");
    assert_eq!(stream.next(), socket.next());
    let id = &stream.last_event_id;
    assert!(id.starts_with("post_1@"), "{id}");
    assert!(id.contains(":2,notifications_u1@"), "{id}");

    let listed = server.as_backend("GET", "/api/connections?user=u1", &json!(null));
    let listed = listed.expect(200).json();
    let transports: Vec<&Value> = listed["connections"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["transport"])
        .collect();
    assert_eq!(transports, ["websocket", "sse"]);
    assert_eq!(server.stats()["activeConnections"], 2);
    assert_eq!(server.stats()["server"]["eventStreams"], 1);
    drop(stream);
    eventually("the stream is gone", Duration::from_secs(10), || {
        server.stats()["server"]["eventStreams"] == 0
    });
    assert_eq!(server.stats()["connectionsByChannel"]["post_1"], 1);
}

#[test]
fn a_stream_is_taken_up_where_it_was_left_whatever_happened_to_the_server() {
    let mut server = Server::start(&[MANY_REQUESTS]);
    let channels = "post_1,post_2,post_%C3%A9%252C";
    let mut stream = EventStream::follow(&server, "u1", channels, "");
    for _ in 0..3 {
        assert_eq!(stream.next()["type"], "subscribed");
    }
    let (mut last, mut expected) = ([0; 3], [0; 3]);
    let keys = ["post_1", "post_2", "post_é%2C"];
    let publish = |server: &Server, expected: &mut [u64; 3], at: usize| {
        expected[at] += 1;
        server.publish(keys[at], json!({"type": "tick", "n": expected[at]}));
    };
    let hear = |stream: &mut EventStream, last: &mut [u64; 3]| {
        let message = stream.next();
        let channel = &message["_meta"]["channel"];
        let at = keys.iter().position(|key| channel == key).unwrap();
        last[at] += 1;
        assert_eq!(message["n"], last[at]);
        assert_eq!(message["_meta"]["offset"], last[at]);
    };
    for round in 0..6 {
        for at in [0, 1, 2, 0] {
            publish(&server, &mut expected, at);
        }
        // Not all is heard: the rest comes again, and nothing twice.
        let heard = round % 5;
        for _ in 0..heard {
            hear(&mut stream, &mut last);
        }
        let id = stream.last_event_id.clone();
        match round {
            0 | 3 => {
                server.kill();
                server.restart();
            }
            1 => {
                server.terminate();
                server.restart();
            }
            _ => drop(stream),
        }
        publish(&server, &mut expected, 1);
        // An id in the query is as good.
        stream = if round % 2 == 0 {
            EventStream::follow(&server, "u1", channels, &id)
        } else {
            let id: String = url_encoded(&id);
            let with_id = format!("{channels}&lastEventId={id}");
            EventStream::follow(&server, "u1", &with_id, "")
        };
        let mut subscribed = 0;
        while last != expected || subscribed < 3 {
            if subscribed < 3 && missing(&last, &expected, subscribed) {
                let message = stream.next();
                assert_eq!(message["type"], "subscribed");
                assert_eq!(message["data"]["recovered"], true, "round {round}");
                subscribed += 1;
            } else {
                hear(&mut stream, &mut last);
            }
        }
        stream.quiet(20);
    }
}

/// Whether the next message is that the channel after `subscribed` others is followed: what those missed
/// comes first.
fn missing(last: &[u64; 3], expected: &[u64; 3], subscribed: usize) -> bool {
    last[..subscribed] == expected[..subscribed]
}

fn url_encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[test]
fn what_cannot_be_taken_up_is_told() {
    let server = Server::start(&[("channels.post.history", "2")]);
    let mut stream = EventStream::follow(&server, "u1", "post_1", "");
    stream.next();
    server.publish("post_1", json!({"type": "tick"}));
    stream.next();
    let id = stream.last_event_id.clone();
    drop(stream);
    for _ in 0..3 {
        server.publish("post_1", json!({"type": "tick"}));
    }
    for (id, reason) in [(id.as_str(), "too_far"), ("what?", "epoch_changed")] {
        let mut stream = EventStream::follow(&server, "u1", "post_1", id);
        let data = stream.next()["data"].take();
        assert_eq!(data["recovered"], false);
        assert_eq!(data["reason"], reason);
        stream.quiet(20);
        assert!(
            stream.last_event_id.ends_with(":4"),
            "{}",
            stream.last_event_id
        );
    }
}

#[test]
fn who_may_not_have_one_is_told_by_a_status() {
    let server = Server::start(&[
        MANY_REQUESTS,
        ("limits.connections_per_user", "1"),
        ("server.allowed_origins", "https://app.example"),
    ]);
    let token = server.token("u1");
    let good = format!("/sse?channels=post_1&token={token}");
    let refused =
        |path: &str, headers: &[(&str, &str)]| match EventStream::open(&server, path, headers) {
            Ok(_) => panic!("{path} {headers:?} is not refused"),
            Err(reply) => (
                reply.status,
                reply.json()["code"].as_str().unwrap().to_owned(),
            ),
        };
    let told = |status, code: &str| (status, code.to_owned());
    assert_eq!(refused("/sse?channels=post_1", &[]), told(401, "no_token"));
    assert_eq!(
        refused("/sse?channels=post_1&token=x", &[]),
        told(401, "invalid_token")
    );
    let expired = server.token_with(&json!({"userId": "u1", "exp": 1}));
    let path = format!("/sse?channels=post_1&token={expired}");
    assert_eq!(refused(&path, &[]).0, 401);
    let bearer = format!("Bearer {token}");
    let bearer = ("Authorization", bearer.as_str());
    assert_eq!(refused("/sse", &[bearer]), told(400, "missing_fields"));
    assert_eq!(refused("/sse?channels=,", &[bearer]).0, 400);
    let many: Vec<String> = (0..129).map(|n| format!("post_{n}")).collect();
    let path = format!("/sse?channels={}", many.join(","));
    assert_eq!(refused(&path, &[bearer]), told(400, "limit_reached"));
    assert_eq!(
        refused(&good, &[("Accept", "application/json")]),
        told(406, "not_acceptable")
    );
    assert_eq!(
        refused(&good, &[("Origin", "https://evil.example")]),
        told(403, "origin_not_allowed")
    );
    let reply = server.http("POST", &good, &[], "").expect(405);
    assert_eq!(reply.header("allow"), Some("GET, HEAD, OPTIONS"));
    let origin = ("Origin", "https://app.example");
    let asks = ("Access-Control-Request-Method", "GET");
    let preflight = server
        .http("OPTIONS", "/sse", &[origin, asks], "")
        .expect(204);
    assert_eq!(preflight.header("allow"), Some("GET, HEAD, OPTIONS"));
    let allowed = preflight.header("access-control-allow-headers").unwrap();
    assert!(allowed.contains("Authorization") && allowed.contains("Last-Event-ID"));
    let head = server.http("HEAD", &good, &[origin], "").expect(200);
    assert_eq!(head.header("content-type"), Some("text/event-stream"));
    assert!(head.body.is_empty());
    server.http("HEAD", "/sse", &[], "").expect(401);

    // By header, and in the query; the page of another host may read what it may ask for.
    let accept = ("Accept", "text/event-stream");
    let mut stream =
        EventStream::open(&server, "/sse?channels=post_1", &[bearer, accept, origin]).unwrap();
    assert_eq!(
        stream.reply.header("access-control-allow-origin"),
        Some(origin.1)
    );
    assert_eq!(stream.next()["type"], "connected");
    assert_eq!(refused(&good, &[]), told(429, "limit_reached"));
    drop(stream);
    eventually("its place is free", Duration::from_secs(10), || {
        EventStream::open(&server, &good, &[]).is_ok()
    });
}

#[test]
fn a_stream_ends_with_a_word_and_with_advice() {
    let mut server = Server::start(&[("server.shutdown_grace", "2s")]);
    let mut stream = EventStream::follow(&server, "u1", "post_1", "");
    stream.next();
    let body = json!({"userId": "u1", "reason": "enough"});
    server
        .as_backend("POST", "/api/disconnect", &body)
        .expect(200);
    let farewell = stream.next();
    assert_eq!(farewell["data"]["code"], 4301);
    assert_eq!(farewell["data"]["message"], "enough");
    assert_eq!(farewell["data"]["reconnect"], false);
    assert!(
        stream.retry_ms.unwrap() > 60_000,
        "as far as it can be told"
    );
    stream.expect_end();

    // Its token is about to end: a stream cannot go on with another.
    let now = server.claims("u1")["iat"].as_u64().unwrap();
    let mut claims = server.claims("u1");
    claims["exp"] = json!(now + 6);
    let token = server.token_with(&claims);
    let path = format!("/sse?channels=post_1&token={token}");
    let mut stream = EventStream::open(&server, &path, &[]).unwrap();
    let mut types = Vec::new();
    loop {
        let message = stream.next();
        types.push(message["type"].as_str().unwrap().to_owned());
        if message["type"] == "disconnect" {
            assert_eq!(message["data"]["code"], 4101);
            break;
        }
    }
    types.sort();
    assert_eq!(
        types,
        ["connected", "disconnect", "subscribed", "token_expiring"]
    );
    stream.expect_end();

    let mut stream = EventStream::follow(&server, "u1", "post_1", "");
    stream.next();
    server.publish("post_1", json!({"type": "last"}));
    let (status, _) = server.terminate();
    assert!(status.success());
    assert_eq!(stream.next()["type"], "last");
    let farewell = stream.next();
    assert_eq!(farewell["data"]["code"], 4100);
    assert_eq!(farewell["data"]["retryAfterMs"], stream.retry_ms.unwrap());
    stream.expect_end();
}

#[test]
fn a_stream_that_is_not_read_goes_by_the_rule_of_its_channel() {
    let server = Server::start(&[
        MANY_REQUESTS,
        ("channels.live.subscribe", "any"),
        ("channels.live.slow", "drop_oldest"),
        ("channels.live.durability", "relaxed"),
        ("channels.live.history", "10000"),
        ("limits.queue_bytes", "256KiB"),
    ]);
    let mut slow = EventStream::follow(&server, "slow", "live_1,post_1", "");
    slow.next();
    slow.next();
    let text = "x".repeat(40_000);
    let dropped = || server.stats()["server"]["dropped"].as_u64().unwrap();
    let mut last = 0;
    while dropped() < 20 {
        last += 1;
        assert!(last < 2_000);
        server.publish("live_1", json!({"type": "tick", "n": last, "x": text}));
    }
    let (mut heard, mut gaps) = (0, 0);
    while heard < last {
        let message = slow.next();
        if message["type"] == "gap" {
            let data = &message["data"];
            assert_eq!(data["recover"]["offset"], heard);
            let at = format!(
                "live_1@{}:{heard}",
                data["recover"]["epoch"].as_str().unwrap()
            );
            let id = &slow.last_event_id;
            assert!(id == &at || id.starts_with(&format!("{at},")), "{id}");
            heard += data["dropped"].as_u64().unwrap();
            gaps += 1;
        } else {
            heard += 1;
            assert_eq!(message["n"], heard);
        }
    }
    assert!(gaps > 0);
    // What must be complete closes it, in a place where it can be taken up.
    let closed = || server.closed_as_too_slow() == 1;
    let mut sent = 0;
    while !closed() {
        sent += 1;
        assert!(sent < 2_000);
        server.publish("post_1", json!({"type": "kept", "n": sent, "x": text}));
    }
    let mut kept = 0;
    loop {
        let message = slow.next();
        if message["type"] == "disconnect" {
            assert_eq!(message["data"]["code"], 4102);
            break;
        }
        kept += 1;
        assert_eq!(message["n"], kept);
    }
    slow.expect_end();
    assert!(kept < sent);
    assert!(slow.last_event_id.ends_with(&format!(":{kept}")));
}

#[test]
fn whatever_a_client_says_on_a_stream_is_passed_over() {
    let server = Server::start(&[]);
    let token = server.token("u1");
    let mut raw = Raw::open(server.addr());
    // An answer before, a body that nobody wants, another request behind.
    let asked = format!(
        "GET /health HTTP/1.1\r\nHost: x\r\n\r\n\
         GET /sse?channels=post_1&token={token} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello\
         GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
    );
    assert!(raw.send(asked.as_bytes()));
    assert_eq!(raw.reply().unwrap().status, 200);
    assert!(raw.send(&[0x81, 0x80, 0, 0, 0, 0]));
    eventually("it is there", Duration::from_secs(10), || {
        server.stats()["server"]["eventStreams"] == 1
    });
    server.publish("post_1", json!({"type": "tick"}));
    raw.finish();
    let rest = String::from_utf8(raw.rest(Duration::from_secs(10))).unwrap();
    assert!(
        rest.starts_with("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"),
        "{rest}"
    );
    assert!(rest.contains("\"type\":\"connected\""), "{rest}");
    eventually("it is gone", Duration::from_secs(10), || {
        server.stats()["activeConnections"] == 0
    });
}

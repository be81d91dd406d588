//! Ping, mistakes, ids, and the bounds on what one socket may ask. Contract sections 4 and 6.

#![allow(clippy::unwrap_used)] // clippy knows the tests, not what they share

mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::{Server, eventually};
use tungstenite::Message;

#[test]
fn every_reply_repeats_the_id_of_its_command() {
    let server = Server::start(&[]);
    let mut client = server.connect("u1");
    client.send(&json!({"type": "ping"}));
    assert_eq!(client.next(), json!({"type": "pong"}));
    for id in [
        json!(7),
        json!("a \"b\" \u{1f600}"),
        json!(-1.5),
        json!(u64::MAX),
    ] {
        for (command, reply) in [
            (json!({"type": "ping"}), "pong"),
            (
                json!({"type": "subscribe", "channel": "post_1"}),
                "subscribed",
            ),
            (json!({"type": "history", "channel": "post_1"}), "history"),
            (
                json!({"type": "unsubscribe", "channel": "post_1"}),
                "unsubscribed",
            ),
            (
                json!({"type": "refresh", "token": server.token("u1")}),
                "refreshed",
            ),
            (json!({"type": "subscribe", "channel": "feed_u2"}), "error"),
            (json!({"type": "subscribe", "channel": 7}), "error"),
            (json!({"type": "subscribe"}), "error"),
            (json!({"type": "dance"}), "error"),
        ] {
            let mut command = command;
            command["id"] = id.clone();
            client.send(&command);
            let answer = client.next();
            assert_eq!(answer["type"], reply, "{}", client.tell());
            assert_eq!(answer["id"], id, "{}", client.tell());
        }
    }
}

#[test]
fn what_is_no_command_is_answered_and_does_no_harm() {
    let server = Server::start(&[]);
    let mut client = server.connect("u1");
    let invalid = json!({"type": "error", "data":
        {"message": "Invalid message format", "code": "invalid_format"}});
    let deep = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
    for text in [
        "",
        "ping",
        "{",
        "null",
        "7",
        "[]",
        "{}",
        r#"{"type":7}"#,
        r#"{"channel":"post_1"}"#,
        r#"[{"type":"ping"}]"#,
        r#"{"type":"ping"}{"type":"ping"}"#,
        "\0",
        "\u{feff}{}",
        &deep,
        &format!(r#"{{"type":{deep}}}"#),
    ] {
        client.send_text(text);
        assert_eq!(client.next(), invalid, "{}", client.tell());
    }
    // Depth where any JSON may stand is skipped, not descended into.
    client.send_text(&format!(r#"{{"type":"ping","deep":{deep}}}"#));
    assert_eq!(client.next(), json!({"type": "pong"}));
    // As deep as this client can read what is repeated to it.
    let shallow = format!("{}{}", "[".repeat(100), "]".repeat(100));
    client.send_text(&format!(r#"{{"type":"subscribe","channel":{shallow}}}"#));
    assert_eq!(client.next()["data"]["code"], "invalid_channel");
    client.send_binary(br#"{"type":"ping"}"#);
    assert_eq!(client.next(), invalid);
    client.send(&json!({"type": "PING"}));
    assert_eq!(
        client.next(),
        json!({"type": "error", "data": {"message": "Unknown message type", "code": "unknown_type"}})
    );
    client.send(&json!({"type": "ping"}));
    assert_eq!(client.next(), json!({"type": "pong"}));
}

#[test]
fn commands_sent_at_once_are_answered_in_their_order() {
    let server = Server::start(&[("limits.commands_per_second", "0")]);
    let mut client = server.connect("u1");
    for id in 0..500 {
        let command = match id % 5 {
            0 => json!({"type": "subscribe", "channel": "post_1", "id": id}),
            1 => json!({"type": "ping", "id": id}),
            2 => json!({"type": "history", "channel": "post_1", "id": id}),
            3 => json!({"type": "unsubscribe", "channel": "post_1", "id": id}),
            _ => json!({"type": "nonsense", "id": id}),
        };
        client.send(&command);
    }
    for id in 0..500 {
        assert_eq!(client.next()["id"], id, "{}", client.tell());
    }
}

#[test]
fn too_many_commands_are_refused_and_a_hundred_refusals_are_the_end() {
    let server = Server::start(&[("limits.commands_per_second", "2")]);
    let mut client = server.connect("u1");
    let mut neighbour = server.connect("u1");
    // The bucket refills while this runs; what counts is that the end comes.
    for _ in 0..400 {
        if client
            .try_send(Message::text(r#"{"type":"ping","id":1}"#))
            .is_err()
        {
            break;
        }
    }
    let mut refused_in_a_row = 0;
    let mut answered = 0;
    loop {
        let message = client.next();
        match message["type"].as_str().unwrap() {
            "pong" => {
                answered += 1;
                refused_in_a_row = 0;
            }
            "error" => {
                assert_eq!(
                    message,
                    json!({"type": "error", "id": 1, "data":
                        {"message": "Too many messages", "code": "rate_limited"}})
                );
                refused_in_a_row += 1;
            }
            _ => {
                assert_eq!(message["type"], "disconnect");
                assert_eq!(message["data"]["code"], 4303);
                assert_eq!(message["data"]["reconnect"], false);
                break;
            }
        }
    }
    assert!(
        answered >= 10,
        "the burst is five seconds' worth: {answered}"
    );
    assert_eq!(refused_in_a_row, 100);
    assert_eq!(client.expect_close(), (4303, "too many errors".to_string()));
    neighbour.send(&json!({"type": "ping"}));
    assert_eq!(neighbour.next(), json!({"type": "pong"}));
    let log = server.event_log();
    assert!(log.iter().all(|line| line["type"] != "error"), "{log:?}");
}

#[test]
fn what_is_refused_is_a_line_in_the_event_log() {
    let server = Server::start(&[]);
    let mut client = server.connect("u1");
    for (command, code, channel) in [
        (
            json!({"type": "subscribe", "channel": {"type": "feed", "userId": "u2"}}),
            "access_denied",
            json!("feed_u2"),
        ),
        (
            json!({"type": "publish", "channel": "post_1", "event": {"type": "x"}}),
            "access_denied",
            json!("post_1"),
        ),
        (
            json!({"type": "history", "channel": {"type": "post"}}),
            "invalid_channel",
            json!(r#"{"type":"post"}"#),
        ),
        (json!({"type": "dance"}), "unknown_type", Value::Null),
        (json!(7), "invalid_format", Value::Null),
    ] {
        client.send(&command);
        assert_eq!(client.next()["data"]["code"], code);
        let mut line = Value::Null;
        eventually("its line", Duration::from_secs(5), || {
            let mut lines = server.event_log();
            lines.retain(|line| line["type"] == "error");
            line = lines.pop().unwrap_or_default();
            line["data"]["reason"] == code && line["data"]["channel"] == channel
        });
        assert_eq!(line["data"]["userId"], "u1");
    }
    // Only what is no command at all is one of the errors there.
    assert_eq!(server.stats()["errors"], 1);
}

#[test]
fn a_socket_follows_so_many_channels_with_keys_so_long() {
    let server = Server::start(&[
        ("limits.channels_per_connection", "2"),
        ("limits.channel_key_bytes", "20"),
    ]);
    let mut client = server.connect("u1");
    client.subscribe("post_1");
    client.subscribe("post_2");
    let third = json!({"type": "subscribe", "channel": {"type": "post", "postId": 3}});
    client.send(&third);
    assert_eq!(
        client.next(),
        json!({"type": "error", "data": {"message": "Too many channels",
            "channel": {"type": "post", "postId": 3}, "code": "limit_reached"}})
    );
    client.subscribe("post_2");
    client.send(&json!({"type": "unsubscribe", "channel": "post_1"}));
    client.next_of("unsubscribed");
    client.send(&third);
    client.next_of("subscribed");
    let mut other = server.connect("u1");
    other.subscribe(format!("post_{}", "x".repeat(15)));
    let long = format!("post_{}", "x".repeat(16));
    other.send(&json!({"type": "subscribe", "channel": long}));
    assert_eq!(
        other.next(),
        json!({"type": "error", "data":
            {"message": "Invalid channel", "channel": long, "code": "invalid_channel"}})
    );
}

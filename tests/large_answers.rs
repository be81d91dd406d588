//! Answers larger than a connection's queue: they are cut to what fits or sent page by page, and no reason to call a
//! client that reads too slow. It would come back, ask again, and never get further.

#![allow(
    clippy::unwrap_used,
    reason = "what does not work here has to fail the test"
)]

mod support;

use serde_json::{Value, json};
use support::{Client, Server};

/// Together nearly twice the default queue of 1 MiB.
const EVENTS: u64 = 30;
const BYTES: usize = 60_000;

fn with_history() -> (Server, Value) {
    let server = Server::start(&[]);
    let mut first = Value::Null;
    for n in 1..=EVENTS {
        let event = json!({"type": "e", "n": n, "padding": "x".repeat(BYTES)});
        let body = json!({"channel": "post_1", "event": event});
        let published = server
            .as_backend("POST", "/api/publish", &body)
            .expect(200)
            .json();
        if n == 1 {
            first = published;
        }
    }
    (server, first)
}

#[track_caller]
fn still_lives(client: &mut Client) {
    client.send(&json!({"type": "ping"}));
    client.next_of("pong");
}

#[test]
fn who_missed_more_than_fits_gets_it_all_the_same() {
    let (server, first) = with_history();
    let subscribe = |offset: u64| {
        let recover = json!({"epoch": first["epoch"], "offset": offset});
        json!({"type": "subscribe", "channel": "post_1", "recover": recover})
    };
    let mut client = server.connect("u1");
    client.send(&subscribe(0));
    let subscribed = client.next_of("subscribed");
    assert_eq!(subscribed["data"]["recovered"], true);
    assert_eq!(subscribed["data"]["offset"], EVENTS);
    for n in 1..=EVENTS {
        assert_eq!(client.next()["n"], n);
    }
    still_lives(&mut client);
    client.quiet(50);

    let mut client = server.connect("u1");
    client.send(&subscribe(EVENTS - 3));
    assert_eq!(client.next_of("subscribed")["data"]["recovered"], true);
    for n in EVENTS - 2..=EVENTS {
        assert_eq!(client.next()["n"], n);
    }
    still_lives(&mut client);
}

#[test]
fn positions_that_cannot_be_are_no_position() {
    let (server, first) = with_history();
    for offset in [EVENTS + 1, u64::MAX - 1, u64::MAX] {
        let mut client = server.connect("u1");
        let recover = json!({"epoch": first["epoch"], "offset": offset});
        client.send(&json!({"type": "subscribe", "channel": "post_1", "recover": recover}));
        let subscribed = client.next_of("subscribed");
        assert_eq!(subscribed["data"]["recovered"], false, "{offset}");
        for before in [0, 1, offset] {
            client.send(
                &json!({"type": "history", "channel": "post_1", "before": before, "limit": 0}),
            );
            assert_eq!(client.next_of("history")["data"]["events"], json!([]));
        }
    }
}

#[test]
fn a_page_of_history_is_as_long_as_fits() {
    let (server, _) = with_history();
    let mut client = server.connect("u1");
    let mut before = EVENTS + 1;
    while before > 1 {
        // Two at once, so that one waits behind the other.
        let command = json!({"type": "history", "channel": "post_1", "before": before});
        client.send(&command);
        client.send(&command);
        let page = client.next_of("history");
        assert_eq!(page, client.next_of("history"));
        let events = page["data"]["events"].as_array().unwrap();
        assert!(!events.is_empty(), "nothing before {before}");
        for event in events.iter().rev() {
            before -= 1;
            assert_eq!(event["_meta"]["offset"], before);
        }
    }
    still_lives(&mut client);
}

#[test]
fn the_unread_list_is_as_long_as_fits() {
    let server = Server::start(&[]);
    for n in 0..20 {
        let body = json!({
            "userId": "u1", "type": "t", "title": n.to_string(), "message": "x".repeat(BYTES),
        });
        server
            .as_backend("POST", "/api/user/notifications", &body)
            .expect(201);
    }
    let mut client = server.connect("u1");
    client.subscribe("notifications");
    let unread = client.next_of("unread_notifications");
    assert_eq!(unread["data"]["count"], 20);
    let notifications = unread["data"]["notifications"].as_array().unwrap();
    assert_eq!(notifications[0]["title"], "19");
    assert!(notifications.len() >= 4, "{}", notifications.len());
    still_lives(&mut client);
}

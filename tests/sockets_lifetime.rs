//! A socket does not outlive its token, unless it is shown a newer one. Contract section 4.

#![allow(clippy::unwrap_used)] // clippy knows the tests, not what they share

mod support;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{Client, Server, eventually};

/// A socket whose token ends at this second since 1970, and that second.
fn ending_in(server: &Server, user: &str, seconds: u64) -> (Client, u64) {
    let (token, ends) = token_for(server, user, seconds);
    let path = format!("/ws?token={token}");
    (server.connect_with(&path, &[]).unwrap().greeted(), ends)
}

fn token_for(server: &Server, user: &str, seconds: u64) -> (String, u64) {
    let mut claims = server.claims(user);
    let ends = claims["iat"].as_u64().unwrap() + seconds;
    claims["exp"] = json!(ends);
    (server.token_with(&claims), ends)
}

#[test]
fn a_socket_ends_with_its_token_after_a_warning() {
    let server = Server::start(&[]);
    let (mut client, _) = ending_in(&server, "u1", 3);
    let expires_at = client.greeting["data"]["expiresAt"].clone();
    client.subscribe("post_1");
    assert_eq!(
        client.next_of("token_expiring"),
        json!({"type": "token_expiring", "data": {"expiresAt": expires_at}})
    );
    server.publish("post_1", json!({"type": "tick"}));
    client.next_of("tick");
    let announced = client.expect_disconnect(4101, "token expired");
    assert_eq!(announced["data"]["retryAfterMs"], 0);
    eventually("the socket is gone", Duration::from_secs(5), || {
        server.stats()["activeConnections"] == 0
    });
    assert_eq!(server.stats()["connectionsByChannel"], json!({}));
}

#[test]
#[allow(clippy::disallowed_methods, reason = "measures a process from outside")]
fn the_warning_comes_a_minute_before_the_end() {
    let server = Server::start(&[]);
    let (mut client, _) = ending_in(&server, "u1", 63);
    client.quiet(1_000);
    let start = Instant::now();
    assert_eq!(client.next()["type"], "token_expiring");
    assert!(start.elapsed() < Duration::from_secs(3));
    client.quiet(200);
}

#[test]
fn a_newer_token_keeps_the_socket_open() {
    let server = Server::start(&[]);
    let (mut client, _) = ending_in(&server, "u1", 2);
    client.subscribe("feed");
    client.next_of("token_expiring");
    let mut claims = server.claims("u1");
    claims["exp"] = json!(4_102_444_800_u64);
    client.send(&json!({"type": "refresh", "token": server.token_with(&claims), "id": 3}));
    assert_eq!(
        client.next(),
        json!({"type": "refreshed", "id": 3, "data": {"expiresAt": "2100-01-01T00:00:00.000Z"}})
    );
    client.quiet(2_500);
    server.publish("feed_u1", json!({"type": "tick"}));
    assert_eq!(client.next()["type"], "tick");
    assert_eq!(server.stats()["activeConnections"], 1);
}

#[test]
fn only_a_good_token_of_the_same_user_is_taken() {
    let server = Server::start(&[]);
    let (mut client, _) = ending_in(&server, "u1", 3);
    client.next_of("token_expiring");
    let expired = token_for(&server, "u1", 0).0;
    let mut foreign = server.claims("u1");
    foreign["iss"] = json!("somebody");
    for token in [
        String::new(),
        "nonsense".to_string(),
        server.token("u2"),
        server.token("u11"),
        expired,
        server.token_with(&foreign),
    ] {
        client.send(&json!({"type": "refresh", "token": token}));
        assert_eq!(
            client.next(),
            json!({"type": "error", "data": {"message": "Invalid token", "code": "invalid_token"}})
        );
    }
    let refused = |lines: Vec<Value>| -> Vec<String> {
        let failures = lines.iter().filter(|line| line["type"] == "auth_failure");
        let of_user = failures.filter(|line| line["data"]["userId"] == "u1");
        of_user
            .map(|line| line["data"]["reason"].as_str().unwrap().to_owned())
            .collect()
    };
    eventually("the refusals are logged", Duration::from_secs(5), || {
        refused(server.event_log()).len() == 6
    });
    assert_eq!(
        refused(server.event_log())[2..5],
        ["other_user", "other_user", "expired"]
    );
    assert_eq!(server.stats()["authFailures"], 6);
    client.expect_disconnect(4101, "token expired");
}

#[test]
fn what_the_newer_token_no_longer_names_ends_and_the_rest_goes_on() {
    let server = Server::start(&[("channels.room.subscribe", "token")]);
    let naming = |channels: Value| {
        let mut claims = server.claims("u1");
        claims["channels"] = channels;
        server.token_with(&claims)
    };
    let path = format!("/ws?token={}", naming(json!(["room_7", "room_8"])));
    let mut client = server.connect_with(&path, &[]).unwrap().greeted();
    for channel in ["room_7", "room_8", "post_1"] {
        client.subscribe(channel);
    }
    client.send(&json!({"type": "refresh", "token": naming(json!(["room_8", "room_9"]))}));
    assert_eq!(client.next()["type"], "refreshed");
    assert_eq!(
        client.next(),
        json!({"type": "unsubscribed", "data": {"channel": "room_7", "channelKey": "room_7"}})
    );
    for channel in ["room_7", "room_8", "post_1"] {
        server.publish(channel, json!({"type": "tick"}));
    }
    for channel in ["room_8", "post_1"] {
        assert_eq!(client.next()["_meta"]["channel"], channel);
    }
    client.quiet(50);
    client.send(&json!({"type": "subscribe", "channel": "room_7"}));
    assert_eq!(client.next()["data"]["code"], "access_denied");
    client.subscribe("room_9");
}

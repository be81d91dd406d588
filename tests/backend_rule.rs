//! The rule `backend`: the application is asked, and whatever goes wrong is a no.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test takes the time, and what is not there has to fail it"
)]

mod support;

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use serde_json::{Value, json};
use support::{Application, Client, Server};

const SECRET: &str = "the key of the signatures, for tests alone";

/// A server whose rooms are the application's to open, with these settings beside.
fn start(url: &str, settings: &[(&str, &str)]) -> Server {
    let mut all = vec![
        ("channels.room.subscribe", "backend"),
        ("channels.room.publish", "backend"),
        ("channels.room.presence", "true"),
        ("channels.backend.url", url),
    ];
    all.extend(settings);
    Server::start_with(&all, &[("FANFARE_CHANNELS__BACKEND__SECRET", SECRET)])
}

/// `subscribed`, or the code of the error.
#[track_caller]
fn subscribe(client: &mut Client, channel: &str) -> String {
    client.send(&json!({"type": "subscribe", "channel": channel}));
    outcome(client, channel)
}

#[track_caller]
fn outcome(client: &mut Client, channel: &str) -> String {
    let reply = client.next();
    let data = &reply["data"];
    match reply["type"].as_str().unwrap() {
        "error" => {
            assert_eq!(data["message"], "Access denied to channel");
            assert_eq!(data["channel"], channel);
            data["code"].as_str().unwrap().to_owned()
        }
        other => other.to_owned(),
    }
}

/// `fanfare_access_backend_total` by outcome.
fn counted(server: &Server) -> BTreeMap<String, u64> {
    let metrics = server.metrics("/metrics").expect(200);
    let lines = metrics.text().lines();
    let found = lines.filter_map(|line| {
        let rest = line.strip_prefix("fanfare_access_backend_total{outcome=\"")?;
        let (outcome, count) = rest.split_once("\"} ")?;
        Some((outcome.to_owned(), count.parse().unwrap()))
    });
    found.collect()
}

#[test]
fn the_application_is_asked_with_a_signature_and_its_answer_counts() {
    let application = Application::start(r#"{"allow":true}"#);
    let server = start(&application.url(), &[]);
    let mut claims = server.claims("ann");
    claims["wallet"] = json!("So11111111111111111111111111111111111111112");
    let path = format!("/ws?token={}", server.token_with(&claims));
    let mut ann = server.connect_with(&path, &[]).unwrap().greeted();
    assert_eq!(subscribe(&mut ann, "room_a_1"), "subscribed");

    let asked = application.asked();
    assert_eq!(asked.len(), 1);
    let question = &asked[0];
    assert_eq!(question.line, "POST /access?from=fanfare HTTP/1.1");
    assert_eq!(question.header("content-type"), "application/json");
    assert_eq!(
        question.json(),
        json!({
            "userId": "ann",
            "wallet": "So11111111111111111111111111111111111111112",
            "channel": {"type": "room", "id": "a_1"},
            "channelKey": "room_a_1",
            "action": "subscribe",
            "connectionId": ann.greeting["data"]["connectionId"],
        })
    );
    let signature = question.header("x-fanfare-signature");
    let (time, hex) = signature
        .strip_prefix("t=")
        .and_then(|rest| rest.split_once(",v1="))
        .unwrap_or_else(|| panic!("{signature}"));
    let now = server.claims("x")["iat"].as_u64().unwrap();
    assert!(now.abs_diff(time.parse().unwrap()) < 30, "{signature}");
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let tag: Vec<u8> = (0..hex.len() / 2)
        .map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap())
        .collect();
    let signed = format!("{time}.{}", question.body);
    hmac::verify(&key, signed.as_bytes(), &tag).expect("the signature is good");

    // Publishing is another question.
    application.answer(200, r#"{"allow":false}"#);
    let event = json!({"type": "x"});
    ann.send(&json!({"type": "publish", "channel": "room_a_1", "event": event}));
    assert_eq!(outcome(&mut ann, "room_a_1"), "access_denied");
    assert_eq!(application.asked()[1].json()["action"], "publish");
    // Looking back and seeing who is there need what subscribing needs, which is known.
    ann.send(&json!({"type": "history", "channel": "room_a_1"}));
    assert_eq!(outcome(&mut ann, "room_a_1"), "history");
    ann.send(&json!({"type": "presence", "channel": "room_a_1"}));
    assert_eq!(outcome(&mut ann, "room_a_1"), "presence");
    assert_eq!(application.asked().len(), 2);
}

#[test]
fn whatever_is_no_yes_is_a_no() {
    let application = Application::start("");
    let server = start(&application.url(), &[("channels.backend.cache_ttl", "0s")]);
    let mut ann = server.connect("ann");
    for (status, body) in [
        (200, r#"{"allow":false}"#),
        (403, r#"{"allow":true}"#),
        (404, ""),
        (500, r#"{"allow":true}"#),
        (201, r#"{"allow":true}"#),
        (302, r#"{"allow":true}"#),
        (403, ""),
        (200, ""),
        (200, "yes"),
        (200, r#"{"allow":"true"}"#),
        (403, ""),
        (200, "[true]"),
        (
            200,
            &format!(r#"{{"allow":true,"x":"{}"}}"#, "x".repeat(20_000)),
        ),
    ] {
        application.answer(status, body);
        let denied = subscribe(&mut ann, "room_1");
        assert_eq!(denied, "access_denied", "{status} {body:.40}");
    }
    // And it was asked each time.
    assert_eq!(application.asked().len(), 13);
    application.answer(200, r#"{"allow":true}"#);
    assert_eq!(subscribe(&mut ann, "room_1"), "subscribed");
}

#[test]
fn answers_are_remembered_for_their_user_channel_and_action() {
    let application = Application::start(r#"{"allow":true}"#);
    let server = start(&application.url(), &[]);
    let mut first = server.connect("ann");
    let mut second = server.connect("ann");
    let mut bob = server.connect("bob");
    assert_eq!(subscribe(&mut first, "room_1"), "subscribed");
    assert_eq!(subscribe(&mut second, "room_1"), "subscribed");
    assert_eq!(subscribe(&mut second, "room_1"), "subscribed");
    assert_eq!(application.asked().len(), 1);
    assert_eq!(subscribe(&mut bob, "room_1"), "subscribed");
    assert_eq!(subscribe(&mut first, "room_2"), "subscribed");
    assert_eq!(application.asked().len(), 3);
    let expected = BTreeMap::from([("allowed".to_owned(), 3), ("cached".to_owned(), 2)]);
    assert_eq!(counted(&server), expected);

    // The answer's own time is stronger; a denial is remembered, too.
    application.answer(200, r#"{"allow":true,"ttl":0}"#);
    for _ in 0..2 {
        assert_eq!(subscribe(&mut bob, "room_3"), "subscribed");
    }
    assert_eq!(application.asked().len(), 5);
    application.answer(200, r#"{"allow":false}"#);
    for _ in 0..2 {
        assert_eq!(subscribe(&mut bob, "room_4"), "access_denied");
    }
    assert_eq!(application.asked().len(), 6);
    application.answer(200, r#"{"allow":false,"ttl":1}"#);
    assert_eq!(subscribe(&mut bob, "room_5"), "access_denied");
    application.answer(200, r#"{"allow":true}"#);
    assert_eq!(subscribe(&mut bob, "room_5"), "access_denied");
    std::thread::sleep(Duration::from_millis(1_100));
    assert_eq!(subscribe(&mut bob, "room_5"), "subscribed");
}

#[test]
fn the_same_question_is_on_its_way_once() {
    let application = Application::start(r#"{"allow":true}"#);
    application.delay(Duration::from_millis(500));
    let server = start(&application.url(), &[]);
    let mut tabs: Vec<Client> = (0..20).map(|_| server.connect("ann")).collect();
    for tab in &mut tabs {
        tab.send(&json!({"type": "subscribe", "channel": "room_1"}));
    }
    for tab in &mut tabs {
        assert_eq!(outcome(tab, "room_1"), "subscribed");
    }
    assert_eq!(application.asked().len(), 1);
    assert_eq!(counted(&server)["shared"], 19);
}

#[test]
fn who_asked_first_and_left_takes_no_answer_with_it() {
    let application = Application::start(r#"{"allow":true}"#);
    application.delay(Duration::from_millis(500));
    let server = start(&application.url(), &[]);
    let mut first = server.connect("ann");
    first.send(&json!({"type": "subscribe", "channel": "room_1"}));
    let mut second = server.connect("ann");
    second.send(&json!({"type": "subscribe", "channel": "room_1"}));
    drop(first);
    assert_eq!(outcome(&mut second, "room_1"), "subscribed");
    assert_eq!(application.asked().len(), 1);
}

#[test]
fn an_answer_that_is_late_is_a_no_in_time() {
    let application = Application::start(r#"{"allow":true}"#);
    application.delay(Duration::from_secs(3));
    let server = start(&application.url(), &[("channels.backend.timeout", "300ms")]);
    let mut ann = server.connect("ann");
    let start = Instant::now();
    assert_eq!(subscribe(&mut ann, "room_1"), "access_denied");
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(300), "{took:?}");
    assert!(took < Duration::from_millis(2_500), "{took:?}");
    assert_eq!(counted(&server)["timeout"], 1);
    // Not having answered is not remembered as a no.
    application.delay(Duration::ZERO);
    assert_eq!(subscribe(&mut ann, "room_1"), "subscribed");
}

#[test]
fn an_application_that_fails_is_left_alone_and_tried_again() {
    let application = Application::start(r#"{"allow":true}"#);
    application.answer(500, "");
    let server = start(&application.url(), &[]);
    let mut ann = server.connect("ann");
    for n in 0..20 {
        let denied = subscribe(&mut ann, &format!("room_{n}"));
        assert_eq!(denied, "access_denied");
    }
    assert_eq!(application.asked().len(), 5);
    let expected = [("failed", 5), ("open", 15), ("opened", 1)];
    let expected = expected.map(|(outcome, count)| (outcome.to_owned(), count));
    assert_eq!(counted(&server), BTreeMap::from(expected));
    let warnings = server.output();
    let warnings = warnings.matches("gave no answer").count();
    assert_eq!(warnings, 1, "{}", server.output());

    // One probe that fails keeps it closed, one that succeeds opens it.
    std::thread::sleep(Duration::from_millis(5_100));
    for n in 0..3 {
        let denied = subscribe(&mut ann, &format!("room_{n}"));
        assert_eq!(denied, "access_denied");
    }
    assert_eq!(application.asked().len(), 6);
    application.answer(200, r#"{"allow":true}"#);
    std::thread::sleep(Duration::from_millis(5_100));
    for n in 0..3 {
        let allowed = subscribe(&mut ann, &format!("room_{n}"));
        assert_eq!(allowed, "subscribed");
    }
    assert_eq!(application.asked().len(), 9);
}

#[test]
fn an_application_that_is_not_there_denies() {
    // Bound and closed again: nobody listens.
    let nowhere = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let server = start(&format!("http://{nowhere}/"), &[]);
    let mut ann = server.connect("ann");
    assert_eq!(subscribe(&mut ann, "room_1"), "access_denied");
    // Other rules do not depend on it, and backends may do what they may always do.
    assert_eq!(subscribe(&mut ann, "post_1"), "subscribed");
    let body = json!({"channel": "room_1", "event": {"type": "x"}});
    server.as_backend("POST", "/api/publish", &body).expect(200);
    let presence = server.as_backend("GET", "/api/presence?channel=room_1", &Value::Null);
    assert_eq!(presence.expect(200).json()["count"], 0);
}

#[test]
fn a_question_in_the_clear_to_another_machine_is_warned_of() {
    let server = start("http://192.0.2.7/access", &[]);
    assert!(server.output().contains("channels.backend.url is http://"));
    // The key is in no output; the harness looks for the others.
    assert!(!server.output().contains(SECRET));
}

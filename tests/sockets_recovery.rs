//! Coming back: what was missed comes, or the reason why that cannot be proven. Contract section 4.

#![allow(clippy::unwrap_used)] // clippy knows the tests, not what they share

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use support::{Client, Dice, Server, eventually};

fn recover(client: &mut Client, channel: &str, epoch: &Value, offset: u64) -> Value {
    client.send(&json!({"type": "subscribe", "channel": channel,
        "recover": {"epoch": epoch, "offset": offset}}));
    client.next()["data"].clone()
}

fn publish(server: &Server, channel: &str, numbers: std::ops::RangeInclusive<u64>) {
    for n in numbers {
        server.publish(channel, json!({"type": "tick", "n": n}));
    }
}

#[track_caller]
fn gets(client: &mut Client, numbers: std::ops::RangeInclusive<u64>) {
    for n in numbers {
        let event = client.next();
        assert_eq!(event["n"], n, "{}", client.tell());
        assert_eq!(event["_meta"]["offset"], n, "{}", client.tell());
    }
}

#[test]
fn what_was_missed_comes_first_and_then_what_is_new() {
    let server = Server::start(&[]);
    let mut client = server.connect("u1");
    let epoch = client.subscribe("post_1")["data"]["epoch"].clone();
    publish(&server, "post_1", 1..=3);
    gets(&mut client, 1..=3);
    drop(client);
    publish(&server, "post_1", 4..=7);

    let mut client = server.connect("u1");
    assert_eq!(
        recover(&mut client, "post_1", &epoch, 3),
        json!({"channel": "post_1", "channelKey": "post_1", "epoch": epoch, "offset": 7,
            "recovered": true})
    );
    gets(&mut client, 4..=7);
    publish(&server, "post_1", 8..=8);
    gets(&mut client, 8..=8);
    // Nothing missed is proven, too; and on the same socket it begins again from where it is told.
    assert_eq!(recover(&mut client, "post_1", &epoch, 8)["recovered"], true);
    assert_eq!(recover(&mut client, "post_1", &epoch, 6)["recovered"], true);
    gets(&mut client, 7..=8);
    client.quiet(50);
    publish(&server, "post_1", 9..=9);
    gets(&mut client, 9..=9);
    client.quiet(50);
}

#[test]
fn what_cannot_be_proven_has_its_reason_and_no_events() {
    let server = Server::start(&[
        ("channels.five.subscribe", "any"),
        ("channels.five.history", "5"),
        ("channels.short.subscribe", "any"),
        ("channels.short.history_ttl", "1s"),
        ("channels.live.subscribe", "any"),
        ("channels.live.history", "0"),
    ]);
    let mut client = server.connect("u1");
    let of_five = client.subscribe("five_1")["data"]["epoch"].clone();
    let of_short = client.subscribe("short_1")["data"]["epoch"].clone();
    drop(client);
    publish(&server, "five_1", 1..=10);
    publish(&server, "short_1", 1..=3);

    let not = |reason: &str, channel: &str, epoch: &Value, offset: u64| {
        json!({"channel": channel, "channelKey": channel, "epoch": epoch, "offset": offset,
            "recovered": false, "reason": reason})
    };
    let mut client = server.connect("u1");
    for foreign in [
        json!("0123456789"),
        json!(""),
        json!("../\"{}"),
        json!("x".repeat(500)),
    ] {
        let data = recover(&mut client, "five_1", &foreign, 9);
        assert_eq!(data, not("epoch_changed", "five_1", &of_five, 10));
    }
    let ahead = recover(&mut client, "five_1", &of_five, 11);
    assert_eq!(ahead, not("epoch_changed", "five_1", &of_five, 10));
    for missed in 6..=10 {
        let data = recover(&mut client, "five_1", &of_five, 10 - missed);
        assert_eq!(data, not("too_far", "five_1", &of_five, 10));
    }
    client.quiet(50);
    assert_eq!(
        recover(&mut client, "five_1", &of_five, 5)["recovered"],
        true
    );
    gets(&mut client, 6..=10);

    eventually("the events expire", Duration::from_secs(5), || {
        let mut client = server.connect("u1");
        recover(&mut client, "short_1", &of_short, 1)
            == not("history_expired", "short_1", &of_short, 3)
    });
    let mut client = server.connect("u1");
    assert_eq!(
        recover(&mut client, "short_1", &of_short, 3)["recovered"],
        true,
        "who has missed nothing needs no history"
    );
    // A subscription that could not be recovered is one all the same.
    recover(&mut client, "short_1", &of_short, 1);
    publish(&server, "short_1", 4..=4);
    gets(&mut client, 4..=4);

    // Where nothing is kept, nothing is promised.
    let data = recover(&mut client, "live_1", &of_short, 1);
    assert_eq!(
        data,
        json!({"channel": "live_1", "channelKey": "live_1", "recovered": false,
            "reason": "history_expired"})
    );
}

#[test]
fn history_survives_a_kill_and_a_stop() {
    let mut server = Server::start(&[]);
    let mut client = server.connect("u1");
    let epoch = client.subscribe("post_1")["data"]["epoch"].clone();
    let quiet_epoch = client.subscribe("post_2")["data"]["epoch"].clone();
    publish(&server, "post_1", 1..=5);
    gets(&mut client, 1..=2);
    // Published is what was answered; what was not yet delivered has to be recovered.
    server.kill();
    let took = server.restart();
    println!("ready again after {took:?}");
    publish(&server, "post_1", 6..=7);

    let mut client = server.connect("u1");
    let data = recover(&mut client, "post_1", &epoch, 2);
    assert_eq!(
        (&data["recovered"], &data["offset"]),
        (&json!(true), &json!(7))
    );
    assert_eq!(data["epoch"], epoch);
    gets(&mut client, 3..=7);
    drop(client);

    let (status, _) = server.terminate();
    assert!(status.success());
    server.restart();
    let mut client = server.connect("u1");
    assert_eq!(recover(&mut client, "post_1", &epoch, 6)["recovered"], true);
    gets(&mut client, 7..=7);
    client.send(&json!({"type": "history", "channel": "post_1"}));
    assert_eq!(client.next()["data"]["events"].as_array().unwrap().len(), 7);
    // A channel without a single event never had anything to miss; either it says so, or it says
    // that it is another one now.
    let data = recover(&mut client, "post_2", &quiet_epoch, 0);
    assert_eq!(
        data["recovered"] == true,
        data["epoch"] == quiet_epoch,
        "{data}"
    );
}

#[test]
fn however_often_a_client_comes_back_it_sees_every_event_once() {
    let mut dice = Dice::from_environment();
    let server = Server::start(&[("channels.post.history", "1000"), ("server.workers", "2")]);
    const EVENTS: u64 = 600;
    let published = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            publish(&server, "post_1", 1..=EVENTS);
            published.store(true, Ordering::Release);
        });
        let mut client = server.connect("u1");
        let data = client.subscribe("post_1");
        let epoch = data["data"]["epoch"].clone();
        let mut at = data["data"]["offset"].as_u64().unwrap();
        let mut returns = 0;
        while at < EVENTS {
            let until = (at + 1 + dice.below(40)).min(EVENTS);
            gets(&mut client, at + 1..=until);
            at = until;
            returns += 1;
            if dice.below(3) > 0 {
                client = server.connect("u1");
            }
            client.send(&json!({"type": "subscribe", "channel": "post_1",
                "recover": {"epoch": epoch, "offset": at}}));
            // On the same socket live events may come before the acknowledgement, and again after it.
            let data = loop {
                let message = client.next();
                if message["type"] == "subscribed" {
                    break message["data"].clone();
                }
            };
            assert_eq!(data["recovered"], true, "{}", client.tell());
        }
        println!(
            "{returns} returns, published meanwhile: {}",
            !published.load(Ordering::Acquire)
        );
        client.quiet(100);
    });
}

#[test]
fn a_recovery_longer_than_a_page_is_one_sequence_with_what_is_published_meanwhile() {
    // A page is a quarter of the queue, so four of these events; the queue takes sixteen.
    let server = Server::start(&[
        ("limits.queue_bytes", "64KiB"),
        ("channels.post.history", "1000"),
    ]);
    let mut client = server.connect("u1");
    let epoch = client.subscribe("post_1")["data"]["epoch"].clone();
    drop(client);
    let text = "x".repeat(4_000);
    let publish = |numbers: std::ops::RangeInclusive<u64>| {
        for n in numbers {
            server.publish("post_1", json!({"type": "tick", "n": n, "x": text}));
        }
    };
    publish(1..=60);
    for offset in [0, 59, 60] {
        let mut client = server.connect("u1");
        assert_eq!(
            recover(&mut client, "post_1", &epoch, offset)["recovered"],
            true
        );
        gets(&mut client, offset + 1..=60);
        client.quiet(20);
    }
    std::thread::scope(|scope| {
        scope.spawn(|| publish(61..=120));
        let mut client = server.connect("u1");
        assert_eq!(recover(&mut client, "post_1", &epoch, 0)["recovered"], true);
        gets(&mut client, 1..=120);
        client.quiet(100);
    });
}

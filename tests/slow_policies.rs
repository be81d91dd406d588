//! What a channel's rule `slow` says happens to the events of a client that does not read: it is told what
//! went, nobody else notices. Contract section 6; `config.toml`, `channels.*.slow` and `limits.queue_age`.

#![allow(clippy::unwrap_used)] // clippy knows the tests, not what they share

mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::{Client, Server, eventually};

/// Big, so that the kernel's buffers are full after a hundred or so.
const PADDING: usize = 40_000;
/// Events that a test may publish until it sees what it waits for.
const MOST: u64 = 2_000;

fn start(slow: &str, history: &str) -> Server {
    Server::start(&[
        ("channels.live.subscribe", "any"),
        ("channels.live.history", history),
        ("channels.live.durability", "relaxed"),
        ("channels.live.slow", slow),
        ("channels.kept.subscribe", "any"),
        ("channels.kept.history", "0"),
        ("limits.queue_bytes", "256KiB"),
        ("server.workers", "1"),
    ])
}

fn follower(server: &Server, user: &str) -> Client {
    let mut client = server.connect(user);
    client.subscribe("live_1");
    client
}

fn dropped(server: &Server) -> u64 {
    server.stats()["server"]["dropped"].as_u64().unwrap()
}

/// Publishes tick after tick until events were dropped, then `more`; the number of the last one. `reader`,
/// who follows too, gets every one in order; the most that one took, in milliseconds.
fn publish_until_dropped(server: &Server, reader: &mut Client, more: u64) -> (u64, u64) {
    let (mut n, mut left, mut latest_ms) = (0, None, 0);
    while left != Some(0) {
        n += 1;
        assert!(n < MOST, "{n} events and none dropped");
        let event =
            json!({"type": "tick", "n": n, "at": since_1970_ms(), "x": "x".repeat(PADDING)});
        server.publish("live_1", event);
        let heard = reader.next();
        assert_eq!(heard["n"], n, "nothing is missing for who reads");
        latest_ms = latest_ms.max(since_1970_ms() - heard["at"].as_u64().unwrap());
        left = match left {
            None if n % 10 == 0 && dropped(server) > 0 => Some(more),
            left => left.map(|left| left - 1),
        };
    }
    (n, latest_ms)
}

#[allow(clippy::disallowed_methods, reason = "measures a process from outside")]
fn since_1970_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.unwrap().as_millis() as u64
}

/// Reads up to tick `last`: every tick but those that gaps tell of. The gaps.
fn hear_all(client: &mut Client, last: u64) -> Vec<Value> {
    let (mut heard, mut gaps) = (0, Vec::new());
    while heard < last {
        let message = client.next();
        if message["type"] == "gap" {
            let data = &message["data"];
            assert_eq!(data["channelKey"], "live_1");
            if let Some(recover) = data.get("recover") {
                assert_eq!(recover["offset"], heard, "{message}");
            }
            let dropped = data["dropped"].as_u64().unwrap();
            assert!(dropped > 0);
            heard += dropped;
            gaps.push(message);
        } else {
            heard += 1;
            assert_eq!(message["n"], heard, "after {} gaps", gaps.len());
        }
    }
    assert_eq!(heard, last);
    gaps
}

#[test]
fn the_oldest_go_the_client_is_told_and_can_have_them_again() {
    let server = start("drop_oldest", "10000");
    let mut slow = follower(&server, "slow");
    let mut reader = follower(&server, "reader");
    let (last, latest_ms) = publish_until_dropped(&server, &mut reader, 30);
    let gaps = hear_all(&mut slow, last);
    let told: u64 = gaps
        .iter()
        .map(|gap| gap["data"]["dropped"].as_u64().unwrap())
        .sum();
    assert_eq!(told, dropped(&server));
    println!(
        "{last} published, {told} dropped for the slow one; the latest for the other took {latest_ms} ms"
    );
    assert!(latest_ms < 2_000, "{latest_ms} ms");
    // It goes on where it is, and what it missed is there for the asking.
    server.publish("live_1", json!({"type": "tick", "n": last + 1}));
    assert_eq!(slow.next()["n"], last + 1);
    let recover = &gaps[0]["data"]["recover"];
    let mut looking = server.connect("slow");
    let mut before = recover["offset"].as_u64().unwrap() + 1 + told;
    looking.send(&json!({"type": "history", "channel": "live_1", "before": before, "limit": 1}));
    let page = looking.next();
    before -= 1;
    assert_eq!(page["data"]["events"][0]["n"], before);
    assert_eq!(page["data"]["epoch"], recover["epoch"]);
    assert_eq!(server.stats()["activeConnections"], 3, "nobody was closed");
}

#[test]
fn only_the_latest_waits() {
    let server = start("latest_only", "0");
    let mut slow = follower(&server, "slow");
    let mut reader = follower(&server, "reader");
    let (last, latest_ms) = publish_until_dropped(&server, &mut reader, 30);
    println!("{last} published; the latest for the other took {latest_ms} ms");
    let gaps = hear_all(&mut slow, last);
    // Once for the time that it did not read; again if the kernel took less than all there was.
    assert!((1..10).contains(&gaps.len()), "{gaps:?}");
    assert!(
        gaps.iter().all(|gap| gap["data"].get("recover").is_none()),
        "there is nothing to recover from: {gaps:?}"
    );
    slow.quiet(50);
}

#[test]
fn a_channel_that_keeps_everything_still_closes_and_its_events_come_first() {
    let server = start("drop_oldest", "0");
    let mut slow = follower(&server, "slow");
    slow.subscribe("kept_1");
    let mut reader = follower(&server, "reader");
    let (last, _) = publish_until_dropped(&server, &mut reader, 0);
    // Small ones of the other channel take the room of what may go, until even that is not enough.
    let mut kept = 0;
    while server.closed_as_too_slow() == 0 {
        kept += 1;
        assert!(kept < MOST);
        let event = json!({"type": "kept", "n": kept, "x": "x".repeat(PADDING / 4)});
        server.publish("kept_1", event);
    }
    assert!(kept > 1, "it had room for one at least");
    let (mut ticks, mut all) = (0, 0);
    loop {
        let message = slow.next();
        match message["type"].as_str().unwrap() {
            "tick" => {
                assert_eq!(message["n"], ticks + 1);
                ticks += 1;
            }
            "kept" => all += 1,
            "disconnect" => {
                assert_eq!(message["data"]["code"], 4102);
                break;
            }
            other => panic!("{other}"),
        }
    }
    assert!(ticks < last && all < kept);
    assert_eq!(slow.expect_close(), (4102, "too slow".to_string()));
    server.publish("live_1", json!({"type": "tick", "n": last + 1}));
    assert_eq!(reader.next()["n"], last + 1);
}

#[test]
fn what_waits_too_long_closes_however_little_it_is() {
    let mut settings = vec![("limits.queue_age", "1s"), ("limits.queue_bytes", "0")];
    settings.extend([
        ("channels.live.subscribe", "any"),
        ("channels.live.history", "0"),
    ]);
    let server = Server::start(&settings);
    let mut slow = follower(&server, "slow");
    let mut prompt = follower(&server, "prompt");
    let text = "x".repeat(PADDING);
    let closed = || server.closed_as_too_slow() == 1;
    let mut last = 0;
    // Nothing bounds the queue but its age; the kernel's buffers come first. Who is closed has to read
    // soon to see why.
    while last < 400 && !closed() {
        last += 1;
        server.publish("live_1", json!({"type": "tick", "n": last, "x": text}));
        assert_eq!(prompt.next()["n"], last);
    }
    eventually("closed for its age", Duration::from_secs(10), closed);
    let disconnect = loop {
        let message = slow.next();
        if message["type"] == "disconnect" {
            break message;
        }
    };
    assert_eq!(disconnect["data"]["code"], 4102);
    // Who reads is none the worse for it.
    last += 1;
    server.publish("live_1", json!({"type": "tick", "n": last}));
    assert_eq!(prompt.next()["n"], last);
}

#[test]
fn what_was_left_behind_with_a_channel_is_gone() {
    let server = start("drop_oldest", "0");
    let mut slow = follower(&server, "slow");
    let mut reader = follower(&server, "reader");
    let (last, _) = publish_until_dropped(&server, &mut reader, 0);
    slow.send(&json!({"type": "unsubscribe", "channel": "live_1"}));
    eventually("it has left", Duration::from_secs(10), || {
        server.stats()["connectionsByChannel"]["live_1"] == 1
    });
    let mut heard = 0;
    loop {
        let message = slow.next();
        if message["type"] == "unsubscribed" {
            break;
        }
        heard += 1;
        assert_eq!(message["n"], heard);
    }
    assert!(heard < last);
    slow.quiet(50);
}

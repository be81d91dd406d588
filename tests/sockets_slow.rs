//! A client that does not read costs itself its connection, and nobody else anything. Contract section 6.

#![allow(clippy::unwrap_used)] // clippy knows the tests, not what they share

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use support::{Client, Server, eventually};

/// Follows `live_1`, which keeps no history, so that the disk has no part in this.
fn follower(server: &Server, user: &str) -> Client {
    let mut client = server.connect(user);
    client.subscribe("live_1");
    client
}

fn start() -> Server {
    Server::start(&[
        ("channels.live.subscribe", "any"),
        ("channels.live.history", "0"),
        ("limits.queue_bytes", "128KiB"),
        ("server.workers", "1"),
    ])
}

/// Closed with 4102 so far.
fn too_slow(server: &Server) -> bool {
    let text = server.metrics("/metrics").expect(200);
    let text = text.text();
    text.lines()
        .any(|line| line.starts_with("fanfare_") && line.contains("4102") && !line.ends_with(" 0"))
}

#[test]
fn who_does_not_read_is_sent_away_and_the_others_get_everything_in_time() {
    let server = start();
    let mut slow = follower(&server, "slow");
    let mut reader = follower(&server, "reader");
    let over = AtomicBool::new(false);
    let padding = "x".repeat(40_000);
    let published = std::thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let (mut seen, mut latest_ms) = (0, 0);
            loop {
                let event = reader.next();
                if event["type"] == "last" {
                    return (seen, latest_ms);
                }
                assert_eq!(
                    event["n"], seen,
                    "nothing is missing, nothing is out of order"
                );
                seen += 1;
                latest_ms = latest_ms.max(since_1970_ms() - event["at"].as_u64().unwrap());
            }
        });
        let mut published = 0_u64;
        // The kernel's buffers hold several megabytes before the queue does.
        while !over.load(Ordering::Relaxed) {
            let at = since_1970_ms();
            server.publish(
                "live_1",
                json!({"type": "tick", "n": published, "at": at, "x": padding}),
            );
            published += 1;
            assert!(published < 2_000, "80 MB and still not too slow");
            if published.is_multiple_of(10) && too_slow(&server) {
                over.store(true, Ordering::Relaxed);
            }
        }
        // It reads again, now that it is too late: whole frames, and then why.
        let mut got = 0;
        loop {
            let message = slow.next();
            if message["type"] == "disconnect" {
                assert_eq!(message["data"]["code"], 4102);
                assert_eq!(message["data"]["reconnect"], true);
                break;
            }
            assert_eq!(message["n"], got);
            got += 1;
        }
        assert_eq!(slow.expect_close(), (4102, "too slow".to_string()));
        assert!(got < published);
        server.publish("live_1", json!({"type": "last"}));
        let (seen, latest_ms) = reading.join().unwrap();
        println!(
            "{published} published, the slow one got {got}, the latest for the other took {latest_ms} ms"
        );
        assert_eq!(seen, published);
        assert!(latest_ms < 2_000, "{latest_ms} ms");
        published
    });
    assert!(published > 0);
    // It may come back.
    let mut back = follower(&server, "slow");
    server.publish("live_1", json!({"type": "tick"}));
    assert_eq!(back.next()["type"], "tick");
}

#[test]
#[allow(clippy::disallowed_methods, reason = "measures a process from outside")]
fn who_never_reads_again_is_gone_soon_and_holds_nothing() {
    let server = start();
    let _silent: Vec<Client> = (0..5)
        .map(|nth| follower(&server, &format!("u{nth}")))
        .collect();
    let padding = "x".repeat(40_000);
    let start = Instant::now();
    for n in 0.. {
        server.publish("live_1", json!({"type": "tick", "x": padding}));
        if n % 20 == 19 && too_slow(&server) {
            break;
        }
        assert!(n < 2_000);
    }
    // They may not all have been full at once.
    for _ in 0..40 {
        server.publish("live_1", json!({"type": "tick", "x": padding}));
    }
    println!("too slow after {:?}", start.elapsed());
    eventually("all five are gone", Duration::from_secs(10), || {
        server.stats()["activeConnections"] == 0
    });
    assert_eq!(server.stats()["connectionsByChannel"], json!({}));
    // What waited for them is given back: five queues and a turn are less than this.
    let rss = server.rss_bytes();
    assert!(rss < 200 << 20, "{rss} bytes");
}

#[test]
fn who_does_not_read_the_answers_is_not_asked_for_more() {
    let server = Server::start(&[
        ("limits.queue_bytes", "64KiB"),
        ("limits.commands_per_second", "0"),
    ]);
    let mut client = server.connect("u1");
    let mut neighbour = server.connect("u2");
    // Each is answered with as much again.
    let filler = "y".repeat(60_000);
    let command =
        json!({"type": "subscribe", "channel": {"type": "post", "postId": "1", "x": filler}});
    client
        .stream()
        .set_write_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let mut sent = 0;
    while sent < 3_000 {
        let message = tungstenite::Message::text(command.to_string());
        if client.try_send(message).is_err() {
            break;
        }
        sent += 1;
    }
    assert!(sent < 3_000, "180 MB and still answered");
    let rss = server.rss_bytes();
    assert!(rss < 200 << 20, "{rss} bytes");
    neighbour.send(&json!({"type": "ping"}));
    assert_eq!(neighbour.next()["type"], "pong");
    // It was made to wait, not sent away: every answer is there.
    for _ in 0..sent {
        assert_eq!(client.next()["type"], "subscribed");
    }
}

#[allow(clippy::disallowed_methods, reason = "measures a process from outside")]
fn since_1970_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.unwrap().as_millis() as u64
}

#[test]
fn a_burst_is_not_the_readers_fault() {
    let server = Server::start(&[
        ("channels.live.subscribe", "any"),
        ("channels.live.history", "0"),
        ("limits.channels_per_connection", "0"),
        ("limits.commands_per_second", "0"),
        ("server.workers", "1"),
    ]);
    let channels: Vec<String> = (0..40).map(|n| format!("live_{n}")).collect();
    let mut reader = server.connect("reader");
    for channel in &channels {
        reader.subscribe(channel.as_str());
    }
    // More than may wait for a client, and within one turn or two.
    let event = json!({"type": "tick", "x": "x".repeat(40_000)});
    let body = json!({"channels": channels, "event": event});
    for _ in 0..3 {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                server
                    .as_backend("POST", "/api/broadcast", &body)
                    .expect(200)
            });
            for _ in &channels {
                assert_eq!(reader.next()["type"], "tick");
            }
        });
    }
    reader.quiet(50);
}

#[test]
fn who_missed_more_than_the_queue_holds_is_told_so_instead_of_being_sent_away_for_ever() {
    let server = Server::start(&[("limits.queue_bytes", "512KiB")]);
    let mut client = server.connect("u1");
    let epoch = client.subscribe("post_1")["data"]["epoch"].clone();
    drop(client);
    for n in 1..=60 {
        server.publish(
            "post_1",
            json!({"type": "tick", "n": n, "x": "x".repeat(50_000)}),
        );
    }
    let mut client = server.connect("u1");
    let mut recover = |offset: u64| {
        client.send(&json!({"type": "subscribe", "channel": "post_1",
            "recover": {"epoch": epoch, "offset": offset}}));
        let data = client.next()["data"].clone();
        if data["recovered"] == true {
            for n in offset + 1..=60 {
                assert_eq!(client.next()["n"], n);
            }
        }
        client.quiet(20);
        (data["recovered"].clone(), data["reason"].clone())
    };
    assert_eq!(recover(0), (json!(false), json!("too_far")));
    assert_eq!(recover(58), (json!(true), json!(null)));
    // All of it is there to be looked at, in pieces that fit.
    let mut before = 61;
    while before > 1 {
        client.send(&json!({"type": "history", "channel": "post_1", "before": before}));
        let page = client.next();
        let events = page["data"]["events"].as_array().unwrap();
        assert_eq!(events.last().unwrap()["n"], before - 1);
        before = events[0]["n"].as_u64().unwrap();
    }
}

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
            if published.is_multiple_of(10) && server.closed_as_too_slow() > 0 {
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
        // They may not all be full at once.
        if n % 20 == 19 && server.closed_as_too_slow() == 5 {
            break;
        }
        assert!(n < 2_000);
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
fn who_missed_more_than_the_queue_holds_gets_it_page_by_page_with_live_events_behind() {
    let server = Server::start(&[
        ("limits.queue_bytes", "512KiB"),
        ("channels.post.history", "10000"),
        ("channels.post.durability", "relaxed"),
    ]);
    let mut client = server.connect("u1");
    let epoch = client.subscribe("post_1")["data"]["epoch"].clone();
    drop(client);
    let text = "x".repeat(50_000);
    let publish = |n: u64| server.publish("post_1", json!({"type": "tick", "n": n, "x": text}));
    (1..=60).for_each(|n| drop(publish(n)));
    for offset in [0, 58, 60] {
        let mut client = server.connect("u1");
        client.send(&json!({"type": "subscribe", "channel": "post_1",
            "recover": {"epoch": epoch, "offset": offset}}));
        let data = client.next()["data"].clone();
        assert_eq!(data["recovered"], true);
        for n in offset + 1..=60 {
            assert_eq!(client.next()["n"], n);
        }
        client.quiet(20);
    }
    // In the middle of it the client is heard, and live events go on, for it and for others.
    let mut other = server.connect("u2");
    other.subscribe("post_1");
    let mut client = server.connect("u1");
    client.send(&json!({"type": "subscribe", "channel": "post_1",
        "recover": {"epoch": epoch, "offset": 0}}));
    assert_eq!(client.next()["data"]["recovered"], true);
    client.send(&json!({"type": "ping"}));
    let mut pongs = 0;
    let hear = |client: &mut Client, n: u64, pongs: &mut u64| {
        let mut message = client.next();
        if message["type"] == "pong" {
            *pongs += 1;
            message = client.next();
        }
        assert_eq!(message["n"], n);
    };
    let mut heard = 0;
    // As many again and again, while the client takes one for each that is published.
    for n in 61..=260 {
        publish(n);
        assert_eq!(other.next()["n"], n);
        heard += 1;
        hear(&mut client, heard, &mut pongs);
    }
    while heard < 260 {
        heard += 1;
        hear(&mut client, heard, &mut pongs);
    }
    assert_eq!(pongs, 1);
    publish(261);
    hear(&mut client, 261, &mut pongs);
    client.quiet(20);
    assert_eq!(server.closed_as_too_slow(), 0);
}

#[test]
fn a_replay_that_cannot_go_on_is_told_and_never_a_hole() {
    let server = Server::start(&[
        ("limits.queue_bytes", "256KiB"),
        ("channels.post.history", "400"),
        ("channels.post.durability", "relaxed"),
    ]);
    let mut client = server.connect("u1");
    let epoch = client.subscribe("post_1")["data"]["epoch"].clone();
    drop(client);
    let text = "x".repeat(50_000);
    let publish = |n: u64| server.publish("post_1", json!({"type": "tick", "n": n, "x": text}));
    (1..=400).for_each(|n| drop(publish(n)));
    // It reads nothing until most of what it was promised has gone.
    let mut client = server.connect("u1");
    client.send(&json!({"type": "subscribe", "channel": "post_1",
        "recover": {"epoch": epoch, "offset": 0}}));
    eventually("it is followed", Duration::from_secs(10), || {
        server.stats()["connectionsByChannel"]["post_1"] == 1
    });
    (401..=799).for_each(|n| drop(publish(n)));
    assert_eq!(client.next()["data"]["recovered"], true);
    let mut heard = 0;
    loop {
        let message = client.next();
        if message["type"] == "disconnect" {
            assert_eq!(message["data"]["code"], 4103);
            assert_eq!(message["data"]["reconnect"], true);
            break;
        }
        heard += 1;
        assert_eq!(message["n"], heard);
    }
    assert!((1..400).contains(&heard), "{heard}");
    assert_eq!(client.expect_close(), (4103, "resync".to_string()));
    // It comes again, from where it stands, and is told how far back it is.
    let mut client = server.connect("u1");
    client.send(&json!({"type": "subscribe", "channel": "post_1",
        "recover": {"epoch": epoch, "offset": heard}}));
    assert_eq!(client.next()["data"]["reason"], "too_far");
}

//! `kill -9` under load: what was acknowledged is there, positions go on, and nobody misses anything.

#![allow(
    clippy::unwrap_used,
    reason = "what does not work here has to fail the test"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "the test of a process waits in real time"
)]

mod support;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use fanfare::broker::embedded::{Embedded, Options, open};
use fanfare::broker::{Broker, NewNotification, Store as _};
use fanfare::clock::Clock;
use serde_json::{Value, json};
use support::{Client, Dice, Server, request};

const ROUNDS: u64 = 4;
const CHANNELS: [&str; 2] = ["post_0", "post_1"];
const PUBLISHERS: u64 = 4;
const WRITERS: u64 = 4;

/// One event: who published it, and that publisher's how manieth it was.
type Mark = (u64, u64);

/// A channel as one observer knows it: its epoch, and what stands at which offset.
#[derive(Default, Clone)]
struct Known {
    epoch: Option<String>,
    events: BTreeMap<u64, Mark>,
}

impl Known {
    /// Takes in one event. An epoch never changes, and neither does what stands at an offset.
    #[track_caller]
    fn learn(&mut self, epoch: &Value, offset: &Value, mark: Mark) {
        let epoch = epoch.as_str().unwrap();
        assert_eq!(self.epoch.get_or_insert(epoch.to_string()), epoch);
        let offset = offset.as_u64().unwrap();
        assert_eq!(
            *self.events.entry(offset).or_insert(mark),
            mark,
            "at {offset}"
        );
    }

    #[track_caller]
    fn hear(&mut self, event: &Value) {
        let mark = (event["by"].as_u64().unwrap(), event["n"].as_u64().unwrap());
        self.learn(&event["_meta"]["epoch"], &event["_meta"]["offset"], mark);
    }

    fn last(&self) -> u64 {
        self.events
            .last_key_value()
            .map_or(0, |(offset, _)| *offset)
    }
}

#[test]
fn nothing_acknowledged_is_lost_and_nobody_misses_anything() {
    let mut dice = Dice::from_environment();
    let mut server = Server::start(&[
        ("channels.post.history", "100000"),
        ("limits.notifications_per_user", "1000000"),
        // So that the whole history fits into one answer.
        ("limits.queue_bytes", "1GiB"),
    ]);
    // What publishers were told, what the subscribers of each channel heard, and who was notified.
    let mut told: HashMap<&str, Known> = HashMap::new();
    let mut heard: Vec<(&str, Known)> = (0..4)
        .map(|n| (CHANNELS[n % 2], Known::default()))
        .collect();
    let mut notified: HashMap<String, BTreeSet<String>> = HashMap::new();

    for round in 0..ROUNDS {
        let (addr, key) = (server.addr(), server.api_key().to_string());
        // Before anybody publishes: the first round has no position to come back to.
        let clients: Vec<Client> = heard
            .iter()
            .enumerate()
            .map(|(n, (channel, known))| {
                let mut client = server.connect(&format!("reader-{n}"));
                let subscribed = subscribe(&mut client, channel, known);
                if known.last() > 0 {
                    assert_eq!(subscribed["recovered"], true, "{subscribed}");
                }
                client
            })
            .collect();
        let after = Duration::from_millis(300 + dice.below(700));
        thread::scope(|scope| {
            let key = &key;
            let publishers: Vec<_> = (0..PUBLISHERS)
                .map(|by| scope.spawn(move || publish(addr, key, by, round)))
                .collect();
            let writers: Vec<_> = (0..WRITERS)
                .map(|n| scope.spawn(move || notify(addr, key, &format!("owner-{n}"))))
                .collect();
            let readers: Vec<_> = clients
                .into_iter()
                .zip(&mut heard)
                .map(|(client, (_, known))| scope.spawn(move || follow(client, known)))
                .collect();
            thread::sleep(after);
            server.kill();
            for publisher in publishers {
                for (channel, epoch, offset, mark) in publisher.join().unwrap() {
                    told.entry(channel)
                        .or_default()
                        .learn(&epoch, &offset, mark);
                }
            }
            for writer in writers {
                let (owner, ids) = writer.join().unwrap();
                notified.entry(owner).or_default().extend(ids);
            }
            for reader in readers {
                reader.join().unwrap();
            }
        });
        println!("ready {:?} after the kill", server.restart());

        for (owner, ids) in &notified {
            let listed = list(&server, owner);
            let lost: Vec<_> = ids.difference(&listed).collect();
            assert_eq!(
                lost,
                [] as [&String; 0],
                "{owner} was to have {}",
                ids.len()
            );
            // One more for the answer that the kill cut off, in each round.
            assert!(listed.len() as u64 <= ids.len() as u64 + round + 1);
        }
        for channel in CHANNELS {
            let kept = history(&server, channel, told[channel].epoch.as_deref().unwrap());
            assert_eq!(kept.epoch, told[channel].epoch, "the epoch of {channel}");
            let offsets: Vec<u64> = kept.events.keys().copied().collect();
            let all: Vec<u64> = (1..=kept.last()).collect();
            assert_eq!(offsets, all, "{channel} has a hole");
            let marks: BTreeSet<&Mark> = kept.events.values().collect();
            assert_eq!(marks.len(), all.len(), "{channel} has something twice");
            for (offset, mark) in &told[channel].events {
                assert_eq!(kept.events.get(offset), Some(mark), "{channel} at {offset}");
            }
            for (of, known) in &heard {
                for (offset, mark) in known.events.iter().filter(|_| *of == channel) {
                    assert_eq!(kept.events.get(offset), Some(mark), "{channel} at {offset}");
                }
            }
            println!(
                "{channel}: {} told, {} kept",
                told[channel].events.len(),
                kept.last()
            );
        }
    }
    // Whoever was there from the start, and came back after each kill, has everything.
    for (n, (channel, known)) in heard.iter_mut().enumerate() {
        let client = server.connect(&format!("reader-{n}"));
        catch_up(client, channel, known);
        let kept = history(&server, channel, told[*channel].epoch.as_deref().unwrap());
        assert_eq!(known.events, kept.events, "reader {n} of {channel}");
    }
    let acknowledged: usize = notified.values().map(BTreeSet::len).sum();
    println!("{acknowledged} notifications acknowledged");
    assert!(acknowledged > 0 && told.len() == CHANNELS.len());
}

/// Publishes until the server is gone: (channel, epoch, offset, what) of all that it acknowledged.
fn publish(
    to: SocketAddr,
    key: &str,
    by: u64,
    round: u64,
) -> Vec<(&'static str, Value, Value, Mark)> {
    let mut told = Vec::new();
    for n in round << 32.. {
        let channel = CHANNELS[(n % 2) as usize];
        let body = json!({"channel": channel, "event": {"type": "e", "by": by, "n": n}});
        let headers = [("X-API-Key", key)];
        let Ok(reply) = request(
            to,
            "POST",
            "/api/publish",
            &headers,
            body.to_string().as_bytes(),
        ) else {
            break;
        };
        let reply = reply.expect(200).json();
        told.push((
            channel,
            reply["epoch"].clone(),
            reply["offset"].clone(),
            (by, n),
        ));
    }
    told
}

/// Notifies until the server is gone: whom, and the ids that it acknowledged.
fn notify(to: SocketAddr, key: &str, owner: &str) -> (String, BTreeSet<String>) {
    let mut ids = BTreeSet::new();
    loop {
        let body = json!({"userId": owner, "type": "t", "title": "t", "message": "m"}).to_string();
        let headers = [("X-API-Key", key)];
        let Ok(reply) = request(
            to,
            "POST",
            "/api/user/notifications",
            &headers,
            body.as_bytes(),
        ) else {
            return (owner.to_string(), ids);
        };
        let reply = reply.expect(201).json();
        ids.insert(reply["notification"]["id"].as_str().unwrap().to_string());
    }
}

/// Listens from where `known` ends until the server is gone. Every event is the one after the last:
/// nothing is missed, nothing comes twice.
fn follow(mut client: Client, known: &mut Known) {
    while let Some(event) = client.try_next() {
        assert_eq!(
            event["_meta"]["offset"],
            known.last() + 1,
            "{}",
            client.tell()
        );
        known.hear(&event);
    }
}

/// Subscribes from where `known` ends, and gets exactly what it missed.
fn catch_up(mut client: Client, channel: &str, known: &mut Known) {
    let subscribed = subscribe(&mut client, channel, known);
    assert_eq!(subscribed["recovered"], true, "{subscribed}");
    while known.last() < subscribed["offset"].as_u64().unwrap() {
        let event = client.next();
        assert_eq!(event["_meta"]["offset"], known.last() + 1);
        known.hear(&event);
    }
    client.quiet(100);
}

/// The data of the answer.
fn subscribe(client: &mut Client, channel: &str, known: &Known) -> Value {
    let mut command = json!({"type": "subscribe", "channel": channel});
    if let Some(epoch) = &known.epoch {
        command["recover"] = json!({"epoch": epoch, "offset": known.last()});
    }
    client.send(&command);
    client.next_of("subscribed")["data"].clone()
}

/// All that a channel keeps.
fn history(server: &Server, channel: &str, epoch: &str) -> Known {
    let mut kept = Known {
        epoch: Some(epoch.to_string()),
        ..Known::default()
    };
    catch_up(server.connect("historian"), channel, &mut kept);
    kept
}

/// The ids of all notifications of a user.
fn list(server: &Server, owner: &str) -> BTreeSet<String> {
    let mut ids = BTreeSet::new();
    let mut cursor = String::new();
    loop {
        let path = format!("/api/user/notifications?limit=100{cursor}");
        let page = server
            .as_user(owner, "GET", &path, &Value::Null)
            .expect(200)
            .json();
        for notification in page["notifications"].as_array().unwrap() {
            let new = ids.insert(notification["id"].as_str().unwrap().to_string());
            assert!(new, "listed twice: {notification}");
        }
        match page["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return ids,
        }
    }
}

#[test]
fn a_hundred_thousand_notifications_are_there_within_a_second_of_a_kill() {
    const USERS: usize = 1_000;
    const EACH: usize = 100;
    let mut server = Server::start(&[]);
    server.kill();
    let options = Options {
        path: server.data_dir().join("fanfare.redb"),
        store_bytes: 1 << 30,
        history_bytes: 1 << 30,
        notifications_per_user: 1_000,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let store = open(options, Clock::system()).unwrap();
        for _ in 0..EACH {
            let adding: Vec<_> = (0..USERS)
                .map(|user| tokio::spawn(add(store.clone(), format!("u{user}"))))
                .collect();
            for added in adding {
                added.await.unwrap();
            }
        }
        Broker::close(&*store).await.unwrap();
    });
    server.restart();
    let one_more = json!({"userId": "u0", "type": "t", "title": "t", "message": "the last"});
    server
        .as_backend("POST", "/api/user/notifications", &one_more)
        .expect(201);
    server.kill();
    let took = server.restart();
    println!(
        "ready {took:?} after the kill, with {} notifications",
        USERS * EACH + 1
    );
    let count = |user: &str| {
        let listed = server.as_user(user, "GET", "/api/user/notifications", &Value::Null);
        listed.expect(200).json()["unreadCount"].clone()
    };
    assert_eq!(count("u0"), EACH + 1);
    assert_eq!(count("u999"), EACH);
    assert!(took < Duration::from_secs(1), "{took:?}");
}

async fn add(store: Arc<Embedded>, user_id: String) {
    let new = NewNotification {
        user_id,
        kind: "NEW_SUBSCRIBER".into(),
        title: "A new subscriber".into(),
        message: "Somebody has subscribed to what you publish".into(),
        metadata: None,
    };
    store.add_notification(new, None).await.unwrap();
}

//! A master or primary is killed in the middle of traffic, and a replica takes over; or slots move.
//!
//! Followers keep an account: within an epoch they hear every offset once and in order, from the
//! position that they were told; whatever cannot be proven is announced by another epoch.

#![allow(clippy::unwrap_used)] // clippy knows the tests, not what they share
#![allow(
    clippy::disallowed_methods,
    reason = "the test of a process waits in real time"
)]

mod support;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::redis::{Cluster, Sentinels, fresh_prefix};
use support::{Client, Server};

const CHANNELS: [&str; 4] = ["chat_1", "chat_2", "chat_3", "chat_4"];
/// For a failover, and for traffic after it.
const PATIENCE: Duration = Duration::from_secs(60);

type Place = (String, String, u64);

/// What publishers were told, and what followers heard, by (channel, epoch, offset).
#[derive(Default)]
struct Account {
    acknowledged: Mutex<BTreeMap<Place, u64>>,
    stop: AtomicBool,
}

fn nodes(url: &str) -> Vec<Server> {
    let prefix = fresh_prefix();
    let settings = [
        ("broker.backend", "redis"),
        ("broker.redis.url", url),
        ("broker.redis.prefix", &prefix),
        ("channels.chat.subscribe", "any"),
        ("channels.chat.history", "20000"),
        ("channels.live.subscribe", "any"),
        ("channels.live.history", "0"),
        ("limits.queue_bytes", "64MiB"),
    ];
    (0..2).map(|_| Server::start(&settings)).collect()
}

/// Publishes numbers of its own until it is told to stop; what is not acknowledged is not repeated.
fn publish(server: &Server, first: u64, account: &Account) {
    let mut n = first;
    while !account.stop.load(Ordering::Relaxed) {
        n += 1;
        let channel = CHANNELS[(n % 4) as usize];
        let body = json!({"channel": channel, "event": {"type": "tick", "n": n}});
        let answer = server.as_backend("POST", "/api/publish", &body);
        if answer.status == 200 {
            let answer = answer.json();
            let place = place(channel, &answer);
            let twice = account
                .acknowledged
                .lock()
                .unwrap()
                .insert(place.clone(), n);
            assert_eq!(twice, None, "{place:?} stands for two events");
        } else {
            assert_eq!(answer.status, 503, "{}", answer.text());
            std::thread::sleep(Duration::from_millis(20));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn place(channel: &str, position: &Value) -> Place {
    let epoch = position["epoch"].as_str().unwrap();
    (
        channel.into(),
        epoch.into(),
        position["offset"].as_u64().unwrap(),
    )
}

/// One client's way through it.
struct Follower {
    heard: BTreeMap<Place, u64>,
    /// Where it stands in each channel, and where it began in that epoch.
    stands: BTreeMap<String, (String, u64)>,
    began: BTreeMap<(String, String), u64>,
}

impl Follower {
    fn run(server: &Server, account: &Account) -> Self {
        let mut follower = Self {
            heard: BTreeMap::new(),
            stands: BTreeMap::new(),
            began: BTreeMap::new(),
        };
        let deadline = Instant::now() + 3 * PATIENCE;
        'connection: loop {
            assert!(Instant::now() < deadline, "it does not come to rest");
            let mut client = server.connect("follower");
            client.set_patience(Duration::from_secs(2));
            for channel in CHANNELS {
                if !follower.subscribe(&mut client, channel) {
                    std::thread::sleep(Duration::from_millis(100));
                    continue 'connection;
                }
            }
            loop {
                match client.try_next() {
                    Some(event) if event["type"] == "tick" => follower.hear(&event),
                    Some(_) => {}
                    None if client.is_closed() => continue 'connection,
                    // Nothing came for two seconds.
                    None if account.stop.load(Ordering::Relaxed) => return follower,
                    None => {}
                }
            }
        }
    }

    fn subscribe(&mut self, client: &mut Client, channel: &str) -> bool {
        let mut command = json!({"type": "subscribe", "channel": channel, "id": channel});
        if let Some((epoch, offset)) = self.stands.get(channel) {
            command["recover"] = json!({"epoch": epoch, "offset": offset});
        }
        client.send(&command);
        loop {
            match client.try_next() {
                Some(message) if message["type"] == "tick" => self.hear(&message),
                Some(message) if message["type"] == "subscribed" => {
                    let told = &message["data"];
                    if told["recovered"] != true {
                        let (_, epoch, offset) = place(channel, told);
                        self.began.insert((channel.into(), epoch.clone()), offset);
                        self.stands.insert(channel.into(), (epoch, offset));
                    }
                    return true;
                }
                Some(message) if message["type"] == "error" => return false,
                Some(_) => {}
                None if client.is_closed() => return false,
                None => {}
            }
        }
    }

    fn hear(&mut self, event: &Value) {
        let channel = event["_meta"]["channel"].as_str().unwrap();
        let (_, epoch, offset) = place(channel, &event["_meta"]);
        let stands = self.stands.get_mut(channel).unwrap();
        if stands.0 == epoch {
            assert_eq!(
                offset,
                stands.1 + 1,
                "a hole or a duplicate in {channel} of {epoch}"
            );
        } else {
            self.began
                .insert((channel.into(), epoch.clone()), offset - 1);
        }
        *stands = (epoch.clone(), offset);
        let n = event["n"].as_u64().unwrap();
        let twice = self.heard.insert((channel.into(), epoch, offset), n);
        assert_eq!(twice, None);
    }
}

/// Traffic, `fail` in the middle of it, traffic; then the accounts are compared.
fn survives(servers: &[Server], fail: impl FnOnce()) {
    let account = Account::default();
    let followers: Vec<Follower> = std::thread::scope(|scope| {
        let account = &account;
        let followers: Vec<_> = servers
            .iter()
            .map(|server| scope.spawn(move || Follower::run(server, account)))
            .collect();
        for (number, server) in servers.iter().enumerate() {
            scope.spawn(move || publish(server, number as u64 * 1_000_000, account));
        }
        let acknowledged = || account.acknowledged.lock().unwrap().len();
        let reaches = |count: usize| {
            let began = Instant::now();
            while acknowledged() < count {
                if began.elapsed() > PATIENCE {
                    account.stop.store(true, Ordering::Relaxed);
                    panic!("{} of {count} were acknowledged", acknowledged());
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        };
        reaches(200);
        fail();
        // All channels are written to again, by both nodes.
        std::thread::sleep(Duration::from_secs(8));
        reaches(acknowledged() + 400);
        account.stop.store(true, Ordering::Relaxed);
        followers
            .into_iter()
            .map(|follower| follower.join().unwrap())
            .collect()
    });
    let acknowledged = account.acknowledged.into_inner().unwrap();
    for follower in &followers {
        let mut compared = 0;
        for (place, n) in &acknowledged {
            let (channel, epoch, offset) = place;
            let began = follower.began.get(&(channel.clone(), epoch.clone()));
            let last = follower.stands[channel].0 == *epoch;
            if let Some(heard) = follower.heard.get(place) {
                assert_eq!(heard, n, "{place:?} stands for two events");
                compared += 1;
            } else if last && began.is_some_and(|began| offset > began) {
                panic!("{place:?} was acknowledged and never heard");
            }
        }
        assert!(compared > 200, "{compared}");
    }
    // What is kept is what was acknowledged, in the epoch that lives.
    for channel in CHANNELS {
        let body = json!({"channel": channel, "limit": 1000});
        let history = servers[0]
            .as_backend("POST", "/api/history", &body)
            .expect(200)
            .json();
        let events = history["events"].as_array().unwrap();
        let epoch = history["epoch"].as_str().unwrap();
        let kept: BTreeMap<u64, u64> = events
            .iter()
            .map(|event| {
                let offset = event["_meta"]["offset"].as_u64().unwrap();
                (offset, event["n"].as_u64().unwrap())
            })
            .collect();
        let first = *kept.keys().next().unwrap();
        for ((of, in_epoch, offset), n) in &acknowledged {
            if of == channel && in_epoch == epoch && *offset >= first {
                assert_eq!(kept.get(offset), Some(n), "{channel} {offset}");
            }
        }
    }
}

#[test]
fn a_sentinel_failover_loses_nothing_in_silence() {
    let mut sentinels = Sentinels::start();
    let servers = nodes(&sentinels.url());
    survives(&servers, || sentinels.servers[0].kill());
}

#[test]
fn a_cluster_failover_loses_nothing_in_silence() {
    let mut cluster = Cluster::with_replicas(1);
    let servers = nodes(&cluster.url());
    survives(&servers, || cluster.nodes[1].kill());
}

#[test]
fn slots_that_move_lose_nothing_in_silence() {
    let cluster = Cluster::start();
    let servers = nodes(&cluster.url());
    survives(&servers, || {
        for channel in CHANNELS {
            cluster.move_slot_of(&format!("{{{channel}}}"));
        }
    });
}

/// A resharding that was broken off may leave a slot so for days.
#[test]
fn events_are_heard_while_their_slot_is_moving() {
    let cluster = Cluster::start();
    let servers = nodes(&cluster.url());
    let mut client = servers[1].connect("u1");
    client.subscribe("chat_1");
    client.subscribe("live_1");
    servers[0].publish("chat_1", json!({"type": "tick", "n": 1}));
    assert_eq!(client.next_of("tick")["n"], 1);
    let moving = ["{chat_1}", "{live_1}"].map(|key| cluster.begin_to_move_slot_of(key));

    let body = json!({"channel": "live_1", "event": {"type": "tock"}});
    let headers = [
        ("Idempotency-Key", "a-key"),
        ("X-API-Key", servers[0].api_key()),
    ];
    let answer = servers[0].json("POST", "/api/publish", &headers, &body);
    answer.expect(200);
    client.next_of("tock");
    // The first event of another process is one of another epoch, which subscribers are told of.
    servers[0].publish("chat_1", json!({"type": "tick", "n": 2}));
    assert_eq!(client.expect_close(), (4103, "resync".into()));
    let mut client = servers[1].connect("u1");
    client.subscribe("chat_1");
    servers[0].publish("chat_1", json!({"type": "tick", "n": 3}));
    assert_eq!(client.next_of("tick")["n"], 3);
    moving.iter().for_each(|moving| cluster.end_move(moving));
}

//! `kill -9` while relaxed events are published: what recovery then says is true.
//!
//! The test runs itself again as a child that publishes and prints every position, and kills it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use fanfare::broker::embedded::{self, Embedded, Options};
use fanfare::broker::{Broker, Durability, Publication, Retention};
use fanfare::clock::Clock;
use fanfare::protocol::{ChannelKey, Epoch, Event, Position};

const ROUNDS: usize = 8;
/// Tells the child where its database is, and which round it is.
const CHILD: &str = "FANFARE_TEST_RELAXED_DATABASE";
const ROUND: &str = "FANFARE_TEST_RELAXED_ROUND";

const RELAXED: Retention = Retention {
    entries: 1_000_000,
    ttl: Duration::from_secs(3600),
    durability: Durability::Relaxed,
};

const COMMIT: Retention = Retention {
    durability: Durability::Commit,
    ..RELAXED
};

/// Channels of all rounds, one that each round makes, and one that is not relaxed.
fn key(name: &str) -> ChannelKey {
    ChannelKey::parse(name, 255).unwrap()
}

fn open(path: &Path) -> Arc<Embedded> {
    let options = Options {
        path: path.to_owned(),
        store_bytes: 1 << 30,
        history_bytes: u64::MAX,
        notifications_per_user: usize::MAX,
    };
    embedded::open(options, Clock::system()).unwrap()
}

async fn publish(store: &Embedded, channel: &str, text: &str, rule: Retention) -> Position {
    let event = Event::parse(&format!("{{\"type\":\"x\",\"text\":\"{text}\"}}"), 1_000).unwrap();
    let publication = Publication {
        channel: key(channel),
        event,
        retention: Some(rule),
        idempotency_key: None,
        trace: None,
    };
    store.publish(publication).await.unwrap().position.unwrap()
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(future)
}

/// Not a test by itself: the child. Publishes until it is killed.
#[test]
fn child_that_publishes_until_it_is_killed() {
    let Some(path) = std::env::var_os(CHILD) else {
        return;
    };
    let round = std::env::var(ROUND).unwrap();
    let store = open(Path::new(&path));
    let clock = Clock::system();
    let fresh = format!("post_of{round}");
    block_on(async {
        for n in 0.. {
            let rule = if n % 100 == 99 { COMMIT } else { RELAXED };
            let channel = match n % 100 {
                99 => "post_kept",
                n if n % 5 == 0 => &fresh,
                n if n % 2 == 0 => "post_a",
                _ => "post_b",
            };
            let text = format!("{round}.{n}");
            let Position { epoch, offset } = publish(&store, channel, &text, rule).await;
            let ms = clock.unix_ms();
            let line = format!("ACK {channel} {} {offset} {text} {ms}\n", epoch.as_str());
            std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
        }
    });
}

/// What was said of an event.
struct Said {
    channel: String,
    position: Position,
    text: String,
    unix_ms: u64,
}

fn run_and_kill(path: &Path, round: usize, after: usize) -> Vec<Said> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "child_that_publishes_until_it_is_killed",
            "--exact",
            "--nocapture",
        ])
        .env(CHILD, path)
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut said = Vec::new();
    // What is still in the pipe after the kill was said, too.
    for line in lines {
        let line = line.unwrap();
        let Some((_, words)) = line.split_once("ACK ") else {
            continue;
        };
        // Only the last line can be cut short.
        let words: Vec<&str> = words.split(' ').collect();
        let [channel, epoch, offset, text, unix_ms] = words.as_slice() else {
            continue;
        };
        let Ok(unix_ms) = unix_ms.parse() else {
            continue;
        };
        said.push(Said {
            channel: channel.to_string(),
            position: Position {
                epoch: Epoch::new(epoch),
                offset: offset.parse().unwrap(),
            },
            text: text.to_string(),
            unix_ms,
        });
        if said.len() == after {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    said
}

#[test]
fn no_position_ever_stands_for_two_events() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fanfare.redb");
    let mut texts: HashMap<(String, String, u64), String> = HashMap::new();
    let mut lost_in_all = 0;
    for round in 0..ROUNDS {
        let said = run_and_kill(&path, round, 500 + round * 2_311);
        assert!(said.len() >= 500);
        let last_ms = said.last().unwrap().unix_ms;
        for event in &said {
            let Position { epoch, offset } = &event.position;
            let place = (event.channel.clone(), epoch.as_str().to_owned(), *offset);
            let before = texts.insert(place, event.text.clone());
            assert_eq!(
                before, None,
                "{} {offset} twice, round {round}",
                event.channel
            );
        }
        let store = open(&path);
        block_on(async {
            for name in ["post_a", "post_b", "post_kept", &format!("post_of{round}")] {
                let (now, entries) = store.history(&key(name), None, usize::MAX).await.unwrap();
                let kept: Vec<String> = entries
                    .iter()
                    .map(|entry| String::from_utf8_lossy(entry.event.as_bytes()).into_owned())
                    .collect();
                let here = said.iter().filter(|event| event.channel == name);
                let mut lost = 0;
                for event in here {
                    let is_kept =
                        kept.contains(&format!("{{\"type\":\"x\",\"text\":\"{}\"}}", event.text));
                    lost += usize::from(!is_kept);
                    // A hundred milliseconds and what the machine was late.
                    let is_young = event.unix_ms + 400 > last_ms;
                    assert!(is_kept || is_young, "lost {} of {name}", event.text);
                    assert!(is_kept || name != "post_kept", "lost {}", event.text);
                    if name == "post_kept" {
                        assert_eq!(now.epoch, event.position.epoch);
                    } else {
                        assert_ne!(now.epoch, event.position.epoch, "{name}");
                    }
                }
                lost_in_all += lost;
                // Offsets go on where the new epoch begins, and what is there has no hole.
                let text = format!("{round}.after");
                let first = publish(&store, name, &text, COMMIT).await;
                let place = (
                    name.to_owned(),
                    first.epoch.as_str().to_owned(),
                    first.offset,
                );
                assert_eq!(texts.insert(place, text), None);
                assert_eq!((first.epoch, first.offset), (now.epoch, now.offset + 1));
            }
        });
        drop(store);
    }
    println!("{lost_in_all} of {} events were lost", texts.len());
    // Otherwise nothing here was put to the test.
    assert!(lost_in_all > 0);
}

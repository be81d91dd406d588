//! `kill -9` under load: what was acknowledged is there, offsets go on, nothing is there twice.
//!
//! The test runs itself again as a child that writes and prints every acknowledgement, and kills it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use fanfare::broker::embedded::{self, Embedded, Options};
use fanfare::broker::{
    Broker, Durability, NewNotification, NotificationQuery, Publication, Retention, Store,
};
use fanfare::clock::Clock;
use fanfare::protocol::{ChannelKey, Event};

const ROUNDS: u64 = 6;
const WRITERS: usize = 8;
/// The channel whose large events soon make most of the log dead, so that kills meet copying, too.
const BUSY: usize = 9;
/// Tells the child where its database is.
const CHILD: &str = "FANFARE_TEST_CRASH_DATABASE";
const FULL_CHILD: &str = "FANFARE_TEST_FULL_DATABASE";

const KEPT: Retention = Retention {
    entries: 1_000_000,
    ttl: Duration::from_secs(3600),
    durability: Durability::Commit,
};

fn open(path: &Path, clock: &Clock) -> Arc<Embedded> {
    let options = Options {
        path: path.to_owned(),
        store_bytes: 1 << 30,
        history_bytes: u64::MAX,
        notifications_per_user: usize::MAX,
    };
    embedded::open(options, clock.clone()).unwrap()
}

fn post(n: usize) -> ChannelKey {
    ChannelKey::parse(&format!("post_{n}"), 255).unwrap()
}

fn note(user: usize) -> NewNotification {
    NewNotification {
        user_id: format!("u{user}"),
        kind: "TEST".into(),
        title: "title".into(),
        message: "m".repeat(100),
        metadata: None,
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(future)
}

/// Not a test by itself: the child. Writes until it is killed.
#[test]
fn child_that_writes_until_it_is_killed() {
    let Some(path) = std::env::var_os(CHILD) else {
        return;
    };
    let store = open(Path::new(&path), &Clock::system());
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let store = store.clone();
            scope.spawn(move || {
                block_on(async {
                    loop {
                        write_once(&store, writer).await;
                    }
                })
            });
        }
    });
}

async fn write_once(store: &Embedded, writer: usize) {
    // Two writers share a channel and a user.
    let n = writer / 2;
    let added = store.add_notification(note(n), None).await.unwrap();
    say(&format!("note u{n} {}", added.notification.id));
    let text = format!("{{\"type\":\"x\",\"writer\":{writer}}}");
    let publication = Publication {
        channel: post(n),
        event: Event::parse(&text, 100).unwrap(),
        retention: Some(KEPT),
        idempotency_key: None,
        trace: None,
    };
    let position = store.publish(publication).await.unwrap().position.unwrap();
    let (epoch, offset) = (position.epoch.as_str(), position.offset);
    say(&format!("event {n} {epoch} {offset} {writer}"));
    let publication = Publication {
        channel: post(BUSY),
        event: Event::parse(&busy_text(writer), 100_000).unwrap(),
        retention: Some(Retention {
            entries: 10,
            ..KEPT
        }),
        idempotency_key: None,
        trace: None,
    };
    let position = store.publish(publication).await.unwrap().position.unwrap();
    let (epoch, offset) = (position.epoch.as_str(), position.offset);
    say(&format!("event {BUSY} {epoch} {offset} {writer}"));
}

fn busy_text(writer: usize) -> String {
    format!(
        "{{\"type\":\"x\",\"writer\":{writer},\"pad\":\"{}\"}}",
        "x".repeat(20_000)
    )
}

/// One whole line in one write, so that a kill leaves whole lines but for the last.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("ACK {line}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

#[test]
fn nothing_acknowledged_is_lost_to_a_kill() {
    let seed = std::env::var("SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or(u64::from(std::process::id()));
    println!("SEED={seed}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fanfare.redb");
    let mut notes: HashSet<(String, String)> = HashSet::new();
    let mut events: HashMap<(usize, u64), usize> = HashMap::new();
    let mut epochs: HashMap<usize, String> = HashMap::new();
    let mut random = seed;
    for round in 0..ROUNDS {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let acknowledgements = 50 + (random >> 33) % 1_500;
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "child_that_writes_until_it_is_killed",
                "--exact",
                "--nocapture",
            ])
            .env(CHILD, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        let mut count = 0;
        // Everything that was printed counts, also what is still in the pipe after the kill.
        while lines.read_line(&mut line).unwrap() > 0 {
            if let Some(words) = line
                .strip_suffix('\n')
                .and_then(|line| line.split_once("ACK "))
            {
                let words: Vec<&str> = words.1.split(' ').collect();
                match words.as_slice() {
                    ["note", user, id] => {
                        assert!(
                            notes.insert((user.to_string(), id.to_string())),
                            "{id} twice"
                        );
                    }
                    ["event", n, epoch, offset, writer] => {
                        let n: usize = n.parse().unwrap();
                        let known = epochs.entry(n).or_insert_with(|| epoch.to_string());
                        assert_eq!(known, epoch, "round {round}");
                        let place = (n, offset.parse().unwrap());
                        let before = events.insert(place, writer.parse().unwrap());
                        assert_eq!(before, None, "offset {place:?} twice, round {round}");
                    }
                    other => panic!("{other:?}"),
                }
                count += 1;
                if count == acknowledgements {
                    child.kill().unwrap();
                }
            }
            line.clear();
        }
        child.wait().unwrap();
        assert!(count >= acknowledgements, "the child ended by itself");
        verify(&path, &notes, &events, &epochs);
        println!("round {round}: killed after {count} acknowledgements");
    }
}

fn verify(
    path: &Path,
    notes: &HashSet<(String, String)>,
    events: &HashMap<(usize, u64), usize>,
    epochs: &HashMap<usize, String>,
) {
    let store = open(path, &Clock::system());
    block_on(async {
        let mut stored = HashSet::new();
        for n in 0..WRITERS / 2 {
            let query = NotificationQuery {
                limit: usize::MAX,
                ..Default::default()
            };
            let page = store.notifications(&format!("u{n}"), query).await.unwrap();
            assert_eq!(page.unread, page.notifications.len() as u64);
            for notification in page.notifications {
                assert!(stored.insert((notification.user_id, notification.id)));
            }
            let (position, entries) = store.history(&post(n), None, usize::MAX).await.unwrap();
            if let Some(epoch) = epochs.get(&n) {
                assert_eq!(position.epoch.as_str(), epoch);
            }
            let offsets: Vec<u64> = entries.iter().map(|entry| entry.offset).collect();
            assert_eq!(offsets, (1..=position.offset).collect::<Vec<_>>());
            let mut seen = 0;
            for entry in &entries {
                if let Some(writer) = events.get(&(n, entry.offset)) {
                    let text = format!("{{\"type\":\"x\",\"writer\":{writer}}}");
                    assert_eq!(entry.event.as_bytes(), text.as_bytes());
                    seen += 1;
                }
            }
            let acknowledged = events.keys().filter(|(channel, _)| *channel == n).count();
            assert_eq!(seen, acknowledged);
        }
        let (position, entries) = store.history(&post(BUSY), None, 100).await.unwrap();
        let offsets: Vec<u64> = entries.iter().map(|entry| entry.offset).collect();
        let first = position.offset.saturating_sub(9).max(1);
        assert_eq!(offsets, (first..=position.offset).collect::<Vec<_>>());
        for entry in &entries {
            if let Some(writer) = events.get(&(BUSY, entry.offset)) {
                assert_eq!(entry.event.as_bytes(), busy_text(*writer).as_bytes());
            }
        }
        let busy = events.keys().filter(|(channel, _)| *channel == BUSY);
        let top = busy.map(|(_, offset)| *offset).max();
        assert!(top <= Some(position.offset), "{top:?} past {position:?}");
        let lost: Vec<_> = notes.difference(&stored).collect();
        assert!(lost.is_empty(), "lost: {lost:?}");
    });
}

/// Not a test by itself: the child. Writes a hundred thousand notifications and dies of it.
#[test]
fn child_that_fills_and_aborts() {
    let Some(path) = std::env::var_os(FULL_CHILD) else {
        return;
    };
    let store = open(Path::new(&path), &Clock::system());
    block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..100_000 {
            let store = store.clone();
            tasks.spawn(async move { store.add_notification(note(n % 500), None).await.map(drop) });
            if tasks.len() == 2_000 {
                tasks.join_next().await.unwrap().unwrap().unwrap();
            }
        }
        while let Some(added) = tasks.join_next().await {
            added.unwrap().unwrap();
        }
    });
    std::process::abort();
}

#[test]
fn a_hundred_thousand_notifications_reopen_within_a_second_of_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fanfare.redb");
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["child_that_fills_and_aborts", "--exact"])
        .env(FULL_CHILD, &path)
        .output()
        .unwrap();
    // SIGABRT: it came to the end.
    assert_eq!(output.status.signal(), Some(6), "{output:?}");
    let clock = Clock::system();
    let before = clock.now().mono_ms;
    let store = open(&path, &clock);
    let took = clock.now().mono_ms - before;
    println!("reopening with 100,000 notifications took {took} ms");
    assert!(took < 1_000, "{took} ms");
    let query = NotificationQuery {
        limit: 1,
        ..Default::default()
    };
    let page = block_on(store.notifications("u7", query)).unwrap();
    assert_eq!(page.unread, 200);
}

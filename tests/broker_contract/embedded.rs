//! The embedded implementation in the suite, and what holds for it alone.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fanfare::broker::embedded::{self, OpenError, Options};
use fanfare::broker::{Broker, Error, Health, Publication, Retention, Store};
use fanfare::clock::Clock;
use fanfare::protocol::{ChannelKey, Event};
use redb::ReadableDatabase;

use crate::backend::{
    Backend, Later, NOTIFICATIONS_PER_USER, Opened, TEN, channel, event, kept, note, passing,
};

/// A database in a folder that goes with it.
pub struct Embedded {
    folder: tempfile::TempDir,
    clock: Clock,
}

impl Embedded {
    pub fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            clock: Clock::manual(1_700_000_000_000),
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("data/fanfare.redb")
    }

    fn try_open(&self, store_bytes: u64) -> Result<Arc<embedded::Embedded>, OpenError> {
        open(&self.path(), store_bytes, &self.clock)
    }
}

fn open(
    path: &Path,
    store_bytes: u64,
    clock: &Clock,
) -> Result<Arc<embedded::Embedded>, OpenError> {
    let options = Options {
        path: path.to_owned(),
        store_bytes,
        notifications_per_user: NOTIFICATIONS_PER_USER,
    };
    embedded::open(options, clock.clone())
}

impl Backend for Embedded {
    fn open(&self) -> Later<'_, Opened> {
        let opened = self.try_open(1 << 30).unwrap();
        Box::pin(async {
            Opened {
                broker: opened.clone(),
                store: opened,
            }
        })
    }

    fn pass(&self, time: Duration) -> Later<'_, ()> {
        self.clock.advance(time);
        Box::pin(async {})
    }

    fn can_skip_days(&self) -> bool {
        true
    }
}

/// A publication with history and a large event.
fn padded(channel: &ChannelKey, bytes: usize) -> Publication {
    let json = format!("{{\"type\":\"x\",\"pad\":\"{}\"}}", "x".repeat(bytes));
    Publication {
        event: Event::parse(&json, usize::MAX).unwrap(),
        ..kept(channel, 0, TEN)
    }
}

fn refusal(result: Result<Arc<embedded::Embedded>, OpenError>) -> OpenError {
    match result {
        Ok(_) => panic!("it opened"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn the_file_is_its_owners_alone_and_locked() {
    let backend = Embedded::new();
    let first = backend.try_open(1 << 30).unwrap();
    let mode = std::fs::metadata(backend.path())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let error = refusal(backend.try_open(1 << 30));
    assert!(matches!(error, OpenError::InUse { .. }), "{error}");
    drop(first);
    backend.try_open(1 << 30).unwrap();
}

#[tokio::test]
async fn what_is_no_database_is_left_alone() {
    let backend = Embedded::new();
    std::fs::create_dir_all(backend.path().parent().unwrap()).unwrap();
    for content in [&b"shopping list"[..], &[b'x'; 100_000]] {
        std::fs::write(backend.path(), content).unwrap();
        let error = refusal(backend.try_open(1 << 30));
        assert!(matches!(error, OpenError::NotADatabase { .. }), "{error}");
        assert_eq!(std::fs::read(backend.path()).unwrap(), content);
    }
}

#[tokio::test]
async fn a_newer_schema_is_refused_by_name() {
    let backend = Embedded::new();
    drop(backend.try_open(1 << 30).unwrap());
    let table: redb::TableDefinition<&str, &[u8]> = redb::TableDefinition::new("meta");
    let database = redb::Database::open(backend.path()).unwrap();
    let tx = database.begin_write().unwrap();
    tx.open_table(table)
        .unwrap()
        .insert("schema", 7u64.to_le_bytes().as_slice())
        .unwrap();
    tx.commit().unwrap();
    assert!(database.begin_read().is_ok());
    drop(database);
    let error = refusal(backend.try_open(1 << 30)).to_string();
    assert!(
        error.contains("schema version 7") && error.contains("up to 1"),
        "{error}"
    );
}

#[tokio::test]
async fn dropping_finishes_what_was_accepted() {
    let backend = Embedded::new();
    let store = backend.try_open(1 << 30).unwrap();
    for n in 0..20 {
        // Polled once, so accepted; nobody waits for the answer.
        let mut write = store.set("s", &n.to_string(), Bytes::from_static(b"x"), None);
        tokio::select! { biased; _ = &mut write => {}, () = std::future::ready(()) => {} }
    }
    drop(store);
    let store = backend.try_open(1 << 30).unwrap();
    for n in 0..20 {
        assert!(
            store.get("s", &n.to_string()).await.unwrap().is_some(),
            "{n}"
        );
    }
}

#[tokio::test]
async fn an_ended_history_never_uses_a_position_again() {
    let backend = Embedded::new();
    let opened = backend.open().await;
    let (ended, other) = (channel("post_1"), channel("post_2"));
    let second = Retention {
        entries: 10,
        ttl: Duration::from_secs(1),
    };
    opened
        .broker
        .publish(kept(&ended, 1, second))
        .await
        .unwrap();
    let before = opened.broker.position(&ended).await.unwrap();
    let silent = opened.broker.position(&other).await.unwrap();
    assert_eq!((silent.offset, &silent.epoch), (0, &before.epoch));

    // Within the hour, whoever is at the top has missed nothing.
    backend.pass(Duration::from_secs(1800)).await;
    let recovery = opened.broker.recover(&ended, &before).await.unwrap();
    assert_eq!(recovery.missed, Ok(vec![]));

    backend.pass(Duration::from_secs(2 * 3600)).await;
    opened.broker.publish(kept(&other, 1, TEN)).await.unwrap();
    for _ in 0..100 {
        if opened.store.figures().history_channels == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(opened.store.figures().history_channels, 1);
    let after = opened.broker.position(&ended).await.unwrap();
    assert_ne!(after.epoch, before.epoch);
    let published = opened
        .broker
        .publish(kept(&ended, 2, second))
        .await
        .unwrap();
    assert_eq!(published.position.as_ref().unwrap().epoch, after.epoch);
    opened.close().await;
    let opened = backend.open().await;
    assert_eq!(
        Some(opened.broker.position(&ended).await.unwrap()),
        published.position
    );
}

#[tokio::test]
async fn the_log_stays_small_and_is_rebuilt_after_copying() {
    let backend = Embedded::new();
    let opened = backend.open().await;
    let (quiet, busy) = (channel("post_quiet"), channel("post_busy"));
    for n in 0..5 {
        opened.broker.publish(kept(&quiet, n, TEN)).await.unwrap();
    }
    // 20 MB through a channel that keeps 200 kB.
    for _ in 0..100 {
        let tasks: Vec<_> = (0..10)
            .map(|_| {
                let (broker, large) = (opened.broker.clone(), padded(&busy, 20_000));
                tokio::spawn(async move { broker.publish(large).await })
            })
            .collect();
        for task in tasks {
            task.await.unwrap().unwrap();
        }
    }
    let blocks = std::fs::metadata(backend.path()).unwrap().blocks() * 512;
    assert!(blocks < 12 << 20, "{blocks} bytes on disk");
    opened.close().await;
    let opened = backend.open().await;
    let (position, entries) = opened.broker.history(&quiet, None, 100).await.unwrap();
    assert_eq!(position.offset, 5);
    let events: Vec<_> = entries.into_iter().map(|entry| entry.event).collect();
    assert_eq!(events, (0..5).map(event).collect::<Vec<_>>());
    assert_eq!(opened.broker.position(&busy).await.unwrap().offset, 1_000);
    assert_eq!(opened.store.figures().history_events, 15);
}

#[tokio::test]
async fn a_full_store_refuses_frees_and_takes_again() {
    const STORE_BYTES: u64 = 16 << 20;
    let backend = Embedded::new();
    let store = backend.try_open(STORE_BYTES).unwrap();
    for round in 0..3 {
        // Large values until one is refused, then small ones.
        let mut keys = Vec::new();
        for size in [5_000, 0] {
            let mut is_full = false;
            while !is_full {
                let tasks: Vec<_> = (0..64)
                    .map(|n| {
                        let store = store.clone();
                        let key = format!("{:x}", (keys.len() + n + round) * 7_919 % 100_003);
                        tokio::spawn(async move {
                            let value = Bytes::from(vec![7; size]);
                            (store.set("s", &key, value, None).await, key)
                        })
                    })
                    .collect();
                for task in tasks {
                    match task.await.unwrap() {
                        (Ok(()), key) => keys.push(key),
                        (Err(error), _) => {
                            assert_eq!(error, Error::Full);
                            is_full = true;
                        }
                    }
                }
                let blocks = std::fs::metadata(backend.path()).unwrap().blocks() * 512;
                assert!(blocks <= STORE_BYTES, "{blocks} bytes on disk");
            }
            // At least a third of what is allowed is the caller's.
            assert!(
                keys.len() as u64 * 5_000 > STORE_BYTES / 3,
                "{} in {round}",
                keys.len()
            );
        }
        assert!(matches!(Store::health(&*store), Health::Degraded(_)));
        let post = channel("post_1");
        let refused = store.publish(padded(&post, 1_000)).await;
        assert_eq!(refused, Err(Error::Full));
        store.publish(passing(&post, 1)).await.unwrap();
        let error = store.add_notification(note("u", "x"), None).await;
        assert_eq!(error.map(drop), Err(Error::Full));
        let tasks: Vec<_> = keys
            .into_iter()
            .map(|key| {
                let store = store.clone();
                tokio::spawn(async move { store.delete("s", &key).await })
            })
            .collect();
        for task in tasks {
            task.await.unwrap().unwrap();
        }
        assert_eq!(Store::health(&*store), Health::Up);
    }
    let figures = store.figures();
    assert_eq!(figures.queued_writes, 0);
    assert!(figures.writes >= figures.commits && figures.commits > 0);
}

/// A disk that fills up under the store: every write is answered with an error, nothing that was
/// acknowledged is lost, and when there is space again it goes on by itself.
#[tokio::test]
async fn a_full_disk_is_an_error_that_passes() {
    let folder = tempfile::tempdir().unwrap();
    let mount = |arguments: &[&str]| {
        Command::new(arguments[0])
            .args(&arguments[1..])
            .arg(folder.path())
            .output()
            .is_ok_and(|output| output.status.success())
    };
    if !mount(&["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs"]) {
        println!("skipped: mounting a small tmpfs needs root");
        return;
    }
    let path = folder.path().join("fanfare.redb");
    let clock = Clock::manual(1_700_000_000_000);
    let store = open(&path, 1 << 30, &clock).unwrap();
    let filler = folder.path().join("filler");
    std::fs::write(&filler, vec![0; 4 << 20]).unwrap();
    let value = Bytes::from(vec![7; 30_000]);
    let mut written = 0;
    let error = loop {
        match store
            .set("s", &written.to_string(), value.clone(), None)
            .await
        {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::Storage(_)), "{error:?}");
    assert!(matches!(Store::health(&*store), Health::Down(_)));
    std::fs::remove_file(&filler).unwrap();
    let mut tries = 0;
    while Store::health(&*store) != Health::Up {
        tries += 1;
        assert!(tries < 200, "still {:?}", Store::health(&*store));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    store.set("s", "again", value.clone(), None).await.unwrap();
    drop(store);
    let store = open(&path, 1 << 30, &clock).unwrap();
    for n in 0..written {
        assert!(
            store.get("s", &n.to_string()).await.unwrap().is_some(),
            "{n}"
        );
    }
    assert!(
        store
            .get("s", &written.to_string())
            .await
            .unwrap()
            .is_none()
    );
    drop(store);
    assert!(mount(&["umount"]));
}

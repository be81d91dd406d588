//! What the embedded implementation takes on disk, and what happens when there is no more.

use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fanfare::broker::{
    Broker, Durability, Error, Health, Publication, Retention, Revocation, Revoked, Store,
};
use fanfare::clock::Clock;
use fanfare::protocol::{ChannelKey, Event};

use crate::backend::{Backend, Recorder, TEN, channel, event, kept, note, passing};
use crate::embedded::{Embedded, open};

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
        // Whoever is to be shut out is.
        let revocation = Revocation {
            revoked: Revoked::Token {
                id: round.to_string(),
            },
            keep_until_ms: u64::MAX,
        };
        store.revoke(revocation).await.unwrap();
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

#[tokio::test]
async fn a_store_full_of_history_takes_again_when_it_has_expired() {
    const STORE_BYTES: u64 = 16 << 20;
    let backend = Embedded::new();
    let store = backend.try_open(STORE_BYTES).unwrap();
    let post = channel("post_1");
    let all = Retention {
        entries: usize::MAX,
        ttl: Duration::from_secs(600),
        durability: Durability::Commit,
    };
    let mut offset = 0;
    for round in 0..3 {
        let before = offset;
        let mut is_full = false;
        while !is_full {
            let tasks: Vec<_> = (0..32)
                .map(|_| {
                    let store = store.clone();
                    let publication = Publication {
                        retention: Some(all),
                        ..padded(&post, 5_000)
                    };
                    tokio::spawn(async move { store.publish(publication).await })
                })
                .collect();
            for task in tasks {
                match task.await.unwrap() {
                    Ok(published) => offset = published.position.unwrap().offset,
                    Err(error) => {
                        assert_eq!(error, Error::Full);
                        is_full = true;
                    }
                }
            }
            let blocks = std::fs::metadata(backend.path()).unwrap().blocks() * 512;
            assert!(blocks <= STORE_BYTES, "{blocks} bytes on disk");
        }
        let bytes = (offset - before) * 5_000;
        // 5,000 bytes take two pages.
        assert!(bytes > STORE_BYTES / 3, "{bytes} in round {round}");
        backend.pass(Duration::from_secs(700)).await;
        let mut tries = 0;
        while store.figures().bytes > STORE_BYTES / 4 {
            tries += 1;
            assert!(tries < 500, "still {:?}", store.figures());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    drop(store);
    let store = backend.try_open(STORE_BYTES).unwrap();
    assert_eq!(store.position(&post).await.unwrap().offset, offset);
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
    let sink = Arc::new(Recorder::default());
    store.start(sink.clone()).await.unwrap();
    let value = Bytes::from(vec![7; 30_000]);
    store.set("s", "0", value.clone(), None).await.unwrap();
    let mut written = 1;
    // Faster than the store looks: its clock stands still.
    let filler = folder.path().join("filler");
    let system = rustix::fs::statvfs(folder.path()).unwrap();
    let free = (system.f_bavail * system.f_frsize) as usize;
    std::fs::write(&filler, vec![0; free - (150 << 10)]).unwrap();
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
    // A publication that fails leaves no trace in memory and is not delivered.
    let post = channel("post_1");
    let mut published = 0;
    while store.publish(padded(&post, 30_000)).await.is_ok() {
        published += 1;
    }
    assert_eq!(store.position(&post).await.unwrap().offset, published);
    assert_eq!(sink.received(&post, 0).await.len() as u64, published);
    std::fs::remove_file(&filler).unwrap();
    let mut tries = 0;
    while Store::health(&*store) != Health::Up {
        tries += 1;
        assert!(tries < 200, "still {:?}", Store::health(&*store));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    store.set("s", "again", value.clone(), None).await.unwrap();
    let next = store.publish(kept(&post, 1, TEN)).await.unwrap();
    assert_eq!(next.position.unwrap().offset, published + 1);
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
    assert_eq!(store.position(&post).await.unwrap().offset, published + 1);
    drop(store);
    assert!(mount(&["umount"]));
}

/// A publication with history and a large event.
pub fn padded(channel: &ChannelKey, bytes: usize) -> Publication {
    let json = format!("{{\"type\":\"x\",\"pad\":\"{}\"}}", "x".repeat(bytes));
    Publication {
        event: Event::parse(&json, usize::MAX).unwrap(),
        ..kept(channel, 0, TEN)
    }
}

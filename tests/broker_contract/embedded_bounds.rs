//! What bounds the embedded implementation besides `limits.store_bytes`: memory, age, the disk itself.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use fanfare::broker::embedded;
use fanfare::broker::{Broker, Durability, Error, Health, Retention, Store, Unrecoverable};
use fanfare::clock::Clock;
use fanfare::protocol::Position;

use crate::backend::{Backend, TEN, channel, kept};
use crate::embedded::{Embedded, options};
use crate::embedded_space::padded;

const MANY: Retention = Retention {
    entries: 10_000,
    ttl: Duration::from_secs(60),
    durability: Durability::Commit,
};

/// Publishes `count` events of 10 kB, eight at once.
async fn fill(store: &Arc<embedded::Embedded>, key: &str, count: usize, rule: Retention) {
    for _ in 0..count / 8 {
        let tasks: Vec<_> = (0..8)
            .map(|_| {
                let mut publication = padded(&channel(key), 10_000);
                publication.retention = Some(rule);
                let store = store.clone();
                tokio::spawn(async move { store.publish(publication).await })
            })
            .collect();
        for task in tasks {
            task.await.unwrap().unwrap();
        }
    }
}

#[tokio::test]
async fn the_largest_histories_give_when_memory_is_used_up() {
    const HISTORY_BYTES: u64 = 1 << 20;
    let backend = Embedded::new();
    let open = || {
        let options = embedded::Options {
            history_bytes: HISTORY_BYTES,
            ..options(&backend.path(), 1 << 30)
        };
        embedded::open(options, Clock::manual(1_700_000_000_000)).unwrap()
    };
    let relaxed = Retention {
        durability: Durability::Relaxed,
        ..MANY
    };
    let small = channel("post_small");
    let store = open();
    for n in 0..10 {
        store.publish(kept(&small, n, TEN)).await.unwrap();
    }
    fill(&store, "post_a", 400, MANY).await;
    fill(&store, "post_b", 400, relaxed).await;
    assert!(store.figures().history_bytes <= HISTORY_BYTES);
    drop(store);
    // What was given up does not come back.
    let store = open();
    let figures = store.figures();
    assert!(figures.history_bytes <= HISTORY_BYTES, "{figures:?}");
    assert!(figures.history_bytes > HISTORY_BYTES / 2, "{figures:?}");
    let (_, entries) = store.history(&small, None, 100).await.unwrap();
    assert_eq!(entries.len(), 10);
    let mut left = Vec::new();
    for key in ["post_a", "post_b"] {
        let key = channel(key);
        let (position, entries) = store.history(&key, None, 10_000).await.unwrap();
        assert_eq!(position.offset, 400);
        let first = entries[0].offset;
        assert_eq!(entries.len() as u64, 400 - first + 1);
        left.push(entries.len());
        let since = |offset| Position {
            offset,
            ..position.clone()
        };
        let recovery = store.recover(&key, &since(first - 1)).await.unwrap();
        assert_eq!(recovery.missed.unwrap(), entries);
        let recovery = store.recover(&key, &since(first - 2)).await.unwrap();
        assert_eq!(recovery.missed, Err(Unrecoverable::HistoryExpired));
    }
    // They were the same, so they gave the same, but for the last step.
    assert!(left[0].abs_diff(left[1]) < 15, "{left:?}");
}

#[tokio::test]
async fn old_events_leave_memory_and_log_without_traffic() {
    let backend = Embedded::new();
    let store = backend.try_open(64 << 20).unwrap();
    fill(&store, "post_a", 400, MANY).await;
    fill(&store, "post_b", 400, MANY).await;
    let before = store.figures();
    assert_eq!(before.history_events, 800);
    backend.pass(Duration::from_secs(61)).await;
    let mut after = before;
    for _ in 0..500 {
        after = store.figures();
        if after.history_events == 0 && after.bytes < before.bytes / 2 {
            break;
        }
        backend.pass(Duration::from_millis(250)).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!((after.history_events, after.history_channels), (0, 2));
    assert!(after.bytes < before.bytes / 2, "{before:?} {after:?}");
    assert!(after.history_bytes < 1_000, "{after:?}");
    // The epoch goes on.
    assert_eq!(
        store.position(&channel("post_a")).await.unwrap().offset,
        400
    );
}

/// A file system of its own; gone at the end.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None` where this user may not mount anything.
    fn mount(mebibytes: u32) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mebibytes}m"), "none"])
            .arg(folder.path())
            .output()
            .is_ok_and(|output| output.status.success());
        mounted.then_some(Self(folder))
    }

    fn free(&self) -> u64 {
        let system = rustix::fs::statvfs(self.0.path()).unwrap();
        system.f_bavail * system.f_frsize
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

async fn refused(store: &embedded::Embedded, rule: Retention) -> Error {
    for _ in 0..100_000 {
        let mut publication = padded(&channel("post_a"), 10_000);
        publication.retention = Some(rule);
        if let Err(error) = store.publish(publication).await {
            return error;
        }
        tokio::task::yield_now().await;
    }
    panic!("nothing was refused");
}

#[tokio::test]
async fn the_disk_is_never_filled() {
    const MEBIBYTES: u32 = 32;
    let Some(disk) = SmallDisk::mount(MEBIBYTES) else {
        eprintln!("not tested: mounting takes rights that this user has not");
        return;
    };
    let folder: &Path = disk.0.path();
    let clock = Clock::manual(1_700_000_000_000);
    let open = || {
        let options = options(&folder.join("fanfare.redb"), 1 << 30);
        embedded::open(options, clock.clone()).unwrap()
    };
    let store = open();
    assert_eq!(refused(&store, MANY).await, Error::Full);
    assert!(matches!(Store::health(&*store), Health::Degraded(_)));
    // A quarter was to be left alone; a commit under way may have taken some of it.
    let floor = u64::from(MEBIBYTES) * (1 << 20) / 4;
    assert!(disk.free() > floor * 3 / 4, "{} are free", disk.free());
    // Expired events give their space back, so it goes on.
    clock.advance(Duration::from_secs(61));
    let mut taken = false;
    for _ in 0..500 {
        clock.advance(Duration::from_millis(1_001));
        tokio::time::sleep(Duration::from_millis(10)).await;
        taken = store
            .publish(kept(&channel("post_b"), 1, TEN))
            .await
            .is_ok();
        if taken {
            break;
        }
    }
    assert!(taken);

    // Somebody else fills it: relaxed publishers are refused as well, and nothing breaks.
    let relaxed = Retention {
        durability: Durability::Relaxed,
        ..MANY
    };
    store
        .publish(kept(&channel("post_r"), 1, relaxed))
        .await
        .unwrap();
    let size = disk.free() - floor / 2;
    std::fs::write(folder.join("other"), vec![7; size as usize]).unwrap();
    clock.advance(Duration::from_secs(2));
    assert_eq!(refused(&store, relaxed).await, Error::Full);
    assert!(disk.free() > floor / 4, "{} are free", disk.free());
    std::fs::remove_file(folder.join("other")).unwrap();
    for _ in 0..500 {
        clock.advance(Duration::from_millis(1_001));
        tokio::time::sleep(Duration::from_millis(10)).await;
        if Store::health(&*store) == Health::Up {
            break;
        }
    }
    store
        .publish(kept(&channel("post_r"), 2, relaxed))
        .await
        .unwrap();
    drop(store);
    let store = open();
    assert_eq!(store.figures().failures, 0);
    assert!(store.position(&channel("post_r")).await.unwrap().offset >= 2);
}

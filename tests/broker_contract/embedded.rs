//! The embedded implementation in the suite, and what holds for it alone.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fanfare::broker::embedded::{self, OpenError, Options};
use fanfare::broker::{Broker, Deliver, Delivery, Durability, Error, Retention, Store};
use fanfare::clock::Clock;
use fanfare::protocol::ChannelKey;
use redb::ReadableDatabase;

use crate::backend::{
    Backend, Later, NOTIFICATIONS_PER_USER, Opened, Recorder, TEN, channel, kept, passing,
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

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("data/fanfare.redb")
    }

    pub fn try_open(&self, store_bytes: u64) -> Result<Arc<embedded::Embedded>, OpenError> {
        open(&self.path(), store_bytes, &self.clock)
    }
}

pub fn open(
    path: &Path,
    store_bytes: u64,
    clock: &Clock,
) -> Result<Arc<embedded::Embedded>, OpenError> {
    embedded::open(options(path, store_bytes), clock.clone())
}

pub fn options(path: &Path, store_bytes: u64) -> Options {
    Options {
        path: path.to_owned(),
        store_bytes,
        history_bytes: 256 << 20,
        notifications_per_user: NOTIFICATIONS_PER_USER,
    }
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

    fn now_ms(&self) -> u64 {
        self.clock.unix_ms()
    }

    fn can_skip_days(&self) -> bool {
        true
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
        error.contains("schema version 7") && error.contains("up to 3"),
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
        durability: Durability::Commit,
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

/// A sink that takes its time, so that the writer stands still.
struct Stuck(std::sync::Mutex<std::sync::mpsc::Receiver<()>>);

impl Deliver for Stuck {
    fn deliver(&self, _: Delivery) {
        let _ = self.0.lock().unwrap().recv();
    }

    fn gap(&self, _: Option<&ChannelKey>) {}

    fn notice(&self, _: Bytes) {}
}

#[tokio::test]
async fn a_full_inbox_is_overloaded_at_once() {
    let backend = Embedded::new();
    let store = backend.try_open(1 << 30).unwrap();
    let (go, stuck) = std::sync::mpsc::channel();
    let sink = Stuck(std::sync::Mutex::new(stuck));
    store.start(Arc::new(sink)).await.unwrap();
    let publishing = tokio::spawn({
        let store = store.clone();
        async move { store.publish(kept(&channel("post_1"), 1, TEN)).await }
    });
    while Store::figures(&*store).commits == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut waiting = Vec::new();
    let refusal = loop {
        let mut write = store.delete("s", "k");
        let answer = tokio::select! {
            biased;
            answer = &mut write => answer,
            () = std::future::ready(()) => {
                waiting.push(write);
                continue;
            }
        };
        break answer;
    };
    assert_eq!(refusal, Err(Error::Overloaded));
    assert_eq!(store.figures().queued_writes, waiting.len() as u64);
    // Reading and live events do not wait for the writer.
    assert_eq!(store.get("s", "k").await.unwrap(), None);
    drop(go);
    publishing.await.unwrap().unwrap();
    for write in waiting {
        assert_eq!(write.await, Ok(false));
    }
    assert_eq!(store.figures().queued_writes, 0);
}

#[tokio::test]
async fn live_events_of_one_channel_come_one_at_a_time_from_many_threads() {
    let backend = Embedded::new();
    let store = backend.try_open(1 << 30).unwrap();
    let sink = Arc::new(Recorder::default());
    store.start(sink.clone()).await.unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let store = &store;
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .build()
                    .unwrap();
                runtime.block_on(async {
                    for n in 0..200 {
                        let live = passing(&channel("post_1"), thread * 1_000 + n);
                        store.publish(live).await.unwrap();
                    }
                });
            });
        }
    });
    assert_eq!(sink.received(&channel("post_1"), 800).await.len(), 800);
}

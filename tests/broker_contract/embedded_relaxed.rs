//! What the disk of the embedded implementation knows of relaxed channels. A copy of the file of a
//! running store is what a crash would leave.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use fanfare::broker::{Answer, Broker, Durability, Published, Retention, Store, Unrecoverable};
use fanfare::clock::Clock;
use redb::ReadableTable;

use crate::backend::{Backend, TEN, channel, kept};
use crate::embedded::{Embedded, open};

const RELAXED: Retention = Retention {
    durability: Durability::Relaxed,
    ..TEN
};

fn copy(backend: &Embedded, name: &str) -> PathBuf {
    let path = backend.path().with_file_name(name);
    std::fs::copy(backend.path(), &path).unwrap();
    path
}

/// The answer, if nothing had to be waited for.
fn at_once(mut answer: Answer<'_, Published>) -> Option<Published> {
    let mut context = Context::from_waker(Waker::noop());
    match Pin::new(&mut answer).poll(&mut context) {
        Poll::Ready(answer) => Some(answer.unwrap()),
        Poll::Pending => None,
    }
}

#[tokio::test]
async fn a_relaxed_event_is_answered_and_delivered_at_once() {
    let backend = Embedded::new();
    let opened = backend.open().await;
    let sink = opened.start().await;
    let post = channel("post_1");
    // The first one of all may have to prepare the disk for the others.
    let first = opened.broker.publish(kept(&post, 1, RELAXED)).await;
    assert_eq!(first.unwrap().position.unwrap().offset, 1);
    for (n, key) in [(2, "post_1"), (1, "post_2"), (3, "post_1")] {
        let channel = channel(key);
        let answer = at_once(opened.broker.publish(kept(&channel, n, RELAXED)));
        let position = answer.expect("it waited").position.unwrap();
        assert_eq!(position.offset, n as u64);
        let delivered = sink.received(&channel, n).await;
        assert_eq!(delivered[n - 1].position, Some(position.clone()));
        assert_eq!(opened.broker.position(&channel).await.unwrap(), position);
    }
    opened.close().await;
}

#[tokio::test]
async fn a_crash_ends_relaxed_epochs_unless_it_was_quiet() {
    let backend = Embedded::new();
    let store = backend.try_open(1 << 30).unwrap();
    let (post, other, silent) = (channel("post_1"), channel("post_2"), channel("post_3"));
    store.publish(kept(&post, 1, RELAXED)).await.unwrap();
    store.publish(kept(&other, 1, TEN)).await.unwrap();
    let busy = copy(&backend, "busy.redb");
    let top = store.publish(kept(&post, 2, RELAXED)).await.unwrap();
    let top = top.position.unwrap();
    let other_top = store.position(&other).await.unwrap();
    let silent_top = store.position(&silent).await.unwrap();
    let commits = store.figures().commits;
    backend.pass(Duration::from_secs(11)).await;
    for _ in 0..200 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        if store.figures().commits > commits + 1 {
            break;
        }
    }
    let quiet = copy(&backend, "quiet.redb");

    let clock = Clock::manual(1_700_000_020_000);
    let crashed = open(&busy, 1 << 30, &clock).unwrap();
    let recovery = crashed.recover(&post, &top).await.unwrap();
    assert_eq!(recovery.missed, Err(Unrecoverable::EpochChanged));
    // What was on disk is still shown.
    let (position, entries) = crashed.history(&post, None, 10).await.unwrap();
    assert_eq!((position.offset, entries.len()), (1, 1));
    assert_eq!(crashed.position(&other).await.unwrap(), other_top);
    // Events of a channel without a row may have been lost with it.
    assert_ne!(crashed.position(&silent).await.unwrap(), silent_top);

    let calm = open(&quiet, 1 << 30, &clock).unwrap();
    let recovery = calm.recover(&post, &top).await.unwrap();
    assert_eq!((recovery.position, recovery.missed), (top, Ok(vec![])));
    assert_eq!(calm.position(&silent).await.unwrap(), silent_top);

    // After the pause the disk is told again, before anything runs ahead of it.
    let next = store.publish(kept(&post, 3, RELAXED)).await.unwrap();
    let again = open(&copy(&backend, "again.redb"), 1 << 30, &clock).unwrap();
    let now = again.position(&post).await.unwrap();
    assert_eq!(now.offset, 3);
    assert_ne!(now.epoch, next.position.unwrap().epoch);
}

#[tokio::test]
async fn a_database_of_the_first_schema_goes_on() {
    let backend = Embedded::new();
    let post = channel("post_1");
    let store = backend.try_open(1 << 30).unwrap();
    for n in 0..3 {
        store.publish(kept(&post, n, TEN)).await.unwrap();
    }
    let before = store.position(&post).await.unwrap();
    drop(store);
    {
        let database = redb::Database::open(backend.path()).unwrap();
        let tx = database.begin_write().unwrap();
        for (table, key) in [("meta", "ledger"), ("channels", "post_1")] {
            let table: redb::TableDefinition<&str, &[u8]> = redb::TableDefinition::new(table);
            let mut table = tx.open_table(table).unwrap();
            let row = table.get(key).unwrap().unwrap().value().to_vec();
            // The first schema had no flag at the end.
            table.insert(key, &row[..row.len() - 1]).unwrap();
        }
        let meta: redb::TableDefinition<&str, &[u8]> = redb::TableDefinition::new("meta");
        let mut meta = tx.open_table(meta).unwrap();
        meta.insert("schema", 1u64.to_le_bytes().as_slice())
            .unwrap();
        drop(meta);
        // Nor were there revocations before the third.
        let revocations: redb::TableDefinition<(u8, &str), &[u8]> =
            redb::TableDefinition::new("revocations");
        let expiry: redb::TableDefinition<(u64, u8, &str), &[u8]> =
            redb::TableDefinition::new("revocation_expiry");
        assert!(tx.delete_table(revocations).unwrap());
        assert!(tx.delete_table(expiry).unwrap());
        tx.commit().unwrap();
    }
    let store = backend.try_open(1 << 30).unwrap();
    assert_eq!(store.position(&post).await.unwrap(), before);
    let revocations = store.revocations(None, 10).await.unwrap();
    assert_eq!(revocations.revocations, []);
    for n in 0..2 {
        store.publish(kept(&post, n, RELAXED)).await.unwrap();
    }
    drop(store);
    let store = backend.try_open(1 << 30).unwrap();
    let now = store.position(&post).await.unwrap();
    assert_eq!((now.epoch, now.offset), (before.epoch, 5));
}

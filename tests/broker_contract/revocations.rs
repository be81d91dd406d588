//! Tokens that are taken back: remembered until they would have expired, read page by page.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use fanfare::broker::{Revocation, Revoked, Store};

use crate::backend::Backend;

const HOUR_MS: u64 = 60 * 60 * 1000;

fn token(id: &str, keep_until_ms: u64) -> Revocation {
    Revocation {
        revoked: Revoked::Token { id: id.into() },
        keep_until_ms,
    }
}

fn user(id: &str, before_ms: u64, keep_until_ms: u64) -> Revocation {
    Revocation {
        revoked: Revoked::User {
            id: id.into(),
            before_ms,
        },
        keep_until_ms,
    }
}

/// All pages, each revocation once, as a map to its end.
async fn all(store: &Arc<dyn Store>, limit: usize) -> HashMap<Revoked, u64> {
    let mut found = HashMap::new();
    let mut cursor = None;
    loop {
        let page = store.revocations(cursor, limit).await.unwrap();
        assert!(page.revocations.len() <= limit);
        for revocation in page.revocations {
            found.insert(revocation.revoked, revocation.keep_until_ms);
        }
        match page.next_cursor {
            Some(next) => cursor = Some(next),
            None => return found,
        }
    }
}

pub async fn a_revocation_comes_back(backend: &dyn Backend) {
    let opened = backend.open().await;
    let until_ms = backend.now_ms() + HOUR_MS;
    let family = Revocation {
        revoked: Revoked::Family { id: "same".into() },
        keep_until_ms: until_ms,
    };
    // One id in all three kinds, and names that are awkward for whoever joins them.
    let revocations = [
        token("same", until_ms),
        family,
        user("same", 1_234, until_ms),
        token("", until_ms),
        token("ä:\0{}", until_ms),
        user("u:1", u64::MAX, u64::MAX),
    ];
    assert!(all(&opened.store, 10).await.is_empty());
    for revocation in &revocations {
        opened.store.revoke(revocation.clone()).await.unwrap();
    }
    let expected: HashMap<_, _> = revocations
        .into_iter()
        .map(|it| (it.revoked, it.keep_until_ms))
        .collect();
    assert_eq!(all(&opened.store, 10).await, expected);
    opened.close().await;
    let opened = backend.open().await;
    assert_eq!(all(&opened.store, 10).await, expected);
    opened.close().await;
}

pub async fn revoking_again_only_adds(backend: &dyn Backend) {
    let opened = backend.open().await;
    let now = backend.now_ms();
    let (soon, late) = (now + HOUR_MS, now + 2 * HOUR_MS);
    for revocation in [
        token("t", soon),
        token("t", late),
        token("t", soon),
        user("u", 500, late),
        user("u", 700, soon),
        user("u", 600, soon),
    ] {
        opened.store.revoke(revocation).await.unwrap();
    }
    let expected = [token("t", late), user("u", 700, late)]
        .map(|it| (it.revoked, it.keep_until_ms))
        .into();
    assert_eq!(all(&opened.store, 10).await, expected);
    opened.close().await;
}

pub async fn revocations_come_in_pages(backend: &dyn Backend) {
    let opened = backend.open().await;
    let until_ms = backend.now_ms() + HOUR_MS;
    let tasks: Vec<_> = (0..250)
        .map(|n| {
            let store = opened.store.clone();
            tokio::spawn(async move { store.revoke(token(&format!("t{n}"), until_ms)).await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    for limit in [1, 7, 50, 250, 1_000] {
        assert_eq!(all(&opened.store, limit).await.len(), 250, "{limit}");
    }
    // One that nobody was given is no error.
    let strange = opened.store.revocations(Some("ß\0".into()), 10).await;
    assert!(strange.unwrap().revocations.len() <= 10);
    // What comes while somebody reads does not disturb the others.
    let first = opened.store.revocations(None, 100).await.unwrap();
    opened.store.revoke(token("new", until_ms)).await.unwrap();
    let mut seen = first.revocations.len();
    let mut cursor = first.next_cursor;
    while let Some(next) = cursor {
        let page = opened.store.revocations(Some(next), 100).await.unwrap();
        seen += page.revocations.len();
        cursor = page.next_cursor;
    }
    assert!(seen >= 250, "{seen}");
    opened.close().await;
}

pub async fn revocations_end(backend: &dyn Backend) {
    let opened = backend.open().await;
    let now = backend.now_ms();
    let second = Duration::from_secs(1);
    for revocation in [
        token("past", now.saturating_sub(1)),
        token("short", now + 1_000),
        token("long", now + HOUR_MS),
        token("kept", now + 1_000),
        token("kept", now + HOUR_MS),
    ] {
        opened.store.revoke(revocation).await.unwrap();
    }
    assert_eq!(all(&opened.store, 10).await.len(), 3);
    backend.pass(second + Duration::from_millis(100)).await;
    let ends = [token("long", now + HOUR_MS), token("kept", now + HOUR_MS)]
        .map(|it| (it.revoked, it.keep_until_ms))
        .into();
    assert_eq!(all(&opened.store, 10).await, ends);
    // Whatever sweeps has had its time, and has taken no more than was over.
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(all(&opened.store, 10).await, ends);
    opened.close().await;
}

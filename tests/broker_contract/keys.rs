//! Keys with a time to live and a revision.

use std::time::Duration;

use bytes::Bytes;

use crate::backend::Backend;

fn value(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

pub async fn a_key_is_set_read_and_deleted(backend: &dyn Backend) {
    let opened = backend.open().await;
    let store = &opened.store;
    assert_eq!(store.get("s", "k").await.unwrap(), None);
    store.set("s", "k", value("one"), None).await.unwrap();
    store.set("s", "k", value("two"), None).await.unwrap();
    assert_eq!(store.get("s", "k").await.unwrap().unwrap().value, "two");
    assert_eq!(store.get("t", "k").await.unwrap(), None);
    store.set("s", "empty", Bytes::new(), None).await.unwrap();
    opened.close().await;
    let opened = backend.open().await;
    let store = &opened.store;
    assert_eq!(store.get("s", "k").await.unwrap().unwrap().value, "two");
    assert_eq!(store.get("s", "empty").await.unwrap().unwrap().value, "");
    assert!(store.delete("s", "k").await.unwrap());
    assert!(!store.delete("s", "k").await.unwrap());
    assert_eq!(store.get("s", "k").await.unwrap(), None);
    opened.close().await;
}

pub async fn keys_expire(backend: &dyn Backend) {
    let opened = backend.open().await;
    let store = &opened.store;
    let second = Some(Duration::from_secs(1));
    store.set("s", "short", value("x"), second).await.unwrap();
    store
        .set("s", "long", value("x"), Some(Duration::MAX))
        .await
        .unwrap();
    store.set("s", "kept", value("x"), second).await.unwrap();
    store.set("s", "kept", value("y"), None).await.unwrap();
    backend.pass(Duration::from_millis(1_100)).await;
    assert_eq!(store.get("s", "short").await.unwrap(), None);
    assert!(!store.delete("s", "short").await.unwrap());
    assert!(
        store
            .compare_and_set("s", "short", None, value("z"), None)
            .await
            .unwrap()
    );
    // Whatever sweeps has had its time.
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(store.get("s", "kept").await.unwrap().unwrap().value, "y");
    assert_eq!(store.get("s", "short").await.unwrap().unwrap().value, "z");
    assert_eq!(store.get("s", "long").await.unwrap().unwrap().value, "x");
    opened.close().await;
}

pub async fn a_revision_never_comes_back(backend: &dyn Backend) {
    let opened = backend.open().await;
    let mut revisions = Vec::new();
    for _ in 0..3 {
        opened
            .store
            .set("s", "k", value("same"), None)
            .await
            .unwrap();
        revisions.push(opened.store.get("s", "k").await.unwrap().unwrap().revision);
        opened.store.delete("s", "k").await.unwrap();
    }
    revisions.sort_unstable();
    revisions.dedup();
    assert_eq!(revisions.len(), 3);
    opened.close().await;
}

pub async fn compare_and_set_has_one_winner(backend: &dyn Backend) {
    let opened = backend.open().await;
    let mut expected = None;
    for _round in 0..5 {
        let tasks: Vec<_> = (0..10)
            .map(|_| {
                let store = opened.store.clone();
                tokio::spawn(async move {
                    let swap = store.compare_and_set("s", "k", expected, value("x"), None);
                    swap.await.unwrap()
                })
            })
            .collect();
        let mut winners = 0;
        for task in tasks {
            winners += usize::from(task.await.unwrap());
        }
        assert_eq!(winners, 1);
        let before = expected;
        expected = Some(opened.store.get("s", "k").await.unwrap().unwrap().revision);
        assert_ne!(before, expected);
    }
    let absent = opened
        .store
        .compare_and_set("s", "no", expected, value("x"), None);
    assert!(!absent.await.unwrap());
    opened.close().await;
}

pub async fn awkward_names_stay_apart(backend: &dyn Backend) {
    let opened = backend.open().await;
    let long = "x".repeat(3_000);
    let names = [
        ("a", "b:c"),
        ("a:b", "c"),
        ("a", "b\0c"),
        ("a\0b", "c"),
        ("", "abc"),
        ("abc", ""),
        ("a", "{b}"),
        ("ä", "b"),
        ("a", long.as_str()),
    ];
    for (n, (space, key)) in names.iter().enumerate() {
        let bytes = Bytes::from(n.to_string());
        opened.store.set(space, key, bytes, None).await.unwrap();
    }
    for (n, (space, key)) in names.iter().enumerate() {
        let stored = opened.store.get(space, key).await.unwrap().unwrap();
        assert_eq!(stored.value, n.to_string());
    }
    opened.close().await;
}

//! Keys that make a repetition harmless.

use std::time::Duration;

use fanfare::broker::{NotificationQuery, Publication};

use crate::backend::{Backend, TEN, channel, kept, note, passing};

fn keyed(publication: Publication, key: &str) -> Publication {
    Publication {
        idempotency_key: Some(key.into()),
        ..publication
    }
}

pub async fn a_repeated_publication_gives_the_first_answer(backend: &dyn Backend) {
    let opened = backend.open().await;
    let sink = opened.start().await;
    let post = channel("post_1");
    opened.broker.subscribe(&post).await.unwrap();
    let first = opened
        .broker
        .publish(keyed(kept(&post, 1, TEN), "a"))
        .await
        .unwrap();
    opened
        .broker
        .publish(keyed(kept(&post, 2, TEN), "b"))
        .await
        .unwrap();
    let again = opened
        .broker
        .publish(keyed(kept(&post, 3, TEN), "a"))
        .await
        .unwrap();
    assert!(!first.repeated && again.repeated);
    assert_eq!(again.position, first.position);
    assert_eq!(sink.received(&post, 3).await.len(), 2);
    opened.close().await;
    let opened = backend.open().await;
    opened.start().await;
    let again = opened
        .broker
        .publish(keyed(kept(&post, 4, TEN), "a"))
        .await
        .unwrap();
    assert!(again.repeated);
    assert_eq!(opened.broker.position(&post).await.unwrap().offset, 2);
    if backend.can_skip_days() {
        backend.pass(Duration::from_secs(24 * 3600 - 1)).await;
        let day = keyed(kept(&post, 5, TEN), "a");
        assert!(opened.broker.publish(day.clone()).await.unwrap().repeated);
        backend.pass(Duration::from_secs(2)).await;
        assert!(!opened.broker.publish(day).await.unwrap().repeated);
    }
    opened.close().await;
}

pub async fn at_once_only_one_is_published(backend: &dyn Backend) {
    let opened = backend.open().await;
    let sink = opened.start().await;
    let post = channel("post_1");
    opened.broker.subscribe(&post).await.unwrap();
    let tasks: Vec<_> = (0..20)
        .map(|n| {
            let (broker, post) = (opened.broker.clone(), post.clone());
            tokio::spawn(async move {
                let publication = keyed(kept(&post, n, TEN), "same");
                broker.publish(publication).await.unwrap()
            })
        })
        .collect();
    let mut first = 0;
    for task in tasks {
        let published = task.await.unwrap();
        first += usize::from(!published.repeated);
        assert_eq!(published.position.unwrap().offset, 1);
    }
    assert_eq!(first, 1);
    assert_eq!(sink.received(&post, 2).await.len(), 1);
    opened.close().await;
}

pub async fn a_key_without_history_works_too(backend: &dyn Backend) {
    let opened = backend.open().await;
    let sink = opened.start().await;
    let post = channel("post_1");
    opened.broker.subscribe(&post).await.unwrap();
    let first = opened
        .broker
        .publish(keyed(passing(&post, 1), "a"))
        .await
        .unwrap();
    let again = opened
        .broker
        .publish(keyed(passing(&post, 1), "a"))
        .await
        .unwrap();
    assert_eq!((first.repeated, again.repeated), (false, true));
    assert_eq!((first.position, again.position), (None, None));
    assert_eq!(sink.received(&post, 2).await.len(), 1);
    opened.close().await;
}

pub async fn a_repeated_notification_gives_the_first_one(backend: &dyn Backend) {
    let opened = backend.open().await;
    let store = &opened.store;
    let add = |title: &'static str| store.add_notification(note("u", title), Some("k".into()));
    let first = add("first").await.unwrap();
    let again = add("second").await.unwrap();
    assert!(!first.repeated && again.repeated);
    assert_eq!(again.notification.id, first.notification.id);
    assert_eq!(again.notification.title, "first");
    assert_eq!(again.unread, 1);
    let tasks: Vec<_> = (0..10)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                let added = store.add_notification(note("v", "x"), Some("race".into()));
                added.await.unwrap().repeated
            })
        })
        .collect();
    let mut first_ones = 0;
    for task in tasks {
        first_ones += usize::from(!task.await.unwrap());
    }
    assert_eq!(first_ones, 1);
    // Deleting does not make the key new.
    store
        .delete_notification("u", &first.notification.id)
        .await
        .unwrap();
    let gone = add("third").await.unwrap();
    assert!(gone.repeated);
    assert_eq!(
        (gone.notification.title.as_str(), gone.unread),
        ("first", 0)
    );
    let query = NotificationQuery {
        limit: 10,
        ..Default::default()
    };
    let page = store.notifications("u", query).await.unwrap();
    assert!(page.notifications.is_empty());
    opened.close().await;
}

pub async fn keys_of_publications_and_notifications_are_apart(backend: &dyn Backend) {
    let opened = backend.open().await;
    opened.start().await;
    let post = channel("post_1");
    let published = opened
        .broker
        .publish(keyed(kept(&post, 1, TEN), "k"))
        .await
        .unwrap();
    let added = opened
        .store
        .add_notification(note("u", "x"), Some("k".into()))
        .await
        .unwrap();
    assert!(!published.repeated && !added.repeated);
    assert!(opened.store.get("publish", "k").await.unwrap().is_none());
    opened.close().await;
}

//! Publishing and delivering.

use std::time::Duration;

use bytes::Bytes;
use fanfare::broker::{
    Durability, Error, Health, NOTICE_BYTES_MAX, NotificationQuery, ReadMark, Retention, UserChange,
};

use crate::backend::{Backend, TEN, channel, event, kept, note, passing};

pub async fn events_arrive_once_in_one_order(backend: &dyn Backend) {
    const PUBLISHERS: usize = 16;
    const EACH: usize = 50;
    let opened = backend.open().await;
    let sink = opened.start().await;
    let post = channel("post_1");
    opened.broker.subscribe(&post).await.unwrap();
    opened.broker.subscribe(&post).await.unwrap();
    let all = Retention {
        entries: PUBLISHERS * EACH,
        ttl: Duration::from_secs(3600),
        durability: Durability::Commit,
    };
    let mut tasks = Vec::new();
    for publisher in 0..PUBLISHERS {
        let (broker, post) = (opened.broker.clone(), post.clone());
        tasks.push(tokio::spawn(async move {
            let mut last = 0;
            for n in 0..EACH {
                let publication = kept(&post, publisher * EACH + n, all);
                let published = broker.publish(publication).await.unwrap();
                assert!(!published.repeated);
                let offset = published.position.unwrap().offset;
                assert!(offset > last, "{offset} after {last}");
                last = offset;
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let received = sink.received(&post, PUBLISHERS * EACH).await;
    let offsets: Vec<u64> = received
        .iter()
        .map(|delivery| delivery.position.as_ref().unwrap().offset)
        .collect();
    assert_eq!(
        offsets,
        (1..=(PUBLISHERS * EACH) as u64).collect::<Vec<_>>()
    );
    let (_, entries) = opened
        .broker
        .history(&post, None, usize::MAX)
        .await
        .unwrap();
    for (delivery, entry) in received.iter().zip(&entries) {
        assert_eq!(delivery.event, entry.event);
        assert_eq!(delivery.position.as_ref().unwrap().offset, entry.offset);
    }
    let mut texts: Vec<_> = received
        .iter()
        .map(|it| it.event.as_bytes().clone())
        .collect();
    texts.sort_unstable();
    texts.dedup();
    assert_eq!(texts.len(), PUBLISHERS * EACH);
    opened.broker.unsubscribe(&post).await.unwrap();
    opened.close().await;
}

pub async fn an_event_without_history_has_no_position(backend: &dyn Backend) {
    let opened = backend.open().await;
    let sink = opened.start().await;
    let post = channel("post_1");
    opened.broker.subscribe(&post).await.unwrap();
    for n in 0..20 {
        let published = opened.broker.publish(passing(&post, n)).await.unwrap();
        assert_eq!((published.position, published.repeated), (None, false));
    }
    let received = sink.received(&post, 20).await;
    let events: Vec<_> = received.iter().map(|it| it.event.clone()).collect();
    assert_eq!(events, (0..20).map(event).collect::<Vec<_>>());
    assert!(received.iter().all(|delivery| delivery.position.is_none()));
    let (_, entries) = opened.broker.history(&post, None, 10).await.unwrap();
    assert!(entries.is_empty());
    opened.close().await;
}

pub async fn the_last_call_counts(backend: &dyn Backend) {
    let opened = backend.open().await;
    let sink = opened.start().await;
    let post = channel("post_1");
    for _ in 0..20 {
        opened.broker.subscribe(&post).await.unwrap();
        // Nobody waits for the answer.
        drop(opened.broker.unsubscribe(&post));
    }
    opened.broker.subscribe(&post).await.unwrap();
    opened.broker.publish(kept(&post, 1, TEN)).await.unwrap();
    opened.broker.publish(passing(&post, 2)).await.unwrap();
    assert_eq!(sink.received(&post, 2).await.len(), 2);
    opened.close().await;
}

pub async fn channels_do_not_mix(backend: &dyn Backend) {
    let opened = backend.open().await;
    let sink = opened.start().await;
    let names = [
        "post_1", "post_11", "post_1_1", "post_1:1", "feed_1", "post_é",
    ];
    let channels: Vec<_> = names.into_iter().map(channel).collect();
    for (n, channel) in channels.iter().enumerate() {
        opened.broker.subscribe(channel).await.unwrap();
        opened.broker.publish(kept(channel, n, TEN)).await.unwrap();
    }
    for (n, channel) in channels.iter().enumerate() {
        let received = sink.received(channel, 1).await;
        assert_eq!(received.len(), 1);
        assert_eq!(received[0].event, event(n));
        let (position, entries) = opened.broker.history(channel, None, 10).await.unwrap();
        assert_eq!((position.offset, entries.len()), (1, 1));
        assert_eq!(entries[0].event, event(n));
    }
    opened.close().await;
}

pub async fn after_closing_everything_is_closed(backend: &dyn Backend) {
    let opened = backend.open().await;
    opened.start().await;
    let (broker, store) = (opened.broker.clone(), opened.store.clone());
    let post = channel("post_1");
    let position = broker.position(&post).await.unwrap();
    // Accepted before: finished.
    let accepted: Vec<_> = (0..20)
        .map(|n| {
            tokio::spawn({
                let (broker, post) = (broker.clone(), post.clone());
                async move { broker.publish(kept(&post, n, TEN)).await }
            })
        })
        .collect();
    tokio::task::yield_now().await;
    opened.close().await;
    for task in accepted {
        task.await.unwrap().unwrap();
    }
    let closed = Err(Error::Closed);
    assert_eq!(broker.publish(kept(&post, 1, TEN)).await.map(drop), closed);
    assert_eq!(broker.publish(passing(&post, 1)).await.map(drop), closed);
    assert_eq!(broker.subscribe(&post).await, closed);
    assert_eq!(broker.unsubscribe(&post).await, closed);
    assert_eq!(broker.position(&post).await.map(drop), closed);
    assert_eq!(broker.recover(&post, &position).await.map(drop), closed);
    assert_eq!(broker.history(&post, None, 1).await.map(drop), closed);
    assert_eq!(store.set("s", "k", Bytes::new(), None).await, closed);
    assert_eq!(store.get("s", "k").await.map(drop), closed);
    assert_eq!(store.delete("s", "k").await.map(drop), closed);
    let swapped = store
        .compare_and_set("s", "k", None, Bytes::new(), None)
        .await;
    assert_eq!(swapped.map(drop), closed);
    assert_eq!(store.user("u").await.map(drop), closed);
    assert_eq!(store.user_by_wallet("w").await.map(drop), closed);
    assert_eq!(store.provision_user("w").await.map(drop), closed);
    assert_eq!(
        store.put_user("u", UserChange::default()).await.map(drop),
        closed
    );
    assert_eq!(
        store.add_notification(note("u", "t"), None).await.map(drop),
        closed
    );
    let page = store.notifications("u", NotificationQuery::default()).await;
    assert_eq!(page.map(drop), closed);
    assert_eq!(
        store.mark_notifications("u", ReadMark::All).await.map(drop),
        closed
    );
    assert_eq!(store.delete_notification("u", "i").await.map(drop), closed);
    assert_eq!(store.clear_read_notifications("u").await.map(drop), closed);
    assert!(matches!(broker.health(), Health::Down(_)));
    assert!(matches!(store.health(), Health::Down(_)));
    broker.close().await.unwrap();

    let opened = backend.open().await;
    assert_eq!(opened.broker.position(&post).await.unwrap().offset, 20);
    opened.close().await;
}

pub async fn a_notice_reaches_the_node_that_tells_it(backend: &dyn Backend) {
    let opened = backend.open().await;
    let sink = opened.start().await;
    let notices: Vec<Bytes> = (0..3)
        .map(|n| Bytes::from(format!(r#"{{"type":"test","n":{n}}}"#)))
        .collect();
    for notice in &notices {
        opened.broker.announce(notice.clone()).await.unwrap();
    }
    let largest = Bytes::from(vec![b' '; NOTICE_BYTES_MAX]);
    opened.broker.announce(largest.clone()).await.unwrap();
    let heard = sink.notices(4).await;
    assert_eq!(heard[..3], notices);
    assert_eq!(heard[3..], [largest]);
    let (broker, store) = (opened.broker.clone(), opened.store.clone());
    opened.close().await;
    let late = broker.announce(notices[0].clone()).await;
    assert_eq!(late, Err(Error::Closed));
    assert_eq!(store.revocations(None, 1).await, Err(Error::Closed));
    assert_eq!(sink.notices(5).await.len(), 4);
}

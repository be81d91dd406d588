//! `durability = "relaxed"`: the same order and the same proof, without waiting for the disk.

use std::time::Duration;

use fanfare::broker::{Durability, Retention};

use crate::backend::{Backend, TEN, channel, kept};

const RELAXED: Retention = Retention {
    entries: 10_000,
    ttl: Duration::from_secs(3600),
    durability: Durability::Relaxed,
};

const COMMIT: Retention = Retention {
    durability: Durability::Commit,
    ..RELAXED
};

pub async fn relaxed_events_survive_closing(backend: &dyn Backend) {
    let post = channel("post_1");
    let mut positions = Vec::new();
    for _ in 0..3 {
        let opened = backend.open().await;
        opened.start().await;
        for n in 0..50 {
            let published = opened.broker.publish(kept(&post, n, RELAXED)).await;
            positions.push(published.unwrap().position.unwrap());
        }
        opened.close().await;
    }
    let offsets: Vec<u64> = positions.iter().map(|position| position.offset).collect();
    assert_eq!(offsets, (1..=150).collect::<Vec<_>>());
    let opened = backend.open().await;
    opened.start().await;
    let recovery = opened.broker.recover(&post, &positions[19]).await.unwrap();
    assert_eq!(recovery.position, positions[149]);
    assert_eq!(recovery.missed.unwrap().len(), 130);
    opened.close().await;
}

pub async fn relaxed_and_committed_events_have_one_order(backend: &dyn Backend) {
    const EACH: usize = 60;
    let opened = backend.open().await;
    let sink = opened.start().await;
    let post = channel("post_1");
    opened.broker.subscribe(&post).await.unwrap();
    let mut tasks = Vec::new();
    for publisher in 0..12 {
        let (broker, post) = (opened.broker.clone(), post.clone());
        tasks.push(tokio::spawn(async move {
            let mut last = 0;
            for n in 0..EACH {
                let mut publication = kept(&post, publisher * EACH + n, RELAXED);
                match (publisher + n) % 6 {
                    0 => publication.retention = Some(COMMIT),
                    1 => publication.idempotency_key = Some(format!("{publisher} {n}")),
                    2 => tokio::time::sleep(Duration::from_millis(1)).await,
                    _ => {}
                }
                let published = broker.publish(publication).await.unwrap();
                let offset = published.position.unwrap().offset;
                assert!(offset > last, "{offset} after {last}");
                last = offset;
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let received = sink.received(&post, 12 * EACH).await;
    let all: Vec<u64> = (1..=12 * EACH as u64).collect();
    let offsets = received
        .iter()
        .map(|delivery| delivery.position.as_ref().unwrap().offset);
    assert_eq!(offsets.collect::<Vec<_>>(), all);
    opened.close().await;
    let opened = backend.open().await;
    opened.start().await;
    let (_, entries) = opened.broker.history(&post, None, 10_000).await.unwrap();
    assert_eq!(entries.len(), received.len());
    for (delivery, entry) in received.iter().zip(&entries) {
        assert_eq!(delivery.event, entry.event);
        assert_eq!(delivery.position.as_ref().unwrap().offset, entry.offset);
    }
    opened.close().await;
}

/// One that does not wait for answers keeps its order, while the first ones still go by the disk.
pub async fn a_publisher_keeps_its_order_without_waiting(backend: &dyn Backend) {
    let opened = backend.open().await;
    opened.start().await;
    let post = channel("post_1");
    for round in 0..20 {
        let mut answers = Vec::new();
        for n in 0..40 {
            let mut publication = kept(&post, n, RELAXED);
            if n % 9 == 4 {
                publication.idempotency_key = Some(format!("{round} {n}"));
            }
            let broker = opened.broker.clone();
            answers.push(tokio::spawn(async move {
                broker.publish(publication).await.unwrap().position.unwrap()
            }));
            if n % 8 == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        for (n, answer) in answers.into_iter().enumerate() {
            assert_eq!(answer.await.unwrap().offset, (round * 40 + n + 1) as u64);
        }
    }
    opened.close().await;
}

pub async fn a_key_of_a_relaxed_publication_is_never_forgotten(backend: &dyn Backend) {
    let post = channel("post_1");
    let keyed = |n| {
        let mut publication = kept(&post, n, RELAXED);
        publication.idempotency_key = Some("once".into());
        publication
    };
    let opened = backend.open().await;
    opened.start().await;
    let first = opened.broker.publish(keyed(1)).await.unwrap();
    opened
        .broker
        .publish(kept(&post, 2, RELAXED))
        .await
        .unwrap();
    opened.close().await;
    let opened = backend.open().await;
    opened.start().await;
    let again = opened.broker.publish(keyed(3)).await.unwrap();
    assert!(again.repeated);
    assert_eq!(again.position, first.position);
    opened.close().await;
}

pub async fn the_limit_of_a_relaxed_channel_holds(backend: &dyn Backend) {
    let ten = Retention {
        durability: Durability::Relaxed,
        ..TEN
    };
    let post = channel("post_1");
    for round in 1..=2 {
        let opened = backend.open().await;
        opened.start().await;
        for n in 0..500 {
            opened.broker.publish(kept(&post, n, ten)).await.unwrap();
        }
        let (position, entries) = opened.broker.history(&post, None, 100).await.unwrap();
        assert_eq!(position.offset, round * 500);
        assert_eq!(entries.len(), 10);
        opened.close().await;
    }
    let opened = backend.open().await;
    opened.start().await;
    let (position, entries) = opened.broker.history(&post, None, 100).await.unwrap();
    let offsets: Vec<u64> = entries.iter().map(|entry| entry.offset).collect();
    assert_eq!(offsets, (991..=1000).collect::<Vec<_>>());
    assert_eq!(position.offset, 1000);
    opened.close().await;
}

//! Positions, recovery and history.

use std::time::Duration;

use fanfare::broker::{Durability, Entry, Retention, Unrecoverable};
use fanfare::protocol::{Epoch, Position};

use crate::backend::{Backend, Opened, TEN, channel, event, kept};

fn at(position: &Position, offset: u64) -> Position {
    Position {
        epoch: position.epoch.clone(),
        offset,
    }
}

fn offsets(entries: &[Entry]) -> Vec<u64> {
    entries.iter().map(|entry| entry.offset).collect()
}

async fn missed(opened: &Opened, since: &Position) -> Result<Vec<u64>, Unrecoverable> {
    let recovery = opened
        .broker
        .recover(&channel("post_1"), since)
        .await
        .unwrap();
    if let Ok([.., last]) = recovery.missed.as_deref() {
        assert_eq!(last.offset, recovery.position.offset);
    }
    recovery.missed.map(|entries| offsets(&entries))
}

/// Publishes `post_1`'s next `count` events; the last position.
async fn publish(opened: &Opened, count: usize, retention: Retention) -> Position {
    let post = channel("post_1");
    for n in 0..count {
        opened
            .broker
            .publish(kept(&post, n, retention))
            .await
            .unwrap();
    }
    opened.broker.position(&post).await.unwrap()
}

pub async fn offsets_are_dense_and_survive(backend: &dyn Backend) {
    let mut epoch: Option<Epoch> = None;
    for round in 0..3u64 {
        let opened = backend.open().await;
        opened.start().await;
        let post = channel("post_1");
        for n in 1..=4 {
            let published = opened.broker.publish(kept(&post, n, TEN)).await.unwrap();
            let position = published.position.unwrap();
            assert_eq!(position.offset, round * 4 + n as u64);
            assert_eq!(*epoch.get_or_insert(position.epoch.clone()), position.epoch);
        }
        opened.close().await;
    }
    let opened = backend.open().await;
    opened.start().await;
    let (position, entries) = opened
        .broker
        .history(&channel("post_1"), None, 100)
        .await
        .unwrap();
    assert_eq!(position.offset, 12);
    assert_eq!(offsets(&entries), (3..=12).collect::<Vec<_>>());
    assert_eq!(entries[0].event, event(3));
    assert_eq!(
        missed(&opened, &at(&position, 9)).await,
        Ok(vec![10, 11, 12])
    );
    opened.close().await;
}

pub async fn a_position_is_shown_before_the_first_event(backend: &dyn Backend) {
    let opened = backend.open().await;
    opened.start().await;
    let post = channel("post_1");
    let before = opened.broker.position(&post).await.unwrap();
    assert_eq!(before.offset, 0);
    assert_eq!(missed(&opened, &before).await, Ok(vec![]));
    opened.close().await;
    let opened = backend.open().await;
    opened.start().await;
    assert_eq!(opened.broker.position(&post).await.unwrap(), before);
    publish(&opened, 2, TEN).await;
    assert_eq!(missed(&opened, &before).await, Ok(vec![1, 2]));
    opened.close().await;
}

pub async fn recovery_is_whole_or_refused(backend: &dyn Backend) {
    let opened = backend.open().await;
    opened.start().await;
    let top = publish(&opened, 8, TEN).await;
    for since in 0..=8 {
        let expected: Vec<u64> = (since + 1..=8).collect();
        assert_eq!(missed(&opened, &at(&top, since)).await, Ok(expected));
    }
    opened.close().await;
}

pub async fn a_foreign_or_future_position_is_another_epoch(backend: &dyn Backend) {
    let opened = backend.open().await;
    opened.start().await;
    let top = publish(&opened, 3, TEN).await;
    let changed = Err(Unrecoverable::EpochChanged);
    assert_eq!(missed(&opened, &at(&top, 4)).await, changed);
    assert_eq!(missed(&opened, &at(&top, u64::MAX)).await, changed);
    let foreign = Position {
        epoch: Epoch::new("never-was"),
        offset: 3,
    };
    assert_eq!(missed(&opened, &foreign).await, changed);
    opened.close().await;
}

pub async fn too_many_events_are_too_far(backend: &dyn Backend) {
    let opened = backend.open().await;
    opened.start().await;
    let top = publish(&opened, 25, TEN).await;
    assert_eq!(
        missed(&opened, &at(&top, 15)).await,
        Ok((16..=25).collect())
    );
    assert_eq!(
        missed(&opened, &at(&top, 14)).await,
        Err(Unrecoverable::TooFar)
    );
    assert_eq!(
        missed(&opened, &at(&top, 0)).await,
        Err(Unrecoverable::TooFar)
    );
    opened.close().await;
    let opened = backend.open().await;
    opened.start().await;
    assert_eq!(
        missed(&opened, &at(&top, 15)).await,
        Ok((16..=25).collect())
    );
    assert_eq!(
        missed(&opened, &at(&top, 14)).await,
        Err(Unrecoverable::TooFar)
    );
    opened.close().await;
}

pub async fn old_events_expire(backend: &dyn Backend) {
    let opened = backend.open().await;
    opened.start().await;
    let short = Retention {
        entries: 10,
        ttl: Duration::from_secs(2),
        durability: Durability::Commit,
    };
    let post = channel("post_1");
    publish(&opened, 3, short).await;
    backend.pass(Duration::from_millis(1_200)).await;
    let top = publish(&opened, 2, short).await;
    backend.pass(Duration::from_millis(1_200)).await;
    let (_, entries) = opened.broker.history(&post, None, 10).await.unwrap();
    assert_eq!(offsets(&entries), [4, 5]);
    assert_eq!(missed(&opened, &at(&top, 3)).await, Ok(vec![4, 5]));
    assert_eq!(
        missed(&opened, &at(&top, 2)).await,
        Err(Unrecoverable::HistoryExpired)
    );
    backend.pass(Duration::from_millis(1_200)).await;
    let (position, entries) = opened.broker.history(&post, None, 10).await.unwrap();
    assert_eq!((position, entries), (top.clone(), vec![]));
    assert_eq!(
        missed(&opened, &at(&top, 4)).await,
        Err(Unrecoverable::HistoryExpired)
    );
    assert_eq!(missed(&opened, &top).await, Ok(vec![]));
    opened.close().await;
    let opened = backend.open().await;
    opened.start().await;
    assert_eq!(opened.broker.position(&post).await.unwrap(), top);
    let next = publish(&opened, 1, short).await;
    assert_eq!(next, at(&top, 6));
    opened.close().await;
}

pub async fn retention_may_change(backend: &dyn Backend) {
    let opened = backend.open().await;
    opened.start().await;
    let three = Retention { entries: 3, ..TEN };
    let top = publish(&opened, 5, TEN).await;
    publish(&opened, 1, three).await;
    assert_eq!(missed(&opened, &at(&top, 3)).await, Ok(vec![4, 5, 6]));
    assert_eq!(
        missed(&opened, &at(&top, 2)).await,
        Err(Unrecoverable::TooFar)
    );
    publish(&opened, 3, TEN).await;
    assert_eq!(missed(&opened, &at(&top, 3)).await, Ok((4..=9).collect()));
    opened.close().await;
    let opened = backend.open().await;
    opened.start().await;
    assert_eq!(missed(&opened, &at(&top, 3)).await, Ok((4..=9).collect()));
    opened.close().await;
}

pub async fn history_is_paged(backend: &dyn Backend) {
    let opened = backend.open().await;
    opened.start().await;
    let post = channel("post_1");
    publish(&opened, 13, TEN).await;
    let page = async |before, limit| {
        let (position, entries) = opened.broker.history(&post, before, limit).await.unwrap();
        assert_eq!(position.offset, 13);
        offsets(&entries)
    };
    assert_eq!(page(None, 3).await, [11, 12, 13]);
    assert_eq!(page(Some(11), 3).await, [8, 9, 10]);
    assert_eq!(page(Some(6), 10).await, [4, 5]);
    assert_eq!(page(Some(4), 10).await, [0u64; 0]);
    assert_eq!(page(Some(0), 10).await, [0u64; 0]);
    assert_eq!(page(Some(14), 2).await, [12, 13]);
    assert_eq!(page(Some(u64::MAX), 2).await, [12, 13]);
    assert_eq!(page(None, 0).await, [0u64; 0]);
    assert_eq!(page(None, usize::MAX).await, (4..=13).collect::<Vec<_>>());
    opened.close().await;
}

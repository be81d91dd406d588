//! Budgets that all nodes share.

use std::time::Duration;

use fanfare::broker::{Draw, Rate};

use crate::backend::Backend;

/// Three at once, and one more each second.
fn draw(bucket: &'static str) -> Draw {
    Draw {
        bucket,
        rate: Rate::new(60, Duration::from_secs(60), 3).unwrap(),
        is_taken: true,
    }
}

fn look(bucket: &'static str) -> Draw {
    Draw {
        is_taken: false,
        ..draw(bucket)
    }
}

pub async fn a_budget_is_spent_and_comes_back(backend: &dyn Backend) {
    let opened = backend.open().await;
    let store = &opened.store;
    // Looking takes nothing.
    for _ in 0..10 {
        assert_eq!(store.spend("o", &[look("b")]).await, Ok(None));
    }
    for _ in 0..3 {
        assert_eq!(store.spend("o", &[draw("b")]).await, Ok(None));
    }
    for one in [draw("b"), look("b")] {
        let wait = store.spend("o", &[one]).await.unwrap().unwrap();
        assert!(wait <= Duration::from_secs(1), "{wait:?}");
    }
    // Of others, and of another name, nothing is gone.
    assert_eq!(store.spend("p", &[draw("b")]).await, Ok(None));
    assert_eq!(store.spend("o", &[draw("c")]).await, Ok(None));
    assert_eq!(store.spend("o:b", &[draw("c")]).await, Ok(None));
    backend.pass(Duration::from_millis(1_050)).await;
    assert_eq!(store.spend("o", &[draw("b")]).await, Ok(None));
    assert_eq!(store.spend("o", &[]).await, Ok(None));
    opened.close().await;
}

pub async fn several_buckets_are_one_step(backend: &dyn Backend) {
    let opened = backend.open().await;
    let store = &opened.store;
    for _ in 0..3 {
        assert_eq!(store.spend("o", &[draw("a")]).await, Ok(None));
    }
    // One of them is empty: nothing is taken from the other.
    for _ in 0..10 {
        for draws in [[draw("a"), draw("b")], [draw("b"), look("a")]] {
            assert!(store.spend("o", &draws).await.unwrap().is_some());
        }
    }
    for _ in 0..3 {
        assert_eq!(store.spend("o", &[draw("b")]).await, Ok(None));
    }
    // The one that lacks most is what has to be waited for; a slower rate counts at once.
    let slow = Draw {
        rate: Rate::new(1, Duration::from_secs(60), 1).unwrap(),
        ..draw("a")
    };
    let wait = store.spend("o", &[draw("b"), slow]).await.unwrap().unwrap();
    assert!(wait > Duration::from_secs(1), "{wait:?}");
    assert!(wait <= Duration::from_secs(60), "{wait:?}");
    opened.close().await;
}

pub async fn of_many_at_once_as_many_get_one_as_there_are(backend: &dyn Backend) {
    let opened = backend.open().await;
    // None comes back during the test.
    let rate = Rate::new(1, Duration::from_secs(3_600), 7).unwrap();
    let tasks: Vec<_> = (0..50)
        .map(|_| {
            let (store, draw) = (opened.store.clone(), Draw { rate, ..draw("b") });
            tokio::spawn(async move { store.spend("o", &[draw]).await.unwrap().is_none() })
        })
        .collect();
    let mut got = 0;
    for task in tasks {
        got += usize::from(task.await.unwrap());
    }
    assert_eq!(got, 7);
    opened.close().await;
}

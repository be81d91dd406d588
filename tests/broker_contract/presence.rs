//! Who is in a channel.

use std::sync::Arc;

use fanfare::broker::{Error, Present};

use crate::backend::{Backend, channel};

fn user(id: &str) -> Arc<str> {
    id.into()
}

pub async fn a_user_is_in_a_channel_once(backend: &dyn Backend) {
    let opened = backend.open().await;
    opened.start().await;
    let broker = &opened.broker;
    let (room, other) = (channel("room_1"), channel("room_2"));
    assert_eq!(broker.present(&room, 10).await.unwrap(), Present::default());
    assert!(!broker.leave(&room, &user("a")).await.unwrap());
    assert!(broker.enter(&room, &user("a")).await.unwrap());
    assert!(!broker.enter(&room, &user("a")).await.unwrap());
    assert!(broker.enter(&other, &user("a")).await.unwrap());
    assert!(broker.enter(&room, &user("A")).await.unwrap());
    let present = broker.present(&room, 10).await.unwrap();
    assert_eq!(present.users, [user("A"), user("a")]);
    assert_eq!(present.count, 2);
    assert!(broker.leave(&room, &user("a")).await.unwrap());
    assert!(!broker.leave(&room, &user("a")).await.unwrap());
    assert_eq!(broker.present(&room, 10).await.unwrap().users, [user("A")]);
    assert_eq!(broker.present(&other, 10).await.unwrap().users, [user("a")]);
    opened.close().await;
}

pub async fn who_is_there_is_bounded_and_counted(backend: &dyn Backend) {
    let opened = backend.open().await;
    opened.start().await;
    let broker = &opened.broker;
    let room = channel("room_1");
    for n in (0..50).rev() {
        let entered = broker.enter(&room, &user(&format!("u{n:02}"))).await;
        assert!(entered.unwrap());
    }
    let present = broker.present(&room, 3).await.unwrap();
    assert_eq!(present.users, [user("u00"), user("u01"), user("u02")]);
    assert_eq!(present.count, 50);
    assert_eq!(broker.present(&room, 0).await.unwrap().count, 50);
    opened.close().await;
}

pub async fn presence_ends_with_the_node(backend: &dyn Backend) {
    let opened = backend.open().await;
    opened.start().await;
    let room = channel("room_1");
    opened.broker.enter(&room, &user("a")).await.unwrap();
    opened.broker.close().await.unwrap();
    let closed = opened.broker.enter(&room, &user("b")).await;
    assert_eq!(closed, Err(Error::Closed));
    let closed = opened.broker.present(&room, 10).await;
    assert_eq!(closed, Err(Error::Closed));
    opened.store.close().await.unwrap();
    drop(opened);
    let opened = backend.open().await;
    opened.start().await;
    let present = opened.broker.present(&room, 10).await.unwrap();
    assert_eq!(present, Present::default());
    opened.close().await;
}

pub async fn a_crowd_leaves_nobody_behind(backend: &dyn Backend) {
    let opened = backend.open().await;
    opened.start().await;
    let room = channel("room_1");
    let tasks: Vec<_> = (0..20)
        .map(|n| {
            let (broker, room) = (opened.broker.clone(), room.clone());
            tokio::spawn(async move {
                let user = user(&format!("u{}", n % 5));
                let mut edges = 0i64;
                for _ in 0..50 {
                    edges += i64::from(broker.enter(&room, &user).await.unwrap());
                    edges -= i64::from(broker.leave(&room, &user).await.unwrap());
                }
                edges
            })
        })
        .collect();
    let mut edges = 0;
    for task in tasks {
        edges += task.await.unwrap();
    }
    // As many came as went, whoever was told of it.
    assert_eq!(edges, 0);
    let present = opened.broker.present(&room, 10).await.unwrap();
    assert_eq!(present, Present::default());
    opened.close().await;
}

//! Notifications: kept, counted, marked, capped, and never another user's.

use fanfare::broker::{Changed, NewNotification, Notification, NotificationQuery, ReadMark, Store};
use serde_json::value::RawValue;

use crate::backend::{Backend, NOTIFICATIONS_PER_USER, note};

pub async fn all(store: &dyn Store, user: &str) -> Vec<Notification> {
    let query = NotificationQuery {
        limit: 10_000,
        ..Default::default()
    };
    let page = store.notifications(user, query).await.unwrap();
    let unread = page.notifications.iter().filter(|it| !it.is_read).count() as u64;
    assert_eq!(unread, page.unread);
    assert_eq!(page.next_cursor, None);
    page.notifications
}

fn titles(notifications: &[Notification]) -> Vec<&str> {
    notifications.iter().map(|it| it.title.as_str()).collect()
}

async fn add(store: &dyn Store, user: &str, title: &str) -> String {
    let added = store
        .add_notification(note(user, title), None)
        .await
        .unwrap();
    added.notification.id
}

pub async fn a_notification_comes_back_whole(backend: &dyn Backend) {
    let opened = backend.open().await;
    let metadata = r#"{"deep":[1,2.50,{"x":"\u00e9"}]}"#;
    let new = NewNotification {
        user_id: "u".into(),
        kind: "NEW_SUBSCRIBER".into(),
        title: "Tïtle \"1\"".into(),
        message: String::new(),
        metadata: Some(RawValue::from_string(metadata.into()).unwrap()),
    };
    let added = opened.store.add_notification(new, None).await.unwrap();
    assert_eq!((added.unread, added.repeated), (1, false));
    opened.close().await;
    let opened = backend.open().await;
    let notifications = all(&*opened.store, "u").await;
    let [only] = notifications.as_slice() else {
        panic!("{notifications:?}")
    };
    assert_eq!(format!("{only:?}"), format!("{:?}", added.notification));
    assert_eq!(only.kind, "NEW_SUBSCRIBER");
    assert_eq!(only.metadata.as_ref().unwrap().get(), metadata);
    assert!(!only.is_read && only.created_at_ms > 0);
    opened.close().await;
}

pub async fn unread_ones_are_counted(backend: &dyn Backend) {
    let opened = backend.open().await;
    let store = &*opened.store;
    let mut ids = Vec::new();
    for n in 0..5 {
        ids.push(add(store, "u", &n.to_string()).await);
    }
    let one = |n: usize, is_read| ReadMark::One {
        id: ids[n].clone(),
        is_read,
    };
    let changed = |named: &[usize], unread| Changed {
        count: named.len() as u64,
        ids: named.iter().map(|n| ids[*n].clone()).collect(),
        unread,
        found: true,
    };
    let deleted = |unread| Changed {
        count: 1,
        ..changed(&[], unread)
    };
    let mark = async |mark| store.mark_notifications("u", mark).await.unwrap();
    assert_eq!(mark(one(0, true)).await, changed(&[0], 4));
    assert_eq!(mark(one(0, true)).await, changed(&[], 4));
    assert_eq!(mark(one(0, false)).await, changed(&[0], 5));
    let many = vec![
        ids[2].clone(),
        ids[1].clone(),
        ids[1].clone(),
        "nonsense".into(),
        ids[2].clone(),
    ];
    let mark_many = mark(ReadMark::Many(many.clone())).await;
    assert_eq!(mark_many, changed(&[2, 1], 3));
    assert_eq!(mark(ReadMark::Many(many)).await, changed(&[], 3));
    let query = NotificationQuery {
        unread_only: true,
        limit: 10,
        cursor: None,
    };
    let page = store.notifications("u", query).await.unwrap();
    assert_eq!(titles(&page.notifications), ["4", "3", "0"]);
    assert_eq!(titles(&all(store, "u").await), ["4", "3", "2", "1", "0"]);
    assert_eq!(
        store.delete_notification("u", &ids[4]).await.unwrap(),
        deleted(2)
    );
    assert_eq!(
        store.delete_notification("u", &ids[1]).await.unwrap(),
        deleted(2)
    );
    let marked = mark(ReadMark::All).await;
    assert_eq!((marked.count, marked.unread), (2, 0));
    assert!(marked.ids.is_empty());
    assert!(all(store, "u").await.iter().all(|it| it.is_read));
    opened.close().await;
}

pub async fn marking_and_deleting_stay_with_the_owner(backend: &dyn Backend) {
    let opened = backend.open().await;
    let store = &*opened.store;
    let long = "u".repeat(2_000);
    let users = [
        "u",
        "u\0",
        "u\u{1}",
        "u:1",
        "u_1",
        "*",
        "{u}",
        "ü",
        "U",
        "",
        long.as_str(),
    ];
    let mut ids = Vec::new();
    for user in users {
        ids.push(add(store, user, user).await);
    }
    for (user, id) in users.iter().zip(&ids) {
        for stranger in users.iter().filter(|it| *it != user) {
            let none = Changed {
                count: 0,
                ids: Vec::new(),
                unread: 1,
                found: false,
            };
            let mark = ReadMark::One {
                id: id.clone(),
                is_read: true,
            };
            assert_eq!(
                store.mark_notifications(stranger, mark).await.unwrap(),
                none
            );
            let many = ReadMark::Many(vec![id.clone()]);
            assert_eq!(
                store
                    .mark_notifications(stranger, many)
                    .await
                    .unwrap()
                    .count,
                0
            );
            assert_eq!(store.delete_notification(stranger, id).await.unwrap(), none);
        }
    }
    for user in users {
        let own = all(store, user).await;
        assert_eq!(titles(&own), [user]);
        assert_eq!(own[0].user_id, user);
        assert!(!own[0].is_read);
        let marked = store.mark_notifications(user, ReadMark::All).await.unwrap();
        assert_eq!((marked.count, marked.unread), (1, 0));
        assert_eq!(store.clear_read_notifications(user).await.unwrap().count, 1);
    }
    assert_eq!(
        store
            .mark_notifications("nobody", ReadMark::All)
            .await
            .unwrap()
            .count,
        0
    );
    opened.close().await;
}

pub async fn the_cap_takes_the_oldest_read_first(backend: &dyn Backend) {
    let opened = backend.open().await;
    let store = &*opened.store;
    let mut ids = Vec::new();
    for n in 0..NOTIFICATIONS_PER_USER {
        ids.push(add(store, "u", &n.to_string()).await);
    }
    add(store, "other", "x").await;
    let many = ReadMark::Many(vec![ids[7].clone(), ids[3].clone()]);
    store.mark_notifications("u", many).await.unwrap();
    let mut gone = Vec::new();
    for n in 0..4 {
        let added = store
            .add_notification(note("u", &format!("new {n}")), None)
            .await
            .unwrap();
        let left = all(store, "u").await;
        assert_eq!(left.len(), NOTIFICATIONS_PER_USER);
        assert_eq!(
            left.iter().filter(|it| !it.is_read).count() as u64,
            added.unread
        );
        let missing = (0..NOTIFICATIONS_PER_USER)
            .filter(|n| !left.iter().any(|it| it.id == ids[*n]))
            .find(|n| !gone.contains(n));
        gone.extend(missing);
    }
    assert_eq!(gone, [3, 7, 0, 1]);
    assert_eq!(all(store, "other").await.len(), 1);
    opened.close().await;
}

pub async fn clearing_takes_the_read_ones(backend: &dyn Backend) {
    let opened = backend.open().await;
    let store = &*opened.store;
    let mut ids = Vec::new();
    for n in 0..4 {
        ids.push(add(store, "u", &n.to_string()).await);
    }
    let many = ReadMark::Many(vec![ids[0].clone(), ids[2].clone()]);
    store.mark_notifications("u", many).await.unwrap();
    let cleared = store.clear_read_notifications("u").await.unwrap();
    assert_eq!((cleared.count, cleared.unread), (2, 2));
    assert_eq!(titles(&all(store, "u").await), ["3", "1"]);
    assert_eq!(store.clear_read_notifications("u").await.unwrap().count, 0);
    let gone = store.delete_notification("u", &ids[0]).await.unwrap();
    assert_eq!(
        gone,
        Changed {
            count: 0,
            ids: Vec::new(),
            unread: 2,
            found: false
        }
    );
    opened.close().await;
}

pub async fn ids_and_order_increase(backend: &dyn Backend) {
    let mut ids = Vec::new();
    for _ in 0..2 {
        let opened = backend.open().await;
        let tasks: Vec<_> = (0..10)
            .map(|_| {
                let store = opened.store.clone();
                tokio::spawn(async move { add(&*store, "u", "x").await })
            })
            .collect();
        for task in tasks {
            ids.push(task.await.unwrap());
        }
        ids.push(add(&*opened.store, "u", "last").await);
        let listed = all(&*opened.store, "u").await;
        assert_eq!(listed[0].title, "last");
        assert_eq!(listed.len(), ids.len());
        opened.close().await;
    }
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count);
}

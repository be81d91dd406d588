//! Pages of notifications.

use fanfare::broker::{NotificationPage, NotificationQuery, ReadMark, Store};

use crate::backend::{Backend, note};

async fn page(
    store: &dyn Store,
    user: &str,
    unread_only: bool,
    cursor: Option<String>,
) -> NotificationPage {
    let query = NotificationQuery {
        unread_only,
        limit: 4,
        cursor,
    };
    store.notifications(user, query).await.unwrap()
}

async fn fill(store: &dyn Store, count: usize) {
    for n in 0..count {
        store
            .add_notification(note("u", &n.to_string()), None)
            .await
            .unwrap();
    }
}

pub async fn pages_are_newest_first_and_end(backend: &dyn Backend) {
    let opened = backend.open().await;
    let store = &*opened.store;
    fill(store, 12).await;
    let first = page(store, "u", false, None).await;
    let id = first.notifications[1].id.clone();
    let mark = ReadMark::One { id, is_read: true };
    store.mark_notifications("u", mark).await.unwrap();
    for (unread_only, expected) in [(false, 12), (true, 11)] {
        let mut titles = Vec::new();
        let mut cursor = None;
        loop {
            let page = page(store, "u", unread_only, cursor).await;
            assert_eq!(page.unread, 11);
            assert!(!page.notifications.is_empty() && page.notifications.len() <= 4);
            titles.extend(
                page.notifications
                    .iter()
                    .map(|it| it.title.parse::<u32>().unwrap()),
            );
            cursor = page.next_cursor;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(titles.len(), expected);
        assert!(
            titles.windows(2).all(|pair| pair[0] > pair[1]),
            "{titles:?}"
        );
    }
    let none = page(store, "nobody", false, None).await;
    assert!(none.notifications.is_empty() && none.next_cursor.is_none());
    let query = NotificationQuery::default();
    assert!(
        store
            .notifications("u", query)
            .await
            .unwrap()
            .notifications
            .is_empty()
    );
    opened.close().await;
}

pub async fn a_cursor_is_right_while_new_ones_arrive(backend: &dyn Backend) {
    let opened = backend.open().await;
    let store = &*opened.store;
    fill(store, 12).await;
    let mut seen = Vec::new();
    let mut cursor = None;
    loop {
        let page = page(store, "u", false, cursor).await;
        seen.extend(page.notifications.iter().map(|it| it.title.clone()));
        store
            .add_notification(note("u", "new"), None)
            .await
            .unwrap();
        // What the cursor points at may be read or gone by then.
        if let Some(last) = page.notifications.last() {
            let mark = ReadMark::One {
                id: last.id.clone(),
                is_read: true,
            };
            store.mark_notifications("u", mark).await.unwrap();
            store.clear_read_notifications("u").await.unwrap();
        }
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    let expected: Vec<String> = (0..12).rev().map(|n: usize| n.to_string()).collect();
    assert_eq!(seen, expected);
    opened.close().await;
}

pub async fn a_strange_cursor_is_no_error(backend: &dyn Backend) {
    let opened = backend.open().await;
    let store = &*opened.store;
    fill(store, 9).await;
    store
        .add_notification(note("v", "secret"), None)
        .await
        .unwrap();
    let own = page(store, "u", false, None).await.next_cursor.unwrap();
    for cursor in [
        "",
        "x",
        "-1",
        "\0",
        "ffffffffffffffff",
        "0",
        "99999999999999999999",
        "*",
    ] {
        let page = page(store, "u", false, Some(cursor.into())).await;
        assert!(
            page.notifications.iter().all(|it| it.user_id == "u"),
            "{cursor:?}"
        );
    }
    let foreign = page(store, "v", false, Some(own)).await;
    assert!(foreign.notifications.iter().all(|it| it.user_id == "v"));
    opened.close().await;
}

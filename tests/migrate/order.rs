//! Notifications keep their order and their ids, whatever the clock said when they were added.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fanfare::broker::{
    NewNotification, NotificationQuery, ReadMark, Store, embedded, migration, redis,
};
use fanfare::clock::Clock;
use tempfile::TempDir;

use crate::support::redis::RedisServer;

/// More than an id of one millisecond counts, by far.
const MEANWHILE: usize = 6_000;

async fn add(store: &Arc<dyn Store>, count: usize) {
    let mut together = tokio::task::JoinSet::new();
    for n in 0..count {
        let store = Arc::clone(store);
        let new = NewNotification {
            user_id: "u1".into(),
            kind: "like".into(),
            title: format!("title {n}"),
            message: "m".into(),
            metadata: None,
        };
        together.spawn(async move { store.add_notification(new, None).await.unwrap() });
    }
    while together.join_next().await.is_some() {}
}

/// The ids, newest first, page by page.
async fn ids(store: &Arc<dyn Store>) -> Vec<String> {
    let (mut ids, mut cursor) = (Vec::new(), None);
    loop {
        let query = NotificationQuery {
            limit: 997,
            unread_only: false,
            cursor,
        };
        let page = store.notifications("u1", query).await.unwrap();
        ids.extend(page.notifications.into_iter().map(|note| note.id));
        cursor = page.next_cursor;
        if cursor.is_none() {
            return ids;
        }
    }
}

fn redis_store(url: &str) -> Arc<dyn Store> {
    let options = redis::Options {
        url: url.into(),
        pubsub_url: None,
        prefix: "ws:".into(),
        authorities: None,
        node: "a-node".into(),
        bounds: redis::Bounds {
            event_bytes: 1 << 20,
            notifications_per_user: usize::MAX,
            recovery_events: 1_000,
        },
        wait_replicas: 0,
        wait_timeout: Duration::from_secs(1),
        keeps_history: Arc::new(|_| true),
    };
    redis::open(options, Clock::system()).unwrap()
}

fn embedded_store(path: &Path, clock: &Clock) -> Arc<dyn Store> {
    let options = embedded::Options {
        path: path.to_owned(),
        store_bytes: u64::MAX,
        history_bytes: u64::MAX,
        notifications_per_user: usize::MAX,
    };
    embedded::open(options, clock.clone()).unwrap()
}

#[test]
fn a_clock_that_stepped_back_is_not_seen() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let server = RedisServer::start(&[]);
    let folder = TempDir::new().unwrap();
    let path = folder.path().join(embedded::FILE_NAME);
    // Ahead of the one that Redis has.
    let hour_ms = 3_600_000;
    let clock = Clock::manual(Clock::system().unix_ms() + hour_ms);

    let told = runtime.block_on(async {
        let store = embedded_store(&path, &clock);
        add(&store, 10).await;
        clock.set_back(Duration::from_secs(60));
        add(&store, MEANWHILE).await;
        for _ in 0..3 {
            clock.advance(Duration::from_millis(60_001));
            add(&store, 100).await;
            clock.set_back(Duration::from_secs(60));
        }
        let told = ids(&store).await;
        let some: Vec<String> = told.iter().step_by(3).cloned().collect();
        store
            .mark_notifications("u1", ReadMark::Many(some))
            .await
            .unwrap();
        store.close().await.unwrap();
        told
    });
    assert_eq!(told.len(), MEANWHILE + 310);
    assert!(told.is_sorted_by(|one, other| one > other));

    let system = Clock::system();
    let of_redis = || redis::migration::Options {
        url: server.url(),
        pubsub_url: None,
        prefix: "ws:".into(),
        authorities: None,
        wait_replicas: 0,
        wait_timeout: Duration::from_secs(1),
        clock: system.clone(),
    };
    let of_embedded = |path: &Path| embedded::migration::Options {
        path: path.to_owned(),
        store_bytes: u64::MAX,
        history_bytes: u64::MAX,
        clock: system.clone(),
    };
    let mut origin = embedded::migration::Origin::open(of_embedded(&path)).unwrap();
    let mut target = redis::migration::Destination::open(of_redis()).unwrap();
    migration::run(&mut origin, &mut target, &system, &mut |_| {}).unwrap();
    drop((origin, target));

    let told = runtime.block_on(async {
        let store = redis_store(&server.url());
        assert_eq!(ids(&store).await, told);
        // Redis's clock is behind, too.
        add(&store, MEANWHILE).await;
        let more = ids(&store).await;
        assert_eq!(more.len(), told.len() + MEANWHILE);
        assert_eq!(more[MEANWHILE..], told);
        assert!(more.is_sorted_by(|one, other| one > other));
        store.close().await.unwrap();
        more
    });

    let path = folder.path().join("back.redb");
    let mut origin = redis::migration::Origin::open(of_redis()).unwrap();
    let mut target = embedded::migration::Destination::open(of_embedded(&path)).unwrap();
    migration::run(&mut origin, &mut target, &system, &mut |_| {}).unwrap();
    drop((origin, target));
    runtime.block_on(async {
        let store = embedded_store(&path, &system);
        assert_eq!(ids(&store).await, told);
        add(&store, 1).await;
        assert_eq!(ids(&store).await[1..], told);
        store.close().await.unwrap();
    });
}

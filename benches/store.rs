//! How fast the embedded store writes, reads and opens here: `cargo bench --bench store`.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fanfare::broker::embedded::{self, Embedded, Options};
use fanfare::broker::{
    Broker, Durability, NewNotification, NotificationQuery, Publication, Retention, Store,
};
use fanfare::clock::Clock;
use fanfare::protocol::{ChannelKey, Event};

const PUBLISHES: usize = 20_000;
const CHANNELS: usize = 1_000;
const NOTIFICATIONS: usize = 100_000;
const LOG_ROWS: usize = 1_000_000;

/// The rule of every channel here: large enough that nothing leaves.
const RETENTION: Retention = Retention {
    entries: 1_000_000,
    ttl: Duration::from_secs(3600),
    durability: Durability::Commit,
};

fn main() {
    let folder = tempfile::tempdir().expect("a folder for the databases");
    let clock = Clock::system();
    let sync_us = bare_sync_us(folder.path(), &clock);
    println!("append of 300 B and fdatasync: {sync_us:.0} us");
    relaxed(folder.path(), &clock);
    for parallel in [1, 16, 64] {
        let store = open(&folder.path().join(format!("{parallel}.redb")), &clock);
        let count = if parallel == 1 { 2_000 } else { PUBLISHES };
        let seconds = timed(&clock, || run(&store, count, parallel, publish));
        let figures = store.figures();
        println!(
            "publish with history, {parallel} at once: {:.0}/s, {:.1} a commit, {:.0} us a commit",
            count as f64 / seconds,
            figures.writes as f64 / figures.commits as f64,
            seconds * 1e6 / figures.commits as f64,
        );
    }

    let path = folder.path().join("notifications.redb");
    let store = open(&path, &clock);
    let seconds = timed(&clock, || run(&store, NOTIFICATIONS, 64, notify));
    let rate = NOTIFICATIONS as f64 / seconds;
    println!("notifications, 64 at once: {rate:.0}/s");
    let lists = 10_000;
    let seconds = timed(&clock, || {
        block_on(async {
            for n in 0..lists {
                let query = NotificationQuery {
                    limit: 20,
                    ..Default::default()
                };
                let user = format!("u{}", n % CHANNELS);
                let page = store.notifications(&user, query).await.expect("a page");
                assert_eq!(page.notifications.len(), 20);
            }
        });
    });
    println!(
        "list of 20 notifications: {:.1} us",
        seconds * 1e6 / f64::from(lists as u32)
    );
    weigh(&store, &path);
    drop(store);
    let seconds = timed(&clock, || drop(open(&path, &clock)));
    println!(
        "open and close with {NOTIFICATIONS} notifications: {:.1} ms",
        seconds * 1e3
    );

    let path = folder.path().join("log.redb");
    let store = open(&path, &clock);
    let seconds = timed(&clock, || run(&store, LOG_ROWS, 512, publish));
    println!(
        "publish with history, 512 at once: {:.0}/s",
        LOG_ROWS as f64 / seconds
    );
    weigh(&store, &path);
    drop(store);
    let mut store = None;
    let seconds = timed(&clock, || store = Some(open(&path, &clock)));
    println!("open with {LOG_ROWS} rows in the log: {seconds:.2} s");
    let counted = store.map_or(0, |store| store.figures().history_bytes);
    println!(
        "  in memory {} MB (redb's cache included), counted as {} MB",
        resident_bytes() / 1_000_000,
        counted / 1_000_000
    );
}

/// What this process has in memory.
fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = pages.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    pages.unwrap_or(0u64) * 4_096
}

/// Publishing without waiting for the disk; the last commit is waited for, too.
fn relaxed(folder: &Path, clock: &Clock) {
    let store = open(&folder.join("relaxed.redb"), clock);
    let seconds = timed(clock, || {
        run(&store, 10 * PUBLISHES, 1, publish_relaxed);
        drop(store);
    });
    println!(
        "relaxed publish, one at once: {:.0}/s",
        (10 * PUBLISHES) as f64 / seconds
    );
}

fn open(path: &Path, clock: &Clock) -> Arc<Embedded> {
    let options = Options {
        path: path.to_owned(),
        store_bytes: 8 << 30,
        history_bytes: u64::MAX,
        notifications_per_user: 1_000,
    };
    embedded::open(options, clock.clone()).expect("a database")
}

/// The store's own figure beside the blocks that the file takes.
fn weigh(store: &Embedded, path: &Path) {
    use std::os::unix::fs::MetadataExt;
    let blocks = std::fs::metadata(path).map_or(0, |file| file.blocks() * 512);
    let figure = store.figures().bytes;
    println!(
        "  on disk {} MB, counted as {} MB",
        blocks / 1_000_000,
        figure / 1_000_000
    );
}

/// Calls `write` for 0..count, from two threads, `parallel` at once altogether.
fn run<F>(
    store: &Arc<Embedded>,
    count: usize,
    parallel: usize,
    write: fn(Arc<Embedded>, usize) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let threads = parallel.min(2);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                block_on(async {
                    let mut tasks = tokio::task::JoinSet::new();
                    for n in (thread..count).step_by(threads) {
                        if tasks.len() >= parallel / threads {
                            tasks.join_next().await;
                        }
                        tasks.spawn(write(store.clone(), n));
                    }
                    tasks.join_all().await;
                });
            });
        }
    });
}

async fn publish(store: Arc<Embedded>, n: usize) {
    publish_by(store, n, RETENTION).await;
}

async fn publish_relaxed(store: Arc<Embedded>, n: usize) {
    let relaxed = Retention {
        durability: Durability::Relaxed,
        ..RETENTION
    };
    publish_by(store, n, relaxed).await;
}

async fn publish_by(store: Arc<Embedded>, n: usize, retention: Retention) {
    let json = format!(
        "{{\"type\":\"post_liked\",\"n\":{n},\"pad\":\"{}\"}}",
        "x".repeat(250)
    );
    let publication = Publication {
        channel: ChannelKey::parse(&format!("post_{}", n % CHANNELS), 255).expect("a key"),
        event: Event::parse(&json, 1_000).expect("an event"),
        retention: Some(retention),
        idempotency_key: None,
        trace: None,
    };
    store.publish(publication).await.expect("published");
}

async fn notify(store: Arc<Embedded>, n: usize) {
    let new = NewNotification {
        user_id: format!("u{}", n % CHANNELS),
        kind: "NEW_SUBSCRIBER".into(),
        title: "You have a new subscriber".into(),
        message: "x".repeat(100),
        metadata: None,
    };
    store.add_notification(new, None).await.expect("added");
}

fn bare_sync_us(folder: &Path, clock: &Clock) -> f64 {
    let mut file = File::create(folder.join("bare")).expect("a file");
    let seconds = timed(clock, || {
        for _ in 0..1_000 {
            file.write_all(&[7; 300]).expect("written");
            file.sync_data().expect("synced");
        }
    });
    seconds * 1e3
}

fn timed(clock: &Clock, work: impl FnOnce()) -> f64 {
    let before = clock.now().mono_ms;
    work();
    (clock.now().mono_ms - before).max(1) as f64 / 1e3
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    runtime.block_on(future)
}

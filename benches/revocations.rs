//! What a start costs when a million tokens are taken back: the seconds and the memory of reading them
//! from the store, on disk and in a real Redis (if `redis-server` is there).
//!
//!     cargo bench --bench revocations
//!
//! A process of its own reads them, as a start does: what the writing took is not in its memory. Fails
//! past two seconds or 100 MB.

#![allow(
    clippy::unwrap_used,
    reason = "what does not work here has to fail the bench"
)]

#[path = "../tests/support/redis/mod.rs"]
mod redis_support;

use std::path::Path;
use std::process::{Command, exit};
use std::sync::Arc;
use std::time::Duration;

use fanfare::auth::revocation::Revocations;
use fanfare::broker::redis::{self, Bounds};
use fanfare::broker::{Broker, Deliver, Delivery, Revocation, Revoked, Store, embedded};
use fanfare::clock::Clock;
use fanfare::metrics::Process;
use fanfare::protocol::ChannelKey;
use fanfare::stopwatch;
use redis_support::RedisServer;

const REVOKED: usize = 1_000_000;
/// Written at once: as many as one commit of the embedded store takes.
const AT_ONCE: usize = 1_024;
const SECONDS_MAX: f64 = 2.0;
const BYTES_MAX: u64 = 100_000_000;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, load, place] = arguments.as_slice()
        && load == "load"
    {
        exit(i32::from(!load_from(place)));
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("revocations.redb");
    let mut places = vec![("the embedded store", file.display().to_string())];
    let redis = Command::new("redis-server").arg("--version").output();
    let redis = redis.is_ok().then(|| RedisServer::start(&[]));
    match &redis {
        Some(server) => places.push(("Redis", server.url())),
        None => println!("no redis-server here: only the embedded store is measured"),
    }
    let mut is_good = true;
    for (name, place) in places {
        let began = stopwatch::nanos();
        write_to(&place);
        let seconds = stopwatch::seconds(stopwatch::nanos() - began);
        println!("{REVOKED} revocations written to {name} in {seconds:.1} s");
        let mut load = Command::new(std::env::current_exe().unwrap());
        is_good &= load.arg("load").arg(&place).status().unwrap().success();
    }
    assert!(is_good, "too slow or too large");
}

/// Does what a start does, and says what it cost; whether that is what is promised.
fn load_from(place: &str) -> bool {
    runtime().block_on(async {
        let store = open(place).await;
        let revocations = Revocations::default();
        let before = Process::read();
        let began = stopwatch::nanos();
        let count = revocations.load(&*store).await.unwrap();
        let seconds = stopwatch::seconds(stopwatch::nanos() - began);
        let after = Process::read();
        let bytes = after.resident_bytes - before.resident_bytes;
        println!(
            "  read into memory at start   {seconds:>6.2} s (at most {SECONDS_MAX}), {:.2} s of CPU",
            after.cpu_seconds - before.cpu_seconds
        );
        println!(
            "  resident memory taken       {:>6.1} MB (at most {}), buffers of the store included",
            bytes as f64 / 1e6,
            BYTES_MAX / 1_000_000
        );
        assert_eq!((count, revocations.len()), (REVOKED, REVOKED));
        seconds <= SECONDS_MAX && bytes <= BYTES_MAX
    })
}

fn write_to(place: &str) {
    runtime().block_on(async {
        let store = open(place).await;
        let mut writing = tokio::task::JoinSet::new();
        for _ in 0..REVOKED {
            if writing.len() >= AT_ONCE {
                writing.join_next().await.unwrap().unwrap();
            }
            let store = store.clone();
            writing.spawn(async move {
                let revocation = Revocation {
                    // As our own tokens are called.
                    revoked: Revoked::Token {
                        id: uuid::Uuid::new_v4().to_string(),
                    },
                    keep_until_ms: Clock::system().unix_ms() + 3_600_000,
                };
                store.revoke(revocation).await.unwrap();
            });
        }
        writing.join_all().await;
        store.close().await.unwrap();
    });
}

/// A store that can be read: a file, or the URL of a Redis.
async fn open(place: &str) -> Arc<dyn Store> {
    if !place.starts_with("redis://") {
        let options = embedded::Options {
            path: Path::new(place).to_owned(),
            store_bytes: 1 << 30,
            history_bytes: u64::MAX,
            notifications_per_user: 1_000,
        };
        return embedded::open(options, Clock::system()).unwrap();
    }
    let options = redis::Options {
        url: place.into(),
        pubsub_url: None,
        prefix: "ws:".into(),
        authorities: None,
        node: "bench".into(),
        bounds: Bounds {
            event_bytes: 1 << 20,
            notifications_per_user: 1_000,
            recovery_events: 1_000,
        },
        wait_replicas: 0,
        wait_timeout: Duration::from_secs(1),
        keeps_history: Arc::new(|_| true),
    };
    let client = redis::open(options, Clock::system()).unwrap();
    client.start(Arc::new(Deaf)).await.unwrap();
    client
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap()
}

/// Wants to hear nothing.
struct Deaf;

impl Deliver for Deaf {
    fn deliver(&self, _: Delivery) {}
    fn gap(&self, _: Option<&ChannelKey>) {}
    fn notice(&self, _: bytes::Bytes) {}
}

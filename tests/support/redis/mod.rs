//! Real Redis servers of a test's own, on free ports, with folders of their own.
//!
//! They need the program `redis-server` (Debian's package of that name, which `tests/run` installs
//! without starting its service; `FANFARE_TEST_REDIS` names another one, such as `valkey-server`).

#![allow(
    dead_code,
    unused_imports,
    unused_macros,
    reason = "no test target uses everything"
)]
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "what does not work here has to fail the test, in real time"
)]

mod cluster;
mod secured;
mod sentinels;
mod server;
mod topology;

use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

pub use cluster::Cluster;
pub use secured::Secured;
pub use sentinels::Sentinels;
pub use server::{RedisServer, free_port};
pub(crate) use topology::on_every_redis;
pub use topology::{Redis, Topology};

/// For whatever a Redis, a sentinel or a cluster has to agree on.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// One that all tests of a program share while any of them runs: starting one takes seconds.
pub struct Shared<T>(Mutex<Weak<T>>);

impl<T> Shared<T> {
    pub const fn new() -> Self {
        Self(Mutex::new(Weak::new()))
    }

    pub fn get(&self, start: impl FnOnce() -> T) -> Arc<T> {
        let mut shared = self
            .0
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(running) = shared.upgrade() {
            return running;
        }
        let started = Arc::new(start());
        *shared = Arc::downgrade(&started);
        started
    }
}

/// Waits until `holds` does.
#[track_caller]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "still not: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A name that no other test has.
pub fn fresh_prefix() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("t{}-{number}:", std::process::id())
}

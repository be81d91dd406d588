//! Redis in the suite: one server, a cluster of three, and one behind sentinels. Every test has a
//! prefix of its own.

use std::sync::Arc;
use std::time::Duration;

use fanfare::broker::redis::{self, Bounds, Client, Options};
use fanfare::clock::Clock;

use crate::backend::{Backend, Later, NOTIFICATIONS_PER_USER, Opened};
use crate::redis_support::{self, Topology};

/// Data under one prefix.
pub struct Redis(redis_support::Redis);

impl Redis {
    pub fn single() -> Self {
        Self(Topology::One.shared())
    }

    pub fn cluster() -> Self {
        Self(Topology::Cluster.shared())
    }

    pub fn sentinels() -> Self {
        Self(Topology::Sentinels.shared())
    }

    pub fn connect(&self) -> Arc<Client> {
        redis::open(options(self.0.url(), self.0.prefix()), Clock::system()).unwrap()
    }
}

pub fn options(url: &str, prefix: &str) -> Options {
    Options {
        url: url.into(),
        pubsub_url: None,
        prefix: prefix.into(),
        authorities: None,
        node: uuid::Uuid::new_v4().simple().to_string().into(),
        bounds: Bounds {
            event_bytes: 1 << 20,
            notifications_per_user: NOTIFICATIONS_PER_USER,
            recovery_events: 100_000,
        },
        wait_replicas: 0,
        wait_timeout: Duration::from_secs(1),
        keeps_history: Arc::new(|_| true),
    }
}

impl Backend for Redis {
    fn open(&self) -> Later<'_, Opened> {
        let client = self.connect();
        Box::pin(async {
            Opened {
                broker: client.clone(),
                store: client,
            }
        })
    }

    fn pass(&self, time: Duration) -> Later<'_, ()> {
        Box::pin(tokio::time::sleep(time))
    }

    fn now_ms(&self) -> u64 {
        Clock::system().unix_ms()
    }

    fn can_skip_days(&self) -> bool {
        false
    }
}

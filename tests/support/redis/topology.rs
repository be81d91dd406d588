//! A Redis of whichever topology, as tests of several nodes take it.

use std::sync::Arc;

use super::{Cluster, RedisServer, Sentinels, Shared, fresh_prefix};

static ONE: Shared<RedisServer> = Shared::new();
static SENTINELS: Shared<Sentinels> = Shared::new();
static CLUSTER: Shared<Cluster> = Shared::new();

/// What a Redis is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topology {
    One,
    Sentinels,
    Cluster,
}

/// A prefix on a Redis of some topology, and how to get there.
pub struct Redis {
    url: String,
    prefix: String,
    running: Running,
}

enum Running {
    One(Arc<RedisServer>),
    Sentinels(Arc<Sentinels>),
    Cluster(Arc<Cluster>),
}

impl Topology {
    /// One that other tests use as well.
    #[track_caller]
    pub fn shared(self) -> Redis {
        Redis::on(match self {
            Self::One => Running::One(ONE.get(|| RedisServer::start(&[]))),
            Self::Sentinels => Running::Sentinels(SENTINELS.get(Sentinels::start)),
            Self::Cluster => Running::Cluster(CLUSTER.get(Cluster::start)),
        })
    }

    /// Runs a test that waits for long on every one at the same time.
    #[track_caller]
    pub fn all_at_once(test: impl Fn(Self) + Sync) {
        std::thread::scope(|scope| {
            for on in [Self::One, Self::Sentinels, Self::Cluster] {
                let thread = std::thread::Builder::new().name(format!("{on:?}"));
                thread
                    .spawn_scoped(scope, {
                        let test = &test;
                        move || test(on)
                    })
                    .unwrap();
            }
        });
    }

    /// One of the test's own, of which everything may be looked at and closed.
    #[track_caller]
    pub fn start(self) -> Redis {
        Redis::on(match self {
            Self::One => Running::One(Arc::new(RedisServer::start(&[]))),
            Self::Sentinels => Running::Sentinels(Arc::new(Sentinels::start())),
            Self::Cluster => Running::Cluster(Arc::new(Cluster::start())),
        })
    }
}

impl Redis {
    fn on(running: Running) -> Self {
        Self {
            url: match &running {
                Running::One(server) => server.url(),
                Running::Sentinels(sentinels) => sentinels.url(),
                Running::Cluster(cluster) => cluster.url(),
            },
            prefix: fresh_prefix(),
            running,
        }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// What puts a server on it.
    pub fn settings(&self) -> [(&str, &str); 3] {
        [
            ("broker.backend", "redis"),
            ("broker.redis.url", &self.url),
            ("broker.redis.prefix", &self.prefix),
        ]
    }

    /// Those that take writes.
    pub fn servers(&self) -> &[RedisServer] {
        match &self.running {
            Running::One(server) => std::slice::from_ref(&**server),
            Running::Sentinels(sentinels) => &sentinels.servers[..1],
            Running::Cluster(cluster) => &cluster.nodes,
        }
    }

    /// What the one answers that has the command's key; without a key, any.
    #[track_caller]
    pub fn command(&self, words: &[&str]) -> String {
        let answers = self.servers().iter().map(|server| server.command(words));
        let mut answers = answers.filter(|answer| !answer.starts_with("-MOVED"));
        answers.next().expect("nobody has the key")
    }
}

/// Makes a test on each topology of every function that is named.
macro_rules! on_every_redis {
    ($($test:ident)*) => {
        mod on_one_server {
            $(#[test]
            fn $test() {
                super::$test(crate::support::redis::Topology::One);
            })*
        }
        mod behind_sentinels {
            $(#[test]
            fn $test() {
                super::$test(crate::support::redis::Topology::Sentinels);
            })*
        }
        mod on_a_cluster {
            $(#[test]
            fn $test() {
                super::$test(crate::support::redis::Topology::Cluster);
            })*
        }
    };
}
pub(crate) use on_every_redis;

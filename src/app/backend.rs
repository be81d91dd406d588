//! The broker and store that the configuration chose.

use std::sync::Arc;

use super::Failure;
use crate::broker::embedded::{self, Embedded};
use crate::broker::figures::RedisFigures;
use crate::broker::{Broker, Store, redis};
use crate::clock::Clock;
use crate::config::{self, Config, Limits, Live, Secret};
use crate::limits::QUEUE_SHARE;

/// An event takes at least so much of an answer, with what is around it.
const EVENT_BYTES_MIN: usize = 160;

/// One of the implementations.
pub(super) enum Backend {
    Embedded(Arc<Embedded>),
    Redis(Arc<redis::Client>),
}

impl Backend {
    /// Opens or connects it. Blocks for as long as that takes.
    pub(super) fn open(
        config: &Config,
        live: &Live,
        node: &Arc<str>,
        clock: Clock,
    ) -> Result<Self, Failure> {
        match config.broker.backend {
            config::Backend::Embedded => {
                let options = embedded::Options {
                    path: config.data_dir.join(embedded::FILE_NAME),
                    store_bytes: config.limits.store_bytes,
                    history_bytes: config.limits.history_bytes,
                    notifications_per_user: config.limits.notifications_per_user,
                };
                Ok(Self::Embedded(embedded::open(options, clock)?))
            }
            config::Backend::Redis => {
                let rules = live.clone();
                let settings = &config.broker.redis;
                let bounds = bounds(&config.limits);
                let options = redis::Options {
                    url: text(&settings.url),
                    pubsub_url: settings.pubsub_url.as_ref().map(text),
                    prefix: settings.prefix.clone(),
                    authorities: settings.authorities.clone(),
                    node: node.clone(),
                    bounds,
                    wait_replicas: settings.wait_replicas,
                    wait_timeout: settings.wait_timeout,
                    keeps_history: Arc::new(move |channel| {
                        let config = rules.current();
                        let rule = config.channels.rule(channel.kind());
                        rule.is_some_and(|rule| rule.history.is_some())
                    }),
                };
                Ok(Self::Redis(redis::open(options, clock)?))
            }
        }
    }

    pub(super) fn broker(&self) -> Arc<dyn Broker> {
        match self {
            Self::Embedded(embedded) => embedded.clone(),
            Self::Redis(redis) => redis.clone(),
        }
    }

    pub(super) fn store(&self) -> Arc<dyn Store> {
        match self {
            Self::Embedded(embedded) => embedded.clone(),
            Self::Redis(redis) => redis.clone(),
        }
    }

    /// Until it cannot go on by itself.
    pub(super) async fn ends(&self) {
        match self {
            Self::Embedded(embedded) => embedded.ended().await,
            // It connects again.
            Self::Redis(_) => std::future::pending().await,
        }
    }

    /// Whether other nodes may be on it.
    pub(super) fn is_shared(&self) -> bool {
        matches!(self, Self::Redis(_))
    }

    /// The database of this process, if that is what it is.
    pub(super) fn embedded(&self) -> Option<Arc<Embedded>> {
        match self {
            Self::Embedded(embedded) => Some(embedded.clone()),
            Self::Redis(_) => None,
        }
    }

    /// What reads the figures of the Redis, if there is one.
    #[allow(clippy::type_complexity)] // as `Observed` has it
    pub(super) fn redis_figures(&self) -> Option<Box<dyn Fn() -> RedisFigures + Send + Sync>> {
        match self {
            Self::Embedded(_) => None,
            Self::Redis(redis) => {
                let redis = redis.clone();
                Some(Box::new(move || redis.figures()))
            }
        }
    }

    /// New bounds, from now on.
    pub(super) fn rebound(&self, limits: &Limits) {
        match self {
            Self::Embedded(embedded) => embedded.rebound(limits),
            Self::Redis(redis) => redis.rebound(bounds(limits)),
        }
    }
}

fn bounds(limits: &Limits) -> redis::Bounds {
    redis::Bounds {
        event_bytes: limits.event_bytes,
        notifications_per_user: limits.notifications_per_user,
        // More than one answer can carry is too far anyway.
        recovery_events: (limits.queue_bytes / QUEUE_SHARE / EVENT_BYTES_MIN).max(1) as u64,
    }
}

fn text(secret: &Secret) -> String {
    String::from_utf8_lossy(secret.expose()).into_owned()
}

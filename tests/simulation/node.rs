//! A node without sockets: what workers do with their members, one step at a time.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fanfare::broker::embedded::{self, Embedded};
use fanfare::broker::{Broker, Deliver, Retention};
use fanfare::clock::Clock;
use fanfare::config::{Access, ChannelRule, ChannelRules, Durability, Limits, Slow, Sources};
use fanfare::metrics::Counters;
use fanfare::protocol::ChannelKey;
use fanfare::router::Router;
use fanfare::session::Terms;
use fanfare::worker::channels::Channels;
use fanfare::worker::mailbox::{Inbound, mailbox};
use fanfare::ws::Frame;

use crate::account::{BRIEF_MS, SHORT_EVENTS};
use crate::dice::Dice;

pub const WORKERS: usize = 2;

pub struct Node {
    pub broker: Arc<Embedded>,
    pub clock: Clock,
    pub terms: Terms,
    router: Arc<Router>,
    workers: Vec<Worker>,
}

struct Worker {
    inbound: Inbound,
    channels: Channels,
}

/// The key of a channel.
pub fn key(channel: &str) -> ChannelKey {
    ChannelKey::parse(channel, 255).unwrap()
}

impl Node {
    pub async fn open(path: &Path) -> Self {
        Self::reopen(path, Clock::manual(1_795_406_706_789)).await
    }

    pub async fn reopen(path: &Path, clock: Clock) -> Self {
        let options = embedded::Options {
            path: path.to_owned(),
            store_bytes: u64::MAX,
            history_bytes: u64::MAX,
            notifications_per_user: usize::MAX,
        };
        let broker = embedded::open(options, clock.clone()).unwrap();
        let (mailboxes, inbounds): (Vec<_>, Vec<_>) = (0..WORKERS).map(|_| mailbox()).unzip();
        let router = Arc::new(Router::new(mailboxes, Arc::new(Counters::new(WORKERS))));
        broker.start(router.clone()).await.unwrap();
        let workers = inbounds.into_iter().map(|inbound| Worker {
            inbound,
            channels: Channels::default(),
        });
        Self {
            broker,
            clock,
            terms: terms(),
            router,
            workers: workers.collect(),
        }
    }

    pub fn retention(&self, key: &ChannelKey) -> Option<Retention> {
        self.terms.channels.rule(key.kind()).unwrap().history
    }

    pub fn channels(&mut self, worker: usize) -> &mut Channels {
        &mut self.workers[worker].channels
    }

    pub fn join(&mut self, worker: usize, key: &ChannelKey, member: usize) {
        let joined = self
            .channels(worker)
            .join(key.clone(), member as u32, Slow::Close);
        let (_, first) = joined;
        self.router.interest.join(worker, key, first);
    }

    pub fn leave(&mut self, worker: usize, key: &ChannelKey, member: usize) {
        if let Some(last) = self.channels(worker).leave(key, member as u32) {
            self.router.interest.leave(worker, key, last, || {});
        }
    }

    /// Up to so many events leave a worker's mailbox; who gets them.
    pub fn deliver(&mut self, worker: usize, most: u64) -> Vec<(usize, Frame)> {
        let Worker { inbound, channels } = &mut self.workers[worker];
        let mut sent = Vec::new();
        for _ in 0..most {
            let Some(posted) = inbound.event() else {
                break;
            };
            let frame = Frame::encoded(&posted.frame);
            channels.event(
                &posted.channel,
                posted.position.as_ref(),
                &frame,
                |slot, _| {
                    sent.push((slot as usize, frame.clone()));
                },
            );
        }
        sent
    }

    /// An event is lost on its way to a worker; the members that have to be told.
    pub fn lose(&mut self, dice: &mut Dice) -> HashSet<usize> {
        let worker = dice.below(WORKERS as u64) as usize;
        let Some(posted) = self.workers[worker].inbound.event() else {
            return HashSet::new();
        };
        self.router.gap(Some(&posted.channel));
        let mut members = HashSet::new();
        for Worker { inbound, channels } in &self.workers {
            for key in inbound.gaps() {
                members.extend(channels.members(&key).into_iter().map(|slot| slot as usize));
            }
        }
        members
    }
}

fn terms() -> Terms {
    let rule = |entries, ttl| ChannelRule {
        subscribe: Access::Any,
        publish: Access::None,
        history: Some(Retention {
            entries,
            ttl,
            durability: Durability::Commit,
        }),
        presence: false,
        join_leave: false,
        slow: Slow::Close,
    };
    let day = Duration::from_secs(86_400);
    let rules = BTreeMap::from([
        ("post".to_owned(), rule(1_000_000, day)),
        ("short".to_owned(), rule(SHORT_EVENTS as usize, day)),
        (
            "brief".to_owned(),
            rule(1_000_000, Duration::from_millis(BRIEF_MS)),
        ),
    ]);
    let config = fanfare::config::load(&Sources::default()).unwrap();
    Terms {
        channels: ChannelRules(rules),
        limits: Limits {
            commands_per_second: u32::MAX,
            dry_run: false,
            ..config.limits
        },
        node: "simulated".into(),
    }
}

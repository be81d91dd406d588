//! Broker and store in Redis: one server, one behind sentinels, or a cluster.
//!
//! A command goes out on the caller's thread and is answered there. What comes over pub/sub is heard on
//! the thread `fanfare-redis`, which also looks after the connections. Redis is the only place where
//! anything is kept, but for who of this node is where (`presence`), and decides the order of everything.
//!
//! Not for: making up for a Redis that is not there. Whatever needs it fails at once.

mod address;
mod budgets;
mod call;
mod cluster;
mod connecting;
mod ear;
mod events;
mod examine;
mod figures;
mod followed;
mod healing;
mod history;
mod keys;
mod line;
mod link;
mod listener;
pub mod migration;
mod notifications;
mod presence;
mod records;
mod scripts;
mod sending;
mod sentinel;
mod server;
mod slot;
mod thread;
mod users;
mod values;
mod wire;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use redis::Value;
use tokio::sync::{Notify, mpsc, watch};

use super::figures::RedisFigures;
use super::{Deliver, Error, Health};
use crate::clock::Clock;
use crate::protocol::{ChannelKey, Epoch};
use crate::sparing::Sparing;
use address::Target;
use call::{Call, Wait};
use ear::Ear;
pub use examine::{Examined, Expected, Flaw, examine};
use figures::Figures;
use followed::{Followed, Order};
use keys::Keys;
use link::Link;
use presence::Told;
use sending::Written;
use server::Refusal;
use thread::{Thread, targets};

/// How long a start waits for Redis.
const START_PATIENCE: Duration = Duration::from_secs(10);
/// For as much of that without a word: both may have been started at once.
const SILENT_PATIENCE: Duration = Duration::from_secs(1);

/// How often a message is sent whose way is measured.
const CANARY_INTERVAL: Duration = Duration::from_secs(1);
/// The servers are asked how they are every so many canaries.
const OBSERVE_TURNS: u64 = 10;

/// Whether a channel keeps history, by the rules of the moment.
pub type KeepsHistory = Arc<dyn Fn(&ChannelKey) -> bool + Send + Sync>;

/// How to reach Redis, and what for.
#[derive(Clone)]
pub struct Options {
    /// `broker.redis.url`
    pub url: String,
    /// `broker.redis.pubsub_url`, if it is another.
    pub pubsub_url: Option<String>,
    /// `broker.redis.prefix`
    pub prefix: String,
    /// The certificates of `broker.redis.ca`, in PEM; `None`: the system's.
    pub authorities: Option<Vec<u8>>,
    /// This node's name, unlike that of any other.
    pub node: Arc<str>,
    /// What may change while it runs.
    pub bounds: Bounds,
    /// `broker.redis.wait_replicas`
    pub wait_replicas: u32,
    /// `broker.redis.wait_timeout`
    pub wait_timeout: Duration,
    /// Channels of which nothing may be missed.
    pub keeps_history: KeepsHistory,
}

/// Bounds that may change while it runs.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// `limits.event_bytes`, for what other programs publish.
    pub event_bytes: usize,
    /// `limits.notifications_per_user`; `usize::MAX` is no limit.
    pub notifications_per_user: usize,
    /// Events that one recovery may bring; more is too far.
    pub recovery_events: u64,
}

/// Why there is no Redis to work with.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL cannot be used.
    #[error("the URL {0}")]
    Url(&'static str),
    /// It could not be reached in time.
    #[error("cannot reach Redis: {0}")]
    Unreachable(String),
    /// It is there, and will not do.
    #[error("cannot use Redis: {0}")]
    Unfit(String),
    /// A migration to it has not come to its end.
    #[error(
        "Redis holds an unfinished migration: run \"fanfare migrate --to redis\" again to finish it, \
         or choose another broker.redis.prefix"
    )]
    Unfinished,
    /// The thread could not be started.
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
}

/// Whether a URL can be used; if not, why. Repeats nothing of it.
///
/// # Errors
/// What is wrong with it.
pub fn check_url(url: &str) -> Result<(), &'static str> {
    Target::parse(url, None).map(drop)
}

/// Connects. Blocks until Redis answers, or for ten seconds.
///
/// # Errors
/// Why there is none.
pub fn open(options: Options, clock: Clock) -> Result<Arc<Client>, OpenError> {
    let (data, pubsub) = targets(
        &options.url,
        options.pubsub_url.as_deref(),
        options.authorities.as_ref(),
    )?;
    let (redis, thread) = Thread::start(move || async move {
        let (redis, orders, heard) = Redis::begin(options, data, pubsub, clock);
        tokio::spawn(ear::hear(Arc::clone(&redis), heard));
        tokio::spawn(listener::follow(Arc::clone(&redis), orders));
        tokio::spawn(renew(Arc::clone(&redis)));
        tokio::spawn(observe(Arc::clone(&redis)));
        redis.wait_until_ready().await.map(|()| redis)
    })?;
    Ok(Arc::new(Client {
        _thread: thread,
        redis,
    }))
}

/// Broker and store. Dropping it gives the connections up.
pub struct Client {
    /// The first to go.
    _thread: Thread,
    redis: Arc<Redis>,
}

/// What callers and the thread share.
struct Redis {
    keys: Keys,
    clock: Clock,
    node: Arc<str>,
    bounds: RwLock<Bounds>,
    wait: Option<Wait>,
    keeps_history: KeepsHistory,
    /// Where everything is kept.
    link: Link,
    /// Where events go through, if that is another.
    pubsub: Option<Link>,
    orders: mpsc::UnboundedSender<Order>,
    ear: Ear,
    followed: Mutex<Followed>,
    told: Mutex<Told>,
    sink: RwLock<Option<Arc<dyn Deliver>>>,
    figures: Arc<Figures>,
    warnings: Sparing,
    /// The epoch of channels that had no event where everything was migrated from (`migration`).
    ground: OnceLock<Epoch>,
    /// Whether notices are heard; what is announced before would not be.
    is_ready: watch::Sender<bool>,
    is_closed: AtomicBool,
    /// Calls that were accepted and are not finished.
    accepted: AtomicUsize,
    finished: Notify,
}

/// A call that was accepted before the end.
struct Accepted<'a>(&'a Redis);

impl Client {
    /// New bounds, from now on.
    pub fn rebound(&self, bounds: Bounds) {
        let current = self.redis.bounds.write();
        *current.unwrap_or_else(PoisonError::into_inner) = bounds;
    }

    /// What was counted.
    pub fn figures(&self) -> RedisFigures {
        let pubsub = self.redis.pubsub.as_ref().map_or(0, Link::depth);
        self.redis.figures.read(self.redis.link.depth() + pubsub)
    }
}

impl Redis {
    #[allow(clippy::type_complexity)] // the two ends of what it hears and obeys
    fn begin(
        options: Options,
        data: Target,
        pubsub: Option<Target>,
        clock: Clock,
    ) -> (
        Arc<Self>,
        mpsc::UnboundedReceiver<Order>,
        flume::Receiver<ear::Push>,
    ) {
        let (ear, heard) = Ear::new();
        let (orders, obeyed) = mpsc::unbounded_channel();
        let figures = Arc::new(Figures::default());
        let wait = (options.wait_replicas > 0).then_some(Wait {
            replicas: options.wait_replicas,
            timeout: options.wait_timeout,
        });
        let link = |target| {
            let ear = ear.clone();
            let on_push = Arc::new(move |server, push| ear.push(server, push));
            Link::begin(target, on_push, Arc::clone(&figures), wait.is_some())
        };
        let redis = Arc::new(Self {
            keys: Keys::new(&options.prefix),
            clock,
            node: options.node,
            bounds: RwLock::new(options.bounds),
            wait,
            keeps_history: options.keeps_history,
            link: link(data),
            pubsub: pubsub.map(link),
            orders,
            ear: ear.clone(),
            followed: Mutex::default(),
            told: Mutex::default(),
            sink: RwLock::new(None),
            figures: Arc::clone(&figures),
            warnings: Sparing::default(),
            ground: OnceLock::new(),
            is_ready: watch::channel(false).0,
            is_closed: AtomicBool::new(false),
            accepted: AtomicUsize::new(0),
            finished: Notify::new(),
        });
        (redis, obeyed, heard)
    }

    async fn wait_until_ready(&self) -> Result<(), Refusal> {
        match self.link.connected(SILENT_PATIENCE).await {
            Err(Refusal::Unreachable(cause)) => {
                let patience = START_PATIENCE - SILENT_PATIENCE;
                let seconds = patience.as_secs();
                tracing::warn!(
                    "Redis cannot be reached yet, trying for another {seconds} s: {cause}"
                );
                self.link.connected(patience).await?;
            }
            outcome => outcome?,
        }
        if let Some(pubsub) = &self.pubsub {
            pubsub.connected(START_PATIENCE).await?;
        }
        let mut ready = self.is_ready.subscribe();
        let heard = tokio::time::timeout(START_PATIENCE, ready.wait_for(|ready| *ready));
        if heard.await.is_err() {
            return Err(Refusal::Unfit(
                "it lets nobody subscribe to what all nodes hear".into(),
            ));
        }
        match self.meet_migrations().await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Refusal::Unfinished),
            Err(Error::Storage(cause)) => Err(Refusal::Unfit(cause.to_string())),
            Err(error) => Err(Refusal::Unreachable(error.to_string())),
        }
    }

    /// Takes a call, unless it is closed.
    fn accept(&self) -> Result<Accepted<'_>, Error> {
        self.accepted.fetch_add(1, Ordering::AcqRel);
        let accepted = Accepted(self);
        if self.is_closed.load(Ordering::Acquire) {
            Err(Error::Closed)
        } else {
            Ok(accepted)
        }
    }

    /// A write. `durable`: it is answered when as many replicas have it as the configuration asks for.
    async fn write(&self, call: &Call, durable: bool) -> Result<Value, Error> {
        let written = self.written(call, durable).await?;
        if !written.is_replicated {
            return Err(Error::Unavailable);
        }
        Ok(written.answer)
    }

    /// A write that has further effects whether or not replicas have it.
    async fn written(&self, call: &Call, durable: bool) -> Result<Written, Error> {
        let wait = self.wait.filter(|_| durable);
        self.link.call_for(call, wait).await
    }

    fn bounds(&self) -> Bounds {
        *self.bounds.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn sink(&self) -> Option<Arc<dyn Deliver>> {
        let sink = self.sink.read().unwrap_or_else(PoisonError::into_inner);
        sink.clone()
    }

    fn health(&self) -> Health {
        if self.is_closed.load(Ordering::Acquire) {
            return Health::Down("it is closed".into());
        }
        let pubsub = self.pubsub.as_ref().map_or(Health::Up, Link::health);
        match (self.link.health(), pubsub) {
            (Health::Down(cause), _) => Health::Down(format!("redis: {cause}")),
            (_, Health::Down(cause)) => Health::Down(format!("redis for pub/sub: {cause}")),
            (Health::Degraded(cause), _) => Health::Degraded(format!("redis: {cause}")),
            (_, Health::Degraded(cause)) => Health::Degraded(format!("redis for pub/sub: {cause}")),
            (Health::Up, Health::Up) => Health::Up,
        }
    }

    /// Takes no more, finishes what was accepted, says that nobody of this node is anywhere.
    async fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        loop {
            let finished = self.finished.notified();
            if self.accepted.load(Ordering::Acquire) == 0 {
                break;
            }
            finished.await;
        }
        self.end_presence().await;
    }
}

impl Drop for Accepted<'_> {
    fn drop(&mut self) {
        if self.0.accepted.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.finished.notify_waiters();
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.redis.is_closed.store(true, Ordering::Release);
    }
}

/// Renews what this node has told of who is where.
async fn renew(redis: Arc<Redis>) {
    loop {
        tokio::time::sleep(presence::RENEWAL).await;
        redis.renew_presence().await;
    }
}

/// Asks the servers how they are, and sends a canary, for the metrics.
async fn observe(redis: Arc<Redis>) {
    let mut servers = Vec::new();
    for turn in 0u64.. {
        if servers.is_empty() || turn % OBSERVE_TURNS == 0 {
            servers = redis.link.figures(&servers).await;
            lock(&redis.figures.servers).clone_from(&servers);
        }
        redis.send_canary().await;
        tokio::time::sleep(CANARY_INTERVAL).await;
    }
}

/// A lock whose holder panicked is taken all the same: what it guards is valid after every step.
fn lock<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

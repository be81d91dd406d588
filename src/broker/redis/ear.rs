//! What comes over pub/sub: how it waits, and what becomes of it.
//!
//! Messages of all servers go through one bounded queue to [`hear`], which passes them on. Not for: what
//! is subscribed to (listener.rs), what was missed (healing.rs).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use flume::{Receiver, Sender};
use redis::{PushInfo, PushKind, Value};
use tokio::sync::Notify;

use super::call::Call;
use super::line::Taken;
use super::link::Routes;
use super::{Redis, lock, wire};
use crate::broker::NOTICE_BYTES_MAX;
use crate::event_log::without_token;
use crate::protocol::ChannelKey;

/// Messages that wait to be heard. More are as good as lost on the way.
const HEARD_MAX: usize = 65_536;
/// Bytes of them.
const HEARD_BYTES_MAX: usize = 64 << 20;

/// What comes before the time in a message that every node sends and all measure. No notice begins so.
const CANARY: &[u8] = b"canary ";

/// A message from a server's pub/sub.
pub(super) type Push = (u64, PushInfo);

/// The way of messages to [`hear`]. Bounded: what does not fit interrupts everything.
#[derive(Clone)]
pub(super) struct Ear {
    pushes: Sender<Push>,
    shared: Arc<EarShared>,
}

struct EarShared {
    bytes: AtomicUsize,
    spilled: AtomicBool,
    /// Something is to be done by [`follow`](super::listener::follow).
    wake: Notify,
}

impl Ear {
    pub(super) fn new() -> (Self, Receiver<Push>) {
        let (pushes, heard) = flume::bounded(HEARD_MAX);
        let shared = Arc::new(EarShared {
            bytes: AtomicUsize::new(0),
            spilled: AtomicBool::new(false),
            wake: Notify::new(),
        });
        (Self { pushes, shared }, heard)
    }

    /// Takes a message, without waiting.
    pub(super) fn push(&self, server: u64, push: PushInfo) {
        let bytes = weight(&push);
        let all = self.shared.bytes.fetch_add(bytes, Ordering::Relaxed);
        if all + bytes > HEARD_BYTES_MAX || self.pushes.try_send((server, push)).is_err() {
            self.shared.bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.shared.spilled.store(true, Ordering::Release);
            self.shared.wake.notify_one();
        }
    }

    /// Tells [`follow`](super::listener::follow) that there is something to do.
    pub(super) fn wake(&self) {
        self.shared.wake.notify_one();
    }

    /// Waits to be told so.
    pub(super) async fn woken(&self) {
        self.shared.wake.notified().await;
    }

    /// Whether something did not fit since it was asked last.
    pub(super) fn has_spilled(&self) -> bool {
        self.shared.spilled.swap(false, Ordering::AcqRel)
    }
}

fn weight(push: &PushInfo) -> usize {
    let bytes = |value: &Value| match value {
        Value::BulkString(bytes) => bytes.len(),
        _ => 0,
    };
    100 + push.data.iter().map(bytes).sum::<usize>()
}

/// Hears what comes until the end.
pub(super) async fn hear(redis: Arc<Redis>, heard: Receiver<Push>) {
    let notice_line = redis.keys.notice_line();
    while let Ok((server, push)) = heard.recv_async().await {
        let bytes = weight(&push);
        redis.ear.shared.bytes.fetch_sub(bytes, Ordering::Relaxed);
        match push.kind {
            PushKind::Message | PushKind::SMessage => {
                let mut data = push.data.into_iter();
                let (Some(Value::BulkString(line)), Some(Value::BulkString(payload))) =
                    (data.next(), data.next())
                else {
                    continue;
                };
                if line == notice_line.as_bytes() {
                    redis.take_notice(server, payload);
                } else if let Ok(line) = std::str::from_utf8(&line)
                    && let Some(channel) = redis.keys.channel_of(line)
                {
                    redis.take_event(server, &channel, &payload);
                }
            }
            // A slot has moved away, or the library has lost the connection.
            PushKind::SUnsubscribe => redis.check_shard(server, &push.data),
            PushKind::Disconnection => redis.give_up(server),
            _ => {}
        }
    }
}

impl Redis {
    /// Sends a message whose way all nodes measure.
    pub(super) async fn send_canary(&self) {
        if self.hears_notices() {
            let mut message = CANARY.to_vec();
            message.extend(self.clock.unix_ms().to_string().into_bytes());
            let call = Call::command("PUBLISH", self.keys.notice_line()).arg(message);
            if let Err(error) = self.hearing().call(&call).await {
                tracing::debug!(%error, "the canary could not be sent");
            }
        }
    }

    fn take_notice(&self, server: u64, payload: Vec<u8>) {
        let is_ours = lock(&self.followed).hears_notices(server);
        if !is_ours {
            return;
        }
        if let Some(sent) = payload.strip_prefix(CANARY) {
            let sent_ms = std::str::from_utf8(sent)
                .ok()
                .and_then(|sent| sent.parse().ok());
            let lag_ms = sent_ms.map(|sent_ms| self.clock.unix_ms().saturating_sub(sent_ms));
            if let Some(lag_ms) = lag_ms {
                self.figures.lag.add(lag_ms.saturating_mul(1_000));
            }
            return;
        }
        if payload.len() > NOTICE_BYTES_MAX {
            self.figures.malformed.increment();
        } else if let Some(sink) = self.sink() {
            sink.notice(Bytes::from(payload));
        }
    }

    fn take_event(&self, server: u64, channel: &ChannelKey, payload: &[u8]) {
        let Some(message) = wire::parse(payload, self.bounds().event_bytes) else {
            self.note_malformed(channel);
            return;
        };
        let mut followed = lock(&self.followed);
        let Some(entry) = followed.channels.get_mut(channel) else {
            return;
        };
        if entry.server != Some(server) || !entry.is_wanted {
            return;
        }
        match entry.line.take(message) {
            // With the lock held: one at a time for each channel.
            Taken::Pass(message) => self.deliver(channel, message),
            Taken::Nothing => {}
            Taken::Heal => {
                self.figures.holes.increment();
                followed.due.insert(channel.clone());
                self.ear.wake();
            }
        }
    }

    fn note_malformed(&self, channel: &ChannelKey) {
        self.figures.malformed.increment();
        if let Some(held_back) = self.warnings.warn(self.clock.now().mono_ms) {
            let channel = without_token(channel.as_str());
            tracing::warn!(%channel, held_back, "what was published to Redis is no event");
        }
    }

    /// A sharded subscription has ended. If nobody here ended it, the server is not in charge of the
    /// slot any more.
    fn check_shard(&self, server: u64, data: &[Value]) {
        let Some(Value::BulkString(line)) = data.first() else {
            return;
        };
        let channel = std::str::from_utf8(line).ok();
        let channel = channel.and_then(|line| self.keys.channel_of(line));
        let is_wanted = channel.is_some_and(|channel| {
            let followed = lock(&self.followed);
            let entry = followed.channels.get(&channel);
            entry.is_some_and(|entry| entry.is_wanted && entry.server == Some(server))
        });
        if is_wanted {
            self.give_up(server);
        }
    }

    fn give_up(&self, server: u64) {
        for link in [Some(&self.link), self.pubsub.as_ref()]
            .into_iter()
            .flatten()
        {
            let servers = match link.routes() {
                Routes::Down(..) => Vec::new(),
                Routes::One(server) => vec![server],
                Routes::Many(cluster) => cluster.servers.clone(),
            };
            for one in servers.iter().filter(|one| one.id == server) {
                one.mark_broken();
            }
        }
    }
}

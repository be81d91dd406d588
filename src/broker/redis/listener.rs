//! What this node follows: asks the servers for it, asks again when they change, reads what was missed.
//!
//! Two tasks on the thread `fanfare-redis`. [`hear`] takes what comes over pub/sub and passes it on;
//! [`follow`] subscribes and heals. What they share is behind one lock that is never held while waiting,
//! and that callers of the broker never take: they send orders, which are carried out in the order in
//! which they were given.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use flume::{Receiver, Sender};
use redis::{Cmd, PushInfo, PushKind, Value};
use tokio::sync::{Notify, mpsc, oneshot};

use super::history::{Question, read};
use super::line::{Healed, Line, Taken};
use super::link::{Call, Link, Routes};
use super::server::Server;
use super::slot::slot;
use super::{Redis, lock, wire};
use crate::broker::{Delivery, Error, NOTICE_BYTES_MAX};
use crate::protocol::{ChannelKey, Position};

/// Messages that wait to be heard. More are as good as lost on the way.
const HEARD_MAX: usize = 65_536;
/// Bytes of them.
const HEARD_BYTES_MAX: usize = 64 << 20;
/// Channels that are asked for in one round trip.
const BATCH: usize = 512;
/// Between two attempts at what failed.
const RETRY_AFTER: Duration = Duration::from_millis(200);
/// More that was missed is not read for all, but told as a gap: who missed it reads for itself.
const MISSED_MAX: u64 = 4_096;

/// What comes before the time in a message that every node sends and all measure. No notice begins so.
const CANARY: &[u8] = b"canary ";

/// What callers ask for.
pub(super) enum Order {
    /// To hear a channel, and to be told when it is heard.
    Follow(ChannelKey, oneshot::Sender<Result<(), Error>>),
    /// To hear it no more.
    Leave(ChannelKey, oneshot::Sender<Result<(), Error>>),
}

/// A channel, and since when it is asked about; `None`: only where it stands.
type Asked = (ChannelKey, Option<Position>);

/// A message from a server's pub/sub.
type Push = (u64, PushInfo);

/// The way of messages to [`hear`]. Bounded: what does not fit interrupts everything.
#[derive(Clone)]
pub(super) struct Ear {
    pushes: Sender<Push>,
    shared: Arc<EarShared>,
}

pub(super) struct EarShared {
    bytes: AtomicUsize,
    spilled: AtomicBool,
    /// Something is to be done by [`follow`].
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
}

fn weight(push: &PushInfo) -> usize {
    let bytes = |value: &Value| match value {
        Value::BulkString(bytes) => bytes.len(),
        _ => 0,
    };
    100 + push.data.iter().map(bytes).sum::<usize>()
}

/// Channels that are followed.
#[derive(Default)]
pub(super) struct Followed {
    channels: HashMap<ChannelKey, Entry>,
    /// The server that notices are heard from.
    notices: Option<u64>,
    /// Channels that need something done.
    due: HashSet<ChannelKey>,
}

struct Entry {
    line: Line,
    is_wanted: bool,
    /// The server that it is heard from, or asked of.
    server: Option<u64>,
    /// Whether that server has confirmed it.
    is_heard: bool,
    waiting: Vec<oneshot::Sender<Result<(), Error>>>,
}

impl Followed {
    /// Whether notices of all nodes are heard from `server`.
    pub(super) fn hears_notices(&self, server: u64) -> bool {
        self.notices == Some(server)
    }
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

/// Follows until there are no more orders.
pub(super) async fn follow(redis: Arc<Redis>, mut orders: mpsc::UnboundedReceiver<Order>) {
    let link = redis.hearing().clone();
    let (mut routes, mut data_routes) = (link.changes(), redis.link.changes());
    redis.look_at_routes();
    loop {
        redis.work().await;
        let is_due = !lock(&redis.followed).due.is_empty() || !redis.hears_notices();
        tokio::select! {
            order = orders.recv() => {
                let Some(order) = order else { return };
                redis.obey(order);
                while let Ok(order) = orders.try_recv() {
                    redis.obey(order);
                }
            }
            Ok(()) = routes.changed() => redis.look_at_routes(),
            Ok(()) = data_routes.changed() => redis.data_moved(),
            () = redis.ear.shared.wake.notified() => {
                if redis.ear.shared.spilled.swap(false, Ordering::AcqRel) {
                    redis.interrupt_all();
                }
            }
            () = tokio::time::sleep(RETRY_AFTER), if is_due => {}
        }
    }
}

impl Redis {
    /// The Redis that pub/sub goes through.
    pub(super) fn hearing(&self) -> &Link {
        self.pubsub.as_ref().unwrap_or(&self.link)
    }

    /// Whether what all nodes are told is heard here.
    pub(super) fn hears_notices(&self) -> bool {
        let server = self.hearing().server(self.notice_slot());
        server.is_ok_and(|server| lock(&self.followed).hears_notices(server.id))
    }

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

    fn notice_slot(&self) -> u16 {
        slot(self.keys.notice_line().as_bytes())
    }

    fn line_slot(&self, channel: &ChannelKey) -> u16 {
        slot(self.keys.sharded_line(channel).as_bytes())
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
                self.figures.lag.add(Duration::from_millis(lag_ms));
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
                self.ear.shared.wake.notify_one();
            }
        }
    }

    fn deliver(&self, channel: &ChannelKey, message: wire::Message) {
        if let Some(sink) = self.sink() {
            sink.deliver(Delivery {
                channel: channel.clone(),
                event: message.event,
                position: message.position,
                trace: message.trace,
            });
        }
    }

    fn deliver_healed(&self, channel: &ChannelKey, healed: Healed) {
        if healed.is_gap {
            self.figures.gaps.increment();
            if let Some(sink) = self.sink() {
                sink.gap(Some(channel));
            }
        }
        for message in healed.pass {
            self.deliver(channel, message);
        }
    }

    fn note_malformed(&self, channel: &ChannelKey) {
        self.figures.malformed.increment();
        if let Some(held_back) = self.warnings.warn(self.clock.now().mono_ms) {
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

    fn obey(&self, order: Order) {
        let mut followed = lock(&self.followed);
        match order {
            Order::Follow(channel, waiting) => {
                let line_slot = self.line_slot(&channel);
                let server = self.hearing().server(line_slot).map(|server| server.id);
                let keeps = (self.keeps_history)(&channel);
                let entry = followed
                    .channels
                    .entry(channel.clone())
                    .or_insert_with(|| Entry {
                        line: Line::new(keeps),
                        is_wanted: true,
                        server: None,
                        is_heard: false,
                        waiting: Vec::new(),
                    });
                entry.is_wanted = true;
                match server {
                    Err(error) => drop(waiting.send(Err(error))),
                    Ok(server) if entry.is_heard && entry.server == Some(server) => {
                        drop(waiting.send(Ok(())));
                        return;
                    }
                    Ok(_) => entry.waiting.push(waiting),
                }
                followed.due.insert(channel);
            }
            Order::Leave(channel, waiting) => {
                if let Some(entry) = followed.channels.get_mut(&channel) {
                    entry.is_wanted = false;
                    followed.due.insert(channel);
                }
                drop(waiting.send(Ok(())));
            }
        }
    }

    /// Finds out what is not heard from where it should be.
    fn look_at_routes(&self) {
        let mut followed = lock(&self.followed);
        let Followed { channels, due, .. } = &mut *followed;
        for (channel, entry) in channels {
            let server = self.hearing().server(self.line_slot(channel)).ok();
            let server = server.map(|server| server.id);
            if entry.server.is_some() && entry.server != server {
                if entry.is_heard {
                    entry.line.interrupt();
                }
                entry.server = None;
                entry.is_heard = false;
            }
            if entry.server.is_none() {
                due.insert(channel.clone());
            }
            if server.is_none() {
                for waiting in entry.waiting.drain(..) {
                    let _ = waiting.send(Err(Error::Unavailable));
                }
            }
        }
    }

    /// Where pub/sub has a Redis of its own, another server of the data may mean other epochs.
    fn data_moved(&self) {
        if self.pubsub.is_some() {
            let mut followed = lock(&self.followed);
            let Followed { channels, due, .. } = &mut *followed;
            for (channel, entry) in channels {
                if entry.line.keeps() && entry.is_heard {
                    entry.line.interrupt();
                    due.insert(channel.clone());
                }
            }
        }
    }

    /// Messages were lost on the way, nobody knows of which channel.
    fn interrupt_all(&self) {
        tracing::warn!("Redis sends faster than this node takes: events were passed over");
        if let Some(sink) = self.sink() {
            sink.notices_lost();
        }
        let mut followed = lock(&self.followed);
        let Followed { channels, due, .. } = &mut *followed;
        for (channel, entry) in channels {
            if entry.is_heard {
                entry.line.interrupt();
                due.insert(channel.clone());
            }
        }
    }

    /// Does what is due, as far as it can be done now.
    async fn work(&self) {
        self.hear_notices().await;
        let due: Vec<ChannelKey> = lock(&self.followed).due.iter().cloned().collect();
        let mut by_server: HashMap<u64, (Arc<Server>, Vec<ChannelKey>)> = HashMap::new();
        for channel in due {
            match self.hearing().server(self.line_slot(&channel)) {
                Ok(server) => {
                    let batch = by_server.entry(server.id);
                    let (_, channels) = batch.or_insert_with(|| (server, Vec::new()));
                    channels.push(channel);
                }
                Err(_) => self.forget_unwanted(&channel),
            }
        }
        for (server, channels) in by_server.into_values() {
            for batch in channels.chunks(BATCH) {
                if !server.is_broken() {
                    self.subscribe_all(&server, batch).await;
                    self.settle(batch).await;
                }
            }
        }
    }

    async fn hear_notices(&self) {
        let Ok(server) = self.hearing().server(self.notice_slot()) else {
            return;
        };
        if lock(&self.followed).hears_notices(server.id) {
            return;
        }
        let cmd = subscription("SUBSCRIBE", self.keys.notice_line());
        // Before the confirmation is seen, a notice may have come.
        lock(&self.followed).notices = Some(server.id);
        let heard = server.ask_pubsub(vec![cmd]).await;
        if heard.as_deref().map(has_error) != Ok(false) {
            lock(&self.followed).notices = None;
            self.failed(&server, heard);
        } else if self.is_ready.send_replace(true)
            && let Some(sink) = self.sink()
        {
            // It was heard before, and not all the time.
            sink.notices_lost();
        }
    }

    /// A channel that nobody wants and nobody is asked for any more.
    fn forget_unwanted(&self, channel: &ChannelKey) {
        let mut followed = lock(&self.followed);
        if followed
            .channels
            .get(channel)
            .is_none_or(|entry| !entry.is_wanted)
        {
            followed.channels.remove(channel);
            followed.due.remove(channel);
        }
    }

    /// Makes the subscriptions on `server` what they should be.
    async fn subscribe_all(&self, server: &Arc<Server>, batch: &[ChannelKey]) {
        let is_sharded = server.is_cluster && server.can_shard;
        let mut cmds: Vec<Cmd> = Vec::new();
        let mut asked: Vec<(ChannelKey, bool)> = Vec::new();
        {
            let mut followed = lock(&self.followed);
            for channel in batch {
                let Some(entry) = followed.channels.get_mut(channel) else {
                    continue;
                };
                let is_here = entry.server == Some(server.id) && entry.is_heard;
                if entry.is_wanted == is_here {
                    continue;
                }
                let verbs = if entry.is_wanted {
                    entry.server = Some(server.id);
                    ("SUBSCRIBE", "SSUBSCRIBE")
                } else {
                    ("UNSUBSCRIBE", "SUNSUBSCRIBE")
                };
                cmds.push(subscription(verbs.0, self.keys.open_line(channel)));
                if is_sharded {
                    cmds.push(subscription(verbs.1, self.keys.sharded_line(channel)));
                }
                asked.push((channel.clone(), entry.is_wanted));
            }
        }
        let answers = if cmds.is_empty() {
            Ok(Vec::new())
        } else {
            server.ask_pubsub(cmds).await
        };
        let is_done = answers.as_deref().map(has_error) == Ok(false);
        {
            let mut followed = lock(&self.followed);
            for (channel, is_wanted) in asked {
                if !is_wanted {
                    // Orders are obeyed between batches, so nobody has wanted it again meanwhile.
                    followed.channels.remove(&channel);
                    followed.due.remove(&channel);
                } else if let Some(entry) = followed.channels.get_mut(&channel) {
                    entry.is_heard = is_done;
                    if !is_done {
                        entry.server = None;
                    }
                }
            }
        }
        if !is_done {
            self.failed(server, answers);
        }
    }

    fn failed(&self, server: &Server, answers: redis::RedisResult<Vec<Value>>) {
        let error = match answers.and_then(|answers| {
            answers
                .into_iter()
                .try_for_each(|answer| answer.extract_error().map(drop))
        }) {
            Err(error) => error,
            Ok(()) => return,
        };
        if let Some(held_back) = self.warnings.warn(self.clock.now().mono_ms) {
            tracing::warn!(%error, server = %server.address, held_back, "subscribing failed");
        }
        match error.code() {
            Some("MOVED") => self.hearing().look_again(),
            Some(_) => {}
            None => server.mark_broken(),
        }
    }

    /// Finds out where the channels stand that are heard now, and passes on what was missed.
    async fn settle(&self, batch: &[ChannelKey]) {
        let mut questions: HashMap<u64, (Arc<Server>, Vec<Asked>)> = HashMap::new();
        {
            let mut followed = lock(&self.followed);
            let Followed { channels, due, .. } = &mut *followed;
            for channel in batch {
                let Some(entry) = channels.get_mut(channel) else {
                    continue;
                };
                if !entry.is_heard {
                    continue;
                }
                if !entry.line.keeps() {
                    let healed = entry.line.resume();
                    self.deliver_healed(channel, healed);
                    entry.answer(Ok(()));
                    due.remove(channel);
                    continue;
                }
                let server = self.link.server(self.line_slot(channel));
                let since = match (entry.line.is_healing(), entry.line.last()) {
                    (true, Some(last)) => Some(last.clone()),
                    _ => None,
                };
                match server {
                    Ok(server) => {
                        let asked = questions.entry(server.id);
                        let (_, asked) = asked.or_insert_with(|| (server, Vec::new()));
                        asked.push((channel.clone(), since));
                    }
                    Err(error) => entry.answer(Err(error)),
                }
            }
        }
        for (server, asked) in questions.into_values() {
            let cmds = asked.iter().map(|(channel, since)| {
                let question = missed_since(since.as_ref());
                self.question(channel, &question).cmd(&server)
            });
            let answers = server.ask_all(cmds.collect()).await;
            if let Err(error) = &answers {
                self.link.judge(&server, error);
            }
            let mut answers = answers.unwrap_or_default().into_iter();
            for (channel, since) in asked {
                self.settled(&server, &channel, since, answers.next()).await;
            }
        }
    }

    async fn settled(
        &self,
        server: &Server,
        channel: &ChannelKey,
        since: Option<Position>,
        answer: Option<Value>,
    ) {
        let answer = match answer.map(Value::extract_error) {
            Some(Ok(answer)) => read(answer),
            // What has moved or is not loaded is asked for by the longer way.
            Some(Err(_)) => {
                let question = missed_since(since.as_ref());
                self.read(channel, question).await
            }
            None => Err(Error::Unavailable),
        };
        let mut followed = lock(&self.followed);
        let Followed { channels, due, .. } = &mut *followed;
        let Some(entry) = channels.get_mut(channel) else {
            return;
        };
        match answer {
            Ok(answer) => {
                let again = match since {
                    Some(since) => {
                        let healed = entry.line.heal(answer.since(&since));
                        let again = healed.again;
                        self.deliver_healed(channel, healed);
                        again
                    }
                    None => {
                        entry.line.begin(answer.position());
                        // Interrupted since it was asked: now there is something to ask from.
                        entry.line.is_healing()
                    }
                };
                entry.answer(Ok(()));
                if again {
                    self.ear.shared.wake.notify_one();
                } else {
                    due.remove(channel);
                }
            }
            Err(error) => {
                tracing::debug!(%error, %channel, server = %server.address, "a channel could not be read");
                entry.answer(Err(error));
            }
        }
    }
}

fn missed_since(since: Option<&Position>) -> Question<'_> {
    since.map_or(Question::Position, |since| {
        Question::Since(since, MISSED_MAX)
    })
}

impl Entry {
    fn answer(&mut self, answer: Result<(), Error>) {
        for waiting in self.waiting.drain(..) {
            let _ = waiting.send(answer.clone());
        }
    }
}

fn subscription(verb: &str, line: String) -> Cmd {
    let mut cmd = redis::cmd(verb);
    cmd.arg(line);
    cmd
}

fn has_error(answers: &[Value]) -> bool {
    answers
        .iter()
        .any(|answer| matches!(answer, Value::ServerError(_)))
}

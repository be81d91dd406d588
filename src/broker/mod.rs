//! The two contracts that everything durable or shared goes through: [`Broker`] (events) and
//! [`Store`] (records). One line of configuration chooses the implementation of both.
//!
//! Not for: deciding who may publish or read (`session::access`, `http`), or encoding frames (`ws`).
//!
//! Every implementation passes `tests/broker_contract.rs`.

mod budget;
pub mod embedded;
pub mod faulty;
pub mod figures;
pub mod migration;
pub mod redis;
mod revocation;
pub mod traced;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::protocol::{ChannelKey, Event, Position};
use crate::trace::Context;

pub use budget::{Draw, Rate};

pub use crate::config::{Durability, Retention};
pub use crate::protocol::history::{Entry, Recovery, Unrecoverable};
pub use revocation::{Revocation, RevocationPage, Revoked};

/// The size of the largest notice ([`Broker::announce`]). A larger one is a fault of the program.
pub const NOTICE_BYTES_MAX: usize = 16 * 1024;

/// What an asynchronous method of a contract returns. May be dropped before it is ready: a write
/// that was begun is then carried out or not, and nobody is told.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'a>>;

/// Why a broker or store could not do what it was asked. Each variant asks for one reaction.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The backend cannot be reached. Nothing is known about a write in flight; trying again later
    /// may work. HTTP 503 with `Retry-After`.
    #[error("the backend is unavailable")]
    Unavailable,
    /// More is waiting than the queue holds; nothing was done. HTTP 503 with `Retry-After`.
    #[error("the backend is overloaded")]
    Overloaded,
    /// `limits.store_bytes` is reached, or the disk is nearly full; nothing was written, reads and
    /// live events go on. HTTP 507.
    #[error("the store is full")]
    Full,
    /// The storage itself answered with an error; the write did not happen, as far as the disk tells
    /// the truth: one that reports a failed flush and has written all the same is believed when it
    /// is read again. HTTP 500.
    #[error("storage: {0}")]
    Storage(Arc<str>),
    /// It was closed: the process is stopping. HTTP 503.
    #[error("the backend is closed")]
    Closed,
}

impl Error {
    /// A storage error with its cause's text.
    pub fn storage(cause: impl fmt::Display) -> Self {
        Self::Storage(cause.to_string().into())
    }
}

/// Whether the backend can serve, for `/ready` and the metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Reads and writes work.
    Up,
    /// It works, but not as it should: why (no secrets).
    Degraded(String),
    /// It does not work: why (no secrets).
    Down(String),
}

/// Where a [`Broker`] delivers. Implemented by the router.
pub trait Deliver: Send + Sync {
    /// Takes one event to fan out on this node. Never blocks and never fails: what a worker cannot
    /// take is a gap that the worker's members are told of. For one channel, calls are made in the
    /// order of the channel and one at a time; for different channels from several threads at once.
    /// Must not call the broker.
    fn deliver(&self, delivery: Delivery);

    /// Events of `channel` (of every channel if `None`) may have been lost on the way to this node.
    fn gap(&self, channel: Option<&ChannelKey>);

    /// Takes what a node has told all nodes ([`Broker::announce`]). One that cannot be read, or is of
    /// an unknown type, is passed over: a newer node may have sent it. Never blocks, must not call
    /// the broker.
    fn notice(&self, notice: Bytes);

    /// Notices may have been lost on the way to this node, while events were not. Never blocks, must not
    /// call the broker. Whoever keeps nothing of notices need not care.
    fn notices_lost(&self) {}
}

/// One event on its way to this node's subscribers.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The channel it was published to.
    pub channel: ChannelKey,
    /// The event as published.
    pub event: Event,
    /// Where it stands in the channel's history, if the channel keeps one.
    pub position: Option<Position>,
    /// What published it, if that is recorded ([`Publication::trace`]).
    pub trace: Option<Context>,
}

/// An event to publish.
#[derive(Debug, Clone)]
pub struct Publication {
    /// Where to.
    pub channel: ChannelKey,
    /// What.
    pub event: Event,
    /// The channel's history rule, `None` if it keeps none.
    pub retention: Option<Retention>,
    /// Publishing again with the same key within a day publishes nothing and gives the first answer.
    /// Keys are the caller's to scope. The answer is stored, so a full store refuses a new key.
    pub idempotency_key: Option<String>,
    /// The span that publishes it, if there is one: comes with the delivery on every node, and is not
    /// kept in the history. What is read again from there after a lost link has none.
    pub trace: Option<Context>,
}

/// What became of a publication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Its place in the history, where the channel keeps one. Then it is durable, unless the rule is
    /// [`Durability::Relaxed`].
    pub position: Option<Position>,
    /// It had been published before under the same idempotency key; this is the first answer.
    pub repeated: bool,
}

/// Who is in a channel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Present {
    /// User ids, each once, in their order; no more than were asked for.
    pub users: Vec<Arc<str>>,
    /// How many users there are in all. Exact.
    pub count: u64,
}

/// Events: publish to channels, follow them, look back, see who is there.
///
/// Guarantees of every implementation:
/// - For one channel every node delivers in the same order, which is that of the offsets; the node
///   that publishes gets its own events the same way as all others. No event is delivered twice.
/// - [`Published`] with a position means that the event survives the loss of the process. Under
///   [`Durability::Relaxed`] and without a key it may be lost within 100 ms of the answer; then the
///   epochs of all relaxed channels end, so that no position is ever used for two events and every
///   recovery from before is refused.
/// - After `Err(Unavailable)` from [`Broker::publish`] the event may or may not have been published;
///   after every other error it was not.
/// - Presence is of the moment: it does not survive the node that told of it. The embedded broker has
///   it in memory. The Redis broker gives each entry of a node a time to live, which it renews as long
///   as the node lives; what a lost node told of is gone when that is over, and of this nobody is told.
pub trait Broker: Send + Sync {
    /// Begins to deliver to `sink`. Called once, before anything else; history is readable after it.
    fn start(&self, sink: Arc<dyn Deliver>) -> Answer<'_, ()>;

    /// Asks for the events of a channel on this node. Idempotent. Events published after it has
    /// answered are delivered. What counts is the last call of this or [`Broker::unsubscribe`], whenever
    /// their answers are waited for, or not at all.
    fn subscribe(&self, channel: &ChannelKey) -> Answer<'_, ()>;

    /// Takes [`Broker::subscribe`] back. Deliveries may still arrive for a moment. The call must not
    /// deliver by itself: locks are held.
    fn unsubscribe(&self, channel: &ChannelKey) -> Answer<'_, ()>;

    /// Publishes: with retention, appends to the history and fans out as one step. Without retention
    /// and idempotency key nothing is stored, so it goes on while the store is full.
    fn publish(&self, publication: Publication) -> Answer<'_, Published>;

    /// The current position of a channel with history. A channel that never had an event has an
    /// epoch and the offset 0. Any event delivered with a larger offset was published later.
    fn position(&self, channel: &ChannelKey) -> Answer<'_, Position>;

    /// What came after `since`: all of it or a reason, never a part. A position of an epoch that has
    /// ended is [`Unrecoverable::EpochChanged`]; no position is ever used for two events. The position 0 of
    /// another epoch may be known to be the one before all events of the present one; then that counts.
    fn recover(&self, channel: &ChannelKey, since: &Position) -> Answer<'_, Recovery>;

    /// The newest `limit` events before offset `before` (from the end if `None`), oldest first, and
    /// the current position.
    fn history(
        &self,
        channel: &ChannelKey,
        before: Option<u64>,
        limit: usize,
    ) -> Answer<'_, (Position, Vec<Entry>)>;

    /// Tells that a user is in a channel on this node, however many sockets the user has here.
    /// Idempotent, and stands until [`Broker::leave`]. `true`: no node had the user in it before.
    /// After `Err(Unavailable)` it may stand or not, and asking again makes it sure; after every other
    /// error it does not. [`Error::Overloaded`]: more is known of who is where than may be.
    fn enter(&self, channel: &ChannelKey, user_id: &Arc<str>) -> Answer<'_, bool>;

    /// Takes [`Broker::enter`] back. `true`: the user was there, and is on no node any more.
    /// Idempotent. After an error it may stand or not, and asking again makes it sure.
    fn leave(&self, channel: &ChannelKey, user_id: &Arc<str>) -> Answer<'_, bool>;

    /// Who is in a channel, on all nodes: the first `limit` of them. Sees every `enter` and `leave`
    /// of this node that was answered before.
    fn present(&self, channel: &ChannelKey, limit: usize) -> Answer<'_, Present>;

    /// Tells every node, this one included, something that is no event: a JSON object with a string
    /// `type`, of [`NOTICE_BYTES_MAX`] at most. At most once, and not stored: a node that is not there
    /// or has lost its link does not hear it, so whatever matters is in the [`Store`] first. `Ok`: this
    /// node has heard it or will in a moment, and it is on its way to the others.
    fn announce(&self, notice: Bytes) -> Answer<'_, ()>;

    /// Whether publishing works now. Cheap; never waits.
    fn health(&self) -> Health;

    /// Ends it: what was accepted is finished first, everything later answers [`Error::Closed`].
    fn close(&self) -> Answer<'_, ()>;
}

/// A value of the key-value part with its revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The bytes that were set.
    pub value: Bytes,
    /// Changes with every write of this key; for [`Store::compare_and_set`].
    pub revision: u64,
}

/// Someone with an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The application's id, or one made up here for a wallet seen first.
    pub id: String,
    /// The address that signs in as this user. Belongs to one user at a time.
    pub wallet: Option<String>,
    /// What the application calls them.
    pub nickname: Option<String>,
    /// Milliseconds since 1970.
    pub created_at_ms: u64,
}

/// What to change of a user; `None` leaves a member as it is.
#[derive(Debug, Clone, Default)]
pub struct UserChange {
    /// The new wallet. It is taken from whoever had it.
    pub wallet: Option<String>,
    /// The new nickname.
    pub nickname: Option<String>,
}

/// A durable message to one user.
#[derive(Debug, Clone)]
pub struct Notification {
    /// Unique, made by the store.
    pub id: String,
    /// Its owner.
    pub user_id: String,
    /// The application's kind, such as `NEW_SUBSCRIBER`.
    pub kind: String,
    /// One line.
    pub title: String,
    /// The text.
    pub message: String,
    /// Whether the owner has seen it.
    pub is_read: bool,
    /// Anything the application added, as JSON.
    pub metadata: Option<Box<RawValue>>,
    /// Milliseconds since 1970.
    pub created_at_ms: u64,
}

/// A notification before it has an id and a time.
#[derive(Debug, Clone)]
pub struct NewNotification {
    /// Its owner.
    pub user_id: String,
    /// See [`Notification::kind`].
    pub kind: String,
    /// See [`Notification::title`].
    pub title: String,
    /// See [`Notification::message`].
    pub message: String,
    /// See [`Notification::metadata`].
    pub metadata: Option<Box<RawValue>>,
}

/// What became of a new notification.
#[derive(Debug, Clone)]
pub struct Added {
    /// The notification as stored.
    pub notification: Notification,
    /// The owner's unread ones, this one included.
    pub unread: u64,
    /// It had been added before under the same idempotency key.
    pub repeated: bool,
}

/// Which notifications to list.
#[derive(Debug, Clone, Default)]
pub struct NotificationQuery {
    /// Leave out the read ones.
    pub unread_only: bool,
    /// At most so many.
    pub limit: usize,
    /// [`NotificationPage::next_cursor`] of the page before; an unknown one gives an empty page or
    /// starts in the middle, never an error and never another user's.
    pub cursor: Option<String>,
}

/// A page of notifications.
#[derive(Debug, Clone)]
pub struct NotificationPage {
    /// Newest first.
    pub notifications: Vec<Notification>,
    /// All of the owner's unread ones.
    pub unread: u64,
    /// Where the next page starts; `None` on the last one.
    pub next_cursor: Option<String>,
}

/// Which of a user's notifications to mark as read.
#[derive(Debug, Clone)]
pub enum ReadMark {
    /// One, to this state.
    One {
        /// [`Notification::id`].
        id: String,
        /// The new state.
        is_read: bool,
    },
    /// These, as read; ids that are not the user's are passed over.
    Many(Vec<String>),
    /// All, as read.
    All,
}

/// What is left after notifications changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// How many notifications were changed or deleted.
    pub count: u64,
    /// For [`ReadMark::One`] and [`ReadMark::Many`]: those that were changed, each once, in the order
    /// in which they were named. Else empty.
    pub ids: Vec<String>,
    /// Unread ones afterwards.
    pub unread: u64,
    /// For [`ReadMark::One`] and deleting one: whether the user has a notification of that id.
    pub found: bool,
}

/// Figures of a store, for the metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreFigures {
    /// Bytes that count against `limits.store_bytes`.
    pub bytes: u64,
    /// Writes waiting to be committed.
    pub queued_writes: u64,
    /// Commits since the start.
    pub commits: u64,
    /// Writes in them.
    pub writes: u64,
    /// Writes that failed.
    pub failures: u64,
    /// Channels that have history.
    pub history_channels: u64,
    /// Events in all histories.
    pub history_events: u64,
    /// What the histories take in memory.
    pub history_bytes: u64,
}

/// Records: keys with a time to live, users, notifications, revocations, budgets.
///
/// Guarantees of every implementation:
/// - `Ok` of a write means it survives the loss of the process (embedded: on disk; Redis: acknowledged).
/// - Reads see every write that was answered before they began.
/// - A write is whole or absent. After `Err(Unavailable)` it may or may not have happened; after
///   every other error it has not.
/// - Nothing of one user is ever in an answer about another.
pub trait Store: Send + Sync {
    /// Sets a key of a namespace, for `ttl` or for good.
    fn set(&self, space: &str, key: &str, value: Bytes, ttl: Option<Duration>) -> Answer<'_, ()>;

    /// The value of a key, unless it is absent or past its time.
    fn get(&self, space: &str, key: &str) -> Answer<'_, Option<Stored>>;

    /// Removes a key; whether it was there.
    fn delete(&self, space: &str, key: &str) -> Answer<'_, bool>;

    /// Sets a key if its revision is still `expected` (`None`: if it is absent); whether it did.
    fn compare_and_set(
        &self,
        space: &str,
        key: &str,
        expected: Option<u64>,
        value: Bytes,
        ttl: Option<Duration>,
    ) -> Answer<'_, bool>;

    /// The user of this id.
    fn user(&self, id: &str) -> Answer<'_, Option<User>>;

    /// The user that this wallet signs in as.
    fn user_by_wallet(&self, wallet: &str) -> Answer<'_, Option<User>>;

    /// The user of this wallet, made now if there is none; two callers at once get the same one.
    fn provision_user(&self, wallet: &str) -> Answer<'_, User>;

    /// Creates or changes the user of this id.
    fn put_user(&self, id: &str, change: UserChange) -> Answer<'_, User>;

    /// Adds a notification, newer than all before it. Past `limits.notifications_per_user` the oldest read ones go, then the
    /// oldest. With a key, adding again within a day gives the first one.
    fn add_notification(
        &self,
        new: NewNotification,
        idempotency_key: Option<String>,
    ) -> Answer<'_, Added>;

    /// A page of a user's notifications.
    fn notifications(
        &self,
        user_id: &str,
        query: NotificationQuery,
    ) -> Answer<'_, NotificationPage>;

    /// Marks notifications of a user.
    fn mark_notifications(&self, user_id: &str, mark: ReadMark) -> Answer<'_, Changed>;

    /// Deletes one notification of a user.
    fn delete_notification(&self, user_id: &str, id: &str) -> Answer<'_, Changed>;

    /// Deletes all read notifications of a user.
    fn clear_read_notifications(&self, user_id: &str) -> Answer<'_, Changed>;

    /// Remembers that tokens are taken back, until `keep_until_ms`. Revoking again only ever adds: the
    /// later `keep_until_ms` and the later `before_ms` count. Goes on for a while after other writes
    /// are refused with [`Error::Full`]. Nobody is told: that is for [`Broker::announce`], afterwards.
    fn revoke(&self, revocation: Revocation) -> Answer<'_, ()>;

    /// A page of the revocations that are not past their time, `limit` of them at most: from the start,
    /// or after the page that gave the `cursor`. All pages together hold each one that was there when
    /// the first was asked for, some of them perhaps twice; what came since may be in them or not.
    fn revocations(&self, cursor: Option<String>, limit: usize) -> Answer<'_, RevocationPage>;

    /// Takes one from each of these buckets of an owner if each has one, as one step for all nodes.
    /// `Some`: nothing was taken, and it is so long until each has one. A bucket that nobody knows is
    /// full. Not durable: after the loss of the process, or of a server of Redis, buckets may be full
    /// again. Bounded: the fullest are forgotten first (embedded), or all that are full (Redis).
    fn spend(&self, owner: &str, draws: &[Draw]) -> Answer<'_, Option<Duration>>;

    /// Whether writing works now. Cheap; never waits.
    fn health(&self) -> Health;

    /// Figures for the metrics. Cheap; never waits.
    fn figures(&self) -> StoreFigures;

    /// Ends it: what was accepted is finished first, everything later answers [`Error::Closed`].
    fn close(&self) -> Answer<'_, ()>;
}

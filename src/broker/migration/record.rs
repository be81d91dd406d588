//! What backends keep, in a form that belongs to none of them.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::broker::{Notification, Revocation, Revoked, User};
use crate::protocol::{ChannelKey, Epoch, Event, Position};

/// What is walked through at a time, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// [`Record::Revocation`]: first, because a server without them would believe tokens.
    Revocations,
    /// [`Record::User`]
    Users,
    /// [`Record::Value`]
    Values,
    /// [`Record::Answer`]
    Answers,
    /// [`Record::Notification`]
    Notifications,
    /// [`Record::Channel`] and [`Record::Event`]
    History,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Revocations,
        Self::Users,
        Self::Values,
        Self::Answers,
        Self::Notifications,
        Self::History,
    ];

    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Revocations => "revocations",
            Self::Users => "users",
            Self::Values => "values",
            Self::Answers => "idempotency keys",
            Self::Notifications => "notifications",
            Self::History => "history",
        }
    }
}

/// One thing that is kept.
#[derive(Debug, Clone)]
pub enum Record {
    /// Somebody.
    User(User),
    /// A notification.
    Notification(Notification),
    /// Where a channel's history stands.
    Channel(ChannelState),
    /// One event of it.
    Event(HistoryEvent),
    /// Tokens that are taken back.
    Revocation(Revocation),
    /// A key of the key-value part.
    Value(KeptValue),
    /// What an idempotency key was answered with.
    Answer(KeptAnswer),
}

/// A channel with history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelState {
    /// Which.
    pub channel: ChannelKey,
    /// Of its positions.
    pub epoch: Epoch,
    /// The offset of its last event; 0: none yet.
    pub top: u64,
    /// How many events it keeps.
    pub limit: u64,
    /// Until when its position is remembered.
    pub expire_ms: u64,
}

/// An event in a history.
#[derive(Debug, Clone)]
pub struct HistoryEvent {
    /// Whose.
    pub channel: ChannelKey,
    /// Where.
    pub offset: u64,
    /// When it is too old.
    pub expire_ms: u64,
    /// What.
    pub event: Event,
}

/// A key with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptValue {
    /// The namespace.
    pub space: String,
    /// The key in it.
    pub key: String,
    /// The value.
    pub value: Bytes,
    /// When it goes; `None`: never.
    pub expire_ms: Option<u64>,
}

/// An idempotency key.
#[derive(Debug, Clone)]
pub struct KeptAnswer {
    /// As the caller scoped it.
    pub key: String,
    /// When it is forgotten.
    pub expire_ms: u64,
    /// The answer.
    pub given: Given,
}

/// An answer that is given again.
#[derive(Debug, Clone)]
pub enum Given {
    /// To a publication.
    Published {
        /// Where to.
        channel: ChannelKey,
        /// Where it went, if the channel kept history.
        position: Option<Position>,
    },
    /// To an addition: the notification as it was.
    Added(Notification),
}

impl Record {
    /// What it is counted as.
    pub fn label(&self) -> String {
        match self {
            Self::User(_) => "users".into(),
            Self::Notification(_) => "notifications".into(),
            Self::Channel(_) => "channels".into(),
            Self::Event(_) => "events".into(),
            Self::Revocation(_) => "revocations".into(),
            Self::Value(value) if value.space == "refresh" => "sign-ins".into(),
            Self::Value(value) => format!("values ({})", value.space),
            Self::Answer(_) => "idempotency keys".into(),
        }
    }

    /// What it is called in a complaint.
    pub fn name(&self) -> String {
        match self {
            Self::User(user) => format!("user {:?}", user.id),
            Self::Notification(note) => format!("notification {} of {:?}", note.id, note.user_id),
            Self::Channel(state) => format!("channel {:?}", state.channel.as_str()),
            Self::Event(event) => {
                format!("event {} of {:?}", event.offset, event.channel.as_str())
            }
            Self::Revocation(revocation) => match &revocation.revoked {
                Revoked::Token { .. } => "the revocation of a token".into(),
                Revoked::Family { .. } => "the revocation of a sign-in".into(),
                Revoked::User { id, .. } => format!("the revocation of user {id:?}"),
            },
            // Keys and values may be secrets.
            Self::Value(value) => format!("a value of {:?}", value.space),
            Self::Answer(_) => "an idempotency key".into(),
        }
    }

    /// What it takes, more or less.
    pub fn bytes(&self) -> usize {
        100 + match self {
            Self::User(user) => user.id.len(),
            Self::Notification(note) => note_bytes(note),
            Self::Channel(state) => state.channel.as_str().len(),
            Self::Event(event) => event.channel.as_str().len() + event.event.as_bytes().len(),
            Self::Revocation(_) => 64,
            Self::Value(value) => value.key.len() + value.value.len(),
            Self::Answer(answer) => {
                answer.key.len()
                    + match &answer.given {
                        Given::Published { .. } => 64,
                        Given::Added(note) => note_bytes(note),
                    }
            }
        }
    }

    /// The same bytes for the same thing, whichever side tells it. How long a channel's position is
    /// remembered is each backend's own affair, and not in it.
    pub fn canonical(&self) -> Vec<u8> {
        let out = Canon(Vec::with_capacity(self.bytes()));
        match self {
            Self::User(user) => out
                .number(1)
                .text(&user.id)
                .maybe(user.wallet.as_deref())
                .maybe(user.nickname.as_deref())
                .number(user.created_at_ms),
            Self::Notification(note) => out.number(2).note(note),
            Self::Channel(state) => out
                .number(3)
                .text(state.channel.as_str())
                .text(state.epoch.as_str())
                .number(state.top)
                // What nobody has published to has no rule yet.
                .number(if state.top == 0 { 0 } else { state.limit }),
            Self::Event(event) => out
                .number(4)
                .text(event.channel.as_str())
                .number(event.offset)
                .number(event.expire_ms)
                .bytes(event.event.as_bytes().as_ref()),
            Self::Revocation(revocation) => {
                let (kind, id, before_ms) = match &revocation.revoked {
                    Revoked::Token { id } => (0, id, 0),
                    Revoked::Family { id } => (1, id, 0),
                    Revoked::User { id, before_ms } => (2, id, *before_ms),
                };
                out.number(5)
                    .number(kind)
                    .text(id)
                    .number(before_ms)
                    .number(revocation.keep_until_ms)
            }
            Self::Value(value) => out
                .number(6)
                .text(&value.space)
                .text(&value.key)
                .bytes(&value.value)
                .number(value.expire_ms.unwrap_or(u64::MAX)),
            Self::Answer(answer) => {
                let out = out.number(7).text(&answer.key).number(answer.expire_ms);
                match &answer.given {
                    Given::Published { channel, position } => out
                        .text(channel.as_str())
                        .maybe(position.as_ref().map(|position| position.epoch.as_str()))
                        .number(position.as_ref().map_or(0, |position| position.offset)),
                    Given::Added(note) => out.note(note),
                }
            }
        }
        .0
    }
}

fn note_bytes(note: &Notification) -> usize {
    let metadata = note.metadata.as_deref().map_or(0, |it| it.get().len());
    note.user_id.len() + note.kind.len() + note.title.len() + note.message.len() + metadata
}

struct Canon(Vec<u8>);

impl Canon {
    fn number(mut self, number: u64) -> Self {
        self.0.extend_from_slice(&number.to_le_bytes());
        self
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self = self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    fn text(self, text: &str) -> Self {
        self.bytes(text.as_bytes())
    }

    fn maybe(self, text: Option<&str>) -> Self {
        match text {
            Some(text) => self.number(1).text(text),
            None => self.number(0),
        }
    }

    fn note(self, note: &Notification) -> Self {
        self.text(&note.id)
            .text(&note.user_id)
            .text(&note.kind)
            .text(&note.title)
            .text(&note.message)
            .number(note.is_read.into())
            .maybe(note.metadata.as_deref().map(RawValue::get))
            .number(note.created_at_ms)
    }
}

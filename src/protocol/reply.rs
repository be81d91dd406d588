//! What the server says to one client: the JSON texts of contract section 4.

use std::sync::Arc;

use serde::Serialize;
use serde_json::value::RawValue;

use super::close::Close;
use super::command::RequestId;
use super::{ChannelKey, Position};
use crate::clock::rfc3339;

/// A message to one client.
#[derive(Debug)]
pub enum Reply<'a> {
    /// The greeting.
    Connected {
        /// Whose token it is.
        user_id: &'a str,
        /// This connection's name.
        connection_id: &'a str,
        /// This node's name.
        node: &'a str,
        /// The token's end, in milliseconds since 1970.
        expires_at_ms: u64,
    },
    /// A channel is followed from now on.
    Subscribed {
        /// As the client wrote it.
        channel: &'a RawValue,
        /// Its key.
        key: &'a ChannelKey,
        /// Where it stands, if it keeps history.
        position: Option<&'a Position>,
        /// If recovery was asked for: whether it worked, else why not.
        recovered: Option<Result<(), &'static str>>,
    },
    /// A channel is no longer followed.
    Unsubscribed {
        /// As the client wrote it.
        channel: &'a RawValue,
        /// Its key.
        key: &'a ChannelKey,
    },
    /// The answer to `ping`.
    Pong,
    /// An event was published.
    Published {
        /// Where to.
        key: &'a ChannelKey,
        /// Its place, if the channel keeps history.
        position: Option<&'a Position>,
    },
    /// The newer token was taken.
    Refreshed {
        /// Its end, in milliseconds since 1970.
        expires_at_ms: u64,
    },
    /// Events of the past, oldest first.
    History {
        /// Of this channel.
        key: &'a ChannelKey,
        /// Where the channel stands.
        position: &'a Position,
        /// Each as subscribers get it, with `_meta`.
        events: &'a [Box<RawValue>],
    },
    /// Who is in a channel.
    Presence {
        /// This channel.
        key: &'a ChannelKey,
        /// User ids, each once; perhaps not all.
        users: &'a [Arc<str>],
        /// How many there are in all.
        count: u64,
    },
    /// The token ends soon.
    TokenExpiring {
        /// When, in milliseconds since 1970.
        expires_at_ms: u64,
    },
    /// The newest unread notifications.
    UnreadNotifications {
        /// Newest first, as JSON objects.
        notifications: &'a [Box<RawValue>],
        /// How many there are in all.
        count: u64,
    },
    /// Events of a channel were dropped, because the client did not take them.
    Gap {
        /// The channel.
        key: &'a ChannelKey,
        /// How many events.
        dropped: u64,
        /// The position before them, if the channel keeps history.
        before: Option<&'a Position>,
    },
    /// Something was refused.
    Error {
        /// For people.
        message: &'a str,
        /// For programs.
        code: &'a str,
        /// The channel it is about, as the client wrote it.
        channel: Option<&'a RawValue>,
    },
    /// The connection is about to be closed.
    Disconnect {
        /// Why.
        close: Close,
        /// What an operator has to say to it.
        message: Option<&'a str>,
        /// How long the client should stay away, in milliseconds.
        retry_after_ms: u64,
    },
}

#[derive(Serialize)]
struct Envelope<'a, D: Serialize> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<D>,
}

#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
struct Data<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connection_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    channel_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recovered: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    events: Option<&'a [Box<RawValue>]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dropped: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recover: Option<Place<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    notifications: Option<&'a [Box<RawValue>]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    users: Option<&'a [Arc<str>]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<Code<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reconnect: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
}

/// A position as the command `subscribe` takes it.
#[derive(Serialize)]
struct Place<'a> {
    epoch: &'a str,
    offset: u64,
}

/// A word for errors, a number for closes.
#[derive(Serialize)]
#[serde(untagged)]
enum Code<'a> {
    Word(&'a str),
    Number(u16),
}

impl Reply<'_> {
    /// The JSON text, with the `id` of the request it answers.
    pub fn encode(&self, id: Option<&RequestId>) -> String {
        let data = self.data();
        let envelope = Envelope {
            kind: self.kind(),
            id: id.map(RequestId::as_json),
            data: (!matches!(self, Self::Pong)).then_some(data),
        };
        serde_json::to_string(&envelope).expect("strings, numbers and raw JSON always serialize")
    }

    const fn kind(&self) -> &'static str {
        match self {
            Self::Connected { .. } => "connected",
            Self::Subscribed { .. } => "subscribed",
            Self::Unsubscribed { .. } => "unsubscribed",
            Self::Pong => "pong",
            Self::Published { .. } => "published",
            Self::Refreshed { .. } => "refreshed",
            Self::History { .. } => "history",
            Self::Presence { .. } => "presence",
            Self::TokenExpiring { .. } => "token_expiring",
            Self::UnreadNotifications { .. } => "unread_notifications",
            Self::Gap { .. } => "gap",
            Self::Error { .. } => "error",
            Self::Disconnect { .. } => "disconnect",
        }
    }

    fn data(&self) -> Data<'_> {
        match *self {
            Self::Connected {
                user_id,
                connection_id,
                node,
                expires_at_ms,
            } => Data {
                user_id: Some(user_id),
                message: Some("Successfully connected to WebSocket server"),
                connection_id: Some(connection_id),
                node: Some(node),
                expires_at: Some(rfc3339(expires_at_ms)),
                ..Data::default()
            },
            Self::Subscribed {
                channel,
                key,
                position,
                recovered,
            } => Data {
                channel: Some(channel),
                channel_key: Some(key.as_str()),
                epoch: position.map(|position| position.epoch.as_str()),
                offset: position.map(|position| position.offset),
                recovered: recovered.map(|outcome| outcome.is_ok()),
                reason: recovered.and_then(Result::err),
                ..Data::default()
            },
            Self::Unsubscribed { channel, key } => Data {
                channel: Some(channel),
                channel_key: Some(key.as_str()),
                ..Data::default()
            },
            Self::Pong => Data::default(),
            Self::Published { key, position } => Data {
                channel_key: Some(key.as_str()),
                epoch: position.map(|position| position.epoch.as_str()),
                offset: position.map(|position| position.offset),
                ..Data::default()
            },
            Self::Refreshed { expires_at_ms } | Self::TokenExpiring { expires_at_ms } => Data {
                expires_at: Some(rfc3339(expires_at_ms)),
                ..Data::default()
            },
            Self::History {
                key,
                position,
                events,
            } => Data {
                channel_key: Some(key.as_str()),
                epoch: Some(position.epoch.as_str()),
                events: Some(events),
                ..Data::default()
            },
            Self::Gap {
                key,
                dropped,
                before,
            } => Data {
                channel_key: Some(key.as_str()),
                dropped: Some(dropped),
                recover: before.map(|before| Place {
                    epoch: before.epoch.as_str(),
                    offset: before.offset,
                }),
                ..Data::default()
            },
            Self::Presence { key, users, count } => Data {
                channel_key: Some(key.as_str()),
                users: Some(users),
                count: Some(count),
                ..Data::default()
            },
            Self::UnreadNotifications {
                notifications,
                count,
            } => Data {
                notifications: Some(notifications),
                count: Some(count),
                ..Data::default()
            },
            Self::Error {
                message,
                code,
                channel,
            } => Data {
                message: Some(message),
                channel,
                code: Some(Code::Word(code)),
                ..Data::default()
            },
            Self::Disconnect {
                close,
                message,
                retry_after_ms,
            } => Data {
                message,
                code: Some(Code::Number(close.code())),
                reason: Some(close.reason()),
                reconnect: Some(close.reconnect()),
                retry_after_ms: Some(retry_after_ms),
                ..Data::default()
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Epoch;
    use crate::protocol::command::Request;

    #[test]
    fn replies_have_the_contracts_shape() {
        let raw = RawValue::from_string(r#"{"type":"post","postId":"42"}"#.into()).unwrap();
        let key = ChannelKey::parse("post_42", 255).unwrap();
        let position = Position {
            epoch: Epoch::new("e1"),
            offset: 9,
        };
        let id = Request::parse(r#"{"type":"ping","id":3}"#).id;
        assert_eq!(Reply::Pong.encode(None), r#"{"type":"pong"}"#);
        assert_eq!(Reply::Pong.encode(id.as_ref()), r#"{"type":"pong","id":3}"#);
        assert_eq!(
            Reply::Subscribed {
                channel: &raw,
                key: &key,
                position: Some(&position),
                recovered: Some(Err("too_far"))
            }
            .encode(None),
            r#"{"type":"subscribed","data":{"channel":{"type":"post","postId":"42"},"channelKey":"post_42","epoch":"e1","offset":9,"recovered":false,"reason":"too_far"}}"#
        );
        assert_eq!(
            Reply::Disconnect {
                close: Close::ShuttingDown,
                message: None,
                retry_after_ms: 700
            }
            .encode(None),
            r#"{"type":"disconnect","data":{"code":4100,"reason":"shutting down","reconnect":true,"retryAfterMs":700}}"#
        );
        let gap = |before| {
            let (key, dropped) = (&key, 3);
            Reply::Gap {
                key,
                dropped,
                before,
            }
            .encode(None)
        };
        assert_eq!(
            gap(Some(&position)),
            r#"{"type":"gap","data":{"channelKey":"post_42","dropped":3,"recover":{"epoch":"e1","offset":9}}}"#
        );
        assert_eq!(
            gap(None),
            r#"{"type":"gap","data":{"channelKey":"post_42","dropped":3}}"#
        );
        assert_eq!(
            Reply::Error {
                message: "Unknown message type",
                code: "unknown_type",
                channel: None
            }
            .encode(None),
            r#"{"type":"error","data":{"message":"Unknown message type","code":"unknown_type"}}"#
        );
    }
}

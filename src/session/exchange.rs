//! What goes into a session and what comes out of it.

use std::sync::Arc;

use serde_json::value::RawValue;

use super::Identity;
use super::access::Action;
use crate::config::{ChannelRules, Config, Limits, Retention};
use crate::protocol::history::{Entry, Unrecoverable};
use crate::protocol::{ChannelKey, Close, Event, Position, Request};

/// What all sessions of a node go by.
#[derive(Debug)]
pub struct Terms {
    /// Who may do what with which type of channel.
    pub channels: ChannelRules,
    /// Every bound.
    pub limits: Limits,
    /// This node's name.
    pub node: Arc<str>,
}

impl Terms {
    /// Those of a configuration, on the node with this name.
    pub fn of(config: &Config, node: Arc<str>) -> Self {
        Self {
            channels: config.channels.clone(),
            limits: config.limits.clone(),
            node,
        }
    }
}

/// What happens to a session.
#[derive(Debug)]
pub enum Input {
    /// The client was let in; `connection_id` is for the greeting.
    Opened {
        /// This connection's name.
        connection_id: String,
    },
    /// It sent a message. Never while [`Session::is_busy`](super::Session::is_busy).
    Request(Request),
    /// It wants a channel, and said so when it came: as the command, but past the limit of commands. Never
    /// while busy.
    Follow {
        /// As it wrote it.
        channel: Box<RawValue>,
        /// Where it stood.
        recover: Option<Position>,
    },
    /// The last [`Effect::Call`] came to an end.
    Answer(Answer),
    /// It answered a ping.
    Pong,
    /// [`Session::deadline_ms`](super::Session::deadline_ms) has come.
    Deadline,
    /// Other terms count from now on: those that come with this input.
    Terms,
    /// The node stops; the connection ends at this monotonic time.
    Drain {
        /// In milliseconds.
        at_ms: u64,
    },
    /// Somebody else decided that it ends.
    End(Close),
}

/// What a session wants done, in this order.
#[derive(Debug)]
pub enum Effect {
    /// Send this text to the client.
    Send(String),
    /// Send this text, which says that something was refused; it counts as such.
    SendError {
        /// The reply.
        text: String,
        /// Its code.
        code: &'static str,
        /// The channel that was asked for: its key, or what the client sent instead of one, if it is short.
        channel: Option<Box<str>>,
    },
    /// Note that a command came too fast; whether it was refused for it.
    TooFast {
        /// `false`: a dry run.
        refused: bool,
    },
    /// Note that a token was refused, and which check failed.
    AuthFailure(&'static str),
    /// Send this text, which says that a channel is followed.
    Acknowledge {
        /// The reply.
        text: String,
        /// The channel.
        channel: ChannelKey,
        /// Where the client stands in it with this, unless missed events follow.
        stands: Option<Position>,
    },
    /// Send a WebSocket ping.
    Ping,
    /// Hold the channel's events back for this client from now on.
    Join(ChannelKey),
    /// Send these events of the channel to this client, then what was held back, then live ones.
    Activate {
        /// The channel.
        channel: ChannelKey,
        /// Where it stood when `missed` was read: live events up to there are not sent.
        position: Option<Position>,
        /// Oldest first.
        missed: Vec<Entry>,
    },
    /// No more events of the channel.
    Leave(ChannelKey),
    /// Do this and come back with its [`Answer`]. One at a time.
    Call(Call),
    /// Say why, then close.
    Close(Close),
    /// The peer is gone: close without a word.
    Drop,
}

/// What a session cannot know or do by itself.
#[derive(Debug)]
pub enum Call {
    /// Have the node follow a channel.
    Subscribe {
        /// The channel.
        channel: ChannelKey,
        /// Whether it keeps history: then its position is asked for.
        history: bool,
        /// From where to recover.
        recover: Option<Position>,
        /// Whose unread notifications go with it.
        unread_of: Option<Arc<str>>,
    },
    /// Where this client, which is subscribed, stands in a channel.
    Standing {
        /// The channel.
        channel: ChannelKey,
    },
    /// What is unread of this client's, who follows its notifications already.
    Unread {
        /// Whose.
        user_id: Arc<str>,
    },
    /// Publish.
    Publish {
        /// Where to.
        channel: ChannelKey,
        /// What.
        event: Event,
        /// The channel's rule.
        retention: Option<Retention>,
    },
    /// Read history.
    History {
        /// Of this channel.
        channel: ChannelKey,
        /// Only before this offset.
        before: Option<u64>,
        /// Events at most.
        limit: usize,
    },
    /// See who is in a channel.
    Presence {
        /// This one.
        channel: ChannelKey,
    },
    /// Ask the application's backend whether this client may do this.
    Authorize {
        /// With this channel.
        channel: ChannelKey,
        /// What it wants to do.
        action: Action,
    },
    /// Check a token.
    Verify {
        /// As the client sent it.
        token: String,
    },
}

/// What came of a [`Call`].
#[derive(Debug)]
pub enum Answer {
    /// Of [`Call::Subscribe`] and [`Call::Standing`].
    Subscribed {
        /// Where the channel stands, if it keeps history.
        position: Option<Position>,
        /// If recovery was asked for: what was missed.
        missed: Option<Result<Vec<Entry>, Unrecoverable>>,
        /// If unread notifications were asked for and there are any.
        unread: Option<Unread>,
    },
    /// Of [`Call::Unread`]: if there are any.
    Unread(Option<Unread>),
    /// Of [`Call::Publish`].
    Published {
        /// Its place, if the channel keeps history.
        position: Option<Position>,
    },
    /// Of [`Call::History`].
    History {
        /// Where the channel stands.
        position: Position,
        /// As subscribers get them, oldest first.
        events: Vec<Box<RawValue>>,
    },
    /// Of [`Call::Presence`].
    Presence {
        /// User ids, each once; perhaps not all.
        users: Vec<Arc<str>>,
        /// How many there are in all.
        count: u64,
    },
    /// Of [`Call::Authorize`]: whether it may. No answer is a no.
    Authorized(bool),
    /// Of [`Call::Verify`]: whose token it is; or which check it failed.
    Verified(Result<Arc<Identity>, &'static str>),
    /// Of any call: it could not be done, for the reason with this code.
    Failed {
        /// For programs, such as `unavailable`.
        code: &'static str,
    },
}

/// The newest unread notifications.
#[derive(Debug)]
pub struct Unread {
    /// Newest first, as JSON objects.
    pub notifications: Vec<Box<RawValue>>,
    /// How many there are in all.
    pub count: u64,
}

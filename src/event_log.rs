//! The event log: one JSON object a line in `ws-YYYY-MM-DD.log`. Contract section 7.
//!
//! For what happened to clients, for people and log shippers; diagnostics go to stderr (`logging`).

use std::net::IpAddr;

use serde::Serialize;

/// What a line is about: its `type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A socket was authenticated.
    Connection,
    /// A socket ended.
    Disconnect,
    /// A token, key or origin was refused.
    AuthFailure,
    /// A client sent a message.
    Message,
    /// A client subscribed.
    ChannelSubscribe,
    /// A client unsubscribed.
    ChannelUnsubscribe,
    /// Something went wrong.
    Error,
    /// A token was issued.
    TokenIssued,
    /// A token was revoked.
    TokenRevoked,
    /// A notification was created.
    Notification,
    /// The server started, stopped, reloaded.
    Server,
}

/// The `data` of a line: what applies is set. Nothing here may hold a token, signature or key.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Data<'a> {
    /// Whom it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<&'a str>,
    /// Where from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip: Option<IpAddr>,
    /// Which socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection_id: Option<&'a str>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'a str>,
    /// The `type` of the message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_type: Option<&'a str>,
    /// The channel's key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<&'a str>,
    /// The close code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
    /// The wallet that signed in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wallet: Option<&'a str>,
    /// The id of the notification or token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<&'a str>,
    /// What the server said about itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<&'a str>,
}

/// Writes lines. A stand-in that writes none, until the log itself is here.
#[derive(Debug, Clone)]
pub struct EventLog(());

impl EventLog {
    /// A log that keeps nothing.
    pub fn silent() -> Self {
        Self(())
    }

    /// Appends a line; never blocks.
    pub fn record(&self, _kind: Kind, _data: &Data<'_>) {}
}

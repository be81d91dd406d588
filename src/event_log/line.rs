//! A line of the event log: what it may say, and its bytes.

use std::net::IpAddr;

use serde::Serialize;

use crate::clock;

/// Bytes of a member of [`Data`] that are kept: many of them come from clients. Longer than the
/// longest channel key that the defaults allow.
const LONGEST_MEMBER: usize = 300;

/// How every line begins.
const HEAD: &[u8] = b"{\"timestamp\":\"0000-00-00T00:00:00.000Z\"";
/// Most lines are shorter.
const LINE_BYTES: usize = 256;

/// Where the day stands in every line: right after `{"timestamp":"`.
pub(super) const DAY: std::ops::Range<usize> = 14..24;
/// Where the day, the hour and the minute stand.
pub(super) const MINUTE: std::ops::Range<usize> = 14..30;
/// Where the whole timestamp stands.
pub(super) const TIMESTAMP: std::ops::Range<usize> = 14..38;

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
    /// What the client says that it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<&'a str>,
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
    /// The sign-in that a token goes back to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family: Option<&'a str>,
    /// What the server said about itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<&'a str>,
}

/// A whole line, but for its time, which [`stamp`] fills in. Control characters are escaped by JSON, so
/// that nothing a client sends can begin a line of its own.
pub(super) fn unstamped(kind: Kind, data: &Data<'_>) -> Vec<u8> {
    #[derive(Serialize)]
    struct Tail<'a> {
        r#type: Kind,
        data: &'a Data<'a>,
    }
    let data = bounded(data);
    let mut line = Vec::with_capacity(LINE_BYTES);
    line.extend_from_slice(HEAD);
    let tail = Tail {
        r#type: kind,
        data: &data,
    };
    // Into memory, strings and numbers: it cannot fail, and if it did the line would show it.
    let _ = serde_json::to_writer(&mut line, &tail);
    // What follows continues the object that the head began.
    if let Some(brace) = line.get_mut(HEAD.len()) {
        *brace = b',';
    }
    line.push(b'\n');
    line
}

/// Says when it happened.
pub(super) fn stamp(line: &mut [u8], unix_ms: u64) {
    line[TIMESTAMP].copy_from_slice(&clock::rfc3339_bytes(unix_ms));
}

/// Whether a whole line is what the server says about itself.
pub(super) fn is_of_the_server(line: &[u8]) -> bool {
    const REST: &[u8] = b"\",\"type\":\"server\",";
    line.get(TIMESTAMP.end..)
        .is_some_and(|rest| rest.starts_with(REST))
}

/// The same with every text cut to [`LONGEST_MEMBER`] bytes.
fn bounded<'a>(data: &Data<'a>) -> Data<'a> {
    fn cut(text: &str) -> &str {
        let mut end = text.len().min(LONGEST_MEMBER);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        &text[..end]
    }
    Data {
        user_id: data.user_id.map(cut),
        ip: data.ip,
        user_agent: data.user_agent.map(cut),
        connection_id: data.connection_id.map(cut),
        reason: data.reason.map(cut),
        message_type: data.message_type.map(cut),
        channel: data.channel.map(cut),
        code: data.code,
        wallet: data.wallet.map(cut),
        id: data.id.map(cut),
        family: data.family.map(cut),
        message: data.message.map(cut),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(unix_ms: u64, kind: Kind, data: &Data<'_>) -> String {
        let mut line = unstamped(kind, data);
        stamp(&mut line, unix_ms);
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn what_clients_send_is_cut_and_escaped() {
        let data = Data {
            message_type: Some("a\n{\"timestamp\":\u{1b}[2J"),
            channel: Some(&"é".repeat(1_000)),
            ..Data::default()
        };
        let line = whole(1_795_406_706_789, Kind::ChannelSubscribe, &data);
        assert_eq!(line.matches('\n').count(), 1);
        assert!(line.ends_with("}\n") && line.bytes().all(|byte| byte == b'\n' || byte >= 0x20));
        assert!(line.len() < 600 && !is_of_the_server(line.as_bytes()));
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["timestamp"], "2026-11-23T04:05:06.789Z");
        assert_eq!(value["type"], "channel_subscribe");
        assert_eq!(value["data"]["messageType"], data.message_type.unwrap());
        assert_eq!(value["data"]["channel"], "é".repeat(150));
    }

    #[test]
    fn the_timestamp_stands_where_the_writer_looks_for_it() {
        for unix_ms in [0, 1_795_406_706_789, u64::MAX] {
            let line = whole(unix_ms, Kind::Server, &Data::default());
            assert_eq!(line[TIMESTAMP], clock::rfc3339(unix_ms));
            assert_eq!(line[DAY], clock::date(unix_ms));
            assert!(is_of_the_server(line.as_bytes()));
        }
    }
}

//! A line of the event log: what it may say, and its bytes.

use std::io::Write as _;
use std::net::IpAddr;

use crate::clock;

/// Bytes of a member of [`Data`] that are kept: many of them come from clients. Longer than the
/// longest channel key that the defaults allow.
const LONGEST_MEMBER: usize = 300;
/// Bytes that a token has at least.
const SHORTEST_TOKEN: usize = 32;

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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
#[derive(Debug, Clone, Default)]
pub struct Data<'a> {
    /// Whom it is about.
    pub user_id: Option<&'a str>,
    /// Where from.
    pub ip: Option<IpAddr>,
    /// What the client says that it is.
    pub user_agent: Option<&'a str>,
    /// Which socket.
    pub connection_id: Option<&'a str>,
    /// Why.
    pub reason: Option<&'a str>,
    /// The `type` of the message.
    pub message_type: Option<&'a str>,
    /// The channel's key.
    pub channel: Option<&'a str>,
    /// The close code.
    pub code: Option<u16>,
    /// The wallet that signed in.
    pub wallet: Option<&'a str>,
    /// The id of the notification or token.
    pub id: Option<&'a str>,
    /// The sign-in that a token goes back to.
    pub family: Option<&'a str>,
    /// What the server said about itself.
    pub message: Option<&'a str>,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Disconnect => "disconnect",
            Self::AuthFailure => "auth_failure",
            Self::Message => "message",
            Self::ChannelSubscribe => "channel_subscribe",
            Self::ChannelUnsubscribe => "channel_unsubscribe",
            Self::Error => "error",
            Self::TokenIssued => "token_issued",
            Self::TokenRevoked => "token_revoked",
            Self::Notification => "notification",
            Self::Server => "server",
        }
    }
}

/// Puts a whole line into `line`, but for its time, which [`stamp`] fills in. Control characters are
/// escaped by JSON, so that nothing a client sends can begin a line of its own.
///
/// By hand: a client that comes, subscribes and goes is four lines.
pub(super) fn unstamped(line: &mut Vec<u8>, kind: Kind, data: &Data<'_>) {
    line.clear();
    line.reserve(LINE_BYTES);
    line.extend_from_slice(HEAD);
    line.extend_from_slice(b",\"type\":\"");
    line.extend_from_slice(kind.name().as_bytes());
    line.extend_from_slice(b"\",\"data\":{");
    let mut members = Members {
        line,
        is_first: true,
    };
    members.text("userId", data.user_id);
    if let Some(ip) = data.ip {
        members.name("ip");
        // Into memory: it cannot fail.
        let _ = write!(members.line, "\"{ip}\"");
    }
    members.text("userAgent", data.user_agent);
    members.text("connectionId", data.connection_id);
    members.text("reason", data.reason);
    members.text("messageType", data.message_type);
    members.text("channel", data.channel);
    if let Some(code) = data.code {
        members.name("code");
        let _ = write!(members.line, "{code}");
    }
    members.text("wallet", data.wallet);
    members.text("id", data.id);
    members.text("family", data.family);
    members.text("message", data.message);
    line.extend_from_slice(b"}}\n");
}

/// The members of an object that is being written.
struct Members<'a> {
    line: &'a mut Vec<u8>,
    is_first: bool,
}

impl Members<'_> {
    fn name(&mut self, name: &str) {
        if !std::mem::take(&mut self.is_first) {
            self.line.push(b',');
        }
        self.line.push(b'"');
        self.line.extend_from_slice(name.as_bytes());
        self.line.extend_from_slice(b"\":");
    }

    /// A member with a text, cut to [`LONGEST_MEMBER`] bytes, if there is one.
    fn text(&mut self, name: &str, text: Option<&str>) {
        let Some(text) = text else {
            return;
        };
        let text = without_token(text);
        let mut end = text.len().min(LONGEST_MEMBER);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let text = &text[..end];
        self.name(name);
        // As nearly always; to the end, so that it is done many bytes at a time.
        let is_special = |byte: u8| byte < b' ' || byte == b'"' || byte == b'\\';
        if text.bytes().fold(false, |any, byte| any | is_special(byte)) {
            // Into memory, a string: it cannot fail, and if it did the line would show it.
            let _ = serde_json::to_writer(&mut *self.line, text);
        } else {
            self.line.push(b'"');
            self.line.extend_from_slice(text.as_bytes());
            self.line.push(b'"');
        }
    }
}

/// A text up to what looks like a token. Nobody means to put one into an id, a channel or a reason, and
/// whatever is written down of these ends there.
pub fn without_token(text: &str) -> &str {
    &text[..token_at(text).unwrap_or(text.len())]
}

/// Where what looks like a token begins: one of RFC 7519, or one for refreshing.
fn token_at(text: &str) -> Option<usize> {
    if text.len() < SHORTEST_TOKEN {
        return None;
    }
    let begins = |at: &usize| {
        let is_inside = text[..*at].ends_with(|char: char| char.is_ascii_alphanumeric());
        !is_inside && text.len() - at >= SHORTEST_TOKEN
    };
    let all = |beginning| text.match_indices(beginning).map(|(at, _)| at);
    all("eyJ").chain(all("ffr.")).filter(begins).min()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(unix_ms: u64, kind: Kind, data: &Data<'_>) -> String {
        let mut line = Vec::new();
        unstamped(&mut line, kind, data);
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
    fn what_looks_like_a_token_is_not_written_down() {
        let jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.c2lnbmF0dXJl";
        let refresh = "ffr.Fam1lyFam1ly.7.c2lnbmF0dXJlc2lnbmF0dXJl";
        let channel = format!("post_xeyJ_{jwt}");
        let data = Data {
            channel: Some(&channel),
            id: Some(refresh),
            reason: Some(&jwt[..40]),
            // No token: a wallet may have these letters, and so may a short word.
            wallet: Some("9xQeyJ3r7nKx9WJ5n3cQp1VtG6mZk2bR8sT4uY7wE1d"),
            message: Some("eyJ is how they begin"),
            ..Data::default()
        };
        let line = whole(0, Kind::TokenRevoked, &data);
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        let expected = serde_json::json!({
            "channel": "post_xeyJ_", "id": "", "reason": "", "wallet": data.wallet,
            "message": data.message,
        });
        assert_eq!(value["data"], expected);
    }

    #[test]
    fn every_member_stands_under_its_name() {
        let data = Data {
            user_id: Some("u\"1"),
            ip: Some("2001:db8::1".parse().unwrap()),
            user_agent: Some("a\\b"),
            connection_id: Some("n-1"),
            reason: Some(""),
            message_type: Some("t"),
            channel: Some("post_1"),
            code: Some(4_100),
            wallet: Some("w"),
            id: Some("i"),
            family: Some("f"),
            message: Some("m"),
        };
        let line = whole(0, Kind::AuthFailure, &data);
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        let expected = serde_json::json!({
            "timestamp": "1970-01-01T00:00:00.000Z", "type": "auth_failure",
            "data": {"userId": "u\"1", "ip": "2001:db8::1", "userAgent": "a\\b",
                "connectionId": "n-1", "reason": "", "messageType": "t", "channel": "post_1",
                "code": 4_100, "wallet": "w", "id": "i", "family": "f", "message": "m"},
        });
        assert_eq!(value, expected);
        let empty = whole(0, Kind::Server, &Data::default());
        let value: serde_json::Value = serde_json::from_str(&empty).unwrap();
        assert_eq!(value["data"], serde_json::json!({}));
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

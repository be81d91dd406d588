//! Events: what is published, and where it stands in a channel's history.

use std::fmt;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use serde::de::{Deserializer as _, IgnoredAny, MapAccess, Visitor};

use super::{ChannelKey, depth};

/// One incarnation of a channel's history. Offsets are comparable only within an epoch.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Epoch(Arc<str>);

impl Epoch {
    /// An epoch of this name: letters, digits and hyphens, so that it needs no JSON escape.
    pub fn new(name: &str) -> Self {
        debug_assert!(
            name.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        );
        Self(name.into())
    }

    /// Its name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A place in a channel's history: the offset of its last event, 0 before the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// The incarnation that the offset belongs to.
    pub epoch: Epoch,
    /// Counts events of the epoch from 1.
    pub offset: u64,
}

/// A published event: the bytes of a JSON object with a string `type` and no `_meta`. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Event {
    json: Bytes,
}

/// Why bytes are not an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// Not a JSON object.
    #[error("an event is a JSON object")]
    NotAnObject,
    /// No member `type`, or one that is not a string; of several, readers differ in which one counts.
    #[error("an event has a string \"type\"")]
    NoType,
    /// `_meta` is the server's to add.
    #[error("an event must not have \"_meta\"")]
    HasMeta,
    /// Nested deeper than [`depth::DEPTH_MAX`].
    #[error("the event is nested too deeply")]
    TooDeep,
    /// Larger than `limits.event_bytes`.
    #[error("the event is too large")]
    TooLarge,
}

impl Event {
    /// Checks the text of an event; surrounding white space is dropped, the rest is kept to the byte.
    pub fn parse(json: &str, max_bytes: usize) -> Result<Self, EventError> {
        let json = json.trim_matches([' ', '\t', '\r', '\n']);
        if json.len() > max_bytes {
            return Err(EventError::TooLarge);
        }
        if !json.starts_with('{') {
            return Err(EventError::NotAnObject);
        }
        let mut reader = serde_json::Deserializer::from_str(json);
        let top = reader
            .deserialize_map(TopLevel)
            .map_err(|_| EventError::NotAnObject)?;
        reader.end().map_err(|_| EventError::NotAnObject)?;
        if depth::is_too_deep(json) {
            return Err(EventError::TooDeep);
        }
        if top.has_meta {
            return Err(EventError::HasMeta);
        }
        if top.is_named != Some(true) {
            return Err(EventError::NoType);
        }
        Ok(Self {
            json: Bytes::copy_from_slice(json.as_bytes()),
        })
    }

    /// Takes back bytes that were an event when they were stored, or that this server composed.
    pub fn trusted(json: Bytes) -> Self {
        debug_assert!(json.starts_with(b"{") && json.ends_with(b"}") && json.len() > 2);
        Self { json }
    }

    /// The JSON text as published.
    pub fn as_bytes(&self) -> &Bytes {
        &self.json
    }

    /// Appends the text that subscribers receive: the object with `_meta` as its first member.
    pub fn write_with_meta(
        &self,
        channel: &ChannelKey,
        position: Option<&Position>,
        out: &mut BytesMut,
    ) {
        out.reserve(self.json.len() + channel.as_str().len() + 96);
        out.put_slice(b"{\"_meta\":{\"channel\":");
        write_json_string(channel.as_str(), out);
        if let Some(position) = position {
            out.put_slice(b",\"offset\":");
            let mut digits = [0u8; 20];
            out.put_slice(decimal(position.offset, &mut digits));
            out.put_slice(b",\"epoch\":");
            write_json_string(position.epoch.as_str(), out);
        }
        out.put_slice(b"},");
        out.put_slice(&self.json[1..]);
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.json))
    }
}

/// Writes `text` as a JSON string. Plain text is copied; anything else goes through serde_json.
fn write_json_string(text: &str, out: &mut BytesMut) {
    if text
        .bytes()
        .all(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\')
    {
        out.put_u8(b'"');
        out.put_slice(text.as_bytes());
        out.put_u8(b'"');
    } else {
        out.put_slice(serde_json::Value::from(text).to_string().as_bytes());
    }
}

/// The decimal digits of `value`, at the end of `digits`.
fn decimal(mut value: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            return &digits[start..];
        }
    }
}

/// Looks at the members of the outermost object only; the rest is skipped without recursion.
struct TopLevel;

struct Members {
    /// If there is a `type`: whether it, or each of them, is a string.
    is_named: Option<bool>,
    has_meta: bool,
}

impl<'de> Visitor<'de> for TopLevel {
    type Value = Members;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
        let mut members = Members {
            is_named: None,
            has_meta: false,
        };
        while let Some(name) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            if name == "type" {
                let raw: &serde_json::value::RawValue = map.next_value()?;
                members.is_named = Some(members.is_named != Some(false) && is_string(raw.get()));
            } else {
                members.has_meta |= name == "_meta";
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(members)
    }
}

/// Whether valid JSON is a string that can be read as text: escapes may spell half a surrogate pair.
fn is_string(json: &str) -> bool {
    json.starts_with('"') && (!json.contains('\\') || serde_json::from_str::<String>(json).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Event, EventError> {
        Event::parse(json, 100)
    }

    #[test]
    fn meta_stands_in_front_and_the_rest_is_untouched() {
        let event = parse(" {\"type\":\"post_liked\", \"n\": 1.50}\n").unwrap();
        let key = ChannelKey::parse("post_42", 255).unwrap();
        let mut out = BytesMut::new();
        let position = Position {
            epoch: Epoch::new("e1"),
            offset: 1_234_567_890_123,
        };
        event.write_with_meta(&key, Some(&position), &mut out);
        assert_eq!(
            out,
            r#"{"_meta":{"channel":"post_42","offset":1234567890123,"epoch":"e1"},"type":"post_liked", "n": 1.50}"#
        );
        out.clear();
        event.write_with_meta(&key, None, &mut out);
        assert_eq!(
            out,
            r#"{"_meta":{"channel":"post_42"},"type":"post_liked", "n": 1.50}"#
        );
    }

    #[test]
    fn a_key_with_quotes_is_escaped() {
        let key = ChannelKey::parse("post_\"\\", 255).unwrap();
        let mut out = BytesMut::new();
        parse(r#"{"type":"x"}"#)
            .unwrap()
            .write_with_meta(&key, None, &mut out);
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(value["_meta"]["channel"], "post_\"\\");
    }

    #[test]
    fn what_is_no_event_is_refused() {
        assert_eq!(parse("[]").unwrap_err(), EventError::NotAnObject);
        assert_eq!(
            parse("{\"type\":\"x\"} x").unwrap_err(),
            EventError::NotAnObject
        );
        assert_eq!(parse("{").unwrap_err(), EventError::NotAnObject);
        assert_eq!(parse("{}").unwrap_err(), EventError::NoType);
        assert_eq!(parse("{\"type\":1}").unwrap_err(), EventError::NoType);
        assert_eq!(parse(r#"{"type":"\ud800"}"#), Err(EventError::NoType));
        for mixed in [r#"{"type":5,"type":"a"}"#, r#"{"type":"a","type":5}"#] {
            assert_eq!(parse(mixed), Err(EventError::NoType), "{mixed}");
        }
        assert!(parse(r#"{"type":"a","type":"b"}"#).is_ok());
        assert!(parse(r#"{"type":"\u00e9\ud83c\udf89"}"#).is_ok());
        assert_eq!(
            parse("{\"type\":\"x\",\"_meta\":1}").unwrap_err(),
            EventError::HasMeta
        );
        assert_eq!(
            parse("{\"type\":\"x\",\"\\u005fmeta\":1}").unwrap_err(),
            EventError::HasMeta
        );
        assert_eq!(
            parse(&format!("{{\"type\":\"{}\"}}", "x".repeat(100))).unwrap_err(),
            EventError::TooLarge
        );
    }

    #[test]
    fn depth_costs_no_stack_and_is_refused() {
        let deep = format!(
            "{{\"type\":\"x\",\"d\":{}{}}}",
            "[".repeat(20_000),
            "]".repeat(20_000)
        );
        assert_eq!(Event::parse(&deep, 1 << 20), Err(EventError::TooDeep));
    }
}

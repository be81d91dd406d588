//! A message without what it says: names and sizes, for an operator who looks at what passes.
//!
//! Shown as it is: the type; the channel, the offset and an error's code where the protocol has its own place
//! for them. Everything else is a value of somebody's: of a text its length is shown, of a list how many there
//! are, and of others what they are. Names of members are shown if they look like names.

use serde_json::{Map, Value, json};

use super::ChannelKey;

/// Bytes of a message that is looked into. Of a larger one only the size is known.
pub const SHAPED_BYTES_MAX: usize = 64 << 10;
/// Levels, and members of each, that are shown.
const DEPTH_MAX: usize = 4;
const MEMBERS_MAX: usize = 16;
/// A longer word may be a token.
const WORD_BYTES_MAX: usize = 32;
/// Longer than any key that the defaults allow.
const CHANNEL_BYTES_MAX: usize = 255;

/// What is shown of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// Its `type`.
    pub kind: Option<String>,
    /// The channel that it is about.
    pub channel: Option<String>,
    /// Its members.
    pub members: Value,
}

/// The shape of a text message, of this user if it is known from whom it comes.
pub fn shape(text: &str, caller: Option<&str>) -> Shape {
    let unknown = || Shape {
        kind: None,
        channel: None,
        members: format!("text({})", text.len()).into(),
    };
    if text.len() > SHAPED_BYTES_MAX {
        return unknown();
    }
    let Ok(Value::Object(message)) = serde_json::from_str(text) else {
        return unknown();
    };
    // What the protocol itself says: of an event in `_meta`, which no publisher can set; else in the message or
    // in `data`.
    let places = match message.get("_meta") {
        Some(meta) => vec![meta],
        None => message.get("data").into_iter().collect(),
    };
    let own = (!message.contains_key("_meta")).then_some(&message);
    let channel = places
        .iter()
        .filter_map(|place| place.as_object())
        .chain(own)
        .find_map(|place| channel_of(place, caller));
    Shape {
        kind: message.get("type").and_then(word).map(str::to_owned),
        channel,
        members: top(&message, caller),
    }
}

fn top(message: &Map<String, Value>, caller: Option<&str>) -> Value {
    let is_event = message.contains_key("_meta");
    object(message, |name, value| match (name, value) {
        ("type", value) => word(value).map_or_else(|| leaf(value), Value::from),
        ("_meta", Value::Object(meta)) => said(meta, caller),
        ("data", Value::Object(data)) if !is_event => said(data, caller),
        ("channel", value) if !is_event => key_or_shape(value, caller),
        (_, value) => nested(value, 1),
    })
}

/// A place of the protocol's own.
fn said(place: &Map<String, Value>, caller: Option<&str>) -> Value {
    object(place, |name, value| match (name, value) {
        ("channel" | "channelKey", value) => key_or_shape(value, caller),
        ("offset", Value::Number(_)) => value.clone(),
        ("code", value) => word(value).map_or_else(|| leaf(value), Value::from),
        (_, value) => nested(value, 2),
    })
}

fn nested(value: &Value, depth: usize) -> Value {
    match value {
        Value::Object(members) if depth < DEPTH_MAX => {
            object(members, |_, value| nested(value, depth + 1))
        }
        other => leaf(other),
    }
}

fn leaf(value: &Value) -> Value {
    match value {
        Value::Null => Value::Null,
        Value::Bool(_) => "boolean".into(),
        Value::Number(_) => "number".into(),
        Value::String(text) => format!("text({})", text.len()).into(),
        Value::Array(list) => format!("list({})", list.len()).into(),
        Value::Object(members) => format!("object({})", members.len()).into(),
    }
}

fn object(members: &Map<String, Value>, mut shown: impl FnMut(&str, &Value) -> Value) -> Value {
    let mut shape: Map<String, Value> = members
        .iter()
        .take(MEMBERS_MAX)
        .map(|(name, value)| {
            let value = shown(name, value);
            let name = match is_word(name) {
                true => name.clone(),
                false => format!("name({})", name.len()),
            };
            (name, value)
        })
        .collect();
    if members.len() > MEMBERS_MAX {
        shape.insert("more".into(), json!(members.len() - MEMBERS_MAX));
    }
    shape.into()
}

fn channel_of(place: &Map<String, Value>, caller: Option<&str>) -> Option<String> {
    let names = ["channelKey", "channel"].iter();
    names
        .copied()
        .find_map(|name| key(place.get(name)?, caller))
}

fn key_or_shape(value: &Value, caller: Option<&str>) -> Value {
    key(value, caller).map_or_else(|| leaf(value), Value::from)
}

/// The key of a channel that is named in any form; as the caller's own, if it is known who that is.
fn key(value: &Value, caller: Option<&str>) -> Option<String> {
    let key = ChannelKey::resolve(value, caller, CHANNEL_BYTES_MAX).ok()?;
    Some(key.as_str().to_owned())
}

fn word(value: &Value) -> Option<&str> {
    value.as_str().filter(|text| is_word(text))
}

fn is_word(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:-".contains(&byte);
    (1..=WORD_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(message: &Value) -> Value {
        shape(&message.to_string(), None).members
    }

    #[test]
    fn commands_and_replies_keep_their_own_words_alone() {
        let token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.c2lnbmF0dXJl";
        let refresh = json!({"type": "refresh", "id": 7, "data": {"token": token}});
        assert_eq!(
            members(&refresh),
            json!({"type": "refresh", "id": "number", "data": {"token": "text(52)"}})
        );
        let publish = json!({"type": "publish", "channel": "post_1",
            "event": {"type": "secret", "deep": {"er": {"still": {"x": 1}}}, "list": [1, "two"]}});
        assert_eq!(
            members(&publish),
            json!({"type": "publish", "channel": "post_1", "event": {"type": "text(6)",
                "deep": {"er": {"still": "object(1)"}}, "list": "list(2)"}})
        );
        let subscribe = json!({"type": "subscribe", "channel": {"type": "post", "postId": 42}});
        let shown = shape(&subscribe.to_string(), None);
        assert_eq!(shown.channel.as_deref(), Some("post_42"));
        assert_eq!(
            shown.members,
            json!({"type": "subscribe", "channel": "post_42"})
        );
        let own = json!({"type": "subscribe", "channel": "notifications"}).to_string();
        assert_eq!(shape(&own, None).channel, None);
        let shown = shape(&own, Some("ann"));
        assert_eq!(shown.channel.as_deref(), Some("notifications_ann"));
        let error = json!({"type": "error", "data": {"code": "forbidden", "message": "private",
            "channelKey": "post_2"}});
        let shown = shape(&error.to_string(), None);
        assert_eq!(shown.channel.as_deref(), Some("post_2"));
        assert_eq!(
            shown.members,
            json!({"type": "error", "data": {"code": "forbidden", "message": "text(7)",
                "channelKey": "post_2"}})
        );
    }

    #[test]
    fn what_a_publisher_says_is_never_taken_for_the_protocol() {
        let event = json!({"_meta": {"channel": "post_1", "epoch": "abc", "offset": 3},
            "type": "liked", "channel": "post_secret", "data": {"code": "hidden", "channelKey": "post_s"}});
        let shown = shape(&event.to_string(), None);
        assert_eq!(shown.channel.as_deref(), Some("post_1"));
        assert_eq!(shown.kind.as_deref(), Some("liked"));
        assert_eq!(
            shown.members,
            json!({"_meta": {"channel": "post_1", "epoch": "text(3)", "offset": 3}, "type": "liked",
                "channel": "text(11)", "data": {"code": "text(6)", "channelKey": "text(6)"}})
        );
    }

    #[test]
    fn nonsense_has_a_size() {
        for text in ["", "hello", "[1,2]", "\"x\"", "{\"type\""] {
            let shown = shape(text, None);
            assert_eq!(shown.members, format!("text({})", text.len()));
            assert_eq!((shown.kind, shown.channel), (None, None));
        }
        let long = "x".repeat(33);
        let odd = json!({"type": long, long.as_str(): 1, "a b": 2});
        let shown = members(&odd);
        assert_eq!(
            shown,
            json!({"type": "text(33)", "name(33)": "number", "name(3)": "number"})
        );
        let many: Map<String, Value> = (0..100).map(|n| (n.to_string(), json!(n))).collect();
        let shown = members(&many.into());
        assert_eq!(shown.as_object().unwrap().len(), MEMBERS_MAX + 1);
        assert_eq!(shown["more"], 84);
    }
}

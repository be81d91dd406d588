//! Names of channels: the object form, the key, and what makes a key valid.

use std::fmt;
use std::sync::Arc;

use serde_json::Value;

/// The key of a channel, `TYPE_ID`: `post_42`, `notifications_u1`. Cheap to clone.
///
/// The type is what stands before the first underscore, so a type has none; an ID may.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelKey(Arc<str>);

/// Why a value does not name a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChannelError {
    /// Neither an object with `type` nor a string.
    #[error("a channel is an object with a type, or its key as a string")]
    Shape,
    /// An object without the member that holds its ID, or an empty ID.
    #[error("the channel has no id")]
    NoId,
    /// `notifications` or `feed` alone, and nobody whose own they could be.
    #[error("the channel needs a user id")]
    NoOwner,
    /// A control character in it, or a type that is not `[a-z][a-z0-9-]*`.
    #[error("the channel key has characters that are not allowed")]
    Characters,
    /// Longer than `limits.channel_key_bytes`.
    #[error("the channel key is too long")]
    TooLong,
}

impl ChannelKey {
    /// Checks and interns a key.
    pub fn parse(key: &str, max_bytes: usize) -> Result<Self, ChannelError> {
        let (kind, id) = key.split_once('_').ok_or(ChannelError::NoId)?;
        Self::build(kind, id, max_bytes)
    }

    /// The key of type `kind` and ID `id`.
    pub fn build(kind: &str, id: &str, max_bytes: usize) -> Result<Self, ChannelError> {
        if id.is_empty() {
            return Err(ChannelError::NoId);
        }
        if !is_kind(kind) || id.chars().any(char::is_control) {
            return Err(ChannelError::Characters);
        }
        if kind.len() + 1 + id.len() > max_bytes {
            return Err(ChannelError::TooLong);
        }
        Ok(Self(format!("{kind}_{id}").into()))
    }

    /// The channel that carries `user_id`'s notifications. Not for names that come from outside.
    pub fn notifications_of(user_id: &str) -> Self {
        Self(format!("notifications_{user_id}").into())
    }

    /// Reads a channel in any form that a client or backend may use: an object, a key, or the bare
    /// `notifications` and `feed`, which mean the caller's own (`caller` is their user id, if any).
    ///
    /// IDs may be JSON strings or integers.
    pub fn resolve(
        value: &Value,
        caller: Option<&str>,
        max_bytes: usize,
    ) -> Result<Self, ChannelError> {
        match value {
            Value::String(kind) if is_personal(kind) => {
                Self::build(kind, caller.ok_or(ChannelError::NoOwner)?, max_bytes)
            }
            Value::String(key) => Self::parse(key, max_bytes),
            Value::Object(object) => {
                let kind = object
                    .get("type")
                    .and_then(Value::as_str)
                    .ok_or(ChannelError::Shape)?;
                let named = match kind {
                    "notifications" | "feed" => object.get("userId").or_else(|| object.get("id")),
                    "post" => object.get("postId").or_else(|| object.get("id")),
                    _ => object.get("id"),
                };
                match named {
                    Some(Value::String(id)) => Self::build(kind, id, max_bytes),
                    Some(Value::Number(id)) if id.is_u64() || id.is_i64() => {
                        Self::build(kind, &id.to_string(), max_bytes)
                    }
                    None | Some(Value::Null) if is_personal(kind) => {
                        Self::build(kind, caller.ok_or(ChannelError::NoOwner)?, max_bytes)
                    }
                    _ => Err(ChannelError::NoId),
                }
            }
            _ => Err(ChannelError::Shape),
        }
    }

    /// The whole key.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The type: `post` of `post_42`.
    pub fn kind(&self) -> &str {
        self.0.split_once('_').map_or(&self.0, |(kind, _)| kind)
    }

    /// The ID: `42` of `post_42`.
    pub fn id(&self) -> &str {
        self.0.split_once('_').map_or("", |(_, id)| id)
    }
}

/// Whether `kind` may be the type of a channel: `[a-z][a-z0-9-]*`, 32 bytes at most.
pub fn is_kind(kind: &str) -> bool {
    kind.len() <= 32
        && kind.starts_with(|first: char| first.is_ascii_lowercase())
        && kind
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

/// The types whose bare name means the caller's own channel.
fn is_personal(kind: &str) -> bool {
    matches!(kind, "notifications" | "feed")
}

impl fmt::Debug for ChannelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for ChannelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::borrow::Borrow<str> for ChannelKey {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn key(value: Value) -> Result<String, ChannelError> {
        ChannelKey::resolve(&value, Some("me"), 40).map(|key| key.to_string())
    }

    #[test]
    fn every_form_of_the_predecessor_has_one_key() {
        assert_eq!(
            key(json!({"type":"creator","id":"c1"})).unwrap(),
            "creator_c1"
        );
        assert_eq!(
            key(json!({"type":"notifications","userId":"u1"})).unwrap(),
            "notifications_u1"
        );
        assert_eq!(
            key(json!({"type":"feed","userId":"u1"})).unwrap(),
            "feed_u1"
        );
        assert_eq!(
            key(json!({"type":"post","postId":"p_1"})).unwrap(),
            "post_p_1"
        );
        assert_eq!(key(json!({"type":"post","postId":42})).unwrap(), "post_42");
        assert_eq!(key(json!({"type":"feed"})).unwrap(), "feed_me");
        assert_eq!(key(json!("notifications")).unwrap(), "notifications_me");
        assert_eq!(key(json!("feed")).unwrap(), "feed_me");
        assert_eq!(key(json!("post_42")).unwrap(), "post_42");
    }

    #[test]
    fn what_names_no_channel_is_told_apart() {
        assert_eq!(key(json!(7)), Err(ChannelError::Shape));
        assert_eq!(key(json!({"id":"x"})), Err(ChannelError::Shape));
        assert_eq!(key(json!("post")), Err(ChannelError::NoId));
        assert_eq!(key(json!("post_")), Err(ChannelError::NoId));
        assert_eq!(key(json!({"type":"post"})), Err(ChannelError::NoId));
        assert_eq!(
            key(json!({"type":"post","postId":1.5})),
            Err(ChannelError::NoId)
        );
        assert_eq!(key(json!("post_a\nb")), Err(ChannelError::Characters));
        assert_eq!(key(json!("Post_1")), Err(ChannelError::Characters));
        assert_eq!(
            key(json!({"type":"a_b","id":"1"})),
            Err(ChannelError::Characters)
        );
        assert_eq!(
            key(json!(format!("post_{}", "x".repeat(36)))),
            Err(ChannelError::TooLong)
        );
        assert_eq!(
            ChannelKey::resolve(&json!("feed"), None, 40).unwrap_err(),
            ChannelError::NoOwner
        );
    }

    #[test]
    fn an_object_cannot_forge_another_types_key() {
        // "feed" with the ID "x" and a type that swallowed the separator must never meet.
        assert_eq!(
            key(json!({"type":"feed_x","id":"y"})),
            Err(ChannelError::Characters)
        );
        let crafted = ChannelKey::parse("creator_notifications_u1", 40).unwrap();
        assert_eq!(
            (crafted.kind(), crafted.id()),
            ("creator", "notifications_u1")
        );
    }
}

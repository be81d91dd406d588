//! The names of everything in Redis. What is touched together shares a hash tag, and so a slot.
//!
//! ```text
//! PREFIX{CHANNEL}:h   stream   a channel's history; the id of an entry is OFFSET-EXPIRY_MS
//! PREFIX{CHANNEL}:m   hash     its epoch, offset and what they hold under
//! PREFIX{CHANNEL}:i:K string   the answer to a publication under the idempotency key K
//! PREFIX{CHANNEL}:p.. zsets, sets   who is there (presence.rs)
//! PREFIX{u:USER}:n..  zsets, hash   a user's notifications (notifications.rs); `nw` is written in vain
//! PREFIX{u:USER}:u    hash     a user (users.rs)
//! PREFIX{w:WALLET}    string   whose wallet it is
//! PREFIX{!revoked}:.. zsets, hash   revocations (values.rs)
//! PREFIX{b:OWNER}:.. strings  budgets of an address or a wallet (budgets.rs)
//! PREFIXk:N:SPACE:KEY string   the key-value part
//! PREFIX{!migration}:.. strings  what a migration leaves for the next one and for servers (migration/)
//!
//! PREFIXCHANNEL       pub/sub  events, ours and those of plain publishers
//! PREFIX{CHANNEL}     pub/sub  ours, where pub/sub is sharded
//! PREFIX!notice       pub/sub  what is told to every node
//! ```
//! The prefix has no braces, a tag is never empty, and a channel's key begins with its type, so no two
//! of these meet.

use crate::protocol::ChannelKey;

/// Composes names under one prefix.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    prefix: String,
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
        }
    }

    /// `part` of what belongs to a channel, such as `h`.
    pub(super) fn channel(&self, channel: &ChannelKey, part: &str) -> String {
        format!("{}{{{channel}}}:{part}", self.prefix)
    }

    /// `part` of what belongs to a user.
    pub(super) fn user(&self, user_id: &str, part: &str) -> String {
        format!("{}{{u:{user_id}}}:{part}", self.prefix)
    }

    pub(super) fn wallet(&self, wallet: &str) -> String {
        format!("{}{{w:{wallet}}}", self.prefix)
    }

    /// A bucket of an owner of budgets.
    pub(super) fn budget(&self, owner: &str, bucket: &str) -> String {
        format!("{}{{b:{owner}}}:{bucket}", self.prefix)
    }

    /// `part` of what belongs to all nodes together.
    pub(super) fn of_all_nodes(&self, name: &str, part: &str) -> String {
        format!("{}{{!{name}}}:{part}", self.prefix)
    }

    /// What revocations are kept in: the list, the ends, the rows.
    pub(super) fn revoked(&self) -> Vec<String> {
        ["l", "e", "r"]
            .map(|part| self.of_all_nodes("revoked", part))
            .into()
    }

    /// The keys of a user's notifications: the unread ones, the read ones, the rows.
    pub(super) fn notes(&self, user_id: &str) -> Vec<String> {
        ["nu", "nr", "nd"]
            .map(|part| self.user(user_id, part))
            .into()
    }

    /// Patterns that all keys match that anything is kept under.
    pub(super) fn patterns(&self) -> [String; 2] {
        [format!("{}{{*", self.prefix), format!("{}k:*", self.prefix)]
    }

    /// What the keys of `part` of an owner match.
    pub(super) fn pattern(&self, owner: &str, part: &str) -> String {
        format!("{}{{{owner}*}}:{part}", self.prefix)
    }

    /// The user of whom a key is `part`.
    pub(super) fn user_of<'a>(&self, key: &'a str, part: &str) -> Option<&'a str> {
        self.owner(key, part)?.strip_prefix("u:")
    }

    /// Whose `part` a key is.
    pub(super) fn owner<'a>(&self, key: &'a str, part: &str) -> Option<&'a str> {
        let rest = key.strip_prefix(self.prefix.as_str())?.strip_prefix('{')?;
        rest.strip_suffix(part)?.strip_suffix("}:")
    }

    /// Who answers to an idempotency key, and the key.
    pub(super) fn answer_of<'a>(&self, key: &'a str) -> Option<(&'a str, &'a str)> {
        let rest = key.strip_prefix(self.prefix.as_str())?.strip_prefix('{')?;
        rest.split_once("}:i:")
    }

    /// Namespace and key of the key-value part.
    pub(super) fn value_of<'a>(&self, key: &'a str) -> Option<(&'a str, &'a str)> {
        let rest = key.strip_prefix(self.prefix.as_str())?.strip_prefix("k:")?;
        let (length, rest) = rest.split_once(':')?;
        let (space, rest) = rest.split_at_checked(length.parse().ok()?)?;
        Some((space, rest.strip_prefix(':')?))
    }

    /// A key of the key-value part. The length keeps awkward names apart.
    pub(super) fn value(&self, space: &str, key: &str) -> String {
        format!("{}k:{}:{space}:{key}", self.prefix, space.len())
    }

    /// The pub/sub channel that every program may publish to.
    pub(super) fn open_line(&self, channel: &ChannelKey) -> String {
        format!("{}{channel}", self.prefix)
    }

    /// The sharded pub/sub channel of our own events; in the slot of the channel's keys.
    pub(super) fn sharded_line(&self, channel: &ChannelKey) -> String {
        format!("{}{{{channel}}}", self.prefix)
    }

    pub(super) fn notice_line(&self) -> String {
        format!("{}!notice", self.prefix)
    }

    /// The channel that a pub/sub channel carries; `None` for a foreign name.
    pub(super) fn channel_of(&self, line: &str) -> Option<ChannelKey> {
        let name = line.strip_prefix(self.prefix.as_str())?;
        let name = match name.strip_prefix('{') {
            Some(inner) => inner.strip_suffix('}')?,
            None => name,
        };
        ChannelKey::parse(name, usize::MAX).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::super::slot::slot;
    use super::*;

    #[test]
    fn what_is_touched_together_is_in_one_slot() {
        let keys = Keys::new("ws:");
        for name in ["post_42", "post_{a}", "post_}", "post_{", "post_}{x}"] {
            let channel = ChannelKey::parse(name, 255).unwrap();
            let line = keys.sharded_line(&channel);
            for part in ["h", "m", "i:{k}", "p"] {
                let key = keys.channel(&channel, part);
                assert_eq!(slot(key.as_bytes()), slot(line.as_bytes()), "{name}");
            }
            assert_eq!(keys.channel_of(&line).as_ref(), Some(&channel));
            assert_eq!(keys.channel_of(&keys.open_line(&channel)), Some(channel));
        }
        for user in ["", "{}", "}", "u"] {
            let (one, other) = (keys.user(user, "n"), keys.user(user, "u"));
            assert_eq!(slot(one.as_bytes()), slot(other.as_bytes()), "{user}");
        }
        for (space, key) in [("refresh", "a:b"), ("a:b", ""), ("", "x")] {
            assert_eq!(keys.value_of(&keys.value(space, key)), Some((space, key)));
        }
        for user in ["", "{}", "}", "u:}:u"] {
            assert_eq!(keys.user_of(&keys.user(user, "u"), "u"), Some(user));
            assert_eq!(keys.user_of(&keys.user(user, "nd"), "u"), None);
            let key = keys.user(user, "i:r\nx\nk}:i:");
            let owner = format!("u:{user}");
            assert_eq!(keys.answer_of(&key), Some((owner.as_str(), "r\nx\nk}:i:")));
        }
        assert_eq!(keys.channel_of("ws:!notice"), None);
        assert_eq!(keys.channel_of("other:post_1"), None);
    }
}

//! Which keys there are. The manual, `config.toml`, is the list and holds the defaults; only what a
//! list cannot say is here: channel types are open, some keys are secret, some are of a later version.

use std::collections::BTreeSet;

use super::raw::{Layer, Origin};
use crate::protocol::channel;

/// `config.toml` at the root of the repository.
pub const MANUAL: &str = include_str!("../../config.toml");

/// The keys of a `[channels.TYPE]` table, with the defaults of a type that is not built in.
pub(super) const CHANNEL: [(&str, &str); 7] = [
    ("subscribe", "none"),
    ("publish", "none"),
    ("history", "100"),
    ("history_ttl", "24h"),
    ("durability", "commit"),
    ("presence", "false"),
    ("join_leave", "false"),
];

/// A section that stands where channel types do. So no type has this name.
const NO_TYPE: &str = "channels.backend";

/// Keys and sections that the contract has and this version has not, and what to do meanwhile.
const LATER: [(&str, &str); 1] = [(
    "broker.redis.url_file",
    "leave it out: the Redis backend is not in this version",
)];

/// What a dotted key is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// A setting.
    Setting,
    /// A table of settings.
    Section,
    /// Below a channel type that cannot be one.
    NoChannelType,
    /// Of a later version; what to use instead.
    Later(&'static str),
    /// Nothing.
    Unknown,
}

/// The manual with every setting switched on: the weakest layer.
pub(super) fn defaults() -> Layer {
    let settings: String = MANUAL
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(setting) if setting.starts_with(|first: char| first.is_ascii_lowercase()) => {
                setting
            }
            _ => line,
        })
        .flat_map(|line| [line, "\n"])
        .collect();
    // A mistake in the manual leaves its key out, which the test of the manual finds.
    Layer::from_toml(&settings, &|_| Origin::Default).0
}

/// What `key` is, given the defaults.
pub(super) fn classify(key: &str, defaults: &Layer) -> Known {
    if let Some((_, instead)) = LATER.iter().find(|(later, _)| is_within(key, later)) {
        return Known::Later(instead);
    }
    if is_within(key, NO_TYPE) {
        // A section of its own: the manual has it.
    } else if let Some(rest) = key.strip_prefix("channels.") {
        let (kind, field) = rest.split_once('.').unwrap_or((rest, ""));
        return match field {
            _ if !channel::is_kind(kind) => Known::NoChannelType,
            "" => Known::Section,
            _ if CHANNEL.iter().any(|(name, _)| *name == field) => Known::Setting,
            _ => Known::Unknown,
        };
    }
    if defaults.values.contains_key(key) {
        Known::Setting
    } else if defaults.tables.contains_key(key) {
        Known::Section
    } else {
        Known::Unknown
    }
}

/// Every key that could have been meant by `unknown`: those of the manual, and those of its own channel type.
pub(super) fn candidates(unknown: &str, defaults: &Layer) -> BTreeSet<String> {
    let mut keys: BTreeSet<String> = defaults.values.keys().cloned().collect();
    keys.extend(defaults.tables.keys().cloned());
    if let Some((kind, _)) = channel_setting(unknown) {
        keys.extend(CHANNEL.map(|(field, _)| format!("channels.{kind}.{field}")));
    }
    keys
}

/// `chat` and `history` of `channels.chat.history`.
pub(super) fn channel_setting(key: &str) -> Option<(&str, &str)> {
    let setting = key.strip_prefix("channels.")?.split_once('.');
    setting.filter(|_| !is_within(key, NO_TYPE))
}

/// `chat` of the table `channels.chat`.
pub(super) fn channel_type(table: &str) -> Option<&str> {
    let kind = table.strip_prefix("channels.");
    kind.filter(|_| table != NO_TYPE)
}

/// Whether `key` is `section` or below it.
pub(super) fn is_within(key: &str, section: &str) -> bool {
    key.strip_prefix(section)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Whether a running server cannot change it: what is bound, opened or started once.
pub(super) fn is_fixed(key: &str) -> bool {
    matches!(
        key,
        "server.listen" | "server.workers" | "data_dir" | "metrics.listen"
    ) || is_within(key, "broker")
}

/// Whether the value may not be shown. A Redis URL may hold a password.
pub(super) fn is_secret(key: &str) -> bool {
    is_credential(key) || matches!(key, "broker.redis.url" | "broker.redis.pubsub_url")
}

/// Whether the value is nothing but a secret, and so has a `_file` variant and may not be a flag.
pub(super) fn is_credential(key: &str) -> bool {
    matches!(
        key,
        "auth.secret" | "auth.api_keys" | "channels.backend.secret" | "metrics.token"
    )
}

/// The environment variable of a key: `FANFARE_LIMITS__QUEUE_BYTES`.
pub(super) fn variable(key: &str) -> String {
    format!(
        "FANFARE_{}",
        key.replace('.', "__").replace('-', "_").to_uppercase()
    )
}

/// The key of an environment variable without its `FANFARE_`. A channel type has no underscore, so
/// there, an underscore is a hyphen: `CHANNELS__LIVE_CHAT__HISTORY` is `channels.live-chat.history`.
pub(super) fn key_of_variable(name: &str) -> String {
    let key = name.to_lowercase().replace("__", ".");
    match key.strip_prefix("channels.") {
        Some(rest) => {
            let (kind, field) = rest.split_once('.').unwrap_or((rest, ""));
            let dot = if field.is_empty() { "" } else { "." };
            format!("channels.{}{dot}{field}", kind.replace('_', "-"))
        }
        None => key,
    }
}

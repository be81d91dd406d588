//! Which keys there are. The manual, `config.toml`, is the list and holds the defaults; only what a
//! list cannot say is here: channel types are open, some keys are secret, some are of a later version.

use std::collections::BTreeSet;

use super::raw::{Layer, Origin};
use crate::protocol::channel;

/// `config.toml` at the root of the repository.
pub const MANUAL: &str = include_str!("../../config.toml");

/// The keys of a `[channels.TYPE]` table, with the defaults of a type that is not built in.
pub(super) const CHANNEL: [(&str, &str); 8] = [
    ("subscribe", "none"),
    ("publish", "none"),
    ("history", "100"),
    ("history_ttl", "24h"),
    ("durability", "commit"),
    ("presence", "false"),
    ("join_leave", "false"),
    ("slow", "close"),
];

/// The keys of an `[auth.keys.KID]` table.
const KEY: [(&str, &str); 3] = [("pem", ""), ("pem_file", ""), ("until", "")];

/// The keys of an `[auth.issuers.NAME]` table.
const ISSUER: [(&str, &str); 4] = [
    ("issuer", ""),
    ("audience", ""),
    ("jwks_url", ""),
    ("algorithms", "RS256,ES256,EdDSA"),
];

/// Tables whose names are the operator's.
#[derive(Debug)]
pub(super) struct Open {
    /// What stands before the name, with its dot.
    section: &'static str,
    /// What such a table holds, with the defaults.
    pub(super) fields: &'static [(&'static str, &'static str)],
}

static OPEN: [Open; 3] = [
    Open {
        section: "channels.",
        fields: &CHANNEL,
    },
    Open {
        section: "auth.keys.",
        fields: &KEY,
    },
    Open {
        section: "auth.issuers.",
        fields: &ISSUER,
    },
];

/// A section that stands where channel types do. So no type has this name.
const NO_TYPE: &str = "channels.backend";

/// What a dotted key is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// A setting.
    Setting,
    /// A table of settings.
    Section,
    /// Below a channel type that cannot be one.
    NoChannelType,
    /// Below the name of a key or an issuer that cannot be one.
    NoName,
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
    if let Some((open, rest)) = below_open(key) {
        let (name, field) = rest.split_once('.').unwrap_or((rest, ""));
        return match field {
            _ if open.section == "channels." && !channel::is_kind(name) => Known::NoChannelType,
            _ if !is_name(name) => Known::NoName,
            "" => Known::Section,
            _ if open.fields.iter().any(|(name, _)| *name == field) => Known::Setting,
            _ => Known::Unknown,
        };
    }
    let holds_open = |open: &Open| open.section.strip_suffix('.') == Some(key);
    if OPEN.iter().any(holds_open) {
        return Known::Section;
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
    if let Some((open, table)) = open_table_of(unknown) {
        let fields = open.fields.iter();
        keys.extend(fields.map(|(field, _)| format!("{table}.{field}")));
    }
    keys
}

/// `channels.chat` of `channels.chat.history` and of itself, and what such a table holds.
pub(super) fn open_table_of(key: &str) -> Option<(&'static Open, &str)> {
    let (open, rest) = below_open(key)?;
    let name = rest.split('.').next().unwrap_or(rest);
    Some((open, &key[..open.section.len() + name.len()]))
}

/// The name of every table of a section: `chat` of `channels.chat`.
pub(super) fn open_name<'k>(section: &str, table: &'k str) -> Option<&'k str> {
    let (open, name) = below_open(table)?;
    (open.section == section).then_some(name)
}

fn below_open(key: &str) -> Option<(&'static Open, &str)> {
    if is_within(key, NO_TYPE) {
        return None; // a section of its own: the manual has it
    }
    OPEN.iter()
        .find_map(|open| Some((open, key.strip_prefix(open.section)?)))
}

/// Whether this may be the name of a key or an issuer: `[a-z0-9-]+`, 32 bytes at most, so that it is
/// the same in a table, in a variable and in a token.
fn is_name(name: &str) -> bool {
    (1..=32).contains(&name.len())
        && name
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
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
        "server.listen" | "server.workers" | "data_dir" | "metrics.listen" | "control.socket"
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
        "auth.secret"
            | "auth.previous_secret"
            | "auth.api_keys"
            | "channels.backend.secret"
            | "alerts.webhook_secret"
            | "metrics.token"
            | "traces.headers"
    ) || key
        .strip_prefix("auth.keys.")
        .is_some_and(|rest| rest.ends_with(".pem"))
}

/// The environment variable of a key: `FANFARE_LIMITS__QUEUE_BYTES`.
pub(super) fn variable(key: &str) -> String {
    format!(
        "FANFARE_{}",
        key.replace('.', "__").replace('-', "_").to_uppercase()
    )
}

/// The key of an environment variable without its `FANFARE_`. The name of a table has no underscore, so
/// there, an underscore is a hyphen: `CHANNELS__LIVE_CHAT__HISTORY` is `channels.live-chat.history`.
pub(super) fn key_of_variable(name: &str) -> String {
    let key = name.to_lowercase().replace("__", ".");
    let Some(open) = OPEN.iter().find(|open| key.starts_with(open.section)) else {
        return key;
    };
    let rest = &key[open.section.len()..];
    let (name, field) = rest.split_once('.').unwrap_or((rest, ""));
    let dot = if field.is_empty() { "" } else { "." };
    format!("{}{}{dot}{field}", open.section, name.replace('_', "-"))
}

//! What a configuration that was read again changes, and which of it has to wait for a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::keys;
use super::reader::Setting;
use super::{Config, Loaded};

/// What changed from one reading of the configuration to the next, by key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference(pub Vec<Change>);

/// A setting that is not what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// `limits.queue_bytes`
    pub key: String,
    /// As it was given, `***` for a secret; `None`: nobody had given it.
    pub before: Option<String>,
    /// As it is given now.
    pub after: Option<String>,
    /// Whether a running server goes on with what it had.
    pub needs_restart: bool,
}

impl Difference {
    /// From the settings of one reading to those of another.
    pub fn between(before: &[Setting], after: &[Setting]) -> Self {
        let by_key = |settings: &'_ [Setting]| -> BTreeMap<String, Setting> {
            let settings = settings.iter().cloned();
            settings.map(|one| (one.key.clone(), one)).collect()
        };
        let (before, after) = (by_key(before), by_key(after));
        let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        let changed = keys.into_iter().filter_map(|key| {
            let (was, is) = (before.get(key), after.get(key));
            let content = |setting: Option<&Setting>| setting.map(|one| one.content.clone());
            if content(was) == content(is) {
                return None;
            }
            Some(Change {
                key: key.clone(),
                before: was.map(|one| one.value.clone()),
                after: is.map(|one| one.value.clone()),
                needs_restart: keys::is_fixed(key),
            })
        });
        Self(changed.collect())
    }
}

impl Loaded {
    /// What of this a server that was started with `before` can do without a restart: the rest stays
    /// as it was. And what is different from `settings`, those that it went by so far.
    pub fn over(mut self, before: &Config, settings: &[Setting]) -> (Self, Difference) {
        let difference = Difference::between(settings, &self.changed);
        let config = &mut self.config;
        config.dev = before.dev;
        config.server.listen = before.server.listen;
        config.server.workers = before.server.workers;
        config.data_dir.clone_from(&before.data_dir);
        config.metrics.listen = before.metrics.listen;
        config.broker.clone_from(&before.broker);
        config.control_socket.clone_from(&before.control_socket);
        (self, difference)
    }
}

/// What a server goes by that read `after` while it ran on `before`: what needs a restart stays, and is
/// told of again by the next reload.
pub fn in_force(before: &[Setting], after: Vec<Setting>) -> Vec<Setting> {
    let stays = before.iter().filter(|one| keys::is_fixed(&one.key));
    let comes = after.into_iter().filter(|one| !keys::is_fixed(&one.key));
    stays.cloned().chain(comes).collect()
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "(default)".into());
        let (before, after) = (shown(&self.before), shown(&self.after));
        write!(f, "{}: ", self.key)?;
        if before == after {
            // A secret, or the content of a file.
            write!(f, "{after}, which is another one now")?;
        } else {
            write!(f, "{before} -> {after}")?;
        }
        if self.needs_restart {
            f.write_str(" (needs a restart)")?;
        }
        Ok(())
    }
}

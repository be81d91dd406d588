//! The layers, one over the other: for each key the strongest value, and what nobody knows refused.

use std::net::SocketAddr;

use super::keys::{self, Known};
use super::mistake::Mistake;
use super::raw::{Given, Layer, Origin, Value};
use super::sources::Sources;
use super::values;

/// The settings before anybody knows whether their values make sense.
#[derive(Debug)]
pub(super) struct Layers {
    /// The weakest layer, complete.
    pub(super) defaults: Layer,
    /// What is stronger, merged.
    given: Layer,
}

impl Layers {
    /// Reads every source; the mistakes are those of keys and syntax.
    pub(super) fn read(sources: &Sources) -> (Self, Vec<Mistake>) {
        let mut layers = Self {
            defaults: keys::defaults(),
            given: Layer::default(),
        };
        let mut mistakes = Vec::new();
        layers.put_over((sources.dev_layer(), Vec::new()), &mut mistakes);
        layers.put_over(sources.file_layer(), &mut mistakes);
        let predecessor = sources.predecessor_layer(|key| layers.listener(key));
        layers.put_over(predecessor, &mut mistakes);
        layers.put_over(sources.environment_layer(), &mut mistakes);
        layers.put_over(sources.flag_layer(), &mut mistakes);
        (layers, mistakes)
    }

    /// The strongest value of a key, and its default.
    pub(super) fn find(&self, key: &str) -> Option<(&Given, &Given)> {
        let default = self.defaults.values.get(key)?;
        Some((self.given.values.get(key).unwrap_or(default), default))
    }

    /// Every channel type that a table or a key names.
    pub(super) fn channel_types(&self) -> impl Iterator<Item = &str> {
        self.defaults
            .tables
            .keys()
            .filter_map(|table| keys::channel_type(table))
    }

    fn listener(&self, key: &str) -> Option<SocketAddr> {
        let (given, _) = self.find(key)?;
        values::socket_address(&given.value).ok()
    }

    fn put_over(&mut self, (layer, wrong): (Layer, Vec<Mistake>), mistakes: &mut Vec<Mistake>) {
        mistakes.extend(wrong);
        let mut refused: Vec<String> = Vec::new();
        for (table, origin) in layer.tables {
            if refused
                .iter()
                .any(|section| keys::is_within(&table, section))
            {
                continue;
            }
            let known = keys::classify(&table, &self.defaults);
            if known == Known::Section {
                self.learn_type(&table);
            } else {
                mistakes.push(self.refuse(&table, &origin, &known, Known::Section));
                refused.push(table);
            }
        }
        for (key, given) in layer.values {
            if refused.iter().any(|section| keys::is_within(&key, section)) {
                continue;
            }
            let known = keys::classify(&key, &self.defaults);
            if known == Known::Setting {
                if let Some((kind, _)) = keys::channel_setting(&key) {
                    self.learn_type(&format!("channels.{kind}"));
                }
                self.given.values.insert(key, given);
            } else {
                mistakes.push(self.refuse(&key, &given.origin, &known, Known::Setting));
            }
        }
    }

    /// A channel type that is seen for the first time gets its defaults.
    fn learn_type(&mut self, table: &str) {
        let new = table.starts_with("channels.") && !self.defaults.tables.contains_key(table);
        if new {
            for (field, value) in keys::CHANNEL {
                let value = Value::Text(value.to_owned());
                self.defaults
                    .put(format!("{table}.{field}"), value, Origin::Default);
            }
            self.defaults
                .tables
                .insert(table.to_owned(), Origin::Default);
        }
    }

    /// The mistake of a key that is `known` as something else than the `wanted` kind of thing.
    fn refuse(&self, key: &str, origin: &Origin, known: &Known, wanted: Known) -> Mistake {
        let mistake = |problem: String| Mistake::new(key, problem).at(origin);
        match known {
            Known::Later(instead) => {
                mistake("is not in this version of Fanfare yet".into()).accepting(*instead)
            }
            Known::NoChannelType => mistake("is no name for a channel type".into()).accepting(
                "a lower-case letter, then lower-case letters, digits and hyphens, 32 at most; no \
                 underscore, because the first one in a channel's key (TYPE_ID) ends the type",
            ),
            Known::Section => {
                let example = self.defaults.values.keys();
                let mut below = example.filter(|below| keys::is_within(below, key));
                mistake("is a section, not a setting".into()).accepting(
                    below.next().map_or("a table".into(), |key| {
                        format!("its settings, such as {key}")
                    }),
                )
            }
            Known::Setting => mistake("is a setting, not a section".into())
                .accepting(format!("a value, not a table, at {key}")),
            Known::Unknown => {
                let what = if wanted == Known::Section {
                    "section"
                } else {
                    "setting"
                };
                let candidates = keys::candidates(key, &self.defaults);
                mistake(format!("there is no such {what}"))
                    .suggesting_key(candidates.iter().map(String::as_str))
            }
        }
    }
}

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
        let credentials = sources.credential_layer(&layers.defaults);
        layers.put_over((credentials, Vec::new()), &mut mistakes);
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

    /// The names of all tables of an open section, `channels.`, that a table or a key names.
    pub(super) fn names(&self, section: &str) -> Vec<String> {
        let tables = self.defaults.tables.keys();
        let names = tables.filter_map(|table| keys::open_name(section, table));
        names.map(str::to_owned).collect()
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
                self.learn(&table);
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
                self.learn(&key);
                self.given.values.insert(key, given);
            } else {
                mistakes.push(self.refuse(&key, &given.origin, &known, Known::Setting));
            }
        }
    }

    /// A table with a name of the operator's that is seen for the first time gets its defaults.
    fn learn(&mut self, key: &str) {
        let Some((open, table)) = keys::open_table_of(key) else {
            return;
        };
        if self.defaults.tables.contains_key(table) {
            return;
        }
        for (field, value) in open.fields {
            let value = Value::Text((*value).to_owned());
            let key = format!("{table}.{field}");
            self.defaults.put(key, value, Origin::Default);
        }
        let table = table.to_owned();
        self.defaults.tables.insert(table, Origin::Default);
    }

    /// The mistake of a key that is `known` as something else than the `wanted` kind of thing.
    fn refuse(&self, key: &str, origin: &Origin, known: &Known, wanted: Known) -> Mistake {
        let mistake = |problem: String| Mistake::new(key, problem).at(origin);
        match known {
            Known::NoChannelType => mistake("is no name for a channel type".into()).accepting(
                "a lower-case letter, then lower-case letters, digits and hyphens, 32 at most; no \
                 underscore, because the first one in a channel's key (TYPE_ID) ends the type",
            ),
            Known::NoName => mistake("is no name for a key or an issuer".into())
                .accepting("lower-case letters, digits and hyphens, 1 to 32"),
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

//! The first pass: what somebody wrote, where, and nothing about what it means.
//!
//! A source (the file, the environment, the flags) becomes a [`Layer`]: dotted keys with their values.
//! Typed structures are not derived from the file, because serde stops at the first mistake and this
//! program reports all of them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::mistake::Mistake;
use super::urls;

/// One source, flattened: `limits.queue_bytes` -> value.
#[derive(Debug, Default)]
pub(super) struct Layer {
    /// Every value, by its dotted key.
    pub(super) values: BTreeMap<String, Given>,
    /// Every table, by its dotted path: an empty table with a wrong name is a mistake too.
    pub(super) tables: BTreeMap<String, Origin>,
}

/// A value and who gave it.
#[derive(Debug, Clone)]
pub(super) struct Given {
    pub(super) value: Value,
    pub(super) origin: Origin,
}

/// A value in the shapes that settings have. Environment and flags only know text: whoever reads a
/// value takes text for a number, a boolean or a list as well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Integer(i64),
    Boolean(bool),
    List(Vec<Value>),
    /// Something that no setting is, as it is shown.
    Foreign(String),
}

/// Where a value came from; the later variants are the stronger ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The manual, which is built in.
    Default,
    /// `--dev`.
    Dev,
    /// The configuration file.
    File {
        /// Which.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// A credential that the service manager handed over, by the name of its file.
    Credential(String),
    /// An environment variable that the predecessor used.
    Predecessor(&'static str),
    /// A `FANFARE_` environment variable.
    Environment(String),
    /// A flag of the command line, with its dashes.
    Flag(&'static str),
}

impl Origin {
    /// How strong it is, then where it stands: mistakes are listed in this order.
    pub(super) fn order(&self) -> (u8, usize) {
        match self {
            Self::Default => (0, 0),
            Self::Dev => (1, 0),
            Self::File { line, .. } => (2, *line),
            Self::Credential(_) => (3, 0),
            Self::Predecessor(_) => (4, 0),
            Self::Environment(_) => (5, 0),
            Self::Flag(_) => (6, 0),
        }
    }

    /// The strength alone.
    pub(super) fn rank(&self) -> u8 {
        self.order().0
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("the defaults"),
            Self::Dev => f.write_str("--dev"),
            Self::File { path, line } => write!(f, "{}, line {line}", path.display()),
            Self::Credential(name) => write!(f, "credential {name}"),
            Self::Predecessor(name) => write!(f, "environment variable {name}"),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

impl fmt::Display for Value {
    /// As TOML has it, on one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "{:?}", shown(text)),
            Self::Integer(number) => write!(f, "{number}"),
            Self::Boolean(value) => write!(f, "{value}"),
            Self::List(items) => {
                f.write_str("[")?;
                for (at, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if at == 0 { "" } else { ", " })?;
                }
                f.write_str("]")
            }
            Self::Foreign(text) => f.write_str(&shown(text)),
        }
    }
}

/// A text without the password that a URL may have, cut to a humane length.
fn shown(text: &str) -> Cow<'_, str> {
    const SHOWN_CHARS: usize = 80;
    let text = urls::without_credentials(text);
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => text,
    }
}

impl Layer {
    /// Reads TOML. Syntax errors name line and column, never the text there: it may be a secret.
    pub(super) fn from_toml(text: &str, place: &dyn Fn(usize) -> Origin) -> (Self, Vec<Mistake>) {
        let (table, errors) = DeTable::parse_recoverable(text);
        let mut layer = Self::default();
        let lines = Lines::of(text);
        layer.take(table.get_ref(), "", &|at| place(lines.line(at)));
        let mistakes = errors
            .iter()
            .map(|error| {
                let (line, column) =
                    lines.position(text, error.span().map_or(0, |span| span.start));
                let problem = format!("column {column}: {}", error.message());
                Mistake::new("TOML syntax", problem).at(&place(line))
            })
            .collect();
        (layer, mistakes)
    }

    /// Adds a value; the last one of the same key stays.
    pub(super) fn put(&mut self, key: impl Into<String>, value: Value, origin: Origin) {
        self.values.insert(key.into(), Given { value, origin });
    }

    /// Depth is bounded by the parser.
    fn take(&mut self, table: &DeTable<'_>, prefix: &str, place: &dyn Fn(usize) -> Origin) {
        for (name, value) in table {
            let key = format!("{prefix}{}", name.get_ref());
            let origin = place(name.span().start);
            match value.get_ref() {
                DeValue::Table(inner) => {
                    self.tables.insert(key.clone(), origin);
                    self.take(inner, &format!("{key}."), place);
                }
                _ => self.put(key, Value::from_toml(value), origin),
            }
        }
    }
}

impl Value {
    /// Something that is the same for the same value only.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        format!("{self:?}").into_bytes()
    }

    fn from_toml(value: &Spanned<DeValue<'_>>) -> Self {
        match value.get_ref() {
            DeValue::String(text) => Self::Text(text.to_string()),
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .map_or_else(|_| Self::Foreign(number.to_string()), Self::Integer),
            DeValue::Boolean(value) => Self::Boolean(*value),
            DeValue::Array(items) => Self::List(items.iter().map(Self::from_toml).collect()),
            DeValue::Float(number) => Self::Foreign(number.to_string()),
            DeValue::Datetime(date) => Self::Foreign(date.to_string()),
            DeValue::Table(_) => Self::Foreign("(a table)".into()),
        }
    }
}

/// The origins of a file's lines.
pub(super) fn lines_of(path: &Path) -> impl Fn(usize) -> Origin + '_ {
    |line| Origin::File {
        path: path.to_owned(),
        line,
    }
}

/// Where the lines of a text start.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        let after_newlines = text.match_indices('\n').map(|(at, _)| at + 1);
        Self(std::iter::once(0).chain(after_newlines).collect())
    }

    /// From 1.
    fn line(&self, at: usize) -> usize {
        self.0.partition_point(|start| *start <= at)
    }

    /// Line and column (in characters), both from 1.
    fn position(&self, text: &str, at: usize) -> (usize, usize) {
        let line = self.line(at);
        let start = self.0.get(line.saturating_sub(1)).copied().unwrap_or(0);
        let column = text.get(start..at).map_or(0, |text| text.chars().count());
        (line, column + 1)
    }
}

//! What is wrong with a configuration, told so that it can be put right in one go.

use std::fmt;

use super::raw::{Given, Origin};
use super::{keys, suggest};

/// All that is wrong, at least one thing.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}", self.report())]
pub struct Mistakes(pub Vec<Mistake>);

/// One thing that is wrong. Never holds the value of a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The setting, `limits.queue_bytes`, or what else is wrong (`--config`, `TOML syntax`).
    pub key: String,
    /// Where it was set.
    pub origin: Option<Origin>,
    /// The value as it was given; `None` for secrets and where it does not matter.
    pub value: Option<String>,
    /// What is wrong with it.
    pub problem: String,
    /// What would have been accepted.
    pub accepted: Option<String>,
    /// What was probably meant.
    pub suggestion: Option<String>,
}

/// Why a value was not taken, before it is known whose it is.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) problem: String,
    pub(super) accepted: String,
    pub(super) suggestion: Option<String>,
}

impl Mistake {
    pub(super) fn new(key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            origin: None,
            value: None,
            problem: problem.into(),
            accepted: None,
            suggestion: None,
        }
    }

    /// The mistake that `fault` is, made by `given` for `key`.
    pub(super) fn of(key: &str, given: &Given, fault: Fault) -> Self {
        Self {
            value: (!keys::is_secret(key)).then(|| given.value.to_string()),
            accepted: Some(fault.accepted),
            suggestion: fault.suggestion,
            ..Self::new(key, fault.problem).at(&given.origin)
        }
    }

    pub(super) fn at(mut self, origin: &Origin) -> Self {
        self.origin = Some(origin.clone());
        self
    }

    pub(super) fn accepting(mut self, accepted: impl Into<String>) -> Self {
        self.accepted = Some(accepted.into());
        self
    }

    /// Suggests the candidate nearest to the key, in the spelling of the place where it was set.
    pub(super) fn suggesting_key<'a>(
        mut self,
        known: impl Iterator<Item = &'a str> + Clone,
    ) -> Self {
        self.suggestion = suggest::key(&self.key, known).map(|key| match self.origin {
            Some(Origin::Environment(_)) => keys::variable(key),
            _ => key.to_owned(),
        });
        self
    }
}

impl Fault {
    pub(super) fn new(problem: impl Into<String>, accepted: impl Into<String>) -> Self {
        Self {
            problem: problem.into(),
            accepted: accepted.into(),
            suggestion: None,
        }
    }

    pub(super) fn suggesting(mut self, suggestion: Option<String>) -> Self {
        self.suggestion = suggestion;
        self
    }
}

impl Mistakes {
    fn report(&self) -> String {
        let count = self.0.len();
        let title = format!(
            "{count} {} in the configuration",
            if count == 1 { "mistake" } else { "mistakes" }
        );
        self.0
            .iter()
            .fold(title, |report, mistake| format!("{report}\n\n{mistake}"))
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)?;
        if let Some(value) = &self.value {
            write!(f, " = {value}")?;
        }
        write!(f, "\n  {}", self.problem)?;
        if let Some(origin) = &self.origin {
            write!(f, "\n  set by: {origin}")?;
        }
        if let Some(accepted) = &self.accepted {
            write!(f, "\n  accepted: {accepted}")?;
        }
        if let Some(suggestion) = &self.suggestion {
            write!(f, "\n  did you mean {suggestion}?")?;
        }
        Ok(())
    }
}
